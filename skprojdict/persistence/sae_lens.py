# SPDX-License-Identifier: BSD-3-Clause
"""A dictionary as the folder that SAELens opens."""

import json
from pathlib import Path

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skprojdict._array import to_numpy
from skprojdict.formats.container import atomic_path
from skprojdict.formats.sae import CHECKSUM, checksum


def save_for_sae_lens(estimator, folder, *, metadata=None, overwrite=False):
    """Write ``cfg.json`` and ``sae_weights.safetensors``, which ``sae_lens.SAE.load_from_disk(folder)`` opens.

    A :class:`~skprojdict.TopKDictionaryLearning` becomes a TopK autoencoder with the same ``encode`` and ``decode``, or
    with ``selection="batch"`` a JumpReLU one with the same threshold for all features; the ReLU, JumpReLU and gated
    forms become what SAELens calls standard, jumprelu and gated. Of a
    :class:`~skprojdict.ProjectiveDictionaryLearning` the encoder's part is written: SAELens selects the k best scores
    and decodes them additively, without candidates, refinements and projection. The projection needs the row itself,
    which SAELens' ``decode`` does not get: re-decode there with
    ``ProjectiveDictionaryLearning.from_sae(sae).to_torch()``.

    Parameters
    ----------
    estimator : estimator with an encoder
        Fitted on one view.
    folder : str or path-like
        Made where it is missing.
    metadata : dict, default=None
        What SAELens should know besides: "model_name", "hook_name", "dataset_path", ...
    overwrite : bool, default=False
        Whether the two files may be replaced.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is False.
    TypeError
        If the estimator has no encoder.
    ValueError
        For a second view, or a selection by budget or threshold, which SAELens does not have.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
    >>> from skprojdict.persistence import save_for_sae_lens
    >>> X = load_digits().data
    >>> model = TopKDictionaryLearning(128, n_nonzero_coefs=6, max_steps=50, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     save_for_sae_lens(model, folder)
    ...     solved = ProjectiveDictionaryLearning.from_sae(folder)  # the same selection, solved
    >>> solved.score(X) > model.score(X)
    True
    """
    check_is_fitted(estimator)
    if not hasattr(estimator, "encoder_components_"):
        raise TypeError(
            f"estimator must have an encoder, got {type(estimator).__name__}. Train a TopKDictionaryLearning or "
            "ProjectiveDictionaryLearning, or keep this one with skprojdict.persistence.save."
        )
    if estimator.target == "y":
        raise ValueError("the estimator has target='y', a transcoder, which is not written for SAELens. Use save.")
    # What chooses among candidates stays behind: the autoencoder takes the k best scored.
    if getattr(estimator, "selection", "top_k") not in ("auto", "adaptive", "top_k", "row", "batch"):
        raise ValueError(f"selection={estimator.selection!r} has no counterpart in SAELens. Use selection='top_k'.")
    folder = Path(folder)
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    if not overwrite and (weights.exists() or config.exists()):
        raise FileExistsError(f"{folder} holds an autoencoder: pass overwrite=True to replace it, or another folder.")
    from safetensors.numpy import save

    # In the units of the data: SAELens has no scale of its own.
    gain = estimator.scale_ / estimator.encoder_scale_
    arrays = {
        "W_enc": to_numpy(estimator.encoder_components_).T * gain,
        "b_enc": to_numpy(estimator.encoder_bias_) * estimator.scale_,
        "W_dec": to_numpy(estimator.components_),
        "b_dec": to_numpy(estimator.mean_),
    }
    dtype = arrays["W_dec"].dtype
    p, d = arrays["W_dec"].shape
    form = _form(estimator)
    if form["architecture"] == "jumprelu":
        limits = estimator.thresholds_ if hasattr(estimator, "thresholds_") else np.full(p, estimator.threshold_)
        arrays["threshold"] = to_numpy(limits) * estimator.scale_
    if form["architecture"] == "gated":
        arrays["b_gate"] = arrays.pop("b_enc")
        arrays["r_mag"] = to_numpy(estimator.magnitude_log_gain_)
        arrays["b_mag"] = to_numpy(estimator.magnitude_bias_) * estimator.scale_
    settings = {
        **form,
        "d_in": d,
        "d_sae": p,
        "dtype": str(dtype),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": "6.0.0", "skprojdict_class": type(estimator).__name__, **(metadata or {})},
    }
    if form["architecture"] != "topk":
        del settings["rescale_acts_by_decoder_norm"]
    text = json.dumps(settings, indent=1)  # before anything is written: what is no JSON is refused
    arrays = {name: np.ascontiguousarray(array, dtype=dtype) for name, array in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(save(arrays, {CHECKSUM: checksum(arrays, json.loads(text))}))
    with atomic_path(config) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _form(estimator):
    """SAELens' name for what selects."""
    rule = estimator._rule() if hasattr(estimator, "_rule") else {"k": estimator._k}
    if "magnitude" in rule:
        return {"architecture": "gated"}
    if rule.get("selection") == "threshold":
        return {"architecture": "jumprelu"}
    k = rule.get("k")
    return {"architecture": "standard"} if k is None else {"architecture": "topk", "k": k}
