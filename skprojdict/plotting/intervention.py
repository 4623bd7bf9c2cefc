# SPDX-License-Identifier: BSD-3-Clause
"""What an interchange intervention achieves, against the dimensions that it swaps."""

import numpy as np

from skprojdict.plotting._axes import DASHES, MARKERS, axes_or_new, names_of


class InterventionDisplay:
    """Interchange accuracy of alignment searches, hard rank beside soft dimension.

    Every search is a pair of points: a full marker for the hard projections, at the rank that they swap, and an empty
    one for the soft projections that training saw, at their effective dimension. A soft projection swaps in part only
    and flatters; the pair shows by how much. Higher and further left is better.

    Parameters
    ----------
    accuracy : array-like of shape (n_searches,)
        Interchange accuracy of the hard projections.
    rank : array-like of shape (n_searches,)
        Mean hard rank over the concepts.
    soft_accuracy : array-like of shape (n_searches,)
        Interchange accuracy of the soft projections.
    effective_dimension : array-like of shape (n_searches,)
        Mean effective dimension over the concepts.
    names : sequence of str of length n_searches
        The searches. Those of one name share a marker and are joined by a line.
    floor : float, default=None
        Accuracy that costs no insight: the better of swapping nothing and swapping everything.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    hard_, soft_ : list of matplotlib Line2D
        The two sets of points, one entry for each name.
    pairs_ : list of matplotlib Line2D
        The lines between the two points of a search.
    floor_ : matplotlib Line2D or None
        The floor.

    Examples
    --------
    >>> from skprojdict.plotting import InterventionDisplay
    >>> display = InterventionDisplay(
    ...     accuracy=[0.97], rank=[4], soft_accuracy=[0.99], effective_dimension=[3.6], names=["mine"], floor=0.5
    ... ).plot()
    >>> display.hard_[0].get_xdata(), display.soft_[0].get_xdata()
    (array([4]), array([3.6]))
    """

    def __init__(self, *, accuracy, rank, soft_accuracy, effective_dimension, names, floor=None):
        self.accuracy = accuracy
        self.rank = rank
        self.soft_accuracy = soft_accuracy
        self.effective_dimension = effective_dimension
        self.names = names
        self.floor = floor

    @classmethod
    def from_estimator(
        cls,
        estimator,
        base,
        source,
        labels,
        concepts,
        *,
        context=None,
        sample_weight=None,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Intervene with one fitted search, then draw.

        Parameters
        ----------
        estimator : fitted alignment search
            From :mod:`skprojdict.alignment`.
        base, source : arrays of shape (n_samples, n_features)
            Activations, of examples that the search was not fitted on.
        labels : integer array of shape (n_samples,)
            Wanted outputs.
        concepts : array of shape (n_samples,) or (n_samples, ...)
            The concept of every example.
        context : array or tuple of arrays, default=None
            As at fit.
        sample_weight : array of shape (n_samples,), default=None
            Weights of the examples.
        name : str, default=None
            Name in the legend. None takes the class name.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the points.

        Returns
        -------
        display : InterventionDisplay
        """
        names = None if name is None else [name]
        options = {"context": context, "sample_weight": sample_weight, "names": names, "ax": ax}
        return cls.from_estimators([estimator], base, source, labels, concepts, **options, **kwargs)

    @classmethod
    def from_estimators(
        cls,
        estimators,
        base,
        source,
        labels,
        concepts,
        *,
        context=None,
        sample_weight=None,
        names=None,
        ax=None,
        **kwargs,
    ):
        """Intervene with every search, then draw.

        Parameters
        ----------
        estimators : sequence of fitted alignment searches
            From :mod:`skprojdict.alignment`, all of one network: the floor is measured with the first.
        base, source : arrays of shape (n_samples, n_features)
            Activations, of examples that no search was fitted on.
        labels : integer array of shape (n_samples,)
            Wanted outputs.
        concepts : array of shape (n_samples,) or (n_samples, ...)
            The concept of every example.
        context : array or tuple of arrays, default=None
            As at fit.
        sample_weight : array of shape (n_samples,), default=None
            Weights of the examples.
        names : sequence of str, default=None
            Name of each search. None takes the class names.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the points.

        Returns
        -------
        display : InterventionDisplay

        Raises
        ------
        ValueError
            If there is no search, or ``names`` has another length than ``estimators``.
        """
        estimators = list(estimators)
        if not estimators:
            raise ValueError("estimators is empty: pass one fitted alignment search at least.")
        names = names_of(estimators, names)
        options = {"context": context, "sample_weight": sample_weight}
        reports = [each.report(base, source, labels, concepts, **options) for each in estimators]
        # Base for source swaps nothing, and source for base gives the source's run whatever the subspace.
        unchanged = (estimators[0].score(rows, rows, labels, concepts, **options) for rows in (base, source))
        return cls(
            accuracy=np.array([report.score for report in reports]),
            rank=np.array([report.rank for report in reports]),
            soft_accuracy=np.array([report.soft_score for report in reports]),
            effective_dimension=np.array([report.effective_dimension for report in reports]),
            names=names,
            floor=max(unchanged),
        ).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the pairs of points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the points.

        Returns
        -------
        display : InterventionDisplay
            The display itself.
        """
        ax = axes_or_new(ax)
        hard_x, hard_y = np.asarray(self.rank), np.asarray(self.accuracy)
        soft_x, soft_y = np.asarray(self.effective_dimension), np.asarray(self.soft_accuracy)
        names = np.asarray(self.names)
        self.hard_, self.soft_, self.pairs_, self.floor_ = [], [], [], None
        for i, name in enumerate(dict.fromkeys(self.names)):
            mine = np.flatnonzero(names == name)
            mine = mine[np.argsort(hard_x[mine], kind="stable")]
            colour, marker = f"C{i}", MARKERS[i % len(MARKERS)]
            for j in mine:
                pair = ([hard_x[j], soft_x[j]], [hard_y[j], soft_y[j]])
                self.pairs_ += ax.plot(*pair, color="0.6", linewidth=1, zorder=1)
            style = {"color": colour, "marker": marker}
            # Where both agree, the full marker lies inside the empty one.
            hard = {"markersize": 5, "linestyle": DASHES[i % len(DASHES)], "label": f"{name}, hard (rank)"}
            soft = {
                "markersize": 11,
                "linestyle": "none",
                "markerfacecolor": "none",
                "label": f"{name}, soft (effective dimension)",
            }
            self.hard_ += ax.plot(hard_x[mine], hard_y[mine], **{**style, **hard, **kwargs})
            self.soft_ += ax.plot(soft_x[mine], soft_y[mine], **{**style, **soft, **kwargs})
        if self.floor is not None:
            label = f"nothing or everything swapped ({self.floor:.2f})"
            self.floor_ = ax.axhline(self.floor, color="0.3", linestyle=":", linewidth=1.5, label=label)
        ax.set_xlabel("Dimensions swapped (mean over concepts)")
        ax.set_ylabel("Interchange accuracy (share)")
        ax.set_xlim(left=0.0)
        ax.grid(alpha=0.3)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
