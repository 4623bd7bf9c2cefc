# SPDX-License-Identifier: BSD-3-Clause
"""Estimators on disk: our own files, sparse autoencoders of other libraries, and folders for the Hugging Face hub."""

from skprojdict.formats.container import atomic_path as atomic_path  # for the command line
from skprojdict.persistence.hub import save_for_hub
from skprojdict.persistence.native import load, save
from skprojdict.persistence.sae_lens import save_for_sae_lens

__all__ = ["load", "save", "save_for_hub", "save_for_sae_lens"]
