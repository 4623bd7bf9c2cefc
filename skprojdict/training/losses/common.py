# SPDX-License-Identifier: BSD-3-Clause
"""What the losses share: their result, scores of selected atoms, AuxK, the learned threshold."""

from dataclasses import replace
from typing import NamedTuple

import torch

from ..autograd import decode, selected_scores
from ..distributed import batch_mean, batch_rows, batch_values


class BatchLoss(NamedTuple):
    """The loss to differentiate, the mean squared error and variance of the batch, and what fired."""

    loss: torch.Tensor
    squared_error: torch.Tensor
    variance: torch.Tensor
    indices: torch.Tensor
    fired: torch.Tensor


def straight_relu(scores):
    """``relu(e)`` whose gradient passes everywhere, so that a silent feature can still be raised."""
    return scores + (scores.clamp_min(0) - scores).detach()


def scores_at(weights, inputs, indices, all_scores=None):
    """Differentiable scores (n, K) of the selected atoms."""
    rows, gain = weights.encoder_rows()
    bias = weights.bias.gather(0, indices.reshape(-1)).reshape(indices.shape)
    values = None
    if all_scores is not None:
        values = all_scores.gather(1, indices) - bias.detach()
        if gain is not None:  # a gain of 0 has lost the products
            values = values / gain.detach() if float(gain.detach()) else None
    products = selected_scores(rows, inputs, indices, values)
    return (products if gain is None else products * gain) + bias


def mean_square(rows):
    """Mean over rows of the squared norm."""
    return rows.pow(2).sum(1).mean()


def batch_variance(targets):
    """Mean squared distance of the rows from the mean of the whole batch."""
    return mean_square(targets - batch_mean(targets.mean(0)))


def auxiliary(weights, inputs, residual, scores, dead, *, auxk, auxk_coef, exact_scores=True):
    """AuxK (Gao et al., 2024): dead features reconstruct what the live ones leave over.

    ``auxk_coef * || r - sum_j e_j f_j ||^2 / || r ||^2`` over the ``auxk`` best-scored dead features of each row. The
    gradient reaches their encoder rows whether or not the score is positive, else a feature whose scores are negative
    everywhere would stay dead. In the tied form it reaches the atoms alone: their codes cannot shrink to what the
    residual needs, so bias and gain would only be pushed down, and the dead stay dead.
    """
    n_dead = int(dead.sum())
    if not n_dead or not auxk_coef:
        return residual.new_zeros(())
    n_used = min(auxk, n_dead)
    candidates = dead.nonzero()[:, 0]
    local = torch.topk(scores[:, candidates], n_used, dim=1, sorted=False).indices
    indices = candidates[local]
    if weights.encoder is None:
        weights = replace(weights, bias=weights.bias.detach(), encoder_gain=weights.encoder_gain.detach())
    codes = straight_relu(scores_at(weights, inputs, indices, scores if exact_scores else None))
    residual = residual.detach()
    error = mean_square(residual - decode(codes, weights.components, indices))
    total = batch_mean(mean_square(residual)).clamp_min(torch.finfo(residual.dtype).tiny)
    return auxk_coef * (error / total)


@torch.no_grad()
def learn_threshold(threshold, scores, k, *, momentum=0.98, most=4):
    """Move the threshold towards the score that k atoms a row exceed on average over this batch.

    A running mean of BatchTopK's cut (Bussmann et al., 2024). A row's share is looked for among its ``most * k`` best
    scores, which bounds the sort.
    """
    p = scores.shape[1]
    _, n = batch_rows(scores.shape[0])
    best = batch_values(torch.topk(scores, min(p, most * k), dim=1).values, -torch.inf).reshape(-1)
    cut = torch.topk(best, min(best.numel(), n * k)).values[-1].clamp_min(0)
    threshold.lerp_(cut, 1 - momentum if float(threshold) else 1.0)
