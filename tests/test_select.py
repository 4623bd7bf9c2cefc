# SPDX-License-Identifier: BSD-3-Clause
"""Selection: closed cases of every rule, one row at a time, and budgets that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict._array import scatter_rows, top_k
from skprojdict.solvers.penalties import dimension_estimate, precisions
from skprojdict.solvers.ridge import effective_dimension
from skprojdict.solvers.select import Support, fit_budget, keep_best, score_all, select

SCORES = np.array([[0.5, -1.0, 3.0, 0.0, 2.0], [-1.0, -2.0, -0.5, -3.0, 0.0], [1.0, 4.0, 0.2, 5.0, 0.1]])
PENALTY = {"penalty": "inverse_square", "alpha": 0.7}


def chosen(support):
    """Active indices of each row, in order."""
    return [list(row[keep]) for row, keep in zip(support.indices, support.active, strict=True)]


def numpy_support(backend, support):
    return Support(*(None if part is None else backend.to_numpy(part) for part in support))


def check_padding_last(support):
    assert (support.active[:, :-1] >= support.active[:, 1:]).all()


# ---- rules on scores


@pytest.mark.parametrize(
    ("k", "options", "expected"),
    [
        (2, {}, [[2, 4], [], [3, 1]]),
        (4, {}, [[2, 4, 0], [], [3, 1, 0, 2]]),
        (99, {}, [[2, 4, 0], [], [3, 1, 0, 2, 4]]),
        (None, {}, [[2, 4, 0], [], [3, 1, 0, 2, 4]]),
        (2, {"selection": "budget"}, [[2, 4], [], [3, 1]]),
        (3, {"positive": False}, [[2, 4, 0], [4, 2, 0], [3, 1, 0]]),
        (1, {"selection": "threshold", "threshold": 0.9}, [[2, 4], [], [3, 1, 0]]),
        (2, {"selection": "threshold", "threshold": 1.0}, [[2, 4], [], [3, 1]]),
        (2, {"selection": "threshold", "threshold": 9.0}, [[], [], []]),
        (2, {"selection": "threshold", "threshold": -1.5}, [[2, 4, 0], [], [3, 1, 0, 2, 4]]),
        (2, {"selection": "top_k", "threshold": 2.5}, [[2, 4], [], [3, 1]]),
    ],
)
def test_every_rule_on_three_rows(backend, k, options, expected):
    support = numpy_support(backend, select(backend.asarray(SCORES), k, **options))
    assert chosen(support) == expected
    assert support.indices.dtype == np.int64
    assert support.indices.shape == support.scores.shape == support.active.shape
    assert_array_equal(support.scores, np.take_along_axis(SCORES, support.indices, axis=1))
    check_padding_last(support)
    if k is None or options.get("selection") == "threshold":
        assert support.indices.shape[1] == max(1, max(map(len, expected)))  # as wide as the longest row, no wider
    else:
        assert support.indices.shape[1] == min(k, 5)


@pytest.mark.parametrize("p", [5, 300, 1023, 8405])  # the last is reduced to groups of columns twice, with a remainder
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_a_sort(backend, rng, p, k):
    values = rng.standard_normal((20, p))
    values[3] = 0.0
    values[4, 1:] = values[4, 0]
    values[5, :-2] = -np.inf
    best, indices = (backend.to_numpy(part) for part in top_k(backend.asarray(values), k))
    assert_array_equal(best, -np.sort(-values, axis=1)[:, :k])
    assert_array_equal(np.take_along_axis(values, indices, axis=1), best)
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("options", [{"k": 4}, {"k": None}, {"k": 4, "selection": "threshold", "threshold": 0.8}])
def test_no_rule_mixes_rows(rng, options):
    scores = rng.standard_normal((30, 12))
    whole = chosen(select(scores, **options))
    order = rng.permutation(30)
    assert chosen(select(scores[order], **options)) == [whole[i] for i in order]
    assert chosen(select(scores[7:8], **options)) == whole[7:8]


def test_scatter_is_the_dense_code(backend, rng):
    """Padding that repeats an index of its row adds nothing."""
    indices = np.array([[0, 2, 2, 0], [1, 3, 0, 0], [4, 4, 4, 4]])
    values = np.array([[1.0, 2.0, 0.0, 0.0], [3.0, -4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    dense = backend.to_numpy(scatter_rows(backend.asarray(indices), backend.asarray(values), 5))
    assert_array_equal(dense, [[1, 0, 2, 0, 0], [0, 3, 0, -4, 0], [0, 0, 0, 0, 0]])


# ---- budgets


def scored_problem(rng, n=25, d=8, p=30):
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    return np.abs(rng.standard_normal((n, p))) * 2, F


@pytest.mark.parametrize("measure", ["estimate", "exact"])
@pytest.mark.parametrize("budget", [0.3, 2.5, 6.0])
@pytest.mark.parametrize("k", [6, None])
def test_budget_is_the_longest_prefix_that_fits(backend, rng, measure, budget, k):
    scores, F = scored_problem(rng)
    support = select(backend.asarray(scores), k)
    fitted = fit_budget(support, backend.asarray(F), budget, measure=measure, chunk_size=4, **PENALTY)
    support, fitted = numpy_support(backend, support), numpy_support(backend, fitted)
    check_padding_last(fitted)
    for i in range(len(scores)):
        atoms, s = F[support.indices[i]], precisions(support.scores[i : i + 1], support.active[i : i + 1], **PENALTY)[0]
        used = []
        for m in range(1, len(s) + 1):
            G = atoms[:m] @ atoms[:m].T
            exact = np.trace(G @ np.linalg.inv(G + np.diag(1 / s[:m])))
            used.append(exact if measure == "exact" else (s[:m] / (1 + s[:m])).sum())
        assert fitted.active[i].sum() == np.sum(np.array(used) <= budget)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    budget=st.floats(0.01, 12.0),
    measure=st.sampled_from(["estimate", "exact"]),
    quota=st.sampled_from([None, "normalize", "sum"]),
    single=st.booleans(),
)
def test_budget_is_never_exceeded(seed, budget, measure, quota, single):
    """Neither by the precisions of the whole support nor by those that the final solve gives to what is left."""
    scores, F = scored_problem(np.random.default_rng(seed), n=8)
    if single:
        scores, F = scores.astype(np.float32), F.astype(np.float32)
    penalty = {**PENALTY, "quota": quota}
    fitted = fit_budget(select(scores, None), F, budget, measure=measure, **penalty)
    s = precisions(fitted.scores, fitted.active, **penalty)
    slack = 1e-3 if single else 1e-9
    assert (effective_dimension(F, fitted.indices, s) <= budget + slack).all()
    if measure == "estimate":
        assert (dimension_estimate(s) <= budget + slack).all()


def test_exact_budget_admits_more_than_the_estimate(rng):
    """Overlapping atoms are charged twice by the estimate."""
    scores, F = scored_problem(rng, d=5)
    counts = [
        fit_budget(select(scores, None), F, 3.0, measure=measure, **PENALTY).active.sum(axis=1)
        for measure in ("estimate", "exact")
    ]
    assert (counts[1] >= counts[0]).all()
    assert counts[1].sum() > counts[0].sum()


def test_closed_case_of_a_budget():
    """Orthonormal atoms at lambda = 1/9 use 0.9 of a dimension each: four fit into 3.6 to the last bit."""
    support = select(np.full((2, 6), 3.0), None)
    for measure in ("estimate", "exact"):
        fitted = fit_budget(support, np.eye(6), 3.6, measure=measure, penalty="inverse_square")
        assert fitted.active.sum(axis=1).tolist() == [4, 4]
        fitted = fit_budget(support, np.eye(6), 3.6, measure=measure, penalty="ridge", alpha=1.0)
        assert fitted.active.sum(axis=1).tolist() == [6, 6]


def test_zero_atoms_and_zero_precisions_cost_nothing():
    F = np.eye(4)
    F[0] = 0
    scores = np.array([[5.0, 4.0, 3.0, -1.0]])
    fitted = fit_budget(select(scores, None), F, 0.95, measure="exact", penalty="inverse_square")
    assert chosen(fitted) == [[0, 1]]  # a zero atom, then 16/17 of a dimension


# ---- pruning by a ranking


def test_keep_best_sorts_and_never_wakes_padding(backend):
    support = Support(
        np.array([[7, 3, 5, 1], [2, 4, 0, 0]]),
        np.array([[4.0, 3.0, 2.0, 1.0], [2.0, 1.0, 0.0, 0.0]]),
        np.array([[True, True, True, False], [True, False, False, False]]),
        np.array([[False, True, False, True], [True, True, False, False]]),
    )
    ranking = np.array([[-1.0, 0.5, 2.0, 99.0], [-5.0, 3.0, 2.0, 1.0]])
    best = keep_best(Support(*(backend.asarray(part) for part in support)), backend.asarray(ranking), 2)
    best = numpy_support(backend, best)
    assert chosen(best) == [[5, 3], [2]]
    assert_allclose(best.scores[0], [2.0, 3.0])
    assert best.added[0].tolist() == [False, True]
    assert best.added[1, 0]
    wide = keep_best(support, ranking, 9)
    assert chosen(wide) == [[5, 3, 7], [2]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_proposals_select_what_full_precision_does(dtype):
    """The set differs only where scores are closer than the rounding of the proposal."""
    import torch

    torch.manual_seed(3)
    inputs = torch.nn.functional.normalize(torch.randn(400, 48), dim=1)
    encoder = torch.nn.functional.normalize(torch.randn(1024, 48), dim=1)
    bias = 0.05 * torch.randn(1024)
    exact = score_all(inputs, encoder, bias)
    proposed = score_all(inputs, encoder, bias, selection_dtype=dtype, n_exact=16)
    wanted, got = select(exact, 16), select(proposed, 16)
    differ = ~(got.indices.sort(1).values == wanted.indices.sort(1).values).all(1)
    # The gap between the 16th and the 41st score is far above bfloat16's rounding of them in nearly every row.
    assert differ.float().mean() < 0.01
    torch.testing.assert_close(got.scores[~differ], wanted.scores[~differ], atol=1e-6, rtol=0)
    best = exact.topk(16, dim=1).values
    torch.testing.assert_close(exact.gather(1, got.indices).min(1).values, best.min(1).values, atol=4e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_does_not_mind_the_size_of_rows(rng, dtype):
    """Rows a million times longer or shorter than the others: float16 ends at 65504, and loses bits below 6e-5."""
    torch = pytest.importorskip("torch")
    F = torch.from_numpy(rng.standard_normal((2048, 64))).float()
    F /= F.norm(dim=1, keepdim=True)
    rows = torch.from_numpy(rng.standard_normal((90, 64))).float()
    size = torch.tensor([1e-6, 1.0, 1e6]).repeat(30)[:, None]
    low = select(score_all(rows * size, F, None, selection_dtype=dtype, n_exact=16), 16)
    full = select(score_all(rows * size, F, None), 16)
    torch.testing.assert_close(low.scores, full.scores, rtol=1e-4, atol=0)
    rows[3] = 0
    rows[4] = float("inf")
    scores = score_all(rows, F, None, selection_dtype=dtype, n_exact=16)
    assert bool(scores[[0, 1, 2, 3, 5]].isfinite().all())
    assert bool((scores[3].abs() < 1e-30).all())


@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 4e-3), ("float16", 5e-4)])
def test_scores_that_only_propose_stay_rounded(rng, dtype, rounding):
    torch = pytest.importorskip("torch")
    rows = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((300, 48))).float(), dim=1)
    F = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((512, 48))).float(), dim=1)
    for bias in (None, 0.1 * torch.ones(512)):
        exact = score_all(rows, F, bias)
        found = score_all(rows, F, bias, selection_dtype=dtype, n_exact=0)
        error = (found - exact).abs()
        assert rounding / 20 < float(error.max()) < rounding  # none is held, or computed again
        assert float(error.topk(16, dim=1).values.min()) > 0


def test_low_precision_is_for_torch_and_large_dictionaries_only(rng):
    inputs, encoder, bias = rng.standard_normal((9, 5)), rng.standard_normal((40, 5)), rng.standard_normal(40)
    plain = inputs @ encoder.T + bias
    np.testing.assert_array_equal(score_all(inputs, encoder, bias, selection_dtype="bfloat16", n_exact=4), plain)
