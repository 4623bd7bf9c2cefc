# SPDX-License-Identifier: BSD-3-Clause
"""``target="y"``: X selects, y is projected; codes and predictions from X alone."""

import numpy as np
import pytest
from sklearn.base import clone

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

NEURAL = [
    ProjectiveDictionaryLearning,
    TopKDictionaryLearning,
    ReLUDictionaryLearning,
    JumpReLUDictionaryLearning,
    GatedDictionaryLearning,
]
SMALL = {"n_components": 48, "n_nonzero_coefs": 4, "max_iter": 40, "random_state": 0, "target": "y"}


@pytest.fixture(scope="module")
def views():
    """Inputs in 12 dimensions and what a hidden layer of 20 rectified units makes of them, in 9 dimensions."""
    rng = np.random.default_rng(5)
    A = rng.standard_normal((1500, 12)) + 1.0
    hidden = np.maximum(A @ rng.standard_normal((12, 20)) - 2.0, 0)
    return A, 5.0 + hidden @ rng.standard_normal((20, 9)) / 5


@pytest.fixture(scope="module", params=NEURAL)
def fitted(request, views):
    return request.param(**SMALL).fit(*views)


def r2(Y, prediction):
    return 1 - ((Y - prediction) ** 2).sum() / ((Y - Y.mean(axis=0)) ** 2).sum()


def test_shapes(fitted, views):
    A, Y = views
    assert fitted.components_.shape == (48, 9)
    assert fitted.encoder_components_.shape == (48, 12)
    assert fitted.encoder_mean_.shape == (12,)
    assert fitted.transform(A).shape == (1500, 48)
    assert fitted.predict(A).shape == Y.shape


def test_prediction_decodes_the_codes_and_scores_what_score_says(fitted, views):
    A, Y = views
    prediction = fitted.predict(A)
    np.testing.assert_allclose(prediction, fitted.inverse_transform(fitted.transform(A)), atol=1e-10)
    assert fitted.score(A, Y) == pytest.approx(r2(Y, prediction), abs=1e-12)
    assert fitted.score(A, Y) > 0.5


def test_projection_is_least_squares_on_the_same_atoms(fitted, views):
    A, Y = views
    codes, projected = fitted.transform(A), fitted.project(A, Y)
    for z, b, y in zip(codes[:40], projected, Y, strict=False):
        support = np.flatnonzero(z)
        assert set(np.flatnonzero(b)) <= set(support)
        expected = np.linalg.lstsq(fitted.components_[support].T, y - fitted.mean_, rcond=None)[0]
        np.testing.assert_allclose(b[support], expected, atol=1e-7)
    assert fitted.score_projection(A, Y) == pytest.approx(r2(Y, fitted.inverse_transform(projected)), abs=1e-10)


def test_the_projection_is_an_upper_bound_of_the_prediction(fitted, views):
    assert fitted.score_projection(*views) > fitted.score(*views)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_methods_exist_with_a_second_view_only(Estimator, views):
    one, two = Estimator(), Estimator(target="y")
    for name in ("predict", "project", "score_projection"):
        assert not hasattr(one, name)
        assert hasattr(two, name)
    assert two.__sklearn_tags__().target_tags.required
    assert not one.__sklearn_tags__().target_tags.required


@pytest.mark.parametrize("Estimator", NEURAL)
def test_a_missing_target_says_what_to_do(Estimator, views):
    with pytest.raises(ValueError, match=r"requires y to be passed.*target='X'"):
        Estimator(**SMALL).fit(views[0])


def test_targets_of_another_width_are_refused(fitted, views):
    A, Y = views
    with pytest.raises(ValueError, match=r"y has 3 columns, but .* was fitted on 9"):
        fitted.score(A, Y[:, :3])


def test_a_single_target_column_may_be_one_dimensional(views):
    A, Y = views
    model = ProjectiveDictionaryLearning(**{**SMALL, "max_iter": 2, "n_nonzero_coefs": 1})
    column = clone(model).fit(A, Y[:, :1])
    flat = clone(model).fit(A, Y[:, 0])
    np.testing.assert_array_equal(column.components_, flat.components_)
    assert column.predict(A).shape == (1500, 1)
    assert flat.predict(A).shape == (1500,)


@pytest.mark.parametrize("Estimator", NEURAL)
def test_the_same_array_may_be_both_views(Estimator, views):
    A, _ = views
    options = {**SMALL, "max_iter": 2}
    same, copied = Estimator(**options).fit(A, A), Estimator(**options).fit(A, A.copy())
    np.testing.assert_array_equal(same.components_, copied.components_)
    same.partial_fit(A, A).set_params(warm_start=True).fit(A, A)
    assert same.score(A, A) > 0


@pytest.mark.parametrize("Estimator", NEURAL)
def test_tying_needs_as_many_columns_in_both(Estimator, views):
    with pytest.raises(ValueError, match=r"tied=True.*got 12 and 9"):
        Estimator(**SMALL, tied=True).fit(*views)


def test_partial_fit_takes_pairs(views):
    A, Y = views
    model = ProjectiveDictionaryLearning(**SMALL)
    for _ in range(30):
        for start in range(0, 1500, 300):
            model.partial_fit(A[start : start + 300], Y[start : start + 300])
    assert model.score_projection(A, Y) > 0.5


def test_adaptive_selection_needs_to_know_the_target(views):
    with pytest.raises(ValueError, match=r"'adaptive'.*target='y'. Give target='X'"):
        ProjectiveDictionaryLearning(**SMALL, selection="adaptive").fit(*views)


def test_refinement_needs_to_know_the_target(views):
    with pytest.raises(ValueError, match=r"n_refinements=1.*Set n_refinements=0"):
        ProjectiveDictionaryLearning(**SMALL, n_refinements=1).fit(*views)


def test_positive_codes_are_predicted_too(views):
    A, Y = views
    model = ProjectiveDictionaryLearning(**{**SMALL, "max_iter": 5}, positive_code=True).fit(A, Y)
    assert model.transform(A).min() >= 0
    assert model.project(A, Y).min() >= 0


def test_units_of_either_view_do_not_matter(views):
    A, Y = views
    options = {**SMALL, "max_iter": 3}
    plain = ProjectiveDictionaryLearning(**options).fit(A, Y)
    rescaled = ProjectiveDictionaryLearning(**options).fit(1e3 * A, 1e-3 * Y)
    assert rescaled.score(1e3 * A, 1e-3 * Y) == pytest.approx(plain.score(A, Y), abs=1e-6)
