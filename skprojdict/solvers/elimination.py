# SPDX-License-Identifier: BSD-3-Clause
"""Backward elimination: which of many candidate atoms explain a row best."""

from .._array import add_to_diagonal, array_namespace, cho_inverse, cholesky, scatter_rows, top_k
from .ridge import map_rows
from .systems import gram, inner

# Exact projection is pruned under this ridge penalty: candidates may be dependent, and the order of their removal must
# not hang on rounding. Atoms have norm 1.
RIDGE = 0.01


def elimination_ranking(Y, components, indices, weights, k, *, exact=False, n_stages=3, chunk_size="auto"):
    """Rank each row's K candidates, so that its k best are the ones to keep: (n, K), the larger the better.

    Starts from the solution on all candidates and takes out K - k of them in ``n_stages`` portions. Taking out atom j
    alone raises the minimum of ``|| y - sum_j beta_j f_j ||^2 + sum_j beta_j^2 / s_j`` by exactly::

        beta_j^2 / [(G + Lambda)^-1]_jj

    Atoms are ranked by its root, which is in the unit of y: squares of very large or very small rows would overflow or
    vanish. A portion consists of the atoms for which it is least, those with a negative coefficient before all others:
    a selected atom is meant to be present. After each portion the coefficients and the inverse of the rest follow by a
    block update, so that nothing is gathered or factorised twice. The last portion is left to the caller, who keeps the
    k best of the ranking.

    Parameters
    ----------
    Y : array of shape (n, d)
        Targets.
    components : array of shape (p, d)
        Unit-norm atoms.
    indices : int64 array of shape (n, K)
        Candidates of each row.
    weights : array of shape (n, K)
        Precisions s_j >= 0, or in exact mode who takes part, which is ranked under a ridge penalty of 0.01. Candidates
        of weight 0 come last.
    k : int
        Candidates that will be kept.
    exact : bool, default=False
    n_stages : int, default=3
        One portion ranks all candidates by the first solution; more come closer to one atom at a time.
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once.

    Returns
    -------
    ranking : array of shape (n, K)
        Root of the increase, with the sign of the coefficient; ``-inf`` for what went in an earlier portion or has
        weight 0.

    References
    ----------
    Couvreur and Bresler (2000). On the optimality of the backward greedy algorithm for the subset selection problem.
    SIAM J. Matrix Anal. Appl. 21(3).
    Hassibi and Stork (1992). Second order derivatives for network pruning: optimal brain surgeon. The criterion.
    """
    K = indices.shape[1]
    weights = weights / RIDGE if exact else weights

    def rank(X, w, y):
        xp = array_namespace(X)
        root = xp.sqrt(w)
        system = add_to_diagonal(gram(X) * root[:, :, None] * root[:, None, :], 1.0)
        inverse = cho_inverse(cholesky(system))
        scaled = inner(inverse, root * inner(X, y))  # beta / sqrt(s): the increase is the same in these units
        lowest = xp.full_like(scaled, -float("inf"))
        tiny = float(xp.finfo(scaled.dtype).smallest_normal)
        left, alive = K, xp.ones_like(w, dtype=xp.bool)
        for stage in range(n_stages):
            diagonal = xp.where(alive, xp.linalg.diagonal(inverse), xp.ones_like(scaled))
            # Rounding must not turn a diagonal entry of the inverse, which is positive, into a NaN.
            level = xp.sqrt(xp.where(diagonal > tiny, diagonal, tiny * xp.ones_like(diagonal)))
            value = xp.where(alive & (w > 0), scaled / level, lowest)
            portion = left - k - (K - k) * (n_stages - 1 - stage) // n_stages
            if portion <= 0 or stage == n_stages - 1:
                continue
            gone = top_k(xp.where(alive, -value, lowest), portion)[1]
            scaled, inverse = _without(scaled, inverse, gone)
            alive = alive & ~(scatter_rows(gone, xp.ones_like(scaled[:, :portion]), K) > 0)
            left -= portion
        return (value,)

    return map_rows(rank, Y, components, indices, weights, chunk_size=chunk_size, square=True)[0]


def _without(solution, inverse, gone):
    """Solution (n, K) and inverse (n, K, K) of each system once its unknowns ``gone`` (n, r) are fixed at 0."""
    xp = array_namespace(inverse)
    n, r = gone.shape
    K = inverse.shape[1]
    rows = xp.take_along_axis(inverse, xp.broadcast_to(gone[:, :, None], (n, r, K)), axis=1)
    block = xp.take_along_axis(rows, xp.broadcast_to(gone[:, None, :], (n, r, r)), axis=2)
    part = xp.take_along_axis(solution, gone, axis=1)
    columns = xp.matrix_transpose(rows) @ cho_inverse(cholesky(block))
    return solution - (columns @ part[..., None])[..., 0], inverse - columns @ rows
