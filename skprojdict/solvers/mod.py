# SPDX-License-Identifier: BSD-3-Clause
"""The dictionary step of the method of optimal directions: from sparse codes to atoms."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import linalg, sparse

from skprojdict._array import (
    add_to_diagonal,
    array_namespace,
    asarray_like,
    cho_solve,
    cholesky,
    device,
    for_kernels,
    has_numba,
    in_numpy_memory,
    is_numpy_namespace,
    is_torch_namespace,
    nonzero_rows,
    scatter_rows,
    supported_float_dtypes,
    to_numpy,
)
from skprojdict._chunks import chunk_rows
from skprojdict._memory import gather_rows
from skprojdict.solvers.norms import unit_rows

__all__ = [
    "StreamingStatistics",
    "code_residual",
    "code_statistics",
    "count_uses",
    "duplicate_atoms",
    "replace_atoms",
    "solve_dictionary",
    "worst_rows",
]

# Memory of "growing" forgetting: at most this share of the rows seen, at least so many uses of the average atom, else
# what estimates that atom with this squared error. A share of 0.3 leaves 0.6 % less residual on image patches and 3 %
# more after one pass over activations; a memory blind to the noise finds 2 to 3 atoms of 50 fewer in
# benchmarks/ksvd_recovery.py, or forgets far too fast on activations.
MEMORY_SHARE, MEMORY_USES, ATOM_ERROR = 0.5, 20, 0.01
# An atom used this many times less than the average one is not worth its place.
RARE = 30


@dataclasses.dataclass
class StreamingStatistics:
    """Z'Z and Z'Y of a stream whose early batches fade: they were coded with a dictionary that is no more.

    "growing" remembers the rows that it takes to estimate the average atom to a tenth of its length in spite of the
    residuals: few when the codes explain the rows well, so that the dictionary moves on quickly, but at least 20 uses
    of the average atom, and at most half of the rows seen. "linear" lets what is there fade by ``n / (n + b)`` when b
    rows join n, and holds two buffers, so that ``end_epoch`` drops all that is older than the previous epoch. A number
    multiplies what is there once a batch; 1 forgets nothing.
    """

    gram: Any
    cross: Any
    forgetting: str | float = "growing"
    n_steps: int = 0
    n_rows: int = 0
    old_gram: Any = None
    old_cross: Any = None

    @classmethod
    def zeros(cls, n_components, n_features, like, forgetting="growing"):
        """Empty statistics, in the widest float of the device of ``like``."""
        xp, options = array_namespace(like), {"dtype": _wide_dtype(like), "device": device(like)}
        gram = xp.zeros((n_components, n_components), **options)
        cross = xp.zeros((n_components, n_features), **options)
        return cls(gram, cross, forgetting)

    def add(self, gram, cross, n_rows, n_uses=0, error=0.0):
        """Add a batch after the old ones fade: its number of rows, of uses of atoms, and sum of squared residuals."""
        if self.forgetting == "growing":
            factor = max(0.0, 1.0 - n_rows / self._memory(gram, n_rows, n_uses, error))
        elif self.forgetting == "linear":
            factor = self.n_rows / (self.n_rows + n_rows)
        else:
            factor = float(self.forgetting)
        for total in self._buffers():
            total *= factor
        self.gram += gram
        self.cross += cross
        self.n_steps += 1
        self.n_rows += n_rows

    def _memory(self, gram, n_rows, n_uses, error):
        """Rows to remember: the fewest that estimate the average atom well, but not many from early batches."""
        energy = float(array_namespace(gram).sum(array_namespace(gram).linalg.diagonal(gram)))
        if n_uses == 0 or energy <= 0:
            return math.inf
        # Least squares on u uses of mean energy a each leaves an atom a squared error of (error a row) / (u a).
        uses = (error / n_rows) / (ATOM_ERROR * energy / n_uses)
        rows_a_use = gram.shape[0] * n_rows / n_uses
        return max(MEMORY_USES * rows_a_use, min(uses * rows_a_use, MEMORY_SHARE * (self.n_rows + n_rows)))

    def end_epoch(self):
        """Make the running epoch the previous one, and drop the previous one ("linear" only)."""
        if self.forgetting != "linear":
            return
        if self.old_gram is None:
            self.old_gram, self.old_cross = 0.0 * self.gram, 0.0 * self.cross
        self.old_gram, self.old_cross, self.gram, self.cross = self.gram, self.cross, self.old_gram, self.old_cross
        self.gram *= 0.0
        self.cross *= 0.0

    def total(self):
        """Sum both buffers: ``(Z'Z, Z'Y)``."""
        if self.old_gram is None:
            return self.gram, self.cross
        return self.gram + self.old_gram, self.cross + self.old_cross

    def rescale(self, lengths):
        """Follow a dictionary whose atoms were divided by ``lengths``: their coefficients grow by as much."""
        for total in self._buffers():
            total *= lengths[:, None]
        for gram in (self.gram, self.old_gram):
            if gram is not None:
                gram *= lengths[None, :]

    def clear(self, mask):
        """Drop what was gathered for the atoms in ``mask``: they were replaced."""
        self.rescale(array_namespace(self.gram).astype(~mask, self.gram.dtype))

    def _buffers(self):
        buffers = (self.gram, self.cross, self.old_gram, self.old_cross)
        return [total for total in buffers if total is not None]


def _wide_dtype(like):
    """Name the widest real dtype of the device of ``like``: float64 where there is one."""
    return supported_float_dtypes(array_namespace(like), device=device(like))[0]


def code_statistics(indices, coefs, Y, n_components):
    r"""Additive statistics ``A = Z^T Z`` (p, p) and ``B = Z^T Y`` (p, d) of sparse codes.

    They are all that the dictionary step needs, and sums over rows: over chunks, batches or machines.

    Parameters
    ----------
    indices : int64 array of shape (n, k)
        Support of each row; entries whose coefficient is 0 are padding.
    coefs : array of shape (n, k)
        Coefficients.
    Y : array of shape (n, d)
        The rows that were coded.
    n_components : int
        Number of atoms p.

    Returns
    -------
    gram : array of shape (p, p)
    cross : array of shape (p, d)
        Both in float64 where the device has it.
    """
    xp, where = array_namespace(Y), device(Y)
    dtype = _wide_dtype(Y)
    n, k = indices.shape
    here = in_numpy_memory(Y)
    if here and has_numba():
        from ..kernels.pursuit import accumulate

        gram, cross = np.zeros((n_components, n_components)), np.zeros((n_components, Y.shape[1]))
        accumulate(*for_kernels(indices, coefs, Y), gram, cross)
        return asarray_like(gram, Y, dtype=dtype), asarray_like(cross, Y, dtype=dtype)
    if here:
        values = to_numpy(coefs).astype(np.float64, copy=False).reshape(-1)
        pointers = np.arange(0, n * k + 1, k)
        codes = sparse.csr_array((values, to_numpy(indices).reshape(-1), pointers), shape=(n, n_components))
        gram = (codes.T @ codes).toarray()
        cross = codes.T @ to_numpy(Y).astype(np.float64, copy=False)
        return asarray_like(gram, Y, dtype=dtype), asarray_like(cross, Y, dtype=dtype)
    gram = xp.zeros((n_components, n_components), dtype=dtype, device=where)
    cross = xp.zeros((n_components, Y.shape[1]), dtype=dtype, device=where)
    for rows in chunk_rows(n, 8 * n_components, "auto", like=Y):
        codes = xp.matrix_transpose(scatter_rows(indices[rows, :], coefs[rows, :], n_components))
        gram += xp.astype(codes @ xp.matrix_transpose(codes), dtype)
        cross += xp.astype(codes @ Y[rows, :], dtype)
    return gram, cross


def solve_dictionary(gram, cross, F, ridge=1e-3):
    r"""Fit a dictionary to given codes, held near the current one.

    .. math:: \min_{D} \; \|Y - Z D\|_F^2 + r \|D - F\|_F^2
       \quad\Longrightarrow\quad (Z^T Z + r I) D = Z^T Y + r F,

    after which every row of D is divided by its length [1]_. The pull towards the current F, rather than
    towards zero, leaves an atom that no code used exactly where it is.

    Parameters
    ----------
    gram, cross : arrays of shape (p, p) and (p, d)
        ``Z^T Z`` and ``Z^T Y``, from :func:`code_statistics` or a sum of several.
    F : array of shape (p, d)
        Current dictionary, unit rows.
    ridge : float, default=1e-3
        r in units of the median diagonal entry of ``gram`` among the atoms in use.

    Returns
    -------
    F : array of shape (p, d)
        New dictionary, unit rows, in the dtype of F.
    lengths : array of shape (p,)
        Lengths before the division, in the dtype of ``gram``: codes and statistics of the new dictionary are
        the old ones multiplied by them.

    References
    ----------
    .. [1] K. Engan, S. O. Aase, J. H. Husoy, "Method of optimal directions for frame design", ICASSP 1999.
    """
    xp = array_namespace(F)
    current = xp.astype(F, gram.dtype)
    diagonal = xp.linalg.diagonal(gram)
    one = xp.ones_like(diagonal)
    n_live = int(xp.sum(xp.astype(diagonal > 0, xp.int64)))
    if n_live == 0:
        return F, one
    ordered = xp.sort(diagonal, descending=True)
    r = ridge * float(ordered[n_live // 2])
    solved = _solve_positive(add_to_diagonal(gram, r), cross + r * current)
    lengths = xp.sqrt(xp.sum(solved * solved, axis=1))
    # An atom without a direction stays where it is, and its statistics with it.
    sound = xp.isfinite(lengths) & (lengths > 1e-12)
    lengths = xp.where(sound, lengths, one)
    solved = xp.where(sound[:, None], solved / lengths[:, None], current)
    return xp.astype(solved, F.dtype), lengths


def _solve_positive(A, B):
    """Solve ``A X = B`` for one symmetric positive definite matrix."""
    xp = array_namespace(A)
    if is_numpy_namespace(xp):  # the routine itself: at p = 256 the wrappers and their copies cost a fifth more
        (solve,) = linalg.get_lapack_funcs(("posv",), (A, B))
        _, solved, info = solve(A.T, B, lower=1, overwrite_a=True)
        return solved if info == 0 else np.full_like(B, np.nan)
    return cho_solve(cholesky(A), B)


def duplicate_atoms(F, threshold=0.99):
    """Mask of the atoms whose correlation with an earlier one exceeds ``threshold`` in absolute value."""
    xp = array_namespace(F)
    p = F.shape[0]
    number = xp.arange(p, device=device(F))
    found = []
    for rows in chunk_rows(p, 3 * F.shape[0] * 8, "auto", like=F):
        close = xp.abs(F[rows, :] @ xp.matrix_transpose(F)) > threshold
        found.append(xp.any(close & (number[None, :] < number[rows][:, None]), axis=1))
    return xp.concat(found)


def count_uses(indices, coefs, n_components):
    """Count the rows that use each atom, (p,) int64."""
    xp = array_namespace(indices)
    used = coefs != 0
    if is_numpy_namespace(xp) or is_torch_namespace(xp):
        return xp.bincount(indices[used], minlength=n_components)
    uses = xp.zeros((n_components,), dtype=xp.int64, device=device(indices))
    for rows in chunk_rows(indices.shape[0], 16 * n_components, "auto", like=indices):
        dense = scatter_rows(indices[rows, :], xp.astype(used[rows, :], coefs.dtype), n_components)
        uses += xp.astype(xp.sum(dense, axis=0), xp.int64)
    return uses


def code_residual(indices, coefs, Y, F, chunk_size="auto"):
    """Rows minus their reconstruction, (n, d), without an n x p array."""
    xp = array_namespace(Y)
    k, d = indices.shape[1], Y.shape[1]
    residual = xp.asarray(Y, copy=True)
    for rows in chunk_rows(Y.shape[0], (k + 2) * d * 8, chunk_size, like=Y):
        atoms = gather_rows(F, indices[rows, :])
        residual[rows, :] -= xp.squeeze(coefs[rows, :][:, None, :] @ atoms, axis=1)
    return residual


def worst_rows(residual, n_rows, others=None):
    """Keep the ``n_rows`` finite rows of largest norm, largest first, out of ``residual`` and earlier ``others``."""
    xp = array_namespace(residual)
    if others is not None:
        residual = xp.concat([others, residual], axis=0)
    if residual.shape[0] == 0:
        return residual
    largest = xp.max(xp.abs(residual), axis=1)
    unit = xp.max(xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest)))
    scaled = residual / xp.where(unit > 0, unit, xp.ones_like(unit))  # squares of large rows would overflow
    energy = xp.sum(scaled * scaled, axis=1)
    energy = xp.where(xp.isfinite(energy), energy, xp.zeros_like(energy))
    order = xp.argsort(energy, descending=True, stable=True)[: min(n_rows, energy.shape[0])]
    order = xp.take(order, nonzero_rows(xp.take(energy, order, axis=0) > 0), axis=0)
    return xp.take(residual, order, axis=0)


def replace_atoms(F, uses, candidates):
    """Put directions that the dictionary misses in place of atoms that it does not need.

    Replaced are atoms that explain fewer rows than a thirtieth of the average atom, and those whose correlation with
    an earlier atom exceeds 0.99 in absolute value (Aharon, Elad, Bruckstein 2006). They take the directions of the
    candidates in turn, none twice. Candidates are best the *residuals* of the worst represented rows: such a row holds
    found atoms as well as missed ones, its residual only the missed ones.

    Parameters
    ----------
    F : array of shape (p, d)
        Unit rows.
    uses : array of shape (p,)
        Number of rows that used each atom.
    candidates : array of shape (m, d)
        Directions, best first; rows of zeros are not used, from :func:`worst_rows`.

    Returns
    -------
    F : array of shape (p, d)
    replaced : bool array of shape (p,)
    """
    xp = array_namespace(F)
    unwanted = duplicate_atoms(F) | (uses * (RARE * F.shape[0]) <= xp.sum(uses))
    place = xp.cumulative_sum(xp.astype(unwanted, xp.int64)) - 1
    n_candidates = candidates.shape[0]
    if n_candidates == 0:
        return F, xp.zeros_like(unwanted)
    replaced = unwanted & (place < n_candidates)
    directions = xp.take(unit_rows(candidates), xp.clip(place, 0, n_candidates - 1), axis=0)
    return xp.where(replaced[:, None], directions, F), replaced
