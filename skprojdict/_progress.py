# SPDX-License-Identifier: BSD-3-Clause
"""Where a fit stands, and how it comes out of a checkpoint and goes into one."""

import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ._base import _Patience

# Parameters that may change between a fit and its resumption. The others decide what is learnt, so that going on with
# another value would be a fit that neither describes; chunk_size and device move rounding only.
FREE = ("checkpoint_dir", "checkpoint_every", "chunk_size", "device", "sparse_output", "warm_start")
# Fitted attributes besides the weights' that training itself counts in.
COUNTED = ("scale_", "encoder_scale_", "n_iter_", "n_steps_", "history_", "_flat_target")


@dataclass
class Progress:
    """A fit under way: what the next step depends on, besides parameters and data.

    Attributes
    ----------
    trainer : Trainer
    views : Views
    batches : BatchOrder or ReadAhead
    patience : _Patience
    n_iter_before : int
        Passes of earlier fits, which a warm start counts on from.
    step : int
        Steps done in this fit.
    values : list of (loss, squared_error, variance)
        Of the steps since the last entry in the history.
    finished : bool
    """

    trainer: Any
    views: Any
    batches: Any
    patience: _Patience
    n_iter_before: int
    step: int = 0
    values: list = field(default_factory=list)
    finished: bool = False


def found_checkpoint(estimator, resume):
    """``(arrays, header)`` of the checkpoint that ``fit(resume=...)`` asks for; None for a start from the beginning.

    Raises
    ------
    ValueError
        If ``resume`` has no folder to look into; if ``checkpoint_dir`` holds checkpoints of another fit than the one to
        go on from, which would be overwritten.
    """
    if estimator.checkpoint_dir is None and resume is True:
        raise ValueError("resume=True goes on from the newest checkpoint in checkpoint_dir, which is None. Set it.")
    if isinstance(resume, bool) and estimator.checkpoint_dir is None:
        return None
    from .training import checkpoints

    if not isinstance(resume, bool):
        path = os.fspath(resume)
        is_folder = os.path.isdir(path)
        _refuse_other_fits(estimator.checkpoint_dir, path if is_folder else os.path.dirname(path) or ".")
        if not is_folder:
            return checkpoints.read(path)
        found = checkpoints.CheckpointFolder(path).newest()
        if found is None:
            raise FileNotFoundError(f"resume={path!r} holds no checkpoint. Name a checkpoint, or a folder of them.")
        return found
    if resume:
        return checkpoints.CheckpointFolder(estimator.checkpoint_dir).newest()
    _refuse_other_fits(estimator.checkpoint_dir, None)
    return None


def _refuse_other_fits(checkpoint_dir, resumed_from):
    """Raise where the folder of this fit holds checkpoints, unless they are those that it goes on from."""
    from .training import checkpoints

    if checkpoint_dir is None:
        return
    files = checkpoints.CheckpointFolder(checkpoint_dir).files()
    if files and (resumed_from is None or not os.path.samefile(checkpoint_dir, resumed_from)):
        raise ValueError(
            f"checkpoint_dir={str(checkpoint_dir)!r} holds {files[-1].name} of an earlier fit, which this "
            "one would delete. Go on from it with fit(resume=True), name another folder, or delete its checkpoints."
        )


def identity(estimator, X, Y):
    """What has to agree between a checkpoint and the fit that goes on from it."""
    from .training.checkpoints import described, fingerprint

    params = estimator.get_params(deep=False)
    return {
        "class": type(estimator).__name__,
        "params": {name: described(value) for name, value in sorted(params.items()) if name not in FREE},
        "data": [fingerprint(X)] if Y is X else [fingerprint(X), fingerprint(Y)],
    }


def check_identity(header, expected):
    """Refuse a checkpoint of another fit.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    from .training.checkpoints import difference

    reason = difference(header["identity"], expected)
    if reason:
        raise ValueError(
            f"the checkpoint cannot be continued here: {reason}. Fit with the same parameters and rows, or start "
            "afresh in another checkpoint_dir (with warm_start=True to begin at what is learnt)."
        )


def save_checkpoint(estimator, progress, expected):
    """Write a checkpoint of a fit, unless a weight has stopped being finite (the next step will raise)."""
    from .training.checkpoints import CheckpointFolder, all_finite, generator_state, trainer_state

    if not all_finite(progress.trainer.weights):
        return
    arrays, numbers = trainer_state(progress.trainer)
    arrays["values"] = np.array(progress.values, dtype=np.float64).reshape(-1, 3)
    patience = progress.patience
    header = {
        "identity": expected,
        "trainer": numbers,
        "fitted": {name: getattr(estimator, name) for name in COUNTED},
        "generator": generator_state(progress.batches.drawn_from),
        "position": progress.batches.position,
        "layout": progress.batches.layout(),
        "patience": [None if np.isinf(patience.best) else patience.best, patience.waited],
        "n_iter_before": progress.n_iter_before,
        "step": progress.step,
        "finished": progress.finished,
        "versions": {name: _version(name) for name in ("skprojdict", "numpy", "torch")},
    }
    CheckpointFolder(estimator.checkpoint_dir).write(progress.step, arrays, header)


def restore(estimator, progress, arrays, header):
    """Put an estimator and its fresh progress into the state of a checkpoint."""
    from .training.checkpoints import generator_from, restore_trainer

    if header.get("layout") != progress.batches.layout():
        raise ValueError(
            "the checkpoint cannot be continued here: its rows were read in another order, from an array or from "
            "shards of other sizes. Pass the rows as before, or start afresh in another checkpoint_dir (with "
            "warm_start=True to begin at what is learnt)."
        )
    restore_trainer(progress.trainer, arrays, header["trainer"])
    progress.batches.go_on(generator_from(header["generator"]), header["position"])
    best, waited = header["patience"]
    progress.patience.best, progress.patience.waited = np.inf if best is None else best, waited
    progress.values = [tuple(row) for row in arrays["values"].tolist()]
    progress.n_iter_before, progress.step = header["n_iter_before"], header["step"]
    progress.finished = header["finished"]


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None
