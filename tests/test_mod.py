# SPDX-License-Identifier: BSD-3-Clause
"""The dictionary step: statistics, solve, forgetting, replacement, and K-SVD's atom update."""

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict._array import to_numpy
from skprojdict.solvers.ksvd import update_atoms
from skprojdict.solvers.learner import DictionaryLearner
from skprojdict.solvers.mod import (
    StreamingStatistics,
    code_residual,
    code_statistics,
    count_uses,
    duplicate_atoms,
    replace_atoms,
    solve_dictionary,
    worst_rows,
)
from skprojdict.solvers.norms import unit_rows
from skprojdict.solvers.omp import orthogonal_matching_pursuit

NAMESPACES = [np, torch, array_api_strict]


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    F = unit_rows(rng.standard_normal((12, 6)))
    Y = rng.standard_normal((80, 6))
    codes = orthogonal_matching_pursuit(Y, F, 3)
    Z = np.zeros((80, 12))
    np.add.at(Z, (np.arange(80)[:, None], codes.indices), codes.coefs)
    return Y, F, codes, Z


def on(xp, *arrays):
    return [xp.asarray(array) for array in arrays]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics(problem, xp, dtype, compiled, monkeypatch):
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr("skprojdict.solvers.mod.has_numba", lambda: compiled)
    Y, _, codes, Z = problem
    gram, cross = code_statistics(*on(xp, codes.indices, codes.coefs.astype(dtype), Y.astype(dtype)), 12)
    assert gram.dtype == cross.dtype == xp.float64
    assert_allclose(to_numpy(gram), Z.T @ Z, atol=1e-10 if dtype is np.float64 else 1e-4)
    assert_allclose(to_numpy(cross), Z.T @ Y, atol=1e-10 if dtype is np.float64 else 1e-4)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_uses_and_residual(problem, xp):
    Y, F, codes, Z = problem
    uses = count_uses(*on(xp, codes.indices, codes.coefs), 12)
    assert_array_equal(to_numpy(uses), (Z != 0).sum(0))
    residual = code_residual(*on(xp, codes.indices, codes.coefs, Y, F), chunk_size=7)
    assert_allclose(to_numpy(residual), Y - Z @ F, atol=1e-12)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_dictionary_is_the_least_squares_one(problem, xp):
    Y, F, _, Z = problem
    expected = np.linalg.lstsq(Z, Y)[0]
    solved, lengths = solve_dictionary(*on(xp, Z.T @ Z, Z.T @ Y, F), ridge=1e-13)
    assert_allclose(to_numpy(solved) * to_numpy(lengths)[:, None], expected, atol=1e-9)
    assert_allclose(np.linalg.norm(to_numpy(solved), axis=1), 1, atol=1e-12)


def test_ridge_pulls_towards_the_current_dictionary(problem):
    Y, F, _, Z = problem
    r = 0.5 * np.sort(np.diag(Z.T @ Z))[::-1][6]
    expected = np.linalg.solve(Z.T @ Z + r * np.eye(12), Z.T @ Y + r * F)
    solved, lengths = solve_dictionary(Z.T @ Z, Z.T @ Y, F, ridge=0.5)
    assert_allclose(solved * lengths[:, None], expected, atol=1e-12)
    far, _ = solve_dictionary(Z.T @ Z, Z.T @ Y, F, ridge=1e9)
    assert_allclose(far, F, atol=1e-6)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_unused_atoms_stay_where_they_are(problem, xp):
    Y, F, _, Z = problem
    Z = Z.copy()
    Z[:, 4] = 0
    solved, _ = solve_dictionary(*on(xp, Z.T @ Z, Z.T @ Y, F))
    assert_allclose(to_numpy(solved)[4], F[4], atol=1e-12)
    nothing, lengths = solve_dictionary(*on(xp, 0 * Z.T @ Z, 0 * Z.T @ Y, F))
    assert_allclose(to_numpy(nothing), F)
    assert_array_equal(to_numpy(lengths), 1)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_statistics_that_are_not_finite_leave_the_dictionary(problem, xp):
    Y, F, _, Z = problem
    gram = Z.T @ Z
    gram[0, 0] = np.nan
    solved, _ = solve_dictionary(*on(xp, gram, Z.T @ Y, F))
    assert_allclose(to_numpy(solved), F)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_rescaled_statistics_describe_the_normalised_dictionary(problem, xp):
    Y, F, _, Z = problem
    statistics = StreamingStatistics.zeros(12, 6, xp.asarray(Y), 1.0)
    statistics.add(*on(xp, Z.T @ Z, Z.T @ Y), 80, 240)
    _, lengths = solve_dictionary(*statistics.total(), xp.asarray(F))
    statistics.rescale(lengths)
    longer = Z * to_numpy(lengths)
    assert_allclose(to_numpy(statistics.gram), longer.T @ longer, atol=1e-10)
    assert_allclose(to_numpy(statistics.cross), longer.T @ Y, atol=1e-10)
    mask = np.arange(12) == 3
    statistics.clear(xp.asarray(mask))
    assert not to_numpy(statistics.gram)[3].any()
    assert not to_numpy(statistics.gram)[:, 3].any()
    assert not to_numpy(statistics.cross)[3].any()


def weights_of_batches(forgetting, n_steps, passes=1, error=0.0):
    """Weight of each batch of 10 rows in the total, read off statistics that mark every batch by its own column."""
    statistics = StreamingStatistics.zeros(2, n_steps * passes, np.zeros((1, 1)), forgetting)
    for i in range(n_steps * passes):
        mark = np.zeros((2, n_steps * passes))
        mark[:, i] = 1
        statistics.add(10 * np.eye(2), mark, 10, 20, error)
        if (i + 1) % n_steps == 0 and i + 1 < n_steps * passes:
            statistics.end_epoch()
    return statistics.total()[1][0]


def test_linear_forgetting():
    assert_allclose(weights_of_batches("linear", 8), np.arange(1, 9) / 8)
    weights = weights_of_batches("linear", 4, passes=3)
    assert_allclose(weights, [0, 0, 0, 0, *(np.arange(5, 13) / 12)])


def test_fixed_forgetting():
    assert_allclose(weights_of_batches(0.5, 4), [0.125, 0.25, 0.5, 1])
    assert_allclose(weights_of_batches(1.0, 3), 1)


def test_growing_forgetting():
    # Without noise 20 uses are enough: 20 rows, as every row uses both atoms. A batch of 10 halves what is there.
    assert_allclose(weights_of_batches("growing", 4), [0.125, 0.25, 0.5, 1])
    # Squared coefficients of 1 and residuals of 1.6 a row: 160 uses for a squared error of 0.01.
    assert 10 * weights_of_batches("growing", 300, error=16.0).sum() == pytest.approx(160, rel=1e-3)
    # More noise than the rows seen can average out: a share of those rows.
    assert 500 < 10 * weights_of_batches("growing", 300, error=1e9).sum() < 0.5 * 3000


@pytest.mark.parametrize("xp", NAMESPACES)
def test_duplicates(xp):
    F = unit_rows(np.random.default_rng(0).standard_normal((9, 40)))
    F[5] = -F[2]
    F[7] = unit_rows((F[3] + 0.01 * F[1])[None])[0]
    assert_array_equal(np.flatnonzero(to_numpy(duplicate_atoms(xp.asarray(F)))), [5, 7])


@pytest.mark.parametrize("xp", NAMESPACES)
def test_replacement(xp):
    rng = np.random.default_rng(0)
    F = unit_rows(rng.standard_normal((6, 30)))
    F[4] = F[1]
    uses = np.array([100, 100, 0, 2, 100, 100])
    residual = unit_rows(rng.standard_normal((50, 30))) * np.linspace(1, 5, 50)[:, None]
    residual[-1] = np.nan
    candidates = worst_rows(xp.asarray(residual), 6)
    assert_array_equal(to_numpy(candidates)[0], residual[-2])
    new, replaced = (to_numpy(part) for part in replace_atoms(xp.asarray(F), xp.asarray(uses), candidates))
    assert_array_equal(np.flatnonzero(replaced), [2, 3, 4])
    assert_array_equal(new[~replaced], F[~replaced])
    assert_allclose(new[replaced], unit_rows(to_numpy(candidates)[:3]))
    few, replaced = replace_atoms(xp.asarray(F), xp.asarray(uses), candidates[:1, :])
    assert_array_equal(np.flatnonzero(to_numpy(replaced)), [2])  # no row serves twice
    none, replaced = replace_atoms(xp.asarray(F), xp.asarray(uses), worst_rows(xp.zeros((4, 30)), 6))
    assert not to_numpy(replaced).any()
    assert_array_equal(to_numpy(none), F)
    assert_allclose(np.linalg.norm(to_numpy(few), axis=1), 1)


def test_worst_rows_of_two_batches():
    first, second = np.diag([1.0, 4.0, 2.0]), np.diag([3.0, 0.0, 5.0])
    assert_array_equal(worst_rows(second, 3, worst_rows(first, 3)).max(1), [5, 4, 3])


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("exact", [True, False])
def test_ksvd_sweep(problem, xp, exact):
    Y, F, codes, Z = problem
    expected_F, expected_Z = F.copy(), Z.copy()
    for j in range(12):
        rows = np.flatnonzero(Z[:, j])
        error = Y[rows] - expected_Z[rows] @ expected_F + np.outer(expected_Z[rows, j], expected_F[j])
        if exact:
            left, values, right = np.linalg.svd(error)
            sign = np.sign(left[:, 0] @ expected_Z[rows, j])
            expected_F[j], expected_Z[rows, j] = sign * right[0], sign * values[0] * left[:, 0]
        else:
            expected_F[j] = expected_Z[rows, j] @ error
            expected_F[j] /= np.linalg.norm(expected_F[j])
            expected_Z[rows, j] = error @ expected_F[j]
    new, coefs = update_atoms(*on(xp, Y, codes.indices, codes.coefs, F), exact=exact)
    assert_allclose(to_numpy(new), expected_F, atol=1e-10)
    expected_coefs = np.take_along_axis(expected_Z, codes.indices, axis=1)
    assert_allclose(to_numpy(coefs), np.where(codes.coefs != 0, expected_coefs, 0), atol=1e-10)
    assert ((Y - expected_Z @ expected_F) ** 2).sum() < ((Y - Z @ F) ** 2).sum()


def test_ksvd_leaves_unused_and_perfect_atoms_finite():
    F = np.eye(3)
    new, coefs = update_atoms(np.zeros((2, 3)), np.array([[0], [1]]), np.array([[0.0], [1e-300]]), F)
    assert_array_equal(new[[0, 2]], F[[0, 2]])
    assert np.isfinite(new).all()
    assert np.isfinite(coefs).all()


@pytest.mark.parametrize("xp", NAMESPACES)
def test_steps_lower_the_error_in_every_namespace(xp):
    rng = np.random.default_rng(0)
    truth = unit_rows(rng.standard_normal((15, 8)))
    Y = (rng.standard_normal((600, 15)) * (rng.random((600, 15)).argsort(axis=1) < 2)) @ truth
    start = unit_rows(Y[:15])
    stream = DictionaryLearner(xp.asarray(start), 2, rows_a_pass=600)
    full = DictionaryLearner(xp.asarray(start), 2, rows_a_pass=600)
    for i in range(8):
        streamed = [stream.step(xp.asarray(Y[rows : rows + 100])) for rows in range(0, 600, 100)]
        stream.end_pass()
        passed = full.full_pass(iter(on(xp, Y[:300], Y[300:])))
        if i == 0:
            first = passed
    assert passed[0] < 0.5 * first[0]
    assert sum(error for error, _ in streamed) < 0.5 * first[0]
    assert sum(energy for _, energy in streamed) == pytest.approx(passed[1])
    assert int(to_numpy(stream.n_activations).sum()) > 0


def test_namespaces_take_the_same_steps():
    Y = np.random.default_rng(0).standard_normal((300, 8))
    atoms = []
    for xp in NAMESPACES:
        learner = DictionaryLearner(xp.asarray(unit_rows(Y[:20])), 3, rows_a_pass=300)
        for rows in range(0, 300, 50):
            learner.step(xp.asarray(Y[rows : rows + 50]))
        atoms.append(to_numpy(learner.components))
    assert_allclose(atoms[1], atoms[0], atol=1e-9)
    assert_allclose(atoms[2], atoms[0], atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_learning_survives_any_small_integer_data(data):
    n, d, p = (data.draw(st.integers(1, high)) for high in (12, 4, 6))
    entries = data.draw(st.lists(st.integers(-1, 1), min_size=n * d, max_size=n * d))
    Y = np.array(entries, dtype=np.float32).reshape(n, d)
    start = np.zeros((p, d), dtype=np.float32)
    start[:, 0] = 1  # all duplicates
    update = data.draw(st.sampled_from(["mod", "ksvd", "approximate_ksvd"]))
    learner = DictionaryLearner(start, data.draw(st.integers(1, 3)), update=update, rows_a_pass=n)
    for _ in range(3):
        if update == "mod" and data.draw(st.booleans()):
            learner.step(Y)
        else:
            learner.full_pass(iter([Y]))
        assert np.isfinite(learner.components).all()
        assert_allclose(np.linalg.norm(learner.components, axis=1), 1, atol=1e-5)
