# SPDX-License-Identifier: BSD-3-Clause
"""Interchange interventions: the part of an activation that lies in a subspace, taken from another run."""

from typing import Any

from .._array import array_namespace, cho_solve, cholesky, device, nonzero_rows, to_numpy, to_torch
from ..solvers.systems import scaled_gram
from .hooks import patched

__all__ = ["Intervention", "interchange"]


class Intervention:
    """Interchange on one subspace: ``out = base + H (source - base)``.

    H maps x to ``sum_j beta_j q_j`` with beta the minimiser of ``|| x - sum_j beta_j q_j ||^2`` (the orthogonal
    projection on the span of the directions), plus ``sum_j beta_j^2 / s_j`` where precisions s are given (a ridge
    projection, which swaps only in part). H does not depend on base or source.

    Parameters
    ----------
    directions : array of shape (n_directions, n_features)
        Directions, of any norm and angle. None at all: nothing is swapped.
    precisions : array of shape (n_directions,), default=None
        Precisions s_j = 1 / lambda_j >= 0 of a ridge projection. None: exact.

    Attributes
    ----------
    matrix : array of shape (n_features, n_features)
        H.
    effective_dimension : float
        ``tr H``.
    rank : int
        Numerical rank of the directions of positive precision.

    References
    ----------
    Geiger et al. (2024). Finding alignments between interpretable causal variables and distributed neural
    representations. CLeaR. Sklar (2024). Projective Dictionaries, sections 3 and 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import Intervention
    >>> first = Intervention(np.array([[1.0, 0.0, 0.0]]))
    >>> first(np.array([[1.0, 2.0, 3.0]]), np.array([[7.0, 8.0, 9.0]]))
    array([[7., 2., 3.]])
    """

    def __init__(self, directions, precisions=None):
        if len(directions.shape) != 2:
            raise ValueError(f"directions must have shape (n_directions, n_features), got {tuple(directions.shape)}.")
        xp = array_namespace(directions)
        if precisions is not None:
            if tuple(precisions.shape) != (directions.shape[0],):
                raise ValueError(
                    f"precisions must have shape ({directions.shape[0]},), one for each direction, got "
                    f"{tuple(precisions.shape)}."
                )
            if not bool(xp.all(xp.isfinite(precisions) & (precisions >= 0))):
                raise ValueError("precisions must be finite and not negative. Pass None for an exact projection.")
        self.directions, self.precisions = directions, precisions
        # Orthonormal rows that span what can be swapped; the ridge projection is applied in factored form.
        if precisions is not None:
            directions = xp.take(directions, nonzero_rows(precisions > 0), axis=0)
        self._basis = _basis(directions)

    def __repr__(self):
        kind = "exact" if self.precisions is None else "ridge"
        return f"Intervention({self.directions.shape[0]} directions of {self.directions.shape[1]} features, {kind})"

    @property
    def rank(self):
        """Number of dimensions that are swapped, in whole or in part."""
        return int(self._basis.shape[0])

    @property
    def effective_dimension(self):
        """``tr H``: how many dimensions are swapped, partly swapped ones counted in part."""
        return float(array_namespace(self.directions).linalg.trace(self.matrix))

    @property
    def matrix(self):
        """H as a dense matrix."""
        xp = array_namespace(self.directions)
        eye = xp.eye(self.directions.shape[1], dtype=self.directions.dtype, device=device(self.directions))
        return self.project(eye)

    def project(self, rows):
        """``H x`` for every row x.

        Parameters
        ----------
        rows : array of shape (n_samples, n_features)

        Returns
        -------
        projected : array of shape (n_samples, n_features)
        """
        if self.precisions is None:
            return (rows @ self._basis.T) @ self._basis
        xp = array_namespace(self.directions)
        root = xp.sqrt(self.precisions)
        factor = cholesky(scaled_gram(self.directions[None, ...], self.precisions[None, ...]))
        scaled = root[:, None] * self.directions
        return xp.matrix_transpose(cho_solve(factor, (scaled @ rows.T)[None, ...])[0, ...]) @ scaled

    def __call__(self, base, source):
        """The interchange.

        Parameters
        ----------
        base, source : arrays of shape (n_samples, n_features)

        Returns
        -------
        out : array of shape (n_samples, n_features)
        """
        if tuple(base.shape) != tuple(source.shape):
            raise ValueError(f"base and source must have one shape, got {tuple(base.shape)} and {tuple(source.shape)}.")
        libraries = [array_namespace(each).__name__.split(".")[-1] for each in (self.directions, base, source)]
        if len(set(libraries)) > 1:
            raise TypeError(
                "directions are of {}, base of {} and source of {}: bring them to one library.".format(*libraries)
            )
        self._check_width(base.shape[-1], "base has")
        return base + self.project(source - base)

    def _check_width(self, n_columns, what):
        if n_columns != self.directions.shape[1]:
            raise ValueError(
                f"directions have {self.directions.shape[1]} columns, but {what} {n_columns}: pass activations of the "
                "site that the directions were found at."
            )

    def on(self, model, layer, *, source, position=None):
        """Run a network with this interchange at one of its layers.

        Parameters
        ----------
        model : torch.nn.Module
        layer : str
            Name of the layer whose output is changed, as ``model.named_modules()`` spells it: "layers.2".
        source : array or tensor
            Activations to copy from, of the shape that the layer puts out (at ``position``).
        position : int, default=None
            For outputs (n_samples, n_positions, n_features): the position that is changed. None: all.

        Returns
        -------
        running : context manager
            Inside it every forward pass of ``model`` is an interchange.

        Examples
        --------
        >>> import torch
        >>> from skprojdict.alignment import Intervention
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
        >>> base, source = torch.zeros(1, 2), torch.ones(1, 2)
        >>> with Intervention(torch.tensor([[0.0, 1.0]])).on(model, "0", source=source):
        ...     model(base)
        tensor([[0., 1.]])
        """

        def change(activations):
            self._check_width(activations.shape[-1], f"layer {layer!r} puts out")
            flat = activations.reshape(-1, activations.shape[-1])
            other = (source if _is_tensor(source) else to_torch(source)).to(activations).reshape(-1, source.shape[-1])
            if other.shape != flat.shape:
                raise ValueError(
                    f"source has shape {tuple(source.shape)}, but layer {layer!r} puts out {tuple(activations.shape)} "
                    "there. Read it with Site(model, layer, position).read on as many inputs."
                )
            return on_tensors(flat, other).reshape(activations.shape)

        on_tensors = self._in_torch()
        return patched(model, layer, change, position=position)

    def _in_torch(self):
        """The same interchange for tensors of any device and dtype, computed in at least single precision."""
        import torch

        directions = torch.as_tensor(to_numpy(self.directions)) if not _is_tensor(self.directions) else self.directions
        precisions = self.precisions
        if precisions is not None and not _is_tensor(precisions):
            precisions = torch.as_tensor(to_numpy(precisions))

        def call(base, source):
            wide = torch.promote_types(base.dtype, torch.float32)
            own = Intervention(
                directions.to(base.device, wide), None if precisions is None else precisions.to(base.device, wide)
            )
            return base + own.project((source - base).to(wide)).to(base.dtype)

        return call


def interchange(base, source, directions, precisions=None):
    """Interchange on the span of directions: ``base + H (source - base)``.

    Parameters
    ----------
    base, source : arrays of shape (n_samples, n_features)
        Activations to change, and to copy from.
    directions : array of shape (n_directions, n_features)
        What spans the subspace.
    precisions : array of shape (n_directions,), default=None
        Of a ridge projection; None: exact.

    Returns
    -------
    out : array of shape (n_samples, n_features)

    See Also
    --------
    Intervention : The same as an object, with its rank and effective dimension, and for layers of a network.
    skprojdict.alignment.edit_features : Changes coefficients of single features instead of a subspace.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.alignment import interchange
    >>> base, source = np.zeros((1, 3)), np.array([[1.0, 2.0, 3.0]])
    >>> interchange(base, source, np.array([[0.0, 1.0, 0.0]]))
    array([[0., 2., 0.]])
    """
    return Intervention(directions, precisions)(base, source)


def _is_tensor(x):
    import torch

    return isinstance(x, torch.Tensor)


def _basis(directions) -> Any:
    xp = array_namespace(directions)
    if directions.shape[0] == 0:
        return directions
    _, values, vectors = xp.linalg.svd(directions, full_matrices=False)
    cutoff = max(directions.shape) * float(xp.finfo(directions.dtype).eps) * float(values[0])
    return vectors[: int(xp.sum(xp.astype(values > cutoff, xp.int64))), :]
