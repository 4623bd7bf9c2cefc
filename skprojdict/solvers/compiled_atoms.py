# SPDX-License-Identifier: BSD-3-Clause
"""Passes over all atoms, or their gradients, around the compiled kernels: each row is read and written once.

Each stands for code of the caller's own, which serves other devices and installations without Numba.
"""

import numpy as np

from .._array import array_namespace, for_kernels, has_numba, in_numpy_memory, to_numpy
from .._memory import uninitialised
from ..kernels.threads import over_rows

# Numbers of a matrix from which on compiling, or loading what was compiled, is earned back.
LEAST_NUMBERS = 1 << 18


def passes_pay(like, n_rows):
    """Whether passes over so many rows like those of an array are to be compiled: floats in the host's memory, many."""
    if n_rows * like.shape[1] < LEAST_NUMBERS or not in_numpy_memory(like):
        return False
    xp = array_namespace(like)
    return like.dtype in (xp.float32, xp.float64) and has_numba()


def sum_outer_products(indices, terms, n_rows):
    """``sum_i sum_j w_ij (row indices_ij) r_i^T`` over several terms ``(w, R)``: an (n_rows, d) array.

    Rows are added up in their order, so that the result is the same on every run. Entries of weight 0 are left out.
    """
    from ..kernels.gradients import group_by_atom, outer_rows

    like = terms[0][1]
    xp = array_namespace(like)
    stacked = [part[0][None, ...] if len(part) == 1 else xp.stack(list(part)) for part in zip(*terms, strict=True)]
    total = uninitialised((n_rows, like.shape[1]), like)
    own, weights, values, out = for_kernels(indices, *stacked, total)
    ends, entries = np.zeros(n_rows, dtype=np.int64), np.empty(own.size, dtype=np.int64)
    group_by_atom(own, weights, ends, entries)
    over_rows(lambda part: outer_rows(part.start, part.stop, ends, entries, weights, values, out), n_rows)
    return total


def straighten(gradient, atoms):
    """Take the part of each row of a gradient along the same row of the atoms off, in place.

    Returns the squared norm of the whole that is left, which costs no pass of its own.
    """
    from ..kernels.gradients import straighten_rows

    G, F = _in_place(gradient), _in_place(atoms)
    squares = np.empty(len(F), dtype=G.dtype)
    over_rows(lambda part: straighten_rows(G[part], F[part], squares[part]), len(F))
    return float(squares.sum(dtype=np.float64))  # whatever the number of threads


def squared_norm(matrix):
    """Squared norm of a whole matrix."""
    from ..kernels.gradients import square_rows

    (G,) = for_kernels(matrix)
    squares = np.empty(len(G), dtype=G.dtype)
    over_rows(lambda part: square_rows(G[part], squares[part]), len(G))
    return float(squares.sum(dtype=np.float64))


def normalise(atoms):
    """Bring every row to norm 1, in place; rows of 0 stay as they are."""
    from ..kernels.gradients import normalise_rows

    F = _in_place(atoms)
    least = F.dtype.type(np.finfo(F.dtype).tiny)
    over_rows(lambda part: normalise_rows(F[part], least), len(F))


def _in_place(array):
    """The array's own memory; one that kernels would need a copy of is an error of the caller's."""
    values = to_numpy(array)
    assert values.flags.c_contiguous
    assert values.flags.writeable
    return values
