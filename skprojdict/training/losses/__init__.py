# SPDX-License-Identifier: BSD-3-Clause
"""Losses of one batch, a file for each form. All are per row and in units of mean norm 1.

Each takes the weights and a batch and returns a :class:`BatchLoss`; options are plain keyword arguments, collected once
by the estimator.
"""

from .batch import learn_threshold, select_in_batch
from .common import BatchLoss
from .gated import gated_loss
from .jumprelu import jumprelu_loss
from .projective import projective_loss
from .relu import relu_loss
from .topk import topk_loss

__all__ = [
    "BatchLoss",
    "gated_loss",
    "jumprelu_loss",
    "learn_threshold",
    "projective_loss",
    "relu_loss",
    "select_in_batch",
    "topk_loss",
]
