# SPDX-License-Identifier: BSD-3-Clause
"""The training loop of the alignment searches: Adam on interchanges through a frozen model."""

import math
from contextlib import contextmanager

import torch
from torch import nn

from ..training.loop import NonFiniteLossError
from ..training.pace import schedule

STEPS_PER_RECORD = 100
MAX_GRAD_NORM = 1.0
# Share of the steps over which the rate falls: subspaces must travel far before they settle.
DECAY = 0.3


def train(module, model, rows, concepts, *, learning_rate, batch_size, n_steps, seed, weight_decay=0.0):
    """Minimise the weighted cross-entropy of interchanges plus the module's own penalty.

    For rows with base b, source a, wanted label l, concept c and weight w, the mean over a batch of::

        w CE(model(b + H_c (a - b)), l) / mean w  +  penalty of the concepts in the batch

    Parameters
    ----------
    module : nn.Module
        ``module(concepts, progress) -> (Subspaces, penalty)``; ``module.renormalise()`` after each step.
    model : callable
        Frozen: from activations (and contexts) to logits.
    rows : tuple of tensors
        Base, source, labels, concept number, weight, and contexts.
    concepts : tensor
        What the module reads, for each concept number.
    learning_rate, batch_size, n_steps, seed
        Of Adam, with the package's warm-up and a decay over the last 30 % of the steps; rows are shuffled anew for
        every pass.
    weight_decay : float, default=0.0
        Decoupled decay (AdamW) of the weights that ``module.decayed()`` names, and of no others.

    Returns
    -------
    history : dict of lists
        "step", "loss", "accuracy" (soft, of the training batches) and "effective_dimension", one entry for 100 steps.

    Raises
    ------
    NonFiniteLossError
        When the loss stops being finite.
    """
    n = rows[0].shape[0]
    per_pass = math.ceil(n / batch_size)
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = module.decayed()
    others = [parameter for parameter in parameters if all(parameter is not each for each in decayed)]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)
    history: dict[str, list] = {"step": [], "loss": [], "accuracy": [], "effective_dimension": []}
    block = []
    for step in range(n_steps):
        place = step % per_pass
        if place == 0:
            order = torch.randperm(n, generator=generator).to(rows[0].device)
        batch = order[place * batch_size : (place + 1) * batch_size]
        base, source, labels, ids, weight, *context = (each[batch] for each in rows)
        present, ids = torch.unique(ids, return_inverse=True)
        subspaces, penalty = module(concepts[present], step / n_steps)
        logits = logits_of(model, base + subspaces.apply(source - base, ids), context)
        if step == 0:
            check_classes(rows[2], logits.shape[1])
        errors = nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = (weight * errors).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny) + penalty
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"training stopped at step {step + 1}: the loss is {value} at learning_rate={learning_rate:.3g}. "
                "Lower learning_rate, and check that the model's logits are finite on the activations."
            )
        # Gradients of our own parameters only: the model stays frozen, and its .grad fields untouched.
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedule(step, n_steps, decay=DECAY)
        optimiser.step()
        module.renormalise()
        with torch.no_grad():
            right = (logits.argmax(1) == labels).to(loss.dtype).mean()
            block.append(torch.stack([loss.detach(), right, subspaces.dimension().mean()]))
        if len(block) == STEPS_PER_RECORD or step == n_steps - 1:
            for name, value in zip(history, (step + 1, *torch.stack(block).mean(0).tolist()), strict=True):
                history[name].append(value)
            block = []
    return history


def logits_of(model, activations, context):
    """Logits of the rest of the network, in the activations' dtype.

    Raises
    ------
    ValueError
        If the model does not return a tensor of one row of logits for each activation.
    """
    dtype = next((p.dtype for p in parameters_of(model) if p.is_floating_point()), activations.dtype)
    try:
        logits = model(activations.to(dtype), *context)
    except Exception as error:
        error.add_note(
            f"The model was called with activations of shape {tuple(activations.shape)} and {_contexts(context)}. It "
            "must be the rest of the network, from the site on (Site(network, layer).resume is); what else it takes "
            "goes into context, at fit and later."
        )
        raise
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[0] != activations.shape[0]:
        raise ValueError(
            f"model must return logits of shape (n_samples, n_classes) for {activations.shape[0]} activations, got "
            f"{tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__}."
        )
    return logits.to(activations.dtype)


def _contexts(context):
    if not context:
        return "no context"
    shapes = ", ".join(str(tuple(each.shape)) for each in context)
    return f"{len(context)} context{'s' * (len(context) > 1)} of shape {shapes}"


def check_classes(labels, n_classes):
    """Refuse labels that the model has no logit for."""
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= n_classes:
        raise ValueError(
            f"labels must be classes of the model, 0 to {n_classes - 1}, got {least if least < 0 else most}. Number "
            "them as the columns of its logits."
        )


def module_of(model):
    """The torch module behind a callable: itself, the owner of a bound method, or None."""
    owner = getattr(model, "__self__", model)
    owner = owner if isinstance(owner, nn.Module) else getattr(owner, "model", None)
    return owner if isinstance(owner, nn.Module) else None


def parameters_of(model):
    """Parameters of the module behind a callable, if there is one."""
    module = module_of(model)
    return () if module is None else module.parameters()


@contextmanager
def frozen(model):
    """Evaluation mode for the module behind a callable (dropout and batch statistics off); its modes come back."""
    module = module_of(model)
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
