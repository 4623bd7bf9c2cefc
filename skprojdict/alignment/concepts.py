# SPDX-License-Identifier: BSD-3-Clause
"""Concepts as a user writes them, and as the subspace modules read them."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .._array import to_numpy


class Concepts(NamedTuple):
    """The distinct concepts of some rows: ``values`` (C, ...) as NumPy, ``ids`` (n,) says which one a row has."""

    values: Any
    ids: np.ndarray


def distinct(concepts, n_rows=None):
    """Distinct concepts in sorted order, and the number of each row's.

    Parameters
    ----------
    concepts : array of shape (n_rows,) or (n_rows, ...), or None
        Labels (integers or strings), or descriptions: one row, of any shape, for each sample. None: all rows are about
        one concept, 0.
    n_rows : int, default=None
        How many there must be.

    Returns
    -------
    concepts : Concepts

    Raises
    ------
    ValueError
        For another number of rows, or descriptions that are not finite.
    """
    values = np.zeros(n_rows or 1, dtype=np.int64) if concepts is None else np.asarray(to_numpy(concepts))
    if values.ndim == 0 or values.shape[0] == 0 or (n_rows is not None and values.shape[0] != n_rows):
        wanted = "sample" if n_rows is None else f"of the {n_rows} samples"
        raise ValueError(
            f"concepts must have one row for each {wanted}, got shape {values.shape}. Repeat a single one with "
            "numpy.repeat([concept], n, axis=0)."
        )
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise ValueError("concepts contain NaN or infinity: labels and descriptions must be finite.")
    if values.ndim == 1:
        return Concepts(*np.unique(values, return_inverse=True))
    flat = values.reshape(values.shape[0], -1)
    _, first, ids = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    return Concepts(values[first], ids.reshape(-1))


class Reader:
    """Turns concepts into the tensor that a subspace module reads.

    Parameters
    ----------
    known : array of shape (C, ...)
        The distinct concepts of fit.
    table : bool
        Concepts are numbered by their place among the known ones, and unknown ones are refused. False: they are their
        own description.
    raw : bool
        Integer descriptions stay integers (token ids for a hypernetwork) instead of becoming floats.
    """

    def __init__(self, known, *, table, raw):
        self.table, self.raw, self.shape = table, raw, known.shape[1:]
        self.numbers = {_key(value): number for number, value in enumerate(known)} if table else {}

    def __call__(self, values, like):
        """Numbers (C,) or descriptions (C, ...) of concepts, on the device of ``like`` and in its dtype.

        Raises
        ------
        ValueError
            For concepts of another shape than at fit, or unknown ones where there is one subspace for each.
        """
        if values.shape[1:] != self.shape:
            raise ValueError(
                f"a concept has shape {values.shape[1:]}, but at fit it had {self.shape}. Describe concepts as at fit."
            )
        if self.table:
            found = [self.numbers.get(_key(value), -1) for value in values]
            if -1 in found:
                raise ValueError(
                    f"concept {values[found.index(-1)]!r} was not among those of fit, and what is learned one by one "
                    "says nothing about it. Describe concepts to ProjectiveAlignmentSearch to reach unseen ones."
                )
            return torch.tensor(found, dtype=torch.int64, device=like.device)
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"concepts of dtype {values.dtype} do not describe anything that can be computed with: pass numbers."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like.device)
        return tensor if self.raw and values.dtype.kind in "iu" else tensor.to(like.dtype)


def _key(value):
    return tuple(np.ravel(value).tolist())
