# SPDX-License-Identifier: BSD-3-Clause
"""Rows in chunks that fit into a budget of memory, and into what is left of it."""

import warnings

from ._array import on_cpu

# One chunk of gathered atoms stays inside the last-level cache of a laptop; a GPU wants larger ones.
CHUNK_BYTES_CPU = 4 * 2**20
CHUNK_BYTES_GPU = 256 * 2**20
SLAB_BYTES = 32 * 2**20
# Where memory runs out, chunks become so many times smaller.
FALLBACK = 8


def chunk_rows(n_rows, row_bytes, chunk_size, like):
    """Yield slices over ``n_rows`` so that a chunk of ``row_bytes`` a row stays inside the memory budget.

    ``chunk_size`` is a number of rows, or "auto" for a budget of bytes that suits the device of ``like``.
    """
    size = rows_a_chunk(row_bytes, chunk_size, like)
    for start in range(0, n_rows, size):
        yield slice(start, min(n_rows, start + size))


def rows_a_chunk(row_bytes, chunk_size, like):
    """Rows of a chunk, with the parameters of :func:`chunk_rows`."""
    if chunk_size != "auto":
        return chunk_size
    budget = CHUNK_BYTES_CPU if on_cpu(like) else CHUNK_BYTES_GPU
    return max(1, budget // max(1, row_bytes))


def out_of_memory(error):
    """Whether an exception says that an allocation failed, in the words of whichever library."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's is a RuntimeError
        return True
    words = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")  # of torch on a CPU, and of cuBLAS
    return isinstance(error, RuntimeError) and any(text in str(error) for text in words)


def smaller_chunk(error, n_rows, *, again):
    """Rows of the chunks to go on with after a chunk of ``n_rows`` raised ``error``, said in a warning.

    Raises
    ------
    MemoryError
        If there were smaller chunks already (``again``), or a single row is too much.
    Exception
        ``error`` itself where it is about something else than memory.
    """
    if not out_of_memory(error):
        raise error
    reason = (str(error).splitlines() or ["no reason given"])[0]
    if again or n_rows <= 1:
        raise MemoryError(
            f"memory ran out on a chunk of {n_rows} rows ({reason}), also after chunks were made smaller. Pass fewer "
            "rows at once, set sparse_output=True or a smaller chunk_size, or free memory."
        ) from error
    smaller = -(-n_rows // FALLBACK)
    warnings.warn(
        f"memory ran out on a chunk of {n_rows} rows ({reason}); going on with chunks of {smaller}, which takes "
        "longer. Set a smaller chunk_size, or free memory, to silence this.",
        UserWarning,
        stacklevel=3,
    )
    return smaller


def map_chunks(function, n_rows, chunk_size):
    """Yield ``(rows, function(rows))`` for slices of ``chunk_size`` rows; smaller ones once memory has run out.

    ``function`` is called again for rows on which it ran out of memory.
    """
    start, again = 0, False
    while start < n_rows:
        rows = slice(start, min(n_rows, start + chunk_size))
        try:
            result = function(rows)
        except (MemoryError, RuntimeError) as error:
            chunk_size, again = smaller_chunk(error, rows.stop - start, again=again), True
            continue  # out of the handler: the error holds on to what was allocated
        yield rows, result
        start = rows.stop


def slabs(X):
    """Slices over the rows of X in slabs of about 32 MiB, so that a memory map is never read whole."""
    rows = max(1, SLAB_BYTES // (8 * max(1, X.shape[1])))
    yield from chunk_rows(X.shape[0], 0, rows, X)
