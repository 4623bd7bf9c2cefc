# SPDX-License-Identifier: BSD-3-Clause
"""Projection and elimination around their compiled kernels: arrays in, arrays of the same library out."""

import numpy as np

from .._array import array_namespace, asarray_like, for_kernels, has_numba, in_numpy_memory, put_rows
from ..kernels.threads import over_rows

# Multiplications of a call's Gram matrices from which on compiling, or loading what was compiled, is earned back.
LEAST_WORK = 1 << 22


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


def ranking_compiled(Y, components, indices, weights, k):
    """The ranking of :func:`skprojdict.solvers.elimination.elimination_ranking` under precisions ``weights``."""
    rows, atoms, own, w = for_kernels(Y, components, indices, weights)
    ranking = np.full(own.shape, -np.inf, dtype=atoms.dtype)
    numbers = np.array([np.finfo(atoms.dtype).smallest_normal], dtype=atoms.dtype)
    from ..kernels.systems import rank_rows

    def work(part):
        rank_rows(rows[part], atoms, own[part], w[part], k, numbers, ranking[part])

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
