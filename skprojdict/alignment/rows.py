# SPDX-License-Identifier: BSD-3-Clause
"""What a user passes to an alignment search, checked and as torch tensors."""

from typing import Any, NamedTuple

import torch

from .._array import to_torch
from .._validation import check_finite, torch_device


class Rows(NamedTuple):
    """Base and source (n, d) of one floating dtype, and the model's further arguments, all on one device."""

    base: torch.Tensor
    source: torch.Tensor
    context: list[Any]


def rows_of(base, source, context, target_device):
    """Validate activations and contexts.

    Raises
    ------
    ValueError
        Naming the argument: not 2-d, other shapes, NaN or infinity (with the first such row), a context of another
        length, a device that is not there.
    """
    target_device = None if target_device is None else torch_device(target_device)
    tensors = {}
    for name, values in (("base", base), ("source", source)):
        if len(getattr(values, "shape", ())) != 2:
            raise ValueError(
                f"{name} must be an array of activations of shape (n_samples, n_features), got {_shown(values)}."
            )
        if not torch.is_tensor(values) or not values.is_cuda:
            check_finite(values.detach() if torch.is_tensor(values) else values, name)
        tensor = to_torch(values, target_device)
        tensors[name] = tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    if tensors["base"].shape != tensors["source"].shape:
        raise ValueError(f"base and source must have one shape, got {_shown(base)} and {_shown(source)}.")
    if context is None:
        context = ()
    contexts = [
        to_torch(each, target_device) for each in (context if isinstance(context, (tuple, list)) else (context,))
    ]
    n = tensors["base"].shape[0]
    for each in contexts:
        if each.ndim == 0 or each.shape[0] != n:
            raise ValueError(f"context must have one row for each of the {n} samples, got {_shown(each)}.")
    return Rows(tensors["base"], tensors["source"].to(tensors["base"].dtype), contexts)


def labels_of(labels, like):
    """Integer labels, one for each row of ``like``."""
    tensor = to_torch(labels, like.device)
    if tensor.shape != like.shape[:1] or tensor.is_floating_point():
        raise ValueError(
            f"labels must be {like.shape[0]} integers, one for each sample, got {_shown(tensor)} of {tensor.dtype}."
        )
    return tensor.to(torch.int64)


def weights_of(sample_weight, like):
    """Weights, one for each row of ``like``; ones where there are none."""
    if sample_weight is None:
        return torch.ones_like(like[:, 0])
    tensor = to_torch(sample_weight, like.device).to(like.dtype)
    if (
        tensor.shape != like.shape[:1]
        or not bool((torch.isfinite(tensor) & (tensor >= 0)).all())
        or not bool(tensor.any())
    ):
        raise ValueError(f"sample_weight must be {like.shape[0]} finite numbers >= 0, not all 0, got {_shown(tensor)}.")
    return tensor


def _shown(values):
    shape = getattr(values, "shape", None)
    return type(values).__name__ if shape is None else f"shape {tuple(shape)}"
