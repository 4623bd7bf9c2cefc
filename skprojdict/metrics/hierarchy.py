# SPDX-License-Identifier: BSD-3-Clause
"""Absorption where the hierarchy of features is known: a child feature is on only where its parent is.

``parents`` holds, for each true feature, the index of its parent, or -1 for one without.
"""

import numpy as np
from sklearn.utils import Bunch

from .._array import array_namespace, to_numpy
from ._inputs import (
    count,
    fires,
    follow,
    mean_where_defined,
    pair_of_codes,
    pair_of_dictionaries,
    parent_of_each,
    partners,
    ratio,
    row_blocks,
    take_columns,
    undefined,
    unit_rows,
)


def hierarchy_groups(parents):
    """The place of each true feature in the hierarchy: "parent", "child" or "independent".

    Parameters
    ----------
    parents : int array of shape (n_true,)
        Index of each feature's parent, or -1.

    Returns
    -------
    groups : NumPy array of str of shape (n_true,)
        A feature that has a parent and children is a "parent".

    Examples
    --------
    >>> from skprojdict.metrics import hierarchy_groups
    >>> hierarchy_groups([-1, 0, 0, -1]).tolist()
    ['parent', 'child', 'child', 'independent']
    """
    parents = parent_of_each(parents, np.shape(parents)[0])
    groups = np.where(parents >= 0, "child", "independent").astype("<U11")
    groups[parents[parents >= 0]] = "parent"
    return groups


def hierarchy_holes(Z, Z_true, parents, matching):
    """How much more often a parent's atom is silent when one of its children is on than when the parent is on alone.

    For a parent with the atom l: ``P(l silent | parent on, a child on) - P(l silent | parent on, no child on)``.
    Absorption as seen in the codes: the child's atom has taken over the parent's part. An atom that never fires has no
    holes, so read this beside the parents' recall (:func:`detection_scores`), and beside :func:`hierarchy_leak`, which
    sees absorption in the atoms.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows, or booleans that say which features are on.
    parents : int array of shape (n_true,)
        Index of each feature's parent, or -1.
    matching : int array of shape (n_true,)
        The atom of each true feature, or -1: see :func:`match_atoms`.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mean``
            Mean of ``holes`` over the parents for which it is defined.
        ``parents``
            NumPy array of shape (n_parents,): the features that have children.
        ``holes``
            Array of shape (n_parents,), between -1 and 1, in the library of ``Z`` (NumPy for sparse codes); NaN for a
            parent that is never on alone, or never with a child.
        ``silent_with_child``, ``silent_alone``
            The two probabilities, of shape (n_parents,).

    Raises
    ------
    ValueError
        If shapes do not fit, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import hierarchy_holes
    >>> Z_true = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])  # feature 1 implies feature 0
    >>> Z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.4], [1.0, 1.0]])
    >>> hierarchy_holes(Z, Z_true, parents=[-1, 0], matching=[0, 1]).mean
    0.5
    """
    Z, Z_true = pair_of_codes(Z, Z_true)
    n_true = Z_true.shape[1]
    parents = parent_of_each(parents, n_true)
    matching = partners(matching, n_true, Z.shape[1])
    members = np.unique(parents[parents >= 0])
    children = [np.flatnonzero(parents == parent) for parent in members]
    # Rows of counts: on with a child, on alone; and how often the atom is silent then.
    with_child, alone, silent_with_child, silent_alone = np.zeros((4, members.size), dtype=np.int64)
    for z, z_true in row_blocks(take_columns(Z, matching[members]), Z_true):
        z_true = fires(z_true)
        xp = array_namespace(z_true)
        if members.size == 0:
            break
        on = xp.stack([z_true[:, int(parent)] for parent in members], axis=1)
        child_on = xp.stack([_any_of(z_true, each) for each in children], axis=1)
        silent = ~fires(z)
        with_child += count(on & child_on)
        alone += count(on & ~child_on)
        silent_with_child += count(silent & on & child_on)
        silent_alone += count(silent & on & ~child_on)
    silence = [
        np.where(rows > 0, ratio(silent, rows), np.nan)
        for silent, rows in ((silent_with_child, with_child), (silent_alone, alone))
    ]
    holes = silence[0] - silence[1]
    if np.isnan(holes).all():
        undefined("No parent is on alone in some row and with a child in another, so holes are undefined.")
    return Bunch(
        mean=mean_where_defined(holes),
        parents=members,
        holes=follow(holes, Z),
        silent_with_child=follow(silence[0], Z),
        silent_alone=follow(silence[1], Z),
    )


def _any_of(on, columns):
    xp = array_namespace(on)
    return xp.any(xp.stack([on[:, int(column)] for column in columns], axis=1), axis=1)


def hierarchy_leak(F, F_true, parents, matching):
    """Cosine of the children's atoms with their parent's true direction, above the cosine of the true atoms.

    For a child c with the atom f, turned to point as the true child does: ``cos(f, parent) - cos(child, parent)``. 0
    where the child was found as it is, 0.7 where an atom is the sum of an orthogonal child and its parent.
    A projection may lean its children on their parents at no cost in fidelity and without a hole in the codes.

    Parameters
    ----------
    F : array of shape (n_components, n_targets)
        The learned dictionary.
    F_true : array of shape (n_true, n_targets)
        The known dictionary.
    parents : int array of shape (n_true,)
        Index of each feature's parent, or -1.
    matching : int array of shape (n_true,)
        The atom of each true feature, or -1: see :func:`match_atoms`.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mean``
            Mean of ``leak`` over the children for which it is defined.
        ``children``
            NumPy array of shape (n_children,): the features that have a parent.
        ``leak``
            Array of shape (n_children,), in the library of ``F``; NaN for a child without an atom.

    Raises
    ------
    ValueError
        If shapes do not fit, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import hierarchy_leak
    >>> F = np.array([[1.0, 0.0], [1.0, 1.0]])
    >>> round(hierarchy_leak(F, np.eye(2), parents=[-1, 0], matching=[0, 1]).mean, 3)
    0.707
    """
    F, F_true = (unit_rows(each) for each in pair_of_dictionaries(F, F_true))
    parents = parent_of_each(parents, F_true.shape[0])
    matching = partners(matching, F_true.shape[0], F.shape[0])
    children = np.flatnonzero(parents >= 0)
    atoms, true = to_numpy(F), to_numpy(F_true)
    learned, child, parent = atoms[matching[children]], true[children], true[parents[children]]
    turned = np.where(np.sum(learned * child, axis=1) < 0, -1, 1)
    leak = turned * np.sum(learned * parent, axis=1) - np.sum(child * parent, axis=1)
    leak = np.where(matching[children] < 0, np.nan, leak)
    if np.isnan(leak).all():
        undefined("No feature has both a parent and an atom, so leak is undefined: see parents and matching.")
    return Bunch(mean=mean_where_defined(leak), children=children, leak=follow(leak, F))
