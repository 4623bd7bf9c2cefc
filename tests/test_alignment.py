# SPDX-License-Identifier: BSD-3-Clause
"""Interventions and stacks of subspaces against closed forms; sites inside networks."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skprojdict.alignment import Intervention, Site, interchange
from skprojdict.alignment import operators as operators_module
from skprojdict.alignment.operators import Subspaces, ridge_subspaces, span


def unit_rows(rng, n, d):
    F = rng.standard_normal((n, d))
    return F / np.linalg.norm(F, axis=1, keepdims=True)


def ridge(F, s):
    """The ridge hat matrix by dense algebra, atoms of precision 0 left out."""
    F, s = F[s > 0], s[s > 0]
    return F.T @ np.linalg.solve(F @ F.T + np.diag(1 / s), F)


# ---- one intervention, on every array library


def test_exact_interchange_is_the_projection_of_the_difference(backend, rng):
    F, base, source = rng.standard_normal((3, 5)), rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    out = interchange(*(backend.asarray(x) for x in (base, source, F)))
    P = F.T @ np.linalg.solve(F @ F.T, F)
    assert_allclose(backend.to_numpy(out), base + (source - base) @ P, atol=1e-12)


@pytest.mark.parametrize("n_directions", [3, 8])
def test_ridge_interchange_is_the_ridge_projection_of_the_difference(backend, rng, n_directions):
    F = unit_rows(rng, n_directions, 5)
    s = rng.uniform(0, 4, n_directions)
    s[0] = 0.0
    base, source = rng.standard_normal((2, 4, 5))
    intervention = Intervention(backend.asarray(F), backend.asarray(s))
    out = intervention(backend.asarray(base), backend.asarray(source))
    assert_allclose(backend.to_numpy(out), base + (source - base) @ ridge(F, s), atol=1e-12)
    assert_allclose(backend.to_numpy(intervention.matrix), ridge(F, s), atol=1e-12)
    assert_allclose(intervention.effective_dimension, np.trace(ridge(F, s)), atol=1e-12)
    assert intervention.rank == min(n_directions - 1, 5)


def test_dependent_directions_count_once(rng):
    F = rng.standard_normal((2, 6))
    doubled = Intervention(np.concatenate([F, F[:1] - 2 * F[1:]]))
    assert doubled.rank == 2
    assert_allclose(doubled.effective_dimension, 2.0)
    assert_allclose(doubled.matrix, Intervention(F).matrix, atol=1e-12)


def test_no_directions_swap_nothing_and_a_basis_swaps_all(rng):
    base, source = rng.standard_normal((2, 4, 5))
    assert_allclose(Intervention(np.zeros((0, 5)))(base, source), base)
    assert_allclose(Intervention(rng.standard_normal((5, 5)))(base, source), source, atol=1e-9)


def test_a_ridge_swap_is_not_complete(rng):
    # H(out) = H base + H^2 (source - base), which is not H source unless H^2 = H.
    F, (base, source) = unit_rows(rng, 2, 5), rng.standard_normal((2, 4, 5))
    soft, hard = Intervention(F, np.full(2, 1.0)), Intervention(F)
    assert np.abs(soft.project(soft(base, source)) - soft.project(source)).max() > 0.1
    assert_allclose(hard.project(hard(base, source)), hard.project(source), atol=1e-12)


@pytest.mark.parametrize(
    ("precisions", "message"),
    [(np.ones(3), r"shape \(2,\)"), (np.array([1.0, -1.0]), "not negative"), (np.array([1.0, np.inf]), "finite")],
)
def test_bad_precisions_are_refused(precisions, message):
    with pytest.raises(ValueError, match=message):
        Intervention(np.eye(2), precisions)


def test_base_and_source_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Intervention(np.eye(2))(np.zeros((3, 2)), np.zeros((1, 2)))


def low_rank_rotation(base, source, R):
    """pyvene's LowRankRotatedSpaceIntervention, written out: R (d, k) orthonormal."""
    return base + (source @ R - base @ R) @ R.T


def test_orthonormal_interchange_is_pyvenes_formula(rng):
    R = np.linalg.qr(rng.standard_normal((8, 3)))[0]
    base, source = rng.standard_normal((2, 5, 8))
    assert_allclose(interchange(base, source, R.T), low_rank_rotation(base, source, R), atol=1e-12)
    # Ridge with no penalty to speak of: the limit is the same.
    assert_allclose(interchange(base, source, R.T, np.full(3, 1e9)), low_rank_rotation(base, source, R), atol=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_orthonormal_interchange_is_that_of_pyvene(rng):
    pyvene = pytest.importorskip("pyvene", reason="pyvene is an extra: pip install skprojdict[pyvene]")
    theirs = pyvene.LowRankRotatedSpaceIntervention(embed_dim=8, low_rank_dimension=3)
    R = theirs.rotate_layer.weight.detach().numpy()
    base, source = rng.standard_normal((2, 5, 8)).astype(np.float32)
    out = theirs(torch.from_numpy(base), torch.from_numpy(source)).detach().numpy()
    assert_allclose(interchange(base, source, R.T), out, atol=1e-5)


def test_activations_of_another_width_are_refused():
    with pytest.raises(ValueError, match="directions have 2 columns, but base has 3"):
        interchange(np.zeros((4, 3)), np.ones((4, 3)), np.eye(2))


def test_base_of_another_library_than_the_directions_is_refused():
    with pytest.raises(TypeError, match="directions are of torch"):
        interchange(np.zeros((4, 2)), np.ones((4, 2)), torch.eye(2))


# ---- stacks


@pytest.mark.parametrize("n_atoms", [3, 9])
def test_stacks_of_ridge_projections_on_both_sides(rng, n_atoms):
    F, s = unit_rows(rng, n_atoms, 5), rng.uniform(0, 9, (4, n_atoms)) * (rng.uniform(size=(4, n_atoms)) < 0.7)
    stack = ridge_subspaces(torch.from_numpy(F), torch.from_numpy(s))
    assert (stack.factors is None) == (n_atoms > 5)
    expected = np.stack([ridge(F, each) for each in s])
    assert_allclose(stack.dense().numpy(), expected, atol=1e-10)
    assert_allclose(stack.dimension().numpy(), np.trace(expected, axis1=1, axis2=2), atol=1e-10)
    # The paper's sum bounds the dimension from above; equal only for orthonormal atoms.
    assert np.all(stack.dimension().numpy() <= (s / (1 + s)).sum(axis=1) + 1e-10)


def test_gathered_atoms_give_the_same_projections_as_the_whole_dictionary(rng):
    F, s = torch.from_numpy(unit_rows(rng, 9, 5)), torch.zeros(2, 9, dtype=torch.float64)
    chosen = torch.tensor([[1, 4], [8, 0]])
    s.scatter_(1, chosen, torch.tensor([[2.0, 3.0], [0.5, 7.0]], dtype=torch.float64))
    own = ridge_subspaces(F[chosen], s.gather(1, chosen))
    assert own.factors is not None
    assert_allclose(own.dense().numpy(), ridge_subspaces(F, s).dense().numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", ["factors", "matrices"])
def test_rows_meet_their_own_subspace_gathered_or_not(rng, kind, monkeypatch):
    W = torch.from_numpy(rng.standard_normal((3, 2, 5)))
    stack = Subspaces(factors=W) if kind == "factors" else Subspaces(matrices=W.mT @ W)
    rows, ids = torch.from_numpy(rng.standard_normal((7, 5))), torch.tensor([2, 0, 2, 2, 0, 0, 2])
    expected = torch.stack([W[i].T @ (W[i] @ row) for row, i in zip(rows, ids, strict=True)])
    assert_allclose(stack.apply(rows, ids).numpy(), expected.numpy(), atol=1e-12)
    monkeypatch.setattr(operators_module, "GATHER_BYTES", 0)
    assert_allclose(stack.apply(rows, ids).numpy(), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("n_atoms", [3, 7])
def test_gradients_of_ridge_projections_also_at_precision_zero(rng, n_atoms):
    F = torch.from_numpy(unit_rows(rng, n_atoms, 5)).requires_grad_()
    s = torch.from_numpy(rng.uniform(0.5, 2, (2, n_atoms))).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, s: ridge_subspaces(f, s).dense(), (F, s))
    # dH/ds_j = (I - H) f f^T (I - H) does not vanish at s = 0: an atom that is out can come back.
    zero = s.detach().clone()
    zero[:, 0] = 0
    zero.requires_grad_()
    (slope,) = torch.autograd.grad(ridge_subspaces(F, zero).dimension().sum(), zero)
    H = ridge_subspaces(F, zero).dense()[0].detach()
    left = F[0].detach() - H @ F[0].detach()
    assert_allclose(float(slope[0, 0]), float(left @ left), rtol=1e-6)


def test_span_counts_independent_directions_only(rng):
    F = torch.from_numpy(rng.standard_normal((2, 4, 6)))
    F[0, 3] = F[0, 0] + F[0, 1]
    basis, rank = span(F, torch.tensor([[True, True, False, True], [False, False, True, False]]))
    assert rank.tolist() == [2, 1]
    for c, keep in enumerate(([0, 1], [2])):
        rows = F[c, keep].numpy()
        assert_allclose(basis.dense()[c].numpy(), rows.T @ np.linalg.solve(rows @ rows.T, rows), atol=1e-10)


def test_span_of_nothing_is_nothing():
    basis, rank = span(torch.ones(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert rank.tolist() == [0, 0]
    assert float(basis.dense().abs().max()) == 0.0


# ---- inside networks


class Block(torch.nn.Module):
    """Returns a tuple, as the blocks of transformers do."""

    def __init__(self, d):
        super().__init__()
        self.mix = torch.nn.Linear(d, d)

    def forward(self, hidden):
        return hidden + torch.tanh(self.mix(hidden)).cumsum(1), "cache"


class Stack(torch.nn.Module):
    def __init__(self, d=4):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, d)
        self.layers = torch.nn.ModuleList([Block(d) for _ in range(3)])
        self.head = torch.nn.Linear(d, 3)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden, _ = layer(hidden)
        return self.head(hidden[:, -1])


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return Stack()


BASE, SOURCE = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[3, 3, 0], [1, 0, 2]])


def test_a_whole_swap_inside_a_network_is_the_other_run(stack):
    site = Site(stack, "layers.1")
    source = site.read(SOURCE)
    assert source.shape == (2, 3, 4)
    with torch.no_grad(), Intervention(torch.eye(4)).on(stack, "layers.1", source=source):
        swapped = stack(BASE)
    assert_allclose(swapped.numpy(), stack(SOURCE).detach().numpy(), atol=1e-6)
    # and the hook is gone
    assert_allclose(stack(BASE).detach().numpy(), site.resume(site.read(BASE), BASE).detach().numpy(), atol=1e-6)


def test_interchange_at_one_position_agrees_with_resume(stack, rng):
    directions = rng.standard_normal((2, 4))
    site = Site(stack, "layers.1", position=1)
    base, source = site.read(BASE), site.read(SOURCE)
    assert base.shape == (2, 4)
    intervention = Intervention(directions, np.array([1.0, 3.0]))
    with torch.no_grad(), intervention.on(stack, "layers.1", source=source, position=1):
        inside = stack(BASE)
    out = intervention(base.numpy().astype(np.float64), source.numpy().astype(np.float64))
    resumed = site.resume(torch.from_numpy(out).float(), BASE)
    assert_allclose(inside.numpy(), resumed.detach().numpy(), atol=1e-5)
    assert np.abs(inside.numpy() - stack(BASE).detach().numpy()).max() > 1e-3


def test_resume_is_differentiable(stack):
    site = Site(stack, "layers.0", position=2)
    activations = site.read(BASE).requires_grad_()
    (gradient,) = torch.autograd.grad(site.resume(activations, BASE).sum(), activations)
    assert float(gradient.abs().max()) > 0


def test_hooks_leave_after_an_error(stack):
    site = Site(stack, "layers.0", position=2)
    with pytest.raises(ValueError, match="shape"):
        site.resume(torch.zeros(2, 5), BASE)
    assert not stack.layers[0]._forward_hooks


@pytest.mark.parametrize(
    ("layer", "position", "message"),
    [("layers.7", None, "layers.1"), ("", None, "not a layer"), ("head", 1, "n_positions")],
)
def test_bad_sites_say_what_there_is(stack, layer, position, message):
    with pytest.raises(ValueError, match=message):
        Site(stack, layer, position=position).read(BASE)


def test_a_source_of_other_size_is_refused(stack):
    with (
        pytest.raises(ValueError, match="Site"),
        Intervention(torch.eye(4)).on(stack, "layers.1", source=torch.zeros(5, 4)),
    ):
        stack(BASE)


def test_a_layer_of_other_width_than_the_directions_is_refused(stack):
    source = Site(stack, "layers.1").read(SOURCE)
    with (
        pytest.raises(ValueError, match="directions have 3 columns, but layer 'layers"),
        Intervention(torch.eye(3)).on(stack, "layers.1", source=source),
    ):
        stack(BASE)


def test_a_source_may_be_numpy(stack):
    source = Site(stack, "layers.1").read(SOURCE)
    with torch.no_grad(), Intervention(np.eye(4)).on(stack, "layers.1", source=source.numpy()):
        swapped = stack(BASE)
    assert_allclose(swapped.numpy(), stack(SOURCE).detach().numpy(), atol=1e-6)
