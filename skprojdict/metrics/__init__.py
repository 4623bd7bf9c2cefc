# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that judge a dictionary: fidelity, sparsity, use of the atoms, and recovery of known features.

Every function takes plain NumPy, torch or CuPy arrays (codes also as SciPy sparse matrices), of any library's model. It
computes in their own precision on their own device and returns a Python number, or arrays in the library of its first
argument.

Letters: ``Y`` (n_samples, n_targets) data; ``Z`` (n_samples, n_components) codes; ``F`` (n_components, n_targets) the
dictionary, one atom a row; ``Z_true`` and ``F_true`` what the data were made of.
"""

from .detection import coefficient_bias, detection_scores
from .fidelity import fraction_of_variance_unexplained, relative_reconstruction_bias, shrinkage
from .geometry import mutual_coherence
from .hierarchy import hierarchy_groups, hierarchy_holes, hierarchy_leak
from .recovery import (
    best_true_atoms,
    match_atoms,
    mean_correlation_after_matching,
    mean_max_cosine_similarity,
    recovered_share,
    uniqueness,
)
from .usage import l0, n_unused, unused_share

__all__ = [
    "best_true_atoms",
    "coefficient_bias",
    "detection_scores",
    "fraction_of_variance_unexplained",
    "hierarchy_groups",
    "hierarchy_holes",
    "hierarchy_leak",
    "l0",
    "match_atoms",
    "mean_correlation_after_matching",
    "mean_max_cosine_similarity",
    "mutual_coherence",
    "n_unused",
    "recovered_share",
    "relative_reconstruction_bias",
    "shrinkage",
    "uniqueness",
    "unused_share",
]
