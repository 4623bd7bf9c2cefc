# SPDX-License-Identifier: BSD-3-Clause
"""Absorption and splitting: closed cases, and the definitions written out row by row as oracles."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.preprocessing import normalize

from skprojdict import metrics
from skprojdict._array import to_numpy


@pytest.fixture(params=["numpy", "torch", "array_api_strict", "csr"])
def bring(request):
    """Bring codes to each container that a metric must accept, and dictionaries to its library."""
    if request.param == "csr":
        return lambda Z: sparse.csr_array(np.asarray(Z, dtype=np.float64)), np.asarray
    xp = importlib.import_module(request.param)
    return xp.asarray, xp.asarray


def family(own, absorbed):
    """Feature 1 implies feature 0, orthogonal, unit coefficients: row 0 the parent alone, row 1 with its child.

    On row 1 the parent's atom has the coefficient ``own`` and the child's atom, which leans on the parent, brings
    ``absorbed`` of the parent's direction.
    """
    Z_true = np.array([[1.0, 0.0], [1.0, 1.0]])
    F = np.array([[1.0, 0.0], [absorbed, 1.0]])
    return np.array([[1.0, 0.0], [own, 1.0]]), F, Z_true


@pytest.mark.parametrize(
    ("own", "absorbed", "fraction", "full"),
    [
        (1.0, 0.0, 0.0, 0.0),  # clean
        (0.0, 1.0, 1.0, 1.0),  # fully absorbed
        (0.5, 0.5, 0.5, 0.0),  # half absorbed
        (0.65, 0.35, 0.0, 0.0),  # the child accounts for less than 0.4
        (0.4, 1.0, 0.6, 0.0),  # more than what is missing does not count
        (1.0, 0.7, 0.0, 0.0),  # nothing is missing
        (-0.2, 1.2, 1.0, 0.0),  # the parent's atom pulls the other way, but it fires
        (0.0, 0.05, 0.0, 0.0),  # silent, and no one stands in
    ],
)
def test_saebench_scores_of_one_family(own, absorbed, fraction, full, bring):
    codes, atoms = bring
    Z, F, Z_true = family(own, absorbed)
    given = codes(Z)
    scores = metrics.absorption_scores(given, atoms(F), codes(Z_true), atoms(np.eye(2)), [0, 1])
    # One of the parent's two rows is its own.
    assert_allclose(to_numpy(scores.fraction), [fraction / 2, 0])
    assert_allclose(to_numpy(scores.full), [full / 2, 0])
    assert_array_equal(scores.n_rows, [2, 1])
    assert_allclose([scores.mean_fraction, scores.mean_full], [fraction / 4, full / 4])
    assert isinstance(scores.full, np.ndarray) if sparse.issparse(given) else type(scores.full) is type(given)


@pytest.mark.parametrize(
    ("own", "absorbed", "rate"),
    [(1.0, 0.0, 0), (0.0, 1.0, 1), (0.5, 0.5, 0), (0.0, 0.35, 0), (0.0, 0.45, 1), (0.0, -1, 0)],
)
def test_absorption_rate_of_one_family(own, absorbed, rate, bring):
    codes, atoms = bring
    Z, F, Z_true = family(own, absorbed)
    result = metrics.absorption_rate(codes(Z), atoms(F), codes(Z_true), atoms(np.eye(2)), [0, 1])
    assert_allclose(to_numpy(result.rate), [rate / 2, 0])
    assert_allclose(result.mean, rate / 4)


def test_two_atoms_that_share_the_work_are_no_absorption_of_the_first_form():
    # Chanin et al. ask for one clear stand-in; SAEBench's fraction lets three atoms act together.
    F, Z_true = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [0.5, 0, 1.0]]), np.ones((1, 3))
    Z = np.array([[0.0, 1.0, 1.0]])
    given = Z, F, Z_true, np.eye(3), [0, 1, 2]
    assert metrics.absorption_rate(*given).rate[0] == 0
    assert metrics.absorption_rate(*given, margin=0).rate[0] == 1
    assert metrics.absorption_scores(*given).fraction[0] == 1
    assert metrics.absorption_scores(*given, share_threshold=0.6, max_absorbing=1).fraction[0] == 0
    assert metrics.absorption_scores(*given, share_threshold=0.6).full[0] == 0


def random_case(seed, n=60, p=9, n_true=6, d=4):
    """Overcomplete and messy: codes of either sign, atoms of any norm, projections of either sign."""
    rng = np.random.default_rng(seed)
    F, F_true = rng.standard_normal((p, d)), rng.standard_normal((n_true, d))
    Z = rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.3)
    Z_true = rng.random((n, n_true)) * (rng.random((n, n_true)) < 0.4)
    return Z, F, Z_true, F_true, [[0, 3], [1], [], [8, 2, 5], [4], [7]]


def by_definition(Z, F, Z_true, F_true, mains, Y):
    """Fraction, full and rate of each feature, row by row."""
    scores = np.full((3, Z_true.shape[1]), np.nan)
    for j, own in enumerate(mains):
        direction = F_true[j] / np.linalg.norm(F_true[j])
        cosines = np.abs(normalize(F) @ direction)
        rows = []
        for z, y in zip(Z[Z_true[:, j] != 0], Y[Z_true[:, j] != 0], strict=True):
            P, parts = y @ direction, z * (F @ direction)
            if P <= 0:
                continue
            m = sum(parts[i] for i in own)
            others = [parts[i] for i in range(len(z)) if i not in own and cosines[i] >= 0.1 and parts[i] > 0]
            B = sum(sorted(others)[::-1][:3])
            fraction = 1.0 if m <= 0 else min(B, P - m) / (min(B, P - m) + m)
            if m >= P or B / P < 0.4:
                fraction = 0.0
            silent = all(z[i] == 0 for i in own)
            top = np.argmax(parts)
            by_size = np.argsort(-np.abs(parts))
            lead = np.abs(parts[by_size[0]]) - np.abs(parts[by_size[1]])
            rate = silent and parts[by_size[0]] > 0 and cosines[by_size[0]] >= 0.025 and lead >= 0.4 * P
            rows.append([fraction, silent and cosines[top] >= 0.025 and parts[top] / P >= 0.4, rate])
        scores[:, j] = np.mean(rows, axis=0)
    return scores


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("with_data", [False, True])
def test_scores_are_their_definitions(seed, with_data, bring, monkeypatch):
    codes, atoms = bring
    Z, F, Z_true, F_true, mains = random_case(seed)
    Y = Z_true @ F_true
    if with_data:
        Y = Y + 0.3 * np.random.default_rng(seed + 100).standard_normal(Y.shape)
    expected = by_definition(Z, F, Z_true, F_true, mains, Y)
    assert expected.max() > 0.1  # the case exercises them
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 100)
    given = codes(Z), atoms(F), codes(Z_true), atoms(F_true), mains
    options = {"Y": atoms(Y)} if with_data else {}
    scores = metrics.absorption_scores(*given, **options)
    assert_allclose(to_numpy(scores.fraction), expected[0], rtol=1e-10)
    assert_allclose(to_numpy(scores.full), expected[1], rtol=1e-10)
    assert_allclose(to_numpy(metrics.absorption_rate(*given, **options).rate), expected[2], rtol=1e-10)


def test_turning_atoms_and_scaling_them_changes_nothing(rng):
    Z, F, Z_true, F_true, mains = random_case(0)
    factors = rng.choice([-2.0, 0.5, 1.0], F.shape[0])
    one = metrics.absorption_scores(Z, F, Z_true, F_true, mains)
    other = metrics.absorption_scores(Z / factors, factors[:, None] * F, Z_true, F_true, mains)
    assert_allclose(one.fraction, other.fraction)
    assert_allclose(one.full, other.full)


def test_a_feature_without_rows_is_left_out():
    Z, F, Z_true = family(0.0, 1.0)
    Z_true[:, 1] = 0
    result = metrics.absorption_rate(Z, F, Z_true, np.eye(2), [0, 1])
    assert_array_equal(result.rate, [0.5, np.nan])
    assert result.mean == 0.5


def test_no_rows_at_all_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="No true feature is on"):
        scores = metrics.absorption_scores(np.ones((2, 2)), np.eye(2), np.zeros((2, 2)), np.eye(2), [0, 1])
    assert np.isnan([scores.mean_fraction, scores.mean_full]).all()


def test_arguments_that_do_not_fit_are_named():
    Z, F, Z_true = family(0.0, 1.0)
    with pytest.raises(ValueError, match="Z and Z_true have 2 and 2 columns, but F and F_true 3 and 2 atoms"):
        metrics.absorption_rate(Z, np.ones((3, 2)), Z_true, np.eye(2), [0, 1])
    with pytest.raises(ValueError, match=r"Y has shape \(3, 2\), but Z and F are of data of shape \(2, 2\)"):
        metrics.absorption_rate(Z, F, Z_true, np.eye(2), [0, 1], Y=np.ones((3, 2)))
    with pytest.raises(ValueError, match="matching must hold the atoms of 2 true features; got those of 1"):
        metrics.absorption_rate(Z, F, Z_true, np.eye(2), [[0]])
    with pytest.raises(ValueError, match="index of one of the 2 atoms"):
        metrics.absorption_scores(Z, F, Z_true, np.eye(2), [[0, 2], [1]])


# Splitting


def test_a_feature_in_three_pieces_counts_three_atoms(bring):
    codes, _ = bring
    on = np.zeros(120, dtype=bool)
    on[:60] = True
    piece = np.arange(120) // 20
    Z = np.stack([piece == 2, np.zeros(120), piece == 0, piece == 4, -1.0 * (piece == 1), ~on], axis=1)
    Z_true = np.stack([on, ~on], axis=1) * 2.0
    result = metrics.feature_splitting(codes(Z), codes(Z_true))
    assert sorted(result.atoms[0]) == [0, 2, 4]
    assert_array_equal(result.atoms[1], [5])
    assert_array_equal(result.n_atoms, [3, 1])
    assert_allclose(to_numpy(result.f1), [1, 1])
    assert (result.mean, result.split_share) == (2.0, 0.5)
    assert metrics.feature_splitting(codes(Z), codes(Z_true), max_atoms=2).n_atoms[0] == 2


def test_an_atom_that_gains_less_than_the_threshold_is_no_split():
    on = np.arange(100) < 50
    Z = np.stack([np.arange(100) < 48, (np.arange(100) >= 48) & on], axis=1)  # F1 .98, then 1
    assert metrics.feature_splitting(Z, on[:, None]).n_atoms[0] == 1
    assert metrics.feature_splitting(Z, on[:, None], threshold=0.01).n_atoms[0] == 2


def test_splitting_finds_the_best_pair_that_exhaustive_search_finds(rng, monkeypatch):
    on = rng.random(200) < 0.4
    pieces = rng.integers(0, 2, 200)
    Z = rng.random((200, 8)) < 0.05
    Z[:, 5], Z[:, 2] = on & (pieces == 0), on & (pieces == 1)
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 100)
    result = metrics.feature_splitting(Z, on[:, None])
    assert sorted(result.atoms[0]) == [2, 5]
    assert_allclose(result.f1, 1.0)
    # Too few candidates, and the second piece is not looked at.
    assert metrics.feature_splitting(Z, on[:, None], n_candidates=1).n_atoms[0] == 1


def test_features_that_no_atom_detects_and_features_never_on():
    Z, Z_true = np.eye(4)[:, :1], np.array([[0.0, 0], [1, 0], [1, 0], [0, 0]])
    result = metrics.feature_splitting(Z, Z_true)
    assert [each.tolist() for each in result.atoms] == [[], []]
    assert_array_equal(result.f1, [0.0, np.nan])
    assert (result.mean, result.split_share) == (0.0, 0.0)
    with pytest.warns(UndefinedMetricWarning, match="nothing can be split"):
        assert np.isnan(metrics.feature_splitting(Z, 0 * Z_true).mean)


def test_splits_serve_as_the_own_atoms_of_absorption(rng):
    Z_true = np.array([[1.0, 0.0], [1.0, 1.0]])
    F, Z = np.array([[1.0, 0.0], [1.0, 1.0]]), np.eye(2)
    splits = metrics.feature_splitting(Z, Z_true)
    assert [each.tolist() for each in splits.atoms] == [[0, 1], [1]]
    # The child's atom now belongs to the parent, so nothing is absorbed.
    assert metrics.absorption_scores(Z, F, Z_true, np.eye(2), splits.atoms).mean_full == 0
    assert metrics.absorption_scores(Z, F, Z_true, np.eye(2), [0, 1]).full[0] == 0.5
