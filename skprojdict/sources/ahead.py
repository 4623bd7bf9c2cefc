# SPDX-License-Identifier: BSD-3-Clause
"""Reading ahead of whoever uses the rows, in a thread."""

import queue
import threading
import time

import numpy as np

# What a pass from the first row to the last reads in one go; three of them are in memory at a time.
SLAB_BYTES = 8 * 2**20


class Prefetched:
    """What an iterator gives, made ahead in a thread.

    Parameters
    ----------
    iterator : iterator
        Its ``next`` is called in the thread only.
    depth : int, default=4
        Items that are ready at most.

    Attributes
    ----------
    waited : float
        Seconds that the user of the items has waited for them.
    """

    def __init__(self, iterator, *, depth=4):
        self.waited = 0.0
        self._ready: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(iterator,), daemon=True, name="skprojdict-rows")
        self._thread.start()

    def _work(self, iterator):
        try:
            for item in iterator:
                if not self._put((item, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:
            self._put((None, error))

    def _put(self, item):
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self):
        return self

    def __next__(self):
        begun = time.perf_counter()
        item, error = self._ready.get()
        self.waited += time.perf_counter() - begun
        if error is not None:
            self._ready.put((None, error))
            raise error
        return item

    def close(self):
        """Stop reading ahead, and let the thread end."""
        self._stop.set()
        self._thread.join()


class ReadAhead:
    """Batches of :class:`ShuffledRows`, made ahead in a thread; it knows where the batches *taken* stand.

    Parameters
    ----------
    order : ShuffledRows
    depth : int, default=4
        Batches that are ready at most.

    Attributes
    ----------
    n, batch_size : int
    drawn_from, position
        As of :class:`ShuffledRows`, for the batches taken and not for those that are ready.
    """

    def __init__(self, order, *, depth=4):
        self.order, self.depth = order, depth
        self.n, self.batch_size = order.n, order.batch_size
        self.drawn_from, self.position = order.drawn_from, order.position
        self._items: Prefetched | None = None

    def __iter__(self):
        return self

    def __next__(self):
        if self._items is None:  # the thread starts at the first batch, after a checkpoint has set the order
            self._items = Prefetched(self._made(), depth=self.depth)
        batch, self.drawn_from, self.position = next(self._items)
        return batch

    def _made(self):
        for batch in self.order:
            yield batch, self.order.drawn_from, self.order.position

    @property
    def waited(self):
        """Seconds spent in waiting for batches."""
        return 0.0 if self._items is None else self._items.waited

    def go_on(self, rng, position):
        """Go on in the pass that ``rng`` draws next as if ``position`` of its batches were taken."""
        self.order.go_on(rng, position)
        self.drawn_from, self.position = self.order.drawn_from, self.order.position

    def layout(self):
        """As of :class:`ShuffledRows`."""
        return self.order.layout()

    def close(self):
        """Stop reading ahead."""
        if self._items is not None:
            self._items.close()


def forward(source, slices, *, depth=2):
    """Yield ``(slice, rows)`` of one slice of a source after the other, read ahead in a thread."""
    ahead = Prefetched(((part, source[part]) for part in slices), depth=depth)
    try:
        yield from ahead
    finally:
        ahead.close()


class ForwardRows:
    """Rows of a source for one pass from the first to the last, read ahead; slices may be asked for twice, not back.

    Parameters
    ----------
    source : RowSource
    convert : callable
        What is done to the NumPy rows of a slice before they are given.
    """

    ndim = 2

    def __init__(self, source, convert):
        self.source, self.convert = source, convert
        self.shape, self.dtype = source.shape, source.dtype
        self._slabs = forward(source, source.runs(SLAB_BYTES))
        self._held: list = []
        self._first = 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """The rows of a slice that does not begin before the one asked for last."""
        rows = rows[0] if isinstance(rows, tuple) else rows
        start, stop, _ = rows.indices(self.shape[0])
        if start < self._first:
            raise IndexError(f"rows are given forwards: {start} was asked for after {self._first}.")
        self._first = start
        self._held = [(part, data) for part, data in self._held if part.stop > start]
        while not self._held or self._held[-1][0].stop < stop:
            self._held.append(next(self._slabs))
            self._held = [(part, data) for part, data in self._held if part.stop > start]
        pieces = [data[max(0, start - part.start) : stop - part.start] for part, data in self._held]
        return self.convert(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
