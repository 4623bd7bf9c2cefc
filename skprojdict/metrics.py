# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that judge a dictionary: fidelity, sparsity, use of the atoms, and recovery of a known dictionary.

Every function takes NumPy, torch or CuPy arrays (codes also as SciPy sparse matrices), computes in their
own precision on their own device, and returns a Python number.
"""

import math
import warnings

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import UndefinedMetricWarning

from skprojdict._array import array_namespace, asarray_like, chunk_rows, to_numpy

__all__ = [
    "fraction_of_variance_unexplained",
    "l0",
    "mean_correlation_after_matching",
    "mean_max_cosine_similarity",
    "mutual_coherence",
    "n_unused",
    "unused_share",
]


def fraction_of_variance_unexplained(Y, Y_hat):
    """``sum ||y - y_hat||^2 / sum ||y - y_bar||^2`` over the rows, with y_bar the mean row of ``Y``.

    It is one minus the variance-weighted R^2: 0 for a perfect reconstruction, 1 for a constant one.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        What was to be reconstructed.
    Y_hat : array of shape (n_samples, n_targets)
        The reconstruction.

    Returns
    -------
    fvu : float
        NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where the rows of ``Y`` do not vary.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import fraction_of_variance_unexplained
    >>> fraction_of_variance_unexplained(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    Y, Y_hat = _floating(_matrix(Y, "Y")), _floating(_matrix(Y_hat, "Y_hat"))
    if tuple(Y.shape) != tuple(Y_hat.shape):
        raise ValueError(f"Y has shape {tuple(Y.shape)} and Y_hat {tuple(Y_hat.shape)}: pass arrays of one shape.")
    xp = array_namespace(Y, Y_hat)
    total = float(xp.sum((Y - xp.mean(Y, axis=0)) ** 2))
    if total == 0.0:
        warnings.warn(
            "The rows of Y do not vary, so the fraction of variance unexplained is undefined: pass two different "
            "rows at least. NaN is returned.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return math.nan
    return float(xp.sum((Y - Y_hat) ** 2)) / total


def l0(Z):
    """Mean number of coefficients of a row that are not zero.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    l0 : float
    """
    Z = _matrix(Z, "Z")
    if sparse.issparse(Z):
        return float(Z.count_nonzero()) / Z.shape[0]
    xp = array_namespace(Z)
    return float(xp.sum(xp.astype(Z != 0, xp.int64))) / Z.shape[0]


def n_unused(Z):
    """Count the atoms that no row uses.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    n_unused : int
    """
    Z = _matrix(Z, "Z")
    if sparse.issparse(Z):
        Z = Z.tocoo()
        # Stored zeros are not uses.
        return int(Z.shape[1] - np.unique(Z.coords[1][Z.data != 0]).size)
    xp = array_namespace(Z)
    return int(Z.shape[1]) - int(xp.sum(xp.astype(xp.any(Z != 0, axis=0), xp.int64)))


def unused_share(Z):
    """Share of the atoms that no row uses, between 0 and 1.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    share : float
    """
    return n_unused(Z) / Z.shape[1]


def mutual_coherence(F):
    """Largest absolute cosine between two different atoms.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The dictionary, one atom a row, of any norm. An atom of zeros has cosine 0 with every other.

    Returns
    -------
    coherence : float
        Between 0 (orthogonal atoms, or a single one) and 1.
    """
    F = _unit_rows(_matrix(F, "F"))
    xp = array_namespace(F)
    largest = 0.0
    for block in chunk_rows(F.shape[0], 0, _BLOCK, F):
        cosines = xp.abs(F[block, :] @ F.T)
        rows = xp.arange(block.start, block.stop, device=cosines.device)[:, None]
        columns = xp.arange(cosines.shape[1], device=cosines.device)[None, :]
        largest = max(largest, float(xp.max(xp.where(rows == columns, xp.zeros_like(cosines), cosines))))
    return min(largest, 1.0)


def mean_max_cosine_similarity(F, F_true, *, signed=False):
    """For each true atom the best cosine that any learned atom reaches, averaged over the true atoms.

    Two true atoms may share one learned atom; :func:`mean_correlation_after_matching` forbids that.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different. False suits codes of either sign.

    Returns
    -------
    similarity : float
        1 if every true atom was found.
    """
    F, F_true = _dictionaries(F, F_true)
    xp = array_namespace(F, F_true)
    total = 0.0
    for block in chunk_rows(F_true.shape[0], 0, _BLOCK, F_true):
        cosines = F_true[block, :] @ F.T
        total += float(xp.sum(xp.max(cosines if signed else xp.abs(cosines), axis=1)))
    return total / F_true.shape[0]


def mean_correlation_after_matching(F, F_true, *, signed=False):
    """Mean cosine between true atoms and learned atoms after the best one-to-one matching (Hungarian algorithm).

    Known as the mean correlation coefficient, MCC. A true atom left without a partner, where the learned dictionary is
    the smaller, counts as 0.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different.

    Returns
    -------
    correlation : float
        1 if every true atom was found once.
    """
    F, F_true = _dictionaries(F, F_true)
    # The assignment is SciPy's, so the (n_true, n_components) table of cosines goes to the CPU.
    cosines = to_numpy(F_true @ F.T)
    cosines = cosines if signed else np.abs(cosines)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float(np.sum(cosines[rows, columns], dtype=np.float64)) / cosines.shape[0]


# Rows of a table of cosines that are computed at once: 16384 atoms then need 64 MB, not 1 GB.
_BLOCK = 1024


def _matrix(x, name):
    """``x`` as it came, or as a NumPy array where it is a nested list; 2-d and with at least one row."""
    if not sparse.issparse(x) and not hasattr(x, "shape"):
        x = np.asarray(x)
    if len(x.shape) != 2 or x.shape[0] == 0:
        raise ValueError(f"{name} must be 2-d with at least one row; got shape {tuple(x.shape)}.")
    return x


def _floating(x):
    """``x`` in at least single precision: sums of squares overflow in float16 and in small integers."""
    xp = array_namespace(x)
    if xp.isdtype(x.dtype, (xp.float32, xp.float64)):
        return x
    return xp.astype(x, xp.float32)


def _unit_rows(F):
    F = _floating(F)
    xp = array_namespace(F)
    norms = xp.sqrt(xp.sum(F * F, axis=1, keepdims=True))
    return F / xp.where(norms == 0, xp.ones_like(norms), norms)


def _dictionaries(F, F_true):
    """Both dictionaries with unit rows; the known one follows the learned one to its library, device and dtype."""
    F, F_true = _unit_rows(_matrix(F, "F")), _matrix(F_true, "F_true")
    if F.shape[1] != F_true.shape[1]:
        raise ValueError(
            f"F has atoms of {F.shape[1]} entries and F_true of {F_true.shape[1]}: compare dictionaries of one space."
        )
    return F, _unit_rows(asarray_like(to_numpy(F_true), F))
