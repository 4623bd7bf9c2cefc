# SPDX-License-Identifier: BSD-3-Clause
"""Every gradient of training against finite differences and dense autograd, in float64, support held fixed."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import gradcheck

from skprojdict import _array, _memory
from skprojdict.solvers import refine, ridge
from skprojdict.training import autograd
from skprojdict.training.autograd import decode, outer_sum, overlap, projected, selected_scores
from skprojdict.training.losses import common, projective, projective_loss, topk_loss
from skprojdict.training.weights import Weights

N, D, M, P, K = 5, 6, 4, 9, 3


def tensor(rng, *shape, positive=False):
    values = rng.uniform(0.2, 2.0, shape) if positive else rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(values)).requires_grad_()


def supports(rng, n=N, p=P, k=K):
    return torch.from_numpy(np.stack([rng.permutation(p)[:k] for _ in range(n)]))


def unit(rng, p=P, d=D):
    F = rng.standard_normal((p, d))
    return torch.from_numpy(F / np.linalg.norm(F, axis=1, keepdims=True)).requires_grad_()


# ---- primitives


@pytest.mark.parametrize("chunk_size", [1, 2, "auto"])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("ragged", [False, True])
def test_projected_ridge(rng, chunk_size, solver, k, ragged):
    """Both outputs at once, on both sides of k = d."""
    indices = supports(rng, k=k)

    def function(y, F, s):
        return projected(y, F, s, indices, solver=solver, chunk_size=chunk_size, ragged=ragged)

    leaves = tensor(rng, N, D), unit(rng), tensor(rng, N, k, positive=True)
    assert gradcheck(function, leaves, fast_mode=chunk_size != "auto" or solver == "cg")


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_projected_exact_on_full_rank_rows(rng, solver):
    indices = supports(rng)
    weights = torch.ones(N, K, dtype=torch.float64)
    weights[1, 2] = weights[2] = 0

    def function(y, F):
        return projected(y, F, weights, indices, exact=True, solver=solver)

    assert gradcheck(function, (tensor(rng, N, D), unit(rng)))


@pytest.mark.parametrize("k", [4, 8])
def test_projected_ridge_on_degenerate_rows(rng, k):
    """Duplicate and zero atoms, the same atom several times in a row, weights of 0."""
    F, indices, s = unit(rng), supports(rng, k=k), tensor(rng, N, k, positive=True)
    with torch.no_grad():
        F[1], F[2] = F[0], 0.0
        indices[0] = 0
        indices[1, :3] = torch.tensor([0, 1, 2])
    padded = torch.ones(N, k, dtype=torch.float64)
    padded[2, 1:] = 0
    padded[3] = 0

    def function(y, F, s):
        return projected(y, F, s * padded, indices)

    assert gradcheck(function, (tensor(rng, N, D), F, s))


@pytest.mark.parametrize("k", [3, 8])
def test_slope_of_a_precision_of_zero_is_alive(rng, k):
    """One-sided differences, as a precision cannot be negative."""
    y, F, indices = tensor(rng, N, D), unit(rng), supports(rng, k=k)
    s = tensor(rng, N, k, positive=True)
    with torch.no_grad():
        s[:, 1] = 0.0

    def function(s):
        return (y - projected(y, F, s, indices)[0]).pow(2).sum()

    (slope,) = torch.autograd.grad(function(s), s)
    for i in range(N):
        step = torch.zeros_like(s)
        step[i, 1] = 1e-6
        with torch.no_grad():
            assert slope[i, 1].item() == pytest.approx((function(s + step) - function(s)).item() / 1e-6, rel=1e-4)
    assert (slope[:, 1].abs() > 1e-3).all()


@pytest.mark.parametrize("k", [3, 8])
def test_projected_equals_dense_autograd(rng, k):
    """Through torch.linalg.solve on gathered atoms, with upstream gradients of both outputs."""
    y, F, s, indices = tensor(rng, N, D), unit(rng), tensor(rng, N, k, positive=True), supports(rng, k=k)
    g, h = torch.from_numpy(rng.standard_normal((N, D))), torch.from_numpy(rng.standard_normal((N, k)))
    X = F[indices]
    beta = torch.linalg.solve(X @ X.mT + torch.diag_embed(1 / s), (X @ y[..., None]))
    dense = (g * (X.mT @ beta)[..., 0]).sum() + (h * beta[..., 0]).sum()
    reconstruction, coefs = projected(y, F, s, indices)
    ours = (g * reconstruction).sum() + (h * coefs).sum()
    for one, other in zip(torch.autograd.grad(ours, (y, F, s)), torch.autograd.grad(dense, (y, F, s)), strict=True):
        assert_allclose(one, other, rtol=0, atol=1e-11)
    unused = sorted(set(range(P)) - set(indices.reshape(-1).tolist()))
    assert (torch.autograd.grad((g * projected(y, F, s, indices)[0]).sum(), F)[0][unused] == 0).all()


def test_envelope_is_the_full_gradient_of_a_squared_error(rng):
    y, F, indices = tensor(rng, N, D), unit(rng), supports(rng)
    weights = torch.ones(N, K, dtype=torch.float64)
    grads = [
        torch.autograd.grad(
            (y - projected(y, F, weights, indices, exact=True, envelope=envelope)[0]).pow(2).sum(), (y, F)
        )
        for envelope in (False, True)
    ]
    for one, other in zip(*grads, strict=True):
        assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_on_degenerate_rows(rng, exact, envelope, dtype):
    k = 8
    y, F, indices = tensor(rng, N, D), unit(rng), supports(rng, k=k)
    s = torch.full((N, k), 1e8)
    with torch.no_grad():
        F[1], F[2], y[4] = F[0], 0.0, 0.0
        indices[0], indices[1, :3] = 0, torch.tensor([0, 1, 2])
        s[2, 1:], s[3] = 0.0, 0.0
    y, F, s = (part.detach().to(dtype).requires_grad_() for part in (y, F, s))
    for width in (4, 8):
        reconstruction, coefs = projected(
            y, F, s[:, :width], indices[:, :width], exact=exact, envelope=envelope and exact
        )
        loss = (y - reconstruction).pow(2).sum()
        if not (envelope and exact):
            loss = loss + coefs.sum()
        for grad in torch.autograd.grad(loss, (y, F) if exact else (y, F, s)):
            assert torch.isfinite(grad).all()


def test_selected_scores(rng):
    E, a, indices = tensor(rng, P, M), tensor(rng, N, M), supports(rng)
    assert gradcheck(lambda E, a: selected_scores(E, a, indices), (E, a))
    values = (a @ E.T).gather(1, indices).detach()
    assert_allclose(selected_scores(E, a, indices, values).detach(), selected_scores(E, a, indices).detach())
    grads = [torch.autograd.grad(selected_scores(E, a, indices, v).pow(2).sum(), (E, a)) for v in (None, values)]
    for one, other in zip(*grads, strict=True):
        assert_allclose(one, other)


def test_decode(rng):
    codes, F, indices = tensor(rng, N, K), unit(rng), supports(rng)
    indices[0] = 4  # one atom three times
    assert gradcheck(lambda z, F: decode(z, F, indices, chunk_size=2), (codes, F))
    assert_allclose(
        decode(codes, F, indices).detach(), torch.einsum("nk,nkd->nd", codes, F[indices]).detach(), atol=1e-14
    )


@pytest.mark.parametrize("chunk_size", [1, 2, "auto"])
def test_overlap(rng, chunk_size):
    F, c, indices = unit(rng), tensor(rng, N, K, positive=True), supports(rng)
    indices[0, :2] = 4
    assert gradcheck(lambda F, c: overlap(F, c, indices, chunk_size=chunk_size), (F, c))
    X = F[indices[:, None, :].expand(N, K, K)], F[indices[:, :, None].expand(N, K, K)]
    square = (X[0] * X[1]).sum(-1) ** 2 * c[:, :, None] * c[:, None, :]
    direct = square.sum((1, 2)) - torch.diagonal(square, dim1=1, dim2=2).sum(1)
    assert_allclose(overlap(F, c, indices, chunk_size=chunk_size).detach(), direct.detach(), atol=1e-13)


@pytest.mark.parametrize("penalty", ["exact", "softplus"])
def test_overlap_is_weighted_by_effective_dimension(rng, penalty):
    """c = s / (1 + s), and 1 in exact mode, averaged over rows."""
    weights = make_weights(rng, "untied", importance=penalty not in FREE)
    targets, dead = tensor(rng, N, D), torch.zeros(P, dtype=torch.bool)
    with torch.no_grad():
        plain = projective_loss(weights, None, targets, dead, **options(penalty))
        charged = projective_loss(weights, None, targets, dead, **options(penalty, overlap_penalty=0.7))
        scores = weights.all_scores(targets - weights.mean).gather(1, plain.indices)
        active = (scores > 0).to(scores.dtype)
        s = active if penalty == "exact" else torch.nn.functional.softplus(0.8 * scores) / 0.3 * active
        shares = s if penalty == "exact" else s / (1 + s)
        goal = 0.7 * overlap(weights.components, shares, plain.indices).mean()
    assert (charged.loss - plain.loss).item() == pytest.approx(goal.item())
    assert goal.item() > 1e-3


def test_the_centre_gets_what_reaches_the_inputs(rng):
    """Atoms that a row names twice, and weights of 0, among them."""
    E, targets, centre = tensor(rng, P, D), tensor(rng, N, D).detach(), tensor(rng, D)
    indices, slope = supports(rng), tensor(rng, N, K).detach()
    indices[0] = 3
    slope[1] = 0.0
    centred = targets - centre
    grads = []
    for given in (None, centre):
        scores = selected_scores(E, centred, indices, centre=given)
        grads.append(torch.autograd.grad((slope * scores).sum(), (E, centre), retain_graph=True))
    for one, other in zip(*grads, strict=True):
        assert_allclose(one, other, atol=1e-13)
    assert grads[0][1].abs().max() > 0.1


def test_outer_sum_is_the_dense_product(rng):
    indices = supports(rng, k=4)
    indices[0] = 3
    terms = [(tensor(rng, N, 4).detach(), tensor(rng, N, D).detach()) for _ in range(2)]
    dense = sum(torch.zeros(N, P, dtype=torch.float64).scatter_add_(1, indices, w).T @ R for w, R in terms)
    assert_allclose(outer_sum(indices, terms, P), dense, atol=1e-14)


def test_outer_sum_in_blocks_of_atoms(rng, monkeypatch):
    """Blocks of two atoms, some of which no row uses, give the bits of one block."""
    indices = torch.from_numpy(rng.choice([0, 1, 5, 8], size=(N, K)))
    terms = [(tensor(rng, N, K).detach(), tensor(rng, N, D).detach()) for _ in range(2)]
    whole = outer_sum(indices, terms, P)
    monkeypatch.setattr(autograd, "BAG_BYTES", 2 * D * 8)
    monkeypatch.setattr(autograd, "LARGE_BYTES", 0)
    assert torch.equal(outer_sum(indices, terms, P), whole)


# ---- whole losses


def softexp(scores):
    return _array.array_namespace(scores).exp(scores / 2)


FREE = ("exact", "ridge")
PENALTIES = ["exact", "ridge", "inverse_square", "softplus", softexp]
FORMS = ["untied", "tied", "two views"]


def make_weights(rng, form, *, importance=True, head=False):
    """Weights whose selected scores are far from each other and from 0 on the data of :func:`make_rows`."""
    two = form == "two views"
    return Weights(
        components=unit(rng),
        mean=tensor(rng, D),
        bias=tensor(rng, P),
        encoder=None if form == "tied" else tensor(rng, P, M if two else D),
        encoder_gain=torch.linspace(0.9, 1.3, P, dtype=torch.float64).requires_grad_() if form == "tied" else None,
        input_mean=tensor(rng, M).detach() if two else None,
        importance_gain=torch.tensor(0.8, dtype=torch.float64, requires_grad=True) if importance else None,
        head=tensor(rng, P, M) if two and head else None,
        head_bias=tensor(rng, P) if two and head else None,
    )


def make_rows(rng, form):
    return (tensor(rng, N, M) if form == "two views" else None), tensor(rng, N, D)


def options(penalty="exact", *, quota=None, **changes):
    coding = {
        "k": K,
        "candidate_factor": 1.0,
        "shortlist_factor": 1.0,
        "n_refinements": 0,
        "penalty": {"penalty": penalty, "alpha": 0.3, "quota": quota, "quota_strength": 0.5 if quota else None},
        "solve": {"exact": penalty == "exact"},
    }
    return {
        "coding": coding,
        "encoder_loss": "penalty",
        "overlap_penalty": 0.0,
        "prefixes": [(P, K)],
        "auxk": 2,
        "auxk_coef": 0.0,
        **changes,
    }


def loss_of(function, weights, inputs, targets, dead=None, **keywords):
    """The loss as a function of its leaf tensors, for gradcheck, and those leaves."""
    named = {name: value for name, value in vars(weights).items() if value is not None and value.requires_grad}
    rows = {"inputs": inputs, "targets": targets}
    rows = {name: value for name, value in rows.items() if value is not None}
    names = [*named, *rows]
    dead = torch.zeros(P, dtype=torch.bool) if dead is None else dead

    def evaluate(*leaves):
        given = dict(zip(names, leaves, strict=True))
        views = given.pop("inputs", None), given.pop("targets")
        fixed = {name: value for name, value in vars(weights).items() if name not in given}
        return function(Weights(**fixed, **given), *views, dead, **keywords).loss

    return evaluate, (*named.values(), *rows.values())


def check_loss(function, weights, inputs, targets, *, fast=True, **keywords):
    evaluate, leaves = loss_of(function, weights, inputs, targets, **keywords)
    assert gradcheck(evaluate, leaves, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=fast)
    grads = torch.autograd.grad(evaluate(*leaves), leaves, allow_unused=True)
    return dict(zip(loss_names(weights, inputs), grads, strict=True))


def loss_names(weights, inputs):
    names = [name for name, value in vars(weights).items() if value is not None and value.requires_grad]
    return [*names, *(["inputs"] if inputs is not None else []), "targets"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty(rng, form, penalty):
    """F, E, b, mu, both gains and both views, through the whole loss."""
    weights = make_weights(rng, form, importance=penalty not in FREE)
    grads = check_loss(projective_loss, weights, *make_rows(rng, form), fast=False, **options(penalty))
    assert grads["components"].abs().max() > 1e-3
    alive = penalty not in FREE
    for name in ("encoder", "encoder_gain", "bias", "importance_gain"):
        if name in grads:
            assert (grads[name] is not None and grads[name].abs().max() > 1e-6) == alive


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quota", ["normalize", "sum", "penalize"])
@pytest.mark.parametrize("penalty", PENALTIES[2:])
def test_every_quota(rng, form, quota, penalty):
    check_loss(projective_loss, make_weights(rng, form), *make_rows(rng, form), **options(penalty, quota=quota))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_overlap_and_nested_prefixes(rng, penalty):
    weights = make_weights(rng, "untied", importance=penalty not in FREE)
    changes = {"overlap_penalty": 0.7, "prefixes": [(4, 2), (7, 2), (P, K)]}
    check_loss(projective_loss, weights, *make_rows(rng, "untied"), **options(penalty, **changes))


@pytest.mark.parametrize("penalty", ["ridge", "inverse_square", "softplus"])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_supports_of_varying_length(rng, penalty, solver):
    """Every positive score: rows of several lengths, on the ragged path."""
    weights = make_weights(rng, "untied", importance=penalty != "ridge")
    changed = options(penalty, prefixes=[(P, None)])
    changed["coding"].update(k=None, solve={"ragged": True, "chunk_size": 2, "solver": solver})
    inputs, targets = make_rows(rng, "untied")
    scores = weights.all_scores(weights.centred(None, targets)[0])
    lengths = (scores > 0).sum(1)
    assert len(set(lengths.tolist())) > 1
    check_loss(projective_loss, weights, inputs, targets, **changed)


@pytest.mark.parametrize("penalty", PENALTIES[1:])
@pytest.mark.parametrize("k", [4, 8])
def test_degenerate_rows_under_a_penalty(rng, penalty, k, monkeypatch):
    """Duplicate atoms in a row, k > d, and padding with scores of exactly zero."""
    weights = make_weights(rng, "untied", importance=penalty not in FREE)
    with torch.no_grad():
        weights.components[1] = weights.components[0]
        weights.bias[2:] -= 1.5
        weights.bias[:2] += 9.0  # both are always in
        weights.encoder[8], weights.bias[8] = 0.0, 0.0
    weights.mean = weights.mean.detach()
    inputs, targets = make_rows(rng, "untied")
    fixed = {}

    def held(scores, Y, components, **coding):
        proposed, support, fit = choose(scores, Y, components, **coding)
        return proposed, fixed.setdefault("support", support), fit

    choose = projective.choose
    monkeypatch.setattr(projective, "choose", held)
    changed = options(penalty, prefixes=[(P, k)])
    changed["coding"]["k"] = k
    grads = check_loss(projective_loss, weights, inputs, targets, **changed)
    assert (~fixed["support"].active).any()
    assert {0, 1} <= set(fixed["support"].indices[0].tolist())
    assert all(torch.isfinite(g).all() for g in grads.values() if g is not None)


def test_selection_steps_leave_the_gradient_right(rng):
    """Candidates, a refinement and non-negative codes only choose; the added atoms take the others' mean precision."""
    for penalty in ("exact", "inverse_square"):
        weights = make_weights(rng, "untied", importance=penalty not in FREE)
        changed = options(penalty)
        changed["coding"].update(candidate_factor=2.0, n_refinements=1, positive_code=True)
        check_loss(projective_loss, weights, *make_rows(rng, "untied"), **changed)


@pytest.mark.parametrize("form", FORMS[:2])
def test_regression_of_coefficients_in_closed_form(rng, form):
    """|| relu(e) - stopgrad(beta) ||^2: its gradient in E and b, written out, reaches scores that are not positive."""
    weights = make_weights(rng, form, importance=False)
    _, targets = make_rows(rng, form)
    keywords = options("ridge", encoder_loss="coefficients")
    keywords["coding"]["positive_scores"] = False
    keywords["coding"]["k"], keywords["prefixes"] = 6, [(P, 6)]
    dead = torch.zeros(P, dtype=torch.bool)
    batch = projective_loss(weights, None, targets, dead, **keywords)
    plain = projective_loss(weights, None, targets, dead, **{**keywords, "encoder_loss": "penalty"})
    batch.loss.backward()
    a = (targets - weights.mean).detach()
    scores = weights.all_scores(a)
    e = scores.gather(1, batch.indices)
    assert (e < 0).any()
    beta = ridge.project(a, weights.components.detach(), batch.indices, torch.full_like(e, 1 / 0.3)).coefs
    error = e.clamp_min(0) - beta
    # What is regressed is held fixed, and so is what regresses where it is the atoms: they are not bent to the scores.
    own = torch.autograd.grad(plain.loss, weights.components)[0]
    assert_allclose(weights.components.grad, own, atol=1e-12)
    assert batch.loss.item() - plain.loss.item() == pytest.approx(error.pow(2).sum(1).mean().item())
    q = torch.zeros_like(scores).scatter_add_(1, batch.indices, 2 * error / N)
    assert_allclose(weights.bias.grad, q.sum(0), atol=1e-12)
    if form == "untied":
        assert_allclose(weights.encoder.grad, q.T @ a, atol=1e-12)
    else:
        rows = weights.components.detach()
        assert_allclose(weights.encoder_gain.grad, (q * (a @ rows.T)).sum(0), atol=1e-12)


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_encoder_learns_the_support_that_the_solver_settles_on(form, share):
    """Over all that was looked at: solved coefficients where selected, 0 where dropped, also from refined rows.

    What a refinement had to add counts for more where the encoder is free to follow.
    """
    rng = np.random.default_rng({"untied": 0, "tied": 2}[form])  # refinement adds atoms
    weights = make_weights(rng, form, importance=False)
    _, targets = make_rows(rng, "untied")
    keywords = options("exact", encoder_loss="coefficients", refined_share=share)
    keywords["coding"].update(k=2, candidate_factor=2.5)
    keywords["prefixes"] = [(P, 2)]
    dead = torch.zeros(P, dtype=torch.bool)
    projective_loss(weights, None, targets, dead, **keywords).loss.backward()
    a, F = (targets - weights.mean).detach(), weights.components.detach()
    scores = weights.all_scores(a)
    q, overlooked, n_added = torch.zeros_like(scores), 0, 0
    refined = {i * N // round(share * N) for i in range(round(share * N))} if share else set()
    for i in range(N):
        y, e, coding = a[i : i + 1], scores[i : i + 1], keywords["coding"]
        support = refine.choose_support(e, y, F, **{**coding, "n_refinements": int(i in refined)})
        S = support.indices[0][support.active[0]]
        proposed = [j for j in torch.topk(e[0], 5).indices.tolist() if e[0, j] > 0]
        overlooked += len(set(S.tolist()) - set(proposed))
        goal = torch.zeros(P, dtype=torch.float64)
        goal[S] = torch.linalg.lstsq(F[S].T, y[0]).solution
        looked_at = sorted({*S.tolist(), *proposed})
        share_of_each = torch.where(goal == 0, projective.REFUSAL, 1.0).double()
        n_added += 0 if support.added is None else int(support.added.sum())
        if support.added is not None and form == "untied":
            share_of_each[support.indices[0][support.active[0] & support.added[0]]] = projective.OVERLOOKED
        q[i, looked_at] = (2 / N * share_of_each * (e[0].clamp_min(0) - goal))[looked_at]
    assert (n_added > 0) == (share > 0)
    assert (overlooked > 0) == (share > 0)
    assert_allclose(weights.bias.grad, q.sum(0), atol=1e-10)
    if form == "untied":
        assert_allclose(weights.encoder.grad, q.T @ a, atol=1e-10)
    else:
        assert_allclose(weights.encoder_gain.grad, (q * (a @ F.T)).sum(0), atol=1e-10)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("penalty", ["exact", "ridge", "inverse_square"])
@pytest.mark.parametrize("mode", ["additive", "regressed", "surrogate"])
def test_parts_that_predict_against_finite_differences(rng, mode, penalty, skip):
    """Codes, error and every leaf of a prediction on a support held fixed."""
    weights = make_weights(rng, "two views", importance=penalty not in FREE, head=mode == "regressed")
    if mode == "additive":
        weights.head_scale = tensor(rng, P, positive=True)
    if mode == "surrogate":
        weights.surrogate, weights.surrogate_bias = tensor(rng, D, M), tensor(rng, D)
    if skip:
        weights.skip = tensor(rng, D, M)
    inputs, targets = make_rows(rng, "two views")
    keywords = options(penalty)
    dead = torch.zeros(P, dtype=torch.bool)
    evaluate, leaves = loss_of(projective_loss, weights, inputs, targets, **keywords)
    names = loss_names(weights, inputs)
    grads = dict(zip(names, torch.autograd.grad(evaluate(*leaves), leaves, allow_unused=True), strict=True))
    # Directions in which nothing is held fixed on purpose: the parts that predict, the skip, both views.
    free = {"head", "head_bias", "head_scale", "surrogate", "surrogate_bias", "skip", "mean"}
    if mode == "additive" and penalty != "inverse_square":  # there the encoder is taught by the prediction alone
        free |= {"inputs", "encoder", "bias"}
    for name in free & set(names):
        place = names.index(name)
        step = torch.from_numpy(rng.standard_normal(tuple(leaves[place].shape)))
        ends = []
        for sign in (1, -1):
            moved = [leaf.detach() for leaf in leaves]
            moved[place] = moved[place] + sign * 1e-6 * step
            ends.append(float(evaluate(*moved)))
        expected = (ends[0] - ends[1]) / 2e-6
        assert float((grads[name] * step).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    own = {"additive": "head_scale", "regressed": "head", "surrogate": "surrogate"}[mode]
    assert grads[own].abs().max() > 1e-4
    assert dead.sum() == 0


def test_second_view_head(rng):
    weights = make_weights(rng, "two views", importance=False, head=True)
    inputs, targets = make_rows(rng, "two views")
    dead = torch.zeros(P, dtype=torch.bool)
    projective_loss(weights, inputs, targets, dead, **options("exact")).loss.backward()
    head, head_bias = (part.detach().clone().requires_grad_() for part in (weights.head, weights.head_bias))
    a, y = (part.detach() for part in weights.centred(inputs, targets))
    scores = weights.all_scores(a)
    mask = torch.zeros_like(scores).scatter_(1, torch.topk(scores, K).indices, 1.0) * (scores > 0)
    codes = (a @ head.T + head_bias) * mask
    (y - codes @ weights.components.detach()).pow(2).sum(1).mean().backward()
    assert_allclose(weights.head.grad, head.grad, atol=1e-12)
    assert_allclose(weights.head_bias.grad, head_bias.grad, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_topk_against_finite_differences(rng, form):
    weights = make_weights(rng, form, importance=False)
    grads = check_loss(topk_loss, weights, *make_rows(rng, form), k=K, auxk=2, auxk_coef=0.0)
    assert all(grads[name].abs().max() > 1e-3 for name in grads)


# ---- what the paper says


def tied_gradients(rng, penalty):
    weights = make_weights(rng, "tied", importance=penalty not in FREE)
    _, targets = make_rows(rng, "tied")
    projective_loss(weights, None, targets, torch.zeros(P, dtype=torch.bool), **options(penalty)).loss.backward()
    return weights


def test_bias_of_the_tied_exact_form_gets_no_gradient_at_all(rng):
    """Section 4: the projection knows which atoms are selected, not by how much. Section 6 repairs it."""
    exact = tied_gradients(rng, "exact")
    for silent in (exact.bias.grad, exact.encoder_gain.grad):
        assert silent is None or (silent == 0).all()
    assert exact.components.grad.abs().max() > 1e-3
    assert tied_gradients(rng, "inverse_square").bias.grad.abs().max() > 1e-3


# ---- dead features


@pytest.mark.parametrize("name", ["topk", "projective"])
@pytest.mark.parametrize("form", FORMS[:2])
def test_auxk_reaches_the_encoder_of_the_chosen_dead_features(rng, name, form):
    """Also where their scores are negative on every row, and no other feature's."""
    weights = make_weights(rng, form, importance=False)
    dead = torch.zeros(P, dtype=torch.bool)
    dead[[1, 4, 6]] = True
    with torch.no_grad():
        weights.bias[dead] -= 50.0
        weights.bias[4] -= 50.0  # the worst of the three: two are taken
    _, targets = make_rows(rng, form)
    grads = []
    for coef in (0.0, 0.25):
        keywords = {"auxk": 2, "auxk_coef": coef}
        if name == "topk":
            batch = topk_loss(weights, None, targets, dead, k=K, **keywords)
        else:
            batch = projective_loss(weights, None, targets, dead, **options("exact", **keywords))
        assert not set(batch.indices[batch.fired].tolist()) & {1, 4, 6}
        leaves = [weights.bias, weights.components if form == "tied" else weights.encoder]
        grads.append(torch.autograd.grad(batch.loss, leaves, allow_unused=True))
    for i, (without, reached) in enumerate(zip(*grads, strict=True)):
        if form == "tied" and i == 0:  # a bias that no other term moves would only drift
            assert reached is without is None or torch.equal(reached, without)
            continue
        difference = reached if without is None else reached - without
        changed = difference.reshape(P, -1).abs().max(1).values > 0
        assert changed.nonzero()[:, 0].tolist() == [1, 6]


def test_auxk_against_finite_differences(rng):
    """With the residual held fixed, as AuxK holds it, and positive scores, where the straight relu is a relu."""
    weights = make_weights(rng, "untied", importance=False)
    dead = torch.zeros(P, dtype=torch.bool)
    dead[[1, 4, 6]] = True
    with torch.no_grad():
        weights.bias[dead] += 20.0
    a, residual = tensor(rng, N, D), tensor(rng, N, D).detach()

    def function(F, E, b, a):
        given = Weights(components=F, mean=weights.mean, bias=b, encoder=E)
        return common.auxiliary(given, a, residual, given.all_scores(a.detach()), dead, auxk=2, auxk_coef=0.5)

    assert gradcheck(function, (weights.components, weights.encoder, weights.bias, a))
    with torch.no_grad():
        weights.components.zero_()
    assert function(weights.components, weights.encoder, weights.bias, a).item() == pytest.approx(0.5)
    none = torch.zeros(P, dtype=torch.bool)
    scores = weights.all_scores(a.detach())
    assert common.auxiliary(weights, a, residual, scores, none, auxk=2, auxk_coef=0.5).item() == 0


@pytest.mark.parametrize("form", FORMS[:2])
def test_auxk_moves_large_dictionaries_by_few_rows(rng, form, monkeypatch):
    weights = make_weights(rng, form, importance=False)
    dead = torch.zeros(P, dtype=torch.bool)
    dead[[1, 4, 6]] = True
    a, residual = tensor(rng, N, D), tensor(rng, N, D).detach()
    leaves = [weights.components] if form == "tied" else [weights.components, weights.encoder]

    def gradients(other_loss=None):
        aux = common.auxiliary(weights, a, residual, weights.all_scores(a.detach()), dead, auxk=2, auxk_coef=0.5)
        return torch.autograd.grad(aux if other_loss is None else aux + other_loss, leaves)

    cubes = sum(leaf.pow(3).sum() for leaf in leaves)
    small, small_sum = gradients(), gradients(cubes)
    cubes = sum(leaf.pow(3).sum() for leaf in leaves)
    monkeypatch.setattr(autograd, "LARGE_BYTES", 0)
    large, large_sum = gradients(), gradients(cubes)
    for one, other in zip(small, large, strict=True):
        assert other.is_sparse
        assert other.coalesce().indices()[0].tolist() == [1, 4, 6]
        assert_allclose(other.to_dense(), one, atol=1e-14)
    for one, other in zip(small_sum, large_sum, strict=True):
        assert not other.is_sparse
        assert_allclose(other, one, atol=1e-14)


# ---- memory and determinism


@pytest.mark.parametrize("penalty", ["exact", "inverse_square"])
def test_no_step_gathers_more_than_a_chunk(rng, monkeypatch, penalty):
    sizes = []

    def recording(F, indices, *room):
        sizes.append(indices.shape[0])
        return _memory.gather_rows(F, indices, *room)

    monkeypatch.setattr(ridge, "gather_rows", recording)
    weights = make_weights(rng, "untied", importance=penalty not in FREE)
    changed = options(penalty, overlap_penalty=0.5)
    changed["coding"]["solve"]["chunk_size"] = 2
    changed["coding"].update(candidate_factor=2.0, n_refinements=1, positive_code=True)
    targets = tensor(rng, 40, D)
    batch = projective_loss(weights, None, targets, torch.zeros(P, dtype=torch.bool), **changed)
    forward = len(sizes)
    batch.loss.backward()
    assert forward >= 20
    assert len(sizes) - forward >= 20  # the backward pass gathers for itself
    assert max(sizes) <= 2


def test_gradients_repeat_bit_for_bit(rng):
    weights, targets = make_weights(rng, "untied"), tensor(rng, 200, D)
    keywords = options("inverse_square", encoder_loss="coefficients", overlap_penalty=0.1, quota="sum")
    dead = torch.arange(P) > 6
    keywords["auxk_coef"] = 0.1
    runs = []
    for _ in range(2):
        loss = projective_loss(weights, None, targets, dead, **keywords).loss
        runs.append(torch.autograd.grad(loss, weights.trainable(), allow_unused=True))
    pairs = list(itertools.chain(zip(*runs, strict=True)))
    assert len(pairs) == 5
    assert all(torch.equal(one, other) for one, other in pairs)
