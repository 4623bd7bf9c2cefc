# SPDX-License-Identifier: BSD-3-Clause
"""From encoder scores to the precision s_j = 1 / lambda_j of each selected atom, under a quota on importance.

The paper (Sklar 2024, section 6) maps a score e to a penalty lambda, decreasing in e. We work with the precision, which
is finite at a score of 0. All functions are differentiable when they are given torch tensors.
"""

from .._array import array_namespace

SCORE_FREE = ("exact", "ridge")
DEFAULT_STRENGTH = {"normalize": 3.0, "sum": 1.0 / 9.0, "penalize": 1e-3}
# A positive score as small as this is as good as none: its penalty would overflow float32.
LEAST_PRECISION = 1e-12


def softplus(scores):
    """``log(1 + exp(e))`` without overflow; its slope at 0 is 1/2, as that of ``(e + |e|) / 2`` is to autograd."""
    xp = array_namespace(scores)
    return (scores + xp.abs(scores)) / 2 + xp.log1p(xp.exp(-xp.abs(scores)))


def relu(scores):
    """``max(e, 0)`` with gradient 0 at 0."""
    xp = array_namespace(scores)
    return xp.where(scores > 0, scores, xp.zeros_like(scores))


def precisions(scores, active, *, penalty, alpha=1.0, quota=None, quota_strength=None, added=None):
    """Precision ``s_j`` of every selected atom.

    Parameters
    ----------
    scores : array of shape (n, K)
        Encoder scores of the selected atoms.
    active : bool array of shape (n, K)
        False for padding, whose precision is 0.
    penalty : {"exact", "ridge", "inverse_square", "softplus"} or callable
        "exact": no penalty; the value 1 then only says that an atom takes part. "ridge": lambda = alpha.
        "inverse_square": lambda = alpha e^-2 for positive e. "softplus": lambda = alpha / log(1 + exp(e)).
        callable: lambda = alpha / penalty(e), with penalty(e) >= 0 an array of the same shape.
    alpha : float, default=1.0
        Multiplies every penalty lambda.
    quota : {None, "normalize", "sum", "penalize"}
        "normalize": selected scores are rescaled to the root mean square ``quota_strength``; "sum": penalties are
        rescaled so that their mean over the selected atoms is ``quota_strength``. "penalize" acts in the loss.
    quota_strength : float, default=None
        See quota; None takes 3 for "normalize" and 1/9 for "sum".
    added : bool array of shape (n, K), default=None
        Atoms that refinement added: the encoder overlooked them, so their scores say nothing and they get the mean
        precision of the row's other atoms.

    Returns
    -------
    precision : array of shape (n, K)

    References
    ----------
    Sklar (2024), sections 5 and 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.penalties import precisions
    >>> scores, active = np.array([[2.0, 0.5, 0.0]]), np.array([[True, True, False]])
    >>> precisions(scores, active, penalty="inverse_square")
    array([[4.  , 0.25, 0.  ]])
    """
    xp = array_namespace(scores)
    present = xp.astype(active, scores.dtype)
    if penalty == "exact":
        return present
    if penalty == "ridge":
        return present / alpha
    own = active if added is None else active & ~added
    strength = DEFAULT_STRENGTH.get(quota, 0.0) if quota_strength is None else quota_strength
    if quota == "normalize":
        scores = _normalise_scores(scores, own, strength)
    if penalty == "inverse_square":
        value = relu(scores) ** 2
    elif penalty == "softplus":
        value = softplus(scores)
    else:
        value = _checked(penalty(scores), scores)
    zero = xp.zeros_like(value)
    value = xp.where(own, value, zero) / alpha
    if quota == "sum":
        value = _fix_mean_penalty(value, strength)
    if added is None:
        return value
    count = xp.sum(xp.astype(own, value.dtype), axis=1, keepdims=True)
    mean = xp.sum(value, axis=1, keepdims=True) / xp.where(count > 0, count, xp.ones_like(count))
    return xp.where(active & added, mean + zero, value)


def _checked(value, scores):
    """The result of a user's penalty function, if it is one precision >= 0 for every score."""
    xp = array_namespace(scores)
    if tuple(getattr(value, "shape", ())) != tuple(scores.shape):
        raise ValueError(
            f"penalty must map scores of shape {tuple(scores.shape)} to precisions of the same shape, got "
            f"{tuple(getattr(value, 'shape', ()))}. Use elementwise operations only."
        )
    if not bool(xp.all(xp.isfinite(value) & (value >= 0))):
        raise ValueError(
            "penalty must map every score, also 0 and negative ones, to a finite precision >= 0, but some are negative "
            "or not finite. A precision is 1 / lambda: return 0 where an atom should not be used."
        )
    return value


def _normalise_scores(scores, active, rms):
    xp = array_namespace(scores)
    energy = xp.where(active, relu(scores) ** 2, xp.zeros_like(scores))
    count = xp.sum(xp.astype(active, scores.dtype), axis=1, keepdims=True)
    total = xp.sum(energy, axis=1, keepdims=True)
    some = total > 0
    mean = xp.where(some, total, xp.ones_like(total)) / xp.where(some, count, xp.ones_like(count))
    return scores * (rms / xp.sqrt(mean))


def _fix_mean_penalty(precision, mean_penalty):
    """Rescale precisions so that the mean of 1 / s over atoms of positive precision is ``mean_penalty``."""
    xp = array_namespace(precision)
    some = precision > LEAST_PRECISION
    ones = xp.ones_like(precision)
    penalties = xp.where(some, 1 / xp.where(some, precision, ones), xp.zeros_like(precision))
    count = xp.sum(xp.astype(some, precision.dtype), axis=1, keepdims=True)
    mean = xp.sum(penalties, axis=1, keepdims=True) / xp.where(count > 0, count, xp.ones_like(count))
    return xp.where(some, precision, xp.zeros_like(precision)) * (mean / mean_penalty)


def dimension_estimate(precision):
    """The paper's effective dimension ``g = sum_j 1 / (1 + lambda_j) = sum_j s_j / (1 + s_j)`` of each row, (n,).

    For unit-norm atoms an upper bound on the exact one, met when the atoms are orthonormal.

    Parameters
    ----------
    precision : array of shape (n, K)
        Precisions s_j = 1 / lambda_j of each row's atoms.

    Returns
    -------
    dimension : array of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.penalties import dimension_estimate
    >>> dimension_estimate(np.array([[1.0, 3.0, 0.0]]))  # 1/2 + 3/4 + 0
    array([1.25])
    """
    xp = array_namespace(precision)
    return xp.sum(precision / (1 + precision), axis=1)
