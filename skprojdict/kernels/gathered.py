# SPDX-License-Identifier: BSD-3-Clause
"""The atoms of one row, compiled by Numba: gathered once, with their Gram matrix, and least squares on some of them.

Importing this file needs the extra "numba".
"""

from typing import Any, NamedTuple

import numpy as np

from .blocks import SIDE
from .compiling import compiled
from .sweeping import clear, make_system, matrix, padded, solve, sweep
from .vectors import filled, fused, lanes_of, load, put_totals, store

# NaN keeps its meaning: it tells of a bad row.
_inner = compiled(inner=True)
# Atoms that are multiplied together.
BLOCK = 4


class Room(NamedTuple):
    """Memory for the system of one row, which serves all of them."""

    X: Any  # gathered atoms, padded with zeros to whole vectors
    y: Any  # the target, padded likewise, and what is left over of it
    r: Any
    G: Any  # Gram matrix of the atoms
    b: Any  # inner products of atoms and target
    A: Any  # system, then its negative inverse; last the right-hand side, then the solution
    level: Any  # what each pivot is compared with
    space: Any  # to work at A in
    penalty: Any  # of the elimination: added to the diagonal
    diagonal: Any  # diagonal and solution now, criterion, a row of the inverse, changes
    beta: Any
    value: Any
    row: Any
    shares: Any
    changes: Any
    members: Any  # numbers of the atoms that take part
    everyone: Any


@_inner
def make_room(K, n_removed, d, like):
    """Room for K atoms of d numbers, of which so many are to be eliminated, in the dtype of ``like``."""
    kind, lanes = like.dtype, lanes_of(like)
    long = padded(d, lanes)
    A, space = make_system(K, like)
    tall, wide = A.shape
    X, G = matrix(padded(K, BLOCK), long, like), matrix(tall, wide, like)
    y, r, b, level = np.zeros(long, kind), np.zeros(long, kind), np.zeros(wide, kind), np.ones(wide, kind)
    diagonal, beta, value = np.ones(wide, kind), np.zeros(wide, kind), np.zeros(wide, kind)
    penalty, row, shares = np.zeros(wide, kind), np.zeros(wide, kind), np.zeros(wide, kind)
    changes = matrix(max(1, n_removed), wide, like)
    members, everyone = np.zeros(wide, np.int64), np.arange(wide)
    systems = X, y, r, G, b, A, level, space
    return Room(*systems, penalty, diagonal, beta, value, row, shares, changes, members, everyone)


@_inner
def put(values, m, out):
    """Copy m numbers; NumPy's own assignment takes seconds to compile."""
    for j in range(m):
        out[j] = values[j]


# ---- atoms


@_inner
def gather(F, indices, start, m, X):
    """Copy the atoms ``indices[start:m]`` to the same rows of X; the rows after them, up to whole blocks, are 0."""
    d = F.shape[1]
    for u in range(start, m):
        put(F[indices[u]], d, X[u])
    clear(X, m, padded(m, BLOCK))


@_inner
def gram(X, start, m, G):
    """Inner products of rows ``start`` to m of X, both multiples of four, with themselves and those before."""
    size, lanes = X.shape[1], lanes_of(X)
    zero = filled(X.dtype.type(0))
    for i in range(start, m, BLOCK):
        for j in range(0, i + BLOCK, BLOCK):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
            for a in range(0, size, lanes):
                x, y = i * size + a, j * size + a
                x0, x1, x2, x3 = load(X, x), load(X, x + size), load(X, x + 2 * size), load(X, x + 3 * size)
                v = load(X, y)
                a0, b0, c0, d0 = fused(x0, v, a0), fused(x1, v, b0), fused(x2, v, c0), fused(x3, v, d0)
                v = load(X, y + size)
                a1, b1, c1, d1 = fused(x0, v, a1), fused(x1, v, b1), fused(x2, v, c1), fused(x3, v, d1)
                v = load(X, y + 2 * size)
                a2, b2, c2, d2 = fused(x0, v, a2), fused(x1, v, b2), fused(x2, v, c2), fused(x3, v, d2)
                v = load(X, y + 3 * size)
                a3, b3, c3, d3 = fused(x0, v, a3), fused(x1, v, b3), fused(x2, v, c3), fused(x3, v, d3)
            at = i * G.shape[1] + j
            put_totals(G, at, a0, a1, a2, a3)
            put_totals(G, at + G.shape[1], b0, b1, b2, b3)
            put_totals(G, at + 2 * G.shape[1], c0, c1, c2, c3)
            put_totals(G, at + 3 * G.shape[1], d0, d1, d2, d3)


@_inner
def correlate(X, rows, start, m, y, out):
    """``out[u] = <X[rows[u]], y>`` for u from ``start`` to m, and a few more up to whole blocks."""
    size, lanes = X.shape[1], lanes_of(X)
    zero = filled(X.dtype.type(0))
    for u in range(start, m, BLOCK):
        at, last = rows[u] * size, m - 1
        at1, at2, at3 = rows[min(u + 1, last)] * size, rows[min(u + 2, last)] * size, rows[min(u + 3, last)] * size
        a0 = a1 = a2 = a3 = zero
        for a in range(0, size, lanes):
            v = load(y, a)
            a0, a1 = fused(load(X, at + a), v, a0), fused(load(X, at1 + a), v, a1)
            a2, a3 = fused(load(X, at2 + a), v, a2), fused(load(X, at3 + a), v, a3)
        put_totals(out, u, a0, a1, a2, a3)


@_inner
def combine(X, rows, m, beta, out):
    """``out = sum_u beta_u X[rows[u]]``, m terms."""
    size, lanes = X.shape[1], lanes_of(X)
    whole = size // (BLOCK * lanes) * BLOCK * lanes
    zero = filled(X.dtype.type(0))
    for a in range(0, whole, BLOCK * lanes):  # four sums at a time: one would wait for itself
        x0 = x1 = x2 = x3 = zero
        for u in range(m):
            f, at = filled(beta[u]), rows[u] * size + a
            x0, x1 = fused(f, load(X, at), x0), fused(f, load(X, at + lanes), x1)
            x2, x3 = fused(f, load(X, at + 2 * lanes), x2), fused(f, load(X, at + 3 * lanes), x3)
        store(out, a, x0)
        store(out, a + lanes, x1)
        store(out, a + 2 * lanes, x2)
        store(out, a + 3 * lanes, x3)
    for a in range(whole, size, lanes):
        x0 = zero
        for u in range(m):
            x0 = fused(filled(beta[u]), load(X, rows[u] * size + a), x0)
        store(out, a, x0)


@_inner
def left_over(X, rows, m, beta, y, r):
    """``r = y - sum_u beta_u X[rows[u]]``, m terms."""
    combine(X, rows, m, beta, r)
    for a in range(r.shape[0]):
        r[a] = y[a] - r[a]


@_inner
def _apply(A, m, b, out):
    """``out = A^-1 b`` from what ``sweep`` has made of A."""
    for i in range(m):
        out[i] = 0
    for i in range(m):
        for j in range(i):
            out[i] -= A[i, j] * b[j]
            out[j] -= A[i, j] * b[i]
        out[i] -= A[i, i] * b[i]


@_inner
def _set_up(room, members, m):
    """Write the normal equations of m members to A; how many unknowns they have, padding included."""
    G, A, level = room.G, room.A, room.level
    whole = padded(m, SIDE)
    largest = G[members[0], members[0]]
    for u in range(m):
        largest = max(largest, G[members[u], members[u]])
    scale = largest if largest > 0 else largest + 1
    clear(A, 0, whole + SIDE)
    for u in range(m):
        s = members[u]
        for v in range(u + 1):
            A[u, v] = G[s, members[v]]
        if A[u, u] == 0:  # a zero atom gets the coefficient 0
            A[u, u] = scale
        level[u], A[whole, u] = scale, room.b[s]
    for u in range(m, whole):
        A[u, u] = level[u] = scale
    return whole


@_inner
def least_squares(room, members, m, strong):
    """Least squares on m members of the gathered atoms, whose Gram matrix and products with the target are known.

    One step of iterative refinement follows where the least pivot, beside the largest diagonal entry, does not exceed
    ``strong``. Returns that share, and the solution as a row of ``room.A``.
    """
    whole = _set_up(room, members, m)
    share = solve(room.A, whole, room.level, room.space)
    beta = room.A[whole]
    if share > strong:
        return share, beta
    _set_up(room, members, m)
    share = sweep(room.A, whole, room.level, room.space)
    left_over(room.X, members, m, beta, room.y, room.r)
    correlate(room.X, members, np.int64(0), m, room.r, room.row)
    _apply(room.A, m, room.row, room.value)
    for u in range(m):
        beta[u] += room.value[u]
    return share, beta
