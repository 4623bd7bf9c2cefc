# SPDX-License-Identifier: BSD-3-Clause
"""The atoms of a dictionary, looked at."""

import math

import numpy as np

from skprojdict._array import to_numpy
from skprojdict.plotting._axes import axes_or_new


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

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import MethodOfOptimalDirections
    >>> from skprojdict.plotting import DictionaryDisplay
    >>> model = MethodOfOptimalDirections(64, n_nonzero_coefs=4, max_iter=2, random_state=0).fit(load_digits().data)
    >>> display = DictionaryDisplay.from_estimator(model, patch_size=(8, 8), n_atoms=25)
    >>> display.atoms.shape
    (25, 64)
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
        ax = axes_or_new(ax, (6.4, 6.4))
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
