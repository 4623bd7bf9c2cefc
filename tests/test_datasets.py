# SPDX-License-Identifier: BSD-3-Clause
"""The data that the package makes: what is promised of it, and that a seed fixes it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict.datasets import load_image_patches, make_sparse_features

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
