# SPDX-License-Identifier: BSD-3-Clause
"""Classical dictionary learners; the signature and the result are those of ``autoencoders``."""

import numpy as np
from _rows import Coder, Learnt, stopwatch


def spams(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads, mode="l0"):
    """SPAMS: online dictionary learning (Mairal et al. 2010); ``spams.omp`` is orthogonal least squares, not OMP.

    The dictionary is learnt with at most k atoms a row ("l0") or with an l1 penalty of 1.2 in the paper's units ("l1"),
    and coded by ``spams.omp`` either way. It draws its own batches: as many, of the same size.
    """
    import spams as library

    n = min(len(rows), n_steps * batch_size)
    rng = np.random.RandomState(seed)
    X = np.asfortranarray(rows.take(np.sort(rng.permutation(len(rows))[:n])).T)
    D = X[:, rng.choice(n, n_components, replace=n < n_components)]
    D = np.asfortranarray(D / np.maximum(np.linalg.norm(D, axis=0), 1e-12))
    penalty = {"mode": 3, "lambda1": k} if mode == "l0" else {"mode": 2, "lambda1": 1.2}
    with stopwatch() as seconds:
        D = library.trainDL(
            X, D=D, K=n_components, batchsize=batch_size, iter=n_steps, numThreads=threads, verbose=False, **penalty
        )
    D = np.asfortranarray(D)

    def encode(batch):
        # Without eps and lambda1 its C++ reads memory that nobody has set, and now and then codes nothing (2.6.14).
        return library.omp(np.asfortranarray(batch.T), D, L=k, eps=0.0, lambda1=0.0, numThreads=threads).T

    return Learnt(D.T.copy(), np.zeros(rows.n_columns, np.float32), {"": Coder(encode)}, seconds[0])


def scikit_learn(rows, *, n_components, k, n_steps, batch_size, learning_rate, seed, threads):
    """scikit-learn's MiniBatchDictionaryLearning at its defaults, fed batch by batch; codes by its OMP."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    model = MiniBatchDictionaryLearning(
        n_components, random_state=seed, transform_algorithm="omp", transform_n_nonzero_coefs=k
    )
    with stopwatch() as seconds:
        for batch in rows.batches(n_steps, batch_size, seed):
            model.partial_fit(batch)
    # Its OMP copies a p x p matrix for every row: some hundred rows are enough of that.
    coder = Coder(model.transform, n_rows=512)
    return Learnt(model.components_, np.zeros(rows.n_columns, np.float32), {"": coder}, seconds[0])
