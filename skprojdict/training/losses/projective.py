# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the projective dictionary: squared error of the projection, and what trains the encoder."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch

from ..._memory import uninitialised
from ...solvers.penalties import DEFAULT_STRENGTH, SCORE_FREE, dimension_estimate, precisions
from ...solvers.propose import n_telling
from ...solvers.refine import choose, settled
from ...solvers.ridge import Projection
from ...solvers.select import Support, trained_dtype
from ..autograd import overlap, projected
from ..distributed import batch_rows
from .batch import learn_threshold, select_in_batch
from .common import (
    BatchLoss,
    auxiliary,
    batch_variance,
    mean_number,
    mean_square,
    scores_at,
    steer,
    straight_relu,
    trained_centre,
)
from .prediction import prediction_error, predicts

# Weight of the scores that should have been lower beside those that should match a coefficient: at 1 the encoder grows
# timid, and the dictionary learns less from rows where a feature was proposed in vain.
REFUSAL = 0.3
# Weight of the scores of atoms that refinement had to add: at 1 an atom that the encoder never proposes stays so.
# Not in the tied form, whose gains and bias alone cannot follow.
OVERLOOKED = 3.0
# Of selection="adaptive": how fast the threshold follows (its logarithm, beside that of the number of atoms), and the
# bisection that it starts by, in units where the mean centred row has norm 1.
REMOVAL_GAIN, REMOVAL_RANGE, REMOVAL_HALVINGS = 0.3, (1e-6, 1.0), 16
LOOKED_AT = ("k", "candidate_factor", "shortlist_factor")


def projective_loss(
    weights,
    inputs,
    targets,
    dead,
    *,
    coding,
    encoder_loss,
    overlap_penalty,
    prefixes,
    auxk,
    auxk_coef,
    refined_share=0.0,
    selection_dtype=None,
):
    """Projective dictionary: squared error of the projection, and what trains the encoder.

    For every nested prefix of the dictionary (usually the whole alone)::

        || y - y_hat ||^2                       error of the (ridge) projection on the selected atoms
        + || relu(e_S) - stopgrad(beta_S) ||^2  encoder_loss="coefficients": scores regress solved coefficients
        + 2 || relu(e_A) - stopgrad(beta_A) ||^2        so that what was overlooked weighs 3 (untied)
        + 0.3 || relu(e_D) ||^2
        + strength * sum_S s / (1 + s)          quota="penalize"
        + rho * sum_{i != j} (f_i . f_j)^2 c_i c_j ,  c = s / (1 + s) (1 in exact mode)

    averaged over the prefixes; plus AuxK on the residual of the whole dictionary. S are the selected atoms, A those of
    them that a refinement added, and D those that were proposed and dropped, whose coefficients are 0: the encoder
    learns which atoms the solved support ends with. In ``refined_share`` of the rows that support is refined, at least
    once; there the encoder learns of atoms that it overlooked, for a second product with those rows alone. With a
    second view,
    ``|| y - sum_S (u_j . a + c_j) f_j ||^2`` trains the head that predicts coefficients from the input.
    """
    a, y = weights.centred(inputs, targets)
    seen = weights.seen(a)
    n_exact = None
    if selection_dtype is not None:
        sizes = {name: coding[name] for name in LOOKED_AT}
        n_exact = n_telling(**sizes, n_components=weights.bias.shape[0], penalty=coding["penalty"]["penalty"])
        selection_dtype = trained_dtype(selection_dtype, weights.encoder_rows()[0], n_exact, len(a))
        coding = {**coding, "selection_dtype": selection_dtype}
    centre, exact_scores = trained_centre(weights, targets), selection_dtype is None
    scores = weights.all_scores(seen.detach(), selection_dtype=selection_dtype, n_exact=n_exact)
    adaptive = coding.get("selection") == "adaptive"
    if adaptive and weights.removal_threshold is None:  # weights that were taken over have none
        adaptive, coding = False, {**coding, "selection": "top_k"}
    if adaptive:
        coding = {**coding, "threshold": weights.removal_threshold}
    elif weights.threshold is not None:
        cut = select_in_batch(importance(weights, scores), coding["k"])[1]
        learn_threshold(weights.threshold, cut)
        coding = {**coding, "threshold": float(weights.threshold)}
    total = 0.0
    for size, k in prefixes:
        whole = size == weights.components.shape[0]
        # What a whole dictionary's atoms are missed by says nothing of a prefix.
        rule = {"selection": "top_k"} if adaptive and not whole else {}
        part = _projective_part(
            weights,
            a,
            seen,
            y,
            scores,
            size,
            coding={**coding, **rule, "k": k},
            encoder_loss=encoder_loss,
            overlap_penalty=overlap_penalty,
            refined_share=refined_share,
            n_exact=None if exact_scores else n_exact,
            centre=centre,
        )
        total = total + part.loss
    total = total / len(prefixes)
    if adaptive:
        steer(weights.removal_threshold, mean_number(part.active, torch.float64), coding["k"], gain=REMOVAL_GAIN)
        weights.removal_threshold.clamp_(min=REMOVAL_RANGE[0])  # where there are no k atoms to keep
    given = {"auxk": auxk, "auxk_coef": auxk_coef, "exact_scores": exact_scores, "centre": centre}
    aux = auxiliary(weights, seen, part.residual, scores, dead, **given)
    variance = batch_variance(targets)
    return BatchLoss(total + aux, mean_square(part.residual.detach()), variance, part.indices, part.fired)


class _Part(NamedTuple):
    loss: torch.Tensor
    residual: torch.Tensor
    indices: torch.Tensor
    active: torch.Tensor
    fired: torch.Tensor


@torch.no_grad()
def importance(weights, scores):
    """Scores as a score-dependent penalty sees them."""
    return scores if weights.importance_gain is None else scores * weights.importance_gain


@torch.no_grad()
def calibrate_removal(weights, centred_inputs, coding):
    """Threshold of the adaptive selection that leaves k atoms in each of these rows on average, by bisection."""
    scores = importance(weights, weights.all_scores(weights.seen(centred_inputs)))
    low, high = REMOVAL_RANGE
    for _ in range(REMOVAL_HALVINGS):
        threshold = math.sqrt(low * high)
        given = scores, centred_inputs, weights.components
        active = choose(*given, **{**coding, "threshold": threshold, "n_refinements": 0})[1].active
        number = float(active.sum()) / active.shape[0]
        low, high = (threshold, high) if number > coding["k"] else (low, threshold)
    return threshold


def supports(scores, y, atoms, *, coding, refined_share):
    """What the encoder proposes and what the solver settles on, refined at least once in a share of the rows.

    With least squares on the latter, where the selection came by it.
    """
    proposed, support, fit = choose(scores, y, atoms, fitted=True, **coding)
    first, n = batch_rows(y.shape[0])
    n_refined = round(refined_share * n)
    if not n_refined or coding["n_refinements"]:
        return proposed, support, fit
    rows = torch.arange(n_refined, device=y.device) * n // n_refined  # spread: batches come in the order of the data
    if n != y.shape[0]:  # those of this process
        rows = rows[(rows >= first) & (rows < first + y.shape[0])] - first
        if not rows.numel():
            return proposed, support, fit
    parts = Support(*(None if part is None else part[rows] for part in support))
    part_fit = None if fit is None else Projection(*(part[rows] for part in fit))
    once = {**coding, "n_refinements": 1}
    own_scores = torch.index_select(scores, 0, rows, out=uninitialised((rows.numel(), scores.shape[1]), scores))
    refined, refined_fit = settled(parts, part_fit, own_scores, y[rows], atoms, **once)
    width = refined.indices.shape[1]
    added = torch.zeros_like(support.active) if support.added is None else support.added
    merged = (
        torch.nn.functional.pad(part, (0, width - part.shape[1])).index_copy(0, rows, new)
        for part, new in zip(support._replace(added=added), refined, strict=True)
    )
    if fit is not None and refined_fit is not None and width == support.indices.shape[1]:
        fit = Projection(*(part.index_copy(0, rows, new) for part, new in zip(fit, refined_fit, strict=True)))
    else:
        fit = None
    return proposed, Support(*merged), fit


@torch.no_grad()
def score_again(weights, seen, proposed, support, scores, n_exact):
    """Replace the scores of proposed and added atoms, which were rounded, by those of full precision, in place.

    But for the ``n_exact`` best scored, which come first.
    """
    rounded = proposed.indices[:, n_exact:]
    if rounded.shape[1]:
        scores.scatter_(1, rounded, scores_at(weights, seen, rounded))
    if support.added is not None:
        rows = support.added.any(1).nonzero()[:, 0]
        indices = support.indices[rows]
        scores[rows[:, None], indices] = scores_at(weights, seen[rows], indices)


def dropped(proposed, support, n_components):
    """Proposed atoms that are not in the final support, bool like ``proposed.active``."""
    # A mark for every atom, of which those that are asked for are written alone; padding goes to a column of its own.
    kept = uninitialised((support.active.shape[0], n_components + 1), proposed.scores, dtype=torch.bool)
    kept.scatter_(1, proposed.indices, False)
    kept.scatter_(1, torch.where(support.active, support.indices, n_components), True)
    return proposed.active & ~kept.gather(1, proposed.indices)


def _projective_part(
    weights, a, seen, y, scores, size, *, coding, encoder_loss, overlap_penalty, refined_share, n_exact, centre
):
    components = weights.components
    whole = size == components.shape[0]
    atoms = components if whole else components[:size]
    scores = scores if whole else scores[:, :size]
    penalty, solve = coding["penalty"], coding["solve"]
    chunk_size = solve.get("chunk_size", "auto")
    gain = weights.importance_gain
    exact = penalty["penalty"] == "exact"
    with torch.no_grad():
        important = importance(weights, scores)
        proposed, support, fit = supports(
            important, y.detach(), atoms.detach(), coding=coding, refined_share=refined_share
        )
    # Others were rounded, which a regression does not mind, and a penalty does; a prefix or a gain ranks anew.
    if n_exact is not None and penalty["penalty"] not in SCORE_FREE:
        score_again(weights, seen.detach(), proposed, support, scores, n_exact if whole and gain is None else 0)
    k = support.indices.shape[1]
    regress = encoder_loss == "coefficients"
    refuse = regress and proposed.indices is not support.indices
    looked_at = torch.cat([support.indices, proposed.indices], dim=1) if refuse else support.indices
    # In the tied form the atoms are those of the projection: regression would bend them to suit the scores.
    pupil = replace(weights, components=weights.components.detach()) if weights.encoder is None else weights
    taught = scores_at(pupil, seen, looked_at, scores, centre=centre)
    same = pupil is weights or penalty["penalty"] in SCORE_FREE
    selected = taught[:, :k] if same else scores_at(weights, seen, support.indices, scores, centre=centre)
    important = selected if gain is None else selected * gain
    s = precisions(important, support.active, added=support.added, **penalty)
    reconstruction, coefs = projected(
        y, atoms, s, support.indices, envelope=exact, known=fit if exact else None, **solve
    )
    residual = y - reconstruction
    loss = mean_square(residual)
    if regress:
        goal = coefs.detach()
        error = torch.where(support.active, straight_relu(taught[:, :k]) - goal, torch.zeros_like(goal))
        if weights.encoder is not None and support.added is not None:
            error = error * (1 + (math.sqrt(OVERLOOKED) - 1) * support.added.to(error.dtype))
        loss = loss + mean_square(error)
    if refuse:
        refused = taught[:, k:]
        out = dropped(proposed, support, size)
        loss = loss + REFUSAL * mean_square(torch.where(out, refused, torch.zeros_like(refused)))
    if penalty["quota"] == "penalize":
        strength = penalty["quota_strength"]
        strength = DEFAULT_STRENGTH["penalize"] if strength is None else strength
        loss = loss + strength * dimension_estimate(s).mean()
    if overlap_penalty:
        shares = s if exact else s / (1 + s)
        loss = loss + overlap_penalty * overlap(atoms, shares, support.indices, chunk_size=chunk_size).mean()
    if whole and predicts(weights):
        loss = loss + prediction_error(weights, a, y, selected, support, s, solve=solve)
    return _Part(loss, residual, support.indices, support.active, support.active & (coefs.detach() != 0))
