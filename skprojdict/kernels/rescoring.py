# SPDX-License-Identifier: BSD-3-Clause
"""Scores from a product in low precision, the best of them in full precision, compiled by Numba.

What it does to a row is written down in ``solvers/select.py``, as operations on arrays. Importing this file needs the
extra "numba".
"""

import numpy as np

from .compiling import compiled
from .largest import list_largest
from .systems import products_of
from .vectors import added, lanes_of, load, store, widened

_cached, _inner = compiled(), compiled(inner=True)


@_inner
def _widen(low, at, shift, scores):
    """A row of scores: the numbers of single precision whose upper halves begin at ``low[at]``, and the shift."""
    p, lanes = shift.shape[0], lanes_of(scores)
    for start in range(0, p, lanes):
        j = min(start, p - lanes)  # the last vector may say again what the one before it has said
        store(scores, at + j, added(widened(low, at + j), load(shift, j)))


@_inner
def _hold(values, bound):
    """Hold all values at the bound."""
    for j in range(values.shape[0]):
        values[j] = bound if values[j] > bound else values[j]


@_cached
def rescore_rows(A, E, shift, low, n_again, best, scores):
    """Scores of rows A from their products with all atoms in bfloat16, the best ones computed again.

    Parameters
    ----------
    A, E, shift : arrays of shape (n, m), (p, m), (p,)
        Of which scores are ``A E^T + shift``; p at least 16.
    low : int16 array of shape (n, p)
        The bits of the products.
    n_again : int
        How many of the largest are computed again. All others come out smaller than these.
    best : array of shape (n_columns(p, n_again),)
        Room.
    scores : float32 array of shape (n, p)
        Receives the scores.
    """
    p, below = E.shape[0], scores.dtype.type(-np.inf)
    found, place = np.empty(p + 1, scores.dtype), np.empty(p + 1, np.int64)
    for i in range(A.shape[0]):
        row = scores[i]
        _widen(low, i * p, shift, scores)
        if not list_largest(row, n_again, best, found, place):
            continue  # what is not a number stays where it is, and tells of a bad row
        products_of(E, place, n_again, A[i], found)
        bound = found[0] + shift[place[0]]
        for u in range(n_again):
            found[u] += shift[place[u]]
            bound = found[u] if found[u] < bound else bound
        _hold(row, np.nextafter(bound, below))
        for u in range(n_again):
            row[place[u]] = found[u]
