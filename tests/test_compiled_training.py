# SPDX-License-Identifier: BSD-3-Clause
"""Compiled passes of a training step, beside the torch code that they stand for."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.solvers import compiled_atoms, compiled_rows, select
from skprojdict.training.autograd import outer_sum
from skprojdict.training.loop import Trainer
from skprojdict.training.losses import projective
from skprojdict.training.losses.common import scores_at
from skprojdict.training.weights import Weights

from .data import sparse_rows

pytest.importorskip("numba")

NEVER = 1 << 62


@pytest.fixture
def switch(monkeypatch):
    """A function that says whether kernels are used from now on, whatever the size of the problem."""

    def to(used):
        monkeypatch.setattr(compiled_atoms, "LEAST_NUMBERS", 1 if used else NEVER)
        monkeypatch.setattr(compiled_rows, "LEAST_WORK", 1 if used else NEVER)

    return to


def both(switch, function):
    """What a function gives by torch code and by kernels."""
    found = []
    for used in (False, True):
        switch(used)
        found.append(function())
    return found


# ---- gradients and atoms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_terms", [1, 2])
def test_sparse_outer_products(switch, dtype, n_terms):
    torch.manual_seed(0)
    indices = torch.randint(0, 9, (150, 4))
    indices[:, 1] = indices[:, 0]  # padding may repeat an atom
    terms = [(torch.randn(150, 4, dtype=dtype), torch.randn(150, 21, dtype=dtype)) for _ in range(n_terms)]
    for weights, _ in terms:
        weights[:, 2] = 0.0
    dense = sum(torch.zeros(150, 12, dtype=dtype).scatter_add_(1, indices, w).T @ R for w, R in terms)
    tolerance = {"atol": 1e-5 if dtype == torch.float32 else 1e-13, "rtol": 1e-5 if dtype == torch.float32 else 0}
    for found in both(switch, lambda: outer_sum(indices, terms, 12)):
        assert found.dtype == dtype
        torch.testing.assert_close(found, dense, **tolerance)
        assert (found[9:] == 0).all()  # atoms of no row


def test_a_weight_that_is_no_number_is_no_zero(switch):
    weights = torch.tensor([[0.0, float("nan")]])
    for found in both(switch, lambda: outer_sum(torch.tensor([[0, 2]]), [(weights, torch.ones(1, 3))], 4)):
        assert_array_equal(found.isnan().any(1), [False, False, True, False])


def test_sums_do_not_depend_on_the_number_of_threads(switch, monkeypatch):
    switch(True)
    torch.manual_seed(0)
    indices, weights, rows = torch.randint(0, 300, (500, 6)), torch.randn(500, 6), torch.randn(500, 33)
    found = []
    for n_threads in (1, 3):
        monkeypatch.setattr("skprojdict.kernels.threads.effective_n_threads", lambda n=n_threads: n)
        found.append(outer_sum(indices, [(weights, rows)], 300))
    assert torch.equal(*found)


def test_gradients_are_straightened_and_atoms_brought_to_norm_1(switch):
    torch.manual_seed(0)
    start, slope = torch.randn(50, 19, dtype=torch.float64), torch.randn(50, 19, dtype=torch.float64)
    start[3] = 0.0

    def passes():
        weights = Weights(components=start.clone().requires_grad_(), mean=torch.zeros(19), bias=torch.zeros(50))
        weights.renormalise()
        weights.components.grad = slope.clone()
        square = weights.project_gradient()
        return weights.components.detach(), weights.components.grad, square

    (atoms, gradient, unknown), (compiled_atoms, compiled_gradient, square) = both(switch, passes)
    assert unknown is None
    assert square == pytest.approx(float((gradient**2).sum()), rel=1e-13)
    torch.testing.assert_close(compiled_atoms, atoms, atol=1e-15, rtol=0)
    torch.testing.assert_close(compiled_gradient, gradient, atol=1e-14, rtol=0)
    assert_allclose(compiled_atoms.norm(dim=1), [1.0] * 3 + [0.0] + [1.0] * 46, atol=1e-14)
    assert_allclose((compiled_atoms * compiled_gradient).sum(1), 0.0, atol=1e-13)


@pytest.mark.parametrize("unit_gradient", [False, True])
@pytest.mark.parametrize("size", [1e-3, 1.0, np.inf])
def test_gradients_are_as_long_with_kernels_as_without(switch, unit_gradient, size):
    def shortened():
        torch.manual_seed(0)
        weights = Weights(torch.randn(60, 20), torch.zeros(20), torch.zeros(60), encoder=torch.randn(60, 20))
        weights.renormalise()
        trainer = Trainer(weights, None, None, learning_rate=0.1, unit_gradient=unit_gradient)
        for tensor in trainer.parameters:
            tensor.grad = size * torch.randn_like(tensor)
        norm = trainer._shorten_gradient(weights.project_gradient())
        return norm, *(tensor.grad for tensor in trainer.parameters)

    plain, compiled = both(switch, shortened)
    assert bool(plain[0].isfinite()) == np.isfinite(size)
    if np.isfinite(size):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6 * (1 if unit_gradient else size))
        left = torch.nn.utils.get_total_norm(compiled[1:])
        expected = torch.tensor(1.0) if unit_gradient or size == 1 else plain[0]
        torch.testing.assert_close(left, expected, rtol=1e-5, atol=0)
    else:
        assert not compiled[0].isfinite()


# ---- scores in low precision


def scored(n=300, p=1024 + 7, d=48, **options):
    torch.manual_seed(1)
    inputs = torch.nn.functional.normalize(torch.randn(n, d), dim=1)
    encoder = torch.nn.functional.normalize(torch.randn(p, d), dim=1)
    bias = 0.05 * torch.randn(p)
    return select.score_all(inputs, encoder, bias, selection_dtype="bfloat16", **options), inputs @ encoder.T + bias


@pytest.mark.parametrize("k", [16, 60])
def test_scores_of_a_kernel_are_those_of_torch(switch, k):
    (plain, exact), (kernel, _) = both(switch, lambda: scored(n_exact=k))
    torch.testing.assert_close(kernel, plain, atol=2e-7, rtol=0)
    best = kernel.topk(k + k // 2 + 16, dim=1).indices
    torch.testing.assert_close(kernel.gather(1, best), exact.gather(1, best), atol=1e-6, rtol=0)
    wanted = exact.topk(k, dim=1)
    differ = (kernel.topk(k, dim=1).indices.sort(1).values != wanted.indices.sort(1).values).any(1)
    assert differ.float().mean() < 0.01
    lowest = exact.gather(1, kernel.topk(k, dim=1).indices).min(1).values
    torch.testing.assert_close(lowest, wanted.values.min(1).values, atol=4e-3, rtol=0)  # never further than rounding
    # Others are told within the rounding of bfloat16, or held below what is exact.
    others = kernel.clone().scatter_(1, best, -torch.inf)
    assert (others.max(1).values <= kernel.gather(1, best).min(1).values).all()
    assert ((others <= -torch.inf) | (others - exact < 8e-3)).all()


def test_rows_with_no_number_stay_as_they_are(switch):
    switch(True)
    torch.manual_seed(1)
    inputs, encoder = torch.randn(40, 32), torch.randn(512, 32)
    inputs[7, 3] = torch.nan
    found = select.score_all(inputs, encoder, torch.zeros(512), selection_dtype="bfloat16", n_exact=4)
    assert found[7].isnan().all()
    assert found[[i for i in range(40) if i != 7]].isfinite().all()


# ---- whole steps


@pytest.mark.parametrize("selection_dtype", [None, "bfloat16"])
@pytest.mark.parametrize("estimator", [TopKDictionaryLearning, ProjectiveDictionaryLearning])
def test_training_is_the_same_with_kernels_and_without(switch, estimator, selection_dtype):
    X = sparse_rows(n=512).astype(np.float32)
    options = {"n_nonzero_coefs": 2, "batch_size": 128, "max_steps": 3, "random_state": 0}

    def losses():
        return estimator(96, selection_dtype=selection_dtype, **options).fit(X).history_["loss"]

    plain, kernels = both(switch, losses)
    assert_allclose(kernels, plain, rtol=2e-3)


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"n_refinements": 1}])
def test_low_precision_changes_no_loss(options):
    """The best scores are exact; others, and those of what a refinement adds, are rounded where they only teach."""
    X = sparse_rows(n=512).astype(np.float32)
    options = {"n_nonzero_coefs": 2, "batch_size": 128, "max_steps": 6, "random_state": 0, **options}
    plain = ProjectiveDictionaryLearning(192, **options).fit(X)
    low = ProjectiveDictionaryLearning(192, selection_dtype="bfloat16", **options).fit(X)
    assert_allclose(low.history_["loss"], plain.history_["loss"], rtol=0.02)
    assert_allclose(low.history_["loss"][0], plain.history_["loss"][0], rtol=2e-3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidate_factor": 1.0},
        {"selection": "top_k", "shortlist_factor": 2.0},
        {"tied": "metric"},
        {"tied": True, "n_refinements": 1},
        {"penalty": "inverse_square", "quota": "normalize"},
    ],
    ids=str,
)
def test_the_encoder_learns_from_scores_that_are_exact_where_a_penalty_weighs_them(
    switch, monkeypatch, options, compiled
):
    switch(compiled)
    rounding, all_of_them = [], []

    def spy(weights, a, indices, all_scores=None, **keywords):
        if all_scores is not None:
            rows, gain = weights.encoder_rows()
            exact = a.detach().double() @ rows.detach().double().T
            exact = (exact if gain is None else exact * gain.detach()) + weights.bias.detach()
            error = (all_scores - exact).abs() / exact.abs().max()
            error[:, 0] = 0  # which kernels fill up rows with
            rounding.append(float(error.gather(1, indices).max()))
            all_of_them.append(float(error.max()))
        return scores_at(weights, a, indices, all_scores, **keywords)

    monkeypatch.setattr(projective, "scores_at", spy)
    monkeypatch.setattr(select, "n_scored_again", lambda n: n)  # no margin, which all that is looked at would be in
    X = sparse_rows(n=512).astype(np.float32)
    given = {"n_nonzero_coefs": 3, "batch_size": 128, "max_steps": 4, "refined_share": 0.5, "random_state": 0}
    ProjectiveDictionaryLearning(192, selection_dtype="bfloat16", **given, **options).fit(X)
    assert len(rounding) >= 4
    assert max(rounding) < (2e-6 if "penalty" in options else 1e-2)
    assert min(all_of_them) > 1e-4  # of those that nobody looks at


def test_fitted_arrays_may_lie_in_columns(switch):
    """Arrays that somebody put in the place of the fitted ones; a second fit goes on from them."""
    switch(True)
    X = sparse_rows(n=300, d=16, p=32, k=3).astype(np.float32)
    options = {"n_components": 32, "n_nonzero_coefs": 3, "max_steps": 3, "random_state": 0, "warm_start": True}
    model, other = (ProjectiveDictionaryLearning(**options).fit(X) for _ in range(2))
    other.components_ = np.asfortranarray(other.components_)
    other.encoder_components_ = np.asfortranarray(other.encoder_components_)
    assert_allclose(other.transform(X), model.transform(X), atol=1e-5)
    assert_array_equal(other.fit(X).components_, model.fit(X).components_)
