# SPDX-License-Identifier: BSD-3-Clause
"""The transcoder benchmark: its numbers in a case that can be worked out, and the command."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # scripts: their modules are found beside them

import _cells  # noqa: E402
import _transcoder_judge  # noqa: E402
import _transcoder_tables  # noqa: E402
import transcoder  # noqa: E402


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((700, 6))
    Y = np.maximum(X @ rng.standard_normal((6, 9)), 0) @ rng.standard_normal((9, 6)) + 2
    for name, rows in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", rows)
    return X, Y


@pytest.mark.parametrize("skip", [False, True])
def test_predictive_and_oracle_numbers(pair, tmp_path, skip):
    rng = np.random.default_rng(1)
    X, Y = pair
    rows = np.concatenate([X, Y], axis=1)
    np.save(tmp_path / "rows.npy", rows)
    judge = _transcoder_judge.PairJudge(_cells.Data("rows", tmp_path / "rows.npy", 50), 6)
    X, Y = X[-50:], Y[-50:]
    atoms, centre = 2 * rng.standard_normal((8, 6)), rng.standard_normal(6)  # a peer's atoms need not have norm 1
    codes = np.where(rng.random((50, 8)) < 0.3, rng.standard_normal((50, 8)), 0)
    csr = sparse.csr_matrix(codes)
    arrays = {"atoms": atoms, "centre": centre, "data0": csr.data, "indices0": csr.indices, "indptr0": csr.indptr}
    beside = centre
    if skip:
        arrays |= {"skip": rng.standard_normal((6, 6)), "input_mean": rng.standard_normal(6)}
        beside = centre + (X - arrays["input_mean"]) @ arrays["skip"].T
    numbers = judge(None, {"codings": {"": {"number": 0, "rows": 50}}}, arrays)[""]
    total = ((Y - Y.mean(axis=0)) ** 2).sum()
    assert numbers["fvu"] == pytest.approx(((Y - beside - codes @ atoms) ** 2).sum() / total)
    left = 0.0
    for row, code in zip(Y - beside, codes, strict=True):
        used = atoms[code != 0]
        left += ((row - np.linalg.lstsq(used.T, row, rcond=None)[0] @ used) ** 2).sum() if len(used) else (row**2).sum()
    assert numbers["oracle"] == pytest.approx(left / total)
    assert numbers["oracle_pursued"] < numbers["oracle"] < numbers["fvu"]
    # Skill is on the scale between the other two, whatever the skip has taken off.
    scale = (numbers["oracle_random"] - numbers["oracle"]) / (numbers["oracle_random"] - numbers["oracle_pursued"])
    assert numbers["skill"] == pytest.approx(scale)
    assert numbers["l0"] == pytest.approx((codes != 0).sum() / 50)


def test_the_affine_map_explains_what_is_affine(tmp_path):
    X = np.random.default_rng(0).standard_normal((300, 4))
    np.save(tmp_path / "rows.npy", np.concatenate([X, 3 * X[:, ::-1] + 1], axis=1))
    data = _cells.Data("rows", tmp_path / "rows.npy", 100)
    assert _transcoder_judge.affine_map(data, 4) == pytest.approx(0, abs=1e-12)


def test_ratios_are_geometric_means_with_intervals():
    assert _transcoder_tables.ratio([math.log(0.5)]) == "0.500"
    assert _transcoder_tables.ratio([math.log(0.5), math.log(2)]) == "1.000"
    assert _transcoder_tables.ratio([math.log(0.8)] * 4) == "0.800 [0.800, 0.800]"


def test_every_method_is_tuned_over_five_rates():
    assert all(len(method.rates) >= 5 for method in transcoder.methods_for(4))


def test_our_own_network_is_not_affine_and_not_noise():
    name, X, Y = transcoder.small_network(200, n_train=2000, width=16, n_hidden=32)
    assert name == "small-network"
    assert X.shape == Y.shape == (2200, 16)
    solution, *_ = np.linalg.lstsq(X - X.mean(0), Y - Y.mean(0), rcond=None)
    unexplained = ((Y - Y.mean(0) - (X - X.mean(0)) @ solution) ** 2).sum() / ((Y - Y.mean(0)) ** 2).sum()
    assert 0.05 < unexplained < 0.9


def options(tmp_path, *more):
    command = ["--quick", "--threads", "1", "--test-rows", "100"]
    command += ["--data-x", str(tmp_path / "x.npy"), "--data-y", str(tmp_path / "y.npy")]
    command += ["--only", "topk-skip", "sparsify", "--cache", str(tmp_path / "cells")]
    return [*command, "--peer-python", str(tmp_path / "no-python"), "--output", str(tmp_path / "page.md"), *more]


def test_the_command_runs_resumes_and_keeps_the_two_kinds_of_numbers_apart(pair, tmp_path, capsys):
    command = [sys.executable, str(FOLDER / "transcoder.py"), *options(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 0, first.stderr
    assert "topk-skip seed 0" in first.stdout
    text = (tmp_path / "page.md").read_text()
    predictive, oracle = text.split("## Oracle")
    assert "TopKDictionaryLearning, skip" in predictive
    assert "not run: there is no" in predictive
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").rglob("topk-skip*.json")]
    best = min((cell["codings"][""] for cell in cells), key=lambda numbers: numbers["fvu"])
    assert f"| {best['fvu']:.4f} |" in predictive
    assert f"| {best['oracle']:.4f} |" in oracle
    assert f"| {best['oracle']:.4f} |" not in predictive
    transcoder.main(options(tmp_path))
    assert "topk-skip seed 0" not in capsys.readouterr().out


def test_rows_that_are_no_pairs(pair, tmp_path):
    np.save(tmp_path / "y.npy", np.ones((5, 6)))
    with pytest.raises(SystemExit, match="they must be pairs"):
        transcoder.main(options(tmp_path))
    np.save(tmp_path / "y.npy", np.ones((700, 6)))
    with pytest.raises(SystemExit, match="lower --test-rows"):
        transcoder.main(options(tmp_path, "--test-rows", "400"))
