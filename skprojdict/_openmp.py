# SPDX-License-Identifier: BSD-3-Clause
"""OpenMP's threads, which torch keeps between its operations, seen from those that work beside them."""

import functools
import os
import sys

# More threads than these take as long to make anew as they would have stood in the way.
MOST_THREADS = 16

# Whether this process is a fork: the threads did not come with it, and would be waited for forever.
_forked = False


def _note_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def forked():
    """Whether this process is a fork."""
    return _forked


def let_go(n_threads):
    """End the OpenMP threads, ``n_threads`` with the calling one, that wait for its next work, before others start.

    Between two operations they look for work for some ms, on the very cores that the others are for. OpenMP makes them
    anew at its next operation (0.1 ms for one).
    """
    if n_threads <= MOST_THREADS and not _forked:
        for pause in _pauses("torch" in sys.modules):
            pause(1)  # omp_pause_soft: what is kept for a thread stays; refused within an operation, and so be it


@functools.cache
def _pauses(with_torch):
    """``omp_pause_resource_all`` (OpenMP 5.0) of the libraries loaded by now; torch brings one of its own."""
    from threadpoolctl import ThreadpoolController

    loaded = (each.dynlib for each in ThreadpoolController().lib_controllers if each.user_api == "openmp")
    found = (getattr(library, "omp_pause_resource_all", None) for library in loaded)
    return [pause for pause in found if pause is not None]
