# SPDX-License-Identifier: BSD-3-Clause
"""Our contestants of the speed benchmark, and the floors: each function prepares, and returns what one round calls."""

import threading

import numpy as np
import torch

import skprojdict
from skprojdict._products import affine
from skprojdict.solvers.omp import orthogonal_matching_pursuit


def load(path):
    return np.load(path, mmap_mode="r")


# ---- floors


def product(rows, p, dtype="float32"):
    """One product of the rows with a dictionary."""
    X = torch.from_numpy(np.array(load(rows))).to(getattr(torch, dtype))
    F = torch.randn(p, X.shape[1], dtype=torch.float32).to(X.dtype)
    return lambda: (X @ F.T, None)[1]


def own_product(rows, p):
    """The same in float32 as estimators take it: by oneDNN where torch's usual library is slow."""
    X = torch.from_numpy(np.array(load(rows)))
    F = torch.randn(p, X.shape[1], dtype=torch.float32)
    return lambda: (affine(X, F, None), None)[1]


def optimiser(d, p, device="cpu"):
    """The step of fused Adam for the parameters of an untied dictionary."""
    parameters = [torch.nn.Parameter(torch.randn(*s, device=device)) for s in ((p, d), (p, d), (p,), (d,))]
    for each in parameters:
        each.grad = torch.randn_like(each)
    adam = torch.optim.Adam(parameters, fused=True)
    return lambda: (adam.step(), None)[1]


# ---- training


def trainer_of(name, X, p, k, parameters, device=None):
    """The trainer of an estimator, and the scaled rows as a tensor."""
    model = getattr(skprojdict, name)(p, n_nonzero_coefs=k, random_state=0, device=device, **parameters)
    trainer, views, _ = model._start(X, X, fresh=True)
    return trainer, views


def training(rows, p, k, batch_size, name, parameters=None, device=None):
    """One step of an estimator's training: what fit repeats."""
    X = load(rows)
    trainer, views = trainer_of(name, X, p, k, parameters or {}, device)
    starts = iter(range(10**9))

    def step():
        first = next(starts) * batch_size % (len(X) - batch_size + 1)
        return trainer.step(*views.take(slice(first, first + batch_size)), 1.0)[0]

    return step


def loss_curve(rows, p, k, batch_size, n_steps, selection_dtype):
    """Losses of a TopK training with scores in low precision, relative to those in float32: the largest difference."""
    X = load(rows)

    def run(dtype):
        trainer, views = trainer_of("TopKDictionaryLearning", X, p, k, {"selection_dtype": dtype})
        losses = []
        for step in range(n_steps):
            first = step * batch_size % (len(X) - batch_size + 1)
            losses.append(trainer.step(*views.take(slice(first, first + batch_size)), 1.0)[0])
        return np.array(losses)

    def compare():
        exact, low = run(None), run(selection_dtype)
        return float(np.max(np.abs(low - exact) / exact))

    return compare


class Peak:
    """Largest anonymous memory of this process while the block runs, above what it held before, in bytes."""

    def __enter__(self):
        self.start = self.most = anonymous_bytes()
        self.done = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self):
        while not self.done.wait(0.002):
            self.most = max(self.most, anonymous_bytes())

    def __exit__(self, *error):
        self.done.set()
        self.watcher.join()
        self.above = self.most - self.start


def anonymous_bytes():
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def training_memory(rows, p, k, batch_size, name, parameters=None, fit=False, n_steps=3):
    """Peak of some steps (or of a whole fit of so many) above parameters, gradients and moments, over the scores'."""
    X = load(rows)
    d = X.shape[1]
    own = 4 * 4 * (2 * p * d + p + d)

    def measure():
        # What is imported and compiled late, Numba above all, is no memory of the training. With fewer atoms
        # nothing would be scored in bfloat16.
        small, views = trainer_of(name, X, 4096, k, parameters or {})
        for _ in range(2):
            small.step(*views.take(slice(0, batch_size)), 1.0)
        del small, views
        if fit:
            model = getattr(skprojdict, name)(
                p, n_nonzero_coefs=k, batch_size=batch_size, max_steps=n_steps, random_state=0, **(parameters or {})
            )
            with Peak() as peak:
                model.fit(X)
        else:
            trainer, views = trainer_of(name, X, p, k, parameters or {})
            with Peak() as peak:
                for step in range(n_steps):
                    first = step * batch_size % (len(X) - batch_size + 1)
                    trainer.step(*views.take(slice(first, first + batch_size)), 1.0)
            peak.above += own // 4  # the parameters were there before
        return (peak.above - own) / (4 * batch_size * p)

    return measure


# ---- transform


def transform(rows, p, k, parameters=None, library="numpy", n_rows=None):
    """Codes of the rows, CSR, by a model that has seen a few batches."""
    X = np.array(load(rows)[:n_rows])
    model = skprojdict.ProjectiveDictionaryLearning(
        p, n_nonzero_coefs=k, max_steps=3, sparse_output=library == "numpy", random_state=0, **(parameters or {})
    )
    X = torch.from_numpy(X) if library == "torch" else X
    model.fit(X[:512])
    return lambda: (model.transform(X), None)[1]


def transform_memory(rows, p, k):
    """Megabytes at the peak of coding a memory-mapped float16 file, above the codes themselves."""
    X = load(rows)
    model = skprojdict.ProjectiveDictionaryLearning(p, n_nonzero_coefs=k, max_steps=2, sparse_output=True)
    model.fit(np.array(X[:512], dtype=np.float32))

    def measure():
        model.transform(X[:64])
        with Peak() as peak:
            codes = model.transform(X)
        own = codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes
        return (peak.above - own) / 1e6

    return measure


# ---- classical


def pursuit(rows, atoms, k, method, library="numpy", form="auto"):
    """Sparse codes by pursuit; the value is the share of energy left."""
    Y, F = np.array(load(rows)), np.array(load(atoms))
    given = (torch.from_numpy(Y), torch.from_numpy(F)) if library == "torch" else (Y, F)

    def code():
        codes = orthogonal_matching_pursuit(*given, k, method=method, form=form)
        kept["codes"] = codes
        return None

    kept = {}
    return code


def dictionary(rows, atoms, k, n_passes, out, batch_size="auto"):
    """MethodOfOptimalDirections from given atoms; leaves its atoms in a file."""
    X, F = np.array(load(rows)), np.array(load(atoms))

    def fit():
        model = skprojdict.MethodOfOptimalDirections(
            len(F), n_nonzero_coefs=k, init=F, max_iter=n_passes, batch_size=batch_size, random_state=0
        ).fit(X)
        np.save(out, model.components_)

    return fit
