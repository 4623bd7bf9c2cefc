# SPDX-License-Identifier: BSD-3-Clause
"""ProjectiveDictionaryLearning: what every parameter promises."""

import numpy as np
import pytest
from scipy.optimize import nnls

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.solvers.penalties import dimension_estimate

from .data import fvu, scaled, scores_of, sparse_rows

P = ProjectiveDictionaryLearning
# Candidates are pruned by their coefficients, which is tested below; the other tests look at the plain selection.
SMALL = {"n_components": 32, "n_nonzero_coefs": 3, "candidate_factor": 1.0, "max_iter": 5, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return sparse_rows()


def test_codes_are_least_squares_on_the_atoms_of_largest_positive_score(data):
    model = P(**SMALL).fit(data)
    scores, codes = scores_of(model, data), model.transform(data)
    for x, e, z in zip(data[:40], scores, codes, strict=False):
        support = [j for j in np.argsort(-e)[:3] if e[j] > 0]
        expected = np.linalg.lstsq(model.components_[support].T, x - model.mean_, rcond=None)[0]
        np.testing.assert_allclose(z[support], expected, atol=1e-9)
        assert set(np.flatnonzero(z)) <= set(support)


def test_atoms_have_norm_one_and_learn_something(data):
    model = P(**SMALL).fit(data)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-12)
    assert fvu(model, data) < 0.6 * fvu(P(**{**SMALL, "max_steps": 1}).fit(data), data)


def test_score_is_the_variance_weighted_r2_of_the_reconstruction(data):
    from sklearn.metrics import r2_score

    model = P(**SMALL).fit(data)
    reconstruction = model.inverse_transform(model.transform(data))
    expected = r2_score(data, reconstruction, multioutput="variance_weighted")
    assert model.score(data) == pytest.approx(expected, abs=1e-12)
    assert isinstance(model.score(data), float)


@pytest.mark.parametrize(
    ("n_components", "k", "rows"), [(None, "auto", (128, 2)), (40, 100, (40, 40)), (4, "auto", (4, 2))]
)
@pytest.mark.filterwarnings("ignore:n_nonzero_coefs=100")
def test_defaults_of_the_two_sizes(data, n_components, k, rows):
    model = P(n_components, n_nonzero_coefs=k, max_steps=2, random_state=0).fit(data)
    codes = model.transform(data)
    assert codes.shape[1] == rows[0]
    assert (codes != 0).sum(axis=1).max() <= rows[1]


def test_too_many_nonzero_coefficients_are_clipped_with_one_warning(data):
    model = P(8, n_nonzero_coefs=9, max_steps=2, random_state=0)
    with pytest.warns(UserWarning, match="n_nonzero_coefs=9 is larger than n_components=8") as record:
        model.fit(data).transform(data)
    assert len(record) == 1


def test_tied_encoder_is_the_dictionary_times_its_gain(data):
    model = P(tied=True, **SMALL).fit(data)
    np.testing.assert_allclose(model.encoder_components_, model.encoder_gain_[:, None] * model.components_, atol=1e-12)
    untied = P(**SMALL).fit(data)
    assert not hasattr(untied, "encoder_gain_")
    assert np.abs(untied.encoder_components_ - untied.components_).max() > 0.01


@pytest.mark.parametrize("penalty", ["ridge", "inverse_square", "softplus", lambda e: e * e / (1 + e * e)])
@pytest.mark.parametrize("alpha", [0.1, 3.0])
def test_penalised_codes_solve_the_ridge_of_their_own_penalties(data, penalty, alpha):
    quota = None if penalty == "ridge" else "normalize"
    model = P(penalty=penalty, alpha=alpha, quota=quota, **SMALL).fit(data)
    scores = scores_of(model, data) * getattr(model, "importance_gain_", 1.0)
    for y, e, z in zip(scaled(model, data)[:40], scores, model.transform(data), strict=False):
        support = np.array([j for j in np.argsort(-e)[:3] if e[j] > 0])
        if not len(support):
            continue
        importance = e[support]
        if quota:
            importance = importance * 3.0 / np.sqrt(np.mean(importance**2))
        precision = {
            "ridge": lambda v: np.ones_like(v),
            "inverse_square": np.square,
            "softplus": lambda v: np.log1p(np.exp(v)),
        }.get(penalty, penalty)(importance) / alpha
        atoms = model.components_[support]
        expected = np.linalg.solve(atoms @ atoms.T + np.diag(1 / precision), atoms @ y)
        np.testing.assert_allclose(z[support] / model.scale_, expected, atol=1e-8)


def test_larger_alpha_shrinks_more(data):
    sizes = [
        np.abs(P(penalty="ridge", alpha=alpha, **SMALL).fit(data).transform(data)).mean() for alpha in (0.01, 1.0, 30.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_penalize_quota_lowers_the_effective_dimension(data):
    options = {**SMALL, "penalty": "inverse_square", "encoder_loss": "penalty", "max_iter": 20}

    def dimension(model):
        e = np.sort(scores_of(model, data) * model.importance_gain_, axis=1)[:, -3:]
        return float(dimension_estimate(np.maximum(e, 0) ** 2).mean())

    free = dimension(P(**options).fit(data))
    charged = dimension(P(quota="penalize", quota_strength=0.2, **options).fit(data))
    assert charged < 0.9 * free


def test_sum_quota_fixes_the_mean_penalty(data):
    model = P(penalty="inverse_square", quota="sum", quota_strength=0.5, **SMALL).fit(data)
    from skprojdict.solvers.refine import choose_support, weights_of

    coding = model._coding(3)
    scores = scores_of(model, data) * model.importance_gain_
    support = choose_support(scores, scaled(model, data), model.components_, **coding)
    s = weights_of(support, **coding["penalty"])
    penalties = np.where(s > 0, 1 / np.where(s > 0, s, 1), 0).sum(axis=1) / np.maximum((s > 0).sum(axis=1), 1)
    np.testing.assert_allclose(penalties[(s > 0).any(axis=1)], 0.5, rtol=1e-9)


@pytest.mark.parametrize("measure", ["estimate", "exact"])
def test_budget_selection_keeps_to_its_budget(data, measure):
    model = P(
        32, n_nonzero_coefs=8, penalty="inverse_square", alpha=5.0, selection="budget", dimension_budget=1.5,
        budget_measure=measure, max_iter=5, random_state=0,
    ).fit(data)  # fmt: skip
    scores = scores_of(model, data) * model.importance_gain_
    codes = model.transform(data)
    assert (codes != 0).any()
    for e, z in zip(scores, codes, strict=True):
        used = np.flatnonzero(z)
        s = e[used] ** 2 / 5.0
        if measure == "estimate":
            spent = np.sum(s / (1 + s))
        else:
            X = model.components_[used] * np.sqrt(s)[:, None]
            spent = len(used) - np.trace(np.linalg.inv(np.eye(len(used)) + X @ X.T))
        assert spent <= 1.5 + 1e-9
    lengths = (codes != 0).sum(axis=1)
    assert lengths.min() < lengths.max()  # rows differ in what they need


def test_threshold_selection_admits_k_atoms_on_average(data):
    model = P(selection="threshold", **{**SMALL, "max_iter": 30}).fit(data)
    scores, codes = scores_of(model, data), model.transform(data)
    np.testing.assert_array_equal(codes != 0, scores > model.threshold_)
    lengths = (codes != 0).sum(axis=1)
    assert 2 < lengths.mean() < 4
    assert lengths.max() > 3


def varying(n=3000, d=24, p=48, seed=0):
    """Rows of one to seven atoms."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((p, d))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    numbers = rng.integers(1, 8, size=n)
    on = np.argsort(rng.random((n, p)), axis=1).argsort(axis=1) < numbers[:, None]
    return on * rng.uniform(1, 2, (n, p)) @ F + 0.05 * rng.standard_normal((n, d)), numbers


def test_adaptive_selection_gives_each_row_what_it_needs():
    X, numbers = varying()
    options = {"n_components": 48, "n_nonzero_coefs": 4, "max_iter": 15, "batch_size": 256, "random_state": 0}
    model, fixed = (P(selection=rule, **options).fit(X[:2000]) for rule in ("adaptive", "top_k"))
    held_out, numbers = X[2000:], numbers[2000:]
    lengths = (model.transform(held_out) != 0).sum(axis=1)
    assert lengths.mean() == pytest.approx(4, abs=0.2)
    assert lengths.min() >= 1
    assert lengths.max() <= 6  # one and a half times k
    assert np.corrcoef(lengths, numbers)[0, 1] > 0.6
    assert fvu(model, held_out) < 0.8 * fvu(fixed, held_out)
    model.set_params(n_refinements=1)
    np.testing.assert_array_equal((model.transform(held_out) != 0).sum(axis=1), lengths)


def test_adaptive_selection_takes_out_what_is_missed_too_little(data):
    """One at a time, as long as the least missed of a row raises its error by less than the threshold."""
    options = {**SMALL, "n_nonzero_coefs": 4, "candidate_factor": 2.0, "shortlist_factor": 1.0}
    model = P(selection="adaptive", **options).fit(data)
    scores, codes = scores_of(model, data), model.transform(data)
    for x, e, z in zip(data[:40], scores, codes, strict=False):
        kept, y = [j for j in np.argsort(-e)[:8] if e[j] > 0], (x - model.mean_) / model.scale_
        n_candidates = len(kept)
        while len(kept) > 1:
            atoms = model.components_[kept]
            inverse = np.linalg.inv(atoms @ atoms.T + 0.01 * np.eye(len(kept)))
            beta = inverse @ atoms @ y
            missed = beta * abs(beta) / np.diag(inverse)
            if len(kept) == n_candidates:
                error = y @ (y - atoms.T @ beta)  # with the penalty
            if len(kept) <= 6 and missed.min() > model.removal_threshold_**2 * error**0.5:
                break
            kept.pop(np.argmin(missed))
        assert set(np.flatnonzero(z)) == set(kept)


def test_adaptive_selection_goes_on_from_the_threshold_that_it_has(data):
    model = P(selection="adaptive", **{**SMALL, "candidate_factor": 2.0}).partial_fit(data)
    first = model.removal_threshold_
    lengths = (model.transform(data) != 0).sum(axis=1)
    assert lengths.mean() == pytest.approx(3, abs=0.5)
    model.partial_fit(data)
    assert 0.5 < model.removal_threshold_ / first < 2
    assert model.removal_threshold_ != first


def test_selection_adapts_where_it_can(data):
    X, _ = varying(600)
    options = {"n_components": 48, "n_nonzero_coefs": 4, "max_steps": 30, "random_state": 0}
    model, named = P(**options).fit(X), P(**options, selection="adaptive").fit(X)
    np.testing.assert_array_equal(model.transform(X), named.transform(X))
    assert model.n_nonzero_coefs_ == 4
    assert (model.transform(X) != 0).sum(axis=1).max() == 6
    for more in ({"candidate_factor": 1.0}, {"n_nonzero_coefs": None}):
        plain = P(**{**options, **more}).fit(X)
        at_most = P(**{**options, **more}, selection="top_k").fit(X)
        assert not hasattr(plain, "removal_threshold_")
        np.testing.assert_array_equal(plain.transform(X), at_most.transform(X))


def test_a_threshold_holds_for_the_number_of_atoms_that_it_was_learned_for():
    X, _ = varying(600)
    model = P(48, n_nonzero_coefs=4, max_steps=30, random_state=0).fit(X)
    codes = model.transform(X)
    for k in (2, 6):
        lengths = (model.set_params(n_nonzero_coefs=k).transform(X) != 0).sum(axis=1)
        assert lengths.max() == k
    np.testing.assert_array_equal(model.set_params(n_nonzero_coefs=4).transform(X), codes)
    assert (model.set_params(selection="top_k").transform(X) != 0).sum(axis=1).max() == 4
    model.set_params(selection="auto", candidate_factor=1.0)
    assert (model.transform(X) != 0).sum(axis=1).max() == 4


@pytest.mark.parametrize("k", [2, 6])
@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_training_that_goes_on_with_another_mean_finds_its_threshold_at_once(k, way):
    X, _ = varying(600)
    model = P(48, n_nonzero_coefs=4, max_steps=30, random_state=0)
    model = model.fit(X) if way == "warm_start" else model.partial_fit(X)
    model.set_params(n_nonzero_coefs=k)
    model = model.set_params(warm_start=True, max_steps=1).fit(X) if way == "warm_start" else model.partial_fit(X)
    assert model.n_nonzero_coefs_ == k
    assert (model.transform(X) != 0).sum(axis=1).mean() == pytest.approx(k, rel=0.12)


def test_a_threshold_ends_with_training_by_another_rule():
    X, _ = varying(600)
    model = P(48, n_nonzero_coefs=4, max_steps=30, random_state=0, warm_start=True).fit(X)
    model.set_params(selection="top_k").fit(X)
    assert not hasattr(model, "n_nonzero_coefs_")
    assert (model.set_params(selection="auto").transform(X) != 0).sum(axis=1).max() == 4
    model.set_params(max_steps=1).fit(X)
    assert model.n_nonzero_coefs_ == 4
    assert (model.transform(X) != 0).sum(axis=1).mean() == pytest.approx(4, rel=0.1)
    # A dictionary that never had one gets one where training goes on.
    plain = P(48, n_nonzero_coefs=4, candidate_factor=1.0, max_steps=30, random_state=0, warm_start=True).fit(X)
    plain.set_params(candidate_factor=2.0).fit(X)
    assert (plain.transform(X) != 0).sum(axis=1).max() == 6


def test_the_threshold_starts_from_rows_of_all_over():
    X, _ = varying(3000)
    X[:300] = X.mean(axis=0)
    model = P(48, n_nonzero_coefs=4, max_steps=5, random_state=0).fit(X)
    assert (model.transform(X[300:]) != 0).sum(axis=1).mean() == pytest.approx(4, abs=0.6)


def test_files_whose_threshold_is_for_nobody_knows_which_mean():
    X, _ = varying(300)
    model = P(48, n_nonzero_coefs=4, max_steps=30, random_state=0).fit(X)
    del model.n_nonzero_coefs_  # as versions before the one that wrote it
    assert (model.transform(X) != 0).sum(axis=1).max() == 4
    assert (model.partial_fit(X).transform(X) != 0).sum(axis=1).max() == 6


def test_harder_rows_have_to_offer_more_for_an_atom():
    """Noise that training never saw leaves more over, and gets hardly more atoms."""
    X, _ = varying()
    model = P(48, n_nonzero_coefs=4, max_iter=15, batch_size=256, random_state=0).fit(X[:2000])
    rows = X[2000:]
    noisy = rows + 0.2 * np.random.default_rng(1).standard_normal(rows.shape)
    error = [((Y - model.inverse_transform(model.transform(Y))) ** 2).sum() for Y in (rows, noisy)]
    assert error[1] > 1.3 * error[0]
    lengths = [(model.transform(Y) != 0).sum(axis=1).mean() for Y in (rows, noisy)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


def test_adaptive_selection_with_prefixes_and_other_options(data):
    options = {**SMALL, "candidate_factor": 2.0, "selection": "adaptive"}
    for more in (
        {"prefix_sizes": (8, 16)},
        {"positive_code": True},
        {"penalty": "inverse_square", "quota": "sum"},
        {"n_refinements": 2, "tied": True},
    ):
        model = P(**options, **more).fit(data)
        lengths = (model.transform(data) != 0).sum(axis=1)
        assert 1.5 < lengths.mean() < 4.5, more
        assert fvu(model, data) < 0.5, more
    model = P(**{**options, "n_nonzero_coefs": 1}).fit(data)
    assert (model.transform(data) != 0).sum(axis=1).max() <= 2


def test_every_positive_score_is_used_without_a_number_of_coefficients(data):
    model = P(32, n_nonzero_coefs=None, penalty="inverse_square", max_iter=3, random_state=0).fit(data)
    np.testing.assert_array_equal(model.transform(data) != 0, scores_of(model, data) > 0)
    exact = P(32, n_nonzero_coefs=None, max_iter=2, random_state=0).fit(data)
    assert np.isfinite(exact.transform(data)).all()


def test_coefficients_loss_makes_scores_regress_the_solved_coefficients(data):
    model = P(**{**SMALL, "max_iter": 40}).fit(data)
    codes, scores = model.transform(data) / model.scale_, scores_of(model, data)
    error = ((codes - scores)[codes != 0] ** 2).sum() / (codes**2).sum()
    assert error < 0.15


def test_candidates_and_refinements_improve_the_reconstruction(data):
    model = P(**SMALL).fit(data)
    plain = fvu(model, data)
    pruned = fvu(model.set_params(candidate_factor=2.0), data)
    refined = fvu(model.set_params(candidate_factor=1.0, n_refinements=1), data)
    thrice = fvu(model.set_params(n_refinements=3), data)
    assert pruned < plain
    assert thrice <= refined < plain
    assert (model.transform(data) != 0).sum(axis=1).max() <= 3


def test_candidates_are_pruned_by_what_their_absence_costs(data):
    """Of six candidates the least useful go one at a time."""
    options = {**SMALL, "selection": "top_k", "candidate_factor": 2.0, "shortlist_factor": 1.0}
    model = P(**options).fit(data)
    scores, codes = scores_of(model, data), model.transform(data)
    for x, e, z in zip(data[:40], scores, codes, strict=False):
        candidates = np.array([j for j in np.argsort(-e)[:6] if e[j] > 0])
        kept, y = list(candidates), (x - model.mean_) / model.scale_
        while len(kept) > 3:
            atoms = model.components_[kept]
            inverse = np.linalg.inv(atoms @ atoms.T + 0.01 * np.eye(len(kept)))
            beta = inverse @ atoms @ y
            kept.pop(np.argmin(beta * abs(beta) / np.diag(inverse)))
        kept = np.array(kept)
        assert set(np.flatnonzero(z)) == set(kept)
        expected = np.linalg.lstsq(model.components_[kept].T, x - model.mean_, rcond=None)[0]
        np.testing.assert_allclose(z[kept], expected, atol=1e-9)


def test_the_number_of_coefficients_may_change_after_the_fit(data):
    model = P(**SMALL).fit(data)
    errors = [fvu(model.set_params(n_nonzero_coefs=k), data) for k in (1, 3, 6)]
    assert errors[0] > errors[1] > errors[2]
    assert (model.transform(data) != 0).sum(axis=1).max() == 6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_selection_learns_the_same_dictionary(dtype):
    X = sparse_rows(n=2000, d=32, p=128, k=4).astype(np.float32)
    options = {"n_components": 256, "n_nonzero_coefs": 4, "max_iter": 5, "random_state": 0}
    plain, low = P(**options).fit(X), P(selection_dtype=dtype, **options).fit(X)
    assert not np.array_equal(plain.components_, low.components_)
    assert fvu(low, X) == pytest.approx(fvu(plain, X), rel=0.05)  # seeds differ as much


@pytest.mark.parametrize(
    "options",
    [{"n_nonzero_coefs": None}, {"selection": "threshold"}, {"prefix_sizes": (4,)}],
    ids=lambda o: next(iter(o)),
)
def test_low_precision_selection_needs_a_number_of_candidates(data, options):
    with pytest.raises(ValueError, match=f"which needs {next(iter(options))} to be"):
        P(**{**SMALL, "selection_dtype": "bfloat16", **options}).fit(data)


def test_refinement_is_part_of_the_fit(data):
    assert not np.array_equal(P(n_refinements=1, **SMALL).fit(data).components_, P(**SMALL).fit(data).components_)


LONGER = {**SMALL, "max_iter": 8}


@pytest.fixture(scope="module")
def plain(data):
    """What a longer fit learns without a penalty and without prefixes."""
    return P(**LONGER).fit(data)


def test_overlap_penalty_makes_atoms_that_fire_together_more_orthogonal(data, plain):
    def overlap(model):
        gram = (model.components_ @ model.components_.T) ** 2
        fired = (model.transform(data) != 0).astype(float)
        together = fired.T @ fired
        np.fill_diagonal(together, 0)
        return (gram * together).sum() / together.sum()

    assert overlap(P(overlap_penalty=0.5, **LONGER).fit(data)) < 0.7 * overlap(plain)


def test_prefixes_reconstruct_by_themselves(data, plain):
    def prefix_fvu(model):
        first = P(8, n_nonzero_coefs=2)
        first.__dict__.update(model.__dict__)
        for name in ("components_", "encoder_components_", "encoder_bias_"):
            setattr(first, name, getattr(model, name)[:8])
        return fvu(first, data)

    nested = prefix_fvu(P(prefix_sizes=(8, 16), **LONGER).fit(data))
    assert nested < 0.9 * prefix_fvu(plain)


def test_positive_code_is_non_negative_least_squares_on_the_support(data):
    model = P(positive_code=True, **SMALL).fit(data)
    codes, scores = model.transform(data), scores_of(model, data)
    assert codes.min() >= 0
    for x, e, z in zip(data[:40], scores, codes, strict=False):
        support = [j for j in np.argsort(-e)[:3] if e[j] > 0]
        expected, _ = nnls(model.components_[support].T, x - model.mean_)
        np.testing.assert_allclose(z[support], expected, atol=1e-8)


@pytest.mark.parametrize("penalty", ["exact", "ridge", "inverse_square"])
def test_conjugate_gradients_agree_with_cholesky(data, penalty):
    model = P(penalty=penalty, **SMALL).fit(data)
    direct = model.transform(data)
    np.testing.assert_allclose(model.set_params(solver="cg").transform(data), direct, atol=1e-8)
    assert np.abs(model.set_params(cg_max_iter=1).transform(data) - direct).max() > 1e-3


def test_chunk_size_changes_nothing(data):
    model = P(n_refinements=1, **SMALL).fit(data)
    whole = model.transform(data)
    np.testing.assert_allclose(model.set_params(chunk_size=7).transform(data), whole, atol=1e-12)


def test_sparse_output_equals_dense_output(data):
    model = P(n_refinements=1, **SMALL).fit(data)
    dense = model.transform(data)
    sparse = model.set_params(sparse_output=True).transform(data)
    assert sparse.nnz == np.count_nonzero(dense)
    np.testing.assert_array_equal(sparse.toarray(), dense)
    np.testing.assert_allclose(model.inverse_transform(sparse), dense @ model.components_ + model.mean_, atol=1e-12)


def test_projection_beats_the_additive_decoder_on_the_same_selection(data):
    options = {"n_components": 32, "n_nonzero_coefs": 3, "max_iter": 20, "random_state": 0}
    topk = TopKDictionaryLearning(**options).fit(data)
    projective = P(candidate_factor=1.0, **options).fit(data)
    assert fvu(projective, data) < fvu(topk, data)


def test_adaptive_selection_keeps_all_where_there_are_no_more_atoms_than_k(data):
    model = P(3, n_nonzero_coefs=3, selection="adaptive", max_iter=20, random_state=0).fit(data)
    assert 1e-6 <= model.removal_threshold_ < 1e-2
    assert (model.transform(data) != 0).sum(axis=1).max() == 3
