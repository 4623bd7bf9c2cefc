# SPDX-License-Identifier: BSD-3-Clause
"""Supports improved by solving: candidates pruned to the best k, steps of subspace pursuit, non-negative supports."""

from .._array import array_namespace, device, lower_at, take_along_rows, top_k
from .elimination import elimination_ranking
from .penalties import precisions
from .ridge import nonnegative_support, project, sampled_products
from .select import Support, fit_budget, keep_best, select


def weights_of(support, **penalty):
    """Precisions of a support's atoms (in exact mode: who takes part)."""
    return precisions(support.scores, support.active, added=support.added, **penalty)


def prune(support, Y, components, k, *, penalty, solve):
    """Cut each row's candidates down to k by backward elimination (:func:`elimination_ranking`)."""
    if support.indices.shape[1] <= k:
        return support
    return keep_best(support, _ranking(support, Y, components, k, penalty=penalty, solve=solve), k)


def _ranking(support, Y, components, k, *, penalty, solve):
    # By what explains the target, whatever the penalty: that of an added atom is a guess, and would decide.
    weights = array_namespace(Y).astype(weights_of(support, **penalty) > 0, Y.dtype)
    chunk_size = solve.get("chunk_size", "auto")
    return elimination_ranking(Y, components, support.indices, weights, k, exact=True, chunk_size=chunk_size)


def refine(support, scores, Y, components, k, *, penalty, solve):
    """One step of subspace pursuit (Dai and Milenkovic, 2009).

    Adds to each row the k atoms that correlate best with its residual, and cuts the 2k back to k by backward
    elimination. Both look at the target alone, whatever the penalty. Atoms that the encoder overlooked have no telling
    score: in the penalised modes they get the mean precision of the row's selected atoms.

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
        Atoms to keep. None: each row adds and keeps at most as many as it has.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.

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
    xp = array_namespace(Y)
    own = None
    if k is None:
        k = support.indices.shape[1]
        own = xp.sum(xp.astype(support.active, xp.int64), axis=1, keepdims=True)
    # Shrunken coefficients leave a residual that recommends atoms like those that the row has: fit without the penalty.
    present = xp.astype(weights_of(support, **penalty) > 0, Y.dtype)
    fitted = project(Y, components, support.indices, present, **{**solve, "exact": True})
    correlation = (Y - fitted.reconstruction) @ components.T
    values, extra = top_k(lower_at(correlation, support.indices, support.active), min(k, components.shape[0]))
    # A residual of nothing but rounding recommends nobody: that of the target, and of the atoms that it is made of.
    size = xp.sqrt(xp.sum(Y * Y, axis=1, keepdims=True)) + xp.sum(xp.abs(fitted.coefs), axis=1, keepdims=True)
    rounding = 64 * float(xp.finfo(Y.dtype).eps) * size
    useful = values > rounding if own is None else (values > rounding) & _first(own, values)
    none_added = xp.zeros_like(support.active) if support.added is None else support.added
    candidates = Support(
        xp.concat([support.indices, extra], axis=1),
        xp.concat([support.scores, take_along_rows(scores, extra)], axis=1),
        xp.concat([support.active, useful], axis=1),
        xp.concat([none_added, xp.ones_like(extra, dtype=xp.bool)], axis=1),
    )
    if own is None:
        return prune(candidates, Y, components, k, penalty=penalty, solve=solve)
    # Every row keeps its own number of atoms, so they do not go one after the other in step.
    candidates = _padding_last(candidates)
    width = candidates.indices.shape[1]
    best = keep_best(candidates, _ranking(candidates, Y, components, width, penalty=penalty, solve=solve), k)
    return best._replace(active=best.active & _first(own, best.active))


def _first(counts, like):
    """Boolean array like ``like`` (n, K) that holds in the first ``counts`` (n, 1) columns of each row."""
    return array_namespace(like).arange(like.shape[1], device=device(like))[None, :] < counts


def _padding_last(support):
    """The same support with the active atoms of each row first, so that ragged chunks stay short."""
    xp = array_namespace(support.scores)
    order = xp.argsort(xp.astype(support.active, xp.int64), axis=1, descending=True, stable=True)
    return Support(*(take_along_rows(part, order) for part in support))


def n_candidates(k, candidate_factor, n_components):
    """How many atoms the encoder proposes for each row, before pruning to k."""
    return min(n_components, max(k, round(candidate_factor * k)))


def n_listed(k, candidate_factor, shortlist_factor, n_components):
    """How many of the best scored atoms of each row are looked at; one candidate more than k makes a second look."""
    candidates = n_candidates(k, candidate_factor, n_components)
    return max(candidates, n_candidates(k, shortlist_factor, n_components)) if candidates > k else candidates


def shortlist(support, Y, components, k, n_candidates, *, solve):
    """Choose each row's candidates from a longer list: a second look that needs no second product.

    The k best scored are solved for, without a penalty. Of the others on the list those join that correlate best with
    what is left over of the target: what the encoder scores high because it resembles a selected atom has nothing to
    add, and makes room.

    Parameters
    ----------
    support : Support
        More than ``n_candidates`` atoms a row, by descending score.
    Y : array of shape (n, d)
    components : array of shape (p, d)
    k, n_candidates : int
    solve : dict
        Arguments of :func:`project`.

    Returns
    -------
    support : Support
        ``n_candidates`` atoms a row.
    """
    xp = array_namespace(Y)

    def columns(part):
        return Support(*(None if values is None else values[:, part] for values in support))

    first, others = columns(slice(None, k)), columns(slice(k, None))
    fitted = project(Y, components, first.indices, xp.astype(first.active, Y.dtype), **{**solve, "exact": True})
    residual = Y - fitted.reconstruction
    gain = sampled_products(components, others.indices, residual, chunk_size=solve.get("chunk_size", "auto"))
    joining = keep_best(others, gain, n_candidates - k)
    return Support(*(None if a is None else xp.concat([a, b], axis=1) for a, b in zip(first, joining, strict=True)))


def choose_support(scores, Y, components, *, n_refinements=0, **coding):
    """The whole selection of the projective dictionary: scores and targets in, final support out.

    Selects by score, chooses ``candidate_factor`` times k candidates from ``shortlist_factor`` times k atoms, prunes
    them to k, refines ``n_refinements`` times, then (``positive_code``) drops the atoms whose coefficient is 0 in the
    best non-negative combination. The one code
    path of fit and transform: :func:`propose`, then :func:`settle`.

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
        The other keywords of :func:`propose` and :func:`settle`.

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
    proposed = propose(scores, components, Y, **coding)
    return proposed if Y is None else settle(proposed, scores, Y, components, n_refinements=n_refinements, **coding)


def propose(
    scores,
    components,
    Y=None,
    *,
    k,
    selection="top_k",
    threshold=0.0,
    dimension_budget=None,
    budget_measure="estimate",
    candidate_factor=1.0,
    shortlist_factor=1.0,
    positive_scores=True,
    penalty,
    solve,
    **unused,
):
    """What the encoder proposes for each row: by score alone, but for the choice from a longer list.

    Parameters
    ----------
    scores : array of shape (n, p)
    components : array of shape (p, d)
        Looked at for ``budget_measure="exact"`` only.
    Y : array of shape (n, d), default=None
        Targets. With them ``selection="top_k"`` proposes ``candidate_factor`` times k atoms, to be pruned, chosen from
        the ``shortlist_factor`` times k best scored ones (:func:`shortlist`). None: k atoms, by score.
    k : int or None
        Atoms a row at most. None: as many as the rule admits.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.

    Returns
    -------
    support : Support
    """
    p = components.shape[0]
    several = Y is not None and k is not None and selection == "top_k"
    candidates = n_candidates(k, candidate_factor, p) if several else k
    listed = n_listed(k, candidate_factor, shortlist_factor, p) if several else k
    support = select(scores, listed, selection=selection, threshold=threshold, positive=positive_scores)
    if several and listed > candidates:
        return shortlist(support, Y, components, k, candidates, solve=solve)
    if selection != "budget":
        return support
    limit = {"measure": budget_measure, "chunk_size": solve.get("chunk_size", "auto"), **penalty}
    return fit_budget(support, components, dimension_budget, **limit)


def settle(
    support,
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
    penalty,
    solve,
    **unused,
):
    """Final support of each row, from what was proposed and the target: prune to k, refine, make positive.

    Where a rule gives rows different numbers of atoms (k=None, "budget", "threshold"), proposals are not pruned, and a
    refinement step keeps each row's own number at most, and within the budget. Parameters as in
    :func:`choose_support`.
    """
    most = k if selection == "top_k" else None
    if most is not None:
        support = prune(support, Y, components, most, penalty=penalty, solve=solve)
    for _ in range(n_refinements):
        support = refine(support, scores, Y, components, most, penalty=penalty, solve=solve)
        if selection == "budget":
            limit = {"measure": budget_measure, "chunk_size": solve.get("chunk_size", "auto"), **penalty}
            support = _fit_until_stable(support, components, dimension_budget, limit)
    if positive_code:
        support = _positive(support, Y, components, penalty=penalty, solve=solve)
    return support


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
