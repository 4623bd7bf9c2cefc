# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the TopK autoencoder: ``|| y - sum_{j in S} relu(e_j) f_j ||^2`` plus AuxK."""

import torch

from ...solvers.select import select
from ..autograd import decode
from .common import BatchLoss, auxiliary, batch_variance, mean_square, scores_at


def topk_loss(weights, inputs, targets, dead, *, k, auxk, auxk_coef, selection_dtype=None):
    """TopK autoencoder: ``|| y - sum_{j in S} relu(e_j) f_j ||^2`` plus AuxK (Gao et al., 2024, section 2)."""
    a, y = weights.centred(inputs, targets)
    scores = weights.all_scores(a.detach(), selection_dtype=selection_dtype, n_exact=k)
    exact_scores = selection_dtype is None
    support = select(scores, k)
    selected = scores_at(weights, a, support.indices, scores if exact_scores else None)
    codes = torch.where(support.active, selected, torch.zeros_like(selected))
    residual = y - decode(codes, weights.components, support.indices)
    squared_error = mean_square(residual)
    aux = auxiliary(weights, a, residual, scores, dead, auxk=auxk, auxk_coef=auxk_coef, exact_scores=exact_scores)
    variance = batch_variance(targets)
    return BatchLoss(squared_error + aux, squared_error.detach(), variance, support.indices, support.active)
