# SPDX-License-Identifier: BSD-3-Clause
"""The projection against SciPy, scikit-learn and dense algebra, on every array library, and on degenerate rows."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from skprojdict import _array, _chunks, _memory
from skprojdict.solvers import ridge
from skprojdict.solvers.iterative import conjugate_gradients
from skprojdict.solvers.ridge import (
    effective_dimension,
    nonnegative_support,
    prefix_dimensions,
    project,
    sampled_products,
)
from skprojdict.solvers.systems import factorise

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}


def unit_rows(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def problem(rng, n=11, d=12, p=20, k=5):
    F = unit_rows(rng, p, d)
    indices = np.stack([rng.permutation(p)[:k] for _ in range(n)])
    return rng.standard_normal((n, d)), F, indices, rng.uniform(0.05, 20.0, (n, k))


def on(backend, dtype, Y, F, indices, weights):
    def floats(values):
        return backend.asarray(np.asarray(values, dtype=dtype))

    return None if Y is None else floats(Y), floats(F), backend.asarray(np.asarray(indices, np.int64)), floats(weights)


def run(backend, dtype, problem, function=project, **options):
    result = function(*on(backend, dtype, *problem), **options)
    if isinstance(result, tuple):
        assert all(str(part.dtype).endswith(dtype) for part in result)
        return tuple(backend.to_numpy(part) for part in result)
    return backend.to_numpy(result)


def dense_ridge(Y, F, indices, weights):
    """Coefficients by the normal equations, atom by atom of positive precision."""
    coefs = np.zeros(indices.shape)
    for i, y in enumerate(Y):
        keep = weights[i] > 0
        X = F[indices[i, keep]]
        coefs[i, keep] = np.linalg.solve(X @ X.T + np.diag(1 / weights[i, keep]), X @ y)
    return coefs


def least_norm(Y, F, indices, weights, cond=None):
    coefs = np.zeros(indices.shape)
    for i, y in enumerate(Y):
        keep = weights[i] > 0
        if keep.any():
            coefs[i, keep] = scipy.linalg.lstsq(F[indices[i, keep]].T, y, cond=cond)[0]
    return coefs


def decoded(coefs, F, indices):
    return np.einsum("nk,nkd->nd", coefs, F[indices])


def rows_of_condition(rng, condition, n=9, k=6, d=15):
    """One block of atoms per row whose Gram matrix has this condition number."""
    blocks = []
    for _ in range(n):
        U = np.linalg.qr(rng.standard_normal((d, k)))[0]
        V = np.linalg.qr(rng.standard_normal((k, k)))[0]
        blocks.append(V @ np.diag(np.geomspace(1, condition**-0.5, k)) @ U.T)
    return rng.standard_normal((n, d)), np.concatenate(blocks), np.arange(n * k).reshape(n, k), np.ones((n, k))


@pytest.fixture
def gathered(monkeypatch):
    """Shapes of every block of atoms that the solvers gather."""
    shapes = []

    def recording(F, indices, *room):
        shapes.append((*indices.shape, F.shape[1]))
        return _memory.gather_rows(F, indices, *room)

    monkeypatch.setattr(ridge, "gather_rows", recording)
    return shapes


# ---- oracles


@pytest.mark.parametrize("condition", [1.0, 1e3, 9e5])
def test_exact_is_least_squares_to_ten_digits(backend, rng, condition):
    given = rows_of_condition(rng, condition)
    gram = np.einsum("nkd,nld->nkl", *[given[1][given[2]]] * 2)
    assert_allclose(np.linalg.cond(gram), condition, rtol=1e-6)
    coefs, reconstruction = run(backend, "float64", given, exact=True)
    truth = least_norm(*given)
    assert_allclose(coefs, truth, rtol=0, atol=1e-10 * np.abs(truth).max())
    assert_allclose(reconstruction, decoded(truth, *given[1:3]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 50.0])
def test_scalar_ridge_is_scikit_learns(backend, rng, alpha):
    Y, F, indices, _ = problem(rng)
    weights = np.full(indices.shape, 1 / alpha)
    coefs, reconstruction = run(backend, "float64", (Y, F, indices, weights))
    for i, y in enumerate(Y):
        model = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(F[indices[i]].T, y)
        assert_allclose(coefs[i], model.coef_, rtol=0, atol=1e-10)
        assert_allclose(reconstruction[i], model.predict(F[indices[i]].T), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 5, 12, 17])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_ridge_per_feature_is_the_normal_equations(backend, rng, dtype, k, solver):
    Y, F, indices, weights = problem(rng, k=k)
    weights[2, 0] = weights[3] = 0.0
    coefs, reconstruction = run(backend, dtype, (Y, F, indices, weights), solver=solver)
    truth = dense_ridge(Y, F, indices, weights)
    assert_allclose(coefs, truth, rtol=0, atol=TOLERANCE[dtype])
    assert_allclose(reconstruction, decoded(truth, F, indices), rtol=0, atol=TOLERANCE[dtype])
    assert (coefs[weights == 0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exact", [False, True])
def test_conjugate_gradients_agree_with_cholesky(backend, rng, dtype, exact):
    given = problem(rng)
    direct = run(backend, dtype, given, exact=exact)
    iterated = run(backend, dtype, given, exact=exact, solver="cg")
    for one, other in zip(direct, iterated, strict=True):
        assert_allclose(other, one, rtol=0, atol={"float32": 1e-3, "float64": 1e-8}[dtype])


def test_dual_least_norm_keeps_its_digits(rng):
    """More atoms than columns, of a Gram matrix far from the identity: one step of refinement takes out the shift."""
    left, right = np.linalg.qr(rng.standard_normal((12, 12)))[0], np.linalg.qr(rng.standard_normal((6, 6)))[0]
    X = left[:, :6] @ np.diag(np.geomspace(1, 1e-3, 6)) @ right
    Y, indices = rng.standard_normal((5, 6)), np.tile(np.arange(12), (5, 1))
    coefs, reconstruction = project(Y, X, indices, np.ones((5, 12)), exact=True)
    truth = least_norm(Y, X, indices, np.ones((5, 12)))
    assert_allclose(coefs, truth, rtol=0, atol=1e-10 * np.abs(truth).max())
    assert_allclose(reconstruction, Y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_conjugate_gradients_converge_on_hard_rows(rng, condition):
    given = rows_of_condition(rng, condition, n=40)
    direct, iterated = project(*given, exact=True), project(*given, exact=True, solver="cg")
    assert_allclose(iterated.coefs, direct.coefs, rtol=0, atol=1e-8 * np.abs(direct.coefs).max())


def test_conjugate_gradients_do_not_leave_a_singular_system(rng):
    """Many atoms on few columns: steps along null vectors, which only rounding suggests, would never end."""
    Y, F, indices, weights = problem(rng, n=300, d=4, p=60, k=20)
    direct = project(Y, F, indices, weights, exact=True).coefs
    iterated = project(Y, F, indices, weights, exact=True, solver="cg").coefs
    assert_allclose(iterated, direct, rtol=0, atol=1e-8)
    repeated = np.concatenate([indices[:, :3]] * 5, axis=1)
    both = [
        project(Y, F, repeated, np.ones((300, 15)), exact=True, solver=s).reconstruction for s in ("cholesky", "cg")
    ]
    assert_allclose(*both, rtol=0, atol=1e-8)


def test_conjugate_gradients_stop_at_their_limit_and_start_warm(rng):
    given = rows_of_condition(rng, 1e4)
    truth = project(*given, exact=True).coefs
    short = [np.abs(project(*given, exact=True, solver="cg", cg_max_iter=m).coefs - truth).max() for m in (1, 3, 30)]
    assert min(short[:2]) > 1
    assert short[2] < 1e-8
    A = np.array([[[2.0, 1.0], [1.0, 3.0]]])

    def operator(v):
        return (A @ v[..., None])[..., 0]

    b = np.array([[1.0, -1.0]])
    assert_allclose(conjugate_gradients(operator, b, max_iter=2), np.linalg.solve(A[0], b[0])[None], atol=1e-14)
    start = np.array([[0.8, -0.6]])
    assert_allclose(conjugate_gradients(operator, b, max_iter=0, start=start), start)
    assert_allclose(conjugate_gradients(operator, b, max_iter=1, start=start), start, atol=1e-14)


@pytest.mark.parametrize("exact", [False, True])
def test_dual_and_primal_agree(rng, exact):
    """The same rows with columns of zeros appended go through the primal system, without them through the dual."""
    Y, F, indices, weights = problem(rng, d=6, k=10)
    weights[0, 7:] = 0
    dual = project(Y, F, indices, weights, exact=exact)
    wide = [np.concatenate([part, np.zeros((len(part), 20))], axis=1) for part in (Y, F)]
    primal = project(*wide, indices, weights, exact=exact)
    assert_allclose(dual.coefs, primal.coefs, atol=1e-9)
    assert_allclose(dual.reconstruction, primal.reconstruction[:, :6], atol=1e-9)
    for name in ("of_target", "of_vector"):
        B = rng.standard_normal((len(Y), 6 if name == "of_target" else 10))
        B_wide = np.concatenate([B, np.zeros((len(Y), 20))], axis=1) if name == "of_target" else B
        one = getattr(factorise(F[indices], weights, exact=exact), name)(B)
        two = getattr(factorise(wide[1][indices], weights, exact=exact), name)(B_wide)
        assert_allclose(one, two, atol=1e-8)


# ---- degenerate rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_exact_is_of_least_norm_on_degenerate_rows(backend, rng, dtype, solver):
    Y, F, indices, weights = problem(rng, n=10, d=8, p=16, k=6)
    F[3] = F[2]
    F[5] = -F[2]
    F[7] = 0
    indices[0] = [2, 3, 1, 0, 4, 6]  # twice the same atom
    indices[1] = [2, 5, 3, 7, 7, 1]  # opposite atoms, zero atoms
    indices[2] = [9] * 6
    indices[3] = [7] * 6  # nothing but zero atoms
    Y[4] = 0
    weights[:] = 1
    weights[5] = 0
    weights[6, 2:] = 0
    coefs, reconstruction = run(backend, dtype, (Y, F, indices, weights), exact=True, solver=solver)
    truth = least_norm(Y, F, indices, weights, cond=1e-8)
    atol = 2e-3 if dtype == "float32" else 1e-9
    assert_allclose(coefs, truth, rtol=0, atol=atol)
    assert_allclose(reconstruction, decoded(truth, F, indices), rtol=0, atol=atol)
    assert (coefs[[3, 4, 5]] == 0).all()
    assert (coefs[6, 2:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_exact_with_more_atoms_than_columns(backend, rng, dtype, solver):
    Y, F, indices, weights = problem(rng, d=5, p=30, k=12)
    weights[:] = 1
    weights[0, 3:] = 0  # three atoms only
    for row in indices:
        row[:] = rng.permutation(18)[:12]
    indices[1] = np.arange(18, 30)
    F[18:] = np.outer(np.arange(1.0, 13), unit_rows(rng, 5))  # all on one line
    coefs, reconstruction = run(backend, dtype, (Y, F, indices, weights), exact=True, solver=solver)
    truth = least_norm(Y, F, indices, weights, cond=1e-7)
    atol = 5e-3 if dtype == "float32" else 1e-9
    assert_allclose(coefs, truth, rtol=0, atol=atol)
    assert_allclose(reconstruction, decoded(truth, F, indices), rtol=0, atol=atol)
    assert np.linalg.norm(reconstruction[1]) < np.linalg.norm(Y[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [4, 10])
def test_ridge_on_duplicate_and_zero_atoms(backend, rng, dtype, k):
    Y, F, indices, weights = problem(rng, d=7, k=k)
    F[1], F[2] = F[0], 0
    indices[0, :3] = [0, 1, 2]
    indices[1] = 0
    indices[2] = 2
    Y[3] = 0
    truth = dense_ridge(Y, F, indices, weights)
    coefs, _ = run(backend, dtype, (Y, F, indices, weights))
    assert_allclose(coefs, truth, rtol=0, atol=TOLERANCE[dtype])
    assert (coefs[2:4] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [4, 10])
@pytest.mark.parametrize("weight", [1e-12, 1e6, 1e8, 1e12])
def test_scaled_form_is_finite_and_right_at_extreme_weights(backend, rng, dtype, k, weight):
    """Penalties of 1e-12 in float32: rounding swamps the identity of the scaled system, and atoms are repeated."""
    Y, F, indices, weights = problem(rng, d=7, p=30, k=k)
    F[1] = F[0]
    indices[0, :3] = [0, 1, 2]
    indices[1] = 0
    weights[:] = weight
    weights[2, ::2] = 0
    weights[3, ::2] = 1.0  # weak and strong penalties side by side
    coefs, reconstruction = run(backend, dtype, (Y, F, indices, weights))
    assert np.isfinite(coefs).all()
    truth = dense_reconstruction(Y, F, indices, weights)
    assert_allclose(reconstruction, truth, rtol=0, atol=3e-2 if dtype == "float32" else 1e-3)
    if weight > 1:
        assert np.abs(coefs[:2]).max() < 1e3
    df = run(backend, dtype, (None, F, indices, weights), _dimension)
    rank = [np.linalg.matrix_rank(F[indices[i, weights[i] > 0]]) for i in range(len(Y))]
    assert np.isfinite(df).all()
    slack = 5e-2 if dtype == "float32" else 1e-3
    assert (df <= np.array(rank) + slack).all()
    if weight >= 1e6:
        assert_allclose(df[:3], rank[:3], atol=slack)
    prefix = run(backend, dtype, (None, F, indices, weights), _prefixes)
    assert_allclose(prefix[:, -1], df, atol=slack)


def _dimension(Y, F, indices, weights, **options):
    return effective_dimension(F, indices, weights, **options)


def _prefixes(Y, F, indices, weights, **options):
    return prefix_dimensions(F, indices, weights, **options)


def dense_reconstruction(Y, F, indices, weights):
    """Ridge through an augmented least-squares problem, which never squares the condition number."""
    out = np.zeros_like(Y)
    for i, y in enumerate(Y):
        root = np.sqrt(weights[i])
        A = np.concatenate([(F[indices[i]] * root[:, None]).T, np.eye(len(root))])
        out[i] = F[indices[i]].T @ (root * scipy.linalg.lstsq(A, np.concatenate([y, np.zeros(len(root))]))[0])
    return out


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("k", [4, 16])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_rows_that_are_not_finite_do_not_touch_the_others(backend, rng, exact, k, poison):
    """Nor do they raise: training says at which step, and with which weights it goes on."""
    Y, F, indices, weights = problem(rng, p=40, k=k)
    indices[indices == 7] = 8
    clean, _ = run(backend, "float64", (Y, F, indices, weights), exact=exact)
    F[7], indices[2, 0], Y[3] = poison, 7, poison
    if not exact:
        weights[4, 1] = poison
    with np.errstate(invalid="ignore"):
        coefs, _ = run(backend, "float64", (Y, F, indices, weights), exact=exact)
    good = [i for i in range(len(Y)) if i not in (2, 3, 4)]
    assert_allclose(coefs[good], clean[good], rtol=0, atol=1e-9)
    assert not np.isfinite(coefs[[2, 3]]).all()


def test_no_rows_at_all(backend, rng):
    Y, F, indices, weights = problem(rng)
    for ragged in (False, True):
        coefs, reconstruction = run(backend, "float64", (Y[:0], F, indices[:0], weights[:0]), ragged=ragged)
        assert coefs.shape == (0, 5)
        assert reconstruction.shape == (0, 12)


# ---- chunks, padding, raggedness


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_chunks_change_nothing(backend, rng, exact, ragged):
    Y, F, indices, weights = problem(rng, n=23, d=6, k=9)
    for i in range(23):
        weights[i, i % 10 :] = 0
    results = [
        run(backend, "float64", (Y, F, indices, weights), exact=exact, ragged=ragged, chunk_size=size)
        for size in (1, 7, "auto")
    ]
    reference = run(backend, "float64", (Y, F, indices, weights), exact=exact)
    for coefs, reconstruction in results:
        assert_allclose(coefs, reference[0], rtol=0, atol=1e-9)
        assert_allclose(reconstruction, reference[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_padding_is_a_no_op_wherever_it_points(rng, exact, solver):
    Y, F, indices, weights = problem(rng, n=6, k=4, d=12)
    plain = project(Y, F, indices, weights, exact=exact, solver=solver)
    padded_indices = np.concatenate([indices, indices[:, :1], np.zeros_like(indices[:, :2])], axis=1)
    padded_weights = np.concatenate([weights, np.zeros((6, 3))], axis=1)
    for ragged in (False, True):
        padded = project(Y, F, padded_indices, padded_weights, exact=exact, solver=solver, ragged=ragged)
        assert (padded.coefs[:, 4:] == 0).all()
        assert_allclose(padded.coefs[:, :4], plain.coefs, rtol=0, atol=1e-13)
    # Where it stands in the row and which atom it names do not matter to a single bit.
    moved = padded_indices.copy()
    moved[:, 4:] = rng.integers(0, 20, (6, 3))
    again = project(Y, F, moved, padded_weights, exact=exact, solver=solver)
    assert_array_equal(again.coefs, project(Y, F, padded_indices, padded_weights, exact=exact, solver=solver).coefs)


def ragged_weights(rng, lengths, K):
    weights = rng.uniform(0.1, 10, (len(lengths), K))
    weights[np.arange(K)[None, :] >= np.asarray(lengths)[:, None]] = 0
    return weights


def test_ragged_rows_are_padded_to_their_own_chunk_only(rng, gathered):
    lengths = [1, 2, 1, 60, 2, 1, 3, 2, 0, 1]
    Y, F, indices, _ = problem(rng, n=10, d=64, p=80, k=80)
    weights = ragged_weights(rng, lengths, 80)
    result = project(Y, F, indices, weights, ragged=True, chunk_size=4)
    assert_allclose(result.coefs, dense_ridge(Y, F, indices, weights), atol=1e-10)
    assert sum(rows for rows, _, _ in gathered) == 10
    # 73 atoms take part, 80 columns times ten rows would be 800. The long row stands alone.
    assert (1, 60, 64) in gathered
    assert sum(rows * width for rows, width, _ in gathered) <= 2 * 73
    assert max(rows for rows, _, _ in gathered) <= 4


@pytest.mark.parametrize("exact", [False, True])
def test_each_ragged_row_factorises_its_smaller_side(rng, monkeypatch, exact):
    sizes = []

    def recording(A):
        sizes.extend([A.shape[-1]] * A.shape[0])
        return _array.cholesky(A)

    monkeypatch.setattr("skprojdict.solvers.systems.cholesky", recording)
    lengths = [3, 16, 17, 30, 30, 2, 16, 40, 18, 9]
    Y, F, indices, _ = problem(rng, n=10, d=16, p=40, k=40)
    weights = ragged_weights(rng, lengths, 40)
    result = project(Y, F, indices, weights, ragged=True, exact=exact)
    truth = least_norm(Y, F, indices, weights) if exact else dense_ridge(Y, F, indices, weights)
    assert_allclose(result.coefs, truth, atol=1e-8)
    assert len(sizes) == 10
    assert max(sizes) == 16  # never k x k where k > d
    assert sorted(sizes)[:2] < [16, 16]  # and short rows stay small
    # Rows just short of the number of columns share no chunk with longer ones, which would make them 16 x 16 too.
    sizes.clear()
    project(Y[:4], F, indices[:4], ragged_weights(rng, [12, 13, 20, 21], 40), ragged=True, exact=exact)
    assert sorted(sizes) == [13, 13, 16, 16]


@pytest.mark.parametrize("exact", [False, True])
def test_nonnegative_rows_factorise_their_smaller_side(rng, monkeypatch, gathered, exact):
    sizes = []

    def recording(A):
        sizes.append(A.shape[-1])
        return _array.cholesky(A)

    monkeypatch.setattr("skprojdict.solvers.systems.cholesky", recording)
    monkeypatch.setattr(_chunks, "CHUNK_BYTES_CPU", 20_000)
    lengths = [3, 16, 17, 30, 30, 2, 16, 40, 18, 9, 0]
    Y, F, indices, _ = problem(rng, n=11, d=16, p=40, k=40)
    weights = ragged_weights(rng, lengths, 40)
    keep = nonnegative_support(Y, F, indices, weights, exact=exact)
    assert min(sizes) <= 3
    assert max(sizes) == 16  # never k x k where k > d
    assert sum(rows * width for rows, width, _ in gathered) <= 2 * sum(lengths)
    assert not (keep & (weights == 0)).any()
    check_nnls(Y, F, indices, weights, keep, exact, 1e-8)


def test_prefixes_of_ragged_rows_are_padded_to_their_own_chunk_only(rng, gathered):
    lengths = [1, 2, 1, 60, 2, 1, 3, 2, 0, 1]
    _, F, indices, _ = problem(rng, n=10, d=64, p=80, k=80)
    weights = ragged_weights(rng, lengths, 80)
    prefixes = prefix_dimensions(F, indices, weights, chunk_size=4)
    assert sum(rows * width for rows, width, _ in gathered) <= 2 * 73
    assert prefixes.shape == (10, 80)
    for m in (1, 2, 50, 80):
        assert_allclose(prefixes[:, m - 1], effective_dimension(F, indices[:, :m], weights[:, :m]), atol=1e-10)


def test_systems_of_prefixes_stay_inside_the_memory_budget(rng, gathered, monkeypatch):
    monkeypatch.setattr(_chunks, "CHUNK_BYTES_CPU", 60_000)
    _, F, indices, _ = problem(rng, n=60, d=4, p=40, k=40)
    weights = ragged_weights(rng, rng.integers(0, 41, 60), 40)
    prefix_dimensions(F, indices, weights)
    assert sum(rows for rows, _, _ in gathered) == 60
    assert max(8 * rows * width * max(width, d) for rows, width, d in gathered) <= 60_000
    assert len(gathered) < 30


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("budget", [5_000, 20_000])
def test_gathered_atoms_stay_inside_the_memory_budget(rng, gathered, monkeypatch, ragged, budget):
    monkeypatch.setattr(_chunks, "CHUNK_BYTES_CPU", budget)
    Y, F, indices, _ = problem(rng, n=120, d=16, p=40, k=40)
    weights = ragged_weights(rng, rng.integers(0, 41, 120), 40)
    project(Y, F, indices, weights, ragged=ragged)
    assert sum(rows for rows, _, _ in gathered) == 120
    one_row = 40 * 16 * 8
    assert max(8 * rows * width * d for rows, width, d in gathered) <= max(budget, one_row)
    assert len(gathered) < 120 or budget < one_row  # and the budget is used: rows go together where they fit


def test_effective_dimension_keeps_the_chunks_too(rng, gathered):
    _, F, indices, weights = problem(rng, n=10)
    assert effective_dimension(F, indices, weights, chunk_size=3).shape == (10,)
    prefix_dimensions(F, indices, weights, chunk_size=3)
    nonnegative_support(np.ones((10, 12)), F, indices, weights, chunk_size=3)
    sampled_products(F, indices, np.ones((10, 12)), chunk_size=3)
    assert [rows for rows, _, _ in gathered] == [3, 3, 3, 1] * 4


# ---- effective dimension


def hat_trace(X, weights):
    keep = weights > 0
    X = X[keep]
    return np.trace(X.T @ np.linalg.solve(X @ X.T + np.diag(1 / weights[keep]), X))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [3, 12, 18])
@pytest.mark.parametrize("ragged", [False, True])
def test_effective_dimension_is_the_trace_of_the_hat_matrix(backend, rng, dtype, k, ragged):
    _, F, indices, weights = problem(rng, k=k)
    weights[4, k // 2 :] = 0
    weights[5] = 0
    df = run(backend, dtype, (None, F, indices, weights), _dimension, ragged=ragged)
    truth = [hat_trace(F[i], w) for i, w in zip(indices, weights, strict=True)]
    assert_allclose(df, truth, rtol=0, atol=TOLERANCE[dtype])
    estimate = (weights / (1 + weights)).sum(axis=1)
    assert (df <= estimate + TOLERANCE[dtype]).all()
    assert (estimate - df)[0] > 1e-3  # overlap is charged
    assert df[5] == pytest.approx(0, abs=TOLERANCE[dtype])


def test_estimate_is_met_by_orthonormal_atoms(backend, rng):
    F = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    indices = np.stack([rng.permutation(9)[:4] for _ in range(5)])
    weights = rng.uniform(0, 5, (5, 4))
    df = run(backend, "float64", (None, F, indices, weights), _dimension)
    assert_allclose(df, (weights / (1 + weights)).sum(axis=1), atol=1e-13)


@pytest.mark.parametrize("k", [4, 9])
def test_exact_effective_dimension_is_the_rank(backend, rng, k):
    _, F, indices, weights = problem(rng, d=6, k=k)
    F[1] = F[0]
    indices[0, :2] = [0, 1]
    indices[1] = 3
    weights[2, 1:] = 0
    weights[3] = 0
    df = run(backend, "float64", (None, F, indices, weights), _dimension, exact=True)
    truth = [np.linalg.matrix_rank(F[i][w > 0]) if (w > 0).any() else 0 for i, w in zip(indices, weights, strict=True)]
    assert_allclose(df, truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [5, 15])
def test_prefix_dimensions_are_those_of_each_prefix(backend, rng, dtype, k):
    _, F, indices, weights = problem(rng, n=7, k=k)
    weights[1, 2:] = 0
    prefixes = run(backend, dtype, (None, F, indices, weights), _prefixes, chunk_size=2)
    for m in range(1, k + 1):
        one = run(backend, dtype, (None, F, indices[:, :m], weights[:, :m]), _dimension)
        assert_allclose(prefixes[:, m - 1], one, rtol=0, atol=TOLERANCE[dtype])


# ---- namespaces


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"solver": "cg"}, {"exact": True, "solver": "cg"}])
@pytest.mark.parametrize("k", [5, 15])
def test_values_are_numpys_on_every_library(backend, rng, options, k):
    given = problem(rng, k=k)
    given[3][:2, 3:] = 0
    reference = project(*given, **options)
    for ragged in (False, True):
        ours = run(backend, "float64", given, ragged=ragged, **options)
        assert_allclose(ours[0], reference.coefs, rtol=0, atol=1e-10)
        assert_allclose(ours[1], reference.reconstruction, rtol=0, atol=1e-10)
    F, indices = given[1:3]
    products = run(backend, "float64", (given[0], F, indices, given[3]), _products)
    assert_allclose(products, np.einsum("nkd,nd->nk", F[indices], given[0]), atol=1e-12)


def _products(Y, F, indices, weights):
    return sampled_products(F, indices, Y, chunk_size=4)


# ---- properties

rows = hnp.arrays(np.float64, (4, 5), elements=st.floats(-1e6, 1e6, allow_subnormal=False))
atoms = hnp.arrays(np.float64, (7, 5), elements=st.floats(-1, 1, allow_subnormal=False))
weightings = hnp.arrays(np.float64, (4, 6), elements=st.sampled_from([0.0, 1e-9, 0.1, 1.0, 9.0, 1e6, 1e12]))
supports = hnp.arrays(np.int64, (4, 6), elements=st.integers(0, 6))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(Y=rows, F=atoms, weights=weightings, indices=supports, exact=st.booleans(), single=st.booleans())
def test_finite_for_any_finite_input_and_never_worse_than_zero(Y, F, weights, indices, exact, single):
    norms = np.linalg.norm(F, axis=1, keepdims=True)
    F = np.where(norms > 1e-3, F / np.maximum(norms, 1e-3), 0.0)
    if single:
        Y, F, weights = (part.astype(np.float32) for part in (Y, F, weights))
    for width in (3, 6):  # both sides of k = d
        coefs, reconstruction = project(Y, F, indices[:, :width], weights[:, :width], exact=exact)
        assert np.isfinite(coefs).all()
        assert np.isfinite(reconstruction).all()
        assert (coefs[weights[:, :width] == 0] == 0).all()
        size = np.linalg.norm(Y, axis=1)
        slack = size * (5e-2 if single else 1e-4)
        assert (np.linalg.norm(Y - reconstruction, axis=1) <= size + slack).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), c=st.sampled_from([-1e6, -1.0, 1e-6, 3.0, 1e9]), exact=st.booleans())
def test_coefficients_scale_with_the_target(seed, c, exact):
    Y, F, indices, weights = problem(np.random.default_rng(seed), k=4)
    for solver in ("cholesky", "cg"):
        one = project(Y, F, indices, weights, exact=exact, solver=solver).coefs
        other = project(c * Y, F, indices, weights, exact=exact, solver=solver).coefs
        assert_allclose(other / c, one, rtol=0, atol=1e-9)


# ---- non-negative supports


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exact", [False, True])
def test_nonnegative_support_has_the_objective_of_nnls(backend, rng, dtype, exact):
    Y, F, indices, weights = problem(rng, n=25, d=10, p=16, k=7)
    F[1] = F[0]
    # Nearly the same atom, so that the Gram matrix is ill-conditioned; single precision cannot tell quite so near
    # ones apart without a penalty (what becomes of those is in test_refine).
    F[2] = F[0] + (0.1 if dtype == "float32" and exact else 1e-4) * F[3]
    F[2] /= np.linalg.norm(F[2])
    F[4] = 0
    indices[:10, :3] = [0, 1, 2]
    indices[0, 3] = 4
    weights[1, 3:] = 0
    weights[2] = 0
    keep = run(backend, dtype, (Y, F, indices, weights), nonnegative_support, exact=exact)
    assert keep.dtype == bool
    assert not (keep & (weights == 0)).any()
    check_nnls(Y, F, indices, weights, keep, exact, {"float32": 1e-3, "float64": 1e-8}[dtype])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("d", "k"), [(5, 14), (12, 20), (12, 40)])
@pytest.mark.parametrize("strength", [1e-6, 1.0, 1e6])
def test_nonnegative_support_with_more_atoms_than_columns(rng, exact, d, k, strength):
    """Singular systems, on which block exchanges cycle."""
    Y, F, indices, weights = problem(rng, n=40, d=d, p=60, k=k)
    F[1], F[2], F[4], F[10:15] = F[0], F[0] + 1e-4 * F[3], 0.0, F[5:10]
    indices[:20] = [rng.permutation(20)[:14].tolist() + list(range(20, 6 + k)) for _ in range(20)]
    weights = weights * strength
    keep = nonnegative_support(Y, F, indices, weights, exact=exact)
    check_nnls(Y, F, indices, weights, keep, exact, 1e-8)


def check_nnls(Y, F, indices, weights, keep, exact, tolerance):
    """The projection on what is kept is non-negative and costs no more than SciPy's optimum."""
    coefs = project(Y, F, indices, weights * keep, exact=exact).coefs
    for i, y in enumerate(Y):
        present = weights[i] > 0
        X, scale = F[indices[i, present]], np.ones(int(present.sum()))
        A, b = X.T, y
        if not exact:
            scale = 1 / np.sqrt(weights[i, present])
            A, b = np.concatenate([A, np.diag(scale)]), np.concatenate([b, np.zeros(len(scale))])
        best = scipy.optimize.nnls(A, b)[1] ** 2 if present.any() else y @ y
        beta = coefs[i, present]
        assert beta.min(initial=0) >= -tolerance
        assert np.sum((A @ np.maximum(beta, 0) - b) ** 2) <= best + tolerance * (1 + best)
