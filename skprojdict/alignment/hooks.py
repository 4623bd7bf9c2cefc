# SPDX-License-Identifier: BSD-3-Clause
"""Sites inside a network: read a layer's output by name, or change it while the network runs."""

from contextlib import contextmanager

import torch

__all__ = ["Site"]


class Site:
    """The output of one layer of a network, at one position if it has several.

    Parameters
    ----------
    model : torch.nn.Module
        The whole network.
    layer : str
        Name of the layer, as ``model.named_modules()`` spells it: "layers.2".
    position : int, default=None
        For outputs (n_samples, n_positions, n_features), such as a transformer's: the position meant. None: the output
        is (n_samples, n_features).
    output : callable, default=None
        From the network's output to logits (n_samples, n_classes). None: the output itself.

    Examples
    --------
    >>> import torch
    >>> from skprojdict.alignment import Site
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    >>> site = Site(model, "0")
    >>> inputs = torch.ones(4, 2)
    >>> activations = site.read(inputs)
    >>> tuple(activations.shape), bool((site.resume(activations, inputs) == model(inputs)).all())
    ((4, 3), True)
    """

    def __init__(self, model, layer, position=None, output=None):
        layer_of(model, layer)
        self.model, self.layer, self.position, self.output = model, layer, position, output

    def read(self, *inputs):
        """Activations at the site, (n_samples, n_features), when the network runs on inputs.

        Parameters
        ----------
        *inputs : tensors
            What the network takes.

        Returns
        -------
        activations : tensor
            Without a gradient.
        """
        seen = []

        def keep(activations):
            seen.append(activations.detach().clone())
            return activations

        with torch.no_grad(), patched(self.model, self.layer, keep, position=self.position):
            self.model(*inputs)
        if len(seen) != 1:
            raise ValueError(f"layer {self.layer!r} ran {len(seen)} times in one pass; a site must run once.")
        return seen[0]

    def resume(self, activations, *inputs):
        """Logits of the network on inputs, with the site's output replaced: the ``model`` of an alignment search.

        Parameters
        ----------
        activations : tensor of shape (n_samples, n_features)
        *inputs : tensors
            What the network takes: the ``context`` of an alignment search.

        Returns
        -------
        logits : tensor
            Differentiable in the activations.
        """

        def replace(old):
            if old.shape != activations.shape:
                raise ValueError(
                    f"activations have shape {tuple(activations.shape)}, but layer {self.layer!r} puts out "
                    f"{tuple(old.shape)} there. Pass one row for each input, as read returns them."
                )
            return activations.to(old.dtype)

        with patched(self.model, self.layer, replace, position=self.position):
            result = self.model(*inputs)
        return result if self.output is None else self.output(result)


def layer_of(model, layer):
    """The submodule of that name.

    Raises
    ------
    ValueError
        Naming the layers that there are.
    """
    layers = dict(model.named_modules())
    if not layer or layer not in layers:
        names = [name for name in layers if name]
        shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
        raise ValueError(f"layer={layer!r} is not a layer of the model. It has: {shown}.")
    return layers[layer]


@contextmanager
def patched(model, layer, change, *, position=None):
    """Inside this context ``change`` is applied to a layer's output, or to one position of it.

    Layers that return a tuple (as a transformer's blocks do) have its first entry changed.
    """

    def hook(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor):
            raise ValueError(f"layer={layer!r} puts out {type(hidden).__name__}, not a tensor: choose another layer.")
        if position is None:
            new = change(hidden)
        else:
            if hidden.ndim != 3:
                raise ValueError(
                    f"position={position} needs an output (n_samples, n_positions, n_features), but layer={layer!r} "
                    f"puts out shape {tuple(hidden.shape)}. Set position=None."
                )
            new = hidden.clone()
            new[:, position] = change(hidden[:, position])
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = layer_of(model, layer).register_forward_hook(hook)
    try:
        yield model
    finally:
        handle.remove()
