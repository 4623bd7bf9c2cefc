# SPDX-License-Identifier: BSD-3-Clause
"""Projective dictionaries and their baselines as scikit-learn estimators.

Importing this package loads neither torch nor CuPy nor matplotlib.
"""

from ._gated import GatedDictionaryLearning
from ._jumprelu import JumpReLUDictionaryLearning
from ._mod import MethodOfOptimalDirections
from ._projective import ProjectiveDictionaryLearning
from ._relu import ReLUDictionaryLearning
from ._topk import TopKDictionaryLearning

__version__ = "0.1.0"

__all__ = [
    "GatedDictionaryLearning",
    "JumpReLUDictionaryLearning",
    "MethodOfOptimalDirections",
    "ProjectiveDictionaryLearning",
    "ReLUDictionaryLearning",
    "TopKDictionaryLearning",
    "__version__",
]
