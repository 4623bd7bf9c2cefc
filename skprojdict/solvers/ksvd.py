# SPDX-License-Identifier: BSD-3-Clause
"""The atom update of K-SVD: atoms and their coefficients together, one atom after the other."""

import numpy as np

from skprojdict._array import (
    array_namespace,
    asarray_like,
    is_cupy_namespace,
    is_numpy_namespace,
    is_torch_namespace,
    to_numpy,
)
from skprojdict.solvers.mod import code_residual

__all__ = ["update_atoms"]


def update_atoms(Y, indices, coefs, F, *, exact=True):
    r"""One sweep of K-SVD over the atoms, supports held fixed.

    For each atom j in turn, with the other atoms and their coefficients as they stand,

    .. math:: \min_{f_j,\, z_j} \; \|E_j - z_j f_j^T\|_F^2 \quad \text{subject to} \quad \|f_j\|_2 = 1,

    over the rows that use the atom, E_j being what the other atoms leave of them [1]_. The solution is the
    leading singular pair of E_j; ``exact=False`` makes one power iteration from the current atom instead [2]_.

    Parameters
    ----------
    Y : array of shape (n, d)
        Rows that were coded.
    indices, coefs : arrays of shape (n, k)
        Their codes; entries with coefficient 0 are padding.
    F : array of shape (p, d)
        Unit rows.
    exact : bool, default=True
        Singular value decomposition, or one power iteration.

    Returns
    -------
    F : array of shape (p, d)
        Updated atoms; an atom that no row uses stays.
    coefs : array of shape (n, k)
        Updated coefficients on the same support.

    References
    ----------
    .. [1] M. Aharon, M. Elad, A. Bruckstein, "K-SVD: an algorithm for designing overcomplete dictionaries for
       sparse representation", IEEE Transactions on Signal Processing 54(11), 2006.
    .. [2] R. Rubinstein, M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm using batch
       orthogonal matching pursuit", Technion report CS-2008-08, 2008.
    """
    xp = array_namespace(Y)
    if not (is_numpy_namespace(xp) or is_torch_namespace(xp) or is_cupy_namespace(xp)):
        # The standard cannot write to chosen rows; the sweep is sequential, so a detour costs little.
        parts = update_atoms(*(to_numpy(part) for part in (Y, indices, coefs, F)), exact=exact)
        return tuple(asarray_like(part, F) for part in parts)
    residual = code_residual(indices, coefs, Y, F)
    F, coefs = xp.asarray(F, copy=True), xp.asarray(coefs, copy=True)
    k = indices.shape[1]
    entries = xp.nonzero(xp.reshape(coefs, (-1,)))[0]
    entries = entries[xp.argsort(xp.reshape(indices, (-1,))[entries], stable=True)]
    atoms = to_numpy(xp.reshape(indices, (-1,))[entries])
    bounds = np.searchsorted(atoms, np.arange(F.shape[0] + 1))
    flat = xp.reshape(coefs, (-1,))
    for j in range(F.shape[0]):
        own = entries[int(bounds[j]) : int(bounds[j + 1])]
        if own.shape[0] == 0:
            continue
        rows = own // k
        error = residual[rows, :] + flat[own][:, None] * F[j, :]
        atom, weights = _leading_pair(error, flat[own], exact)
        if atom is None:
            continue
        F[j, :], flat[own] = atom, weights
        residual[rows, :] = error - weights[:, None] * atom
    return F, xp.reshape(flat, coefs.shape)


def _leading_pair(error, weights, exact):
    """Best rank-one factors ``(atom, weights)`` of an error matrix (m, d), or (None, None) for one that vanishes."""
    xp = array_namespace(error)
    if exact:
        left, values, right = xp.linalg.svd(error, full_matrices=False)
        atom, scores = right[0, :], left[:, 0] * values[0]
        sign = xp.where(xp.sum(scores * weights) < 0, -1.0, 1.0)  # an atom keeps its sign where it can
        atom, scores = atom * sign, scores * sign
        largest = values[0]
    else:
        atom = weights @ error
        largest = xp.sqrt(xp.sum(atom * atom))
        atom = atom / (largest if float(largest) > 0 else 1.0)
        scores = error @ atom
    if not float(largest) > 0:
        return None, None
    return xp.astype(atom, error.dtype), xp.astype(scores, error.dtype)
