# SPDX-License-Identifier: BSD-3-Clause
"""The family benchmark: how penalties are steered, how rates are chosen, and what the page says."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]  # scripts: their modules are found beside them

import _cells  # noqa: E402
import _family_page  # noqa: E402
import _optimal_directions  # noqa: E402
import family  # noqa: E402
import forms  # noqa: E402
import torch  # noqa: E402
from _plan import Plan, Settings  # noqa: E402

from skprojdict.training.losses.common import steer  # noqa: E402


@pytest.mark.parametrize("fired", [0.0, 1.0, 8.0, 9.0, 400.0])
def test_the_peers_penalty_follows_the_rule_of_ours(fired):
    ours = torch.tensor(0.2, dtype=torch.float64)
    steer(ours, torch.tensor(fired, dtype=torch.float64), 8)
    assert forms.steered(0.2, fired, 8) == pytest.approx(float(ours))


def test_counting_sees_what_fires_and_leaves_no_trace():
    class Model(torch.nn.Module):
        def encode(self, x, return_gate=False):
            return (x, x) if return_gate else x

    model, codes = Model(), torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    with forms.counting(model) as fired:
        model.encode(codes)
        model.encode(codes[:1], return_gate=True)
    assert fired == [1.5, 2.0]
    assert "encode" not in vars(model)


@pytest.mark.parametrize("p", [8, 128, 3072])
def test_nested_groups_are_the_same_prefixes_on_both_sides(p):
    sizes = np.cumsum(forms.parts_of(p))
    assert sizes[-1] == p
    assert list(sizes[:-1]) == family.prefixes(p)


@pytest.mark.parametrize(
    ("n_rows", "steps", "expected"), [(1000, 5, (500, 1)), (1000, 10, (1000, 1)), (1000, 35, (1000, 4))]
)
def test_optimal_directions_reads_as_many_rows(n_rows, steps, expected):
    assert _optimal_directions.passes_of(n_rows, steps, 100) == expected


def cell(fvu, l0, k=8, seed=0, rate=None):
    coding = {"fvu": fvu, "l0": l0, "fvu_resolved": 0.9 * fvu, "unused": 3, "mcc": 0.75, "f1": 0.5}
    spec = {"arguments": {"k": k, "seed": seed, "learning_rate": rate}, "data": {"name": "rows"}}
    return {
        "spec": spec,
        "codings": {"": coding},
        "fit_seconds": 5.0,
        "cpu_seconds": 2.0,
        "wall_seconds": 3.0,
        "learning_rate": rate or 1e-3,
    }


def test_an_error_bought_with_more_atoms_wins_only_where_all_are():
    assert family.at_k(cell(0.3, 8.5)) == 0.3
    assert family.at_k(cell(0.3, 8.5)) < family.at_k(cell(0.1, 20)) < family.at_k(cell(0.05, 30)) < math.inf
    assert family.at_k(None) == family.at_k({"why": "no"}) == math.inf


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(_cells, "code_of", lambda method: "code")  # reading all sources takes long
    np.save(tmp_path / "rows.npy", np.zeros((50, 4), dtype=np.float32))
    data = _cells.Data("rows", tmp_path / "rows.npy", 10)
    cells = _cells.Cells("family", None, cache=tmp_path)
    return Plan(cells, lambda seed: data, Settings(16, 5, 10, (8,), (0,), 8, more_rates=0), family.at_k)


def keep(plan, method, rate, fvu, l0):
    spec = plan.spec(method, 8, 0, rate)
    plan.cells._keep(spec, cell(fvu, l0, rate=rate) | {"spec": spec})


def test_the_page_compares_at_equal_sparsity_and_says_what_is_missing(plan):
    methods = {method.key: method for method in family.methods_for(16, (2e-3, 4e-3))}
    keep(plan, methods["topk"], None, 0.3, 8.0)
    for rate, fvu, l0 in ((None, 0.6, 8.0), (2e-3, 0.4, 8.0), (4e-3, 0.1, 20.0)):  # the last one cheats
        keep(plan, methods["dl-topk"], rate, fvu, l0)
    keep(plan, methods["relu"], None, 0.5, 8.0)
    for rate in (None, 2e-3, 4e-3):
        keep(plan, methods["dl-relu"], rate, 0.2, 30.0)
    text = _family_page.page({"rows": (plan, tuple(methods.values()))}, "the command")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "| 0.3000 | 0.750 | 0.2700 | 0.750 | 0.500 | 8.0 | 3 | 2.0 |" in lines["TopK"]
    assert "0.002 (tuned) | 0.4000 |" in lines["dictionary_learning TopK"]
    assert "| 0.5000 | L0 differs |" in lines["ReLU + L1"]
    assert "not run: not asked for yet" in lines["JumpReLU"]
    assert "default: 0.6000, 0.002: 0.4000, 0.004: 0.1000 (L0 20)" in text
    assert "`the command`" in text


def test_the_command_names_what_was_asked_for():
    words = ["--data", "/somewhere/rows.npy", "--k", "16", "--rates", "0.002", "0.004", "--quick", "--table"]
    assert family.command(family.arguments(words)) == (
        "python benchmarks/family.py --data rows.npy --k 16 --rates 0.002 0.004 --quick"
    )
