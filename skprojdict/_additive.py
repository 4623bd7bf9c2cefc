# SPDX-License-Identifier: BSD-3-Clause
"""What the sparse autoencoders share: an additive decoder, ``y_hat = sum_j z_j f_j``."""

from abc import abstractmethod

from ._array import array_namespace
from ._neural import _CONSTRAINTS as NEURAL_CONSTRAINTS
from ._neural import _NeuralDictionary
from ._validation import resolve_prefixes
from .solvers.additive import additive_codes
from .solvers.ridge import project

_CONSTRAINTS = {**NEURAL_CONSTRAINTS, "prefix_sizes": [None, "array-like"]}


class _AdditiveDictionary(_NeuralDictionary):
    """A sparse autoencoder: a subclass says which atoms fire and what their codes are."""

    @abstractmethod
    def _rule(self):
        """How codes follow from scores: keywords of :func:`additive_codes`."""

    def _loss_options(self, n_components, n_targets, k):
        """Keywords that every loss of the family takes."""
        prefixes = resolve_prefixes(self.prefix_sizes, n_components, k)
        return {
            "k": k,
            "prefix_sizes": [size for size, _ in prefixes],
            "auxk": max(1, n_targets // 2),
            "auxk_coef": self.auxk_coef,
        }

    def _code(self, X, Y):
        rule = self._rule()
        k = rule.get("k")
        inputs, scores = self._scores(X, k)
        support, coefs = additive_codes(scores, **rule)
        target = None if self.target == "X" else self._target(X, Y)
        if target is not None:
            active = array_namespace(scores).astype(support.active, scores.dtype)
            coefs = project(target, self.components_, support.indices, active, **self._solve(k)).coefs
        elif hasattr(self, "coef_components_"):
            coefs = self._predicted(inputs, scores, support)
        return support.indices, coefs * self.scale_

    def _solve(self, k):
        """Keywords of :func:`project` where something is projected on the selected atoms."""
        return {"exact": True, "chunk_size": self.chunk_size, "ragged": k is None}

    @classmethod
    def _refusal(cls, reason, remedy=None):
        """What is said of an autoencoder that another estimator computes."""
        other = "" if remedy is None else f"{remedy}.from_sae, or with "
        return (
            f"the autoencoder {reason}, which {cls.__name__} does not compute. Read it with {other}"
            "ProjectiveDictionaryLearning.from_sae, which needs the selection only."
        )
