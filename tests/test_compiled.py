# SPDX-License-Identifier: BSD-3-Clause
"""Kernels compiled by Numba beside the array code that they stand for, and beside SciPy and NumPy."""

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import _array
from skprojdict.solvers import compiled_rows
from skprojdict.solvers.elimination import elimination_ranking
from skprojdict.solvers.ridge import project, sampled_products

pytest.importorskip("numba")

DTYPES = [np.float32, np.float64]
NEVER = 1 << 62


@pytest.fixture
def switch(monkeypatch):
    """A function that says whether kernels are used from now on, whatever the size of the problem."""

    def to(compiled):
        for module in (compiled_rows, _array):
            monkeypatch.setattr(module, "has_numba", lambda: True)
        monkeypatch.setattr(compiled_rows, "LEAST_WORK", 1 if compiled else NEVER)
        monkeypatch.setattr(_array, "MANY_ENTRIES", 1 if compiled else NEVER)

    return to


def libraries():
    torch = pytest.importorskip("torch")
    return {"numpy": np.asarray, "torch": torch.as_tensor}


def problem(n=60, p=50, d=24, K=11, dtype=np.float64, seed=0):
    """Rows, unit atoms of which one is zero and two are equal, supports, and their precisions with padding."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    F[3], F[7] = 0, F[8]
    Y = rng.standard_normal((n, d))
    Y[4] = 0
    indices = np.stack([rng.permutation(p)[:K] for _ in range(n)])
    weights = rng.gamma(1.0, 3.0, (n, K)) * (rng.random((n, K)) > 0.2)
    weights[5] = 0
    return Y.astype(dtype), F.astype(dtype), indices, weights.astype(dtype)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [1, 2, 5, 8, 11, 24])
@pytest.mark.parametrize("exact", [True, False])
def test_projection(library, dtype, K, exact, switch):
    convert = libraries()[library]
    given = [convert(array) for array in problem(K=K, dtype=dtype)]
    switch(False)
    expected = project(*given, exact=exact)
    switch(True)
    found = project(*given, exact=exact)
    assert type(found.coefs) is type(given[0])
    assert found.coefs.dtype == given[0].dtype
    loose = 2e-3 if exact and K == 24 else 2e-5  # in float32, K = d is solved with a large condition number
    tol = loose if dtype is np.float32 else 1e-11
    for a, b in zip(found, expected, strict=True):
        assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


def test_projection_is_least_squares(switch):
    switch(True)
    Y, F, indices, weights = problem(K=7)
    found = project(Y, F, indices, weights, exact=True)
    for i in range(Y.shape[0]):
        atoms = F[indices[i][weights[i] > 0]]
        coefs = scipy.linalg.lstsq(atoms.T, Y[i])[0] if len(atoms) else np.zeros(0)
        assert_allclose(found.coefs[i][weights[i] > 0], coefs, atol=1e-10)
        assert_array_equal(found.coefs[i][weights[i] == 0], 0)
        assert_allclose(found.reconstruction[i], coefs @ atoms, atol=1e-10)


def test_dependent_atoms_get_coefficients_of_minimum_norm(switch):
    switch(True)
    Y, F, indices, _ = problem(K=6)
    indices[:, :2] = [7, 8]  # equal atoms
    indices[:, 2:] = [10, 11, 12, 13]
    found = project(Y, F, indices, np.ones(indices.shape), exact=True)
    assert_allclose(found.coefs[:, 0], found.coefs[:, 1], atol=1e-9)
    expected = scipy.linalg.lstsq(F[indices[0]].T, Y.T)[0].T
    assert_allclose(found.coefs, expected, atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_nan_stays_in_its_row(exact, switch):
    switch(True)
    Y, F, indices, weights = problem(dtype=np.float32)
    clean = project(Y, F, indices, weights, exact=exact)
    Y[9, 2] = np.nan
    found = project(Y, F, indices, weights, exact=exact)
    others = np.arange(Y.shape[0]) != 9
    assert np.isnan(found.reconstruction[9]).any()
    assert_array_equal(found.coefs[others], clean.coefs[others])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("K", "k"), [(1, 1), (6, 2), (9, 8), (9, 9), (16, 7), (22, 1)])
def test_elimination(library, dtype, K, k, switch):
    convert = libraries()[library]
    Y, F, indices, weights = problem(K=K, dtype=dtype)
    indices[indices == 7] = 20  # which of two equal atoms goes is decided by rounding
    given = [convert(array) for array in (Y, F, indices, (weights > 0).astype(dtype))]
    keep = np.array([len(set(row)) == K for row in indices])
    switch(False)
    expected = np.asarray(elimination_ranking(*given, k, exact=True))
    switch(True)
    found = elimination_ranking(*given, k, exact=True)
    assert type(found) is type(given[0])
    found = np.asarray(found)
    assert_array_equal(np.isfinite(found[keep]), np.isfinite(expected[keep]))
    tol = 2e-3 if dtype is np.float32 else 1e-10
    finite = np.isfinite(expected) & keep[:, None]
    assert_allclose(found[finite], expected[finite], rtol=tol, atol=tol)


def test_ranking_is_the_rise_of_the_error(switch):
    """What is left after the elimination is ranked by how much the ridge error rises without it."""
    switch(True)
    Y, F, indices, _ = problem(K=5)
    indices[:] = [0, 1, 2, 4, 5]
    ranking = elimination_ranking(Y, F, indices, np.ones(indices.shape), 5, exact=True)

    def error(y, atoms):
        beta = np.linalg.solve(atoms @ atoms.T + 0.01 * np.eye(len(atoms)), atoms @ y)
        return np.sum((y - beta @ atoms) ** 2) + 0.01 * beta @ beta

    for i in range(3):
        atoms = F[indices[i]]
        rises = [error(Y[i], np.delete(atoms, j, axis=0)) - error(Y[i], atoms) for j in range(5)]
        assert_allclose(ranking[i] ** 2, rises, rtol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [1, 3, 4, 10])
def test_products(dtype, K, switch):
    switch(True)
    Y, F, indices, _ = problem(K=K, dtype=dtype)
    expected = np.take_along_axis(Y @ F.T, indices, axis=1)
    assert_allclose(sampled_products(F, indices, Y), expected, rtol=1e-4, atol=1e-5 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_do_not_change_the_result(n_threads, switch, monkeypatch):
    switch(True)
    given = problem(n=333)
    one = [*project(*given, exact=True), elimination_ranking(*given[:3], np.ones(given[2].shape), 4, exact=True)]
    monkeypatch.setattr("skprojdict.kernels.threads.effective_n_threads", lambda: n_threads)
    many = [*project(*given, exact=True), elimination_ranking(*given[:3], np.ones(given[2].shape), 4, exact=True)]
    for a, b in zip(one, many, strict=True):
        assert_array_equal(a, b)


def test_layouts_and_read_only_memory(switch):
    switch(True)
    Y, F, indices, weights = problem(d=10, K=4)
    expected = project(Y, F, indices, weights, exact=True)
    F.setflags(write=False)
    found = project(np.asfortranarray(Y), F, np.asfortranarray(indices), weights, exact=True)
    assert_array_equal(found.coefs, expected.coefs)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("p", "k"), [(8, 1), (100, 3), (257, 16), (1000, 125)])
@pytest.mark.parametrize("kind", ["normal", "ties", "equal"])
def test_top_k(library, dtype, p, k, kind, switch):
    rng = np.random.default_rng(0)
    shape = (70, p)
    values = {"normal": rng.standard_normal(shape), "ties": rng.integers(0, 4, shape), "equal": np.ones(shape)}[kind]
    values = values.astype(dtype)
    switch(True)
    given = libraries()[library](values)
    found, indices = _array.top_k(given, k)
    assert type(found) is type(given)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    assert_array_equal(np.asarray(indices), expected)
    assert_array_equal(np.asarray(found), np.take_along_axis(values, expected, axis=1))


def test_top_k_of_rows_that_are_not_finite(switch):
    switch(True)
    values = np.random.default_rng(0).standard_normal((9, 64))
    values[0], values[1], values[2, 5] = np.nan, -np.inf, np.inf
    values[3, 4:] = -np.inf
    found, indices = _array.top_k(values, 8)
    assert np.isnan(found[0]).all()
    assert_array_equal(indices[1], np.arange(8))
    assert (found[2, 0], indices[2, 0]) == (np.inf, 5)
    assert_array_equal(found[3, 4:], -np.inf)
    assert all(len(set(row)) == 8 for row in indices)


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_k_of_numbers_of_every_size(dtype, switch):
    """The bound is found by halving an interval, which may begin anywhere and end between two neighbours."""
    switch(True)
    rng = np.random.default_rng(0)
    limits = np.finfo(dtype)
    values = (rng.standard_normal((12, 200)) * 10.0 ** rng.uniform(-44, 37, (12, 200))).astype(dtype)
    values[0, ::3], values[1, ::3], values[2, ::9], values[3] = limits.max, -limits.max, np.inf, -limits.max
    values[4], values[5] = limits.smallest_subnormal * rng.integers(0, 9, 200), 1 + limits.eps * rng.integers(0, 9, 200)
    values[6, 5:], values[7, 20:] = -np.inf, np.inf
    for k in (1, 7, 25):
        expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
        assert_array_equal(_array.top_k(values, k)[1], expected)


def test_top_k_keeps_the_gradient(switch):
    torch = pytest.importorskip("torch")
    switch(True)
    values = torch.arange(64.0).reshape(2, 32).requires_grad_()
    _array.top_k(values, 2)[0].sum().backward()
    assert values.grad.sum() == 4


def test_small_calls_are_not_compiled(monkeypatch):
    monkeypatch.setattr(compiled_rows, "has_numba", lambda: True)
    F = np.zeros((10, 4))
    assert not compiled_rows.compiled_pays(F, 5, 3)
    assert not compiled_rows.compiled_pays(F, 1 << 30, 5)  # more atoms than columns: the other side of the system
    assert compiled_rows.compiled_pays(F, 1 << 30, 3)
