# SPDX-License-Identifier: BSD-3-Clause
"""Kernels compiled by Numba: the Gram form of pursuit, and sums over sparse codes.

Importing this file needs the extra "numba".
"""

import math

import numpy as np

from .compiling import FAST, compiled

# Nothing here meets a NaN, and maxima are vectorised only where none may come.
_cached = compiled(FAST | {"nnan"})


@_cached
def _largest(gain, bits):
    """Index of the first largest of non-negative numbers, by their bits: integers have a vectorised maximum."""
    best = bits[0]
    for j in range(bits.shape[0]):
        best = max(best, bits[j])
    size = np.int32(bits.shape[0])
    place = np.int32(0)
    for j in range(size):
        place = max(place, size - np.int32(j) if bits[j] == best else np.int32(0))
    return size - place


@_cached
def _score(c, n, gain, ols):
    if ols:
        for j in range(c.shape[0]):
            gain[j] = c[j] * c[j] / n[j]
    else:
        for j in range(c.shape[0]):
            gain[j] = abs(c[j])


@_cached
def _off_span(W, t, inside, atom_gram):
    """Row t of W: inner products of all atoms with the part of the new one off the span."""
    w = W[t]
    p = w.shape[0]
    for j in range(p):
        w[j] = atom_gram[j]
    u = 0
    while u + 4 <= t:  # four rows at once, else the passes over w cost more than those over W
        a, b, c, d = inside[u], inside[u + 1], inside[u + 2], inside[u + 3]
        first, second, third, fourth = W[u], W[u + 1], W[u + 2], W[u + 3]
        for j in range(p):
            w[j] -= a * first[j] + b * second[j] + c * third[j] + d * fourth[j]
        u += 4
    while u < t:
        a, first = inside[u], W[u]
        for j in range(p):
            w[j] -= a * first[j]
        u += 1


@_cached
def _deflate(w, inverse, alpha, c, n, gain, ols, floor, big):
    """Bring row w of W to unit length; take it off correlations and norms; atoms inside the span get a gain of 0."""
    if ols:
        for j in range(c.shape[0]):
            wj = w[j] * inverse
            cj = c[j] - alpha * wj
            nj = n[j] - wj * wj
            nj = nj if nj > floor else big
            w[j] = wj
            c[j] = cj
            n[j] = nj
            gain[j] = cj * cj / nj
    else:
        for j in range(c.shape[0]):
            wj = w[j] * inverse
            cj = c[j] - alpha * wj
            w[j] = wj
            c[j] = cj
            gain[j] = abs(cj)


@_cached
def _lower(L, m, b):
    """Solve ``L x = b`` in place for the leading m x m triangle."""
    for t in range(m):
        x = b[t]
        for u in range(t):
            x -= L[t, u] * b[u]
        b[t] = x / L[t, t]


@_cached
def _upper(L, m, b):
    """Solve ``L^T x = b`` in place for the leading m x m triangle."""
    for t in range(m - 1, -1, -1):
        x = b[t] / L[t, t]
        b[t] = x
        for u in range(t):
            b[u] -= L[t, u] * x


@_cached
def _products(F, r, out):
    """``F r``."""
    for j in range(F.shape[0]):
        f = F[j]
        x = f[0] * r[0]
        for a in range(1, r.shape[0]):
            x += f[a] * r[a]
        out[j] = x


@_cached
def _take_off(F, support, m, beta, r):
    """``r -= sum_u beta_u f_u`` over the first m atoms of the support."""
    for u in range(m):
        x, f = beta[u], F[support[u]]
        for a in range(r.shape[0]):
            r[a] -= x * f[a]


@_cached
def _off_support(F, support, m, L, h, r):
    """Take off r what it still has in the span of the support; h gets the coefficients. Twice is enough."""
    for u in range(m):
        f = F[support[u]]
        x = f[0] * r[0]
        for a in range(1, r.shape[0]):
            x += f[a] * r[a]
        h[u] = x
    _lower(L, m, h)
    _upper(L, m, h)
    _take_off(F, support, m, h, r)


@_cached
def _solve(F, y, support, m, L, alphas, beta, h, r):
    """Least-squares coefficients and the residual: back substitution, and one step of iterative refinement."""
    for u in range(m):
        beta[u] = alphas[u]
    _upper(L, m, beta)
    r[:] = y
    _take_off(F, support, m, beta, r)
    _off_support(F, support, m, L, h, r)
    for u in range(m):
        beta[u] += h[u]


@_cached
def _energy(r):
    x = r[0] * r[0]
    for a in range(1, r.shape[0]):
        x += r[a] * r[a]
    return x


@_cached
def pursue(Y, scale, F, G, C, limit, ols, constants, gain, bits, indices, coefs, n_nonzero):
    """Code unit rows Y in unit (or zero) atoms F, greedily.

    Parameters
    ----------
    Y : array of shape (n, d)
        Rows of norm 1.
    scale : array of shape (n,)
        What they were divided by; rows of scale 0 are not coded.
    F, G : arrays of shape (p, d) and (p, p)
        Atoms and their inner products.
    C : array of shape (n, p)
        ``Y F^T``; overwritten.
    limit : array of shape (1,)
        Residual norm, before the division, at which a row stops; -1: none.
    ols : bool
    constants : array of shape (4,)
        1, machine epsilon, the smallest squared norm off the span that is let in, and a norm for those that are not:
        in the dtype of Y, since a Python number would widen the loops.
    gain, bits : arrays of shape (p,)
        Room, and a view of it as integers.
    indices, coefs, n_nonzero : arrays of shape (n, k), (n, k), (n,)
        Zeros; receive the codes.
    """
    n_rows, p = C.shape
    d, k = Y.shape[1], coefs.shape[1]
    one, eps, floor, big = constants[0], constants[1], constants[2], constants[3]
    root = math.sqrt(eps)
    kind = Y.dtype
    W, L = np.empty((k, p), kind), np.zeros((k, k), kind)
    n = np.empty(p, kind)
    inside, alphas, beta, h = np.empty(k, kind), np.empty(k, kind), np.empty(k, kind), np.empty(k, kind)
    r = np.empty(d, kind)
    for i in range(n_rows):
        if not scale[i] > 0 or scale[i] <= limit[0]:
            continue
        y, c, support = Y[i], C[i], indices[i]
        for j in range(p):
            n[j] = G[j, j] if G[j, j] > 0 else big
        _score(c, n, gain, ols)
        m = 0
        energy = known = _energy(y)
        sound = k <= 16  # until a pivot or a residual has lost digits, back substitution alone is exact enough
        while m < k:
            s = _largest(gain, bits)
            left = G[s, s]
            for u in range(m):
                inside[u] = W[u, s]
                left -= inside[u] * inside[u]
            close = left < 0.01 * G[s, s]
            sound = sound and left > 0.1 * G[s, s]
            if close:  # the difference has lost its digits
                for u in range(m):
                    h[u] = inside[u]
                _upper(L, m, h)
                r[:] = F[s]
                _take_off(F, support, m, h, r)
                _off_support(F, support, m, L, h, r)
                for u in range(m):  # what was left in the span belongs to the triangle: inside += L^T h
                    for v in range(u, m):
                        inside[u] += L[v, u] * h[v]
                left = _energy(r)
            if not left > floor:
                break
            length = math.sqrt(left)
            inverse = one / length
            if close:
                alpha = y[0] * 0
                for a in range(d):
                    alpha += r[a] * y[a]
                alpha *= inverse
            else:
                alpha = c[s] * inverse
            if not abs(alpha) > 32 * eps:
                break
            support[m], alphas[m] = s, alpha
            for u in range(m):
                L[m, u] = inside[u]
            L[m, m] = length
            energy -= alpha * alpha
            m += 1
            if m == k:
                break
            if close:
                _products(F, r, W[m - 1])
            else:
                _off_span(W, m - 1, inside, G[s])
            _deflate(W[m - 1], inverse, alpha, c, n, gain, ols, floor, big)
            gain[s] = 0
            if energy < root * known or math.sqrt(abs(energy)) * scale[i] <= 1.001 * limit[0]:
                # The running difference has lost its digits, or a row is about to stop: measure the residual.
                sound = False
                _solve(F, y, support, m, L, alphas, beta, h, r)
                energy = known = _energy(r)
                if not energy > (32 * eps) ** 2 or math.sqrt(energy) * scale[i] <= limit[0]:
                    break
                _products(F, r, c)
                _score(c, n, gain, ols)
        if sound:
            beta[:m] = alphas[:m]
            _upper(L, m, beta)
        else:
            _solve(F, y, support, m, L, alphas, beta, h, r)
        n_nonzero[i] = m
        for u in range(m):
            coefs[i, u] = beta[u] * scale[i]


@_cached
def accumulate(indices, coefs, Y, gram, cross):
    """Add ``Z^T Z`` and ``Z^T Y`` of sparse codes (n, k) to ``gram`` (p, p) and ``cross`` (p, d), both float64."""
    for i in range(indices.shape[0]):
        for u in range(indices.shape[1]):
            z = np.float64(coefs[i, u])
            if z == 0:
                continue
            to_gram, to_cross = gram[indices[i, u]], cross[indices[i, u]]
            for v in range(indices.shape[1]):
                to_gram[indices[i, v]] += z * coefs[i, v]
            for a in range(Y.shape[1]):
                to_cross[a] += z * Y[i, a]
