# SPDX-License-Identifier: BSD-3-Clause
"""The small system of one row, compiled by Numba: its atoms, their Gram matrix, its inverse, least squares.

Symmetric matrices are kept as their lower triangles; what is beyond the diagonal is never read. Systems are padded to a
multiple of four, with atoms of 0 whose pivots are 1, and hold their right-hand side as one more row, which the sweeps
turn into the solution. Importing this file needs the extra "numba".
"""

from typing import Any, NamedTuple

import numpy as np

from .compiling import compiled
from .vectors import (
    BYTES,
    filled,
    fused,
    load,
    put_totals,
    store,
)

# NaN keeps its meaning: it tells of a bad row.
_inner = compiled(inner=True)
# Pivots that are swept at once, and rows that are worked at together.
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
    blocks: Any  # rows of a block of pivots before and after its own inverse, and that
    after: Any
    inner: Any
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
def padded(n, size):
    """The least multiple of ``size`` from n on."""
    return (n + size - 1) // size * size


@_inner
def matrix(n, width, like):
    """Zeros in the dtype of ``like``, from the start of a line of the cache on.

    Where rows are whole vectors, none of these then lies in two lines, which costs half of the time again.
    """
    memory = np.zeros(n * width + BYTES // like.itemsize, like.dtype)
    start = (-memory.ctypes.data % BYTES) // like.itemsize
    return memory[start : start + n * width].reshape((n, width))


@_inner
def make_room(K, n_removed, d, like):
    """Room for K atoms of d numbers, of which so many are to be eliminated, in the dtype of ``like``."""
    kind, lanes = like.dtype, BYTES // like.itemsize
    tall, long = padded(K, BLOCK), padded(d, lanes)
    wide = padded(tall + BLOCK, lanes)
    X, G, A = matrix(tall, long, like), matrix(tall + BLOCK, wide, like), matrix(tall + BLOCK, wide, like)
    y, r, b, level = np.zeros(long, kind), np.zeros(long, kind), np.zeros(wide, kind), np.ones(wide, kind)
    blocks, after, inner = matrix(BLOCK, wide, like), matrix(BLOCK, wide, like), np.zeros((BLOCK, BLOCK), kind)
    diagonal, beta, value = np.ones(wide, kind), np.zeros(wide, kind), np.zeros(wide, kind)
    penalty, row, shares = np.zeros(wide, kind), np.zeros(wide, kind), np.zeros(wide, kind)
    changes = matrix(max(1, n_removed), wide, like)
    members, everyone = np.zeros(wide, np.int64), np.arange(wide)
    systems = X, y, r, G, b, A, level, blocks, after, inner
    return Room(*systems, penalty, diagonal, beta, value, row, shares, changes, members, everyone)


@_inner
def put(values, m, out):
    """Copy m numbers; NumPy's own assignment takes seconds to compile."""
    for j in range(m):
        out[j] = values[j]


@_inner
def clear(A, start, stop):
    """Set rows of a matrix whose rows are whole vectors to 0."""
    width = A.shape[1]
    for at in range(start * width, stop * width, BYTES // A.itemsize):
        store(A, at, filled(A.dtype.type(0)))


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
    size, lanes = X.shape[1], BYTES // X.itemsize
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
    size, lanes = X.shape[1], BYTES // X.itemsize
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
    size, lanes = X.shape[1], BYTES // X.itemsize
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


# ---- systems


@_inner
def _invert_block(P, level, t, smallest):
    """Invert the block P of pivots in place; the least pivot beside ``level`` so far."""
    for s in range(BLOCK):
        pivot = P[s, s]
        share = pivot / level[t + s]
        if not share >= smallest:  # NaN goes here too, and stays
            smallest = share
        inverse = 1 / pivot
        for j in range(BLOCK):
            P[s, j] *= inverse
        P[s, s] = inverse
        for i in range(BLOCK):
            if i != s:
                factor = P[i, s]
                P[i, s] = 0
                for j in range(BLOCK):
                    P[i, j] -= factor * P[s, j]
    return smallest


@_inner
def sweep(A, m, size, level, before, after, P):
    """Turn the leading m x m part of A, a multiple of four, to its negative inverse, and the next row to the solution.

    With a ``size`` of 0 instead of m to the solution only, in half the time. The sweep operator (Beaton, 1964), a block
    of pivots at a time, without row exchanges: the matrix is positive definite. ``before`` and ``after`` (4, width of
    A) and P (4, 4) are room.

    Returns the least pivot divided by its entry of ``level``: small or negative, or NaN, where A is not positive
    definite to working precision.
    """
    width, lanes = A.shape[1], BYTES // A.itemsize
    smallest = level.dtype.type(np.inf)
    zero = filled(A.dtype.type(0))
    for t in range(0, m, BLOCK):
        # The rows of the block, of which all that is beyond the diagonal stands in columns.
        for u in range(BLOCK):
            for j in range(0, t, lanes):
                store(before, u * width + j, load(A, (t + u) * width + j))
            for v in range(BLOCK):
                P[u, v] = A[t + max(u, v), t + min(u, v)]
        for i in range(t + BLOCK, m + BLOCK):
            for u in range(BLOCK):
                before[u, i] = A[i, t + u]
                A[i, t + u] = 0
        smallest = _invert_block(P, level, t, smallest)
        for u in range(BLOCK):
            p0, p1, p2, p3 = filled(P[u, 0]), filled(P[u, 1]), filled(P[u, 2]), filled(P[u, 3])
            for j in range(0, m + BLOCK, lanes):
                x = fused(p1, load(before, width + j), fused(p0, load(before, j), zero))
                x = fused(p3, load(before, 3 * width + j), fused(p2, load(before, 2 * width + j), x))
                store(after, u * width + j, x)
            for v in range(BLOCK):
                after[u, t + v] = -P[u, v]
        for i in range(t + BLOCK, m + BLOCK, BLOCK):
            _take_off(A, before, after, i)
        if size == 0:
            continue
        for i in range(0, t, BLOCK):
            _take_off(A, before, after, i)
        for u in range(BLOCK):
            for j in range(0, t, lanes):
                store(A, (t + u) * width + j, load(after, u * width + j))
            for v in range(BLOCK):
                A[t + u, t + v] = -P[u, v]
    return smallest


@_inner
def _take_off(A, before, after, i):
    """``A -= before^T after`` in four rows from i on, up to the diagonal."""
    width, lanes = A.shape[1], BYTES // A.itemsize
    a0, a1, a2, a3 = _factors(before, i)
    b0, b1, b2, b3 = _factors(before, i + 1)
    c0, c1, c2, c3 = _factors(before, i + 2)
    d0, d1, d2, d3 = _factors(before, i + 3)
    for j in range(0, i + BLOCK, lanes):
        x0, x1, x2, x3 = load(after, j), load(after, width + j), load(after, 2 * width + j), load(after, 3 * width + j)
        at = i * width + j
        store(A, at, fused(a3, x3, fused(a2, x2, fused(a1, x1, fused(a0, x0, load(A, at))))))
        at += width
        store(A, at, fused(b3, x3, fused(b2, x2, fused(b1, x1, fused(b0, x0, load(A, at))))))
        at += width
        store(A, at, fused(c3, x3, fused(c2, x2, fused(c1, x1, fused(c0, x0, load(A, at))))))
        at += width
        store(A, at, fused(d3, x3, fused(d2, x2, fused(d1, x1, fused(d0, x0, load(A, at))))))


@_inner
def _factors(before, i):
    return filled(-before[0, i]), filled(-before[1, i]), filled(-before[2, i]), filled(-before[3, i])


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
def _solve(room, members, m, inverse):
    """Set up and sweep the normal equations of m members; the least pivot beside the largest diagonal entry.

    ``inverse`` is 1 where the inverse is wanted, else 0.
    """
    G, A, level = room.G, room.A, room.level
    whole = padded(m, BLOCK)
    largest = G[members[0], members[0]]
    for u in range(m):
        largest = max(largest, G[members[u], members[u]])
    scale = largest if largest > 0 else largest + 1
    clear(A, 0, whole + BLOCK)
    for u in range(m):
        s = members[u]
        for v in range(u + 1):
            A[u, v] = G[s, members[v]]
        if A[u, u] == 0:  # a zero atom gets the coefficient 0
            A[u, u] = scale
        level[u], A[whole, u] = scale, room.b[s]
    for u in range(m, whole):
        A[u, u] = level[u] = scale
    return sweep(A, whole, whole * inverse, level, room.blocks, room.after, room.inner)


@_inner
def least_squares(room, members, m, strong):
    """Least squares on m members of the gathered atoms, whose Gram matrix and products with the target are known.

    One step of iterative refinement follows where the least pivot, beside the largest diagonal entry, does not exceed
    ``strong``. Returns that share, and the solution as a row of ``room.A``.
    """
    beta = room.A[padded(m, BLOCK)]
    for inverse in range(2):  # which a step of refinement needs
        share = _solve(room, members, m, inverse)
        if share > strong:
            return share, beta
    left_over(room.X, members, m, beta, room.y, room.r)
    correlate(room.X, members, np.int64(0), m, room.r, room.row)
    _apply(room.A, m, room.row, room.value)
    for u in range(m):
        beta[u] += room.value[u]
    return share, beta
