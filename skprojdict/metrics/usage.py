# SPDX-License-Identifier: BSD-3-Clause
"""How often the atoms are used, counted on codes."""

import math

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch

from .._array import array_namespace, to_numpy
from ._inputs import count, fires, floating, follow, matrix, ratio, row_blocks, undefined


def l0(Z):
    """Mean number of coefficients of a row that are not zero.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    l0 : float

    Examples
    --------
    >>> from skprojdict.metrics import l0
    >>> l0([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    1.5
    """
    Z = matrix(Z, "Z")
    if sparse.issparse(Z):
        return float(Z.count_nonzero()) / Z.shape[0]
    xp = array_namespace(Z)
    return float(xp.sum(xp.astype(fires(Z), xp.int64))) / Z.shape[0]


def n_unused(Z):
    """Count the atoms that no row uses.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    n_unused : int

    Examples
    --------
    >>> from skprojdict.metrics import n_unused
    >>> n_unused([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    1
    """
    return int(np.sum(_firing_rows(matrix(Z, "Z")) == 0))


def unused_share(Z):
    """Share of the atoms that no row uses, between 0 and 1.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    share : float

    Examples
    --------
    >>> from skprojdict.metrics import unused_share
    >>> unused_share([[0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    0.5
    """
    return float(np.mean(_firing_rows(matrix(Z, "Z")) == 0))


def firing_density(Z):
    """Share of the rows on which each atom fires.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    density : array of shape (n_components,)
        Between 0 and 1, in the library of ``Z`` (NumPy for sparse codes).

    Examples
    --------
    >>> from skprojdict.metrics import firing_density
    >>> firing_density([[1.0, 0.0, -2.0], [0.0, 0.0, 3.0]])
    array([0.5, 0. , 1. ])
    """
    Z = matrix(Z, "Z")
    return follow(_firing_rows(Z) / Z.shape[0], Z)


def firing_density_histogram(Z, *, n_bins=20):
    """Histogram of the base-10 logarithm of the firing densities.

    Healthy dictionaries show one hump. A second one at the left are atoms on their way out, at the right dense ones.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    n_bins : int, default=20
        Bins between one row in ``n_samples`` and every row, of equal width in the logarithm.

    Returns
    -------
    histogram : :class:`~sklearn.utils.Bunch`
        ``counts``
            NumPy array of shape (n_bins,): number of atoms.
        ``log10_edges``
            NumPy array of shape (n_bins + 1,): from ``-log10(n_samples)`` to 0.
        ``n_unused``
            Atoms that no row uses, which have no logarithm.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or ``n_bins`` is not positive.

    References
    ----------
    Bricken et al. (2023), Towards Monosemanticity: "feature density histograms".

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import firing_density_histogram
    >>> Z = np.tri(100, 4) * [1.0, 0.0, 1.0, 1.0]
    >>> Z[1:, 3] = 0.0
    >>> histogram = firing_density_histogram(Z, n_bins=2)
    >>> histogram.counts, histogram.log10_edges, histogram.n_unused
    (array([0, 2]), array([-2., -1.,  0.]), 2)
    """
    Z = matrix(Z, "Z")
    if Z.shape[0] < 2 or n_bins < 1:
        raise ValueError(f"A histogram needs two rows and one bin at least; got {Z.shape[0]} rows and n_bins={n_bins}.")
    rows = _firing_rows(Z)
    edges = np.linspace(-math.log10(Z.shape[0]), 0.0, n_bins + 1)
    # An atom of one row lies on the first edge, where rounding must not lose it.
    logarithms = np.clip(np.log10(rows[rows > 0] / Z.shape[0]), edges[0], 0.0)
    counts, _ = np.histogram(logarithms, edges)
    return Bunch(counts=counts, log10_edges=edges, n_unused=int(np.sum(rows == 0)))


def dense_share(Z, threshold=0.1):
    """Share of the atoms that fire on more than a given share of the rows.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    threshold : float, default=0.1
        The firing density above which an atom counts as dense.

    Returns
    -------
    share : float
        Between 0 and 1.

    Examples
    --------
    >>> from skprojdict.metrics import dense_share
    >>> dense_share([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], threshold=0.5)
    0.5
    """
    Z = matrix(Z, "Z")
    return float(np.mean(_firing_rows(Z) / Z.shape[0] > threshold))


def negative_share(Z):
    """Share of the coefficients that are negative, among those that are not zero.

    Encoders that rectify have none. A projection may give any sign, and a negative coefficient says that its atom is
    there to correct others, or that the feature has two directions.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    share : float
        NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where every coefficient is zero.

    Examples
    --------
    >>> from skprojdict.metrics import negative_share
    >>> negative_share([[1.0, 0.0, -2.0], [0.0, 5.0, 3.0]])
    0.25
    """
    Z = matrix(Z, "Z")
    if sparse.issparse(Z):
        active, negative = int(Z.count_nonzero()), int(np.sum(Z.tocoo().data < 0))
    else:
        xp = array_namespace(Z)
        active = int(xp.sum(xp.astype(fires(Z), xp.int64)))
        negative = int(xp.sum(xp.astype(floating(Z) < 0, xp.int64)))
    return negative / active if active else undefined("No coefficient is active, so none has a sign: pass other rows.")


def usage_per_feature(Z):
    """How often, how strongly and with which sign each atom is used.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    usage : :class:`~sklearn.utils.Bunch`
        Arrays of shape (n_components,), all but the first in the library of ``Z`` (NumPy for sparse codes). Averages
        over the rows on which the atom fires are 0 for an atom that never does.

        ``n_rows``
            NumPy array of int: rows on which the atom fires.
        ``density``
            The same as a share of the rows.
        ``mean``, ``mean_magnitude``
            Mean of the coefficient and of its absolute value, over the rows on which the atom fires.
        ``negative_share``
            Share of those rows on which the coefficient is negative.

    Examples
    --------
    >>> from skprojdict.metrics import usage_per_feature
    >>> usage = usage_per_feature([[1.0, 0.0, -2.0], [0.0, 0.0, 4.0]])
    >>> usage.n_rows, usage.mean, usage.mean_magnitude, usage.negative_share
    (array([1, 0, 2]), array([1., 0., 1.]), array([1., 0., 3.]), array([0. , 0. , 0.5]))
    """
    Z = matrix(Z, "Z")
    if sparse.issparse(Z):
        Z = Z.tocsr()
    n_rows, negative = np.zeros((2, Z.shape[1]), dtype=np.int64)
    total, magnitude = np.zeros((2, Z.shape[1]))
    for (z,) in row_blocks(Z):
        xp = array_namespace(z)
        values = floating(z)
        n_rows += count(fires(z))
        negative += count(values < 0)
        total += to_numpy(xp.sum(values, axis=0))
        magnitude += to_numpy(xp.sum(xp.abs(values), axis=0))
    return Bunch(
        n_rows=n_rows,
        density=follow(n_rows / Z.shape[0], Z),
        mean=follow(ratio(total, n_rows), Z),
        mean_magnitude=follow(ratio(magnitude, n_rows), Z),
        negative_share=follow(ratio(negative, n_rows), Z),
    )


def usage_summary(Z, *, dense_threshold=0.1):
    """The numbers on a code to look at first, as one dictionary of Python numbers.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    dense_threshold : float, default=0.1
        The firing density above which an atom counts as dense.

    Returns
    -------
    summary : dict
        ``l0`` (:func:`l0`), ``negative_share`` (:func:`negative_share`), ``n_unused`` and ``unused_share``
        (:func:`n_unused`), ``dense_share`` (:func:`dense_share`), and ``median_density`` of the atoms in use (NaN where
        none is).

    Examples
    --------
    >>> from skprojdict.metrics import usage_summary
    >>> usage_summary([[1.0, 0.0, -2.0, 0.0], [0.0, 0.0, 3.0, 1.0]])["l0"]
    2.0
    """
    Z = matrix(Z, "Z")
    density = _firing_rows(Z) / Z.shape[0]
    used = density[density > 0]
    return {
        "l0": l0(Z),
        "negative_share": negative_share(Z),
        "n_unused": n_unused(Z),
        "unused_share": unused_share(Z),
        "dense_share": float(np.mean(density > dense_threshold)),
        "median_density": float(np.median(used)) if used.size else math.nan,
    }


def _firing_rows(Z):
    """Number of rows on which each atom fires, as NumPy integers."""
    if sparse.issparse(Z):
        Z = Z.tocoo()
        # Stored zeros are not uses.
        return np.bincount(Z.coords[1][Z.data != 0], minlength=Z.shape[1])
    return count(fires(Z))
