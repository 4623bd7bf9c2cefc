# SPDX-License-Identifier: BSD-3-Clause
"""The k largest entries of long rows, compiled by Numba. Importing this file needs the extra "numba"."""

import numpy as np

from .compiling import compiled
from .threads import over_rows

# A row is looked at in so many columns for each of its k largest entries: the k-th largest of the maxima over these
# columns is a bound that few more than k entries exceed.
COLUMNS = 4


@compiled()
def _column_maxima(row, best):
    size = best.shape[0]
    best[:] = row[:size]
    for start in range(size, row.shape[0] - size + 1, size):
        part = row[start : start + size]
        for j in range(size):
            best[j] = part[j] if part[j] > best[j] else best[j]


@compiled(frozenset())
def _cut(found, place, m, bound, k):
    """Keep what is above the bound, the k-th largest of ``found``, and of what equals it the first."""
    spare = k
    for j in range(m):
        spare -= found[j] > bound
    kept = 0
    for j in range(m):
        equal = found[j] == bound
        if found[j] > bound or (equal and spare > 0):
            found[kept], place[kept] = found[j], place[j]
            spare -= equal
            kept += 1
    return kept if kept >= k else m


@compiled(frozenset())
def _largest_rows(values, n_columns, out, indices):
    n, p = values.shape
    k = out.shape[1]
    best = np.empty(n_columns, values.dtype)
    found, place = np.empty(p + 1, values.dtype), np.empty(p + 1, np.int64)
    for i in range(n):
        row = values[i]
        _column_maxima(row, best)
        bound = np.partition(best, n_columns - k)[n_columns - k]
        m = 0
        for j in range(p):  # written always, kept sometimes: a branch would be guessed wrong
            found[m], place[m] = row[j], j
            m += row[j] >= bound
        if m < k:  # entries that are not a number: nothing compares
            m = p
            found[:p] = row
            place[:p] = np.arange(p)
        if m > 2 * k:  # many equal ones, of which the first are taken
            m = _cut(found, place, m, np.partition(found[:m], m - k)[m - k], k)
        order = np.argsort(-found[:m], kind="mergesort")  # stable: equal entries come in order of index
        for u in range(k):
            out[i, u], indices[i, u] = found[order[u]], place[order[u]]


def largest_rows(values, k):
    """The k largest entries of each row of a NumPy array, in descending order: ``(values, indices)``."""
    n, p = values.shape
    n_columns = p // max(1, p // (COLUMNS * k))
    out, indices = np.empty((n, k), dtype=values.dtype), np.empty((n, k), dtype=np.int64)

    def work(part):
        _largest_rows(values[part], n_columns, out[part], indices[part])

    over_rows(work, n)
    return out, indices
