# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that judge an intervention: what it changes, what it leaves, and how near it comes to the real thing.

Functions of arrays: NumPy, torch or CuPy in, Python numbers out.
"""

import math

import numpy as np
from scipy.special import log_softmax
from sklearn.utils import Bunch

from .._array import to_numpy

__all__ = ["counterfactual_divergence", "disentangle", "interchange_accuracy", "least_rank"]


def interchange_accuracy(labels, predictions, *, sample_weight=None):
    """Share of the interchanges after which the model said the wanted label (IIA).

    Parameters
    ----------
    labels : integer array of shape (n_samples,)
        Wanted outputs.
    predictions : integer array of shape (n_samples,)
        What the model said.
    sample_weight : array of shape (n_samples,), default=None

    Returns
    -------
    accuracy : float

    References
    ----------
    Geiger et al. (2024). Finding alignments between interpretable causal variables and distributed neural
    representations. CLeaR, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import interchange_accuracy
    >>> interchange_accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1]))
    0.75
    """
    labels, predictions = _columns(labels=labels, predictions=predictions)
    weight = None if sample_weight is None else to_numpy(sample_weight)
    return float(np.average(labels == predictions, weights=weight))


def disentangle(labels, predictions, cause, concepts=None):
    """Cause, isolation and their mean, each a mean over concepts (RAVEL's Disentangle score).

    Both doing nothing and swapping everything give 0.5: the floor.

    Parameters
    ----------
    labels : integer array of shape (n_samples,)
        Wanted outputs: the source's where ``cause``, else the base's. The two must differ in every row, or an
        intervention would be right for nothing.
    predictions : integer array of shape (n_samples,)
        What the model said.
    cause : bool array of shape (n_samples,)
        Which rows are cause examples; the others are isolation examples.
    concepts : array of shape (n_samples,) or (n_samples, n_columns), default=None
        Concepts to average over. None: a single one.

    Returns
    -------
    scores : Bunch
        ``cause``, ``isolation``, ``disentangle``. A kind of which there is no example is NaN.

    References
    ----------
    Huang, Wu, Potts, Geva, Geiger (2024). RAVEL: evaluating interpretability methods on disentangling language model
    representations. ACL, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import disentangle
    >>> cause = np.array([True, True, False, False])
    >>> nothing_changed = disentangle([1, 1, 0, 0], [0, 0, 0, 0], cause)
    >>> nothing_changed.cause, nothing_changed.isolation, nothing_changed.disentangle
    (0.0, 1.0, 0.5)
    """
    labels, predictions, cause = _columns(labels=labels, predictions=predictions, cause=cause)
    if cause.dtype != bool:
        raise ValueError(f"cause must be an array of bool, one for each sample, got dtype {cause.dtype}.")
    if concepts is None:
        groups = np.zeros(labels.shape[0], dtype=np.int64)
    else:
        concepts = to_numpy(concepts)
        if concepts.shape[:1] != labels.shape:
            raise ValueError(f"concepts must have {labels.shape[0]} rows, one for each sample, got {concepts.shape}.")
        flat = concepts.reshape(concepts.shape[0], -1)
        groups = np.unique(flat, axis=0, return_inverse=True)[1].reshape(-1)
    right = labels == predictions
    scores = [_mean_over_groups(right[kind], groups[kind]) for kind in (cause, ~cause)]
    return Bunch(cause=scores[0], isolation=scores[1], disentangle=(scores[0] + scores[1]) / 2)


def _mean_over_groups(right, groups):
    if not right.size:
        return math.nan
    _, members = np.unique(groups, return_inverse=True)
    return float(np.mean(np.bincount(members, weights=right) / np.bincount(members)))


def counterfactual_divergence(true_logits, logits):
    """Divergence of the intervened output from that of the true counterfactual input.

    Mean KL(true || intervened), in nats. An argmax may flip after a swap in part only; this does not forgive it.

    Parameters
    ----------
    true_logits : array of shape (n_samples, n_classes)
        Of the network on an input that truly has the source's value of the concept and the base's rest.
    logits : array of shape (n_samples, n_classes)
        After the intervention.

    Returns
    -------
    divergence : float
        0 where they agree; shifts of all logits do not count.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import counterfactual_divergence
    >>> counterfactual_divergence(np.array([[0.0, 1.0]]), np.array([[5.0, 6.0]]))
    0.0
    """
    true_logits, logits = to_numpy(true_logits), to_numpy(logits)
    if true_logits.ndim != 2 or true_logits.shape != logits.shape:
        raise ValueError(
            f"true_logits and logits must have one shape (n_samples, n_classes), got {true_logits.shape} and "
            f"{logits.shape}."
        )
    p, q = (log_softmax(each.astype(np.float64), axis=1) for each in (true_logits, logits))
    return max(0.0, float(np.mean(np.sum(np.exp(p) * (p - q), axis=1))))


def least_rank(ranks, scores, *, at=None, within=None):
    """Smallest rank of a sweep that reaches a score: the footprint that a concept needs.

    Parameters
    ----------
    ranks : array of shape (n_settings,)
        Hard ranks of the settings.
    scores : array of shape (n_settings,)
        Their scores.
    at : float, default=None
        The score to reach.
    within : float, default=None
        Instead: come so close to the best score of the sweep.

    Returns
    -------
    rank : float
        NaN where no setting reaches the score.

    Examples
    --------
    >>> from skprojdict.alignment import least_rank
    >>> least_rank([1, 2, 4, 8], [0.7, 0.95, 0.99, 0.985], within=0.01)
    4.0
    """
    ranks, scores = _columns(ranks=ranks, scores=scores)
    if (at is None) == (within is None):
        raise ValueError(f"pass one of at and within, got at={at!r} and within={within!r}.")
    goal = at if within is None else np.max(scores) - within
    reached = ranks[scores >= goal]
    return float(np.min(reached)) if reached.size else math.nan


def _columns(**arrays):
    """The arguments as 1-d ndarrays of one length."""
    columns = {name: to_numpy(values) for name, values in arrays.items()}
    first, *_ = columns.values()
    for name, values in columns.items():
        if values.ndim != 1 or values.shape != first.shape or not values.size:
            shapes = ", ".join(f"{key} {each.shape}" for key, each in columns.items())
            raise ValueError(f"{name} must be 1-d, of one length with the others and not empty; got {shapes}.")
    return list(columns.values())
