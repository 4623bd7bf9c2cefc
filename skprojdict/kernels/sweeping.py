# SPDX-License-Identifier: BSD-3-Clause
"""Small positive definite systems, compiled by Numba: their inverse and solution, or the solution alone.

Matrices come as their lower triangles, in rows of whole vectors; what is beyond the diagonal is room. Systems
have a multiple of eight unknowns (pad them with pivots of 1) and hold their right-hand side as one more row. Eight
pivots are worked at together, without row exchanges: A goes to the cache and back once for eight of them. Importing
this file needs the extra "numba".
"""

from typing import Any, NamedTuple

import numpy as np

from .blocks import SIDE, add_eight, eight, factorise, put_sum, take_eight, turn
from .compiling import compiled
from .vectors import BYTES, filled, fused, lanes_of, load, put_totals, store

# NaN keeps its meaning: it tells of a bad row.
_inner = compiled(inner=True)
# Rows that are worked at together: with more their factors would not stay in the registers.
BLOCK = 2


class Space(NamedTuple):
    """What a block of pivots is worked at in."""

    before: Any  # (SIDE, width of the matrix): its rows and columns, as rows
    after: Any  # their product with ``factor``
    factor: Any  # (SIDE, SIDE): the inverse of the block's Cholesky factor
    pivots: Any  # (SIDE,): of the block; sums of eight numbers


@_inner
def padded(n, size):
    """The least multiple of ``size`` from n on."""
    return (n + size - 1) // size * size


@_inner
def matrix(n, width, like):
    """Zeros in the dtype of ``like``, from the start of a line of the cache on.

    Where rows are whole vectors, none of these then lies in two lines, which costs half of the time again.
    """
    memory = np.zeros(n * width + lanes_of(like), like.dtype)
    start = (-memory.ctypes.data % BYTES) // like.itemsize
    return memory[start : start + n * width].reshape((n, width))


@_inner
def clear(A, start, stop):
    """Set rows of a matrix whose rows are whole vectors to 0."""
    width = A.shape[1]
    for at in range(start * width, stop * width, lanes_of(A)):
        store(A, at, filled(A.dtype.type(0)))


@_inner
def make_system(n, like):
    """Zeros for a system of n unknowns in the dtype of ``like``, and the space to work at it."""
    tall = padded(n, SIDE) + SIDE
    wide = padded(tall, lanes_of(like))
    before, after = matrix(SIDE, wide, like), matrix(SIDE, wide, like)
    return matrix(tall, wide, like), Space(before, after, matrix(SIDE, SIDE, like), np.ones(SIDE, like.dtype))


@_inner
def sweep(A, m, level, space):
    """Turn the leading m x m part of A, a multiple of eight, to its negative inverse, and row m to the solution.

    The sweep operator (Beaton, 1964), a block of pivots at a time.

    Returns the least pivot divided by its entry of ``level``: small or negative, or NaN, where A is not positive
    definite to working precision.
    """
    width, lanes = A.shape[1], lanes_of(A)
    before, after, factor = space.before, space.after, space.factor
    smallest = level.dtype.type(np.inf)
    zero = filled(A.dtype.type(0))
    for t in range(0, m, SIDE):
        for u in range(SIDE):
            for j in range(0, t, lanes):
                store(before, u * width + j, load(A, (t + u) * width + j))
        smallest = _open(A, m, t, level, space, smallest)
        _multiply(space, 0, m + SIDE)
        for u in range(SIDE):
            for v in range(SIDE):
                after[u, t + v] = -factor[u, v]
        for i in range(0, t, BLOCK):
            _take_products(A, space, i, 0)
        for i in range(t + SIDE, m + BLOCK, BLOCK):
            _take_products(A, space, i, 0)
        for u in range(SIDE):
            column = eight(factor, u, SIDE)
            for j in range(0, t + SIDE, lanes):
                store(A, (t + u) * width + j, add_eight(column, after, j, width, zero))
    return smallest


@_inner
def solve(A, m, level, space):
    """Turn row m of A to the solution of the leading m x m system, a multiple of eight, in a third of a sweep's time.

    By Cholesky's factor, forwards and back, a block of pivots at a time; it is left above the diagonal. Returns what
    ``sweep`` does.
    """
    width, lanes = A.shape[1], lanes_of(A)
    before, after, factor, sums = space.before, space.after, space.factor, space.pivots
    smallest = level.dtype.type(np.inf)
    zero = filled(A.dtype.type(0))
    for t in range(0, m, SIDE):
        for u in range(SIDE):
            store(before, u * width + t, zero)  # the first vector to the right may begin here
        smallest = _open(A, m, t, level, space, smallest)
        first = _right_of(t, lanes)
        _multiply(space, first, m + SIDE)
        for i in range(t + SIDE, m + BLOCK, BLOCK):
            _take_products(A, space, i, first)
        for u in range(SIDE):
            for j in range(first, m + SIDE, lanes):
                store(A, (t + u) * width + j, load(after, u * width + j))
            for v in range(SIDE):
                A[t + u, t + v] = factor[u, v]
    clear(A, m, m + 1)
    for block in range(m // SIDE):
        t = m - SIDE * (block + 1)
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero
        for j in range(_right_of(t, lanes), m, lanes):
            x, at = load(A, m * width + j), t * width + j
            a0, a1 = fused(x, load(A, at), a0), fused(x, load(A, at + width), a1)
            a2, a3 = fused(x, load(A, at + 2 * width), a2), fused(x, load(A, at + 3 * width), a3)
            a4, a5 = fused(x, load(A, at + 4 * width), a4), fused(x, load(A, at + 5 * width), a5)
            a6, a7 = fused(x, load(A, at + 6 * width), a6), fused(x, load(A, at + 7 * width), a7)
        put_totals(sums, 0, a0, a1, a2, a3)
        put_totals(sums, 4, a4, a5, a6, a7)
        for u in range(SIDE):
            sums[u] = A[t + u, m] - sums[u]
        put_sum(A, t * width + t, width, sums, A, m * width + t)
    return smallest


@_inner
def _right_of(t, lanes):
    """Where the first whole vector with numbers to the right of a block of pivots begins."""
    return (t + SIDE) // lanes * lanes


@_inner
def _open(A, m, t, level, space, smallest):
    """Factorise the block of pivots from t on and move what is below it to ``before``; the least pivot so far."""
    width = A.shape[1]
    factorise(A, t * width + t, width, space.factor, space.pivots)
    for s in range(SIDE):
        share = space.pivots[s] / level[t + s]
        if not share >= smallest:  # NaN goes here too, and so do all pivots after it
            smallest = share
    for i in range(t + SIDE, m + SIDE, SIDE):
        turn(A, i * width + t, width, space.before, i, width)
    return smallest


@_inner
def _multiply(space, start, stop):
    """``after = factor before`` in the columns from ``start`` on, up to whole vectors."""
    before, after, factor = space.before, space.after, space.factor
    width, lanes = before.shape[1], lanes_of(before)
    zero = filled(before.dtype.type(0))
    for u in range(0, SIDE, BLOCK):
        first, second = eight(factor, u * SIDE, 1), eight(factor, (u + 1) * SIDE, 1)
        for j in range(start, stop, lanes):
            a, b = add_eight(first, before, j, width, zero), add_eight(second, before, j, width, zero)
            store(after, u * width + j, a)
            store(after, (u + 1) * width + j, b)


@_inner
def _take_products(A, space, i, start):
    """``A -= after^T after`` in two rows from i on, in the columns from ``start`` to the diagonal."""
    after = space.after
    width, lanes = A.shape[1], lanes_of(A)
    first, second = eight(after, i, width), eight(after, i + 1, width)
    for j in range(start, i + BLOCK, lanes):
        at = i * width + j
        a, b = take_eight(first, after, j, width, load(A, at)), take_eight(second, after, j, width, load(A, at + width))
        store(A, at, a)
        store(A, at + width, b)
