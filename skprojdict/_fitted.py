# SPDX-License-Identifier: BSD-3-Clause
"""Fitted attributes of a neural dictionary, in the units of the data, and the weights that they come from."""

from itertools import chain

import numpy as np

from ._array import from_torch, to_numpy
from .sources import prototype

# Fitted attributes that only some forms have, by the part of the weights that they belong to.
OPTIONAL_PARTS = {
    "tied": ("encoder_gain_",),
    "metric": ("encoder_metric_",),
    "importance": ("importance_gain_",),
    "threshold": ("threshold_",),
    "removal_threshold": ("removal_threshold_", "n_nonzero_coefs_"),
    "head": ("coef_components_", "coef_bias_"),
    "thresholds": ("thresholds_",),
    "gated": ("magnitude_log_gain_", "magnitude_bias_"),
    "alpha": ("alpha_",),
    "head_scale": ("coef_scale_",),
    "surrogate": ("surrogate_components_", "surrogate_bias_"),
    "skip": ("skip_components_",),
}
SCALARS = ("importance_gain", "threshold", "removal_threshold", "alpha")
ARRAYS = ("encoder_gain", "encoder_metric", "thresholds", "magnitude_log_gain", "magnitude_bias")


def attributes_of(trainer, like, *, scale, encoder_scale, copy):
    """Fitted attributes by name: arrays in the namespace and on the device of ``like``, and numbers.

    Without a ``copy`` some of them are the weights themselves, which must then change no more.
    """
    weights = trainer.weights.clone() if copy else trainer.weights.detached()
    rows, gain = weights.encoder_rows()
    encoder = rows if gain is None else rows * gain[:, None]
    if weights.encoder_metric is not None:
        encoder = encoder @ weights.encoder_metric
    single = weights.input_mean is None
    arrays = {
        "components_": weights.components,
        "mean_": weights.mean * scale,
        "encoder_components_": encoder,
        "encoder_bias_": weights.bias,
        "encoder_mean_": (weights.mean if single else weights.input_mean) * encoder_scale,
        "n_activations_": trainer.dead.activations.clone(),
    }
    if weights.head is not None:
        arrays |= {"coef_components_": weights.head, "coef_bias_": weights.head_bias}
    arrays |= {f"{name}_": getattr(weights, name) for name in ARRAYS if getattr(weights, name) is not None}
    if weights.head_scale is not None:
        arrays["coef_scale_"] = weights.head_scale
    slope = scale / encoder_scale
    if weights.surrogate is not None:
        arrays["surrogate_components_"] = weights.surrogate * slope
        arrays["surrogate_bias_"] = weights.surrogate_bias * scale
    if weights.skip is not None:
        arrays["skip_components_"] = weights.skip * slope
    like = prototype(like)
    attributes = {name: from_torch(tensor, like) for name, tensor in arrays.items()}
    numbers = {f"{name}_": getattr(weights, name) for name in SCALARS}
    return attributes | {name: float(value) for name, value in numbers.items() if value is not None}


def weights_of(estimator, dtype, where):
    """The weights that an estimator's fitted attributes came from."""
    import torch

    from .training.weights import Weights

    def tensor(values):
        rows_first = np.array(to_numpy(values), dtype=np.float64, order="C")  # as kernels need it, and sums round
        return torch.as_tensor(rows_first).to(where, dtype)

    names = [name for name in SCALARS + ARRAYS if hasattr(estimator, f"{name}_")]
    optional = {name: tensor(getattr(estimator, f"{name}_")) for name in names}
    if hasattr(estimator, "coef_components_"):
        optional |= {"head": tensor(estimator.coef_components_), "head_bias": tensor(estimator.coef_bias_)}
    if hasattr(estimator, "coef_scale_"):
        optional["head_scale"] = tensor(estimator.coef_scale_)
    scale, encoder_scale = estimator.scale_, estimator.encoder_scale_
    if hasattr(estimator, "surrogate_components_"):
        optional["surrogate"] = tensor(estimator.surrogate_components_) / (scale / encoder_scale)
        optional["surrogate_bias"] = tensor(estimator.surrogate_bias_) / scale
    if hasattr(estimator, "skip_components_"):
        optional["skip"] = tensor(estimator.skip_components_) / (scale / encoder_scale)
    single = estimator.target == "X"
    return Weights(
        components=tensor(estimator.components_),
        mean=tensor(estimator.mean_) / scale,
        bias=tensor(estimator.encoder_bias_),
        encoder=None if "encoder_gain" in optional else tensor(estimator.encoder_components_),
        input_mean=None if single else tensor(estimator.encoder_mean_) / encoder_scale,
        **optional,
    )


def forget_parts(estimator):
    """Drop optional attributes of an earlier fit, which a form without them would mistake for its own."""
    for name in chain(*OPTIONAL_PARTS.values()):
        if hasattr(estimator, name):
            delattr(estimator, name)


def check_parts(estimator, parts, optional):
    """Refuse parameters of a form that the fitted attributes are not of; ``optional`` parts may be there or not."""
    for part, (name, *_) in OPTIONAL_PARTS.items():
        if part in optional:
            continue
        there = hasattr(estimator, name)
        if (parts.get(part, False) is not False) != there:
            raise ValueError(
                f"the fitted dictionary {'has' if there else 'lacks'} {name}, which does not go with the parameters as "
                "they are now. Set tied, target, predict_mode, skip, penalty and selection as at the first fit, or fit "
                "anew with warm_start=False."
            )
