# SPDX-License-Identifier: BSD-3-Clause
"""Transcoders: how much of the error lies in the choice of the atoms, and how much in their predicted coefficients."""

from numbers import Integral

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch, check_random_state

from .._array import array_namespace, asarray_like, to_numpy, top_k
from ..solvers.omp import orthogonal_matching_pursuit
from ..solvers.ridge import project
from ._inputs import fires, floating, matrix, undefined, unit_rows


def prediction_error_split(Y, Y_predicted, Y_projected):
    """Split the error of a prediction into what its atoms cannot reach and what its coefficients miss.

    With y the target, y_hat its prediction and P y its projection on the atoms that the prediction selected::

        || y - y_hat ||^2  =  || y - P y ||^2  +  || P y - y_hat ||^2  +  2 <y - P y, P y - y_hat>
                               selection          prediction             cross

    For an exact projection the residual is orthogonal to the atoms, so that the cross term vanishes (Pythagoras). A
    ridge projection shrinks, and leaves one.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        What was to be predicted.
    Y_predicted : array of shape (n_samples, n_targets)
        The prediction from the other view alone.
    Y_projected : array of shape (n_samples, n_targets)
        The projection of ``Y`` on the atoms that the prediction uses, with everything that the prediction adds besides
        them (the mean, a linear skip).

    Returns
    -------
    split : :class:`~sklearn.utils.Bunch`
        Shares of the variance of ``Y`` about its mean row, NaN with an
        :class:`~sklearn.exceptions.UndefinedMetricWarning` where it has none:

        ``selection``
            Fraction of variance unexplained by the projection: the atoms' fault.
        ``prediction``
            Distance of the prediction from the projection: the coefficients' fault.
        ``cross``
            Twice the product of the two, 0 up to rounding for an exact projection.
        ``total``
            Fraction of variance unexplained by the prediction: the sum of the three.

    Raises
    ------
    ValueError
        If the shapes differ.

    See Also
    --------
    selection_skill : The first share on a scale from random to pursued atoms.
    skprojdict.inspection.second_view_errors : Both, for a fitted estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import prediction_error_split
    >>> Y = np.array([[1.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])
    >>> split = prediction_error_split(Y, Y * [0.5, 0.0], Y * [1.0, 0.0])  # the first axis alone, and half of it
    >>> split.selection, split.prediction, split.cross, split.total
    (0.8, 0.05, 0.0, 0.85)
    """
    Y, predicted, projected = (
        floating(matrix(array, name))
        for array, name in ((Y, "Y"), (Y_predicted, "Y_predicted"), (Y_projected, "Y_projected"))
    )
    for array, name in ((predicted, "Y_predicted"), (projected, "Y_projected")):
        if tuple(array.shape) != tuple(Y.shape):
            raise ValueError(f"Y has shape {tuple(Y.shape)} and {name} {tuple(array.shape)}: pass arrays of one shape.")
    xp = array_namespace(Y, predicted, projected)
    total = float(xp.sum((Y - xp.mean(Y, axis=0)) ** 2))
    missed, off = Y - projected, projected - predicted
    sums = {
        "selection": float(xp.sum(missed**2)),
        "prediction": float(xp.sum(off**2)),
        "cross": 2 * float(xp.sum(missed * off)),
        "total": float(xp.sum((Y - predicted) ** 2)),
    }
    if total == 0.0:
        nan = undefined("The rows of Y do not vary, so no share of their variance is defined: pass two different rows.")
        return Bunch(**dict.fromkeys(sums, nan))
    return Bunch(**{name: value / total for name, value in sums.items()})


def selection_skill(Y, F, Z, *, n_random=1, random_state=None, chunk_size="auto"):
    """How well a support was chosen, between atoms at random (0) and orthogonal matching pursuit on the target (1).

    Every row is projected on three supports of the same number of atoms: the one that its code selects, random ones,
    and the one that a pursuit finds with the row itself before it, which no selection by another view can expect to
    beat. With EV the share of the variance that each of these projections explains::

        skill = (EV_selected - EV_random) / (EV_pursued - EV_random)

    It is not bounded: a choice that is worse than a random one is negative, and a pursuit is greedy, so that 1 may be
    exceeded. It does not depend on how the coefficients were predicted.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        Targets, without what a model adds to its decoded codes (its mean; for a linear skip ``y - skip(x)``).
    F : array of shape (n_components, n_targets)
        The dictionary, one atom a row, of any norm.
    Z : array or sparse matrix of shape (n_samples, n_components)
        Codes. Only where they are not zero counts.
    n_random : int, default=1
        Random supports a row, over which the explained variance is averaged.
    random_state : int, RandomState instance or None, default=None
        For the random supports.
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``skill``, and the shares ``selected``, ``random`` and ``pursued`` of the variance about the mean row that it is
        made of. NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where nothing varies or where a
        pursuit explains no more than random atoms do.

    Raises
    ------
    ValueError
        If the shapes do not go together.

    References
    ----------
    Dunefsky, Chlenski and Nanda (2024), Transcoders find interpretable LLM feature circuits, arXiv 2406.11944, for
    the setting. Pati, Rezaiifar and Krishnaprasad (1993) for the pursuit.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import selection_skill
    >>> Y = np.array([[3.0, 1.0, 0.0], [0.0, -2.0, 1.0], [1.0, 0.0, 4.0]])
    >>> best = selection_skill(Y, np.eye(3), np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), random_state=0)
    >>> best.skill
    1.0
    """
    Y, F, Z = floating(matrix(Y, "Y")), floating(matrix(F, "F")), matrix(Z, "Z")
    if Y.shape[1] != F.shape[1]:
        raise ValueError(
            f"Y has {Y.shape[1]} columns and the atoms of F {F.shape[1]} entries: pass what F reconstructs."
        )
    if tuple(Z.shape) != (Y.shape[0], F.shape[0]):
        raise ValueError(
            f"Z must have one row for each of {Y.shape[0]} rows of Y and a column for each of the {F.shape[0]} atoms, "
            f"got shape {tuple(Z.shape)}."
        )
    if not isinstance(n_random, Integral) or n_random < 1:
        raise ValueError(f"n_random must be a whole number of at least 1; got {n_random!r}.")
    xp = array_namespace(Y)
    F = unit_rows(asarray_like(to_numpy(F), Y))
    total = float(xp.sum((Y - xp.mean(Y, axis=0)) ** 2))
    if total == 0.0:
        nan = undefined("The rows of Y do not vary, so no share of their variance is defined: pass two different rows.")
        return Bunch(skill=nan, selected=nan, random=nan, pursued=nan)
    rng = check_random_state(random_state)
    indices, counts = _support(Z)
    width = indices.shape[1]

    def explained(chosen):
        used = asarray_like((np.arange(width) < counts[:, None]).astype(np.float64), Y)
        chosen = asarray_like(chosen, Y, dtype=xp.int64)
        fitted = project(Y, F, chosen, used, exact=True, ragged=True, chunk_size=chunk_size).reconstruction
        return 1.0 - float(xp.sum((Y - fitted) ** 2)) / total

    selected = explained(indices)
    random = float(np.mean([explained(_random_support(rng, counts, width, F.shape[0])) for _ in range(n_random)]))
    pursuit = to_numpy(orthogonal_matching_pursuit(Y, F, width, chunk_size=chunk_size).indices)
    pursued = explained(pursuit)
    if pursued <= random:
        skill = undefined("A pursuit explains no more than random atoms do, which leaves no scale for the skill.")
    else:
        skill = (selected - random) / (pursued - random)
    return Bunch(skill=skill, selected=selected, random=random, pursued=pursued)


def _support(Z):
    """Indices (n, K) of the codes that are not zero, padded with 0, and their number in each row, as NumPy."""
    if sparse.issparse(Z):
        Z = sparse.csr_array(Z, copy=True)
        Z.sum_duplicates()
        Z.eliminate_zeros()
        counts = np.diff(Z.indptr)
        indices = np.zeros((Z.shape[0], max(1, counts.max(initial=0))), dtype=np.int64)
        indices[np.arange(indices.shape[1]) < counts[:, None]] = Z.indices
        return indices, counts
    xp = array_namespace(Z)
    on = xp.astype(fires(Z), xp.int64)
    counts = to_numpy(xp.sum(on, axis=1))
    width = max(1, int(counts.max(initial=0)))
    return to_numpy(top_k(xp.astype(on, xp.float32), width)[1]), counts


def _random_support(rng, counts, width, n_components):
    """As many different atoms for each row as it has, at random."""
    chosen = np.zeros((len(counts), width), dtype=np.int64)
    for row, count in enumerate(counts):
        chosen[row, :count] = rng.choice(n_components, count, replace=False)
    return chosen
