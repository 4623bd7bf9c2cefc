# SPDX-License-Identifier: BSD-3-Clause
"""Coefficients of a second view, predicted from the encoder's input on the atoms that it selected."""

from .._array import array_namespace
from .ridge import sampled_products


def regressed_coefs(inputs, support, maps, shifts, *, chunk_size="auto"):
    """An affine map for each atom: ``<u_j, a> + c_j``, 0 where an atom is padding.

    Parameters
    ----------
    inputs : array of shape (n, m)
        Centred, scaled encoder input.
    support : Support
    maps, shifts : arrays of shape (p, m), (p,)

    Returns
    -------
    coefs : array of shape (n, K)
    """
    products = sampled_products(maps, support.indices, inputs, chunk_size=chunk_size)
    return _where_active(support, products + _of_atoms(shifts, support.indices))


def scaled_coefs(support, selected_scores, scales):
    """A factor for each atom: ``c_j e_j`` where its score is selected, 0 where an atom is padding.

    Parameters
    ----------
    support : Support
    selected_scores : array of shape (n, K)
        Scores of the support's atoms, before any gain.
    scales : array of shape (p,)

    Returns
    -------
    coefs : array of shape (n, K)
    """
    return _where_active(support, selected_scores * _of_atoms(scales, support.indices))


def _of_atoms(values, indices):
    xp = array_namespace(values)
    return xp.reshape(xp.take(values, xp.reshape(indices, (-1,))), indices.shape)


def _where_active(support, coefs):
    xp = array_namespace(coefs)
    return xp.where(support.active, coefs, xp.zeros_like(coefs))
