# SPDX-License-Identifier: BSD-3-Clause
"""TopKDictionaryLearning: the additive baseline of Gao et al. (2024)."""

import numpy as np
import pytest

from skprojdict import TopKDictionaryLearning

from .data import scores_of, sparse_rows

SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "max_iter": 5, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return sparse_rows()


def test_codes_are_the_largest_positive_scores(data):
    model = TopKDictionaryLearning(**SMALL).fit(data)
    scores = scores_of(model, data)
    third = np.sort(scores, axis=1)[:, [-3]]
    expected = np.where((scores >= third) & (scores > 0), scores, 0) * model.scale_
    np.testing.assert_allclose(model.transform(data), expected, atol=1e-10)


def test_starts_with_the_encoder_at_the_decoders_transpose(data):
    model = TopKDictionaryLearning(learning_rate=1e-12, **{**SMALL, "max_steps": 1}).fit(data)
    np.testing.assert_allclose(model.encoder_components_, model.components_, atol=1e-9)
    np.testing.assert_allclose(model.encoder_bias_, 0, atol=1e-9)


def test_centre_starts_at_the_mean_or_the_geometric_median(data):
    outliers = np.concatenate([data, data[:30] + 50.0])
    start = {**SMALL, "max_steps": 1, "learning_rate": 1e-12}
    mean = TopKDictionaryLearning(**start).fit(outliers).mean_
    median = TopKDictionaryLearning(center="geometric_median", **start).fit(outliers).mean_
    np.testing.assert_allclose(mean, outliers.mean(axis=0), atol=1e-6)
    assert np.linalg.norm(median - data.mean(axis=0)) < 0.1 * np.linalg.norm(mean - data.mean(axis=0))


def test_learning_rate_falls_with_the_square_root_of_the_number_of_atoms():
    few, many = (TopKDictionaryLearning()._peak_rate(p) for p in (2**12, 2**14))
    assert few == pytest.approx(2 * many)


def test_auxiliary_loss_keeps_features_alive(data):
    options = {**SMALL, "n_components": 64, "max_iter": 20, "dead_after": 200, "learning_rate": 0.03}
    with_aux = TopKDictionaryLearning(auxk_coef=1.0, **options).fit(data)
    without = TopKDictionaryLearning(auxk_coef=0.0, **options).fit(data)
    unused = [np.count_nonzero(~(m.transform(data) != 0).any(axis=0)) for m in (with_aux, without)]
    assert unused[0] < unused[1]


def test_activations_are_counted(data):
    model = TopKDictionaryLearning(**SMALL).fit(data)
    assert model.n_activations_.shape == (32,)
    assert model.n_activations_.sum() <= 3 * model.n_steps_ * 37  # a sixteenth of 600 rows a step
    assert model.n_activations_.sum() > 0


def test_every_positive_score_without_a_number_of_coefficients(data):
    model = TopKDictionaryLearning(**{**SMALL, "n_nonzero_coefs": None}).fit(data)
    np.testing.assert_array_equal(model.transform(data) != 0, scores_of(model, data) > 0)
