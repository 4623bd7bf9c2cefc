# SPDX-License-Identifier: BSD-3-Clause
"""Kernels compiled by Numba that go from scores to the code of a row in one go, so that atoms are gathered once.

What they do to a row is written down in ``solvers/refine.py`` and ``solvers/elimination.py``, as operations on arrays.
Importing this file needs the extra "numba".
"""

import numpy as np

from .compiling import compiled
from .elimination import eliminate, penalise
from .gathered import BLOCK, combine, correlate, gather, gram, least_squares, left_over, make_room, put
from .largest import cut, kth_largest, list_largest
from .sweeping import padded
from .systems import products_of

_cached, _inner = compiled(), compiled(inner=True)


@_inner
def _extend(F, indices, start, m, room):
    """Gather the atoms from ``start`` to m, with their Gram matrix and products with the target.

    Numbers that are no literals, for each of which Numba would compile anew.
    """
    gather(F, indices, start, m, room.X)
    first = start // BLOCK * BLOCK
    gram(room.X, first, padded(m, BLOCK), room.G)
    correlate(room.X, room.everyone, first, m, room.y, room.b)


@_inner
def _settle(room, m, least, most, numbers, places, coefs, reconstruction):
    """Cut the m gathered atoms to ``least`` to ``most`` and solve for them; how many are left, -1 if that is unsafe.

    Below ``most`` those go that are missed too little for the limit ``numbers[4]``.
    """
    kept = m
    put(room.everyone, m, room.members)
    if m > least:
        penalise(room, m)
        left, bar = eliminate(room, m, least + 1, most, numbers[3], numbers[4])
        if left < 0:
            return -1
        kept = _left(room.value, m, left, most, bar, room.members)
    share, beta = least_squares(room, room.members, min(kept, most), numbers[1])
    if kept > most or not share > numbers[0]:
        return -1
    put(room.members, kept, places)
    put(beta, kept, coefs)
    if reconstruction.shape[0]:
        combine(room.X, room.members, kept, beta, room.r)
        put(room.r, reconstruction.shape[0], reconstruction)
    return kept


@_inner
def _left(value, m, n_left, most, limit, members):
    """Those of m atoms that the elimination left, in order, but for the least missed one if it is to go; how many."""
    gone, low = 0, value[0]
    for u in range(1, m):
        if value[u] <= low:  # of equal ones the last
            gone, low = u, value[u]
    if low > limit and n_left <= most:
        gone = m
    kept = 0
    for u in range(m):
        if u != gone and value[u] < np.inf:
            if kept < most:
                members[kept] = u
            kept += 1
    return kept


@_inner
def _finite(y):
    energy = y[0] * y[0]
    for a in range(1, y.shape[0]):
        energy += y[a] * y[a]
    return energy < np.inf


@_cached
def code_rows(
    Y,
    F,
    scores,
    best,
    sizes,
    floor,
    numbers,
    proposed,
    n_proposed,
    proposed_scores,
    indices,
    counts,
    selected,
    coefs,
    reconstruction,
):
    """Select atoms for rows Y by score, choose candidates from a longer list, cut them to k, and solve for those.

    Parameters
    ----------
    Y : array of shape (n, d)
    F : array of shape (p, d)
    scores : array of shape (n, p)
    best : array of shape (n_columns(p, n_listed),)
        Room.
    sizes : tuple of five int
        k, candidates, and how many of the best scored are looked at; each at least the one before, candidates <= d. How
        many are left at least and at most.
    floor : float
        Scores not above it are not selected; NaN: all may be.
    numbers : array of shape (5,)
        Least pivot, beside the largest diagonal entry, of a system that is safe to solve, and of one that needs no step
        of iterative refinement; the ridge penalty of the elimination; the smallest normal number; the limit up to which
        atoms go that need not (``elimination.eliminate``).
    proposed, n_proposed, proposed_scores : arrays of shape (n, candidates), (n,) and (n, candidates)
        Zeros; receive the candidates, how many there are, and their scores.
    indices, counts, selected, coefs, reconstruction : arrays of shape (n, most), (n,), (n, most), (n, most) and (n, d)
        Zeros; receive the atoms that are left, how many there are, their scores and coefficients, and what these make
        of the atoms, where d is not 0. The count is -1 for rows that were not safe to solve, which are to be
        coded in another way.
    """
    n, p = scores.shape
    k, n_candidates, n_listed, least, most = sizes
    kind, d = F.dtype, F.shape[1]
    room = make_room(n_candidates, max(0, n_candidates - least - 1), d, F)
    found, place = np.empty(p + 1, kind), np.empty(p + 1, np.int64)
    gain, others, own = np.empty(n_listed + 1, kind), np.empty(n_listed + 1, np.int64), np.empty(n_candidates, np.int64)
    for u in range(n_candidates):
        room.penalty[u] = numbers[2]
    for i in range(n):
        counts[i] = -1
        if not list_largest(scores[i], n_listed, best, found, place) or not _finite(Y[i]):
            continue
        m, n_others = _split(found, place, n_listed, k, floor, own, others, gain)
        put(Y[i], d, room.y)
        _extend(F, own, np.int64(0), m, room)
        n_joining = min(n_candidates - k, n_others)
        if n_joining < n_others:
            share, beta = least_squares(room, room.everyone, m, numbers[1])
            if not share > numbers[0]:
                continue
            left_over(room.X, room.everyone, m, beta, room.y, room.r)
            _sort_out(F, others, n_others, room.r, n_joining, found, gain)
        if n_joining:
            put(others, n_joining, own[m:])
            _extend(F, own, m, m + n_joining, room)
            m += n_joining
        n_proposed[i] = m
        for u in range(m):
            proposed[i, u], proposed_scores[i, u] = own[u], scores[i, own[u]]
        counts[i] = _settle(room, m, least, most, numbers, others, coefs[i], reconstruction[i])
        for u in range(counts[i]):
            indices[i, u], selected[i, u] = own[others[u]], scores[i, own[others[u]]]


@_cached
def refine_rows(
    Y,
    F,
    scores,
    correlation,
    best,
    given,
    active,
    rounding,
    most,
    n_added,
    n_new,
    numbers,
    origin,
    indices,
    counts,
    selected,
    coefs,
    reconstruction,
):
    """Add to the atoms of each row those that correlate best with what is left over, cut them down, solve for the rest.

    Parameters
    ----------
    Y, F : arrays of shape (n, d) and (p, d)
    scores, correlation : arrays of shape (n, p)
        Encoder scores; inner products of all atoms with what the given ones leave over; overwritten.
    best : array of shape (n_columns(p, n_new),)
        Room.
    given, active : int64 and bool arrays of shape (n, K)
        Atoms of each row, and whether they take part.
    rounding : array of shape (n,)
        A correlation has to exceed it.
    most, n_added : int64 arrays of shape (n,)
        Atoms that are left of each row at most, and that are added to it at most.
    n_new : int
        The largest of the latter.
    numbers, indices, counts, selected, coefs, reconstruction
        See :func:`code_rows`.
    origin : int64 array of shape (n, columns of the results)
        Receives the place of each atom among the given ones; -1 for one that was added.
    """
    n, p = correlation.shape
    kind, d, n_given = F.dtype, F.shape[1], given.shape[1]
    K = n_given + n_new
    room = make_room(K, K, d, F)
    found, place = np.empty(p + 1, kind), np.empty(p + 1, np.int64)
    own, source, kept = np.empty(K, np.int64), np.empty(n_given, np.int64), np.empty(indices.shape[1], np.int64)
    for u in range(K):
        room.penalty[u] = numbers[2]
    for i in range(n):
        counts[i] = -1
        m = np.int64(0)
        for u in range(n_given):
            if active[i, u]:
                own[m], source[m] = given[i, u], u
                correlation[i, own[m]] = -np.inf
                m += 1
        n_own = m
        if (n_added[i] and not list_largest(correlation[i], n_added[i], best, found, place)) or not _finite(Y[i]):
            continue
        for u in range(n_added[i]):
            if found[u] > rounding[i]:
                own[m] = place[u]
                m += 1
        put(Y[i], d, room.y)
        _extend(F, own, np.int64(0), m, room)
        counts[i] = _settle(room, m, most[i], most[i], numbers, kept, coefs[i], reconstruction[i])
        for u in range(counts[i]):
            indices[i, u], selected[i, u] = own[kept[u]], scores[i, own[kept[u]]]
            origin[i, u] = source[kept[u]] if kept[u] < n_own else -1


@_inner
def _split(found, place, n_listed, k, floor, own, others, scores):
    """The k best scored on the list and the others, those at or below the floor left out; how many each."""
    bound = kth_largest(found, n_listed, k)
    spare = k
    for j in range(n_listed):
        spare -= found[j] > bound
    m = n_others = np.int64(0)
    for j in range(n_listed):
        equal = found[j] == bound
        first = found[j] > bound or (equal and spare > 0)
        spare -= equal
        if found[j] <= floor:
            continue
        if first:
            own[m] = place[j]
            m += 1
        else:
            others[n_others], scores[n_others] = place[j], found[j]
            n_others += 1
    return m, n_others


@_inner
def _sort_out(F, others, n_others, r, k, gain, scores):
    """Move those k of the others that correlate best with r to the front; of equal ones the best scored."""
    products_of(F, others, n_others, r, gain)
    bound = kth_largest(gain, n_others, k)
    equal = 0
    for j in range(n_others):
        equal += gain[j] == bound
    if equal > 1:
        for j in range(n_others):  # duplicate atoms: order those at the bound by score
            if gain[j] == bound:
                for u in range(j + 1, n_others):
                    if gain[u] == bound and scores[u] > scores[j]:
                        scores[j], scores[u] = scores[u], scores[j]
                        others[j], others[u] = others[u], others[j]
    cut(gain, others, n_others, bound, k)
