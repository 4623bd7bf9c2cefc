# SPDX-License-Identifier: BSD-3-Clause
"""Backward elimination against one explicit solve for every atom that could go."""

import numpy as np
import pytest

from skprojdict.solvers.elimination import RIDGE, elimination_ranking


def problem(rng, n=20, d=12, p=40, K=9):
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    indices = np.stack([rng.permutation(p)[:K] for _ in range(n)])
    return rng.standard_normal((n, d)), F, indices, rng.uniform(0.5, 3.0, size=(n, K))


def solve(y, atoms, penalties):
    """Coefficients and minimum of ``||y - X^T b||^2 + sum lambda b^2``."""
    beta = np.linalg.solve(atoms @ atoms.T + np.diag(penalties), atoms @ y)
    return beta, np.sum((y - beta @ atoms) ** 2) + penalties @ beta**2


def increases(y, atoms, penalties, left):
    """Root of what the minimum rises by without each of the atoms that are left, with the sign of its coefficient."""
    beta, least = solve(y, atoms[left], penalties[left])
    without = [[t for t in left if t != j] for j in left]
    return np.array(
        [np.sqrt(solve(y, atoms[w], penalties[w])[1] - least) * np.sign(b) for w, b in zip(without, beta, strict=True)]
    )


def test_one_at_a_time_is_backward_elimination(rng, backend):
    Y, F, indices, weights = problem(rng)
    weights[3, 4] = 0.0
    K, k = 9, 4
    given = [backend.asarray(part) for part in (Y, F, indices, weights)]
    ranking = backend.to_numpy(elimination_ranking(*given, k))
    for i, y in enumerate(Y):
        atoms, left = F[indices[i]], [j for j in range(K) if weights[i, j] > 0]
        penalties = 1 / np.where(weights[i] > 0, weights[i], 1.0)
        while len(left) > k + 1:
            left.pop(int(np.argmin(increases(y, atoms, penalties, left))))
        assert set(np.flatnonzero(np.isfinite(ranking[i]))) == set(left)
        np.testing.assert_allclose(ranking[i][left], increases(y, atoms, penalties, left), rtol=1e-7)


@pytest.mark.parametrize("k", [8, 9, 20])
def test_what_is_kept_whole_is_ranked_by_the_first_solution(rng, k):
    Y, F, indices, weights = problem(rng)
    ranking = elimination_ranking(Y, F, indices, np.ones_like(weights), k, exact=True)
    for i, y in enumerate(Y):
        expected = increases(y, F[indices[i]], np.full(9, RIDGE), list(range(9)))
        np.testing.assert_allclose(ranking[i], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", [1, 4, 8, 9])
def test_one_more_than_k_is_left(rng, k):
    Y, F, indices, weights = problem(rng)
    weights[5, 1:] = 0.0
    ranking = elimination_ranking(Y, F, indices, weights, k)
    assert not np.isnan(ranking).any()
    finite = np.isfinite(ranking).sum(axis=1)
    assert (np.delete(finite, 5) == min(k + 1, 9)).all()
    assert finite[5] == 1


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.6])
def test_rows_end_where_all_that_is_left_is_missed(rng, backend, limit):
    _, F, indices, weights = problem(rng)
    Y = np.einsum("nk,nkd->nd", rng.uniform(0, 1.5, size=(20, 9)), F[indices])
    Y[:10] *= 0.5  # these give up more atoms
    weights[3, 4], weights[4, 1:] = 0.0, 0.0
    K, k, most = 9, 2, rng.integers(4, 9, size=20)
    given = [backend.asarray(part) for part in (Y, F, indices, weights)]
    rule = {"most": backend.asarray(most), "limit": limit}
    ranking = backend.to_numpy(elimination_ranking(*given, k, **rule))
    numbers = np.isfinite(ranking).sum(axis=1)
    for i, y in enumerate(Y):
        atoms, left = F[indices[i]], [j for j in range(K) if weights[i, j] > 0]
        penalties = 1 / np.where(weights[i] > 0, weights[i], 1.0)
        bar = limit * solve(y, atoms[left], penalties[left])[1] ** 0.25 if left else limit
        while len(left) > k + 1:
            missed = increases(y, atoms, penalties, left)
            if len(left) <= most[i] and missed.min() > bar:
                break
            left.pop(int(np.argmin(missed)))
        assert set(np.flatnonzero(np.isfinite(ranking[i]))) == set(left)
        np.testing.assert_allclose(ranking[i][left], increases(y, atoms, penalties, left), rtol=1e-7)
    assert len(set(numbers)) > 2
    # As many rounds as the row that gives up most needs are enough.
    enough = int(((weights > 0).sum(axis=1) - numbers).max())
    same = backend.to_numpy(elimination_ranking(*given, k, **rule, steps=enough))
    np.testing.assert_array_equal(same, ranking)


def test_nearly_dependent_candidates_in_single_precision(rng):
    """Sixty candidates in twenty dimensions: single precision ranks like double precision."""
    Y, F, indices, _ = problem(rng, n=200, d=20, p=80, K=60)
    weights = np.ones((200, 60))
    exact = elimination_ranking(Y, F, indices, weights, 10, exact=True)
    single = elimination_ranking(Y.astype("f"), F.astype("f"), indices, weights.astype("f"), 10, exact=True)
    same = (np.isfinite(single) == np.isfinite(exact)).all(axis=1)
    assert same.mean() > 0.9
    np.testing.assert_allclose(single[same], exact[same], rtol=5e-3, atol=1e-5)


def test_rows_do_not_see_each_other(rng):
    Y, F, indices, weights = problem(rng)
    together = elimination_ranking(Y, F, indices, weights, 4)
    alone = elimination_ranking(Y, F, indices, weights, 4, chunk_size=1)
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_a_decoy_goes_although_its_coefficient_is_not_the_smallest(rng):
    """Two nearly parallel atoms share a coefficient: each is large, either one can do without the other."""
    F = np.eye(3)[[0, 0, 1]] + [[0, 0, 0], [0, 0, 0.1], [0, 0, 0]]
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    Y, indices, weights = np.array([[2.0, 0.7, 0.1]]), np.array([[0, 1, 2]]), np.ones((1, 3))
    beta = solve(Y[0], F, np.full(3, RIDGE))[0]
    assert beta.argmin() == 2
    ranking = elimination_ranking(Y, F, indices, weights, 2, exact=True)
    assert ranking[0].argmin() in {0, 1}


def test_duplicate_candidates_and_no_candidates(rng):
    Y, F, indices, weights = problem(rng)
    indices[:, 1] = indices[:, 0]
    ranking = elimination_ranking(
        Y.astype("f"), F.astype("f"), indices, np.ones_like(weights, dtype="f"), 4, exact=True
    )
    assert not np.isnan(ranking).any()
    assert (elimination_ranking(Y, F, indices, np.zeros_like(weights), 4) == -np.inf).all()
