# SPDX-License-Identifier: BSD-3-Clause
"""Reading rows in a random order that a disk can follow."""

import copy
import hashlib

import numpy as np
from sklearn.utils import check_random_state

from .opening import open_rows

# Two windows are in memory at a time: the one that batches are drawn from, and the one being read.
WINDOW_BYTES = 64 * 2**20
# The first window of a pass has to be read before its first batch: it is so much smaller, and the next ones double.
FIRST_SHARE = 16


def rows(source, batch_size, random_state=None):
    """Batches of all rows in random order, once.

    Blocks of neighbouring rows are read in random order, some tens of megabytes of them make a window, and batches are
    drawn from a window at random: the disk reads runs, and a batch mixes rows from all over the source. The last batch
    may be shorter.

    Parameters
    ----------
    source : anything that :func:`open_rows` opens
    batch_size : int
    random_state : int, RandomState instance or None, default=None
        Fixes the order.

    Yields
    ------
    batch : ndarray of shape (batch_size, n_features)

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.sources import rows
    >>> [batch.shape for batch in rows(np.zeros((5, 2)), 2, random_state=0)]
    [(2, 2), (2, 2), (1, 2)]
    """
    order = ShuffledRows((open_rows(source),), batch_size, check_random_state(random_state), drop_last=False)
    for _ in range(order.batches_a_pass):
        yield next(order)[0]


class ShuffledRows:
    """Endless batches of the same rows of several sources, pass after pass.

    Parameters
    ----------
    sources : tuple of RowSource
        With as many rows each; the first decides what is read in one go.
    batch_size : int
    rng : RandomState
        Drawn from once a pass.
    drop_last : bool, default=True
        Leave the last, shorter batch of a pass out (but never the only one).

    Attributes
    ----------
    n, batches_a_pass : int
    drawn_from : RandomState
        A copy of the generator as it was before the current pass.
    position : int
        Batches taken of the current pass; with ``drawn_from`` it says where the data stand.
    """

    def __init__(self, sources, batch_size, rng, *, drop_last=True):
        self.sources, self.batch_size, self.rng = sources, batch_size, rng
        self.n = sources[0].shape[0]
        self.batches_a_pass = max(1, self.n // batch_size) if drop_last else -(-self.n // batch_size)
        self.starts, self.stops = sources[0].blocks()
        row_bytes = sum(source.shape[1] * source.dtype.itemsize for source in sources)
        self.window_rows = max(1, WINDOW_BYTES // max(1, row_bytes))
        self.drawn_from, self.position = copy.deepcopy(rng), 0
        self._batches = iter(())

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self._batches, None)
        if batch is None:
            self._begin_pass(0)
            batch = next(self._batches)
        self.position += 1
        return batch

    def layout(self):
        """A short digest of what the order depends on besides the generator: how the rows lie, and the window."""
        numbers = [FIRST_SHARE, self.window_rows, *self.starts, self.n]
        digest = hashlib.sha256(np.array(numbers, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]

    def go_on(self, rng, position):
        """Go on in the pass that ``rng`` draws next as if ``position`` of its batches were taken; none is read."""
        self.rng, self.drawn_from, self.position = rng, copy.deepcopy(rng), 0
        if position:
            self._begin_pass(position)

    def _begin_pass(self, position):
        self.drawn_from, self.position = copy.deepcopy(self.rng), position
        # One draw a pass: whatever a pass takes from its own generator, the next one does not depend on it.
        self._batches = self._one_pass(np.random.RandomState(self.rng.randint(2**32, dtype=np.uint64)), position)

    def _one_pass(self, rng, position):
        """Batches from ``position`` on. Windows that only earlier batches are drawn from are never read."""
        windows = [
            _Window(self.sources, self.starts[blocks], self.stops[blocks], rng.randint(2**32, dtype=np.uint64))
            for blocks in self._split(rng.permutation(len(self.starts)))
        ]
        # Rows of a pass in order, as (window, first, last): a batch is a run of it.
        start, number, used = 0, 0, 0
        for i in range(self.batches_a_pass):
            pieces, wanted = [], min(self.batch_size, self.n - start)
            while wanted:
                window = windows[number]
                count = min(wanted, window.n - used)
                pieces.append((window, used, used + count))
                used, wanted, start = used + count, wanted - count, start + count
                if used == window.n and number + 1 < len(windows):
                    number, used = number + 1, 0
            if i < position:
                continue
            batch = [np.concatenate(parts) for parts in zip(*(w.take(a, b) for w, a, b in pieces), strict=True)]
            yield tuple(batch)
            for window, _, last in pieces:
                if last == window.n:
                    window.forget()
            if number + 1 < len(windows):  # read on while this batch is being used
                windows[number + 1].read_some(
                    -(-len(windows[number + 1].starts) * self.batch_size // windows[number].n)
                )

    def _split(self, order):
        """Cut a row of blocks into windows: a small one to begin with, then twice as many rows each up to the limit."""
        sizes = np.cumsum((self.stops - self.starts)[order])
        cuts: list[int] = []
        last, room = 0, self.window_rows / FIRST_SHARE
        for i, size in enumerate(sizes):
            if size - last > room and i and (not cuts or cuts[-1] < i):
                cuts.append(i)
                last, room = sizes[i - 1], min(2 * room, self.window_rows)
        return np.split(order, cuts)


class _Window:
    """Some blocks of rows in memory, shuffled together."""

    def __init__(self, sources, starts, stops, seed):
        self.sources, self.starts, self.stops, self.seed = sources, starts, stops, seed
        self.n = int((stops - starts).sum())
        self._data: list | None = None
        self._order: np.ndarray | None = None
        self._read = self._filled = 0

    def read_some(self, n_blocks):
        """Read at most so many of the blocks that are still missing."""
        if self._data is None:
            self._data = [np.empty((self.n, source.shape[1]), dtype=source.dtype) for source in self.sources]
        part = slice(self._read, self._read + n_blocks)
        for start, stop in zip(self.starts[part].tolist(), self.stops[part].tolist(), strict=True):
            for data, source in zip(self._data, self.sources, strict=True):
                data[self._filled : self._filled + stop - start] = source[start:stop]
            self._filled += stop - start
            self._read += 1

    def take(self, first, last):
        """The rows from the ``first`` to the ``last`` of the window's own order, of every source."""
        if self._order is None:
            self._order = np.random.RandomState(self.seed).permutation(self.n)
        self.read_some(len(self.starts))
        return [data[self._order[first:last]] for data in self._data or []]

    def forget(self):
        """Give the memory back."""
        self._data = self._order = None
        self._read = self._filled = 0
