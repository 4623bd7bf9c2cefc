# SPDX-License-Identifier: BSD-3-Clause
"""Among scikit-learn's other parts: pipelines, searches, frames, copies, displays."""

import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning

from .data import sparse_rows

SMALL = {"n_components": 24, "n_nonzero_coefs": 3, "max_iter": 2, "random_state": 0}
ALL = [ProjectiveDictionaryLearning, TopKDictionaryLearning, MethodOfOptimalDirections]


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def pipeline(**options):
    # Class labels reach every step of a pipeline as y: with target="X" they must not matter.
    dictionary = ProjectiveDictionaryLearning(64, n_nonzero_coefs=8, max_iter=5, random_state=0)
    return make_pipeline(StandardScaler(), dictionary.set_params(**options), LogisticRegression(max_iter=1000))


def test_codes_classify_digits(digits):
    X, y = digits
    model = pipeline().fit(X[:1200], y[:1200])
    assert model.score(X[1200:], y[1200:]) > 0.75


def test_grid_search_by_the_classifiers_score_in_two_processes(digits):
    X, y = digits
    step = "projectivedictionarylearning__"
    grid = [
        {f"{step}n_nonzero_coefs": [2, 8], f"{step}n_components": [32, 64]},
        {f"{step}tied": [False, True]},
        {f"{step}penalty": ["ridge"], f"{step}alpha": [0.01, 1.0]},
    ]
    search = GridSearchCV(pipeline(max_iter=2), grid, cv=2, n_jobs=2, error_score="raise").fit(X[:600], y[:600])
    scores = search.cv_results_["mean_test_score"]
    assert scores.shape == (8,)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 4
    # More atoms a row make a better code: an ordering that a broken parameter would not give.
    k = np.array([p.get(f"{step}n_nonzero_coefs", -1) for p in search.cv_results_["params"]])
    assert scores[k == 8].mean() > scores[k == 2].mean()


@pytest.mark.parametrize("Estimator", ALL)
def test_grid_search_on_the_estimators_own_score(Estimator):
    search = GridSearchCV(Estimator(**SMALL), {"n_nonzero_coefs": [1, 4]}, cv=2, error_score="raise")
    search.fit(sparse_rows(200))
    assert search.best_params_ == {"n_nonzero_coefs": 4}


@pytest.mark.parametrize("Estimator", ALL)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_in_and_out(Estimator, library):
    frames = pytest.importorskip(library)
    names = {"columns" if library == "pandas" else "schema": [f"c{i}" for i in range(16)]}
    X = frames.DataFrame(sparse_rows(120), **names)
    model = Estimator(**SMALL).set_output(transform=library).fit(X)
    out = model.transform(X)
    assert isinstance(out, frames.DataFrame)
    assert list(out.columns) == list(model.get_feature_names_out())
    assert out.columns[0] == f"{Estimator.__name__.lower()}0"
    assert list(model.feature_names_in_) == [f"c{i}" for i in range(16)]
    with pytest.raises(ValueError, match="feature names"):
        model.transform(X.rename(columns={"c0": "z"}) if library == "pandas" else X.rename({"c0": "z"}))


@pytest.mark.parametrize("Estimator", ALL)
def test_copies_code_alike(Estimator):
    X = sparse_rows(200)
    model = Estimator(**SMALL).fit(X)
    codes = model.transform(X)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    for twin in (pickle.loads(pickle.dumps(model)), joblib.load(buffer)):
        np.testing.assert_array_equal(twin.transform(X), codes)
    fresh = clone(model)
    assert not hasattr(fresh, "components_")
    assert fresh.get_params() == model.get_params()


@pytest.mark.parametrize("Estimator", ALL)
def test_html_names_the_estimator_and_its_parameters(Estimator):
    html = Estimator(**SMALL)._repr_html_()
    assert Estimator.__name__ in html
    assert "n_nonzero_coefs" in html


@pytest.mark.parametrize("Estimator", ALL)
def test_sparse_codes_feed_a_classifier(Estimator, digits):
    X, y = digits
    dictionary = Estimator(32, n_nonzero_coefs=4, max_iter=2, random_state=0, sparse_output=True)
    model = make_pipeline(dictionary, LogisticRegression(max_iter=1000))
    assert model.fit(X[:300], y[:300]).score(X[:300], y[:300]) > 0.5


def test_tensors_go_through_a_pipeline():
    import sklearn
    import torch

    X = torch.from_numpy(sparse_rows(200))
    with sklearn.config_context(array_api_dispatch=True):
        codes = make_pipeline(StandardScaler(), ProjectiveDictionaryLearning(**SMALL)).fit_transform(X)
    assert isinstance(codes, torch.Tensor)
    assert codes.shape == (200, 24)
