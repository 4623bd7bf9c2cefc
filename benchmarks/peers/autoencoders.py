# SPDX-License-Identifier: BSD-3-Clause
"""Sparse autoencoders of other libraries, trained on plain arrays by the libraries' own classes.

Every function is ``fit(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads)`` and returns a
:class:`_rows.Learnt`. ``learning_rate=None`` is the library's own default. Warm-up and decay are those of
skprojdict, through the library's own options where it has them.
"""

import contextlib
import math
import os

import numpy as np
import torch
from _rows import Coder, Learnt, phases, schedule, stopwatch, warm_up_torch

warm_up_torch()


def _learnt(atoms, centre, encode, seconds, learning_rate, batch_size=None):
    def on_tensors(rows):
        with torch.no_grad():
            return encode(torch.from_numpy(rows))

    return Learnt(
        atoms=atoms.detach().numpy().astype(np.float32),
        centre=np.zeros(atoms.shape[1], np.float32) if centre is None else centre.detach().numpy(),
        coders={"": Coder(on_tensors, batch_size=batch_size or 1024)},
        seconds=seconds[0],
        learning_rate=float(learning_rate),
    )


def _tensors(rows, n_steps, batch_size, seed):
    return map(torch.from_numpy, rows.batches(n_steps, batch_size, seed))


def sparsify(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, optimizer="adam"):
    """EleutherAI's sparsify: TopK. Its Trainer wants a language model, so its steps are taken one by one here."""
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SaeConfig, SparseCoder

    torch.manual_seed(seed)
    default = {"adam": 2e-4, "signum": 5e-3}[optimizer] / math.sqrt(n_components / 2**14)
    learning_rate = learning_rate or default
    coder = SparseCoder(rows.n_columns, SaeConfig(num_latents=n_components, k=k))
    if optimizer == "adam":
        steps = torch.optim.Adam(coder.parameters(), lr=learning_rate)
        rate = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: schedule(step, n_steps))
    else:  # the library's default: sign descent under schedule-free averaging, with no warm-up or decay
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        steps, rate = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=learning_rate), momentum=0.95), None
        steps.train()
    with stopwatch() as seconds:
        for number, batch in enumerate(_tensors(rows, n_steps, batch_size, seed)):
            if number == 0:
                coder.b_dec.data = batch.mean(dim=0)
            coder.set_decoder_norm_to_unit_norm()
            coder(batch).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            steps.step()
            steps.zero_grad()
            if rate is not None:
                rate.step()
    if rate is None:
        steps.eval()
    coder.set_decoder_norm_to_unit_norm()

    def encode(batch):
        found = coder.encode(batch)
        return found.top_indices, found.top_acts

    return _learnt(coder.W_dec, coder.b_dec, encode, seconds, learning_rate)


def dictionary_learning(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, kind="topk"):
    """saprmarks' dictionary_learning: TopK, and BatchTopK, whose batches have k codes a row on average."""
    from dictionary_learning.trainers import BatchTopKTrainer, TopKTrainer

    warm_up, decay = phases(n_steps)
    with stopwatch() as seconds:
        trainer = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer}[kind](
            steps=n_steps,
            activation_dim=rows.n_columns,
            dict_size=n_components,
            k=k,
            layer=0,
            lm_name="",
            lr=learning_rate,
            warmup_steps=warm_up,
            decay_start=max(warm_up + 1, n_steps - decay),
            seed=seed,
            device="cpu",
        )
        for step, batch in enumerate(_tensors(rows, n_steps, batch_size, seed)):
            trainer.update(step, batch)
    model = trainer.ae

    def encode(batch):
        return model.encode(batch, use_threshold=False)

    # The learnt threshold of BatchTopK needs more steps than these; over batches, mean L0 is k exactly.
    return _learnt(model.decoder.weight.T, model.b_dec, encode, seconds, trainer.lr, batch_size)


def sae_lens(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, kind="topk"):
    """SAELens: TopK and matching pursuit."""
    from sae_lens import (
        MatchingPursuitTrainingSAE,
        MatchingPursuitTrainingSAEConfig,
        SAETrainer,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig

    torch.manual_seed(seed)
    if kind == "topk":
        model = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=rows.n_columns, d_sae=n_components, k=k))
    else:  # exactly k steps of the pursuit
        model = MatchingPursuitTrainingSAE(
            MatchingPursuitTrainingSAEConfig(
                d_in=rows.n_columns,
                d_sae=n_components,
                max_iterations=k,
                residual_threshold=0.0,
                stop_on_duplicate_support=False,
                decoder_init_norm=1.0,
            )
        )
    learning_rate = learning_rate or SAETrainerConfig(1, 1).lr
    warm_up, decay = phases(n_steps)
    settings = SAETrainerConfig(
        total_training_samples=n_steps * batch_size,
        train_batch_size_samples=batch_size,
        lr=learning_rate,
        lr_end=learning_rate,  # the default of None fails an assertion
        lr_warm_up_steps=warm_up,
        lr_decay_steps=decay,
    )
    with stopwatch() as seconds:
        SAETrainer(settings, model, _tensors(rows, n_steps, batch_size, seed)).fit()
    model.eval()
    atoms, centre = model.W_dec, model.b_dec
    if kind == "topk":  # its decoder divides codes by the norms of the atoms
        atoms = atoms / atoms.norm(dim=1, keepdim=True)
    elif not model.cfg.apply_b_dec_to_input:  # its decoder leaves the bias out then
        centre = None
    return _learnt(atoms, centre, model.encode, seconds, learning_rate)


def overcomplete(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, kind="topk"):
    """KempnerInstitute's overcomplete: TopK, matching pursuit, and OMP with non-negative least squares."""
    from overcomplete.sae import OMPSAE, MpSAE, TopKSAE, train_sae

    torch.manual_seed(seed)
    model = {
        "topk": lambda: TopKSAE(rows.n_columns, n_components, top_k=k),
        "mp": lambda: MpSAE(rows.n_columns, n_components, k=k),
        "omp": lambda: OMPSAE(rows.n_columns, n_components, k=k),
    }[kind]()
    learning_rate = learning_rate or 1e-3  # of Adam: the library leaves the optimiser to its user
    steps = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rate = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: schedule(step, n_steps))

    def squared_error(x, x_hat, pre_codes, codes, dictionary):
        return (x - x_hat).square().mean()

    batches = _tensors(rows, n_steps, batch_size, seed)
    with stopwatch() as seconds, contextlib.redirect_stdout(None):
        train_sae(model, batches, squared_error, steps, rate, nb_epochs=1, monitoring=0, device="cpu")
    model.eval()
    return _learnt(model.get_dictionary(), None, lambda batch: model.encode(batch)[1], seconds, learning_rate)
