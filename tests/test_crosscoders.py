# SPDX-License-Identifier: BSD-3-Clause
"""Layers side by side: their scales, their scores, the norms of atoms in each; a crosscoder end to end."""

import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score

from skprojdict import ProjectiveDictionaryLearning
from skprojdict.crosscoders import LayerStacker, atom_norms_per_layer, scores_per_layer
from skprojdict.persistence import load, save

SIZES = [5, 3, 8]


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 6))
    hidden = np.maximum(X @ rng.standard_normal((6, 16)), 0)
    return X, [
        unit * hidden @ rng.standard_normal((16, d)) + 3 for unit, d in zip((1.0, 1e3, 1e-3), SIZES, strict=True)
    ]


def test_every_layer_has_mean_norm_one(views):
    stacked = LayerStacker().fit_transform(views[1])
    assert stacked.shape == (500, 16)
    for layer in np.split(stacked, np.cumsum(SIZES)[:-1], axis=1):
        assert np.linalg.norm(layer - layer.mean(axis=0), axis=1).mean() == pytest.approx(1)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_crosscoder_comes_back_from_its_files(views, ending, tmp_path):
    X, layers = views
    stacker = LayerStacker().fit(layers)
    model = ProjectiveDictionaryLearning(16, n_nonzero_coefs=2, target="y", max_steps=5, random_state=0)
    model.fit(X, stacker.transform(layers))
    for name, estimator in (("stacker", stacker), ("model", model)):
        save(estimator, tmp_path / f"{name}.{ending}")
    stacker_, model_ = (load(tmp_path / f"{name}.{ending}") for name in ("stacker", "model"))
    assert stacker_.layer_sizes_ == SIZES
    for one, other in zip(
        stacker_.inverse_transform(model_.predict(X)), stacker.inverse_transform(model.predict(X)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_list_and_a_wide_array_are_the_same(views):
    _, layers = views
    listed, wide = LayerStacker().fit(layers), LayerStacker(SIZES).fit(np.concatenate(layers, axis=1))
    assert wide.layer_sizes_ == listed.layer_sizes_ == SIZES
    np.testing.assert_array_equal(wide.transform(np.concatenate(layers, axis=1)), listed.transform(layers))


def test_the_way_back(views):
    _, layers = views
    stacker = LayerStacker().fit(layers)
    for copy in (stacker, pickle.loads(pickle.dumps(stacker))):
        for back, layer in zip(copy.inverse_transform(copy.transform(layers)), layers, strict=True):
            np.testing.assert_allclose(back, layer, rtol=1e-12)


def test_without_scales_layers_stay_as_they_are(views):
    _, layers = views
    stacker = LayerStacker(scale=False)
    np.testing.assert_array_equal(stacker.fit_transform(layers), np.concatenate(layers, axis=1))
    assert clone(stacker).get_params() == {"layer_sizes": None, "scale": False}


def test_a_layer_that_does_not_vary():
    stacker = LayerStacker().fit([np.full((4, 2), 7.0), np.eye(4)])
    assert stacker.layer_scales_[0] == 1.0
    assert np.isfinite(stacker.transform([np.full((4, 2), 7.0), np.eye(4)])).all()


def test_half_precision_does_not_overflow():
    layer = np.random.default_rng(0).standard_normal((50, 400)).astype(np.float16) * 3000
    assert LayerStacker().fit([layer]).layer_scales_[0] == pytest.approx(60_000, rel=0.05)


def test_scores_are_those_of_scikit_learn(views):
    _, layers = views
    Y = np.concatenate(layers, axis=1)
    predicted = Y + np.random.default_rng(1).standard_normal(Y.shape) * Y.std(axis=0) / 2
    expected = [
        r2_score(y, p, multioutput="variance_weighted")
        for y, p in zip(np.split(Y, [5, 8], axis=1), np.split(predicted, [5, 8], axis=1), strict=True)
    ]
    np.testing.assert_allclose(scores_per_layer(Y, predicted, SIZES), expected)


def test_scores_of_a_constant_layer():
    Y = np.concatenate([np.ones((3, 1)), np.eye(3)], axis=1)
    assert scores_per_layer(Y, Y, [1, 3]).tolist() == [1.0, 1.0]
    assert scores_per_layer(Y, Y + 1, [1, 3])[0] == 0.0


def test_norms_of_unit_atoms_add_up(views):
    F = np.random.default_rng(2).standard_normal((7, 16))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    norms = atom_norms_per_layer(F, SIZES)
    np.testing.assert_allclose((norms**2).sum(axis=1), 1)
    np.testing.assert_allclose(norms[:, 1], np.linalg.norm(F[:, 5:8], axis=1))
    np.testing.assert_allclose(atom_norms_per_layer(F, SIZES, layer_scales=[1, 2, 3]), norms * [1, 2, 3])


@pytest.mark.parametrize("both", [False, True])
def test_one_selection_explains_every_layer(views, both):
    """Units of 1000 and of 1 / 1000 do not matter, and the oracle's codes are least squares on all layers at once."""
    X, layers = views
    stacker = LayerStacker().fit(layers)
    Y = stacker.transform(layers)
    options = {"n_nonzero_coefs": 4, "max_steps": 80, "batch_size": 128, "random_state": 0}
    if both:  # reads and writes all layers
        model = ProjectiveDictionaryLearning(32, **options).fit(Y)
        codes = model.transform(Y)
    else:
        model = ProjectiveDictionaryLearning(32, target="y", **options).fit(X, Y)
        codes = model.project(X, Y)
    made = model.inverse_transform(codes)
    assert scores_per_layer(Y, made, SIZES).min() > 0.5
    assert atom_norms_per_layer(model.components_, SIZES).min(axis=1).max() > 0.1  # no layer to itself
    on = np.flatnonzero(codes[0])
    solved = np.linalg.lstsq(model.components_[on].T, Y[0] - model.mean_, rcond=None)[0]
    np.testing.assert_allclose(codes[0, on], solved, atol=1e-8)
    errors = [((a - b) ** 2).sum() for a, b in zip(stacker.inverse_transform(made), layers, strict=True)]
    shares = [error / ((b - b.mean(axis=0)) ** 2).sum() for error, b in zip(errors, layers, strict=True)]
    np.testing.assert_allclose(1 - np.array(shares), scores_per_layer(Y, made, SIZES))


def test_torch_layers_stay_in_torch(views):
    layers = [torch.from_numpy(layer).float() for layer in views[1]]
    with config_context(array_api_dispatch=True):
        stacker = LayerStacker().fit(layers)
        stacked = stacker.transform(layers)
        assert isinstance(stacked, torch.Tensor)
        assert stacked.dtype == torch.float32
        torch.testing.assert_close(stacker.inverse_transform(stacked), layers)
        assert isinstance(atom_norms_per_layer(stacked, SIZES), torch.Tensor)
    np.testing.assert_allclose(stacker.layer_scales_, LayerStacker().fit(views[1]).layer_scales_, rtol=1e-5)


@pytest.mark.parametrize(
    ("stacker", "X", "message"),
    [
        (LayerStacker(), np.ones((3, 2)), r"list of arrays, one for each layer, or give layer_sizes.*got ndarray"),
        (LayerStacker(), [], "list of arrays"),
        (LayerStacker(), [np.ones((3, 2)), np.ones((4, 2))], r"layers have \[3, 4\] rows"),
        (LayerStacker(), [np.ones(3)], r"layer 0 must be 2-d.*got shape \(3,\)"),
        (LayerStacker([2, 2]), np.ones((3, 5)), r"layer_sizes \[2, 2\] add up to 4, but X has 5 columns"),
        (LayerStacker([2, 0]), np.ones((3, 2)), r"at least 1 each; got \[2, 0\]"),
        (LayerStacker([]), np.ones((3, 2)), "layer_sizes must hold the columns"),
    ],
)
def test_what_cannot_be_stacked(stacker, X, message):
    with pytest.raises(ValueError, match=message):
        stacker.fit(X)


def test_other_layers_than_at_fit():
    with pytest.raises(NotFittedError):
        LayerStacker().transform([np.ones((3, 2))])
    stacker = LayerStacker().fit([np.eye(3), np.ones((3, 2))])
    with pytest.raises(ValueError, match=r"layers of \[3, 3\] columns.*fitted on \[3, 2\]"):
        stacker.transform([np.eye(3), np.eye(3)])
    with pytest.raises(ValueError, match="add up to 5, but X has 4 columns"):
        stacker.inverse_transform(np.ones((2, 4)))


def test_scores_and_norms_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="Y has 3 rows and Y_predicted 2"):
        scores_per_layer(np.ones((3, 2)), np.ones((2, 2)), [1, 1])
    with pytest.raises(ValueError, match="Y_predicted has 3 columns"):
        scores_per_layer(np.ones((3, 2)), np.ones((3, 3)), [1, 1])
    with pytest.raises(ValueError, match="one number for each of 2 layers"):
        atom_norms_per_layer(np.ones((3, 2)), [1, 1], layer_scales=[1.0])
