# SPDX-License-Identifier: BSD-3-Clause
"""Kernels compiled by Numba for small systems, a row of data at a time: project it, or rank its candidate atoms.

Importing this file needs the extra "numba". A row's atoms are gathered once, into memory that stays in the cache;
systems are inverted in place, four pivots at a time, without row exchanges: they are positive definite.
"""

import math

import numpy as np

from .compiling import compiled

# NaN keeps its meaning: it tells of a bad row.
_cached = compiled()
# Pivots that are swept at once.
BLOCK = 4


@_cached
def _gather(F, indices, weights, place, X):
    """Copy the atoms of positive weight to X, their places to ``place``; returns how many there are."""
    m = 0
    for u in range(indices.shape[0]):
        if weights[u] > 0:
            place[m] = u
            f, x = F[indices[u]], X[m]
            for a in range(x.shape[0]):
                x[a] = f[a]
            m += 1
    return m


@_cached
def _gram(X, m, A):
    """Inner products of the first m rows of X, in blocks of four by two that reuse what is loaded."""
    d, last = X.shape[1], m - 1
    zero = X.dtype.type(0)
    for i in range(0, m, 4):
        i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        x0, x1, x2, x3 = X[i], X[i1], X[i2], X[i3]
        for j in range(0, min(i + 4, m), 2):
            j1 = min(j + 1, last)
            y0, y1 = X[j], X[j1]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
            for a in range(d):
                a0 += x0[a] * y0[a]
                a1 += x1[a] * y0[a]
                a2 += x2[a] * y0[a]
                a3 += x3[a] * y0[a]
                b0 += x0[a] * y1[a]
                b1 += x1[a] * y1[a]
                b2 += x2[a] * y1[a]
                b3 += x3[a] * y1[a]
            A[i, j], A[i1, j], A[i2, j], A[i3, j] = a0, a1, a2, a3
            A[i, j1], A[i1, j1], A[i2, j1], A[i3, j1] = b0, b1, b2, b3
    for i in range(m):
        for j in range(i):
            A[j, i] = A[i, j]


@_cached
def _four(x0, x1, x2, x3, y):
    """Inner products of four vectors with y, in one pass over it."""
    a0 = a1 = a2 = a3 = y.dtype.type(0)
    for a in range(y.shape[0]):
        a0 += x0[a] * y[a]
        a1 += x1[a] * y[a]
        a2 += x2[a] * y[a]
        a3 += x3[a] * y[a]
    return a0, a1, a2, a3


@_cached
def _times(X, m, y, out):
    """``out = X y`` for the first m rows of X."""
    last = m - 1
    for i in range(0, m, 4):
        i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        out[i], out[i1], out[i2], out[i3] = _four(X[i], X[i1], X[i2], X[i3], y)


@_cached
def _combine(X, m, beta, out):
    """``out = X^T beta`` over the first m rows of X."""
    for a in range(out.shape[0]):
        out[a] = 0
    u = 0
    while u + 4 <= m:
        b0, b1, b2, b3 = beta[u], beta[u + 1], beta[u + 2], beta[u + 3]
        x0, x1, x2, x3 = X[u], X[u + 1], X[u + 2], X[u + 3]
        for a in range(out.shape[0]):
            out[a] += b0 * x0[a] + b1 * x1[a] + b2 * x2[a] + b3 * x3[a]
        u += 4
    while u < m:
        b0, x0 = beta[u], X[u]
        for a in range(out.shape[0]):
            out[a] += b0 * x0[a]
        u += 1


@_cached
def _solve(A, m, b, out):
    """``out = A b`` for the leading m x m part."""
    for i in range(m):
        row = A[i]
        x = row[0] * b[0]
        for j in range(1, m):
            x += row[j] * b[j]
        out[i] = x


@_cached
def _sweep_block(P, size, level, smallest):
    """Invert the leading part of the small matrix P in place; the least pivot beside ``level`` so far."""
    for t in range(size):
        pivot = P[t, t]
        share = pivot / level[t]
        if not share >= smallest:  # NaN goes here too, and stays
            smallest = share
        inverse = 1 / pivot
        for j in range(size):
            P[t, j] *= inverse
        P[t, t] = inverse
        for i in range(size):
            if i != t:
                factor = P[i, t]
                P[i, t] = 0
                for j in range(size):
                    P[i, j] -= factor * P[t, j]
    return smallest


@_cached
def _invert(A, m, level, P, R):
    """Invert the leading m x m part of A in place by Gauss-Jordan elimination, a block of pivots at a time.

    P (4, 4) and R (4, K) are room. Returns the least pivot divided by its entry of ``level``: small or negative, or
    NaN, where A is not positive definite to working precision.
    """
    zero = level.dtype.type(0)
    smallest = zero + np.inf
    for t in range(0, m, BLOCK):
        size = min(BLOCK, m - t)
        for u in range(BLOCK):
            for v in range(BLOCK):
                P[u, v] = A[t + u, t + v] if u < size and v < size else zero
        smallest = _sweep_block(P, size, level[t:], smallest)
        for u in range(size):
            r, x = R[u], A[t]
            p0 = P[u, 0]
            for j in range(m):
                r[j] = p0 * x[j]
            for v in range(1, size):
                p0, x = P[u, v], A[t + v]
                for j in range(m):
                    r[j] += p0 * x[j]
        for u in range(size, BLOCK):
            for j in range(m):
                R[u, j] = 0
        r0, r1, r2, r3 = R[0], R[1], R[2], R[3]
        i = 0 if t else size
        while i < m:  # two rows at once, else the loops cost more than what is in them
            after = i + 1 if i + 1 != t else t + size
            x = A[i]
            f0, f1, f2, f3 = _factors(x, t, size)
            if after < m:
                y = A[after]
                g0, g1, g2, g3 = _factors(y, t, size)
                for j in range(m):
                    s0, s1, s2, s3 = r0[j], r1[j], r2[j], r3[j]
                    x[j] -= f0 * s0 + f1 * s1 + f2 * s2 + f3 * s3
                    y[j] -= g0 * s0 + g1 * s1 + g2 * s2 + g3 * s3
                for v in range(size):
                    y[t + v] = -(g0 * P[0, v] + g1 * P[1, v] + g2 * P[2, v] + g3 * P[3, v])
            else:
                for j in range(m):
                    x[j] -= f0 * r0[j] + f1 * r1[j] + f2 * r2[j] + f3 * r3[j]
            for v in range(size):
                x[t + v] = -(f0 * P[0, v] + f1 * P[1, v] + f2 * P[2, v] + f3 * P[3, v])
            i = after + 1 if after + 1 != t else t + size
        for u in range(size):
            x, r = A[t + u], R[u]
            for j in range(m):
                x[j] = r[j]
            for v in range(size):
                x[t + v] = P[u, v]
    return smallest


@_cached
def _factors(x, t, size):
    """Entries t to t + 3 of a row, zero beyond ``size``."""
    zero = x.dtype.type(0)
    second = x[t + 1] if size > 1 else zero
    third = x[t + 2] if size > 2 else zero
    return x[t], second, third, x[t + 3] if size > 3 else zero


@_cached
def _precise(X, m, root, A, b, level):
    """The scaled ridge system ``I + D G D``, right-hand side ``D b`` and diagonal, with ``D = diag(root)``."""
    for i in range(m):
        for j in range(m):
            A[i, j] *= root[i] * root[j]
        A[i, i] += 1
        level[i] = A[i, i]
        b[i] *= root[i]


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
    d, kind = Y.shape[1], Y.dtype
    X, A = np.empty((K, d), kind), np.empty((K, K), kind)
    P, R = np.empty((BLOCK, BLOCK), kind), np.empty((BLOCK, K), kind)
    b, beta, root, level = np.empty(K, kind), np.empty(K, kind), np.empty(K, kind), np.empty(K, kind)
    place, r = np.empty(K, np.int64), np.empty(d, kind)
    for i in range(n):
        m = _gather(F, indices[i], weights[i], place, X)
        if m == 0:
            continue
        y = Y[i]
        _gram(X, m, A)
        _times(X, m, y, b)
        if exact:
            largest = A[0, 0]
            for u in range(m):
                largest = max(largest, A[u, u])
            for u in range(m):
                level[u] = largest
                if A[u, u] == 0:  # a zero atom gets the coefficient 0
                    A[u, u] = largest if largest > 0 else largest + 1
            if not largest > 0:
                level[:m] = largest + 1
        else:
            for u in range(m):
                root[u] = math.sqrt(weights[i, place[u]])
            _precise(X, m, root, A, b, level)
        share = _invert(A, m, level, P, R)
        if not share > bounds[0]:
            failed[i] = True
            continue
        _solve(A, m, b, beta)
        fitted = reconstruction[i]
        if exact:
            _combine(X, m, beta, fitted)
            if not share > bounds[1]:
                for a in range(d):
                    r[a] = y[a] - fitted[a]
                _times(X, m, r, b)
                _solve(A, m, b, level)
                for u in range(m):
                    beta[u] += level[u]
                _combine(X, m, beta, fitted)
        else:
            for u in range(m):
                beta[u] *= root[u]
            _combine(X, m, beta, fitted)
        for u in range(m):
            coefs[i, place[u]] = beta[u]


@_cached
def rank_rows(Y, F, indices, weights, k, numbers, ranking):
    """Rank each row's candidates by backward elimination to k + 1 of them.

    Parameters
    ----------
    Y : array of shape (n, d)
    F : array of shape (p, d)
    indices, weights : arrays of shape (n, K)
        Precisions; candidates of weight 0 take no part.
    k : int
    numbers : array of shape (1,)
        The smallest normal number, which diagonal entries of an inverse are held above.
    ranking : array of shape (n, K)
        Minus infinity; receives the root of the increase of the error, with the sign of the coefficient, of those
        candidates that are left.
    """
    n, K = indices.shape
    d, kind = Y.shape[1], Y.dtype
    tiny = numbers[0]
    X, A = np.empty((K, d), kind), np.empty((K, K), kind)
    P, R = np.empty((BLOCK, BLOCK), kind), np.empty((BLOCK, K), kind)
    b, beta, root, level = np.empty(K, kind), np.empty(K, kind), np.empty(K, kind), np.empty(K, kind)
    diagonal, row, changes = np.empty(K, kind), np.empty(K, kind), np.empty((max(1, K - k), K), kind)
    alive, place = np.empty(K, np.bool_), np.empty(K, np.int64)
    for i in range(n):
        m = _gather(F, indices[i], weights[i], place, X)
        if m == 0:
            continue
        _gram(X, m, A)
        _times(X, m, Y[i], b)
        for u in range(m):
            root[u] = math.sqrt(weights[i, place[u]])
            alive[u] = True
        _precise(X, m, root, A, b, level)
        _invert(A, m, level, P, R)
        _solve(A, m, b, beta)
        for u in range(m):
            diagonal[u] = max(A[u, u], tiny)
        for step in range(m - k - 1):
            gone = _least(beta, diagonal, alive, m)
            _row_now(A[gone], changes, step, gone, m, row)
            pivot = math.sqrt(max(row[gone], tiny))
            change, shift = changes[step], beta[gone] / pivot
            for u in range(m):
                v = row[u] / pivot
                change[u] = v
                beta[u] -= v * shift
                diagonal[u] = max(diagonal[u] - v * v, tiny)
            alive[gone] = False
        for u in range(m):
            if alive[u]:
                ranking[i, place[u]] = beta[u] / math.sqrt(diagonal[u])


@_cached
def _least(beta, diagonal, alive, m):
    """The atom whose removal raises the error least; those with a negative coefficient before all others."""
    best, gone = np.inf, 0
    for u in range(m):
        if alive[u]:
            value = beta[u] / math.sqrt(diagonal[u])
            if value < best:
                best, gone = value, u
    return gone


@_cached
def _row_now(start, changes, step, gone, m, row):
    """A row of the inverse after ``step`` changes ``- u u^T`` that were kept as vectors."""
    for j in range(m):
        row[j] = start[j]
    u = 0
    while u + 4 <= step:
        c0, c1, c2, c3 = changes[u], changes[u + 1], changes[u + 2], changes[u + 3]
        f0, f1, f2, f3 = c0[gone], c1[gone], c2[gone], c3[gone]
        for j in range(m):
            row[j] -= f0 * c0[j] + f1 * c1[j] + f2 * c2[j] + f3 * c3[j]
        u += 4
    while u < step:
        c0 = changes[u]
        f0 = c0[gone]
        for j in range(m):
            row[j] -= f0 * c0[j]
        u += 1


@_cached
def product_rows(F, indices, V, out):
    """``out_ij = <F[indices_ij], V_i>``."""
    n, K = indices.shape
    last = K - 1
    for i in range(n):
        own, v = indices[i], V[i]
        for u in range(0, K, 4):
            u1, u2, u3 = min(u + 1, last), min(u + 2, last), min(u + 3, last)
            out[i, u], out[i, u1], out[i, u2], out[i, u3] = _four(F[own[u]], F[own[u1]], F[own[u2]], F[own[u3]], v)
