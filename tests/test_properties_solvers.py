# SPDX-License-Identifier: BSD-3-Clause
"""Every solver on whatever data there is: any shape and dtype, zero rows, twin atoms, one row, huge and tiny numbers.

Hypothesis draws what a problem looks like; the numbers come from a seeded generator. Oracles are NumPy's and SciPy's
least squares, row by row in double precision.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls

from skprojdict._array import to_numpy, top_k
from skprojdict.solvers import initial, ksvd, mod
from skprojdict.solvers.elimination import elimination_ranking
from skprojdict.solvers.iterative import conjugate_gradients
from skprojdict.solvers.learner import DictionaryLearner
from skprojdict.solvers.nonnegative import nonnegative_coefficients
from skprojdict.solvers.omp import orthogonal_matching_pursuit
from skprojdict.solvers.penalties import dimension_estimate, precisions
from skprojdict.solvers.refine import choose_support, weights_of
from skprojdict.solvers.ridge import effective_dimension, nonnegative_support, prefix_dimensions, project
from skprojdict.solvers.select import select

examples = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Problem:
    """Rows Y (n, d), unit atoms F (p, d), k, supports (n, k) and precisions (n, k) that are 0 in places."""

    Y: np.ndarray
    F: np.ndarray
    k: int
    indices: np.ndarray
    weights: np.ndarray
    library: str

    @property
    def eps(self):
        return float(np.finfo(self.Y.dtype).eps)

    def arrays(self, *arrays):
        return arrays if self.library == "numpy" else tuple(torch.from_numpy(np.array(array)) for array in arrays)

    def scores(self):
        return self.Y / (np.abs(self.Y).max() or 1) @ self.F.T


@st.composite
def problems(draw, scales=(1e-20, 1e-6, 1.0, 1e6, 1e20), widest=8):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n, d = draw(st.sampled_from([1, 2, 9])), draw(st.integers(1, 6))
    p = draw(st.integers(1, widest))
    k = draw(st.one_of(st.integers(1, p), st.just(p)))
    F = rng.standard_normal((p, d))
    flaws = draw(st.sets(st.sampled_from(["zero rows", "twins", "opposites", "constant", "in span", "equal rows"])))
    if "twins" in flaws:
        F[p // 2 :] = F[: p - p // 2]
    if "opposites" in flaws:
        F[-1] = -F[0]
    F /= np.maximum(np.linalg.norm(F, axis=1, keepdims=True), 1e-300)
    Y = rng.standard_normal((n, d))
    if "in span" in flaws:  # a perfect fit leaves a residual of rounding
        Y = rng.standard_normal((n, min(p, 2))) @ F[: min(p, 2)]
    if "constant" in flaws:
        Y[:, 0] = 3.0
    if "equal rows" in flaws:
        Y[:] = Y[0]
    if "zero rows" in flaws:
        Y[:: 2 if n > 1 else 1] = 0.0
    Y = Y * draw(st.sampled_from(scales))
    indices = np.argsort(rng.uniform(size=(n, p)), axis=1)[:, :k]
    weights = np.where(rng.uniform(size=(n, k)) < 0.2, 0.0, 10.0 ** rng.uniform(-3, 3, (n, k)))
    library = draw(st.sampled_from(["numpy", "numpy", "torch"]))
    return Problem(Y.astype(dtype), F.astype(dtype), k, indices, weights.astype(dtype), library)


def least_error(y, atoms):
    """Norm of what least squares leaves of y, in double precision."""
    y, atoms = y.astype(np.float64), atoms.astype(np.float64)
    if not len(atoms):
        return np.linalg.norm(y)
    return np.linalg.norm(y - np.linalg.lstsq(atoms.T, y, rcond=1e-12)[0] @ atoms)


def assert_distinct(indices, active):
    for row, used in zip(indices, active, strict=True):
        assert len(set(row[used])) == used.sum()


# ---- projection


@examples
@given(problem=problems(), solver=st.sampled_from(["cholesky", "cg"]), ragged=st.booleans())
def test_exact_projection_leaves_what_least_squares_leaves(problem, solver, ragged):
    Y, F, indices, w = problem.arrays(problem.Y, problem.F, problem.indices, problem.weights)
    coefs, fitted = map(to_numpy, project(Y, F, indices, w, exact=True, solver=solver, ragged=ragged))
    assert np.isfinite(coefs).all()
    assert not coefs[problem.weights == 0].any()
    for i, y in enumerate(problem.Y):
        best = least_error(y, problem.F[problem.indices[i]][problem.weights[i] > 0])
        error = np.linalg.norm(y.astype(np.float64) - fitted[i])
        assert error <= best + 2e4 * problem.eps * np.linalg.norm(y.astype(np.float64))


@examples
@given(problem=problems(), solver=st.sampled_from(["cholesky", "cg"]), ragged=st.booleans())
def test_ridge_solves_its_normal_equations(problem, solver, ragged):
    Y, F, indices, w = problem.arrays(problem.Y, problem.F, problem.indices, problem.weights)
    coefs = to_numpy(project(Y, F, indices, w, solver=solver, ragged=ragged).coefs)
    for i, y in enumerate(problem.Y.astype(np.float64)):
        D = np.sqrt(problem.weights[i].astype(np.float64))
        X = problem.F[problem.indices[i]].astype(np.float64) * D[:, None]
        expected = D * np.linalg.solve(np.eye(len(D)) + X @ X.T, X @ y)
        size = np.abs(y).max() * (1 + D.max()) ** 2
        assert_allclose(coefs[i], expected, rtol=0, atol=500 * problem.eps * size)


@examples
@given(problem=problems(scales=(1.0,)), exponent=st.integers(-60, 60), exact=st.booleans())
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_unit_changes_the_unit_of_the_coefficients_only(solver, problem, exponent, exact):
    """By a power of two, which no rounding notices."""
    options = {"exact": exact, "solver": solver}
    unit = problem.Y.dtype.type(2.0) ** exponent
    one = project(problem.Y, problem.F, problem.indices, problem.weights, **options).coefs
    other = project(problem.Y * unit, problem.F, problem.indices, problem.weights, **options).coefs
    assert_array_equal(other, one * unit)


@examples
@given(problem=problems(scales=(1.0,)))
def test_effective_dimensions_lie_between_nothing_and_everything(problem):
    F, indices, w = problem.arrays(problem.F, problem.indices, problem.weights)
    df = to_numpy(effective_dimension(F, indices, w))
    prefixes = to_numpy(prefix_dimensions(F, indices, w))
    most = np.minimum((problem.weights > 0).sum(axis=1), problem.F.shape[1])
    slack = 1e4 * problem.eps * (1 + most)
    assert (df >= -slack).all()
    assert (df <= most + slack).all()
    assert (np.diff(prefixes, axis=1) >= -slack[:, None]).all()
    assert_allclose(prefixes[:, -1], df, atol=3e-2 if problem.eps > 1e-10 else 1e-6)
    estimate = to_numpy(dimension_estimate(w))
    assert (df <= estimate + slack).all()


@examples
@given(problem=problems(scales=(1e-6, 1.0, 1e6)), exact=st.booleans())
def test_non_negative_coefficients_are_as_good_as_scipys(problem, exact):
    w = (problem.weights > 0).astype(problem.Y.dtype) if exact else problem.weights
    X = problem.F[problem.indices]
    v = nonnegative_coefficients(X, w, problem.Y, exact=exact)
    assert np.isfinite(v).all()
    assert (v >= 0).all()
    used = nonnegative_support(problem.Y, problem.F, problem.indices, w, exact=exact)
    assert not (used & (w == 0)).any()
    for i, y in enumerate(problem.Y.astype(np.float64)):
        D = np.sqrt(w[i].astype(np.float64))
        atoms = X[i].astype(np.float64) * D[:, None]
        system, target = atoms.T, y
        if not exact:
            system, target = np.vstack([system, np.eye(len(D))]), np.concatenate([y, np.zeros(len(D))])
        best = nnls(system, target)[1]
        found = np.linalg.norm(system @ v[i] - target)
        assert found <= best + 1e5 * problem.eps * np.linalg.norm(y)


@examples
@given(seed=st.integers(0, 2**32 - 1), K=st.integers(1, 6), rank=st.integers(0, 6), exponent=st.integers(-60, 60))
def test_conjugate_gradients_solve_what_can_be_solved(seed, K, rank, exponent):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((5, K, min(rank, K)))
    A = A @ np.swapaxes(A, 1, 2)
    B = (A @ rng.standard_normal((5, K, 1)))[..., 0] * 2.0**exponent
    x = conjugate_gradients(lambda V: (A @ V[..., None])[..., 0], B, max_iter=200)
    assert np.isfinite(x).all()
    size = np.abs(B).max() or 1.0
    assert_allclose((A @ x[..., None])[..., 0] / size, B / size, atol=1e-6)


# ---- supports


@examples
@given(problem=problems(), exact=st.booleans(), data=st.data())
def test_elimination_ranks_the_candidates_that_take_part_first(problem, exact, data):
    k = data.draw(st.integers(1, problem.k))
    arguments = problem.arrays(problem.Y, problem.F, problem.indices, problem.weights)
    ranking = to_numpy(elimination_ranking(*arguments, k, exact=exact))
    assert not np.isnan(ranking).any()
    assert (ranking[problem.weights == 0] == -np.inf).all()
    kept = (ranking > -np.inf).sum(axis=1)
    assert (kept >= np.minimum(k, (problem.weights > 0).sum(axis=1))).all()


PENALTIES = [
    {"penalty": "exact"},
    {"penalty": "ridge", "alpha": 0.1},
    {"penalty": "inverse_square"},
    {"penalty": "inverse_square", "quota": "normalize"},
    {"penalty": "softplus", "quota": "sum"},
]


@examples
@given(
    problem=problems(scales=(1.0,)),
    penalty=st.sampled_from(PENALTIES),
    selection=st.sampled_from(["top_k", "threshold", "budget"]),
    n_refinements=st.integers(0, 2),
    positive_code=st.booleans(),
    every=st.booleans(),
)
def test_supports_are_distinct_atoms_within_their_limits(
    problem, penalty, selection, n_refinements, positive_code, every
):
    if selection == "budget" and penalty["penalty"] == "exact":
        return
    k = None if every else problem.k
    Y, F, scores = problem.arrays(problem.Y, problem.F, problem.scores().astype(problem.Y.dtype))
    solve = {"exact": penalty["penalty"] == "exact", "ragged": k is None or selection != "top_k"}
    support = choose_support(
        scores,
        Y,
        F,
        k=k,
        selection=selection,
        threshold=0.1,
        dimension_budget=1.5,
        candidate_factor=2.0,
        n_refinements=n_refinements,
        positive_code=positive_code,
        penalty=penalty,
        solve=solve,
    )
    indices, active = to_numpy(support.indices), to_numpy(support.active)
    p = problem.F.shape[0]
    assert ((indices >= 0) & (indices < p)).all()
    assert_distinct(indices, active)
    if selection == "top_k" and k is not None:
        assert active.sum(axis=1).max() <= k
    weights = weights_of(support, **penalty)
    assert np.isfinite(to_numpy(weights)).all()
    if selection == "budget":
        assert (to_numpy(dimension_estimate(weights)) <= 1.5 + 1e-4).all()
    coefs = to_numpy(project(Y, F, support.indices, weights, **solve).coefs)
    assert np.isfinite(coefs).all()
    if positive_code:
        assert (coefs >= -1e4 * problem.eps * (1 + np.abs(problem.Y).max())).all()


@examples
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 4),
    p=st.sampled_from([1, 3, 128, 1100]),
    levels=st.sampled_from([1, 3, 10**6]),
    data=st.data(),
)
def test_the_largest_scores_are_the_largest(seed, n, p, levels, data):
    """With many ties, too; on every path that a number of columns may take."""
    k = data.draw(st.one_of(st.integers(1, p), st.just(p)))
    scores = np.random.default_rng(seed).integers(-levels, levels + 1, (n, p)).astype(np.float32)
    expected = -np.sort(-scores, axis=1)[:, :k]
    for values in (scores, torch.from_numpy(scores)):
        found, indices = map(to_numpy, top_k(values, k))
        assert_array_equal(found, expected)
        assert_array_equal(np.take_along_axis(scores, indices, axis=1), expected)
        assert_distinct(indices, np.ones_like(indices, dtype=bool))
        support = select(values, k)
        assert_array_equal(to_numpy(support.active), expected > 0)


@examples
@given(
    scores=st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=1, max_size=5),
    penalty=st.sampled_from(["exact", "ridge", "inverse_square", "softplus"]),
    quota=st.sampled_from([None, "normalize", "sum"]),
    alpha=st.sampled_from([1e-6, 1.0, 1e6]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_precisions_are_never_negative_nor_undefined(scores, penalty, quota, alpha, dtype):
    scores = np.array([scores], dtype=dtype)
    active = np.arange(scores.shape[1])[None] < max(1, scores.shape[1] - 1)
    s = precisions(scores, active, penalty=penalty, quota=quota, alpha=alpha)
    assert s.dtype == dtype
    assert np.isfinite(s).all()
    assert (s >= 0).all()
    assert not s[~active].any()


# ---- pursuit


@examples
@given(problem=problems(scales=(1e-30, 1.0, 1e30)), method=st.sampled_from(["omp", "ols"]), extra=st.integers(0, 3))
def test_a_pursuit_fits_by_least_squares_on_distinct_atoms(problem, method, extra):
    Y, F = problem.arrays(problem.Y, problem.F)
    k = problem.k + extra  # more than there are atoms is allowed
    codes = orthogonal_matching_pursuit(Y, F, k, method=method)
    indices, coefs, count = map(to_numpy, codes)
    assert indices.shape == coefs.shape == (len(problem.Y), k)
    assert np.isfinite(coefs).all()
    assert (count <= min(problem.F.shape)).all()
    chosen = np.arange(k) < count[:, None]
    assert not coefs[~chosen].any()
    assert_distinct(indices, chosen)
    for i, y in enumerate(problem.Y.astype(np.float64)):
        atoms = problem.F[indices[i][chosen[i]]].astype(np.float64)
        size = np.linalg.norm(y / (np.abs(y).max() or 1)) * np.abs(y).max()
        error = np.abs(y - coefs[i][chosen[i]].astype(np.float64) @ atoms)
        scale = np.abs(y).max() or 1.0
        best = least_error(y / scale, atoms) * scale
        assert np.linalg.norm(error / scale) * scale <= best + 1e4 * problem.eps * size


@examples
@given(problem=problems(scales=(1.0,)), method=st.sampled_from(["omp", "ols"]), tol=st.floats(0, 10))
def test_a_tolerance_is_met_or_nothing_is_left_to_gain(problem, method, tol):
    F, k = problem.F, problem.F.shape[0]
    indices, coefs, count = orthogonal_matching_pursuit(problem.Y, F, k, tol=tol, method=method)
    error = ((problem.Y - (coefs[:, None, :] @ F[indices])[:, 0]).astype(np.float64) ** 2).sum(axis=1)
    limit = np.array([least_error(y, F) ** 2 for y in problem.Y])
    slack = 1e-2 if problem.eps > 1e-10 else 1e-8
    assert (error <= np.maximum(tol, limit) + slack * (1 + (problem.Y**2).sum(axis=1))).all()
    assert (count[(problem.Y**2).sum(axis=1) <= tol * (1 - 1e-5)] == 0).all()


# ---- the dictionary step


def some_codes(problem):
    """Sparse codes with rows and atoms that nobody uses."""
    coefs = problem.weights * np.where(problem.indices % 3 == 0, -1, 1)
    return problem.indices, coefs.astype(problem.Y.dtype)


@examples
@given(problem=problems(scales=(1.0,)), ridge=st.sampled_from([1e-7, 1e-3, 1.0]))
def test_the_dictionary_step_gives_unit_atoms_that_fit_no_worse(problem, ridge):
    p = problem.F.shape[0]
    arrays = problem.arrays(problem.Y, problem.F, *some_codes(problem))
    Y, F, indices, coefs = arrays
    gram, cross = mod.code_statistics(indices, coefs, Y, p)
    Z = np.zeros((len(problem.Y), p))
    np.put_along_axis(Z, problem.indices, some_codes(problem)[1].astype(np.float64), axis=1)
    assert_allclose(to_numpy(gram), Z.T @ Z, rtol=1e-4, atol=1e-4)
    assert_allclose(to_numpy(cross), Z.T @ problem.Y, rtol=1e-4, atol=1e-2)
    new, lengths = map(to_numpy, mod.solve_dictionary(gram, cross, F, ridge))
    assert np.isfinite(new).all()
    assert_allclose(np.linalg.norm(new, axis=1), 1, atol=1e-5)
    Z64, Y64 = Z, problem.Y.astype(np.float64)
    before = np.linalg.norm(Y64 - Z64 @ problem.F)
    after = np.linalg.norm(Y64 - (Z64 * lengths) @ new)
    assert after <= before + 1e4 * problem.eps * (before + np.linalg.norm(Y64))
    assert_array_equal(to_numpy(mod.count_uses(indices, coefs, p)), (Z != 0).sum(axis=0))


@examples
@given(problem=problems(scales=(1e-6, 1.0, 1e6)), exact=st.booleans())
def test_a_sweep_of_k_svd_never_raises_the_error(problem, exact):
    indices, coefs = some_codes(problem)
    new, updated = ksvd.update_atoms(problem.Y, indices, coefs, problem.F, exact=exact)
    assert np.isfinite(new).all()
    assert_allclose(np.linalg.norm(new, axis=1), 1, atol=1e-4)

    def error(F, coefs):
        return np.linalg.norm(problem.Y.astype(np.float64) - (coefs[:, None, :].astype(np.float64) @ F[indices])[:, 0])

    before = error(problem.F, coefs)
    assert error(new, updated) <= before * (1 + 1e3 * problem.eps) + 1e3 * problem.eps * np.abs(coefs).max()


@examples
@given(problem=problems(scales=(1.0,)), steps=st.integers(1, 4), method=st.sampled_from(["omp", "ols"]))
def test_a_learner_keeps_sound_atoms_whatever_it_is_fed(problem, steps, method):
    learner = DictionaryLearner(problem.F.copy(), min(problem.k, 3), coder=method)
    for _ in range(steps):
        error, energy = learner.step(problem.Y)
        assert 0 <= error <= energy * (1 + 1e-4)
        assert np.isfinite(learner.components).all()
        assert_allclose(np.linalg.norm(learner.components, axis=1), 1, atol=1e-4)


@examples
@given(problem=problems())
def test_replacing_and_normalising_atoms_makes_none_that_are_not_finite(problem):
    p = problem.F.shape[0]
    uses = np.arange(p) % 2 * 100
    candidates = mod.worst_rows(problem.Y, p)
    assert np.isfinite(candidates).all()
    new, replaced = mod.replace_atoms(problem.F, uses, candidates)
    assert np.isfinite(new).all()
    assert_allclose(np.linalg.norm(new.astype(np.float64), axis=1), 1, atol=1e-5)
    assert_array_equal(new[~replaced], problem.F[~replaced])
    norms = np.linalg.norm(mod.unit_rows(problem.Y).astype(np.float64), axis=1)
    assert_allclose(norms, (problem.Y != 0).any(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    "rows", [np.zeros((0, 3)), np.zeros((2, 3)), np.full((2, 3), np.nan)], ids=["none", "0", "NaN"]
)
def test_no_rows_are_the_worst_where_none_is_left_over(rows):
    assert mod.worst_rows(rows, 4).shape == (0, 3)
    assert mod.worst_rows(rows, 4, others=np.zeros((0, 3))).shape == (0, 3)


# ---- starting points


@examples
@given(problem=problems(), init=st.sampled_from(["data", "random", "svd"]), unit=st.sampled_from([1e-130, 1.0, 1e130]))
def test_starting_atoms_have_norm_one(problem, init, unit):
    sample = problem.Y.astype(np.float64) * unit
    n_components = problem.F.shape[0] + 3
    atoms = initial.initial_components(init, sample, n_components, np.random.RandomState(0))
    assert atoms.shape == (n_components, sample.shape[1])
    assert_allclose(np.linalg.norm(atoms, axis=1), 1, atol=1e-6)


@examples
@given(problem=problems())
def test_medians_and_linear_maps_are_finite(problem):
    sample = problem.Y.astype(np.float64)
    median = initial.geometric_median(sample)
    span = np.abs(sample).max()
    assert (median >= sample.min(axis=0) - 1e-6 * span).all()
    assert (median <= sample.max(axis=0) + 1e-6 * span).all()
    assert np.isfinite(initial.linear_map(sample, sample[:, ::-1])).all()
