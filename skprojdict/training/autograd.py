# SPDX-License-Identifier: BSD-3-Clause
"""Differentiable pieces of a dictionary's forward pass, with gradients that touch the selected atoms only.

Nothing here differentiates through a factorisation or forms an (n, p) code matrix: the projection is differentiated in
adjoint form (one more solve with the same matrix), and gradients of the atoms are sums of sparse outer products. A
derivative of these gradients raises: they are sums outside of torch where kernels are compiled.
"""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from .._memory import uninitialised
from ..solvers.compiled_atoms import passes_pay, sum_outer_products
from ..solvers.ridge import map_rows, project, sampled_products
from ..solvers.systems import combine, factorise, gram, inner

__all__ = ["decode", "outer_sum", "overlap", "projected", "selected_scores"]


# Larger results come from fresh memory, which costs more to touch than the sums do: these are formed for as many atoms
# at once as fit memory that the allocator has at hand, and written to huge pages.
LARGE_BYTES, BAG_BYTES = 32 * 2**20, 4 * 2**20


def _is_large(n_rows, like):
    return like.device.type == "cpu" and n_rows * like.shape[1] * like.element_size() > LARGE_BYTES


def outer_sum(indices, terms, n_rows):
    """``sum_i sum_j w_ij (row indices_ij) r_i^T`` over several terms ``(w, R)``: an (n_rows, d) tensor.

    The sparse outer products are gathered per atom: sorted once by atom, then summed as bags of rows, in parallel over
    atoms and in a fixed order, so that the result is the same on every run. Large ones on the host are summed by a
    compiled kernel.
    """
    if passes_pay(terms[0][1], n_rows):
        return sum_outer_products(indices, terms, n_rows)
    k = indices.shape[1]
    flat = indices.reshape(-1)
    used = None
    if flat.device.type == "cpu" and len(terms) == 1:  # elsewhere to ask how many there are would wait for the device
        used = terms[0][0].reshape(-1).nonzero()[:, 0]
        flat = flat[used]
    flat, order = torch.sort(flat, stable=True)
    order = order if used is None else used[order]
    rows = torch.div(order, k, rounding_mode="floor")
    counts = torch.bincount(flat, minlength=n_rows)
    ends = counts.cumsum(0)
    offsets = ends - counts
    terms = [(weights.reshape(-1)[order], values.contiguous()) for weights, values in terms]

    def bags(rows, offsets, weights, values):
        return embedding_bag(rows, values, offsets, mode="sum", per_sample_weights=weights)

    like = terms[0][1]
    if not _is_large(n_rows, like):
        total = bags(rows, offsets, *terms[0])
        for term in terms[1:]:
            total.add_(bags(rows, offsets, *term))
        return total
    n_atoms = max(1, BAG_BYTES // (like.shape[1] * like.element_size()))
    total = uninitialised((n_rows, like.shape[1]), like)
    bounds = [0, *ends[n_atoms - 1 :: n_atoms].tolist(), flat.numel()]
    for place, start in enumerate(range(0, n_rows, n_atoms)):
        first, last = bounds[place], bounds[place + 1]
        own, atoms = slice(first, last), slice(start, min(n_rows, start + n_atoms))
        part = total[atoms]
        for i, (weights, values) in enumerate(terms):
            sums = bags(rows[own], offsets[atoms] - first, weights[own], values)
            part.add_(sums) if i else part.copy_(sums)
    return total


def _weighted_rows(indices, weights, table):
    """``sum_j w_ij table[indices_ij]`` for every row i, without gathering."""
    return embedding_bag(indices, table.contiguous(), mode="sum", per_sample_weights=weights.contiguous())


def _table_gradient(table, indices, weights, values, among):
    """Gradient of a (p, d) table, from the sparse outer products of its rows at ``indices``.

    Where these are ``among`` a few rows of a large table it is sparse, with those rows: a second dense one beside that
    of the other losses would be as much memory again, and as much to add.
    """
    if among is None or not _is_large(table.shape[0], table):
        return outer_sum(indices, [(weights, values)], table.shape[0])
    places = torch.searchsorted(among, indices)
    rows = outer_sum(places, [(weights, values)], among.shape[0])
    return torch.sparse_coo_tensor(among[None], rows, table.shape, is_coalesced=True, check_invariants=False)


class _SelectedScores(Function):
    @staticmethod
    def forward(ctx, encoder, inputs, indices, values, among, centre):
        ctx.save_for_backward(encoder, inputs, indices, among)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        encoder, inputs, indices, among = ctx.saved_tensors
        d_encoder = _table_gradient(encoder, indices, grad, inputs, among) if ctx.needs_input_grad[0] else None
        d_inputs = _weighted_rows(indices, grad, encoder) if ctx.needs_input_grad[1] else None
        d_centre = None
        if ctx.needs_input_grad[5]:  # summed over rows first: one product in place of a gathered atom for each score
            by_atom = grad.new_zeros(encoder.shape[0]).index_add_(0, indices.reshape(-1), grad.reshape(-1))
            d_centre = -(by_atom @ encoder)
        return d_encoder, d_inputs, None, None, None, d_centre


def selected_scores(encoder, inputs, indices, values=None, *, among=None, centre=None, chunk_size="auto"):
    """``<E_j, a_i>`` for the selected j of each row i, differentiable in the encoder and the inputs.

    Parameters
    ----------
    encoder : tensor of shape (p, m)
    inputs : tensor of shape (n, m)
    indices : int64 tensor of shape (n, K)
    values : tensor of shape (n, K), default=None
        The products, where the caller has them from the full score matrix already.
    among : int64 tensor of shape (m,), default=None
        Ascending atoms to which all ``indices`` belong: the encoder's gradient may then be sparse, with those rows.
    centre : tensor of shape (m,), default=None
        What was taken off the inputs: the gradient goes to it in their place.
    """
    if values is None:
        values = sampled_products(encoder.detach(), indices, inputs.detach(), chunk_size=chunk_size)
    inputs = inputs if centre is None else inputs.detach()
    return _SelectedScores.apply(encoder, inputs, indices, values, among, centre)


class _Decode(Function):
    @staticmethod
    def forward(ctx, codes, components, indices, chunk_size, among):
        ctx.save_for_backward(codes, components, indices, among)
        ctx.chunk_size = chunk_size
        return _weighted_rows(indices, codes, components)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        codes, components, indices, among = ctx.saved_tensors
        d_codes = (
            sampled_products(components, indices, grad, chunk_size=ctx.chunk_size) if ctx.needs_input_grad[0] else None
        )
        d_components = _table_gradient(components, indices, codes, grad, among) if ctx.needs_input_grad[1] else None
        return d_codes, d_components, None, None, None


def decode(codes, components, indices, *, among=None, chunk_size="auto"):
    """``sum_j z_ij f_j``: the additive decoder on sparse codes (n, K), differentiable in codes and components.

    ``among`` as in :func:`selected_scores`.
    """
    return _Decode.apply(codes, components, indices, chunk_size, among)


class _Projected(Function):
    @staticmethod
    def forward(ctx, targets, components, weights, indices, options, envelope, known):
        coefs, reconstruction = known or project(targets, components, indices, weights, **options)
        ctx.save_for_backward(targets - reconstruction, components, weights, indices, coefs)
        ctx.options, ctx.envelope = options, envelope
        ctx.mark_non_differentiable(*([] if not envelope else [coefs]))
        return reconstruction, coefs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_coefs):
        residual, components, weights, indices, coefs = ctx.saved_tensors
        if ctx.envelope:
            d_components = outer_sum(indices, [(coefs, grad)], components.shape[0])
            return None, d_components, None, None, None, None, None
        options = dict(ctx.options)
        exact, solver, max_iter = options.pop("exact", False), options.get("solver"), options.get("cg_max_iter")

        def adjoint(X, w, stacked):
            """Adjoint solve and the products with the atoms, while the chunk's atoms are at hand."""
            g, r, h = stacked[:, :d], stacked[:, d : 2 * d], stacked[:, 2 * d :][:, : w.shape[1]]
            inverse = factorise(X, w, exact=exact, solver=solver or "cholesky", cg_max_iter=max_iter)
            u = inverse.of_target(g) + inverse.of_vector(h)
            z = combine(X, u)
            slope = (inner(X, g - z) + h) * inner(X, r)
            return u, z, slope

        d = residual.shape[1]
        stacked = torch.cat([grad, residual, grad_coefs], dim=1)
        u, z, slope = map_rows(
            adjoint,
            stacked,
            components,
            indices,
            weights,
            chunk_size=options.get("chunk_size", "auto"),
            ragged=options.get("ragged", False),
            wide=(True, False, True),
        )
        d_components = outer_sum(indices, [(u, residual), (coefs, grad - z)], components.shape[0])
        return z, d_components, None if exact else slope, None, None, None, None


def projected(targets, components, weights, indices, *, envelope=False, known=None, **options):
    """The projection of :func:`skprojdict.solvers.ridge.project`, differentiable: ``(reconstruction, coefs)``.

    With ``u = (G + Lambda)^-1 (X g + h)``, ``z = X^T u`` for upstream gradients g of the reconstruction and h of the
    coefficients: ``dL/df_j = u_j (y - y_hat) + beta_j (g - z)``, ``dL/ds_j = (<f_j, g - z> + h_j) <f_j, y - y_hat>``,
    ``dL/dy = z``; the support is held fixed. A precision of 0 has a live gradient.

    Parameters
    ----------
    targets : tensor of shape (n, d)
    components : tensor of shape (p, d)
    weights : tensor of shape (n, K)
        Precisions; in exact mode who takes part (no gradient).
    indices : int64 tensor of shape (n, K)
    envelope : bool, default=False
        Promise that the loss is the squared error of an exact projection, where u = 0 (the envelope theorem): the
        gradient is then ``beta_j g`` for the atoms and 0 for the targets, and takes no solve.
    known : Projection, default=None
        The values, where the caller has them already.
    **options
        Passed to :func:`skprojdict.solvers.ridge.project`.
    """
    return _Projected.apply(targets, components, weights, indices, options, envelope, known)


class _Overlap(Function):
    @staticmethod
    def forward(ctx, components, shares, indices, chunk_size):
        ctx.save_for_backward(components, shares, indices)
        ctx.chunk_size = chunk_size

        def penalty(X, c, y):
            return ((_off_diagonal_gram(X) ** 2 @ c[..., None])[..., 0].mul(c).sum(1),)

        return map_rows(penalty, None, components, indices, shares, chunk_size=chunk_size)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        components, shares, indices = ctx.saved_tensors
        d_components = torch.zeros_like(components)
        start = 0

        def push(X, c, g):
            nonlocal start
            off = _off_diagonal_gram(X)
            slope = 2 * g * (off**2 @ c[..., None])[..., 0]
            pull = (4 * g[..., None] * off * c[:, :, None] * c[:, None, :]) @ X
            rows = indices[start : start + X.shape[0]].reshape(-1)
            d_components.index_add_(0, rows, pull.reshape(-1, X.shape[2]))
            start += X.shape[0]
            return (slope,)

        d_shares = map_rows(push, grad[:, None], components, indices, shares, chunk_size=ctx.chunk_size)[0]
        return d_components, d_shares, None, None


def _off_diagonal_gram(X):
    G = gram(X)
    return G - torch.diag_embed(torch.diagonal(G, dim1=1, dim2=2))


def overlap(components, shares, indices, *, chunk_size="auto"):
    """``sum_{i != j} (f_i . f_j)^2 c_i c_j`` over each row's selected atoms, (n,), differentiable in f and c."""
    return _Overlap.apply(components, shares, indices, chunk_size)
