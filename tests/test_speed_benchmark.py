# SPDX-License-Identifier: BSD-3-Clause
"""The speed benchmark: ratios are of rounds, goals are judged as stated, and who cannot run says why."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # scripts: their modules are found beside them

import speed  # noqa: E402
from _duel import Contestant, Duel, Times, ratio  # noqa: E402


def test_ratio_is_the_median_of_rounds():
    slow, fast = Times(cpu=[2.0, 30.0, 4.0, 8.0]), Times(cpu=[1.0, 10.0, 1.0, 1.0])
    middle, low, high = ratio(slow, fast)
    assert middle == pytest.approx(3.5)  # of 2, 3, 4, 8: the round that was disturbed does not count for more
    assert low == pytest.approx(2.75)
    assert high == pytest.approx(5.0)
    assert ratio(Times(cpu=[1.0]), Times(cpu=[4.0])) == (0.25, 0.25, 0.25)
    assert ratio(Times(), fast) is None


def test_goals_are_judged_in_the_direction_that_they_state():
    one, two = Times(cpu=[1.0]), Times(cpu=[2.0])
    lines = speed.targets([
        ("a", two, one, ">=", 1.5),
        ("b", two, one, "<=", 1.5),
        ("c", one, two, "<=", 0.5),
        ("d", Times(why="gone"), one, "<=", 1.0),
    ])  # fmt: skip
    assert [line.split("|")[-2].strip() for line in lines[2:5]] == ["holds", "does not hold", "holds"]
    assert "not run" in lines[5]


def test_floor_adds_product_and_optimiser_round_by_round():
    results = {"float32 product": Times([1.0, 2.0], [1.0, 3.0]), "fused Adam step": Times([0.5, 0.5], [0.1, 0.2])}
    floors = speed.floor_of(results)
    assert floors.wall == [1.5, 2.5]
    assert floors.cpu == pytest.approx([1.1, 3.2])


def test_contestants_take_turns_and_say_why_they_cannot(tmp_path):
    contestants = [
        Contestant("works", "_speed_ours:optimiser", {"d": 3, "p": 5}),
        Contestant("is not there", "_speed_ours:nothing", {}),
        Contestant("has no environment", "speed_steps:spams", {}, peer=True),
    ]
    with Duel(1, peer_python=tmp_path / "python") as duel:
        results = duel.run(contestants, 2, 60.0)
        versions = duel.versions(("numpy", "no-such-package"), ())
    assert len(results["works"].wall) == len(results["works"].cpu) == 2
    assert results["works"].why is None
    assert "AttributeError" in results["is not there"].why
    assert "make bench-env" in results["has no environment"].why
    assert set(versions) == {"numpy"}


def test_rows_are_the_same_on_every_call_and_finite(tmp_path):
    (tmp_path / "other").mkdir()
    rows = [np.load(speed.structured_rows(folder, 50, 8)) for folder in (tmp_path, tmp_path / "other")]
    np.testing.assert_array_equal(*rows)
    assert rows[0].shape == (50, 8)
    assert np.isfinite(rows[0]).all()


def test_an_unknown_section_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "trainings"])
    with pytest.raises(SystemExit):
        speed.main()
    assert "choose from floor, training" in capsys.readouterr().err
