# SPDX-License-Identifier: BSD-3-Clause
"""Codes of the additive forms, whose reconstruction is ``sum_j z_j f_j``: sparse autoencoders of every kind."""

from .._array import array_namespace, detached, take_along_rows
from .select import select


def additive_codes(scores, *, k=None, selection="top_k", threshold=0.0, magnitude=None):
    """Codes of the atoms that fire, from the scores e of all atoms.

    TopK: the k largest positive scores. ReLU: every positive score (``k=None``). BatchTopK and JumpReLU: every score
    above one threshold, or above the atom's own. Gated: where a score is positive,
    ``relu(exp(r_j) (e_j - b_j) + c_j)``.

    Parameters
    ----------
    scores : array of shape (n, p)
    k, selection, threshold
        As in :func:`skprojdict.solvers.select.select`.
    magnitude : tuple of three arrays of shape (p,), default=None
        r, b and c of the gated form; None: the code is the score.

    Returns
    -------
    support : Support
        Atoms of each row, (n, K), padding last.
    coefs : array of shape (n, K)
        Their codes, 0 for padding. Differentiable on torch; the support is held fixed.
    """
    xp = array_namespace(scores)
    if magnitude is not None:  # gate and magnitude are both positive: one threshold for each atom
        log_gain, bias, shift = (detached(values) for values in magnitude)
        least = bias - shift * xp.exp(-log_gain)
        selection, threshold = "threshold", xp.where(least > 0, least, xp.zeros_like(least))
    support = select(detached(scores), k, selection=selection, threshold=threshold)
    coefs = take_along_rows(scores, support.indices)
    if magnitude is not None:
        log_gain, bias, shift = (_at(values, support.indices) for values in magnitude)
        coefs = xp.exp(log_gain) * (coefs - bias) + shift
        coefs = xp.where(coefs > 0, coefs, xp.zeros_like(coefs))
    return support, xp.where(support.active, coefs, xp.zeros_like(coefs))


def _at(values, indices):
    xp = array_namespace(values)
    return xp.reshape(xp.take(values, xp.reshape(indices, (-1,)), axis=0), indices.shape)
