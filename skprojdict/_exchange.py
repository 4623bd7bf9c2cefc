# SPDX-License-Identifier: BSD-3-Clause
"""Ways in and out of an estimator: other libraries' sparse autoencoders, and a torch module."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._array import to_numpy
from ._second_view import _SecondViewDictionary


class _ExchangeDictionary(_SecondViewDictionary):
    """A neural dictionary that comes from an autoencoder and goes into a torch module."""

    @classmethod
    def from_sae(cls, source, *, scale=1.0, **params):
        """A fitted estimator with the weights of a sparse autoencoder from SAELens, sparsify or dictionary_learning.

        A projective dictionary takes over what the autoencoder selects and solves for the coefficients by itself;
        ``candidate_factor=1`` keeps its support to the letter, the default looks at twice as many features. A TopK
        dictionary computes what the autoencoder does.

        Parameters
        ----------
        source : str, path-like or torch.nn.Module
            The folder that the library wrote (``cfg.json`` with ``sae_weights.safetensors`` or ``sae.safetensors``;
            ``ae.pt`` with ``config.json``), or the library's object. Files are read without pickle.
        scale : float, default=1.0
            Mean norm of the centred rows that the autoencoder was trained on. Without effect on what an exact
            projection or a TopK decoder computes; penalties and further training are in units of it.
        **params
            Parameters of the estimator; ``n_components`` is the autoencoder's, ``n_nonzero_coefs`` too unless given.

        Returns
        -------
        estimator : object
            Fitted, with float32 NumPy arrays.

        Raises
        ------
        FileNotFoundError
            If the folder holds none of these files.
        ValueError
            For autoencoders without counterpart here (gated, transcoders, normalised inputs), and for a
            ``TopKDictionaryLearning`` where the selection looks at other numbers than the decoder.
        """
        from .formats.sae import read_sae

        sae = read_sae(source)
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
        estimator = cls(**{"n_components": p, "n_nonzero_coefs": sae.k, **params})
        gain = cls._score_gain(sae, norms)
        estimator.components_ = atoms
        estimator.mean_ = sae.decoder_bias
        estimator.encoder_components_ = sae.encoder * (gain * alive)[:, None]
        estimator.encoder_bias_ = ((sae.encoder_bias - sae.threshold) * gain * alive / scale).astype(np.float32)
        estimator.encoder_mean_ = sae.input_bias
        estimator.scale_ = estimator.encoder_scale_ = float(scale)
        estimator.n_activations_ = np.zeros(p, dtype=np.int64)
        estimator.n_iter_ = estimator.n_steps_ = 0
        estimator.history_ = {name: [] for name in ("step", "loss", "fvu", "learning_rate", "n_dead")}
        estimator.n_features_in_ = m
        estimator._flat_target = False
        estimator._check_form()
        estimator._check_options(m, atoms.shape[1])
        return estimator

    @classmethod
    def _score_gain(cls, sae, norms):
        """What multiplies each pre-activation to give the score; here: the ranking of the autoencoder."""
        return norms.astype(np.float32) if sae.ranked_by_output else np.ones_like(norms, dtype=np.float32)

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
        arrays = {
            "components": self.components_,
            "mean": self.mean_,
            "encoder": self.encoder_components_,
            "encoder_bias": self.encoder_bias_,
            "encoder_mean": self.encoder_mean_,
        }
        if hasattr(self, "coef_components_"):
            arrays |= {"head": self.coef_components_, "head_bias": self.coef_bias_}
        return DictionaryModule(
            {name: to_numpy(array) for name, array in arrays.items()},
            scale=self.scale_,
            encoder_scale=self.encoder_scale_,
            importance_gain=getattr(self, "importance_gain_", 1.0),
            threshold=getattr(self, "threshold_", 0.0),
            k=self._k,
            coding=self._coding(self._k) if hasattr(self, "_coding") else None,
        )
