# SPDX-License-Identifier: BSD-3-Clause
"""Our estimators behind the signature of the peers' adapters."""

import numpy as np
from _rows import Coder, Learnt, stopwatch, warm_up_torch

import skprojdict
from skprojdict.solvers.omp import orthogonal_matching_pursuit

warm_up_torch()


def warm_up_kernels():
    """Compile what fits and codes, or load what was compiled: half a minute that is no fit's own."""
    rows = np.random.default_rng(0).standard_normal((1024, 64), dtype=np.float32)
    model = skprojdict.ProjectiveDictionaryLearning(256, n_nonzero_coefs=8, max_steps=2, random_state=0).fit(rows)
    for selection in ("auto", "top_k"):
        model.set_params(selection=selection, n_refinements=1).transform(rows)


warm_up_kernels()

REFINEMENTS = {0: "encoder only", 1: "1 refinement", 3: "3 refinements"}
# Of the threshold's bisection, and rows up to which a call only warms up.
HALVINGS, WARM_UP_ROWS = 14, 64


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

    def named(steps):
        return REFINEMENTS.get(steps, f"{steps} refinements")

    coders = {named(steps): Coder(refined(steps)) for steps in refinements}
    if not coders:
        coders[""] = Coder(model.transform)
    if omp_rows:

        def pursue(batch):
            found = orthogonal_matching_pursuit(batch - model.mean_, model.components_, k)
            return found.indices, found.coefs

        coders["OMP on its dictionary"] = Coder(pursue, n_rows=omp_rows)
    if omp_rows and hasattr(model, "removal_threshold_"):
        coders |= {f"{named(steps)}, mean L0 k": Coder(on_average(model, k, refined(steps))) for steps in refinements}
    return Learnt(
        atoms=np.asarray(model.components_),
        centre=np.asarray(model.mean_),
        coders=coders,
        seconds=seconds[0],
        learning_rate=max(model.history_["learning_rate"]),
        standardised=False,
    )


def on_average(model, k, encode):
    """The same with the threshold that leaves k atoms a row of the rows that it is first shown, as BatchTopK does."""
    limits = []

    def encode_on_average(batch):
        if len(batch) <= WARM_UP_ROWS:
            return encode(batch)
        learnt = model.removal_threshold_
        if not limits:
            low, high = 0.1 * learnt, 10 * learnt
            for _ in range(HALVINGS):
                model.removal_threshold_ = np.sqrt(low * high)
                number = (model.set_params(n_refinements=0).transform(batch) != 0).sum() / len(batch)
                low, high = (model.removal_threshold_, high) if number > k else (low, model.removal_threshold_)
            limits.append(model.removal_threshold_)
        model.removal_threshold_ = limits[0]
        try:
            return encode(batch)
        finally:
            model.removal_threshold_ = learnt

    return encode_on_average
