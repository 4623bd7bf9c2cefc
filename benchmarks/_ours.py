# SPDX-License-Identifier: BSD-3-Clause
"""Our estimators behind the signature of the peers' adapters."""

import numpy as np
from _rows import Coder, Learnt, stopwatch, warm_up_torch

import skprojdict
from skprojdict.solvers.omp import orthogonal_matching_pursuit

warm_up_torch()

REFINEMENTS = {0: "encoder only", 1: "1 refinement", 3: "3 refinements"}


def estimator(
    rows,
    *,
    n_components,
    k,
    n_steps,
    batch_size,
    learning_rate,
    seed,
    threads,
    name="ProjectiveDictionaryLearning",
    parameters=None,
    refinements=(),
    omp_rows=None,
):
    """Fit one estimator; code with each number of refinements, and by OMP on its dictionary where asked to."""
    parameters = dict(parameters or {})
    if learning_rate is not None:
        parameters["learning_rate"] = learning_rate
    model = getattr(skprojdict, name)(
        n_components,
        n_nonzero_coefs=k,
        max_steps=n_steps,
        batch_size=batch_size,
        random_state=seed,
        sparse_output=True,
        **parameters,
    )
    with stopwatch() as seconds:
        model.fit(rows.array)

    def refined(steps):
        def encode(batch):
            return model.set_params(n_refinements=steps).transform(batch)

        return encode

    coders = {REFINEMENTS.get(steps, f"{steps} refinements"): Coder(refined(steps)) for steps in refinements}
    if not coders:
        coders[""] = Coder(model.transform)
    if omp_rows:

        def pursue(batch):
            found = orthogonal_matching_pursuit(batch - model.mean_, model.components_, k)
            return found.indices, found.coefs

        coders["OMP on its dictionary"] = Coder(pursue, n_rows=omp_rows)
    return Learnt(
        atoms=np.asarray(model.components_),
        centre=np.asarray(model.mean_),
        coders=coders,
        seconds=seconds[0],
        learning_rate=max(model.history_["learning_rate"]),
        standardised=False,
    )
