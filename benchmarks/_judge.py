# SPDX-License-Identifier: BSD-3-Clause
"""The same numbers for every method, from its dictionary and its codes of the held-out rows."""

import math

import numpy as np
from scipy import sparse

from skprojdict.metrics import fraction_of_variance_unexplained, l0, n_unused
from skprojdict.solvers.ridge import project

# Coders that are too slow for all rows are compared on the first so many.
HEAD_ROWS = 1024


def codes_of(report, arrays, name):
    """Codes of one coder as a CSR matrix of shape (n, p)."""
    coding = report["codings"][name]
    number = coding["number"]
    parts = (arrays[f"data{number}"], arrays[f"indices{number}"], arrays[f"indptr{number}"])
    return sparse.csr_matrix(parts, shape=(coding["rows"], len(arrays["atoms"])))


def fidelity(Y, report, arrays, *, most_solved=math.inf):
    """Numbers of each coding: FVU, FVU on the first rows, after least squares on its support, L0, unused atoms.

    Where more than ``most_solved`` atoms a row fire, least squares would take minutes, and NaN stands for its result.
    """
    atoms, centre = arrays["atoms"].astype(np.float64), arrays["centre"].astype(np.float64)
    numbers = {}
    for name in report["codings"]:
        codes = codes_of(report, arrays, name)
        y = np.asarray(Y[: codes.shape[0]], dtype=np.float64)
        reconstruction = centre + codes @ atoms
        head = slice(0, min(HEAD_ROWS, len(y)))
        solved = math.nan
        if l0(codes) <= most_solved:
            solved = fraction_of_variance_unexplained(y, centre + resolve(y - centre, atoms, codes))
        numbers[name] = {
            "fvu": fraction_of_variance_unexplained(y, reconstruction),
            "fvu_head": fraction_of_variance_unexplained(y[head], reconstruction[head]),
            "head_rows": head.stop,
            "fvu_resolved": solved,
            "l0": l0(codes),
            "unused": n_unused(codes),
            "negative": float((codes.data < 0).mean()) if codes.nnz else 0.0,
        }
    return numbers


def resolve(y, atoms, codes):
    """Least squares of each row on the atoms of its own support, in double precision."""
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    unit = np.divide(atoms, norms, out=np.zeros_like(atoms), where=norms > 0)
    counts = np.diff(codes.indptr)
    indices = np.zeros((len(y), max(1, counts.max(initial=0))), dtype=np.int64)
    used = np.arange(indices.shape[1]) < counts[:, None]
    indices[used] = codes.indices
    return project(y, unit, indices, used.astype(np.float64), exact=True, ragged=True).reconstruction
