# SPDX-License-Identifier: BSD-3-Clause
"""What a fit holds at once, tensor by tensor, above what Adam needs: less than one and a half batches of scores."""

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import skprojdict._chunks
from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.solvers import propose
from skprojdict.training import autograd

# The shape of the benchmark, eight times smaller along each axis: atoms and their gradients are 0.75 of the scores.
N, D, P = 128, 96, 2048
SCORES = 4 * N * P
NEEDED = 4 * 4 * (2 * P * D + P + D)  # parameters, gradients and two moments
BLOCKS = [(skprojdict._chunks, "CHUNK_BYTES_CPU"), (autograd, "LARGE_BYTES"), (autograd, "BAG_BYTES")]


class Held(TorchDispatchMode):
    """The most bytes of tensors alive at once, of all tensors that an operation has seen."""

    def __init__(self):
        super().__init__()
        self.storages, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.storages = {at: held for at, held in self.storages.items() if not held[0].expired()}
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, sum(size for _, size in self.storages.values()))
        return out


def rows(n):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((n, 3 * D), dtype=np.float32) * (rng.random((n, 3 * D)) < 0.1)
    return codes @ rng.standard_normal((3 * D, D), dtype=np.float32)


def test_the_measure_sees_what_is_alive_at_once():
    with Held() as held:
        for _ in range(3):
            one = torch.zeros(1000)
            two = one + 1
            del one
            three = torch.from_numpy(np.ones(500, dtype=np.float32)).add_(two[:500])
            del two, three
    assert held.most == 8000


@pytest.mark.parametrize("Estimator", [TopKDictionaryLearning, ProjectiveDictionaryLearning])
@pytest.mark.parametrize("n", [4 * N, 16 * N])
def test_a_fit_holds_little_above_parameters_gradients_and_moments(Estimator, n, monkeypatch):
    for module, name in BLOCKS:
        monkeypatch.setattr(module, name, getattr(module, name) // 64)  # as the scores are
    monkeypatch.setattr(propose, "LIST_ATOMS", propose.LIST_ATOMS // 8)  # as the atoms are
    model = Estimator(P, n_nonzero_coefs=4, batch_size=N, max_steps=4, random_state=0)
    X = rows(n)
    with Held() as held:
        model.fit(X)
    assert held.most > NEEDED  # the scores of a batch fit where its gradients will be, the good weights do not
    assert held.most - NEEDED < 1.3 * SCORES
