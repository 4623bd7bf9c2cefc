# SPDX-License-Identifier: BSD-3-Clause
"""What every metric does with its arguments: checks, precision, blocks of rows, the library of the answer."""

import math
import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning

from .._array import array_namespace, asarray_like, device, is_numpy_namespace, to_numpy
from .._chunks import chunk_rows
from ..solvers import norms

# Rows of a table of cosines that are computed at once: 16384 atoms then need 64 MB, not 1 GB.
BLOCK = 1024
# Entries of dense codes that are looked at together.
BLOCK_ENTRIES = 2**22


def matrix(x, name):
    """``x`` as it came, or as a NumPy array where it is a nested list; 2-d and with at least one row."""
    if not sparse.issparse(x) and not hasattr(x, "shape"):
        x = np.asarray(x)
    if len(x.shape) != 2 or x.shape[0] == 0:
        raise ValueError(f"{name} must be 2-d with at least one row; got shape {tuple(x.shape)}.")
    return x


def floating(x):
    """``x`` in at least single precision: sums of squares overflow in float16 and in small integers."""
    xp = array_namespace(x)
    if xp.isdtype(x.dtype, (xp.float32, xp.float64)):
        return x
    return xp.astype(x, xp.float32)


def unit_rows(F):
    """Rows of norm 1, in at least single precision; rows of zeros stay."""
    return norms.unit_rows(floating(F))


def pair_of_dictionaries(F, F_true):
    """Both dictionaries; the known one follows the learned one to its library, device and dtype."""
    F, F_true = floating(matrix(F, "F")), matrix(F_true, "F_true")
    if F.shape[1] != F_true.shape[1]:
        raise ValueError(
            f"F has atoms of {F.shape[1]} entries and F_true of {F_true.shape[1]}: compare dictionaries of one space."
        )
    return F, asarray_like(to_numpy(F_true), F)


def pair_of_codes(Z, Z_true):
    """Both codes, of as many rows; sparse ones as CSR."""
    Z, Z_true = matrix(Z, "Z"), matrix(Z_true, "Z_true")
    if Z.shape[0] != Z_true.shape[0]:
        raise ValueError(f"Z has {Z.shape[0]} rows and Z_true {Z_true.shape[0]}: pass codes of the same rows.")
    return [each.tocsr() if sparse.issparse(each) else each for each in (Z, Z_true)]


def partners(matching, n_true, n_components):
    """``matching`` as NumPy integers: the atom of each true feature, or -1."""
    matching = to_numpy(matching)
    right = matching.shape == (n_true,) and (matching.size == 0 or matching.dtype.kind in "iu")
    if not right or not np.all((matching >= -1) & (matching < n_components)):
        raise ValueError(
            f"matching must hold, for each of the {n_true} true features, the index of one of the {n_components} atoms "
            f"or -1; got dtype {matching.dtype} and shape {matching.shape}. See skprojdict.metrics.match_atoms."
        )
    return matching.astype(np.int64)


def parent_of_each(parents, n_true):
    """``parents`` as NumPy integers: the parent of each true feature, or -1."""
    parents = to_numpy(parents)
    right = parents.shape == (n_true,) and (parents.size == 0 or parents.dtype.kind in "iu")
    if not right or not np.all((parents >= -1) & (parents < n_true)) or np.any(parents == np.arange(n_true)):
        raise ValueError(
            f"parents must hold, for each of the {n_true} true features, the index of another true feature or -1; got "
            f"dtype {parents.dtype} and shape {parents.shape}."
        )
    return parents.astype(np.int64)


def fires(Z):
    """Where dense codes are not zero."""
    xp = array_namespace(Z)
    return Z if xp.isdtype(Z.dtype, "bool") else Z != 0


def take_columns(Z, columns):
    """Columns of codes by a NumPy index; -1 asks for a column of zeros."""
    absent = columns < 0
    if sparse.issparse(Z):
        taken = Z.tocsc()[:, np.where(absent, 0, columns)]
        return (taken @ sparse.diags_array((~absent).astype(taken.dtype))).tocsr()
    xp = array_namespace(Z)
    taken = xp.take(Z, asarray_like(np.where(absent, 0, columns), Z, dtype=xp.int64), axis=1)
    if not absent.any():
        return taken
    return xp.where(asarray_like(absent, Z, dtype=xp.bool)[None, :], xp.zeros_like(taken), taken)


def row_blocks(*codes):
    """Dense blocks of the same rows of several codes, in the library of the first (NumPy where that is sparse)."""
    widest = max(1, *(each.shape[1] for each in codes))
    for rows in chunk_rows(codes[0].shape[0], 0, max(1, BLOCK_ENTRIES // widest), codes[0]):
        first = _dense(codes[0][rows, :])
        yield first, *(_beside(_dense(each[rows, :]), first) for each in codes[1:])


def firing(Z):
    """Where codes are not zero, column by column: ones in a SciPy CSC array of integers."""
    blocks = [sparse.csr_array(to_numpy(fires(z)).astype(np.int32)) for (z,) in row_blocks(Z)]
    return sparse.vstack(blocks, format="csc")


def take_rows(Z, rows, like=None):
    """Rows of codes by a NumPy index, dense, beside the array ``like``."""
    if sparse.issparse(Z):
        Z = Z[rows, :].toarray()
    else:
        xp = array_namespace(Z)
        Z = xp.take(Z, asarray_like(rows, Z, dtype=xp.int64), axis=0)
    return Z if like is None else _beside(Z, like)


def _dense(Z):
    return Z.toarray() if sparse.issparse(Z) else Z


def _beside(x, like):
    """``x`` in the library and on the device of ``like``; as booleans where it is boolean, else in its precision."""
    xp = array_namespace(like)
    dtype = floating(like).dtype
    if array_namespace(x) is xp and device(x) == device(like):
        return x if xp.isdtype(x.dtype, "bool") else xp.astype(x, dtype, copy=False)
    x = to_numpy(x)
    return asarray_like(x, like, dtype=xp.bool if x.dtype.kind == "b" else dtype)


def count(mask):
    """True entries of each column, as NumPy integers."""
    xp = array_namespace(mask)
    return to_numpy(xp.sum(xp.astype(mask, xp.int64), axis=0))


def follow(values, like):
    """NumPy numbers in the library, on the device and in the precision of ``like``; NumPy for sparse codes.

    Integers and booleans have no precision to follow: they give NumPy's float64, and float32 elsewhere.
    """
    if sparse.issparse(like):
        return np.asarray(values, dtype=np.float32 if like.dtype == np.float32 else np.float64)
    xp = array_namespace(like)
    if xp.isdtype(like.dtype, (xp.float32, xp.float64)):
        return asarray_like(values, like)
    double = is_numpy_namespace(xp) and like.dtype.kind in "biu"
    return asarray_like(values, like, dtype=xp.float64 if double else xp.float32)


def undefined(why):
    """NaN, with a warning that says what is missing; it points at the caller of the metric."""
    warnings.warn(f"{why} NaN is returned.", UndefinedMetricWarning, stacklevel=3)
    return math.nan


def mean_where_defined(values):
    """Mean of the entries that are not NaN, NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(np.mean(values)) if values.size else math.nan


def ratio(numerator, denominator):
    """Elementwise division of NumPy numbers; 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
