# SPDX-License-Identifier: BSD-3-Clause
"""Norms of rows, also where their squares would overflow or vanish."""

from .._array import array_namespace


def row_norms(X):
    """Norms of the rows, (n,)."""
    rows, largest = _shrunk(X)
    return (largest * _norms(rows))[:, 0]


def unit_rows(X):
    """Rows divided by their norms; rows of norm 0 stay 0."""
    return normalised(X)[0]


def normalised(X):
    """Rows divided by their norms, rows of norm 0 staying 0, and the norms (n,)."""
    rows, largest = _shrunk(X)
    norms = _norms(rows)
    return rows / _or_one(norms), (largest * norms)[:, 0]


def _shrunk(X):
    """Rows divided by their largest entries, and these (n, 1)."""
    xp = array_namespace(X)
    largest = xp.max(xp.abs(X), axis=1, keepdims=True)
    return X / _or_one(largest), largest


def _norms(rows):
    xp = array_namespace(rows)
    return xp.sqrt(xp.sum(rows * rows, axis=1, keepdims=True))


def _or_one(values):
    xp = array_namespace(values)
    return xp.where(values > 0, values, xp.ones_like(values))
