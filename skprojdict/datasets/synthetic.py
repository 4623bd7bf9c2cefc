# SPDX-License-Identifier: BSD-3-Clause
"""Sparse combinations of a known dictionary whose atoms fire without regard to each other."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skprojdict.datasets._draws import atoms, codes_where, coefficients, firing_probabilities, noisy
from skprojdict.solvers.norms import unit_rows

__all__ = ["make_ksvd_signals", "make_sparse_features"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_nonzero": [Interval(Real, 0, None, closed="neither")],
        "firing": [StrOptions({"fixed", "independent"})],
        "noise": [Interval(Real, 0, None, closed="left")],
        "zipf_exponent": [Interval(Real, 0, None, closed="left")],
        "magnitude_range": [tuple, list],
        "positive": ["boolean"],
        "dictionary": ["array-like", None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_sparse_features(
    n_samples=1000,
    *,
    n_features=32,
    n_components=64,
    n_nonzero=4,
    firing="fixed",
    noise=0.0,
    zipf_exponent=0.0,
    magnitude_range=(0.5, 1.5),
    positive=True,
    dictionary=None,
    random_state=None,
):
    """Make rows that are sparse combinations of a known dictionary of random unit atoms.

    ``X = codes @ dictionary + noise``. With more atoms than columns the features are in superposition: the fewer
    columns, the more the atoms overlap.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=32
        Number of columns.
    n_components : int, default=64
        Number of atoms.
    n_nonzero : int or float, default=4
        Atoms in each row; with ``firing="independent"`` their mean number, which need not be whole.
    firing : {"fixed", "independent"}, default="fixed"
        "fixed" draws ``n_nonzero`` atoms a row without replacement. "independent" lets every atom fire by itself, so
        that the number of atoms varies from row to row; none fires in more than half of the rows.
    noise : float, default=0.0
        Norm of the Gaussian noise relative to the clean rows (root mean squares over the data set).
    zipf_exponent : float, default=0.0
        Atom number r (from 1) is drawn with a weight of ``r ** -zipf_exponent``: 0 uses all alike, 1 is Zipf's law.
    magnitude_range : tuple of (float, float), default=(0.5, 1.5)
        Magnitudes of the coefficients are uniform between these.
    positive : bool, default=True
        Whether all coefficients are positive; else signs are random.
    dictionary : array of shape (n_components, n_features), default=None
        Atoms to use in place of random ones: those of an earlier call, with another ``random_state``, for more rows of
        the same truth; or, say, orthogonal ones.
    random_state : int, RandomState instance or None, default=None
        Decides everything.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X`` of shape (n_samples, n_features), ``dictionary`` of shape (n_components, n_features) with unit rows (the
        given one is returned as it is) and ``codes`` of shape (n_samples, n_components), all float64 ndarrays.

    Raises
    ------
    ValueError
        If a row cannot have ``n_nonzero`` atoms, or ``dictionary`` or ``magnitude_range`` do not fit.

    See Also
    --------
    make_correlated_features : Atoms that fire together.
    make_hierarchical_features : Atoms that imply each other.

    Examples
    --------
    >>> from skprojdict.datasets import make_sparse_features
    >>> data = make_sparse_features(100, n_features=16, n_components=24, n_nonzero=3, random_state=0)
    >>> data.X.shape, int((data.codes != 0).sum())
    ((100, 16), 300)

    256 features of very different frequency in 48 dimensions, about six a row, and rows held out of the same truth:

    >>> truth = {"n_features": 48, "n_components": 256, "n_nonzero": 6, "firing": "independent", "zipf_exponent": 1.0}
    >>> train = make_sparse_features(2000, **truth, random_state=0)
    >>> test = make_sparse_features(500, **truth, dictionary=train.dictionary, random_state=1)
    >>> round(float((train.codes != 0).sum(axis=1).mean()), 1)
    6.0
    """
    if firing == "fixed" and n_nonzero > n_components:
        raise ValueError(
            f"n_nonzero={n_nonzero} is larger than n_components={n_components}: a row has no more atoms to use."
        )
    if firing == "fixed" and n_nonzero != int(n_nonzero):
        raise ValueError(f"n_nonzero={n_nonzero} is not whole: round it, or set firing='independent'.")
    rng = check_random_state(random_state)
    dictionary = atoms(rng, n_components, n_features, dictionary)
    ranks = np.arange(1, n_components + 1)
    if firing == "independent":
        fires = rng.uniform(size=(n_samples, n_components)) < firing_probabilities(ranks, zipf_exponent, n_nonzero)
        codes = codes_where(rng, fires, magnitude_range, positive)
    else:
        # Drawing one after the other with these weights is the same as taking the first arrivals of independent
        # exponential clocks that tick at these rates.
        arrival = rng.exponential(size=(n_samples, n_components)) * ranks ** float(zipf_exponent)
        support = np.argpartition(arrival, int(n_nonzero) - 1, axis=1)[:, : int(n_nonzero)]
        codes = np.zeros((n_samples, n_components))
        np.put_along_axis(codes, support, coefficients(rng, support.shape, magnitude_range, positive), axis=1)
    return Bunch(X=noisy(rng, codes @ dictionary, noise), dictionary=dictionary, codes=codes)


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_nonzero": [Interval(Integral, 1, None, closed="left")],
        "snr": [Interval(Real, None, None, closed="both"), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_ksvd_signals(n_samples=1500, *, n_features=20, n_components=50, n_nonzero=3, snr=None, random_state=None):
    """Make the synthetic signals of the K-SVD paper.

    Atoms have entries uniform in [-1, 1] and are normalised; each signal is a sum of ``n_nonzero`` different atoms at
    random with coefficients uniform in [-1, 1], plus white noise.

    Parameters
    ----------
    n_samples : int, default=1500
        Number of signals (rows).
    n_features : int, default=20
        Length of a signal.
    n_components : int, default=50
        Number of atoms.
    n_nonzero : int, default=3
        Atoms in each signal.
    snr : float, default=None
        Signal-to-noise ratio of the whole data set in decibels: 10, 20 and 30 in the paper. None or infinity adds no
        noise.
    random_state : int, RandomState instance or None, default=None
        Decides everything.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X`` of shape (n_samples, n_features), ``dictionary`` of shape (n_components, n_features) with unit rows and
        ``codes`` of shape (n_samples, n_components), all float64 ndarrays.

    Raises
    ------
    ValueError
        If ``n_nonzero`` is larger than ``n_components``, or ``snr`` is NaN or minus infinity.

    References
    ----------
    Aharon, Elad and Bruckstein, "K-SVD: An algorithm for designing overcomplete dictionaries for sparse
    representation", IEEE Transactions on Signal Processing 54(11), 2006, section V-A.

    Examples
    --------
    >>> from skprojdict.datasets import make_ksvd_signals
    >>> data = make_ksvd_signals(snr=20.0, random_state=0)
    >>> data.X.shape, data.dictionary.shape
    ((1500, 20), (50, 20))
    """
    if n_nonzero > n_components:
        raise ValueError(
            f"n_nonzero={n_nonzero} is larger than n_components={n_components}: a signal has no more atoms to use."
        )
    if snr == -np.inf:
        raise ValueError(f"snr={snr} is no ratio in decibels: pass a finite number, or None for no noise.")
    # NumPy's newer generator, one row at a time: the signals behind the committed results of the recovery benchmark.
    if not isinstance(random_state, Integral):
        random_state = check_random_state(random_state).randint(2**31 - 1)
    rng = np.random.default_rng(random_state)
    dictionary = unit_rows(rng.uniform(-1, 1, (n_components, n_features)))
    codes = np.zeros((n_samples, n_components))
    for row in codes:
        row[rng.choice(n_components, n_nonzero, replace=False)] = rng.uniform(-1, 1, n_nonzero)
    X = codes @ dictionary
    if snr is not None and np.isfinite(snr):
        noise = rng.standard_normal(X.shape)
        X += noise * np.sqrt((X**2).sum() / (noise**2).sum() / 10 ** (snr / 10))
    return Bunch(X=X, dictionary=dictionary, codes=codes)
