# SPDX-License-Identifier: BSD-3-Clause
"""MethodOfOptimalDirections as its users see it."""

import pickle
import warnings

import array_api_strict
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits

from skprojdict import MethodOfOptimalDirections
from skprojdict._array import to_numpy
from skprojdict._passes import Passes
from skprojdict.solvers.omp import orthogonal_matching_pursuit

VARIANTS = [
    {},
    {"coder": "omp"},
    {"forgetting": "linear"},
    {"forgetting": 0.9},
    {"forgetting": 1.0},
    {"algorithm": "full"},
    {"algorithm": "full", "update": "ksvd"},
    {"algorithm": "full", "update": "approximate_ksvd"},
]


def make_sparse_rows(n=1000, p=20, d=12, k=2, seed=0):
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    Z = rng.uniform(0.3, 1, (n, p)) * rng.choice([-1, 1], (n, p)) * (rng.random((n, p)).argsort(1) < k)
    return Z @ F, F


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:500] / 16


def mod(**options):
    return MethodOfOptimalDirections(**{"n_components": 40, "n_nonzero_coefs": 4, "random_state": 0, **options})


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_beats_its_start(digits, options):
    model = mod(max_iter=10, batch_size=64, **options).fit(digits)
    start = mod(max_iter=1, batch_size=64, **options).fit(digits)
    assert model.score(digits) > 0.8
    assert model.history_["fvu"][-1] < 0.8 * start.history_["fvu"][0]
    assert_allclose(np.linalg.norm(model.components_, axis=1), 1)
    assert model.n_iter_ == len(model.history_["loss"]) == 10
    assert model.n_steps_ == model.history_["step"][-1] == (10 if "algorithm" in options else 70)


def test_score_is_explained_variance_of_the_reconstruction(digits):
    model = mod(max_iter=2).fit(digits)
    Z = model.transform(digits)
    assert (Z != 0).sum(1).max() == 4
    error = ((digits - model.inverse_transform(Z)) ** 2).sum()
    assert model.score(digits) == pytest.approx(1 - error / ((digits - digits.mean(0)) ** 2).sum())
    assert type(model.score(digits)) is float


def test_sparse_output(digits):
    model = mod(max_iter=2).fit(digits)
    dense = model.transform(digits)
    sparse = clone(model).set_params(sparse_output=True).fit(digits).transform(digits)
    assert sparse.format == "csr"
    assert_array_equal(sparse.toarray(), dense)
    assert_allclose(model.inverse_transform(sparse), model.inverse_transform(dense))


def test_known_atoms_are_found():
    X, F = make_sparse_rows()
    model = mod(n_components=20, n_nonzero_coefs=2, max_iter=25).fit(X)
    assert (np.abs(model.components_ @ F.T).max(0) > 0.99).sum() >= 18


@pytest.mark.parametrize("options", [{}, {"algorithm": "full"}, {"algorithm": "full", "update": "ksvd"}], ids=str)
@pytest.mark.parametrize("xp", [torch, array_api_strict])
def test_namespaces_agree(digits, xp, options):
    X = digits[:200]
    expected = mod(max_iter=3, **options).fit(X)
    with config_context(array_api_dispatch=True):
        model = mod(max_iter=3, **options).fit(xp.asarray(X))
        codes = model.transform(xp.asarray(X))
    assert_allclose(to_numpy(model.components_), expected.components_, atol=1e-8)
    assert_allclose(to_numpy(codes), expected.transform(X), atol=1e-7)
    assert_array_equal(to_numpy(model.n_activations_), expected.n_activations_)


@pytest.mark.parametrize("algorithm", ["streaming", "full"])
def test_half_precision_on_disk_is_read_batch_by_batch(digits, tmp_path, monkeypatch, algorithm):
    np.save(tmp_path / "rows.npy", digits.astype(np.float16))
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = mod(max_iter=2, batch_size=50, algorithm=algorithm).fit(digits.astype(np.float16).astype(np.float32))
    sizes = []
    take = Passes.rows

    def spy(self, rows):
        assert self.X.dtype == np.float16
        assert np.shares_memory(self.X, X)
        batch = take(self, rows)
        sizes.append((batch.shape[0], batch.dtype))
        return batch

    monkeypatch.setattr(Passes, "rows", spy)
    model = mod(max_iter=2, batch_size=50, algorithm=algorithm).fit(X)
    if algorithm == "streaming":
        assert sizes == [(50, np.float32)] * 20
    assert model.components_.dtype == model.transform(X).dtype == np.float32
    assert_allclose(model.components_, expected.components_, atol=1e-4)


@pytest.mark.parametrize("options", VARIANTS[:3] + VARIANTS[-3:], ids=str)
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_units_do_not_matter(digits, options, unit):
    X = digits.astype(np.float32)
    scores = [mod(max_iter=4, coder_tol=0.1 * c**2, **options).fit(c * X).score(c * X) for c in (1, np.float32(unit))]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_labels_are_ignored_and_random_state_fixes_the_result(digits):
    first = mod(max_iter=2).fit(digits)
    again = mod(max_iter=2).fit(digits, np.arange(len(digits)))
    other = mod(max_iter=2, random_state=1).fit(digits)
    assert_array_equal(first.components_, again.components_)
    assert not np.allclose(first.components_, other.components_)


def test_number_of_coefficients(digits):
    X = digits[:60]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MethodOfOptimalDirections(n_components=1, max_iter=1).fit(X).transform(X).shape == (60, 1)
        auto = MethodOfOptimalDirections(max_iter=1).fit(X)
    assert auto.components_.shape == (8 * 64, 64)
    assert (auto.transform(X) != 0).sum(1).max() <= 6
    with pytest.warns(UserWarning, match="n_nonzero_coefs=9 is larger") as record:
        clipped = mod(n_components=3, n_nonzero_coefs=9, max_iter=2).fit(X)
    assert len(record) == 1
    assert (clipped.transform(X) != 0).sum(1).max() == 3


def test_tolerance_ends_codes(digits):
    tol = 2.0
    model = mod(n_nonzero_coefs=None, coder_tol=tol, max_iter=5).fit(digits)
    Z = model.transform(digits)
    lengths = (Z != 0).sum(1)
    assert lengths.min() < lengths.max()
    assert ((digits - model.inverse_transform(Z)) ** 2).sum(1).max() <= tol
    capped = mod(n_nonzero_coefs=2, coder_tol=tol, max_iter=5).fit(digits)
    assert (capped.transform(digits) != 0).sum(1).max() == 2


def test_partial_fit_learns_from_a_stream():
    X, F = make_sparse_rows(n=6000)
    model = mod(n_components=20, n_nonzero_coefs=2)
    for start in range(0, 6000, 100):
        model.partial_fit(X[start : start + 100])
        if start == 2900:
            model = pickle.loads(pickle.dumps(model))
    assert model.n_steps_ == model.n_iter_ == 60
    assert model.history_["fvu"][-1] < 0.3 * model.history_["fvu"][0]
    assert (np.abs(model.components_ @ F.T).max(0) > 0.99).sum() >= 17
    with pytest.raises(ValueError, match="12 features"):
        model.partial_fit(X[:, :5])


def test_partial_fit_takes_single_rows_and_continues_a_fit(digits):
    model = mod(max_iter=3).fit(digits)
    before, score = model.components_, model.score(digits)
    model.partial_fit(digits[:1])
    assert model.n_steps_ == 3 * (500 // 40) + 1
    assert not np.array_equal(model.components_, before)
    assert model.score(digits) == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(
    "changed",
    [
        {"n_nonzero_coefs": 1},
        {"coder": "omp"},
        {"n_nonzero_coefs": None, "coder_tol": 1.0},
        {"forgetting": 0.5},
        {"forgetting": "linear"},
    ],
    ids=str,
)
def test_partial_fit_takes_parameters_as_they_are_now(digits, changed):
    model, same = (mod().partial_fit(digits[:200]) for _ in range(2))
    kept = model._learner.statistics
    model.set_params(**changed).partial_fit(digits[200:400])
    same.partial_fit(digits[200:400])
    assert model._learner.statistics is kept  # what was learnt stays
    assert not np.allclose(model.components_, same.components_)
    if changed == {"n_nonzero_coefs": 1}:
        assert (model.n_activations_ - same.n_activations_).sum() == -3 * 200


def test_partial_fit_codes_in_the_chunks_of_now(digits, monkeypatch):
    model = mod().partial_fit(digits[:200])
    seen = []

    def spy(Y, F, k, **options):
        seen.append(options["chunk_size"])
        return orthogonal_matching_pursuit(Y, F, k, **options)

    monkeypatch.setattr("skprojdict.solvers.learner.orthogonal_matching_pursuit", spy)
    model.set_params(chunk_size=7).partial_fit(digits[:200])
    assert seen == [7]


def test_training_does_not_go_on_with_another_number_of_atoms(digits):
    model = mod(warm_start=True, max_iter=1).fit(digits)
    before = model.components_
    message = "n_components=30 asks for 30 atoms.*the 40 fitted ones.*warm_start=False"
    for train in (model.set_params(n_components=30).fit, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            train(digits)
    assert model.components_ is before
    assert model.set_params(warm_start=False).fit(digits).components_.shape[0] == 30


def test_a_refused_start_leaves_the_fit_as_it_was(digits):
    model = mod(max_iter=1).fit(digits)
    expected = model.transform(digits[:20])
    with pytest.raises(ValueError, match="init"):
        model.set_params(init=np.ones((3, 64))).fit(5 * digits + 1)
    assert_array_equal(model.transform(digits[:20]), expected)


def test_integers_are_learnt_in_double_precision():
    X = load_digits().data[:200]
    expected = mod(max_iter=1).fit(X)
    model = mod(max_iter=1).fit(X.astype(np.int64))
    assert model.components_.dtype == np.float64
    assert_allclose(model.components_, expected.components_, atol=1e-10)


@pytest.mark.filterwarnings("ignore:torch.asarray")  # of scikit-learn's validation
def test_no_gradients_come_out(digits):
    X = torch.tensor(digits[:100], requires_grad=True)
    with config_context(array_api_dispatch=True):
        model = mod(max_iter=1).fit(X)
        model.partial_fit(X)
        found = [model.components_, model.mean_, model.transform(X), model.inverse_transform(model.transform(X))]
    assert not any(part.requires_grad for part in found)


def test_warm_start_continues(digits):
    model = mod(max_iter=3, warm_start=True).fit(digits)
    first = model.score(digits)
    model.fit(digits)
    assert model.n_iter_ == 6
    assert len(model.history_["fvu"]) == 6
    assert model.score(digits) > first - 0.01
    assert model.history_["fvu"][3] < model.history_["fvu"][0]
    cold = mod(max_iter=3).fit(digits).fit(digits)
    assert cold.n_iter_ == 3


@pytest.mark.parametrize("init", ["data", "random", "svd"])
def test_named_starts(digits, init):
    assert mod(init=init, max_iter=8).fit(digits).score(digits) > 0.75


def test_given_starts(digits):
    atoms = np.random.default_rng(0).standard_normal((40, 64))
    by_array = mod(init=atoms, max_iter=2).fit(digits)
    seen = []

    def start(rows, n_components, random_state):
        seen.append((rows.shape, n_components))
        return atoms

    by_callable = mod(init=start, max_iter=2).fit(digits)
    assert seen == [((500, 64), 40)]
    assert_array_equal(by_array.components_, by_callable.components_)
    with pytest.raises(ValueError, match="init must give an array of shape"):
        mod(init=atoms[:3]).fit(digits)


def test_counts_of_uses_and_replacements(digits):
    model = mod(algorithm="full", max_iter=1).fit(digits)
    assert model.n_activations_.dtype == np.int64
    assert model.n_activations_.sum() == 4 * 500 - 3 * 40  # the 40 rows that are atoms need one each
    twins = np.tile(digits[:1] - digits.mean(0), (40, 1))
    model = mod(init=twins, max_iter=10).fit(digits)
    assert model.n_resampled_ == model.history_["n_resampled"][-1] >= 20
    assert np.abs(model.components_ @ model.components_.T - np.eye(40)).max() < 0.995


def test_tol_stops_early(digits):
    model = mod(algorithm="full", tol=0.5, max_iter=50).fit(digits)
    assert model.n_iter_ == 6


def test_constant_columns_and_constant_rows(digits):
    X = digits[:50].copy()
    X[:, :30] = 3
    assert np.isfinite(mod(max_iter=2).fit(X).transform(X)).all()
    with pytest.warns(UserWarning, match="every row is the same"):
        model = mod(max_iter=2).fit(np.ones((10, 4)))
    assert np.isfinite(model.components_).all()
    assert not model.transform(np.ones((3, 4))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "ksvd"}, "algorithm='full'"),
        ({"n_nonzero_coefs": None}, "coder_tol"),
        ({"coder": "lars"}, "coder"),
        ({"forgetting": 0.0}, "forgetting"),
        ({"n_components": 0}, "n_components"),
    ],
)
def test_bad_parameters_are_named(digits, options, message):
    with pytest.raises(ValueError, match=message):
        mod(**options).fit(digits)


def test_ksvd_has_no_partial_fit():
    assert not hasattr(mod(update="ksvd", algorithm="full"), "partial_fit")


def test_bad_rows_are_named(digits):
    X = digits[:20].copy()
    X[7, 3] = np.nan
    with pytest.raises(ValueError, match="first such row is 7"):
        mod().fit(X)
    with pytest.raises(ValueError, match="1 sample"):
        mod().fit(digits[:1])
