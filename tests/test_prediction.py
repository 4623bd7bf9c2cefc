# SPDX-License-Identifier: BSD-3-Clause
"""How coefficients are predicted with ``target="y"``: every mode, with and without a linear skip."""

import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.inspection import second_view_errors
from skprojdict.persistence import load, save

P, T = ProjectiveDictionaryLearning, TopKDictionaryLearning
SMALL = {
    "n_components": 24,
    "n_nonzero_coefs": 3,
    "max_steps": 40,
    "batch_size": 128,
    "random_state": 0,
    "target": "y",
}
FORMS = {
    "additive": (P, {"predict_mode": "additive"}),
    "additive, skip": (P, {"predict_mode": "additive", "skip": True}),
    "additive, softplus": (P, {"predict_mode": "additive", "penalty": "softplus"}),
    "regressed": (P, {}),
    "regressed, skip": (P, {"skip": True}),
    "surrogate": (P, {"predict_mode": "surrogate"}),
    "surrogate, ridge": (P, {"predict_mode": "surrogate", "penalty": "ridge", "alpha": 0.2}),
    "TopK": (T, {}),
    "TopK, skip": (T, {"skip": True}),
    "TopK, regressed": (T, {"predict_mode": "regressed"}),
    "TopK, regressed, skip": (T, {"predict_mode": "regressed", "skip": True}),
    "TopK, surrogate": (T, {"predict_mode": "surrogate"}),
}


@pytest.fixture(scope="module")
def views():
    """Inputs in 7 dimensions and what a hidden layer of 12 rectified units makes of them, in 5 dimensions."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((600, 7)) + 1.0
    hidden = np.maximum(A @ rng.standard_normal((7, 12)) - 1.0, 0)
    return 3.0 * A, 5.0 + hidden @ rng.standard_normal((12, 5)) / 4


def made(name, **changes):
    Estimator, options = FORMS[name]
    return Estimator(**{**SMALL, **options, **changes})


@pytest.fixture(scope="module")
def all_fitted(views):
    return {name: made(name).fit(*views) for name in FORMS}


@pytest.fixture(params=FORMS)
def fitted(request, all_fitted):
    return all_fitted[request.param]


def r2(Y, prediction):
    return 1 - ((Y - prediction) ** 2).sum() / ((Y - Y.mean(axis=0)) ** 2).sum()


def skipped(model, A):
    return (A - model.encoder_mean_) @ model.skip_components_.T if model.skip else 0.0


def expected_code(model, a):
    """The code of one row, from the fitted attributes and the formulas in their documentation."""
    inputs = (a - model.encoder_mean_) / model.encoder_scale_
    scores = inputs @ model.encoder_components_.T + model.encoder_bias_
    support = [j for j in np.argsort(-scores)[: model.n_nonzero_coefs] if scores[j] > 0]
    code = np.zeros(len(scores))
    F = model.components_[support]
    if model.predict_mode == "additive":
        code[support] = model.scale_ * (scores * getattr(model, "coef_scale_", np.ones_like(scores)))[support]
    elif model.predict_mode == "regressed":
        maps = inputs @ model.coef_components_.T + model.coef_bias_
        code[support] = model.scale_ * maps[support]
    else:
        stand_in = (a - model.encoder_mean_) @ model.surrogate_components_.T + model.surrogate_bias_
        ridge = model.alpha if getattr(model, "penalty", "exact") == "ridge" else 1e-12
        code[support] = np.linalg.solve(F @ F.T + ridge * np.eye(len(F)), F @ stand_in)
    return code


def test_codes_by_the_documented_formula(fitted, views):
    A, _ = views
    codes = fitted.transform(A[:50])
    for a, code in zip(A, codes, strict=False):
        np.testing.assert_allclose(code, expected_code(fitted, a), atol=1e-6 * fitted.scale_)


def test_prediction_score_and_projection(fitted, views):
    A, Y = views
    prediction = fitted.predict(A)
    codes, solved = fitted.transform(A), fitted.project(A, Y)
    np.testing.assert_allclose(prediction, fitted.inverse_transform(codes) + skipped(fitted, A), atol=1e-9)
    assert fitted.score(A, Y) == pytest.approx(r2(Y, prediction), abs=1e-10)
    projection = fitted.inverse_transform(solved) + skipped(fitted, A)
    assert fitted.score_projection(A, Y) == pytest.approx(r2(Y, projection), abs=1e-10)
    assert fitted.score_projection(A, Y) > fitted.score(A, Y) > 0.2
    if getattr(fitted, "penalty", "exact") == "exact":  # what is left of y is orthogonal to the selected atoms
        for z, rest in zip(codes[:30], Y - projection, strict=False):
            np.testing.assert_allclose(fitted.components_[z != 0] @ rest, 0, atol=1e-9)


def test_only_the_parts_of_the_mode_are_fitted(fitted):
    mode = fitted.predict_mode
    assert hasattr(fitted, "coef_components_") == hasattr(fitted, "coef_bias_") == (mode == "regressed")
    assert hasattr(fitted, "coef_scale_") == (mode == "additive" and isinstance(fitted, P))
    assert hasattr(fitted, "surrogate_components_") == (mode == "surrogate")
    assert hasattr(fitted, "skip_components_") == fitted.skip
    if fitted.skip:
        assert fitted.skip_components_.shape == (5, 7)


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_files_and_pickles_keep_every_part(fitted, views, tmp_path, ending):
    A, Y = views
    save(fitted, tmp_path / f"model.{ending}")
    for copy in (load(tmp_path / f"model.{ending}"), pickle.loads(pickle.dumps(fitted))):
        assert copy.get_params() == fitted.get_params()
        np.testing.assert_array_equal(copy.predict(A), fitted.predict(A))
        np.testing.assert_array_equal(copy.project(A, Y), fitted.project(A, Y))


def test_the_module_computes_the_prediction(fitted, views):
    A, _ = views
    module = fitted.to_torch()
    rows = torch.from_numpy(A[:60]).requires_grad_()
    out = module(rows)
    np.testing.assert_allclose(out.detach().numpy(), fitted.predict(A[:60]), atol=1e-8)
    np.testing.assert_allclose(module.encode(rows).detach().numpy(), fitted.transform(A[:60]), atol=1e-8)
    out.sum().backward()
    assert rows.grad.abs().max() > 0
    if fitted.skip:
        assert module.skip.grad.abs().max() > 0


@pytest.mark.parametrize("name", FORMS)
def test_an_interrupted_fit_goes_on_to_the_same_bits(name, views, tmp_path):
    options = {"max_steps": 12, "checkpoint_dir": tmp_path / "whole", "checkpoint_every": 5}
    whole = made(name, **options).fit(*views)
    again = clone(whole).set_params(checkpoint_dir=tmp_path / "cut")
    start = tmp_path / "whole" / "step-000000000010.safetensors"
    resumed = again.fit(*views, resume=start)
    for attribute in vars(whole):
        if attribute.endswith("_") and isinstance(getattr(whole, attribute), np.ndarray):
            np.testing.assert_array_equal(getattr(resumed, attribute), getattr(whole, attribute), err_msg=attribute)
    assert resumed.history_ == whole.history_


@pytest.mark.parametrize("name", ["additive, skip", "regressed, skip", "surrogate", "TopK, skip"])
def test_training_goes_on_from_fitted_parts(name, views):
    """Attributes are in the units of the data: back in training units they have to be what they were."""
    A, Y = views
    first = made(name).fit(A, Y)
    on = clone(first).set_params(warm_start=True)
    on.__dict__.update({key: value for key, value in vars(first).items() if key.endswith("_")})
    on._flat_target = False
    before = on.score(A, Y)
    on.set_params(learning_rate=1e-12, max_steps=1).fit(A, Y)
    assert on.score(A, Y) == pytest.approx(before, abs=1e-6)
    on.set_params(learning_rate="auto", max_steps=60).fit(A, Y)
    assert on.score(A, Y) > before


@pytest.mark.parametrize("name", ["additive, skip", "regressed, skip", "surrogate", "TopK, regressed, skip"])
def test_units_of_either_view_do_not_matter(name, views):
    A, Y = views
    plain, rescaled = made(name, max_steps=10).fit(A, Y), made(name, max_steps=10).fit(1e3 * A, 1e-3 * Y)
    assert rescaled.score(1e3 * A, 1e-3 * Y) == pytest.approx(plain.score(A, Y), abs=1e-6)


@pytest.mark.parametrize("Estimator", [P, T])
def test_a_skip_alone_is_least_squares(Estimator, views):
    """A target that is a linear map of X: the skip starts at it, and nothing is left to the dictionary."""
    A, _ = views
    W = np.random.default_rng(1).standard_normal((5, 7))
    model = Estimator(**{**SMALL, "max_steps": 1, "skip": True, "learning_rate": 1e-9}).fit(A, A @ W.T + 2.0)
    np.testing.assert_allclose(model.skip_components_, W, atol=0.01)
    assert model.score(A, A @ W.T + 2.0) > 0.999


@pytest.mark.parametrize("Estimator", [P, T])
def test_behind_a_skip_the_unit_is_what_it_leaves_over(Estimator, views):
    """However much of the target is linear in X: the atoms' share, and so what a learning rate means, is the same."""
    A, Y = views
    rest = Y - (A - A.mean(axis=0)) @ np.linalg.lstsq(A - A.mean(axis=0), Y - Y.mean(axis=0), rcond=None)[0]
    norm = np.linalg.norm(rest - rest.mean(axis=0), axis=1).mean()
    W = np.random.default_rng(1).standard_normal((5, 7))
    options = {**SMALL, "skip": True, "max_steps": 10}
    few, much = (Estimator(**options).fit(A, Y + share * A @ W.T) for share in (0.0, 0.2))
    assert few.scale_ == pytest.approx(norm, rel=0.05)
    assert much.scale_ == pytest.approx(norm, rel=0.05)
    np.testing.assert_allclose(few.components_, much.components_, atol=0.05)
    without = Estimator(**{**options, "skip": False}).fit(A, Y)
    assert without.scale_ == pytest.approx(np.linalg.norm(Y - Y.mean(axis=0), axis=1).mean())


@pytest.mark.parametrize("Estimator", [P, T])
def test_noise_on_a_linear_target_does_not_become_the_unit(Estimator, views):
    A, _ = views
    Y = A @ np.random.default_rng(1).standard_normal((5, 7)).T
    model = Estimator(**{**SMALL, "skip": True, "max_steps": 2}).fit(A, Y)
    assert model.scale_ == pytest.approx(0.1 * np.linalg.norm(Y - Y.mean(axis=0), axis=1).mean())


def test_torch_rows_are_predicted_in_torch(views):
    A, Y = (torch.from_numpy(view).float() for view in views)
    with config_context(array_api_dispatch=True):
        for name in ("additive, skip", "surrogate"):
            model = made(name, max_steps=10).fit(A, Y)
            prediction = model.predict(A)
            assert prediction.dtype == torch.float32
            assert model.score(A, Y) == pytest.approx(r2(Y.numpy(), prediction.numpy()), abs=1e-5)
            errors = second_view_errors(model, A, Y, random_state=0)
            assert errors.total == pytest.approx(1 - model.score(A, Y), abs=1e-5)
            assert abs(errors.cross) < 1e-4


def test_sparse_codes_predict_the_same(views):
    A, _ = views
    dense = made("regressed, skip", max_steps=5).fit(*views)
    codes, prediction = dense.transform(A), dense.predict(A)
    dense.set_params(sparse_output=True)
    np.testing.assert_array_equal(dense.transform(A).toarray(), codes)
    np.testing.assert_array_equal(dense.predict(A), prediction)


# ---- misuse


@pytest.mark.parametrize("Estimator", [P, T])
def test_a_skip_needs_a_second_view(Estimator, views):
    with pytest.raises(ValueError, match=r"skip=True.*Set skip=False, or target='y'"):
        Estimator(n_components=8, skip=True).fit(views[0])


@pytest.mark.parametrize("Estimator", [P, T])
def test_without_a_second_view_the_mode_has_no_effect(Estimator, views):
    A, _ = views
    options = {**SMALL, "target": "X", "max_steps": 5}
    plain = Estimator(**options).fit(A)
    for mode in ("additive", "regressed", "surrogate"):
        other = Estimator(**options, predict_mode=mode).fit(A)
        np.testing.assert_array_equal(other.transform(A), plain.transform(A))
        assert not {"coef_scale_", "coef_components_", "surrogate_components_"} & set(vars(other))


@pytest.mark.parametrize("Estimator", [P, T])
def test_a_surrogate_behind_a_skip_would_project_nothing(Estimator, views):
    with pytest.raises(ValueError, match=r"predict_mode='surrogate'.*Set skip=False"):
        Estimator(**SMALL, skip=True, predict_mode="surrogate").fit(*views)


@pytest.mark.parametrize("Estimator", [P, T])
def test_an_unknown_mode_names_those_that_there_are(Estimator, views):
    with pytest.raises(ValueError, match=r"'predict_mode' parameter.*'regressed'.*Got 'oracle'"):
        Estimator(**SMALL, predict_mode="oracle").fit(*views)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("regressed", {"predict_mode": "additive"}, "has coef_components_"),
        ("additive", {"predict_mode": "surrogate"}, "has coef_scale_"),
        ("surrogate", {"predict_mode": "regressed"}, "lacks coef_components_"),
        ("regressed", {"skip": True}, "lacks skip_components_"),
        ("TopK, skip", {"skip": False}, "has skip_components_"),
        ("TopK", {"predict_mode": "regressed"}, "lacks coef_components_"),
    ],
)
def test_a_mode_that_the_fit_did_not_learn(all_fitted, views, name, changed, message):
    model = pickle.loads(pickle.dumps(all_fitted[name])).set_params(**changed)
    with pytest.raises(ValueError, match=rf"{message}.*predict_mode, skip"):
        model.predict(views[0])


# ---- where it errs


def test_errors_of_an_exact_projection_add_up(fitted, views):
    A, Y = views
    errors = second_view_errors(fitted, A, Y, random_state=0)
    assert errors.total == pytest.approx(1 - fitted.score(A, Y), abs=1e-10)
    assert errors.selection == pytest.approx(1 - fitted.score_projection(A, Y), abs=1e-10)
    assert errors.selection + errors.prediction + errors.cross == pytest.approx(errors.total, abs=1e-10)
    if getattr(fitted, "penalty", "exact") == "exact":
        assert errors.cross == pytest.approx(0, abs=1e-9)
        if not fitted.skip:
            assert errors.selected == pytest.approx(fitted.score_projection(A, Y), abs=1e-8)
    assert 0 < errors.skill < 1.2
    assert errors.random < errors.selected


def test_errors_of_a_single_column(views):
    A, Y = views
    model = P(**{**SMALL, "n_nonzero_coefs": 1, "n_components": 6, "skip": True}).fit(A, Y[:, 0])
    with pytest.warns(UndefinedMetricWarning, match="no scale for the skill"):  # every atom spans one dimension
        errors = second_view_errors(model, A, Y[:, 0], random_state=0)
    assert errors.total == pytest.approx(1 - model.score(A, Y[:, 0]))
    assert np.isnan(errors.skill)


def test_errors_need_a_second_view(views):
    A, Y = views
    with pytest.raises(AttributeError, match="Fit it with target='y'"):
        second_view_errors(P(n_components=8, max_steps=1).fit(A), A, Y)
    with pytest.raises(NotFittedError):
        second_view_errors(P(target="y"), A, Y)
