# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a data set as torch tensors, a batch at a time: nothing is copied but the batch."""

import copy
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils.random import sample_without_replacement

from .._array import array_namespace, asarray_like, is_numpy_namespace, to_numpy, to_torch
from .._chunks import slabs
from ..solvers.initial import geometric_median, linear_map
from ..sources import DaskRows, RowSource, forward
from ..sources.ahead import SLAB_BYTES
from .distributed import Ranks


class Rows:
    """Batches of rows, centred by nothing and scaled by nothing, on one device and in one dtype.

    NumPy arrays (memory-mapped and float16 ones too) are indexed in place and cast batch by batch; tensors and CuPy
    arrays are shared through DLPack; other namespaces are converted once.

    Parameters
    ----------
    X : array or RowSource of shape (n, d)
    dtype : torch.dtype
        Of the batches.
    device : torch.device
        Of the batches.
    """

    def __init__(self, X, dtype, device):
        self.dtype, self.device = dtype, device
        self.numpy = isinstance(X, (np.ndarray, RowSource)) or is_numpy_namespace(array_namespace(X))
        self.source = X if self.numpy else to_torch(X)

    def take(self, rows):
        """The given rows (a NumPy integer array or slice) as a tensor."""
        if self.numpy:
            return self.of(self.source[rows])
        if not isinstance(rows, slice):
            rows = torch.from_numpy(np.ascontiguousarray(rows)).to(self.source.device)
        return self.source[rows].to(self.device, self.dtype)

    def of(self, batch):
        """NumPy rows that were read elsewhere as a tensor."""
        batch = np.ascontiguousarray(batch)
        batch = batch.astype(batch.dtype.newbyteorder("="), copy=False)  # torch has the machine's byte order only
        if batch.base is not None or not batch.flags.writeable:
            batch = batch.copy()  # torch warns on memory that it may not write
        return torch.from_numpy(batch).to(self.device, self.dtype)


class Views:
    """Both views of the data in training units: the target, and the encoder's input where it is another array.

    Parameters
    ----------
    X, Y : arrays or RowSources
        Encoder input and target; the same object where there is one view.
    scale_in, scale_out : float
        Divisors.
    dtype, device
        Of the batches.
    """

    def __init__(self, X, Y, scale_in, scale_out, dtype, device):
        self.targets = Rows(Y, dtype, device)
        self.inputs = None if X is Y else Rows(X, dtype, device)
        self.scale_in, self.scale_out = scale_in, scale_out

    def take(self, batch, ranks=None):
        """``(inputs or None, targets)`` of a batch: a slice, row numbers in any order, or the rows as read, a tuple.

        Where several ``ranks`` share a batch, this process's rows of it.
        """
        if ranks is not None and ranks.size > 1:
            if isinstance(batch, tuple):
                batch = tuple(rows[ranks.share(len(rows))] for rows in batch)
            else:
                batch = np.sort(batch)[ranks.share(len(batch))]
        if isinstance(batch, tuple):
            inputs = None if self.inputs is None else self.inputs.of(batch[0])
            targets = self.targets.of(batch[-1])
        else:
            rows = batch if isinstance(batch, slice) else np.sort(batch)  # in the order in which they lie
            inputs = None if self.inputs is None else self.inputs.take(rows)
            targets = self.targets.take(rows)
        return None if inputs is None else inputs / self.scale_in, targets / self.scale_out


class Units(NamedTuple):
    """Centres and scales of both views, and the sample rows (centred, scaled) that training starts from."""

    mean_in: np.ndarray
    mean_out: np.ndarray
    scale_in: float
    scale_out: float
    sample_in: np.ndarray
    sample_out: np.ndarray


def measure_units(X, Y, *, n_sample, center, rng, ranks=None):
    """Centre each view by its mean (the target's by its geometric median on request) and scale by its mean norm.

    The means are taken over all rows, slab by slab; scales and samples from at most ``n_sample`` rows. A view without
    any variance gets scale 0.

    Parameters
    ----------
    X, Y : arrays or RowSources of shape (n, m), (n, d)
        The same object where there is one view. A source is read once, from the first row to the last.
    n_sample : int
    center : {"mean", "geometric_median"}
    rng : numpy.random.RandomState
    ranks : Ranks, default=None
        Processes that share the reading of a source. None: this one alone.

    Returns
    -------
    units : Units
        NumPy, float64.
    """
    n = X.shape[0]
    if n <= n_sample:
        rows = np.arange(n)
    elif isinstance(Y, RowSource):  # choice would permute the numbers of all rows
        rows = np.sort(sample_without_replacement(n, n_sample, random_state=rng))
    else:
        rows = np.sort(rng.choice(n, n_sample, replace=False))
    ranks = ranks or Ranks()
    mean_out, sample_out = _mean_and_sample(Y, rows, ranks)
    if center == "geometric_median":
        mean_out = geometric_median(sample_out)
    scale_out, sample_out = _centre_and_scale(sample_out, mean_out)
    if X is Y:
        return Units(mean_out, mean_out, scale_out, scale_out, sample_out, sample_out)
    mean_in, sample_in = _mean_and_sample(X, rows, ranks)
    scale_in, sample_in = _centre_and_scale(sample_in, mean_in)
    return Units(mean_in, mean_out, scale_in, scale_out, sample_in, sample_out)


# A target that is all but linear leaves noise behind, which must not become the unit.
LEAST_REST = 0.1


def units_behind_skip(units):
    """Units in which what a linear skip leaves over of the target has mean norm 1.

    That is what the atoms explain, so learning rates then mean the same with and without a skip. Measured on every
    second row of the sample, with a map fitted to the others; at least ``LEAST_REST`` of the target's own.
    """
    linear = linear_map(units.sample_in[::2], units.sample_out[::2])
    rest = units.sample_out[1::2] - units.sample_in[1::2] @ linear.T
    norm = min(1.0, max(LEAST_REST, float(np.linalg.norm(rest, axis=1).mean()))) if len(rest) else 1.0
    return units._replace(scale_out=units.scale_out * norm, sample_out=units.sample_out / norm)


def _centre_and_scale(sample, mean):
    centred = sample - mean
    scale = float(np.linalg.norm(centred, axis=1).mean())
    rounding = 1e-13 * float(np.linalg.norm(mean))  # what float64 sums leave of identical rows
    return (scale, centred / scale) if scale > rounding else (0.0, centred)


def _mean_and_sample(X, rows, ranks):
    """Column means over all rows, and the rows with the given numbers, which ascend."""
    if not isinstance(X, RowSource):
        return _column_means(X), _numpy_rows(X, rows)
    if isinstance(X, DaskRows) and ranks.size == 1:
        total, sample = X.sums_and_rows(rows)
        return total / X.shape[0], sample
    total, sample = np.zeros(X.shape[1]), np.zeros((rows.size, X.shape[1]))

    def read():
        for part, data in forward(X, islice(X.runs(SLAB_BYTES), ranks.rank, None, ranks.size)):
            np.add(total, data.sum(axis=0, dtype=np.float64), out=total)
            mine = slice(*np.searchsorted(rows, [part.start, part.stop]))
            sample[mine] = data[rows[mine] - part.start]

    ranks.together(read)
    for values in (total, sample):  # in place
        ranks.sum(torch.from_numpy(values))
    return total / X.shape[0], sample


def _numpy_rows(X, rows):
    if isinstance(X, np.ndarray):
        return X[rows].astype(np.float64)
    return to_numpy(array_namespace(X).take(X, asarray_like(rows, X, dtype=array_namespace(X).int64), axis=0)).astype(
        np.float64
    )


def _column_means(X):
    total = np.zeros(X.shape[1])
    for rows in slabs(X):
        total += to_numpy(X[rows, ...]).sum(axis=0, dtype=np.float64)
    return total / X.shape[0]


class BatchOrder:
    """Endless batches of row numbers: a fresh permutation for every pass, the last short batch of a pass dropped.

    A data set smaller than a batch is one batch.

    Parameters
    ----------
    n : int
        Number of rows.
    batch_size : int
    rng : numpy.random.RandomState
        Drawn from once a pass, at its first batch.

    Attributes
    ----------
    drawn_from : RandomState
        A copy of the generator as it was before the current pass.
    position : int
        Batches taken of the current pass; with ``drawn_from`` it says where the data stand.
    """

    def __init__(self, n, batch_size, rng):
        self.n, self.batch_size, self.rng = n, batch_size, rng
        self.drawn_from, self.position = copy.deepcopy(rng), 0
        self._order = np.zeros(0, dtype=np.int64)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._order.size or self.position == steps_per_pass(self.n, self.batch_size):
            self._begin_pass()
        start = self.position * self.batch_size
        self.position += 1
        return self._order[start : start + self.batch_size]

    def _begin_pass(self):
        self.drawn_from, self.position = copy.deepcopy(self.rng), 0
        self._order = self.rng.permutation(self.n)

    def go_on(self, rng, position):
        """Go on in the pass that ``rng`` draws next as if ``position`` of its batches were taken."""
        self.rng, self.drawn_from, self.position = rng, copy.deepcopy(rng), 0
        if position:
            self._begin_pass()
            self.position = position

    def layout(self):
        """Nothing but the number of rows decides the order."""
        return None

    def close(self):
        """Nothing to close."""


def steps_per_pass(n, batch_size):
    """Number of batches in one pass over n rows."""
    return max(1, n // batch_size)
