# SPDX-License-Identifier: BSD-3-Clause
"""Projection, elimination and selection around their compiled kernels: arrays in, arrays of the same library out."""

from typing import Any, NamedTuple

import numpy as np

from .._array import array_namespace, asarray_like, for_kernels, has_numba, in_numpy_memory, put_rows
from ..kernels.threads import over_rows

# Multiplications of a call's Gram matrices from which on compiling, or loading what was compiled, is earned back.
LEAST_WORK = 1 << 22
# A vector of scores.
LEAST_ATOMS = 16


def compiled_pays(components, n, K):
    """Whether n systems of K atoms are to be handled by compiled kernels: floats in the host's memory, and many."""
    d = components.shape[1]
    if not 0 < K <= d or n * K * K * d < LEAST_WORK:
        return False
    xp = array_namespace(components)
    return in_numpy_memory(components) and components.dtype in (xp.float32, xp.float64) and has_numba()


def project_compiled(Y, components, indices, weights, *, exact, bounds, spare):
    """Coefficients and reconstructions of :func:`skprojdict.solvers.ridge.project`, by Cholesky's pivots.

    ``bounds`` are the least pivots of a safe and of a strong system; ``spare(Y, indices, weights)`` projects the rows
    that are not safe, and gives the same pair.
    """
    xp = array_namespace(components)
    rows, atoms, own, w = for_kernels(Y, components, indices, weights)
    coefs, reconstruction = np.zeros(own.shape, dtype=atoms.dtype), np.zeros(rows.shape, dtype=atoms.dtype)
    failed = np.zeros(rows.shape[0], dtype=bool)
    bounds = np.asarray(bounds, dtype=atoms.dtype)
    from ..kernels.systems import project_rows

    def work(part):
        given = rows[part], atoms, own[part], w[part].astype(atoms.dtype, copy=False)
        project_rows(*given, exact, bounds, coefs[part], reconstruction[part], failed[part])

    over_rows(work, rows.shape[0])
    found = [asarray_like(result, components) for result in (coefs, reconstruction)]
    if failed.any():
        at = asarray_like(np.flatnonzero(failed), components, dtype=xp.int64)
        again = spare(*(xp.take(array, at, axis=0) for array in (Y, indices, weights)))
        found = [put_rows(result, at, better) for result, better in zip(found, again, strict=True)]
    return found


def ranking_compiled(Y, components, indices, weights, k, most, limit):
    """The ranking of :func:`skprojdict.solvers.elimination.elimination_ranking` under precisions ``weights``.

    ``most`` holds a number for each row.
    """
    rows, atoms, own, w, ends = for_kernels(Y, components, indices, weights, most)
    ranking = np.full(own.shape, -np.inf, dtype=atoms.dtype)
    numbers = np.array([np.finfo(atoms.dtype).smallest_normal, float(limit)], dtype=atoms.dtype)
    from ..kernels.systems import rank_rows

    def work(part):
        rank_rows(rows[part], atoms, own[part], w[part], k, ends[part], numbers, ranking[part])

    over_rows(work, rows.shape[0])
    return asarray_like(ranking, components)


def products_compiled(table, indices, values):
    """The entries of ``values @ table.T`` at ``indices``."""
    rows, atoms, own = for_kernels(values, table, indices)
    out = np.empty(own.shape, dtype=atoms.dtype)
    from ..kernels.systems import product_rows

    def work(part):
        product_rows(atoms, own[part], rows[part], out[part])

    over_rows(work, rows.shape[0])
    return asarray_like(out, table)


def rescoring_pays(low, inputs, encoder, n_again):
    """Whether products in low precision are to be gone through by a compiled kernel; it reads bfloat16."""
    kinds = [str(each.dtype) for each in (low, inputs, encoder)]
    if kinds != ["torch.bfloat16", "torch.float32", "torch.float32"] or encoder.shape[0] < LEAST_ATOMS:
        return False
    return compiled_pays(encoder, low.shape[0], n_again)


def rescore_compiled(low, inputs, encoder, bias, n_again, scores):
    """Write scores from products in bfloat16, the ``n_again`` best of each row computed again; others are smaller."""
    rows, atoms, shift, values, halves = for_kernels(
        inputs, encoder, bias, scores, low.view(array_namespace(low).int16)
    )
    from ..kernels.largest import n_columns
    from ..kernels.rescoring import rescore_rows

    def work(part):
        best = np.empty(n_columns(atoms.shape[0], n_again), dtype=atoms.dtype)
        rescore_rows(rows[part], atoms, shift, halves[part], n_again, best, values[part])

    over_rows(work, rows.shape[0])


class Codes(NamedTuple):
    """What a kernel selects and solves for each row, in arrays of the library that it was given.

    Atoms come first, then padding. ``coefs`` and ``reconstruction`` are None where they are not asked for.
    """

    indices: Any
    scores: Any
    active: Any
    coefs: Any = None
    reconstruction: Any = None


class _Rows:
    """NumPy arrays for k atoms of each of n rows, to be written by kernels."""

    def __init__(self, n, k, dtype):
        self.indices, self.counts = np.zeros((n, k), dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.scores = np.zeros((n, k), dtype=dtype)

    def of(self, part):
        """The arrays of a slice of the rows, in the order in which kernels take them."""
        return self.indices[part], self.counts[part], self.scores[part]

    def codes(self, like, *more):
        """The same, and ``more``, as arrays of the library of ``like``."""
        xp = array_namespace(like)
        indices = asarray_like(self.indices, like, dtype=xp.int64)
        active = np.arange(indices.shape[1])[None, :] < self.counts[:, None]
        active = asarray_like(active, like, dtype=xp.bool)
        return Codes(indices, asarray_like(self.scores, like), active, *more)


class _Solved(_Rows):
    """The same with coefficients, and reconstructions of d numbers; d = 0: without."""

    def __init__(self, n, k, dtype, d):
        super().__init__(n, k, dtype)
        self.coefs, self.reconstruction = np.zeros((n, k), dtype=dtype), np.zeros((n, d), dtype=dtype)

    def of(self, part):
        return *super().of(part), self.coefs[part], self.reconstruction[part]

    def codes(self, like):
        fitted = self.reconstruction.shape[1] > 0
        more = asarray_like(self.coefs, like), asarray_like(self.reconstruction, like) if fitted else None
        return super().codes(like, *more)

    def failed(self, like):
        """Numbers of the rows that were not safe to solve."""
        return asarray_like(np.flatnonzero(self.counts < 0), like, dtype=array_namespace(like).int64)


def _numbers(bounds, ridge, dtype, limit=0.0):
    return np.array([*bounds, ridge, np.finfo(dtype).smallest_normal, limit], dtype=dtype)


def code_compiled(scores, Y, components, sizes, *, limit=0.0, positive, bounds, ridge, fitted):
    """Selection by score with candidates and pruning, and least squares on what is left, in one kernel.

    Parameters
    ----------
    scores, Y, components : arrays of shape (n, p), (n, d), (p, d)
    sizes : tuple of five int
        k, candidates, how many of the best scored are looked at, and how many are left at least and at most.
    limit : float, default=0.0
        Between these numbers, atoms go that are missed by no more than it allows.
    positive : bool
        Whether only scores above 0 are selected.
    bounds : tuple of two float
        Least pivots of a safe and of a strong system.
    ridge : float
        Penalty of the elimination.
    fitted : bool
        Whether reconstructions are wanted.

    Returns
    -------
    proposed, codes : Codes
        Candidates, and what is left of them.
    failed : int64 array
        Numbers of the rows that were not safe to solve, of which nothing else holds.
    """
    values, rows, atoms = for_kernels(scores, Y, components)
    n, p = values.shape
    proposed = _Rows(n, sizes[1], atoms.dtype)
    out = _Solved(n, sizes[4], atoms.dtype, atoms.shape[1] if fitted else 0)
    numbers, floor = _numbers(bounds, ridge, atoms.dtype, float(limit)), 0.0 if positive else np.nan
    from ..kernels.coding import code_rows
    from ..kernels.largest import n_columns

    def work(part):
        best = np.empty(n_columns(p, sizes[2]), dtype=atoms.dtype)
        given = rows[part], atoms, values[part], best, sizes, floor, numbers
        code_rows(*given, *proposed.of(part), *out.of(part))

    over_rows(work, n)
    return proposed.codes(components), out.codes(components), out.failed(components)


def refine_compiled(
    scores, correlation, Y, components, indices, active, rounding, k, most, n_added, *, bounds, ridge, fitted
):
    """The atoms of each row and those that correlate best, cut down again, and least squares on what is left.

    Parameters
    ----------
    scores, correlation : arrays of shape (n, p)
        Encoder scores; inner products of all atoms with what each row leaves over, which may be overwritten.
    Y, components : arrays of shape (n, d), (p, d)
    indices, active : arrays of shape (n, K)
        Atoms that each row has.
    rounding : array of shape (n,)
        Correlations not above it recommend nobody.
    k : int
        Columns of the results.
    most, n_added : int64 arrays of shape (n,)
        Atoms that are left of each row at most, no more than k, and that are added to it at most.
    bounds, ridge, fitted
        See :func:`code_compiled`.

    Returns
    -------
    origin : int64 array of shape (n, k)
        Places of the atoms among those that the row had, -1 for those added.
    codes, failed
        See :func:`code_compiled`.
    """
    values, products, rows, atoms = for_kernels(scores, correlation, Y, components)
    own, on, level, left, new = for_kernels(indices, active, rounding, most, n_added)
    n, p = products.shape
    origin, out = np.zeros((n, k), dtype=np.int64), _Solved(n, k, atoms.dtype, atoms.shape[1] if fitted else 0)
    numbers = _numbers(bounds, ridge, atoms.dtype)
    from ..kernels.coding import refine_rows
    from ..kernels.largest import n_columns

    n_new = int(new.max(initial=1))

    def work(part):
        best = np.empty(n_columns(p, n_new), dtype=atoms.dtype)
        given = rows[part], atoms, values[part], products[part], best, own[part], on[part], level[part]
        refine_rows(*given, left[part], new[part], n_new, numbers, origin[part], *out.of(part))

    over_rows(work, n)
    origin = asarray_like(origin, components, dtype=array_namespace(components).int64)
    return origin, out.codes(components), out.failed(components)
