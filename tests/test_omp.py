# SPDX-License-Identifier: BSD-3-Clause
"""Greedy sparse coding against scikit-learn, brute force and least squares, and on degenerate rows."""

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import orthogonal_mp, orthogonal_mp_gram

from skprojdict._array import to_numpy
from skprojdict.solvers import omp
from skprojdict.solvers.omp import orthogonal_matching_pursuit

NAMESPACES = [np, torch, array_api_strict]
METHODS = ["omp", "ols"]


@pytest.fixture(autouse=True, params=["gram", "residual"])
def form(request, monkeypatch):
    """Every test sees both forms, where the arrays allow it."""
    if request.param == "gram":
        pytest.importorskip("numba")
    monkeypatch.setattr("skprojdict.solvers.omp.has_numba", lambda: request.param == "gram")
    return request.param


def make_problem(n=60, d=20, p=50, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    return rng.standard_normal((n, d)).astype(dtype), F.astype(dtype)


def code(Y, F, k, xp=np, **options):
    codes = orthogonal_matching_pursuit(xp.asarray(Y), xp.asarray(F), k, **options)
    return type(codes)(*(to_numpy(part) for part in codes))


def dense(codes, p):
    Z = np.zeros((codes.indices.shape[0], p))
    np.add.at(Z, (np.arange(len(Z))[:, None], codes.indices), codes.coefs)
    return Z


def check_code(codes, Y, F, k):
    """What every code must satisfy, whatever the data: finite, padded, no atom twice, least squares."""
    assert codes.indices.shape == codes.coefs.shape == (len(Y), k)
    assert codes.indices.dtype == np.int64
    assert codes.coefs.dtype == Y.dtype
    assert np.isfinite(codes.coefs).all()
    for y, support, coefs, m in zip(Y, codes.indices, codes.coefs, codes.n_nonzero, strict=True):
        assert (coefs[m:] == 0).all()
        assert (support[m:] == 0).all()
        assert len(set(support[:m].tolist())) == m
        residual = y - coefs @ F[support]
        lengths = np.linalg.norm(F[support[:m]], axis=1)
        slack = 300 * np.finfo(Y.dtype).eps * np.linalg.norm(y) * lengths
        assert (np.abs(F[support[:m]] @ residual) <= slack * (1 + np.abs(coefs[:m]).max(initial=0))).all()


def brute_force_ols(y, F, k):
    support = []
    for _ in range(k):
        errors = np.full(len(F), np.inf)
        for j in set(range(len(F))) - set(support):
            X = F[[*support, j]]
            errors[j] = np.linalg.norm(y - np.linalg.lstsq(X.T, y)[0] @ X)
        support.append(int(errors.argmin()))
    return support


@pytest.mark.parametrize("xp", NAMESPACES)
def test_omp_equals_sklearn(xp):
    Y, F = make_problem()
    expected = orthogonal_mp_gram(F @ F.T, F @ Y.T, n_nonzero_coefs=6).T
    codes = code(Y, F, 6, xp)
    assert_allclose(dense(codes, len(F)), expected, atol=1e-10)
    assert_array_equal(codes.n_nonzero, 6)


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("tol", [0.5, 4.0, 19.0])
def test_tolerance_equals_sklearn(xp, tol):
    Y, F = make_problem()
    Y = Y[(Y**2).sum(1) > tol]  # a row already within tolerance gets one atom there and none here
    expected = orthogonal_mp(F.T, Y.T, tol=tol).T
    codes = code(Y, F, 20, xp, tol=tol)
    assert_allclose(dense(codes, len(F)), expected, atol=1e-10)
    assert_array_equal(codes.n_nonzero, (expected != 0).sum(1))
    assert (((Y - dense(codes, len(F)) @ F) ** 2).sum(1) <= tol).all()


def test_tolerance_and_k_together():
    Y, F = make_problem()
    codes, free = code(Y, F, 4, tol=4.0), code(Y, F, 20, tol=4.0)
    assert_array_equal(codes.n_nonzero, np.minimum(free.n_nonzero, 4))
    assert 0 < codes.n_nonzero.min() < codes.n_nonzero.max() == 4


@pytest.mark.parametrize("xp", NAMESPACES)
def test_ols_equals_brute_force(xp):
    Y, F = make_problem(n=15, d=10, p=24)
    codes = code(Y, F, 5, xp, method="ols")
    assert_array_equal(codes.indices, [brute_force_ols(y, F, 5) for y in Y])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 1e-3)])
def test_coefficients_are_least_squares_on_the_support(method, dtype, rtol):
    Y, F = make_problem(d=30, p=90, dtype=dtype)
    codes = code(Y, F, 12, method=method)
    check_code(codes, Y, F, 12)
    for y, support, coefs in zip(Y, codes.indices, codes.coefs, strict=True):
        X = F[support].astype(np.float64)
        assert_allclose(coefs, np.linalg.lstsq(X.T, y.astype(np.float64))[0], rtol=rtol, atol=rtol)


def test_ols_residual_is_smaller_on_the_whole():
    Y, F = make_problem(n=300)
    energy = {m: ((Y - dense(code(Y, F, 6, method=m), len(F)) @ F) ** 2).sum() for m in METHODS}
    assert energy["ols"] < energy["omp"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("xp", [torch, array_api_strict])
def test_namespaces_agree(method, xp):
    Y, F = make_problem(n=100, d=30, p=90)
    ours, numpy = (code(Y, F, 8, namespace, method=method) for namespace in (xp, np))
    assert_array_equal(ours.indices, numpy.indices)
    assert_allclose(ours.coefs, numpy.coefs, rtol=0, atol=1e-10)


def test_second_device_is_kept():
    device = array_api_strict.Device("device1")
    Y, F = (array_api_strict.asarray(a, device=device) for a in make_problem(n=5))
    codes = orthogonal_matching_pursuit(Y, F, 3, tol=1.0, method="ols")
    assert {part.device for part in codes} == {device}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [None, 4.0])
def test_chunks_do_not_change_the_code(method, tol):
    Y, F = make_problem()
    whole, parts = (code(Y, F, 6, method=method, tol=tol, chunk_size=c) for c in (1000, 7))
    assert_array_equal(whole.indices, parts.indices)
    assert_allclose(whole.coefs, parts.coefs, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_rows(method, xp, dtype):
    Y, F = make_problem(n=8, d=6, p=12, dtype=dtype)
    F[3] = F[2]  # duplicate
    F[5] = -F[4]
    F[7] = 0
    F[9] = F[2] + dtype(1e-6) * F[8]  # nearly a duplicate
    Y[0] = 0
    Y[1] = 3 * F[2]
    Y[2] = -2 * F[4] + F[2]
    Y[3] = 1  # flat
    Y[4] = F[9]
    codes = code(Y, F, 9, xp, method=method)
    check_code(codes, Y, F, 9)
    assert_array_equal(codes.n_nonzero[:2], [0, 1])
    assert codes.n_nonzero.max() == 6  # k > d
    residual = Y - dense(codes, len(F)) @ F
    # OLS updates its correlations: their rounding, over the smallest norm let in, is the floor of the residual.
    assert np.abs(residual).max() < (200 * np.finfo(dtype).eps if method == "omp" else np.finfo(dtype).eps ** 0.5 / 5)
    assert not (codes.indices == 7).any()


@pytest.mark.parametrize("method", METHODS)
def test_sizes_at_the_edge(method):
    Y, F = make_problem(n=3, d=5, p=2)
    codes = code(Y, F, 4, method=method)
    check_code(codes, Y, F, 4)
    assert_array_equal(codes.n_nonzero, 2)
    check_code(code(Y[:, :1], np.ones((1, 1)), 1, method=method), Y[:, :1], np.ones((1, 1)), 1)
    empty = code(Y[:0], F, 4, method=method)
    assert empty.coefs.shape == empty.indices.shape == (0, 4)
    assert_array_equal(code(Y, np.zeros_like(F), 2, method=method).n_nonzero, 0)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("method", METHODS)
def test_units_do_not_matter(scale, method):
    Y, F = make_problem(dtype=np.float32)
    plain, scaled = code(Y, F, 5, method=method), code(Y * np.float32(scale), F, 5, method=method)
    assert_array_equal(plain.indices, scaled.indices)
    assert_allclose(scaled.coefs / np.float32(scale), plain.coefs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_lengths_of_atoms_do_not_matter(method):
    Y, F = make_problem()
    lengths = np.linspace(0.1, 9, len(F))
    plain, longer = code(Y, F, 5, method=method), code(Y, F * lengths[:, None], 5, method=method)
    assert_array_equal(plain.indices, longer.indices)
    assert_allclose(longer.coefs * lengths[plain.indices], plain.coefs, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_forms_agree(method, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(omp, "has_numba", lambda: True)
    Y, F = make_problem(n=200, d=24, p=70)
    gram, residual = (code(Y, F, 10, method=method, form=each) for each in ("gram", "residual"))
    assert_array_equal(gram.indices, residual.indices)
    assert_allclose(gram.coefs, residual.coefs, atol=1e-10)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], "readonly"])
def test_any_layout_is_coded(layout):
    Y, F = make_problem()
    expected = code(Y, F, 4)
    if layout == "readonly":
        Y.flags.writeable = F.flags.writeable = False
    else:
        Y, F = layout(Y), layout(F)
    kept = Y.copy()
    assert_array_equal(code(Y, F, 4).indices, expected.indices)
    assert_array_equal(Y, kept)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_do_not_change_the_code(n_threads, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(omp, "has_numba", lambda: True)
    Y, F = make_problem(n=333)
    one = code(Y, F, 5, method="ols", form="gram")
    monkeypatch.setattr("skprojdict.kernels.threads.effective_n_threads", lambda: n_threads)
    many = code(Y, F, 5, method="ols", form="gram")
    for a, b in zip(one, many, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("selection_dtype", ["bfloat16", "float16"])
def test_proposals_in_low_precision_lose_nothing(method, selection_dtype):
    Y, F = make_problem(n=300, d=32, p=200, dtype=np.float32)
    exact = code(Y, F, 8, torch, method=method, form="residual")
    codes = code(Y, F, 8, torch, method=method, selection_dtype=selection_dtype)
    check_code(codes, Y, F, 8)
    assert (codes.indices == exact.indices).all(axis=1).mean() > 0.98  # ties closer than the rounding may differ
    energy = [((Y - dense(each, len(F)) @ F) ** 2).sum() for each in (codes, exact)]
    assert_allclose(energy[0], energy[1], rtol=1e-3)


def test_form_follows_the_size_of_the_problem(monkeypatch):
    pytest.importorskip("numba")
    calls = []
    real = omp._resolve_form
    monkeypatch.setattr(omp, "_resolve_form", lambda *args: calls.append(real(*args)) or calls[-1])
    monkeypatch.setattr(omp, "has_numba", lambda: True)
    Y, F = make_problem(n=60, d=20, p=50)
    code(Y, F, 2)
    code(Y[:2], F, 2)  # too few rows to earn a Gram matrix back
    monkeypatch.setattr(omp, "GRAM_BYTES", 50 * 50 * 8 - 1)
    code(Y, F, 2)
    assert calls == ["gram", "residual", "residual"]


def test_gram_form_without_numba_names_the_remedy(monkeypatch):
    monkeypatch.setattr(omp, "has_numba", lambda: False)
    with pytest.raises(ImportError, match=r"skprojdict\[numba\]"):
        code(*make_problem(), 2, form="gram")


def test_gram_form_is_for_the_host():
    with pytest.raises(ValueError, match="NumPy and torch arrays on a CPU"):
        code(*make_problem(), 2, array_api_strict, form="gram")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_small_integer_problem_is_coded_soundly(data):
    d, p, n = (data.draw(st.integers(1, 6)) for _ in range(3))
    k = data.draw(st.integers(1, 8))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    entries = st.integers(-2, 2)
    F = np.array(data.draw(st.lists(entries, min_size=p * d, max_size=p * d)), dtype=dtype).reshape(p, d)
    Y = np.array(data.draw(st.lists(entries, min_size=n * d, max_size=n * d)), dtype=dtype).reshape(n, d)
    method = data.draw(st.sampled_from(METHODS))
    codes = code(Y, F, k, method=method)
    check_code(codes, Y, F, k)
    if k >= min(p, d):  # nothing was cut short, so the residual must be that of the whole dictionary
        best = Y.T - F.T @ np.linalg.lstsq(F.T.astype(np.float64), Y.T.astype(np.float64), rcond=1e-10)[0]
        assert_allclose(np.linalg.norm(Y - dense(codes, p) @ F, axis=1), np.linalg.norm(best, axis=0), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lars"}, "method"),
        ({"k": 0}, "k must be"),
        ({"tol": -1.0}, "tol"),
        ({"tol": np.nan}, "tol"),
        ({"form": "sum"}, "form must be one of"),
        ({"selection_dtype": "int8"}, "selection_dtype must be"),
        ({"selection_dtype": "bfloat16"}, "needs torch"),
        ({"selection_dtype": "bfloat16", "form": "gram"}, "form='gram' makes no products"),
    ],
)
def test_bad_arguments_are_named(options, message):
    Y, F = make_problem(n=2)
    with pytest.raises(ValueError, match=message):
        orthogonal_matching_pursuit(Y, F, **{"k": 2, **options})
