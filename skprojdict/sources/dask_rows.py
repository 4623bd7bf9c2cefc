# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a Dask array: read chunk by chunk like any source, or worked on by Dask where the chunks are."""

import functools
from typing import Any

import numpy as np

from .opening import Part, RowSource, UnreadableRowsError

# Results of so many chunks are merged by one task: the depth of the tree, against what one worker holds at a time.
FAN_IN = 4


class DaskRows(RowSource):
    """Rows of one Dask array; what is said of :class:`RowSource` holds.

    Parameters
    ----------
    array : dask.array.Array of shape (n_samples, n_features)
        With chunks of known length. Columns are brought together.
    name : str
        In messages.
    """

    def __init__(self, array, name="the Dask array"):
        if any(size != size for size in array.chunks[0]):
            raise ValueError(f"{name} has chunks of unknown length. Call compute_chunk_sizes() on it first.")
        if array.ndim == 2 and len(array.chunks[1]) > 1:
            array = array.rechunk({1: -1})
        self.array, self.name = array, name
        super().__init__([self._part(i, n) for i, n in enumerate(array.chunks[0])])

    def _part(self, i, n):
        block = self.array.blocks[i]
        name, shape = f"chunk {i} of {self.name}", (n, *self.array.shape[1:])
        return Part(name, shape, self.array.dtype, lambda a, b: block[a:b].compute(), max(1, n))

    def reduce(self, function, merge):
        """``merge`` of ``function(rows, first)`` over all chunks, in a tree.

        ``first`` is the number of a chunk's first row. Both run on Dask's active scheduler, and have to be
        picklable for one of several processes. Rows are looked at for NaN and infinity there.

        Raises
        ------
        UnreadableRowsError
            If the file behind a chunk cannot be read.
        """
        import dask

        function = _sent_once(function)
        of_chunk, merged = dask.delayed(_of_chunk, pure=False), dask.delayed(functools.partial(functools.reduce, merge))
        blocks = self.array.to_delayed().ravel()
        results = [
            of_chunk(function, block, int(first), part.name)
            for block, first, part in zip(blocks, self.starts, self.parts, strict=False)
            if part.shape[0]
        ]
        while len(results) > 1:
            results = [merged(results[i : i + FAN_IN]) for i in range(0, len(results), FAN_IN)]
        try:
            return dask.compute(results[0])[0]
        except OSError as error:
            raise UnreadableRowsError(
                f"a chunk of {self.name} cannot be read ({type(error).__name__}: {error}). Bring its file back as it "
                "was, and start again."
            ) from error

    def sums_and_rows(self, numbers):
        """Sums of the columns over all rows, and the rows of the given ascending numbers, float64."""
        return self.reduce(functools.partial(_sums_and_rows, numbers), _add_and_append)

    def map(self, function, like, n_columns):
        """A lazy Dask array of ``function(rows)``, chunk by chunk; ``like`` is an empty array of its kind and dtype."""
        import dask

        return self.array.map_blocks(
            _of_block,
            function=dask.delayed(function, pure=False, traverse=False),
            name_of=self.name,
            chunks=(self.array.chunks[0], (n_columns,)),
            dtype=like.dtype,
            meta=like,
        )


def is_dask(X):
    """Whether X is a Dask array."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "map_blocks")


def _sent_once(function):
    """One copy of a function and of the arrays that it holds for each worker, rather than one for each task."""
    import dask

    client: Any = getattr(dask.base.get_scheduler(), "__self__", None)
    if hasattr(client, "scatter"):  # dask.distributed
        return client.scatter(function, broadcast=True, hash=False)
    return dask.delayed(function, pure=False, traverse=False)


def _of_chunk(function, rows, first, name):
    return function(_checked(rows, first, name), first)


def _of_block(rows, function, name_of, block_info):
    first, number = block_info[0]["array-location"][0][0], block_info[0]["chunk-location"][0]
    return function(_checked(rows, first, f"chunk {number} of {name_of}"))


def _checked(rows, first, name):
    rows = np.asarray(rows)
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"Input X contains NaN or infinity: row {first + row} (row {row} of {name}) is the first of "
            f"{np.count_nonzero(~good)} such rows in this chunk. Drop or impute these rows."
        )
    return rows


def _sums_and_rows(numbers, rows, first):
    mine = numbers[slice(*np.searchsorted(numbers, [first, first + len(rows)]))]
    return rows.sum(axis=0, dtype=np.float64), rows[mine - first].astype(np.float64)


def _add_and_append(one, other):
    return one[0] + other[0], np.concatenate([one[1], other[1]])
