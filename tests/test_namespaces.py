# SPDX-License-Identifier: BSD-3-Clause
"""The same numbers from every array library: a model fitted on NumPy, moved, and asked again."""

import numpy as np
import pytest
import sklearn
from sklearn.utils._array_api import move_estimator_to

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

from .data import scores_of, sparse_rows

SMALL = {"n_components": 64, "n_nonzero_coefs": 4, "max_iter": 4, "random_state": 0}
FORMS = {
    "exact": ProjectiveDictionaryLearning(**SMALL),
    "refined": ProjectiveDictionaryLearning(**SMALL, n_refinements=1, candidate_factor=2.0),
    "tied": ProjectiveDictionaryLearning(**SMALL, tied=True),
    "metric": ProjectiveDictionaryLearning(**SMALL, tied="metric"),
    "inverse_square": ProjectiveDictionaryLearning(**SMALL, penalty="inverse_square", quota="sum"),
    "budget": ProjectiveDictionaryLearning(
        **SMALL, penalty="softplus", selection="budget", dimension_budget=2.0, budget_measure="exact"
    ),
    "threshold": ProjectiveDictionaryLearning(**SMALL, selection="threshold"),
    "adaptive": ProjectiveDictionaryLearning(**SMALL, selection="adaptive", n_refinements=1),
    "positive": ProjectiveDictionaryLearning(**SMALL, positive_code=True),
    "cg": ProjectiveDictionaryLearning(**SMALL, solver="cg"),
    "all positive": ProjectiveDictionaryLearning(**{**SMALL, "n_nonzero_coefs": None}, penalty="ridge"),
    "topk": TopKDictionaryLearning(**SMALL),
    "batch topk": TopKDictionaryLearning(**SMALL, selection="batch"),
    "relu": ReLUDictionaryLearning(**SMALL),
    "jumprelu": JumpReLUDictionaryLearning(**SMALL),
    "gated": GatedDictionaryLearning(**SMALL),
    "mod": MethodOfOptimalDirections(**SMALL),
    "mod omp": MethodOfOptimalDirections(**SMALL, coder="omp"),
}


def data(dtype):
    return sparse_rows(n=400, d=24, p=64, k=4).astype(dtype)


@pytest.fixture(scope="module")
def fitted():
    """One fit a form and dtype, on NumPy."""
    cache = {}

    def get(form, dtype):
        if (form, dtype) not in cache:
            cache[form, dtype] = sklearn.base.clone(FORMS[form]).fit(data(dtype))
        return cache[form, dtype]

    return get


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_agree_across_namespaces(fitted, backend, form, dtype):
    X = data(dtype)
    reference = fitted(form, dtype)
    codes = reference.transform(X)
    with sklearn.config_context(array_api_dispatch=True):
        Xb = backend.asarray(X)
        moved = move_estimator_to(reference, *_namespace_and_device(Xb))
        other = backend.to_numpy(moved.transform(Xb))
        back = backend.to_numpy(moved.inverse_transform(moved.transform(Xb)))
        score = moved.score(Xb)
    assert other.dtype == codes.dtype
    if dtype == "float64":
        np.testing.assert_allclose(other, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
        assert score == pytest.approx(reference.score(X), abs=1e-10)
        return
    same = ((other != 0) == (codes != 0)).all(axis=1)
    assert (~same).mean() < 0.005  # near-ties in float32 scores may fall either way
    if form == "topk":  # the one form whose support the scores alone decide
        ranked = np.sort(scores_of(reference, X)[~same], axis=1)
        assert (ranked[:, -4] - ranked[:, -5] < 1e-5).all()
    size = np.abs(codes).max()
    np.testing.assert_allclose(other[same], codes[same], rtol=0, atol=1e-3 * size)
    np.testing.assert_allclose(back[same], reference.inverse_transform(codes)[same], rtol=0, atol=1e-5 * size)


def _namespace_and_device(X):
    from sklearn.utils._array_api import get_namespace_and_device

    xp, _, device = get_namespace_and_device(X)
    return xp, device


@pytest.mark.parametrize("form", ["exact", "tied", "topk", "mod"])
def test_fits_follow_x(backend, form):
    X = data("float64")
    with sklearn.config_context(array_api_dispatch=True):
        Xb = backend.asarray(X)
        model = sklearn.base.clone(FORMS[form]).fit(Xb)
        xp, device = _namespace_and_device(Xb)
        assert _namespace_and_device(model.components_) == (xp, device)
        assert _namespace_and_device(model.transform(Xb)) == (xp, device)
        partial = sklearn.base.clone(FORMS[form]).partial_fit(Xb)
        assert _namespace_and_device(partial.components_) == (xp, device)
    expected = sklearn.base.clone(FORMS[form]).fit(X)
    np.testing.assert_allclose(backend.to_numpy(model.components_), expected.components_, atol=1e-6)


def test_numpy_in_and_out_with_a_device_named():
    X = data("float32")
    model = ProjectiveDictionaryLearning(**SMALL, device="cpu").fit(X)
    assert isinstance(model.components_, np.ndarray)
    assert isinstance(model.transform(X), np.ndarray)


def test_tensors_are_read_as_numpy_without_dispatch():
    import torch

    X = data("float32")
    model = ProjectiveDictionaryLearning(**SMALL).fit(torch.from_numpy(X))
    assert isinstance(model.components_, np.ndarray)


def test_sparse_output_needs_numpy():
    import torch

    with sklearn.config_context(array_api_dispatch=True):
        X = torch.from_numpy(data("float32"))
        model = ProjectiveDictionaryLearning(**SMALL, sparse_output=True).fit(X)
        with pytest.raises(TypeError, match="sparse_output=True needs NumPy input"):
            model.transform(X)


@pytest.mark.gpu
@pytest.mark.parametrize("Estimator", [ProjectiveDictionaryLearning, TopKDictionaryLearning])
def test_numpy_rows_train_on_a_named_gpu(Estimator):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and none is here")
    X = data("float32")
    model = Estimator(**SMALL, device="cuda").fit(X)
    assert isinstance(model.components_, np.ndarray)
    on_cpu = Estimator(**SMALL).fit(X)
    assert model.score(X) == pytest.approx(on_cpu.score(X), abs=0.02)


@pytest.mark.parametrize("form", ["exact", "topk", "mod"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_without_dispatch_are_numpy_arrays_of_their_dtype(form, dtype):
    torch = pytest.importorskip("torch")
    X = data(dtype)
    expected = sklearn.base.clone(FORMS[form]).fit(X)
    tensor = torch.tensor(X, requires_grad=True)
    model = sklearn.base.clone(FORMS[form]).fit(tensor)
    assert model.components_.dtype == dtype
    np.testing.assert_array_equal(model.components_, expected.components_)
    codes = model.transform(tensor)
    assert isinstance(codes, np.ndarray)
    assert codes.dtype == dtype
    np.testing.assert_array_equal(codes, expected.transform(X))


def test_bfloat16_without_dispatch_becomes_float32():
    torch = pytest.importorskip("torch")
    X = torch.tensor(data("float32")).bfloat16()
    model = sklearn.base.clone(FORMS["topk"]).fit(X)
    assert model.components_.dtype == np.float32
    np.testing.assert_array_equal(model.transform(X), model.transform(X.float().numpy()))
