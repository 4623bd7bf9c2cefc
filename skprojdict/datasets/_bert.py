# SPDX-License-Identifier: BSD-3-Clause
"""The forward pass of a BERT encoder from its published weights: as far as a layer, and no further."""

import json
from pathlib import Path


class BertEncoder:
    """A BERT encoder in torch (Devlin et al. 2019), for inference.

    Each layer is ``h = norm(x + attention(x))`` followed by ``norm(h + mlp(h))``, ``mlp(h) = W2 gelu(W1 h)``, with
    layer normalisation after the sums.

    Parameters
    ----------
    folder : path
        Holds ``config.json`` and ``model.safetensors`` with the names of Hugging Face's ``BertModel``.
    device : torch device or str
        Where to compute.
    """

    def __init__(self, folder, device):
        from safetensors.torch import load_file

        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.n_layers, self.n_heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.eps = config["layer_norm_eps"]
        self.device = device
        self.weights = load_file(Path(folder) / "model.safetensors", device=str(device))

    def residual(self, ids, mask, layer):
        """Activations after ``layer`` layers (0: the embeddings), of shape (n_texts, length, width).

        Parameters
        ----------
        ids : tensor of shape (n_texts, length), int64
            Numbers of the tokens, special ones included.
        mask : tensor of shape (n_texts, length), bool
            False where a text is padded.
        layer : int
            From 0 to ``n_layers``.
        """
        import torch
        from torch.nn.functional import embedding

        tables = "word", "position", "token_type"
        words, positions, types = (self.weights[f"embeddings.{name}_embeddings.weight"] for name in tables)
        # One segment, so every token is of type 0.
        place = positions[torch.arange(ids.shape[1], device=ids.device)]
        x = self._norm("embeddings", embedding(ids, words) + place + types[0])
        for number in range(layer):
            h = self._attended(x, mask, number)
            x = self._norm(f"encoder.layer.{number}.output", h + self._mlp(h, number))
        return x

    def mlp(self, ids, mask, layer):
        """Input and output of the MLP of a layer (from 1), the output before it is added to the input.

        Parameters are those of :meth:`residual`; returns two tensors of shape (n_texts, length, width).
        """
        h = self._attended(self.residual(ids, mask, layer - 1), mask, layer - 1)
        return h, self._mlp(h, layer - 1)

    def _linear(self, name, x):
        from torch.nn.functional import linear

        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name, x):
        from torch.nn.functional import layer_norm

        name = f"{name}.LayerNorm"
        return layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.eps)

    def _attended(self, x, mask, number):
        """Return ``norm(x + attention(x))``, the input of the layer's MLP."""
        from torch.nn.functional import scaled_dot_product_attention

        name = f"encoder.layer.{number}.attention"
        queries, keys, values = (
            self._linear(f"{name}.self.{part}", x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None, :])
        return self._norm(f"{name}.output", x + self._linear(f"{name}.output.dense", mixed.transpose(1, 2).flatten(2)))

    def _mlp(self, h, number):
        from torch.nn.functional import gelu

        name = f"encoder.layer.{number}"
        return self._linear(f"{name}.output.dense", gelu(self._linear(f"{name}.intermediate.dense", h)))
