# SPDX-License-Identifier: BSD-3-Clause
"""A fit that is killed, interrupted or refused by the disk loses nothing: resumed, it is the same to the last bit."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.formats import container
from skprojdict.training.checkpoints import CheckpointFolder
from skprojdict.training.loop import NonFiniteLossError, Trainer
from skprojdict.training.weights import Weights

from .data import sparse_rows

SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "max_steps": 25, "batch_size": 64, "dead_after": 100}
FORMS = {
    "topk": (TopKDictionaryLearning, {}),
    "topk tied": (TopKDictionaryLearning, {"tied": True}),
    "batch topk": (TopKDictionaryLearning, {"selection": "batch", "prefix_sizes": (8, 16)}),
    "relu": (ReLUDictionaryLearning, {"prefix_sizes": (8, 16)}),
    "jumprelu": (JumpReLUDictionaryLearning, {}),
    "gated": (GatedDictionaryLearning, {"tied": True}),
    "exact": (ProjectiveDictionaryLearning, {}),
    "refined": (
        ProjectiveDictionaryLearning,
        {"n_refinements": 1, "prefix_sizes": (8, 16), "overlap_penalty": 0.01, "max_steps": 13},
    ),
    "importance": (ProjectiveDictionaryLearning, {"penalty": "inverse_square", "quota": "normalize"}),
    "threshold": (ProjectiveDictionaryLearning, {"selection": "threshold"}),
    "metric": (ProjectiveDictionaryLearning, {"tied": "metric"}),
    "adaptive": (ProjectiveDictionaryLearning, {"selection": "adaptive"}),
    "second view": (ProjectiveDictionaryLearning, {"target": "y"}),
    "stops by itself": (TopKDictionaryLearning, {"tol": 0.9, "max_steps": 100}),
}
X = sparse_rows(n=300).astype(np.float32)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def make(form="topk", *, folder=None, every=4, random_state=0, **options):
    Estimator, own = FORMS[form]
    return Estimator(**SMALL | own | options, checkpoint_dir=folder, checkpoint_every=every, random_state=random_state)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def stop_at(monkeypatch):
    """Interrupt training before its n-th step in this process."""

    def stop(n, error=KeyboardInterrupt):
        original, done = Trainer.step, iter(range(n))

        def step(*args, **kwargs):
            if next(done, None) is None:
                monkeypatch.setattr(Trainer, "step", original)
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(Trainer, "step", step)

    return stop


def interrupted(model, stop_at, n, *args):
    stop_at(n)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, *args)


def assert_same(one, other):
    fitted = {name for name in vars(one) if name.endswith("_")}
    assert fitted == {name for name in vars(other) if name.endswith("_")}
    for name in fitted:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)
    assert one.history_ == other.history_


# ---- the same to the last bit


@pytest.mark.parametrize(
    ("form", "at"), [*((form, 11) for form in FORMS), ("topk", 2), ("topk", 5), ("topk", 16), ("topk", 24)]
)
def test_a_resumed_fit_is_the_uninterrupted_one(form, at, folder, stop_at):
    """Before the first checkpoint, in the middle of a pass, and with a checkpoint that is just written."""
    y = X[:, :5] * 2 if form == "second view" else None
    whole = make(form).fit(X, y)
    interrupted(make(form, folder=folder), stop_at, at, y)
    assert len(CheckpointFolder(folder).files()) == min(2, at // 4)
    assert_same(make(form, folder=folder).fit(X, y, resume=True), whole)


@pytest.mark.parametrize("every", [1, 3, 4, 8, 9])
def test_checkpoints_where_passes_and_iterations_end(every, folder, stop_at):
    """A pass of 300 rows is 4 steps, and so is an iteration."""
    whole = make().fit(X)
    for at in (3, 9, 2):  # interrupted again and again; each time it goes on from the newest checkpoint
        stop_at(at)
        with pytest.raises(KeyboardInterrupt):
            make(folder=folder, every=every).fit(X, resume=True)
    assert_same(make(folder=folder, every=every).fit(X, resume=True), whole)


def test_a_finished_fit_comes_back_without_a_step(folder, stop_at):
    whole = make(folder=folder).fit(X)
    stop_at(0)
    assert_same(make(folder=folder).fit(X, resume=True), whole)


def test_writing_checkpoints_changes_nothing(folder):
    assert_same(make(folder=folder).fit(X), make().fit(X))


@pytest.mark.parametrize("given", [None, "instance"])
def test_generators_go_on_where_they_were(given, folder, stop_at):
    def seed():
        np.random.seed(3)  # noqa: NPY002 - random_state=None draws from NumPy's global generator
        return None if given is None else np.random.RandomState(5)

    whole = make(random_state=seed()).fit(X)
    interrupted(make(folder=folder, random_state=seed()), stop_at, 22)
    np.random.seed(99)  # noqa: NPY002
    later = None if given is None else np.random.RandomState(99)
    assert_same(make(folder=folder, random_state=later).fit(X, resume=True), whole)


def test_warm_starts_resume_too(folder, stop_at):
    def once(**options):
        return make(warm_start=True, **options).fit(X)

    whole = once().set_params(random_state=1).fit(X)
    model = once()
    model.set_params(random_state=1, checkpoint_dir=folder)
    interrupted(model, stop_at, 22)
    fresh = make(warm_start=True, folder=folder, random_state=1)
    assert_same(fresh.fit(X, resume=True), whole)


def test_float64_and_torch(folder, stop_at):
    torch = pytest.importorskip("torch")
    import sklearn

    rows = torch.from_numpy(X.astype(np.float64))
    with sklearn.config_context(array_api_dispatch=True):
        whole = make().fit(rows)
        stop_at(10)
        with pytest.raises(KeyboardInterrupt):
            make(folder=folder).fit(rows)
        resumed = make(folder=folder).fit(rows, resume=True)
    assert resumed.components_.dtype == torch.float64
    assert torch.equal(resumed.components_, whole.components_)
    assert torch.equal(resumed.encoder_bias_, whole.encoder_bias_)


def test_resume_takes_a_file_or_a_folder(folder, stop_at):
    whole = make().fit(X)
    interrupted(make(folder=folder), stop_at, 22)
    older, newer = CheckpointFolder(folder).files()
    assert [older.name, newer.name] == [f"step-{n:012d}.safetensors" for n in (16, 20)]
    for where in (older, str(newer), folder):
        assert_same(make().fit(X, resume=where), whole)
    assert CheckpointFolder(folder).files() == [older, newer]


# One process that has loaded everything forks all that is to be killed or refused the disk.
FORKING = """
import os, resource, signal, sys, time, warnings
import numpy as np
import torch
import skprojdict._neural, skprojdict.training.losses, skprojdict.training.start
from skprojdict import TopKDictionaryLearning

torch.set_num_threads(1)  # so that no thread pool is there to be forked
os.chdir(sys.argv[1])


def start(name):
    child = os.fork()
    if child:
        return child
    options = {"max_steps": 60, "batch_size": 64, "random_state": 0, "checkpoint_dir": name, "checkpoint_every": 1}
    model = TopKDictionaryLearning(32, n_nonzero_coefs=3, **options)
    model.fit(np.load("rows.npy"), resume=True)
    np.savez(name, components=model.components_, bias=model.encoder_bias_, loss=model.history_["loss"])
    os._exit(0)


begun = time.perf_counter()
assert os.waitpid(start("whole"), 0)[1] == 0
seconds = time.perf_counter() - begun
rng = np.random.default_rng(0)
killed = 0
for _ in range(4):
    child = start("killed")
    time.sleep(rng.uniform(0.05, 0.4) * seconds)
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
assert os.waitpid(start("killed"), 0)[1] == 0
whole, resumed = np.load("whole.npz"), np.load("killed.npz")
same = all(np.array_equal(whole[name], resumed[name]) for name in whole)
print(killed, same, [name for name in os.listdir("killed") if name.endswith(".part")], flush=True)

X = np.load("rows.npy")
options = {"max_steps": 12, "batch_size": 64, "random_state": 0, "checkpoint_every": 4}
whole = TopKDictionaryLearning(32, n_nonzero_coefs=3, **options).fit(X)
model = TopKDictionaryLearning(32, n_nonzero_coefs=3, checkpoint_dir="full", **options)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.fit(X)
said = "could not be written" in str(caught[0].message)
print(len(caught), np.array_equal(model.components_, whole.components_), said)
"""


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """The folder of that process, and the lines that it printed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork and RLIMIT_FSIZE")
    folder = tmp_path_factory.mktemp("forked")
    np.save(folder / "rows.npy", X)
    command = [sys.executable, "-c", FORKING, str(folder)]
    result = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout.splitlines()


def test_sigkill_at_any_moment_loses_nothing(forked):
    """Four random moments, a checkpoint every step; benchmarks/faults.py does fifty."""
    killed, same, left = forked[1][0].split(maxsplit=2)
    assert int(killed) >= 1
    assert (same, left.strip()) == ("True", "[]")


# ---- what must not be continued


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, r"trained with learning_rate='auto', now learning_rate=0\.5"),
        ({"random_state": 1}, "trained with random_state=0, now random_state=1"),
        ({"max_steps": 50}, "trained with max_steps=25, now max_steps=50"),
        ({"init": np.eye(32, 16)}, "trained with init='random', now init='[0-9a-f]{16}'"),
    ],
)
def test_other_parameters_are_refused(change, message, folder, stop_at):
    interrupted(make(folder=folder), stop_at, 22)
    with pytest.raises(ValueError, match=rf"cannot be continued here: .*{message}"):
        make(folder=folder).set_params(**change).fit(X, resume=True)


def test_another_estimator_is_refused(folder, stop_at):
    interrupted(make(folder=folder), stop_at, 22)
    with pytest.raises(ValueError, match="is of a TopKDictionaryLearning, not of a ProjectiveDictionaryLearning"):
        make("exact", folder=folder).fit(X, resume=True)


@pytest.mark.parametrize("other", [X[:-1], X[::-1], X * 2, X.astype(np.float64)], ids=["n", "order", "unit", "dtype"])
def test_other_rows_are_refused(other, folder, stop_at):
    interrupted(make(folder=folder), stop_at, 22)
    with pytest.raises(ValueError, match="it was trained on other rows"):
        make(folder=folder).fit(other, resume=True)


def test_parameters_that_move_nothing_may_change(folder, stop_at):
    whole = make().fit(X)
    interrupted(make(folder=folder), stop_at, 22)
    resumed = make(folder=folder, every=7, sparse_output=True, device="cpu").fit(X, resume=True)
    np.testing.assert_array_equal(resumed.components_, whole.components_)


def test_a_fresh_fit_does_not_delete_the_checkpoints_of_another(folder, stop_at):
    interrupted(make(folder=folder), stop_at, 22)
    files = CheckpointFolder(folder).files()
    with pytest.raises(ValueError, match=r"holds step-000000000020\.safetensors of an earlier fit.*resume=True"):
        make(folder=folder).fit(X)
    assert CheckpointFolder(folder).files() == files


def test_resuming_elsewhere_does_not_delete_the_checkpoints_of_another(folder, stop_at):
    """Also where it goes on from a path: the folder that it writes to may hold another fit."""
    interrupted(make(folder=folder / "one"), stop_at, 22)
    interrupted(make(folder=folder / "other", random_state=1), stop_at, 22)
    files = CheckpointFolder(folder / "one").files()
    for resume in (folder / "other", CheckpointFolder(folder / "other").files()[0]):
        with pytest.raises(ValueError, match=r"holds step-000000000020\.safetensors of an earlier fit"):
            make(folder=folder / "one", random_state=1).fit(X, resume=resume)
    assert CheckpointFolder(folder / "one").files() == files


def test_later_checkpoints_do_not_push_out_new_ones(folder, stop_at):
    """Resumed by name from an old one: what is written next is not the first to be deleted."""
    interrupted(make(folder=folder, every=10), stop_at, 22)
    whole = make().fit(X)
    oldest = CheckpointFolder(folder).files()[0]
    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        make(folder=folder, every=1).fit(X, resume=oldest)
    steps = [int(path.stem.partition("-")[2]) for path in CheckpointFolder(folder).files()]
    assert steps == [14, 15, 20]
    assert_same(make(folder=folder, every=1).fit(X, resume=True), whole)


def test_resume_needs_somewhere_to_look(tmp_path):
    with pytest.raises(ValueError, match=r"resume=True goes on .* checkpoint_dir, which is None"):
        make().fit(X, resume=True)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        make().fit(X, resume=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        make().fit(X, resume=tmp_path / "none.safetensors")


def test_generators_that_cannot_be_kept_are_refused(folder):
    rng = np.random.RandomState(np.random.PCG64(0))
    with pytest.raises(TypeError, match=r"PCG64.*Pass a whole number as random_state"):
        make(folder=folder, random_state=rng).fit(X)


# ---- damage


def test_a_damaged_checkpoint_leaves_the_one_before(folder, stop_at):
    whole = make().fit(X)
    interrupted(make(folder=folder), stop_at, 22)
    newest = CheckpointFolder(folder).files()[-1]
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"step-000000000020.* Going on from the checkpoint before it"):
        resumed = make(folder=folder).fit(X, resume=True)
    assert_same(resumed, whole)


def test_damaged_checkpoints_alone_are_an_error_and_not_a_fresh_start(folder, stop_at):
    interrupted(make(folder=folder), stop_at, 6)
    (only,) = CheckpointFolder(folder).files()
    content = bytearray(only.read_bytes())
    content[-100] ^= 1
    only.write_bytes(content)
    with pytest.raises(ValueError, match=r"was altered: the checksum of"):
        make(folder=folder).fit(X, resume=True)


def test_files_of_another_kind_are_refused(tmp_path):
    container.write(tmp_path / "other.safetensors", {"a": np.zeros(3)}, {"format": "something"})
    with pytest.raises(ValueError, match="is a something file and no checkpoint"):
        make().fit(X, resume=tmp_path / "other.safetensors")


def test_a_later_format_is_refused(folder, stop_at):
    interrupted(make(folder=folder), stop_at, 6)
    (path,) = CheckpointFolder(folder).files()
    arrays, header = container.read(path)
    container.write(path, arrays, {**header, "format_version": 2})
    with pytest.raises(ValueError, match="checkpoint format version 2; this skprojdict reads 1"):
        make(folder=folder).fit(X, resume=True)


# ---- a hand on the keyboard


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
@pytest.mark.parametrize("spoiled", [False, True])
def test_ctrl_c_in_the_middle_of_a_step_leaves_a_sound_state(fit, spoiled, monkeypatch):
    """Between the optimiser's step and the renormalisation, where atoms have any norm; or where they are spoiled."""
    import torch

    def interrupt(self):
        monkeypatch.undo()
        if spoiled:
            with torch.no_grad():
                self.bias[0] = float("nan")
        torch.set_grad_enabled(False)  # as where the interrupt meets a context manager of torch's
        raise KeyboardInterrupt

    model = make(max_steps=12)
    if fit == "partial_fit":
        model.partial_fit(X)
    original, calls = Weights.renormalise, iter(range(6 if fit == "fit" else 0))
    step = lambda self: interrupt(self) if next(calls, None) is None else original(self)  # noqa: E731
    monkeypatch.setattr(Weights, "renormalise", step)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, fit)(X)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-6)
    assert np.isfinite(model.encoder_bias_).all()
    assert np.isfinite(model.score(X))
    assert len(model.history_["step"]) == {"fit": 2, "partial_fit": 1}[fit]
    assert torch.is_grad_enabled()
    model.partial_fit(X)  # and training goes on


def test_a_fit_computes_its_gradients_where_others_are_off():
    import torch

    with torch.no_grad():
        model = make().fit(X)
    assert_same(model, make().fit(X))


def test_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(folder, monkeypatch):
    whole, calls = make().fit(X), iter(range(2))
    original = os.fsync

    def fsync(descriptor):
        if next(calls, None) is None:
            monkeypatch.undo()
            raise KeyboardInterrupt
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        make(folder=folder).fit(X)
    assert [path.name for path in folder.iterdir()] == ["step-000000000004.safetensors"]
    assert_same(make(folder=folder).fit(X, resume=True), whole)


# ---- disks and numbers that fail


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(folder, monkeypatch):
    whole = make(folder=folder / "whole").fit(X)
    original, calls = container.write, []

    def full(path, arrays, header):
        calls.append(path)
        if len(calls) in (3, 4):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, arrays, header)

    monkeypatch.setattr(container, "write", full)
    with pytest.warns(UserWarning, match=r"No space left.*training goes on.*step-000000000008\.safetensors"):
        model = make(folder=folder / "full").fit(X)
    assert_same(model, whole)
    assert len(CheckpointFolder(folder / "full").files()) == 2


def test_a_disk_that_refuses_is_met_in_the_middle_of_a_file(forked):
    """The system itself says no after 10 kB: training ends as without checkpoints, and no half of a file stays."""
    folder, lines = forked
    assert lines[1].split() == ["3", "True", "True"]
    assert list((folder / "full").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"there is no checkpoint yet.*Make room in checkpoint_dir"):
        make(folder=tmp_path / "file" / "below").fit(X)


def test_what_a_killed_writer_left_is_swept(folder):
    folder.mkdir()
    (folder / ".step-000000000004.safetensors.0123abcd.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    make(folder=folder).fit(X)
    names = {path.name for path in folder.iterdir()}
    assert names == {"notes.txt", "step-000000000024.safetensors", "step-000000000025.safetensors"}


def test_spoiled_weights_never_become_a_checkpoint(folder, monkeypatch):
    import torch

    original = Trainer.step

    def step(self, *args, **kwargs):
        values = original(self, *args, **kwargs)
        if self.n_steps == 10:
            with torch.no_grad():
                self.weights.bias[0] = float("nan")
        return values

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(NonFiniteLossError):
        make("importance", folder=folder, every=1).fit(X)
    _, header = CheckpointFolder(folder).newest()
    assert header["step"] == 9
