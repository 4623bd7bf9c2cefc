# SPDX-License-Identifier: BSD-3-Clause
"""Learned atoms against a known dictionary."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from .._array import array_namespace, asarray_like, to_numpy
from .._chunks import chunk_rows
from . import _inputs
from ._inputs import pair_of_dictionaries, unit_rows


def match_atoms(F, F_true, *, signed=False):
    """One-to-one matching of true atoms to learned atoms that maximises the sum of their cosines.

    Solved exactly by the Hungarian algorithm, on the CPU. Every measure against known codes takes its result as
    ``matching``; so does any other integer array of this form.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary, of any norm.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different. False suits codes of either sign.

    Returns
    -------
    matching : int64 array of shape (n_true,)
        Index of the atom of ``F`` that stands for each true atom; -1 for one left without a partner, where the learned
        dictionary is the smaller.

    Raises
    ------
    ValueError
        If the atoms live in spaces of different dimension.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import match_atoms
    >>> F_true = np.eye(3)
    >>> match_atoms(-F_true[[2, 0]], F_true)
    array([ 1, -1,  0])
    """
    F, F_true = pair_of_dictionaries(F, F_true)
    matching, _ = _match(F, F_true, signed)
    return asarray_like(matching, F, dtype=array_namespace(F).int64)


def mean_correlation_after_matching(F, F_true, *, signed=False):
    """Mean cosine between true atoms and learned atoms after the best one-to-one matching (Hungarian algorithm).

    Known as the mean correlation coefficient, MCC. A true atom left without a partner, where the learned dictionary is
    the smaller, counts as 0.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different.

    Returns
    -------
    correlation : float
        1 if every true atom was found once.

    References
    ----------
    Song et al. (2025), Position: Mechanistic Interpretability Should Prioritize Feature Consistency in SAEs.

    Examples
    --------
    >>> from skprojdict.metrics import mean_correlation_after_matching
    >>> F_true = [[1.0, 0.0], [0.0, 1.0]]
    >>> mean_correlation_after_matching([[0.0, -2.0], [0.0, 1.0]], F_true)  # one atom twice, the other not at all
    0.5
    """
    F, F_true = pair_of_dictionaries(F, F_true)
    _, cosines = _match(F, F_true, signed)
    return float(np.mean(cosines))


def recovered_share(F, F_true, *, threshold=0.9, signed=False):
    """Share of the true atoms whose partner in the best one-to-one matching has a cosine above a threshold.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    threshold : float, default=0.9
        The cosine from which a true atom counts as found.
    signed : bool, default=False
        Whether an atom that points the other way counts as different.

    Returns
    -------
    share : float

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import recovered_share
    >>> recovered_share(np.array([[1.0, 0.1], [1.0, 1.0]]), np.eye(2))
    0.5
    """
    F, F_true = pair_of_dictionaries(F, F_true)
    _, cosines = _match(F, F_true, signed)
    return float(np.mean(cosines > threshold))


def mean_max_cosine_similarity(F, F_true, *, signed=False):
    """For each true atom the best cosine that any learned atom reaches, averaged over the true atoms.

    Two true atoms may share one learned atom; :func:`mean_correlation_after_matching` forbids that.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different. False suits codes of either sign.

    Returns
    -------
    similarity : float
        1 if every true atom was found.

    References
    ----------
    Sharkey, Braun and Millidge (2022), Taking features out of superposition with sparse autoencoders.

    Examples
    --------
    >>> from skprojdict.metrics import mean_max_cosine_similarity
    >>> F_true = [[1.0, 0.0], [0.0, 1.0]]
    >>> round(mean_max_cosine_similarity([[0.6, 0.8]], F_true), 6)  # one atom, which serves both
    0.7
    """
    F, F_true = (unit_rows(each) for each in pair_of_dictionaries(F, F_true))
    xp = array_namespace(F)
    total = sum(float(xp.sum(xp.max(cosines, axis=1))) for cosines in _tables(F_true, F, signed))
    return total / F_true.shape[0]


def best_true_atoms(F, F_true, *, signed=False):
    """For each learned atom the true atom that it is closest to in cosine; many may choose the same one.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different. False suits codes of either sign.

    Returns
    -------
    best : int64 array of shape (n_components,)
        Indices of rows of ``F_true``.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import best_true_atoms
    >>> best_true_atoms(np.array([[3.0, 1.0], [0.0, -1.0], [1.0, 2.0]]), np.eye(2))
    array([0, 1, 1])
    """
    F, F_true = (unit_rows(each) for each in pair_of_dictionaries(F, F_true))
    xp = array_namespace(F)
    return xp.concat([xp.argmax(cosines, axis=1) for cosines in _tables(F, F_true, signed)])


def uniqueness(F, F_true, *, signed=False):
    """Number of different true atoms that are the closest one of some learned atom, over the number of learned atoms.

    1 where every learned atom stands for a true atom of its own; lower where several follow the same one. A dictionary
    larger than the truth cannot reach 1.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    signed : bool, default=False
        Whether an atom that points the other way counts as different. False suits codes of either sign.

    Returns
    -------
    uniqueness : float
        Above 0, and at most 1.

    References
    ----------
    SynthSAEBench (2026), arXiv 2602.14687; ``feature_uniqueness`` in SAELens 6.54, ``sae_lens.synthetic.evals``.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import uniqueness
    >>> uniqueness(np.array([[3.0, 1.0], [0.0, -1.0], [1.0, 2.0], [1.0, 4.0]]), np.eye(2))
    0.5
    """
    best = to_numpy(best_true_atoms(F, F_true, signed=signed))
    return np.unique(best).size / best.size


def _match(F, F_true, signed):
    """The partner of each true atom, or -1, and their cosines, or 0."""
    # The assignment is SciPy's, so the (n_true, n_components) table of cosines goes to the CPU.
    table = to_numpy(unit_rows(F_true) @ unit_rows(F).T)
    table = table if signed else np.abs(table)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matching, cosines = np.full(table.shape[0], -1), np.zeros(table.shape[0])
    matching[rows], cosines[rows] = columns, table[rows, columns]
    return matching, cosines


def _tables(A, B, signed):
    """Cosines between the unit rows of A, a block at a time, and those of B."""
    xp = array_namespace(A)
    for block in chunk_rows(A.shape[0], 0, _inputs.BLOCK, A):
        cosines = A[block, :] @ B.T
        yield cosines if signed else xp.abs(cosines)
