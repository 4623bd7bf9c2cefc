# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of small linear systems: one row of data is one system.

Every function takes stacks ``X`` (n, K, d) of gathered atoms and ``weights`` (n, K). In ridge mode the weights are
precisions s_j = 1 / lambda_j; in exact mode a positive weight says that the atom takes part. A weight of 0 is an
exact no-op in both, so ragged supports are padded with zeros and need no masks.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .._array import (
    add_to_diagonal,
    array_namespace,
    cho_solve,
    cholesky,
    device,
    is_torch_namespace,
    nonzero_rows,
    on_cpu,
    put_rows,
)
from .iterative import conjugate_gradients


class Inverse(NamedTuple):
    """The operator ``(G + Lambda)^-1`` of each row, ready to be applied.

    ``of_target(Y)`` maps targets (n, d) to ``(G + Lambda)^-1 X y`` (n, K); ``of_vector(B)`` maps vectors (n, K) to
    ``(G + Lambda)^-1 b``; ``dimension()`` gives the effective dimension ``tr(G (G + Lambda)^-1)`` (n,).
    """

    of_target: Callable[[Any], Any]
    of_vector: Callable[[Any], Any]
    dimension: Callable[[], Any]


def factorise(X, weights, *, exact, solver="cholesky", cg_max_iter=None):
    """Factorise ``G + Lambda`` for each row, on the smaller side of X.

    Minimises, for each row and target y, ``||y - X^T beta||^2 + sum_j beta_j^2 / s_j`` (ridge), or gives the
    minimum-norm minimiser of ``||y - X^T beta||^2`` over the atoms of positive weight (exact).

    Parameters
    ----------
    X : array of shape (n, K, d)
        Gathered atoms.
    weights : array of shape (n, K)
        Precisions s_j >= 0, or in exact mode the taking part of each atom (positive: yes).
    exact : bool
        Exact minimum-norm least squares instead of ridge.
    solver : {"cholesky", "cg"}, default="cholesky"
        "cg" never forms a Gram matrix: conjugate gradients on the normal equations, all rows at once.
    cg_max_iter : int, default=None
        At most so many conjugate-gradient steps. None: until converged, at most 4 min(K, d) + 50.

    Returns
    -------
    inverse : Inverse
    """
    xp = array_namespace(weights)
    present = xp.astype(weights > 0, X.dtype)
    if solver == "cg":
        if exact:
            return _conjugate_gradient_inverse(X * present[..., None], None, cg_max_iter)
        return _conjugate_gradient_inverse(X, weights, cg_max_iter)
    primal = X.shape[1] <= X.shape[2]
    if exact:
        return _exact_primal(X, present) if primal else _exact_dual(X * present[..., None])
    return _ridge_primal(X, weights) if primal else _ridge_dual(X, weights)


def gram(X):
    """``X X^T`` of each row, (n, K, K)."""
    xp = array_namespace(X)
    return X @ xp.matrix_transpose(X)


def inner(X, Y):
    """``X y`` of each row: (n, K, d) and (n, d) give (n, K)."""
    if is_torch_namespace(array_namespace(X)):
        return (Y[:, None, :] @ X.mT)[
            :, 0, :
        ]  # on a CPU torch takes a row in front 15 times faster than a column behind
    return (X @ Y[..., None])[..., 0]


def combine(X, beta):
    """``X^T beta`` of each row: (n, K, d) and (n, K) give (n, d)."""
    return (beta[:, None, :] @ X)[:, 0, :]


def scaled_gram(X, weights):
    """The scaled system ``A = I + D G D`` with ``D = diag(sqrt(s))``; all its eigenvalues are at least 1."""
    root = array_namespace(X).sqrt(weights)
    # Scaling the (K, K) matrix moves far fewer bytes than scaling the gathered atoms.
    return add_to_diagonal(gram(X) * root[:, :, None] * root[:, None, :], 1.0)


def _ridge_primal(X, weights):
    root = array_namespace(X).sqrt(weights)
    factor, swamped = _checked_cholesky(scaled_gram(X, weights))

    def of_vector(B):
        return root * cho_solve(factor, (root * B)[..., None])[..., 0]

    def dimension():
        return X.shape[1] - _inverse_trace(factor)

    inverse = Inverse(lambda Y: of_vector(inner(X, Y)), of_vector, dimension)
    return _rescued(inverse, X, weights, swamped)


def _ridge_dual(X, weights):
    """Through ``M = I + X^T S X`` (d x d): ``(G + Lambda)^-1 X y = S X M^-1 y``."""
    xp = array_namespace(X)
    factor, swamped = _checked_cholesky(add_to_diagonal(xp.matrix_transpose(X) @ (X * weights[..., None]), 1.0))

    def of_target(Y):
        return weights * inner(X, cho_solve(factor, Y[..., None])[..., 0])

    def of_vector(B):
        return weights * B - of_target(combine(X, weights * B))

    def dimension():
        return X.shape[2] - _inverse_trace(factor)

    return _rescued(Inverse(of_target, of_vector, dimension), X, weights, swamped)


def _checked_cholesky(A):
    """Factors, and the rows (integer array) where rounding swamps a pivot: their factor is the identity instead."""
    xp = array_namespace(A)
    factor = cholesky(A)
    pivots = xp.linalg.diagonal(factor)
    smallest = _swamped_below(A.shape[-1], A.dtype, xp)
    safe = xp.all(pivots * pivots > smallest * xp.linalg.diagonal(A), axis=-1)  # NaN pivots compare false
    swamped = nonzero_rows(~safe)
    if swamped.shape[0]:
        factor = xp.where(safe[:, None, None], factor, xp.eye(A.shape[-1], dtype=A.dtype, device=device(A)))
    return factor, swamped


def _inverse_trace(factor):
    xp = array_namespace(factor)
    eye = xp.broadcast_to(xp.eye(factor.shape[-1], dtype=factor.dtype, device=device(factor)), factor.shape)
    half = xp.linalg.solve(factor, eye)
    return xp.sum(half * half, axis=(1, 2))


def _rescued(inverse, X, weights, swamped):
    """The same operator, with the rows ``swamped`` solved by eigendecomposition."""
    if not swamped.shape[0]:
        return inverse
    xp = array_namespace(X)
    spare = _ridge_by_eigh(xp.take(X, swamped, axis=0), xp.take(weights, swamped, axis=0))

    def patched(name):
        def apply(B):
            return put_rows(getattr(inverse, name)(B), swamped, getattr(spare, name)(xp.take(B, swamped, axis=0)))

        return apply

    return Inverse(
        patched("of_target"), patched("of_vector"), lambda: put_rows(inverse.dimension(), swamped, spare.dimension())
    )


def _ridge_by_eigh(X, weights):
    """For precisions so large, on dependent atoms, that rounding swamps the identity of the scaled system.

    The system is brought to a unit diagonal, so that strong and weak precisions may stand side by side, and its
    eigenvalues below K times the machine epsilon of the largest are left out: they belong to combinations of atoms
    that cancel, which only rounding would weigh.
    """
    xp = array_namespace(X)
    A = scaled_gram(X, weights)
    level = 1 / xp.sqrt(xp.linalg.diagonal(A))
    vectors, inverted = _pseudo_inverse_parts(A * level[:, :, None] * level[:, None, :], X.shape[2])
    scale = level * xp.sqrt(weights)

    def of_vector(B):
        return scale * inner(vectors, inverted * inner(xp.matrix_transpose(vectors), scale * B))

    def dimension():
        # tr(A^+ (A - I)), with tr(A^+ A) the number of eigenvalues that are left.
        kept = xp.sum(xp.astype(inverted > 0, X.dtype), axis=-1)
        return kept - xp.sum(inverted[:, None, :] * (level[..., None] * vectors) ** 2, axis=(1, 2))

    return Inverse(lambda Y: of_vector(inner(X, Y)), of_vector, dimension)


def _swamped_below(size, dtype, xp):
    """Pivots below this share of their diagonal entry are those of rounding."""
    return 16 * size * float(xp.finfo(dtype).eps)


def safe_pivots(like, size, *, exact):
    """The least relative pivots of a system that Cholesky solves safely, and of one that it solves well.

    Parameters
    ----------
    like : array
        Of the dtype of the system.
    size : int
        Atoms of a row.
    exact : bool
        Pivots are relative to the largest diagonal entry; else, in ridge mode, to their own, and safe is well enough.

    Returns
    -------
    safe, strong : float
    """
    xp = array_namespace(like)
    if exact:
        return _tolerances(like.dtype, xp)[1], WEAK_PIVOT
    return (_swamped_below(size, like.dtype, xp),) * 2


def _tolerances(dtype, xp):
    """Shift that lets a semi-definite factorisation through, and the smallest pivot that we trust, both relative.

    A small pivot magnifies the rounding in those after it, so it must stay well above the root of the machine epsilon:
    else the pivots of a singular matrix may all look sound.
    """
    eps = float(xp.finfo(dtype).eps)
    return 8 * eps, 1e-6 if eps < 1e-10 else 1e-3


# Rows whose pivots all exceed this share of the diagonal lose a digit or two to the square of their condition number.
WEAK_PIVOT = 0.05


def _pseudo_inverse_parts(G, n_terms=0):
    """Eigenvectors, and inverted eigenvalues with those below ``K eps`` of the largest one set to 0.

    K is the size of G, or the number of terms in each of its sums where that is larger. A matrix that is not finite
    gives NaN, as it does in a Cholesky factor; LAPACK would raise for the whole stack.
    """
    xp = array_namespace(G)
    finite = xp.all(xp.isfinite(G), axis=(-2, -1))
    values, vectors = xp.linalg.eigh(
        xp.where(finite[:, None, None], G, xp.eye(G.shape[-1], dtype=G.dtype, device=device(G)))
    )
    cutoff = max(G.shape[-1], n_terms) * float(xp.finfo(G.dtype).eps) * xp.max(values, axis=-1, keepdims=True)
    keep = (values > cutoff) & (values > float(xp.finfo(G.dtype).smallest_normal))
    inverted = xp.where(keep, 1 / xp.where(keep, values, xp.ones_like(values)), xp.zeros_like(values))
    return vectors, xp.where(finite[:, None], inverted, xp.full_like(inverted, math.nan))


class SafeInverse(NamedTuple):
    """Cholesky where the pivots are safe, eigendecomposition for the rows where they are not.

    ``unsafe`` holds the numbers of the latter; ``weak`` those of the rows (the unsafe ones among them) that need a step
    of iterative refinement, or None for all of them.
    """

    factor: Any
    unsafe: Any
    vectors: Any
    inverted: Any
    weak: Any


def safe_inverse(G, n_terms=0):
    """Factorise a stack of positive semi-definite matrices, each in the way that is safe for it."""
    xp = array_namespace(G)
    shift, smallest = _tolerances(G.dtype, xp)
    diagonal = xp.linalg.diagonal(G)
    scale = xp.max(diagonal, axis=-1, keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    # torch fails in the singular matrices alone; elsewhere the shift keeps one from failing the whole stack.
    shifted = not is_torch_namespace(xp)
    factor = cholesky(add_to_diagonal(G, shift * scale) if shifted else G)
    pivots = xp.linalg.diagonal(factor)
    share = xp.min(pivots * pivots, axis=-1) / scale[..., 0]
    safe = share > smallest  # NaN compares false
    unsafe = nonzero_rows(~safe)
    weak = None if shifted else nonzero_rows(~(share > WEAK_PIVOT))
    vectors = inverted = None
    if unsafe.shape[0]:
        vectors, inverted = _pseudo_inverse_parts(xp.take(G, unsafe, axis=0), n_terms)
        eye = xp.eye(G.shape[-1], dtype=G.dtype, device=device(G))
        factor = xp.where(safe[:, None, None], factor, eye)
    return SafeInverse(factor, unsafe, vectors, inverted, weak)


def apply_safe(inverse, B):
    """Minimum-norm solutions (n, K) of the factorised systems for right-hand sides (n, K)."""
    xp = array_namespace(B)
    out = cho_solve(inverse.factor, B[..., None])[..., 0]
    if inverse.unsafe.shape[0]:
        b = xp.take(B, inverse.unsafe, axis=0)
        projected = inner(xp.matrix_transpose(inverse.vectors), b) * inverse.inverted
        out = put_rows(out, inverse.unsafe, inner(inverse.vectors, projected))
    return out


def masked_gram(X, present):
    """Gram matrix of the atoms that take part; absent and zero atoms have only a diagonal entry, of the row's scale."""
    xp = array_namespace(X)
    G = gram(X)
    if not (on_cpu(present) and bool(xp.all(present > 0))):  # elsewhere looking would wait for the device
        G = G * present[:, :, None] * present[:, None, :]
    diagonal = xp.linalg.diagonal(G)
    scale = xp.max(diagonal, axis=-1, keepdims=True)
    fill = xp.where(scale > 0, scale, xp.ones_like(scale))
    return add_to_diagonal(G, xp.where(diagonal > 0, xp.zeros_like(diagonal), fill))


def _exact_primal(X, present):
    G = masked_gram(X, present)
    inverse = safe_inverse(G, X.shape[2])

    def of_vector(B):
        return apply_safe(inverse, B * present) * present

    def of_target(Y):
        # One step of iterative refinement on the residual takes out the shift and most of the squared condition.
        beta = of_vector(inner(X, Y))
        if inverse.weak is not None and inverse.weak.shape[0] == 0:
            return beta
        return beta + of_vector(inner(X, Y - combine(X, beta)))

    def dimension():
        return _rank(X * present[..., None])

    return Inverse(of_target, of_vector, dimension)


def _exact_dual(X):
    """Minimum norm through ``M = X^T X`` (d x d): ``beta = X M^+ y``."""
    xp = array_namespace(X)
    inverse = safe_inverse(xp.matrix_transpose(X) @ X, X.shape[1])

    def of_target(Y):
        w = apply_safe(inverse, Y)
        w = w + apply_safe(inverse, Y - combine(X, inner(X, w)))
        return inner(X, w)

    def of_vector(B):
        return inner(X, apply_safe(inverse, apply_safe(inverse, combine(X, B))))

    return Inverse(of_target, of_vector, lambda: _rank(X))


def _rank(X):
    xp = array_namespace(X)
    G = gram(X) if X.shape[1] <= X.shape[2] else xp.matrix_transpose(X) @ X
    return xp.sum(xp.astype(_pseudo_inverse_parts(G, max(X.shape[1:]))[1] > 0, X.dtype), axis=-1)


def _conjugate_gradient_inverse(X, weights, max_iter):
    xp = array_namespace(X)
    if max_iter is None:
        max_iter = 4 * min(X.shape[1], X.shape[2]) + 50

    def operator(V):
        if weights is None:
            return inner(X, combine(X, V))
        return V + root * inner(X, combine(X, root * V))

    root = None if weights is None else xp.sqrt(weights)

    def of_vector(B):
        if weights is None:
            return conjugate_gradients(operator, B, max_iter=max_iter)
        return root * conjugate_gradients(operator, root * B, max_iter=max_iter)

    def dimension():
        return factorise(X, xp.ones_like(X[..., 0]) if weights is None else weights, exact=weights is None).dimension()

    return Inverse(lambda Y: of_vector(inner(X, Y)), of_vector, dimension)
