# SPDX-License-Identifier: BSD-3-Clause
"""The Gram form of pursuit around its compiled kernels: rows in, codes out, on as many threads as one may use."""

import numpy as np

from .._array import array_namespace, asarray_like, for_kernels, to_numpy
from .._products import affine
from ..kernels.threads import over_rows
from .norms import normalised


def pursue_compiled(F, k, tol, method):
    """A function that codes rows (n, d) in unit-norm (or zero) atoms F (p, d): ``(indices, coefs, n_nonzero)``."""
    from ..kernels.pursuit import pursue

    like, integer = F, array_namespace(F).int64
    (F,) = for_kernels(F)
    kind, p = F.dtype, F.shape[0]
    gram = F @ F.T
    eps = np.finfo(kind).eps
    constants = np.array([1, eps, 100 * eps, 1e30], dtype=kind)
    limit = np.array([-1 if tol is None else tol**0.5], dtype=kind)
    bits = np.int32 if kind == np.float32 else np.int64

    def code(Y):
        Y = to_numpy(Y)
        n = Y.shape[0]
        rows, scale = normalised(np.ascontiguousarray(Y))
        correlations = affine(rows, F, None)
        indices, coefs = np.zeros((n, k), dtype=np.int64), np.zeros((n, k), dtype=kind)
        n_nonzero = np.zeros(n, dtype=np.int64)

        def work(part):
            gain = np.zeros(p, dtype=kind)
            codes = (indices[part], coefs[part], n_nonzero[part])
            pursue(
                rows[part],
                scale[part],
                F,
                gram,
                correlations[part],
                limit,
                method == "ols",
                constants,
                gain,
                gain.view(bits),
                *codes,
            )

        over_rows(work, n)
        return (
            asarray_like(indices, like, dtype=integer),
            asarray_like(coefs, like),
            asarray_like(n_nonzero, like, dtype=integer),
        )

    return code
