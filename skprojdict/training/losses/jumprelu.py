# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the JumpReLU autoencoder (Rajamanoharan et al., 2024).

It is::

    mean over prefixes m of || y - sum_{j < m} z_j f_j ||^2  +  alpha (L0 / k - 1)^2  +  AuxK
    z_j = e_j where e_j > theta_j, else 0 ;  L0 = mean number of such atoms a row

The threshold theta has no gradient almost everywhere; it gets the derivative of the expected loss, estimated by a
rectangular kernel of width h around theta::

    dL/dtheta_j = - mean over rows of 1[ |e_j - theta_j| < h / 2 ] (theta_j dL/dz_j + dL/dL0) / h
"""

import torch
from torch.autograd import Function

from ..distributed import batch_mean
from .common import BatchLoss, all_products, auxiliary, batch_variance, dense_parts, mean_square, nested_error


class _Jump(Function):
    @staticmethod
    def forward(ctx, scores, thresholds, bandwidth):
        fired = (scores > thresholds).to(scores.dtype)
        ctx.save_for_backward(scores, thresholds, fired)
        ctx.bandwidth = bandwidth
        return scores * fired, fired

    @staticmethod
    def backward(ctx, d_codes, d_fired):
        scores, thresholds, fired = ctx.saved_tensors
        near = (scores - thresholds).abs() < ctx.bandwidth / 2
        slope = torch.where(near, thresholds * d_codes + d_fired, torch.zeros_like(scores)).sum(0)
        return fired * d_codes, -slope / ctx.bandwidth, None


def jump(scores, thresholds, bandwidth):
    """Codes ``e 1[e > theta]`` and the indicators themselves, with the kernel estimate of dL/dtheta."""
    return _Jump.apply(scores, thresholds, bandwidth)


def jumprelu_loss(weights, inputs, targets, dead, *, alpha, k, bandwidth, prefix_sizes, auxk, auxk_coef):
    """The loss of this file on one batch."""
    a, y = weights.centred(inputs, targets)
    scores = all_products(weights, a) + weights.bias
    codes, fired = jump(scores, weights.thresholds, bandwidth)
    error, residual = nested_error(y, dense_parts(codes, weights.components, prefix_sizes))
    l0 = fired.sum(1).mean()
    surplus = batch_mean(l0).detach() / k - 1  # of the whole batch, of which this process may hold a part
    penalty = alpha * (surplus.square() + 2 * surplus * (l0 - l0.detach()) / k)
    aux = auxiliary(weights, a, residual, scores.detach(), dead, auxk=auxk, auxk_coef=auxk_coef)
    variance = batch_variance(targets)
    return BatchLoss(error + penalty + aux, mean_square(residual.detach()), variance, None, fired.detach() > 0)
