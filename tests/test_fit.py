# SPDX-License-Identifier: BSD-3-Clause
"""How the estimators train: units, seeds, labels, passes, warm starts, interruptions."""

import copy
import functools
import re
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

from .data import fvu, sparse_rows

SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "max_iter": 3, "random_state": 0}
NEURAL = [ProjectiveDictionaryLearning, TopKDictionaryLearning]
ALL = [*NEURAL, MethodOfOptimalDirections]


@pytest.fixture(scope="module")
def data():
    return sparse_rows()


FORMS = {
    "topk": functools.partial(TopKDictionaryLearning),
    "batch topk": functools.partial(TopKDictionaryLearning, selection="batch"),
    "relu": functools.partial(ReLUDictionaryLearning),
    "jumprelu": functools.partial(JumpReLUDictionaryLearning),
    "gated": functools.partial(GatedDictionaryLearning),
    "mod": functools.partial(MethodOfOptimalDirections),
    "exact": functools.partial(ProjectiveDictionaryLearning),
    "tied": functools.partial(ProjectiveDictionaryLearning, tied=True, encoder_loss="penalty"),
    "metric": functools.partial(ProjectiveDictionaryLearning, tied="metric"),
    "ridge": functools.partial(ProjectiveDictionaryLearning, penalty="ridge", alpha=0.1),
    "threshold": functools.partial(ProjectiveDictionaryLearning, selection="threshold"),
    "adaptive": functools.partial(ProjectiveDictionaryLearning, selection="adaptive"),
    "overlap": functools.partial(ProjectiveDictionaryLearning, overlap_penalty=0.05),
    **{
        f"{penalty} {quota} {loss}": functools.partial(
            ProjectiveDictionaryLearning, penalty=penalty, quota=quota, encoder_loss=loss
        )
        for penalty in ("inverse_square", "softplus")
        for quota in (None, "normalize", "sum", "penalize")
        for loss in ("coefficients", "penalty")
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_units_do_not_matter(data, form):
    X = data.astype(np.float32)
    small, large = (fvu(FORMS[form](**SMALL).fit(c * X), c * X) for c in (np.float32(1e-3), np.float32(1e3)))
    assert small == pytest.approx(large, rel=0.02)  # units round differently, and small changes grow in training
    assert small < 0.9


@pytest.mark.parametrize("Estimator", ALL)
def test_a_seed_fixes_every_bit(data, Estimator):
    first, again = (Estimator(**SMALL).fit(data) for _ in range(2))
    other = Estimator(**{**SMALL, "random_state": 1}).fit(data)
    np.testing.assert_array_equal(first.components_, again.components_)
    np.testing.assert_array_equal(first.transform(data), again.transform(data))
    assert not np.array_equal(first.components_, other.components_)


@pytest.mark.parametrize("Estimator", ALL)
def test_labels_change_nothing(data, Estimator):
    labels = np.arange(len(data)) % 3
    without, with_labels = Estimator(**SMALL).fit(data), Estimator(**SMALL).fit(data, labels)
    np.testing.assert_array_equal(without.components_, with_labels.components_)
    assert without.score(data) == with_labels.score(data, labels)


@pytest.mark.parametrize("Estimator", ALL)
def test_history_has_one_entry_an_iteration_and_falls(data, Estimator):
    model = Estimator(**{**SMALL, "max_iter": 6}).fit(data)
    lengths = {name: len(series) for name, series in model.history_.items()}
    assert set(lengths.values()) == {6}
    assert model.history_["step"][-1] == model.n_steps_
    assert model.history_["fvu"][-1] < model.history_["fvu"][0]
    assert model.n_iter_ == 6


@pytest.mark.parametrize("Estimator", NEURAL)
def test_max_steps_wins_over_max_iter(data, Estimator):
    model = Estimator(**{**SMALL, "max_steps": 5}).fit(data)
    assert model.n_steps_ == 5
    assert model.n_iter_ == 1


@pytest.mark.parametrize("Estimator", ALL)
def test_tolerance_stops_early(data, Estimator):
    model = Estimator(**{**SMALL, "max_iter": 60, "tol": 0.5}).fit(data)
    assert model.n_iter_ < 60


@pytest.mark.parametrize("Estimator", ALL)
def test_warm_start_goes_on_from_the_fitted_dictionary(data, Estimator):
    model = Estimator(**SMALL, warm_start=True).fit(data)
    before, steps = model.components_.copy(), model.n_steps_
    model.set_params(max_iter=1).fit(data)
    cosines = np.abs((before * model.components_).sum(axis=1))
    assert np.median(cosines) > 0.9
    assert model.n_steps_ > steps
    cold = clone(model).set_params(warm_start=False, random_state=1).fit(data)
    assert np.median(np.abs((before * cold.components_).sum(axis=1))) < np.median(cosines)


@pytest.mark.parametrize("Estimator", ALL)
def test_partial_fit_learns_from_batches(data, Estimator):
    model = Estimator(**SMALL)
    batches = np.split(data, 6)
    for batch in batches:
        model.partial_fit(batch)
    early = fvu(model, data)
    for _ in range(10):
        for batch in batches:
            model.partial_fit(batch)
    assert fvu(model, data) < early
    assert model.n_steps_ == 66


@pytest.mark.parametrize("Estimator", NEURAL)
def test_partial_fit_survives_a_pickle_with_its_moments(data, Estimator):
    import pickle

    model = Estimator(**SMALL).partial_fit(data[:300])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.partial_fit(data[300:]).components_, twin.partial_fit(data[300:]).components_)


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_maps_and_half_precision_are_read_in_place(tmp_path, Estimator, dtype):
    X = sparse_rows(n=60_000, d=64, p=64, k=2).astype(dtype)
    np.save(tmp_path / "rows.npy", X)
    size = X.nbytes
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    model = Estimator(n_components=16, n_nonzero_coefs=2, batch_size=256, max_iter=1, random_state=0)
    if Estimator is not MethodOfOptimalDirections:
        model.set_params(max_steps=5)
    model.set_params(sparse_output=True)
    model.fit(mapped[:20_000]).transform(mapped[:20_000])  # kernels are compiled by now, which takes memory once
    tracemalloc.start()
    model.fit(mapped[:60_000])
    model.transform(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Samples of 16384 rows in float64 (8 MiB, and temporaries of that size) and slabs are there; a copy of X would add
    # its whole size, 15 MiB in float32 and 7 MiB in half precision, in float64 even 30 MiB.
    assert model.components_.dtype == np.float32
    assert peak < 50 * 2**20 + size / 2
    in_memory = clone(model).fit(X)
    np.testing.assert_array_equal(model.components_, in_memory.components_)


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("init", ["data", "random", "svd"])
def test_named_starts(data, Estimator, init):
    model = Estimator(**{**SMALL, "init": init, "max_iter": 1}).fit(data)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_given_starts_are_used_and_left_alone(data, Estimator):
    start = np.random.default_rng(3).standard_normal((32, 16))
    kept = start.copy()
    still = {**SMALL, "max_steps": 1, "learning_rate": 1e-12}
    unit = start / np.linalg.norm(start, axis=1, keepdims=True)
    for init in (start, lambda rows, n_components, random_state: start):
        model = Estimator(init=init, **still).fit(data)
        np.testing.assert_allclose(model.components_, unit, atol=1e-9)
    np.testing.assert_array_equal(start, kept)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_data_start_takes_rows(data, Estimator):
    model = Estimator(init="data", **{**SMALL, "max_steps": 1, "learning_rate": 1e-12}).fit(data)
    centred = data - data.mean(axis=0)
    cosines = model.components_ @ (centred / np.linalg.norm(centred, axis=1, keepdims=True)).T
    np.testing.assert_allclose(cosines.max(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_a_diverging_loss_stops_and_keeps_the_last_good_weights(data, Estimator):
    X = data.astype(np.float32)
    fitted = Estimator(**{**SMALL, "max_iter": 25}).fit(X)
    good = fitted.score(X)
    assert good > 0.3
    for rate in (1e10, 1e30):
        model, message = copy.deepcopy(fitted).set_params(warm_start=True, learning_rate=rate), ""
        for _ in range(20):
            try:
                model.fit(X)
            except FloatingPointError as error:
                message = str(error)
                break
        assert re.search(r"step \d+.*Lower learning_rate.*last good weights", message)
        assert model.score(X) == pytest.approx(good, abs=0.1)
        for name in ("components_", "encoder_components_", "encoder_bias_", "mean_"):
            assert np.isfinite(getattr(model, name)).all()
    cold = Estimator(**{**SMALL, "max_iter": 50, "learning_rate": 1e30})
    with pytest.raises(FloatingPointError):
        cold.fit(X)
    assert cold.score(X) > -1  # the untrained start, not what the first step made of it
    assert cold.n_steps_ == cold.history_["step"][-1]


@pytest.mark.parametrize("Estimator", NEURAL)
def test_a_diverging_partial_fit_keeps_the_last_good_weights(data, Estimator):
    X = data.astype(np.float32)
    model = Estimator(**SMALL)
    for _ in range(30):
        model.partial_fit(X)
    good = model.score(X)
    model.set_params(learning_rate=1e30)
    stopped = False
    for _ in range(10):
        try:
            model.partial_fit(X)
        except FloatingPointError:
            stopped = True
            break
    assert stopped
    assert model.score(X) == pytest.approx(good, abs=0.1)


@pytest.mark.parametrize("Estimator", ALL)
def test_an_interrupted_fit_keeps_its_last_state(data, Estimator):
    class Interrupt:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            if context.task_name == "iteration" and context.task_id == 1:
                raise KeyboardInterrupt

    model = Estimator(**{**SMALL, "max_iter": 50}).set_callbacks(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        model.fit(data)
    assert model.transform(data).shape == (600, 32)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_gradients_have_norm_one_at_most(data, Estimator, monkeypatch):
    import torch

    from skprojdict.training.loop import Trainer

    seen = []
    plain = Trainer._shorten_gradient

    def spy(trainer, *known):
        norm = plain(trainer, *known)
        seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in trainer.parameters if p.grad is not None])))
        return norm

    monkeypatch.setattr(Trainer, "_shorten_gradient", spy)
    model = Estimator(**SMALL).fit(data)
    assert len(seen) == model.n_steps_
    assert max(seen) <= 1.0 + 1e-6
    assert not model._PACE.unit_gradient or min(seen) >= 1.0 - 1e-6


@pytest.mark.parametrize("Estimator", ALL)
def test_more_columns_than_rows_and_more_atoms_than_rows(Estimator):
    X = np.random.default_rng(0).standard_normal((12, 40))
    model = Estimator(n_components=80, n_nonzero_coefs=4, max_iter=2, random_state=0).fit(X)
    assert np.isfinite(model.transform(X)).all()


def test_a_new_fit_forgets_the_parts_of_the_last_form(data):
    options = {**SMALL, "penalty": "inverse_square", "tied": True, "selection": "threshold"}
    model = ProjectiveDictionaryLearning(**options).fit(data)
    assert {"encoder_gain_", "importance_gain_", "threshold_"} <= set(vars(model))
    model.set_params(penalty="exact", tied=False, selection="top_k").fit(data)
    assert not {"encoder_gain_", "importance_gain_", "threshold_"} & set(vars(model))
    fresh = ProjectiveDictionaryLearning(**SMALL, selection="top_k").fit(data)
    np.testing.assert_array_equal(model.transform(data), fresh.transform(data))


def test_training_does_not_go_on_with_another_form(data):
    model = ProjectiveDictionaryLearning(**SMALL).fit(data).set_params(tied=True)
    with pytest.raises(ValueError, match=r"lacks encoder_gain_.*warm_start=False"):
        model.partial_fit(data)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_parameters_may_change_between_batches(data, Estimator):
    model = Estimator(**SMALL).partial_fit(data)
    twin = copy.deepcopy(model)
    model.partial_fit(data)
    twin.set_params(n_nonzero_coefs=8).partial_fit(data)
    assert not np.array_equal(model.components_, twin.components_)
    still = copy.deepcopy(model).set_params(learning_rate=1e-12).partial_fit(data)
    np.testing.assert_allclose(still.components_, model.components_, atol=1e-9)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_training_goes_on_with_the_same_sizes_only(data, Estimator):
    model = Estimator(**SMALL, warm_start=True).fit(data)
    with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 16"):
        model.fit(data[:, :5])
    for train in (model.set_params(n_components=50).fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"n_components=50 asks for 50 atoms.*32 fitted.*warm_start=False"):
            train(data)
    assert model.set_params(n_components=32).transform(data).shape == (600, 32)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_a_batch_of_another_dtype_keeps_the_dictionarys(data, Estimator):
    model = Estimator(**SMALL).fit(data.astype(np.float32)).partial_fit(data)
    assert model.components_.dtype == np.float32


@pytest.mark.parametrize("Estimator", ALL)
def test_a_large_mean_is_not_mistaken_for_no_variance(data, Estimator):
    near, far = Estimator(**SMALL).fit(data), Estimator(**SMALL).fit(1e7 + data)
    assert far.scale_ == pytest.approx(near.scale_, rel=1e-6)
    assert fvu(far, 1e7 + data) == pytest.approx(fvu(near, data), abs=1e-3)


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_scores_hold_in_extreme_units(data, Estimator, unit):
    X = data.astype(np.float32)
    model = Estimator(**SMALL).fit(X)
    scaled = np.float32(unit) * X
    assert Estimator(**SMALL).fit(scaled).score(scaled) == pytest.approx(model.score(X), abs=1e-3)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_integers_on_disk_are_read_in_place(tmp_path, Estimator):
    X = np.random.default_rng(0).integers(0, 255, (400_000, 32), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    tracemalloc.start()
    model = Estimator(16, n_nonzero_coefs=2, max_steps=3, random_state=0).fit(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * X.nbytes  # what a copy in float64 would take alone
    assert model.components_.dtype == np.float64


@pytest.mark.parametrize("Estimator", NEURAL)
def test_tensors_with_a_gradient_leave_none_behind(Estimator, data):
    import sklearn
    import torch

    X = torch.from_numpy(data).requires_grad_()
    with sklearn.config_context(array_api_dispatch=True):
        model = Estimator(**SMALL).fit(X)
        assert not model.components_.requires_grad
        assert not model.transform(X).requires_grad
