# SPDX-License-Identifier: BSD-3-Clause
"""Faults of the data and of other processes: rows that are not finite, shards that are gone, ranks that die."""

import importlib.util
import os
import subprocess
import sys
import time

import numpy as np
from _fault_trials import ended, forked, model_of

from skprojdict.sources import open_rows, rows
from skprojdict.training.checkpoints import CheckpointFolder


class Skip(Exception):
    """Why a fault cannot be injected here."""


def shards(X, folder, n=4):
    paths = []
    for number, part in enumerate(np.array_split(X, n)):
        paths.append(folder / f"shard-{number}.npy")
        np.save(paths[-1], part)
    return paths


def estimators_take_shards(X, folder):
    """Whether ``fit`` reads lists of files; where it does not yet, the reader itself is tried."""
    if "fit" not in _capable:
        try:
            model_of(0, max_steps=1).fit([str(path) for path in shards(X, folder)])
            _capable["fit"] = True
        except (ValueError, TypeError):
            _capable["fit"] = False
    return _capable["fit"]


_capable: dict[str, bool] = {}


def bad_rows(number, whole, folder, rng):
    """One entry of one row is NaN or infinite; whoever is shown the rows names that row."""
    X = whole.X.copy()
    row = int(rng.integers(len(X)))
    X[row, rng.integers(X.shape[1])] = rng.choice([np.nan, np.inf, -np.inf])
    kind = ("array", "memory map", "float16", "transform", "score", "shards", "float64")[number % 7]
    path = folder / "rows.npy"
    try:
        if kind in ("transform", "score"):
            if "model" not in _models:
                _models["model"] = model_of(0, max_steps=3).fit(whole.X)
            getattr(_models["model"], kind)(X)
        elif kind == "memory map":
            np.save(path, X)
            model_of(number % 3, max_steps=3).fit(np.load(path, mmap_mode="r"))
        elif kind == "shards":
            capable = estimators_take_shards(whole.X, folder)
            paths = [str(shard) for shard in shards(X, folder)]
            if capable:
                model_of(0, max_steps=60).fit(paths)
            else:
                for _ in zip(range(30), rows(paths, 64, random_state=0), strict=False):
                    pass
        else:
            model_of(number % 3, max_steps=3).fit(X.astype({"float16": "e", "float64": "d"}.get(kind, "f")))
    except ValueError as error:
        named = f"row {row}" in str(error) or f"row is {row} " in str(error)
        return True, named, "" if named else f"{kind}: the row is not named: {str(error)[:120]}"
    return True, False, f"{kind}: nobody noticed"


_models: dict = {}


def lost_shards(number, whole, folder, rng):
    """A shard is deleted or cut short: before it is opened, after that, or while batches are drawn from it."""
    paths = shards(whole.X, folder)
    lost = paths[rng.integers(len(paths))]
    moment = ("before", "after opening", "while reading")[number % 3]

    def damage():
        if rng.integers(2):
            lost.unlink()
        else:
            lost.write_bytes(lost.read_bytes()[: int(rng.integers(lost.stat().st_size - 4))])

    def work():
        # In a process of its own: where a file that is mapped into memory is cut short, the system sends a signal.
        names = [str(path) for path in paths]
        try:
            if moment == "before":
                damage()
            source = open_rows(names)
            if moment == "after opening":
                damage()
            drawn = rows(source, 50, random_state=int(rng.integers(100)))
            for i, batch in zip(range(24), drawn, strict=False):
                if moment == "while reading" and i == 3:
                    damage()
                if not any(np.array_equal(batch[0], row) for row in whole.X):
                    os._exit(1)
        except (OSError, ValueError) as error:
            os._exit(7 if lost.name in str(error) else 1)
        os._exit(8)

    died, status = ended(forked(work))
    if status == 8 and not died:  # pages that were mapped before a file is deleted stay readable
        return False, True, f"{moment}: read to the end from what was open"
    what = f"{moment}: exit status {status}, signal {died}"
    return True, status == 7 and not died, "" if status == 7 and not died else what


RANK = """
import os, signal, sys
import numpy as np
import torch, torch.distributed as dist
from skprojdict import TopKDictionaryLearning
from skprojdict.training.loop import Trainer

torch.set_num_threads(1)
dist.init_process_group("gloo")
original, done = Trainer.step, [0]

def step(self, *args, **kwargs):
    done[0] += 1
    if dist.get_rank() == 1 and done[0] == int(sys.argv[2]):
        open(sys.argv[1] + "/killed", "w").close()  # when it was done
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)

Trainer.step = step
options = {"max_steps": 200, "batch_size": 64, "random_state": 0, "checkpoint_dir": sys.argv[1] + "/checkpoints"}
TopKDictionaryLearning(24, n_nonzero_coefs=3, checkpoint_every=5, **options).fit(np.load(sys.argv[1] + "/rows.npy"))
"""


def dead_rank(number, whole, folder, rng):
    """Rank 1 of 2 is killed at a random step: torchrun and the other end within a minute; the checkpoint is good."""
    if importlib.util.find_spec("skprojdict.training.distributed") is None:
        raise Skip("this version trains in one process")
    np.save(folder / "rows.npy", whole.X)
    (folder / "rank.py").write_text(RANK)
    step = int(rng.integers(8, 60))
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*run, "--standalone", str(folder / "rank.py"), str(folder), str(step)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return True, False, "still running after 4 minutes"
    killed = folder / "killed"
    seconds = time.time() - killed.stat().st_mtime if killed.exists() else 0.0
    found = CheckpointFolder(folder / "checkpoints").newest()
    if found is None:
        return False, False, f"no checkpoint: {errors.strip().splitlines()[-1:]}"
    good = found[1]["step"] >= 5 * ((step - 1) // 5) - 5 and process.returncode != 0
    return killed.exists(), good and seconds < 60, f"ended within {20 * (1 + int(seconds // 20))} s of the kill"
