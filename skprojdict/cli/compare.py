# SPDX-License-Identifier: BSD-3-Clause
"""``skprojdict compare``: several kinds of dictionary on the same rows, in one table and one figure."""

import copy
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from skprojdict import persistence
from skprojdict.cli.files import InputError, check_output, open_rows, say
from skprojdict.cli.parser import METHODS, SKLEARN
from skprojdict.cli.steps import Evaluation, build_estimator, evaluate, fit_aloud
from skprojdict.datasets import load_image_patches
from skprojdict.plotting import DictionaryDisplay, FidelitySparsityDisplay

PATCH_SIZE = (8, 8)
TRAIN_ROWS, TEST_ROWS = 20_000, 4_000
MOST_SURPLUS = 1.15
NAMES = {
    "projective": "projective",
    "topk": "TopK autoencoder",
    "relu": "ReLU autoencoder",
    "jumprelu": "JumpReLU autoencoder",
    "gated": "Gated autoencoder",
    "mod": "MOD",
    SKLEARN: "scikit-learn, OMP coder",
}


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    model: object
    fit_seconds: float
    result: Evaluation


class ClassicalDictionary(BaseEstimator):
    """scikit-learn's learner in the units of this package: centred rows of mean norm 1, one k for the OMP coder.

    Parameters
    ----------
    n_components, n_nonzero_coefs, random_state
        As in this package's estimators.
    alpha : float, default=0.1
        L1 penalty of the fit, relative to the mean norm. On patches of the photographs 0.05 and 0.2 are 2 % worse.
    """

    def __init__(self, n_components=None, *, n_nonzero_coefs=None, alpha=0.1, random_state=None):
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X, y=None):
        """Learn the dictionary in two passes over X; the fit does not depend on k."""
        # In float64: in float32 its coordinate descent does not reach its own tolerance, and warns at every row.
        X = np.asarray(X, dtype=np.float64)
        self.mean_ = X.mean(axis=0)
        self.scale_ = np.linalg.norm(X - self.mean_, axis=1).mean() or 1.0
        self.learner_ = MiniBatchDictionaryLearning(
            self.n_components,
            alpha=self.alpha,
            fit_algorithm="cd",
            max_iter=2,
            transform_algorithm="omp",
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.learner_.fit((X - self.mean_) / self.scale_)
        self.components_ = self.learner_.components_
        return self

    def transform(self, X):
        """Code by orthogonal matching pursuit with ``n_nonzero_coefs`` atoms a row."""
        self.learner_.set_params(transform_n_nonzero_coefs=self.n_nonzero_coefs)
        X = np.asarray(X, dtype=np.float64)
        with warnings.catch_warnings():
            # A row that fewer atoms explain fully makes scikit-learn warn of a linear dependence.
            warnings.simplefilter("ignore", RuntimeWarning)
            return self.learner_.transform((X - self.mean_) / self.scale_) * self.scale_

    def inverse_transform(self, Z):
        """Reconstruct rows from codes."""
        return Z @ self.components_ + self.mean_


def compare(options):
    """Fit every method, print the table, write the figure and the best dictionary."""
    wanted = [method for method in NAMES if method in options.methods]
    if wanted == [SKLEARN]:
        raise InputError(
            f"--methods {SKLEARN}: has nothing to be compared with; name one of {', '.join(METHODS)}, too."
        )
    figure_file, best_file = _outputs(options)
    train, test, patch_size, source = _rows(options)
    p, k = options.n_components, options.n_nonzero_coefs
    if k > p:
        raise InputError(f"--n-nonzero-coefs {k}: is more than --n-components {p}; lower the one or raise the other.")
    steps = max(20, options.steps // 10) if options.quick else options.steps
    ks = sorted({max(1, k // 2), k, min(p, 2 * k)})
    methods: dict[int, list[Method]] = {each: [] for each in ks}
    for each in ks:
        for name, model, seconds in _fitted(wanted, p, each, steps, options.seed, train, methods):
            say(f"coding {test.shape[0]} held-out rows with {name}, k={each}")
            methods[each].append(Method(name, model, seconds, evaluate(model, test)))
    print(f"{source}: {train.shape[0]} training rows, {test.shape[0]} held out, {train.shape[1]} columns")
    mean = "; on average where rows may differ" if {"projective", "relu", "jumprelu", "gated"} & set(wanted) else ""
    print(f"{p} atoms, {k} nonzero coefficients a row (at most{mean}), {steps} steps, seed {options.seed}\n")
    print(_table(methods[k]), end="\n\n")
    ours = [method for method in methods[k] if not isinstance(method.model, ClassicalDictionary)]
    # An error that was bought with more atoms than asked for has won nothing.
    best = min(ours, key=lambda method: (method.result.l0 > MOST_SURPLUS * k, method.result.fvu))
    Path(options.output).mkdir(parents=True, exist_ok=True)
    _draw(methods, best, k, patch_size, figure_file)
    persistence.save(best.model, best_file, overwrite=options.force)
    print(f"{figure_file}: fidelity against sparsity, and atoms")
    print(f"{best_file}: the dictionary of {best.name}, for 'skprojdict transform' and skprojdict.persistence.load")


def _outputs(options):
    """Paths of the figure and of the best dictionary, once it is sure that both can be written."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise InputError("compare draws with matplotlib, which is missing; pip install 'skprojdict[plot]'.") from None
    mpl.use("Agg")
    folder = Path(options.output)
    files = folder / "compare.png", folder / "best.npz"
    if folder.is_dir():
        inputs = [options.data] if options.data else []
        return tuple(check_output(file, force=options.force, inputs=inputs) for file in files)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"--output {folder}: {nearest} is no folder that can be written to; give another one.")
    return files


def _rows(options):
    """Training rows, held-out rows, the size of a patch (None where rows are no patches) and a name for them."""
    share = 10 if options.quick else 1
    n_train, n_test = options.train_rows or TRAIN_ROWS // share, options.test_rows or TEST_ROWS // share
    if options.data is None:
        try:
            # No pixel is in both sets: training patches come from the left three quarters of the photographs.
            train = load_image_patches(PATCH_SIZE, n_patches=n_train, columns=(0.0, 0.75), random_state=options.seed)
            test = load_image_patches(PATCH_SIZE, n_patches=n_test, columns=(0.75, 1.0), random_state=options.seed)
        except ImportError:
            raise InputError(
                "the photographs need Pillow, which is missing; pip install pillow, or give --data."
            ) from None
        except ValueError as error:
            raise InputError(f"--train-rows {n_train} --test-rows {n_test}: {error}") from None
        return train, test, PATCH_SIZE, f"patches of {PATCH_SIZE[0]} x {PATCH_SIZE[1]} pixels of two photographs"
    rows = open_rows(options.data, min_rows=10)
    n_rows = rows.shape[0]
    if options.test_rows is None:
        n_test = min(n_test, n_rows // 5)
    if options.train_rows is None:
        n_train = min(n_train, n_rows - n_test)
    if n_test < 2 or n_train < 2 or n_train + n_test > n_rows:
        raise InputError(
            f"{options.data}: has {n_rows} rows, which cannot give --train-rows {n_train} and --test-rows {n_test}; at "
            "least 2 of each are needed."
        )
    return rows[:n_train], rows[n_rows - n_test :], None, options.data


def _fitted(wanted, p, k, steps, seed, train, methods):
    """Yield ``(name, fitted model, seconds of its fit)`` for every wanted method at one k."""
    for method in wanted:
        name = NAMES[method]
        if method == SKLEARN:
            yield _classical(name, p, k, seed, train, methods)
            continue
        model = build_estimator(
            method, n_components=p, n_nonzero_coefs=k, steps=None if method == "mod" else steps, seed=seed
        )
        if method == "mod":
            model.set_params(max_iter=10)
        say(f"fitting {name}, k={k}")
        seconds = fit_aloud(model, train)
        yield name, model, seconds
        if method == "projective":
            yield "projective, 1 refinement", copy.copy(model).set_params(n_refinements=1), seconds


def _classical(name, p, k, seed, train, methods):
    """scikit-learn's learner. Its fit does not know k, so that of the first k serves all."""
    earlier = [row for rows in methods.values() for row in rows if row.name == name]
    if earlier:
        return name, copy.copy(earlier[0].model).set_params(n_nonzero_coefs=k), earlier[0].fit_seconds
    say(f"fitting {name}")
    start = time.perf_counter()
    model = ClassicalDictionary(p, n_nonzero_coefs=k, random_state=seed).fit(train)
    return name, model, time.perf_counter() - start


def _table(rows):
    """Results of one k as lines of text."""
    lines = [f"{'method':<26}{'FVU held out':>13}{'L0':>8}{'unused atoms':>14}{'fit s':>8}{'transform rows/s':>18}"]
    lines += [
        f"{row.name:<26}{row.result.fvu:>13.4f}{row.result.l0:>8.2f}{row.result.n_unused:>14d}{row.fit_seconds:>8.1f}"
        f"{row.result.rows_per_second:>18,.0f}"
        for row in rows
    ]
    return "\n".join(lines)


def _draw(methods, best, k, patch_size, path):
    """Left: fidelity against sparsity of every method at every k. Right: the most used atoms of the best."""
    import matplotlib.pyplot as plt

    rows = [row for each in methods.values() for row in each]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    FidelitySparsityDisplay(
        n_nonzero=[row.result.l0 for row in rows],
        fvu=[row.result.fvu for row in rows],
        names=[row.name for row in rows],
    ).plot(ax=left)
    left.set_title(f"Held-out rows, {best.model.components_.shape[0]} atoms")
    DictionaryDisplay.from_estimator(best.model, patch_size=patch_size, n_atoms=144, ax=right)
    right.set_title(f"Atoms of {best.name} (k={k}), most used first")
    with persistence.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
