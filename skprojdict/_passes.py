# SPDX-License-Identifier: BSD-3-Clause
"""Passes of a classical dictionary learner over rows, wherever these lie: in random batches, or all of them at once."""

from functools import partial
from itertools import islice

import numpy as np

from ._array import array_namespace, asarray_like, is_numpy_namespace
from ._chunks import slabs
from .solvers.learner import merge_sums
from .sources import DaskRows, ReadAhead, RowSource, ShuffledRows, forward
from .sources.ahead import SLAB_BYTES

# Rows of a batch that "auto" stands for: twice the atoms, but as many batches a pass; within these bounds.
AUTO_BATCHES, AUTO_LEAST, AUTO_MOST = 16, 32, 4096


class Passes:
    """The rows of a fit, centred and scaled as they are read, in the dtype of the mean.

    Parameters
    ----------
    X : array or RowSource of shape (n, d)
    mean : array of shape (d,)
    scale : float
    """

    def __init__(self, X, mean, scale):
        self.X, self.mean, self.scale = X, mean, scale

    def whole(self, learner, *, last):
        """Code all rows, a Dask array's where its chunks are, and solve for the dictionary."""
        if not isinstance(self.X, DaskRows):
            return learner.full_pass(self._slabs(), replace=not last)
        code = partial(_code_chunk, learner.pass_coder(), self.mean, self.scale)
        return learner.end_full_pass(self.X.reduce(code, merge_sums), replace=not last)

    def streamed(self, learner, batch_size, rng, *, last):
        """One pass in batches of random rows; the last, shorter batch of a pass is left out.

        Returns error and energy, and how many steps and rows they are of.
        """
        n, p = self.X.shape[0], learner.components.shape[0]
        if batch_size == "auto":
            batch_size = min(AUTO_MOST, max(AUTO_LEAST, p, min(2 * p, n // AUTO_BATCHES)))
        n_steps = max(1, n // batch_size)
        error = energy = 0.0
        n_rows = 0
        for i, batch in enumerate(self._shuffled(batch_size, n_steps, rng)):
            sums = learner.step(batch, replace=not (last and i == n_steps - 1))
            error, energy, n_rows = error + sums[0], energy + sums[1], n_rows + batch.shape[0]
        learner.end_pass()
        return (error, energy), n_steps, n_rows

    def rows(self, which):
        """Rows of an array (a slice or NumPy integers): the only copy of them."""
        xp = array_namespace(self.X)
        if isinstance(which, slice):
            batch = self.X[which, ...]
        elif is_numpy_namespace(xp):
            batch = self.X[which]
        else:
            batch = xp.take(self.X, asarray_like(which, self.X, dtype=xp.int64), axis=0)
        return self._scaled(batch)

    def _scaled(self, batch):
        return _in_units(batch, self.mean, self.scale)

    def _shuffled(self, size, n_batches, rng):
        """Batches of random rows, each row at most once."""
        if isinstance(self.X, RowSource):
            ahead = ReadAhead(ShuffledRows((self.X,), size, rng))
            try:
                for (batch,) in islice(ahead, n_batches):
                    yield self._scaled(asarray_like(batch, self.mean))
            finally:
                ahead.close()
            return
        order = rng.permutation(self.X.shape[0])
        for start in range(0, n_batches * size, size):
            yield self.rows(np.sort(order[start : start + size]))

    def _slabs(self):
        """All rows in order, slab by slab."""
        if isinstance(self.X, RowSource):
            for _, slab in forward(self.X, self.X.runs(SLAB_BYTES)):
                yield self._scaled(asarray_like(slab, self.mean))
        else:
            yield from (self.rows(part) for part in slabs(self.X))


def _in_units(batch, mean, scale):
    return (array_namespace(batch).astype(batch, mean.dtype) - mean) / scale


def _code_chunk(code, mean, scale, rows, first):
    """Statistics of one chunk of a Dask array, on whichever machine it is."""
    return code(_in_units(asarray_like(rows[part], mean), mean, scale) for part in slabs(rows))
