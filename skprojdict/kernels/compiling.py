# SPDX-License-Identifier: BSD-3-Clause
"""How Numba compiles our kernels. Importing this file needs the extra "numba"."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from numba import njit

# Sums may be reordered and products fused, for vector instructions. Infinities keep their meaning.
FAST = frozenset({"contract", "nsz", "reassoc", "arcp"})

# Of functions that Python does not call.
_WITHOUT_PYTHON: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(fast=FAST, *, inner=False):
    """A decorator: compile on the first call, and keep the result on disk where there is a place for it.

    ``fast`` are the liberties that LLVM may take with floats; the empty set for none. A kernel releases the
    interpreter's lock, and is called from as many threads as the caller may use. Functions that only kernels call are
    ``inner``: Python cannot call them, which spares compiling how it would, and they are kept as parts of kernels.
    """
    # error_model="numpy": a division that may raise is not vectorised.
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fast), "error_model": "numpy"}

    def decorate(function):
        if inner:
            return njit(function, **options, **_WITHOUT_PYTHON)
        try:
            kernel = njit(function, cache=True, **options)
        except RuntimeError:  # neither the folder of the file nor the user's own can be written to
            return njit(function, **options)
        # Numba compiles anew when the file of the kernel changes, but not when one that it imports does. The place for
        # that is private: where it moves, changed kernels need their cache emptied by hand, and nothing else.
        with contextlib.suppress(AttributeError):
            kernel._cache._cache_file._source_stamp = _stamp()
        return kernel

    return decorate


@functools.cache
def _stamp():
    """What changes when any file of the kernels does."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [(each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in files]
