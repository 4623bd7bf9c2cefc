# SPDX-License-Identifier: BSD-3-Clause
"""Backward elimination in the small system of one row, compiled by Numba: the least missed atom goes, then the next.

What is eliminated, and by which measure, is written down in ``solvers/elimination.py``. Importing this file needs the
extra "numba".
"""

import numpy as np

from .blocks import SIDE
from .compiling import compiled
from .gathered import put
from .sweeping import clear, padded, sweep
from .vectors import filled, fused, lanes_of, larger, least, load, lowest, quotient, reaching, root, smaller, store

_inner = compiled(inner=True)


@_inner
def penalise(room, m):
    """Set up and sweep the system of the first m atoms with ``room.penalty`` added to its diagonal."""
    G, A = room.G, room.A
    width, lanes, whole = A.shape[1], lanes_of(A), padded(m, SIDE)
    clear(A, m, whole + SIDE)
    for u in range(m):
        for at in range(u * width, u * width + u + 1, lanes):
            store(A, at, load(G, at))
        A[u, u] += room.penalty[u]
    for u in range(m, whole):
        A[u, u] = 1
    put(room.b, m, A[whole])
    sweep(A, whole, room.level, room.space)


@_inner
def eliminate(room, m, n_left, most, tiny, limit):
    """Take atoms out of the swept system ``room.A`` of m atoms until ``n_left`` are left, the least missed first.

    It ends before that where at most ``most`` are left and all of them are missed by more than ``limit`` times the
    fourth root of what all m leave over of the squared target.

    Leaves in ``room.value`` the root of the increase of the error, with the sign of the coefficient, and infinity for
    those that are out. ``tiny`` is the smallest normal number, which diagonal entries of an inverse are held above.
    Returns how many are left, -1 where numbers are too bad to choose by, and what a next one has to exceed to stay.
    """
    A, beta, diagonal, value, row = room.A, room.beta, room.diagonal, room.value, room.row
    shares, changes = room.shares, room.changes
    width, lanes = A.shape[1], lanes_of(A)
    whole, kind = padded(m, SIDE), A.dtype.type
    wide, infinity = padded(m, lanes), kind(np.inf)
    lowest_pivot, zero = filled(tiny), filled(kind(0))
    for u in range(m):
        beta[u], diagonal[u] = A[whole, u], max(-A[u, u], tiny)
    for u in range(m, wide):
        beta[u], diagonal[u], row[u] = infinity, 1, 0
    bar = limit * np.sqrt(_root_error(room, m, tiny))
    low = filled(infinity)
    for j in range(0, wide, lanes):
        now = quotient(load(beta, j), root(load(diagonal, j)))
        store(value, j, now)
        low = smaller(now, low)
    for step in range(m - n_left):
        gone = _first(value, wide, least(low))
        if not value[gone] < infinity:
            return -1, bar
        if value[gone] > bar and m - step <= most:
            return m - step, bar
        for j in range(gone + 1):
            row[j] = -A[gone, j]
        for j in range(gone + 1, m):
            row[j] = -A[j, gone]
        for s in range(step):
            shares[s] = -changes[s, gone]
        for j in range(0, wide, lanes):  # the row as it is after the changes - u u^T so far, which are kept as vectors
            x, y = load(row, j), zero
            for s in range(0, step - 1, 2):
                x = fused(filled(shares[s]), load(changes, s * width + j), x)
                y = fused(filled(shares[s + 1]), load(changes, (s + 1) * width + j), y)
            if step % 2:
                x = fused(filled(shares[step - 1]), load(changes, (step - 1) * width + j), x)
            store(row, j, fused(filled(kind(1)), x, y))
        inverse = kind(1) / np.sqrt(max(row[gone], tiny))
        scale, shift = filled(inverse), filled(-beta[gone] * inverse)
        low = filled(infinity)
        beta[gone] = infinity
        for j in range(0, wide, lanes):
            change = fused(load(row, j), scale, zero)
            now = fused(change, shift, load(beta, j))
            left = larger(fused(change, fused(change, filled(kind(-1)), zero), load(diagonal, j)), lowest_pivot)
            store(changes, step * width + j, change)
            store(beta, j, now)
            store(diagonal, j, left)
            now = quotient(now, root(left))
            store(value, j, now)
            low = smaller(now, low)
    return min(m, n_left), bar


@_inner
def _root_error(room, m, tiny):
    """Root of the minimum, with the penalty, that the solution of the swept system of m atoms reaches.

    In double precision: squares of large and small rows overflow or vanish in single.
    """
    beta, error = room.A[padded(m, SIDE)], np.float64(0)
    for a in range(room.y.shape[0]):
        error += np.float64(room.y[a]) * np.float64(room.y[a])
    floor = error * tiny
    for u in range(m):
        error -= np.float64(room.b[u]) * np.float64(beta[u])
    return room.y.dtype.type(np.sqrt(max(error, floor)) if floor > 0 else 1)


@_inner
def _first(values, m, bound):
    """The first of m values that does not exceed the bound; 0 where there is none."""
    limit, lanes = filled(bound), lanes_of(values)
    for start in range(0, m, lanes):
        bits = reaching(limit, load(values, start))
        if bits:
            return start + lowest(bits)
    return 0
