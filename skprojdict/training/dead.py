# SPDX-License-Identifier: BSD-3-Clause
"""Dead features: those that have not fired for many rows."""

import torch


class DeadFeatures:
    """Counts, per feature, the rows seen since it last fired.

    Parameters
    ----------
    n_features : int
    dead_after : float
        Rows without firing that make a feature dead.
    device : torch.device
    """

    def __init__(self, n_features, dead_after, device):
        self.rows_since = torch.zeros(n_features, dtype=torch.int64, device=device)
        self.activations = torch.zeros(n_features, dtype=torch.int64, device=device)
        self.dead_after = dead_after

    def update(self, indices, fired, n_rows=None, ranks=None):
        """Record one batch: selected atoms (n, K), None for all of them in order, and whether each of them fired.

        Where other ``ranks`` hold the rest of its ``n_rows`` rows, theirs are counted, too.
        """
        if indices is None:
            counts = fired.sum(0)
        else:
            counts = torch.zeros_like(self.rows_since)
            counts.index_add_(0, indices.reshape(-1), fired.reshape(-1).to(counts.dtype))
        if ranks is not None:
            ranks.sum(counts)
        self.activations += counts
        self.rows_since += fired.shape[0] if n_rows is None else n_rows
        self.rows_since[counts > 0] = 0

    def mask(self):
        """Which features are dead."""
        return self.rows_since > self.dead_after
