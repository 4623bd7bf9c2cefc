# SPDX-License-Identifier: BSD-3-Clause
"""What the losses share: their result, scores, AuxK, nested prefixes, the weight of a sparsity penalty."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import torch

from ..autograd import decode, selected_scores
from ..distributed import batch_mean


class BatchLoss(NamedTuple):
    """The loss to differentiate, the mean squared error and variance of the batch, and what fired.

    ``indices`` None: ``fired`` has a column for each atom.
    """

    loss: torch.Tensor
    squared_error: torch.Tensor
    variance: torch.Tensor
    indices: torch.Tensor | None
    fired: torch.Tensor


def straight_relu(scores):
    """``relu(e)`` whose gradient passes everywhere, so that a silent feature can still be raised."""
    return scores + (scores.clamp_min(0) - scores).detach()


def trained_centre(weights, targets):
    """The centre that was taken off the encoder's inputs, where it is all that they are trained by; else None."""
    plain = weights.input_mean is None and weights.encoder_metric is None
    return weights.mean if plain and not targets.requires_grad else None


def scores_at(weights, seen, indices, all_scores=None, *, among=None, centre=None):
    """Differentiable scores (n, K) of the selected atoms; ``among`` and ``centre`` as in :func:`selected_scores`."""
    rows, gain = weights.encoder_rows()
    bias = weights.bias.gather(0, indices.reshape(-1)).reshape(indices.shape)
    gain = None if gain is None else gain.gather(0, indices.reshape(-1)).reshape(indices.shape)
    values = None
    if all_scores is not None:
        values = all_scores.gather(1, indices) - bias.detach()
        if gain is not None:  # a gain of 0 has lost the products
            values = values / gain.detach() if bool(gain.all()) else None
    products = selected_scores(rows, seen, indices, values, among=among, centre=centre)
    return (products if gain is None else products * gain) + bias


def mean_square(rows):
    """Mean over rows of the squared norm."""
    return rows.pow(2).sum(1).mean()


def batch_variance(targets):
    """Mean squared distance of the rows from the mean of the whole batch."""
    return mean_square(targets - batch_mean(targets.mean(0)))


def auxiliary(weights, seen, residual, scores, dead, *, auxk, auxk_coef, exact_scores=True, centre=None):
    """AuxK (Gao et al., 2024): dead features reconstruct what the live ones leave over.

    ``auxk_coef * || r - sum_j e_j f_j ||^2 / || r ||^2`` over the ``auxk`` best-scored dead features of each row. The
    gradient reaches their encoder rows whether or not the score is positive, else a feature whose scores are negative
    everywhere would stay dead. In the tied form it reaches the atoms alone: their codes cannot shrink to what the
    residual needs, so bias and gain would only be pushed down, and the dead stay dead.

    ``seen`` is what the encoder's rows meet of the inputs (:meth:`Weights.seen`).
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
        seen = seen if weights.encoder_metric is None else seen.detach()
    known = scores if exact_scores else None
    codes = straight_relu(scores_at(weights, seen, indices, known, among=candidates, centre=centre))
    residual = residual.detach()
    error = mean_square(residual - decode(codes, weights.components, indices, among=candidates))
    total = batch_mean(mean_square(residual)).clamp_min(torch.finfo(residual.dtype).tiny)
    return auxk_coef * (error / total)


def all_products(weights, inputs):
    """``<E_j, a_i>`` for every atom, differentiable: for the forms in which any number of atoms may fire."""
    rows, gain = weights.encoder_rows()
    products = inputs @ rows.T
    return products if gain is None else products * gain


def nested_error(y, parts):
    """Error of nested prefixes of the dictionary (Matryoshka; Bussmann et al., 2025).

    Parameters
    ----------
    y : (n, d)
    parts : iterable of (n, d)
        What each slice of the dictionary adds to the reconstruction by those before it.

    Returns
    -------
    error : ()
        Mean squared error, averaged over the prefixes.
    residual : (n, d)
        Of the whole dictionary.
    """
    errors = []
    for part in parts:
        y = y - part
        errors.append(mean_square(y))
    return torch.stack(errors).mean(), y


def slices(prefix_sizes):
    """``(start, stop)`` of what each of the increasing prefixes adds to the one before."""
    return itertools.pairwise([0, *prefix_sizes])


def dense_parts(codes, components, prefix_sizes):
    """Reconstructions by the slices of the dictionary, from codes (n, p) of all atoms."""
    return (codes[:, start:stop] @ components[start:stop] for start, stop in slices(prefix_sizes))


def steer(weight, l0, k, *, gain=0.03, most=1.0):
    """Move the weight of a sparsity penalty towards what makes k atoms a row fire, in place.

    Its logarithm moves by ``gain`` times that of l0 / k, held between -most and most.
    """
    surplus = torch.log(l0.clamp_min(torch.finfo(l0.dtype).tiny) / k).clamp(-most, most)
    weight.mul_(torch.exp(gain * surplus))


def mean_number(fired, dtype):
    """Mean number of atoms a row over the whole batch."""
    return batch_mean(fired.sum(1).to(dtype).mean())


def penalty_weight(weights, alpha, fired, k):
    """The weight of the sparsity penalty: ``alpha``, or the running one for alpha="auto", steered by what fired."""
    with torch.no_grad():
        if alpha == "auto":
            steer(weights.alpha, mean_number(fired, weights.alpha.dtype), k)
        else:
            weights.alpha.fill_(alpha)
    return weights.alpha
