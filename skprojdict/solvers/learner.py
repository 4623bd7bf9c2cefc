# SPDX-License-Identifier: BSD-3-Clause
"""Coding and dictionary step in turn: what the method of optimal directions does with a batch or a pass."""

import dataclasses
import functools
from typing import Any, NamedTuple

from skprojdict._array import array_namespace, device
from skprojdict.solvers.ksvd import update_atoms
from skprojdict.solvers.mod import (
    StreamingStatistics,
    code_residual,
    code_statistics,
    count_uses,
    replace_atoms,
    solve_dictionary,
    worst_rows,
)
from skprojdict.solvers.omp import orthogonal_matching_pursuit

# Uses of the average atom before the rare ones are judged; with a bound of a thirtieth, three uses out of ninety as
# in the code of the K-SVD paper.
WINDOW_USES = 90
# The first codes come from an untrained dictionary: for three batches it moves halfway only.
CAREFUL_STEPS, CAREFUL_RIDGE, RIDGE, FULL_RIDGE = 3, 1.0, 1e-3, 1e-7


class PassSums(NamedTuple):
    """What a dictionary step needs of the rows of a pass: sums over rows, and the residuals of the worst ones."""

    gram: Any
    cross: Any
    candidates: Any
    uses: Any
    n_rows: int
    error: float
    energy: float


def code_pass(batches, F, *, k, coder="ols", tol=None, chunk_size="auto"):
    """Code batches of rows (centred, scaled) with the dictionary F (p, d): their :class:`PassSums`."""
    return functools.reduce(
        merge_sums, (_sums_of(Y, F, k=k, coder=coder, tol=tol, chunk_size=chunk_size) for Y in batches)
    )


def merge_sums(one, other):
    """The :class:`PassSums` of some rows and of others as those of all."""
    p = one.uses.shape[0]
    return PassSums(
        one.gram + other.gram,
        one.cross + other.cross,
        worst_rows(other.candidates, p, one.candidates),
        one.uses + other.uses,
        one.n_rows + other.n_rows,
        one.error + other.error,
        one.energy + other.energy,
    )


def _sums_of(Y, F, **settings):
    codes, residual, uses, sums = _coded(Y, F, **settings)
    p = F.shape[0]
    gram, cross = code_statistics(codes.indices, codes.coefs, Y, p)
    return PassSums(gram, cross, worst_rows(residual, p), uses, Y.shape[0], *sums)


def _coded(Y, F, *, k, coder, tol, chunk_size):
    """Codes of rows, residuals, uses of each atom, and sums of squares of residuals and rows."""
    xp = array_namespace(Y)
    codes = orthogonal_matching_pursuit(Y, F, k, tol=tol, method=coder, chunk_size=chunk_size)
    residual = code_residual(codes.indices, codes.coefs, Y, F)
    uses = count_uses(codes.indices, codes.coefs, F.shape[0])
    return codes, residual, uses, (float(xp.sum(residual * residual)), float(xp.sum(Y * Y)))


@dataclasses.dataclass
class DictionaryLearner:
    """Alternates between sparse codes at fixed atoms and atoms at fixed codes.

    Rows are centred and scaled. ``step`` takes one batch of a stream, ``full_pass`` all rows; both return the sums of
    squares of the residual (before the atoms moved) and of the rows.
    """

    components: Any
    k: int
    coder: str = "ols"
    tol: float | None = None
    chunk_size: Any = "auto"
    update: str = "mod"
    forgetting: Any = "growing"
    rows_a_pass: int | None = None
    statistics: Any = None
    n_activations: Any = None
    n_resampled: int = 0
    window_uses: Any = None
    window_rows: int = 0

    def __post_init__(self):
        p, d = self.components.shape
        xp = array_namespace(self.components)
        counts = xp.zeros((p,), dtype=xp.int64, device=device(self.components))
        if self.n_activations is None:
            self.n_activations = counts
        self.window_uses = 0 * counts
        if self.statistics is None and self.update == "mod":
            self.statistics = StreamingStatistics.zeros(p, d, self.components, self.forgetting)

    def configure(self, **settings):
        """Take other values of ``k``, ``coder``, ``tol``, ``chunk_size`` or ``forgetting``; what was learnt stays."""
        for name, value in settings.items():
            setattr(self, name, value)
        self.statistics.forgetting = self.forgetting

    def step(self, Y, *, replace=True):
        """Code one batch, add its statistics to the fading ones, solve for the dictionary."""
        codes, residual, sums = self._code(Y)
        n_uses = int(array_namespace(Y).sum(codes.n_nonzero))
        p = self.components.shape[0]
        self.statistics.add(*code_statistics(codes.indices, codes.coefs, Y, p), Y.shape[0], n_uses, sums[0])
        ridge = CAREFUL_RIDGE if self.statistics.n_steps <= CAREFUL_STEPS else RIDGE
        gram, cross = self.statistics.total()
        self.components, lengths = solve_dictionary(gram, cross, self.components, ridge)
        self.statistics.rescale(lengths)
        if replace:
            self._replace(residual)
        return sums

    def end_pass(self):
        """Tell the statistics that every row has been seen once more."""
        self.statistics.end_epoch()

    def full_pass(self, batches, *, replace=True):
        """Code every batch with one dictionary, then solve for the next dictionary once."""
        if self.update != "mod":
            return self._ksvd_pass(batches, replace)
        return self.end_full_pass(self.pass_coder()(batches), replace=replace)

    def pass_coder(self):
        """:func:`code_pass` with the dictionary and settings as they are: picklable, for rows on other machines."""
        return functools.partial(code_pass, F=self.components, **self._settings())

    def end_full_pass(self, sums, *, replace=True):
        """Solve for the next dictionary, given the :class:`PassSums` of all rows."""
        self._count(sums.uses, sums.n_rows)
        self.components, _ = solve_dictionary(sums.gram, sums.cross, self.components, FULL_RIDGE)
        if replace:
            self._replace(sums.candidates)
        return sums.error, sums.energy

    def _ksvd_pass(self, batches, replace):
        xp = array_namespace(self.components)
        Y = xp.concat(list(batches), axis=0)
        codes, residual, sums = self._code(Y)
        exact = self.update == "ksvd"
        self.components, _ = update_atoms(Y, codes.indices, codes.coefs, self.components, exact=exact)
        if replace:
            self._replace(residual)
        return sums

    def _code(self, Y):
        codes, residual, uses, sums = _coded(Y, self.components, **self._settings())
        self._count(uses, Y.shape[0])
        return codes, residual, sums

    def _settings(self):
        return {"k": self.k, "coder": self.coder, "tol": self.tol, "chunk_size": self.chunk_size}

    def _count(self, uses, n_rows):
        self.n_activations = self.n_activations + uses
        self.window_uses = self.window_uses + uses
        self.window_rows += n_rows

    def _replace(self, residual):
        """Replace atoms once enough was seen to judge them: 90 uses of the average atom, or every row."""
        xp = array_namespace(residual)
        p = self.components.shape[0]
        whole = self.rows_a_pass is not None and self.window_rows >= self.rows_a_pass
        if not whole and int(xp.sum(self.window_uses)) < WINDOW_USES * p:
            return
        self.components, replaced = replace_atoms(self.components, self.window_uses, worst_rows(residual, p))
        if self.statistics is not None:
            self.statistics.clear(replaced)
        self.n_activations = xp.where(replaced, 0 * self.n_activations, self.n_activations)
        self.n_resampled += int(xp.sum(xp.astype(replaced, xp.int64)))
        self.window_uses, self.window_rows = 0 * self.window_uses, 0
