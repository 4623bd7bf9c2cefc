# SPDX-License-Identifier: BSD-3-Clause
"""The data that the package makes: what is promised of it, and that a seed fixes it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict.datasets import load_image_patches, make_ksvd_signals, make_sparse_features, make_toy_superposition

RAMP = np.add.outer(np.arange(20.0), 2 * np.arange(30.0)) / 100


def test_patches_of_the_photographs():
    patches = load_image_patches((6, 8), n_patches=500, random_state=0)
    assert patches.shape == (500, 48)
    assert patches.dtype == np.float32
    assert_allclose(patches.mean(axis=1), 0, atol=1e-6)
    assert patches.std(axis=1).min() >= 0.02 - 1e-4
    assert_array_equal(patches, load_image_patches((6, 8), n_patches=500, random_state=0))
    assert not np.array_equal(patches, load_image_patches((6, 8), n_patches=500, random_state=1))


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 1), (20, 30)])
def test_patches_are_where_their_positions_say(shape):
    n_patches = (20 - shape[0] + 1) * (30 - shape[1] + 1)
    patches, positions = load_image_patches(
        shape, n_patches=n_patches, images=[RAMP], min_std=0.0, remove_mean=False, random_state=0, return_positions=True
    )
    assert np.unique(positions, axis=0).shape[0] == n_patches  # every patch once
    for patch, (number, row, column) in zip(patches, positions, strict=True):
        assert number == 0
        expected = RAMP[row : row + shape[0], column : column + shape[1]]
        assert_allclose(patch.reshape(shape), expected, rtol=1e-6)


def test_strips_share_no_pixel():
    def draw(columns):
        return load_image_patches(
            (4, 4), n_patches=50, images=[RAMP], columns=columns, min_std=0, return_positions=True, random_state=0
        )[1][:, 2]

    assert draw((0.0, 0.5)).max() + 4 <= 15
    assert draw((0.5, 1.0)).min() >= 15


def test_flat_patches_are_dropped():
    image = np.zeros((20, 40), dtype=np.uint8)
    image[:, 30:] = 10 * np.arange(10)
    patches, positions = load_image_patches(
        (5, 5), n_patches=16, images=[image], min_std=0.03, random_state=0, return_positions=True
    )
    assert positions[:, 2].min() > 25
    assert patches.std(axis=1).min() >= 0.03


def test_colour_images_become_gray():
    red = np.zeros((6, 6, 3), dtype=np.uint8)
    red[..., 0] = 255
    patches = load_image_patches((6, 6), n_patches=1, images=[red], min_std=0, remove_mean=False)
    assert_allclose(patches, 0.299, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [RAMP], "n_patches": 10_000}, "lower n_patches or min_std"),
        ({"images": []}, "lower n_patches or min_std"),
        ({"images": [RAMP], "patch_size": (21, 2)}, r"images\[0\] leaves 20 x 30 pixels"),
        ({"patch_size": (0, 2)}, "patch_size must be two positive integers"),
        ({"columns": (0.5, 0.5)}, "columns must be fractions"),
        ({"images": [np.zeros((9, 9, 4))]}, r"images\[0\] must have shape"),
        ({"n_patches": 0}, "The 'n_patches' parameter"),
    ],
)
def test_patch_errors_name_parameter_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_image_patches(**arguments)


def test_sparse_features_are_what_they_say():
    data = make_sparse_features(200, n_features=16, n_components=24, n_nonzero=3, random_state=0)
    assert data.X.shape == (200, 16)
    assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)
    assert_array_equal((data.codes != 0).sum(axis=1), 3)
    assert data.codes[data.codes != 0].min() >= 0.5
    assert data.codes.max() <= 1.5
    assert_allclose(data.X, data.codes @ data.dictionary)
    again = make_sparse_features(200, n_features=16, n_components=24, n_nonzero=3, random_state=0)
    assert_array_equal(data.X, again.X)


def test_noise_is_relative_to_the_clean_rows():
    data = make_sparse_features(noise=0.1, random_state=0)
    clean = data.codes @ data.dictionary
    assert_allclose(np.linalg.norm(data.X - clean), 0.1 * np.linalg.norm(clean))


def test_zipf_weights_are_those_of_the_draws():
    data = make_sparse_features(20_000, n_features=4, n_components=5, n_nonzero=1, zipf_exponent=1.0, random_state=0)
    weights = 1 / np.arange(1, 6)
    assert_allclose((data.codes != 0).mean(axis=0), weights / weights.sum(), atol=0.01)


def test_signs_are_random_on_request():
    data = make_sparse_features(500, positive=False, random_state=0)
    assert 0.4 < (data.codes[data.codes != 0] > 0).mean() < 0.6


def test_too_many_atoms_a_row_are_refused():
    with pytest.raises(ValueError, match="n_nonzero=9 is larger than n_components=8"):
        make_sparse_features(n_components=8, n_nonzero=9)


def test_independent_firing_has_the_mean_and_the_law_it_was_asked_for():
    data = make_sparse_features(
        20_000, n_features=8, n_components=40, n_nonzero=2.5, firing="independent", zipf_exponent=1.0, random_state=0
    )
    on = data.codes != 0
    frequency = on.mean(axis=0)
    assert on.sum(axis=1).mean() == pytest.approx(2.5, abs=0.05)
    # The first atom is capped at a half (Zipf's law alone would give it 0.58), the others share the rest.
    shares = 1 / np.arange(2, 41)
    assert_allclose(frequency, [0.5, *(2.0 * shares / shares.sum())], atol=0.015)
    counts = on[:, :6].sum(axis=1)
    assert counts.var() == pytest.approx((frequency[:6] * (1 - frequency[:6])).sum(), rel=0.03)  # independent


def test_more_rows_of_the_same_truth():
    first = make_sparse_features(10, random_state=0)
    second = make_sparse_features(10, dictionary=first.dictionary, random_state=1)
    assert_array_equal(second.dictionary, first.dictionary)
    assert_allclose(second.X, second.codes @ first.dictionary)
    assert not np.array_equal(second.codes, first.codes)


def test_magnitudes_are_in_their_range():
    codes = make_sparse_features(500, magnitude_range=(2.0, 3.0), random_state=0).codes
    assert codes[codes != 0].min() == pytest.approx(2.0, abs=0.01)
    assert codes.max() == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_nonzero": 2.5}, "set firing='independent'"),
        ({"n_nonzero": 40, "firing": "independent"}, "n_nonzero=40 is more than 32"),
        ({"magnitude_range": (0.0, 1.0)}, "magnitude_range must be two numbers"),
        ({"magnitude_range": (1.0, 2.0, 3.0)}, "magnitude_range must be two numbers"),
        ({"dictionary": np.ones((64, 31))}, r"pass an array of shape \(64, 32\)"),
        ({"dictionary": np.full((64, 32), np.nan)}, "dictionary has entries that are NaN"),
    ],
)
def test_sparse_feature_errors_name_parameter_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_sparse_features(**arguments)


@pytest.mark.parametrize("snr", [10.0, 30.0])
def test_ksvd_signals_follow_the_paper(snr):
    data = make_ksvd_signals(snr=snr, random_state=0)
    assert data.X.shape == (1500, 20)
    assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)
    assert_array_equal((data.codes != 0).sum(axis=1), 3)
    values = data.codes[data.codes != 0]
    assert abs(values).max() < 1
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.var() == pytest.approx(1 / 3, rel=0.05)
    clean = data.codes @ data.dictionary
    assert 10 * np.log10((clean**2).sum() / ((data.X - clean) ** 2).sum()) == pytest.approx(snr)


def test_ksvd_signals_are_those_of_the_committed_results():
    rng = np.random.default_rng(1000)
    atoms = rng.uniform(-1, 1, (50, 20))
    data = make_ksvd_signals(random_state=1000)
    assert_allclose(data.dictionary * np.linalg.norm(atoms, axis=1, keepdims=True), atoms)
    values = rng.uniform(-1, 1, 3)
    assert_allclose(data.codes[0, rng.choice(50, 3, replace=False)], values)
    assert_allclose(data.X, data.codes @ data.dictionary)  # and no noise unless asked for
    assert_array_equal(data.X, make_ksvd_signals(snr=np.inf, random_state=1000).X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_nonzero": 51}, "n_nonzero=51 is larger"),
        ({"snr": np.nan}, "The 'snr' parameter"),
        ({"snr": -np.inf}, "snr=-inf"),
    ],
)
def test_ksvd_errors_name_parameter_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ksvd_signals(**arguments)


QUICK = {"n_features": 2, "n_components": 5, "n_steps": 800, "batch_size": 128, "learning_rate": 0.02}


def test_sparse_features_of_equal_importance_become_a_pentagon():
    data = make_toy_superposition(100, **QUICK, density=0.05, importance=1.0, random_state=0)
    angles = np.sort(np.degrees(np.arctan2(data.weights[:, 1], data.weights[:, 0])))
    assert_allclose(np.diff(angles), 72, atol=1.5)
    assert_allclose(np.linalg.norm(data.weights, axis=1), np.linalg.norm(data.weights, axis=1).mean(), rtol=0.02)


def test_dense_features_get_a_dimension_each_in_order_of_importance():
    data = make_toy_superposition(100, **QUICK, density=1.0, importance=0.7, random_state=0)
    gram = data.weights @ data.weights.T
    assert_allclose(gram, np.diag([1.0, 1.0, 0.0, 0.0, 0.0]), atol=0.05)
    assert_allclose(data.bias[2:], 0.5, atol=0.02)  # what is given up is answered by its mean


def test_toy_model_is_what_it_says():
    arguments = {"n_features": 3, "n_components": 8, "n_steps": 20, "density": 0.3, "random_state": 0}
    data = make_toy_superposition(4000, **arguments)
    assert_allclose(data.X, data.features @ data.weights)
    assert_allclose(data.codes @ data.dictionary, data.X)
    assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)
    assert (data.features != 0).mean() == pytest.approx(0.3, abs=0.01)
    assert_allclose(data.importance, 0.97 ** np.arange(8))
    assert_array_equal(data.X, make_toy_superposition(4000, **arguments).X)
    other = make_toy_superposition(4000, **{**arguments, "random_state": 1})
    assert not np.array_equal(data.weights, other.weights)


def test_toy_model_leaves_the_state_of_torch_alone():
    import torch

    before = torch.get_rng_state()
    make_toy_superposition(10, n_features=2, n_components=3, n_steps=2, random_state=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("importance", [np.ones(3), np.array([1.0, -1.0, 1.0, 1.0])])
def test_toy_model_refuses_wrong_importances(importance):
    with pytest.raises(ValueError, match="importance has"):
        make_toy_superposition(10, n_components=4, importance=importance)
