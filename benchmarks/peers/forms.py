# SPDX-License-Identifier: BSD-3-Clause
"""The forms of sparse autoencoders that other libraries train beside TopK, with the arguments of ``autoencoders.py``.

saprmarks' dictionary_learning: ReLU with L1, Gated, JumpReLU and Matryoshka BatchTopK, by its own trainers. Its unit is
rows of mean squared norm 1, so that is what it gets here. The weights of its L1 penalties are numbers that somebody has
to find for each data set; here they are steered to k atoms a row while it trains, by the rule that ours follow.
"""

import contextlib
import math

import numpy as np
import torch
from _rows import Coder, Learnt, phases, stopwatch, warm_up_torch

warm_up_torch()

FIRST_PENALTY = 0.05
GAIN = 0.03


def steered(penalty, fired, k):
    """The penalty of the next step: up where more than k atoms a row fire, and down where fewer do."""
    surplus = math.log(max(fired, 1e-30) / k)
    return penalty * math.exp(GAIN * max(-1.0, min(1.0, surplus)))


def parts_of(p):
    """Sizes of the nested groups: an eighth of the atoms, another eighth, a quarter, the other half."""
    eighth, quarter = max(1, p // 8), max(1, p // 4)
    return [eighth, eighth, quarter, p - 2 * eighth - quarter]


def dictionary_learning(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, form):
    """One of "relu", "gated", "jumprelu" and "matryoshka"."""
    from dictionary_learning import trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

    torch.manual_seed(seed)
    warm_up, decay = phases(n_steps)
    common = {
        "steps": n_steps,
        "activation_dim": rows.n_columns,
        "dict_size": n_components,
        "layer": 0,
        "lm_name": "",
        "warmup_steps": warm_up,
        "decay_start": max(warm_up + 1, n_steps - decay),
        "seed": seed,
        "device": "cpu",
    }
    if learning_rate is not None:
        common["lr"] = learning_rate
    # Its penalties grow over 2000 steps; as ours, they do not where there are so few.
    penalised = {"sparsity_warmup_steps": None}
    unit = 1 / math.sqrt(rows.n_columns)  # rows come with a mean norm of the square root of their length
    with stopwatch() as seconds:
        if form == "matryoshka":
            sizes = parts_of(n_components)
            trainer = MatryoshkaBatchTopKTrainer(k=k, group_fractions=[s / n_components for s in sizes], **common)
        elif form == "jumprelu":
            trainer = trainers.JumpReluTrainer(target_l0=float(k), **penalised, **common)
        else:
            kind = {"relu": trainers.StandardTrainer, "gated": trainers.GatedSAETrainer}[form]
            trainer = kind(l1_penalty=FIRST_PENALTY, **penalised, **common)
        model = trainer.ae
        for step, batch in enumerate(rows.batches(n_steps, batch_size, seed)):
            batch = torch.from_numpy(batch * np.float32(unit))
            if form in {"relu", "gated"}:
                with counting(model) as fired:
                    trainer.update(step, batch)
                trainer.l1_penalty = steered(trainer.l1_penalty, fired[0], k)
            else:
                trainer.update(step, batch)
    atoms, centre = {
        "relu": lambda: (model.decoder.weight.T, model.bias),
        "gated": lambda: (model.decoder.weight.T, model.decoder_bias),
    }.get(form, lambda: (model.W_dec, model.b_dec))()

    def encode(batch):
        with torch.no_grad():
            batch = torch.from_numpy(batch * np.float32(unit))
            # As for BatchTopK in autoencoders.py: its learnt threshold needs more steps than these.
            options = {"use_threshold": False} if form == "matryoshka" else {}
            return model.encode(batch, **options).numpy() / np.float32(unit)

    return Learnt(
        atoms=atoms.detach().numpy().astype(np.float32),
        centre=centre.detach().numpy() / unit,
        coders={"": Coder(encode, batch_size=batch_size if form == "matryoshka" else 1024)},
        seconds=seconds[0],
        learning_rate=float(trainer.lr),
    )


@contextlib.contextmanager
def counting(model):
    """A list of how many atoms a row fired in each call of a model's ``encode`` inside the block."""
    found, encode = [], model.encode

    def counted(*args, **options):
        result = encode(*args, **options)
        codes = result[0] if isinstance(result, tuple) else result
        found.append(float((codes.detach() > 0).sum(1).float().mean()))
        return result

    model.encode = counted
    try:
        yield found
    finally:
        del model.encode
