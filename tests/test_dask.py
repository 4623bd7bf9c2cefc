# SPDX-License-Identifier: BSD-3-Clause
"""Dask arrays: a fit where the chunks are equals the one at hand, and what is transformed stays lazy."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning, _lazy
from skprojdict.sources import UnreadableRowsError

from .data import sparse_rows

da = pytest.importorskip("dask.array", reason="dask is not installed")
dask = pytest.importorskip("dask")

X = sparse_rows(n=300, d=6, p=12, k=2)
CHUNKS = ((90, 1, 120, 89), (4, 2))
SMALL = {"n_components": 12, "n_nonzero_coefs": 2, "random_state": 0, "max_iter": 2}
ALL = [TopKDictionaryLearning, ProjectiveDictionaryLearning, MethodOfOptimalDirections]


def mod(**options):
    return MethodOfOptimalDirections(**{**SMALL, "algorithm": "full", "max_iter": 6, **options})


def chunked(rows=X):
    return da.from_array(rows, chunks=CHUNKS)


@pytest.fixture(autouse=True)
def _in_this_thread():
    """Without a cluster Dask would start threads of its own."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as workers,
        distributed.Client(workers) as client,
    ):
        yield client


def assert_equal_fits(one, other, tolerance):
    assert_allclose(one.components_, other.components_, atol=tolerance)
    assert_allclose(one.mean_, other.mean_, atol=tolerance)
    assert one.scale_ == pytest.approx(other.scale_, rel=tolerance)
    assert_array_equal(one.n_activations_, other.n_activations_)
    assert one.n_resampled_ == other.n_resampled_
    assert_allclose(one.history_["loss"], other.history_["loss"], rtol=tolerance)
    assert (one.n_iter_, one.n_steps_, one.n_features_in_) == (other.n_iter_, other.n_steps_, other.n_features_in_)


# ---- fit


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4), ("float16", 1e-4)])
def test_a_fit_where_the_chunks_are_is_the_fit_at_hand(dtype, tolerance, rng):
    rows = X.astype(dtype)
    init = X[[*range(10), 0, 1]]  # two atoms twice, which residuals from all over the rows replace
    init[10:] += 0.01 * rng.standard_normal((2, 6))  # but for a little: between equal atoms rounding would choose
    at_hand = mod(init=init).fit(rows)
    model = mod(init=init).fit(chunked(rows))
    assert at_hand.n_resampled_ > 0
    assert_equal_fits(model, at_hand, tolerance)
    assert isinstance(model.components_, np.ndarray)
    assert model.components_.dtype == at_hand.components_.dtype


@pytest.mark.parametrize("options", [{"coder": "omp"}, {"n_nonzero_coefs": 3, "coder_tol": 0.3}, {"init": "svd"}])
def test_options_reach_the_chunks(options):
    assert_equal_fits(mod(**options).fit(chunked()), mod(**options).fit(X), 1e-8)


def test_a_pass_reads_each_chunk_once_and_rows_stay_where_they_are():
    read = []

    def spied(block, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"][0])
        return block

    rows = da.from_array(X, chunks=(75, 6)).map_blocks(spied, dtype=X.dtype, meta=X[:0])
    mod(max_iter=3).fit(rows)
    assert sorted(read) == sorted(list(range(4)) * 4)  # one pass for mean and starting atoms, three to learn


def test_a_later_fit_starts_from_the_fitted_atoms():
    one = mod(max_iter=2).fit(X).set_params(warm_start=True, max_iter=3)
    other = mod(max_iter=2).fit(chunked()).set_params(warm_start=True, max_iter=3)
    assert_equal_fits(other.fit(chunked()), one.fit(X), 1e-8)


def test_chunks_without_rows_and_more_chunks_than_a_merge_takes():
    rows = da.concatenate([da.from_array(part, chunks=-1) for part in np.split(X, [7, *range(10, 300, 10)])])
    rows = rows.rechunk(((0, *rows.chunks[0][:3], 0, *rows.chunks[0][3:]), 6))
    assert len(rows.chunks[0]) > 30
    assert_equal_fits(mod().fit(rows), mod().fit(X), 1e-8)


# ---- transform


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_codes_are_lazy_and_the_same(Estimator, dtype):
    model = Estimator(**SMALL).fit(X.astype(dtype))
    computed = []

    def spied(block, block_info=None):
        if block_info:
            computed.append(block_info[0]["chunk-location"][0])
        return block

    codes = model.transform(chunked(X.astype(dtype)).rechunk((75, 6)).map_blocks(spied, dtype=dtype, meta=X[:0]))
    assert isinstance(codes, da.Array)
    assert (codes.shape, codes.dtype, codes.chunks) == ((300, 12), dtype, ((75, 75, 75, 75), (12,)))
    assert computed == []
    at_hand = model.transform(X.astype(dtype))
    assert_allclose(codes[80:100].compute(), at_hand[80:100], atol=1e-6)
    assert computed == [1]
    assert_allclose(codes.compute(), at_hand, atol=1e-6)
    decoded = model.inverse_transform(codes)
    assert isinstance(decoded, da.Array)
    assert (decoded.shape, decoded.dtype) == ((300, 6), dtype)
    assert_allclose(decoded.compute(), model.inverse_transform(at_hand), atol=1e-5)


@pytest.mark.parametrize("Estimator", ALL)
def test_sparse_codes_are_csr_chunk_by_chunk(Estimator):
    model = Estimator(**SMALL, sparse_output=True).fit(X)
    codes = model.transform(chunked())
    assert codes.shape == (300, 12)
    for i, start in enumerate([0, 90, 91, 211]):
        block = codes.blocks[i].compute()
        assert block.format == "csr"
        assert_allclose(block.toarray(), model.transform(X[start : start + block.shape[0]]).toarray(), atol=1e-6)
    whole = codes.compute()
    assert sparse.issparse(whole)
    assert_allclose(whole.toarray(), model.transform(X).toarray(), atol=1e-6)
    assert_allclose(model.inverse_transform(codes).compute(), model.inverse_transform(whole), atol=1e-6)


def test_codes_are_of_the_dictionary_as_it_was():
    model = mod().fit(X)
    expected = model.transform(X)
    codes = model.transform(chunked())
    model.set_params(n_nonzero_coefs=1, random_state=5).fit(X[::-1])
    assert_allclose(codes.compute(), expected, atol=1e-9)


def test_what_is_sent_does_not_hold_the_training():
    model = TopKDictionaryLearning(**SMALL).partial_fit(X)
    sent = _lazy._coder(model)
    assert len(pickle.dumps(sent)) < 0.6 * len(pickle.dumps(model))  # no moments of Adam's, no history
    assert_array_equal(sent.transform(X), model.transform(X))


def test_chunks_come_to_where_the_dictionary_is():
    import sklearn
    import torch

    with sklearn.config_context(array_api_dispatch=True):
        model = TopKDictionaryLearning(**SMALL).fit(torch.from_numpy(X))
        codes = model.transform(chunked()).compute()
        assert isinstance(codes, np.ndarray)
        assert_allclose(codes, model.transform(torch.from_numpy(X)).numpy(), atol=1e-6)


def test_output_containers():
    pandas = pytest.importorskip("pandas")
    model = mod().fit(X).set_output(transform="pandas")
    assert isinstance(model.transform(chunked()), pandas.DataFrame)


# ---- faults


def test_rows_that_are_not_finite_are_named():
    bad = X.copy()
    bad[95, 2] = np.nan
    message = r"row 95 \(row 4 of chunk 2 of the Dask array\)"
    with pytest.raises(ValueError, match=message):
        mod().fit(chunked(bad))
    codes = mod().fit(X).transform(chunked(bad))
    with pytest.raises(ValueError, match=message):
        codes.compute()
    assert np.isfinite(codes[:90].compute()).all()


def test_a_file_that_is_gone_is_said():
    def gone(block, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 1:
            raise FileNotFoundError("rows/1.npy")
        return block

    rows = chunked().rechunk((100, 6)).map_blocks(gone, dtype=X.dtype, meta=X[:0])
    with pytest.raises(UnreadableRowsError, match=r"a chunk of the Dask array cannot be read.*rows/1\.npy"):
        mod().fit(rows)


def test_what_cannot_be_transformed():
    model = mod().fit(X)
    with pytest.raises(ValueError, match="X has 4 features, but MethodOfOptimalDirections is expecting 6"):
        model.transform(chunked()[:, :4])
    with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
        model.transform(chunked()[chunked()[:, 0] > 0])
    with pytest.raises(ValueError, match="one column for each of the 12 atoms"):
        model.inverse_transform(chunked())
    with pytest.raises(ValueError, match="holds all rows in memory"):
        mod(update="ksvd").fit(chunked())


# ---- several processes


def test_two_workers_fit_and_transform(cluster):
    with dask.config.set(scheduler=cluster):
        model = mod().fit(chunked())
        at_hand = mod().fit(X)
        assert_equal_fits(model, at_hand, 1e-8)
        neural = ProjectiveDictionaryLearning(**SMALL).fit(X)
        for each in (model, neural):
            assert_allclose(each.transform(chunked()).compute(), each.transform(X), atol=1e-6)
        bad = X.copy()
        bad[95, 2] = np.nan
        with pytest.raises(ValueError, match="row 4 of chunk 2"):
            mod().fit(chunked(bad))


def test_a_search_runs_on_the_workers(cluster):
    """The recipe of docs/scale.md."""
    import joblib
    from sklearn.model_selection import GridSearchCV

    with dask.config.set(scheduler=cluster):
        grid = {"n_nonzero_coefs": [1, 2], "coder": ["omp", "ols"]}
        at_hand = GridSearchCV(mod(), grid, cv=2).fit(X)
        with joblib.parallel_config(backend="dask"):
            search = GridSearchCV(mod(), grid, cv=2).fit(X)
        assert search.best_params_ == at_hand.best_params_
        assert_allclose(search.cv_results_["mean_test_score"], at_hand.cv_results_["mean_test_score"], atol=1e-8)
