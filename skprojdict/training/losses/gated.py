# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the Gated autoencoder (Rajamanoharan et al., 2024).

It is::

    mean over prefixes m of || y - sum_{j < m} z_j f_j ||^2
        + alpha sum_j relu(e_j)  +  || y - sum_j relu(e_j) f_j ||^2  +  AuxK
    z_j = 1[e_j > 0] relu(exp(r_j) <E_j, a> + c_j)

so that the penalty acts on the gate e alone and does not shrink the magnitudes z. The third term, which gives the gate
its gradient, moves neither atoms nor centre.
"""

import torch

from .common import (
    BatchLoss,
    all_products,
    auxiliary,
    batch_variance,
    dense_parts,
    mean_square,
    nested_error,
    penalty_weight,
)


def gated_loss(weights, inputs, targets, dead, *, alpha, k, prefix_sizes, auxk, auxk_coef):
    """The loss of this file on one batch. ``alpha="auto"`` steers the penalty towards k atoms a row."""
    a, y = weights.centred(inputs, targets)
    products = all_products(weights, a)
    gate = products + weights.bias
    opened = gate.relu()
    magnitude = (weights.magnitude_log_gain.exp() * products + weights.magnitude_bias).relu()
    codes = torch.where(gate > 0, magnitude, torch.zeros_like(magnitude))
    fired = codes.detach() > 0
    error, residual = nested_error(y, dense_parts(codes, weights.components, prefix_sizes))
    by_gate = mean_square(targets - weights.mean.detach() - opened @ weights.components.detach())
    penalty = penalty_weight(weights, alpha, fired, k) * opened.sum(1).mean()
    aux = auxiliary(weights, a, residual, gate.detach(), dead, auxk=auxk, auxk_coef=auxk_coef)
    variance = batch_variance(targets)
    return BatchLoss(error + penalty + by_gate + aux, mean_square(residual.detach()), variance, None, fired)
