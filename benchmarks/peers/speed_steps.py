# SPDX-License-Identifier: BSD-3-Clause
"""The peers' contestants of the speed benchmark: each function prepares, and returns what one round calls."""

import contextlib

import numpy as np


def load(path):
    return np.array(np.load(path, mmap_mode="r"))


def _batches(rows, batch_size):
    """Endless batches in order, as tensors in the peers' usual unit (mean norm sqrt(d))."""
    import torch

    X = load(rows).astype(np.float32)
    X -= X.mean(axis=0)
    X *= np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1).mean()
    X = torch.from_numpy(X)
    start = 0
    while True:
        yield X[start : start + batch_size]
        start = (start + batch_size) % (len(X) - batch_size + 1)


# ---- training steps


def sparsify(rows, p, k, batch_size):
    """EleutherAI's SparseCoder with Adam, as its Trainer steps."""
    import torch
    from sparsify import SaeConfig, SparseCoder

    torch.manual_seed(0)
    batches = _batches(rows, batch_size)
    first = next(batches)
    coder = SparseCoder(first.shape[1], SaeConfig(num_latents=p, k=k))
    coder.b_dec.data = first.mean(dim=0)
    adam = torch.optim.Adam(coder.parameters(), lr=1e-3)

    def step():
        coder.set_decoder_norm_to_unit_norm()
        coder(next(batches)).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


def sae_lens(rows, p, k, batch_size, sparse):
    """SAELens' trainer, with dense codes (its default) or sparse tensors (which need rescaling off)."""
    import torch
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig

    torch.manual_seed(0)
    batches = _batches(rows, batch_size)
    options = {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False} if sparse else {}
    model = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=next(batches).shape[1], d_sae=p, k=k, **options))
    settings = SAETrainerConfig(10**9, batch_size, lr=1e-3, lr_end=1e-3, lr_warm_up_steps=1, lr_decay_steps=1)
    trainer = SAETrainer(settings, model, batches)
    return lambda: (trainer._train_step(model, next(batches)), None)[1]


def dictionary_learning(rows, p, k, batch_size):
    """saprmarks' TopKTrainer."""
    from dictionary_learning.trainers import TopKTrainer

    batches = _batches(rows, batch_size)
    d = next(batches).shape[1]
    trainer = TopKTrainer(
        steps=10**9, activation_dim=d, dict_size=p, k=k, layer=0, lm_name="", lr=1e-3, warmup_steps=1,
        decay_start=10**8, seed=0, device="cpu",
    )  # fmt: skip
    steps = iter(range(1, 10**9))
    return lambda: (trainer.update(next(steps), next(batches)), None)[1]


def overcomplete(rows, p, k, batch_size):
    """KempnerInstitute's train_sae, one batch an epoch."""
    import torch
    from overcomplete.sae import TopKSAE, train_sae

    torch.manual_seed(0)
    batches = _batches(rows, batch_size)
    model = TopKSAE(next(batches).shape[1], p, top_k=k)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def squared_error(x, x_hat, pre_codes, codes, dictionary):
        return (x - x_hat).square().mean()

    def step():
        with contextlib.redirect_stdout(None):
            train_sae(model, [next(batches)], squared_error, adam, nb_epochs=1, monitoring=0, device="cpu")

    return step


# ---- coders


def spams(rows, atoms, k, threads):
    """SPAMS' omp, which is orthogonal least squares."""
    import spams as library

    Y, D = np.asfortranarray(load(rows).T), np.asfortranarray(load(atoms).T)
    # Without eps and lambda1 its C++ reads memory that nobody has set.
    return lambda: (library.omp(Y, D, L=k, eps=0.0, lambda1=0.0, numThreads=threads), None)[1]


def scikit_learn(rows, atoms, k, n_rows):
    """orthogonal_mp_gram on ``n_rows`` rows; it copies a p x p matrix for each."""
    from sklearn.linear_model import orthogonal_mp_gram

    Y, D = load(rows)[:n_rows], load(atoms)
    return lambda: (orthogonal_mp_gram(D @ D.T, D @ Y.T, n_nonzero_coefs=k), None)[1]


def dictlearn(rows, atoms, k, n_rows):
    """dictlearn's OMP, with Numba where it is installed."""
    from dictlearn import sparse_encode

    Y, D = load(rows)[:n_rows].astype(np.float64), load(atoms).astype(np.float64)
    return lambda: (sparse_encode(Y, D, n_nonzero_coefs=k), None)[1]


def omp_gpu(rows, atoms, k, n_rows, algorithm="v0"):
    """orthogonal-matching-pursuit-gpu on the CPU."""
    import torch
    from orthogonal_matching_pursuit_gpu.omp import run_omp

    Y, D = torch.from_numpy(load(rows)[:n_rows]), torch.from_numpy(load(atoms).T.copy())
    options = {"normalize": False, "fit_intercept": False, "alg": algorithm}
    return lambda: (run_omp(D, Y, k, **options), None)[1]


# ---- learners


def spams_dictionary(rows, atoms, k, n_passes, out, threads, batch_size=512):
    """SPAMS' online learning with at most k atoms a row; leaves its atoms in a file."""
    import spams as library

    X, D = np.asfortranarray(load(rows).T), np.asfortranarray(load(atoms).T)
    n_steps = n_passes * X.shape[1] // batch_size

    def fit():
        found = library.trainDL(
            X, D=D, K=D.shape[1], batchsize=batch_size, iter=n_steps, mode=3, lambda1=k, numThreads=threads,
            verbose=False,
        )  # fmt: skip
        np.save(out, found.T)

    return fit


def scikit_learn_dictionary(rows, atoms, k, n_passes, out, batch_size=512, n_rows=None):
    """scikit-learn's mini-batch learner, coordinate descent, alpha = 0.1."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    X, D = load(rows)[:n_rows], load(atoms)

    def fit():
        model = MiniBatchDictionaryLearning(
            len(D), alpha=0.1, fit_algorithm="cd", dict_init=D, batch_size=batch_size, max_iter=n_passes, tol=0,
            max_no_improvement=None, random_state=0,
        ).fit(X)  # fmt: skip
        np.save(out, model.components_)

    return fit


def dictlearn_dictionary(rows, atoms, k, n_passes, out):
    """dictlearn's MOD."""
    from dictlearn import DictionaryLearning

    X, D = load(rows).astype(np.float64), load(atoms).astype(np.float64)

    def fit():
        model = DictionaryLearning(
            n_components=len(D), n_nonzero_coefs=k, fit_algorithm="mod", max_iter=n_passes, dict_init=D, random_state=0
        ).fit(X)
        np.save(out, model.components_)

    return fit
