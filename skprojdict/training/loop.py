# SPDX-License-Identifier: BSD-3-Clause
"""The one training loop of the neural estimators: Adam with warm-up and decay on minibatches."""

import math

import torch

from .._memory import memory_from
from ..solvers.compiled_atoms import passes_pay, squared_norm
from .arena import Arena
from .distributed import Ranks
from .spare import SpareWeights

# Learning rate of the centre, relative to the others'.
CENTRE_RATE = 0.1
# And of a tied encoder's metric.
METRIC_RATE = 0.4


class NonFiniteLossError(FloatingPointError):
    """The loss or a gradient stopped being finite; the weights are those of the step before."""


class Trainer:
    """Weights, optimiser and dead-feature counts of a dictionary in training; one call of ``step`` is one minibatch.

    Parameters
    ----------
    weights : Weights
    loss : callable
        ``loss(weights, inputs, targets, dead_mask) -> BatchLoss``.
    dead : DeadFeatures
    learning_rate : float
        Peak step size of Adam.
    bias_rate, unit_gradient : float, bool
        As in :class:`skprojdict.training.pace.Pace`.
    max_grad_norm : float, default=1.0
        Gradients are clipped to this global norm, where they are not brought to 1 anyway.

    Attributes
    ----------
    good, best : SpareWeights, float
        The last good weights, and the lowest loss that judged them.
    n_steps : int
    ranks : Ranks
        The processes that share the fit.
    """

    def __init__(self, weights, loss, dead, *, learning_rate, bias_rate=1.0, unit_gradient=False, max_grad_norm=1.0):
        self.weights, self.loss, self.dead = weights, loss, dead
        self.learning_rate, self.max_grad_norm = learning_rate, max_grad_norm
        self.unit_gradient = unit_gradient
        weights.settle()
        parameters = weights.trainable()
        fused = parameters[0].device.type in ("cpu", "cuda")
        # The centre has no norm to hold it: at the full rate it wanders off, and penalised forms then decode it.
        factors = {
            id(weights.mean): CENTRE_RATE,
            id(weights.bias): bias_rate,
            id(weights.encoder_metric): METRIC_RATE,
        }
        groups = [{"params": [tensor], "factor": factors.get(id(tensor), 1.0)} for tensor in parameters]
        self.optimiser = torch.optim.Adam(groups, lr=learning_rate, betas=(0.9, 0.999), fused=fused)
        self.parameters = parameters
        self.n_steps = 0
        self.grad_mode = torch.is_grad_enabled()
        self.ranks = Ranks()
        self.good, self.best = SpareWeights(weights), math.inf
        self.arena = Arena()

    def join(self, ranks):
        """Share the fit with other processes: all start at the weights of the first."""
        self.ranks = ranks
        ranks.spread(tensor for _, tensor in self.weights.parts())
        if ranks.size > 1:
            self.good.keep(self.weights)

    @torch.enable_grad()
    def step(self, inputs, targets, rate=1.0, n_rows=None, *, judge=False):
        """One minibatch step at ``rate`` times the peak learning rate.

        Parameters
        ----------
        inputs, targets : tensors
            This process's rows of the batch.
        rate : float, default=1.0
        n_rows : int, default=None
            Rows of the whole batch. None: those given.
        judge : bool, default=False
            Keep a copy of the weights that the step starts from where they are good: finite, and at most twice the
            lowest loss that was judged. For the first step of an iteration, since it is a pass over all weights.

        Returns
        -------
        loss, squared_error, variance : float

        Raises
        ------
        NonFiniteLossError
            Before any weight has changed; the step before may have spoiled them already (:meth:`back_to_good`).
        """
        running = self.weights.running()
        n = targets.shape[0]
        n_rows = n_rows or n
        self.optimiser.zero_grad(set_to_none=True)  # before the loss: its memory serves the scores of all atoms
        with memory_from(self.arena):
            with self.ranks.batch(n, n_rows):
                batch = self.loss(self.weights, inputs, targets, self.dead.mask())
            values = torch.stack([batch.loss, batch.squared_error, batch.variance])
            if n != n_rows:  # a mean over the whole batch is the sum of shares
                values = values * (n / n_rows)
            values[0].backward()
        for parameter in self.parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:  # of atoms that no other loss moves
                parameter.grad = parameter.grad.to_dense()
        values = self.ranks.sum_gradients(self.parameters, values.detach())
        norm = self._shorten_gradient(self.weights.project_gradient())
        figures = torch.cat([values, norm[None]]).tolist()
        if not all(math.isfinite(v) for v in figures):
            for name, value in running.items():
                setattr(self.weights, name, value)
            raise NonFiniteLossError(
                f"training stopped at step {self.n_steps + 1}: the loss is {figures[0]} and the norm of its gradient "
                f"{figures[3]} at learning_rate={self.learning_rate:.3g}. Lower learning_rate, or raise alpha where a "
                "penalty is used. The estimator holds the last good weights."
            )
        if judge and figures[0] <= 2 * self.best:
            self.good.keep(self.weights, running)
            self.best = min(self.best, figures[0])
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * rate * group["factor"]
        self.optimiser.step()
        self.weights.renormalise()
        self.dead.update(batch.indices, batch.fired, n_rows, self.ranks)
        self.n_steps += 1
        return tuple(figures[:3])

    def _shorten_gradient(self, atoms_square):
        """Bring the gradient to norm 1, or cut it off at the largest norm; returns the norm that it had.

        ``atoms_square`` is the squared norm of the atoms' share, or None.
        """
        gradients = [tensor.grad for tensor in self.parameters if tensor.grad is not None]
        norm = self._norm(gradients, atoms_square)
        if self.unit_gradient:
            torch._foreach_div_(gradients, norm.clamp_min(torch.finfo(norm.dtype).tiny))
        elif norm.device.type != "cpu" or not norm <= self.max_grad_norm:  # elsewhere to ask would wait for the device
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm, foreach=True)
        return norm

    def _norm(self, gradients, atoms_square):
        """Norm of all gradients. torch's own pass over them is for one thread, and takes a tenth of a TopK step."""
        if atoms_square is None:
            return torch.nn.utils.get_total_norm(gradients, foreach=True)
        square, others = atoms_square, []
        for each in gradients:
            if each is self.weights.components.grad:
                continue
            if each.ndim == 2 and each.is_contiguous() and passes_pay(each, len(each)):
                square += squared_norm(each)
            else:
                others.append(each)
        return (torch.nn.utils.get_total_norm(others, foreach=True) ** 2 + square).sqrt()

    def settle(self):
        """Make whole what a step left that was cut off in the middle: unit norms, or the last good weights."""
        torch.set_grad_enabled(self.grad_mode)  # torch's own context managers may be cut off before they restore it
        if all(bool(torch.isfinite(tensor).all()) for tensor in self.parameters):
            self.weights.renormalise()
        else:
            self.back_to_good()

    def back_to_good(self):
        """Put the last good weights back, after which this trainer has ended."""
        self.weights = self.good.restored()
        self.weights.renormalise()
