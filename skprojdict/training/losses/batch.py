# SPDX-License-Identifier: BSD-3-Clause
"""The n k largest scores of a batch of n rows (BatchTopK), and the threshold that stands for them afterwards."""

import torch

from ..._array import top_k
from ...solvers.select import Support
from ..distributed import batch_rows, batch_values


@torch.no_grad()
def select_in_batch(scores, k, *, most=4):
    """The ``n k`` largest scores of the whole batch, where they are positive (Bussmann et al., 2024).

    A row's share is looked for among its ``most * k`` best scores, and among more of them while a row's share may reach
    further.

    Returns
    -------
    support : Support
        Of ragged rows; rows share n k atoms.
    cut : ()
        The smallest of the n k largest scores.
    """
    p = scores.shape[1]
    _, n = batch_rows(scores.shape[0])
    n_best = min(p, most * k)
    while True:
        values, indices = top_k(scores, n_best)
        whole = batch_values(values, -torch.inf)
        cut = torch.topk(whole.reshape(-1), min(whole.numel(), n * k), sorted=False).values.min()
        if n_best == p or bool((whole[:, -1] < cut).all()):
            break
        n_best = min(p, 2 * n_best)
    active = (values >= cut) & (values > 0)
    width = max(1, int(active.sum(1).max()))
    return Support(indices[:, :width], values[:, :width], active[:, :width]), cut


@torch.no_grad()
def learn_threshold(threshold, cut, *, momentum=0.98):
    """Move the threshold towards the score that k atoms a row exceed on average over this batch: a running mean."""
    threshold.lerp_(cut.clamp_min(0), 1 - momentum if float(threshold) else 1.0)
