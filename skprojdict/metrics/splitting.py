# SPDX-License-Identifier: BSD-3-Clause
"""Feature splitting: how many atoms it takes to detect one true feature."""

import numpy as np
from sklearn.utils import Bunch

from ._inputs import firing, follow, mean_where_defined, pair_of_codes, ratio, undefined


def feature_splitting(Z, Z_true, *, threshold=0.03, max_atoms=10, n_candidates=50):
    """Number of atoms over which each true feature is spread, by how much each of them adds to its detection.

    Atoms are collected greedily: the one with the best F1 as a detector of the feature (it fires, the feature is on),
    then whichever most improves the F1 of "any of these fires", for as long as that adds more than ``threshold``. The
    rule and the threshold are those of Chanin et al., where each set is judged by a trained k-sparse logistic probe. No
    probe is trained here, so nothing is random.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true)
        Known codes of the same rows, or booleans that say which features are on.
    threshold : float, default=0.03
        Gain in F1 that an atom must bring.
    max_atoms : int, default=10
        Atoms collected for a feature at most.
    n_candidates : int, default=50
        Only so many atoms, the best as detectors on their own, are looked at for each feature.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mean``
            Mean of ``n_atoms`` over the features that are on in some row; 1 where every feature has one atom.
        ``split_share``
            Share of these features with more than one atom.
        ``n_atoms``
            NumPy array of int of shape (n_true,); 0 for a feature that no atom detects.
        ``atoms``
            List of n_true NumPy arrays: the atoms, best first. :func:`absorption_rate` and :func:`absorption_scores`
            take it as ``matching``, which is how the first-letter benchmarks choose a concept's own latents.
        ``f1``
            Array of shape (n_true,), in the library of ``Z`` (NumPy for sparse codes): F1 of the atoms together; NaN
            for a feature that is never on.

    Raises
    ------
    ValueError
        If the numbers of rows differ.

    Notes
    -----
    A child's atom that has absorbed its parent also helps to detect the parent, and counts here. Absorption with
    ``matching=match_atoms(F, F_true)`` is therefore the stricter.

    References
    ----------
    Chanin et al. (2024), A is for Absorption, arXiv 2409.14507, on feature splitting in k-sparse probes.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import feature_splitting
    >>> Z_true = np.array([[1.0], [1.0], [1.0], [0.0]])
    >>> Z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> feature_splitting(Z, Z_true).atoms
    [array([0, 1])]
    """
    Z, Z_true = pair_of_codes(Z, Z_true)
    fired, present = firing(Z), firing(Z_true)
    on = present.sum(axis=0)
    alone = ratio(2 * (fired.T @ present).toarray(), fired.sum(axis=0)[:, None] + on[None, :])
    atoms, f1 = [], np.full(on.size, np.nan)
    for feature in range(on.size):
        if on[feature] == 0:
            atoms.append(np.zeros(0, dtype=np.int64))
            continue
        # Stable, so that of equal atoms the first comes first.
        candidates = np.argsort(-alone[:, feature], kind="stable")[:n_candidates]
        feature_on = present[:, [feature]].toarray()[:, 0] > 0
        chosen, f1[feature] = _collect(fired[:, candidates].toarray() > 0, feature_on, threshold, max_atoms)
        atoms.append(candidates[chosen])
    if not on.any():
        undefined("No true feature is on in these rows, so nothing can be split: pass other rows.")
    n_atoms = np.asarray([each.size for each in atoms])
    return Bunch(
        mean=mean_where_defined(np.where(on > 0, n_atoms, np.nan)),
        split_share=mean_where_defined(np.where(on > 0, n_atoms > 1, np.nan)),
        n_atoms=n_atoms,
        atoms=atoms,
        f1=follow(f1, Z),
    )


def _collect(fired, on, threshold, max_atoms):
    """Greedy columns of ``fired`` whose union detects ``on`` best, and its F1."""
    weights = fired.astype(np.float32)
    missed = np.ones(on.size, dtype=bool)
    chosen: list[int] = []
    f1 = hits = alarms = 0.0
    while len(chosen) < max_atoms:
        new_alarms, new_hits = np.stack([missed, missed & on]).astype(np.float32) @ weights
        scores = ratio(2 * (hits + new_hits), alarms + new_alarms + np.sum(on))
        best = int(np.argmax(scores))
        if scores[best] - f1 <= threshold:
            break
        chosen.append(best)
        f1, hits, alarms = float(scores[best]), hits + new_hits[best], alarms + new_alarms[best]
        missed &= ~fired[:, best]
    return chosen, f1
