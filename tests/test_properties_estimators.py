# SPDX-License-Identifier: BSD-3-Clause
"""Every estimator on degenerate data: it refuses with a reason, or what it learns and codes is finite."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

from .data import sparse_rows

NEURAL = {"max_steps": 4, "batch_size": 16, "random_state": 0}
ESTIMATORS = {
    "projective": ProjectiveDictionaryLearning(12, n_nonzero_coefs=3, **NEURAL),
    "every positive score": ProjectiveDictionaryLearning(12, n_nonzero_coefs=None, penalty="ridge", **NEURAL),
    "k = p": ProjectiveDictionaryLearning(5, n_nonzero_coefs=5, **NEURAL),
    "one atom": ProjectiveDictionaryLearning(1, n_nonzero_coefs=1, **NEURAL),
    "refined, tied, positive": ProjectiveDictionaryLearning(
        12, n_nonzero_coefs=3, tied=True, n_refinements=1, positive_code=True, overlap_penalty=0.01, **NEURAL
    ),
    "importance": ProjectiveDictionaryLearning(
        12, n_nonzero_coefs=3, penalty="inverse_square", quota="normalize", init="data", **NEURAL
    ),
    "budget": ProjectiveDictionaryLearning(
        12, n_nonzero_coefs=6, penalty="softplus", quota="sum", selection="budget", dimension_budget=2.0, **NEURAL
    ),
    "conjugate gradients": ProjectiveDictionaryLearning(12, n_nonzero_coefs=3, solver="cg", init="svd", **NEURAL),
    "topk": TopKDictionaryLearning(12, n_nonzero_coefs=3, **NEURAL),
    "relu": TopKDictionaryLearning(12, n_nonzero_coefs=None, center="geometric_median", **NEURAL),
    "batch topk": TopKDictionaryLearning(12, n_nonzero_coefs=3, selection="batch", prefix_sizes=(4,), **NEURAL),
    "relu, penalised": ReLUDictionaryLearning(12, n_nonzero_coefs=3, **NEURAL),
    "jumprelu": JumpReLUDictionaryLearning(12, n_nonzero_coefs=3, **NEURAL),
    "gated": GatedDictionaryLearning(12, n_nonzero_coefs=3, **NEURAL),
    "mod": MethodOfOptimalDirections(12, n_nonzero_coefs=3, max_iter=2, random_state=0),
    "k-svd": MethodOfOptimalDirections(
        12, n_nonzero_coefs=3, max_iter=2, algorithm="full", update="ksvd", coder="omp", random_state=0
    ),
}
ROWS = sparse_rows(n=48, d=6, p=12, k=2)


def with_zero_rows(X):
    X = X.copy()
    X[::2] = 0
    return X


def one_outlier(X):
    X = X.copy()
    X[7] *= 1e6
    return X


DATA = {
    "zero rows": with_zero_rows(ROWS),
    "all zero": np.zeros((48, 6)),
    "all the same": np.full((48, 6), 3.0),
    "constant columns": ROWS * [1, 0, 0, 1, 0, 1] + [0, 5, -1, 0, 0, 0],
    "few distinct rows": ROWS[np.arange(48) % 3],
    "rank one": np.outer(ROWS[:, 0], ROWS[0]),
    "two rows": ROWS[:2],
    "one column": ROWS[:, :1],
    "outlier": one_outlier(ROWS),
    "far from zero": ROWS + 1e6,
    "whole numbers": np.round(ROWS * 5).astype(np.int64),
    "float16": ROWS.astype(np.float16),
    "huge": ROWS * 1e150,
    "tiny": ROWS * 1e-150,
    "huge float32": (ROWS * 1e25).astype(np.float32),
    "tiny float32": (ROWS * 1e-25).astype(np.float32),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_degenerate_data_leave_finite_dictionaries(name, data):
    X, model = DATA[data], clone(ESTIMATORS[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "every row")  # said where there is no variance
        model.fit(X)
    assert np.isfinite(model.components_).all()
    np.testing.assert_allclose(np.linalg.norm(model.components_.astype(np.float64), axis=1), 1, atol=1e-3)
    assert np.isfinite(model.mean_).all()
    assert all(np.isfinite(series).all() for series in model.history_.values())
    codes = model.transform(X)
    assert np.isfinite(codes).all()
    assert np.isfinite(model.inverse_transform(codes)).all()
    assert np.isfinite(model.score(X))
    assert np.isfinite(model.transform(np.zeros_like(X[:1]))).all()


@pytest.mark.parametrize("name", ["projective", "topk", "mod"])
@pytest.mark.parametrize("exponent", [-400, -100, 100, 400])
def test_the_unit_of_the_data_does_not_matter(name, exponent):
    """By a power of two nothing rounds otherwise, so all but the units agree to the last bit."""
    one = clone(ESTIMATORS[name]).fit(ROWS)
    other = clone(ESTIMATORS[name]).fit(ROWS * 2.0**exponent)
    np.testing.assert_array_equal(other.components_, one.components_)
    assert other.scale_ == one.scale_ * 2.0**exponent
    np.testing.assert_array_equal(other.transform(ROWS * 2.0**exponent), one.transform(ROWS) * 2.0**exponent)
    assert other.score(ROWS * 2.0**exponent) == one.score(ROWS)
