# SPDX-License-Identifier: BSD-3-Clause
"""How often features fire."""

import numpy as np

from skprojdict.metrics import firing_density_histogram
from skprojdict.plotting._axes import DASHES, axes_or_new


class FeatureDensityDisplay:
    """Histogram of how often the features of a dictionary fire, over a logarithmic axis.

    Healthy dictionaries show one hump. A second one at the left are features on their way out, at the right dense ones.
    Features that never fire have no place on the axis and are counted in the legend.

    Parameters
    ----------
    counts : array-like of shape (n_bins,)
        Number of features in each bin.
    edges : array-like of shape (n_bins + 1,)
        Edges of the bins, as shares of the rows.
    n_unused : int
        Features that no row uses.
    name : str, default=None
        The method, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    steps_ : matplotlib StepPatch
        The histogram.

    See Also
    --------
    skprojdict.metrics.firing_density_histogram : The numbers by themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.plotting import FeatureDensityDisplay
    >>> Z = np.tri(100, 4)
    >>> FeatureDensityDisplay.from_codes(Z, n_bins=4).counts
    array([0, 0, 0, 4])
    """

    def __init__(self, *, counts, edges, n_unused, name=None):
        self.counts = counts
        self.edges = edges
        self.n_unused = n_unused
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, X, *, n_bins=30, name=None, ax=None, **kwargs):
        """Code ``X``, count, then draw.

        Parameters
        ----------
        estimator : fitted estimator
            Anything with ``transform``.
        X : array of shape (n_samples, n_features)
            Rows to code.
        n_bins : int, default=30
            Bins between one row of ``X`` and all of them, of equal width in the logarithm.
        name : str, default=None
            The method, for the legend. None takes the class name.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.stairs``.

        Returns
        -------
        display : FeatureDensityDisplay
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_codes(estimator.transform(X), n_bins=n_bins, name=name, ax=ax, **kwargs)

    @classmethod
    def from_codes(cls, Z, *, n_bins=30, name=None, ax=None, **kwargs):
        """Count the nonzeros of codes at hand, then draw.

        Parameters
        ----------
        Z : array or SciPy sparse matrix of shape (n_samples, n_components)
            Codes, of any library.
        n_bins : int, default=30
            Bins between one row of ``Z`` and all of them, of equal width in the logarithm.
        name : str, default=None
            The method, for the legend.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.stairs``.

        Returns
        -------
        display : FeatureDensityDisplay
        """
        found = firing_density_histogram(Z, n_bins=n_bins)
        edges = 10.0**found.log10_edges
        return cls(counts=found.counts, edges=edges, n_unused=found.n_unused, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the histogram: the first one on its axes is filled, further ones are dashed outlines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.stairs``.

        Returns
        -------
        display : FeatureDensityDisplay
            The display itself.
        """
        from matplotlib.patches import StepPatch

        ax = axes_or_new(ax)
        earlier = sum(isinstance(patch, StepPatch) for patch in ax.patches)
        unused = "no unused feature" if self.n_unused == 0 else f"{self.n_unused} unused"
        style = {
            "linestyle": DASHES[earlier % len(DASHES)],
            "linewidth": 1.5,
            "edgecolor": f"C{earlier}",
            "label": unused if self.name is None else f"{self.name} ({unused})",
            **({"fill": True, "facecolor": "0.85"} if earlier == 0 else {"fill": False}),
            **kwargs,
        }
        self.steps_ = ax.stairs(np.asarray(self.counts), np.asarray(self.edges), **style)
        ax.set_xscale("log")
        ax.set_xlabel("Rows on which a feature fires (share, log scale)")
        ax.set_ylabel("Features in a bin (count)")
        ax.grid(alpha=0.3)
        # Room for the legend above the hump.
        ax.set_ylim(0, 1.3 * max(float(np.max(patch.get_data().values)) for patch in ax.patches))
        ax.legend(loc="upper left")
        self.ax_, self.figure_ = ax, ax.figure
        return self
