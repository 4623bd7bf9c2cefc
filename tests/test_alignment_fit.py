# SPDX-License-Identifier: BSD-3-Clause
"""Alignment searches on a model whose causal directions are known, and the tasks and metrics around them."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skprojdict.alignment import (
    DistributedAlignmentSearch,
    HouseholderAlignmentSearch,
    ProjectiveAlignmentSearch,
    counterfactual_divergence,
    disentangle,
    interchange_accuracy,
    least_rank,
)
from skprojdict.alignment.tasks import EntityTask, EqualityTask

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
