# SPDX-License-Identifier: BSD-3-Clause
"""Weights to start from, made of a sample of the data."""

import numpy as np
import torch

from ..solvers.initial import initial_components, linear_map, paired_start
from .losses.batch import select_in_batch
from .losses.projective import calibrate_removal
from .weights import Weights, calibrate_importance

# Rows by which the threshold of the adaptive selection starts; training steers it from there on.
CALIBRATION_ROWS = 256


def fresh_weights(
    inputs,
    targets,
    *,
    components,
    init,
    n_components,
    k,
    tied,
    input_mean,
    mean,
    rng,
    dtype,
    device,
    importance=False,
    head=False,
    metric=False,
    threshold=False,
    removal_threshold=False,
    coding=None,
    thresholds=False,
    gated=False,
    alpha=None,
    head_scale=False,
    surrogate=False,
    skip=False,
):
    """Weights at the start of training.

    The encoder starts at the decoder's transpose. With two views, random atoms are paired with random encoder rows
    (:func:`skprojdict.solvers.initial.paired_start`), and other atoms with what a linear map predicts of them.

    Parameters
    ----------
    inputs, targets : ndarray of shape (n, m), (n, d)
        Sample rows in training units, centred.
    components : ndarray of shape (p, d) or None
        Given starting atoms; None: by ``init``.
    mean : ndarray of shape (d,)
        Centre of the target in training units (``inputs`` and ``targets`` have theirs taken off already).
    input_mean : ndarray of shape (m,) or None
        The same of a second view's input; None: one view.
    importance, metric, head, threshold, removal_threshold, thresholds, gated, head_scale, surrogate, skip : bool
        Which optional parts the form has. The thresholds of JumpReLU start at the score that k atoms a row exceed.
    coding : dict or None
        How rows are coded; for ``removal_threshold``, which starts at what leaves k atoms a row of the sample.
    alpha : float or None
        Where the weight of a sparsity penalty starts; None: the form has none.
    """
    drawn = components is None and init == "random" and not tied
    if components is None:
        components = initial_components(init, targets, n_components, rng)

    def tensor(values):  # a copy: the encoder starts at the decoder's values, not in its memory
        # In the order of rows: a resumed fit has it so, and products round by it.
        return torch.tensor(np.ascontiguousarray(values, dtype=np.float64), dtype=dtype, device=device)

    encoder, linear = components, None
    if input_mean is not None:
        linear = linear_map(inputs, targets)
        encoder = components @ linear
        if drawn:
            rest = targets - inputs @ linear.T if skip else targets
            components, encoder = paired_start(inputs, rest, components, k, rng)
    p = components.shape[0]
    weights = Weights(
        components=tensor(components),
        mean=tensor(mean),
        bias=torch.zeros(p, dtype=dtype, device=device),
        encoder=None if tied else tensor(encoder),
        encoder_gain=torch.ones(p, dtype=dtype, device=device) if tied else None,
        encoder_metric=torch.eye(inputs.shape[1], dtype=dtype, device=device) if metric else None,
        input_mean=None if input_mean is None else tensor(input_mean),
        head=tensor(encoder) if head else None,
        head_bias=torch.zeros(p, dtype=dtype, device=device) if head else None,
        threshold=torch.zeros((), dtype=dtype, device=device) if threshold else None,
        magnitude_log_gain=torch.zeros(p, dtype=dtype, device=device) if gated else None,
        magnitude_bias=torch.zeros(p, dtype=dtype, device=device) if gated else None,
        alpha=None if alpha is None else torch.full((), alpha, dtype=dtype, device=device),
        head_scale=torch.ones(p, dtype=dtype, device=device) if head_scale else None,
        surrogate=tensor(linear) if surrogate else None,
        surrogate_bias=torch.zeros(targets.shape[1], dtype=dtype, device=device) if surrogate else None,
        skip=tensor(linear) if skip else None,
    )
    if thresholds:
        cut = select_in_batch(weights.all_scores(tensor(inputs[:1024])), k)[1]
        weights.thresholds = cut.clamp_min(0).repeat(p)
    if importance:
        gain = calibrate_importance(weights, tensor(inputs[:1024]), k or max(1, targets.shape[1] // 10))
        weights.importance_gain = torch.full((), gain, dtype=dtype, device=device)
    if removal_threshold:
        start_removal(weights, tensor(inputs[some_of(len(inputs))]), coding)
    return weights


def some_of(n):
    """Numbers of some of n rows, from all over: they may lie in an order."""
    return np.unique(np.linspace(0, n - 1, min(n, CALIBRATION_ROWS)).astype(np.int64))


def start_removal(weights, centred_inputs, coding):
    """Set the threshold of the adaptive selection to what suits these rows; training goes on from there."""
    if weights.removal_threshold is None:
        weights.removal_threshold = weights.bias.detach().new_zeros(())
    weights.removal_threshold.fill_(calibrate_removal(weights, centred_inputs, coding))
