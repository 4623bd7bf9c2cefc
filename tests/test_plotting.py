# SPDX-License-Identifier: BSD-3-Clause
"""Displays compute once, draw often, and keep their artists."""

import copy

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, plotting
from skprojdict.alignment import DistributedAlignmentSearch
from skprojdict.datasets import make_sparse_features
from skprojdict.metrics import nearest_cosines
from skprojdict.plotting import (
    CoherenceDisplay,
    DictionaryDisplay,
    FeatureDensityDisplay,
    FidelitySparsityDisplay,
    InterventionDisplay,
    TrainingCurveDisplay,
)

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


# ---- other numbers of coefficients, other metrics


def small_fit():
    X = make_sparse_features(200, n_features=9, n_components=12, n_nonzero=2, random_state=0).X
    return MethodOfOptimalDirections(12, n_nonzero_coefs=2, max_iter=3, random_state=0).fit(X), X


def test_one_fitted_dictionary_is_asked_for_several_numbers_of_coefficients():
    estimator, X = small_fit()
    display = FidelitySparsityDisplay.from_estimator(estimator, X, n_nonzero_coefs=[1, 2, 3], name="mod")
    assert estimator.n_nonzero_coefs == 2
    assert_allclose(display.n_nonzero, [1, 2, 3], atol=0.05)
    assert (np.diff(display.fvu) < 0).all()
    assert_allclose(display.fvu[1], 1 - estimator.score(X))
    assert [line.get_label() for line in display.lines_] == ["mod"]


def test_every_point_of_one_dictionary_has_at_most_its_number():
    """Also that of the fit, for which alone it knows the threshold of a mean."""
    _, X = small_fit()
    model = ProjectiveDictionaryLearning(12, n_nonzero_coefs=2, max_steps=30, random_state=0).fit(X)
    display = FidelitySparsityDisplay.from_estimator(model, X, n_nonzero_coefs=[1, 2, 3])
    assert model.selection == "auto"
    expected = 1 - copy.copy(model).set_params(selection="top_k").score(X)
    assert_allclose(display.fvu[1], expected)
    assert expected != pytest.approx(1 - model.score(X))
    assert_allclose(FidelitySparsityDisplay.from_estimator(model, X).fvu[0], 1 - model.score(X))


def test_a_grid_fits_a_clone_for_each_number():
    _, X = small_fit()
    unfitted = MethodOfOptimalDirections(12, max_iter=2, random_state=0)
    display = FidelitySparsityDisplay.from_grid([unfitted], X[:150], X[150:], [1, 2])
    assert not hasattr(unfitted, "components_")
    expected = [unfitted.set_params(n_nonzero_coefs=k).fit(X[:150]).score(X[150:]) for k in (1, 2)]
    assert_allclose(1 - display.fvu, expected)


def test_explained_variance_is_one_minus_fvu_on_a_linear_axis():
    display = FidelitySparsityDisplay(n_nonzero=[1, 2], fvu=[0.5, 0.25], names=["a", "a"])
    display.plot(metric="explained_variance")
    assert_allclose(display.lines_[0].get_ydata(), [0.5, 0.75])
    assert display.ax_.get_yscale() == "linear"
    for make in (
        lambda: display.plot(metric="r2"),
        lambda: FidelitySparsityDisplay.from_estimator(Rounding(0), np.eye(2), metric="r2"),
        lambda: FidelitySparsityDisplay.from_grid([], None, None, [], metric="r2"),
    ):
        with pytest.raises(ValueError, match=r"metric must be one of .*; got 'r2'"):
            make()


def test_a_second_view_is_judged_on_what_it_reconstructs():
    class Doubling(Rounding):
        def inverse_transform(self, Z):
            return 2 * Z

    X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]])
    assert_allclose(FidelitySparsityDisplay.from_estimator(Doubling(3), X, 2 * X).fvu, 0)


def test_displays_on_the_same_axes_take_the_next_style():
    first = FidelitySparsityDisplay(n_nonzero=[1, 2], fvu=[0.5, 0.25], names=["a", "a"]).plot()
    second = FidelitySparsityDisplay(n_nonzero=[1, 2], fvu=[0.4, 0.2], names=["b", "b"]).plot(ax=first.ax_)
    assert second.lines_[0].get_marker() != first.lines_[0].get_marker()
    assert second.lines_[0].get_linestyle() != first.lines_[0].get_linestyle()


# ---- how often features fire


def test_densities_are_counted_and_drawn_in_shares_of_the_rows():
    Z = np.zeros((100, 4))
    Z[:, 0], Z[:10, 1], Z[0, 2] = 1, -1, 1
    display = FeatureDensityDisplay.from_codes(Z, n_bins=2, name="codes")
    assert_array_equal(display.counts, [1, 2])
    assert_allclose(display.edges, [0.01, 0.1, 1.0])
    assert display.n_unused == 1
    drawn = display.steps_.get_data()
    assert_array_equal(drawn.values, display.counts)
    assert_allclose(drawn.edges, display.edges)
    assert display.steps_.get_label() == "codes (1 unused)"
    assert display.ax_.get_xscale() == "log"
    again = FeatureDensityDisplay.from_codes(Z, n_bins=2).plot(ax=display.ax_)
    assert again.steps_.get_linestyle() != display.steps_.get_linestyle()
    assert again.steps_.get_fill() != display.steps_.get_fill()


def test_densities_of_an_estimator_are_those_of_its_codes():
    estimator, X = small_fit()
    display = FeatureDensityDisplay.from_estimator(estimator, X, n_bins=5)
    assert display.name == "MethodOfOptimalDirections"
    assert display.counts.sum() + display.n_unused == 12


# ---- angles


def test_coherence_draws_the_cosines_and_the_welch_bound():
    F = np.array([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]])
    display = CoherenceDisplay.from_dictionary(F, name="three")
    assert_allclose(display.cosines, [0.6, 0.8, 0.8])
    assert_allclose(display.welch_bound, 0.5)  # three lines in the plane at 60 degrees
    assert_allclose(display.line_.get_xdata(), 0.5)
    assert display.steps_[0].get_data().values.sum() == 3
    assert display.steps_[0].get_label() == "three (largest 0.80)"
    assert display.steps_[1].get_linestyle() == "--"


def test_the_welch_bound_is_met_by_an_equiangular_frame():
    angles = np.arange(3) * np.pi / 3
    display = CoherenceDisplay.from_dictionary(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert_allclose(max(display.cosines), display.welch_bound)
    assert CoherenceDisplay.from_dictionary(np.eye(3)).welch_bound == 0.0


def test_coherence_of_an_estimator_and_without_references():
    estimator, _ = small_fit()
    display = CoherenceDisplay.from_estimator(estimator)
    assert_allclose(display.cosines, nearest_cosines(estimator.components_))
    first, second = (CoherenceDisplay.from_estimator(estimator, random_state=0).random_cosines for _ in range(2))
    assert_array_equal(first, second)
    alone = CoherenceDisplay(cosines=[0.5]).plot(n_bins=4)
    assert len(alone.steps_) == 1
    assert alone.line_ is None
    assert_array_equal(alone.steps_[0].get_data().values, [0, 0, 1, 0])


# ---- how a fit went


def test_training_curves_show_the_history():
    estimator, _ = small_fit()
    display = TrainingCurveDisplay.from_estimator(estimator)
    assert_array_equal(display.line_.get_xdata(), estimator.history_["step"])
    assert_array_equal(display.line_.get_ydata(), estimator.history_["fvu"])
    assert display.ax_.get_yscale() == "log"
    assert "minibatches" in display.ax_.get_xlabel()
    other = TrainingCurveDisplay.from_estimator(estimator, metric="n_resampled", name="again")
    assert other.ax_.get_yscale() == "linear"
    assert other.ax_.get_legend().get_texts()[0].get_text() == "again"


def test_a_curve_with_a_zero_stays_linear():
    assert TrainingCurveDisplay(steps=[1, 2], values=[0.5, 0.0], metric="fvu").plot().ax_.get_yscale() == "linear"


def test_an_unknown_series_is_refused_with_those_that_there_are():
    estimator, _ = small_fit()
    for metric in ("n_dead", "step"):
        with pytest.raises(
            ValueError, match=rf"metric must be one of \['fvu', 'loss', 'n_resampled'\].*got '{metric}'"
        ):
            TrainingCurveDisplay.from_estimator(estimator, metric=metric)
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(MethodOfOptimalDirections())


# ---- interventions


class Search:
    """What the display asks of an alignment search, with answers that can be told apart."""

    def __init__(self, rank):
        self.rank = rank

    def report(self, base, source, labels, concepts, *, context, sample_weight):
        return Bunch(score=0.9, rank=self.rank, soft_score=0.95, effective_dimension=self.rank - 0.25)

    def score(self, base, source, labels, concepts, *, context, sample_weight):
        assert base is source
        return 0.5 if base[0, 0] == 0 else 0.6


def test_interventions_are_drawn_as_pairs_of_hard_and_soft():
    base, source = np.zeros((3, 2)), np.ones((3, 2))
    display = InterventionDisplay.from_estimators(
        [Search(4), Search(2), Search(1)], base, source, [0, 1, 1], [0, 0, 0], names=["das", "das", "projective"]
    )
    assert_array_equal(display.rank, [4, 2, 1])
    assert_array_equal(display.hard_[0].get_xdata(), [2, 4])  # sorted along the line
    assert_allclose(display.soft_[0].get_xdata(), [1.75, 3.75])
    assert_allclose(display.soft_[1].get_ydata(), [0.95])
    assert len(display.pairs_) == 3
    assert display.hard_[0].get_marker() != display.hard_[1].get_marker()
    assert display.soft_[0].get_markerfacecolor() == "none"
    assert display.floor == 0.6  # the better of base for source and source for base
    assert_allclose(display.floor_.get_ydata(), 0.6)


def test_interventions_of_a_search():
    rng = np.random.default_rng(0)
    base, source = rng.standard_normal((2, 200, 2))
    labels, concepts = (source.sum(axis=1) > 0).astype(int), np.zeros(200, dtype=int)
    search = DistributedAlignmentSearch(sign_of_sum, 1, max_steps=30, random_state=0)
    search.fit(base, source, labels, concepts)
    display = InterventionDisplay.from_estimator(search, base, source, labels, concepts)
    assert display.names == ["DistributedAlignmentSearch"]
    assert_allclose(display.accuracy, [search.score(base, source, labels, concepts)])
    assert_array_equal(display.rank, [1])
    assert display.floor == 1.0  # the whole source has the label that is wanted here
    assert (
        InterventionDisplay(accuracy=[1], rank=[1], soft_accuracy=[1], effective_dimension=[1], names=["a"])
        .plot()
        .floor_
        is None
    )
    with pytest.raises(ValueError, match="estimators is empty"):
        InterventionDisplay.from_estimators([], base, source, labels, concepts)


def sign_of_sum(h):
    return h.sum(1, keepdim=True) * h.new_tensor([[-9.0, 9.0]])


# ---- what all of them promise


def test_every_display_is_public_and_redraws_on_given_axes():
    displays = [
        FidelitySparsityDisplay(n_nonzero=[1], fvu=[0.5], names=["a"]),
        FeatureDensityDisplay(counts=[1, 2], edges=[0.01, 0.1, 1], n_unused=0),
        DictionaryDisplay(atoms=np.eye(3)),
        TrainingCurveDisplay(steps=[1, 2], values=[3, 4], metric="n_dead"),
        CoherenceDisplay(cosines=[0.5, 0.25]),
        InterventionDisplay(accuracy=[1], rank=[1], soft_accuracy=[1], effective_dimension=[1], names=["a"]),
    ]
    assert sorted(type(display).__name__ for display in displays) == plotting.__all__
    for display in displays:
        _, ax = plt.subplots()
        assert display.plot(ax=ax) is display
        assert display.ax_ is ax
        assert display.figure_ is ax.figure
        assert ax.get_xlabel()
        assert ax.get_ylabel() or isinstance(display, DictionaryDisplay)
        assert display.plot().figure_ is not ax.figure
