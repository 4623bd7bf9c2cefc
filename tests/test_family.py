# SPDX-License-Identifier: BSD-3-Clause
"""The family of sparse autoencoders: what each computes, against NumPy; how each is trained; what re-decodes them."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.persistence import save_for_sae_lens
from skprojdict.training.losses import gated_loss, jumprelu_loss, relu_loss, select_in_batch, topk_loss
from skprojdict.training.losses.topk import sparse_parts
from skprojdict.training.weights import Weights

from .data import fvu, scores_of, sparse_rows

SMALL = {"n_components": 48, "n_nonzero_coefs": 3, "max_steps": 150, "batch_size": 64, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return sparse_rows(n=600, d=16, p=32, k=3)


def random_weights(rng, p=12, d=5, **parts):
    components = torch.from_numpy(rng.standard_normal((p, d)))
    components /= components.norm(dim=1, keepdim=True)
    parts = {name: torch.from_numpy(np.asarray(value, dtype=np.float64)) for name, value in parts.items()}
    weights = Weights(
        components=components,
        mean=torch.from_numpy(0.1 * rng.standard_normal(d)),
        bias=torch.from_numpy(0.1 * rng.standard_normal(p)),
        encoder=torch.from_numpy(rng.standard_normal((p, d))),
        **parts,
    )
    weights.trainable()
    return weights


# ---- BatchTopK


@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_batch_selects_its_largest_scores_wherever_they_are(rng, most):
    """Also where one row has all of them, so that more of each row has to be sorted."""
    scores = rng.standard_normal((9, 30))
    scores[4] += 10
    support, cut = select_in_batch(torch.from_numpy(scores), 3, most=most)
    expected = np.sort(scores, axis=None)[-27:]
    assert float(cut) == expected[0]
    assert_array_equal(np.sort(support.scores[support.active]), expected)
    rows = np.repeat(np.arange(9), support.indices.shape[1]).reshape(9, -1)
    assert_array_equal(scores[rows, support.indices], support.scores)
    assert int(support.active[4].sum()) > 20


def test_only_positive_scores_are_selected_in_a_batch(rng):
    scores = torch.from_numpy(rng.standard_normal((6, 10))) - 2
    support, cut = select_in_batch(scores, 4)
    assert_array_equal(np.sort(support.scores[support.active]), np.sort(scores[scores > 0]))
    assert float(cut) < 0


def test_batch_top_k_codes_are_the_scores_above_one_threshold(data):
    model = TopKDictionaryLearning(**SMALL, selection="batch").fit(data)
    scores = scores_of(model, data)
    assert model.threshold_ > 0
    expected = np.where(scores > model.threshold_, scores, 0) * model.scale_
    codes = model.transform(data)
    assert_allclose(codes, expected, atol=1e-10)
    counts = (codes != 0).sum(axis=1)
    assert counts.mean() == pytest.approx(3, rel=0.1)
    assert counts.std() > 0.2
    assert_allclose(model.transform(data[17:18]), codes[17:18], atol=1e-12)  # no row decides for another
    assert fvu(model, data) < 0.3


def test_rows_that_need_more_atoms_get_them():
    """Half of the rows have one feature and half have five: a budget of three for all is shared out."""
    few, many = (sparse_rows(n=800, d=16, p=32, k=k, centre=0.0) for k in (1, 5))
    X = np.concatenate([few, many])
    options = {**SMALL, "max_steps": 200}
    row, batch = (TopKDictionaryLearning(**options, selection=rule).fit(X) for rule in ("row", "batch"))
    codes = batch.transform(X) != 0
    assert codes[800:].sum(axis=1).mean() > 1.5 * codes[:800].sum(axis=1).mean()
    assert fvu(batch, X) < fvu(row, X)


def test_batch_selection_needs_a_number(data):
    with pytest.raises(ValueError, match=r"selection='batch'.*n_nonzero_coefs=None.*selection='row'"):
        TopKDictionaryLearning(24, n_nonzero_coefs=None, selection="batch").fit(data)
    with pytest.raises(ValueError, match=r"selection_dtype='bfloat16'.*got selection='batch'"):
        TopKDictionaryLearning(24, selection="batch", selection_dtype="bfloat16").fit(data)


def test_a_threshold_cannot_be_had_without_learning_it(data):
    model = TopKDictionaryLearning(**{**SMALL, "max_steps": 3}).fit(data).set_params(selection="batch")
    with pytest.raises(ValueError, match="lacks threshold_"):
        model.transform(data)


def test_sae_lens_gets_batch_top_k_as_thresholds(data, tmp_path):
    X = data.astype(np.float32)
    model = TopKDictionaryLearning(**SMALL, selection="batch").fit(X)
    save_for_sae_lens(model, tmp_path)
    weights, config = load_file(tmp_path / "sae_weights.safetensors"), json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu"
    scores = (X - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    assert_allclose(np.where(scores > weights["threshold"], scores, 0), model.transform(X), atol=2e-5)


# ---- nested prefixes


@pytest.mark.parametrize("selection", ["row", "batch"])
def test_nested_prefixes_are_each_reconstructed(rng, selection):
    """The loss against NumPy, prefix by prefix."""
    weights = random_weights(rng, threshold=0.0)
    rows = torch.from_numpy(rng.standard_normal((20, 5)))
    dead = torch.zeros(12, dtype=torch.bool)
    options = {"k": 3, "auxk": 2, "auxk_coef": 0.0, "selection": selection, "prefix_sizes": [2, 7, 12]}
    batch = topk_loss(weights, None, rows, dead, **options)
    y = rows.numpy() - weights.mean.detach().numpy()
    scores = y @ weights.encoder.detach().numpy().T + weights.bias.detach().numpy()
    best = np.sort(scores, axis=None)[-60] if selection == "batch" else np.sort(scores, axis=1)[:, [-3]]
    codes = np.where((scores >= best) & (scores > 0), scores, 0)
    errors = [((y - codes[:, :m] @ weights.components.detach().numpy()[:m]) ** 2).sum(1).mean() for m in (2, 7, 12)]
    assert float(batch.loss.detach()) == pytest.approx(np.mean(errors))
    assert float(batch.squared_error) == pytest.approx(errors[-1])
    plain = topk_loss(weights, None, rows, dead, **{**options, "prefix_sizes": [12]})
    assert float(plain.loss.detach()) == pytest.approx(errors[-1])


def test_slices_of_sparse_codes_add_up(rng):
    components = torch.from_numpy(rng.standard_normal((12, 5)))
    indices = torch.from_numpy(np.argsort(rng.standard_normal((6, 12)), axis=1)[:, :4].copy())
    codes = torch.from_numpy(rng.standard_normal((6, 4)))
    parts = torch.stack(list(sparse_parts(codes, components, indices, [3, 8, 12])))
    (whole,) = sparse_parts(codes, components, indices, [12])
    assert_allclose(parts.sum(0), whole, atol=1e-12)
    first = torch.where(indices < 3, codes, torch.zeros_like(codes))
    assert_allclose(parts[0], torch.einsum("nk,nkd->nd", first, components[indices]), atol=1e-12)


def test_early_atoms_carry_a_nested_dictionary(data):
    """The first atoms of a nested dictionary reconstruct better by themselves than those of a plain one."""

    def error_of_first(model, m):
        codes = model.transform(data)
        codes[:, m:] = 0
        return ((data - model.inverse_transform(codes)) ** 2).sum()

    plain = TopKDictionaryLearning(**SMALL).fit(data)
    nested = TopKDictionaryLearning(**SMALL, prefix_sizes=(8, 16)).fit(data)
    assert error_of_first(nested, 8) < 0.8 * error_of_first(plain, 8)
    assert fvu(nested, data) < 0.5


@pytest.mark.parametrize("sizes", [(8, 4), (8, 100), (0, 4), (2.5,)])
def test_prefixes_that_are_none(data, sizes):
    with pytest.raises(ValueError, match="prefix_sizes must be increasing positive whole numbers"):
        TopKDictionaryLearning(48, prefix_sizes=sizes, max_steps=1).fit(data)


# ---- read from other libraries, and decoded again by projection


def test_projection_takes_what_batch_top_k_selects(data, tmp_path):
    X = data.astype(np.float32)
    model = TopKDictionaryLearning(**SMALL, selection="batch").fit(X)
    save_for_sae_lens(model, tmp_path)
    projected = ProjectiveDictionaryLearning.from_sae(tmp_path)
    assert_array_equal(projected.transform(X) != 0, model.transform(X) != 0)
    assert fvu(projected, X) < fvu(model, X)


# ---- the penalised forms


PENALISED = {"relu": ReLUDictionaryLearning, "jumprelu": JumpReLUDictionaryLearning, "gated": GatedDictionaryLearning}


def codes_by_hand(model, X):
    """What the class's formula says, from the attributes that its documentation names."""
    scores = scores_of(model, X)
    if isinstance(model, JumpReLUDictionaryLearning):
        codes = np.where(scores > model.thresholds_, scores, 0)
    elif isinstance(model, GatedDictionaryLearning):
        magnitude = np.exp(model.magnitude_log_gain_) * (scores - model.encoder_bias_) + model.magnitude_bias_
        codes = np.where(scores > 0, np.maximum(magnitude, 0), 0)
    else:
        codes = np.maximum(scores, 0)
    return codes * model.scale_


@pytest.fixture(scope="module")
def penalised(data):
    return {name: cls(**{**SMALL, "max_steps": 500}).fit(data) for name, cls in PENALISED.items()}


@pytest.mark.parametrize("form", PENALISED)
def test_a_penalised_form_codes_by_its_formula_and_fires_as_often_as_asked(penalised, data, form):
    model = penalised[form]
    codes = model.transform(data)
    assert_allclose(codes, codes_by_hand(model, data), atol=1e-10)
    assert (codes != 0).sum(axis=1).mean() == pytest.approx(3, rel=0.25)
    assert fvu(model, data) < (0.6 if form == "relu" else 0.25)  # L1 shrinks


@pytest.mark.parametrize(("form", "most"), [("relu", 0.5), ("gated", 0.22)])
def test_few_steps_at_the_default_rate_get_somewhere(data, form, most):
    """At a third of the rate 0.62 and 0.25 are left."""
    assert fvu(PENALISED[form](**{**SMALL, "max_steps": 150}).fit(data), data) < most


@pytest.mark.parametrize("form", PENALISED)
def test_sae_lens_and_projection_take_a_penalised_form(penalised, data, tmp_path, form):
    model = penalised[form]
    save_for_sae_lens(model, tmp_path)
    X = data.astype(np.float32)
    again = PENALISED[form].from_sae(tmp_path, scale=model.scale_)
    assert_allclose(again.transform(X), model.transform(data), atol=2e-4)
    projected = ProjectiveDictionaryLearning.from_sae(tmp_path)
    differs = (projected.transform(X) != 0) != (model.transform(data) != 0)
    assert differs.mean() < 1e-3  # rounding to float32, and coefficients that are 0
    assert fvu(projected, X) < fvu(model, data)


@pytest.mark.parametrize("form", ["relu", "gated"])
def test_a_larger_penalty_means_fewer_atoms(data, form):
    options = {**SMALL, "n_nonzero_coefs": None}
    weak, strong = (PENALISED[form](**options, alpha=alpha).fit(data) for alpha in (0.02, 0.3))
    assert (strong.transform(data) != 0).sum() < 0.7 * (weak.transform(data) != 0).sum()
    assert (weak.alpha_, strong.alpha_) == pytest.approx((0.02, 0.3))


@pytest.mark.parametrize("form", ["relu", "gated"])
def test_a_penalty_that_is_steered_needs_a_number(data, form):
    with pytest.raises(ValueError, match=r"alpha='auto'.*n_nonzero_coefs=None"):
        PENALISED[form](24, n_nonzero_coefs=None).fit(data)


@pytest.mark.parametrize("form", PENALISED)
def test_an_autoencoder_of_another_form_is_refused(data, tmp_path, form):
    save_for_sae_lens(TopKDictionaryLearning(**{**SMALL, "max_steps": 2}).fit(data), tmp_path)
    with pytest.raises(ValueError, match=r"ProjectiveDictionaryLearning\.from_sae"):
        PENALISED[form].from_sae(tmp_path)


@pytest.mark.parametrize("loss", [relu_loss, gated_loss])
def test_losses_against_finite_differences(rng, loss):
    parts = {"magnitude_log_gain": rng.normal(0, 0.2, 12), "magnitude_bias": rng.normal(0, 0.2, 12)}
    weights = random_weights(rng, alpha=0.1, **(parts if loss is gated_loss else {}))
    rows = torch.from_numpy(rng.standard_normal((9, 5)))
    options = {"alpha": 0.1, "k": 3, "prefix_sizes": [4, 12], "auxk": 2, "auxk_coef": 0.0}

    def value():
        return loss(weights, None, rows, torch.zeros(12, dtype=torch.bool), **options).loss

    value().backward()
    # The gate's own term holds atoms and centre fixed, so that they are no plain derivatives there.
    names = ["encoder", "bias", *(parts if loss is gated_loss else ["components", "mean"])]
    for name in names:
        tensor = getattr(weights, name)
        step = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))
        with torch.no_grad():
            tensor += 1e-6 * step
            above = float(value())
            tensor -= 2e-6 * step
            below = float(value())
            tensor += 1e-6 * step
        assert float((tensor.grad * step).sum()) == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-8), name


def test_jumprelu_loss_and_its_thresholds(rng):
    """Codes and loss by the formula, the thresholds' slope by the kernel written out in NumPy."""
    weights = random_weights(rng, thresholds=rng.uniform(0.1, 0.6, 12))
    rows = torch.from_numpy(rng.standard_normal((40, 5)))
    options = {"alpha": 0.7, "k": 3, "bandwidth": 0.3, "prefix_sizes": [12], "auxk": 2, "auxk_coef": 0.0}
    batch = jumprelu_loss(weights, None, rows, torch.zeros(12, dtype=torch.bool), **options)
    batch.loss.backward()
    y = rows.numpy() - weights.mean.detach().numpy()
    atoms, limits = weights.components.detach().numpy(), weights.thresholds.detach().numpy()
    scores = y @ weights.encoder.detach().numpy().T + weights.bias.detach().numpy()
    codes = np.where(scores > limits, scores, 0)
    residual, l0 = y - codes @ atoms, (codes > 0).sum(1).mean()
    assert float(batch.loss.detach()) == pytest.approx((residual**2).sum(1).mean() + 0.7 * (l0 / 3 - 1) ** 2)
    d_codes = -2 * residual @ atoms.T / 40
    d_fired = 2 * 0.7 * (l0 / 3 - 1) / 3 / 40
    near = np.abs(scores - limits) < 0.15
    assert_allclose(weights.thresholds.grad, -(near * (limits * d_codes + d_fired)).sum(0) / 0.3, atol=1e-12)
    assert_allclose(weights.bias.grad, ((scores > limits) * d_codes).sum(0), atol=1e-12)
