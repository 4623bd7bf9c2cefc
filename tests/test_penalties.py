# SPDX-License-Identifier: BSD-3-Clause
"""From scores to precisions: every penalty and quota in closed form, on every array library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict._array import array_namespace
from skprojdict.solvers.penalties import DEFAULT_STRENGTH, dimension_estimate, precisions, softplus

SCORES = np.array([[2.0, 1.0, 0.5], [3.0, 1e-3, 4.0], [1.0, -2.0, 0.0], [5.0, 5.0, 5.0]])
ACTIVE = np.array([[True, True, True], [True, True, False], [True, True, True], [False, False, False]])
SCORE_PENALTIES = ["inverse_square", "softplus"]


def smooth(scores):
    return array_namespace(scores).exp(scores)


def evaluate(backend, scores=SCORES, active=ACTIVE, *, added=None, dtype="float64", **options):
    given = backend.asarray(scores.astype(dtype)), backend.asarray(active)
    result = precisions(*given, added=None if added is None else backend.asarray(added), **options)
    assert str(result.dtype).endswith(dtype)
    return backend.to_numpy(result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("penalty", "formula"),
    [
        ("exact", lambda e: np.ones_like(e)),
        ("ridge", lambda e: np.full_like(e, 1 / 0.3)),
        ("inverse_square", lambda e: np.maximum(e, 0) ** 2 / 0.3),
        ("softplus", lambda e: np.log(1 + np.exp(e)) / 0.3),
        (smooth, lambda e: np.exp(e) / 0.3),
    ],
)
def test_closed_forms(backend, penalty, formula, dtype):
    s = evaluate(backend, penalty=penalty, alpha=0.3, dtype=dtype)
    assert_allclose(s, formula(SCORES) * ACTIVE, rtol=1e-6 if dtype == "float32" else 1e-14)
    assert (s[~ACTIVE] == 0).all()


def test_exact_ignores_alpha_and_gives_who_takes_part(backend):
    assert_array_equal(evaluate(backend, penalty="exact", alpha=123.0), ACTIVE)


def test_softplus_does_not_overflow(backend):
    scores = np.array([[-1e4, -50.0, 0.0, 50.0, 1e4]])
    assert_allclose(backend.to_numpy(softplus(backend.asarray(scores))), np.logaddexp(0, scores), rtol=1e-13)


@pytest.mark.parametrize("penalty", SCORE_PENALTIES)
def test_penalties_decrease_in_the_score(penalty):
    scores = np.linspace(0.1, 30, 100)[None, :]
    s = precisions(scores, np.ones_like(scores, dtype=bool), penalty=penalty)
    assert (np.diff(s) > 0).all()


# ---- quotas


@pytest.mark.parametrize("strength", [None, 0.5])
def test_normalize_fixes_the_root_mean_square_of_the_positive_scores(backend, strength):
    s = evaluate(backend, penalty="inverse_square", quota="normalize", quota_strength=strength)
    rms = DEFAULT_STRENGTH["normalize"] if strength is None else strength
    for i, count in enumerate([3, 2, 3]):
        assert s[i].sum() == pytest.approx(count * rms**2)  # e^2 is the precision
    positive = np.maximum(SCORES[0], 0) ** 2
    assert_allclose(s[0] / s[0].sum(), positive / positive.sum())
    assert (s[3] == 0).all()


@pytest.mark.parametrize("penalty", [*SCORE_PENALTIES, smooth])
@pytest.mark.parametrize("strength", [None, 0.5])
def test_sum_fixes_the_mean_penalty(backend, penalty, strength):
    s = evaluate(backend, penalty=penalty, quota="sum", quota_strength=strength, alpha=3.0)
    goal = DEFAULT_STRENGTH["sum"] if strength is None else strength
    plain = evaluate(backend, penalty=penalty)
    for i in range(3):
        some = s[i] > 0
        assert (1 / s[i][some]).mean() == pytest.approx(goal)
        ratio = s[i][some] / plain[i][some]
        assert_allclose(ratio, ratio[0])  # one factor for the whole row
    assert (s[3] == 0).all()


@pytest.mark.parametrize("quota", ["normalize", "sum"])
def test_quotas_forget_the_scale_of_the_scores(backend, quota):
    one = evaluate(backend, penalty="inverse_square", quota=quota)
    other = evaluate(backend, SCORES * 1e3, penalty="inverse_square", quota=quota)
    assert_allclose(other, one, rtol=1e-12)


def test_penalize_leaves_the_precisions_alone(backend):
    plain = evaluate(backend, penalty="softplus")
    assert_array_equal(evaluate(backend, penalty="softplus", quota="penalize", quota_strength=7.0), plain)


@pytest.mark.parametrize("quota", [None, "normalize", "sum"])
@pytest.mark.parametrize("penalty", SCORE_PENALTIES)
def test_rows_do_not_see_each_other(rng, quota, penalty):
    scores, active = rng.standard_normal((20, 5)) + 1, rng.random((20, 5)) < 0.8
    whole = precisions(scores, active, penalty=penalty, quota=quota)
    order = rng.permutation(20)
    assert_array_equal(precisions(scores[order], active[order], penalty=penalty, quota=quota), whole[order])
    # Nor does padding: one more inactive column, whatever its score, changes no other.
    wide = np.concatenate([scores, np.full((20, 1), 1e6)], axis=1)
    more = np.concatenate([active, np.zeros((20, 1), dtype=bool)], axis=1)
    assert_allclose(precisions(wide, more, penalty=penalty, quota=quota)[:, :5], whole, rtol=1e-12)


@pytest.mark.parametrize("quota", [None, "normalize", "sum"])
def test_added_atoms_get_the_mean_precision_of_the_others(backend, quota):
    added = np.array([[False, False, True], [False, True, True], [True, True, True], [True, False, True]])
    s = evaluate(backend, added=added, penalty="inverse_square", quota=quota)
    own = evaluate(backend, active=ACTIVE & ~added, penalty="inverse_square", quota=quota)
    assert_allclose(s[~added], own[~added])
    assert s[0, 2] == pytest.approx(own[0, :2].mean())
    assert s[1, 1] == pytest.approx(own[1, 0])
    assert s[1, 2] == 0  # added, but inactive
    assert (s[2] == 0).all()  # nobody to take a mean of
    for free in ("exact", "ridge"):
        assert_array_equal(evaluate(backend, added=added, penalty=free), ACTIVE)


def test_dimension_estimate(backend):
    s = np.array([[0.0, 1.0, 9.0], [0.0, 0.0, 0.0], [1e30, 3.0, 0.0]])
    assert_allclose(backend.to_numpy(dimension_estimate(backend.asarray(s))), [1.4, 0.0, 1.75])


# ---- extremes and gradients


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    scores=hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)),
    active=hnp.arrays(bool, (3, 4)),
    penalty=st.sampled_from(SCORE_PENALTIES),
    quota=st.sampled_from([None, "normalize", "sum", "penalize"]),
)
def test_precisions_and_their_gradients_are_finite_for_any_score(scores, active, penalty, quota):
    e = torch.from_numpy(scores).requires_grad_()
    s = precisions(e, torch.from_numpy(active), penalty=penalty, quota=quota)
    assert torch.isfinite(s).all()
    assert (s >= 0).all()
    assert (s.detach().numpy()[~active] == 0).all()
    dimension_estimate(s).sum().backward()
    assert torch.isfinite(e.grad).all()
    assert (e.grad.numpy()[~active] == 0).all()


@pytest.mark.parametrize("penalty", [*SCORE_PENALTIES, smooth])
@pytest.mark.parametrize("quota", [None, "normalize", "sum"])
@pytest.mark.parametrize("with_added", [False, True])
def test_gradients_of_precisions(rng, penalty, quota, with_added):
    scores = torch.from_numpy(rng.uniform(0.3, 3, (4, 5))).requires_grad_()
    active = torch.from_numpy(rng.random((4, 5)) < 0.8)
    added = torch.from_numpy(rng.random((4, 5)) < 0.3) if with_added else None

    def function(e):
        return precisions(e, active, added=added, penalty=penalty, quota=quota, alpha=0.5)

    assert torch.autograd.gradcheck(function, (scores,))


def test_softplus_has_its_slope_at_zero():
    scores = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    softplus(scores).sum().backward()
    assert scores.grad.item() == pytest.approx(0.5)
