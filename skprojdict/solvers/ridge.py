# SPDX-License-Identifier: BSD-3-Clause
"""The projection: each row of the target onto the span of its own few atoms.

The formulas are in ``systems``; this file gathers the atoms, chunk by chunk, so that they never exceed a memory budget.
"""

from typing import Any, NamedTuple

from .._array import array_namespace, cholesky, device
from .._chunks import map_chunks, rows_a_chunk, smaller_chunk
from .._memory import gather_room, gather_rows
from .compiled_rows import compiled_pays, products_compiled, project_compiled
from .nonnegative import nonnegative_coefficients
from .systems import combine, factorise, inner, safe_pivots, scaled_gram


class Projection(NamedTuple):
    """Coefficients (n, K) on each row's atoms, and the reconstruction (n, d) that they make."""

    coefs: Any
    reconstruction: Any


def project(
    Y,
    components,
    indices,
    weights,
    *,
    exact=False,
    solver="cholesky",
    cg_max_iter=None,
    chunk_size="auto",
    ragged=False,
):
    """Project every row of Y on the span of its selected atoms.

    Minimises over beta, for each row y with atoms f_1 ... f_K and precisions s_j::

        || y - sum_j beta_j f_j ||^2  +  sum_j beta_j^2 / s_j          (ridge)
        || y - sum_j beta_j f_j ||^2 , beta of minimum norm            (exact; atoms with a positive weight)

    Parameters
    ----------
    Y : array of shape (n, d)
        Targets, float32 or float64, of any array namespace.
    components : array of shape (p, d)
        Atoms.
    indices : int64 array of shape (n, K)
        The selected atoms of each row.
    weights : array of shape (n, K)
        Precisions s_j = 1 / lambda_j >= 0. Padding has weight 0, wherever its index points.
    exact : bool, default=False
        Exact mode: least squares of minimum norm. Cholesky where the pivots are safe (above 1e-6 of the largest
        diagonal entry in float64, 1e-3 in float32), else eigendecomposition without the eigenvalues below
        max(K, d) times the machine epsilon of the largest.
    solver : {"cholesky", "cg"}, default="cholesky"
        Direct, or batched conjugate gradients.
    cg_max_iter : int, default=None
        Step limit of conjugate gradients; None: until converged.
    chunk_size : int or "auto", default="auto"
        Rows whose atoms are gathered at once; "auto": as many as fit a few megabytes.
    ragged : bool, default=False
        Supports differ in length, with padding last. Rows are then handled in order of length and padded to the
        longest of their own chunk only.

    Returns
    -------
    projection : Projection

    References
    ----------
    Sklar (2024), sections 3 to 6; dual form for K > d by the Woodbury identity.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.ridge import project
    >>> F = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    >>> solved = project(np.array([[2.0, 1.6, 5.0]]), F, np.array([[0, 1]]), np.ones((1, 2)), exact=True)
    >>> np.round(solved.coefs, 6), np.round(solved.reconstruction, 6)
    (array([[0.8, 2. ]]), array([[2. , 1.6, 0. ]]))
    """
    options = {"exact": exact, "solver": solver, "cg_max_iter": cg_max_iter}

    def solve(X, w, y):
        beta = factorise(X, w, **options).of_target(y)
        return beta, combine(X, beta)

    def gathered(Y, indices, weights):
        shape = {"chunk_size": chunk_size, "ragged": ragged, "wide": (True, False)}
        return map_rows(solve, Y, components, indices, weights, **shape)

    if solver == "cholesky" and compiled_pays(components, *indices.shape):
        bounds = safe_pivots(components, indices.shape[1], exact=exact)
        given = Y, components, indices, weights
        return Projection(*project_compiled(*given, exact=exact, bounds=bounds, spare=gathered))
    return Projection(*gathered(Y, indices, weights))


def effective_dimension(components, indices, weights, *, exact=False, chunk_size="auto", ragged=False):
    """Effective dimension ``tr(G (G + Lambda)^-1) = k - tr(A^-1)`` of each row's projection, (n,).

    How much of an isotropic noise in the target comes through, summed over directions: the degrees of freedom of
    ridge regression (Sklar 2024, section 5). In exact mode the rank of the selected atoms.

    Parameters
    ----------
    components : array of shape (p, d)
        Atoms.
    indices : int64 array of shape (n, K)
        The selected atoms of each row.
    weights : array of shape (n, K)
        Precisions s_j >= 0; padding has weight 0.
    exact : bool, default=False
        See :func:`project`, and so with the others.
    chunk_size : int or "auto", default="auto"
    ragged : bool, default=False

    Returns
    -------
    dimension : array of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.ridge import effective_dimension
    >>> F = np.eye(3)
    >>> effective_dimension(F, np.array([[0, 1]]), np.array([[1.0, 3.0]]))  # 1/2 + 3/4
    array([1.25])
    """

    def solve(X, w, y):
        return (factorise(X, w, exact=exact).dimension(),)

    return map_rows(solve, None, components, indices, weights, chunk_size=chunk_size, ragged=ragged)[0]


def prefix_dimensions(components, indices, weights, *, chunk_size="auto"):
    """Exact effective dimension of every prefix of each row's atoms, (n, K), from one factorisation a row.

    With ``A = I + D G D = L L^T`` the rows of ``L^-1`` give it: ``df_m = sum_{i <= m} (1 - |row_i(L^-1)|^2)``. This
    system is as large as the row's support is long, also where that is longer than d: K x K numbers and K^3 operations.

    Parameters
    ----------
    components : array of shape (p, d)
        Atoms.
    indices : int64 array of shape (n, K)
        The selected atoms of each row, in the order of the prefixes.
    weights : array of shape (n, K)
        Precisions s_j >= 0; padding has weight 0.
    chunk_size : int or "auto", default="auto"
        See :func:`project`.

    Returns
    -------
    dimensions : array of shape (n, K)

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.ridge import prefix_dimensions
    >>> prefix_dimensions(np.eye(3), np.array([[0, 1]]), np.array([[1.0, 3.0]]))
    array([[0.5 , 1.25]])
    """

    def solve(X, w, y):
        xp = array_namespace(X)
        # A precision beyond this adds nothing to a dimension, and keeps the identity above rounding in the factor.
        most = 1 / (16 * X.shape[1] * float(xp.finfo(X.dtype).eps))
        norms = xp.sum(X * X, axis=2)
        w = xp.where(w * norms > most, most / xp.where(norms > 0, norms, xp.ones_like(norms)), w)
        factor = cholesky(scaled_gram(X, w))
        eye = xp.broadcast_to(xp.eye(X.shape[1], dtype=X.dtype, device=device(X)), factor.shape)
        half = xp.linalg.solve(factor, eye)
        return (1 - xp.sum(half * half, axis=2),)

    options = {"chunk_size": chunk_size, "ragged": True, "wide": (True,), "square": True}
    added = map_rows(solve, None, components, indices, weights, **options)[0]
    return array_namespace(added).cumulative_sum(added, axis=1)


def nonnegative_support(Y, components, indices, weights, *, exact=False, chunk_size="auto"):
    """Which atoms have a positive coefficient in the best non-negative combination, bool (n, K).

    Minimises the objective of :func:`project` over ``beta >= 0`` by block principal pivoting to convergence, on the
    smaller side of each row's atoms. The unconstrained projection on the atoms that are left then has only positive
    coefficients. In exact mode with more atoms than d the best combination is not unique, and this is one of them.
    """

    def solve(X, w, y):
        return (nonnegative_coefficients(X, w, y, exact=exact) > 0,)

    options = {"chunk_size": chunk_size, "ragged": True, "wide": (True,)}
    return map_rows(solve, Y, components, indices, weights, **options)[0]


def sampled_products(table, indices, values, *, chunk_size="auto"):
    """``<table[indices_ij], values_i>`` (n, K): the entries of ``values @ table.T`` that a support asks for."""
    if compiled_pays(table, *indices.shape):
        return products_compiled(table, indices, values)
    return map_rows(lambda X, w, v: (inner(X, v),), values, table, indices, indices, chunk_size=chunk_size)[0]


def map_rows(
    function, Y, components, indices, weights, *, chunk_size="auto", ragged=False, wide=(False,), square=False
):
    """Apply ``function(X, weights, y)`` to chunks of rows with their atoms gathered; concatenate its outputs.

    The outputs must not be views of X, whose memory serves the next chunk. Where memory runs out, the chunk is done
    again in smaller ones, once and with a warning; a function with side effects has them after all that may fail.

    ``wide`` says of each output whether it has a column for every atom of the support: when ragged chunks are cut to
    their own longest row, such outputs are padded with zeros back to K columns. ``square`` says that the function
    forms a K x K system also where K > d, which chunks must then leave room for.
    """
    xp = array_namespace(components)
    n, K = indices.shape
    d, number = components.shape[1], xp.finfo(components.dtype).bits // 8

    def row_bytes(width):
        return max(1, width * (max(width, d) if square else d) * number)

    def size(width):
        return rows_a_chunk(row_bytes(width), chunk_size, components)

    if ragged and n > 0:
        return _map_ragged(function, Y, components, indices, weights, size, wide)
    rooms: list[Any] = []

    def apply(rows):
        if not rooms:  # the first chunk is the longest
            rooms.append(gather_room(components, (rows.stop - rows.start) * K))
        try:
            X = gather_rows(components, indices[rows, ...], rooms[0])
            return function(X, weights[rows, ...], None if Y is None else Y[rows, ...])
        except (MemoryError, RuntimeError):
            rooms.clear()
            raise

    parts = [part for _, part in map_chunks(apply, n, size(K))] if n else [apply(slice(0, 0))]
    return tuple(part[0] if len(part) == 1 else xp.concat(part, axis=0) for part in zip(*parts, strict=True))


def _map_ragged(function, Y, components, indices, weights, size, wide):
    xp = array_namespace(components)
    K = indices.shape[1]
    columns = xp.arange(1, K + 1, device=device(weights))[None, :]
    lengths = xp.max(xp.where(weights > 0, columns, xp.zeros_like(columns)), axis=1)
    order = xp.argsort(lengths, stable=True)
    sorted_lengths = xp.take(lengths, order)
    parts = []
    start, n = 0, indices.shape[0]
    most, again = n, False
    # The longest support that the primal system serves: rows beyond it go to the dual, in chunks of their own.
    boundary = int(xp.sum(xp.astype(sorted_lengths <= components.shape[1], xp.int64)))
    while start < n:
        shortest = max(1, int(sorted_lengths[start]))
        stop = start + min(n - start, size(shortest), most)
        if start < boundary < stop:
            stop = boundary
        # A chunk sized by its first row may hold longer ones; halve it until the budget of the longest holds.
        while stop - start > 1:
            longest = int(sorted_lengths[stop - 1])
            if stop - start <= size(longest) and longest <= 2 * shortest:
                break
            stop = start + (stop - start) // 2
        width = max(1, int(sorted_lengths[stop - 1]))
        chunk = order[start:stop]
        try:
            w = xp.take(weights, chunk, axis=0)[:, :width]
            X = gather_rows(components, xp.take(indices, chunk, axis=0)[:, :width])
            outputs = function(X, w, None if Y is None else xp.take(Y, chunk, axis=0))
        except (MemoryError, RuntimeError) as error:
            most, again = smaller_chunk(error, stop - start, again=again), True
            continue
        parts.append([_widen(out, K) if wider else out for out, wider in zip(outputs, wide, strict=True)])
        start = stop
    back = xp.argsort(order, stable=True)
    return tuple(xp.take(xp.concat(list(part), axis=0), back, axis=0) for part in zip(*parts, strict=True))


def _widen(out, K):
    """Pad an (n, width) output with zeros to (n, K)."""
    xp = array_namespace(out)
    if out.shape[1] == K:
        return out
    padding = xp.zeros((out.shape[0], K - out.shape[1]), dtype=out.dtype, device=device(out))
    return xp.concat([out, padding], axis=1)
