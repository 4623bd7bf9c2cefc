# SPDX-License-Identifier: BSD-3-Clause
"""What is trained: the tensors of a dictionary, in units where the mean centred row has norm 1."""

import math
from dataclasses import dataclass, fields, replace

import torch

from .._chunks import chunk_rows
from .._memory import in_huge_pages
from ..solvers.compiled_atoms import normalise, passes_pay, straighten
from ..solvers.select import score_all


@dataclass
class Weights:
    """Trainable tensors of a dictionary and its encoder; None where a form has no such part.

    Attributes
    ----------
    components : (p, d)
        Unit-norm atoms.
    mean : (d,)
        Centre of the target.
    bias : (p,)
        Encoder bias.
    encoder : (p, m) or None
        None: tied, its rows are ``encoder_gain[j] * components[j]``, times ``encoder_metric`` where there is one.
    encoder_gain : (p,) or None
        Gains of a tied encoder.
    encoder_metric : (d, d) or None
        What the inputs of a tied encoder are mapped by before they meet the atoms.
    input_mean : (m,) or None
        Centre of the encoder's input, fixed; None: the input is the target and shares its centre.
    importance_gain : () or None
        Scores are multiplied by it before a score-dependent penalty sees them.
    head, head_bias : (p, m), (p,) or None
        Second view: predicts the coefficients from the encoder's input.
    head_scale : (p,) or None
        Second view: factor of each atom between its rectified score and its coefficient.
    surrogate, surrogate_bias : (d, m), (d,) or None
        Second view: the affine map whose values stand in for the target.
    skip : (d, m) or None
        Second view: linear map from the encoder's input to the target; the dictionary explains what it leaves over.
    threshold : () or None
        Learned selection threshold (a running quantile, no gradient).
    removal_threshold : () or None
        What an atom has to be missed by (steered towards a number of atoms a row, no gradient).
    thresholds : (p,) or None
        JumpReLU: score above which each atom fires.
    magnitude_log_gain, magnitude_bias : (p,), (p,) or None
        Gated: codes are ``exp(log_gain) (e - bias) + magnitude_bias`` where the gate e is open.
    alpha : () or None
        Weight of the sparsity penalty (steered towards a number of atoms a row, no gradient).
    """

    components: torch.Tensor
    mean: torch.Tensor
    bias: torch.Tensor
    encoder: torch.Tensor | None = None
    encoder_gain: torch.Tensor | None = None
    encoder_metric: torch.Tensor | None = None
    input_mean: torch.Tensor | None = None
    importance_gain: torch.Tensor | None = None
    head: torch.Tensor | None = None
    head_bias: torch.Tensor | None = None
    head_scale: torch.Tensor | None = None
    surrogate: torch.Tensor | None = None
    surrogate_bias: torch.Tensor | None = None
    skip: torch.Tensor | None = None
    threshold: torch.Tensor | None = None
    removal_threshold: torch.Tensor | None = None
    thresholds: torch.Tensor | None = None
    magnitude_log_gain: torch.Tensor | None = None
    magnitude_bias: torch.Tensor | None = None
    alpha: torch.Tensor | None = None

    RUNNING = ("threshold", "removal_threshold", "alpha")  # moved by the loss itself, in place
    FIXED = ("input_mean", *RUNNING)

    def parts(self):
        """``(name, tensor)`` of what the form has."""
        return [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]

    def settle(self):
        """Take up the memory that suits training."""
        for name, tensor in self.parts():
            setattr(self, name, in_huge_pages(tensor.detach()))

    def trainable(self):
        """Leaf tensors that take gradients."""
        return [tensor.requires_grad_() for name, tensor in self.parts() if name not in self.FIXED]

    def detached(self):
        """The same tensors, without gradients."""
        return replace(self, **{name: tensor.detach() for name, tensor in self.parts()})

    def clone(self):
        """A detached copy."""
        return replace(self, **{name: tensor.detach().clone() for name, tensor in self.parts()})

    def running(self):
        """Copies of the tensors that the loss moves without a gradient, by name."""
        return {name: tensor.clone() for name, tensor in self.parts() if name in self.RUNNING}

    def encoder_rows(self):
        """What :meth:`seen` is multiplied with, (p, m), and the factors (p,) that products still lack (None: none)."""
        return (self.components, self.encoder_gain) if self.encoder is None else (self.encoder, None)

    def centred(self, inputs, targets):
        """Encoder input and target with their centres taken off; the target is the input where there is one view.

        Of the target, what the linear skip predicts is taken off, too.
        """
        if self.input_mean is None:
            centred = targets - self.mean
            return centred, centred
        inputs = inputs - self.input_mean
        rest = targets - self.mean
        return inputs, rest if self.skip is None else rest - inputs @ self.skip.T

    def seen(self, centred_inputs):
        """What the encoder's rows meet of centred inputs: in a tied encoder's metric where it has one."""
        return centred_inputs if self.encoder_metric is None else centred_inputs @ self.encoder_metric.T

    @torch.no_grad()
    def all_scores(self, seen, **precision):
        """Scores (n, p) of every atom; ``precision`` as in :func:`skprojdict.solvers.select.score_all`."""
        rows, gain = self.encoder_rows()
        if gain is not None:
            rows = rows * gain[:, None]
        return score_all(seen, rows, self.bias, **precision)

    @torch.no_grad()
    def project_gradient(self):
        """Take the part of each atom's gradient along the atom off: it would only change the norm.

        Returns the squared norm of the gradient that is left where a kernel has come by it, else None.
        """
        grad = self.components.grad
        if grad is None:
            return None
        p, d = grad.shape
        if passes_pay(grad, p) and grad.is_contiguous():
            return straighten(grad, self.components)
        for rows in chunk_rows(p, d * grad.element_size(), "auto", grad):  # else the product alone is a pass to memory
            own, atoms = grad[rows], self.components[rows]
            own.addcmul_(atoms, (own * atoms).sum(1, keepdim=True), value=-1.0)
        return None

    @torch.no_grad()
    def renormalise(self):
        """Bring every atom back to norm 1, and thresholds that fell below 0 back to 0."""
        if passes_pay(self.components, self.components.shape[0]):
            normalise(self.components)
        else:
            norms = self.components.norm(dim=1, keepdim=True)
            self.components.div_(norms.clamp_min(torch.finfo(norms.dtype).tiny))
        if self.thresholds is not None:
            self.thresholds.clamp_(min=0)


def calibrate_importance(weights, centred_inputs, k):
    """Importance gain that gives the k best scores of typical rows a root mean square of 3 (penalties near 1/9)."""
    scores = weights.all_scores(weights.seen(centred_inputs))
    top = torch.topk(scores, min(k, scores.shape[1]), dim=1).values.clamp_min(0)
    rms = float(top.pow(2).mean().sqrt())
    return 3.0 / rms if math.isfinite(rms) and rms > 0 else 1.0
