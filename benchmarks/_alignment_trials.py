# SPDX-License-Identifier: BSD-3-Clause
"""Trials of the alignment benchmark: one search on one network whose causal variables are known."""

import functools
import itertools

import numpy as np
import torch
from _cells import HERE, PACKAGE
from _trials import Trials

from skprojdict.alignment import (
    DistributedAlignmentSearch,
    HouseholderAlignmentSearch,
    Intervention,
    ProjectiveAlignmentSearch,
    counterfactual_divergence,
    disentangle,
)
from skprojdict.alignment.tasks import EntityTask, EqualityTask

SOURCES = (
    *PACKAGE.glob("alignment/*.py"),
    PACKAGE / "solvers" / "penalties.py",
    PACKAGE / "training" / "loop.py",
    HERE / "_alignment_trials.py",
)
SEARCHES = {
    "das": DistributedAlignmentSearch,
    "projective": ProjectiveAlignmentSearch,
    "householder": HouseholderAlignmentSearch,
}
N_ATTRIBUTES = 10
TEST_ROWS = 6_000
# Networks, rows and searches are seeded apart, or the start of one would know something of the other.
ROWS_SEED, TEST_SEED, SEARCH_SEED = 1_000, 2_000, 3_000


def trials(cache):
    """The trials' place in the cache; networks are kept beside them."""
    return Trials("alignment", SOURCES, cache)


def equality_network(seed, weight_decay, n_steps):
    return EqualityTask(n_steps=n_steps, weight_decay=weight_decay, random_state=seed)


def entity_network(seed, n_types, n_attributes, n_features, n_steps):
    return EntityTask(
        n_types=n_types, n_attributes=n_attributes, n_features=n_features, n_steps=n_steps, random_state=seed
    )


class Tasks:
    """Networks and rows of the trials, made when they are first asked for."""

    def __init__(self, kept):
        self.kept = kept
        self._rows = functools.lru_cache(maxsize=2)(self._make_rows)

    def search(self, seed, kind, network, search, options, n_rows, max_steps, n_pairs=None):
        """One search on one network: its scores on every kind of test rows, and the network's own accuracy."""
        task, train, tests = self._rows(kind, seed, tuple(sorted(network.items())), n_rows, n_pairs)
        found = _fitted(search, options, task, train, max_steps, seed)
        return {"network": task.accuracy, **{name: _judged(found, task, rows) for name, rows in tests.items()}}

    def _make_rows(self, kind, seed, network, n_rows, n_pairs):
        asked = {"seed": seed, **dict(network)}
        make = equality_network if kind == "equality" else entity_network
        task = self.kept(f"network-{kind}", asked, make)
        draw = functools.partial(_interchanges, task, held_out=kind != "equality")
        if kind == "compositional":
            sets = concept_sets(seed, n_pairs)
            train = task.interchanges(n_rows, [*sets["singles"], *sets["pairs"]], random_state=ROWS_SEED + seed)
            tests = {name: draw(TEST_SEED + seed, each) for name, each in sets.items()}
        else:
            train = task.interchanges(n_rows, random_state=ROWS_SEED + seed)
            tests = {"test": draw(TEST_SEED + seed, None)}
        return task, train, tests


def _interchanges(task, seed, concepts, held_out):
    """Test rows; of entities that training did not see, where there are entities."""
    if not held_out:
        return task.interchanges(TEST_ROWS, random_state=seed)
    return task.interchanges(TEST_ROWS, concepts, random_state=seed, held_out=True)


def concept_sets(seed, n_pairs):
    """Sets of attributes by role: single ones and ``n_pairs`` random pairs to train on, all others to test on."""
    pairs = [list(pair) for pair in itertools.combinations(range(N_ATTRIBUTES), 2)]
    order = np.random.RandomState(seed).permutation(len(pairs))
    return {
        "singles": [[attribute] for attribute in range(N_ATTRIBUTES)],
        "pairs": [pairs[number] for number in order[:n_pairs]],
        "unseen pairs": [pairs[number] for number in order[n_pairs:]],
        "unseen triples": [list(triple) for triple in itertools.combinations(range(N_ATTRIBUTES), 3)],
    }


# ---- searches and controls, behind one face: predictions, hard or soft, and footprints


def _fitted(search, options, task, train, max_steps, seed):
    options = {"max_steps": max_steps, "random_state": SEARCH_SEED + seed} | dict(options)
    if search in CONTROLS:
        return CONTROLS[search](task, train, **options)
    arguments, keywords = train.arguments()
    return SEARCHES[search](task.model, **options).fit(*arguments, **keywords)


class _Fixed:
    """A control: one subspace for each distinct concept, found or chosen without looking at their sets together."""

    n_parameters = 0

    def __init__(self, task, subspaces):
        self.task, self.subspaces = task, subspaces

    def decision_function(self, base, source, concepts, *, context=None, hard=True):
        out = np.array(base)
        for key, rows in _groups(concepts):
            out[rows] = Intervention(self.subspaces(key))(base[rows], source[rows])
        contexts = () if context is None else (torch.from_numpy(context),)
        with torch.no_grad():
            return self.task.model(torch.from_numpy(out), *contexts).numpy()

    def footprint(self, concepts):
        ranks = np.array([Intervention(self.subspaces(_key(each))).rank for each in concepts])
        return {"rank": ranks, "effective_dimension": ranks.astype(float)}


def _key(concept):
    return tuple(np.ravel(concept).tolist())


def _groups(concepts):
    keys = [_key(each) for each in concepts]
    numbers = {}
    for number, key in enumerate(keys):
        numbers.setdefault(key, []).append(number)
    return numbers.items()


def _nothing(task, train, **options):
    return _Fixed(task, lambda key: np.zeros((0, train.base.shape[1]), dtype=train.base.dtype))


def _everything(task, train, **options):
    return _Fixed(task, lambda key: np.eye(train.base.shape[1], dtype=train.base.dtype))


def _random(task, train, *, n_directions, random_state, **options):
    shape = (n_directions, train.base.shape[1])

    def subspace(key):
        seed = [random_state, *(int(value) for value in key)]
        return np.random.default_rng(seed).standard_normal(shape).astype(train.base.dtype)

    return _Fixed(task, subspace)


def _joined(task, train, *, n_directions, **options):
    """DAS for each attribute alone, on its own examples; a set of attributes gets the span of its members'."""
    single = train[np.asarray(train.concepts).sum(axis=1) == 1]
    alone = single._replace(concepts=single.concepts.argmax(axis=1))
    arguments, keywords = alone.arguments()
    search = DistributedAlignmentSearch(task.model, n_directions, **options).fit(*arguments, **keywords)
    fixed = _Fixed(task, lambda key: np.concatenate([search.directions_[number] for number in np.flatnonzero(key)]))
    fixed.n_parameters = int(search.directions_.size)
    return fixed


CONTROLS = {"nothing": _nothing, "everything": _everything, "random": _random, "joined": _joined}


def _judged(search, task, rows):
    """Scores of one search on some rows: hard and soft, with the dimensions that each took."""
    arguments = (rows.base, rows.source, rows.concepts)
    footprint = search.footprint(np.unique(rows.concepts, axis=0))
    numbers = {
        "rank": float(np.mean(footprint["rank"])),
        "effective_dimension": float(np.mean(footprint["effective_dimension"])),
        "n_parameters": _n_parameters(search),
    }
    contexts = () if rows.context is None else (torch.from_numpy(rows.context),)
    with torch.no_grad():
        true = task.model(torch.from_numpy(rows.counterfactual), *contexts).numpy()
    for name, hard in (("hard", True), ("soft", False)):
        logits = search.decision_function(*arguments, context=rows.context, hard=hard)
        said = logits.argmax(axis=1)
        scores = disentangle(rows.labels, said, rows.cause, rows.concepts)
        numbers |= {f"{name}_{key}": float(scores[key]) for key in ("cause", "isolation", "disentangle")}
        numbers[f"{name}_accuracy"] = float(np.mean(said == rows.labels))
        numbers[f"{name}_divergence"] = counterfactual_divergence(true, logits)
    return numbers


def _n_parameters(search):
    if isinstance(search, _Fixed):
        return search.n_parameters
    return sum(parameter.numel() for parameter in search._subspaces.parameters())
