# SPDX-License-Identifier: BSD-3-Clause
"""What the sparse autoencoders share: an additive decoder, ``y_hat = sum_j z_j f_j``."""

from abc import abstractmethod
from numbers import Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from ._array import array_namespace
from ._neural import _CONSTRAINTS as NEURAL_CONSTRAINTS
from ._neural import _NeuralDictionary
from ._validation import check_mean_number, resolve_prefixes
from .solvers.additive import additive_codes
from .solvers.ridge import project
from .training.pace import Pace

# Where alpha="auto" starts from: about the penalty that halves the number of atoms which fire at first.
FIRST_ALPHA = 0.05
NOT_OURS = ("selection_dtype", "predict_mode", "skip")
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


class _PenalisedDictionary(_AdditiveDictionary):
    """A sparse autoencoder in which any number of atoms may fire: a penalty makes them few, k on average."""

    # At a third of the rate, ReLU and Gated leave 25 and 14 % more unexplained after 400 steps.
    _PACE: ClassVar[Pace] = Pace(0.6, 0.05)
    _parameter_constraints: ClassVar[dict] = {
        **{name: rule for name, rule in _CONSTRAINTS.items() if name not in NOT_OURS},
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    }
    selection_dtype = None  # every score decides, so that there are no few to be scored again
    predict_mode, skip = "additive", False  # with a second view the codes are what predicts
    _k_is_a_mean = True

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs="auto",
        alpha="auto",
        prefix_sizes=None,
        tied=False,
        target="X",
        auxk_coef=1 / 32,
        dead_after="auto",
        init="random",
        center="mean",
        learning_rate="auto",
        batch_size="auto",
        max_iter=20,
        max_steps=None,
        tol=0.0,
        warm_start=False,
        device=None,
        chunk_size="auto",
        sparse_output=False,
        checkpoint_dir=None,
        checkpoint_every=1000,
        random_state=None,
    ):
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.alpha = alpha
        self.prefix_sizes = prefix_sizes
        self.tied = tied
        self.target = target
        self.auxk_coef = auxk_coef
        self.dead_after = dead_after
        self.init = init
        self.center = center
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_steps = max_steps
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.chunk_size = chunk_size
        self.sparse_output = sparse_output
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.random_state = random_state

    def _check_options(self, n_features, n_targets):
        super()._check_options(n_features, n_targets)
        check_mean_number(self)

    def _loss_options(self, n_components, n_targets, k):
        return {"alpha": self.alpha, **super()._loss_options(n_components, n_targets, k)}

    def _parts(self):
        return {"tied": self.tied, "alpha": self._first_alpha()}

    @staticmethod
    def _first_alpha():
        return FIRST_ALPHA
