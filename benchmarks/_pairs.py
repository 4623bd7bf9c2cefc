# SPDX-License-Identifier: BSD-3-Clause
"""Our transcoders behind the signature of the peers' adapters: rows hold both views side by side."""

import numpy as np
from _rows import Coder, Learnt, stopwatch, warm_up_torch

import skprojdict

warm_up_torch()


def transcoder(
    rows, *, n_inputs, n_components, k, n_steps, batch_size, learning_rate, seed, threads, name, parameters=None
):
    """Fit one estimator with ``target="y"``; its codes are those that the first view predicts."""
    parameters = dict(parameters or {})
    if learning_rate is not None:
        parameters["learning_rate"] = learning_rate
    model = getattr(skprojdict, name)(
        n_components,
        n_nonzero_coefs=k,
        max_steps=n_steps,
        batch_size=batch_size,
        random_state=seed,
        target="y",
        sparse_output=True,
        **parameters,
    )
    inputs, targets = (np.asarray(part, dtype=np.float32) for part in np.split(rows.array, [n_inputs], axis=1))
    with stopwatch() as seconds:
        model.fit(inputs, targets)
    beside = {"skip": model.skip_components_, "input_mean": model.encoder_mean_} if model.skip else {}
    return Learnt(
        atoms=np.asarray(model.components_),
        centre=np.asarray(model.mean_),
        coders={"": Coder(lambda batch: model.transform(batch[:, :n_inputs]))},
        seconds=seconds[0],
        learning_rate=max(model.history_["learning_rate"]),
        standardised=False,
        notes=beside,
    )
