# SPDX-License-Identifier: BSD-3-Clause
"""Interchange interventions on learned subspaces: which part of an activation carries a concept.

Unlike the package itself this subpackage loads torch.
"""

from .das import DistributedAlignmentSearch
from .dictionaries import AttributeDictionary, feature_interpretability, sparse_control, sufficiency_and_necessity
from .editing import edit_features
from .hooks import Site
from .householder import HouseholderAlignmentSearch
from .interventions import Intervention, interchange
from .metrics import counterfactual_divergence, disentangle, interchange_accuracy, least_rank
from .projective import ProjectiveAlignmentSearch

__all__ = [
    "AttributeDictionary",
    "DistributedAlignmentSearch",
    "HouseholderAlignmentSearch",
    "Intervention",
    "ProjectiveAlignmentSearch",
    "Site",
    "counterfactual_divergence",
    "disentangle",
    "edit_features",
    "feature_interpretability",
    "interchange",
    "interchange_accuracy",
    "least_rank",
    "sparse_control",
    "sufficiency_and_necessity",
]
