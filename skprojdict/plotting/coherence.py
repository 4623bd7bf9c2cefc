# SPDX-License-Identifier: BSD-3-Clause
"""How close the atoms of a dictionary are to each other."""

import math

import numpy as np
from sklearn.utils import check_random_state

from skprojdict._array import to_numpy
from skprojdict.metrics import nearest_cosines
from skprojdict.plotting._axes import axes_or_new


class CoherenceDisplay:
    """Histogram of each atom's cosine with the atom closest to it, beside as many random directions.

    Atoms that split or absorb one feature show as a tail towards 1. The largest cosine is the mutual coherence; no
    dictionary of its size has one below the Welch bound, ``sqrt((p - d) / (d (p - 1)))`` for p > d atoms in d
    dimensions.

    Parameters
    ----------
    cosines : array-like of shape (n_components,)
        Absolute cosine of each atom with the one closest to it.
    random_cosines : array-like of shape (n_components,), default=None
        The same of random directions, to compare with.
    welch_bound : float, default=None
        Lower bound of the largest cosine.
    name : str, default=None
        The dictionary, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    steps_ : list of matplotlib StepPatch
        The histogram, and that of the random directions where there is one.
    line_ : matplotlib Line2D or None
        The Welch bound.

    See Also
    --------
    skprojdict.metrics.nearest_cosines : The numbers by themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.plotting import CoherenceDisplay
    >>> display = CoherenceDisplay.from_dictionary(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    >>> display.cosines
    array([0.6, 0.8, 0.8])
    >>> round(display.welch_bound, 2)
    0.5
    """

    def __init__(self, *, cosines, random_cosines=None, welch_bound=None, name=None):
        self.cosines = cosines
        self.random_cosines = random_cosines
        self.welch_bound = welch_bound
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, *, name=None, random_state=0, ax=None, **kwargs):
        """Compare the atoms of a fitted estimator, then draw.

        Parameters
        ----------
        estimator : fitted estimator
            Anything with ``components_`` of shape (n_components, n_targets).
        name : str, default=None
            The dictionary, for the legend. None takes the class name.
        random_state : int, RandomState instance or None, default=0
            Decides the random directions.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.stairs`` of the dictionary's histogram.

        Returns
        -------
        display : CoherenceDisplay
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_dictionary(estimator.components_, name=name, random_state=random_state, ax=ax, **kwargs)

    @classmethod
    def from_dictionary(cls, F, *, name=None, random_state=0, ax=None, **kwargs):
        """Compare the atoms of a dictionary at hand, then draw.

        Parameters
        ----------
        F : array of shape (n_components, n_targets)
            Atoms, of any norm.
        name : str, default=None
            The dictionary, for the legend.
        random_state : int, RandomState instance or None, default=0
            Decides the random directions.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.stairs`` of the dictionary's histogram.

        Returns
        -------
        display : CoherenceDisplay
        """
        F = np.asarray(to_numpy(F), dtype=np.float64)
        p, d = F.shape
        random = check_random_state(random_state).standard_normal(F.shape)
        return cls(
            cosines=nearest_cosines(F),
            random_cosines=nearest_cosines(random),
            welch_bound=math.sqrt((p - d) / (d * (p - 1))) if p > d else 0.0,
            name=name,
        ).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, n_bins=40, **kwargs):
        """Draw the histogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        n_bins : int, default=40
            Bins between 0 and 1.
        **kwargs : dict
            Passed on to ``Axes.stairs`` of the dictionary's histogram.

        Returns
        -------
        display : CoherenceDisplay
            The display itself.
        """
        ax = axes_or_new(ax)
        edges = np.linspace(0.0, 1.0, n_bins + 1)
        largest = float(np.max(self.cosines))
        name = "atoms" if self.name is None else self.name
        style = {
            "fill": True,
            "facecolor": "0.85",
            "edgecolor": "C0",
            "linewidth": 1.5,
            "label": f"{name} (largest {largest:.2f})",
            **kwargs,
        }
        self.steps_ = [ax.stairs(np.histogram(self.cosines, edges)[0], edges, **style)]
        if self.random_cosines is not None:
            counts = np.histogram(self.random_cosines, edges)[0]
            label = f"random directions (largest {float(np.max(self.random_cosines)):.2f})"
            self.steps_.append(ax.stairs(counts, edges, linestyle="--", linewidth=1.5, edgecolor="C1", label=label))
        self.line_ = None
        if self.welch_bound is not None:
            label = f"Welch bound of the largest ({self.welch_bound:.2f})"
            self.line_ = ax.axvline(self.welch_bound, color="0.3", linestyle=":", linewidth=1.5, label=label)
        ax.set_xlim(0.0, 1.0)
        ax.set_xlabel("Absolute cosine with the nearest other atom (0 to 1)")
        ax.set_ylabel("Atoms in a bin (count)")
        ax.grid(alpha=0.3)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
