# SPDX-License-Identifier: BSD-3-Clause
"""Transcoders of other libraries, trained on rows that hold both views side by side, by the libraries' own classes.

Every function is ``fit(rows, *, n_inputs, ...)`` with the arguments of ``autoencoders.py``: the first ``n_inputs``
columns are what is read, the others what is predicted. Each view is centred and scaled by itself.
"""

import math
import os

import numpy as np
import torch
from _rows import Coder, Learnt, Rows, schedule, stopwatch, warm_up_torch

warm_up_torch()


def sparsify(rows, *, n_inputs, n_components, k, n_steps, batch_size, learning_rate, seed, threads, skip=False):
    """EleutherAI's sparsify with ``transcode=True``, by Adam; ``skip``: with its linear skip connection.

    As its Trainer does: biases start at the means of the first batch, and atoms, which start at zero, keep their norms.
    """
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SaeConfig, SparseCoder

    inputs, targets = Rows(rows.array[:, :n_inputs]), Rows(rows.array[:, n_inputs:])
    if inputs.n_columns != targets.n_columns:
        raise ValueError(f"its input and output have one width, got {inputs.n_columns} and {targets.n_columns}")
    torch.manual_seed(seed)
    learning_rate = learning_rate or 2e-4 / math.sqrt(n_components / 2**14)
    settings = SaeConfig(num_latents=n_components, k=k, transcode=True, skip_connection=skip)
    coder = SparseCoder(inputs.n_columns, settings)
    steps = torch.optim.Adam(coder.parameters(), lr=learning_rate)
    rate = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: schedule(step, n_steps))
    pairs = zip(*(view.batches(n_steps, batch_size, seed) for view in (inputs, targets)), strict=True)
    with stopwatch() as seconds:
        for number, batch in enumerate(pairs):
            a, y = map(torch.from_numpy, batch)
            if number == 0:
                coder.encoder.bias.data = -a.mean(dim=0) @ coder.encoder.weight.data.T
                coder.b_dec.data = y.mean(dim=0)
            coder(a, y).fvu.backward()
            steps.step()
            steps.zero_grad()
            rate.step()

    def encode(batch):
        with torch.no_grad():
            found = coder.encode(torch.from_numpy(inputs.standardise(batch[:, :n_inputs])))
        return found.top_indices.numpy(), found.top_acts.numpy() * np.float32(targets.scale)

    beside = {}
    if skip:
        beside = {
            "skip": coder.W_skip.detach().numpy() * (targets.scale / inputs.scale),
            "input_mean": inputs.mean,
        }
    return Learnt(
        atoms=coder.W_dec.detach().numpy(),
        centre=targets.mean + targets.scale * coder.b_dec.detach().numpy(),
        coders={"": Coder(encode, batch_size=1024)},
        seconds=seconds[0],
        learning_rate=float(learning_rate),
        standardised=False,
        notes=beside,
    )
