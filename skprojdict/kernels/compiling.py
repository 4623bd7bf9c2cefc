# SPDX-License-Identifier: BSD-3-Clause
"""How Numba compiles our kernels. Importing this file needs the extra "numba"."""

from typing import Any

from numba import njit

# Sums may be reordered and products fused, for vector instructions. Infinities keep their meaning.
FAST = frozenset({"contract", "nsz", "reassoc", "arcp"})


def compiled(fast=FAST):
    """A decorator: compile on the first call, and keep the result on disk where there is a place for it.

    ``fast`` are the liberties that LLVM may take with floats; the empty set for none. A kernel releases the
    interpreter's lock, and is called from as many threads as the caller may use.
    """
    # error_model="numpy": a division that may raise is not vectorised.
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fast), "error_model": "numpy"}

    def decorate(function):
        try:
            return njit(function, cache=True, **options)
        except RuntimeError:  # neither the folder of the file nor the user's own can be written to
            return njit(function, **options)

    return decorate
