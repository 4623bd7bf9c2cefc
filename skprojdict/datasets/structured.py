# SPDX-License-Identifier: BSD-3-Clause
"""Sparse combinations of a known dictionary whose atoms fire together, or imply each other."""

from numbers import Integral, Real

import numpy as np
from scipy.special import ndtri
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from skprojdict.datasets._draws import atoms, codes_where, firing_probabilities, noisy

__all__ = ["make_correlated_features", "make_hierarchical_features"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_nonzero": [Interval(Real, 0, None, closed="neither")],
        "correlation": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "zipf_exponent": [Interval(Real, 0, None, closed="left")],
        "magnitude_range": [tuple, list],
        "positive": ["boolean"],
        "dictionary": ["array-like", None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_correlated_features(
    n_samples=1000,
    *,
    n_features=96,
    n_components=256,
    n_nonzero=6.0,
    correlation=0.5,
    block_size=8,
    noise=0.0,
    zipf_exponent=1.0,
    magnitude_range=(0.5, 1.5),
    positive=True,
    dictionary=None,
    random_state=None,
):
    """Make rows whose features fire together more often than chance, or less.

    ``X = codes @ dictionary + noise``. Which atoms fire follows a Gaussian copula: atom i is on where the standard
    normal variable g_i, correlated with the others as asked, is below the quantile of its firing probability. The
    probabilities are therefore those of independent atoms, whatever the correlation. A learner that may use fewer
    atoms than fire mixes atoms which often come together.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=96
        Number of columns.
    n_components : int, default=256
        Number of atoms.
    n_nonzero : float, default=6.0
        Mean number of atoms in a row.
    correlation : float or array of shape (n_components, n_components), default=0.5
        Correlation of the normal variables: one number from 0 to below 1 for atoms of the same block, and 0 between
        blocks; or the whole matrix, with a unit diagonal and no negative eigenvalue.
    block_size : int, default=8
        Atoms in a block, numbers next to each other and so of similar frequency. Ignored where ``correlation`` is a
        matrix.
    noise : float, default=0.0
        Norm of the Gaussian noise relative to the clean rows (root mean squares over the data set).
    zipf_exponent : float, default=1.0
        Atom number r (from 1) fires in proportion to ``r ** -zipf_exponent``, but in no more than half of the rows.
    magnitude_range : tuple of (float, float), default=(0.5, 1.5)
        Magnitudes of the coefficients are uniform between these.
    positive : bool, default=True
        Whether all coefficients are positive; else signs are random.
    dictionary : array of shape (n_components, n_features), default=None
        Atoms to use in place of random unit ones: those of an earlier call, with another ``random_state``, for more
        rows of the same truth.
    random_state : int, RandomState instance or None, default=None
        Decides everything.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X`` of shape (n_samples, n_features), ``dictionary`` of shape (n_components, n_features), ``codes`` of shape
        (n_samples, n_components) and ``probabilities`` of shape (n_components,), how often each atom fires in the
        mean; float64 ndarrays.

    Raises
    ------
    ValueError
        If ``correlation`` is not a correlation matrix, a row cannot have ``n_nonzero`` atoms, or ``dictionary`` or
        ``magnitude_range`` do not fit.

    References
    ----------
    Chanin and Garriga-Alonso, "Sparse but wrong: incorrect L0 leads to incorrect features in sparse autoencoders",
    arXiv:2508.16560, 2025, use such features.

    Examples
    --------
    Two atoms of one block come together far more often than two of different blocks:

    >>> from skprojdict.datasets import make_correlated_features
    >>> on = make_correlated_features(5000, correlation=0.9, zipf_exponent=0.0, random_state=0).codes != 0
    >>> round(float((on[:, 0] & on[:, 1]).mean() / on[:, 0].mean()), 1)
    0.6
    >>> round(float((on[:, 0] & on[:, 8]).mean() / on[:, 0].mean()), 1)
    0.0
    """
    rng = check_random_state(random_state)
    dictionary = atoms(rng, n_components, n_features, dictionary)
    probabilities = firing_probabilities(np.arange(1, n_components + 1), zipf_exponent, n_nonzero)
    normal = rng.standard_normal((n_samples, n_components))
    if np.ndim(correlation) == 0:
        blocks = np.arange(n_components) // block_size
        shared = rng.standard_normal((n_samples, blocks[-1] + 1))[:, blocks]
        normal = np.sqrt(1 - correlation) * normal + np.sqrt(correlation) * shared
    else:
        normal = normal @ _root(correlation, n_components)
    codes = codes_where(rng, normal < ndtri(probabilities), magnitude_range, positive)
    X = noisy(rng, codes @ dictionary, noise)
    return Bunch(X=X, dictionary=dictionary, codes=codes, probabilities=probabilities)


def _root(correlation, n_components):
    """Return the symmetric square root of a correlation matrix."""
    correlation = np.asarray(correlation, dtype=np.float64)
    if correlation.shape != (n_components, n_components):
        raise ValueError(
            f"correlation has shape {correlation.shape}: pass one number, or a matrix of shape "
            f"{(n_components, n_components)} for n_components={n_components}."
        )
    if not (np.allclose(correlation, correlation.T) and np.allclose(np.diagonal(correlation), 1.0)):
        raise ValueError("correlation must be a symmetric matrix with a diagonal of ones: divide it by its scales.")
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < -1e-8:
        raise ValueError(
            f"correlation has a negative eigenvalue, {values[0]:.2g}, so no variables are correlated like that: clip "
            "its eigenvalues at 0 and restore the diagonal of ones."
        )
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_parents": [Interval(Integral, 1, None, closed="left")],
        "n_children": [Interval(Integral, 1, None, closed="left")],
        "n_independent": [Interval(Integral, 0, None, closed="left")],
        "n_nonzero": [Interval(Real, 0, None, closed="neither")],
        "child_probability": [Interval(Real, 0, 1, closed="right")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "zipf_exponent": [Interval(Real, 0, None, closed="left")],
        "magnitude_range": [tuple, list],
        "positive": ["boolean"],
        "dictionary": ["array-like", None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_hierarchical_features(
    n_samples=1000,
    *,
    n_features=96,
    n_parents=32,
    n_children=3,
    n_independent=128,
    n_nonzero=6.0,
    child_probability=0.2,
    noise=0.0,
    zipf_exponent=1.0,
    magnitude_range=(0.5, 1.5),
    positive=True,
    dictionary=None,
    random_state=None,
):
    """Make rows in which some features imply others, so that a sparse code is tempted to absorb them.

    ``X = codes @ dictionary + noise``. Where a parent fires, at most one of its children does, each with
    ``child_probability``; a child never fires without its parent. A learner saves a coefficient by an atom that is the
    sum of child and parent, used where the child is on, and a parent's atom that stays silent there: feature
    absorption. The other atoms are independent.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=96
        Number of columns.
    n_parents : int, default=32
        Atoms that have children: numbers 0 to ``n_parents - 1``.
    n_children : int, default=3
        Children of each parent, which exclude each other: those of parent i are numbers
        ``n_parents + i * n_children`` and the following.
    n_independent : int, default=128
        Atoms without relatives, the last ones.
    n_nonzero : float, default=6.0
        Mean number of atoms in a row, of all kinds.
    child_probability : float, default=0.2
        How often a given child is on where its parent is; at most ``1 / n_children``.
    noise : float, default=0.0
        Norm of the Gaussian noise relative to the clean rows (root mean squares over the data set).
    zipf_exponent : float, default=1.0
        The parents and independent atoms, ranked alternately, fire in proportion to ``rank ** -zipf_exponent``, but
        in no more than half of the rows.
    magnitude_range : tuple of (float, float), default=(0.5, 1.5)
        Magnitudes of the coefficients are uniform between these.
    positive : bool, default=True
        Whether all coefficients are positive; else signs are random.
    dictionary : array of shape (n_parents * (1 + n_children) + n_independent, n_features), default=None
        Atoms to use in place of random unit ones: those of an earlier call, with another ``random_state``, for more
        rows of the same truth; or, say, orthogonal ones.
    random_state : int, RandomState instance or None, default=None
        Decides everything.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X`` of shape (n_samples, n_features), ``dictionary`` of shape (n_components, n_features), ``codes`` of shape
        (n_samples, n_components), ``probabilities`` of shape (n_components,), how often each atom fires in the mean
        (float64), and ``parents`` of shape (n_components,), int64: the number of each atom's parent, -1 where it has
        none.

    Raises
    ------
    ValueError
        If the children of a parent would fire more often than it does, a row cannot have ``n_nonzero`` atoms, or
        ``dictionary`` or ``magnitude_range`` do not fit.

    References
    ----------
    Chanin et al., "A is for absorption: studying feature splitting and absorption in sparse autoencoders",
    arXiv:2409.14507, 2024; Bussmann et al., "Learning multi-level features with Matryoshka sparse autoencoders",
    arXiv:2503.17547, 2025, for a small tree of the same kind.

    Examples
    --------
    >>> from skprojdict.datasets import make_hierarchical_features
    >>> data = make_hierarchical_features(2000, random_state=0)
    >>> data.codes.shape, data.parents[[0, 32, 33, 34, 35, 255]].tolist()
    ((2000, 256), [-1, 0, 0, 0, 1, -1])
    >>> on = data.codes != 0
    >>> bool((on[:, 32] <= on[:, 0]).all())
    True
    """
    if child_probability * n_children > 1 + 1e-12:
        raise ValueError(
            f"child_probability={child_probability} is more than 1 / n_children = {1 / n_children:.3g}, and children "
            "exclude each other: lower one of the two."
        )
    rng = check_random_state(random_state)
    n_descendants = n_parents * n_children
    dictionary = atoms(rng, n_parents + n_descendants + n_independent, n_features, dictionary)
    # Both kinds are spread evenly over the ranks, or the comparison of parents with the rest would be one of
    # frequencies.
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in (n_parents, n_independent) if n])
    ranks = np.empty(place.size)
    ranks[np.argsort(place, kind="stable")] = np.arange(1, place.size + 1)
    family = np.ones(place.size)
    family[:n_parents] += n_children * child_probability
    roots = firing_probabilities(ranks, zipf_exponent, n_nonzero, family)
    root_fires = rng.uniform(size=(n_samples, roots.size)) < roots
    # One number decides which child it is, if any: child j where it falls into the j-th interval.
    drawn = np.floor(rng.uniform(size=(n_samples, n_parents)) / child_probability)
    child_fires = root_fires[:, :n_parents, None] & (drawn[:, :, None] == np.arange(n_children))
    fires = np.concatenate(
        [root_fires[:, :n_parents], child_fires.reshape(n_samples, n_descendants), root_fires[:, n_parents:]], axis=1
    )
    codes = codes_where(rng, fires, magnitude_range, positive)
    children = np.repeat(np.arange(n_parents), n_children)
    parents = np.concatenate([np.full(n_parents, -1), children, np.full(n_independent, -1)]).astype(np.int64)
    probabilities = np.concatenate([roots[:n_parents], child_probability * roots[children], roots[n_parents:]])
    X = noisy(rng, codes @ dictionary, noise)
    return Bunch(X=X, dictionary=dictionary, codes=codes, probabilities=probabilities, parents=parents)
