# SPDX-License-Identifier: BSD-3-Clause
"""The command line as a person uses it: results, files, and one clear line for whatever is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import skprojdict.cli.compare
import skprojdict.cli.files
from skprojdict import ProjectiveDictionaryLearning, ReLUDictionaryLearning, TopKDictionaryLearning
from skprojdict.cli import main, steps
from skprojdict.cli.parser import METHODS
from skprojdict.crosscoders import LayerStacker
from skprojdict.datasets import make_sparse_features
from skprojdict.metrics import fraction_of_variance_unexplained
from skprojdict.persistence import load, save

ROOT = Path(__file__).parents[1]
X = make_sparse_features(400, n_features=10, n_components=16, n_nonzero=2, random_state=0).X.astype(np.float16)
FIT = ["--n-components", "16", "--n-nonzero-coefs", "2", "--steps", "20"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder with a file of rows in it."""
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", X)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Return the path of a model that the command line fitted."""
    folder = tmp_path_factory.mktemp("fitted")
    np.save(folder / "rows.npy", X)
    assert main(["fit", str(folder / "rows.npy"), "-o", str(folder / "model.npz"), *FIT]) == 0
    return folder / "model.npz"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(capsys, arguments):
    """Return the one line on standard error of a command that must exit with 2."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse's own way
        code = error.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = captured.err.strip().splitlines()
    assert "error:" in lines[-1]
    return lines[-1]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("projective", ["--steps", "20"]),
        ("topk", ["--steps", "20"]),
        ("topk", ["--steps", "20", "--set", "selection=batch"]),
        ("relu", ["--steps", "20"]),
        ("jumprelu", ["--steps", "20"]),
        ("gated", ["--steps", "20"]),
        ("mod", ["--set", "max_iter=2"]),
    ],
)
def test_fit_transform_and_score_agree_with_the_estimator(folder, capsys, monkeypatch, method, options):
    monkeypatch.setattr(skprojdict.cli.files, "SLAB_BYTES", 10_000)  # several slabs, as for a large file
    assert main(["fit", "rows.npy", "-o", "m.npz", "--method", method, *FIT[:4], *options]) == 0
    model = load("m.npz")
    assert model.components_.shape == (16, 10)
    assert main(["transform", "m.npz", "rows.npy", "-o", "codes.npy"]) == 0
    assert main(["transform", "m.npz", "rows.npy", "-o", "codes.npz", "--sparse"]) == 0
    expected = model.transform(X)
    codes = np.load("codes.npy", allow_pickle=False)
    assert codes.dtype == expected.dtype
    assert_allclose(codes, expected, atol=1e-5)
    assert_array_equal(sparse.load_npz("codes.npz").toarray(), codes)
    capsys.readouterr()
    assert main(["score", "m.npz", "rows.npy"]) == 0
    lines = dict(line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines())
    lines = {name.strip(): value.strip() for name, value in lines.items()}
    fvu = fraction_of_variance_unexplained(X, model.inverse_transform(expected))
    assert_allclose(float(lines["FVU"]), fvu, rtol=1e-4)
    assert_allclose(float(lines["L0"]), (expected != 0).sum(axis=1).mean(), rtol=1e-4)
    assert lines["unused atoms"] == f"{int((expected == 0).all(axis=0).sum())} of 16"
    assert files(folder) == ["codes.npy", "codes.npz", "m.npz", "rows.npy"]


def test_the_command_line_fits_what_python_fits(fitted):
    expected = ProjectiveDictionaryLearning(16, n_nonzero_coefs=2, max_steps=20, random_state=0).fit(X)
    assert_array_equal(load(fitted).components_, expected.components_)


def test_shards_in_and_codes_as_shards_out(folder, capsys):
    from safetensors.numpy import save_file

    from skprojdict.sources import read_codes

    np.save("a.npy", X[:150])
    save_file({"acts": X[150:], "other": X[:3]}, "b.safetensors")
    files_of_rows = ["a.npy", "b.safetensors::acts"]
    assert main(["fit", *files_of_rows, "-o", "m.npz", *FIT]) == 0
    model = load("m.npz")
    expected = ProjectiveDictionaryLearning(16, n_nonzero_coefs=2, max_steps=20, random_state=0)
    assert_array_equal(model.components_, expected.fit(files_of_rows).components_)
    arguments = ["transform", "m.npz", *files_of_rows, "-o", "codes", "--rows-a-shard", "180"]
    assert main(arguments) == 0
    assert "codes: codes of 400 rows, 16 atoms, 3 shards" in capsys.readouterr().out
    codes = np.concatenate([shard.toarray() for shard in read_codes("codes")])
    assert_allclose(codes, model.transform(X), atol=1e-5)
    assert "codes: holds codes; use --resume to complete them" in refusal(capsys, arguments)
    Path("codes/codes-000001.npz").unlink()
    assert main([*arguments, "--resume"]) == 0
    assert sum(shard.shape[0] for shard in read_codes("codes")) == 400
    assert main(["transform", "m.npz", *files_of_rows, "-o", "codes.npy"]) == 0
    assert_allclose(np.load("codes.npy"), codes, atol=1e-5)
    capsys.readouterr()
    assert main(["score", "m.npz", *files_of_rows]) == 0
    assert float(capsys.readouterr().out.split()[3]) == pytest.approx(1 - model.score(X), abs=1e-4)
    assert main(["fit", "rows.npy", "--stream", "-o", "streamed.npz", *FIT]) == 0
    assert_array_equal(load("streamed.npz").components_, expected.fit(["rows.npy"]).components_)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "rows.npy", "none.npy", "-o", "m.npz"], "none.npy: no such file"),
        (["fit", "rows.npy", "bad.npy", "-o", "m.npz"], "row 403 (row 3 of bad.npy) is the first"),
        (["transform", "MODEL", "bad.npy", "--rows-a-shard", "9", "-o", "rows.npy"], "rows.npy: is a file"),
        (["transform", "MODEL", "rows.npy", "--resume", "-o", "c"], "--resume: completes a folder of shards"),
        (["transform", "MODEL", "rows.npy", "bad.npy", "-o", "c.npy"], "row 403 (row 3 of bad.npy) is the first"),
    ],
    ids=" ".join,
)
def test_bad_shards_get_one_line_that_names_them(folder, capsys, fitted, arguments, message):
    np.save("bad.npy", np.where(np.arange(10)[:, None] == 3, np.nan, X[:10]))
    assert message in refusal(capsys, [str(fitted) if word == "MODEL" else word for word in arguments])
    assert files(folder) == ["bad.npy", "rows.npy"]


def test_any_parameter_can_be_set(folder):
    options = ["--set", "n_refinements=1", "--set", "penalty=ridge", "--set", "prefix_sizes=[4, 8]"]
    assert main(["fit", "rows.npy", "-o", "m.npz", *FIT, *options]) == 0
    parameters = load("m.npz").get_params()
    assert parameters["n_refinements"] == 1
    assert parameters["penalty"] == "ridge"
    assert parameters["prefix_sizes"] == [4, 8]


def test_progress_goes_to_standard_error(folder, capsys):
    assert main(["fit", "rows.npy", "-o", "m.npz", *FIT]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("m.npz: 16 atoms")
    assert captured.err.startswith("fitting ProjectiveDictionaryLearning on 400 rows of 10 columns")


def test_compare_writes_table_figure_and_best_dictionary(folder, capsys):
    arguments = ["compare", "--data", "rows.npy", "--quick", "--steps", "200", *FIT[:4]]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for name in ("projective  ", "projective, 1 refinement", "TopK autoencoder", "MOD", "scikit-learn, OMP coder"):
        assert out.count(f"\n{name}") == 1, name
    assert "320 training rows, 80 held out" in out
    assert files(folder / "skprojdict-compare") == ["best.npz", "compare.png"]
    assert (folder / "skprojdict-compare" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert load("skprojdict-compare/best.npz").components_.shape == (16, 10)
    assert "compare.png: exists; use --force" in refusal(capsys, arguments)


def test_compare_fits_what_is_asked_for(folder, capsys):
    arguments = ["compare", "--data", "rows.npy", "--quick", "--steps", "200", *FIT[:4], "--methods"]
    assert main([*arguments, "relu", "gated", "jumprelu", "topk"]) == 0
    out = capsys.readouterr().out
    names = ["TopK autoencoder", "ReLU autoencoder", "JumpReLU autoencoder", "Gated autoencoder"]
    assert [line[:26].strip() for line in out.split("rows/s\n")[1].split("\n\n")[0].splitlines()] == names
    assert "on average where rows may differ" in out
    assert "--methods sklearn: has nothing" in refusal(capsys, [*arguments, "sklearn"])


def test_the_best_dictionary_is_none_that_spent_more_atoms(folder, capsys, monkeypatch):
    def result(model, rows):
        greedy = isinstance(model, ReLUDictionaryLearning)
        return steps.Evaluation(0.1 if greedy else 0.5, 6.0 if greedy else 2.0, 0, 1.0)

    monkeypatch.setattr(skprojdict.cli.compare, "evaluate", result)
    options = ["--quick", "--steps", "200", *FIT[:4], "--methods", "topk", "relu"]
    assert main(["compare", "--data", "rows.npy", *options]) == 0
    assert isinstance(load("skprojdict-compare/best.npz"), TopKDictionaryLearning)


def test_every_estimator_can_be_fitted_from_the_command_line():
    assert {*METHODS.values(), "__version__"} == set(skprojdict.__all__)


def test_compare_on_photographs(folder, capsys):
    options = ["--n-components", "20", "--n-nonzero-coefs", "2", "--train-rows", "300", "--test-rows", "100"]
    assert main(["compare", "--quick", *options, "--output", "a/b"]) == 0
    assert "patches of 8 x 8 pixels of two photographs: 300 training rows, 100 held out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bad.npy: no such file"),
        (b"", "bad.npy: is not a .npy file; write one with numpy.save"),
        (b"a,b\n1,2\n", "bad.npy: is not a .npy file"),
        (b"PK\x03\x04....", "bad.npy: is a zip archive"),
        (np.array([[1, "a"], [2, "b"]], dtype=object), "bad.npy: cannot be read"),
        (np.zeros((2, 3, 4)), "(2-d) are needed. Flatten the leading axes with array.reshape(-1, array.shape[-1])"),
        (np.arange(5.0), "bad.npy: holds 1-d data of shape (5,); rows x columns (2-d) are needed"),
        (np.array([["a", "b"]]), "bad.npy: holds <U1; convert it to real numbers"),
        (X.astype(complex), "bad.npy: holds complex128; convert it"),
        (X.astype(">f4"), "bad.npy: holds >f4; convert it"),
        (np.ones((0, 4)), "bad.npy: has shape (0, 4)"),
        (np.ones((3, 0)), "bad.npy: has shape (3, 0)"),
        (np.where(np.eye(12) * np.arange(12) > 0, np.nan, 1.0), "bad.npy: row 1 holds NaN or infinity"),
        ("truncated", "bad.npy: cannot be read"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["fit", "transform", "compare"])
def test_bad_data_get_one_line_that_names_the_file(folder, capsys, fitted, command, content, message):
    if isinstance(content, bytes):
        Path("bad.npy").write_bytes(content)
    elif isinstance(content, str):
        Path("bad.npy").write_bytes(Path("rows.npy").read_bytes()[:-100])
    elif content is not None:
        np.save("bad.npy", content, allow_pickle=True)
    before = files(folder)
    arguments = {
        "fit": ["fit", "bad.npy", "-o", "out.npz"],
        "transform": ["transform", fitted, "bad.npy", "-o", "out.npy"],
        "compare": ["compare", "--data", "bad.npy"],
    }[command]
    if command == "compare" and "has shape" in message:
        assert "at least 10 rows" in refusal(capsys, arguments)
    else:
        assert message in refusal(capsys, arguments)
    assert files(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "rows.npy", "-o", "m.npz", "--n-components", "0"], "--n-components: got '0'; give a whole number"),
        (["fit", "rows.npy", "-o", "m.npz", "--steps", "1.5"], "--steps: got '1.5'"),
        (["fit", "rows.npy", "-o", "m.npz", "--seed", "-1"], "--seed: "),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "penalty=cubic"], "The 'penalty' parameter"),
        (
            ["fit", "rows.npy", "-o", "m.npz", "--set", "colour=red"],
            "--set colour: ProjectiveDictionaryLearning has no",
        ),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "colour"], "--set colour: give NAME=VALUE"),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "target=y"], "--set target=y: "),
        (["fit", "rows.npy", "-o", "m.npz", "--method", "mod", "--steps", "3"], "use --set max_iter=N"),
        (
            ["fit", "rows.npy", "-o", "m.npz", "--set", "max_steps=9", "--steps", "3"],
            "is the same parameter as --steps",
        ),
        (
            ["fit", "rows.npy", "-o", "m.npz", "--set", "n_components=9", "--n-components", "3"],
            "--set n_components: is the same parameter as --n-components, given too; leave one of them out",
        ),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "random_state=9", "--seed", "0"], "same parameter as --seed"),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "tol=0", "--set", "tol=1"], "--set tol: is given twice"),
        (["fit", "rows.npy", "-o", "m.npz", "--set", "init=[[1]]", "--n-components", "3"], "init must give an array"),
        (["fit", "rows.npy", "-o", "rows.npy", "--force"], "rows.npy: is an input of this command"),
        (["fit", "rows.npy", "-o", "none/m.npz"], "none: no such folder"),
        (["fit", "rows.npy", "-o", "."], ".: is a folder; give a file name"),
        (["score", "rows.npy", "rows.npy"], "rows.npy is not an estimator saved by skprojdict"),
        (["score", "none.npz", "rows.npy"], "none.npz: no such file; write a model with 'skprojdict fit"),
        (["compare", "--data", "rows.npy", "--train-rows", "400", "--test-rows", "1"], "rows.npy: has 400 rows, which"),
        (["compare", "--n-components", "4", "--n-nonzero-coefs", "5"], "--n-nonzero-coefs 5: is more than"),
        (["compare", "--output", "rows.npy"], "rows.npy is no folder"),
        (["compare", "--train-rows", "9999999"], "--train-rows 9999999"),
        ([], "the following arguments are required"),
    ],
    ids=" ".join,
)
def test_bad_options_get_one_line_that_names_them(folder, capsys, arguments, message):
    assert message in refusal(capsys, arguments)
    assert files(folder) == ["rows.npy"]


def test_data_of_other_columns_are_refused(folder, capsys, fitted):
    np.save("narrow.npy", X[:, :4])
    for arguments in (["score", fitted, "narrow.npy"], ["transform", fitted, "narrow.npy", "-o", "codes.npy"]):
        assert "narrow.npy: has 4 columns" in refusal(capsys, arguments)


def test_existing_output_is_refused_before_any_work(folder, capsys, fitted):
    Path("out.npy").write_text("mine")
    for arguments in (
        ["fit", "missing.npy", "-o", "out.npy"],
        ["transform", "missing.npz", "missing.npy", "-o", "out.npy"],
    ):
        assert "out.npy: exists; use --force to replace it" in refusal(capsys, arguments)
    assert Path("out.npy").read_text() == "mine"
    assert main(["transform", str(fitted), "rows.npy", "-o", "out.npy", "--force"]) == 0
    assert np.load("out.npy").shape == (400, 16)


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)])
def test_a_failed_write_keeps_the_old_output_and_nothing_half_written(folder, capsys, monkeypatch, fitted, error, code):
    Path("out.npz").write_text("mine")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("scipy.sparse.save_npz", fail)
    assert main(["transform", str(fitted), "rows.npy", "-o", "out.npz", "--sparse", "--force"]) == code
    assert "nothing half-written was kept" in capsys.readouterr().err
    assert Path("out.npz").read_text() == "mine"
    assert files(folder) == ["out.npz", "rows.npy"]


@pytest.mark.parametrize("method", ["projective", "mod"])
@pytest.mark.parametrize(("error", "code"), [(FloatingPointError("loss is NaN."), 2), (KeyboardInterrupt(), 130)])
def test_a_fit_that_ends_early_keeps_what_it_has_learnt(folder, capsys, monkeypatch, method, error, code):
    def fail(self, estimator, context, *, metadata=None):
        if metadata and len(estimator.history_["loss"]) == 2:
            raise error

    monkeypatch.setattr("skprojdict.cli.steps._Progress.on_fit_task_end", fail)
    arguments = ["fit", "rows.npy", "-o", "m.npz", "--method", method, *FIT[:4]]
    assert main(arguments) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert "What was learnt until then is in m.partial.npz." in line
    assert files(folder) == ["m.partial.npz", "rows.npy"]
    assert len(load("m.partial.npz").history_["loss"]) == 2
    assert np.isfinite(load("m.partial.npz").transform(X)).all()
    assert "m.partial.npz: exists; use --force" in refusal(capsys, arguments)


def test_a_fit_that_ends_before_it_has_learnt_leaves_no_file(folder, capsys, monkeypatch):
    def fail(self, X, y=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProjectiveDictionaryLearning, "fit", fail)
    assert main(["fit", "rows.npy", "-o", "m.npz"]) == 130
    assert "Nothing was learnt" in capsys.readouterr().err
    assert files(folder) == ["rows.npy"]


def test_what_the_estimator_refuses_at_transform_gets_one_line(folder, capsys, monkeypatch, fitted):
    def refuse(self, X):
        raise ValueError("device='cuda' is not there.")

    monkeypatch.setattr(ProjectiveDictionaryLearning, "transform", refuse)
    assert "device='cuda' is not there." in refusal(capsys, ["score", fitted, "rows.npy"])


@pytest.mark.parametrize("command", [[], ["compare"], ["fit"], ["transform"], ["score"]], ids=str)
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert "None" not in out


def test_the_module_runs_and_help_needs_no_torch():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['skprojdict', '--help']\n"
        "try:\n    runpy.run_module('skprojdict', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'matplotlib'} & sys.modules.keys()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "skprojdict compare" in result.stdout


def test_an_interrupted_fit_is_resumed_to_the_same_bits(folder, capsys, monkeypatch):
    from skprojdict.training.loop import Trainer

    arguments = ["fit", "rows.npy", *FIT, "--seed", "3", "--checkpoint-every", "4"]
    assert main([*arguments, "-o", "whole.npz", "--checkpoint-dir", "whole"]) == 0
    original, steps = Trainer.step, iter(range(11))

    def step(*given, **options):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return original(*given, **options)

    monkeypatch.setattr(Trainer, "step", step)
    resumed = [*arguments, "-o", "model.npz", "--checkpoint-dir", "part", "--resume"]
    assert main(resumed) == 130
    monkeypatch.setattr(Trainer, "step", original)
    assert "earlier fit" in refusal(capsys, [*resumed[:-1], "--force"])
    assert main([*resumed, "--force"]) == 0
    np.testing.assert_array_equal(load("model.npz").components_, load("whole.npz").components_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume: needs --checkpoint-dir"),
        (["--checkpoint-every", "5"], "--checkpoint-every: needs --checkpoint-dir"),
        (["--method", "mod", "--checkpoint-dir", "x"], "mod writes no checkpoints"),
        (["--checkpoint-dir", "x", "--set", "checkpoint_dir=y"], "same parameter as --checkpoint-dir"),
    ],
)
def test_checkpoint_options_that_do_not_go_together(folder, capsys, options, message):
    assert message in refusal(capsys, ["fit", "rows.npy", "-o", "m.npz", *options])
    assert files(folder) == ["rows.npy"]


@pytest.mark.parametrize("command", [["score"], ["transform", "-o", "codes.npy"]])
def test_what_is_saved_but_no_dictionary_is_refused(folder, capsys, command):
    save(LayerStacker([4, 6]).fit(X), "stacker.npz")
    said = refusal(capsys, [command[0], "stacker.npz", "rows.npy", *command[1:]])
    assert "stacker.npz: holds a LayerStacker and no dictionary" in said
