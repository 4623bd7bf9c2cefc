# SPDX-License-Identifier: BSD-3-Clause
"""Displays after scikit-learn's conventions: ``from_*`` computes once, ``plot`` draws as often as wanted.

Every display keeps its numbers and its artists as attributes and returns itself from ``plot``. Drawn on the same axes
one after the other, displays take the next marker and dash as well as the next colour, so that the figures survive a
black and white printer. Matplotlib (extra ``plot``) is imported inside the functions that draw.
"""

from skprojdict.plotting.atoms import DictionaryDisplay
from skprojdict.plotting.coherence import CoherenceDisplay
from skprojdict.plotting.density import FeatureDensityDisplay
from skprojdict.plotting.fidelity import FidelitySparsityDisplay
from skprojdict.plotting.intervention import InterventionDisplay
from skprojdict.plotting.training import TrainingCurveDisplay

__all__ = [
    "CoherenceDisplay",
    "DictionaryDisplay",
    "FeatureDensityDisplay",
    "FidelitySparsityDisplay",
    "InterventionDisplay",
    "TrainingCurveDisplay",
]
