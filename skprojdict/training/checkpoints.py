# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of a fit: everything that the next step depends on, in files that appear whole or not at all."""

import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from .._array import array_namespace, to_numpy
from ..formats import container
from .spare import SpareWeights
from .weights import Weights

FORMAT = "skprojdict-checkpoint"
FORMAT_VERSION = 1
NAME = re.compile(r"step-(\d{12})\.safetensors")
N_PRINTED_ROWS = 16


class CheckpointFolder:
    """A folder with the newest checkpoints of one fit.

    Parameters
    ----------
    folder : str or path-like
        Made when the first checkpoint is written. One fit a folder: two would delete each other's files.
    keep : int, default=2
        Files that stay: a damaged newest one still leaves the one before.
    """

    def __init__(self, folder, *, keep=2):
        self.folder, self.keep = Path(folder), keep

    def files(self):
        """Checkpoint files, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))

    def newest(self):
        """``(arrays, header)`` of the newest readable checkpoint; None where there is none at all.

        Raises
        ------
        DamagedFileError
            If there are checkpoints, and all are damaged.
        """
        files = self.files()
        for path in reversed(files):
            try:
                return read(path)
            except container.DamagedFileError as error:
                if path == files[0]:
                    raise
                warnings.warn(f"{error} Going on from the checkpoint before it.", UserWarning, stacklevel=2)
        return None

    def write(self, step, arrays, header):
        """Write the checkpoint of a step, and delete the earlier ones that it supersedes.

        Returns
        -------
        written : bool
            False, with a warning, where the disk refuses: training is worth more than a checkpoint, and the last good
            one is untouched.
        """
        path = self.folder / f"step-{step:012d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".step-*.part"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            container.write(path, arrays, {"format": FORMAT, "format_version": FORMAT_VERSION, **header})
            # Never a later one: it may be whole where the one that this fit goes on from was chosen by its name.
            superseded = [other for other in self.files() if other.name <= path.name][: -self.keep]
            for old in superseded:
                old.unlink(missing_ok=True)
        except OSError as error:
            kept = self.files()
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
            warnings.warn(
                f"the checkpoint of step {step} could not be written ({error}); training goes on, and {last}. Make "
                f"room in checkpoint_dir={str(self.folder)!r}.",
                UserWarning,
                stacklevel=2,
            )
            return False
        return True


def read(path):
    """``(arrays, header)`` of one checkpoint file.

    Raises
    ------
    FileNotFoundError
    DamagedFileError
        If the file is damaged or no checkpoint.
    ValueError
        For a format version that this code does not know.
    """
    arrays, header = container.read(path)
    if header.get("format") != FORMAT:
        raise container.DamagedFileError(f"{path} is a {header.get('format')} file and no checkpoint.")
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format version {header.get('format_version')}; this skprojdict reads "
            f"{FORMAT_VERSION}. Finish the fit with the version that wrote it: {header.get('versions')}."
        )
    return arrays, header


# ---- the state of a trainer


def weights_arrays(weights, prefix):
    """Tensors of some weights as NumPy arrays, by prefixed name."""
    return {f"{prefix}.{name}": _numpy(value) for name, value in weights.parts()}


def weights_from(arrays, prefix, device):
    """The weights that :func:`weights_arrays` wrote."""
    return Weights(**{name: _tensor(array, device) for name, array in _under(arrays, prefix)})


def trainer_state(trainer):
    """``(arrays, numbers)``: weights, moments, dead-feature counts and last good weights."""
    trainer.optimiser.zero_grad()  # they have had their step; the last good weights take as much memory
    arrays = weights_arrays(trainer.weights, "weights") | weights_arrays(trainer.good.restored(), "good")
    for i, parameter in enumerate(trainer.parameters):
        moments = trainer.optimiser.state.get(parameter, {})
        arrays |= {f"moments.{i}.{name}": _numpy(value) for name, value in moments.items()}
    arrays |= {"dead.rows_since": _numpy(trainer.dead.rows_since), "dead.activations": _numpy(trainer.dead.activations)}
    best = trainer.best if np.isfinite(trainer.best) else None
    return arrays, {"n_steps": trainer.n_steps, "best": best}


def restore_trainer(trainer, arrays, numbers):
    """Put a trainer that was made with the checkpoint's weights into the rest of its state."""
    device = trainer.weights.components.device
    for i, parameter in enumerate(trainer.parameters):
        moments = {name: _tensor(array, device) for name, array in _under(arrays, f"moments.{i}")}
        if moments:
            trainer.optimiser.state[parameter] = moments
    trainer.good = SpareWeights(weights_from(arrays, "good", device))
    trainer.dead.rows_since = _tensor(arrays["dead.rows_since"], device)
    trainer.dead.activations = _tensor(arrays["dead.activations"], device)
    trainer.n_steps = numbers["n_steps"]
    trainer.best = np.inf if numbers["best"] is None else numbers["best"]


def all_finite(weights):
    """Whether no weight is NaN or infinite: nothing else may become a checkpoint."""
    return all(bool(torch.isfinite(value).all()) for _, value in weights.parts())


def _under(arrays, prefix):
    start = f"{prefix}."
    return [(name.removeprefix(start), array) for name, array in arrays.items() if name.startswith(start)]


def _numpy(tensor):
    return tensor.detach().cpu().numpy()


def _tensor(array, device):
    # A copy into memory that torch aligns: products may round by alignment, and the resumed fit must not notice.
    return torch.tensor(array, device=device)


# ---- what a checkpoint must agree with


def generator_state(rng):
    """The state of a NumPy RandomState as JSON."""
    state = rng.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise TypeError(
            f"random_state draws from {state['bit_generator']}, whose state a checkpoint cannot keep. Pass a whole "
            "number as random_state, or set checkpoint_dir=None."
        )
    key = [int(word) for word in state["state"]["key"]]
    return {**state, "state": {"key": key, "pos": int(state["state"]["pos"])}, "gauss": float(state["gauss"])}


def generator_from(state):
    """A RandomState in the state that :func:`generator_state` wrote."""
    rng = np.random.RandomState()
    rng.set_state({**state, "state": {**state["state"], "key": np.array(state["state"]["key"], dtype=np.uint32)}})
    return rng


def fingerprint(X):
    """A short digest of rows: their shape, their dtype, and a few rows spread over them."""
    n = X.shape[0]
    digest = hashlib.sha256(repr((tuple(X.shape), str(X.dtype).rpartition(".")[2])).encode())
    for i in sorted({j * (n - 1) // (N_PRINTED_ROWS - 1) for j in range(N_PRINTED_ROWS)}):
        digest.update(np.ascontiguousarray(to_numpy(X[i : i + 1, ...])).tobytes())
    return digest.hexdigest()[:16]


def described(value):
    """A parameter as JSON that is the same where the parameter is the same."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array_namespace(value)
        return hashlib.sha256(np.ascontiguousarray(to_numpy(value)).tobytes()).hexdigest()[:16]
    return type(value).__name__  # a generator: its state is in the checkpoint


def difference(found, expected):
    """What of a checkpoint's identity is not as expected: a sentence for the error, or None.

    Parameters
    ----------
    found, expected : dict
        Of the checkpoint, and of the fit that wants to go on from it: "class", "params" and "data".
    """
    if found["class"] != expected["class"]:
        return f"it is of a {found['class']}, not of a {expected['class']}"
    for name in sorted(found["params"].keys() | expected["params"].keys()):
        before, now = found["params"].get(name), expected["params"].get(name)
        if before != now:
            return f"it was trained with {name}={before!r}, now {name}={now!r}"
    if found["data"] != expected["data"]:
        return "it was trained on other rows"
    return None
