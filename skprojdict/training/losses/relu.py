# SPDX-License-Identifier: BSD-3-Clause
"""Loss of the ReLU autoencoder with an L1 penalty (Bricken et al., 2023).

It is::

    mean over prefixes m of || y - sum_{j < m} relu(e_j) f_j ||^2  +  alpha sum_j relu(e_j)  +  AuxK
"""

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


def relu_loss(weights, inputs, targets, dead, *, alpha, k, prefix_sizes, auxk, auxk_coef):
    """The loss of this file on one batch. ``alpha="auto"`` steers the penalty towards k atoms a row."""
    a, y = weights.centred(inputs, targets)
    scores = all_products(weights, a) + weights.bias
    codes = scores.relu()
    fired = scores.detach() > 0
    error, residual = nested_error(y, dense_parts(codes, weights.components, prefix_sizes))
    penalty = penalty_weight(weights, alpha, fired, k) * codes.sum(1).mean()
    aux = auxiliary(weights, a, residual, scores.detach(), dead, auxk=auxk, auxk_coef=auxk_coef)
    variance = batch_variance(targets)
    return BatchLoss(error + penalty + aux, mean_square(residual.detach()), variance, None, fired)
