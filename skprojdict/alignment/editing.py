# SPDX-License-Identifier: BSD-3-Clause
"""Edits of single features: coefficients of chosen atoms from another row, the rest and the error from the base."""

import numpy as np

from .._array import array_namespace, asarray_like, scatter_rows, to_numpy, top_k
from ..solvers.ridge import project

__all__ = ["edit_features"]


def edit_features(dictionary, base, source, features):
    """Give chosen features of the base the coefficients that they have in the source.

    ``out = base + sum_{j in T} (beta_j(source) - beta_j(base)) f_j`` for the chosen features T, with beta from the
    joint solve on the union of the supports that the dictionary selects for base and source. So the base's other
    coefficients and its reconstruction error stay, and an edit of no feature, or of a row by itself, changes nothing.

    This is not the interchange of a subspace: with atoms at an angle the change of one coefficient is an oblique
    projection of ``source - base``, longer than it by 1 / sin of the angle at worst. See :class:`Intervention` for the
    subspace.

    Parameters
    ----------
    dictionary : fitted dictionary
        A ProjectiveDictionaryLearning with ``target="X"``, whose coefficients are solved anew on the union; or another
        dictionary of this package, whose codes are taken as they are.
    base, source : arrays of shape (n_samples, n_features)
        Rows to change, and to take coefficients from.
    features : integer array of shape (n_edited,), or bool array of shape (n_samples, n_components)
        The features T, the same for all rows or each row's own.

    Returns
    -------
    out : array of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        If shapes do not match or there is no such feature.

    References
    ----------
    Makelov, Lange, Nanda (2024). Towards principled evaluations of sparse autoencoders for interpretability and
    control. arXiv 2405.08366, section 4 (edits of features).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import ProjectiveDictionaryLearning
    >>> from skprojdict.alignment import edit_features
    >>> X = load_digits().data
    >>> model = ProjectiveDictionaryLearning(64, n_nonzero_coefs=6, max_iter=2, random_state=0).fit(X)
    >>> bool(np.allclose(edit_features(model, X[:5], X[5:10], []), X[:5]))
    True
    """
    if tuple(base.shape) != tuple(source.shape) or len(base.shape) != 2:
        raise ValueError(
            f"base and source must be 2-d of one shape, got {tuple(base.shape)} and {tuple(source.shape)}."
        )
    atoms = dictionary.components_
    chosen = _mask(features, base.shape[0], atoms.shape[0])
    if getattr(dictionary, "target", "X") != "X":
        raise ValueError("dictionary has target='y': features can be edited where it reconstructs what it reads.")
    own, other = joint_codes(dictionary, base, source)
    xp = array_namespace(atoms)
    change = (other - own) * asarray_like(chosen, atoms)
    return base + xp.astype(change @ atoms, base.dtype)


def joint_codes(dictionary, base, source):
    """Coefficients of base and source rows on the union of both supports: two dense (n, n_components) arrays.

    For a projective dictionary the minimisers of ``|| y - sum_j beta_j f_j ||^2`` over the union, plus
    ``alpha |beta|^2`` with ``penalty="ridge"``. Penalties that depend on the score are left out, as base and source
    would have two for one feature. Of other dictionaries the codes that ``transform`` gives.
    """
    codes = dictionary.transform(base), dictionary.transform(source)
    codes = tuple(each.toarray() if hasattr(each, "toarray") else each for each in codes)
    penalty = getattr(dictionary, "penalty", None)
    if penalty is None:
        return codes
    atoms, scale = dictionary.components_, dictionary.scale_
    xp = array_namespace(atoms)
    used = xp.astype((codes[0] != 0) | (codes[1] != 0), atoms.dtype)
    width = max(1, int(xp.max(xp.sum(used, axis=1))))
    weights, indices = top_k(used, width)
    exact = penalty != "ridge"
    if not exact:
        weights = weights / dictionary.alpha
    solved = (
        project(
            (xp.astype(rows, atoms.dtype) - dictionary.mean_) / scale, atoms, indices, weights, exact=exact, ragged=True
        )
        for rows in (base, source)
    )
    return tuple(scatter_rows(indices, each.coefs * scale, atoms.shape[0]) for each in solved)


def _mask(features, n_rows, n_components):
    """The chosen features of every row, bool (1 or n_rows, n_components)."""
    features = to_numpy(features)
    if features.dtype == bool:
        if features.shape != (n_rows, n_components):
            raise ValueError(
                f"features as bool must have shape (n_samples, n_components) = {(n_rows, n_components)}, got "
                f"{features.shape}."
            )
        return features
    features = features.astype(np.int64) if features.size == 0 else features
    if features.ndim != 1 or features.dtype.kind not in "iu":
        raise ValueError(
            f"features must be numbers of atoms or a bool mask, got shape {features.shape} of dtype {features.dtype}."
        )
    if features.size and (features.min() < 0 or features.max() >= n_components):
        raise ValueError(
            f"features must be between 0 and {n_components - 1}, got {features.min()} to {features.max()}."
        )
    mask = np.zeros((1, n_components), dtype=bool)
    mask[0, features] = True
    return mask
