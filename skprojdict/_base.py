# SPDX-License-Identifier: BSD-3-Clause
"""What the estimators share: codes in, codes out, score, names, tags."""

import math
import warnings
from abc import abstractmethod

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.validation import check_is_fitted

from ._array import align_sparse, array_namespace, asarray_like, check_same_namespace, device, scatter_rows, to_numpy
from ._chunks import map_chunks
from ._lazy import lazy_inverse_transform, lazy_transform
from ._portable import portable, restored
from ._validation import check_sparse_output, resolve_n_nonzero, validate_rows
from .sources import ForwardRows, RowSource, as_source, is_dask

# Scale and starting atoms are taken from at most this many rows (or one row an atom).
SAMPLE_ROWS = 16384
# Scores of all atoms are held for as many rows as fit this budget.
SCORE_BYTES = 64 * 2**20


class _BaseDictionary(CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Dictionary with unit-norm ``components_`` (p, d) and ``mean_`` (d,); a subclass codes rows in ``_code``."""

    @abstractmethod
    def _code(self, X, Y):
        """Codes of a chunk of rows: ``(indices, coefs)``, both (n, K), padded with coefficients 0."""

    def transform(self, X):
        """Sparse codes of X.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Rows to code, in the namespace and on the device of the training data; or what
            :func:`skprojdict.sources.open_rows` opens, which is read slab by slab.

        Returns
        -------
        codes : array or CSR of shape (n_samples, n_components)
            Dense in the namespace of X, or a SciPy CSR matrix with ``sparse_output=True``; float32 or float64. Of a
            Dask array a Dask array, not computed yet, with the dictionary as it is now. Codes that do not fit into
            memory are for :func:`skprojdict.sources.write_codes`.
        """
        if is_dask(X):
            return lazy_transform(self, X)
        X = self._validate_fitted(X, "transform")
        return self._assemble(X, self._chunks(X, None))

    def inverse_transform(self, Z):
        """Reconstruct rows from their codes: ``Z @ components_ + mean_``.

        Parameters
        ----------
        Z : array or sparse matrix of shape (n_samples, n_components)
            Codes. Of a Dask array a Dask array is returned.

        Returns
        -------
        X : array of shape (n_samples, n_targets)
        """
        if is_dask(Z):
            return lazy_inverse_transform(self, Z)
        check_is_fitted(self)
        if sp.issparse(Z):
            if Z.shape[1] != self.components_.shape[0]:
                self._wrong_codes(Z)
            return Z @ to_numpy(self.components_) + to_numpy(self.mean_)
        check_same_namespace(Z, self, attribute="components_", method="inverse_transform")
        xp = array_namespace(self.components_)
        Z = xp.asarray(to_numpy(Z) if not hasattr(Z, "__array_namespace__") and not hasattr(Z, "device") else Z)
        if Z.ndim != 2 or Z.shape[1] != self.components_.shape[0]:
            self._wrong_codes(Z)
        return xp.astype(Z, self.components_.dtype) @ self.components_ + self.mean_

    def _wrong_codes(self, Z):
        raise ValueError(
            f"Z must have one column for each of the {self.components_.shape[0]} atoms, got shape "
            f"{tuple(Z.shape)}. Pass what transform returns."
        )

    def score(self, X, y=None):
        """Share of the variance of X that its reconstruction explains.

        ``1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2`` with the mean of the scored rows (variance-weighted R^2). A
        larger ``n_components`` or ``n_nonzero_coefs`` always scores higher: to choose them, search by a downstream
        score, or by one that charges for active features.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Rows to score, or what :func:`skprojdict.sources.open_rows` opens.
        y : ignored

        Returns
        -------
        score : float
            NaN with a warning for a single row.
        """
        X = self._validate_fitted(X, "score")
        return self._explained(X, self._chunks(X, None))

    def _explained(self, Y, chunks, beside=None):
        """Variance-weighted R^2 of decoded chunks against Y, in one streaming pass.

        ``beside`` maps a slice of rows to what is added to their decoded codes; None: nothing is.
        """
        if Y.shape[0] < 2:
            warnings.warn(
                "score is not defined for fewer than 2 rows, got 1: it is NaN.", UndefinedMetricWarning, stacklevel=3
            )
            return math.nan
        xp = array_namespace(self.components_)
        n, error, second = Y.shape[0], 0.0, 0.0
        first = np.zeros(Y.shape[1])
        for rows, indices, coefs in chunks:
            centred = xp.astype(Y[rows, ...], self.components_.dtype) - self.mean_
            fitted = scatter_rows(indices, coefs, self.components_.shape[0]) @ self.components_
            if beside is not None:
                fitted = fitted + beside(rows)
            # In training units: squares of very large or very small data would overflow or vanish.
            centred = centred / self.scale_
            error += _energy(centred - fitted / self.scale_)
            second += _energy(centred)
            first += to_numpy(xp.sum(centred, axis=0)).astype(np.float64)
        total = second - float(first @ first) / n
        if total <= 0:
            return 1.0 if error == 0 else 0.0
        return float(1.0 - error / total)

    def _decode(self, X, chunks, beside=None):
        """Reconstructions of chunks of codes, one array; ``beside`` as in :meth:`_explained`."""
        xp = array_namespace(self.components_)
        shape = (X.shape[0], self.components_.shape[1])
        out = xp.zeros(shape, dtype=self.components_.dtype, device=device(self.components_))
        for rows, indices, coefs in chunks:
            decoded = scatter_rows(indices, coefs, self.components_.shape[0]) @ self.components_ + self.mean_
            out[rows, ...] = decoded if beside is None else decoded + beside(rows)
        return out

    def _chunks(self, X, Y):
        """Yield ``(rows, indices, coefs)`` over X, in chunks whose score matrix fits the memory budget.

        Where memory runs out all the same, once and with a warning in smaller ones.
        """
        xp = array_namespace(self.components_)
        dtype = self.components_.dtype
        p, d = self.components_.shape
        row_bytes = (p + 4 * (d + self.n_features_in_)) * xp.finfo(dtype).bits // 8  # scores, and the row's own copies

        def code(rows):
            X_part, Y_part = (None if Z is None else xp.astype(Z[rows, ...], dtype, copy=False) for Z in (X, Y))
            return self._code(X_part, Y_part)

        for rows, codes in map_chunks(code, X.shape[0], max(1, SCORE_BYTES // row_bytes)):
            yield rows, *codes

    def _assemble(self, X, chunks):
        """One code array, dense or CSR, from chunks of codes."""
        n, p = X.shape[0], self.components_.shape[0]
        if self.sparse_output:
            check_sparse_output(self.components_)
            return align_sparse(_csr(chunks, n, p, self.components_.dtype))
        xp = array_namespace(self.components_)
        codes = xp.zeros((n, p), dtype=self.components_.dtype, device=device(self.components_))
        for rows, indices, coefs in chunks:
            codes[rows, ...] = scatter_rows(indices, coefs, p)
        return codes

    def _validate_fitted(self, X, method):
        """Validate rows for a fitted estimator's method."""
        check_is_fitted(self)
        X = as_source(X)
        if isinstance(X, RowSource):  # its rows come to where the dictionary is
            like = self.components_
            return ForwardRows(
                validate_rows(self, X, reset=False), lambda rows: asarray_like(rows, like, dtype=like.dtype)
            )
        check_same_namespace(X, self, attribute="components_", method=method)
        return validate_rows(self, X, reset=False)

    def __getstate__(self):
        return {name: portable(value) for name, value in super().__getstate__().items()}

    def __setstate__(self, state):
        super().__setstate__({name: restored(value) for name, value in state.items()})

    @property
    def _k(self):
        """Atoms a row, from the parameter as it is now: it may change between fit and transform."""
        return resolve_n_nonzero(self.n_nonzero_coefs, *self.components_.shape, warn=False)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = not self.sparse_output  # CSR exists for NumPy only
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class _Patience:
    """Stop after five iterations in a row that do not lower the best loss by ``tol`` of itself; tol=0 never stops."""

    def __init__(self, tol, n_iter_no_change=5):
        self.tol, self.limit = tol, n_iter_no_change
        self.best, self.waited = math.inf, 0

    def exhausted(self, loss):
        """Whether the loss has stopped falling, told the newest one."""
        if loss < self.best * (1 - self.tol):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        return self.tol > 0 and self.waited >= self.limit


def _energy(rows):
    """Sum of squares as a Python float, accumulated in float64 over rows."""
    xp = array_namespace(rows)
    return float(np.sum(to_numpy(xp.sum(rows * rows, axis=1)), dtype=np.float64))


def _csr(chunks, n, p, dtype):
    """CSR codes from chunks, in memory proportional to the number of nonzeros."""
    data, columns, counts = [], [], []
    for _, indices, coefs in chunks:
        order = np.argsort(indices, axis=1, kind="stable")
        indices = np.take_along_axis(indices, order, axis=1)
        coefs = np.take_along_axis(coefs, order, axis=1)
        keep = coefs != 0
        data.append(coefs[keep])
        columns.append(indices[keep].astype(np.int32 if p < 2**31 else np.int64))
        counts.append(keep.sum(axis=1))
    indptr = np.zeros(n + 1, dtype=np.int64)
    if counts:
        np.cumsum(np.concatenate(counts), out=indptr[1:])
        values, positions = np.concatenate(data), np.concatenate(columns)
    else:
        values, positions = np.zeros(0, dtype=dtype), np.zeros(0, dtype=np.int32)
    return sp.csr_array((values, positions, indptr), shape=(n, p))
