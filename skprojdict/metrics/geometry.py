# SPDX-License-Identifier: BSD-3-Clause
"""Angles between the atoms of one dictionary, and the dimension of the spans that a code selects."""

import numpy as np
from scipy import sparse

from .._array import array_namespace, top_k
from .._chunks import chunk_rows
from ..solvers import ridge
from ..solvers.penalties import dimension_estimate
from . import _inputs
from ._inputs import fires, floating, matrix, take_rows, unit_rows


def mutual_coherence(F):
    """Largest absolute cosine between two different atoms.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The dictionary, one atom a row, of any norm. An atom of zeros has cosine 0 with every other.

    Returns
    -------
    coherence : float
        Between 0 (orthogonal atoms, or a single one) and 1.

    Examples
    --------
    >>> from skprojdict.metrics import mutual_coherence
    >>> round(mutual_coherence([[1.0, 0.0], [0.0, 2.0], [-0.6, 0.8]]), 6)
    0.8
    """
    xp = array_namespace(matrix(F, "F"))
    return float(xp.max(nearest_cosines(F)))


def nearest_cosines(F, *, signed=False):
    """Cosine of each atom with the one closest to it.

    Their mean is the decoder redundancy that is reported for sparse autoencoders ("maximum cosine similarity of the
    decoder"); their largest the :func:`mutual_coherence`. Split and absorbed features show as a tail towards 1.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The dictionary, one atom a row, of any norm. An atom of zeros has cosine 0 with every other.
    signed : bool, default=False
        Whether an atom that points the other way counts as far away. False takes absolute cosines.

    Returns
    -------
    cosines : array of shape (n_components,)
        In the library of ``F``, in [0, 1], or [-1, 1] where signed. A single atom has no other: 0.

    References
    ----------
    Korznikov et al. (2025), OrtSAE, arXiv 2509.22033, appendix B, reports the mean.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import nearest_cosines
    >>> F = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 4.0]])
    >>> nearest_cosines(F)
    array([0.6, 0.8, 0.8])
    >>> nearest_cosines(F, signed=True)
    array([0. , 0.8, 0.8])
    """
    F = unit_rows(matrix(F, "F"))
    xp = array_namespace(F)
    if F.shape[0] == 1:
        return xp.zeros_like(F[:, 0])
    parts = []
    for block in chunk_rows(F.shape[0], 0, _inputs.BLOCK, F):
        cosines = F[block, :] @ F.T
        cosines = cosines if signed else xp.abs(cosines)
        rows = xp.arange(block.start, block.stop, device=cosines.device)[:, None]
        columns = xp.arange(cosines.shape[1], device=cosines.device)[None, :]
        # An atom is not its own neighbour: -2 is below every cosine.
        parts.append(xp.max(xp.where(rows == columns, xp.full_like(cosines, -2.0), cosines), axis=1))
    return xp.clip(xp.concat(parts), -1.0, 1.0)


def effective_dimension(Z, F, *, precisions=None, estimate=False):
    """Mean effective dimension of the projections on the atoms that each row uses.

    For a row with the atoms X (k, d), their Gram matrix G and the penalties Lambda it is ``tr(G (G + Lambda)^-1)``, the
    degrees of freedom of ridge regression: how many directions of the target the row's atoms let through. Without a
    penalty it is the rank of the atoms in use, so it falls below :func:`l0` where they are dependent.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes; an atom takes part where its coefficient is not zero.
    F : array of shape (n_components, n_targets)
        The dictionary.
    precisions : float, or array or SciPy sparse matrix of shape (n_samples, n_components), default=None
        ``1 / lambda``, the same for all atoms in use or one for each coefficient, at least 0. None: no penalty.
    estimate : bool, default=False
        The paper's ``sum_j 1 / (1 + lambda_j)`` in place of the exact value; for atoms that are not of norm 1 with
        ``lambda_j / ||f_j||^2``. It is an upper bound, met by orthogonal atoms, and charges overlapping ones in full.

    Returns
    -------
    dimension : float
        At most ``l0(Z)``.

    Raises
    ------
    ValueError
        If shapes do not fit, or a precision is negative.

    See Also
    --------
    skprojdict.solvers.ridge.effective_dimension : The value of each row, from indices and precisions.

    References
    ----------
    Sklar (2024), section 5; with its missing sum over the features.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import effective_dimension
    >>> F = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> effective_dimension([[1.0, 1.0, 1.0]], F)  # three atoms span two dimensions
    2.0
    >>> effective_dimension([[1.0, 1.0, 0.0]], F, precisions=4.0)
    1.6
    """
    Z, F = matrix(Z, "Z"), floating(matrix(F, "F"))
    if Z.shape[1] != F.shape[0]:
        raise ValueError(f"Z has {Z.shape[1]} columns and F {F.shape[0]} atoms: pass codes of this dictionary.")
    spread = hasattr(precisions, "shape") and len(precisions.shape) > 0
    if spread and tuple(precisions.shape) != tuple(Z.shape):
        raise ValueError(
            f"precisions must be a number or one for each coefficient, of shape {tuple(Z.shape)}; got "
            f"{tuple(precisions.shape)}."
        )
    codes = [each.tocsr() if sparse.issparse(each) else each for each in ([Z, precisions] if spread else [Z])]
    F, squared_norms = unit_rows(F), array_namespace(F).sum(F * F, axis=1)
    xp = array_namespace(F)
    total = 0.0
    for rows in chunk_rows(Z.shape[0], 0, max(1, _inputs.BLOCK_ENTRIES // max(1, Z.shape[1])), F):
        z, *own = (take_rows(each, np.arange(rows.start, rows.stop), F) for each in codes)
        weights = xp.astype(fires(z) & (squared_norms > 0), F.dtype)
        if precisions is not None:
            # Only the products s_j ||f_j||^2 enter, so atoms of norm 1 do if the precisions carry the norms.
            weights = weights * squared_norms * (own[0] if own else float(precisions))
            if not bool(xp.all(xp.isfinite(weights) & (weights >= 0))):
                raise ValueError("precisions must be finite and at least 0, but some are not: pass 1 / lambda.")
        width = int(xp.max(xp.sum(xp.astype(weights > 0, xp.int64), axis=1)))
        if width == 0:
            continue
        weights, indices = top_k(weights, width)
        if not estimate:
            values = ridge.effective_dimension(F, indices, weights, exact=precisions is None, ragged=True)
        else:
            values = xp.sum(weights, axis=1) if precisions is None else dimension_estimate(weights)
        total += float(xp.sum(values))
    return total / Z.shape[0]
