# SPDX-License-Identifier: BSD-3-Clause
"""Fits that are killed, interrupted, or refused disk and memory, each in a forked process of its own.

A trial returns ``(happened, as_promised, what)``: whether the fault struck at all, whether the outcome is the promised
one, and a word about it for the table where it is not. The parent has imported everything, so that a child costs
milliseconds; torch has one thread, so that no pool is there to be forked.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from _fault_files import arrays_of, same
from scipy import sparse

import skprojdict._base
from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.formats import container
from skprojdict.persistence import load, save
from skprojdict.training.checkpoints import CheckpointFolder

SMALL = {"n_nonzero_coefs": 3, "batch_size": 64, "random_state": 0}
FORMS = (
    (TopKDictionaryLearning, {"max_steps": 60}),
    (ProjectiveDictionaryLearning, {"max_steps": 20}),
    (GatedDictionaryLearning, {"max_steps": 40}),
    (ProjectiveDictionaryLearning, {"max_steps": 20, "penalty": "inverse_square", "quota": "normalize", "tied": True}),
    (TopKDictionaryLearning, {"max_steps": 60, "tied": True, "tol": 1e-6}),
    (JumpReLUDictionaryLearning, {"max_steps": 40}),
    (ReLUDictionaryLearning, {"max_steps": 40, "tied": True}),
)


def rows(n=400, d=12):
    rng = np.random.default_rng(7)
    return (rng.standard_normal((n, 3)) @ rng.standard_normal((3, d)) + 0.1 * rng.standard_normal((n, d))).astype("f")


def model_of(form, folder=None, every=1, **more):
    Estimator, options = FORMS[form]
    return Estimator(24, **SMALL | options | more, checkpoint_dir=folder, checkpoint_every=every)


def forked(work):
    """Process number of a child that does ``work()`` and ends; its traceback goes to standard error."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child, seconds=300):
    """``(signal, exit status)`` of a child, which is killed when it takes longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status & 127, status >> 8
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"a process took longer than {seconds} s")
        time.sleep(0.002)


def keep(model, path):
    history = {f"history {name}": np.asarray(series) for name, series in model.history_.items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays_of(model), **history)


def kept(path):
    with np.load(path) as found:
        return dict(found)


class Whole:
    """Uninterrupted fits, and how long each took."""

    def __init__(self, folder, X):
        self.folder, self.X, self.results, self.seconds = folder, X, {}, {}

    def of(self, form):
        if form not in self.results:
            path = self.folder / f"whole-{form}.npz"
            start = time.perf_counter()
            child = forked(lambda: keep(model_of(form, self.folder / f"whole-{form}").fit(self.X, resume=True), path))
            assert ended(child) == (0, 0)
            self.seconds[form], self.results[form] = time.perf_counter() - start, kept(path)
        return self.results[form]


def kill_while_training(number, whole, folder, rng):
    """SIGKILL from outside after a random time, checkpoints every few steps; then resumed."""
    form, every = number % len(FORMS), int(rng.integers(1, 6))
    expected = whole.of(form)
    checkpoints = folder / "checkpoints"
    child = forked(lambda: model_of(form, checkpoints, every).fit(whole.X, resume=True))
    time.sleep(rng.uniform(0.02, 0.9) * whole.seconds[form])
    os.kill(child, signal.SIGKILL)
    happened = ended(child)[0] == signal.SIGKILL
    return (happened, *_resumed(form, every, whole, folder, checkpoints, expected))


def kill_while_writing(number, whole, folder, rng):
    """SIGKILL by itself at a random moment of writing a checkpoint: between two of its calls to the system."""
    form = number % len(FORMS)
    expected = whole.of(form)
    checkpoints, moment = folder / "checkpoints", int(rng.integers(1, 150))
    child = forked(lambda: _fit_until(moment, model_of(form, checkpoints), whole.X))
    happened = ended(child)[0] == signal.SIGKILL
    return (happened, *_resumed(form, 1, whole, folder, checkpoints, expected))


def _fit_until(moment, model, X):
    """Fit, and be killed at the given moment, counted in calls that write checkpoints."""
    left = iter(range(moment))

    def counted(function):
        def call(*args, **kwargs):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    class System:  # only what the container asks of the system
        O_RDONLY = os.O_RDONLY
        fsync, replace, open, close = map(counted, (os.fsync, os.replace, os.open, os.close))

    container.os = System
    container._bytes = counted(container._bytes)  # called before every array that is written
    Path.unlink = counted(Path.unlink)
    model.fit(X, resume=True)


def _resumed(form, every, whole, folder, checkpoints, expected):
    result = folder / "resumed.npz"
    child = forked(lambda: keep(model_of(form, checkpoints, every).fit(whole.X, resume=True), result))
    if ended(child) != (0, 0):
        return False, "the resumed fit failed"
    left = [path.name for path in checkpoints.iterdir() if path.name.endswith(".part")]
    if left:
        return False, f"{left[0]} was left behind"
    return (True, "") if same(kept(result), expected) else (False, "other bits than the uninterrupted fit")


@contextmanager
def small_disk(folder, size):
    """A folder on a file system of ``size`` bytes (root only), or None where none can be made."""
    point = folder / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def full_disk(number, whole, folder, rng):
    """Checkpoints to a disk with room for none, one or two of them: the fit ends as without, the last one is good."""
    form = number % len(FORMS)
    expected, result = whole.of(form), folder / "result.npz"
    size = 4096 * int(rng.integers(1, 12))
    with small_disk(folder, size) as disk:
        checkpoints = (disk or folder) / "checkpoints"

        def work():
            if disk is None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, resource.RLIM_INFINITY))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = model_of(form, checkpoints).fit(whole.X)
            if disk is None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            keep(model, result)
            os._exit(7 if any("could not be written" in str(warning.message) for warning in caught) else 0)

        status = ended(forked(work))[1]
        if status not in (0, 7) or not same(kept(result), expected):
            return status == 7, False, "the fit did not end as without checkpoints"
        if checkpoints.is_dir() and any(path.name.endswith(".part") for path in checkpoints.iterdir()):
            return status == 7, False, "half a file was left behind"
        if checkpoints.is_dir() and CheckpointFolder(checkpoints).files():
            outside = folder / "moved"
            shutil.copytree(checkpoints, outside)
            return (status == 7, *_resumed(form, 1, whole, folder, outside, expected))
    return status == 7, True, ""


def full_disk_at_save(number, whole, folder, rng):
    """``save`` over an older file on a full disk: an OSError, and the older file is still good."""
    model = model_of(0).fit(whole.X)
    name = ("model.safetensors", "model.npz")[number % 2]
    save(model, folder / name)
    size = (folder / name).stat().st_size
    with small_disk(folder, 4096 * (size // 4096 + 2)) as disk:
        if disk is None:
            return False, True, "needs root"
        save(model, disk / name)
        other = model_of(0, random_state=1).fit(whole.X)
        try:
            save(other, disk / name, overwrite=True)
        except OSError:
            good = same(arrays_of(load(disk / name)), arrays_of(model))
            alone = [path.name for path in disk.iterdir()] == [name]
            return True, good and alone, "" if good and alone else "the older file is gone or half a file is there"
    return False, True, "it fitted"


def interrupt(number, whole, folder, rng):
    """SIGINT after a random time: the estimator holds unit atoms that score, and goes on."""
    form = number % len(FORMS)
    whole.of(form)

    def work():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background
        model = model_of(form, folder / "checkpoints", 3)
        try:
            model.fit(whole.X)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        else:
            os._exit(8)
        if not hasattr(model, "components_"):
            os._exit(9)  # before there was anything to keep
        norms = np.linalg.norm(model.components_, axis=1)
        steps = model.history_["step"][-1] if model.history_["step"] else 0
        sound = np.allclose(norms, 1, atol=1e-5) and np.isfinite(model.score(whole.X)) and model.n_steps_ == steps
        model.partial_fit(whole.X[:64])
        os._exit(0 if sound else 1)

    child = forked(work)
    time.sleep(rng.uniform(0.05, 0.8) * whole.seconds[form])
    os.kill(child, signal.SIGINT)
    died, status = ended(child)
    return status == 0 and not died, status in (0, 8, 9) and not died, f"exit status {status}, signal {died}"


def short_memory(number, whole, folder, rng):
    """A limit on the address space that a chunk of scores does not fit: smaller chunks, said, and the same codes."""
    # Chunks of 128 MiB: the 64 that the C library sets aside for a thread would hold one of the usual size, unseen.
    n, p = 8192, 4096
    X = np.random.default_rng(0).standard_normal((n, 16)).astype("f")
    model = TopKDictionaryLearning(p, n_nonzero_coefs=3, max_steps=1, batch_size=64, random_state=0).fit(X[:256])
    model.set_params(sparse_output=True)
    expected = sparse.vstack([model.transform(part) for part in np.split(X, 64)], format="csr")
    room = int(rng.integers(24, 60)) * 2**20

    def work():
        skprojdict._base.SCORE_BYTES = 2 * 4 * n * p
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + room, resource.RLIM_INFINITY))
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                codes = model.transform(X)
        except MemoryError:
            os._exit(9)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said = any("memory ran out" in str(warning.message) for warning in caught)
        equal = (codes.indices == expected.indices).all() and abs(codes - expected).max() < 1e-4
        os._exit((7 if said else 8) if equal else 1)

    died, status = ended(forked(work))
    what = {7: "smaller chunks", 8: "it fitted", 9: "MemoryError"}.get(status, f"exit status {status}, signal {died}")
    return status in (7, 9), status in (7, 8, 9), what


def trial(function, number, whole, seed=0):
    """Run one trial in a folder of its own."""
    rng = np.random.default_rng([seed, number])
    with tempfile.TemporaryDirectory(prefix="skprojdict-fault-", dir=whole.folder) as folder:
        return function(number, whole, Path(folder), rng)


def prepare():
    """Load what a fit loads, and keep torch to one thread, before the first fork."""
    torch.set_num_threads(1)
    model_of(1).set_params(max_steps=1).fit(rows(64))
