# SPDX-License-Identifier: BSD-3-Clause
"""Second view: what trains the parts that predict the target from the encoder's input alone."""

import torch

from ..autograd import decode, projected, selected_scores
from .common import mean_square


def predicts(weights):
    """Whether the weights have a part that predicts coefficients."""
    return any(part is not None for part in (weights.head, weights.head_scale, weights.surrogate))


def predicted_coefs(weights, inputs, atoms, scores, support, precision, *, solve):
    """Coefficients (n, K) of the selected atoms, by whichever part the weights have.

    Parameters
    ----------
    weights : Weights
        ``head``: an affine map for each atom; ``head_scale``: a factor for each score; ``surrogate``: an affine map
        whose values are projected in the target's place.
    inputs : tensor of shape (n, m)
        Centred.
    atoms : tensor of shape (p, d)
    scores, precision : tensors of shape (n, K)
        Of the selected atoms.
    support : Support
    solve : dict
        Keywords of :func:`skprojdict.solvers.ridge.project`.
    """
    if weights.surrogate is not None:
        stand_in = inputs @ weights.surrogate.T + weights.surrogate_bias
        return projected(stand_in, atoms, precision, support.indices, **solve)[1]
    flat, shape = support.indices.reshape(-1), support.indices.shape
    if weights.head is not None:
        chunk_size = solve.get("chunk_size", "auto")
        coefs = selected_scores(weights.head, inputs, support.indices, chunk_size=chunk_size)
        coefs = coefs + weights.head_bias.gather(0, flat).reshape(shape)
    else:
        coefs = scores * weights.head_scale.gather(0, flat).reshape(shape)
    return torch.where(support.active, coefs, torch.zeros_like(coefs))


def prediction_error(weights, inputs, y, scores, support, precision, *, solve):
    """``|| y - sum_{j in S} beta_hat_j f_j ||^2`` with predicted coefficients, mean over rows.

    The atoms learn from it where coefficients are predicted one by one; those of a surrogate are projections, and teach
    the surrogate alone.
    """
    atoms = weights.components if weights.surrogate is None else weights.components.detach()
    coefs = predicted_coefs(weights, inputs, atoms, scores, support, precision.detach(), solve=solve)
    return mean_square(y - decode(coefs, atoms, support.indices, chunk_size=solve.get("chunk_size", "auto")))
