# SPDX-License-Identifier: BSD-3-Clause
"""Top rows and usage of features: against sorting and counting the whole code matrix, on every kind of input."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import NotFittedError
from sklearn.utils._array_api import get_namespace_and_device, move_estimator_to

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning
from skprojdict.inspection import feature_usage, top_activating_rows
from skprojdict.metrics import usage_per_feature

from .data import sparse_rows

X = sparse_rows(n=300)


class Identity(TransformerMixin, BaseEstimator):
    """Codes are the rows themselves, so that a test can write them down; remembers the sizes of its chunks."""

    def fit(self, X, y=None):
        self.chunks_ = []
        return self

    def transform(self, X):
        self.chunks_.append(X.shape[0])
        return X


@pytest.fixture(scope="module")
def model():
    return ProjectiveDictionaryLearning(32, n_nonzero_coefs=3, max_iter=3, random_state=0).fit(X)


def by_sorting(codes, feature, n, magnitude=False):
    column = codes[:, feature]
    key = np.abs(column) if magnitude else column
    order = [row for row in np.lexsort((np.arange(len(key)), -key)) if column[row] != 0]
    return np.array(order[:n])


@pytest.mark.parametrize("chunk_size", [17, 300, 1000, "auto"])
@pytest.mark.parametrize("by", ["coefficient", "magnitude"])
def test_top_rows_are_those_of_a_sort(model, chunk_size, by):
    codes = model.transform(X)
    rows, coefficients = top_activating_rows(model, X, 3, 8, by=by, chunk_size=chunk_size)
    expected = by_sorting(codes, 3, 8, by == "magnitude")
    assert rows.dtype == np.int64
    assert_array_equal(rows, expected)
    assert_allclose(coefficients, codes[expected, 3], rtol=1e-10)


CODES = np.array([[0.0, 2.0, -1.0], [1.0, 2.0, 0.0], [3.0, 0.0, -5.0], [0.0, 2.0, 0.0], [3.0, 0.0, 2.0]])


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_order_ties_and_rows_that_do_not_fire(chunk_size):
    identity = Identity().fit(CODES)

    def top(*arguments, **options):
        return [part.tolist() for part in top_activating_rows(identity, CODES, *arguments, **options)]

    assert top(0, 2, chunk_size=chunk_size) == [[2, 4], [3.0, 3.0]]
    assert top(1, 2, chunk_size=chunk_size) == [[0, 1], [2.0, 2.0]]
    assert top(2, 5, chunk_size=chunk_size) == [[4, 0, 2], [2.0, -1.0, -5.0]]
    assert top(2, 2, by="magnitude", chunk_size=chunk_size) == [[2, 4], [-5.0, 2.0]]
    assert top([1, 0], 4, chunk_size=chunk_size) == [[[0, 1, 3, -1], [2, 4, 1, -1]], [[2, 2, 2, 0], [3, 3, 1, 0]]]


def test_several_features_take_one_pass(model):
    identity = Identity().fit(CODES)
    top_activating_rows(identity, CODES, np.array([0, 1, 2]), chunk_size=2)
    assert identity.chunks_ == [2, 2, 1]
    rows, coefficients = top_activating_rows(model, X, [5, 0], 3)
    for i, feature in enumerate((5, 0)):
        one = top_activating_rows(model, X, feature, 3)
        assert_array_equal(rows[i], one[0])
        assert_array_equal(coefficients[i], one[1])


def test_a_feature_that_never_fires():
    rows, coefficients = top_activating_rows(Identity().fit(CODES), np.zeros((4, 3)), 1)
    assert rows.shape == coefficients.shape == (0,)


@pytest.mark.parametrize("chunk_size", [17, "auto"])
def test_usage_is_that_of_the_whole_code(model, chunk_size):
    codes = model.transform(X)
    usage, expected = feature_usage(model, X, chunk_size=chunk_size), usage_per_feature(codes)
    assert_array_equal(usage.n_rows, (codes != 0).sum(axis=0))
    assert usage.n_rows.dtype == np.int64
    for name in ("density", "mean", "mean_magnitude", "negative_share"):
        assert_allclose(usage[name], expected[name], atol=1e-12, err_msg=name)
    assert usage.n_samples == 300
    assert usage.l0 == pytest.approx((codes != 0).sum(axis=1).mean())
    assert usage.overall_negative_share == pytest.approx((codes < 0).sum() / (codes != 0).sum())


def test_usage_by_hand():
    usage = feature_usage(Identity().fit(CODES), CODES, chunk_size=2)
    assert usage.n_rows.tolist() == [3, 3, 3]
    assert_allclose(usage.density, 0.6)
    assert_allclose(usage.mean, [7 / 3, 2, -4 / 3])
    assert_allclose(usage.mean_magnitude, [7 / 3, 2, 8 / 3])
    assert_allclose(usage.negative_share, [0, 0, 2 / 3])
    assert usage.l0 == pytest.approx(9 / 5)
    assert usage.overall_negative_share == pytest.approx(2 / 9)


def test_usage_where_nothing_fires():
    usage = feature_usage(Identity().fit(CODES), np.zeros((4, 3)))
    assert usage.l0 == 0.0
    assert math.isnan(usage.overall_negative_share)
    assert_array_equal(usage.mean_magnitude, np.zeros(3))


def test_memory_maps_in_half_precision_are_read_in_chunks(model, tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    codes = model.transform(X.astype(np.float16))
    rows, coefficients = top_activating_rows(model, mapped, 3, 5, chunk_size=50)
    assert_array_equal(rows, by_sorting(codes, 3, 5))
    assert_allclose(coefficients, codes[rows, 3], rtol=1e-6)
    assert_array_equal(feature_usage(model, mapped, chunk_size=50).n_rows, (codes != 0).sum(axis=0))


def test_results_follow_x(model, backend):
    expected_rows, expected = top_activating_rows(model, X, [3, 4], 5)
    with sklearn.config_context(array_api_dispatch=True):
        Xb = backend.asarray(X)
        xp, _, device = get_namespace_and_device(Xb)
        moved = move_estimator_to(model, xp, device)
        rows, coefficients = top_activating_rows(moved, Xb, [3, 4], 5, chunk_size=64)
        usage = feature_usage(moved, Xb, chunk_size=64)
    for part in (rows, coefficients, usage.mean):
        assert type(part) is type(Xb)
        assert getattr(part, "device", None) == getattr(Xb, "device", None)
    assert_array_equal(backend.to_numpy(rows), expected_rows)
    assert_allclose(backend.to_numpy(coefficients), expected, rtol=1e-8)
    assert_array_equal(usage.n_rows, feature_usage(model, X).n_rows)


def test_sparse_codes_and_dataframes(model):
    expected = top_activating_rows(model, X, [3, 4], 5)
    usage = feature_usage(model, X)
    compressed = MethodOfOptimalDirections(32, n_nonzero_coefs=3, max_iter=1, random_state=0, sparse_output=True).fit(X)
    dense = sklearn.base.clone(compressed).set_params(sparse_output=False).fit(X)
    found = top_activating_rows(compressed, X, [3, 4], 5, chunk_size=70)
    for one, other in zip(found, top_activating_rows(dense, X, [3, 4], 5), strict=True):
        assert isinstance(one, np.ndarray)
        assert_allclose(one, other, rtol=1e-10)
    assert_allclose(feature_usage(compressed, X).mean, feature_usage(dense, X).mean, rtol=1e-10)
    names = [f"c{i}" for i in range(X.shape[1])]
    for frame, kind in ((pd.DataFrame(X, columns=names), "pandas"), (pl.DataFrame(X, schema=names), "polars")):
        framed = sklearn.base.clone(model).set_output(transform=kind).fit(frame)
        rows, coefficients = top_activating_rows(framed, frame, [3, 4], 5, chunk_size=70)
        assert_array_equal(rows, expected[0])
        assert_allclose(coefficients, expected[1], rtol=1e-8)
        assert_array_equal(feature_usage(framed, frame, chunk_size=70).n_rows, usage.n_rows)


def test_estimators_of_scikit_learn():
    learner = MiniBatchDictionaryLearning(
        20, transform_algorithm="omp", transform_n_nonzero_coefs=2, max_iter=2, random_state=0
    ).fit(X)
    codes = learner.transform(X)
    rows, coefficients = top_activating_rows(learner, X, 1, 4, chunk_size=100)
    assert_array_equal(rows, by_sorting(codes, 1, 4))
    assert_allclose(coefficients, codes[rows, 1])


@pytest.mark.parametrize("feature", [32, -1, [0, 32]])
def test_features_out_of_range_are_refused_after_one_chunk(model, feature):
    with pytest.raises(ValueError, match="the codes have 32 columns: pass numbers from 0 to 31"):
        top_activating_rows(model, X, feature, chunk_size=10)


@pytest.mark.parametrize("feature", [1.0, True, "3", [], [[1]], None])
def test_what_is_no_feature_is_refused(model, feature):
    with pytest.raises(ValueError, match="feature must be an integer"):
        top_activating_rows(model, X, feature)


def test_other_refusals(model):
    with pytest.raises(ValueError, match="The 'n' parameter"):
        top_activating_rows(model, X, 0, 0)
    with pytest.raises(ValueError, match="The 'by' parameter"):
        top_activating_rows(model, X, 0, by="size")
    with pytest.raises(ValueError, match="The 'estimator' parameter"):
        feature_usage(object(), X)
    for function in (lambda e, x: top_activating_rows(e, x, 0), feature_usage):
        with pytest.raises(NotFittedError):
            function(ProjectiveDictionaryLearning(), X)
        with pytest.raises(ValueError, match="expecting 16 features"):
            function(model, X[:, :5])
        with pytest.raises(ValueError, match="0 sample"):
            function(model, X[:0])
