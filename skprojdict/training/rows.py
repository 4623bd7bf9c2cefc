# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a data set as torch tensors, a batch at a time: nothing is copied but the batch."""

import numpy as np
import torch

from .._array import array_namespace, is_numpy_namespace, to_torch


class Rows:
    """Batches of rows, centred by nothing and scaled by nothing, on one device and in one dtype.

    NumPy arrays (memory-mapped and float16 ones too) are indexed in place and cast batch by batch; tensors and CuPy
    arrays are shared through DLPack; other namespaces are converted once.

    Parameters
    ----------
    X : array of shape (n, d)
    dtype : torch.dtype
        Of the batches.
    device : torch.device
        Of the batches.
    """

    def __init__(self, X, dtype, device):
        self.dtype, self.device = dtype, device
        self.numpy = isinstance(X, np.ndarray) or is_numpy_namespace(array_namespace(X))
        self.source = X if self.numpy else to_torch(X)
        self.shape = tuple(X.shape)

    def take(self, rows):
        """The given rows (a NumPy integer array or slice) as a tensor."""
        if self.numpy:
            batch = np.ascontiguousarray(self.source[rows])
            if batch.base is not None or not batch.flags.writeable:
                batch = batch.copy()  # torch warns on memory that it may not write
            return torch.from_numpy(batch).to(self.device, self.dtype)
        if not isinstance(rows, slice):
            rows = torch.from_numpy(np.ascontiguousarray(rows)).to(self.source.device)
        return self.source[rows].to(self.device, self.dtype)


def sample_rows(X, n_rows, rng):
    """At most ``n_rows`` distinct rows of X in the order of the data, as NumPy indices."""
    n = X.shape[0]
    if n <= n_rows:
        return np.arange(n)
    return np.sort(rng.choice(n, n_rows, replace=False))


def batch_order(n, batch_size, rng):
    """Endless batches of row numbers: a fresh permutation for every pass, the last short batch of a pass dropped.

    A data set smaller than a batch is one batch.
    """
    while True:
        order = rng.permutation(n)
        for start in range(0, max(1, n - batch_size + 1), batch_size):
            yield order[start : start + batch_size]


def steps_per_pass(n, batch_size):
    """Number of batches in one pass over n rows."""
    return max(1, n // batch_size)


