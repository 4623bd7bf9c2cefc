# SPDX-License-Identifier: BSD-3-Clause
"""Rows read a batch at a time, units, dead features, schedule, starting weights and the loop that must lose nothing."""

import itertools
import tracemalloc
from functools import partial

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict.solvers.initial import geometric_median, initial_components, linear_map
from skprojdict.training import autograd
from skprojdict.training.dead import DeadFeatures
from skprojdict.training.loop import NonFiniteLossError, Trainer
from skprojdict.training.losses import learn_threshold, projective_loss, select_in_batch, topk_loss
from skprojdict.training.pace import Pace, schedule
from skprojdict.training.rows import BatchOrder, Rows, Views, measure_units, steps_per_pass
from skprojdict.training.spare import SpareWeights
from skprojdict.training.start import fresh_weights
from skprojdict.training.weights import Weights

CPU = torch.device("cpu")


# ---- rows


@pytest.fixture
def big_map(tmp_path, rng):
    """(20 000, 64) half-precision rows on disk: 2.5 MB, or 10 MB as float64."""
    X = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.float16, shape=(20_000, 64))
    X[:] = rng.standard_normal((20_000, 64)) + np.arange(64)
    X.flush()
    del X
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def peak_of(function):
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_maps_stay_on_disk_and_in_half_precision(big_map):
    rows = Rows(big_map, torch.float32, CPU)
    assert rows.source is big_map
    assert isinstance(rows.source, np.memmap)
    assert rows.source.dtype == np.float16
    picks = np.sort(np.random.default_rng(1).choice(20_000, 100, replace=False))
    batch, peak = peak_of(lambda: rows.take(picks))
    assert batch.dtype == torch.float32
    assert_array_equal(batch.numpy(), np.asarray(big_map[picks], dtype=np.float32))
    assert peak < 200_000  # a hundred rows of 64, some copies of them, and not 2.5 MB


def test_units_of_a_memory_map_read_slabs(big_map, rng, monkeypatch):
    monkeypatch.setattr("skprojdict._chunks.SLAB_BYTES", 512 * 1024)
    random_state = np.random.RandomState(0)
    units, peak = peak_of(lambda: measure_units(big_map, big_map, n_sample=500, center="mean", rng=random_state))
    assert peak < 1_500_000
    truth = np.asarray(big_map, dtype=np.float64).mean(axis=0)
    assert_allclose(units.mean_out, truth, atol=1e-9)
    assert units.sample_out.shape == (500, 64)
    assert units.sample_out.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, ">f4"])
@pytest.mark.parametrize("picks", [np.array([3, 0, 3]), slice(1, 4)])
def test_rows_of_every_kind_of_array(dtype, picks):
    X = np.arange(12).reshape(4, 3).astype(dtype)
    frozen = X.copy()
    frozen.flags.writeable = False
    sources = [X, np.asfortranarray(X), X[::-1][::-1], frozen]
    if dtype in (np.float32, np.float64):
        sources += [torch.from_numpy(X), array_api_strict.asarray(X)]
    for source in sources:
        batch = Rows(source, torch.float64, CPU).take(picks)
        assert batch.dtype == torch.float64
        assert_array_equal(batch.numpy(), np.arange(12.0).reshape(4, 3)[picks])
        if isinstance(source, np.ndarray):
            batch += 100.0  # a batch is one's own
    assert_array_equal(X, np.arange(12).reshape(4, 3))


def test_tensors_are_shared(rng):
    X = torch.from_numpy(rng.standard_normal((5, 3)))
    assert Rows(X, torch.float32, CPU).source.data_ptr() == X.data_ptr()
    assert not Rows(X.requires_grad_(), torch.float64, CPU).take(slice(0, 2)).requires_grad


def test_views_scale_each_side(rng):
    X, Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    inputs, targets = Views(X, Y, 2.0, 4.0, torch.float64, CPU).take(np.array([1, 5]))
    assert_allclose(inputs, X[[1, 5]] / 2)
    assert_allclose(targets, Y[[1, 5]] / 4)
    inputs, targets = Views(Y, Y, 2.0, 4.0, torch.float64, CPU).take(slice(0, 2))
    assert inputs is None
    assert_allclose(targets, Y[:2] / 4)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_batches_of_a_pass_are_whole_and_disjoint(n, batch_size):
    order = BatchOrder(n, batch_size, np.random.RandomState(0))
    size, count = min(n, batch_size), steps_per_pass(n, batch_size)
    assert count == max(1, n // batch_size)
    for _ in range(2):
        one_pass = [next(order) for _ in range(count)]
        assert all(len(batch) == size for batch in one_pass)
        seen = np.concatenate(one_pass)
        assert len(set(seen.tolist())) == count * size
        assert 0 <= seen.min() <= seen.max() < n


def test_passes_differ_and_seeds_repeat():
    def first(seed, count):
        return [batch.tolist() for batch in itertools.islice(BatchOrder(50, 10, np.random.RandomState(seed)), count)]

    assert first(0, 5) != first(0, 10)[5:]
    assert first(3, 10) == first(3, 10) != first(4, 10)


# ---- units


def test_units_centre_by_the_mean_of_all_rows_and_scale_to_mean_norm_one(rng):
    X = 30 * rng.standard_normal((400, 5)) + 7
    for n_sample in (1000, 100):
        units = measure_units(X, X, n_sample=n_sample, center="mean", rng=np.random.RandomState(0))
        assert_allclose(units.mean_out, X.mean(axis=0))
        assert units.mean_in is units.mean_out
        assert np.linalg.norm(units.sample_out, axis=1).mean() == pytest.approx(1)
        assert units.sample_out.shape[0] == min(400, n_sample)
        scaled = units.sample_out * units.scale_out + units.mean_out
        assert all(np.isclose(X, row).all(axis=1).any() for row in scaled[:20])
    whole = measure_units(X, X, n_sample=1000, center="mean", rng=np.random.RandomState(0))
    assert whole.scale_out == pytest.approx(np.linalg.norm(X - X.mean(axis=0), axis=1).mean())


def test_units_of_two_views_take_the_same_rows(rng):
    X = rng.standard_normal((300, 4))
    Y = np.concatenate([5 * X + 1, X], axis=1)
    units = measure_units(X, Y, n_sample=50, center="mean", rng=np.random.RandomState(0))
    assert_allclose(units.mean_in, X.mean(axis=0))
    raw_in = units.sample_in * units.scale_in + units.mean_in
    raw_out = units.sample_out * units.scale_out + units.mean_out
    assert_allclose(raw_out[:, 4:], raw_in)


@pytest.mark.parametrize("xp", [torch, array_api_strict])
def test_units_do_not_depend_on_the_library(rng, xp):
    X = rng.standard_normal((100, 4))
    given = xp.asarray(X)
    ours = measure_units(given, given, n_sample=30, center="mean", rng=np.random.RandomState(0))
    truth = measure_units(X, X, n_sample=30, center="mean", rng=np.random.RandomState(0))
    for one, other in zip(ours, truth, strict=True):
        assert_allclose(one, other, rtol=1e-12)


def test_geometric_median_ignores_an_outlier(rng):
    X = rng.standard_normal((201, 3))
    X[0] = 1e6
    units = measure_units(X, X, n_sample=1000, center="geometric_median", rng=np.random.RandomState(0))
    assert np.abs(units.mean_out).max() < 0.5

    def cost(m):
        return np.linalg.norm(X - m, axis=1).sum()

    median = geometric_median(X)
    nudges = 1e-2 * rng.standard_normal((50, 3))
    assert all(cost(median) <= cost(median + nudge) for nudge in nudges)
    assert_allclose(geometric_median(np.array([[1.0, 2.0]] * 4)), [1.0, 2.0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_a_view_without_variance_has_scale_zero(value):
    X = np.full((50, 7), value)
    for center in ("mean", "geometric_median"):
        units = measure_units(X, X, n_sample=20, center=center, rng=np.random.RandomState(0))
        assert units.scale_out == 0
        assert np.isfinite(units.sample_out).all()


# ---- starting weights


@pytest.mark.parametrize("init", ["data", "random", "svd"])
@pytest.mark.parametrize("p", [3, 40])
def test_initial_atoms_are_unit_rows(rng, init, p):
    sample = rng.standard_normal((10, 5))
    sample[:3] = 0
    F = initial_components(init, sample, p, np.random.RandomState(0))
    assert F.shape == (p, 5)
    assert_allclose(np.linalg.norm(F, axis=1), 1)
    assert_array_equal(F, initial_components(init, sample, p, np.random.RandomState(0)))
    if init == "data":
        lines = sample[3:] / np.linalg.norm(sample[3:], axis=1, keepdims=True)
        assert_allclose((F[: min(p, 7)] @ lines.T).max(axis=1), 1)
        assert len(np.unique(F[:7].round(9), axis=0)) == min(p, 7)
    if init == "svd":
        leading = np.linalg.svd(sample)[2][: min(p, 5)]
        assert_allclose(np.abs((F[: min(p, 5)] * leading).sum(axis=1)), 1)


@pytest.mark.parametrize("init", ["data", "random", "svd"])
def test_initial_atoms_of_nothing(init):
    F = initial_components(init, np.zeros((4, 3)), 6, np.random.RandomState(0))
    assert_allclose(np.linalg.norm(F, axis=1), 1)


def test_linear_map_is_ridge_regression(rng):
    A, W = rng.standard_normal((500, 4)), rng.standard_normal((3, 4))
    assert_allclose(linear_map(A, A @ W.T, ridge=1e-12), W, atol=1e-8)
    assert (linear_map(np.zeros((5, 4)), rng.standard_normal((5, 3))) == 0).all()


def start(rng, *, n_components=12, d=6, dtype=torch.float64, seed=0, **parts):
    sample = rng.standard_normal((50, d))
    settings = {"tied": False, "importance": False, "head": False, "threshold": False, "input_mean": None}
    return fresh_weights(
        sample,
        sample,
        components=None,
        init="data",
        n_components=n_components,
        k=3,
        mean=np.zeros(d),
        rng=np.random.RandomState(seed),
        dtype=dtype,
        device=CPU,
        **{**settings, **parts},
    )


def test_encoder_starts_at_the_decoder_but_in_its_own_memory(rng):
    weights = start(rng)
    assert torch.equal(weights.encoder, weights.components)
    assert weights.encoder.data_ptr() != weights.components.data_ptr()
    tied = start(rng, tied=True)
    assert tied.encoder is None
    assert torch.equal(tied.encoder_gain, torch.ones_like(tied.bias))


def test_a_metric_starts_at_the_plain_inner_product(rng):
    sample = torch.from_numpy(rng.standard_normal((20, 6)))
    plain, metric = (start(np.random.default_rng(1), tied=True, metric=wanted) for wanted in (False, True))
    assert_allclose(metric.all_scores(metric.seen(sample)), plain.all_scores(plain.seen(sample)))
    metric.encoder_metric.mul_(2)
    assert_allclose(metric.all_scores(metric.seen(sample)), 2 * plain.all_scores(sample))


def test_gradient_of_the_metric_is_that_of_the_regression(rng):
    """Against finite differences; the support and what is solved for do not change in so small a step."""
    weights = start(rng, tied=True, metric=True)
    weights.encoder_metric.add_(0.2 * torch.from_numpy(rng.standard_normal((6, 6))))
    X = torch.from_numpy(rng.standard_normal((60, 6)))
    nobody = torch.zeros(12, dtype=torch.bool)

    def value():
        options = {"overlap_penalty": 0.0, "prefixes": [(12, 3)], "auxk": 2, "auxk_coef": 0.0}
        given = weights, X, X, nobody
        return projective_loss(
            *given, coding=coding(candidate_factor=2.0, n_refinements=0), encoder_loss="coefficients", **options
        ).loss

    weights.trainable()
    value().backward()
    found, step = weights.encoder_metric.grad.clone(), 1e-7
    assert found.abs().max() > 0.1
    with torch.no_grad():
        for i, j in [(0, 0), (1, 4), (5, 2)]:
            ends = []
            for sign in (1, -2):
                weights.encoder_metric[i, j] += sign * step
                ends.append(value().item())
            weights.encoder_metric[i, j] += step
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(found[i, j].item(), rel=1e-5)


def test_importance_starts_where_penalties_are_moderate(rng):
    weights = start(rng, importance=True)
    sample = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 6)))
    top = torch.topk(weights.all_scores(sample) * weights.importance_gain, 3).values.clamp_min(0)
    assert top.pow(2).mean().sqrt().item() == pytest.approx(3)


def test_gradient_is_projected_off_the_atoms_and_norms_restored(rng):
    weights = start(rng)
    weights.trainable()
    weights.components.grad = torch.from_numpy(rng.standard_normal((12, 6)))
    raw = weights.components.grad.clone()
    weights.project_gradient()
    assert_allclose((weights.components.grad * weights.components).sum(1).detach(), 0, atol=1e-14)
    difference = (raw - weights.components.grad).detach()
    assert_allclose(difference, ((raw * weights.components).sum(1, keepdim=True) * weights.components).detach())
    with torch.no_grad():
        weights.components.mul_(torch.arange(1.0, 13.0)[:, None])
    weights.renormalise()
    assert_allclose(weights.components.norm(dim=1).detach(), 1)


# ---- dead features and thresholds


def test_dead_features_are_counted_in_rows():
    dead = DeadFeatures(5, 4, CPU)
    indices = torch.tensor([[0, 1], [0, 2], [0, 0]])
    fired = torch.tensor([[True, True], [True, False], [True, False]])
    dead.update(indices, fired)
    assert dead.activations.tolist() == [3, 1, 0, 0, 0]
    assert dead.rows_since.tolist() == [0, 0, 3, 3, 3]
    assert not dead.mask().any()
    dead.update(indices[:1], fired[:1])
    assert not dead.mask().any()  # four rows are not more than four
    dead.update(torch.tensor([[3, 3]]), torch.tensor([[True, False]]))
    assert dead.rows_since.tolist() == [1, 1, 5, 0, 5]
    assert dead.mask().tolist() == [False, False, True, False, True]
    assert dead.activations.tolist() == [4, 2, 0, 1, 0]


def test_threshold_moves_to_the_batch_cut():
    scores = torch.tensor([[5.0, 4.0, 3.0, -1.0], [2.0, 1.0, 0.5, 0.2]])
    threshold = torch.zeros(())
    support, cut = select_in_batch(scores, 2)
    np.testing.assert_array_equal(support.indices[support.active], [0, 1, 2, 0])
    learn_threshold(threshold, cut)
    assert threshold.item() == 2.0  # the first batch sets it: four scores are at least 2
    learn_threshold(threshold, cut + 1, momentum=0.75)
    assert threshold.item() == pytest.approx(2.25)
    negative = torch.zeros(())
    learn_threshold(negative, select_in_batch(-scores.abs(), 2)[1])
    assert negative.item() == 0


# ---- pace


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
def test_schedule_warms_up_and_decays(n):
    rates = np.array([schedule(i, n) for i in range(n)])
    assert ((rates > 0) & (rates <= 1)).all()
    assert rates.max() == 1
    peak = np.flatnonzero(rates == 1)
    assert (np.diff(rates[: peak[0] + 1]) > 0).all()
    assert (np.diff(rates[peak[-1] :]) < 0).all()
    if n == 100:
        assert peak[0] == 4
        assert peak[-1] == 10
        assert rates[-1] == pytest.approx(1 / 90)


def test_pace_has_a_largest_rate_and_a_decay_of_its_own():
    pace = Pace(rate=0.4, largest_rate=0.02, decay=0.5)
    assert pace.peak(100) == 0.02
    assert pace.peak(1600) == pytest.approx(0.01)
    assert [pace.factor(i, 100) for i in (4, 50, 75, 99)] == pytest.approx([1, 1, 0.5, 0.02])


# ---- the loop


def coding(penalty="exact", **changes):
    return {
        "k": 3,
        "penalty": {"penalty": penalty, "alpha": 1.0, "quota": None, "quota_strength": None},
        "solve": {"exact": penalty == "exact"},
        **changes,
    }


def make_loss(name, p=12):
    aux = {"auxk": 2, "auxk_coef": 1 / 32}
    if name == "topk":
        return partial(topk_loss, k=3, **aux)
    kind = {"encoder_loss": "coefficients", "overlap_penalty": 0.0, "prefixes": [(p, 3)], **aux}
    if name == "threshold":
        return partial(projective_loss, coding=coding("softplus", selection="threshold"), **kind)
    if name == "tied exact":
        return partial(projective_loss, coding=coding(), **{**kind, "encoder_loss": "penalty"})
    return partial(projective_loss, coding=coding(name), **kind)


PARTS = {
    "topk": {},
    "exact": {},
    "tied exact": {"tied": True},
    "inverse_square": {"importance": True},
    "threshold": {"importance": True, "threshold": True},
}


def make_trainer(name, *, dtype=torch.float64, learning_rate=0.01, dead_after=100, **pace):
    weights = start(np.random.default_rng(0), dtype=dtype, **PARTS[name])
    dead = DeadFeatures(12, dead_after, CPU)
    return Trainer(weights, make_loss(name), dead, learning_rate=learning_rate, **pace)


def state_of(trainer):
    named = {name: value for name, value in vars(trainer.weights).items() if value is not None}
    tensors = {name: value.detach().clone() for name, value in named.items()}
    return tensors | {"rows_since": trainer.dead.rows_since.clone(), "activations": trainer.dead.activations.clone()}


def same(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def batches(count, n=40, d=6, seed=1, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal((n, d))).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("name", list(PARTS))
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e200])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(name, poison):
    trainer = make_trainer(name)
    for rows in batches(3):
        trainer.step(None, rows)
    before = state_of(trainer)
    bad = batches(1)[0]
    bad[5, 2] = poison
    with pytest.raises(NonFiniteLossError, match=r"step 4.*learning_rate"):
        trainer.step(None, bad)
    assert same(before, state_of(trainer)) == set()
    assert trainer.n_steps == 3
    loss, error, variance = trainer.step(None, batches(1)[0])  # and training can go on
    assert np.isfinite([loss, error, variance]).all()
    assert "components" in same(before, state_of(trainer))


@pytest.mark.parametrize("name", list(PARTS))
def test_training_learns_keeps_unit_atoms_and_repeats_bit_for_bit(name):
    states, losses = [], []
    data = batches(1, n=64, seed=3) * 30
    for _ in range(2):
        trainer = make_trainer(name, dead_after=200)
        losses.append([trainer.step(None, rows, schedule(i, 30)) for i, rows in enumerate(data)])
        states.append(state_of(trainer))
        assert_allclose(trainer.weights.components.norm(dim=1).detach(), 1, atol=1e-12)
    assert same(*states) == set()
    assert losses[0] == losses[1]
    assert losses[0][-1][1] < losses[0][0][1]
    assert losses[0][0][2] == pytest.approx(((data[0] - data[0].mean(0)) ** 2).sum(1).mean().item())
    start_state = state_of(make_trainer(name))
    frozen = {"bias", "encoder_gain"} if name == "tied exact" else set()
    assert same(start_state, states[0]) >= (set(start_state) - frozen - {"rows_since", "threshold"})


def test_exact_tied_training_never_moves_the_bias():
    trainer = make_trainer("tied exact")
    for rows in batches(10):
        trainer.step(None, rows)
    assert (trainer.weights.bias == 0).all()
    assert (trainer.weights.encoder_gain == 1).all()


def test_unit_gradients_make_the_weight_of_a_batch_in_the_loss_irrelevant():
    def fit(weights_in_loss, **pace):
        trainer = make_trainer("topk", **pace)
        loss = trainer.loss
        for rows, weight in zip(batches(6), weights_in_loss, strict=True):
            trainer.loss = lambda *given, weight=weight: loss(*given)._replace(loss=weight * loss(*given).loss)
            trainer.step(None, rows)
        return trainer.weights.components.detach()

    uneven = [1e-6, 3.0, 1e-3, 50.0, 1e-9, 0.2]
    assert_allclose(fit(uneven, unit_gradient=True), fit([1] * 6, unit_gradient=True), atol=1e-6)
    assert (fit(uneven) - fit([1] * 6)).abs().max() > 1e-3  # cut off at 1, small gradients stay small


@pytest.mark.parametrize("unit_gradient", [False, True])
def test_a_loss_without_gradient_moves_nothing(unit_gradient):
    trainer = make_trainer("topk", unit_gradient=unit_gradient)
    before, loss = state_of(trainer), trainer.loss
    trainer.loss = lambda *given: loss(*given)._replace(loss=0 * loss(*given).loss)
    trainer.step(None, batches(1)[0])
    assert same(before, state_of(trainer)) <= {
        "rows_since",
        "activations",
        "components",
    }  # atoms keep norm 1 by rounding
    assert_allclose(trainer.weights.components.detach(), before["components"], rtol=1e-14)


def test_the_bias_of_the_encoder_moves_at_its_own_rate():
    trainer = make_trainer("topk", bias_rate=0.25, learning_rate=0.01)
    before = state_of(trainer)
    trainer.step(None, batches(1)[0])  # the first step of Adam is the rate in every entry with a gradient
    moved = {name: (getattr(trainer.weights, name).detach() - before[name]).abs() for name in ("bias", "encoder")}
    assert moved["bias"].max().item() == pytest.approx(0.0025, rel=1e-3)
    assert moved["encoder"].max().item() == pytest.approx(0.01, rel=1e-3)


def test_rate_zero_moves_nothing_and_gradients_are_clipped():
    trainer = make_trainer("topk")
    before = state_of(trainer)
    trainer.step(None, batches(1)[0] * 1e6, 0.0)
    moved = same(before, state_of(trainer))
    assert moved <= {"rows_since", "activations", "components"}
    assert_allclose(trainer.weights.components.detach(), before["components"], atol=1e-15)
    norms = torch.stack([part.grad.norm() for part in trainer.parameters])
    assert norms.norm().item() == pytest.approx(trainer.max_grad_norm, rel=1e-5)


def test_dead_features_come_back():
    """Features pushed out of reach, so that only AuxK can raise them."""
    trainer = make_trainer("topk", dead_after=60, learning_rate=0.05)
    with torch.no_grad():
        trainer.weights.bias[:4] = -8.0
    for rows in batches(2):
        trainer.step(None, rows)
    assert trainer.dead.mask()[:4].all()
    assert (trainer.dead.activations[:4] == 0).all()
    for rows in batches(400, seed=5):
        trainer.step(None, rows)
    assert (trainer.dead.activations[:4] > 0).all()


def test_dead_features_of_a_large_dictionary_learn_the_same(monkeypatch):
    """Where nothing but AuxK moves the encoder, whose gradient is then of few rows, for a step at least."""
    states = []
    for large in (autograd.LARGE_BYTES, 0):
        monkeypatch.setattr(autograd, "LARGE_BYTES", large)
        trainer = make_trainer("exact", dead_after=60)
        trainer.loss = partial(trainer.loss, encoder_loss="penalty")
        with torch.no_grad():
            trainer.weights.bias[:4] = -8.0
        for rows in batches(8):
            trainer.step(None, rows)
        states.append(state_of(trainer))
    assert states[0].keys() == states[1].keys()
    assert (states[0]["encoder"] != state_of(make_trainer("exact"))["encoder"]).any()
    for name, value in states[0].items():
        assert_allclose(states[1][name], value, atol=1e-12, err_msg=name)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, -3.0, 1e-12, 1e6, -1e6]), min_size=24, max_size=24),
    name=st.sampled_from(list(PARTS)),
)
def test_any_finite_batch_gives_a_finite_step(values, name):
    trainer = make_trainer(name, dtype=torch.float32)
    result = trainer.step(None, torch.tensor(values, dtype=torch.float32).reshape(4, 6))
    assert np.isfinite(result).all()
    assert all(torch.isfinite(value).all() for value in state_of(trainer).values())


# ---- weights to go back to


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 2**15 - 1), (torch.float64, 2**31 - 1)])
@pytest.mark.parametrize("size", [1.0, 1e-25, 1e30])
def test_spare_weights_are_near_and_kept_as_they_are(rng, dtype, largest, size):
    F = torch.from_numpy(size * rng.standard_normal((50, 7)) * 10.0 ** rng.integers(-6, 6, (50, 1))).to(dtype)
    F[3] = 0.0
    F[4, 1:] = 0.0
    weights = Weights(components=F, mean=F[0] / 3, bias=F[:, 1].clone(), threshold=torch.tensor(0.1, dtype=dtype))
    spare = SpareWeights(weights)
    found = spare.restored()
    assert {name for name, _ in found.parts()} == {"components", "mean", "bias", "threshold"}
    for name in ("mean", "bias", "threshold"):  # a vector is not worth the rounding
        assert torch.equal(getattr(found, name), getattr(weights, name))
    assert found.components.dtype == dtype
    error = (found.components - F).abs().amax(1)
    assert (error <= F.abs().amax(1) / largest).all()
    assert (found.components[3] == 0).all()
    assert torch.equal(SpareWeights(found).restored().components, found.components)
    spare.keep(weights, {"threshold": torch.tensor(0.2, dtype=dtype)})
    assert spare.restored().threshold.item() == pytest.approx(0.2)


def test_spare_weights_take_half_the_memory(rng):
    F = torch.from_numpy(rng.standard_normal((64, 32))).float()
    spare = SpareWeights(Weights(components=F, mean=F[0], bias=F[:, 0], encoder=F))
    held = [each for pair in spare._matrices.values() for each in pair]
    assert sum(each.nbytes for each in held) == F.nbytes + 2 * 64 * 4


def test_a_trainer_goes_back_to_the_judged_weights():
    trainer = make_trainer("topk")
    for rows in batches(3):
        trainer.step(None, rows, judge=True)
    judged = trainer.weights.clone()
    trainer.step(None, batches(1)[0], judge=True)
    for rows in batches(3):
        trainer.step(None, rows)
    moved = trainer.weights.clone()
    trainer.back_to_good()
    for name, value in trainer.weights.parts():
        assert_allclose(value, getattr(judged, name), atol=1e-8, err_msg=name)
        assert not torch.allclose(value, getattr(moved, name), atol=1e-4), name
    assert_allclose(trainer.weights.components.norm(dim=1), 1, atol=1e-15)
