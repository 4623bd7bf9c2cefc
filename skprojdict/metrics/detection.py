# SPDX-License-Identifier: BSD-3-Clause
"""Codes against known codes, feature by feature: when the matched atom fires, and how strongly."""

import numpy as np
from sklearn.utils import Bunch

from .._array import array_namespace, to_numpy
from ._inputs import (
    count,
    fires,
    floating,
    follow,
    matrix,
    mean_where_defined,
    pair_of_codes,
    pair_of_dictionaries,
    partners,
    ratio,
    row_blocks,
    take_columns,
    undefined,
)


def detection_scores(Z, Z_true, matching, *, groups=None):
    """Precision, recall and F1 of each true feature's matched atom as a detector of that feature.

    The atom fires where its coefficient is not zero, whatever its sign; the feature is on where its true coefficient is
    not zero.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows, or booleans that say which features are on.
    matching : int array of shape (n_true,)
        The atom of each true feature, or -1: see :func:`match_atoms`.
    groups : array-like of shape (n_true,), default=None
        A label for each true feature; the means are then also given for each label. See :func:`hierarchy_groups`.

    Returns
    -------
    scores : :class:`~sklearn.utils.Bunch`
        ``precision``, ``recall``, ``f1``
            Arrays of shape (n_true,), in the library of ``Z`` (NumPy for sparse codes). 0 for an atom that never fires
            and for a feature without one; NaN for a feature that is never on in these rows, which says nothing.
        ``mean_precision``, ``mean_recall``, ``mean_f1``
            Means over the features that are on in some row.
        ``n_rows``
            NumPy array of shape (n_true,): the number of rows on which each feature is on.
        ``by_group``
            Dictionary from label to a Bunch of the three means; empty without ``groups``.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``matching`` holds anything but indices of atoms and -1.

    Notes
    -----
    SynthSAEBench averages over atoms instead, each against the true feature that it is closest to. That form is
    ``detection_scores(Z, Z_true[:, best_true_atoms(F, F_true)], np.arange(n_components))``, up to features that are
    never on, which it counts as 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import detection_scores
    >>> Z_true = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> Z = np.array([[0.0, 0.9], [0.0, 0.0], [1.1, 0.0], [0.2, 0.0]])
    >>> scores = detection_scores(Z, Z_true, matching=np.array([1, 0]))
    >>> scores.precision, scores.recall
    (array([1. , 0.5]), array([0.5, 1. ]))
    >>> round(scores.mean_f1, 3)
    0.667
    """
    Z, Z_true = pair_of_codes(Z, Z_true)
    n_true = Z_true.shape[1]
    matching = partners(matching, n_true, Z.shape[1])
    both, fired, on = np.zeros((3, n_true), dtype=np.int64)
    for z, z_true in row_blocks(take_columns(Z, matching), Z_true):
        z, z_true = fires(z), fires(z_true)
        both += count(z & z_true)
        fired += count(z)
        on += count(z_true)
    scores = {"precision": ratio(both, fired), "recall": ratio(both, on), "f1": ratio(2 * both, fired + on)}
    if not on.any():
        undefined("No true feature is on in these rows, so the detection scores are undefined: pass other rows.")
    for values in scores.values():
        values[on == 0] = np.nan
    return Bunch(
        **{name: follow(values, Z) for name, values in scores.items()},
        **_means(scores, slice(None)),
        n_rows=on,
        by_group={} if groups is None else _means_by_group(scores, groups, n_true),
    )


def _means(scores, members):
    return {f"mean_{name}": mean_where_defined(values[members]) for name, values in scores.items()}


def _means_by_group(scores, groups, n_true):
    groups = to_numpy(groups)
    if groups.shape != (n_true,):
        raise ValueError(f"groups must hold one label for each of the {n_true} true features; got {groups.shape}.")
    return {label: Bunch(**_means(scores, groups == label)) for label in np.unique(groups).tolist()}


def coefficient_bias(Z, F, Z_true, F_true, matching):
    """How far the coefficients of each true feature's atom are off in scale: -0.2 where they are a fifth too small.

    Fits ``z = (1 + bias) z_true`` by least squares through the origin, over the rows on which the feature is on and
    the atom fires. Atoms of any norm and either sign are compared in units of the unit atom that points as the true
    one does.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    matching : int array of shape (n_true,)
        The atom of each true feature, or -1: see :func:`match_atoms`.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``bias``
            Array of shape (n_true,), in the library of ``Z`` (NumPy for sparse codes); NaN where the atom never fires
            on its feature.
        ``mean_bias``
            Mean over the features for which it is defined.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``matching`` holds anything but indices of atoms and -1.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import coefficient_bias
    >>> Z_true = np.array([[1.0, 0.0], [2.0, 3.0]])
    >>> result = coefficient_bias(0.5 * Z_true, np.eye(2), Z_true, np.eye(2), np.array([0, 1]))
    >>> result.mean_bias
    -0.5
    """
    Z, Z_true = pair_of_codes(Z, Z_true)
    n_components, n_true = Z.shape[1], Z_true.shape[1]
    for name, atoms, codes, n_atoms in (("F", F, "Z", n_components), ("F_true", F_true, "Z_true", n_true)):
        if matrix(atoms, name).shape[0] != n_atoms:
            raise ValueError(
                f"{name} has {np.shape(atoms)[0]} atoms and {codes} {n_atoms} columns: pass codes of these atoms."
            )
    matching = partners(matching, n_true, n_components)
    F, F_true = (to_numpy(each) for each in pair_of_dictionaries(F, F_true))
    factor = np.sign(np.sum(F[matching] * F_true, axis=1)) * np.linalg.norm(F[matching], axis=1)
    factor = ratio(factor, np.linalg.norm(F_true, axis=1))
    products, squares = np.zeros((2, n_true))
    for z, z_true in row_blocks(take_columns(Z, matching), Z_true):
        xp = array_namespace(z)
        z, z_true = floating(z), floating(z_true)
        z_true = xp.where(z != 0, z_true, xp.zeros_like(z_true))
        products += to_numpy(xp.sum(z * z_true, axis=0))
        squares += to_numpy(xp.sum(z_true * z_true, axis=0))
    bias = np.where(squares > 0, ratio(factor * products, squares) - 1, np.nan)
    if np.isnan(bias).all():
        undefined("No matched atom fires on its true feature, so the bias of the coefficients is undefined.")
    return Bunch(bias=follow(bias, Z), mean_bias=mean_where_defined(bias))
