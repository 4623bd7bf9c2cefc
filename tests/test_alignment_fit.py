# SPDX-License-Identifier: BSD-3-Clause
"""Alignment searches on a model whose causal directions are known, and the tasks and metrics around them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skprojdict import persistence
from skprojdict.alignment import (
    AttributeDictionary,
    DistributedAlignmentSearch,
    HouseholderAlignmentSearch,
    ProjectiveAlignmentSearch,
    counterfactual_divergence,
    disentangle,
    interchange_accuracy,
    least_rank,
)
from skprojdict.alignment.tasks import EntityTask, EqualityTask
from skprojdict.persistence import archive

D = 6


class TwoReadings:
    """Logits of two bits, the signs of two orthogonal directions; ``context`` says which bit is asked for."""

    def __init__(self, seed=0):
        q = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0]
        self.directions = q[:2]
        self.weight = torch.from_numpy(9 * q[:2])

    def __call__(self, h, asked):
        bit = (h @ self.weight.to(h.dtype).T).gather(1, asked[:, None])
        return torch.cat([-bit, bit], dim=1)


def examples(model, rng, n=2400):
    """Concept 0 or 1 is swapped and bit 0 or 1 is asked for: the source's bit if they are the same, else the base's."""
    base, source = rng.standard_normal((2, n, D))
    concepts, asked = rng.integers(2, size=(2, n))
    told = np.where((concepts == asked)[:, None], source, base) @ model.directions.T
    labels = (told[np.arange(n), asked] > 0).astype(int)
    return base, source, labels, concepts, asked


SEARCHES = {
    "das": lambda model: DistributedAlignmentSearch(model, n_directions=1, learning_rate=0.03, max_steps=300),
    "mask": lambda model: DistributedAlignmentSearch(model, width="mask", learning_rate=0.03, max_steps=600),
    "projective": lambda model: ProjectiveAlignmentSearch(model, learning_rate=0.03, max_steps=800),
    "householder": lambda model: HouseholderAlignmentSearch(model, n_directions=1, learning_rate=0.03, max_steps=800),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_directions_that_the_model_reads_are_found(rng, name):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng)
    search = SEARCHES[name](model).set_params(random_state=0)
    search.fit(base, source, labels, concepts, context=asked)
    fresh = examples(model, np.random.default_rng(1))
    assert search.score(*fresh[:4], context=fresh[4]) > 0.95
    assert search.rank_.tolist() == [1, 1]
    assert search.directions_.shape == (2, 1, D)
    cosines = abs(np.einsum("cd,cd->c", search.directions_[:, 0], model.directions))
    assert (cosines > 0.95).all()
    report = search.report(*fresh[:4], context=fresh[4])
    assert report.rank == 1
    assert report.score == search.score(*fresh[:4], context=fresh[4])
    assert 0.9 < report.effective_dimension < 1.2


def test_a_search_is_an_estimator(rng):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, 300)
    search = DistributedAlignmentSearch(model, 1, max_steps=20, random_state=0)
    first, second = (clone(search).fit(base, source, labels, concepts, context=asked) for _ in range(2))
    np.testing.assert_array_equal(first.directions_, second.directions_)
    again = pickle.loads(pickle.dumps(first))
    swapped = first.intervene(base, source, concepts)
    np.testing.assert_array_equal(again.intervene(base, source, concepts), swapped)
    direction = first.directions_[concepts, 0]
    expected = base + np.sum(direction * (source - base), axis=1, keepdims=True) * direction
    np.testing.assert_allclose(swapped, expected, atol=1e-10)
    single = first.intervention(0)
    np.testing.assert_allclose(single(base, source)[concepts == 0], swapped[concepts == 0], atol=1e-10)


def test_selection_depends_on_the_concept_alone(rng):
    """Unseen descriptions reach the dictionary too, and H is linear in the difference of the runs."""
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, 600)
    described = np.eye(2)[concepts]
    search = ProjectiveAlignmentSearch(model, max_steps=60, random_state=0)
    search.fit(base, source, labels, described, context=asked)
    both = np.ones((600, 2))
    shifted = search.intervene(base + 3.0, source + 3.0, both) - (base + 3.0)
    np.testing.assert_allclose(shifted, search.intervene(base, source, both) - base, atol=1e-9)
    assert search.precisions(np.ones((1, 2))).shape == (1, 4 * D)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, dtype=int)}, "labels must be 40 integers"),
        ({"source": np.zeros((40, D + 1))}, "base and source must have one shape"),
        ({"base": np.full((40, D), np.nan)}, "base"),
        ({"concepts": np.zeros(7, dtype=int)}, "concepts must have one row"),
        ({"sample_weight": -np.ones(40)}, "sample_weight"),
        ({"context": np.zeros(9, dtype=int)}, "context must have one row"),
        ({"labels": np.full(40, 5)}, "labels must be classes of the model, 0 to 1, got 5"),
        ({"labels": np.full(40, -1)}, "labels must be classes of the model, 0 to 1, got -1"),
    ],
)
def test_bad_input_is_named(rng, change, message):
    base, source, labels, concepts, asked = examples(TwoReadings(), rng, 40)
    given = {"base": base, "source": source, "labels": labels, "concepts": concepts, "context": asked} | change
    search = DistributedAlignmentSearch(TwoReadings(), 1, max_steps=2)
    with pytest.raises(ValueError, match=message):
        search.fit(**given)
    assert not hasattr(search, "directions_")


def test_an_unknown_label_is_refused(rng):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, 40)
    search = DistributedAlignmentSearch(model, 1, max_steps=2).fit(base, source, labels, concepts, context=asked)
    with pytest.raises(ValueError, match="not among those of fit"):
        search.intervene(base, source, np.full(40, 5))
    with pytest.raises(ValueError, match="columns"):
        search.intervene(base[:, :2], source[:, :2], concepts)


def test_a_model_that_fails_is_told_what_it_was_given(rng):
    """The model's own error, with a note on what a search passes to it."""
    base, source, labels, concepts, asked = examples(TwoReadings(), rng, 40)
    whole = torch.nn.Linear(D + 1, 2)
    with pytest.raises(RuntimeError) as caught:
        DistributedAlignmentSearch(whole, 1, max_steps=2).fit(base, source, labels, concepts)
    assert "The model was called with activations of shape (40, 6) and no context" in caught.value.__notes__[0]
    search = DistributedAlignmentSearch(TwoReadings(), 1, max_steps=2)
    search.fit(base, source, labels, concepts, context=asked)
    with pytest.raises(TypeError) as caught:
        search.predict(base, source, concepts)
    assert "no context" in caught.value.__notes__[0]
    with pytest.raises(TypeError) as caught:
        search.predict(base, source, concepts, context=(asked, asked))
    assert "2 contexts" in caught.value.__notes__[0]


def test_a_device_that_is_not_there_is_named(rng):
    base, source, labels, concepts, asked = examples(TwoReadings(), rng, 40)
    search = DistributedAlignmentSearch(TwoReadings(), 1, max_steps=2, device="moon")
    with pytest.raises(ValueError, match="device='moon' is not a device"):
        search.fit(base, source, labels, concepts, context=asked)


def test_the_network_is_left_as_it_was(rng):
    network = torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)).train()
    before = [each.clone() for each in network.state_dict().values()]
    base, source = rng.standard_normal((2, 50, D))
    labels = rng.integers(2, size=50)
    DistributedAlignmentSearch(network, 2, max_steps=5).fit(base, source, labels, np.zeros(50, dtype=int))
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert all(each.grad is None for each in network.parameters())
    assert all(part.training for part in network.modules())


# ---- metrics in closed form


def test_accuracy_and_disentangle_by_hand():
    labels, said = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    assert interchange_accuracy(labels, said) == 0.5
    assert interchange_accuracy(labels, said, sample_weight=np.array([1.0, 1.0, 0.0, 0.0])) == 1.0
    scores = disentangle(labels, said, np.array([True, True, False, False]))
    assert (scores.cause, scores.isolation, scores.disentangle) == (1.0, 0.0, 0.5)


def test_divergence_is_zero_for_the_truth_and_the_kl_otherwise():
    true, other = np.array([[0.0, np.log(3.0)]]), np.array([[0.0, 0.0]])
    assert counterfactual_divergence(true, true) == pytest.approx(0.0, abs=1e-12)
    kl = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert counterfactual_divergence(true, other) == pytest.approx(kl)


def test_least_rank():
    ranks, scores = np.array([1, 2, 4, 8]), np.array([0.5, 0.9, 0.96, 0.97])
    assert least_rank(ranks, scores, at=0.95) == 4
    assert least_rank(ranks, scores, within=0.08) == 2


# ---- tasks


def test_the_equality_network_learns_and_its_counterfactuals_are_true():
    task = EqualityTask(n_steps=400, random_state=0)
    assert task.accuracy > 0.6  # far from trained in a second, but no longer guessing
    found = task.interchanges(200, random_state=1)
    assert found.base.shape == found.source.shape == found.counterfactual.shape == (200, 16)
    assert set(found.labels.tolist()) <= {0, 1}
    again = EqualityTask(n_steps=400, random_state=0).interchanges(200, random_state=1)
    np.testing.assert_array_equal(found.base, again.base)


def test_entities_answer_for_their_attributes():
    task = EntityTask(n_attributes=3, n_steps=300, random_state=0)
    found = task.interchanges(300, random_state=1)
    with torch.no_grad():
        logits = task.model(torch.from_numpy(found.counterfactual), torch.from_numpy(np.asarray(found.context)))
    told = logits.argmax(1).numpy()
    assert np.mean(told == found.labels) > 0.95  # the wanted answer is what the true counterfactual gives
    assert found.cause.any()
    assert not found.cause.all()


# ---- files


FORMS = {
    "das": lambda model: DistributedAlignmentSearch(model, n_directions=1),
    "blocks": lambda model: DistributedAlignmentSearch(model, n_directions=1, shared_rotation=True),
    "mask": lambda model: DistributedAlignmentSearch(model, width="mask"),
    "shared mask": lambda model: DistributedAlignmentSearch(model, width="mask", shared_rotation=True),
    "projective": lambda model: ProjectiveAlignmentSearch(model, max_atoms=5, final_temperature=0.5),
    "householder": lambda model: HouseholderAlignmentSearch(model, n_directions=1, hidden_size=4),
}


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("described", ["numbers", "names", "vectors"])
@pytest.mark.parametrize("name", FORMS)
def test_a_search_comes_back_from_its_file_without_the_network(rng, name, described, ending, tmp_path):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, n=200)
    base, source = base.astype(np.float32), source.astype(np.float32)
    if described == "names":
        concepts = np.array(["size", "colour"])[concepts]
    elif described == "vectors":
        concepts = np.eye(2, dtype=np.float32)[concepts]
    search = FORMS[name](model).set_params(max_steps=5, random_state=0)
    search.fit(base, source, labels, concepts, context=asked)
    persistence.save(search, tmp_path / f"search.{ending}")
    loaded = persistence.load(tmp_path / f"search.{ending}")
    assert loaded.model is None
    with pytest.raises(ValueError, match=r"model is None.*set_params\(model=network\)"):
        loaded.score(base, source, labels, concepts, context=asked)
    for hard in (True, False):
        expected = search.intervene(base, source, concepts, hard=hard)
        np.testing.assert_array_equal(loaded.intervene(base, source, concepts, hard=hard), expected)
    loaded.set_params(model=model)
    assert loaded.report(base, source, labels, concepts, context=asked) == search.report(
        base, source, labels, concepts, context=asked
    )
    assert loaded.concepts_.dtype == search.concepts_.dtype
    for attribute in (name for name in vars(search) if name.endswith("_") and name != "hypernetwork_"):
        np.testing.assert_array_equal(getattr(loaded, attribute), getattr(search, attribute), err_msg=attribute)
    if name == "projective":
        np.testing.assert_array_equal(loaded.precisions(concepts[:3]), search.precisions(concepts[:3]))
    np.testing.assert_array_equal(
        loaded.intervention(concepts[0])(base, source), search.intervention(concepts[0])(base, source)
    )
    persistence.save(loaded, tmp_path / f"again.{ending}")  # what came from a file can go into one


def test_what_a_file_cannot_hold_of_a_search_is_said(rng, tmp_path):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, n=200)
    search = ProjectiveAlignmentSearch(model, max_steps=5, random_state=0)
    search.fit(base, source, labels, concepts, context=asked)
    for changed in ({"n_atoms": 7}, {"final_temperature": 0.5}, {"penalty": "softplus"}):
        with pytest.raises(ValueError, match="changed since it was fitted"):
            persistence.save(clone_fitted(search).set_params(**changed), tmp_path / "search.npz")
    search.set_params(hypernetwork=torch.nn.Linear(2, 3), n_atoms=5)
    search.fit(base, source, labels, np.eye(2)[concepts], context=asked)
    with pytest.raises(TypeError, match=r"hypernetwork.*joblib"):
        persistence.save(search, tmp_path / "search.npz")
    search = HouseholderAlignmentSearch(model, hypernetwork=torch.nn.Linear(2, 3), max_steps=5, random_state=0)
    search.fit(base, source, labels, np.eye(2)[concepts], context=asked)
    with pytest.raises(TypeError, match=r"hypernetwork.*joblib"):
        persistence.save(search, tmp_path / "search.npz")
    with pytest.raises(TypeError, match="is no fitted dictionary"):
        persistence.save_for_hub(search, tmp_path / "hub", data="None.", licence="mit")
    assert list(tmp_path.iterdir()) == []


def test_a_hypernetwork_is_trained_in_the_dtype_of_the_rows(rng):
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, n=100)
    mine = torch.nn.Linear(2, 3)
    search = ProjectiveAlignmentSearch(model, hypernetwork=mine, max_steps=2, random_state=0)
    search.fit(base, source, labels, np.eye(2)[concepts], context=asked)
    assert next(search.hypernetwork_.parameters()).dtype == torch.float64
    assert mine.weight.dtype == torch.float32


def test_a_file_without_sense_is_refused(rng, tmp_path):
    """Whatever stands in its header under a checksum that fits: ValueError, or a search whose methods are its own."""
    model = TwoReadings()
    base, source, labels, concepts, asked = examples(model, rng, n=100)
    search = DistributedAlignmentSearch(model, n_directions=1, max_steps=2, random_state=0)
    persistence.save(search.fit(base, source, labels, concepts, context=asked), tmp_path / "good.npz")
    arrays, header = archive.read(tmp_path / "good.npz")
    refused = 0
    for part in ("params", "fitted"):
        for name in [*header[part], "intervene"]:
            for nonsense in (None, 3, "x", {}, {"list": []}, {"dict": {}}, {"array": "directions_"}, {"text": 3}):
                changed = copy.deepcopy(header)
                changed[part][name] = nonsense
                archive.write(tmp_path / "bad.npz", arrays, changed)
                try:
                    loaded = persistence.load(tmp_path / "bad.npz")
                except ValueError as error:
                    refused += "bad.npz" in str(error)
                else:
                    assert loaded.intervene.__func__ is search.intervene.__func__
    assert refused > 60


def clone_fitted(search):
    return pickle.loads(pickle.dumps(search))


@pytest.mark.parametrize("kind", [int, str])
def test_an_attribute_dictionary_comes_back_from_its_file(rng, kind, tmp_path):
    attributes = rng.integers(3, size=(50, 2)).astype(kind)
    reference = AttributeDictionary().fit(rng.standard_normal((50, 4)), attributes)
    persistence.save(reference, tmp_path / "reference.npz")
    loaded = persistence.load(tmp_path / "reference.npz")
    np.testing.assert_array_equal(loaded.reconstruct(attributes), reference.reconstruct(attributes))
