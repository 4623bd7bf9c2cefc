# SPDX-License-Identifier: BSD-3-Clause
"""The k largest entries of long rows, compiled by Numba. Importing this file needs the extra "numba"."""

import numpy as np

from .compiling import compiled
from .threads import over_rows
from .vectors import filled, lanes_of, load, lowest, reaching

# A row is looked at in so many columns for each of its k largest entries: the k-th largest of the maxima over these
# columns is a bound that few more than k entries exceed.
COLUMNS = 4
# NaN and infinities keep their meaning.
_exact = compiled(frozenset(), inner=True)


def n_columns(p, k):
    """Columns that rows of p entries are looked at in, to find the k largest; 0: rows too short for it."""
    return p // (p // (COLUMNS * k)) if p >= 2 * COLUMNS * k else 0


@compiled(inner=True)
def _column_maxima(row, best):
    size = best.shape[0]
    for j in range(size):
        best[j] = row[j]
    for start in range(size, row.shape[0] - size + 1, size):
        part = row[start : start + size]
        for j in range(size):
            best[j] = part[j] if part[j] > best[j] else best[j]


@_exact
def _count(values, m, bound):
    """How many of the first m values reach the bound."""
    count = np.int32(0)
    for j in range(m):
        count = np.int32(count + np.int32(values[j] >= bound))
    return count


@_exact
def kth_largest(values, m, k):
    """A bound that the k largest of the first m values reach, and no others but those equal to the k-th.

    By bisection: vectors are counted faster than numbers are moved. NaN reaches nothing; where fewer than k values are
    numbers, so does the bound or fewer than k values reach it.
    """
    kind = values.dtype.type
    low = high = values[0]
    for j in range(1, m):
        low = values[j] if values[j] < low else low
        high = values[j] if values[j] > high else high
    if _count(values, m, high) >= k:
        return high
    most = kind(np.finfo(values.dtype).max)
    if high > most:
        high = most
        if _count(values, m, high) >= k:
            return high
    if low < -most:
        low = -most
        if _count(values, m, low) < k:
            return kind(-np.inf)
    half = kind(0.5)
    while True:  # at least k values reach the lower end, fewer the upper one
        middle = half * low + half * high
        if not (low < middle and middle < high):
            return low
        count = _count(values, m, middle)
        if count == k:
            return middle
        if count > k:
            low = middle
        else:
            high = middle


@_exact
def cut(found, place, m, bound, k):
    """Keep what is above the bound, and of what equals it the first, k in all; returns how many are left."""
    spare = k
    for j in range(m):
        spare -= found[j] > bound
    kept = 0
    for j in range(m):
        equal = found[j] == bound
        found[kept], place[kept] = found[j], place[j]
        kept += found[j] > bound or (equal and spare > 0)
        spare -= equal
    return kept


@_exact
def list_largest(row, k, best, found, place):
    """The k largest entries of a row, in order of index, of equal ones the first.

    Parameters
    ----------
    row : array of shape (p,)
    k : int
    best : array of shape (n_columns(p, k),)
        Room.
    found, place : arrays of shape (p + 1,)
        Receive entries and indices.

    Returns
    -------
    done : bool
        False where fewer than k entries are numbers.
    """
    p, m = row.shape[0], 0
    if best.shape[0]:
        _column_maxima(row, best)
        bound = kth_largest(best, best.shape[0], k)
        lanes = lanes_of(row)
        least = filled(bound)
        whole = p // lanes * lanes
        for start in range(0, whole, lanes):
            bits = reaching(load(row, start), least)
            while bits:
                place[m] = start + lowest(bits)
                m += 1
                bits &= bits - 1
        for j in range(whole, p):
            place[m] = j
            m += row[j] >= bound
        for j in range(m):
            found[j] = row[place[j]]
    else:
        for j in range(p):
            found[j], place[j] = row[j], j
        m = p
    if m > k:
        m = cut(found, place, m, kth_largest(found, m, k), k)
    return m == k


@compiled(frozenset())
def _largest_rows(values, best, out, indices, failed):
    n, p = values.shape
    k = out.shape[1]
    found, place = np.empty(p + 1, values.dtype), np.empty(p + 1, np.int64)
    for i in range(n):
        failed[i] = not list_largest(values[i], k, best, found, place)
        if failed[i]:
            continue
        for j in range(k):  # into the place that those before it leave: quicker than sorting, and nothing to guess
            before, own = 0, found[j]
            for u in range(k):
                before += found[u] > own
            for u in range(j):
                before += found[u] == own
            out[i, before], indices[i, before] = own, place[j]


def largest_rows(values, k):
    """The k largest entries of each row of a NumPy array, in descending order: ``(values, indices)``."""
    n, p = values.shape
    out, indices = np.empty((n, k), dtype=values.dtype), np.empty((n, k), dtype=np.int64)
    failed = np.empty(n, dtype=bool)

    def work(part):
        best = np.empty(n_columns(p, k), dtype=values.dtype)
        _largest_rows(values[part], best, out[part], indices[part], failed[part])

    over_rows(work, n)
    if failed.any():
        order = np.argsort(-values[failed], axis=1, kind="stable")[:, :k]  # NaN last
        out[failed], indices[failed] = np.take_along_axis(values[failed], order, axis=1), order
    return out, indices
