# SPDX-License-Identifier: BSD-3-Clause
"""Greedy sparse coding of many rows at once: orthogonal matching pursuit and orthogonal least squares."""

import functools
from typing import Any, NamedTuple

from skprojdict._array import (
    array_namespace,
    device,
    has_numba,
    in_numpy_memory,
    is_torch_namespace,
    nonzero_rows,
    take_along_rows,
    top_k,
)
from skprojdict._chunks import chunk_rows
from skprojdict._memory import gather_rows
from skprojdict.solvers.norms import row_norms

__all__ = ["SparseCodes", "orthogonal_matching_pursuit"]

METHODS = ("omp", "ols")
FORMS = ("auto", "gram", "residual")
# The Gram form holds p x p numbers; more than this is left to the residual form.
GRAM_BYTES = 256 * 2**20
# Atoms that a product in low precision proposes, to be compared in full precision.
N_PROPOSED = 8
# Below this many rows the product with a large dictionary runs at half its speed (measured, d = 384, p = 3072).
MIN_CHUNK = 256


class SparseCodes(NamedTuple):
    """Codes of n rows with at most k nonzeros each; padding has index 0 and coefficient 0."""

    indices: Any
    coefs: Any
    n_nonzero: Any


class _Rows(NamedTuple):
    """What a pursuit keeps for the rows that still run; axis 0 of every array is the row."""

    number: Any  # place of the row in the chunk
    residual: Any  # (b, d)
    correlations: Any  # (b, p) of the residual with every atom
    norms: Any  # (b, p) squared norms of the atoms off the span of the support; OLS only
    basis: Any  # (b, k, d) Gram-Schmidt basis of the support
    triangle: Any  # (b, k, k) lower: support = triangle @ basis
    alphas: Any  # (b, k) coefficients on the basis
    indices: Any  # (b, k)
    running: Any  # (b,)
    n_nonzero: Any  # (b,)
    scale: Any  # (b,) norm of the row as given


def orthogonal_matching_pursuit(
    Y, F, k, *, tol=None, method="omp", form="auto", selection_dtype=None, chunk_size="auto"
):
    r"""Sparse codes of the rows of Y in the atoms of F, chosen greedily and fitted by least squares.

    For each row y, an approximate solution of

    .. math:: \min_{z} \; \|y - F^T z\|_2^2 \quad \text{subject to} \quad \|z\|_0 \le k,

    or, with ``tol``, the shortest such code whose squared residual norm is at most ``tol``. One atom enters at
    a time. ``method="omp"`` takes the atom that correlates best with the residual [1]_ [2]_; ``method="ols"``
    takes the one that lowers the residual most once all coefficients are solved again, that is, it divides
    the correlation by what is left of the atom's norm off the span of the support [3]_ [4]_ (the pursuit of
    the SPAMS toolbox; at equal k its residual is 5 to 10 % smaller).

    Parameters
    ----------
    Y : array of shape (n, d)
        Rows to code.
    F : array of shape (p, d)
        Atoms, as rows. Lengths do not influence the choice; an atom of length zero is never chosen.
    k : int
        Most atoms per row. Past min(p, d) nothing can be gained, and the rest of the code is padding.
    tol : float, default=None
        Squared residual norm, in the units of Y, at which a row stops early.
    method : {"omp", "ols"}, default="omp"
        Selection rule.
    form : {"auto", "gram", "residual"}, default="auto"
        How correlations are brought up to date after each atom; the choice moves results by rounding only. "gram":
        from the inner products of all atoms, about ``k^2 p`` operations a row, in kernels that Numba compiles (the
        extra ``skprojdict[numba]``; NumPy and torch arrays in the memory of the host). "residual": by a product of
        all rows with the dictionary, ``2 k d p`` operations a row, on any device. "auto": "gram" where Numba is
        installed, the p x p matrix fits 256 MiB, and there are enough rows to earn it back.
    selection_dtype : {"bfloat16", "float16"}, default=None
        Precision of the residual form's products with the dictionary (torch only): they propose 8 atoms, which are
        then compared in full precision. Pays where the hardware has units for it; implies ``form="residual"``.
    chunk_size : int or "auto", default="auto"
        Rows coded at once; scratch is about ``4 p + k d`` numbers a row, n x p is never formed.

    Returns
    -------
    indices : int64 array of shape (n, k)
        Chosen atoms in order of entry, then zeros.
    coefs : array of shape (n, k)
        Least-squares coefficients of the chosen atoms, then zeros.
    n_nonzero : int64 array of shape (n,)
        Number of atoms chosen.

    Notes
    -----
    In the residual form each step makes one product ``q @ F.T`` with the newest basis vector of every row, which
    updates the correlations (and the norms, for OLS): no Gram matrix, so p may be large. A row stops when its
    residual is zero to working precision or when the best atom lies in the span of those chosen, hence no atom
    enters twice and duplicate atoms cannot give huge cancelling coefficients.

    References
    ----------
    .. [1] Y. C. Pati, R. Rezaiifar, P. S. Krishnaprasad, "Orthogonal matching pursuit: recursive function
       approximation with applications to wavelet decomposition", Asilomar Conference, 1993.
    .. [2] R. Rubinstein, M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm using
       batch orthogonal matching pursuit", Technion report CS-2008-08, 2008.
    .. [3] S. Chen, S. A. Billings, W. Luo, "Orthogonal least squares methods and their application to
       non-linear system identification", International Journal of Control 50(5), 1989.
    .. [4] T. Blumensath, M. E. Davies, "On the difference between orthogonal matching pursuit and orthogonal
       least squares", University of Edinburgh, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.omp import orthogonal_matching_pursuit
    >>> F = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    >>> code = orthogonal_matching_pursuit(np.array([[0.6, 0.8, 3.0]]), F, 2)
    >>> code.indices, np.round(code.coefs, 6)
    (array([[2, 1]]), array([[3., 1.]]))
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    if tol is not None and not tol >= 0:
        raise ValueError(f"tol is a squared norm and must be at least 0, got {tol}. None codes with k atoms.")
    xp = array_namespace(Y, F)
    form = _resolve_form(form, Y, F, min(k, *F.shape), selection_dtype)
    if Y.shape[0] == 0:
        empty = xp.zeros((0, k), dtype=Y.dtype, device=device(Y))
        return SparseCodes(xp.astype(empty, xp.int64), empty, xp.zeros((0,), dtype=xp.int64, device=device(Y)))
    lengths = row_norms(F)
    unit = xp.where(lengths > 0, lengths, xp.ones_like(lengths))
    n_eps = float(xp.finfo(F.dtype).eps) * 8
    rescale = bool(xp.any(xp.abs(lengths - 1) > n_eps))
    atoms = F / unit[:, None] if rescale else F
    n, d = Y.shape
    p = F.shape[0]
    width = min(k, p, d)
    row_bytes = (4 * p + width * d + 6 * d) * (xp.finfo(Y.dtype).bits // 8)
    if chunk_size == "auto":
        budget = next(chunk_rows(n, row_bytes, "auto", like=Y)).stop
        chunk_size = max(budget, MIN_CHUNK)
    if form == "gram":
        from .compiled_pursuit import pursue_compiled

        pursue = pursue_compiled(atoms, width, tol, method)
    else:
        low = None if selection_dtype is None else xp.matrix_transpose(xp.astype(atoms, getattr(xp, selection_dtype)))
        pursue = functools.partial(_pursue, F=atoms, low=low, k=width, tol=tol, method=method)
    pieces = [SparseCodes(*pursue(Y[rows, :])) for rows in chunk_rows(n, 1, chunk_size, like=Y)]
    codes = (
        pieces[0] if len(pieces) == 1 else SparseCodes(*(xp.concat(part, axis=0) for part in zip(*pieces, strict=True)))
    )
    indices, coefs = codes.indices, codes.coefs
    if rescale:
        coefs = coefs / xp.reshape(xp.take(unit, xp.reshape(indices, (-1,)), axis=0), coefs.shape)
    if width < k:
        pad = xp.zeros((n, k - width), dtype=Y.dtype, device=device(Y))
        indices = xp.concat([indices, xp.astype(pad, xp.int64)], axis=1)
        coefs = xp.concat([coefs, pad], axis=1)
    return SparseCodes(indices, coefs, codes.n_nonzero)


def _resolve_form(form, Y, F, k, selection_dtype):
    """The form to use: the named one where it can work, else an error that says why it cannot."""
    xp = array_namespace(Y)
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}, got {form!r}.")
    if selection_dtype is not None:
        if selection_dtype not in ("bfloat16", "float16"):
            raise ValueError(f"selection_dtype must be 'bfloat16', 'float16' or None, got {selection_dtype!r}.")
        if form == "gram":
            raise ValueError(
                f"form='gram' makes no products with the dictionary that selection_dtype={selection_dtype!r} could "
                "speed up. Set form='residual', or selection_dtype=None."
            )
        if not is_torch_namespace(xp):
            raise ValueError(
                f"selection_dtype={selection_dtype!r} needs torch, got arrays of {xp.__name__}. Convert them with "
                "torch.from_numpy, or set selection_dtype=None."
            )
        return "residual"
    here = in_numpy_memory(Y) and Y.dtype == F.dtype
    if form == "gram":
        if not here:
            raise ValueError(f"form='gram' is for NumPy and torch arrays on a CPU, got {xp.__name__} on {device(Y)}.")
        if not has_numba():
            raise ImportError("form='gram' needs Numba: pip install 'skprojdict[numba]'; or set form='residual'.")
        return "gram"
    n, p = Y.shape[0], F.shape[0]
    fits = p * p * (xp.finfo(F.dtype).bits // 8) <= GRAM_BYTES
    # The matrix costs p^2 d operations, and saves almost 2 d p for each atom of each row.
    return "gram" if form == "auto" and here and fits and 2 * n * k >= p and has_numba() else "residual"


def _pursue(Y, *, F, low, k, tol, method):
    """Code one chunk of rows in unit-norm (or zero) atoms; ``low`` is their transpose in low precision, or None."""
    xp = array_namespace(Y)
    state = _start(Y, F, low, k, method)
    limit = None if tol is None else float(tol) ** 0.5
    state, done = _stop(state, limit), []
    for t in range(k):
        n_running = int(xp.sum(xp.astype(state.running, xp.int64)))
        if n_running == 0:
            break
        if 2 * n_running < state.running.shape[0]:
            done.append(_finish(_take(state, ~state.running)))
            state = _take(state, state.running)
        state = _stop(_enter(state, F, low, t, method, last=t == k - 1), limit)
    done.append(_finish(state))
    number, *parts = (xp.concat(part, axis=0) if len(done) > 1 else part[0] for part in zip(*done, strict=True))
    if len(done) == 1:
        return SparseCodes(*parts)
    order = xp.argsort(number)
    return SparseCodes(*(xp.take(part, order, axis=0) for part in parts))


def _start(Y, F, low, k, method):
    """State before the first atom: rows scaled to unit norm, so that one threshold suits them all."""
    xp = array_namespace(Y)
    where = {"device": device(Y)}
    b, d = Y.shape
    scale = row_norms(Y)
    live = scale > 0
    residual = Y / xp.where(live, scale, xp.ones_like(scale))[:, None]
    norms = None
    if method == "ols":
        squares = xp.sum(F * F, axis=1)
        # An infinite norm is a gain of zero: atoms without length, and later those inside the span.
        squares = xp.where(squares > 0, squares, xp.full_like(squares, float("inf")))
        norms = xp.broadcast_to(squares[None, :], (b, F.shape[0])) + xp.zeros((b, 1), dtype=Y.dtype, **where)
    return _Rows(
        number=xp.arange(b, **where),
        residual=residual,
        correlations=_product(residual, F, low),
        norms=norms,
        basis=xp.zeros((b, k, d), dtype=Y.dtype, **where),
        triangle=xp.zeros((b, k, k), dtype=Y.dtype, **where),
        alphas=xp.zeros((b, k), dtype=Y.dtype, **where),
        indices=xp.zeros((b, k), dtype=xp.int64, **where),
        running=live,
        n_nonzero=xp.zeros((b,), dtype=xp.int64, **where),
        scale=scale,
    )


def _enter(state, F, low, t, method, *, last):
    """Let the best atom of every running row enter as number t; rows without a useful one stop."""
    xp = array_namespace(F)
    eps = float(xp.finfo(F.dtype).eps)
    basis, triangle = state.basis, state.triangle
    if method == "ols":
        gains = state.correlations * state.correlations
        gains /= state.norms
    else:
        gains = xp.abs(state.correlations)
    best = xp.argmax(gains, axis=1) if low is None else _best_of_proposed(state, F, gains, t, method)
    atom = xp.take(F, best, axis=0)
    direction, inside = atom, None
    if t > 0:
        inside = _coordinates(basis[:, :t, :], atom)
        direction = atom - _combine(basis[:, :t, :], inside)
    left = xp.sum(direction * direction, axis=1)
    # "Twice is enough": a second pass restores orthogonality where the first one cancelled digits.
    if t > 0 and bool(xp.any((left < 0.01) & state.running)):
        again = _coordinates(basis[:, :t, :], direction)
        direction = direction - _combine(basis[:, :t, :], again)
        inside = inside + again
        left = xp.sum(direction * direction, axis=1)
    length = xp.sqrt(left)
    alpha = xp.sum(direction * state.residual, axis=1)
    enters = state.running & (left > 100 * eps) & (xp.abs(alpha) > 32 * eps * length)
    keep = xp.astype(enters, F.dtype)
    inverse = keep / xp.where(enters, length, xp.ones_like(length))
    alpha = alpha * inverse
    direction = direction * inverse[:, None]
    state.residual[:, :] -= alpha[:, None] * direction
    basis[:, t, :] = direction
    if t > 0:
        triangle[:, t, :t] = inside * keep[:, None]
    triangle[:, t, t] = length
    state.alphas[:, t] = alpha
    state.indices[:, t] = xp.where(enters, best, xp.zeros_like(best))
    correlations = state.correlations
    if not last:
        if method == "ols":
            product = _product(direction, F, low)
            if low is None:
                correlations -= alpha[:, None] * product
            else:  # rounding would add up from step to step
                correlations = _product(state.residual, F, low)
            product *= product
            norms = state.norms
            norms -= product
            spent = norms < 100 * eps
            norms[spent] = float("inf")
        else:
            correlations = _product(state.residual, F, low)
    return state._replace(
        correlations=correlations, running=enters, n_nonzero=state.n_nonzero + xp.astype(enters, xp.int64)
    )


def _product(vectors, F, low):
    """``vectors @ F.T``, in low precision where ``low`` holds the transposed atoms."""
    xp = array_namespace(vectors)
    if low is None:
        return vectors @ xp.matrix_transpose(F)
    return xp.astype(xp.astype(vectors, low.dtype) @ low, vectors.dtype)


def _best_of_proposed(state, F, gains, t, method):
    """Best atom of each row among those of the largest gains, all of it computed again in full precision."""
    xp = array_namespace(F)
    proposed = top_k(gains, min(N_PROPOSED, gains.shape[1]))[1]
    atoms = gather_rows(F, proposed)
    exact = xp.abs(xp.squeeze(atoms @ state.residual[:, :, None], axis=2))
    if method == "ols":
        left = xp.sum(atoms * atoms, axis=2)
        if t > 0:
            inside = atoms @ xp.matrix_transpose(state.basis[:, :t, :])
            left = left - xp.sum(inside * inside, axis=2)
        spent = left < 100 * float(xp.finfo(F.dtype).eps)
        exact = exact * exact / xp.where(spent, xp.full_like(left, float("inf")), left)
    best = xp.argmax(exact, axis=1)
    return xp.squeeze(take_along_rows(proposed, best[:, None]), axis=1)


def _coordinates(basis, vectors):
    """Inner products of each row's vector with its own basis, (b, t)."""
    xp = array_namespace(basis)
    return xp.squeeze(basis @ vectors[:, :, None], axis=2)


def _combine(basis, coordinates):
    """Sum of each row's basis vectors, weighted by its coordinates, (b, d)."""
    xp = array_namespace(basis)
    return xp.squeeze(coordinates[:, None, :] @ basis, axis=1)


def _stop(state, limit):
    """Stop the rows whose residual is below the tolerance or zero to working precision."""
    xp = array_namespace(state.residual)
    relative = xp.sqrt(xp.sum(state.residual * state.residual, axis=1))
    running = state.running & (relative > 32 * float(xp.finfo(relative.dtype).eps))
    if limit is not None:
        running = running & (relative * state.scale > limit)
    return state._replace(running=running)


def _take(state, mask):
    """Keep the rows of a state where ``mask`` holds."""
    xp = array_namespace(state.residual)
    rows = nonzero_rows(mask)
    return _Rows(*(None if part is None else xp.take(part, rows, axis=0) for part in state))


def _finish(state):
    """Row numbers and codes: back substitution from the basis to the atoms."""
    xp = array_namespace(state.alphas)
    k = state.alphas.shape[1]
    coefs = state.alphas * state.scale[:, None]
    one = xp.ones_like(state.scale)
    for t in range(k - 1, -1, -1):
        # Places that no atom took hold alpha = 0; only their diagonal may be singular.
        solved = coefs[:, t] / xp.where(state.n_nonzero > t, state.triangle[:, t, t], one)
        coefs[:, t] = solved
        if t > 0:
            coefs[:, :t] -= solved[:, None] * state.triangle[:, t, :t]
    return state.number, state.indices, coefs, state.n_nonzero
