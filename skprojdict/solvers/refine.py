# SPDX-License-Identifier: BSD-3-Clause
"""Supports improved by solving: candidates pruned to the best k, steps of subspace pursuit, non-negative supports."""

from .._array import array_namespace, device, scatter_rows, take_along_rows, top_k
from .penalties import precisions
from .ridge import nonnegative_support, project
from .select import Support, fit_budget, keep_best, select


def weights_of(support, **penalty):
    """Precisions of a support's atoms (in exact mode: who takes part)."""
    return precisions(support.scores, support.active, added=support.added, **penalty)


def prune(support, Y, components, k, *, penalty, solve):
    """Solve on all candidates of each row, keep the k largest coefficients."""
    if support.indices.shape[1] <= k:
        return support
    coefs = project(Y, components, support.indices, weights_of(support, **penalty), **solve).coefs
    return keep_best(support, coefs, k)


def refine(support, scores, Y, components, k, *, penalty, solve):
    """One step of subspace pursuit (Dai and Milenkovic, 2009).

    Adds to each row the k atoms that correlate best with its residual, solves on all of them, and keeps the k
    largest coefficients. Atoms that the encoder overlooked have no telling score: in the penalised modes they get the
    mean precision of the row's selected atoms.

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
    k : int
        Atoms to keep.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.

    Returns
    -------
    support : Support
        At most k atoms a row.
    """
    xp = array_namespace(Y)
    fitted = project(Y, components, support.indices, weights_of(support, **penalty), **solve).reconstruction
    correlation = (Y - fitted) @ components.T
    chosen = scatter_rows(support.indices, xp.astype(support.active, Y.dtype), components.shape[0]) > 0
    lowest = xp.full_like(correlation, -float("inf"))
    values, extra = top_k(xp.where(chosen, lowest, correlation), min(k, components.shape[0]))
    none_added = xp.zeros_like(support.active) if support.added is None else support.added
    candidates = Support(
        xp.concat([support.indices, extra], axis=1),
        xp.concat([support.scores, take_along_rows(scores, extra)], axis=1),
        xp.concat([support.active, values > 0], axis=1),
        xp.concat([none_added, xp.ones_like(extra, dtype=xp.bool)], axis=1),
    )
    coefs = project(Y, components, candidates.indices, weights_of(candidates, **penalty), **solve).coefs
    return keep_best(candidates, coefs, k)


def choose_support(
    scores,
    Y,
    components,
    *,
    k,
    selection="top_k",
    threshold=0.0,
    dimension_budget=None,
    budget_measure="estimate",
    candidate_factor=1.0,
    n_refinements=0,
    positive_code=False,
    positive_scores=True,
    penalty,
    solve,
):
    """The whole selection of the projective dictionary: scores and targets in, final support out.

    Selects by score, then prunes ``candidate_factor`` times k candidates to k, then refines ``n_refinements`` times,
    then (``positive_code``) drops the atoms whose coefficient is 0 in the best non-negative combination. The one code
    path of fit and transform.

    Parameters
    ----------
    scores : array of shape (n, p)
        Encoder scores.
    Y : array of shape (n, d)
        Targets, or None when no step needs them (then no pruning, refinement or positive code happens).
    components : array of shape (p, d)
        Atoms.
    k : int or None
        Atoms a row at most. None: as many as the rule admits; candidates are then not pruned, and a refinement step
        keeps each row's own count at most.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.

    Returns
    -------
    support : Support
    """
    p = components.shape[0]
    several = k is not None and candidate_factor > 1 and Y is not None and selection == "top_k"
    first = min(p, max(k, round(candidate_factor * k))) if several else k
    support = select(scores, first, selection=selection, threshold=threshold, positive=positive_scores)
    if selection == "budget":
        support = fit_budget(
            support,
            components,
            dimension_budget,
            measure=budget_measure,
            chunk_size=solve.get("chunk_size", "auto"),
            **penalty,
        )
    if Y is None:
        return support
    if several:
        support = prune(support, Y, components, k, penalty=penalty, solve=solve)
    for _ in range(n_refinements):
        support = _refine_same_length(support, scores, Y, components, k, penalty=penalty, solve=solve)
    if positive_code:
        keep = nonnegative_support(
            Y,
            components,
            support.indices,
            weights_of(support, **penalty),
            exact=solve.get("exact", False),
            chunk_size=solve.get("chunk_size", "auto"),
        )
        support = support._replace(active=support.active & keep)
    return support


def _refine_same_length(support, scores, Y, components, k, *, penalty, solve):
    """A refinement step that leaves each row no more atoms than it had, or k where every row may have k."""
    width = support.indices.shape[1] if k is None else k
    refined = refine(support, scores, Y, components, width, penalty=penalty, solve=solve)
    if k is not None:
        return refined
    xp = array_namespace(scores)
    lengths = xp.sum(xp.astype(support.active, xp.int64), axis=1, keepdims=True)
    columns = xp.arange(refined.active.shape[1], device=device(refined.active))[None, :]
    return refined._replace(active=refined.active & (columns < lengths))
