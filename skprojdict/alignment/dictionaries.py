# SPDX-License-Identifier: BSD-3-Clause
"""Three tests of a dictionary on a task whose attributes are known (Makelov, Lange, Nanda, 2024), for any dictionary.

A dictionary is anything fitted with ``transform``, ``inverse_transform``, ``components_`` and ``mean_``.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from .._array import to_numpy, to_torch
from .loop import frozen, logits_of

__all__ = ["AttributeDictionary", "feature_interpretability", "sparse_control", "sufficiency_and_necessity"]


class AttributeDictionary(BaseEstimator):
    """The supervised reference: one vector for each value of each known attribute, by least squares ("MSE codes").

    Minimises ``sum_i || x_i - mean - sum_a u_{a, v_ia} ||^2`` over the vectors u, of least norm. What no unsupervised
    dictionary can be expected to beat on these attributes.

    Attributes
    ----------
    vectors_ : list of ndarrays of shape (n_values, n_features)
        One array for each attribute; rows in the order of ``values_``.
    values_ : list of ndarrays
        The values of each attribute.
    mean_ : ndarray of shape (n_features,)

    References
    ----------
    Makelov, Lange, Nanda (2024). Towards principled evaluations of sparse autoencoders for interpretability and
    control. arXiv 2405.08366, section 3 (MSE feature dictionaries).

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import AttributeDictionary
    >>> attributes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> X = 2.0 * attributes
    >>> reference = AttributeDictionary().fit(X, attributes)
    >>> bool(np.allclose(reference.reconstruct(attributes), X))
    True
    """

    def fit(self, X, attributes):
        """Find the vectors.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Activations.
        attributes : array of shape (n_samples, n_attributes)
            Value of every attribute.

        Returns
        -------
        self : object
        """
        X, attributes = to_numpy(X).astype(np.float64), _attributes(attributes, X)
        self.mean_ = X.mean(axis=0)
        self.values_ = [np.unique(column) for column in attributes.T]
        fitted = np.linalg.lstsq(self._one_hot(attributes), X - self.mean_, rcond=None)[0]
        self.vectors_ = np.split(fitted, np.cumsum([len(values) for values in self.values_])[:-1])
        return self

    def reconstruct(self, attributes):
        """Activations that attributes alone explain.

        Parameters
        ----------
        attributes : array of shape (n_samples, n_attributes)

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        """
        return self._one_hot(to_numpy(attributes)) @ np.concatenate(self.vectors_) + self.mean_

    def _one_hot(self, attributes):
        columns = [column[:, None] == values for column, values in zip(attributes.T, self.values_, strict=True)]
        return np.concatenate(columns, axis=1).astype(np.float64)


def sufficiency_and_necessity(reconstruction, X, model, labels, *, context=None, mean=None):
    """Check that the reconstruction carries what the network needs, and the error none of it.

    Accuracy of the rest of the network on the activations x, on reconstructions x_hat (sufficient: it stays), and on
    ``mean + (x - x_hat)``, where the reconstruction is taken out (necessary: it falls to that of the mean alone).

    Parameters
    ----------
    reconstruction : fitted dictionary, or array of shape (n_samples, n_features)
        A dictionary, asked for ``inverse_transform(transform(X))``; or x_hat itself.
    X : array of shape (n_samples, n_features)
        Activations.
    model : callable
        From activations (and contexts) to logits, as for an alignment search.
    labels : integer array of shape (n_samples,)
        Right answers.
    context : array or tuple of arrays, default=None
        Passed on to the model.
    mean : array of shape (n_features,), default=None
        Stands in for what is taken out. None: that of X.

    Returns
    -------
    scores : Bunch
        Accuracies ``original``, ``sufficiency`` (x_hat), ``necessity`` (mean and error) and ``floor`` (the mean alone).

    References
    ----------
    Makelov, Lange, Nanda (2024). arXiv 2405.08366, section 4, first test.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skprojdict.alignment import sufficiency_and_necessity
    >>> class Sign(torch.nn.Module):  # the rest of a network that reads nothing but the first column
    ...     def forward(self, x):
    ...         return torch.stack([-x[:, 0], x[:, 0]], dim=1)
    >>> X = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    >>> labels = (X[:, 0] > 0).astype(np.int64)
    >>> scores = sufficiency_and_necessity(X * np.float32([1, 0, 0, 0]), X, Sign(), labels)
    >>> scores.sufficiency, scores.necessity == scores.floor
    (1.0, True)
    """
    if hasattr(reconstruction, "transform"):
        reconstruction = reconstruction.inverse_transform(reconstruction.transform(X))
    X_hat, X = to_numpy(reconstruction), to_numpy(X)
    if X_hat.shape != X.shape:
        raise ValueError(f"reconstruction must have the shape of X, {X.shape}, got {X_hat.shape}.")
    mean = X.mean(axis=0) if mean is None else to_numpy(mean)
    labels = to_numpy(labels)
    kinds = {
        "original": X,
        "sufficiency": X_hat,
        "necessity": mean + (X - X_hat),
        "floor": np.broadcast_to(mean, X.shape),
    }
    return Bunch(
        **{
            name: float(np.mean(_answers(model, rows.astype(X.dtype), context) == labels))
            for name, rows in kinds.items()
        }
    )


class _Edit(NamedTuple):
    out: Any
    n_changed: Any
    weight: Any
    absolute_weight: Any


def sparse_control(dictionary, base, counterfactual, model, *, n_edits, context=None):
    """Move activations to their counterfactual by changing few coefficients, and see how often the output follows.

    Greedy: at every step the one coefficient is moved to its value in the counterfactual's code that leaves the least
    ``|| base + sum_{j in T} (a'_j - a_j) f_j - counterfactual ||``, for at most ``n_edits`` steps and while it shrinks.

    Parameters
    ----------
    dictionary : fitted dictionary
    base, counterfactual : arrays of shape (n_samples, n_features)
        Activations, and those of the same input with one attribute changed.
    model : callable
        From activations (and contexts) to logits.
    n_edits : int
        Coefficients that may be changed.
    context : array or tuple of arrays, default=None
        Passed on to the model.

    Returns
    -------
    scores : Bunch
        ``success``: share of the outputs equal to those on the counterfactual; ``unedited``: the same without an edit;
        ``n_edits``: coefficients changed on average; ``weight``: share of the base's reconstruction that they carry,
        ``sum_T a_j f_j . x_hat / |x_hat|^2`` about the mean (1 for all coefficients together), and ``absolute_weight``,
        the sum of absolute values, as projected coefficients can cancel.

    References
    ----------
    Makelov, Lange, Nanda (2024). arXiv 2405.08366, section 4, second test.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skprojdict import MethodOfOptimalDirections
    >>> from skprojdict.alignment import sparse_control
    >>> class Sign(torch.nn.Module):  # the rest of a network that reads nothing but the first column
    ...     def forward(self, x):
    ...         return torch.stack([-x[:, 0], x[:, 0]], dim=1)
    >>> X = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    >>> model = MethodOfOptimalDirections(4, n_nonzero_coefs=4, init=np.eye(4), max_iter=1, random_state=0).fit(X)
    >>> flipped = X * np.float32([-1, 1, 1, 1])
    >>> scores = sparse_control(model, X, flipped, Sign(), n_edits=4)
    >>> scores.unedited, scores.success
    (0.0, 1.0)
    """
    if n_edits < 0:
        raise ValueError(f"n_edits must be at least 0, got {n_edits}.")
    goal = _answers(model, counterfactual, context)
    edit = _greedy_edit(dictionary, base, counterfactual, n_edits)
    return Bunch(
        success=float(np.mean(_answers(model, edit.out, context) == goal)),
        unedited=float(np.mean(_answers(model, base, context) == goal)),
        n_edits=float(np.mean(edit.n_changed)),
        weight=float(np.mean(edit.weight)),
        absolute_weight=float(np.mean(edit.absolute_weight)),
    )


def _greedy_edit(dictionary, base, counterfactual, n_edits):
    own, other = (_dense(dictionary.transform(rows)) for rows in (base, counterfactual))
    atoms = to_numpy(dictionary.components_).astype(np.float64)
    start, goal = to_numpy(base).astype(np.float64), to_numpy(counterfactual).astype(np.float64)
    delta = other - own
    residual = goal - start
    cost = np.sum(atoms * atoms, axis=1) * delta * delta
    open_ = delta != 0
    rows = np.arange(start.shape[0])
    for _ in range(n_edits):
        # |r - delta_j f_j|^2 - |r|^2, for all j at once
        gain = np.where(open_, cost - 2 * delta * (residual @ atoms.T), np.inf)
        best = np.argmin(gain, axis=1)
        better = gain[rows, best] < 0
        if not better.any():
            break
        moved, which = rows[better], best[better]
        residual[moved] -= delta[moved, which][:, None] * atoms[which]
        open_[moved, which] = False
    changed = (delta != 0) & ~open_
    out = goal - residual
    x_hat = own @ atoms
    weights = own * (x_hat @ atoms.T) / np.maximum(np.sum(x_hat * x_hat, axis=1, keepdims=True), np.finfo(float).tiny)
    return _Edit(
        out.astype(to_numpy(base).dtype),
        changed.sum(axis=1),
        np.sum(weights * changed, axis=1),
        np.sum(np.abs(weights) * changed, axis=1),
    )


def feature_interpretability(codes, attributes):
    """For each feature the attribute value that its activity tells best, by F1.

    Precision: share of the rows with an active feature that have the value; recall: share of the rows with the value in
    which the feature is active.

    Parameters
    ----------
    codes : array or sparse matrix of shape (n_samples, n_components)
        A feature is active where its code is not 0.
    attributes : array of shape (n_samples, n_attributes)
        Value of every attribute.

    Returns
    -------
    best : Bunch
        ``f1`` (n_components,), 0 for a feature that is never active; ``attribute`` and ``value`` (n_components,), what
        it tells; ``mean_f1`` over the features that are ever active; ``found``: share of all values that are the best
        of some feature with F1 of at least 0.8.

    References
    ----------
    Makelov, Lange, Nanda (2024). arXiv 2405.08366, section 4, third test.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import feature_interpretability
    >>> codes = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, -1.0]])
    >>> best = feature_interpretability(codes, np.array([[0], [0], [1]]))
    >>> best.f1.round(2), best.value
    (array([1.  , 0.67]), array([0, 1]))
    """
    active = _dense(codes) != 0
    attributes = _attributes(attributes, active)
    pairs = [(number, value) for number, column in enumerate(attributes.T) for value in np.unique(column)]
    has = np.stack([attributes[:, number] == value for number, value in pairs], axis=1)
    hits = active.T.astype(np.float64) @ has
    f1 = 2 * hits / np.maximum(active.sum(axis=0)[:, None] + has.sum(axis=0)[None, :], 1)
    best = np.argmax(f1, axis=1)
    ever = active.any(axis=0)
    score = f1[np.arange(f1.shape[0]), best]
    return Bunch(
        f1=score,
        attribute=np.asarray([pairs[number][0] for number in best]),
        value=np.asarray([pairs[number][1] for number in best]),
        mean_f1=float(score[ever].mean()) if ever.any() else 0.0,
        found=len(set(best[score >= 0.8].tolist())) / len(pairs),
    )


def _answers(model, rows, context):
    """The model's most likely labels, as an ndarray."""
    tensor = to_torch(rows)
    tensor = tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    contexts = () if context is None else context if isinstance(context, (tuple, list)) else (context,)
    with torch.no_grad(), frozen(model):
        return logits_of(model, tensor, [to_torch(each, tensor.device) for each in contexts]).argmax(1).cpu().numpy()


def _attributes(attributes, like):
    attributes = to_numpy(attributes)
    if attributes.ndim != 2 or attributes.shape[0] != like.shape[0]:
        raise ValueError(
            f"attributes must have shape ({like.shape[0]}, n_attributes), one row a sample, got {attributes.shape}."
        )
    return attributes


def _dense(codes):
    return codes.toarray() if hasattr(codes, "toarray") else to_numpy(codes)
