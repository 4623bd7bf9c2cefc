# SPDX-License-Identifier: BSD-3-Clause
"""Split of a transcoder's error, and skill of its selection, against cases that can be worked out."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import Ridge

from skprojdict.metrics import fraction_of_variance_unexplained, prediction_error_split, selection_skill


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((40, 6))
    F = rng.standard_normal((9, 6))
    codes = np.zeros((40, 9))
    for code in codes:
        code[rng.choice(9, 3, replace=False)] = rng.standard_normal(3)
    return Y, F, codes


def projected(Y, F, codes, alpha=0.0):
    out = np.zeros_like(Y)
    for i, code in enumerate(codes):
        atoms = F[code != 0]
        model = Ridge(alpha=alpha, fit_intercept=False) if alpha else None
        beta = model.fit(atoms.T, Y[i]).coef_ if model else np.linalg.lstsq(atoms.T, Y[i], rcond=None)[0]
        out[i] = beta @ atoms
    return out


def test_pythagoras_for_an_exact_projection(rows):
    Y, F, codes = rows
    split = prediction_error_split(Y, codes @ F, projected(Y, F, codes))
    assert split.cross == pytest.approx(0, abs=1e-12)
    assert split.selection + split.prediction == pytest.approx(split.total, abs=1e-12)
    assert split.total == pytest.approx(fraction_of_variance_unexplained(Y, codes @ F))
    assert split.selection == pytest.approx(fraction_of_variance_unexplained(Y, projected(Y, F, codes)))


def test_a_ridge_projection_leaves_the_cross_term_of_its_penalties(rows):
    """X^T (y - y_hat) = Lambda beta, so the cross term is 2 beta^T Lambda (beta - beta_hat)."""
    Y, F, codes = rows
    alpha, expected = 0.7, 0.0
    for y, code in zip(Y, codes, strict=True):
        atoms = F[code != 0]
        beta = Ridge(alpha=alpha, fit_intercept=False).fit(atoms.T, y).coef_
        expected += 2 * alpha * beta @ (beta - code[code != 0])
    split = prediction_error_split(Y, codes @ F, projected(Y, F, codes, alpha))
    variance = ((Y - Y.mean(axis=0)) ** 2).sum()
    assert split.cross == pytest.approx(expected / variance)
    assert abs(split.cross) > 1e-3
    assert split.selection + split.prediction + split.cross == pytest.approx(split.total)


def test_split_of_orthogonal_axes():
    Y = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    split = prediction_error_split(Y, Y * [0.5, 0, 0], Y * [1, 0, 0])
    assert dict(split) == pytest.approx(
        {"selection": 13 / 14, "prediction": 0.25 / 14, "cross": 0, "total": 13.25 / 14}
    )


def test_split_of_rows_that_do_not_vary():
    with pytest.warns(UndefinedMetricWarning, match="do not vary"):
        split = prediction_error_split(np.ones((3, 2)), np.zeros((3, 2)), np.ones((3, 2)))
    assert np.isnan(list(split.values())).all()


@pytest.mark.parametrize("place", [1, 2])
def test_split_refuses_other_shapes(place):
    arrays = [np.ones((3, 2))] * 3
    arrays[place] = np.ones((3, 4))
    with pytest.raises(ValueError, match=f"{['', 'Y_predicted', 'Y_projected'][place]} .*one shape"):
        prediction_error_split(*arrays)


def axes(n=400, p=8, seed=1):
    """Rows that lie on one axis each, with a trace of the others; the axis of each row."""
    rng = np.random.default_rng(seed)
    Y = 0.01 * rng.standard_normal((n, p))
    axis = rng.integers(p, size=n)
    Y[np.arange(n), axis] += 1 + rng.random(n)
    return Y - Y.mean(axis=0), axis


def one_hot(axis, p=8):
    return (np.arange(p) == axis[:, None]).astype(float)


def test_the_pursued_support_has_skill_one():
    Y, _ = axes()
    best = np.abs(Y).argmax(axis=1)  # what a pursuit takes where atoms are orthonormal
    result = selection_skill(Y, np.eye(8), one_hot(best), random_state=0)
    assert result.skill == pytest.approx(1)
    assert result.selected == pytest.approx(result.pursued)
    assert result.selected == pytest.approx((np.abs(Y).max(axis=1) ** 2).sum() / (Y**2).sum())


def test_a_random_support_has_skill_zero_and_explains_k_of_d():
    Y = np.random.default_rng(0).standard_normal((20_000, 8))
    Y -= Y.mean(axis=0)
    chosen = np.random.default_rng(5).integers(8, size=len(Y))
    result = selection_skill(Y, np.eye(8), one_hot(chosen), random_state=0)
    assert result.random == pytest.approx(1 / 8, abs=0.005)
    assert result.skill == pytest.approx(0, abs=0.02)


def test_the_worst_support_is_below_random():
    Y, _ = axes()
    worst = np.abs(Y).argmin(axis=1)
    assert selection_skill(Y, np.eye(8), one_hot(worst), random_state=0).skill < 0


def test_half_of_the_rows_right_gives_half_the_skill_of_the_rest():
    """Where the right atom explains nearly all and another nearly nothing, the skill is that of a weighted coin."""
    Y, axis = axes(4000)
    shown = axis.copy()
    shown[::2] = (axis[::2] + 1) % 8
    result = selection_skill(Y, np.eye(8), one_hot(shown), n_random=4, random_state=0)
    assert result.skill == pytest.approx((0.5 - result.random) / (1 - result.random), abs=0.05)


def test_rows_keep_their_own_number_of_atoms(rows):
    Y, F, codes = rows
    codes = codes.copy()
    codes[::3] = 0
    codes[1::3, 4] = 2.0
    result = selection_skill(Y, F, codes, random_state=0)
    expected = projected(Y[codes.any(axis=1)], F, codes[codes.any(axis=1)])
    error = ((Y[codes.any(axis=1)] - expected) ** 2).sum() + (Y[~codes.any(axis=1)] ** 2).sum()
    assert result.selected == pytest.approx(1 - error / ((Y - Y.mean(axis=0)) ** 2).sum())
    assert result.pursued >= result.selected - 1e-9 or result.skill > 1


@pytest.mark.parametrize("kind", ["csr", "csc", "torch", "float32"])
def test_skill_takes_codes_of_every_kind(rows, kind):
    Y, F, codes = rows
    plain = selection_skill(Y, F, codes, random_state=0)
    if kind == "torch":
        other = selection_skill(*map(torch.from_numpy, (Y, F, codes)), random_state=0)
    elif kind == "float32":
        other = selection_skill(*(array.astype(np.float32) for array in (Y, F, codes)), random_state=0)
    else:
        other = selection_skill(Y, F, getattr(sparse, f"{kind}_array")(codes), random_state=0)
    assert dict(other) == pytest.approx(dict(plain), abs=1e-5)


def test_norms_of_the_atoms_do_not_matter(rows):
    Y, F, codes = rows
    scaled = selection_skill(Y, F * np.linspace(0.1, 9, 9)[:, None], codes, random_state=0)
    assert dict(scaled) == pytest.approx(dict(selection_skill(Y, F, codes, random_state=0)))


def test_skill_without_a_scale(rows):
    Y, _, _ = rows
    with pytest.warns(UndefinedMetricWarning, match="no scale"):  # one atom: every selection is the same
        assert np.isnan(selection_skill(Y, np.ones((1, 6)), np.ones((40, 1)), random_state=0).skill)
    with pytest.warns(UndefinedMetricWarning, match="do not vary"):
        assert np.isnan(selection_skill(np.ones((3, 2)), np.eye(2), np.eye(3)[:, :2]).skill)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"F": np.ones((9, 5))}, "Y has 6 columns and the atoms of F 5"),
        ({"Z": np.ones((40, 8))}, r"each of the 9 atoms, got shape \(40, 8\)"),
        ({"n_random": 0}, "n_random must be a whole number"),
    ],
)
def test_bad_arguments(rows, changed, message):
    Y, F, codes = rows
    with pytest.raises(ValueError, match=message):
        selection_skill(**{"Y": Y, "F": F, "Z": codes, **changed})
