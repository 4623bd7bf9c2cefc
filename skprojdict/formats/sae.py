# SPDX-License-Identifier: BSD-3-Clause
"""Sparse autoencoders of other libraries, read into one form: SAELens, sparsify, dictionary_learning.

Nothing of those libraries is imported, and no pickle is executed: safetensors and JSON are plain data, and torch reads
dictionary_learning's ``ae.pt`` with ``weights_only=True``.
"""

import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["CHECKSUM", "SparseAutoencoder", "checksum", "read_sae"]

# Key of our checksum in the metadata of a safetensors file that we wrote for another library: theirs have none.
CHECKSUM = "skprojdict.sha256"
# What of a SAELens configuration decides the numbers.
SAE_LENS_KEYS = (
    "architecture",
    "k",
    "activation_fn",
    "apply_b_dec_to_input",
    "normalize_activations",
    "rescale_acts_by_decoder_norm",
)

REMEDY = "Only autoencoders with one encoder product and a TopK, ReLU, JumpReLU or gated activation are read."


class SparseAutoencoder(NamedTuple):
    """``x_hat = act(E (x - c) + b) @ D + mu``.

    Gated: the code is ``relu(e^r E (x - c) + b')`` where ``E (x - c) + b > 0``.

    Attributes
    ----------
    encoder, encoder_bias : (p, m), (p,)
    decoder, decoder_bias : (p, d), (d,)
        Rows of any norm.
    input_bias : (m,)
        What is taken off before encoding.
    k : int or None
        TopK; None: every pre-activation above its threshold.
    threshold : (p,)
        Not negative.
    mean_k : int or None
        How many features fire on average, where the autoencoder says so (BatchTopK).
    magnitude_log_gain, magnitude_bias : (p,) or None
        r and b' of the gated form.
    ranked_by_output : bool
        TopK ranks pre-activations times the norm of the decoder row.
    """

    encoder: np.ndarray
    encoder_bias: np.ndarray
    decoder: np.ndarray
    decoder_bias: np.ndarray
    input_bias: np.ndarray
    k: int | None
    threshold: np.ndarray
    ranked_by_output: bool
    mean_k: int | None = None
    magnitude_log_gain: np.ndarray | None = None
    magnitude_bias: np.ndarray | None = None

    def with_one_centre(self):
        """The same function with the decoder's bias taken off the input, where input and output are of one width."""
        if self.input_bias.shape != self.decoder_bias.shape or np.array_equal(self.input_bias, self.decoder_bias):
            return self
        shift = self.encoder @ (self.decoder_bias - self.input_bias)
        moved = self._replace(encoder_bias=self.encoder_bias + shift, input_bias=self.decoder_bias)
        if self.magnitude_bias is None or self.magnitude_log_gain is None:
            return moved
        return moved._replace(magnitude_bias=self.magnitude_bias + np.exp(self.magnitude_log_gain) * shift)


def read_sae(source):
    """Read a sparse autoencoder from a folder, or take it from a live torch module.

    Parameters
    ----------
    source : str, path-like or torch.nn.Module
        A folder with ``cfg.json`` and ``sae_weights.safetensors`` (SAELens) or ``sae.safetensors`` (sparsify); a folder
        with ``ae.pt`` and ``config.json``, or the ``ae.pt`` (dictionary_learning); or one of these libraries' objects.

    Returns
    -------
    sae : SparseAutoencoder
        In float32.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or none of these files is in it.
    ValueError
        For a form that has no counterpart here, naming it; for files that are cut short or otherwise unreadable, or
        that do not fit the checksum, which those that we wrote have. The libraries' own files have none: there a
        flipped bit among the weights shows only if it makes NaN or infinity.
    """
    if hasattr(source, "state_dict"):
        config = getattr(source, "cfg", {})
        config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        own = {name: getattr(source, name) for name in ("apply_b_dec_to_input",) if hasattr(source, name)}
        return _from_state(source.state_dict(), {"dict_class": type(source).__name__, **own, **config})
    path = Path(source)
    folder = path.parent if path.is_file() else path
    for name, config_name in (("sae_weights.safetensors", "cfg.json"), ("sae.safetensors", "cfg.json")):
        if (folder / name).is_file() and (path == folder or path.name == name):
            config = _json(folder / config_name)
            state = _safetensors(folder / name, config)
            if (name == "sae_weights.safetensors") != ("W_enc" in state):
                raise ValueError(
                    f"{folder / name} has the name that {'SAELens' if 'W_enc' not in state else 'sparsify'} gives, but "
                    f"other weights: {sorted(state)}. Take the folder as the library wrote it."
                )
            return _from_state(state, config)
    file = path if path.is_file() else path / "ae.pt"
    if not file.is_file():
        raise FileNotFoundError(
            f"{source}: no sae_weights.safetensors (SAELens), sae.safetensors (sparsify) or ae.pt "
            "(dictionary_learning) there. Give the folder that one of these libraries wrote."
        )
    config = _json(folder / "config.json").get("trainer", {}) if (folder / "config.json").is_file() else {}
    if not isinstance(config, dict):
        raise ValueError(f'{folder / "config.json"}: "trainer" is {config!r}. Take the file that the library wrote.')
    return _from_state(_torch_file(file), config)


def checksum(arrays, config):
    """SHA-256 of an autoencoder's arrays, by name, and of what its SAELens configuration says about them."""
    told = {key: config[key] for key in SAE_LENS_KEYS if key in config}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _safetensors(path, config):
    """Tensors by name, compared with our checksum where the file has one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            recorded = (file.metadata() or {}).get(CHECKSUM)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or is damaged ({error}). Download or copy it again."
        ) from None
    if recorded is not None and recorded != checksum({name: t.numpy() for name, t in state.items()}, config):
        raise ValueError(f"{path} or the cfg.json beside it was altered: the checksum does not fit. Export it again.")
    return state


def _torch_file(path):
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch itself compares no checksums
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} does not fit")
        state = torch.load(path, map_location="cpu", weights_only=True)
    # What damage does to a zip archive of pickles has no end of names; none of them ran any code.
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError),
        *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, ImportError, OSError),
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is no file of torch tensors, or is damaged ({reason}). Download or copy it again."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, not tensors by name. Give the file of a state_dict.")
    return state


def _from_state(state, config):
    state = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    try:
        return _from_arrays(state, config)
    except KeyError as error:
        raise ValueError(
            f"the autoencoder lacks {error}: its weights are {sorted(state)}, its configuration has {sorted(config)}. "
            "Take an undamaged checkpoint of it."
        ) from None
    except (IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the autoencoder's weights or configuration are of no known form ({error}). {REMEDY}"
        ) from None


def _from_arrays(state, config):
    if "W_enc" in state and "W_dec" in state:
        theirs = config.get("dict_class") in _TRANSPOSED or "threshold" in state
        return _transposed(state, config) if theirs and "architecture" not in config else _sae_lens(state, config)
    if "encoder.weight" in state and "W_dec" in state:
        return _sparsify(state, config)
    if "encoder.weight" in state and "decoder.weight" in state:
        return _dictionary_learning(state, config)
    raise ValueError(f"the autoencoder has the weights {sorted(state)}, which no known library writes. {REMEDY}")


def _sae_lens(state, config):
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture == "standard" and activation == "topk":  # before version 6
        architecture, config = "topk", {**config, **config.get("activation_fn_kwargs", {})}
    _refuse_unless(architecture, ("topk", "standard", "jumprelu", "gated"), "architecture")
    if architecture in ("standard", "gated"):
        _refuse_unless(activation, ("relu",), "activation_fn")
    _refuse_unless(config.get("normalize_activations") or "none", ("none",), "normalize_activations")
    before = config.get("apply_b_dec_to_input", True)
    return _checked(
        encoder=state["W_enc"].T,
        encoder_bias=state["b_gate" if architecture == "gated" else "b_enc"],
        decoder=state["W_dec"],
        decoder_bias=state["b_dec"],
        input_bias=state["b_dec"] if before else None,
        k=config["k"] if architecture == "topk" else None,
        threshold=state["threshold"] if architecture == "jumprelu" else None,
        ranked_by_output=bool(config.get("rescale_acts_by_decoder_norm", False)),
        magnitude_log_gain=state["r_mag"] if architecture == "gated" else None,
        magnitude_bias=state["b_mag"] if architecture == "gated" else None,
    )


def _sparsify(state, config):
    _refuse_unless(config.get("activation", "topk"), ("topk",), "activation")
    _refuse_unless(bool(config.get("transcode", False)), (False,), "transcode")
    _refuse_unless("W_skip" in state, (False,), "skip_connection")
    return _checked(
        encoder=state["encoder.weight"],
        encoder_bias=state["encoder.bias"],
        decoder=state["W_dec"],
        decoder_bias=state["b_dec"],
        input_bias=state["b_dec"],
        k=config["k"],
    )


_LAYERS = ("AutoEncoderTopK", "BatchTopKSAE", "AutoEncoder", "GatedAutoEncoder")
_TRANSPOSED = ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")


def _dictionary_learning(state, config):
    kind = config.get("dict_class", "AutoEncoderTopK" if "k" in state else "AutoEncoder")
    _refuse_unless(kind, _LAYERS, "dict_class")
    centre = state[{"AutoEncoder": "bias", "GatedAutoEncoder": "decoder_bias"}.get(kind, "b_dec")]
    gated = kind == "GatedAutoEncoder"
    p = state["encoder.weight"].shape[0]
    return _checked(
        encoder=state["encoder.weight"],
        encoder_bias=state["gate_bias" if gated else "encoder.bias"],
        decoder=state["decoder.weight"].T,
        decoder_bias=centre,
        input_bias=centre,
        k=int(state["k"]) if kind == "AutoEncoderTopK" else None,
        threshold=np.full(p, float(state["threshold"])) if kind == "BatchTopKSAE" else None,
        mean_k=int(state["k"]) if kind == "BatchTopKSAE" else None,
        magnitude_log_gain=state["r_mag"] if gated else None,
        magnitude_bias=state["mag_bias"] if gated else None,
    )


def _transposed(state, config):
    """dictionary_learning's newer classes, whose weights have SAELens' names."""
    nested = "group_sizes" in state
    before = nested or config.get("apply_b_dec_to_input", False)
    p = state["W_enc"].shape[1]
    return _checked(
        encoder=state["W_enc"].T,
        encoder_bias=state["b_enc"],
        decoder=state["W_dec"],
        decoder_bias=state["b_dec"],
        input_bias=state["b_dec"] if before else None,
        k=None,
        threshold=np.full(p, float(state["threshold"])) if nested else state["threshold"],
        mean_k=int(state["k"]) if nested else None,
    )


def _checked(
    *,
    encoder,
    decoder,
    input_bias,
    k,
    threshold=None,
    ranked_by_output=False,
    mean_k=None,
    magnitude_log_gain=None,
    magnitude_bias=None,
    **biases,
):
    if encoder.ndim != 2 or decoder.ndim != 2:
        raise ValueError(
            f"the autoencoder's weights have shapes {encoder.shape} and {decoder.shape}; matrices are needed."
        )
    p, m = encoder.shape
    sae = SparseAutoencoder(
        encoder=np.ascontiguousarray(encoder, dtype=np.float32),
        decoder=np.ascontiguousarray(decoder, dtype=np.float32),
        input_bias=np.zeros(m, dtype=np.float32) if input_bias is None else input_bias,
        k=k,
        # relu(e) > threshold: below 0 the rectifier decides.
        threshold=np.zeros(p, dtype=np.float32) if threshold is None else np.maximum(threshold, 0).astype(np.float32),
        ranked_by_output=ranked_by_output,
        mean_k=mean_k,
        magnitude_log_gain=magnitude_log_gain,
        magnitude_bias=magnitude_bias,
        **biases,
    )
    d = sae.decoder.shape[1]
    expected = {"encoder_bias": (p,), "decoder": (p, d), "decoder_bias": (d,), "input_bias": (m,), "threshold": (p,)}
    if magnitude_bias is not None:
        expected |= {"magnitude_log_gain": (p,), "magnitude_bias": (p,)}
    for name, shape in expected.items():
        if getattr(sae, name).shape != shape:
            raise ValueError(
                f"the autoencoder's {name} has shape {getattr(sae, name).shape}; its encoder asks for {shape}."
            )
    for name, value in sae._asdict().items():
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            raise ValueError(f"the autoencoder's {name} holds NaN or infinity. Take an undamaged checkpoint of it.")
    if k is not None and not (isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= p):
        raise ValueError(f"the autoencoder has k={k!r}, but {p} features.")
    return sae


def _refuse_unless(value, known, name):
    if value not in known:
        raise ValueError(f"the autoencoder has {name}={value!r}, which has no counterpart here. {REMEDY}")


def _json(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the weights beside it say nothing about their activation.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON, or is damaged ({error}). Download or copy it again.") from None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds {type(found).__name__} and no configuration. Take the file that the library wrote."
        )
    return found
