# SPDX-License-Identifier: BSD-3-Clause
"""What the encoder proposes for each row: by score, and from a longer list by a second look at the target."""

from .._array import array_namespace
from .penalties import SCORE_FREE
from .ridge import project, sampled_products
from .select import PRUNED, Support, fit_budget, keep_best, select

# The list of "auto": so many times k atoms, at least so many, which small k need, but of a small dictionary no more
# than a share for the sake of that, so that the encoder goes on to decide.
LIST_FACTOR, LIST_ATOMS, LIST_SHARE = 6.0, 192, 1 / 16
# Rows of so many atoms may exchange all of them in a refinement.
FEW_ATOMS = 48


def n_candidates(k, candidate_factor, n_components):
    """How many atoms the encoder proposes for each row, before pruning to k."""
    return min(n_components, max(k, round(candidate_factor * k)))


def n_listed(k, candidate_factor, shortlist_factor, n_components):
    """How many of the best scored atoms of each row are looked at; one candidate more than k makes a second look."""
    candidates = n_candidates(k, candidate_factor, n_components)
    if candidates <= k:
        return candidates
    if shortlist_factor != "auto":
        return max(candidates, n_candidates(k, shortlist_factor, n_components))
    least = min(LIST_ATOMS, int(LIST_SHARE * n_components))
    return max(candidates, n_candidates(k, LIST_FACTOR, n_components), least)


def n_kept(k, selection, candidates):
    """How many of a row's candidates are kept at least and at most: k of them, or with "adaptive" about k."""
    if selection != "adaptive":
        return k, k
    return max(1, k // 4), min(candidates, k + (k + 1) // 2)


def n_added(n):
    """How many atoms a refinement adds at most to a row of n: as many, of long rows half as many.

    The time of a system grows with its cube, and what the last atoms add that correlate with a residual is little.

    Parameters
    ----------
    n : int or int64 array
    """
    half = n // 2
    if isinstance(n, int):
        return min(n, max(FEW_ATOMS, half))
    xp = array_namespace(n)
    return xp.minimum(n, xp.maximum(half, xp.full_like(n, FEW_ATOMS)))


def n_telling(k, candidate_factor, shortlist_factor, n_components, *, penalty):
    """How many of a row's largest scores have to be right where others may be rounded; None: all of them.

    Those that are looked at, where a penalty looks at their scores; else the k best scored, whose residual chooses
    among the others: what is further down the list joins, or does not, by its atom.
    """
    if k is None:
        return None
    return k if penalty in SCORE_FREE else n_listed(k, candidate_factor, shortlist_factor, n_components)


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
        Targets. With them "top_k" and "adaptive" propose ``candidate_factor`` times k atoms, to be pruned, chosen from
        the ``shortlist_factor`` times k best scored ones (:func:`shortlist`; "auto": :func:`n_listed`). None: k atoms,
        by score.
    k : int or None
        Atoms a row at most. None: as many as the rule admits.
    penalty, solve : dict
        Arguments of :func:`precisions` and :func:`project`.

    Returns
    -------
    support : Support
    """
    p = components.shape[0]
    several = Y is not None and k is not None and selection in PRUNED
    candidates = n_candidates(k, candidate_factor, p) if several else k
    listed = n_listed(k, candidate_factor, shortlist_factor, p) if several else k
    support = select(scores, listed, selection=selection, threshold=threshold, positive=positive_scores)
    if several and listed > candidates:
        return shortlist(support, Y, components, k, candidates, solve=solve)
    if selection != "budget":
        return support
    limit = {"measure": budget_measure, "chunk_size": solve.get("chunk_size", "auto"), **penalty}
    return fit_budget(support, components, dimension_budget, **limit)
