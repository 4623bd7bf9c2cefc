# SPDX-License-Identifier: BSD-3-Clause
"""Crosscoders: one selection of atoms that explains several layers at once, as one wide target.

With the layers side by side, an atom is one direction in each of them, and the projection on the selected atoms is a
least squares on all layers together (Lindsey et al., 2024, in projective form).
"""

from itertools import pairwise
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ._array import array_namespace, to_numpy

__all__ = ["LayerStacker", "atom_norms_per_layer", "scores_per_layer"]


class LayerStacker(TransformerMixin, BaseEstimator):
    """Put layers side by side as one wide array, each divided by its mean norm so that none dominates.

    What it returns is the target of a dictionary: ``fit(X, stacker.fit_transform(layers))`` with ``target="y"`` for a
    crosscoder that reads one place and writes several, and ``fit(stacker.fit_transform(layers))`` for one that reads
    and writes all of them.

    Parameters
    ----------
    layer_sizes : sequence of int, default=None
        Columns of each layer, where they come as one wide array. None: they come as a list of arrays, one a layer.
    scale : bool, default=True
        Divide each layer by the mean norm of its centred rows. A layer then counts by what varies in it, whatever its
        unit and its width. False: layers are put side by side as they are.

    Attributes
    ----------
    layer_sizes_ : list of int
        Columns of each layer.
    layer_scales_ : ndarray of shape (n_layers,)
        What each layer is divided by; 1 for a layer that does not vary.

    See Also
    --------
    scores_per_layer : What is explained of each layer.
    atom_norms_per_layer : How much of each atom lies in each layer.

    References
    ----------
    Lindsey, Templeton, Marcus, Conerly, Batson and Olah (2024), Sparse crosscoders for cross-layer features and model
    diffing, Transformer Circuits Thread.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict import ProjectiveDictionaryLearning
    >>> from skprojdict.crosscoders import LayerStacker, scores_per_layer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((400, 6))
    >>> layers = [X @ rng.standard_normal((6, 5)), 100 * np.maximum(X @ rng.standard_normal((6, 8)), 0)]
    >>> stacker = LayerStacker().fit(layers)
    >>> Y = stacker.transform(layers)
    >>> model = ProjectiveDictionaryLearning(32, n_nonzero_coefs=4, target="y", max_iter=5, random_state=0).fit(X, Y)
    >>> scores_per_layer(Y, model.predict(X), stacker.layer_sizes_).shape
    (2,)
    >>> [layer.shape for layer in stacker.inverse_transform(model.predict(X))]
    [(400, 5), (400, 8)]
    """

    def __init__(self, layer_sizes=None, *, scale=True):
        self.layer_sizes = layer_sizes
        self.scale = scale

    def fit(self, X, y=None):
        """Measure the layers.

        Parameters
        ----------
        X : list of arrays of shape (n_samples, n_columns), or array of shape (n_samples, sum of layer_sizes)
        y : None
            Ignored.

        Returns
        -------
        self : LayerStacker

        Raises
        ------
        ValueError
            If the layers differ in their rows, or sizes do not add up to the columns.
        """
        layers = self._layers(X, self.layer_sizes)
        self.layer_sizes_ = [int(layer.shape[1]) for layer in layers]
        self.layer_scales_ = np.array([_mean_norm(layer) if self.scale else 1.0 for layer in layers])
        return self

    def transform(self, X):
        """Put layers side by side.

        Parameters
        ----------
        X : list of arrays, or wide array
            As in :meth:`fit`.

        Returns
        -------
        stacked : array of shape (n_samples, sum of layer_sizes_)
        """
        check_is_fitted(self)
        sizes = None if self.layer_sizes is None else self.layer_sizes_
        layers = self._layers(X, sizes)
        found = [int(layer.shape[1]) for layer in layers]
        if found != self.layer_sizes_:
            raise ValueError(f"X has layers of {found} columns, but LayerStacker was fitted on {self.layer_sizes_}.")
        xp = array_namespace(*layers)
        return xp.concat([layer / float(s) for layer, s in zip(layers, self.layer_scales_, strict=True)], axis=1)

    def inverse_transform(self, X):
        """Take a stacked array, such as a prediction of it, apart.

        Parameters
        ----------
        X : array of shape (n_samples, sum of layer_sizes_)

        Returns
        -------
        layers : list of arrays of shape (n_samples, n_columns)
            In the units of each layer. Where they came as one wide array, ``concatenate(layers, axis=1)`` is it.
        """
        check_is_fitted(self)
        layers = split_layers(X, self.layer_sizes_, "X")
        return [layer * float(s) for layer, s in zip(layers, self.layer_scales_, strict=True)]

    @staticmethod
    def _layers(X, sizes):
        """The layers as a list of 2-d arrays of real numbers, of as many rows each."""
        if sizes is not None:
            return [_floating(layer) for layer in split_layers(X, sizes, "X")]
        if not isinstance(X, list | tuple) or not X:
            raise ValueError(
                "X must be a list of arrays, one for each layer, or give layer_sizes for one wide array; got "
                f"{type(X).__name__}."
            )
        layers = [_floating(_matrix(layer, f"layer {number}")) for number, layer in enumerate(X)]
        if len({layer.shape[0] for layer in layers}) > 1:
            raise ValueError(
                f"layers have {[layer.shape[0] for layer in layers]} rows: pass the same rows for each of them."
            )
        return layers

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = True  # of lists of arrays scikit-learn knows nothing
        tags.array_api_support = True
        return tags


def split_layers(X, layer_sizes, name):
    """Slices of the columns of ``X``, one for each layer; they share its memory.

    Parameters
    ----------
    X : array of shape (n, sum of layer_sizes)
    layer_sizes : sequence of int
    name : str
        Of ``X``, for messages.

    Returns
    -------
    layers : list of arrays of shape (n, size)
    """
    X = _matrix(X, name)
    sizes = list(layer_sizes)
    if not sizes or not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
        raise ValueError(f"layer_sizes must hold the columns of each layer, at least 1 each; got {sizes}.")
    if sum(sizes) != X.shape[1]:
        raise ValueError(
            f"layer_sizes {[int(size) for size in sizes]} add up to {sum(sizes)}, but {name} has {X.shape[1]} columns."
        )
    ends = np.cumsum([0, *sizes]).tolist()
    return [X[:, start:end] for start, end in pairwise(ends)]


def scores_per_layer(Y, Y_predicted, layer_sizes):
    """Share of the variance of each layer that a prediction explains.

    ``1 - sum ||y - y_hat||^2 / sum ||y - mean(y)||^2`` over the columns of a layer. Scales of layers do not matter.

    Parameters
    ----------
    Y, Y_predicted : arrays of shape (n_samples, sum of layer_sizes)
        Stacked layers and what a model makes of them.
    layer_sizes : sequence of int
        Columns of each layer.

    Returns
    -------
    scores : ndarray of shape (n_layers,)
        A layer that does not vary has 1 where it is predicted exactly and else 0, as in scikit-learn.

    Raises
    ------
    ValueError
        If shapes or sizes do not go together.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.crosscoders import scores_per_layer
    >>> Y = np.array([[1.0, 2.0, 0.0], [-1.0, 0.0, 2.0]])
    >>> scores_per_layer(Y, Y * [1.0, 1.0, 0.0] + [0.0, 0.0, 1.0], [1, 2])
    array([1. , 0.5])
    """
    pairs = zip(split_layers(Y, layer_sizes, "Y"), split_layers(Y_predicted, layer_sizes, "Y_predicted"), strict=True)
    if Y.shape[0] != Y_predicted.shape[0]:
        raise ValueError(f"Y has {Y.shape[0]} rows and Y_predicted {Y_predicted.shape[0]}: pass the same rows.")
    return np.array([_explained(_floating(y), _floating(predicted)) for y, predicted in pairs])


def atom_norms_per_layer(F, layer_sizes, *, layer_scales=None):
    """Norm of each atom's part in each layer: where in the stack a feature lives.

    Parameters
    ----------
    F : array of shape (n_components, sum of layer_sizes)
        Atoms of stacked layers (``components_``). Of unit norm, the squares of a row add up to 1.
    layer_sizes : sequence of int
        Columns of each layer.
    layer_scales : array of shape (n_layers,), default=None
        ``layer_scales_`` of the stacker: norms are then in the units of each layer. None: in those of the stacked
        array, in which layers can be compared.

    Returns
    -------
    norms : array of shape (n_components, n_layers)

    Raises
    ------
    ValueError
        If the sizes do not add up to the columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.crosscoders import atom_norms_per_layer
    >>> atom_norms_per_layer(np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]]), [2, 1])
    array([[0.6, 0.8],
           [1. , 0. ]])
    """
    layers = [_floating(layer) for layer in split_layers(F, layer_sizes, "F")]
    xp = array_namespace(*layers)
    norms = [xp.sqrt(xp.sum(layer * layer, axis=1)) for layer in layers]
    if layer_scales is not None:
        scales = to_numpy(layer_scales)
        if scales.shape != (len(layers),):
            raise ValueError(f"layer_scales must hold one number for each of {len(layers)} layers; got {scales.shape}.")
        norms = [norm * float(scale) for norm, scale in zip(norms, scales, strict=True)]
    return xp.stack(norms, axis=1)


def _matrix(x, name):
    if not hasattr(x, "shape"):
        x = np.asarray(x)
    if len(x.shape) != 2 or x.shape[0] == 0:
        raise ValueError(f"{name} must be 2-d with at least one row; got shape {tuple(x.shape)}.")
    return x


def _floating(x):
    """``x`` in at least single precision: sums of squares overflow in float16 and in small integers."""
    xp = array_namespace(x)
    return x if xp.isdtype(x.dtype, (xp.float32, xp.float64)) else xp.astype(x, xp.float32)


def _mean_norm(layer):
    xp = array_namespace(layer)
    centred = layer - xp.mean(layer, axis=0)
    return float(xp.mean(xp.sqrt(xp.sum(centred * centred, axis=1)))) or 1.0


def _explained(y, predicted):
    xp = array_namespace(y, predicted)
    error = float(xp.sum((y - predicted) ** 2))
    total = float(xp.sum((y - xp.mean(y, axis=0)) ** 2))
    if total == 0.0:
        return 1.0 if error == 0.0 else 0.0
    return 1.0 - error / total
