# SPDX-License-Identifier: BSD-3-Clause
"""Kernels compiled by Numba for small systems, a row of data at a time: project it, or rank its candidate atoms.

Importing this file needs the extra "numba". A row's atoms are gathered once, into memory that stays in the cache.
"""

import math

import numpy as np

from .blocks import SIDE
from .compiling import compiled
from .elimination import eliminate, penalise
from .gathered import BLOCK, combine, correlate, gather, gram, least_squares, make_room, put
from .sweeping import clear, padded, solve

# NaN keeps its meaning: it tells of a bad row.
_cached, _inner = compiled(), compiled(inner=True)


@_inner
def _present(F, y, indices, weights, room, place, own):
    """Gather the atoms of positive weight, with their Gram matrix and products with y; returns how many there are.

    Their places in the support go to ``place``; ``own`` is room for their indices.
    """
    start = m = np.int64(0)  # for a literal Numba would compile anew
    for u in range(indices.shape[0]):
        if weights[u] > 0:
            place[m], own[m] = u, indices[u]
            m += 1
    gather(F, own, start, m, room.X)
    put(y, y.shape[0], room.y)
    if m:
        gram(room.X, start, padded(m, BLOCK), room.G)
        correlate(room.X, room.everyone, start, m, room.y, room.b)
    return m


@_inner
def _ridge(room, m, root):
    """Solve the scaled ridge system ``I + D G D`` with ``D = diag(root)``; the least pivot beside the diagonal."""
    G, A, level = room.G, room.A, room.level
    whole = padded(m, SIDE)
    clear(A, 0, whole + SIDE)
    for u in range(m):
        for v in range(u + 1):
            A[u, v] = G[u, v] * root[u] * root[v]
        A[u, u] += 1
        level[u], A[whole, u] = A[u, u], room.b[u] * root[u]
    for u in range(m, whole):
        A[u, u] = level[u] = 1
    share = solve(A, whole, level, room.space)
    beta = A[whole]
    for u in range(m):
        beta[u] *= root[u]
    return share, beta


@_cached
def project_rows(Y, F, indices, weights, exact, bounds, coefs, reconstruction, failed):
    """Project rows Y on their atoms.

    Parameters
    ----------
    Y : array of shape (n, d)
    F : array of shape (p, d)
    indices, weights : arrays of shape (n, K), K <= d
        Atoms of weight 0 take no part.
    exact : bool
        Least squares; else ridge regression with precisions ``weights``.
    bounds : array of shape (2,)
        Least pivot, beside the largest diagonal entry (exact) or its own (ridge), of a system that is safe to solve;
        and of one that needs no step of iterative refinement (exact).
    coefs, reconstruction : arrays of shape (n, K) and (n, d)
        Zeros; receive the results.
    failed : bool array of shape (n,)
        Becomes True for rows that were not safe to solve, whose results stay 0.
    """
    n, K = indices.shape
    d = Y.shape[1]
    room = make_room(K, 0, d, F)
    place, own, root = np.empty(K, np.int64), np.empty(K, np.int64), np.empty(K, F.dtype)
    for i in range(n):
        m = _present(F, Y[i], indices[i], weights[i], room, place, own)
        if m == 0:
            continue
        if exact:
            share, beta = least_squares(room, room.everyone, m, bounds[1])
        else:
            for u in range(m):
                root[u] = math.sqrt(weights[i, place[u]])
            share, beta = _ridge(room, m, root)
        if not share > bounds[0]:
            failed[i] = True
            continue
        combine(room.X, room.everyone, m, beta, room.r)
        put(room.r, d, reconstruction[i])
        for u in range(m):
            coefs[i, place[u]] = beta[u]


@_cached
def rank_rows(Y, F, indices, weights, k, most, numbers, ranking):
    """Rank each row's candidates by backward elimination to k + 1 of them, or until its end.

    Parameters
    ----------
    Y : array of shape (n, d)
    F : array of shape (p, d)
    indices, weights : arrays of shape (n, K)
        Precisions; candidates of weight 0 take no part.
    k : int
    most : int64 array of shape (n,)
        A row's elimination ends where so many are left and all are missed by more than the limit allows.
    numbers : array of shape (2,)
        The smallest normal number, which diagonal entries of an inverse are held above; the limit.
    ranking : array of shape (n, K)
        Minus infinity; receives the root of the increase of the error, with the sign of the coefficient, of those
        candidates that are left.
    """
    n, K = indices.shape
    room = make_room(K, max(0, K - k - 1), Y.shape[1], F)
    place, own = np.empty(K, np.int64), np.empty(K, np.int64)
    for i in range(n):
        m = _present(F, Y[i], indices[i], weights[i], room, place, own)
        if m == 0:
            continue
        for u in range(m):
            room.penalty[u] = 1 / weights[i, place[u]]
        penalise(room, m)
        eliminate(room, m, k + 1, most[i], numbers[0], numbers[1])
        for u in range(m):
            if room.value[u] < np.inf:
                ranking[i, place[u]] = room.value[u]


@_cached
def product_rows(F, indices, V, out):
    """``out_ij = <F[indices_ij], V_i>``."""
    n, K = indices.shape
    for i in range(n):
        products_of(F, indices[i], K, V[i], out[i])


@_inner
def products_of(F, indices, m, v, out):
    """``out_j = <F[indices_j], v>`` for the first m, read where they are."""
    last = m - 1
    for u in range(0, m, 4):
        u1, u2, u3 = min(u + 1, last), min(u + 2, last), min(u + 3, last)
        x0, x1, x2, x3 = F[indices[u]], F[indices[u1]], F[indices[u2]], F[indices[u3]]
        a0 = a1 = a2 = a3 = v.dtype.type(0)
        for a in range(F.shape[1]):
            a0 += x0[a] * v[a]
            a1 += x1[a] * v[a]
            a2 += x2[a] * v[a]
            a3 += x3[a] * v[a]
        out[u], out[u1], out[u2], out[u3] = a0, a1, a2, a3
