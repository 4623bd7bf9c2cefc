# SPDX-License-Identifier: BSD-3-Clause
"""Estimators on rows that lie elsewhere: the same as on rows at hand, resumed to the last bit, and faults are named."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.sources import ForwardRows, UnreadableRowsError, open_rows, order
from skprojdict.training.loop import Trainer

from .data import sparse_rows
from .test_sources import KINDS, dask_array, shards

X = sparse_rows(n=300, d=6, p=12, k=2).astype(np.float32)
SMALL = {"n_components": 12, "n_nonzero_coefs": 2, "batch_size": 64, "random_state": 0}
ALL = [TopKDictionaryLearning, ProjectiveDictionaryLearning, MethodOfOptimalDirections]


def make(Estimator=TopKDictionaryLearning, **options):
    return Estimator(**{**SMALL, "max_iter": 2, **options})


def assert_same(one, other):
    fitted = {name for name in vars(one) if name.endswith("_") and not name.startswith("feature_names")}
    for name in fitted:
        assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks and windows in 300 rows of 24 bytes."""
    monkeypatch.setattr("skprojdict.sources.opening.BLOCK_BYTES", 20 * 24)
    monkeypatch.setattr(order, "WINDOW_BYTES", 90 * 24)


@pytest.fixture(autouse=True)
def _no_thread_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "skprojdict-rows"]


# ---- the same as at hand


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_the_rows_does_not_matter(tmp_path, kind):
    cuts = {shards: [40, 41, 200], dask_array: [90, 180, 270]}.get(kind, [])
    model = make(max_steps=3).fit(open_rows(kind(X, tmp_path)))
    assert_same(model, make(max_steps=3).fit(open_rows(np.split(X, cuts))))
    assert model.n_features_in_ == 6


@pytest.mark.parametrize("Estimator", ALL)
def test_transform_and_score_read_what_fit_read(tmp_path, Estimator, small_blocks, monkeypatch):
    monkeypatch.setattr("skprojdict.sources.ahead.SLAB_BYTES", 50 * 24)
    paths = shards(X, tmp_path)
    model = make(Estimator).fit(paths)
    at_hand = make(Estimator).fit(X)
    assert_array_equal(model.transform(paths), model.transform(X))
    assert model.score(paths) == pytest.approx(model.score(X), abs=1e-9)
    assert model.score(X) == pytest.approx(at_hand.score(X), abs=0.05)
    assert model.scale_ == at_hand.scale_  # the mean and the sample rows are those of the array
    codes = model.set_params(sparse_output=True).transform(paths)
    assert codes.format == "csr"
    assert_array_equal(codes.toarray(), model.set_params(sparse_output=False).transform(X))


def test_full_passes_do_not_depend_on_where_the_rows_lie(tmp_path, small_blocks):
    options = {"algorithm": "full", "max_iter": 3}
    at_hand = make(MethodOfOptimalDirections, **options).fit(X)
    model = make(MethodOfOptimalDirections, **options).fit(shards(X, tmp_path))
    assert_allclose(model.components_, at_hand.components_, atol=1e-5)
    assert_array_equal(model.n_activations_, at_hand.n_activations_)


def test_a_batch_that_lies_elsewhere_is_one_step(tmp_path):
    for Estimator in ALL:
        model, at_hand = make(Estimator), make(Estimator)
        for part in (X[:200], X[200:]):
            paths = shards(part, tmp_path)
            model.partial_fit(paths)
            at_hand.partial_fit(part)
        assert_same(model, at_hand)
        assert model.n_steps_ == 2


def test_two_views_that_lie_elsewhere(tmp_path, small_blocks):
    y = 2 * X[:, :4]
    paths = shards(X, tmp_path)
    model = make(ProjectiveDictionaryLearning, target="y", max_steps=4).fit(paths, y)
    twin = make(ProjectiveDictionaryLearning, target="y", max_steps=4).fit(paths, [y[:100], y[100:]])
    assert_same(model, twin)
    assert_array_equal(model.predict(paths), model.predict(X))
    for given in ((paths, y), (paths, [y[:7], y[7:]]), (X, [y[:7], y[7:]])):
        assert model.score(*given) == pytest.approx(model.score(X, y), abs=1e-6)
        assert_allclose(model.project(*given), model.project(X, y), atol=1e-6)
    with pytest.raises(ValueError, match="X has 300 rows and y 299"):
        model.score(paths, [y[1:]])
    with pytest.raises(ValueError, match="X has 300 rows and y 299"):
        model.fit(paths, y[1:])


def test_labels_are_still_ignored(tmp_path):
    labels = ["a", "b", "c"] * 100
    assert_same(make(max_steps=2).fit(X, labels), make(max_steps=2).fit(X))
    make(max_steps=1).fit(shards(X, tmp_path), labels)
    make().partial_fit(X, labels)


def test_rows_come_to_where_the_dictionary_is(tmp_path):
    import sklearn
    import torch

    with sklearn.config_context(array_api_dispatch=True):
        model = make(max_steps=3).fit(torch.from_numpy(X))
        codes = model.transform(shards(X, tmp_path))
        assert isinstance(codes, torch.Tensor)
        assert torch.equal(codes, model.transform(torch.from_numpy(X)))
        model.set_params(warm_start=True).fit(shards(X, tmp_path))
    assert isinstance(model.components_, np.ndarray)


def test_rows_are_read_in_order_and_no_further_than_needed():
    source = open_rows([X])
    rows = ForwardRows(source, lambda data: data)
    assert_array_equal(rows[0:10], X[:10])
    assert_array_equal(rows[0:10, ...], X[:10])
    assert_array_equal(rows[200:], X[200:])
    with pytest.raises(IndexError, match="forwards: 100 was asked for after 200"):
        rows[100:]
    rows._slabs.close()


# ---- nothing lost


@pytest.fixture
def stop_at(monkeypatch):
    def stop(n):
        original, done = Trainer.step, iter(range(n))

        def step(*args, **kwargs):
            if next(done, None) is None:
                monkeypatch.setattr(Trainer, "step", original)
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        monkeypatch.setattr(Trainer, "step", step)

    return stop


@pytest.mark.parametrize("at", [1, 4, 5, 7, 11])
def test_a_fit_on_shards_resumes_to_the_last_bit(tmp_path, small_blocks, stop_at, at):
    """In the middle of a window, where a window ends, where a pass ends (4 steps), and in a later pass."""
    paths = shards(X, tmp_path)
    whole = make(max_steps=14).fit(paths)
    options = {"max_steps": 14, "checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 1}
    stop_at(at)
    with pytest.raises(KeyboardInterrupt):
        make(**options).fit(paths)
    resumed = make(**options).fit(paths, resume=True)
    assert_same(resumed, whole)
    assert resumed.history_ == whole.history_


@pytest.mark.parametrize("cut", [41, None])
def test_the_same_rows_in_other_shards_are_another_order(tmp_path, small_blocks, stop_at, cut):
    options = {"max_steps": 9, "checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 1}
    stop_at(3)
    with pytest.raises(KeyboardInterrupt):
        make(**options).fit([X[:40], X[40:]])
    with pytest.raises(ValueError, match="its rows were read in another order"):
        make(**options).fit(X if cut is None else [X[:cut], X[cut:]], resume=True)


# ---- faults


@pytest.mark.parametrize("Estimator", ALL)
def test_a_row_that_is_not_finite_is_named(tmp_path, Estimator):
    bad = X.copy()
    bad[150, 2] = np.inf
    paths = shards(bad, tmp_path)
    with pytest.raises(ValueError, match=r"row 150 \(row 109 of .*2\.npy\)"):
        make(Estimator).fit(paths)
    model = make(Estimator, max_iter=1).fit(X)
    for method in (model.transform, model.score, model.partial_fit):
        with pytest.raises(ValueError, match=r"row 150 \(row 109 of .*2\.npy\)"):
            method(paths)


@pytest.mark.parametrize("Estimator", ALL)
def test_a_shard_that_vanishes_in_the_middle_of_a_fit(tmp_path, small_blocks, Estimator):
    paths = shards(X, tmp_path)
    model = make(Estimator, max_iter=50)

    class Vanishing:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, metadata=None):
            if paths[2].exists():
                paths[2].unlink()
            return False

    with pytest.raises(UnreadableRowsError, match=r"2\.npy cannot be read any more.*FileNotFoundError"):
        model.set_callbacks(Vanishing()).fit(paths)
    assert np.isfinite(model.components_).all()  # what was learnt is there
    assert model.n_steps_ >= 4


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("missing.npy", FileNotFoundError, r"missing\.npy: no such file"),
        ([X[:1]], ValueError, "found 1 sample"),
        ([X[:3, :0]], ValueError, r"0 feature\(s\)"),
    ],
)
def test_what_cannot_be_fitted(given, error, message):
    for Estimator in ALL:
        with pytest.raises(error, match=message):
            make(Estimator).fit(given)


def test_other_columns_than_at_fit():
    model = make(max_steps=1).fit([X])
    with pytest.raises(ValueError, match="X has 4 features, but TopKDictionaryLearning is expecting 6"):
        model.transform([X[:, :4]])


def test_ksvd_needs_its_rows_at_hand(tmp_path):
    model = make(MethodOfOptimalDirections, update="ksvd", algorithm="full")
    with pytest.raises(ValueError, match=r"holds all rows in memory.*open_rows\(X\)\[:\]"):
        model.fit(shards(X, tmp_path))


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Windows of 256 KiB, and 16 MiB of rows."""
    import tracemalloc

    monkeypatch.setattr(order, "WINDOW_BYTES", 2**18)
    monkeypatch.setattr("skprojdict.sources.opening.BLOCK_BYTES", 2**14)
    monkeypatch.setattr("skprojdict.training.rows.SLAB_BYTES", 2**18)
    monkeypatch.setattr("skprojdict.sources.ahead.SLAB_BYTES", 2**18)
    rows = np.tile(X[:256].astype(np.float16), (5462, 1))
    np.save(tmp_path / "rows.npy", rows)
    size = rows.nbytes
    del rows
    model = make(max_steps=20, dead_after=1e9, sparse_output=True).fit(X)  # imports come first
    peaks = []
    for n in (1, 4):  # as many rows as the sample has, and four times as many
        source = open_rows([tmp_path / "rows.npy"] * n)
        tracemalloc.start()
        model.fit(source)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + size / 16
