# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of subspaces, hard or soft, one for each concept, as torch tensors.

A stack of C (soft) projections is held as factors ``W`` (C, K, d) with ``H_c = W_c^T W_c``, or as matrices ``H``
(C, d, d). Rows of zeros in a factor are exact no-ops, so concepts of different width share one stack.
"""

from typing import Any, NamedTuple

import torch

# Factors of every row are gathered up to this many bytes; beyond, rows are handled concept by concept.
GATHER_BYTES = 64 * 2**20


class Subspaces(NamedTuple):
    """Soft projections of C concepts: ``factors`` (C, K, d) with H = W^T W, or ``matrices`` (C, d, d) symmetric."""

    factors: Any = None
    matrices: Any = None

    def dense(self):
        """The matrices H, (C, d, d)."""
        return self.matrices if self.factors is None else self.factors.mT @ self.factors

    def dimension(self):
        """Effective dimension ``tr H`` of each concept, (C,)."""
        if self.factors is None:
            return self.matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
        return self.factors.square().sum((-2, -1))

    def apply(self, rows, ids):
        """``H_c x`` for rows x (n, d) with concept numbers ids (n,)."""
        table = self.matrices if self.factors is None else self.factors
        if rows.shape[0] * table[0].numel() * table.element_size() <= GATHER_BYTES:
            own = table[ids]
            if self.factors is None:
                return (own @ rows[..., None])[..., 0]
            return (own.mT @ (own @ rows[..., None]))[..., 0]
        order = torch.argsort(ids, stable=True)
        sizes = torch.bincount(ids, minlength=table.shape[0]).tolist()
        parts = [
            part @ own if self.factors is None else part @ own.mT @ own
            for part, own in zip(rows[order].split(sizes), table, strict=True)
        ]
        return torch.cat(parts)[torch.argsort(order, stable=True)]

    def hardened(self, least=0.5):
        """Orthogonal projections onto the eigenvectors of H whose eigenvalue is above ``least``; at 1/2 the nearest.

        Returns
        -------
        directions : Subspaces
            Orthonormal factors, padded with rows of zeros, by descending eigenvalue.
        rank : int64 tensor of shape (C,)
        """
        if self.factors is None:
            values, vectors = torch.linalg.eigh(self.matrices)
            values, vectors = values.flip(-1), vectors.flip(-1).mT
        else:
            _, singular, vectors = torch.linalg.svd(self.factors, full_matrices=False)
            values = singular.square()
        keep = values > least
        rank = keep.sum(-1)
        width = max(1, int(rank.max())) if rank.numel() else 1
        return Subspaces(factors=(vectors * keep[..., None])[:, :width]), rank


def span(directions, keep):
    """Orthonormal bases of the span of chosen rows: directions (C, K, d), keep bool (C, K) or broadcastable.

    The rank is numerical: singular values below ``max(K, d)`` times the machine epsilon of the largest do not count.

    Returns
    -------
    basis : Subspaces
        Orthonormal factors padded with rows of zeros.
    rank : int64 tensor of shape (C,)
    """
    chosen = directions * keep[..., None]
    _, values, vectors = torch.linalg.svd(chosen, full_matrices=False)
    cutoff = max(chosen.shape[-2:]) * torch.finfo(chosen.dtype).eps * values[:, :1].clamp_min(1e-30)
    real = values > cutoff
    rank = real.sum(-1)
    width = max(1, int(rank.max())) if rank.numel() else 1
    return Subspaces(factors=(vectors * real[..., None])[:, :width]), rank


def ridge_subspaces(components, precision):
    """Ridge projections on a shared dictionary, one precision for each concept and atom.

    ``H_c = argmin_H`` of the ridge problem ``|| x - F^T beta ||^2 + sum_j beta_j^2 / s_cj`` (H_c x = F^T beta), that is
    ``H_c = F^T D (I + D F F^T D)^-1 D F`` with D = diag(sqrt(s_c)), solved on the smaller side.

    Parameters
    ----------
    components : tensor of shape (p, d) or (C, K, d)
        Unit-norm atoms, shared by all concepts or gathered for each.
    precision : tensor of shape (C, p) or (C, K)
        s >= 0; an atom of precision 0 does not exist.

    Returns
    -------
    subspaces : Subspaces
    """
    n_atoms, d = components.shape[-2:]
    if n_atoms <= d:
        # s + tiny: the square root has no slope at 0, and a precision of 0 must still be able to grow.
        tiny = torch.finfo(precision.dtype).tiny
        scaled = components * (precision + tiny).sqrt()[..., None]
        eye = torch.eye(n_atoms, dtype=scaled.dtype, device=scaled.device)
        factor = torch.linalg.cholesky(eye + scaled @ scaled.mT)
        return Subspaces(factors=torch.linalg.solve_triangular(factor, scaled, upper=False))
    eye = torch.eye(d, dtype=components.dtype, device=components.device)
    dual = eye + (components.mT * precision[:, None, :]) @ components
    return Subspaces(matrices=eye - torch.linalg.inv(dual))
