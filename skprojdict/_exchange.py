# SPDX-License-Identifier: BSD-3-Clause
"""Ways in and out of an estimator: other libraries' sparse autoencoders, and a torch module."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._array import to_numpy
from ._second_view import _SecondViewDictionary

# Fitted attributes that are numbers of scores, and so in units of ``scale_``.
SCORE_UNITS = ("threshold_", "thresholds_", "magnitude_bias_")


class Taken(NamedTuple):
    """What an estimator takes from an autoencoder besides its matrices.

    Attributes
    ----------
    params : dict
        Parameters of the estimator.
    gain : (p,)
        What multiplies each pre-activation to give the score.
    floor : (p,) or float
        Taken off each pre-activation first.
    parts : dict
        Further fitted attributes, in the units of the data.
    """

    params: dict[str, Any]
    gain: np.ndarray
    floor: Any = 0.0
    parts: dict[str, Any] = {}  # noqa: RUF012 (never changed)


class _ExchangeDictionary(_SecondViewDictionary):
    """A neural dictionary that comes from an autoencoder and goes into a torch module."""

    @classmethod
    def from_sae(cls, source, *, scale=1.0, **params):
        """A fitted estimator with the weights of a sparse autoencoder from SAELens, sparsify or dictionary_learning.

        A projective dictionary takes over what the autoencoder selects and solves for the coefficients by itself;
        ``candidate_factor=1`` keeps its support to the letter, the default looks at twice as many features. Rows have
        at most as many as the autoencoder's, until training that goes on learns a threshold for their mean. The other
        estimators compute what an autoencoder of their kind does.

        Parameters
        ----------
        source : str, path-like or torch.nn.Module
            The folder that the library wrote (``cfg.json`` with ``sae_weights.safetensors`` or ``sae.safetensors``;
            ``ae.pt`` with ``config.json``), or the library's object. Files are read without pickle.
        scale : float, default=1.0
            Mean norm of the centred rows that the autoencoder was trained on. Without effect on what an exact
            projection or a TopK decoder computes; penalties and further training are in units of it.
        **params
            Parameters of the estimator; ``n_components`` is the autoencoder's, ``n_nonzero_coefs`` too unless given
            (where the autoencoder knows a number).

        Returns
        -------
        estimator : object
            Fitted, with float32 NumPy arrays.

        Raises
        ------
        FileNotFoundError
            If the folder holds none of these files.
        ValueError
            For autoencoders without counterpart here (transcoders, normalised inputs), or with one in another
            estimator; and for a ``TopKDictionaryLearning`` where the selection looks at other numbers than the decoder.
        """
        from .formats.sae import read_sae

        sae = read_sae(source).with_one_centre()
        p, m = sae.encoder.shape
        if params.get("n_components", p) != p:
            raise ValueError(
                f"n_components={params['n_components']}, but the autoencoder has {p} features. Leave it out."
            )
        norms = np.linalg.norm(sae.decoder, axis=1)
        alive = norms > 0
        atoms = np.zeros_like(sae.decoder)
        atoms[:, 0] = 1.0  # an atom of norm 0 decodes to nothing: it gets a score of 0, which is never selected
        atoms[alive] = sae.decoder[alive] / norms[alive, None]
        taken = cls._taken_from(sae, norms)
        estimator = cls(**{"n_components": p, **taken.params, **params})
        gain = taken.gain * alive
        estimator.components_ = atoms
        estimator.mean_ = sae.decoder_bias
        estimator.encoder_components_ = sae.encoder * gain[:, None]
        estimator.encoder_bias_ = ((sae.encoder_bias - taken.floor) * gain / scale).astype(np.float32)
        estimator.encoder_mean_ = sae.input_bias
        estimator.scale_ = estimator.encoder_scale_ = float(scale)
        for name, value in taken.parts.items():
            setattr(estimator, name, value / scale if name in SCORE_UNITS else value)
        estimator.n_activations_ = np.zeros(p, dtype=np.int64)
        estimator.n_iter_ = estimator.n_steps_ = 0
        estimator.history_ = {name: [] for name in ("step", "loss", "fvu", "learning_rate", "n_dead")}
        estimator.n_features_in_ = m
        estimator._flat_target = False
        estimator._check_form()
        estimator._check_options(m, atoms.shape[1])
        return estimator

    @property
    def _coder(self) -> dict[str, Any] | None:
        """How the fitted estimator codes rows, where that is more than a choice by score."""
        return None

    @classmethod
    @abstractmethod
    def _taken_from(cls, sae, norms):
        """What an autoencoder with decoder rows of these norms becomes: :class:`Taken`. ValueError: it cannot."""

    def to_torch(self):
        """A :class:`torch.nn.Module` that computes what this estimator does, for hooks inside a model.

        Its ``encode`` gives dense codes, ``decode`` reconstructions, and ``forward`` both in one, of tensors with any
        number of leading dimensions; gradients reach the input and the weights (the selection is held fixed, as in
        training). It is a copy: training it leaves the estimator alone.

        Returns
        -------
        module : skprojdict.training.module.DictionaryModule
            On the CPU, in the dtype of ``components_``.
        """
        from .training.module import DictionaryModule

        check_is_fitted(self)
        self._check_form()
        arrays: dict[str, Any] = {
            "components": self.components_,
            "mean": self.mean_,
            "encoder": self.encoder_components_,
            "encoder_bias": self.encoder_bias_,
            "encoder_mean": self.encoder_mean_,
        }
        optional = {
            "head": "coef_components_",
            "head_bias": "coef_bias_",
            "head_scale": "coef_scale_",
            "surrogate": "surrogate_components_",
            "surrogate_bias": "surrogate_bias_",
            "skip": "skip_components_",
        }
        arrays |= {part: getattr(self, name) for part, name in optional.items() if hasattr(self, name)}
        for name in ("thresholds", "magnitude_log_gain", "magnitude_bias"):
            if hasattr(self, f"{name}_"):
                arrays[name] = getattr(self, f"{name}_")
        rule = self._rule() if hasattr(self, "_rule") else {"k": self._k}
        return DictionaryModule(
            {name: to_numpy(array) for name, array in arrays.items()},
            scale=self.scale_,
            encoder_scale=self.encoder_scale_,
            importance_gain=getattr(self, "importance_gain_", 1.0),
            threshold=self._threshold,
            k=rule.get("k"),
            coding=self._coder,
            selection=rule.get("selection", "top_k"),
            predict_mode=self._module_mode(),
        )
