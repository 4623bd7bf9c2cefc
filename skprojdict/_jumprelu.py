# SPDX-License-Identifier: BSD-3-Clause
"""JumpReLU sparse autoencoder as an estimator."""

from functools import partial
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from ._additive import _PenalisedDictionary
from ._exchange import Taken
from .training.pace import Pace


class JumpReLUDictionaryLearning(_PenalisedDictionary):
    """JumpReLU sparse autoencoder (Rajamanoharan et al., 2024).

    Minimises, over unit-norm atoms f_j, encoder rows E_j, biases b_j, thresholds theta_j and the centre mu, the mean
    over rows x of::

        || x - mu - sum_j z_j f_j ||^2  +  alpha (L0 / k - 1)^2 ,   L0 = mean number of atoms that fire

        e = E (x - mu) + b ,   z_j = e_j  where e_j > theta_j, else 0

    plus AuxK. Neither term has a gradient for the thresholds almost everywhere: they get the derivative of the expected
    loss, estimated over the scores near them. Data are scaled inside so that the mean centred row has norm 1: learning
    rates and bandwidth mean the same in every unit.

    Parameters
    ----------
    n_components : int, default=None
        Number of atoms p. None: 8 times the number of target columns.
    n_nonzero_coefs : int or "auto", default="auto"
        Active atoms k a row on average, which the penalty asks for. "auto": a tenth of the target columns, at least
        1. Clipped to ``n_components`` with one warning.
    alpha : float, default=1.0
        Weight of the penalty on the number of atoms.
    bandwidth : float, default=0.05
        Width of the interval of scores, around a threshold, that move it.
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
    thresholds_ : array of shape (n_components,)
        Scores above them fire, in training units (rows divided by ``scale_``).
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
    ReLUDictionaryLearning : Penalises the coefficients themselves.
    GatedDictionaryLearning : Penalises what opens a gate, not the coefficients.
    TopKDictionaryLearning : Fixes the number of atoms instead of penalising them.
    ProjectiveDictionaryLearning : Solves for the coefficients instead of reading them off the encoder.

    References
    ----------
    Rajamanoharan et al. (2024). Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders.
    arXiv:2407.14435.
    Bussmann et al. (2025). Learning multi-level features with Matryoshka sparse autoencoders. arXiv:2503.17547.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import JumpReLUDictionaryLearning
    >>> X = load_digits().data
    >>> model = JumpReLUDictionaryLearning(n_components=128, n_nonzero_coefs=6, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 128)
    """

    # At twice the rate thresholds run away from a third of the atoms.
    _PACE: ClassVar[Pace] = Pace(0.2, 0.02, decay=0.5, bias_rate=0.3, unit_gradient=True)
    _parameter_constraints: ClassVar[dict] = {
        **_PenalisedDictionary._parameter_constraints,
        "n_nonzero_coefs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_nonzero_coefs="auto",
        alpha=1.0,
        bandwidth=0.05,
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
        super().__init__(
            n_components,
            n_nonzero_coefs=n_nonzero_coefs,
            alpha=alpha,
            prefix_sizes=prefix_sizes,
            tied=tied,
            target=target,
            auxk_coef=auxk_coef,
            dead_after=dead_after,
            init=init,
            center=center,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_iter=max_iter,
            max_steps=max_steps,
            tol=tol,
            warm_start=warm_start,
            device=device,
            chunk_size=chunk_size,
            sparse_output=sparse_output,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            random_state=random_state,
        )
        self.bandwidth = bandwidth

    def _loss(self, n_components, n_targets, k):
        from .training.losses import jumprelu_loss

        options = self._loss_options(n_components, n_targets, k)
        return partial(jumprelu_loss, bandwidth=self.bandwidth, **options)

    def _parts(self):
        return {"tied": self.tied, "thresholds": True}

    def _rule(self):
        return {"selection": "threshold", "threshold": self.thresholds_}

    @classmethod
    def _taken_from(cls, sae, norms):
        """ReLU is the form with thresholds of 0, BatchTopK that with equal ones."""
        if sae.magnitude_bias is not None:
            raise ValueError(cls._refusal("has gates", "GatedDictionaryLearning"))
        if sae.k is not None:
            raise ValueError(cls._refusal(f"selects k={sae.k} features a row", "TopKDictionaryLearning"))
        params = {} if sae.mean_k is None else {"n_nonzero_coefs": sae.mean_k}
        return Taken(params, norms.astype("float32"), parts={"thresholds_": sae.threshold * norms})
