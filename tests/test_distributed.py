# SPDX-License-Identifier: BSD-3-Clause
"""Two gloo processes learn what one process learns from the same batches; one that dies takes nothing with it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)
from skprojdict.training import distributed
from skprojdict.training.distributed import LostRankError, Ranks

from .data import sparse_rows

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not distributed.dist.is_available(), reason="needs os.fork and torch.distributed"
)

# A batch of 61 rows: one process takes 30, the other 31. Features are dead soon, so that AuxK has work.
SMALL = {"n_components": 64, "n_nonzero_coefs": 3, "max_steps": 12, "batch_size": 61, "dead_after": 60}
FORMS = {
    "topk": (TopKDictionaryLearning, {}),
    "topk tied": (TopKDictionaryLearning, {"tied": True, "random_state": 3}),
    "batch topk": (TopKDictionaryLearning, {"selection": "batch", "prefix_sizes": (8, 16)}),
    "relu": (ReLUDictionaryLearning, {"prefix_sizes": (8, 16)}),
    "jumprelu": (JumpReLUDictionaryLearning, {}),
    "gated": (GatedDictionaryLearning, {"alpha": 0.1}),
    "exact": (ProjectiveDictionaryLearning, {}),
    "prefixes": (ProjectiveDictionaryLearning, {"prefix_sizes": (8, 16), "overlap_penalty": 0.01, "n_refinements": 1}),
    "penalize": (ProjectiveDictionaryLearning, {"penalty": "inverse_square", "quota": "penalize"}),
    "threshold": (ProjectiveDictionaryLearning, {"selection": "threshold"}),
    "metric": (ProjectiveDictionaryLearning, {"tied": "metric"}),
    "adaptive": (ProjectiveDictionaryLearning, {"selection": "adaptive"}),
    "second view": (ProjectiveDictionaryLearning, {"target": "y", "max_iter": 3}),
    "shards": (TopKDictionaryLearning, {}),
    "any seed": (TopKDictionaryLearning, {"random_state": None}),
}


def make(form, **options):
    Estimator, own = FORMS[form]
    return Estimator(**{**SMALL, "random_state": 0, **own, **options})


def data(form, folder):
    X = sparse_rows(n=300, d=8, p=24, k=3)
    if form == "shards":
        return [folder / "a.npy", folder / "b.npy"], None
    return X, 2 * X[:, :5]


def save_shards(folder):
    X, _ = data("topk", folder)
    np.save(folder / "a.npy", X[:130])
    np.save(folder / "b.npy", X[130:])


def fitted(model):
    """What was learnt, as plain numbers."""
    named = {name: value for name, value in vars(model).items() if name.endswith("_") and name != "history_"}
    named |= {f"history.{name}": series for name, series in model.history_.items()}
    return {name: np.asarray(value).tolist() for name, value in named.items()}


def run_ranks(work, folder, size=2, timeout=250):
    """Run ``work(rank, folder)`` of this module in forked processes of one gloo group; exit codes and seconds."""
    code = f"""
import os, sys, time
from pathlib import Path
import torch
import torch.distributed as dist
import skprojdict._neural, skprojdict.training.losses, skprojdict.training.start
from tests import test_distributed as module

torch.set_num_threads(1)
folder = Path(sys.argv[1])
children = []
for rank in range({size}):
    child = os.fork()
    if not child:
        code = 1
        try:
            dist.init_process_group("gloo", init_method=f"file://{{folder}}/meeting", rank=rank, world_size={size})
            module.{work.__name__}(rank, folder)
            code = 0
        except BaseException as error:
            (folder / f"error-{{rank}}").write_text(f"{{type(error).__name__}}: {{error}}")
        finally:
            os._exit(code)
    children.append(child)
begun = time.time()
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], time.time() - begun)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr
    *codes, seconds = result.stdout.split()
    errors = {path.name: path.read_text() for path in folder.glob("error-*")}
    return [int(code) for code in codes], errors, float(seconds)


# ---- the same as one process


def do_all_that_needs_no_death(rank, folder):
    """Starting processes takes longer than what they do: one group fits every form, then meets every refusal."""
    fit_every_form(rank, folder)
    said = {}
    for refused in (fit_other_rows, fit_other_parameters, fit_a_bad_row):
        try:
            refused(rank, folder)
        except (ValueError, LostRankError) as error:  # one of its own, or one that tells of the other process's
            said[refused.__name__] = str(error)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have left what they learnt, and what they refused."""
    folder = tmp_path_factory.mktemp("ranks")
    save_shards(folder)
    codes, errors, _ = run_ranks(do_all_that_needs_no_death, folder)
    assert codes == [0, 0], errors
    return folder


def fit_every_form(rank, folder):
    results = {form: fitted(make(form).fit(*data(form, folder))) for form in FORMS}
    model = make("topk", checkpoint_dir=folder / "checkpoints", checkpoint_every=4)
    results["checkpointed"] = fitted(model.fit(data("topk", folder)[0]))
    (folder / f"{rank}.json").write_text(json.dumps(results))


def test_two_processes_learn_what_one_learns(folder):
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second  # to the last bit
    for form in FORMS:
        if form == "any seed":
            continue
        alone = fitted(make(form).fit(*data(form, folder)))
        assert first[form].keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(first[form][name], value, rtol=1e-7, atol=1e-9, err_msg=f"{form}: {name}")
    assert max(first["topk"]["history.n_dead"]) > 0
    # A checkpoint of two processes is one of one process: what it goes on to is the same to rounding.
    files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert files == ["step-000000000008.safetensors", "step-000000000012.safetensors"]
    resumed = make("topk").fit(data("topk", folder)[0], resume=folder / "checkpoints" / files[0])
    np.testing.assert_allclose(resumed.components_, first["topk"]["components_"], rtol=1e-7, atol=1e-9)


# ---- what must not happen


def fit_other_rows(rank, folder):
    X, _ = data("topk", folder)
    make("topk").fit(X + rank)


def fit_other_parameters(rank, folder):
    make("topk", max_steps=5 + rank).fit(data("topk", folder)[0])


def fit_a_bad_row(rank, folder):
    """The second process's slab of the rows has one."""
    import skprojdict.training.rows

    skprojdict.training.rows.SLAB_BYTES = 1
    X, _ = data("topk", folder)
    X[200] = np.nan
    make("topk").fit([X[:130], X[130:]])


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (fit_other_rows, "process 1 of 2 fits something else than process 0: it was trained on other rows"),
        (fit_other_parameters, "max_steps"),
        (fit_a_bad_row, "row 200 (row 70 of shard 1)"),
    ],
)
def test_both_processes_say_what_is_wrong(folder, work, message):
    for rank in (0, 1):
        assert message in json.loads((folder / f"said-{rank}.json").read_text())[work.__name__]


def die_in_the_middle(rank, folder):
    from skprojdict.training.loop import Trainer

    original = Trainer.step

    def step(self, *args, **kwargs):
        if rank == 1 and self.n_steps == 9:
            os.kill(os.getpid(), 9)
        return original(self, *args, **kwargs)

    Trainer.step = step
    make("topk", checkpoint_dir=folder / "checkpoints", checkpoint_every=4).fit(data("topk", folder)[0])


def test_a_process_that_dies_stops_the_other_and_leaves_a_good_checkpoint(tmp_path):
    codes, errors, seconds = run_ranks(die_in_the_middle, tmp_path)
    assert codes == [1, -9]
    assert errors["error-0"].startswith("LostRankError: another process of this fit has stopped")
    assert "fit(resume=True)" in errors["error-0"]
    assert seconds < 60
    X, _ = data("topk", tmp_path)
    resumed = make("topk", checkpoint_dir=tmp_path / "checkpoints", checkpoint_every=4).fit(X, resume=True)
    np.testing.assert_allclose(resumed.components_, make("topk").fit(X).components_, rtol=1e-7, atol=1e-9)


# ---- in this process


def test_a_process_alone_shares_with_nobody():
    ranks = Ranks.of_this_process()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.share(7) == slice(0, 7)
    assert ranks.from_first(lambda: 3) == ranks.together(lambda: 3) == 3
    with distributed.launched() as joined:
        assert joined.size == 1


@pytest.mark.parametrize(("n", "size"), [(7, 2), (8, 3), (3, 3), (1024, 8)])
def test_shares_of_a_batch_are_its_rows(n, size):
    rows = np.concatenate([np.arange(n)[Ranks(rank, size).share(n)] for rank in range(size)])
    np.testing.assert_array_equal(rows, np.arange(n))


def test_a_batch_has_a_row_for_every_process():
    with pytest.raises(ValueError, match="a batch of 3 rows cannot be split over 4 processes"):
        Ranks(1, 4).check_batch(3)


# ---- torchrun


def torchrun(folder, *arguments):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "skprojdict"]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *command, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_line_under_torchrun(tmp_path):
    from skprojdict.persistence import load

    save_shards(tmp_path)
    options = ["--method", "topk", "--n-components", "64", "--n-nonzero-coefs", "3", "--steps", "12"]
    begun = time.time()
    process = torchrun(tmp_path, "fit", "a.npy", "b.npy", "-o", "model.npz", *options, "--set", "batch_size=61")
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert out.count("model.npz: 64 atoms") == 1
    assert errors.count("fitting TopKDictionaryLearning on 300 rows of 8 columns, shared by 2 processes") == 1
    alone = make("shards", dead_after="auto").fit([tmp_path / "a.npy", tmp_path / "b.npy"])
    np.testing.assert_allclose(load(tmp_path / "model.npz").components_, alone.components_, rtol=1e-7, atol=1e-9)
    assert time.time() - begun < 280
