# SPDX-License-Identifier: BSD-3-Clause
"""What a method is handed and what it hands back, in either environment: NumPy and SciPy only."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

# Rows that decide the centre and the unit; more would not move them.
SAMPLE_ROWS = 100_000


class Rows:
    """Training rows, centred and divided by one scalar so that their mean norm is the square root of their length.

    Most peers have no unit of their own, and a learning rate means nothing without one. This is the unit that SAELens
    calls "expected_average_only_in". Errors relative to the variance do not depend on it.
    """

    def __init__(self, array):
        self.array = array
        step = max(1, -(-len(array) // SAMPLE_ROWS))
        sample = np.asarray(array[::step], dtype=np.float32)
        self.mean = sample.mean(axis=0, dtype=np.float64)
        norms = np.linalg.norm(sample - self.mean, axis=1)
        self.scale = float(norms.mean()) / np.sqrt(array.shape[1]) or 1.0

    def __len__(self):
        return len(self.array)

    @property
    def n_columns(self):
        return self.array.shape[1]

    def standardise(self, rows):
        return ((np.asarray(rows, dtype=np.float32) - self.mean) / self.scale).astype(np.float32)

    def take(self, numbers):
        return self.standardise(self.array[numbers])

    def batches(self, n_steps, batch_size, seed):
        """Yield minibatches as skprojdict draws them: shuffled passes, the last short batch of a pass dropped."""
        rng = np.random.RandomState(seed)
        n, done = len(self), 0
        while done < n_steps:
            order = rng.permutation(n)
            for start in range(0, max(1, n - batch_size + 1), batch_size):
                if done == n_steps:
                    return
                yield self.take(np.sort(order[start : start + batch_size]))
                done += 1


@dataclass
class Coder:
    """One way to code rows with a learnt dictionary; ``n_rows`` caps how many of the held-out rows it is shown."""

    encode: Callable
    n_rows: int | None = None
    batch_size: int | None = None


@dataclass
class Learnt:
    """A dictionary: a row is reconstructed as ``centre + codes @ atoms``, in the units of the rows that were handed in.

    ``coders`` map names to :class:`Coder`; each ``encode`` takes rows and returns dense codes (NumPy or torch), a SciPy
    sparse matrix of shape (n, p), or a pair of (n, k) arrays, indices and coefficients.
    """

    atoms: np.ndarray
    centre: np.ndarray
    coders: dict
    seconds: float
    learning_rate: float | None = None
    standardised: bool = True
    notes: dict = field(default_factory=dict)


def schedule(step, n_steps):
    """Factor of the learning rate: warm-up over 5 % of the steps, linear decay over the last 30 %, as skprojdict's."""
    warm_up, decay = phases(n_steps)
    return min(1.0, (step + 1) / warm_up, (n_steps - step) / decay)


def phases(n_steps):
    """Steps of warm-up and of decay."""
    return max(1, round(0.05 * n_steps)), max(1, round(0.3 * n_steps))


def as_csr(codes, n_components):
    """Codes of any form as a CSR matrix without stored zeros."""
    if isinstance(codes, tuple):
        indices, values = (np.asarray(part) for part in codes)
        n, k = indices.shape
        rows = np.repeat(np.arange(n), k)
        codes = sparse.coo_matrix((values.ravel(), (rows, indices.ravel())), shape=(n, n_components))
    matrix = sparse.csr_matrix(codes if sparse.issparse(codes) else np.asarray(codes))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def warm_up_torch():
    """Load what torch loads at the first step of an optimiser: seconds that are no method's own."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(1))
    for options in ({}, {"fused": True}):
        optimiser = torch.optim.Adam([weight], **options)
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
        weight.sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimiser.step()


@contextmanager
def stopwatch():
    """A list that holds the seconds of the block once it is left."""
    seconds = []
    start = time.perf_counter()
    try:
        yield seconds
    finally:
        seconds.append(time.perf_counter() - start)
