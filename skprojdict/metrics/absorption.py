# SPDX-License-Identifier: BSD-3-Clause
"""Feature absorption, in the forms of the first-letter benchmarks, with the truth in place of a probe.

Those benchmarks find the direction p of a concept with a linear probe, the rows that have the concept by labels and
the concept's own latents by k-sparse probing. Here p is the feature's true atom at norm 1, its rows are those on which
the feature is on and ``<y, p> > 0``, and its own atoms are what ``matching`` says. The part of a row's projection
``<y, p>`` that atom l accounts for is ``c_l = z_l <f_l, p>``.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from .._array import array_namespace, asarray_like, device, nonzero_rows, to_numpy, top_k
from .._chunks import chunk_rows
from . import _inputs
from ._inputs import (
    fires,
    firing,
    follow,
    matrix,
    mean_where_defined,
    pair_of_codes,
    pair_of_dictionaries,
    partners,
    take_rows,
    undefined,
    unit_rows,
)


def absorption_rate(Z, F, Z_true, F_true, matching, *, Y=None, margin=0.4, cosine_threshold=0.025):
    """Share of a feature's rows on which its own atoms are silent and one other atom clearly stands in for them.

    A row counts as absorbed if none of the feature's atoms fires, the atom with the largest ``|c_l|`` has ``c_l > 0``
    and an absolute cosine with p of at least ``cosine_threshold``, and ``|c_l|`` leads the second largest by ``margin``
    times the projection ``<y, p>``.

    Chanin et al. measure the effect of ablating an atom on a probe's logit by integrated gradients. For a linear
    readout along p that effect is ``-c_l`` exactly. Their margin is 1 logit, which has no counterpart in the units of
    the data; ours is relative, with SAEBench's share as its default.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes: the coefficients that reconstruct, not scores.
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    matching : int array of shape (n_true,), or list of n_true int arrays
        Each feature's own atom, or -1: see :func:`match_atoms`. Lists hold several atoms for each feature: see
        :func:`feature_splitting`.
    Y : array of shape (n_samples, n_targets), default=None
        The data, without the mean row that the model adds. None: ``Z_true @ F_true``.
    margin : float, default=0.4
        Lead of the largest part over the second, as a share of the row's projection.
    cosine_threshold : float, default=0.025
        Least absolute cosine between the absorbing atom and p.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mean``
            Mean of ``rate`` over the features that have rows.
        ``rate``
            Array of shape (n_true,), in the library of ``Z`` (NumPy for sparse codes); NaN for a feature without rows.
        ``n_rows``
            NumPy array of shape (n_true,): the number of rows that each feature was judged on.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``matching`` holds anything but indices of atoms and -1.

    Notes
    -----
    Bad dictionaries absorb little, as nothing stands in for anything: read it beside :func:`detection_scores`.

    References
    ----------
    Chanin et al. (2024), A is for Absorption, arXiv 2409.14507; ``feature_absorption_calculator.py`` of sae-spelling.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import absorption_rate
    >>> Z_true = np.array([[1.0, 0.0], [1.0, 1.0]])  # feature 1 implies feature 0
    >>> F = np.array([[1.0, 0.0], [1.0, 1.0]])  # and its atom has absorbed it
    >>> Z = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> absorption_rate(Z, F, Z_true, np.eye(2), [0, 1]).rate
    array([0.5, 0. ])
    """

    def judge(parts):
        xp = array_namespace(parts.shares)
        largest, which = top_k(xp.abs(parts.shares), min(2, parts.shares.shape[1]))
        lead = largest[:, 0] - (largest[:, 1] if largest.shape[1] > 1 else 0.0)
        aligned = xp.take(parts.cosines, which[:, 0]) >= cosine_threshold
        positive = xp.take_along_axis(parts.shares, which[:, :1], axis=1)[:, 0] > 0
        return (parts.silent & positive & aligned & (lead >= margin),)

    (rate,), n_rows = _judge_rows(judge, 1, Z, F, Z_true, F_true, matching, Y)
    return Bunch(mean=mean_where_defined(rate), rate=follow(rate, matrix(Z, "Z")), n_rows=n_rows)


def absorption_scores(
    Z,
    F,
    Z_true,
    F_true,
    matching,
    *,
    Y=None,
    share_threshold=0.4,
    fraction_cosine_threshold=0.1,
    full_cosine_threshold=0.025,
    max_absorbing=3,
):
    """SAEBench's two scores: the mean absorption fraction, and the rate of full absorption.

    With P = ``<y, p>``, m the sum of ``c_l`` over the feature's own atoms, and B the sum of the largest positive
    ``c_l``, at most ``max_absorbing`` of them, over other atoms with an absolute cosine to p of at least
    ``fraction_cosine_threshold``, a row's **absorption fraction** is::

        0                                              if m >= P or B < share_threshold P, else
        1                                              if m <= 0, else
        min(B, P - m) / (min(B, P - m) + m)

    It is **fully absorbed** if none of the own atoms fires and the atom with the largest ``c_l`` has
    ``c_l >= share_threshold P`` and an absolute cosine to p of at least ``full_cosine_threshold``.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes: the coefficients that reconstruct, not scores.
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    matching : int array of shape (n_true,), or list of n_true int arrays
        Each feature's own atom, or -1: see :func:`match_atoms`. Lists hold several atoms for each feature: see
        :func:`feature_splitting`.
    Y : array of shape (n_samples, n_targets), default=None
        The data, without the mean row that the model adds. None: ``Z_true @ F_true``.
    share_threshold : float, default=0.4
        Least share of the projection for which absorbing atoms must account.
    fraction_cosine_threshold, full_cosine_threshold : float, default=0.1 and 0.025
        Least absolute cosine between an absorbing atom and p, for each score.
    max_absorbing : int, default=3
        Atoms that may absorb a row together; for the fraction only.

    Returns
    -------
    scores : :class:`~sklearn.utils.Bunch`
        ``mean_fraction``, ``mean_full``
            Means of the following two over the features that have rows.
        ``fraction``, ``full``
            Arrays of shape (n_true,), in the library of ``Z`` (NumPy for sparse codes): mean absorption fraction and
            share of fully absorbed rows. NaN for a feature without rows.
        ``n_rows``
            NumPy array of shape (n_true,): the number of rows that each feature was judged on.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``matching`` holds anything but indices of atoms and -1.

    Notes
    -----
    SAEBench compares signed cosines. For codes without negative coefficients that is the same, since only positive
    parts absorb; with absolute cosines, turning an atom and its coefficients around changes nothing.

    The rows of a feature without an atom count as silent throughout.

    A dictionary that found nothing scores low too: read it beside :func:`detection_scores`.

    References
    ----------
    Karvonen et al. (2025), SAEBench, arXiv 2503.09532; ``sae_bench/evals/absorption/feature_absorption_calculator.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import absorption_scores
    >>> Z_true = np.array([[1.0, 0.0], [1.0, 1.0]])  # feature 1 implies feature 0
    >>> F = np.array([[1.0, 0.0], [1.0, 1.0]])
    >>> Z = np.array([[1.0, 0.0], [0.25, 0.75]])  # its atom has taken over three quarters of it
    >>> scores = absorption_scores(Z, F, Z_true, np.eye(2), [0, 1])
    >>> scores.fraction, scores.full
    (array([0.375, 0.   ]), array([0., 0.]))
    """

    def judge(parts):
        xp = array_namespace(parts.shares)
        zero, one = xp.zeros_like(parts.shares[:, 0]), xp.ones_like(parts.shares[:, 0])
        own = xp.sum(xp.where(parts.own, parts.shares, zero[:, None]), axis=1)
        absorbing = ~parts.own & (parts.cosines >= fraction_cosine_threshold) & (parts.shares > 0)
        candidates = xp.where(absorbing, parts.shares, zero[:, None])
        other = xp.sum(top_k(candidates, min(max_absorbing, candidates.shape[1]))[0], axis=1)
        taken = xp.minimum(other, 1 - own)
        mixed = (own > 0) & (own < 1)
        fraction = xp.where(mixed, taken / xp.where(mixed, taken + own, one), one)
        fraction = xp.where((own >= 1) | (other < share_threshold), zero, fraction)
        largest, which = top_k(parts.shares, 1)
        aligned = xp.take(parts.cosines, which[:, 0]) >= full_cosine_threshold
        return fraction, parts.silent & aligned & (largest[:, 0] >= share_threshold)

    (fraction, full), n_rows = _judge_rows(judge, 2, Z, F, Z_true, F_true, matching, Y)
    like = matrix(Z, "Z")
    return Bunch(
        mean_fraction=mean_where_defined(fraction),
        mean_full=mean_where_defined(full),
        fraction=follow(fraction, like),
        full=follow(full, like),
        n_rows=n_rows,
    )


class _Parts(NamedTuple):
    """Who accounts for the projections of some rows of one feature: the q atoms that fire on any of them."""

    shares: Any  # (rows, q): c_l / <y, p>
    cosines: Any  # (q,): |cos(f_l, p)|
    own: Any  # bool (q,): the atoms of the feature itself
    silent: Any  # bool (rows,): none of these fires


def _judge_rows(judge, n_outputs, Z, F, Z_true, F_true, matching, Y):
    """Mean over each feature's rows of every output of ``judge(parts)``, NaN without rows; and the numbers of rows."""
    Z, Z_true = pair_of_codes(Z, Z_true)
    F, F_true = pair_of_dictionaries(F, F_true)
    (n_samples, n_components), n_true = Z.shape, Z_true.shape[1]
    if (n_components, n_true) != (F.shape[0], F_true.shape[0]):
        raise ValueError(
            f"Z and Z_true have {n_components} and {n_true} columns, but F and F_true {F.shape[0]} and "
            f"{F_true.shape[0]} atoms: pass codes of these dictionaries."
        )
    Y = None if Y is None else matrix(Y, "Y")
    if Y is not None and tuple(Y.shape) != (n_samples, F.shape[1]):
        raise ValueError(f"Y has shape {tuple(Y.shape)}, but Z and F are of data of shape {(n_samples, F.shape[1])}.")
    xp = array_namespace(F)
    units, directions = unit_rows(F), unit_rows(F_true)
    on = firing(Z_true)
    means, n_rows = [], np.zeros(n_true, dtype=np.int64)
    for feature, own in enumerate(_own_atoms(matching, n_true, n_components)):
        direction = directions[feature, :]
        cosines, per_unit = xp.abs(units @ direction), F @ direction
        is_own = asarray_like(np.isin(np.arange(n_components), own), F, dtype=xp.bool)
        sums = []
        rows_on = on.indices[on.indptr[feature] : on.indptr[feature + 1]]
        for block in chunk_rows(rows_on.size, 0, max(1, _inputs.BLOCK_ENTRIES // n_components), F):
            rows = rows_on[block]
            data = take_rows(Z_true, rows, F) if Y is None else take_rows(Y, rows, F)
            projections = xp.astype(data, F.dtype) @ (F_true @ direction if Y is None else direction)
            kept = nonzero_rows(projections > 0)
            if kept.shape[0] == 0:
                continue
            z = xp.take(take_rows(Z, rows, F), kept, axis=0)
            silent = ~xp.any(fires(z) & is_own[None, :], axis=1)
            # Few of many atoms fire on the rows of one feature, and the others have no part in anything.
            live = nonzero_rows(xp.any(fires(z), axis=0))
            if live.shape[0] == 0:
                live = xp.zeros(1, dtype=xp.int64, device=device(F))
            shares = xp.astype(xp.take(z, live, axis=1), F.dtype) * xp.take(per_unit, live)[None, :]
            shares = shares / xp.take(projections, kept)[:, None]
            outputs = judge(_Parts(shares, xp.take(cosines, live), xp.take(is_own, live), silent))
            sums.append([float(xp.sum(xp.astype(each, F.dtype))) for each in outputs])
            n_rows[feature] += kept.shape[0]
        means.append(np.sum(sums, axis=0) / n_rows[feature] if sums else np.full(n_outputs, np.nan))
    if not n_rows.any():
        undefined("No true feature is on in these rows with a positive projection, so absorption is undefined.")
    return np.stack(means, axis=1), n_rows


def _own_atoms(matching, n_true, n_components):
    """An array of atoms for each true feature, empty for one without."""
    if hasattr(matching, "shape") or all(np.ndim(each) == 0 for each in matching):
        matching = partners(matching, n_true, n_components)
        return [matching[feature : feature + 1] for feature in range(n_true)]
    if len(matching) != n_true:
        raise ValueError(f"matching must hold the atoms of {n_true} true features; got those of {len(matching)}.")
    # An empty list has no dtype to check.
    atoms = [to_numpy(each) if np.size(each) else np.zeros(0, dtype=np.int64) for each in matching]
    return [partners(each, each.shape[0], n_components) for each in atoms]
