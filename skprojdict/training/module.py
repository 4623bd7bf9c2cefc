# SPDX-License-Identifier: BSD-3-Clause
"""A fitted dictionary as a torch module, differentiable with respect to its input and its weights."""

import torch
from torch import nn

from ..solvers.additive import additive_codes
from ..solvers.penalties import precisions
from ..solvers.refine import choose_support
from .autograd import decode, projected


class DictionaryModule(nn.Module):
    """What a fitted estimator computes, as a module.

    Parameters
    ----------
    arrays : dict of ndarray
        "components" (p, d), "mean" (d,), "encoder" (p, m), "encoder_bias" (p,), "encoder_mean" (m,), with a second
        view "head" (p, m) and "head_bias" (p,), and what the form has of "thresholds", "magnitude_log_gain" and
        "magnitude_bias", all (p,): parameters of the module under these names.
    scale, encoder_scale, importance_gain, threshold : float
        As the estimator's attributes.
    k : int or None
    coding : dict or None
        Keywords of :func:`skprojdict.solvers.refine.choose_support`; None: the code of an additive form.
    selection : {"top_k", "threshold"}
        How an additive form selects.

    Notes
    -----
    The support is chosen without gradient, as in training: the derivative is that of the code on the selected atoms.
    ``selection_dtype`` has no effect here, scores are in full precision.
    """

    components: torch.Tensor
    mean: torch.Tensor
    encoder: torch.Tensor
    encoder_bias: torch.Tensor
    encoder_mean: torch.Tensor
    head: torch.Tensor
    head_bias: torch.Tensor
    thresholds: torch.Tensor
    magnitude_log_gain: torch.Tensor
    magnitude_bias: torch.Tensor

    def __init__(self, arrays, *, scale, encoder_scale, importance_gain, threshold, k, coding, selection="top_k"):
        super().__init__()
        for name, array in arrays.items():
            setattr(self, name, nn.Parameter(torch.tensor(array)))
        self.scale, self.encoder_scale = scale, encoder_scale
        self.importance_gain, self.threshold = importance_gain, threshold
        self.k, self.coding, self.selection = k, coding, selection

    def encode(self, x):
        """Dense codes (..., p) of rows (..., m), in the units of the data."""
        rows = x.reshape(-1, x.shape[-1])
        indices, coefs = self._code(rows)
        codes = coefs.new_zeros(rows.shape[0], self.components.shape[0]).scatter_add(1, indices, coefs)
        return codes.reshape(*x.shape[:-1], -1)

    def decode(self, codes):
        """Reconstructions (..., d) of codes (..., p)."""
        return codes @ self.components + self.mean

    def forward(self, x):
        """``decode(encode(x))``, without the dense codes in between."""
        rows = x.reshape(-1, x.shape[-1])
        indices, coefs = self._code(rows)
        return (decode(coefs, self.components, indices) + self.mean).reshape(*x.shape[:-1], -1)

    def extra_repr(self):
        """Sizes, for ``repr``."""
        p, d = self.components.shape
        return f"n_components={p}, n_features={self.encoder.shape[1]}, n_targets={d}, n_nonzero_coefs={self.k}"

    def _rule(self):
        gated = hasattr(self, "magnitude_bias")
        return {
            "k": self.k,
            "selection": self.selection,
            "threshold": self.thresholds.detach() if hasattr(self, "thresholds") else self.threshold,
            "magnitude": (self.magnitude_log_gain, self.encoder_bias, self.magnitude_bias) if gated else None,
        }

    def _code(self, rows):
        inputs = (rows - self.encoder_mean) / self.encoder_scale
        scores = inputs @ self.encoder.T + self.encoder_bias
        if self.coding is None:
            support, coefs = additive_codes(scores, **self._rule())
            return support.indices, coefs * self.scale
        scores = scores * self.importance_gain
        target = None if hasattr(self, "head") else (rows - self.mean) / self.scale
        support = choose_support(
            scores.detach(),
            None if target is None else target.detach(),
            self.components.detach(),
            threshold=self.threshold,
            **self.coding,
        )
        if target is not None:
            s = precisions(
                scores.gather(1, support.indices), support.active, added=support.added, **self.coding["penalty"]
            )
            _, coefs = projected(target, self.components, s, support.indices, **self.coding["solve"])
        else:
            maps = (inputs @ self.head.T + self.head_bias).gather(1, support.indices)
            used = support.active & (maps > 0) if self.coding["positive_code"] else support.active
            coefs = torch.where(used, maps, torch.zeros_like(maps))
        return support.indices, coefs * self.scale
