# SPDX-License-Identifier: BSD-3-Clause
"""How often the atoms are used, counted on codes."""

import numpy as np
from scipy import sparse

from .._array import array_namespace
from ._inputs import matrix


def l0(Z):
    """Mean number of coefficients of a row that are not zero.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    l0 : float
    """
    Z = matrix(Z, "Z")
    if sparse.issparse(Z):
        return float(Z.count_nonzero()) / Z.shape[0]
    xp = array_namespace(Z)
    return float(xp.sum(xp.astype(Z != 0, xp.int64))) / Z.shape[0]


def n_unused(Z):
    """Count the atoms that no row uses.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    n_unused : int
    """
    Z = matrix(Z, "Z")
    if sparse.issparse(Z):
        Z = Z.tocoo()
        # Stored zeros are not uses.
        return int(Z.shape[1] - np.unique(Z.coords[1][Z.data != 0]).size)
    xp = array_namespace(Z)
    return int(Z.shape[1]) - int(xp.sum(xp.astype(xp.any(Z != 0, axis=0), xp.int64)))


def unused_share(Z):
    """Share of the atoms that no row uses, between 0 and 1.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.

    Returns
    -------
    share : float
    """
    return n_unused(Z) / Z.shape[1]
