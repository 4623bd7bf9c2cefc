# SPDX-License-Identifier: BSD-3-Clause
"""Closed cases of every metric, on every array library at hand."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import r2_score
from sklearn.preprocessing import normalize

from skprojdict import metrics
from skprojdict._array import to_numpy


@pytest.fixture(params=["numpy", "array_api_strict", "torch"])
def xp(request):
    """Array libraries a metric must accept."""
    return importlib.import_module(request.param)


@pytest.fixture(params=["numpy", "array_api_strict", "torch", "csr"])
def codes(request):
    """Bring codes to each container that a metric must accept."""
    if request.param == "csr":
        return lambda Z: sparse.csr_array(np.asarray(Z, dtype=np.float64))
    return importlib.import_module(request.param).asarray


def test_fvu_is_one_minus_the_variance_weighted_r2(xp):
    rng = np.random.RandomState(0)
    Y = rng.standard_normal((50, 4)) * [1.0, 2.0, 3.0, 4.0] + 7
    Y_hat = Y + 0.3 * rng.standard_normal(Y.shape)
    fvu = metrics.fraction_of_variance_unexplained(xp.asarray(Y), xp.asarray(Y_hat))
    assert isinstance(fvu, float)
    assert_allclose(fvu, 1 - r2_score(Y, Y_hat, multioutput="variance_weighted"), rtol=1e-12)


def test_fvu_of_perfect_and_constant_reconstructions():
    Y = np.arange(12.0).reshape(4, 3)
    assert metrics.fraction_of_variance_unexplained(Y, Y) == 0.0
    assert_allclose(metrics.fraction_of_variance_unexplained(Y, np.broadcast_to(Y.mean(axis=0), Y.shape)), 1.0)


def test_fvu_in_half_precision_does_not_overflow():
    Y = np.full((4, 100), 1000.0, dtype=np.float16)
    Y[:2] *= -1
    assert_allclose(metrics.fraction_of_variance_unexplained(Y, Y * np.float16(0.5)), 0.25)


def test_fvu_without_variance_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="do not vary"):
        assert np.isnan(metrics.fraction_of_variance_unexplained(np.ones((1, 3)), np.ones((1, 3))))


def test_fvu_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and Y_hat \(2, 2\)"):
        metrics.fraction_of_variance_unexplained(np.ones((2, 3)), np.ones((2, 2)))


def test_shrinkage_is_the_mean_ratio_of_norms(xp, rng):
    Y = rng.standard_normal((20, 3))
    factors = rng.random((20, 1))
    Y[3] = 0  # has no ratio
    expected = np.mean(np.delete(factors, 3))
    assert_allclose(metrics.shrinkage(xp.asarray(Y), xp.asarray(-factors * Y)), expected)
    with pytest.warns(UndefinedMetricWarning, match="Every row of Y is zero"):
        assert np.isnan(metrics.shrinkage(xp.asarray(0 * Y), xp.asarray(Y)))


def test_a_projection_loses_norm_but_has_no_reconstruction_bias(xp, rng):
    Y = rng.standard_normal((30, 6))
    basis = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    Y_hat = Y @ basis @ basis.T
    assert metrics.shrinkage(xp.asarray(Y), xp.asarray(Y_hat)) < 0.8
    assert_allclose(metrics.relative_reconstruction_bias(xp.asarray(Y), xp.asarray(Y_hat)), 1.0)
    assert_allclose(metrics.relative_reconstruction_bias(xp.asarray(Y), xp.asarray(0.7 * Y_hat)), 0.7)


def test_reconstruction_bias_is_the_inverse_of_the_best_factor(rng):
    Y, Y_hat = rng.standard_normal((2, 30, 6)) + 1
    factor = np.linalg.lstsq(Y_hat.reshape(-1, 1), Y.ravel(), rcond=None)[0][0]
    assert_allclose(metrics.relative_reconstruction_bias(Y, Y_hat), 1 / factor)
    with pytest.warns(UndefinedMetricWarning, match="orthogonal"):
        assert np.isnan(metrics.relative_reconstruction_bias(Y, 0 * Y))


@pytest.mark.parametrize("metric", [metrics.shrinkage, metrics.relative_reconstruction_bias])
def test_measures_of_shrinkage_name_both_shapes(metric):
    with pytest.raises(ValueError, match=r"\(2, 3\) and Y_hat \(2, 2\)"):
        metric(np.ones((2, 3)), np.ones((2, 2)))


def test_l0_and_unused_atoms(xp):
    Z = xp.asarray(np.array([[1.0, 0.0, -2.0, 0.0], [0.0, 0.0, 3.0, 0.0]]))
    assert metrics.l0(Z) == 1.5
    assert metrics.n_unused(Z) == 2
    assert metrics.unused_share(Z) == 0.5


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_stored_zeros_of_a_sparse_matrix_do_not_count(container):
    Z = container(([1.0, 0.0, 2.0], ([0, 0, 1], [0, 1, 0])), shape=(2, 3))
    assert metrics.l0(Z) == 1.0
    assert metrics.n_unused(Z) == 2


def test_codes_may_be_nested_lists():
    assert metrics.l0([[1, 0], [1, 1]]) == 1.5


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((0, 3)), np.ones((1, 2, 3))])
def test_metrics_name_the_argument_and_its_shape(bad):
    with pytest.raises(ValueError, match="Z must be 2-d with at least one row; got shape"):
        metrics.l0(bad)


def test_mutual_coherence(xp, monkeypatch):
    F = np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 2.0], [0.0, 0.0]])
    assert_allclose(metrics.mutual_coherence(xp.asarray(F)), np.sqrt(0.5))
    assert metrics.mutual_coherence(xp.asarray(np.eye(3))) == 0.0
    monkeypatch.setattr(metrics._inputs, "BLOCK", 2)
    assert_allclose(metrics.mutual_coherence(xp.asarray(F)), np.sqrt(0.5))


def test_nearest_cosines(xp, rng, monkeypatch):
    F = rng.standard_normal((7, 3))
    cosines = normalize(F) @ normalize(F).T - 3 * np.eye(7)
    monkeypatch.setattr(metrics._inputs, "BLOCK", 3)
    given = xp.asarray(F)
    nearest = metrics.nearest_cosines(given, signed=True)
    assert type(nearest) is type(given)
    assert_allclose(to_numpy(nearest), cosines.max(axis=1))
    absolute = np.abs(normalize(F) @ normalize(F).T) - np.eye(7)
    assert_allclose(to_numpy(metrics.nearest_cosines(given)), absolute.max(axis=1))
    assert_allclose(metrics.mutual_coherence(given), absolute.max())


def test_nearest_cosines_of_a_single_atom_and_of_opposite_ones():
    assert metrics.nearest_cosines(np.ones((1, 3))).tolist() == [0.0]
    assert_allclose(metrics.nearest_cosines(np.array([[1.0], [-2.0]]), signed=True), [-1.0, -1.0])


# Usage


def test_usage_per_feature(codes, rng, monkeypatch):
    Z = rng.standard_normal((50, 5)) * (rng.random((50, 5)) < [0.1, 0.5, 0.9, 0.3, 0.0])
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 35)
    given = codes(Z)
    usage = metrics.usage_per_feature(given)
    active = np.ma.masked_equal(Z, 0)
    assert_array_equal(usage.n_rows, active.count(axis=0))
    assert_allclose(to_numpy(usage.density), active.count(axis=0) / 50)
    assert_allclose(to_numpy(usage.mean), active.mean(axis=0).filled(0), rtol=1e-12)
    assert_allclose(to_numpy(usage.mean_magnitude), np.abs(active).mean(axis=0).filled(0), rtol=1e-12)
    assert_allclose(to_numpy(usage.negative_share), (active < 0).mean(axis=0).filled(0))
    assert_allclose(to_numpy(metrics.firing_density(given)), active.count(axis=0) / 50)
    assert isinstance(usage.mean, np.ndarray) if sparse.issparse(given) else type(usage.mean) is type(given)
    assert_allclose(metrics.negative_share(given), (Z < 0).sum() / (Z != 0).sum())


def test_usage_summary_agrees_with_its_parts(codes):
    Z = np.array([[1.0, 0.0, -2.0, 0.0], [0.0, 0.0, 3.0, 0.0], [1.0, 0.0, -1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    assert metrics.usage_summary(codes(Z), dense_threshold=0.5) == {
        "l0": 7 / 4,
        "negative_share": 2 / 7,
        "n_unused": 1,
        "unused_share": 0.25,
        "dense_share": 0.5,
        "median_density": 0.75,
    }


def test_dense_is_more_than_the_threshold(codes):
    Z = np.tri(10, 4) * [1.0, 1.0, -1.0, 0.0]  # densities 1, .9, .8, 0
    assert metrics.dense_share(codes(Z), threshold=0.8) == 0.5
    assert metrics.dense_share(codes(Z)) == 0.75


def test_histogram_of_firing_densities(codes):
    rows = [0, 1, 1, 9, 10, 99, 1000]
    Z = np.arange(1000)[:, None] < rows
    histogram = metrics.firing_density_histogram(codes(1.0 * Z), n_bins=3)
    assert_allclose(histogram.log10_edges, [-3, -2, -1, 0])
    assert_array_equal(histogram.counts, [3, 2, 1])
    assert histogram.n_unused == 1


def test_every_atom_is_in_the_histogram_for_any_number_of_rows():
    for n in (2, 3, 7, 49, 1000, 12345):
        Z = sparse.csr_array((np.ones(n + 1), (np.r_[0, np.arange(n)], np.r_[0, np.ones(n, dtype=int)])), shape=(n, 2))
        assert metrics.firing_density_histogram(Z).counts[[0, -1]].tolist() == [1, 1]


@pytest.mark.parametrize(("n", "n_bins"), [(1, 20), (5, 0)])
def test_histogram_says_what_it_needs(n, n_bins):
    with pytest.raises(ValueError, match=f"got {n} rows and n_bins={n_bins}"):
        metrics.firing_density_histogram(np.ones((n, 2)), n_bins=n_bins)


def test_codes_without_a_coefficient_have_no_sign():
    with pytest.warns(UndefinedMetricWarning, match="No coefficient is active"):
        assert np.isnan(metrics.negative_share(np.zeros((2, 3))))


def test_codes_may_be_booleans(xp):
    fires = xp.asarray(np.array([[True, False], [True, True]]))
    assert metrics.l0(fires) == 1.5
    assert metrics.negative_share(fires) == 0.0
    assert_allclose(to_numpy(metrics.usage_per_feature(fires).mean), [1, 1])


# Effective dimension


def dimension_of_definition(F, penalties):
    G = F @ F.T
    return np.trace(G @ np.linalg.inv(G + np.diag(penalties)))


@pytest.mark.parametrize("per_coefficient", [False, True])
def test_effective_dimension_is_the_trace_of_the_ridge_projection(codes, per_coefficient, rng, monkeypatch):
    Z = rng.standard_normal((12, 9)) * (rng.random((12, 9)) < 0.5)
    Z[4] = 0
    F = rng.standard_normal((9, 5))
    precisions = 0.1 + rng.random((12, 9)) if per_coefficient else np.full((12, 9), 0.7)
    expected = [dimension_of_definition(F[z != 0], 1 / s[z != 0]) for z, s in zip(Z, precisions, strict=True)]
    monkeypatch.setattr(metrics._inputs, "BLOCK_ENTRIES", 30)
    given = codes(precisions) if per_coefficient else 0.7
    atoms = F if isinstance(codes(Z), sparse.csr_array) else codes(F)
    value = metrics.effective_dimension(codes(Z), atoms, precisions=given)
    assert isinstance(value, float)
    assert_allclose(value, np.mean(expected))
    # The estimate: orthogonal atoms of the same norms and penalties.
    scaled = np.where(Z != 0, precisions * np.sum(F**2, axis=1), 0)
    estimate = metrics.effective_dimension(codes(Z), atoms, precisions=given, estimate=True)
    assert_allclose(estimate, np.mean(np.sum(scaled / (1 + scaled), axis=1)))
    assert estimate > value


def test_effective_dimension_of_orthonormal_atoms_meets_the_estimate(rng):
    F = np.linalg.qr(rng.standard_normal((6, 4)))[0].T
    Z = rng.standard_normal((8, 4))
    values = [metrics.effective_dimension(Z, F, precisions=3.0, estimate=estimate) for estimate in (False, True)]
    assert_allclose(values, [3.0, 3.0])


def test_effective_dimension_without_a_penalty_is_the_rank(codes):
    F = np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [1.0, 1.0, 0]])
    Z = np.array([[1.0, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    atoms = F if isinstance(codes(Z), sparse.csr_array) else codes(F)
    assert metrics.effective_dimension(codes(Z), atoms) == (1 + 2 + 0 + 0) / 4
    # The estimate counts every atom that is not zero.
    assert metrics.effective_dimension(codes(Z), atoms, estimate=True) == (2 + 3 + 0 + 0) / 4


def test_effective_dimension_names_what_does_not_fit():
    with pytest.raises(ValueError, match="Z has 3 columns and F 2 atoms"):
        metrics.effective_dimension(np.ones((2, 3)), np.eye(2))
    with pytest.raises(ValueError, match=r"of shape \(2, 2\); got \(2,\)"):
        metrics.effective_dimension(np.ones((2, 2)), np.eye(2), precisions=np.ones(2))
    for bad in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="precisions must be finite and at least 0"):
            metrics.effective_dimension(np.ones((2, 2)), np.eye(2), precisions=bad)


# Recovery of known atoms


def test_recovery_of_a_permuted_dictionary_is_perfect(xp):
    F_true = np.random.RandomState(0).standard_normal((6, 4))
    F = -3.0 * F_true[::-1]
    assert_allclose(metrics.mean_max_cosine_similarity(xp.asarray(F), xp.asarray(F_true)), 1.0)
    assert_allclose(metrics.mean_correlation_after_matching(xp.asarray(F), xp.asarray(F_true)), 1.0)
    assert metrics.mean_max_cosine_similarity(xp.asarray(F), xp.asarray(F_true), signed=True) < 0.9


def test_matching_uses_an_atom_once():
    F_true = np.array([[1.0, 0.0], [0.0, 1.0]])
    F = np.array([[1.0, 1.0], [1.0, -0.0]])
    # Both true atoms see the diagonal atom at sqrt(1/2), but the first has a perfect partner of its own.
    assert_allclose(metrics.mean_correlation_after_matching(F, F_true), (1 + np.sqrt(0.5)) / 2)
    assert_allclose(metrics.mean_max_cosine_similarity(F[:1], F_true), np.sqrt(0.5))
    # One learned atom for two true ones: the one without a partner counts as 0.
    assert_allclose(metrics.mean_correlation_after_matching(F[1:], F_true), 0.5)


def test_signed_matching_refuses_the_opposite_direction():
    F_true = np.array([[1.0, 0.0]])
    assert_allclose(metrics.mean_correlation_after_matching(-F_true, F_true), 1.0)
    assert_allclose(metrics.mean_correlation_after_matching(-F_true, F_true, signed=True), -1.0)


def test_dictionaries_of_two_spaces_are_refused():
    with pytest.raises(ValueError, match="atoms of 2 entries and F_true of 3"):
        metrics.mean_max_cosine_similarity(np.eye(2), np.eye(3))
