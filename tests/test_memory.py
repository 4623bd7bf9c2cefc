# SPDX-License-Identifier: BSD-3-Clause
"""Where memory runs out on a chunk, the chunk is done again in smaller ones, once, and said; results are the same."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import skprojdict._base
from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict._chunks import map_chunks, out_of_memory, smaller_chunk
from skprojdict.solvers import ridge
from skprojdict.training.autograd import overlap

from .data import sparse_rows

X = sparse_rows(n=300).astype(np.float32)
SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "random_state": 0}
ESTIMATORS = [
    ProjectiveDictionaryLearning(**SMALL, max_steps=5, batch_size=64),
    TopKDictionaryLearning(**SMALL, max_steps=5, batch_size=64),
    MethodOfOptimalDirections(**SMALL, max_iter=1),
]
SAID = r"memory ran out on a chunk of 300 rows \(no room\); going on with chunks of 38.*Set a smaller chunk_size"


def short_of_memory(function, limit, size, error=MemoryError):
    """The function on a machine with room for ``limit`` rows; ``size`` tells how many a call has."""

    def limited(*args, **kwargs):
        if size(*args) > limit:
            raise error("no room")
        return function(*args, **kwargs)

    return limited


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError], ids=["numpy", "torch"])
def test_an_estimator_codes_in_smaller_chunks(estimator, error, monkeypatch):
    model = estimator.fit(X)
    codes, score = model.transform(X), model.score(X)
    monkeypatch.setattr(model, "_code", short_of_memory(model._code, 50, lambda X, Y: X.shape[0], error))
    with pytest.warns(UserWarning, match=SAID) as caught:
        smaller = model.transform(X)
    assert len(caught) == 1
    assert_allclose(smaller, codes, atol=1e-5)
    with pytest.warns(UserWarning, match=SAID):
        assert model.score(X) == pytest.approx(score, abs=1e-6)


def test_a_second_time_is_an_error_with_the_remedy(monkeypatch):
    model = ESTIMATORS[1].fit(X)
    monkeypatch.setattr(model, "_code", short_of_memory(model._code, 5, lambda X, Y: X.shape[0]))
    with (
        pytest.warns(UserWarning, match=SAID),
        pytest.raises(
            MemoryError, match=r"chunk of 38 rows \(no room\), also after .* sparse_output=True or a smaller"
        ),
    ):
        model.transform(X)


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    model = ESTIMATORS[1].fit(X)
    monkeypatch.setattr(model, "_code", short_of_memory(model._code, 5, lambda X, Y: X.shape[0], RuntimeError))
    with pytest.raises(RuntimeError, match=r"^no room$"):
        model.transform(X)


@pytest.mark.parametrize("empty", [np.empty, torch.empty], ids=["numpy", "torch"])
def test_real_allocations_that_fail_are_recognised(empty):
    """In the words of the libraries that are here."""
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        empty(2**52)
    assert out_of_memory(caught.value)


def test_other_words_are_not():
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("memory"))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("chunk_size", [60, "auto"])
def test_a_solver_projects_in_smaller_chunks(ragged, chunk_size, monkeypatch, rng):
    F = rng.standard_normal((20, 6))
    Y, indices = rng.standard_normal((60, 6)), rng.integers(20, size=(60, 4))
    weights = (np.arange(4) < rng.integers(1, 5, size=(60, 1))).astype(float)
    options = {"exact": True, "ragged": ragged, "chunk_size": chunk_size}
    whole = ridge.project(Y, F, indices, weights, **options)
    monkeypatch.setattr(ridge, "gather_rows", short_of_memory(ridge.gather_rows, 8, lambda F, i, *out: i.shape[0]))
    with pytest.warns(UserWarning, match=r"memory ran out on a chunk of \d+ rows \(no room\)") as caught:
        parts = ridge.project(Y, F, indices, weights, **options)
    assert len(caught) == 1
    for one, other in zip(whole, parts, strict=True):
        assert_allclose(one, other, atol=1e-12)


def test_a_gradient_is_not_added_twice(monkeypatch, rng):
    """The overlap's gradient is accumulated chunk by chunk: a chunk that failed must not have left its part."""
    F = torch.from_numpy(rng.standard_normal((20, 6))).requires_grad_()
    shares = torch.from_numpy(rng.uniform(size=(60, 4))).requires_grad_()
    indices = torch.from_numpy(rng.integers(20, size=(60, 4)))
    expected = torch.autograd.grad(overlap(F, shares, indices).sum(), [F, shares])
    value = overlap(F, shares, indices).sum()
    monkeypatch.setattr(ridge, "gather_rows", short_of_memory(ridge.gather_rows, 8, lambda F, i, *out: i.shape[0]))
    with pytest.warns(UserWarning, match="memory ran out"):
        found = torch.autograd.grad(value, [F, shares])
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, atol=1e-12)


def test_chunks_that_fail_are_tried_again_and_none_is_left_out():
    tried = []

    def function(rows):
        tried.append((rows.start, rows.stop))
        if rows.stop > 20 and rows.stop - rows.start > 2:
            raise MemoryError
        return rows.start

    with pytest.warns(UserWarning, match="no reason given"):
        done = list(map_chunks(function, 33, 16))
    assert tried == [(0, 16), (16, 32), *((start, min(33, start + 2)) for start in range(16, 33, 2))]
    assert [rows.start for rows, _ in done] == [0, *range(16, 33, 2)]
    with pytest.raises(MemoryError, match="a chunk of 1 rows"):
        smaller_chunk(MemoryError(), 1, again=False)


def test_score_chunks_keep_their_size(monkeypatch):
    model = ESTIMATORS[1].fit(X)
    expected = model.transform(X)
    monkeypatch.setattr(skprojdict._base, "SCORE_BYTES", 10_000)
    assert_array_equal(model.transform(X) != 0, expected != 0)
