# SPDX-License-Identifier: BSD-3-Clause
"""Weights kept aside in half their memory, to go back to."""

import torch

from .._chunks import chunk_rows
from .weights import Weights

WHOLE = {torch.float32: torch.int16, torch.float64: torch.int32}


class SpareWeights:
    """A copy of weights whose matrices are whole numbers of half the bits, times a power of two for each row.

    An entry is off by at most 1/32767 of the largest of its row (float64: 2^-31). What :meth:`restored` gives is kept
    as it is when it is kept again, so that going through a checkpoint changes nothing.
    """

    def __init__(self, weights):
        self._matrices, self._others = {}, {}
        for name, tensor in weights.parts():
            if tensor.ndim == 2:
                whole = torch.empty(tensor.shape, dtype=WHOLE[tensor.dtype], device=tensor.device)
                self._matrices[name] = whole, torch.empty_like(tensor[:, :1], requires_grad=False)
            else:
                self._others[name] = torch.empty_like(tensor, requires_grad=False)
        self.keep(weights)

    @torch.no_grad()
    def keep(self, weights, instead=None):
        """Take the values of ``weights``, or those of the dictionary ``instead`` under their names."""
        for name, values in (dict(weights.parts()) | (instead or {})).items():
            if name in self._matrices:
                _pack(values, *self._matrices[name])
            else:
                self._others[name].copy_(values)

    def restored(self):
        """The weights, new and without gradients."""
        matrices = {name: whole * scale for name, (whole, scale) in self._matrices.items()}
        return Weights(**matrices, **{name: tensor.clone() for name, tensor in self._others.items()})


def _pack(values, whole, scale):
    """Whole numbers, and powers of two, whose product is ``values`` as nearly as their type allows."""
    n, d = values.shape
    tiny, most = torch.finfo(values.dtype).tiny, torch.iinfo(whole.dtype).max
    for rows in chunk_rows(n, d * values.element_size(), "auto", values):  # several passes, which stay in the cache
        part = values[rows]
        exponent = torch.frexp(part.abs().amax(1, keepdim=True) / most).exponent
        scale[rows] = torch.ldexp(scale.new_ones(exponent.shape), exponent).clamp_min(tiny)
        whole[rows] = (part / scale[rows]).round_()
