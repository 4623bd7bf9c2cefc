# SPDX-License-Identifier: BSD-3-Clause
"""How well rows are reconstructed, against the coefficients that it takes."""

import copy

import numpy as np
from sklearn.base import clone

from skprojdict.metrics import fraction_of_variance_unexplained, l0
from skprojdict.plotting._axes import axes_or_new, line_style, log_y, names_of

METRICS = ("fvu", "explained_variance")


class FidelitySparsityDisplay:
    """Fraction of variance unexplained against nonzero coefficients a row, one line for each method.

    Lower and further left is better. Make one with :meth:`from_estimator` or :meth:`from_estimators` (fitted
    estimators, which may be asked for other numbers of coefficients than they were fitted with), with
    :meth:`from_grid` (a fit for each number), or from numbers at hand.

    Parameters
    ----------
    n_nonzero : array-like of shape (n_points,)
        Mean number of nonzero coefficients a row (L0).
    fvu : array-like of shape (n_points,)
        Fraction of variance unexplained.
    names : sequence of str of length n_points
        The method of each point. Points of one name are joined into a line.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    lines_ : list of matplotlib Line2D
        One line for each method, in order of first appearance.

    Examples
    --------
    >>> from skprojdict.plotting import FidelitySparsityDisplay
    >>> display = FidelitySparsityDisplay(n_nonzero=[4, 8], fvu=[0.3, 0.2], names=["mine", "mine"]).plot()
    >>> display.ax_.get_yscale()
    'log'
    """

    def __init__(self, *, n_nonzero, fvu, names):
        self.n_nonzero = n_nonzero
        self.fvu = fvu
        self.names = names

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, n_nonzero_coefs=None, name=None, metric="fvu", ax=None, **kwargs):
        """Code and reconstruct ``X`` with one fitted estimator, at one or several numbers of coefficients, then draw.

        Parameters
        ----------
        estimator : fitted estimator
            Anything with ``transform`` and ``inverse_transform``.
        X : array of shape (n_samples, n_features)
            Rows that the estimator was not fitted on.
        y : array of shape (n_samples, n_targets), default=None
            What the codes reconstruct, for an estimator with a second view. None: ``X``.
        n_nonzero_coefs : sequence of int, default=None
            Ask the same fitted dictionary for so many coefficients a row, one after the other (at most: a mean is
            learned for one number alone). The estimator itself stays as it is. None: as it was fitted.
        name : str, default=None
            Name of the line. None takes the class name.
        metric : {"fvu", "explained_variance"}, default="fvu"
            What to draw.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : FidelitySparsityDisplay
        """
        names = None if name is None else [name]
        options = {"names": names, "n_nonzero_coefs": n_nonzero_coefs, "metric": metric}
        return cls.from_estimators([estimator], X, y, **options, ax=ax, **kwargs)

    @classmethod
    def from_estimators(
        cls, estimators, X, y=None, *, names=None, n_nonzero_coefs=None, metric="fvu", ax=None, **kwargs
    ):
        """Code and reconstruct ``X`` with every estimator, then draw.

        Parameters
        ----------
        estimators : sequence of fitted estimators
            Anything with ``transform`` and ``inverse_transform``.
        X : array of shape (n_samples, n_features)
            Rows that no estimator was fitted on.
        y : array of shape (n_samples, n_targets), default=None
            What the codes reconstruct, for estimators with a second view. None: ``X``.
        names : sequence of str, default=None
            Method of each estimator. None takes the class names.
        n_nonzero_coefs : sequence of int, default=None
            Ask each fitted dictionary for so many coefficients a row, one after the other (at most: a mean is learned
            for one number alone). The estimators themselves stay as they are. None: as they were fitted.
        metric : {"fvu", "explained_variance"}, default="fvu"
            What to draw.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : FidelitySparsityDisplay

        Raises
        ------
        ValueError
            If ``names`` has another length than ``estimators``, or ``metric`` is not one of its options.
        """
        _check_metric(metric)
        estimators = list(estimators)
        names = names_of(estimators, names)
        grid = [None] if n_nonzero_coefs is None else list(n_nonzero_coefs)
        points = [
            (*_judge(_asked_for(estimator, asked), X, y), name)
            for estimator, name in zip(estimators, names, strict=True)
            for asked in grid
        ]
        return cls._of(points).plot(ax=ax, metric=metric, **kwargs)

    @classmethod
    def from_grid(cls, estimators, X_train, X_test, n_nonzero_coefs, *, names=None, metric="fvu", ax=None, **kwargs):
        """Fit a clone of every estimator for each number of coefficients, judge it on held-out rows, then draw.

        Parameters
        ----------
        estimators : sequence of estimators
            Unfitted, with a parameter ``n_nonzero_coefs``.
        X_train, X_test : arrays of shape (n_samples, n_features)
            Rows to fit on, and rows to judge on.
        n_nonzero_coefs : sequence of int
            Numbers of coefficients a row.
        names : sequence of str, default=None
            Method of each estimator. None takes the class names.
        metric : {"fvu", "explained_variance"}, default="fvu"
            What to draw.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : FidelitySparsityDisplay

        Raises
        ------
        ValueError
            If ``names`` has another length than ``estimators``, or ``metric`` is not one of its options.
        """
        _check_metric(metric)
        estimators = list(estimators)
        names = names_of(estimators, names)
        points = []
        for estimator, name in zip(estimators, names, strict=True):
            for asked in n_nonzero_coefs:
                fitted = clone(estimator).set_params(n_nonzero_coefs=int(asked)).fit(X_train)
                points.append((*_judge(fitted, X_test, None), name))
        return cls._of(points).plot(ax=ax, metric=metric, **kwargs)

    @classmethod
    def _of(cls, points):
        n_nonzero, fvu, names = zip(*points, strict=True) if points else ((), (), ())
        return cls(n_nonzero=np.asarray(n_nonzero, float), fvu=np.asarray(fvu, float), names=list(names))

    def plot(self, ax=None, *, metric="fvu", **kwargs):
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        metric : {"fvu", "explained_variance"}, default="fvu"
            "fvu" on a logarithmic axis, or one minus it on a linear one.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : FidelitySparsityDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``metric`` is not one of its options.
        """
        from matplotlib.ticker import MaxNLocator

        _check_metric(metric)
        ax = axes_or_new(ax)
        n_nonzero, fvu, names = np.asarray(self.n_nonzero), np.asarray(self.fvu), np.asarray(self.names)
        values = fvu if metric == "fvu" else 1 - fvu
        self.lines_ = []
        for name in dict.fromkeys(self.names):
            mine = np.flatnonzero(names == name)
            mine = mine[np.argsort(n_nonzero[mine], kind="stable")]
            style = {**line_style(len(ax.lines)), "label": name, **kwargs}
            self.lines_ += ax.plot(n_nonzero[mine], values[mine], **style)
        if metric == "fvu":
            log_y(ax)
            ax.set_ylabel("Fraction of variance unexplained (share, log scale)")
        else:
            ax.set_ylabel("Explained variance (share)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("Nonzero coefficients per row (mean count)")
        ax.grid(alpha=0.3)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _check_metric(metric):
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}; got {metric!r}.")


def _asked_for(estimator, n_nonzero_coefs):
    """The fitted estimator with another number of coefficients, on the same arrays.

    At every number by one rule: else the point of the fit, at which the adaptive selection knows its threshold, would
    stand apart from the line.
    """
    if n_nonzero_coefs is None:
        return estimator
    asked = copy.copy(estimator).set_params(n_nonzero_coefs=int(n_nonzero_coefs))
    if getattr(asked, "selection", None) in ("auto", "adaptive"):
        asked.set_params(selection="top_k")
    return asked


def _judge(estimator, X, y):
    """L0 and FVU of a fitted estimator."""
    Z = estimator.transform(X)
    return l0(Z), fraction_of_variance_unexplained(X if y is None else y, estimator.inverse_transform(Z))
