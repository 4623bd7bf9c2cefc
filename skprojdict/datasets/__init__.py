# SPDX-License-Identifier: BSD-3-Clause
"""Data to try dictionaries on: real photographs and transformer activations, and features whose truth is known."""

from skprojdict.datasets.images import load_image_patches
from skprojdict.datasets.minilm import load_minilm_activations
from skprojdict.datasets.structured import make_correlated_features, make_hierarchical_features
from skprojdict.datasets.superposition import make_toy_superposition
from skprojdict.datasets.synthetic import make_ksvd_signals, make_sparse_features

__all__ = [
    "load_image_patches",
    "load_minilm_activations",
    "make_correlated_features",
    "make_hierarchical_features",
    "make_ksvd_signals",
    "make_sparse_features",
    "make_toy_superposition",
]
