# SPDX-License-Identifier: BSD-3-Clause
"""TopK sparse autoencoder as an estimator: the additive baseline in the projective dictionary's frame."""

from functools import partial
from typing import ClassVar

from sklearn.utils._param_validation import StrOptions

from ._additive import _CONSTRAINTS, _AdditiveDictionary
from ._exchange import Taken
from ._validation import check_batch_selection, training_dtype
from .training.pace import Pace


class TopKDictionaryLearning(_AdditiveDictionary):
    """TopK sparse autoencoder, by row (Gao et al., 2024) or by batch (Bussmann et al., 2024).

    Minimises, over unit-norm atoms f_j, encoder rows E_j, biases b_j and the centre mu, the mean over rows x of::

        || x - mu - sum_{j in S} relu(e_j) f_j ||^2 ,   e = E (x - mu) + b

    plus AuxK, which lets dead features reconstruct what the live ones leave over. S are the k largest scores of each
    row; or by batch, the n k largest of n rows together, so that a row takes as many as it needs. Data are scaled
    inside so that the mean centred row has norm 1: learning rates mean the same in every unit.

    Parameters
    ----------
    n_components : int, default=None
        Number of atoms p. None: 8 times the number of target columns.
    n_nonzero_coefs : int, "auto" or None, default="auto"
        Active atoms k a row, at most. "auto": a tenth of the target columns, at least 1. None: every positive score
        (a ReLU autoencoder without sparsity penalty). Clipped to ``n_components`` with one warning.
    selection : {"row", "batch"}, default="row"
        "batch": k is a mean over the rows (BatchTopK). In training the batch decides, from then on a threshold, the
        running mean of the smallest score that training selected: a row's code does not depend on the rows beside it.
    prefix_sizes : sequence of int, default=None
        Nested prefixes of the dictionary (Matryoshka; Bussmann et al., 2025): the training loss is the mean of the
        errors that the first m atoms leave, for each m and for the whole dictionary. Codes are as without.
    tied : bool, default=False
        The encoder's rows are the atoms, each times a learned gain.
    target : {"X", "y"}, default="X"
        What is reconstructed. "X": y is ignored everywhere. "y": a second view; X predicts y (a transcoder).
    predict_mode : {"additive", "regressed", "surrogate"}, default="additive"
        With ``target="y"`` (else without effect): how coefficients are predicted from X. "additive": they are the
        scores, as in an autoencoder. "regressed": by an affine map of X for each atom, trained beside the others.
        "surrogate": an affine map from X to y is projected on the selected atoms.
    skip : bool, default=False
        With ``target="y"``: a linear map from X to y is trained beside the dictionary, which explains what it leaves
        over. It starts at least squares. Not with ``predict_mode="surrogate"``, which is such a map.
    auxk_coef : float, default=1/32
        Weight of AuxK; 0 switches it off.
    dead_after : float or "auto", default="auto"
        Rows without firing that make a feature dead. "auto": 64 p / k.
    init : {"data", "random", "svd"}, array of shape (n_components, n_targets) or callable, default="random"
        Starting atoms. A callable gets ``(rows, n_components, random_state)`` with centred, scaled sample rows.
    center : {"mean", "geometric_median"}, default="mean"
        Where the centre starts; it is then trained.
    learning_rate : float or "auto", default="auto"
        Peak step size of Adam, warmed up over 5 % of the steps and decayed over the last 50 %; gradients are brought to
        norm 1, and the encoder's bias moves at 0.3 of the rate. "auto": ``0.2 / sqrt(n_components)``, at most 0.02.
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
        Precision of the product that scores all atoms, in training and for torch arrays; the k best and half as many
        again are scored once more in full precision. None: full precision throughout. "auto": bfloat16 in training
        alone, for large dictionaries in float32 on processors that multiply it several times as fast (with the extra
        ``numba``).
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
    threshold_ : float
        Scores above it are selected; with ``selection="batch"`` only.
    coef_components_, coef_bias_ : arrays of shape (n_components, n_features), (n_components,)
        With ``predict_mode="regressed"``: coefficients are predicted as
        ``scale_ * ((X - encoder_mean_) / encoder_scale_ @ coef_components_.T + coef_bias_)``.
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
    ProjectiveDictionaryLearning : Solves for the coefficients instead of reading them off the encoder.

    References
    ----------
    Gao et al. (2024). Scaling and evaluating sparse autoencoders. arXiv:2406.04093.
    Bussmann, Leask and Nanda (2024). BatchTopK sparse autoencoders. arXiv:2412.06410.
    Bussmann et al. (2025). Learning multi-level features with Matryoshka sparse autoencoders. arXiv:2503.17547.
    Makhzani and Frey (2013). k-Sparse autoencoders. arXiv:1312.5663.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import TopKDictionaryLearning
    >>> X = load_digits().data
    >>> model = TopKDictionaryLearning(n_components=128, n_nonzero_coefs=6, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 128)
    """

    _PACE: ClassVar[Pace] = Pace(0.2, 0.02, decay=0.5, bias_rate=0.3, unit_gradient=True)
    _parameter_constraints: ClassVar[dict] = {**_CONSTRAINTS, "selection": [StrOptions({"row", "batch"})]}

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs="auto",
        selection="row",
        prefix_sizes=None,
        tied=False,
        target="X",
        predict_mode="additive",
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
        self.selection = selection
        self.prefix_sizes = prefix_sizes
        self.tied = tied
        self.target = target
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
        check_batch_selection(self)

    def _loss(self, n_components, n_targets, k):
        from .training.losses import topk_loss

        options = self._loss_options(n_components, n_targets, k)
        solve = self._solve(None if self.selection == "batch" else k)
        options |= {"selection_dtype": training_dtype(self), "solve": solve}
        return partial(topk_loss, selection=self.selection, **options)

    def _parts(self):
        parts = self._prediction_parts()
        del parts["head_scale"]  # the norm of an encoder row is a factor of its code already
        return {"tied": self.tied, "threshold": self.selection == "batch", **parts}

    def _rule(self):
        if self.selection == "batch":
            return {"selection": "threshold", "threshold": self.threshold_}
        return {"k": self._k}

    @classmethod
    def _taken_from(cls, sae, norms):
        """A TopK code is its score, so that the norms of the decoder go into the scores."""
        gain = norms.astype("float32")
        even = norms.max() - norms.min() <= 1e-3 * norms.max()
        threshold = float(sae.threshold[0])
        if sae.magnitude_bias is not None:
            reason, remedy = "has gates", "GatedDictionaryLearning"
        elif sae.mean_k is not None and even and (sae.threshold == threshold).all():
            params = {"n_nonzero_coefs": sae.mean_k, "selection": "batch"}
            return Taken(params, gain, parts={"threshold_": threshold * float(norms.max())})
        elif sae.threshold.any():
            reason, remedy = "has thresholds of its own for each feature (JumpReLU)", "JumpReLUDictionaryLearning"
        elif sae.k is not None and not sae.ranked_by_output and not even:
            reason = f"ranks features before it multiplies them by decoder norms from {norms.min()} to {norms.max()}"
            remedy = None
        else:
            return Taken({"n_nonzero_coefs": sae.k}, gain)
        raise ValueError(cls._refusal(reason, remedy))
