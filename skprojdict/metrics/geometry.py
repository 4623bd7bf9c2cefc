# SPDX-License-Identifier: BSD-3-Clause
"""Angles between the atoms of one dictionary."""

from .._array import array_namespace, chunk_rows
from . import _inputs
from ._inputs import matrix, unit_rows


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
    """
    F = unit_rows(matrix(F, "F"))
    xp = array_namespace(F)
    largest = 0.0
    for block in chunk_rows(F.shape[0], 0, _inputs.BLOCK, F):
        cosines = xp.abs(F[block, :] @ F.T)
        rows = xp.arange(block.start, block.stop, device=cosines.device)[:, None]
        columns = xp.arange(cosines.shape[1], device=cosines.device)[None, :]
        largest = max(largest, float(xp.max(xp.where(rows == columns, xp.zeros_like(cosines), cosines))))
    return min(largest, 1.0)
