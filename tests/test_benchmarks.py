# SPDX-License-Identifier: BSD-3-Clause
"""The harness of the benchmarks: what the tables say is what the cells hold, and a run goes on where it was cut off."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # scripts: their modules are found beside them

import _cells  # noqa: E402
import _judge  # noqa: E402
import _plan  # noqa: E402
import _recovery_tables  # noqa: E402
import _report  # noqa: E402
import fidelity  # noqa: E402
from _methods import OURS, PEERS, chosen, peer  # noqa: E402

from skprojdict import ProjectiveDictionaryLearning  # noqa: E402


class RecordedCells(_cells.Cells):
    """Cells whose fits are a formula: FVU 1 + (log2 of the rate over the best one)^2."""

    def __init__(self, folder, best, fails_at=()):
        super().__init__("room", None, cache=folder)
        self.best, self.fails_at, self.ran = best, fails_at, []

    def run(self, asked, after=lambda spec, cell: None, limit=None):
        for spec, _ in asked:
            if self.known(spec) is not None:
                continue
            self.ran.append(spec)
            rate = spec["arguments"]["learning_rate"] or 16e-3
            if rate in self.fails_at:
                self._fail(spec, "no", after)
                continue
            fvu = 1 + np.log2(rate / self.best) ** 2
            cell = {"spec": spec, "codings": {"": {"fvu": fvu}}, "wall_seconds": 10.0, "fit_seconds": 8.0}
            self._keep(spec, cell)
            after(spec, cell)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).standard_normal((600, 12)).astype(np.float32))
    return _cells.Data("rows", path, 100)


SETTINGS = _plan.Settings(n_components=16, n_steps=5, batch_size=32, ks=(2, 4), seeds=(0, 1), tune_k=4)
METHOD = peer("them", "them", "sparsify", "nothing", rates=(5e-4, 1e-3, 2e-3))


def plan_of(tmp_path, rows, best, **options):
    return _plan.Plan(RecordedCells(tmp_path, best, **options), lambda seed: rows, SETTINGS)


def test_the_best_rate_is_tuned_on_one_seed_and_used_everywhere(tmp_path, rows):
    plan = plan_of(tmp_path, rows, best=1e-3)
    plan.run([METHOD], lambda spec, cell: None)
    assert plan.best_rate(METHOD) == 1e-3
    assert plan.rates(METHOD) == [5e-4, 1e-3, 2e-3]
    wanted = plan.wanted(METHOD)
    assert {(s["arguments"]["k"], s["arguments"]["seed"]) for s in wanted} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert all(plan.cells.known(spec) for spec in wanted)


def test_the_default_rate_need_not_run_on_every_seed(tmp_path, rows):
    plan = _plan.Plan(RecordedCells(tmp_path, 1e-3), lambda seed: rows, SETTINGS, defaults=False)
    plan.run([METHOD], lambda spec, cell: None)
    after_tuning = [s for s in plan.cells.ran if (s["arguments"]["k"], s["arguments"]["seed"]) != (4, 0)]
    assert {s["arguments"]["learning_rate"] for s in after_tuning} == {1e-3}
    assert len(after_tuning) == 3


@pytest.mark.parametrize(("best", "last"), [(4e-3, 8e-3), (2.5e-4, 1.25e-4)])
def test_a_best_rate_at_the_end_of_the_grid_lengthens_it(tmp_path, rows, best, last):
    plan = plan_of(tmp_path, rows, best=best)
    plan.run([METHOD], lambda spec, cell: None)
    assert plan.best_rate(METHOD) == best
    assert last in plan.rates(METHOD)


def test_a_grid_does_not_grow_past_a_rate_that_fails(tmp_path, rows):
    plan = plan_of(tmp_path, rows, best=4e-3, fails_at=(2e-3,))
    plan.run([METHOD], lambda spec, cell: None)
    assert plan.rates(METHOD) == [5e-4, 1e-3, 2e-3]


def test_nothing_is_run_twice(tmp_path, rows):
    first = plan_of(tmp_path, rows, best=1e-3)
    first.run([METHOD], lambda spec, cell: None)
    assert len(first.cells.ran) == len({_cells._digest(spec) for spec in first.cells.ran})
    again = plan_of(tmp_path, rows, best=1e-3)
    again.run([METHOD], lambda spec, cell: None)
    assert again.cells.ran == []


def test_a_cell_belongs_to_its_rows_and_its_code(tmp_path, rows, monkeypatch):
    plan = plan_of(tmp_path, rows, best=1e-3)
    path = plan.cells.path(plan.spec(METHOD, 4, 0))
    array = np.load(rows.path)
    array[0, 0] += 1
    np.save(rows.path, array)
    other = plan_of(tmp_path, rows, best=1e-3)
    assert other.cells.path(other.spec(METHOD, 4, 0)) != path
    monkeypatch.setattr(_cells, "code_of", lambda method: "different")
    third = plan_of(tmp_path, rows, best=1e-3)
    assert third.cells.path(third.spec(METHOD, 4, 0)) != other.cells.path(other.spec(METHOD, 4, 0))


def test_computed_rows_are_told_by_their_origin(rows):
    """Another processor computes them with other last bits."""
    first, other = (replace(rows, origin=origin) for origin in ("layer 3", "layer 4"))
    before = first.identity()
    assert before != other.identity()
    array = np.load(rows.path)
    array[0, 0] = np.nextafter(array[0, 0], np.float32(np.inf))
    np.save(rows.path, array)
    assert first.identity() == before


def test_comments_and_docstrings_do_not_make_cells_old(tmp_path):
    source = tmp_path / "code.py"
    source.write_text('"""One."""\nx = 1  # one\n')
    first = _cells.fingerprint([source])
    source.write_text('"""Two."""\n\nx = 1\n')
    assert _cells.fingerprint([source]) == first
    source.write_text('"""Two."""\n\nx = 2\n')
    assert _cells.fingerprint([source]) != first


def test_estimates_count_what_is_left(tmp_path, rows):
    plan = plan_of(tmp_path, rows, best=1e-3)
    n_cells, seconds = plan.estimate([METHOD])[METHOD]
    assert n_cells > 0
    assert seconds is None  # nothing was timed
    plan.run([METHOD], lambda spec, cell: None)
    assert plan.estimate([METHOD])[METHOD] == (0, 0)


def test_a_missing_peer_says_why(tmp_path, rows):
    cells = _cells.Cells("room", None, cache=tmp_path, peer_python=tmp_path / "no-python")
    plan = _plan.Plan(cells, lambda seed: rows, SETTINGS)
    plan.run([METHOD], lambda spec, cell: None)
    assert "make bench-env" in plan.known(METHOD, 4, 0)["why"]


@pytest.mark.parametrize("only", ["nobody", "ours-*-nobody"])
def test_methods_that_nobody_has(only):
    with pytest.raises(SystemExit, match="matches none of"):
        chosen(OURS, [only])


def test_methods_by_key_and_by_pattern():
    assert [method.key for method in chosen(OURS, ["ours"])] == ["ours"]
    assert {method.key for method in chosen((*OURS, *PEERS), ["paper*", "spams"])} == {
        *(method.key for method in OURS if method.key.startswith("paper")),
        "spams",
    }


def test_every_tuned_peer_has_at_least_five_rates():
    assert all(len(method.rates) in (0, *range(5, 20)) for method in PEERS)


# ---- what is computed from a cell


def test_fidelity_of_codes_and_of_their_supports():
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((6, 5)) * 3.0  # a peer's atoms need not have norm 1
    y = rng.standard_normal((40, 5))
    centre = y.mean(0)
    support = np.sort(np.argsort(rng.random((40, 6)), axis=1)[:, :3], axis=1)
    solved = np.stack(
        [np.linalg.lstsq(atoms[s].T, row, rcond=None)[0] for s, row in zip(support, y - centre, strict=True)]
    )
    rest = sum(((row - atoms[s].T @ c) ** 2).sum() for s, c, row in zip(support, solved, y - centre, strict=True))
    expected = rest / ((y - centre) ** 2).sum()
    for factor in (1.0, 0.5):
        codes = sparse.csr_matrix((factor * solved.ravel(), support.ravel(), np.arange(0, 121, 3)), shape=(40, 6))
        arrays = {
            "atoms": atoms,
            "centre": centre,
            "data0": codes.data,
            "indices0": codes.indices,
            "indptr0": codes.indptr,
        }
        numbers = _judge.fidelity(y, {"codings": {"": {"number": 0, "rows": 40}}}, arrays)[""]
        assert numbers["fvu_resolved"] == pytest.approx(expected, rel=1e-10)
        assert numbers["l0"] == 3.0
        assert numbers["negative"] == pytest.approx((solved < 0).mean())
        if factor == 1.0:
            assert numbers["fvu"] == pytest.approx(expected, rel=1e-10)
        else:
            assert numbers["fvu"] > expected


def test_spread_and_interval():
    assert _report.spread([]) == ""
    assert _report.spread([0.25]) == "0.2500"
    assert _report.spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"
    mean, half = _report.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom at 97.5 %
    assert _report.interval([1.0]) == (1.0, None)


@pytest.mark.parametrize(
    ("gain", "half", "tolerant", "words"),
    [
        (0.1, 0.05, True, "better"),
        (0.1, 0.2, True, "no worse"),
        (-0.009, 0.001, True, "no worse"),
        (-0.009, 0.001, False, "worse"),
        (-0.1, 0.05, True, "worse"),
        (-0.1, 0.2, False, "no worse"),
        (-0.1, None, False, "one seed"),
    ],
)
def test_verdicts(gain, half, tolerant, words):
    assert _recovery_tables.verdict(gain, half, tolerant) == words


# ---- the command


def fidelity_options(tmp_path, rows):
    command = ["--data", str(rows.path), "--test-rows", "100"]
    command += ["--quick", "--only", "ours-topk", "sparsify", "--cache", str(tmp_path / "cells"), "--threads", "1"]
    return [*command, "--peer-python", str(tmp_path / "no-python"), "--output", str(tmp_path / "table.md")]


def test_the_fidelity_benchmark_runs_resumes_and_tells_what_it_could_not_run(tmp_path, rows, capsys):
    command = [sys.executable, str(FOLDER / "fidelity.py"), *fidelity_options(tmp_path, rows)]
    first = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "ours-topk k=8 seed=0" in first.stdout
    text = (tmp_path / "table.md").read_text()
    assert "TopKDictionaryLearning, defaults" in text
    assert "not run: there is no" in text
    cells = list((tmp_path / "cells").rglob("ours-topk*.json"))
    values = [json.loads(path.read_text())["codings"][""]["fvu"] for path in cells]
    assert len(values) == 1
    assert f"{values[0]:.4f}" in text
    fidelity.main(fidelity_options(tmp_path, rows))
    assert "ours-topk k=8 seed=0" not in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text().split("\n")[8:] == text.split("\n")[8:]


def test_a_peer_without_rates_is_not_tuned(tmp_path, rows):
    plan = plan_of(tmp_path, rows, best=1e-3)
    plain = replace(METHOD, rates=())
    plan.run([plain], lambda spec, cell: None)
    assert {spec["arguments"]["learning_rate"] for spec in plan.cells.ran} == {None}
    assert plan.best_rate(plain) is None


def test_coders_with_k_atoms_a_row_of_the_rows_that_they_see():
    """As BatchTopK's batches have it; the model's own threshold is left as it was."""
    from _ours import on_average  # which compiles kernels

    rng = np.random.default_rng(0)
    X = (rng.random((1500, 64)) < 0.08) * rng.standard_normal((1500, 64)) @ rng.standard_normal((64, 32))
    model = ProjectiveDictionaryLearning(64, n_nonzero_coefs=4, max_steps=30, random_state=0).fit(X)
    learnt, shifted = model.removal_threshold_, X + rng.standard_normal(X.shape)
    encode = on_average(model, 4, model.transform)
    np.testing.assert_array_equal(encode(shifted[:64]), model.transform(shifted[:64]))  # warms up
    number = (encode(shifted) != 0).sum() / len(shifted)
    assert number == pytest.approx(4, abs=0.01)
    assert abs((model.transform(shifted) != 0).sum() / len(shifted) - 4) > abs(number - 4)
    assert model.removal_threshold_ == learnt
    np.testing.assert_allclose(encode(shifted[:100]), encode(shifted)[:100], atol=1e-9)  # it has settled
