# SPDX-License-Identifier: BSD-3-Clause
"""Features that fire together or imply each other: their frequencies, their dependence and their bookkeeping."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal, norm

from skprojdict.datasets import make_correlated_features, make_hierarchical_features

SMALL = {"n_features": 6, "n_components": 12, "n_nonzero": 3.0}


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_correlation_leaves_the_frequencies_alone(correlation):
    data = make_correlated_features(40_000, **SMALL, correlation=correlation, block_size=4, random_state=0)
    assert data.probabilities.sum() == pytest.approx(3.0)
    assert data.probabilities.max() == 0.5
    assert_allclose((data.codes != 0).mean(axis=0), data.probabilities, atol=0.012)
    assert_allclose(data.X, data.codes @ data.dictionary)
    assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)


def both(a, b, rho):
    """The probability that two atoms of frequencies a and b fire together under a Gaussian copula."""
    return multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf([norm.ppf(a), norm.ppf(b)])


def test_blocks_fire_together_as_the_copula_says():
    data = make_correlated_features(60_000, **SMALL, correlation=0.7, block_size=4, random_state=0)
    on, p = (data.codes != 0).astype(float), data.probabilities
    together = on.T @ on / on.shape[0]
    for i, j in [(0, 1), (4, 7), (8, 9)]:
        assert together[i, j] == pytest.approx(both(p[i], p[j], 0.7), abs=0.01)
        assert together[i, j] > 1.4 * p[i] * p[j]
    for i, j in [(0, 4), (3, 4), (7, 11)]:
        assert together[i, j] == pytest.approx(p[i] * p[j], abs=0.01)


def test_a_matrix_may_make_atoms_avoid_each_other():
    correlation = np.eye(12)
    correlation[0, 1] = correlation[1, 0] = -0.8
    correlation[2, 3] = correlation[3, 2] = 0.8
    data = make_correlated_features(60_000, **SMALL, correlation=correlation, zipf_exponent=0.0, random_state=0)
    on = data.codes != 0
    assert_allclose(data.probabilities, 0.25)
    assert (on[:, 0] & on[:, 1]).mean() == pytest.approx(both(0.25, 0.25, -0.8), abs=0.005)
    assert (on[:, 2] & on[:, 3]).mean() == pytest.approx(both(0.25, 0.25, 0.8), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"correlation": 1.0}, "The 'correlation' parameter"),
        ({"correlation": -0.1}, "The 'correlation' parameter"),
        ({"correlation": np.eye(11)}, r"correlation has shape \(11, 11\)"),
        ({"correlation": 2 * np.eye(12)}, "diagonal of ones"),
        ({"correlation": np.full((12, 12), -1.0) + 2 * np.eye(12)}, "negative eigenvalue"),
        ({"n_nonzero": 7}, "n_nonzero=7 is more than 6"),
    ],
)
def test_correlation_errors_name_parameter_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_correlated_features(10, **{**SMALL, **arguments})


def test_children_imply_their_parent_and_exclude_each_other():
    data = make_hierarchical_features(20_000, random_state=0)
    assert data.X.shape == (20_000, 96)
    assert data.codes.shape == (20_000, 256)
    on = data.codes != 0
    assert_array_equal(np.bincount(data.parents[data.parents >= 0], minlength=32), 3)
    assert (data.parents == -1).sum() == 160
    children = np.flatnonzero(data.parents >= 0)
    assert_array_equal(children, np.arange(32, 128))
    assert not (on[:, children] & ~on[:, data.parents[children]]).any()
    per_parent = on[:, children].reshape(-1, 32, 3).sum(axis=2)
    assert per_parent.max() == 1
    parent_rows = on[:, :32]
    assert per_parent[parent_rows].mean() == pytest.approx(0.6, abs=0.01)
    assert_allclose(data.X, data.codes @ data.dictionary)
    assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)


def test_frequencies_are_the_promised_ones():
    data = make_hierarchical_features(40_000, random_state=1)
    on = data.codes != 0
    assert data.probabilities.sum() == pytest.approx(6.0)
    assert on.sum(axis=1).mean() == pytest.approx(6.0, abs=0.06)
    assert_allclose(on.mean(axis=0), data.probabilities, atol=0.012)
    assert_allclose(data.probabilities[32:35], 0.2 * data.probabilities[0])
    # Parents are neither the frequent nor the rare ones: both kinds run through the same range.
    assert data.probabilities[:32].mean() == pytest.approx(data.probabilities[128:].mean(), rel=0.5)


def test_a_parent_always_with_one_child():
    data = make_hierarchical_features(
        3000,
        n_features=8,
        n_parents=2,
        n_children=4,
        n_independent=0,
        n_nonzero=1,
        child_probability=0.25,
        random_state=0,
    )
    on = data.codes != 0
    assert_array_equal(on[:, :2], on[:, 2:].reshape(-1, 2, 4).any(axis=2))
    assert_array_equal(data.parents, [-1, -1, 0, 0, 0, 0, 1, 1, 1, 1])


def test_more_rows_of_the_same_tree():
    first = make_hierarchical_features(10, random_state=0)
    second = make_hierarchical_features(10, dictionary=first.dictionary, random_state=1)
    assert_array_equal(second.dictionary, first.dictionary)
    assert_array_equal(second.probabilities, first.probabilities)


@pytest.mark.parametrize("make", [make_correlated_features, make_hierarchical_features])
def test_a_seed_decides_everything(make):
    data = make(20, noise=0.1, positive=False, random_state=3)
    for name, values in make(20, noise=0.1, positive=False, random_state=3).items():
        assert_array_equal(values, data[name])
    assert not np.array_equal(data.X, make(20, noise=0.1, positive=False, random_state=4).X)
    clean = data.codes @ data.dictionary
    assert np.linalg.norm(data.X - clean) == pytest.approx(0.1 * np.linalg.norm(clean))
    assert (data.codes < 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"child_probability": 0.4}, "lower one of the two"),
        ({"n_nonzero": 200}, "n_nonzero=200 is more than"),
        ({"dictionary": np.ones((3, 96))}, r"pass an array of shape \(256, 96\)"),
        ({"n_parents": 0}, "The 'n_parents' parameter"),
    ],
)
def test_hierarchy_errors_name_parameter_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_hierarchical_features(10, **arguments)
