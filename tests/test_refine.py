# SPDX-License-Identifier: BSD-3-Clause
"""Supports improved by solving: candidates, subspace pursuit and non-negative supports."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict.solvers.penalties import dimension_estimate
from skprojdict.solvers.propose import n_added, n_listed, shortlist
from skprojdict.solvers.refine import choose_support, prune, refine, weights_of
from skprojdict.solvers.ridge import effective_dimension, project
from skprojdict.solvers.select import Support, select

EXACT = {"penalty": {"penalty": "exact"}, "solve": {"exact": True}}
RIDGE = {"penalty": {"penalty": "ridge", "alpha": 0.1}, "solve": {}}
SCORED = {"penalty": {"penalty": "inverse_square"}, "solve": {}}
SOFTPLUS = {"penalty": {"penalty": "softplus"}, "solve": {}}
NORMALIZED = {"penalty": {"penalty": "inverse_square", "quota": "normalize"}, "solve": {}}
FIXED_SUM = {"penalty": {"penalty": "softplus", "quota": "sum"}, "solve": {}}
CODERS = {
    "exact": EXACT,
    "ridge": RIDGE,
    "inverse_square": SCORED,
    "softplus": SOFTPLUS,
    "normalize": NORMALIZED,
    "sum": FIXED_SUM,
}


@pytest.fixture(params=list(CODERS))
def coder(request):
    return CODERS[request.param]


def problem(rng, n=60, d=16, p=40, k=4, noise=0.0):
    """Rows of k atoms with positive coefficients, and an encoder that is the dictionary."""
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    truth = np.stack([np.sort(rng.permutation(p)[:k]) for _ in range(n)])
    Y = np.einsum("nk,nkd->nd", rng.uniform(0.8, 1.5, (n, k)), F[truth]) + noise * rng.standard_normal((n, d))
    return Y, F, Y @ F.T, truth


def atoms_of(support):
    return [sorted(row[keep].tolist()) for row, keep in zip(support.indices, support.active, strict=True)]


def errors(support, Y, F):
    """Squared error of least squares on each row's own atoms."""
    present = support.active.astype(Y.dtype)
    return ((Y - project(Y, F, support.indices, present, exact=True).reconstruction) ** 2).sum(axis=1)


def codes_of(support, Y, F, coder):
    return project(Y, F, support.indices, weights_of(support, **coder["penalty"]), **coder["solve"]).coefs


def check_support(support, k):
    atoms = atoms_of(support)
    assert all(len(set(row)) == len(row) <= k for row in atoms)  # no atom twice


# ---- candidates


def test_pruning_keeps_the_largest_coefficients_of_the_joint_solution(backend):
    """Atom 2 leans on 0 and outscores atom 1, but once all are solved it explains nothing."""
    F = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.36, 0.48], [0.0, 0.0, 1.0]])
    Y = np.array([[3.0, 0.5, 0.0], [0.0, 0.0, -2.0]])
    Y, F = backend.asarray(Y), backend.asarray(F)
    scores = Y @ F.T
    one_shot = choose_support(scores, Y, F, k=2, **EXACT)
    pruned = choose_support(scores, Y, F, k=2, candidate_factor=1.5, **EXACT)
    one_shot, pruned = ([backend.to_numpy(part) for part in s[:3]] for s in (one_shot, pruned))
    assert one_shot[0][0].tolist() == [0, 2]
    assert pruned[0][0].tolist() == [0, 1]
    assert_allclose(pruned[1][0], [3.0, 0.5])  # scores travel with their atoms
    assert not pruned[2][1].any()  # no positive score, no atom


def test_pruning_leaves_short_supports_alone(rng):
    Y, F, scores, _ = problem(rng)
    support = select(scores, 3)
    assert prune(support, Y, F, 3, **EXACT) is support
    assert prune(support, Y, F, 5, **EXACT) is support


def test_candidates_lower_the_error(rng, coder):
    Y, F, scores, _ = problem(rng, n=300)
    means = []
    for factor in (1.0, 1.5, 2.0, 99.0):
        support = choose_support(scores, Y, F, k=4, candidate_factor=factor, **coder)
        check_support(support, 4)
        means.append(errors(support, Y, F).mean())
    assert means[0] > means[1] > 0.9 * means[2]
    assert means[2] < 0.85 * means[0]
    assert_array_equal(
        choose_support(scores, Y, F, k=4, candidate_factor=1.0, **coder).indices, select(scores, 4).indices
    )
    assert support.indices.shape == (300, 4)


@pytest.mark.parametrize("n_candidates", [5, 8, 11])
def test_a_shortlist_against_one_row_at_a_time(rng, backend, n_candidates):
    """The k best scored, then whoever correlates best with what least squares on these leaves over."""
    Y, F, scores, _ = problem(rng, noise=0.1)
    scores = scores + 0.5 * rng.standard_normal(scores.shape)
    listed = select(*(backend.asarray(scores), 12))
    found = shortlist(listed, backend.asarray(Y), backend.asarray(F), 4, n_candidates, solve={"exact": True})
    indices, kept_scores, active = (backend.to_numpy(part) for part in found[:3])
    for i, y in enumerate(Y):
        order = np.argsort(-scores[i])[:12]
        first, others = order[:4], [j for j in order[4:] if scores[i, j] > 0]
        first = [j for j in first if scores[i, j] > 0]
        residual = y - np.linalg.lstsq(F[first].T, y, rcond=None)[0] @ F[first]
        joining = sorted(others, key=lambda j: -F[j] @ residual)[: n_candidates - 4]
        assert set(indices[i][active[i]]) == {*first, *joining}
        assert_allclose(kept_scores[i][active[i]], scores[i, indices[i][active[i]]])
    assert indices.shape == (60, n_candidates)


def test_a_second_look_lowers_the_error_of_an_imprecise_encoder(rng, coder):
    Y, F, scores, _ = problem(rng, n=400, d=24, p=80, noise=0.05)
    scores = scores + 0.3 * rng.standard_normal(scores.shape)
    first, second = (
        choose_support(scores, Y, F, k=4, candidate_factor=2.0, shortlist_factor=factor, **coder)
        for factor in (1.0, 4.0)
    )
    check_support(second, 4)
    assert errors(second, Y, F).mean() < 0.9 * errors(first, Y, F).mean()


@pytest.mark.parametrize(
    ("k", "factor", "p", "wanted"),
    [
        (32, "auto", 3072, 192),
        (64, "auto", 3072, 384),  # 6 k
        (16, "auto", 3072, 192),  # at least so many
        (4, "auto", 1024, 64),  # of a smaller dictionary a 16th
        (4, "auto", 96, 24),
        (4, "auto", 12, 12),
        (4, 6.0, 96, 24),
        (4, 1.0, 96, 8),  # no shorter than the candidates
    ],
)
def test_how_long_the_list_is(k, factor, p, wanted):
    assert n_listed(k, 2.0, factor, p) == wanted
    assert n_listed(k, 1.0, factor, p) == k


def test_without_candidates_there_is_no_shortlist(rng):
    Y, F, scores, _ = problem(rng)
    found = choose_support(scores, Y, F, k=4, candidate_factor=1.0, shortlist_factor=4.0, **EXACT)
    assert_array_equal(found.indices, select(scores, 4).indices)


# ---- refinement


def test_one_step_in_closed_form(backend):
    """One-shot picks 0 and 3 (a decoy near 0); the residual names 1, the solution drops the decoy."""
    F = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.96, 0.28, 0.0]])
    Y, scores = np.array([[2.0, 0.0, 1.0]]), np.array([[2.0, -1.0, 0.5, 1.9]])
    Y, F, scores = (backend.asarray(part) for part in (Y, F, scores))
    support = select(scores, 2)
    assert backend.to_numpy(support.indices).tolist() == [[0, 3]]
    refined = refine(support, scores, Y, F, 2, **EXACT)
    expected = {0: (2.0, False), 2: (0.5, True)}
    for step in (refined, refine(refined, scores, Y, F, 2, **EXACT)):
        indices, e, active, added = (backend.to_numpy(part)[0].tolist() for part in step)
        assert all(active)
        assert dict(zip(indices, zip(e, added, strict=True), strict=True)) == expected


def test_refinement_finds_the_true_support_that_one_shot_misses(rng):
    Y, F, scores, truth = problem(rng, n=200, d=24, p=48)
    found = [
        np.mean([a == t.tolist() for a, t in zip(atoms_of(support), truth, strict=True)])
        for support in (choose_support(scores, Y, F, k=4, n_refinements=m, **EXACT) for m in (0, 1, 3))
    ]
    assert found[0] < 0.7
    assert found[1] > found[0] + 0.15
    assert found[2] >= 0.95


def test_true_supports_stay(rng, coder):
    Y, F, _, truth = problem(rng, d=24)
    scores = np.full((60, 40), -1.0)
    np.put_along_axis(scores, truth, 2.0, axis=1)
    for m in (0, 1, 2):
        support = choose_support(scores, Y, F, k=4, n_refinements=m, **EXACT)
        assert atoms_of(support) == truth.tolist()


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_refinement_never_worsens_the_mean_error(rng, coder, noise):
    Y, F, scores, _ = problem(rng, n=300, noise=noise)
    scores = scores + 0.3 * rng.standard_normal(scores.shape)
    means = []
    for m in range(4):
        support = choose_support(scores, Y, F, k=4, n_refinements=m, **coder)
        check_support(support, 4)
        means.append(errors(support, Y, F).mean())
    assert means[1] < 0.9 * means[0]
    assert all(after <= 1.02 * before for before, after in itertools.pairwise(means))


def test_how_many_atoms_are_added(backend):
    numbers = [0, 1, 16, 48, 49, 95, 96, 98, 128, 301]
    expected = [0, 1, 16, 48, 48, 48, 48, 49, 64, 150]
    assert [n_added(n) for n in numbers] == expected
    found = n_added(backend.asarray(np.array(numbers)))
    assert_array_equal(backend.to_numpy(found), expected)


def test_refinement_fills_and_never_wastes_slots(rng):
    """Rows of one positive score get up to k atoms; rows of zeros none; a dictionary of k atoms is no obstacle."""
    Y, F, scores, _ = problem(rng, n=5, p=6, k=3)
    scores = np.where(scores == scores.max(axis=1, keepdims=True), scores, -1.0)
    Y[0], scores[0] = 0.0, 0.0
    support = choose_support(scores, Y, F, k=6, n_refinements=2, **EXACT)
    assert not support.active[0].any()
    assert (support.active[1:].sum(axis=1) >= 3).all()
    assert_allclose(errors(support, Y, F), 0, atol=1e-20)
    check_support(support, 6)


@pytest.mark.parametrize("rule", ["everything", "threshold", "budget"])
def test_rules_of_varying_length_keep_each_rows_length(rng, rule, coder):
    """k=None, a threshold and a budget say how many atoms a row may have; refinement changes which, not how many."""
    Y, F, scores, _ = problem(rng, noise=0.1)
    scores = np.where(scores > 0.4, scores, -1.0)
    options = {
        "everything": {"k": None},
        "threshold": {"k": 4, "selection": "threshold", "threshold": 0.7},
        "budget": {"k": 9, "selection": "budget", "dimension_budget": 2.0},
    }[rule]
    if rule == "budget" and coder is EXACT:
        coder = RIDGE
    before = choose_support(scores, Y, F, **options, **coder)
    after = choose_support(scores, Y, F, n_refinements=1, **options, **coder)
    assert rule == "budget" or len(set(before.active.sum(axis=1).tolist())) > 1
    assert (after.active.sum(axis=1) <= before.active.sum(axis=1)).all()
    assert after.active.sum() > 0.6 * before.active.sum()
    assert atoms_of(after) != atoms_of(before)


@pytest.mark.parametrize("measure", ["estimate", "exact"])
@pytest.mark.parametrize("n_refinements", [0, 1, 3])
@pytest.mark.parametrize("k", [3, 12, None])
def test_budget_holds_after_refinement(rng, coder, measure, n_refinements, k):
    if coder is EXACT:
        coder = RIDGE
    Y, F, scores, _ = problem(rng, noise=0.1)
    support = choose_support(
        scores,
        Y,
        F,
        k=k,
        selection="budget",
        dimension_budget=2.5,
        budget_measure=measure,
        n_refinements=n_refinements,
        **coder,
    )
    s = weights_of(support, **coder["penalty"])
    assert (effective_dimension(F, support.indices, s) <= 2.5 + 1e-9).all()
    if measure == "estimate":
        assert (dimension_estimate(s) <= 2.5 + 1e-9).all()
    assert support.active.any(axis=1).mean() > 0.9


def test_without_targets_only_scores_count(rng):
    _, F, scores, _ = problem(rng)
    support = choose_support(scores, None, F, k=4, candidate_factor=2.0, n_refinements=2, positive_code=True, **EXACT)
    assert_array_equal(support.indices, select(scores, 4).indices)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 4, "candidate_factor": 2.0},
        {"k": 4, "candidate_factor": 2.0, "shortlist_factor": 4.0},
        {"k": 4, "n_refinements": 2},
        {"k": None, "n_refinements": 1},
        {"k": 4, "candidate_factor": 1.5, "n_refinements": 1, "positive_code": True},
        {"k": 4, "selection": "threshold", "threshold": 0.5, "n_refinements": 1},
        {"k": 4, "selection": "adaptive", "threshold": 0.5, "candidate_factor": 2.0, "n_refinements": 2},
        {"k": 6, "selection": "budget", "dimension_budget": 2.0, "n_refinements": 1},
    ],
)
def test_rows_do_not_see_each_other(rng, coder, options):
    if coder is EXACT and options.get("selection") == "budget":
        coder = RIDGE
    Y, F, scores, _ = problem(rng, noise=0.1)
    scores[3] = -1.0
    whole = atoms_of(choose_support(scores, Y, F, **options, **coder))
    order = rng.permutation(len(Y))
    assert atoms_of(choose_support(scores[order], Y[order], F, **options, **coder)) == [whole[i] for i in order]
    for rows in (slice(0, 1), slice(3, 4), slice(10, 17)):
        assert atoms_of(choose_support(scores[rows], Y[rows], F, **options, **coder)) == whole[rows]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_refinements", [1, 2])
def test_rows_that_are_explained_fully_do_not_see_each_other_either(dtype, n_refinements):
    """Supports of about d atoms: their coefficients are large, and so is the rounding in the residual."""
    rng = np.random.default_rng(0)
    Y, F, _, _ = problem(rng, n=200, d=12, p=24)
    Y = rng.standard_normal(Y.shape)
    scores = Y @ F.T + 0.3 * rng.standard_normal((200, 24))
    Y, F, scores = (part.astype(dtype) for part in (Y, F, scores))
    options = {"k": None, "n_refinements": n_refinements, **EXACT}
    whole = atoms_of(choose_support(scores, Y, F, **options))
    alone = [atoms_of(choose_support(scores[[i]], Y[[i]], F, **options))[0] for i in range(200)]
    assert alone == whole


def test_whole_selection_is_numpys_on_every_library(backend, rng, coder):
    Y, F, scores, _ = problem(rng, noise=0.1)
    options = {
        "k": 4,
        "candidate_factor": 2.0,
        "shortlist_factor": 3.0,
        "n_refinements": 2,
        "positive_code": True,
        **coder,
    }
    reference = choose_support(scores, Y, F, **options)
    ours = choose_support(*(backend.asarray(part) for part in (scores, Y, F)), **options)
    assert atoms_of(Support(*(backend.to_numpy(part) for part in ours))) == atoms_of(reference)


# ---- non-negative codes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_refinements", [0, 1])
@pytest.mark.parametrize("k", [5, 20, None])
def test_positive_codes_are_positive(rng, coder, dtype, n_refinements, k):
    """Also where dropping an atom changes the precisions of the others, and where atoms nearly coincide."""
    Y, F, scores, _ = problem(rng, n=80, d=12, p=60, noise=0.4)
    F[1], F[2], F[4] = F[0], F[0] + 1e-4 * F[3], 0.0
    scores = Y @ F.T + 0.5 * rng.standard_normal(scores.shape)
    scores[:20, :5] = rng.uniform(1, 3, (20, 5))
    Y, F, scores = (part.astype(dtype) for part in (Y, F, scores))
    support = choose_support(scores, Y, F, k=k, n_refinements=n_refinements, positive_code=True, **coder)
    coefs = codes_of(support, Y, F, coder)
    assert (coefs >= 0).all()
    assert ((coefs > 0) == support.active).all()
    assert support.active.sum() > 80


@pytest.mark.parametrize("name", ["exact", "ridge", "inverse_square", "softplus"])
def test_positive_codes_are_scipys(rng, name):
    coder = CODERS[name]
    Y, F, scores, _ = problem(rng, d=12, p=60, noise=0.4)
    F[1], F[2], F[4] = F[0], F[0] + 1e-4 * F[3], 0.0
    scores[:20, :5] = rng.uniform(1, 3, (20, 5))
    before = choose_support(scores, Y, F, k=8, **coder)
    after = choose_support(scores, Y, F, k=8, positive_code=True, **coder)
    weights, coefs = weights_of(before, **coder["penalty"]), codes_of(after, Y, F, coder)
    assert_array_equal(after.indices, before.indices)
    for i, y in enumerate(Y):
        keep = weights[i] > 0
        A, b = F[before.indices[i, keep]].T, y
        if name != "exact":
            A = np.concatenate([A, np.diag(weights[i, keep] ** -0.5)])
            b = np.concatenate([y, np.zeros(int(keep.sum()))])
        best = scipy.optimize.nnls(A, b)[1] ** 2
        assert np.sum((A @ coefs[i, keep] - b) ** 2) == pytest.approx(best, abs=1e-8)
