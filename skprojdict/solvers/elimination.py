# SPDX-License-Identifier: BSD-3-Clause
"""Backward elimination: which of many candidate atoms explain a row best."""

from .._array import add_to_diagonal, array_namespace, cho_inverse, cholesky, device, take_along_rows
from .._chunks import chunk_rows
from .compiled_rows import compiled_pays, ranking_compiled
from .norms import row_norms
from .ridge import map_rows
from .systems import gram, inner

# Exact projection is pruned under this ridge penalty: candidates may be dependent, and the order of their removal must
# not hang on rounding. Atoms have norm 1.
RIDGE = 0.01
# Inverses held at once: many rows, since each removal is a dozen small operations whatever their number.
SYSTEM_BYTES = 1 << 25


def elimination_ranking(
    Y, components, indices, weights, k, *, most=None, limit=0.0, steps=None, exact=False, chunk_size="auto"
):
    """Rank each row's K candidates, so that its k best are the ones to keep: (n, K), the larger the better.

    Starts from the solution on all candidates and takes one out after the other until k + 1 are left. Taking out atom j
    raises the minimum of ``|| y - sum_j beta_j f_j ||^2 + sum_j beta_j^2 / s_j`` by exactly::

        beta_j^2 / [(G + Lambda)^-1]_jj

    Atoms are ranked by its root, which is in the unit of y: squares of very large or very small rows would overflow or
    vanish. The next to go is the atom for which it is least, those with a negative coefficient before all others: a
    selected atom is meant to be present. Coefficients and inverse of the rest follow by a rank-one update, so that
    nothing is gathered or factorised twice. The last removal is left to the caller, who keeps the k best of the
    ranking. With ``most`` a row's elimination ends before that, once so few are left and each of them is missed by more
    than ``limit * r^(1/4)``, r being the minimum with all K: in a row that is hard to explain an atom has to add more.
    (Without that factor rows that differ from those of training have more atoms than these; with ``r^(1/2)`` those of
    many atoms never get them.)

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
        Candidates that will be kept. From K - 1 on nothing is taken out: all are ranked by the first solution.
    most : int or int64 array of shape (n,), default=None
        None: rows go on to the end.
    limit : float, default=0.0
        In the unit of the root of the ranking.
    steps : int, default=None
        With ``most``: no row needs more removals, which all rows go through in step. None: K - k - 1.
    exact : bool, default=False
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once.

    Returns
    -------
    ranking : array of shape (n, K)
        Root of the increase, with the sign of the coefficient; ``-inf`` for what went before or has weight 0.

    References
    ----------
    Couvreur and Bresler (2000). On the optimality of the backward greedy algorithm for the subset selection problem.
    SIAM J. Matrix Anal. Appl. 21(3).
    Hassibi and Stork (1992). Second order derivatives for network pruning: optimal brain surgeon. The criterion.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.elimination import elimination_ranking
    >>> Y, indices = np.array([[0.1, 2.0, 1.0]]), np.array([[0, 1, 2]])
    >>> ranking = elimination_ranking(Y, np.eye(3), indices, np.ones((1, 3)), 1)
    >>> indices[0, ranking[0].argmax()]
    np.int64(1)
    """
    weights = weights / RIDGE if exact else weights
    ends = _for_each_row(0 if most is None else most, indices)  # 0: no row ends before all of them do
    if exact and compiled_pays(components, *indices.shape):
        return ranking_compiled(Y, components, indices, weights, k, ends, limit)

    def solve(X, w, y):
        xp = array_namespace(X)
        root = xp.sqrt(w)
        system = add_to_diagonal(gram(X) * root[:, :, None] * root[:, None, :], 1.0)
        inverse, products = cho_inverse(cholesky(system)), root * inner(X, y)
        solution = inner(inverse, products)  # beta / sqrt(s): the increase is the same in these units
        return solution, inverse, products

    xp = array_namespace(Y)
    n, K = indices.shape
    block = max(1, SYSTEM_BYTES // (K * K * xp.finfo(Y.dtype).bits // 8))
    rankings = []
    for rows in chunk_rows(n, 0, block, Y) if n else [slice(0, 0)]:
        given = Y[rows, ...], components, indices[rows, ...], weights[rows, ...]
        solution, inverse, products = map_rows(solve, *given, chunk_size=chunk_size, square=True)
        rule = {}
        if most is not None:
            bar = limit * xp.sqrt(_root_error(given[0], products, solution))
            rule = {"most": ends[rows], "limit": bar, "steps": steps}
        rankings.append(_eliminate(solution, inverse, given[-1] > 0, k, **rule))
    return rankings[0] if len(rankings) == 1 else xp.concat(rankings, axis=0)


def _for_each_row(number, like):
    xp = array_namespace(like)
    if hasattr(number, "shape"):
        return number
    return xp.full((like.shape[0],), number, dtype=xp.int64, device=device(like))


def _root_error(y, products, solution):
    """Root of the minimum of each row (n, 1); squares of the rows themselves may overflow or vanish."""
    xp = array_namespace(y)
    norm = row_norms(y)[:, None]
    norm = xp.where(norm > 0, norm, xp.ones_like(norm))
    share = 1 - xp.sum((products / norm) * (solution / norm), axis=1, keepdims=True)
    return norm * xp.sqrt(xp.maximum(share, xp.full_like(share, float(xp.finfo(share.dtype).smallest_normal))))


def _eliminate(solution, inverse, present, k, *, most=None, limit=None, steps=None):
    """Ranking after the removals from each system of ``solution`` (n, K) and ``inverse`` (n, K, K).

    With ``most`` (n,), and ``limit`` (n, 1) as what atoms have to be missed by.

    Only one row of the changing inverse is looked at for each removal, so the changes ``- u u^T`` are kept as vectors
    and applied to that row alone: K (K - k)^2 / 2 multiplications in place of K^2 (K - k), and an eighth of the memory
    traffic at K = 2 k = 64.
    """
    xp = array_namespace(inverse)
    n, K = solution.shape
    positions = xp.arange(K, device=device(solution))[None, :]
    lowest = xp.full_like(solution, -float("inf"))
    # Rounding must not turn a diagonal entry of the inverse, which is positive, into a NaN.
    tiny = xp.full_like(solution, float(xp.finfo(solution.dtype).smallest_normal))
    diagonal, alive = xp.maximum(xp.linalg.diagonal(inverse), tiny), present
    n_removed = max(0, K - k - 1) if steps is None else steps
    changes = xp.empty((n, n_removed, K), dtype=solution.dtype, device=device(solution))
    own = most is not None  # each row has an end of its own; else what is absent goes first, and changes nothing
    left = present if own else xp.ones_like(present)
    counts = xp.sum(xp.astype(present, xp.int64), axis=1, keepdims=True)
    for step in range(n_removed):
        value = xp.where(alive, solution / xp.sqrt(diagonal), lowest)
        gone = xp.argmin(xp.where(left, value, -lowest), axis=1, keepdims=True)
        if own:
            missed = take_along_rows(value, gone) > limit
            ended = (counts - step <= k + 1) | (missed & (counts - step <= most[:, None]))
        row = take_along_rows(inverse, xp.broadcast_to(gone[:, :, None], (n, 1, K)))
        if step:
            so_far = changes[:, :step, :]
            at_gone = take_along_rows(so_far, xp.broadcast_to(gone[:, :, None], (n, step, 1)), axis=2)
            row = row - xp.matrix_transpose(at_gone) @ so_far
        row = row[:, 0, :]
        pivot = xp.sqrt(xp.maximum(take_along_rows(row, gone), tiny[:, :1]))
        change = row / pivot
        out = positions == gone
        if own:  # rows go in step: those at their end change no more
            change, out = xp.where(ended, xp.zeros_like(change), change), out & ~ended
        changes[:, step, :] = change
        solution = solution - change * (take_along_rows(solution, gone) / pivot)
        diagonal = xp.maximum(diagonal - change * change, tiny)
        left = left & ~out
        alive = alive & left
    return xp.where(alive, solution / xp.sqrt(diagonal), lowest)
