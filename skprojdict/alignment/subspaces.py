# SPDX-License-Identifier: BSD-3-Clause
"""What is trained: torch modules that map concepts to subspaces of the activation space.

Every module sees the concept alone, never an activation, so both sides of an interchange are projected on the same
subspace. ``module(concepts, progress)`` gives soft projections and a penalty, with ``progress`` in [0, 1] the share of
training that is done; ``module.hard(concepts)`` gives orthogonal projections and their ranks.
"""

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from ..solvers.penalties import LEAST_PRECISION, dimension_estimate, precisions
from .operators import Subspaces, ridge_subspaces, span

# An atom of this precision is swapped to 99.9 %; far beyond, its penalty drowns in the rounding of float32.
MOST_PRECISION = 1e3
# Hard subspaces keep the directions that the soft projection swaps to more than a third. Training leaves a wide gap
# there: atoms that are out have no precision at all, and the price on dimensions holds those that are in at a swap that
# is just enough. Directions of H and not atoms, so that two atoms that are nearly one count as one.
LEAST_SWAP = 1 / 3


class Scores(nn.Module):
    """Concept to scores, affine: a table for concepts that are numbers, a linear map for vectors.

    Parameters
    ----------
    n_scores : int
    n_concepts : int
        Concepts known at fit, for a table.
    n_inputs : int or None
        Length of a concept's description; None: a table.
    hypernetwork : nn.Module or None
        Maps descriptions to vectors of length ``n_inputs`` first.
    """

    def __init__(self, n_scores, n_concepts, n_inputs, hypernetwork, *, start, spread):
        super().__init__()
        self.hypernetwork = hypernetwork
        columns = n_concepts if n_inputs is None else n_inputs
        self.table = n_inputs is None
        self.weight = nn.Parameter(spread * torch.randn(columns, n_scores))
        self.bias = nn.Parameter(torch.full((n_scores,), float(start)))

    def forward(self, concepts):
        """Scores (C, n_scores) of concept numbers (C,) or descriptions (C, ...)."""
        if self.table:
            return self.weight[concepts] + self.bias
        if self.hypernetwork is not None:
            concepts = self.hypernetwork(concepts)
        return concepts @ self.weight + self.bias


class Orthonormal(nn.Module):
    """Parametrization by matrices with orthonormal columns: ``U (U^T U)^{-1/2}`` in its Cholesky form ``U L^-T``.

    On a CPU some 20 times faster than torch's own Householder products for the many small rotations met here.
    """

    def forward(self, U):
        """Orthonormal columns with the span of U (..., d, k)."""
        factor = torch.linalg.cholesky(U.mT @ U)
        return torch.linalg.solve_triangular(factor, U.mT, upper=False).mT

    def right_inverse(self, Q):
        """A matrix with orthonormal columns is its own preimage."""
        return Q


class _Module(nn.Module):
    """Base: weights under a parametrization are moved back onto their manifold after each step."""

    @torch.no_grad()
    def renormalise(self):
        """Bring weights back to where they live: the Cholesky form then always sees a matrix near the identity."""
        for part in self.modules():
            for each in getattr(part, "parametrizations", {}).values():
                each.original.copy_(each[0](each.original))

    def decayed(self):
        """Weights that weight decay pulls to 0: the affine maps from descriptions to scores, not tables."""
        maps = [part for part in self.modules() if isinstance(part, Scores) and not part.table]
        return [weight for part in maps for weight in (part.weight, part.bias)]

    def frozen(self):
        """The module as it is kept after training: plain parameters without a gradient, so that it can be pickled."""
        for part in list(self.modules()):
            for name in list(getattr(part, "parametrizations", {})):
                parametrize.remove_parametrizations(part, name)
        return self.requires_grad_(False).eval()


class Rotations(_Module):
    """One orthonormal basis for each concept, (C, d, k); with ``blocks`` disjoint columns of a single rotation."""

    def __init__(self, n_concepts, n_features, width, *, blocks=False):
        super().__init__()
        self.width, self.blocks = width, blocks
        shape = (n_features, n_concepts * width) if blocks else (n_concepts, n_features, width)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(shape)).Q)
        parametrize.register_parametrization(self, "weight", Orthonormal())

    def forward(self, concepts, progress):
        """Exact projections, no penalty."""
        weight = self.weight
        if self.blocks:
            weight = weight.unflatten(1, (-1, self.width)).movedim(1, 0)
        return Subspaces(factors=weight[concepts].mT), weight.new_zeros(())

    def hard(self, concepts):
        """The same projections: they are hard already."""
        subspaces = self(concepts, 1.0)[0]
        return subspaces, torch.full((concepts.shape[0],), self.width, device=concepts.device)


class MaskedRotations(_Module):
    """Orthonormal bases with a soft mask over their directions, whose sum is charged (boundless DAS).

    ``H_c = R_c diag(m_c) R_c^T`` with ``m_c = sigmoid(scores_c / T)`` and T falling from 1 to ``final_temperature``.
    ``R_c`` is the concept's own, or one R shared by all, in which case scores come from ``Scores``.
    """

    def __init__(self, scores, n_concepts, n_features, width, *, shared, strength, final_temperature):
        super().__init__()
        self.scores, self.shared = scores, shared
        self.strength, self.final_temperature = strength, final_temperature
        shape = (n_features, width) if shared else (n_concepts, n_features, width)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(shape)).Q)
        parametrize.register_parametrization(self, "weight", Orthonormal())

    def _masked(self, concepts, progress):
        mask = torch.sigmoid(self.scores(concepts) / self.final_temperature**progress)
        weight = self.weight.mT if self.shared else self.weight[concepts].mT
        return weight.expand(mask.shape[0], -1, -1), mask

    def forward(self, concepts, progress):
        """Soft projections; ``strength`` times the mean sum of their masks."""
        weight, mask = self._masked(concepts, progress)
        # The root of a mask has no finite slope at 0, which the sigmoid rounds to.
        factors = weight * mask.clamp_min(1e-12).sqrt()[..., None]
        return Subspaces(factors=factors), self.strength * mask.sum(1).mean()

    def hard(self, concepts):
        """Directions whose mask is above 1/2."""
        weight, mask = self._masked(concepts, 1.0)
        return span(weight, mask > 0.5)


class Dictionary(_Module):
    """Shared unit-norm atoms with one precision for each concept and atom: ridge projections.

    ``s_c = phi(scores_c)^(1 / T)`` with T falling from 1 to ``final_temperature``. Penalty, a mean over concepts::

        strength * sum_j s_j / (1 + s_j)  +  overlap * sum_{i != j} (f_i . f_j)^2 w_i w_j ,   w = s / (1 + s)
    """

    def __init__(self, scores, n_atoms, n_features, *, penalty, strength, overlap, max_atoms, final_temperature):
        super().__init__()
        self.scores = scores
        self.penalty, self.strength, self.overlap = penalty, strength, overlap
        self.max_atoms, self.final_temperature = max_atoms, final_temperature
        self.components = nn.Parameter(normalize(torch.randn(n_atoms, n_features), dim=1))

    @torch.no_grad()
    def renormalise(self):
        """Atoms back to norm 1."""
        self.components.copy_(normalize(self.components, dim=1))

    def precision(self, concepts, progress=1.0):
        """Precisions (C, p), zero but for the ``max_atoms`` largest."""
        scores = self.scores(concepts)
        active = torch.ones_like(scores, dtype=torch.bool)
        if self.max_atoms < scores.shape[1]:
            best = torch.topk(scores, self.max_atoms, dim=1).indices
            active = torch.zeros_like(active).scatter_(1, best, True)
        s = precisions(scores, active, penalty=self.penalty)
        if self.final_temperature != 1.0:
            # The least precision keeps the slope of the power finite at 0.
            s = torch.where(
                active, (s + LEAST_PRECISION) ** (1 / self.final_temperature**progress), torch.zeros_like(s)
            )
        return s.clamp(max=MOST_PRECISION)

    def forward(self, concepts, progress):
        """Ridge projections and their quota."""
        s = self.precision(concepts, progress)
        atoms = normalize(self.components, dim=1)
        shares = s / (1 + s)
        penalty = self.strength * dimension_estimate(s).mean()
        if self.overlap:
            cosines = (atoms @ atoms.mT).square()
            cosines = cosines - torch.diag(cosines.diagonal())
            penalty = penalty + self.overlap * ((shares @ cosines) * shares).sum(1).mean()
        if self.max_atoms < s.shape[1]:
            s, best = torch.topk(s, self.max_atoms, dim=1)
            atoms = atoms[best]
        return ridge_subspaces(atoms, s), penalty

    def hard(self, concepts):
        """Span of the directions that are swapped by more than ``LEAST_SWAP``."""
        return self(concepts, 1.0)[0].hardened(LEAST_SWAP)


class Reflections(_Module):
    """HyperDAS: one orthonormal R (d, k) for all concepts, reflected by a concept's own unit vector.

    ``R_c = (I - 2 v_c v_c^T) R`` with ``v_c`` the normalised output of ``vector``.
    """

    def __init__(self, vector, n_features, width):
        super().__init__()
        self.vector = vector
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(n_features, width)).Q)
        parametrize.register_parametrization(self, "weight", Orthonormal())

    def forward(self, concepts, progress):
        """Exact projections of the common rank, no penalty."""
        v = normalize(self.vector(concepts), dim=1)
        rotation = self.weight
        factors = rotation.mT - 2 * (v @ rotation)[..., None] * v[:, None, :]
        return Subspaces(factors=factors), factors.new_zeros(())

    def hard(self, concepts):
        """The same projections: they are hard already."""
        subspaces = self(concepts, 1.0)[0]
        return subspaces, torch.full((concepts.shape[0],), self.weight.shape[1], device=concepts.device)
