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
        "components" (p, d), "mean" (d,), "encoder" (p, m), "encoder_bias" (p,), "encoder_mean" (m,); with a second view
        what predicts: "head" (p, m) and "head_bias" (p,), or "head_scale" (p,), or "surrogate" (d, m) and
        "surrogate_bias" (d,); "skip" (d, m); and what the form has of "thresholds", "magnitude_log_gain" and
        "magnitude_bias", all (p,). They are parameters of the module under these names.
    scale, encoder_scale, importance_gain, threshold : float
        As the estimator's attributes.
    k : int or None
    coding : dict or None
        Keywords of :func:`skprojdict.solvers.refine.choose_support`; None: the code of an additive form.
    selection : {"top_k", "threshold"}
        How an additive form selects.
    predict_mode : {None, "additive", "regressed", "surrogate"}
        How coefficients are predicted; None: rows are their own target.

    Notes
    -----
    The support is chosen without gradient, as in training: the derivative is that of the code on the selected atoms.
    ``selection_dtype`` has no effect here on scores, which are in full precision. Second derivatives raise.
    """

    components: torch.Tensor
    mean: torch.Tensor
    encoder: torch.Tensor
    encoder_bias: torch.Tensor
    encoder_mean: torch.Tensor
    head: torch.Tensor
    head_bias: torch.Tensor
    head_scale: torch.Tensor
    surrogate: torch.Tensor
    surrogate_bias: torch.Tensor
    skip: torch.Tensor
    thresholds: torch.Tensor
    magnitude_log_gain: torch.Tensor
    magnitude_bias: torch.Tensor

    def __init__(
        self,
        arrays,
        *,
        scale,
        encoder_scale,
        importance_gain,
        threshold,
        k,
        coding,
        selection="top_k",
        predict_mode=None,
    ):
        super().__init__()
        for name, array in arrays.items():
            setattr(self, name, nn.Parameter(torch.tensor(array)))
        self.scale, self.encoder_scale = scale, encoder_scale
        self.importance_gain, self.threshold = importance_gain, threshold
        self.k, self.coding, self.selection, self.predict_mode = k, coding, selection, predict_mode

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
        """``decode(encode(x))`` without the dense codes in between, and what a linear skip adds to it."""
        rows = x.reshape(-1, x.shape[-1])
        indices, coefs = self._code(rows)
        decoded = decode(coefs, self.components, indices) + self.mean
        if hasattr(self, "skip"):
            decoded = decoded + (rows - self.encoder_mean) @ self.skip.T
        return decoded.reshape(*x.shape[:-1], -1)

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
        plain = inputs @ self.encoder.T + self.encoder_bias
        if self.coding is None:
            return self._additive_code(rows, inputs, plain)
        scores = plain * self.importance_gain
        target = self._target(rows)
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
            return support.indices, coefs * self.scale
        if self.predict_mode == "regressed":
            coefs = self._regressed(inputs, support)
        else:
            coefs = plain.gather(1, support.indices) * self.head_scale[support.indices]
        used = support.active & (coefs > 0) if self.coding["positive_code"] else support.active
        return support.indices, torch.where(used, coefs, torch.zeros_like(coefs)) * self.scale

    def _additive_code(self, rows, inputs, scores):
        support, coefs = additive_codes(scores, **self._rule())
        if hasattr(self, "surrogate"):
            active = support.active.to(scores.dtype)
            solve = {"exact": True, "ragged": self.k is None}
            _, coefs = projected(self._target(rows), self.components, active, support.indices, **solve)
        elif hasattr(self, "head"):
            coefs = torch.where(support.active, self._regressed(inputs, support), torch.zeros_like(coefs))
        return support.indices, coefs * self.scale

    def _regressed(self, inputs, support):
        return (inputs @ self.head.T + self.head_bias).gather(1, support.indices)

    def _target(self, rows):
        """What is projected, in training units; None where coefficients are predicted without a projection."""
        if self.predict_mode is None:
            return (rows - self.mean) / self.scale
        if self.predict_mode == "surrogate":
            return ((rows - self.encoder_mean) @ self.surrogate.T + self.surrogate_bias) / self.scale
        return None
