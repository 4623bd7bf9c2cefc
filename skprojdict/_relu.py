# SPDX-License-Identifier: BSD-3-Clause
"""ReLU sparse autoencoder with an L1 penalty as an estimator."""

from functools import partial

from ._additive import _PenalisedDictionary
from ._exchange import Taken


class ReLUDictionaryLearning(_PenalisedDictionary):
    """ReLU sparse autoencoder with an L1 penalty (Bricken et al., 2023).

    Minimises, over unit-norm atoms f_j, encoder rows E_j, biases b_j and the centre mu, the mean over rows x of::

        || x - mu - sum_j relu(e_j) f_j ||^2 + alpha sum_j relu(e_j) ,   e = E (x - mu) + b

    plus AuxK. The penalty makes the codes sparse, and shrinks them: projection undoes the shrinkage (:meth:`from_sae`
    of :class:`ProjectiveDictionaryLearning`). Data are scaled inside so that the mean centred row has norm 1: learning
    rates and penalties mean the same in every unit.

    Parameters
    ----------
    n_components : int, default=None
        Number of atoms p. None: 8 times the number of target columns.
    n_nonzero_coefs : int, "auto" or None, default="auto"
        Active atoms k a row on average, which alpha="auto" steers to. "auto": a tenth of the target columns, at least
        1. None: no number, for a fixed ``alpha``. Clipped to ``n_components`` with one warning.
    alpha : float or "auto", default="auto"
        Weight of the penalty. "auto": moved at every step, so that about k atoms a row fire.
    prefix_sizes : sequence of int, default=None
        Nested prefixes of the dictionary (Matryoshka; Bussmann et al., 2025): the training loss is the mean of the
        errors that the first m atoms leave, for each m and for the whole dictionary. Codes are as without.
    tied : bool, default=False
        The encoder's rows are the atoms, each times a learned gain.
    target : {"X", "y"}, default="X"
        What is reconstructed. "X": y is ignored everywhere. "y": a second view; X predicts y (a transcoder).
    auxk_coef : float, default=1/32
        Weight of AuxK (Gao et al., 2024), which lets dead features reconstruct what the live ones leave over; 0
        switches it off.
    dead_after : float or "auto", default="auto"
        Rows without firing that make a feature dead. "auto": 64 p / k.
    init : {"data", "random", "svd"}, array of shape (n_components, n_targets) or callable, default="random"
        Starting atoms. A callable gets ``(rows, n_components, random_state)`` with centred, scaled sample rows.
    center : {"mean", "geometric_median"}, default="mean"
        Where the centre starts; it is then trained.
    learning_rate : float or "auto", default="auto"
        Peak step size of Adam, warmed up over 5 % of the steps and decayed over the last 90 %. "auto":
        ``0.6 / sqrt(n_components)``, at most 0.05.
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
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once, where codes are projected. "auto": a few megabytes of them.
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
        Mean norm of the centred rows of the target and of the input.
    alpha_ : float
        Weight of the penalty at the end of training.
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
    GatedDictionaryLearning : Penalises what opens a gate, not the coefficients.
    JumpReLUDictionaryLearning : Penalises the number of atoms instead of their coefficients.
    TopKDictionaryLearning : Fixes the number of atoms instead of penalising them.
    ProjectiveDictionaryLearning : Solves for the coefficients instead of reading them off the encoder.

    References
    ----------
    Bricken et al. (2023). Towards monosemanticity: decomposing language models with dictionary learning. Transformer
    Circuits Thread.
    Bussmann et al. (2025). Learning multi-level features with Matryoshka sparse autoencoders. arXiv:2503.17547.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import ReLUDictionaryLearning
    >>> X = load_digits().data
    >>> model = ReLUDictionaryLearning(n_components=128, n_nonzero_coefs=6, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 128)
    """

    def _loss(self, n_components, n_targets, k):
        from .training.losses import relu_loss

        return partial(relu_loss, **self._loss_options(n_components, n_targets, k))

    def _rule(self):
        return {}

    @classmethod
    def _taken_from(cls, sae, norms):
        if sae.magnitude_bias is not None:
            raise ValueError(cls._refusal("has gates", "GatedDictionaryLearning"))
        if sae.k is not None:
            raise ValueError(cls._refusal(f"selects k={sae.k} features a row", "TopKDictionaryLearning"))
        if sae.threshold.any():
            raise ValueError(cls._refusal("has thresholds", "JumpReLUDictionaryLearning"))
        return Taken({}, norms.astype("float32"), parts={"alpha_": cls._first_alpha()})
