# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the TopK autoencoder, by row (Gao et al., 2024) or by batch (Bussmann et al., 2024).

It is::

    mean over prefixes m of || y - sum_{j in S, j < m} relu(e_j) f_j ||^2  +  AuxK

S are the k largest scores of each row, or the n k largest of a batch of n rows; usually the whole dictionary is the
only prefix.
"""

import torch

from ...solvers.select import select, trained_dtype
from ..autograd import decode
from .batch import learn_threshold, select_in_batch
from .common import BatchLoss, auxiliary, batch_variance, mean_square, nested_error, scores_at, slices, trained_centre
from .prediction import prediction_error, predicts


def topk_loss(
    weights,
    inputs,
    targets,
    dead,
    *,
    k,
    auxk,
    auxk_coef,
    selection="row",
    prefix_sizes=None,
    selection_dtype=None,
    solve=None,
):
    """The loss of this file on one batch; by batch, the threshold for inference is learned on the way.

    With a second view whose coefficients are not the scores, the error of what predicts them joins the loss.
    """
    a, y = weights.centred(inputs, targets)
    selection_dtype = trained_dtype(selection_dtype, weights.encoder_rows()[0], k, len(a))
    scores = weights.all_scores(a.detach(), selection_dtype=selection_dtype, n_exact=k)
    centre, exact_scores = trained_centre(weights, targets), selection_dtype is None
    if selection == "batch":
        support, cut = select_in_batch(scores, k)
        learn_threshold(weights.threshold, cut)
    else:
        support = select(scores, k)
    selected = scores_at(weights, a, support.indices, scores, centre=centre)
    codes = torch.where(support.active, selected, torch.zeros_like(selected))
    parts = sparse_parts(codes, weights.components, support.indices, prefix_sizes)
    error, residual = nested_error(y, parts)
    given = {"auxk": auxk, "auxk_coef": auxk_coef, "exact_scores": exact_scores, "centre": centre}
    aux = auxiliary(weights, a, residual, scores, dead, **given)
    loss = error + aux
    if predicts(weights):
        active = support.active.to(y.dtype)
        loss = loss + prediction_error(weights, a, y, selected, support, active, solve=solve or {"exact": True})
    variance = batch_variance(targets)
    squared_error = mean_square(residual.detach())
    return BatchLoss(loss, squared_error, variance, support.indices, support.active)


def sparse_parts(codes, components, indices, prefix_sizes):
    """Reconstructions by the slices of the dictionary, from the codes (n, K) of selected atoms."""
    if prefix_sizes is None or len(prefix_sizes) == 1:
        yield decode(codes, components, indices)
        return
    for start, stop in slices(prefix_sizes):
        inside = (indices >= start) & (indices < stop)
        yield decode(torch.where(inside, codes, torch.zeros_like(codes)), components, indices)
