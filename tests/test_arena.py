# SPDX-License-Identifier: BSD-3-Clause
"""Memory that the steps of a training share: pieces do not overlap, come back, and are found again."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skprojdict import TopKDictionaryLearning
from skprojdict._memory import ALIGNMENT, LEAST_HUGE, in_huge_pages, memory_from, uninitialised
from skprojdict._products import affine
from skprojdict.training import weights as home
from skprojdict.training.arena import Arena

from .data import sparse_rows


def address(array):
    return array.ctypes.data


def test_pieces_come_back_and_are_lent_again():
    arena = Arena()
    first, second = arena.take((30, 5), "float32"), arena.take((7,), "float64")
    del first, second  # the first time each has memory of its own; now it is known how much is wanted
    first, second = arena.take((30, 5), "float32"), arena.take((7,), "float64")
    places = address(first), address(second)
    assert (first.shape, first.dtype, second.dtype) == ((30, 5), np.float32, np.float64)
    del first
    third = arena.take((20, 7), "float32")
    assert address(third) == places[0]
    del second, third
    assert [address(arena.take((600,), "uint8"))] == [places[0]]


def test_what_finds_no_room_has_room_the_next_time():
    arena = Arena()
    small = arena.take((16,), "float32")
    start = arena.take((16,), "float32")
    del small, start
    kept = [arena.take((16,), "float32"), arena.take((16,), "float32"), arena.take((1024,), "float32")]
    assert not np.shares_memory(kept[0].base, kept[2])
    kept.clear()
    kept = [arena.take((16,), "float32"), arena.take((16,), "float32"), arena.take((1024,), "float32")]
    assert address(kept[2]) - address(kept[0]) == 128


def test_a_piece_that_is_still_held_keeps_the_memory_that_it_lies_in():
    arena = Arena()
    arena.take((64,), "float32")  # garbage at once
    held = arena.take((64,), "float32")
    held[:] = 7
    for _ in range(3):
        more = arena.take((4096,), "float32")
        more[:] = 1
        del more
    assert (held == 7).all()


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["float32", "float64", "int16"]), st.booleans())))
def test_pieces_never_overlap_and_begin_at_lines(requests):
    arena, held = Arena(), []
    for turn in range(3):
        for number, (size, dtype, keep) in enumerate(requests):
            piece = arena.take((size,), dtype)
            piece[:] = number
            if size:
                assert address(piece) % ALIGNMENT == 0
            if keep:
                held.append((number, piece))
        for number, piece in held:
            assert (piece == number).all()
        piece = None
        if turn == 1:
            del held[: len(held) // 2]
    held.clear()


def test_it_ends_with_its_owner():
    arena = Arena()
    pieces = [arena.take((9, 9), "float32"), arena.take((9, 9), "float32")]
    ended = weakref.ref(arena)
    gc.disable()
    try:
        del arena
        assert ended() is None
        del pieces
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_large_results_of_torch_take_their_memory_from_it(dtype):
    arena, like = Arena(), torch.zeros(2, 3)
    with memory_from(arena):
        uninitialised((5, 8), like, dtype=dtype)  # garbage at once
        out = uninitialised((5, 8), like, dtype=dtype)
        assert out.dtype == dtype
        assert out.shape == (5, 8)
        place = out.data_ptr()
        del out
        assert uninitialised((5, 8), like, dtype=dtype).data_ptr() == place
    assert uninitialised((5, 8), like, dtype=dtype).data_ptr() != place


def test_products_have_gradients_all_the_same():
    X, matrix, shift = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3), torch.randn(5)
    for inputs, weights, bias in ((X, matrix, shift), (X.detach(), matrix, shift.clone().requires_grad_())):
        with memory_from(Arena()):
            affine(inputs, weights, bias).sum().backward()
    torch.testing.assert_close(X.grad, matrix.sum(0).expand(4, 3))
    torch.testing.assert_close(affine(X, matrix, None), X @ matrix.T)


def test_steps_lend_the_same_memory_again_and_again():
    X = sparse_rows(n=256).astype(np.float32)
    model = TopKDictionaryLearning(64, n_nonzero_coefs=3, max_steps=2, batch_size=64, random_state=0)
    trainer, views, _ = model._start(X, X, fresh=True)
    places = []
    for _ in range(4):
        trainer.step(*views.take(slice(0, 64)))
        places.append(address(trainer.arena._room))
    assert places[1] == places[2] == places[3]
    assert trainer.arena._room.size >= 4 * 64 * 64  # the scores of all atoms


def test_large_tensors_move_to_huge_pages_and_small_ones_stay():
    large = torch.arange(LEAST_HUGE // 4, dtype=torch.float32).reshape(2048, -1)
    for source in (large, large.T, large.bfloat16().repeat(1, 2)):
        moved = in_huge_pages(source)
        assert moved.data_ptr() != source.data_ptr()
        assert moved.data_ptr() % ALIGNMENT == 0
        assert moved.is_contiguous()
        assert moved.dtype == source.dtype
        assert bool((moved == source).all())
    for kept in (large[:1000], large.to(torch.int64)):
        assert in_huge_pages(kept) is kept


def test_a_trainer_takes_large_weights_to_huge_pages(monkeypatch):
    X = sparse_rows(n=64).astype(np.float32)
    rows = np.tile(X, (1, 513 // X.shape[1] + 1))[:, :512]
    model = TopKDictionaryLearning(4096, n_nonzero_coefs=2, batch_size=64, max_steps=1, random_state=0)
    moved = []
    monkeypatch.setattr(home, "in_huge_pages", lambda tensor: moved.append(tensor.shape) or in_huge_pages(tensor))
    trainer = model._start(rows, rows, fresh=True)[0]
    assert moved.count((4096, 512)) == 2
    for matrix in (trainer.weights.components, trainer.weights.encoder):
        assert matrix.data_ptr() % ALIGNMENT == 0
        assert matrix.requires_grad
        assert matrix.is_leaf
        assert any(matrix is parameter for parameter in trainer.parameters)
