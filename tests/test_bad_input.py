# SPDX-License-Identifier: BSD-3-Clause
"""Wrong input is refused with the parameter, what it got and the remedy; nothing is lost."""

import numpy as np
import pytest

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

from .data import sparse_rows

SMALL = {"n_components": 24, "n_nonzero_coefs": 3, "max_iter": 2, "random_state": 0}
PENALISED = [ReLUDictionaryLearning, JumpReLUDictionaryLearning, GatedDictionaryLearning]
NEURAL = [ProjectiveDictionaryLearning, TopKDictionaryLearning, *PENALISED]
ALL = [*NEURAL, MethodOfOptimalDirections]
P = ProjectiveDictionaryLearning


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_the_first_bad_row_is_named(Estimator, bad, dtype):
    X = sparse_rows(200).astype(dtype)
    model = Estimator(**SMALL).fit(X)
    X[57, 3] = X[120, 0] = bad
    for method in (Estimator(**SMALL).fit, Estimator(**SMALL).partial_fit, model.transform, model.score):
        with pytest.raises(ValueError, match="X contains NaN or infinity: the first such row is 57"):
            method(X)


@pytest.mark.parametrize("Estimator", [ProjectiveDictionaryLearning, TopKDictionaryLearning, MethodOfOptimalDirections])
@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_a_number_of_coefficients_set_after_the_fit_is_looked_at(Estimator, k):
    X = sparse_rows(200)
    model = Estimator(**SMALL).fit(X)
    with pytest.raises(ValueError, match=f"n_nonzero_coefs={k} is no number of atoms. Give"):
        model.set_params(n_nonzero_coefs=k).transform(X)


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((0, 4)), "0 sample"),
        (np.zeros((5, 0)), r"0 feature\(s\)"),
        (np.zeros(5), "Expected 2D array, got 1D array"),
        (np.zeros((2, 3, 4)), "dim 3|Found array with dim"),
        (np.ones((1, 4)), "1 sample"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert|dtype"),
        (np.array([[1 + 1j, 2], [3, 4]]), "Complex data not supported"),
    ],
    ids=["no rows", "no columns", "1-d", "3-d", "one row", "text", "complex"],
)
def test_shapes_and_types_that_cannot_be_fitted(Estimator, X, message):
    with pytest.raises(ValueError, match=message):
        Estimator(**SMALL).fit(X)


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_components", 0),
        ("n_components", 2.5),
        ("n_nonzero_coefs", 0),
        ("n_nonzero_coefs", "some"),
        ("init", "zeros"),
        ("max_iter", 0),
        ("batch_size", 0),
        ("tol", -1.0),
        ("chunk_size", 0),
    ],
)
def test_single_parameters_get_scikit_learns_message(Estimator, parameter, value):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {Estimator.__name__} must be"):
        Estimator(**{**SMALL, parameter: value}).fit(sparse_rows(50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "cubic"}, "The 'penalty' parameter"),
        ({"quota": "normalize"}, r"quota='normalize'.*penalty='exact' does not use them"),
        ({"selection": "budget", "dimension_budget": 2.0}, r"selection='budget'.*penalty='exact'"),
        ({"selection": "budget", "penalty": "ridge"}, r"needs dimension_budget"),
        ({"selection": "threshold", "n_nonzero_coefs": None}, "n_nonzero_coefs=None"),
        ({"selection": "adaptive", "n_nonzero_coefs": None}, "'adaptive'.*n_nonzero_coefs=None. Give a number"),
        ({"selection": "adaptive", "candidate_factor": 1}, "'adaptive'.*candidate_factor=1. Give a factor above 1"),
        ({"selection": "adaptive", "candidate_factor": 1.1}, "k = 3 .* 3 candidates.*larger candidate_factor"),
        ({"encoder_loss": "penalty"}, r"encoder_loss='penalty'.*would never move"),
        ({"prefix_sizes": (8, 4)}, r"prefix_sizes must be increasing.*\(8, 4\)"),
        ({"prefix_sizes": (8, 100)}, r"none above the number of atoms \(24\)"),
        ({"init": np.zeros((24, 3))}, r"\(24, 16\), got shape \(24, 3\)"),
        ({"init": np.zeros((24, 16))}, "row 0 has norm 0"),
        ({"init": lambda rows, p, rng: np.full((p, rows.shape[1]), np.nan)}, "row 0 has norm nan"),
        ({"candidate_factor": 0.5}, "The 'candidate_factor' parameter"),
        ({"shortlist_factor": 0.5}, "The 'shortlist_factor' parameter"),
        ({"n_refinements": -1}, "The 'n_refinements' parameter"),
    ],
)
def test_parameters_that_exclude_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        P(**{**SMALL, **options}).fit(sparse_rows(50))


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (lambda e: e[:, :1], r"penalty.*shape"),
        (lambda e: -1 - e * e, r"penalty.*negative or not finite"),
        (lambda e: 1 / (0 * e), r"penalty.*negative or not finite"),
    ],
    ids=["shape", "negative", "infinite"],
)
def test_a_callable_penalty_is_checked(penalty, message):
    with pytest.raises(ValueError, match=message):
        P(**SMALL, penalty=penalty).fit(sparse_rows(50))


@pytest.mark.parametrize("Estimator", ALL)
def test_other_columns_than_at_fit(Estimator):
    model = Estimator(**SMALL).fit(sparse_rows(60))
    for method in (model.transform, model.score, model.partial_fit):
        with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 16 features"):
            method(np.ones((10, 5)))
    with pytest.raises(ValueError, match="one column for each of the 24 atoms"):
        model.inverse_transform(np.ones((3, 5)))


@pytest.mark.parametrize("Estimator", ALL)
def test_other_namespace_than_at_fit(Estimator):
    import sklearn
    import torch

    model = Estimator(**SMALL).fit(sparse_rows(60))
    with (
        sklearn.config_context(array_api_dispatch=True),
        pytest.raises(ValueError, match=rf"{Estimator.__name__}.transform\(\) must use the same namespace"),
    ):
        model.transform(torch.ones((3, 16)))


@pytest.mark.parametrize("Estimator", NEURAL)
def test_targets_with_another_number_of_rows(Estimator):
    X = sparse_rows(60)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, 59\]"):
        Estimator(**SMALL, target="y").fit(X, X[:59])
    Y = X.copy()
    Y[11, 2] = np.nan
    with pytest.raises(ValueError, match="y contains NaN or infinity: the first such row is 11"):
        Estimator(**SMALL, target="y").fit(X, Y)


@pytest.mark.parametrize("Estimator", ALL)
def test_constant_columns_are_ordinary(Estimator):
    X = sparse_rows(100)
    X[:, 4] = 7.0
    model = Estimator(**SMALL).fit(X)
    assert np.isfinite(model.transform(X)).all()
    assert model.score(X) > 0.2


@pytest.mark.parametrize("Estimator", ALL)
def test_rows_without_any_variance_warn_and_stay_finite(Estimator):
    X = np.full((50, 16), 3.0)
    with pytest.warns(UserWarning, match="no variance to explain"):
        model = Estimator(**SMALL).fit(X)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-6)
    assert np.isfinite(model.components_).all()


@pytest.mark.parametrize("Estimator", ALL)
def test_score_of_one_row_is_nan_with_a_warning(Estimator):
    X = sparse_rows(60)
    model = Estimator(**SMALL).fit(X)
    with pytest.warns(UserWarning, match="fewer than 2 rows"):
        assert np.isnan(model.score(X[:1]))


@pytest.mark.parametrize("Estimator", ALL)
def test_a_refused_fit_leaves_the_fitted_dictionary_alone(Estimator):
    X = sparse_rows(60)
    model = Estimator(**SMALL).fit(X)
    before = model.transform(X)
    for columns in (16, 8):
        bad = X[:, :columns].copy()
        bad[3, 3] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            model.fit(bad)
        np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(ValueError, match="init must give"):
        model.set_params(init=np.ones((3, 3))).fit(X[:, :8])
    assert model.n_features_in_ == 16
    np.testing.assert_array_equal(model.transform(X), before)


@pytest.mark.parametrize("Estimator", [ProjectiveDictionaryLearning, TopKDictionaryLearning])
@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", 7.5])
def test_a_device_that_is_not_there(Estimator, device):
    with pytest.raises(ValueError, match=r"device=.*Name (one|another)"):
        Estimator(**SMALL, device=device).fit(sparse_rows(50))


def test_a_device_object_is_a_device():
    import torch

    assert P(**SMALL, device=torch.device("cpu")).fit(sparse_rows(50)).n_steps_ > 0


def test_a_callable_penalty_that_torch_cannot_follow():
    with pytest.raises(ValueError, match="penalty must map a torch tensor to a tensor, got ndarray"):
        P(**SMALL, penalty=lambda e: np.exp(e.numpy())).fit(sparse_rows(50))
    with pytest.raises(ValueError, match=r"penalty must map a torch tensor.*raised AttributeError"):
        P(**SMALL, penalty=lambda e: e.to_frame()).fit(sparse_rows(50))


def test_a_callable_penalty_of_torch_codes_numpy_rows():
    import torch

    X = sparse_rows(100)
    given = P(**SMALL, penalty=torch.nn.functional.softplus).fit(X)
    named = P(**SMALL, penalty="softplus").fit(X)
    np.testing.assert_allclose(given.transform(X), named.transform(X), atol=1e-8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"selection": "threshold"}, "lacks threshold_"),
        ({"selection": "budget"}, "selection='budget'"),
        ({"penalty": "inverse_square"}, "lacks importance_gain_"),
        ({"target": "y"}, "lacks coef_components_"),
        ({"tied": True}, "lacks encoder_gain_"),
        ({"tied": "metric"}, "lacks encoder_gain_"),
    ],
)
def test_parameters_that_the_fit_did_not_learn(changed, message):
    X = sparse_rows(60)
    model = P(**SMALL).fit(X).set_params(**changed)
    with pytest.raises(ValueError, match=message):
        model.transform(X)


def test_a_threshold_that_the_fit_did_not_learn():
    X = sparse_rows(60)
    model = P(**SMALL, selection="top_k").fit(X).set_params(selection="adaptive")
    with pytest.raises(ValueError, match="lacks removal_threshold_"):
        model.transform(X)
