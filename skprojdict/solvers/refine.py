# SPDX-License-Identifier: BSD-3-Clause
"""Supports improved by solving: candidates pruned to the best k, steps of subspace pursuit, non-negative supports."""

from .._array import array_namespace, device, lower_at, put_rows, take_along_rows, top_k
from .compiled_rows import code_compiled, compiled_pays, refine_compiled
from .elimination import RIDGE, elimination_ranking
from .norms import row_norms
from .penalties import SCORE_FREE, precisions
from .propose import n_added, n_candidates, n_kept, n_listed, propose
from .ridge import Projection, nonnegative_support, project
from .select import PRUNED, Support, fit_budget, keep_best, score_all
from .systems import safe_pivots


def weights_of(support, **penalty):
    """Precisions of a support's atoms (in exact mode: who takes part)."""
    return precisions(support.scores, support.active, added=support.added, **penalty)


def prune(support, Y, components, k, *, least=None, limit=0.0, penalty, solve):
    """Cut each row's candidates down by backward elimination (:func:`elimination_ranking`).

    To k, or with ``least`` to at least so many and at most k, of which those go that are missed by ``limit`` at most.
    """
    if support.indices.shape[1] <= (k if least is None else least):
        return support
    # Down to k the last removal is that of what is kept best; where rows end by themselves it is one of theirs.
    rule = {"k": k} if least is None else {"k": least - 1, "most": k, "limit": limit}
    return keep_best(support, _ranking(support, Y, components, **rule, penalty=penalty, solve=solve), k)


def _ranking(support, Y, components, *, penalty, solve, **rule):
    # By what explains the target, whatever the penalty: that of an added atom is a guess, and would decide.
    weights = array_namespace(Y).astype(weights_of(support, **penalty) > 0, Y.dtype)
    chunk_size = solve.get("chunk_size", "auto")
    return elimination_ranking(Y, components, support.indices, weights, **rule, exact=True, chunk_size=chunk_size)


def refine(support, scores, Y, components, k, *, penalty, solve, selection_dtype=None):
    """One step of subspace pursuit (Dai and Milenkovic, 2009).

    Adds to each row the k atoms that correlate best with its residual (half of k where k is large:
    :func:`~skprojdict.solvers.propose.n_added`), and cuts all of them back to k by backward elimination. Both look at
    the target alone, whatever the penalty. Atoms that the encoder overlooked have no telling score: in the penalised
    modes they get the mean precision of the row's selected atoms.

    Parameters
    ----------
    support : Support
        Current atoms of each row.
    scores : array of shape (n, p)
        Encoder scores of all atoms.
    Y : array of shape (n, d)
        Targets.
    components : array of shape (p, d)
        Atoms.
    k : int or None
        Atoms to keep. None: each row keeps at most as many as it has.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.
    selection_dtype : {"bfloat16", "float16"}, default=None
        Low precision for the correlations of all atoms with the residual.

    Returns
    -------
    support : Support
        At most k atoms a row.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.refine import refine
    >>> from skprojdict.solvers.select import select
    >>> Y, F, scores = np.array([[0.0, 2.0, 1.0]]), np.eye(3), np.array([[0.9, 0.8, 0.0]])
    >>> support = refine(select(scores, 2), scores, Y, F, 2, penalty={"penalty": "exact"}, solve={"exact": True})
    >>> np.sort(support.indices)
    array([[1, 2]])
    """
    options = {"penalty": penalty, "solve": solve, "selection_dtype": selection_dtype}
    return _refined(support, None, scores, Y, components, k, **options)[0]


def _refined(support, fit, scores, Y, components, k, *, penalty, solve, selection_dtype=None):
    """The same, and least squares on the result where a kernel comes by it; ``fit`` is that on the support, or None."""
    xp = array_namespace(Y)
    own = None  # how many atoms each row may keep
    if k is None:
        k, own = support.indices.shape[1], _numbers_of(support)
    # Shrunken coefficients leave a residual that recommends atoms like those that the row has: fit without the penalty.
    if fit is None:
        present = xp.astype(weights_of(support, **penalty) > 0, Y.dtype)
        fit = project(Y, components, support.indices, present, **{**solve, "exact": True})
    # Rounded ones only propose: the elimination decides in full precision who stays.
    correlation = score_all(Y - fit.reconstruction, components, None, n_exact=0, selection_dtype=selection_dtype)
    # A residual of nothing but rounding recommends nobody: that of the target, and of the atoms that it is made of.
    size = row_norms(Y) + xp.sum(xp.abs(fit.coefs), axis=1)
    rounding = 64 * float(xp.finfo(Y.dtype).eps) * size
    given = support, scores, correlation, rounding
    n, width = support.indices.shape
    if _fused(penalty, solve) and k <= components.shape[0] and compiled_pays(components, n, width + n_added(k)):
        return _refined_in_one(*given, Y, components, k, own, penalty=penalty, solve=solve)
    return _exchanged(*given, Y, components, k, own, penalty=penalty, solve=solve), None


def _exchanged(support, scores, correlation, rounding, Y, components, k, own, *, penalty, solve):
    """With the atoms that correlate best, pruned to k; or to ``own`` (n, 1) atoms of each row, in k columns."""
    candidates = _with_best(support, scores, correlation, rounding, n_added(k), None if own is None else n_added(own))
    if own is None:
        return prune(candidates, Y, components, k, penalty=penalty, solve=solve)
    candidates = _padding_last(candidates)
    # Elimination ends with one atom more, however much it is missed: the last removal is that of what is kept best.
    steps = max(0, n_added(k) - 1)  # since no row adds more
    rule = {"k": 0, "most": own[:, 0] + 1, "limit": -float("inf"), "steps": steps}
    best = keep_best(candidates, _ranking(candidates, Y, components, **rule, penalty=penalty, solve=solve), k)
    return best._replace(active=best.active & _first(own, best.active))


def _with_best(support, scores, correlation, rounding, n_new, each=None):
    """The support and the atoms that correlate best with what it leaves over: so many, of which a row has ``each``."""
    xp = array_namespace(scores)
    values, extra = top_k(lower_at(correlation, support.indices, support.active), min(n_new, scores.shape[1]))
    useful = values > rounding[:, None]
    if each is not None:
        useful = useful & _first(each, values)
    return Support(
        xp.concat([support.indices, extra], axis=1),
        xp.concat([support.scores, take_along_rows(scores, extra)], axis=1),
        xp.concat([support.active, useful], axis=1),
        xp.concat([_added(support), xp.ones_like(extra, dtype=xp.bool)], axis=1),
    )


def _added(support):
    return array_namespace(support.active).zeros_like(support.active) if support.added is None else support.added


def _numbers_of(support):
    """How many atoms each row has, (n, 1)."""
    xp = array_namespace(support.active)
    return xp.sum(xp.astype(support.active, xp.int64), axis=1, keepdims=True)


def _first(counts, like):
    """Boolean array like ``like`` (n, K) that holds in the first ``counts`` (n, 1) columns of each row."""
    return array_namespace(like).arange(like.shape[1], device=device(like))[None, :] < counts


def _padding_last(support):
    """The same support with the active atoms of each row first, so that ragged chunks stay short."""
    xp = array_namespace(support.scores)
    order = xp.argsort(xp.astype(support.active, xp.int64), axis=1, descending=True, stable=True)
    return Support(*(take_along_rows(part, order) for part in support))


# ---- the same in one kernel


def _fused(penalty, solve):
    """Whether every active atom takes part, and systems are solved directly: what the kernels take for granted."""
    return penalty["penalty"] in SCORE_FREE and solve.get("solver", "cholesky") == "cholesky"


def _kernel_options(components, K):
    return {"bounds": safe_pivots(components, K, exact=True), "ridge": RIDGE}


def _rows_of(rows, *arrays):
    return [None if each is None else array_namespace(each).take(each, rows, axis=0) for each in arrays]


def _patched(parts, rows, others):
    """Arrays (or None) with the numbered rows replaced."""
    return [None if a is None else put_rows(a, rows, b) for a, b in zip(parts, others, strict=True)]


def _least_squares(support, Y, components, *, solve):
    """On the rows that a kernel leaves to others."""
    present = array_namespace(Y).astype(support.active, Y.dtype)
    return project(Y, components, support.indices, present, **{**solve, "exact": True})


def _refined_in_one(support, scores, correlation, rounding, Y, components, k, own, *, penalty, solve):
    xp = array_namespace(Y)
    given = Y, components, support.indices, support.active, rounding
    options = _kernel_options(components, support.indices.shape[1] + n_added(k))
    most = xp.full_like(support.indices[:, 0], k) if own is None else own[:, 0]
    origin, codes, failed = refine_compiled(scores, correlation, *given, k, most, n_added(most), fitted=True, **options)
    new = origin < 0
    added = new | take_along_rows(_added(support), xp.where(new, xp.zeros_like(origin), origin))
    refined, fit = Support(codes.indices, codes.scores, codes.active, added), Projection(*codes[3:])
    if failed.shape[0]:
        parts = Support(*_rows_of(failed, *support))
        scores, correlation, rounding, Y, own = _rows_of(failed, scores, correlation, rounding, Y, own)
        other = _exchanged(parts, scores, correlation, rounding, Y, components, k, own, penalty=penalty, solve=solve)
        fit = Projection(*_patched(fit, failed, _least_squares(other, Y, components, solve=solve)))
        refined = Support(*_patched(refined, failed, other))
    return refined, fit


def choose_support(scores, Y, components, *, n_refinements=0, **coding):
    """The whole selection of the projective dictionary: scores and targets in, final support out.

    Selects by score, chooses ``candidate_factor`` times k candidates from ``shortlist_factor`` times k atoms, prunes
    them to k, refines ``n_refinements`` times, then (``positive_code``) drops the atoms whose coefficient is 0 in the
    best non-negative combination. The one code
    path of fit and transform: :func:`propose`, then :func:`settled`.

    Parameters
    ----------
    scores : array of shape (n, p)
        Encoder scores.
    Y : array of shape (n, d)
        Targets, or None when no step needs them (then no pruning, refinement or positive code happens).
    components : array of shape (p, d)
        Atoms.
    n_refinements : int, default=0
    **coding
        The other keywords of :func:`propose` and :func:`settled`.

    Returns
    -------
    support : Support

    Notes
    -----
    A row's support does not depend on the rows that it is computed with, but for ties that rounding breaks: the last
    digits of a matrix product depend on how many rows take part. Such ties are the rule only where many supports
    explain a row fully, that is in exact mode with more atoms than d. There a row that is explained up to rounding is
    not refined, while ``positive_code`` picks one of many equally good non-negative combinations: in float32, one row
    of some hundred may come out with another one when it is coded with other rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.refine import choose_support
    >>> Y, F = np.array([[0.0, 2.0, 1.0]]), np.eye(3)
    >>> coding = {"k": 2, "penalty": {"penalty": "exact"}, "solve": {"exact": True}}
    >>> scores = np.array([[0.9, 0.8, 0.7]])  # the encoder thinks most of the atom that is not there
    >>> np.sort(choose_support(scores, Y, F, n_refinements=1, **coding).indices)
    array([[1, 2]])
    """
    return choose(scores, Y, components, n_refinements=n_refinements, **coding)[1]


def choose(scores, Y, components, *, n_refinements=0, fitted=False, **coding):
    """The selection of :func:`choose_support` with what was proposed, and least squares where a kernel came by it.

    Parameters
    ----------
    fitted : bool, default=False
        Whether reconstructions are wanted as well.

    Returns
    -------
    proposed, support : Support
    fit : Projection or None
        Of the rows on their support, without a penalty; of the reconstruction too if ``fitted``.
    """
    if Y is None:
        proposed = propose(scores, components, **coding)
        return proposed, proposed, None
    if _in_one(components, scores.shape[0], **coding):
        proposed, support, fit = _coded(scores, Y, components, fitted=fitted or n_refinements > 0, **coding)
    else:
        proposed, fit = propose(scores, components, Y, **coding), None
        support = _cut_down(proposed, Y, components, **coding)
    return proposed, *settled(support, fit, scores, Y, components, n_refinements=n_refinements, **coding)


def code(scores, Y, components, **coding):
    """The selection of :func:`choose_support`, and the coefficients (n, K) of the projection on it."""
    _, support, fit = choose(scores, Y, components, **coding)
    penalty, solve = coding["penalty"], coding["solve"]
    if fit is None or not solve.get("exact"):
        fit = project(Y, components, support.indices, weights_of(support, **penalty), **solve)
    return support, fit.coefs


def _in_one(components, n, *, k, selection="top_k", candidate_factor=1.0, penalty, solve, **unused):
    p = components.shape[0]
    if selection not in PRUNED or k is None or k > p or not _fused(penalty, solve):
        return False
    return compiled_pays(components, n, n_candidates(k, candidate_factor, p))


def _cut_down(
    proposed, Y, components, *, k, selection="top_k", threshold=0.0, candidate_factor=1.0, penalty, solve, **unused
):
    """What pruning leaves of the proposals, where the rule prunes."""
    if k is None or selection not in PRUNED:
        return proposed
    least, most = n_kept(k, selection, n_candidates(k, candidate_factor, components.shape[0]))
    rule = {} if selection == "top_k" else {"least": least, "limit": threshold}
    return prune(proposed, Y, components, most, **rule, penalty=penalty, solve=solve)


def _coded(
    scores,
    Y,
    components,
    *,
    k,
    candidate_factor=1.0,
    shortlist_factor=1.0,
    selection="top_k",
    threshold=0.0,
    positive_scores=True,
    fitted,
    penalty,
    solve,
    **unused,
):
    """What is proposed for each row, and what pruning leaves of it, by one kernel."""
    p = components.shape[0]
    candidates = n_candidates(k, candidate_factor, p)
    least, most = n_kept(k, selection, candidates)
    sizes = k, candidates, n_listed(k, candidate_factor, shortlist_factor, p), least, most
    options = _kernel_options(components, candidates)
    given = scores, Y, components, sizes
    listed, codes, failed = code_compiled(*given, limit=threshold, positive=positive_scores, fitted=fitted, **options)
    proposed, support, fit = Support(*listed[:3]), Support(*codes[:3]), Projection(*codes[3:])
    if failed.shape[0]:
        own, y = _rows_of(failed, scores, Y)
        rule = {"k": k, "selection": selection, "candidate_factor": candidate_factor}
        more = {"shortlist_factor": shortlist_factor, "positive_scores": positive_scores}
        other = propose(own, components, y, **rule, **more, penalty=penalty, solve=solve)
        proposed = Support(*_patched(proposed, failed, other))
        other = _cut_down(other, y, components, **rule, threshold=threshold, penalty=penalty, solve=solve)
        fit = Projection(*_patched(fit, failed, _least_squares(other, y, components, solve=solve)))
        support = Support(*_patched(support, failed, other))
    return support if candidates == least else proposed, support, fit


def settled(
    support,
    fit,
    scores,
    Y,
    components,
    *,
    k,
    selection="top_k",
    dimension_budget=None,
    budget_measure="estimate",
    n_refinements=0,
    positive_code=False,
    selection_dtype=None,
    penalty,
    solve,
    **unused,
):
    """Final support of each row, from that which pruning left and the target: refine, make positive.

    Where a rule gives rows different numbers of atoms (k=None, "adaptive", "budget", "threshold"), a refinement step
    keeps each row's own number at most, and within the budget. Parameters as in :func:`choose_support`; ``fit`` is
    least squares on the support, or None. Returns the final pair of both.
    """
    for _ in range(n_refinements):
        given = support, fit, scores, Y, components, k if selection == "top_k" else None
        support, fit = _refined(*given, penalty=penalty, solve=solve, selection_dtype=selection_dtype)
        if selection == "budget":
            limit = {"measure": budget_measure, "chunk_size": solve.get("chunk_size", "auto"), **penalty}
            support = _fit_until_stable(support, components, dimension_budget, limit)
    if positive_code:
        support, fit = _positive(support, Y, components, penalty=penalty, solve=solve), None
    return support, fit


def _fit_until_stable(support, components, budget, limit):
    """Cut to the budget until nothing is left to cut: added atoms change their precision with the atoms they join."""
    xp = array_namespace(support.scores)
    while True:
        fitted = fit_budget(support, components, budget, **limit)
        if not bool(xp.any(fitted.active != support.active)):
            return fitted
        support = fitted


def _positive(support, Y, components, *, penalty, solve):
    """Drop the atoms that the best non-negative combination does not use.

    The projection on those that are left is positive, but for atoms so near each other that rounding tells them apart
    wrongly, and for precisions that depend on who is selected: whatever comes out negative then is dropped too.
    """
    xp = array_namespace(Y)
    weights = weights_of(support, **penalty)
    shape = {"exact": solve.get("exact", False), "chunk_size": solve.get("chunk_size", "auto")}
    keep = nonnegative_support(Y, components, support.indices, weights, **shape)
    while True:
        support = support._replace(active=support.active & keep)
        keep = project(Y, components, support.indices, weights_of(support, **penalty), **solve).coefs > 0
        if not bool(xp.any(support.active & ~keep)):
            return support
