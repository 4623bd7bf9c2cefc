# SPDX-License-Identifier: BSD-3-Clause
"""Estimators outlive the process and the device: pickles, copies and skops files, in the middle of a stream too."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_array_equal

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
    _portable,
)
from skprojdict.persistence import load, save

from .data import sparse_rows

X = sparse_rows(n=300).astype(np.float32)
BATCHES = np.split(X, 3)
SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "random_state": 0}
ESTIMATORS = {
    "projective": ProjectiveDictionaryLearning(**SMALL, max_steps=5),
    "importance": ProjectiveDictionaryLearning(**SMALL, penalty="inverse_square", quota="normalize", tied=True),
    "topk": TopKDictionaryLearning(**SMALL, max_steps=5),
    "relu": ReLUDictionaryLearning(**SMALL, max_steps=5),
    "jumprelu": JumpReLUDictionaryLearning(**SMALL, max_steps=5),
    "gated": GatedDictionaryLearning(**SMALL, max_steps=5),
    "mod": MethodOfOptimalDirections(**SMALL, max_iter=1),
}


def by_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def by_deepcopy(model, tmp_path):
    return copy.deepcopy(model)


def by_file(model, tmp_path):
    save(model, tmp_path / "model.safetensors")
    return load(tmp_path / "model.safetensors")


def by_archive(model, tmp_path):
    save(model, tmp_path / "model.npz")
    return load(tmp_path / "model.npz")


def by_skops(model, tmp_path):
    skops = pytest.importorskip("skops.io", reason="skops is not installed: pip install 'skprojdict[test]'")
    skops.dump(model, tmp_path / "model.skops")
    untrusted = skops.get_untrusted_types(file=tmp_path / "model.skops")
    assert untrusted == [f"{type(model).__module__}.{type(model).__name__}"]  # nothing else is to be trusted
    return skops.load(tmp_path / "model.skops", trusted=untrusted)


WAYS = [by_pickle, by_deepcopy, by_file, by_archive, by_skops]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_stream_goes_on_to_the_last_bit(name, way, tmp_path):
    """Moments, dead-feature counters and statistics come along, so that nothing of earlier batches is lost."""
    stream = sklearn.clone(ESTIMATORS[name])
    for batch in BATCHES[:2]:
        stream.partial_fit(batch)
    moved = way(stream, tmp_path)
    for model in (stream, moved):
        model.partial_fit(BATCHES[2])
    for attribute in (name for name in vars(stream) if name.endswith("_")):
        assert_array_equal(getattr(moved, attribute), getattr(stream, attribute), err_msg=attribute)
    assert_array_equal(moved.transform(X), stream.transform(X))


@pytest.mark.parametrize("name", ["projective", "mod"])
def test_a_copy_goes_its_own_way(name):
    stream = sklearn.clone(ESTIMATORS[name]).partial_fit(BATCHES[0])
    other = copy.deepcopy(stream)
    before = other.components_.copy()
    stream.partial_fit(BATCHES[1])
    assert_array_equal(other.components_, before)


@pytest.fixture
def on_cuda(monkeypatch):
    """Pretend that tensors are on a CUDA device that is gone when the pickle is opened."""
    monkeypatch.setattr(_portable, "on_cpu", lambda array: False)
    monkeypatch.setattr(_portable, "device", lambda array: "cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, so nothing is missing")
@pytest.mark.parametrize("name", ["projective", "topk", "mod"])
def test_pickles_made_on_cuda_open_on_the_cpu(name, on_cuda):
    with sklearn.config_context(array_api_dispatch=True):
        model = sklearn.clone(ESTIMATORS[name])
        for batch in BATCHES[:2]:
            model.partial_fit(torch.from_numpy(batch))
        content = pickle.dumps(model)
        with pytest.warns(UserWarning, match=r"pickled on torch device 'cuda:0', which is not here .*on the CPU"):
            opened = pickle.loads(content)
        assert opened.components_.device.type == "cpu"
        codes = opened.transform(torch.from_numpy(X))
        assert_array_equal(codes, model.transform(torch.from_numpy(X)))
        opened.partial_fit(torch.from_numpy(BATCHES[2]))


@pytest.mark.gpu
def test_pickles_of_a_cuda_device_come_back_to_it():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and none is here")
    with sklearn.config_context(array_api_dispatch=True):
        model = TopKDictionaryLearning(**SMALL, max_steps=5).fit(torch.from_numpy(X).cuda())
        opened = pickle.loads(pickle.dumps(model))
        assert opened.components_.is_cuda
        assert torch.equal(opened.components_, model.components_)


def test_shallow_copies_share_their_arrays(on_cuda):
    model = TopKDictionaryLearning(**SMALL, max_steps=5).fit(X)
    assert copy.copy(model).components_ is model.components_
    assert_array_equal(copy.deepcopy(model).components_, model.components_)


def test_cupy_arrays_without_cupy_become_numpys():
    try:
        import cupy  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("CuPy is here, so nothing is missing")
    with pytest.warns(UserWarning, match="pickled on cupy device"):
        assert_array_equal(_portable.bring_back(np.arange(3), "cupy", "<CUDA Device 0>"), np.arange(3))
