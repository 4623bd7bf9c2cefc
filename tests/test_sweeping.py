# SPDX-License-Identifier: BSD-3-Clause
"""Small systems inside kernels, beside NumPy and SciPy."""

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("numba")

import numba

from skprojdict.kernels.blocks import add_eight, eight, take_eight, turn
from skprojdict.kernels.sweeping import make_system, solve, sweep
from skprojdict.kernels.vectors import load, store

DTYPES = [np.float32, np.float64]


# Functions of kernels cannot be called from Python, so their callers are compiled here.
@numba.njit
def worked_at(M, b, level, whole):
    """A as ``sweep`` (or ``solve``) leaves it, and what that returns; NaN where nobody is to read."""
    m = M.shape[0]
    A, space = make_system(m, M)
    space.before[:], space.after[:] = np.nan, np.nan
    for i in range(m):
        A[i, : i + 1] = M[i, : i + 1]
        A[i, i + 1 :] = np.nan
        A[m, i] = b[i]
    return A, sweep(A, m, level, space) if whole else solve(A, m, level, space)


def system(m, dtype, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, 3 * m))
    return (X @ X.T / (3 * m)).astype(dtype), rng.standard_normal(m).astype(dtype)


@pytest.mark.parametrize("m", [8, 16, 24, 40, 64, 136])
@pytest.mark.parametrize("dtype", DTYPES)
def test_inverse_and_solution(m, dtype):
    M, b = system(m, dtype)
    level = np.ones(m, dtype)
    exact = np.linalg.inv(M.astype(np.float64))
    solution = scipy.linalg.solve(M.astype(np.float64), b, assume_a="pos")
    pivots = np.diag(np.linalg.cholesky(M.astype(np.float64))) ** 2
    tol = 5e-6 if dtype is np.float32 else 1e-13
    swept, share = worked_at(M, b, level, True)
    lower = np.tril_indices(m)
    assert_allclose(swept[:m, :m][lower], -exact[lower], atol=tol * np.abs(exact).max())
    assert_allclose(swept[m, :m], solution, atol=tol * np.abs(solution).max())
    assert_allclose(share, pivots.min(), rtol=100 * tol)
    solved, share = worked_at(M, b, level, False)
    assert_allclose(solved[m, :m], solution, atol=tol * np.abs(solution).max())
    assert_allclose(share, pivots.min(), rtol=100 * tol)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("noise", [0.1, 0.01])
def test_blocks_of_nearly_equal_atoms_cost_no_more_digits_than_lapack(noise, whole):
    """Clusters of eight atoms fill the blocks of pivots: their inverses have large conditions."""
    errors = {"ours": [], "lapack": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centres = np.repeat(rng.standard_normal((6, 96)), 8, axis=0)
        X = centres / np.linalg.norm(centres, axis=1, keepdims=True) + noise * rng.standard_normal((48, 96)) / 10
        M, b = 1000 * X @ X.T + np.eye(48), X @ rng.standard_normal(96)
        exact = scipy.linalg.solve(M, b, assume_a="pos")
        M, b = M.astype(np.float32), b.astype(np.float32)
        found = worked_at(M, b, np.ones(48, np.float32), whole)[0][48, :48]
        errors["ours"].append(np.linalg.norm(found - exact))
        errors["lapack"].append(np.linalg.norm(scipy.linalg.cho_solve(scipy.linalg.cho_factor(M), b) - exact))
    assert np.median(errors["ours"]) < 3 * np.median(errors["lapack"])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shares_are_of_their_own_level(dtype, whole):
    M = np.diag(np.arange(1.0, 17.0)).astype(dtype)
    level = np.ones(16, dtype)
    level[11] = 100
    share = worked_at(M, np.ones(16, dtype), level, whole)[1]
    assert share == dtype(12) / dtype(100)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("at", [(0, 0), (9, 9), (12, 3)])
@pytest.mark.parametrize("number", [np.nan, -1.0])
def test_systems_that_are_not_positive_definite_show(whole, at, number):
    M, b = system(16, np.float64)
    M[at] = M[at[::-1]] = 40 * number  # beside the diagonal this exceeds what positive matrices may have
    share = worked_at(M, b, np.ones(16), whole)[1]
    assert not share > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_are_turned_and_zeros_left(dtype):
    @numba.njit
    def go(A, out):
        turn(A, 2 * 20 + 5, 20, out, 3, 13)

    A = np.arange(1.0, 12 * 20 + 1).reshape(12, 20).astype(dtype)
    before, out = A.copy(), np.full((8, 13), -1, dtype)
    go(A, out)
    assert_array_equal(out[:, 3:11], before[2:10, 5:13].T)
    assert_array_equal(out[:, :3], -1)
    assert_array_equal(out[:, 11:], -1)
    before[2:10, 5:13] = 0
    assert_array_equal(A, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_eight_products(dtype):
    @numba.njit
    def go(numbers, rows, start, out):
        store(out, 0, add_eight(eight(numbers, 1, 2), rows, 3, 40, load(start, 0)))
        store(out, n, take_eight(eight(numbers, 1, 2), rows, 3, 40, load(start, 0)))

    rng = np.random.default_rng(0)
    numbers, rows = rng.standard_normal(20).astype(dtype), rng.standard_normal((8, 40)).astype(dtype)
    n = 64 // np.dtype(dtype).itemsize
    start, out = rng.standard_normal(n).astype(dtype), np.empty(2 * n, dtype)
    go(numbers, rows, start, out)
    products = numbers[1:17:2] @ rows[:, 3 : 3 + n]
    assert_allclose(out, np.concatenate([start + products, start - products]), rtol=1e-5, atol=1e-6)
