# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that judge a dictionary: fidelity, sparsity, use of the atoms, and recovery of known features.

Every function takes plain NumPy, torch or CuPy arrays (codes also as SciPy sparse matrices), of any library's model. It
computes in their own precision on their own device and returns a Python number, or arrays in the library of its first
argument.

Letters: ``Y`` (n_samples, n_targets) data; ``Z`` (n_samples, n_components) codes; ``F`` (n_components, n_targets) the
dictionary, one atom a row; ``Z_true`` and ``F_true`` what the data were made of.
"""

from .absorption import absorption_rate, absorption_scores
from .detection import coefficient_bias, detection_scores
from .fidelity import fraction_of_variance_unexplained, relative_reconstruction_bias, shrinkage
from .geometry import effective_dimension, mutual_coherence, nearest_cosines
from .hierarchy import hierarchy_groups, hierarchy_holes, hierarchy_leak
from .recovery import (
    best_true_atoms,
    match_atoms,
    mean_correlation_after_matching,
    mean_max_cosine_similarity,
    recovered_share,
    uniqueness,
)
from .second_view import prediction_error_split, selection_skill
from .splitting import feature_splitting
from .usage import (
    dense_share,
    firing_density,
    firing_density_histogram,
    l0,
    n_unused,
    negative_share,
    unused_share,
    usage_per_feature,
    usage_summary,
)

__all__ = [
    "absorption_rate",
    "absorption_scores",
    "best_true_atoms",
    "coefficient_bias",
    "dense_share",
    "detection_scores",
    "effective_dimension",
    "feature_splitting",
    "firing_density",
    "firing_density_histogram",
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
    "nearest_cosines",
    "negative_share",
    "prediction_error_split",
    "recovered_share",
    "relative_reconstruction_bias",
    "selection_skill",
    "shrinkage",
    "uniqueness",
    "unused_share",
    "usage_per_feature",
    "usage_summary",
]
