# SPDX-License-Identifier: BSD-3-Clause
"""Dask arrays in, Dask arrays out: what the estimators do with a chunk when it is computed."""

import functools

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from ._array import asarray_like, to_numpy
from ._validation import check_sparse_output, validate_rows
from .sources import open_rows

# What a later fit would go on from, and nobody needs to code rows.
TRAINING_STATE = ("_trainer", "_learner", "history_", "_skl_callbacks")


def lazy_transform(estimator, X):
    """Codes of a Dask array as a Dask array of NumPy or CSR chunks; nothing is read but its shape."""
    check_is_fitted(estimator)
    if estimator.sparse_output:
        check_sparse_output(estimator.components_)
    rows = validate_rows(estimator, open_rows(X), reset=False)
    p, dtype = estimator.components_.shape[0], _numpy_dtype(estimator.components_)
    like = sparse.csr_array((0, p), dtype=dtype) if estimator.sparse_output else np.empty((0, p), dtype=dtype)
    return rows.map(functools.partial(_codes, _coder(estimator)), like, p)


def lazy_inverse_transform(estimator, Z):
    """Reconstructions of a Dask array of codes as a Dask array of NumPy chunks."""
    import dask

    check_is_fitted(estimator)
    p, d = estimator.components_.shape
    if Z.ndim != 2 or Z.shape[1] != p:
        estimator._wrong_codes(Z)
    dtype = _numpy_dtype(estimator.components_)
    Z = Z.rechunk({1: -1}) if len(Z.chunks[1]) > 1 else Z
    return Z.map_blocks(
        _rows,
        coder=dask.delayed(_coder(estimator), pure=False, traverse=False),
        chunks=(Z.chunks[0], (d,)),
        dtype=dtype,
        meta=np.empty((0, d), dtype=dtype),
    )


def _coder(estimator):
    """The estimator as it is now without its training state: small to send, and blind to what is set later."""
    coder = object.__new__(type(estimator))
    vars(coder).update({name: value for name, value in vars(estimator).items() if name not in TRAINING_STATE})
    vars(coder).pop("_sklearn_output_config", None)  # chunks are arrays whatever set_output asks for
    return coder


def _numpy_dtype(array):
    return np.dtype(str(array.dtype).rpartition(".")[2])


def _codes(coder, rows):
    rows = asarray_like(rows, coder.components_, dtype=coder.components_.dtype)
    codes = coder.transform(rows)
    return codes if sparse.issparse(codes) else to_numpy(codes)


def _rows(codes, coder):
    if not sparse.issparse(codes):
        codes = asarray_like(codes, coder.components_, dtype=coder.components_.dtype)
    return to_numpy(coder.inverse_transform(codes))
