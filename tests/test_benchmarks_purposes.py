# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks of alignment and of the five purposes: their plans, their verdicts, and pages that follow from numbers."""

import datetime
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # scripts: their modules are found beside them

import _alignment_page  # noqa: E402
import _alignment_trials  # noqa: E402
import _purpose_page as words  # noqa: E402
import _purpose_trials  # noqa: E402
import purposes  # noqa: E402
from _trials import Trials  # noqa: E402


def script(name):
    """A benchmark under a name that no installed module has."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


alignment = script("alignment")


# ---- trials


def square(seed, side):
    return {"": {"area": side * side + seed}}


@pytest.fixture
def trials(tmp_path):
    (tmp_path / "code.py").write_text("x = 1\n")
    return Trials("room", [tmp_path / "code.py"], tmp_path)


def test_a_trial_runs_once_and_its_file_is_whole(trials):
    ran = []

    def counted(**asked):
        ran.append(asked)
        return square(**asked)

    asked = {"seed": 1, "side": 3}
    assert trials.known("square", asked) is None
    for _ in range(2):
        assert trials.run(counted, "square", asked)["numbers"] == {"": {"area": 10}}
    assert len(ran) == 1
    assert json.loads(trials.path("square", asked).read_text())["asked"] == asked
    assert trials.known("square", asked | {"side": 4}) is None


def test_changed_code_makes_new_trials_and_comments_do_not(trials, tmp_path):
    asked = {"seed": 0, "side": 2}
    trials.run(square, "square", asked)
    (tmp_path / "code.py").write_text("x = 1  # a remark\n")
    assert Trials("room", [tmp_path / "code.py"], tmp_path).known("square", asked) is not None
    (tmp_path / "code.py").write_text("x = 2\n")
    assert Trials("room", [tmp_path / "code.py"], tmp_path).known("square", asked) is None


def test_a_trial_that_fails_leaves_no_file(trials):
    with pytest.raises(ZeroDivisionError):
        trials.run(lambda seed: 1 / seed, "bad", {"seed": 0})
    assert not list(trials.folder.glob("*")) if trials.folder.exists() else True


def test_what_is_kept_is_made_once(trials):
    made = []

    def make(seed):
        made.append(seed)
        return {"seed": seed}

    assert [trials.kept("network", {"seed": 3}, make) for _ in range(2)] == [{"seed": 3}] * 2
    assert made == [3]


# ---- plans


def test_concept_sets_are_split_without_overlap():
    sets = _alignment_trials.concept_sets(0, 23)
    assert [len(sets[name]) for name in ("singles", "pairs", "unseen pairs", "unseen triples")] == [10, 23, 22, 120]
    pairs = {tuple(pair) for name in ("pairs", "unseen pairs") for pair in sets[name]}
    assert len(pairs) == 45
    assert _alignment_trials.concept_sets(1, 23)["pairs"] != sets["pairs"]


@pytest.mark.parametrize("quick", [False, True])
def test_every_search_of_the_plan_is_known(quick):
    plan = alignment.sections(quick)
    for section in plan:
        for method, (search, _) in section.methods.items():
            assert search in _alignment_trials.SEARCHES or search in _alignment_trials.CONTROLS
            json.dumps(alignment.asked(section, method, 0))  # a trial is named after this
    titles = [section.title for section in plan]
    assert len(set(titles)) == len(titles)


def test_rows_of_the_purposes_ask_for_methods_that_exist():
    plan = purposes.plan("rows.npy")
    assert {method for rows in plan for method in rows.methods} <= set(purposes.METHODS)
    assert plan[-1].data == "file:rows.npy"
    assert all(method not in purposes.LITERAL for rows in purposes.quick(plan) for method in rows.methods)
    names = [purposes.name_of(rows, method) for rows in plan for method in rows.methods]
    assert len(set(names)) == len(names)


def test_the_baseline_takes_the_best_rate_of_the_tuning_seed(tmp_path):
    rows = purposes.plan()[0]
    trials = Trials("purposes", [], tmp_path)
    scores = {None: 0.5, 0.002: 0.7, 0.006: 0.9}
    for rate, ev in scores.items():
        asked = purposes.asked(rows, "TopK", purposes.TUNING_SEED, rate)
        assert purposes.best_rate(trials, rows, "TopK") is None  # not before all are known
        trials.run(lambda ev=ev, **asked: {"": {"ev": ev}}, purposes.name_of(rows, "TopK"), asked)
    assert purposes.best_rate(trials, rows, "TopK") == 0.006


# ---- words


@pytest.mark.parametrize(
    ("differences", "more", "expected"),
    [
        ([0.1, 0.11, 0.09], True, "better"),
        ([0.1, 0.11, 0.09], False, "worse"),
        ([-0.1, -0.11, -0.09], False, "better"),
        ([0.1, -0.1, 0.02], True, "no different"),
        ([0.1], True, None),
        ([], True, None),
    ],
)
def test_differences_become_words(differences, more, expected):
    assert words.compare(differences, more) == expected


def test_a_loss_within_the_tolerance_is_no_loss():
    assert words.compare([-0.005, -0.0051, -0.0049], tolerance=0.01) == "no different"
    assert words.compare([-0.05, -0.051, -0.049], tolerance=0.01) == "worse"


@pytest.mark.parametrize(
    ("outcomes", "seeds", "expected"),
    [
        ({"a": "better", "b": "better"}, 5, "holds"),
        ({"a": "worse", "b": "no different"}, 5, "does not hold"),
        ({"a": "better", "b": "worse"}, 5, "depends on the data: holds on a; not on b (worse)"),
        ({"a": "better", "b": None}, 5, "holds. Not measured yet: b"),
        ({"a": "better"}, 2, "holds (preliminary: 2 seeds)"),
        ({"a": None}, 0, "not measured yet"),
    ],
)
def test_outcomes_become_a_verdict(outcomes, seeds, expected):
    assert words.verdict(outcomes, seeds) == expected


def test_falling_holes_do_not_excuse_a_growing_leak():
    assert words.absorption_outcome({"holes": "better", "absorption": "better", "leak": "worse"}) == "more leak"
    assert (
        words.absorption_outcome({"holes": "better", "absorption": "no different", "leak": "no different"}) == "better"
    )
    assert words.absorption_outcome({"holes": "better", "absorption": "worse", "leak": "better"}) == "worse"
    assert words.absorption_outcome({"holes": None, "absorption": "better", "leak": "better"}) == "better"
    assert words.absorption_outcome({"holes": "better", "absorption": None, "leak": "better"}) is None


def test_the_interaction_is_a_difference_of_differences():
    def runs(*values):
        return {seed: {"": {"ev": value}} for seed, value in enumerate(values)}

    methods = {
        "projective, tied": runs(0.9, 0.8),
        "projective": runs(0.95, 0.9),
        "TopK, tied": runs(0.7, 0.6, 0.1),
        "TopK": runs(0.9, 0.9),
    }
    assert_allclose(words.interaction(methods, "ev"), [-0.05 + 0.2, -0.1 + 0.3])
    assert words.interaction({}, "ev") == []


# ---- pages


def invented(section, seeds, score):
    """Trials with the numbers that ``score(method, test)`` gives as (score, rank)."""
    found = {}
    for method in section.methods:
        found[method] = {}
        for seed in range(seeds):
            numbers = {"network": 1.0}
            for test in _alignment_page.tests_of(section):
                value, rank = score(method, test)
                value -= 0.001 * seed * (len(method) % 3)
                numbers[test] = {
                    f"{kind}_{key}": value
                    for kind in ("hard", "soft")
                    for key in ("accuracy", "disentangle", "cause", "isolation", "divergence")
                } | {"rank": rank, "effective_dimension": 1.0, "n_parameters": 7}
            found[method][seed] = {"numbers": numbers, "cpu_seconds": 1.0}
    return found


def test_targets_are_judged_by_the_numbers():
    plan = {section.title: section for section in alignment.sections()}
    equality, composed = plan["Hierarchical equality"], plan["Composed attributes"]

    def scores(rank):
        def score(method, test):
            if method.startswith("DAS k="):
                return (0.999 if int(method[6:]) >= 2 else 0.9), 0
            return (0.98 if test == "unseen triples" else 0.999), rank

        return score

    found = [(equality, invented(equality, 3, scores(3.0))), (composed, invented(composed, 3, scores(4.0)))]
    claims = _alignment_page.targets(found)
    assert [verdict for _, _, verdict in claims] == ["holds", "holds", "holds", "holds", "does not"]
    found[0] = (equality, invented(equality, 3, scores(4.0)))
    assert _alignment_page.targets(found)[2][2] == "does not, on 3 networks"
    text = _alignment_page.page(found, 3)
    assert "| Householder | unseen pairs |" in text


def test_pages_without_a_trial_say_so():
    empty = [(section, {method: {} for method in section.methods}) for section in alignment.sections()]
    assert "Not run yet." in _alignment_page.page(empty, 5)
    rows = purposes.plan()
    text = words.page(empty, {each.title: {} for each in rows}, rows, [], 5)
    assert text.count("not measured yet") >= 5


def test_the_page_of_purposes_follows_from_its_numbers():
    rows = [purposes.plan()[0]]
    numbers = dict.fromkeys(("f1_parent", "absorption", "split", "negative", "unused", "l0", "uniqueness"), 0.1)
    gain = {"TopK": (0.80, 0.5), "TopK, tied": (0.70, 0.5), "projective": (0.90, 0.9), "projective, tied": (0.89, 0.9)}
    found = {}
    for method in rows[0].methods:
        ev, leak = gain.get(method, (0.85, 0.0))
        found[method] = {
            seed: {
                coding: {
                    "ev": ev + 0.001 * seed,
                    "ev_resolved": ev + 0.01 + 0.002 * seed,
                    "ev_omp": ev,
                    "mcc": 0.9,
                    "f1": 0.9,
                    "holes": 0.1,
                    "leak": leak + 0.001 * seed * len(method) % 0.01,
                    **numbers,
                }
                for coding in ("", "refined once")
            }
            for seed in range(5)
        }
    empty = [(section, {}) for section in alignment.sections()]
    text = words.page(empty, {rows[0].title: found}, rows, [], 5)
    assert "| More variance explained at a given sparsity | holds |" in text
    assert "| An encoder tied to the dictionary becomes tolerable | holds |" in text
    assert "| Less feature absorption and splitting | does not hold |" in text  # the leak grows
    assert "overlap 0.03: on 1 of 1 kinds of rows, for -0.050 of explained variance" in text

    # A run without the trials keeps what the page said, with the date of that page, however often.
    told = text.replace(str(datetime.date.today()), "2020-02-02")
    for _ in range(2):
        told = words.page(empty, {rows[0].title: {}}, rows, [], 5, before=told)
    assert "| More variance explained at a given sparsity | holds |" in told
    assert told.count("*Kept from the page of 2020-02-02: its trials are not in this cache.*") == 3
    assert "overlap 0.03: on 1 of 1 kinds of rows" in told
    assert "| A smaller footprint for alignment search | not measured yet |" in told


# ---- the numbers


def test_an_atom_leans_on_its_parent_in_every_ridge():
    """By an independent search: .49, .42, .39, .37 for s = 1, 4, 16, 100; .55, .49, .45, .45 by the ridge's own."""
    for precision, squared, ridge in ((1, 0.49, 0.55), (4, 0.42, 0.49), (16, 0.39, 0.45), (100, 0.37, 0.45)):
        assert_allclose(_purpose_trials.best_lean(precision, "squared error"), squared, atol=0.015)
        assert_allclose(_purpose_trials.best_lean(precision, "ridge"), ridge, atol=0.015)


def test_the_tree_is_that_of_its_description():
    made = _purpose_trials.tree(40_000, 20, 0)
    on = made.codes != 0
    assert_allclose(on[:, :3].mean(0), 0.15, atol=0.01)
    assert_allclose(on[:, 12:].mean(0), 0.05, atol=0.01)
    for child in range(3, 12):
        parent = made.parents[child]
        assert not (on[:, child] & ~on[:, parent]).any()
        assert_allclose(on[:, child].sum() / on[:, parent].sum(), 0.2, atol=0.03)
    assert on[:, 3:6].sum(axis=1).max() == 1
    gram = made.dictionary @ made.dictionary.T
    assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    assert_allclose(np.linalg.norm(_purpose_trials.tree(10, 12, 0).dictionary, axis=1), 1.0, atol=0.2)


def test_the_true_codes_have_no_hole_and_no_leak():
    made = _purpose_trials.rows_of("tree:20", 0)
    true = made.truth.dictionary
    norms = np.linalg.norm(true, axis=1, keepdims=True)
    numbers = _purpose_trials.judged(made, true / norms, np.zeros(20), made.truth.codes[-len(made.test) :] * norms.T)
    assert_allclose([numbers[name] for name in ("ev", "mcc", "f1", "ev_resolved")], 1.0, atol=1e-9)
    assert_allclose([numbers[name] for name in ("holes", "leak", "absorption")], 0.0, atol=1e-9)
    oracle = _purpose_trials.dictionary(0, "tree:20", "oracle", {}, 20, 2, 1, 1)[""]
    assert_allclose(oracle["ev"], 1.0, atol=1e-9)


def test_joined_subspaces_and_controls_on_a_small_network(tmp_path, monkeypatch):
    """The join of single attributes has the rank of its members; controls have what their names say."""
    monkeypatch.setattr(_alignment_trials, "TEST_ROWS", 400)
    trials = Trials("alignment", [], tmp_path)
    tasks = _alignment_trials.Tasks(trials.kept)
    network = {"n_types": 1, "n_attributes": 10, "n_features": 24, "n_steps": 10}
    common = {"seed": 0, "kind": "compositional", "network": network, "n_rows": 800, "max_steps": 3, "n_pairs": 23}
    found = {name: tasks.search(search=name, options={}, **common) for name in ("nothing", "everything")}
    assert [each["unseen pairs"]["rank"] for each in found.values()] == [0, 24]
    assert found["everything"]["singles"]["hard_divergence"] > found["nothing"]["singles"]["hard_divergence"] >= 0
    found = tasks.search(search="joined", options={"n_directions": 2}, **common)
    assert [found[test]["rank"] for test in ("singles", "pairs", "unseen triples")] == [2, 4, 6]
    assert found["singles"]["n_parameters"] == 10 * 2 * 24
    assert all(math.isfinite(value) for value in found["unseen triples"].values())
