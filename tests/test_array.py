# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of triangles, solved and inverted alike on both sides of the size where LAPACK is called row by row; masks."""

import array_api_strict
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict._array import LOOPED_SIZE, cho_inverse, cho_solve, cholesky, lower_at, to_numpy

NAMESPACES = [np, torch, array_api_strict]
SIZES = [1, LOOPED_SIZE, LOOPED_SIZE + 1, 40]


def systems(k, dtype, n=7):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, k, 2 * k)).astype(dtype)
    return X @ X.transpose(0, 2, 1), rng.standard_normal((n, k, 2)).astype(dtype)


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_solutions_and_inverses(xp, k, dtype, rtol):
    A, B = systems(k, dtype)
    factor = cholesky(xp.asarray(A))
    expected = np.linalg.solve(A.astype(np.float64), B.astype(np.float64))
    solved = cho_solve(factor, xp.asarray(B))
    inverse = cho_inverse(factor)
    assert solved.dtype == inverse.dtype == factor.dtype
    assert_allclose(to_numpy(solved), expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    assert_allclose(to_numpy(inverse) @ A, np.broadcast_to(np.eye(k), A.shape), atol=rtol * 10)
    assert_allclose(to_numpy(inverse), to_numpy(inverse).transpose(0, 2, 1), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("k", SIZES)
def test_a_factor_that_is_not_finite_spoils_its_own_row_only(k):
    A, B = systems(k, np.float64)
    factor = np.linalg.cholesky(A)
    sound = cho_solve(factor, B), cho_inverse(factor)
    factor[3] = np.nan
    for spoiled, whole in zip((cho_solve(factor, B), cho_inverse(factor)), sound, strict=True):
        assert not np.isfinite(spoiled[3]).any()
        assert_allclose(np.delete(spoiled, 3, axis=0), np.delete(whole, 3, axis=0))


def test_arguments_are_left_alone():
    A, B = systems(20, np.float64)
    factor = np.linalg.cholesky(A)
    kept = factor.copy(), B.copy()
    cho_solve(factor, B)
    cho_inverse(factor)
    assert_allclose((factor, B)[0], kept[0], rtol=0)
    assert_allclose((factor, B)[1], kept[1], rtol=0)


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lower_at(xp, dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9, 12)).astype(dtype)
    indices = rng.integers(12, size=(9, 5))
    mask = rng.random((9, 5)) > 0.5
    indices[0], mask[0] = 4, [False, True, False, False, False]  # padding points to what is taken
    expected = values.copy()
    for i, j in zip(*np.nonzero(mask), strict=True):
        expected[i, indices[i, j]] = -np.inf
    lowered = lower_at(*(xp.asarray(array.copy()) for array in (values, indices, mask)))
    assert to_numpy(lowered).dtype == dtype
    assert_array_equal(to_numpy(lowered), expected)
