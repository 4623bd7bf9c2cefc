# SPDX-License-Identifier: BSD-3-Clause
"""How a fit went."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skprojdict.plotting._axes import axes_or_new, line_style, log_y

# What the entries of a history are called on an axis, and whether they are best seen on a logarithmic one.
LABELS = {
    "accuracy": ("Interchange accuracy, training batches (share)", False),
    "effective_dimension": ("Effective dimension (mean over concepts)", False),
    "fvu": ("FVU of the training batches (share, log scale)", True),
    "learning_rate": ("Learning rate (training units)", False),
    "loss": ("Training loss (mean a row, training units)", False),
    "n_dead": ("Dead features (count)", False),
    "n_resampled": ("Atoms replaced since the start of the fit (count)", False),
}


class TrainingCurveDisplay:
    """One series of a fit's ``history_`` against its steps.

    Several fits on the same axes get lines that differ without colour.

    Parameters
    ----------
    steps : array-like of shape (n_entries,)
        Minibatch steps so far, at each entry.
    values : array-like of shape (n_entries,)
        What was recorded.
    metric : str
        Which series it is: the key in ``history_``.
    name : str, default=None
        The fit, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    line_ : matplotlib Line2D
        The curve.

    Examples
    --------
    >>> from skprojdict.plotting import TrainingCurveDisplay
    >>> display = TrainingCurveDisplay(steps=[100, 200], values=[0.5, 0.25], metric="fvu").plot()
    >>> display.line_.get_ydata()
    array([0.5 , 0.25])
    """

    def __init__(self, *, steps, values, metric, name=None):
        self.steps = steps
        self.values = values
        self.metric = metric
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, *, metric="fvu", name=None, ax=None, **kwargs):
        """Read the history of a fitted estimator, then draw.

        Parameters
        ----------
        estimator : fitted estimator
            Anything with ``history_``: a dictionary, or an alignment search.
        metric : str, default="fvu"
            A key of ``history_``: "loss", "fvu", "n_dead", "learning_rate", "n_resampled"; of alignment searches
            "loss", "accuracy", "effective_dimension".
        name : str, default=None
            The fit, for the legend. None takes the class name.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : TrainingCurveDisplay

        Raises
        ------
        ValueError
            If the history has no such series.
        """
        check_is_fitted(estimator, "history_")
        history = estimator.history_
        if metric == "step" or metric not in history:
            known = sorted(set(history) - {"step"})
            raise ValueError(f"metric must be one of {known}, which this fit recorded; got {metric!r}.")
        name = type(estimator).__name__ if name is None else name
        display = cls(steps=np.asarray(history["step"]), values=np.asarray(history[metric]), metric=metric, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : TrainingCurveDisplay
            The display itself.
        """
        from matplotlib.ticker import MaxNLocator

        ax = axes_or_new(ax)
        label, logarithmic = LABELS.get(self.metric, (self.metric, False))
        style = {**line_style(len(ax.lines)), "markersize": 4, **({"label": self.name} if self.name else {}), **kwargs}
        (self.line_,) = ax.plot(np.asarray(self.steps), np.asarray(self.values), **style)
        if logarithmic and np.all(np.asarray(self.values) > 0):
            log_y(ax)
        elif self.metric.startswith("n_"):
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("Training step (minibatches)")
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
        if self.name:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
