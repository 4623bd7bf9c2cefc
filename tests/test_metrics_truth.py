# SPDX-License-Identifier: BSD-3-Clause
"""Measures against known features and codes: closed cases, scikit-learn and SciPy as oracles, every array library."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import normalize

from skprojdict import metrics
from skprojdict._array import to_numpy


@pytest.fixture(params=["numpy", "torch", "array_api_strict", "csr"])
def codes(request):
    """Bring codes to each container that a metric must accept."""
    if request.param == "csr":
        return lambda Z: sparse.csr_array(np.asarray(Z, dtype=np.float64))
    return importlib.import_module(request.param).asarray


@pytest.fixture(params=["numpy", "torch", "array_api_strict"])
def xp(request):
    return importlib.import_module(request.param)


def same_library(x, like):
    return isinstance(x, np.ndarray) if sparse.issparse(like) else type(x) is type(like)


def random_codes(rng, shape, density=0.3):
    return rng.standard_normal(shape) * (rng.random(shape) < density)


# Atoms


def test_matching_undoes_a_permutation(xp, rng):
    F_true = rng.standard_normal((7, 5))
    order = rng.permutation(7)
    F = xp.asarray(-2.0 * F_true[order])
    matching = metrics.match_atoms(F, xp.asarray(F_true))
    assert same_library(matching, F)
    assert_array_equal(to_numpy(matching), np.argsort(order))


def test_matching_marks_true_atoms_without_a_partner():
    assert_array_equal(metrics.match_atoms(np.eye(4)[[3]], np.eye(4)), [-1, -1, -1, 0])


def test_signed_matching_prefers_the_atom_that_points_the_same_way():
    F, F_true = np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([[1.0, 0.0]])
    assert_array_equal(metrics.match_atoms(F, F_true), [0])
    assert_array_equal(metrics.match_atoms(F, F_true, signed=True), [1])


def test_recovered_share(xp):
    angles = np.array([0.0, 0.4, 0.5])  # cosines 1, .921, .878
    F = np.zeros((3, 6))
    F[[0, 1, 2], [0, 2, 4]], F[[0, 1, 2], [1, 3, 5]] = np.cos(angles), np.sin(angles)
    F_true = np.eye(6)[::2]
    assert_allclose(metrics.recovered_share(xp.asarray(F), xp.asarray(F_true)), 2 / 3)
    assert metrics.recovered_share(xp.asarray(F), xp.asarray(F_true), threshold=0.8) == 1.0
    assert metrics.recovered_share(xp.asarray(-F), xp.asarray(F_true), signed=True) == 0.0


def test_uniqueness_counts_distinct_true_atoms_over_learned_atoms(xp, monkeypatch):
    F_true = np.eye(4)
    F = np.array([[1.0, 0.1, 0, 0], [-1.0, 0, 0.2, 0], [0, 0, 0, 2.0], [0.9, 0, 0.3, 0], [0, 0.1, 0, 1.0]])
    monkeypatch.setattr(metrics._inputs, "BLOCK", 2)
    best = metrics.best_true_atoms(xp.asarray(F), xp.asarray(F_true))
    assert_array_equal(to_numpy(best), [0, 0, 3, 0, 3])
    assert metrics.uniqueness(xp.asarray(F), xp.asarray(F_true)) == 2 / 5
    # Signed: the second atom is now closest to the third axis.
    assert metrics.uniqueness(xp.asarray(F), xp.asarray(F_true), signed=True) == 3 / 5


# Detection


def test_detection_scores_are_those_of_scikit_learn(codes, rng, monkeypatch):
    Z, Z_true = random_codes(rng, (200, 6)), random_codes(rng, (200, 4), 0.5)
    matching = np.array([5, 0, 2, 3])
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 100)
    given = codes(Z)
    scores = metrics.detection_scores(given, codes(Z_true), matching)
    expected = precision_recall_fscore_support(Z_true != 0, Z[:, matching] != 0, average=None)
    for name, values in zip(("precision", "recall", "f1", "n_rows"), expected, strict=True):
        assert_allclose(to_numpy(scores[name]), values, rtol=1e-12)
    assert same_library(scores.f1, given)
    assert_allclose(scores.mean_f1, np.mean(expected[2]), rtol=1e-12)


def test_libraries_of_codes_and_truth_may_differ(codes, rng):
    Z, Z_true = random_codes(rng, (50, 3)), random_codes(rng, (50, 3)) != 0
    expected = metrics.detection_scores(Z, Z_true, [0, 1, 2]).f1
    assert_allclose(to_numpy(metrics.detection_scores(codes(Z), Z_true, [0, 1, 2]).f1), expected)
    assert_allclose(metrics.detection_scores(Z, codes(1.0 * Z_true), [0, 1, 2]).f1, expected)


def test_a_silent_or_missing_atom_scores_0_and_an_absent_feature_is_left_out(codes):
    Z_true = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    Z = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    scores = metrics.detection_scores(codes(Z), codes(Z_true), [0, 1, 2, -1], groups=["a", "a", "b", "b"])
    for values in (scores.precision, scores.recall, scores.f1):
        assert_array_equal(to_numpy(values), [1, 0, np.nan, 0])
    assert_allclose(scores.mean_f1, 1 / 3)
    assert {label: group.mean_recall for label, group in scores.by_group.items()} == {"a": 0.5, "b": 0.0}
    assert_array_equal(scores.n_rows, [1, 2, 0, 2])


def test_synthsaebench_form_averages_over_atoms(rng):
    F, F_true = rng.standard_normal((9, 5)), rng.standard_normal((6, 5))
    Z, Z_true = random_codes(rng, (300, 9)), np.abs(random_codes(rng, (300, 6)))
    best = np.argmax(np.abs(normalize(F) @ normalize(F_true).T), axis=1)
    expected = np.mean(precision_recall_fscore_support(Z_true[:, best] > 0, Z != 0, average=None)[2])
    own = metrics.best_true_atoms(F, F_true)
    assert_allclose(metrics.detection_scores(Z, Z_true[:, own], np.arange(9)).mean_f1, expected)


def test_detection_without_any_feature_on_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="No true feature is on"):
        scores = metrics.detection_scores(np.ones((2, 1)), np.zeros((2, 1)), [0])
    assert np.isnan(scores.mean_f1)


@pytest.mark.parametrize("matching", [[0, 1], [0.0, 1.0, 2.0], [0, 1, 3], [0, 1, -2]])
def test_matching_must_index_atoms(matching):
    with pytest.raises(ValueError, match=r"matching must hold, for each of the 3 true features, .* one of the 3 atoms"):
        metrics.detection_scores(np.ones((2, 3)), np.ones((2, 3)), matching)


def test_codes_of_other_rows_and_wrong_groups_are_refused():
    with pytest.raises(ValueError, match="Z has 2 rows and Z_true 3"):
        metrics.detection_scores(np.ones((2, 3)), np.ones((3, 3)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"groups must hold one label for each of the 1 true features; got \(2,\)"):
        metrics.detection_scores(np.ones((2, 1)), np.ones((2, 1)), [0], groups=["a", "b"])


# Coefficients


def test_coefficient_bias_is_free_of_norm_and_sign(codes, rng):
    F_true = rng.standard_normal((4, 8))
    Z_true = random_codes(rng, (500, 4), 0.5)
    scale, bias = np.array([2.0, -0.5, 1.0, -3.0]), np.array([0.0, -0.2, 0.5, -0.9])
    order = np.array([2, 3, 1, 0])
    F, Z = (scale[:, None] * F_true)[order], (Z_true * (1 + bias) / scale)[:, order]
    given = codes(Z)
    result = metrics.coefficient_bias(given, F, codes(Z_true), F_true, np.argsort(order))
    assert same_library(result.bias, given)
    assert_allclose(to_numpy(result.bias), bias, atol=1e-12)
    assert_allclose(result.mean_bias, bias.mean(), atol=1e-12)


def test_coefficient_bias_looks_only_where_both_are_on():
    Z_true = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    Z = np.array([[0.5, 0.0], [0.0, 0.0], [9.0, 0.0]])
    result = metrics.coefficient_bias(Z, np.eye(2), Z_true, np.eye(2), [0, 1])
    assert_array_equal(result.bias, [-0.5, np.nan])
    assert result.mean_bias == -0.5
    with pytest.warns(UndefinedMetricWarning, match="No matched atom fires"):
        assert np.isnan(metrics.coefficient_bias(Z, np.eye(2), Z_true, np.eye(2), [1, 1]).mean_bias)


def test_coefficient_bias_wants_the_atoms_of_the_codes():
    with pytest.raises(ValueError, match="F_true has 3 atoms and Z_true 2 columns"):
        metrics.coefficient_bias(np.ones((2, 2)), np.eye(2), np.ones((2, 2)), np.eye(3), [0, 1])


# Hierarchies


def tree(rng, n=400):
    """Two parents with two exclusive children each, and one independent feature; orthogonal, unit coefficients."""
    parents = np.array([-1, -1, 0, 0, 1, 1, -1])
    on = np.zeros((n, 7), dtype=bool)
    on[:, :2] = rng.random((n, 2)) < 0.5
    for parent in (0, 1):
        which = rng.integers(0, 3, n)
        for j, child in enumerate(np.flatnonzero(parents == parent)):
            on[:, child] = on[:, parent] & (which == j)
    on[:, 6] = rng.random(n) < 0.3
    return parents, 1.0 * on


def test_groups_of_a_hierarchy():
    # Feature 1 is a child of 0 and the parent of 2.
    assert metrics.hierarchy_groups([-1, 0, 1, -1]).tolist() == ["parent", "parent", "child", "independent"]


def test_holes_and_leak_of_the_truth_are_0(codes, rng):
    parents, Z_true = tree(rng)
    F_true = rng.standard_normal((7, 20))
    matching = metrics.match_atoms(-F_true, F_true)
    assert metrics.hierarchy_holes(codes(Z_true), codes(Z_true), parents, matching).mean == 0.0
    assert_allclose(metrics.hierarchy_leak(-F_true, F_true, parents, matching).mean, 0.0, atol=1e-12)


def test_full_absorption_has_holes_of_1_and_a_leak_of_one_over_root_2(codes, rng, monkeypatch):
    parents, Z_true = tree(rng)
    F, Z = np.eye(7), Z_true.copy()
    for child in (2, 3):  # the first family is absorbed
        F[child, 0] = 1.0
        Z[Z_true[:, child] > 0, 0] = 0.0
    assert_allclose(Z @ F, Z_true)  # and reconstructs perfectly
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 500)
    given = codes(Z)
    holes = metrics.hierarchy_holes(given, codes(Z_true), parents, np.arange(7))
    assert same_library(holes.holes, given)
    assert_array_equal(holes.parents, [0, 1])
    assert_array_equal(to_numpy(holes.holes), [1, 0])
    assert_array_equal(to_numpy(holes.silent_with_child), [1, 0])
    assert holes.mean == 0.5
    leak = metrics.hierarchy_leak(F, np.eye(7), parents, np.arange(7))
    assert_array_equal(leak.children, [2, 3, 4, 5])
    assert_allclose(leak.leak, [np.sqrt(0.5), np.sqrt(0.5), 0, 0])


def test_holes_are_a_difference_of_conditional_frequencies(codes):
    #  parent, child, and whether the parent's atom fires: silent 3 of 4 with the child, 1 of 3 alone.
    rows = [(1, 1, 0), (1, 1, 0), (1, 1, 0), (1, 1, 1), (1, 0, 0), (1, 0, 1), (1, 0, 1), (0, 0, 0), (0, 0, 1)]
    table = np.array(rows, dtype=np.float64)
    Z = np.stack([table[:, 1], -table[:, 2]], axis=1)
    result = metrics.hierarchy_holes(codes(Z), codes(table[:, :2]), [-1, 0], [1, 0])
    assert_allclose(result.mean, 3 / 4 - 1 / 3)


def test_a_parent_never_alone_has_no_holes_to_speak_of():
    Z_true = np.ones((3, 2))
    with pytest.warns(UndefinedMetricWarning, match="No parent is on alone"):
        assert np.isnan(metrics.hierarchy_holes(Z_true, Z_true, [-1, 0], [0, 1]).mean)
    with pytest.warns(UndefinedMetricWarning, match="No parent is on alone"):
        assert np.isnan(metrics.hierarchy_holes(Z_true, Z_true, [-1, -1], [0, 1]).mean)


def test_leak_is_above_the_true_cosine_and_free_of_sign(xp):
    F_true = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    F = np.array([[0.0, 0.0, 1.0], [-0.8, -0.6, 0.0]])
    result = metrics.hierarchy_leak(xp.asarray(F), xp.asarray(F_true), [-1, 0], [0, 1])
    assert_allclose(to_numpy(result.leak), [0.2])
    assert same_library(result.leak, xp.asarray(F))
    # A leak the other way is negative.
    assert_allclose(metrics.hierarchy_leak(np.array([[0.0, 1.0, 0.0]]), F_true, [-1, 0], [-1, 0]).mean, -0.6)


def test_leak_without_a_child_that_has_an_atom_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="No feature has both a parent and an atom"):
        assert np.isnan(metrics.hierarchy_leak(np.eye(2), np.eye(2), [-1, 0], [0, -1]).mean)


@pytest.mark.parametrize("parents", [[-1, 2], [0, -1], [-1.0, 0.0], [-1]])
def test_parents_must_index_other_features(parents):
    with pytest.raises(ValueError, match="parents must hold, for each of the 2 true features"):
        metrics.hierarchy_leak(np.eye(2), np.eye(2), parents, [0, 1])
