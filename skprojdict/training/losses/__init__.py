# SPDX-License-Identifier: BSD-3-Clause
"""Losses of one batch, a file for each form. All are per row and in units of mean norm 1.

Each takes the weights and a batch and returns a :class:`BatchLoss`; options are plain keyword arguments, collected once
by the estimator.
"""

from .common import BatchLoss, learn_threshold
from .projective import projective_loss
from .topk import topk_loss

__all__ = ["BatchLoss", "learn_threshold", "projective_loss", "topk_loss"]
