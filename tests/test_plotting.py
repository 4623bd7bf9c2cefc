# SPDX-License-Identifier: BSD-3-Clause
"""Displays compute once, draw often, and keep their artists."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import MethodOfOptimalDirections
from skprojdict.datasets import make_sparse_features
from skprojdict.plotting import DictionaryDisplay, FidelitySparsityDisplay

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Rounding:
    """Smallest thing with the two methods that a display asks for."""

    def __init__(self, decimals):
        self.decimals = decimals

    def transform(self, X):
        return np.round(X, self.decimals)

    def inverse_transform(self, Z):
        return Z


def test_fidelity_from_estimators_computes_what_it_draws():
    X = np.array([[0.0, 1.04], [1.04, 0.0], [0.04, 3.0]])
    display = FidelitySparsityDisplay.from_estimators(
        [Rounding(0), Rounding(1), Rounding(2)], X, names=["coarse", "fine", "fine"]
    )
    assert_allclose(display.n_nonzero, [1.0, 1.0, 4 / 3])
    total = ((X - X.mean(axis=0)) ** 2).sum()
    assert_allclose(display.fvu[0], 3 * 0.04**2 / total)
    assert [line.get_label() for line in display.lines_] == ["coarse", "fine"]
    assert_allclose(display.lines_[1].get_xdata(), [1.0, 4 / 3])
    assert display.figure_ is display.ax_.figure
    assert "Nonzero coefficients" in display.ax_.get_xlabel()
    assert display.ax_.get_yscale() == "log"


def test_fidelity_draws_again_on_given_axes_without_colour_alone():
    display = FidelitySparsityDisplay(n_nonzero=[2, 1, 1, 2], fvu=[0.1, 0.2, 0.3, 0.15], names=["a", "a", "b", "b"])
    _, ax = plt.subplots()
    assert display.plot(ax=ax) is display
    assert display.ax_ is ax
    assert_array_equal(display.lines_[0].get_xdata(), [1, 2])  # sorted along the line
    assert display.lines_[0].get_marker() != display.lines_[1].get_marker()
    assert display.lines_[0].get_linestyle() != display.lines_[1].get_linestyle()
    first = display.figure_
    display.plot()
    assert display.figure_ is not first


def test_fidelity_wants_one_name_for_each_estimator():
    with pytest.raises(ValueError, match="names has 1 entries for 2 estimators"):
        FidelitySparsityDisplay.from_estimators([Rounding(0), Rounding(1)], np.eye(2), names=["a"])


def test_mosaic_shows_the_most_used_atoms_first():
    class Fitted:
        components_ = np.stack([np.full(6, 0.5), np.arange(6.0) - 2, np.zeros(6)])
        n_activations_ = np.array([1, 5, 0])

    display = DictionaryDisplay.from_estimator(Fitted, patch_size=(2, 3), n_atoms=2)
    assert_array_equal(display.atoms, Fitted.components_[[1, 0]])
    drawn = np.ma.filled(display.image_.get_array(), np.nan)
    assert_allclose(drawn[1:3, 1:4], (np.arange(6.0) - 2).reshape(2, 3) / 3)
    assert_allclose(drawn[1:3, 5:8], 1.0)
    assert np.isnan(drawn[0]).all()
    display = DictionaryDisplay.from_estimator(Fitted, patch_size=(2, 3), order="index")
    assert_array_equal(display.atoms, Fitted.components_)


def test_atoms_that_are_no_images_make_a_table():
    display = DictionaryDisplay(atoms=np.eye(3)).plot()
    assert display.image_.get_array().shape == (3, 3)
    assert "Atom" in display.ax_.get_ylabel()


def test_dictionary_errors_name_the_parameter():
    class Fitted:
        components_ = np.eye(3)

    with pytest.raises(ValueError, match="order must be 'usage' or 'index'; got 'size'"):
        DictionaryDisplay.from_estimator(Fitted, order="size")
    with pytest.raises(ValueError, match=r"patch_size=\(2, 2\) has 4 pixels, but atoms have 3"):
        DictionaryDisplay.from_estimator(Fitted, patch_size=(2, 2))


def test_displays_of_the_estimators():
    X = make_sparse_features(200, n_features=9, n_components=12, n_nonzero=2, random_state=0).X
    estimator = MethodOfOptimalDirections(12, n_nonzero_coefs=2, max_iter=3, random_state=0).fit(X)
    assert FidelitySparsityDisplay.from_estimators([estimator], X).fvu[0] < 0.5
    assert DictionaryDisplay.from_estimator(estimator, patch_size=(3, 3)).atoms.shape == (12, 9)
