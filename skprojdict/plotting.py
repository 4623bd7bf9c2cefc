# SPDX-License-Identifier: BSD-3-Clause
"""Displays after scikit-learn's conventions: ``from_*`` computes once, ``plot`` draws as often as wanted.

Lines differ by marker and dash as well as by colour, so the figures survive a black and white printer. Matplotlib
(extra ``plot``) is imported inside the functions that draw.
"""

import math

import numpy as np

from skprojdict._array import to_numpy
from skprojdict.metrics import fraction_of_variance_unexplained, l0

__all__ = ["DictionaryDisplay", "FidelitySparsityDisplay"]

_MARKERS = "osD^vPX*"
_DASHES = ("-", "--", "-.", ":")


class FidelitySparsityDisplay:
    """Fraction of variance unexplained against nonzero coefficients a row, one line for each method.

    Lower and further left is better. Make one with :meth:`from_estimators`, or from numbers at hand.

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
    """

    def __init__(self, *, n_nonzero, fvu, names):
        self.n_nonzero = n_nonzero
        self.fvu = fvu
        self.names = names

    @classmethod
    def from_estimators(cls, estimators, X, *, names=None, ax=None, **kwargs):
        """Code and reconstruct ``X`` with every estimator, then draw.

        Parameters
        ----------
        estimators : sequence of fitted estimators
            Anything with ``transform`` and ``inverse_transform``.
        X : array of shape (n_samples, n_features)
            Rows that no estimator was fitted on.
        names : sequence of str, default=None
            Method of each estimator. None takes the class names.
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
            If ``names`` has another length than ``estimators``.
        """
        estimators = list(estimators)
        names = [type(estimator).__name__ for estimator in estimators] if names is None else list(names)
        if len(names) != len(estimators):
            raise ValueError(
                f"names has {len(names)} entries for {len(estimators)} estimators: give one name for each."
            )
        n_nonzero, fvu = [], []
        for estimator in estimators:
            Z = estimator.transform(X)
            n_nonzero.append(l0(Z))
            fvu.append(fraction_of_variance_unexplained(X, estimator.inverse_transform(Z)))
        return cls(n_nonzero=np.asarray(n_nonzero), fvu=np.asarray(fvu), names=names).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        display : FidelitySparsityDisplay
            The display itself.
        """
        from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

        ax = _axes(ax, (6.4, 4.8))
        n_nonzero, fvu, names = np.asarray(self.n_nonzero), np.asarray(self.fvu), np.asarray(self.names)
        self.lines_ = []
        for i, name in enumerate(dict.fromkeys(self.names)):
            mine = np.flatnonzero(names == name)
            mine = mine[np.argsort(n_nonzero[mine], kind="stable")]
            style = {
                "marker": _MARKERS[i % len(_MARKERS)],
                "linestyle": _DASHES[i % len(_DASHES)],
                "markersize": 5,
                "label": name,
                **kwargs,
            }
            self.lines_ += ax.plot(n_nonzero[mine], fvu[mine], **style)
        ax.set_yscale("log")
        # A range of less than a decade would otherwise have a single label, or none.
        positive = fvu[fvu > 0]
        if positive.size and positive.max() / positive.min() < 100:
            ax.yaxis.set_major_locator(_log_steps())
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("Nonzero coefficients per row (mean count)")
        ax.set_ylabel("Fraction of variance unexplained (share, log scale)")
        ax.grid(alpha=0.3)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


class DictionaryDisplay:
    """The atoms of a dictionary: a mosaic of little images, or a table of gray values.

    Parameters
    ----------
    atoms : array-like of shape (n_atoms, n_targets)
        Atoms to show, in the order in which to show them.
    patch_size : tuple of (int, int), default=None
        Height and width of an atom as an image. None shows one atom a row, one column for each entry.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the last drawing.
    figure_ : matplotlib Figure
        Figure of the last drawing.
    image_ : matplotlib AxesImage
        What was drawn.
    """

    def __init__(self, *, atoms, patch_size=None):
        self.atoms = atoms
        self.patch_size = patch_size

    @classmethod
    def from_estimator(cls, estimator, *, patch_size=None, n_atoms=100, order="usage", ax=None, **kwargs):
        """Take the atoms of a fitted estimator, then draw.

        Parameters
        ----------
        estimator : fitted estimator
            Anything with ``components_`` of shape (n_components, n_targets).
        patch_size : tuple of (int, int), default=None
            Height and width of an atom as an image; their product is the number of target columns.
        n_atoms : int, default=100
            How many atoms to show at most.
        order : {"usage", "index"}, default="usage"
            "usage" shows the atoms first that rows used most often in training, where the estimator counted
            (``n_activations_``); "index" the order of ``components_``.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.imshow``.

        Returns
        -------
        display : DictionaryDisplay

        Raises
        ------
        ValueError
            If ``order`` is not one of its options, or ``patch_size`` does not fit the atoms.
        """
        if order not in {"usage", "index"}:
            raise ValueError(f"order must be 'usage' or 'index'; got {order!r}.")
        components = to_numpy(estimator.components_)
        ranking = np.arange(components.shape[0])
        if order == "usage" and hasattr(estimator, "n_activations_"):
            ranking = np.argsort(-to_numpy(estimator.n_activations_), kind="stable")
        return cls(atoms=components[ranking[:n_atoms]], patch_size=patch_size).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the atoms, each scaled to its own largest absolute entry; gray is 0.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Passed on to ``Axes.imshow``.

        Returns
        -------
        display : DictionaryDisplay
            The display itself.
        """
        atoms = np.asarray(self.atoms, dtype=np.float64)
        if self.patch_size is not None and math.prod(self.patch_size) != atoms.shape[1]:
            raise ValueError(
                f"patch_size={tuple(self.patch_size)} has {math.prod(self.patch_size)} pixels, but atoms have "
                f"{atoms.shape[1]} entries: give the size of the patches that were fitted, or None."
            )
        largest = np.abs(atoms).max(axis=1, keepdims=True)
        atoms = atoms / np.where(largest == 0, 1.0, largest)
        ax = _axes(ax, (6.4, 6.4))
        style = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest", **kwargs}
        if self.patch_size is None:
            self.image_ = ax.imshow(atoms, aspect="auto", **style)
            ax.set_xlabel("Entry of the atom (column of the target)")
            ax.set_ylabel("Atom (rank)")
        else:
            self.image_ = ax.imshow(_mosaic(atoms, *self.patch_size), **style)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel(f"{atoms.shape[0]} atoms of {self.patch_size[0]} x {self.patch_size[1]} pixels")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _axes(ax, size):
    """``ax``, or the only axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _log_steps():
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 3, 5, 7), numticks=20)


def _mosaic(atoms, height, width):
    """One image of all atoms, about as high as wide, with a white line of a pixel between neighbours."""
    n_columns = math.ceil(math.sqrt(atoms.shape[0] * height / width))
    n_rows = math.ceil(atoms.shape[0] / n_columns)
    # NaN is drawn as the background: no value of an atom looks the same.
    canvas = np.full((n_rows * (height + 1) + 1, n_columns * (width + 1) + 1), np.nan)
    for i, atom in enumerate(atoms):
        top, left = (i // n_columns) * (height + 1) + 1, (i % n_columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = atom.reshape(height, width)
    return canvas
