# SPDX-License-Identifier: BSD-3-Clause
"""Empty stand-ins for modules that the peers import at the top and never touch when they train on plain arrays.

With them the environment of the peers needs no language models, plotting, dataset or logging packages. Any attribute of
a stand-in is an empty class, so that ``from x import Y`` and annotations work; a call that did something would fail.
"""

import importlib.abc
import importlib.machinery
import sys
import types

NAMES = {
    "accelerate": "sparsify: sharded language models",
    "babe": "SAELens: tokenised texts",
    "datasets": "sparsify, SAELens, dictionary_learning: texts",
    "dotenv": "SAELens: tokens of web services",
    "huggingface_hub": "sparsify, SAELens: downloads",
    "nltk": "SAELens: texts",
    "nnsight": "dictionary_learning: activations of language models",
    "overcomplete.models": "overcomplete: vision models (timm, torchvision)",
    "overcomplete.visualization": "overcomplete: figures; 0.3.0 calls a function that matplotlib has removed",
    "pandas": "SAELens: tables of pretrained models",
    "plotly": "SAELens: figures",
    "plotly_express": "SAELens: figures",
    "requests": "SAELens: downloads",
    "tenacity": "SAELens: downloads, tried again",
    "transformer_lens": "SAELens: language models; of its hook points only the pass-through below is met in training",
    "transformers": "sparsify, SAELens: language models",
    "wandb": "SAELens, dictionary_learning: logging",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if any(name == stub or name.startswith(f"{stub}.") for stub in NAMES):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)

        def placeholder(attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return type(attribute, (), {})

        module.__getattr__ = placeholder
        if spec.name.split(".")[0] == "transformer_lens":
            module.HookPoint, module.HookedRootModule = _hooks()
        return module

    def exec_module(self, module):
        pass


def _hooks():
    """A hook point is an identity module, and its root module needs ``setup``, which names the hooks."""
    import torch

    class HookPoint(torch.nn.Module):
        def forward(self, x):
            return x

    class HookedRootModule(torch.nn.Module):
        def setup(self):
            self.hook_dict = {}

    return HookPoint, HookedRootModule


def install():
    """Put the stand-ins before whatever is installed under the same names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
