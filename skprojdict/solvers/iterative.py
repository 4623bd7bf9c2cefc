# SPDX-License-Identifier: BSD-3-Clause
"""Conjugate gradients for a stack of systems: the normal equations without an inversion (Sklar 2024, section 3)."""

from .._array import array_namespace, asarray_like


def conjugate_gradients(operator, B, *, max_iter, start=None):
    """Solve ``A x = b`` for a stack of symmetric positive semi-definite systems at once.

    Minimises ``x^T A x / 2 - b^T x`` for each row (Hestenes and Stiefel, 1952). From a start of zero the iterates stay
    in the range of A, so a consistent singular system gets its minimum-norm solution.

    Parameters
    ----------
    operator : callable
        Maps (n, K) to ``A x`` of each row.
    B : array of shape (n, K)
        Right-hand sides.
    max_iter : int
        Number of steps at most. Rows stop moving once their residual is at rounding level.
    start : array of shape (n, K), default=None
        Warm start.

    Returns
    -------
    solution : array of shape (n, K)

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.iterative import conjugate_gradients
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> x = conjugate_gradients(lambda rows: rows @ A, np.array([[3.0, 4.0]]), max_iter=2)
    >>> np.round(x, 6)
    array([[1., 1.]])
    """
    xp = array_namespace(B)
    # Squares of very large or very small right-hand sides would overflow or vanish.
    unit = xp.max(xp.abs(B), axis=1, keepdims=True)
    unit = xp.where(unit > 0, unit, xp.ones_like(unit))
    B, start = B / unit, None if start is None else start / unit
    solution = xp.zeros_like(B) if start is None else start
    residual = B if start is None else B - operator(start)
    direction = residual
    energy = xp.sum(residual * residual, axis=1)
    eps = float(xp.finfo(B.dtype).eps)
    goal = (2 * eps) ** 2 * xp.sum(B * B, axis=1)
    largest = xp.zeros_like(energy)
    one = asarray_like(1.0, B)
    for _ in range(max_iter):
        going = energy > goal
        if not bool(xp.any(going)):
            break
        image = operator(direction)
        curvature = xp.sum(direction * image, axis=1)
        length = xp.sum(direction * direction, axis=1)
        slope = curvature / xp.where(length > 0, length, one)
        largest = xp.maximum(largest, slope)
        # A direction that A maps to nothing but rounding is a null vector: a step along it would never end.
        going = going & (slope > B.shape[1] * eps * largest)
        step = xp.where(going, energy / xp.where(going, curvature, one), xp.zeros_like(energy))
        solution = solution + step[:, None] * direction
        residual = residual - step[:, None] * image
        new_energy = xp.where(going, xp.sum(residual * residual, axis=1), xp.zeros_like(energy))
        ratio = xp.where(energy > 0, new_energy / xp.where(energy > 0, energy, one), xp.zeros_like(energy))
        direction = residual + ratio[:, None] * direction
        energy = new_energy
    return solution * unit
