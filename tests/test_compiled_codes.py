# SPDX-License-Identifier: BSD-3-Clause
"""The kernels that code a row in one go, beside the same steps as array code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import _array
from skprojdict.solvers import compiled_rows, propose, refine

pytest.importorskip("numba")

NEVER = 1 << 62
SHAPE = {"k": 5, "candidate_factor": 2.0, "shortlist_factor": 4.0}


@pytest.fixture
def switch(monkeypatch):
    """A function that says whether kernels are used from now on, whatever the size of the problem."""

    def to(compiled):
        compiled_rows.has_numba.cache_clear()
        monkeypatch.setattr(compiled_rows, "LEAST_WORK", 1 if compiled else NEVER)
        monkeypatch.setattr(_array, "MANY_ENTRIES", 1 if compiled else NEVER)

    return to


def problem(n=80, p=60, d=24, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    Y = (rng.random((n, p)) < 0.15) * rng.gamma(2.0, 1.0, (n, p)) @ F + 0.1 * rng.standard_normal((n, d))
    scores = Y @ F.T + 0.3 * rng.standard_normal((n, p))
    return [each.astype(dtype) for each in (scores, Y, F)]


def coding(penalty="exact", **options):
    solve = {"exact": penalty == "exact", "solver": "cholesky", "chunk_size": "auto"}
    return {**SHAPE, "penalty": {"penalty": penalty}, "solve": solve, **options}


def dense(support, coefs, p):
    """Codes as one matrix, so that the order of atoms in a row does not matter; a NaN tells of the whole row."""
    out = np.zeros((len(coefs), p))
    coefs, active = np.asarray(coefs), np.asarray(support.active)
    bad = np.isnan(coefs).any(axis=1)
    rows = np.nonzero(active)[0]
    out[rows, np.asarray(support.indices)[active]] = coefs[active]
    out[bad] = np.nan
    assert np.all((coefs == 0) | active | bad[:, None])
    return out


def both(switch, scores, Y, F, **options):
    """Codes by array code and by the kernel, and how many atoms each row has."""
    found = []
    for compiled in (False, True):
        switch(compiled)
        support, coefs = refine.code(scores, Y, F, **options)
        found.append((dense(support, coefs, F.shape[0]), np.asarray(support.active).sum(axis=1)))
    (expected, counts), (got, got_counts) = found
    assert_array_equal(got_counts, counts)
    return expected, got


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidate_factor": 1.0},
        {"shortlist_factor": 1.0},
        {"k": 8, "shortlist_factor": 3.0},
        {"k": 12},  # as many candidates as columns
        {"k": 3, "candidate_factor": 1.4},  # one candidate more than are kept
        {"n_refinements": 1},
        {"n_refinements": 3, "k": 7},
        {"penalty": "ridge"},
        {"penalty": "ridge", "n_refinements": 1},
        {"positive_code": True},
        {"positive_scores": False},
        {"selection": "adaptive", "threshold": 0.4},
        {"selection": "adaptive", "threshold": 0.4, "n_refinements": 1},
        {"selection": "adaptive", "threshold": 0.6, "k": 9, "candidate_factor": 1.3, "n_refinements": 2},
        {"selection": "threshold", "threshold": 1.5, "n_refinements": 1},
        {"k": None, "n_refinements": 1, "penalty": "ridge"},
    ],
)
def test_codes(switch, dtype, library, options):
    convert = np.asarray if library == "numpy" else pytest.importorskip("torch").as_tensor
    scores, Y, F = (convert(each) for each in problem(dtype=dtype))
    expected, got = both(switch, scores, Y, F, **coding(**options))
    if dtype == np.float64:
        assert_allclose(got, expected, atol=1e-11)
    else:  # two removals may cost the same up to rounding
        same = np.all((got != 0) == (expected != 0), axis=1)
        assert np.mean(same) > 0.95
        assert_allclose(got[same], expected[same], atol=2e-4)


@pytest.mark.parametrize("n_refinements", [1, 3])
@pytest.mark.parametrize(
    "rule",
    [
        {"selection": "top_k"},
        {"selection": "adaptive", "threshold": 0.4},
        {"selection": "threshold", "threshold": 1.0},
    ],
)
def test_long_rows_exchange_half_of_their_atoms(switch, monkeypatch, rule, n_refinements):
    """As long ones do, whatever their number: the limit is lowered."""
    monkeypatch.setattr(propose, "FEW_ATOMS", 2)
    parts, options = problem(), coding(**rule, n_refinements=n_refinements)
    expected, got = both(switch, *parts, **options)
    assert_allclose(got, expected, atol=1e-11)
    scores = 1.1 * np.random.default_rng(1).random(parts[0].shape)  # which say nothing, so that all that may come does
    once = refine.choose_support(scores, *parts[1:], **options | {"n_refinements": 0})
    refined = refine.choose_support(scores, *parts[1:], **options | {"n_refinements": 1})
    new = np.sum(refined.active & refined.added, axis=1)
    assert new.max() > 0
    assert np.all(new <= propose.n_added(once.active.sum(axis=1)))


@pytest.mark.parametrize("compiled", [False, True])
def test_coefficients_are_least_squares_on_the_support(switch, compiled):
    switch(compiled)
    scores, Y, F = problem()
    support, coefs = refine.code(scores, Y, F, **coding(n_refinements=1))
    assert support.active.all()
    for i, (atoms, beta) in enumerate(zip(support.indices, coefs, strict=True)):
        assert_allclose(beta, np.linalg.lstsq(F[atoms].T, Y[i], rcond=None)[0], atol=1e-11)


def test_what_adaptive_selection_drops_was_proposed(switch):
    """Also where there are no more candidates than k: the encoder learns of those that go."""
    scores, Y, F = problem()
    found = []
    for compiled in (False, True):
        switch(compiled)
        options = coding(selection="adaptive", threshold=0.8, candidate_factor=1.0)
        proposed, support, _ = refine.choose(scores, Y, F, **options)
        assert proposed.active.sum() > support.active.sum()
        found.append(np.sort(np.where(proposed.active, proposed.indices, -1), axis=1))
    assert_array_equal(*found)


@pytest.mark.parametrize("n_refinements", [0, 1])
def test_what_comes_with_the_support(switch, n_refinements):
    switch(True)
    scores, Y, F = problem()
    proposed, support, fit = refine.choose(scores, Y, F, fitted=True, **coding(n_refinements=n_refinements))
    assert_array_equal(support.scores, np.take_along_axis(scores, support.indices, axis=1))
    assert_array_equal(proposed.scores, np.take_along_axis(scores, proposed.indices, axis=1))
    assert_allclose(fit.reconstruction, dense(support, fit.coefs, F.shape[0]) @ F, atol=1e-11)
    switch(False)
    expected = refine.choose(scores, Y, F, **coding(n_refinements=n_refinements))
    assert_array_equal(np.sort(proposed.indices, axis=1), np.sort(expected[0].indices, axis=1))
    if n_refinements:
        order, wanted = np.argsort(support.indices, axis=1), np.argsort(expected[1].indices, axis=1)
        found = [np.take_along_axis(support.added, order, 1), np.take_along_axis(expected[1].added, wanted, 1)]
        assert_array_equal(*found)
        assert found[0].any()


def degenerate(dtype):
    """Rows and scores of every kind that is not safe, each beside sound ones; which rows have no telling codes."""
    scores, Y, F = problem(dtype=dtype)
    F[7], F[9] = F[8], 0
    scores[:, 7] = scores[:, 8]
    Y[0] = 0
    scores[1] = -1  # nobody
    scores[2, 3:] = -1  # fewer than k
    scores[3] = 1  # everybody alike
    scores[4, [7, 8]] = 99  # equal atoms, both selected
    scores[5, 9] = 99  # a zero atom
    scores[6] = np.round(scores[6])  # many ties
    Y[7] *= dtype(1e-18)
    Y[8] *= dtype(1e17)
    scores[9, 4] = np.inf
    scores[10, 20:] = -np.inf
    Y[11, 2], scores[12, 5], scores[13] = np.nan, np.nan, np.nan
    return scores, Y, F


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidate_factor": 1.0},
        {"n_refinements": 1},
        {"selection": "adaptive", "threshold": 0.4},
        {"selection": "adaptive", "threshold": 0.4, "n_refinements": 1},
    ],
)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
def test_degenerate_rows(switch, dtype, options):
    scores, Y, F = degenerate(dtype)
    size = np.linalg.norm(np.nan_to_num(Y.astype(float)), axis=1, keepdims=True)
    found = []
    for compiled in (False, True):
        switch(compiled)
        support, coefs = refine.code(scores, Y, F, **coding(**options))
        codes = dense(support, coefs, F.shape[0])
        found.append((codes, codes @ F))
    (expected, fitted), (got, refitted) = found
    others = np.arange(len(Y)) != 11  # a NaN in the target stays in its row
    assert not np.isnan(got[others]).any()
    assert not np.isnan(expected[others]).any()
    assert_array_equal(got[0], 0)
    assert not got[1].any() or options.get("n_refinements")
    sound = np.flatnonzero(~np.isnan(Y).any(axis=1) & ~np.isnan(scores).any(axis=1))
    sound = np.setdiff1d(sound, [3, 4, 5])  # equal atoms and equal scores: which one is taken, rounding decides
    tolerance = 1e-10 if dtype == np.float64 else 1e-3
    error = np.abs(fitted - refitted) / np.maximum(size, np.finfo(dtype).tiny)
    assert np.mean(error[sound].max(axis=1) < tolerance) > 0.95
    for i in [3, 4, 5]:  # as good a code
        errors = [np.linalg.norm(Y[i] - each[i]) for each in (fitted, refitted)]
        assert errors[1] <= errors[0] * 1.2


@pytest.mark.parametrize("penalty", ["exact", "inverse_square"])
@pytest.mark.parametrize("size", [1e-15, 1e20])
def test_the_number_of_atoms_of_huge_and_tiny_rows(switch, penalty, size):
    """Squares of such rows overflow or vanish in single precision, and then kernels hand them on."""
    scores, Y, F = problem(dtype=np.float32)
    Y[::5] *= np.float32(size)
    options = coding(selection="adaptive", threshold=0.4, penalty=penalty, candidate_factor=2.0)
    counts = []
    for compiled in (False, True):
        switch(compiled)
        counts.append(np.asarray(refine.choose_support(scores, Y, F, **options).active).sum(axis=1))
    assert_array_equal(*counts)
    assert np.unique(counts[0]).size > 3


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_and_layouts_do_not_change_the_result(n_threads, switch, monkeypatch):
    switch(True)
    scores, Y, F = problem(n=333)
    expected = refine.code(scores, Y, F, **coding(n_refinements=1))[1]
    monkeypatch.setattr("skprojdict.kernels.threads.effective_n_threads", lambda: n_threads)
    F.setflags(write=False)
    found = refine.code(np.asfortranarray(scores), np.asfortranarray(Y), F, **coding(n_refinements=1))[1]
    assert_allclose(found, expected, atol=1e-12)


def test_scores_are_left_as_they_were(switch):
    switch(True)
    scores, Y, F = problem()
    kept = scores.copy()
    refine.code(scores, Y, F, **coding(n_refinements=2))
    assert_array_equal(scores, kept)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(data):
    """No worse than the selection by array code, row by row, up to the choices that rounding makes."""
    d = data.draw(st.integers(2, 70))
    k = data.draw(st.integers(1, d))
    p = data.draw(st.integers(k, 200))
    factor = data.draw(st.floats(1, max(1.0, d / k)))
    factors = {"candidate_factor": factor, "shortlist_factor": data.draw(st.floats(1, 6))}
    options = coding(k=k, n_refinements=data.draw(st.integers(0, 1)), **factors)
    scores, Y, F = problem(n=9, p=p, d=d, seed=data.draw(st.integers(0, 99)))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for work in (NEVER, 1):
            patch.setattr(compiled_rows, "LEAST_WORK", work)
            support, coefs = refine.code(scores, Y, F, **options)
            found.append(dense(support, coefs, p) @ F)
    # Where the atoms of a row span nearly everything, which ones go is decided by rounding.
    errors = [np.linalg.norm(Y - each, axis=1) for each in found]
    if k <= d // 3:
        assert_allclose(found[1], found[0], atol=1e-7)
    assert_allclose(errors[1], errors[0], atol=0.05 * np.linalg.norm(Y, axis=1).max())
