# SPDX-License-Identifier: BSD-3-Clause
"""Closed cases of every metric, on every array library at hand."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import r2_score

from skprojdict import metrics


@pytest.fixture(params=["numpy", "array_api_strict", "torch"])
def xp(request):
    """Array libraries a metric must accept."""
    return importlib.import_module(request.param)


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
