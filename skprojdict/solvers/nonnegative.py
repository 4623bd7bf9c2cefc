# SPDX-License-Identifier: BSD-3-Clause
"""Non-negative least squares for a stack of problems: which atoms stay when coefficients may not be negative."""

from typing import Any, NamedTuple

from .._array import add_to_diagonal, array_namespace, device, nonzero_rows, put_rows
from .systems import apply_safe, combine, factorise, inner, masked_gram, safe_inverse, scaled_gram


class _GramProblem(NamedTuple):
    """``v^T H v / 2 - q^T v`` of each row, with H (n, K, K) at hand: for supports no longer than d."""

    H: Any
    q: Any

    def gradient(self, v):
        """Downhill direction ``q - H v``."""
        return self.q - inner(self.H, v)

    def minimiser(self, passive):
        """Minimiser over the passive variables, the others at 0."""
        mask = array_namespace(self.H).astype(passive, self.H.dtype)
        system = add_to_diagonal(self.H * mask[:, :, None] * mask[:, None, :], 1 - mask)
        return apply_safe(safe_inverse(system), self.q * mask) * mask

    def take(self, rows):
        """The same for some rows only."""
        xp = array_namespace(self.H)
        return _GramProblem(*(xp.take(part, rows, axis=0) for part in self))


class _AtomProblem(NamedTuple):
    """The same function of atoms X (n, K, d) and targets Y, through d x d systems: for supports longer than d."""

    X: Any
    weights: Any
    Y: Any
    exact: bool

    def gradient(self, v):
        """Downhill direction ``D X (y - X^T D v) - v``, without the last term in exact mode."""
        root = self._root()
        slope = root * inner(self.X, self.Y - combine(self.X, root * v))
        return slope if self.exact else slope - v

    def minimiser(self, passive):
        """Minimiser over the passive variables, the others at 0."""
        xp = array_namespace(self.X)
        root = self._root()
        weights = self.weights * xp.astype(passive, self.X.dtype)
        beta = factorise(self.X, weights, exact=self.exact).of_target(self.Y)
        return xp.where(weights > 0, beta / xp.where(root > 0, root, xp.ones_like(root)), xp.zeros_like(beta))

    def take(self, rows):
        """The same for some rows only."""
        xp = array_namespace(self.X)
        X, weights, Y = (xp.take(part, rows, axis=0) for part in self[:3])
        return _AtomProblem(X, weights, Y, self.exact)

    def _root(self):
        xp = array_namespace(self.X)
        return xp.astype(self.weights > 0, self.X.dtype) if self.exact else xp.sqrt(self.weights)


def nonnegative_coefficients(X, weights, Y, *, exact, max_iter=20):
    """Scaled coefficients of the best non-negative combination of each row's atoms.

    Minimises the objective of :func:`factorise` over ``beta = D v >= 0`` for a stack of problems at once, D the root
    of the precisions (in exact mode the identity).

    Block principal pivoting (Kim and Park, 2011): exchange every infeasible variable between the passive and the
    active set. It needs few steps where the matrix is well conditioned and may cycle where it is not; the rows that
    have not converged after ``max_iter`` steps go to the active-set method of Lawson and Hanson (1974), which lowers
    the objective at every step and only ever solves on independent atoms. Each step factorises the smaller side of X.

    Parameters
    ----------
    X : array of shape (n, K, d)
        Gathered atoms.
    weights : array of shape (n, K)
        As in :func:`factorise`.
    Y : array of shape (n, d)
        Targets.
    exact : bool
        No penalty.
    max_iter : int, default=20
        Number of block exchanges at most.

    Returns
    -------
    v : array of shape (n, K)
        Non-negative minimisers; positive where the coefficient is.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.nonnegative import nonnegative_coefficients
    >>> atoms = np.eye(2)[None]
    >>> nonnegative_coefficients(atoms, np.ones((1, 2)), np.array([[3.0, -1.0]]), exact=True)
    array([[3., 0.]])
    """
    xp = array_namespace(X)
    zero = xp.zeros_like(weights)
    problem: Any = _AtomProblem(X, weights, Y, exact)
    q = problem.gradient(zero)
    if X.shape[1] <= X.shape[2]:
        problem = _GramProblem(masked_gram(X, xp.astype(weights > 0, X.dtype)) if exact else scaled_gram(X, weights), q)
    scale = xp.max(xp.abs(q), axis=1, keepdims=True)
    eps = float(xp.finfo(X.dtype).eps)
    tolerance = 10 * q.shape[1] * eps * xp.where(scale > 0, scale, xp.ones_like(scale))
    passive = xp.zeros(q.shape, dtype=xp.bool, device=device(q))
    v, gradient = zero, q
    for step in range(max_iter + 1):
        infeasible = (passive & (v < -tolerance)) | (~passive & (gradient > tolerance))
        unsettled = xp.any(infeasible, axis=1)
        if step == max_iter or not bool(xp.any(unsettled)):
            break
        passive = passive ^ infeasible
        v = problem.minimiser(passive)
        gradient = problem.gradient(v)
    v = xp.where(v > 0, v, zero)
    rows = nonzero_rows(unsettled)
    if rows.shape[0]:
        v = put_rows(v, rows, _lawson_hanson(problem.take(rows), xp.take(tolerance, rows, axis=0), v.shape[1]))
    return v


def _lawson_hanson(problem, tolerance, n_variables):
    """Add the variable of the steepest descent; step towards the solve as far as no variable turns negative."""
    xp = array_namespace(tolerance)
    columns = xp.arange(n_variables, device=device(tolerance))[None, :]
    zero = xp.zeros((tolerance.shape[0], n_variables), dtype=tolerance.dtype, device=device(tolerance))
    one = xp.ones_like(zero)
    passive = zero > 0
    refused = newest = passive
    v = solved = zero
    for _ in range(10 * n_variables + 10):
        blocking = passive & (solved <= 0)
        stepping = xp.any(blocking, axis=1, keepdims=True)
        # Rows whose solve is positive take it, and let the steepest variable in.
        v = xp.where(stepping, v, solved)
        slope = xp.where(passive | refused, zero, problem.gradient(v))
        entering = (columns == xp.argmax(slope, axis=1, keepdims=True)) & (slope > tolerance) & ~stepping
        # The others go as far as the first variable that would turn negative, which leaves.
        gap = v - solved
        ratio = xp.where(blocking, v / xp.where(blocking & (gap > 0), gap, one), one)
        length = xp.min(ratio, axis=1, keepdims=True)
        leaving = blocking & (ratio <= length)
        v = xp.where(stepping, v + length * (solved - v), v)
        v = xp.where(leaving | ~(v > 0), zero, v)
        # A variable that must leave as soon as it came was let in by rounding.
        refused = (refused | (newest & leaving)) & (stepping | ~xp.any(newest, axis=1, keepdims=True))
        newest = xp.where(stepping, newest & ~leaving, entering)
        passive = (passive & ~leaving) | entering
        if not bool(xp.any(entering | leaving)):
            break
        solved = problem.minimiser(passive)
    return v
