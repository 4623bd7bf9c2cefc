# SPDX-License-Identifier: BSD-3-Clause
"""Around the alignment searches: concepts of every kind, edits of features, and the three tests of a dictionary."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.alignment import (
    AttributeDictionary,
    DistributedAlignmentSearch,
    ProjectiveAlignmentSearch,
    edit_features,
    feature_interpretability,
    sparse_control,
    sufficiency_and_necessity,
)
from skprojdict.alignment.subspaces import Scores

D = 6


class Reader:
    """Logits of three bits, the signs of three coordinates; ``asked`` says which one."""

    def __call__(self, h, asked):
        bit = 9 * h.gather(1, asked[:, None])
        return torch.cat([-bit, bit], dim=1)


def interchanges(rng, n, sets):
    """A random one of the ``sets`` of coordinates is swapped, and a random coordinate asked for."""
    base, source = rng.standard_normal((2, n, D))
    members = np.zeros((len(sets), 3), dtype=bool)
    for number, each in enumerate(sets):
        members[number, each] = True
    members, asked = members[rng.integers(len(sets), size=n)], rng.integers(3, size=n)
    rows = np.arange(n)
    told = np.where(members[rows, asked], source[rows, asked], base[rows, asked])
    return (base, source, (told > 0).astype(int), members.astype(float)), {"context": asked}


# ---- concepts


def test_descriptions_of_single_concepts_add_up_to_unseen_sets(rng):
    arguments, keywords = interchanges(rng, 4000, [[0], [1], [2]])
    search = ProjectiveAlignmentSearch(Reader(), max_steps=500, random_state=0).fit(*arguments, **keywords)
    unseen, context = interchanges(np.random.default_rng(1), 1000, [[0, 1], [0, 2], [1, 2], [0, 1, 2]])
    assert search.score(*unseen, **context) > 0.95
    assert search.footprint(np.eye(3)).rank.tolist() == [1, 1, 1]
    assert search.footprint(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])).rank.tolist() == [2, 3]


@pytest.mark.parametrize("penalty", ["inverse_square", "softplus", "exp", pytest.param(torch.square, id="callable")])
def test_every_penalty_starts_alive(rng, penalty):
    arguments, keywords = interchanges(rng, 1500, [[0], [1], [2]])
    search = ProjectiveAlignmentSearch(Reader(), penalty=penalty, max_steps=150, random_state=0)
    search.fit(*arguments, **keywords)
    assert search.history_["accuracy"][-1] > 0.8
    assert (search.effective_dimension_ > 0.2).all()


def test_a_hypernetwork_is_trained_as_a_copy_and_pickles(rng):
    """Concepts as token ids, read by the user's own module."""
    (base, source, labels, described), keywords = interchanges(rng, 3000, [[0], [1], [2]])
    tokens = described.argmax(axis=1)
    network = torch.nn.Embedding(3, 4)
    before = network.weight.detach().clone()
    search = ProjectiveAlignmentSearch(Reader(), hypernetwork=network, max_steps=500, random_state=0)
    search.fit(base, source, labels, tokens, **keywords)
    assert search.score(base, source, labels, tokens, **keywords) > 0.95
    assert torch.equal(network.weight, before)
    assert not torch.equal(search.hypernetwork_.weight, before)


def test_decay_pulls_maps_to_zero_and_leaves_tables(rng):
    maps, table = (Scores(3, 4, n_inputs, None, start=1.0, spread=0.1) for n_inputs in (2, None))
    search = ProjectiveAlignmentSearch(Reader(), weight_decay=5.0, max_steps=300, learning_rate=0.03, random_state=0)
    arguments, keywords = interchanges(rng, 500, [[0], [1], [2]])
    strong = search.fit(*arguments, **keywords)._subspaces.scores.weight.abs().max()
    free = search.set_params(weight_decay=0.0).fit(*arguments, **keywords)._subspaces.scores.weight.abs().max()
    assert strong < 0.5 * free
    assert (maps.table, table.table) == (False, True)


def test_one_concept_needs_no_name(rng):
    base, source = rng.standard_normal((2, 1500, D))
    labels = (source[:, 0] > 0).astype(int)
    asked = np.zeros(1500, dtype=int)
    search = DistributedAlignmentSearch(Reader(), 1, max_steps=200, learning_rate=0.03, random_state=0)
    search.fit(base, source, labels, context=asked)
    assert search.score(base, source, labels, context=asked) > 0.95
    assert search.intervene(base, source).shape == base.shape
    assert search.report(base, source, labels, context=asked).rank == 1


# ---- edits of features


@pytest.fixture(scope="module")
def digits():
    X = load_digits().data
    models = (
        ProjectiveDictionaryLearning(48, n_nonzero_coefs=5, max_steps=40, random_state=0).fit(X),
        TopKDictionaryLearning(48, n_nonzero_coefs=5, max_steps=40, random_state=0).fit(X),
    )
    return X, models


def test_an_edit_of_all_features_moves_the_reconstruction_and_keeps_the_error(digits):
    X, (model, _) = digits
    base, source = X[:6], X[6:12]
    out = edit_features(model, base, source, np.arange(48))
    # The joint support spans both, so the change is the projection of the difference on the joint span.
    used = (model.transform(base) != 0) | (model.transform(source) != 0)
    for row in range(6):
        F = model.components_[used[row]]
        expected = base[row] + (source[row] - base[row]) @ np.linalg.pinv(F) @ F
        assert_allclose(out[row], expected, atol=1e-6)


def test_only_the_chosen_coefficient_moves(digits):
    X, models = digits
    for model in models:
        base, source = X[:5], X[5:10]
        feature = int(np.flatnonzero(model.transform(source)[0])[0])
        change = edit_features(model, base, source, [feature]) - base
        atom = model.components_[feature]
        assert_allclose(change, (change @ atom)[:, None] * atom / (atom @ atom), atol=1e-8)
        assert np.abs(change[0]).max() > 0
        mask = np.zeros((5, 48), dtype=bool)
        mask[0, feature] = True
        own = edit_features(model, base, source, mask)
        assert_allclose(own[0], base[0] + change[0], atol=1e-8)
        assert_allclose(own[1:], base[1:], atol=1e-12)


@pytest.mark.parametrize(
    ("features", "message"),
    [([48], "between 0 and 47"), ([0.5], "numbers of atoms"), (np.ones(48, dtype=bool), "bool must have shape")],
)
def test_bad_features_are_named(digits, features, message):
    X, (model, _) = digits
    with pytest.raises(ValueError, match=message):
        edit_features(model, X[:2], X[2:4], features)


# ---- Makelov, Lange and Nanda's tests


class OneHot:
    """A perfect dictionary: code j is coordinate j."""

    components_, mean_ = np.eye(D), np.zeros(D)

    def transform(self, X):
        return np.asarray(X)

    def inverse_transform(self, Z):
        return Z


def test_a_perfect_reconstruction_is_sufficient_and_necessary(rng):
    X = rng.standard_normal((800, D))
    asked = rng.integers(3, size=800)
    labels = (X[np.arange(800), asked] > 0).astype(int)
    perfect = sufficiency_and_necessity(OneHot(), X, Reader(), labels, context=asked)
    assert (perfect.original, perfect.sufficiency) == (1.0, 1.0)
    assert perfect.necessity == perfect.floor < 0.6
    nothing = sufficiency_and_necessity(np.broadcast_to(X.mean(axis=0), X.shape), X, Reader(), labels, context=asked)
    assert (nothing.sufficiency, nothing.necessity) == (perfect.floor, 1.0)
    with pytest.raises(ValueError, match="shape of X"):
        sufficiency_and_necessity(X[:, :2], X, Reader(), labels, context=asked)


def test_one_edit_suffices_where_one_coefficient_differs(rng):
    base = rng.standard_normal((300, D))
    other = base.copy()
    other[:, 0] *= -1
    asked = np.zeros(300, dtype=int)
    found = sparse_control(OneHot(), base, other, Reader(), n_edits=2, context=asked)
    assert (found.success, found.unedited, found.n_edits) == (1.0, 0.0, 1.0)
    # The weight of the edited coefficient: its share of the squared norm.
    assert_allclose(found.weight, np.mean(base[:, 0] ** 2 / np.sum(base**2, axis=1)))
    assert sparse_control(OneHot(), base, other, Reader(), n_edits=0, context=asked).success == 0.0
    with pytest.raises(ValueError, match="n_edits"):
        sparse_control(OneHot(), base, other, Reader(), n_edits=-1, context=asked)


def test_interpretability_is_the_best_f1(rng):
    attributes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 3)
    codes = np.stack([attributes[:, 0] == 1, attributes[:, 1] == 0, np.zeros(12), np.ones(12)], axis=1).astype(float)
    best = feature_interpretability(codes, attributes)
    assert_allclose(best.f1, [1, 1, 0, 2 / 3])
    assert (best.attribute[:2].tolist(), best.value[:2].tolist()) == ([0, 1], [1, 0])
    assert best.found == 0.5
    assert_allclose(best.mean_f1, (1 + 1 + 2 / 3) / 3)


def test_the_supervised_reference_is_least_squares(rng):
    attributes = rng.integers(3, size=(400, 2))
    effects = rng.standard_normal((2, 3, D))
    X = effects[0, attributes[:, 0]] + effects[1, attributes[:, 1]] + 5.0
    reference = AttributeDictionary().fit(X, attributes)
    assert_allclose(reference.reconstruct(attributes), X, atol=1e-9)
    with pytest.raises(ValueError, match="one row a sample"):
        reference.fit(X, attributes[:, 0])
