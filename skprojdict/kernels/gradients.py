# SPDX-License-Identifier: BSD-3-Clause
"""Passes over the matrices of a training step, compiled by Numba: each row is read and written once.

Importing this file needs the extra "numba".
"""

import math

from .compiling import compiled

_cached, _inner = compiled(), compiled(inner=True)


@_cached
def group_by_atom(indices, weights, ends, entries):
    """Sort the entries of sparse codes by atom, in order of row; those of weight 0 are left out.

    Parameters
    ----------
    indices, weights : arrays of shape (n, k)
        Entries that all of ``weights``, of shape (t, n, k), call 0 are left out.
    ends : int64 array of shape (p,)
        Zeros; receives where the entries of each atom end.
    entries : int64 array of shape (n k,)
        Receives the numbers ``i k + j`` of the entries, those of one atom after those of another.
    """
    n, k = indices.shape
    for i in range(n):
        for j in range(k):
            ends[indices[i, j]] += _counts(weights, i, j)
    start = 0
    for a in range(ends.shape[0]):
        start, ends[a] = start + ends[a], start
    for i in range(n):
        for j in range(k):
            if _counts(weights, i, j):
                a = indices[i, j]
                entries[ends[a]] = i * k + j
                ends[a] += 1


@_inner
def _counts(weights, i, j):
    for t in range(weights.shape[0]):
        if weights[t, i, j] != 0:
            return 1
    return 0


@_cached
def outer_rows(first, last, ends, entries, weights, values, out):
    """Rows ``first`` to ``last`` of ``sum_i sum_j w_ij (row indices_ij) r_i^T``, summed over terms.

    Parameters
    ----------
    first, last : int
        Atoms.
    ends, entries
        See :func:`group_by_atom`.
    weights : array of shape (t, n, k)
    values : array of shape (t, n, d)
        The rows r of each term.
    out : array of shape (p, d)
        Receives the rows.
    """
    n_terms, k, d = weights.shape[0], weights.shape[2], out.shape[1]
    start = ends[first - 1] if first else 0
    for a in range(first, last):
        row = out[a]
        for c in range(d):
            row[c] = 0
        for at in range(start, ends[a]):
            i, j = entries[at] // k, entries[at] % k
            for t in range(n_terms):
                weight, term = weights[t, i, j], values[t, i]
                for c in range(d):
                    row[c] += weight * term[c]
        start = ends[a]


@_cached
def straighten_rows(G, F, squares):
    """Take the part of each row of G along the same row of F off, in place; squared norms of what is left."""
    for a in range(F.shape[0]):
        g, f = G[a], F[a]
        along = g[0] * f[0]
        for c in range(1, g.shape[0]):
            along += g[c] * f[c]
        for c in range(g.shape[0]):
            g[c] -= along * f[c]
        squares[a] = _square(g)


@_cached
def square_rows(G, squares):
    """Squared norms of rows."""
    for a in range(G.shape[0]):
        squares[a] = _square(G[a])


@_inner
def _square(row):
    square = row[0] * row[0]
    for c in range(1, row.shape[0]):
        square += row[c] * row[c]
    return square


@_cached
def normalise_rows(F, least):
    """Divide rows by their norms, or by ``least`` where these are smaller, in place."""
    for a in range(F.shape[0]):
        f = F[a]
        norm = max(math.sqrt(_square(f)), least)
        for c in range(f.shape[0]):
            f[c] /= norm
