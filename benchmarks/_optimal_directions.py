# SPDX-License-Identifier: BSD-3-Clause
"""The method of optimal directions behind the signature of the peers' adapters."""

import numpy as np
from _rows import Coder, Learnt, stopwatch, warm_up_torch

from skprojdict import MethodOfOptimalDirections

warm_up_torch()


def passes_of(n_rows, n_steps, batch_size):
    """Rows and passes over them that come to what ``n_steps`` minibatches read."""
    read = n_steps * batch_size
    return min(n_rows, read), max(1, round(read / n_rows))


def optimal_directions(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads):
    """MethodOfOptimalDirections at its defaults: a step is as many rows as there are atoms."""
    n_rows, passes = passes_of(len(rows), n_steps, batch_size)
    model = MethodOfOptimalDirections(
        n_components, n_nonzero_coefs=k, max_iter=passes, random_state=seed, sparse_output=True
    )
    with stopwatch() as seconds:
        model.fit(rows.array[:n_rows])
    return Learnt(
        atoms=np.asarray(model.components_),
        centre=np.asarray(model.mean_),
        coders={"": Coder(model.transform)},
        seconds=seconds[0],
        standardised=False,
    )
