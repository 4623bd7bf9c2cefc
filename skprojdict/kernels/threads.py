# SPDX-License-Identifier: BSD-3-Clause
"""Rows split over threads, for compiled kernels that release the interpreter's lock."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as effective_n_threads  # private in 1.9

from .._openmp import let_go

# Fewer rows are not worth a thread.
ROWS_A_THREAD = 64


def over_rows(work, n_rows):
    """Call ``work(rows)`` for slices that make up ``n_rows``, on as many threads as OpenMP would use.

    The threads are ours: the kernels leave the BLAS alone, and what OpenMP's threads wait for is ended first, so that
    two pools never work at the same time.
    """
    n_available = effective_n_threads()
    n_threads = min(n_available, max(1, n_rows // ROWS_A_THREAD))
    bounds = [n_rows * i // n_threads for i in range(n_threads + 1)]
    parts = [slice(*pair) for pair in pairwise(bounds)]
    if n_threads == 1:
        work(parts[0])
        return
    let_go(n_available)
    with ThreadPoolExecutor(n_threads - 1) as pool:
        others = [pool.submit(work, part) for part in parts[1:]]
        work(parts[0])  # by the thread that would only wait
        for each in others:
            each.result()
