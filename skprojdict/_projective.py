# SPDX-License-Identifier: BSD-3-Clause
"""The projective dictionary as an estimator."""

from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ._array import OnTensors, array_namespace
from ._exchange import Taken
from ._neural import _CONSTRAINTS, _NeuralDictionary
from ._validation import (
    check_choice,
    check_projective_options,
    coding_dtype,
    resolve_n_nonzero,
    resolve_prefixes,
    training_dtype,
)
from .solvers.penalties import SCORE_FREE
from .solvers.propose import n_candidates, n_telling
from .solvers.refine import choose_support, code
from .training.pace import Pace


class ProjectiveDictionaryLearning(_NeuralDictionary):
    """Projective dictionary: features picked by an encoder, coefficients solved (Sklar, 2024).

    Minimises, over unit-norm atoms f_j, encoder rows E_j, biases b_j and the centre mu, the mean over rows x of
    ``|| y - y_hat ||^2`` plus what trains the encoder, with y = x - mu and::

        e = E (x - mu) + b ,   S among the largest positive scores ,   lambda_j = alpha phi(e_j)
        beta = argmin  || y - sum_{j in S} beta_j f_j ||^2 + sum_{j in S} lambda_j beta_j^2
        y_hat = sum_{j in S} beta_j f_j

    so the additive decoder of a sparse autoencoder is replaced by the projection of the target on the span of the
    selected atoms (exact, lambda = 0), or by ridge regression with a penalty for each feature that falls with its
    score. Data are scaled inside so that the mean centred row has norm 1: learning rates, penalties and quotas mean
    the same in every unit.

    Parameters
    ----------
    n_components : int, default=None
        Number of atoms p. None: 8 times the number of target columns.
    n_nonzero_coefs : int, "auto" or None, default="auto"
        Active atoms k a row: on average, or at most, by ``selection``. "auto": a tenth of the target columns, at least
        1. None: every positive score. Clipped to ``n_components`` with one warning.
    tied : bool or "metric", default=False
        The encoder's rows are the atoms, each times a learned gain. "metric": and all of them times one learned square
        matrix, so that atoms meet the rows in another inner product than they reconstruct in, the same for all.
    target : {"X", "y"}, default="X"
        What is reconstructed. "X": y is ignored everywhere. "y": a second view; X selects the atoms, y is projected
        (a transcoder).
    penalty : {"exact", "ridge", "inverse_square", "softplus"} or callable, default="exact"
        "exact": none, the minimum-norm least squares. "ridge": phi = 1. "inverse_square": phi = e^-2. "softplus":
        phi = 1 / log(1 + exp(e)). callable: maps a torch tensor of scores to precisions
        1 / phi >= 0, finite at 0, elementwise and differentiable. Score-dependent penalties see the scores times a
        learned gain.
    alpha : float, default=1.0
        Multiplies the penalty. Without effect on penalty="exact", and with quota="sum", which fixes the mean of the
        penalties.
    quota : {None, "normalize", "sum", "penalize"}, default=None
        Keeps importance from racing upward where the penalty depends on the score. "normalize": selected scores are
        rescaled to the root mean square ``quota_strength`` (default 3); "sum": penalties are rescaled to the mean
        ``quota_strength`` (1/9); "penalize": ``quota_strength`` (1e-3) times the estimated effective dimension joins
        the loss.
    quota_strength : float, default=None
        See quota; without one it has no effect.
    selection : {"auto", "adaptive", "top_k", "budget", "threshold"}, default="auto"
        "adaptive": k on average, between a quarter of k and one and a half times k. Of a row's candidates those go, one
        after the other, whose absence raises the squared error too little beside what the row leaves over; how little
        that is, a threshold says that fit learns (``removal_threshold_``). The mean is that of the training rows and of
        the coder as it was then; where ``n_nonzero_coefs`` is changed after fit, each row has that many at most. For
        ``target="X"`` only. "top_k": k at most, and k wherever there are so many positive scores. "auto": "adaptive"
        where there is a number of coefficients, candidates to choose from and a target to choose by, else "top_k".
        "budget": of the k best, as many as fit ``dimension_budget`` effective dimensions. "threshold": every score
        above a threshold learned at fit, k on average.
    dimension_budget : float, default=None
        Effective dimensions a row; for ``selection="budget"`` only.
    budget_measure : {"estimate", "exact"}, default="estimate"
        The paper's sum 1 / (1 + lambda), an upper bound; or the exact effective dimension.
    encoder_loss : {"coefficients", "penalty"}, default="coefficients"
        "coefficients": scores regress the solved coefficients, ``|| relu(e) - stopgrad(beta) ||^2`` over the selected
        atoms and the proposed ones that were dropped (whose coefficients are 0), beside what they learn through a
        score-dependent penalty; in a tied form bias, gain and metric alone regress. "penalty": through the penalty
        alone, as in the paper.
    candidate_factor : float, default=2.0
        So many times k candidates are solved and pruned to k by backward elimination: one after the other that goes
        whose absence costs least, or with "adaptive" to what is missed enough. For these two with a number of
        coefficients; not with ``target="y"``, where the selection must do without the target.
    shortlist_factor : float or "auto", default="auto"
        The candidates are chosen from the so many times k best scored atoms: the k best, and of the others those that
        correlate best with what the k best leave over. A second look without a second product. At most
        ``candidate_factor``: the candidates are the best scored. Without effect where ``candidate_factor`` is.
        "auto": 6, but at least 192 atoms, of dictionaries of less than 3072 the 16th part.
    n_refinements : int, default=0
        Steps of subspace pursuit, each a second product with the dictionary: add the k atoms that correlate best with
        the residual (of more than 48, 48 or half of them), solve, prune all back to k, k being the row's own number
        where rows differ. At fit and at transform, and may be changed in between. Only with ``target="X"``.
    refined_share : float, default=0.25
        Share of the rows of a training batch that are refined once where ``n_refinements=0``: the encoder learns to
        propose the atoms that it overlooked there. Without effect at transform, and on ``target="y"``.
    overlap_penalty : float, default=0.0
        Weight of ``sum_{i != j} (f_i . f_j)^2 c_i c_j`` over the selected atoms, with c = s / (1 + s), or 1 in exact
        mode.
    prefix_sizes : sequence of int, default=None
        Nested prefixes of the dictionary that are each projected by themselves in training; a prefix of m atoms selects
        ``k sqrt(m / p)`` of them.
    positive_code : bool, default=False
        Coefficients by non-negative least squares on the support.
    solver : {"cholesky", "cg"}, default="cholesky"
        Direct, or batched conjugate gradients on the normal equations.
    cg_max_iter : int, default=None
        Conjugate-gradient steps at most, for ``solver="cg"``. None: until converged.
    predict_mode : {"additive", "regressed", "surrogate"}, default="regressed"
        With ``target="y"`` (else without effect): how coefficients are predicted from X alone. "additive": the score
        times one learned factor for each atom. "regressed": an affine map of X for each atom, trained beside the
        dictionary. "surrogate": an affine map from X to y, whose values are projected on the selected atoms in the
        place of y.
    skip : bool, default=False
        With ``target="y"``: a linear map from X to y is trained beside the dictionary, which explains what it leaves
        over. It starts at least squares. Not with ``predict_mode="surrogate"``, which is such a map.
    auxk_coef : float, default=1/32
        Weight of AuxK on the projection's residual; 0 switches it off.
    dead_after : float or "auto", default="auto"
        Rows without firing that make a feature dead. "auto": 64 p / k.
    init : {"data", "random", "svd"}, array of shape (n_components, n_targets) or callable, default="random"
        Starting atoms. A callable gets ``(rows, n_components, random_state)`` with centred, scaled sample rows.
    center : {"mean", "geometric_median"}, default="mean"
        Where the centre starts; it is then trained.
    learning_rate : float or "auto", default="auto"
        Peak step size of Adam, warmed up over 5 % of the steps and decayed over the last 90 %. "auto":
        ``1.1 / sqrt(n_components)``, at most 0.02.
    batch_size : int or "auto", default="auto"
        Rows a step. "auto": a sixteenth of the rows, between 32 and 1024.
    max_iter : int, default=20
        Passes over the rows.
    max_steps : int, default=None
        Number of steps; wins over ``max_iter``.
    tol : float, default=0.0
        Stop after five iterations (passes, or blocks of 100 steps) in a row without a relative improvement of the
        training loss by this much. 0: never.
    warm_start : bool, default=False
        Start a new ``fit`` from the fitted weights, centres and scale.
    device : str, torch.device or None, default=None
        Where torch trains. None: where X is.
    selection_dtype : {"auto", "bfloat16", "float16"} or None, default="auto"
        Precision of the products with all atoms, for scores and refinements, in training and for torch arrays. The k
        best scores and half as many again are computed once more in full precision; where a penalty depends on the
        score, so are all that are looked at. What a refinement proposes stays rounded; which atoms stay is decided in
        full precision. None: full precision throughout. "auto": bfloat16 in training alone, for large dictionaries in
        float32 on processors that multiply it several times as fast (with the extra ``numba``).
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once. "auto": a few megabytes of them.
    sparse_output : bool, default=False
        ``transform`` returns CSR (NumPy only).
    checkpoint_dir : str or path-like, default=None
        Folder for checkpoints during ``fit``, from which ``fit(resume=True)`` goes on. One fit a folder.
    checkpoint_every : int, default=1000
        Steps between two checkpoints; the last step of a fit makes one, too.
    random_state : int, RandomState instance or None, default=None
        Fixes every bit of the result on one machine and thread count.

    Attributes
    ----------
    components_ : array of shape (n_components, n_targets)
        Unit-norm atoms.
    mean_ : array of shape (n_targets,)
        Centre of the target.
    encoder_components_, encoder_bias_ : arrays of shape (n_components, n_features), (n_components,)
        Scores are ``(X - encoder_mean_) / encoder_scale_ @ encoder_components_.T + encoder_bias_``.
    encoder_mean_ : array of shape (n_features,)
    scale_, encoder_scale_ : float
        Mean norm of the centred rows of the target (with ``skip=True`` of what least squares leaves over of it, at
        least a tenth) and of the input.
    encoder_gain_ : array of shape (n_components,)
        With ``tied``: what the atoms are multiplied by to give ``encoder_components_``.
    encoder_metric_ : array of shape (n_features, n_features)
        With ``tied="metric"``: ``encoder_components_`` is
        ``encoder_gain_[:, None] * components_ @ encoder_metric_``.
    importance_gain_ : float
        Factor between scores and a score-dependent penalty.
    threshold_ : float
        Learned threshold of ``selection="threshold"``.
    removal_threshold_, n_nonzero_coefs_ : float, int
        Of the adaptive selection: an atom stays where the squared error of its row would rise by more than
        ``removal_threshold_**2`` times the norm of what all candidates leave over (with the ridge penalty of 0.01 that
        the elimination has), in units where the mean centred row has norm 1; and the mean number of atoms a row that
        this was learned for.
    coef_components_, coef_bias_ : arrays of shape (n_components, n_features), (n_components,)
        With ``predict_mode="regressed"``: coefficients are predicted as
        ``scale_ * ((X - encoder_mean_) / encoder_scale_ @ coef_components_.T + coef_bias_)``.
    coef_scale_ : array of shape (n_components,)
        With ``predict_mode="additive"``: coefficients are predicted as ``scale_ * coef_scale_`` times the score.
    surrogate_components_, surrogate_bias_ : arrays of shape (n_targets, n_features), (n_targets,)
        With ``predict_mode="surrogate"``: what is projected is
        ``(X - encoder_mean_) @ surrogate_components_.T + surrogate_bias_``, in the place of ``y - mean_``.
    skip_components_ : array of shape (n_targets, n_features)
        With ``skip=True``: ``(X - encoder_mean_) @ skip_components_.T`` is added to the decoded codes.
    n_activations_ : int array of shape (n_components,)
        Training rows in which each feature fired.
    n_iter_, n_steps_ : int
        Passes over the rows (or calls of ``partial_fit``) and minibatch steps.
    history_ : dict of lists
        "step", "loss", "fvu" (of the training batches), "learning_rate", "n_dead", one entry an iteration.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)

    See Also
    --------
    TopKDictionaryLearning : The additive decoder in the same frame.
    MethodOfOptimalDirections : Classical dictionary learning, with a pursuit instead of an encoder.

    References
    ----------
    Sklar (2024). Projective Dictionaries.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import ProjectiveDictionaryLearning
    >>> X = load_digits().data
    >>> model = ProjectiveDictionaryLearning(n_components=128, n_nonzero_coefs=6, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> int((codes != 0).sum(axis=1).mean().round())  # some rows need more, some less
    6
    """

    _PACE: ClassVar[Pace] = Pace(1.1, 0.02)
    _parameter_constraints: ClassVar[dict] = {
        **_CONSTRAINTS,
        "tied": ["boolean", StrOptions({"metric"})],
        "penalty": [StrOptions({"exact", "ridge", "inverse_square", "softplus"}), callable],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "quota": [None, StrOptions({"normalize", "sum", "penalize"})],
        "quota_strength": [None, Interval(Real, 0, None, closed="neither")],
        "selection": [StrOptions({"auto", "top_k", "adaptive", "budget", "threshold"})],
        "dimension_budget": [None, Interval(Real, 0, None, closed="neither")],
        "budget_measure": [StrOptions({"estimate", "exact"})],
        "encoder_loss": [StrOptions({"coefficients", "penalty"})],
        "candidate_factor": [Interval(Real, 1, None, closed="left")],
        "shortlist_factor": [Interval(Real, 1, None, closed="left"), StrOptions({"auto"})],
        "n_refinements": [Interval(Integral, 0, None, closed="left")],
        "refined_share": [Interval(Real, 0, 1, closed="both")],
        "overlap_penalty": [Interval(Real, 0, None, closed="left")],
        "prefix_sizes": [None, "array-like"],
        "positive_code": ["boolean"],
        "solver": [StrOptions({"cholesky", "cg"})],
        "cg_max_iter": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs="auto",
        tied=False,
        target="X",
        penalty="exact",
        alpha=1.0,
        quota=None,
        quota_strength=None,
        selection="auto",
        dimension_budget=None,
        budget_measure="estimate",
        encoder_loss="coefficients",
        candidate_factor=2.0,
        shortlist_factor="auto",
        n_refinements=0,
        refined_share=0.25,
        overlap_penalty=0.0,
        prefix_sizes=None,
        positive_code=False,
        solver="cholesky",
        cg_max_iter=None,
        predict_mode="regressed",
        skip=False,
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
        selection_dtype="auto",
        chunk_size="auto",
        sparse_output=False,
        checkpoint_dir=None,
        checkpoint_every=1000,
        random_state=None,
    ):
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.tied = tied
        self.target = target
        self.penalty = penalty
        self.alpha = alpha
        self.quota = quota
        self.quota_strength = quota_strength
        self.selection = selection
        self.dimension_budget = dimension_budget
        self.budget_measure = budget_measure
        self.encoder_loss = encoder_loss
        self.candidate_factor = candidate_factor
        self.shortlist_factor = shortlist_factor
        self.n_refinements = n_refinements
        self.refined_share = refined_share
        self.overlap_penalty = overlap_penalty
        self.prefix_sizes = prefix_sizes
        self.positive_code = positive_code
        self.solver = solver
        self.cg_max_iter = cg_max_iter
        self.predict_mode = predict_mode
        self.skip = skip
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
        self.selection_dtype = selection_dtype
        self.chunk_size = chunk_size
        self.sparse_output = sparse_output
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.random_state = random_state

    def _check_options(self, n_features, n_targets):
        super()._check_options(n_features, n_targets)
        check_projective_options(self)

    def _loss(self, n_components, n_targets, k):
        from .training.losses import projective_loss

        if self.selection == "adaptive":
            check_choice(n_candidates(k, self.candidate_factor, n_components), k, n_components)

        return partial(
            projective_loss,
            coding=self._coding(k),
            encoder_loss=self.encoder_loss,
            overlap_penalty=self.overlap_penalty,
            prefixes=resolve_prefixes(self.prefix_sizes, n_components, k),
            auxk=max(1, n_targets // 2),
            auxk_coef=self.auxk_coef,
            refined_share=0.0 if self.target == "y" else self.refined_share,
            selection_dtype=training_dtype(self),
        )

    @classmethod
    def _taken_from(cls, sae, norms):
        """Of the autoencoder the selection is needed: its ranking, or what a pre-activation has to exceed."""
        gain = norms.astype("float32") if sae.ranked_by_output else np.ones_like(norms, dtype="float32")
        floor = sae.threshold
        if sae.magnitude_bias is not None:  # it fires where both gate and magnitude are positive
            floor = np.maximum(0, sae.encoder_bias - sae.magnitude_bias * np.exp(-sae.magnitude_log_gain))
        return Taken({"n_nonzero_coefs": sae.k}, gain, floor)

    @property
    def _pace(self):
        # A tied encoder's gain and bias may not run ahead of the atoms.
        return replace(self._PACE, bias_rate=0.1) if self.tied else self._PACE

    def _parts(self):
        return {
            "tied": bool(self.tied),
            "metric": self.tied == "metric",
            "importance": not (isinstance(self.penalty, str) and self.penalty in SCORE_FREE),
            "threshold": self.selection == "threshold",
            "removal_threshold": self._selection == "adaptive",
            **self._prediction_parts(),
        }

    @property
    def _optional(self):
        return () if self.selection == "adaptive" else ("removal_threshold",)

    @property
    def _candidate_factor(self):
        return 1.0 if self.target == "y" else self.candidate_factor

    @property
    def _selection(self):
        """The rule that "auto" stands for."""
        if self.selection != "auto":
            return self.selection
        chooses = self.n_nonzero_coefs is not None and self.target == "X" and self.candidate_factor > 1
        return "adaptive" if chooses else "top_k"

    @property
    def _fitted_selection(self):
        """The rule at transform: without a threshold for this number of atoms there are at most so many."""
        rule = self._selection
        return "top_k" if rule == "adaptive" and not self._has_threshold_for(self._k) else rule

    def _has_threshold_for(self, k):
        return getattr(self, "n_nonzero_coefs_", None) == k

    @property
    def _threshold(self):
        return self.removal_threshold_ if self._fitted_selection == "adaptive" else super()._threshold

    def _fitted_attributes(self, trainer, like, *, copy=True):
        attributes = super()._fitted_attributes(trainer, like, copy=copy)
        if self._selection == "adaptive" and "removal_threshold_" in attributes:
            shape = trainer.weights.components.shape
            attributes["n_nonzero_coefs_"] = resolve_n_nonzero(self.n_nonzero_coefs, *shape, warn=False)
        return attributes

    @property
    def _coder(self):
        return self._coding(self._k, self._fitted_selection)

    def _suit(self, weights, k, views, n, *, new=False):
        """A threshold is for one mean: for another, or after training by another rule, it is found anew."""
        if self._selection != "adaptive":
            if hasattr(self, "n_nonzero_coefs_"):
                del self.n_nonzero_coefs_
        elif not self._has_threshold_for(k) and (new or weights.removal_threshold is not None):
            from .training.start import some_of, start_removal

            start_removal(weights, weights.centred(*views.take(some_of(n)))[1], self._coding(k))

    def _coding(self, k, selection=None):
        """Keywords of :func:`choose_support`: the one description of the coder, at fit and at transform."""
        selection = selection or self._selection
        return {
            "k": k,
            "selection": selection,
            "dimension_budget": self.dimension_budget,
            "budget_measure": self.budget_measure,
            "candidate_factor": self._candidate_factor,
            "shortlist_factor": self.shortlist_factor,
            "n_refinements": self.n_refinements,
            "selection_dtype": coding_dtype(self),
            "positive_code": self.positive_code,
            "penalty": {
                "penalty": OnTensors(self.penalty, "penalty") if callable(self.penalty) else self.penalty,
                "alpha": self.alpha,
                "quota": self.quota,
                "quota_strength": self.quota_strength,
            },
            "solve": {
                "exact": self.penalty == "exact",
                "solver": self.solver,
                "cg_max_iter": self.cg_max_iter,
                "chunk_size": self.chunk_size,
                "ragged": k is None or selection != "top_k",
            },
        }

    def _code(self, X, Y):
        p = self.components_.shape[0]
        n_exact = n_telling(self._k, self._candidate_factor, self.shortlist_factor, p, penalty=self.penalty)
        inputs, raw = self._scores(X, n_exact)
        gain = getattr(self, "importance_gain_", 1.0)
        scores = raw if gain == 1 else raw * gain
        coding = self._coder
        threshold = self._threshold
        xp = array_namespace(scores)
        target = self._target(X, Y)
        if target is None:
            support = choose_support(scores, None, self.components_, threshold=threshold, **coding)
            coefs = self._predicted(inputs, raw, support)
            if self.positive_code:
                coefs = xp.where(coefs > 0, coefs, xp.zeros_like(coefs))
        else:
            support, coefs = code(scores, target, self.components_, threshold=threshold, **coding)
        return support.indices, coefs * self.scale_
