# SPDX-License-Identifier: BSD-3-Clause
"""Trials of purposes 3 to 5: one dictionary fitted to rows whose features are known, or to real activations."""

import functools
import time
import warnings

import numpy as np
from _cells import HERE, OUR_SOURCES, PACKAGE
from _judge import resolve
from _trials import Trials
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch

import skprojdict
from skprojdict.datasets import make_correlated_features, make_hierarchical_features
from skprojdict.metrics import (
    absorption_scores,
    detection_scores,
    feature_splitting,
    fraction_of_variance_unexplained,
    hierarchy_groups,
    hierarchy_holes,
    hierarchy_leak,
    l0,
    match_atoms,
    mean_correlation_after_matching,
    n_unused,
    negative_share,
    uniqueness,
)
from skprojdict.solvers.omp import orthogonal_matching_pursuit

SOURCES = (
    *(path for pattern in OUR_SOURCES for path in PACKAGE.glob(pattern)),
    *PACKAGE.glob("datasets/s*.py"),
    *PACKAGE.glob("metrics/*.py"),
    HERE / "_judge.py",
    HERE / "_purpose_trials.py",
)
TRAIN_ROWS, TEST_ROWS = 20_000, 6_000
# Truth and start are seeded apart, or initial weights would know something of the truth.
TRUTH_SEED, MODEL_SEED = 7_000, 0
ESTIMATORS = {
    "projective": "ProjectiveDictionaryLearning",
    "topk": "TopKDictionaryLearning",
    "mod": "MethodOfOptimalDirections",
}


def trials(cache):
    return Trials("purposes", SOURCES, cache)


# ---- data


def tree(n_samples, n_features, random_state):
    """Twenty features: three parents, each with three exclusive children, and eight independent ones.

    The tree of the repository noanabeshima/matryoshka-saes: parents fire with probability 0.15, a child with 0.2 where
    its parent does, the others with 0.05; magnitudes are 1 ± 0.15. The features are orthogonal where they fit the
    columns, with norms that differ by 5 %, and random unit vectors else.
    """
    rng = np.random.default_rng(random_state)
    parents = np.concatenate([np.full(3, -1), np.repeat(np.arange(3), 3), np.full(8, -1)])
    on = np.zeros((n_samples, 20), dtype=bool)
    on[:, :3] = rng.uniform(size=(n_samples, 3)) < 0.15
    child = np.floor(rng.uniform(size=(n_samples, 3)) / 0.2).astype(int)  # 3 and 4: none of the children
    for parent in range(3):
        on[:, 3 + 3 * parent : 6 + 3 * parent] = (child[:, [parent]] == np.arange(3)) & on[:, [parent]]
    on[:, 12:] = rng.uniform(size=(n_samples, 8)) < 0.05
    atoms = rng.standard_normal((20, n_features))
    atoms = np.linalg.qr(atoms.T)[0].T if n_features >= 20 else atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms = atoms * (1 + 0.05 * rng.standard_normal((20, 1)))
    codes = on * np.maximum(0.0, 1 + 0.15 * rng.standard_normal(on.shape))
    return Bunch(X=codes @ atoms, dictionary=atoms, codes=codes, parents=parents)


def families(n_samples, child_probability, random_state):
    """Ten parents with one child each, orthogonal; a child is on with ``child_probability`` where its parent is."""
    rng = np.random.default_rng(random_state)
    return make_hierarchical_features(
        n_samples,
        n_features=20,
        n_parents=10,
        n_children=1,
        n_independent=0,
        n_nonzero=1.0 * (1 + child_probability),
        child_probability=child_probability,
        zipf_exponent=0.0,
        dictionary=np.linalg.qr(rng.standard_normal((20, 20)))[0],
        random_state=random_state,
    )


def correlated(n_samples, random_state):
    """Fifty features in 100 dimensions, about eleven a row, correlated in blocks of ten."""
    return make_correlated_features(
        n_samples,
        n_features=100,
        n_components=50,
        n_nonzero=11.0,
        correlation=0.6,
        block_size=10,
        zipf_exponent=0.5,
        random_state=random_state,
    )


def hierarchy(n_samples, random_state):
    """256 features in 64 dimensions, about six a row: 32 parents, 96 children, 128 independent."""
    return make_hierarchical_features(n_samples, n_features=64, noise=0.05, random_state=random_state)


@functools.lru_cache(maxsize=2)
def rows_of(data, seed):
    """Training rows, held-out rows, and the truth of these where it is known."""
    kind, _, detail = data.partition(":")
    if kind == "file":
        array = np.load(detail, mmap_mode="r")
        train, test = array[:-TEST_ROWS], array[-TEST_ROWS:]
        return Bunch(train=np.asarray(train, dtype=np.float32), test=np.asarray(test, dtype=np.float64), truth=None)
    makers = {
        "tree": lambda n, state: tree(n, int(detail), state),
        "families": lambda n, state: families(n, float(detail), state),
        "correlated": correlated,
        "hierarchy": hierarchy,
    }
    made = makers[kind](TRAIN_ROWS + TEST_ROWS, TRUTH_SEED + seed)
    return Bunch(train=made.X[:TRAIN_ROWS].astype(np.float32), test=made.X[TRAIN_ROWS:], truth=made)


# ---- one fit, and its numbers


def dictionary(seed, data, method, options, n_components, k, n_steps, batch_size):
    """Fit one dictionary and judge its codes of the held-out rows; ``pca`` and ``oracle`` are references."""
    made = rows_of(data, seed)
    if method in REFERENCES:
        return {"": REFERENCES[method](made, k)}
    options = dict(options)
    if method == "mod":
        options |= {"max_iter": max(1, n_steps * batch_size // len(made.train)), "batch_size": batch_size}
    else:
        options |= {"max_steps": n_steps, "batch_size": batch_size}
    model = getattr(skprojdict, ESTIMATORS[method])(
        n_components, n_nonzero_coefs=k, random_state=MODEL_SEED + seed, sparse_output=True, **options
    )
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(made.train)
    seconds = time.process_time() - started
    rows = made.test.astype(made.train.dtype)
    codings = {"": model.transform(rows)}
    if method == "projective":
        codings["refined once"] = model.set_params(n_refinements=1).transform(rows)
    atoms, centre = (np.asarray(each, dtype=np.float64) for each in (model.components_, model.mean_))
    found = {name: judged(made, atoms, centre, codes) for name, codes in codings.items()}
    found[""] |= {"fit_seconds": seconds, "ev_omp": _ev_of_omp(made.test, atoms, centre, k)}
    return found


def judged(made, atoms, centre, codes):
    """Fidelity of some codes, also after least squares on their supports, and what became of the known features."""
    Y, codes = made.test, sparse.csr_matrix(codes).astype(np.float64)
    numbers = {
        "ev": 1 - fraction_of_variance_unexplained(Y, centre + codes @ atoms),
        "ev_resolved": 1 - fraction_of_variance_unexplained(Y, centre + resolve(Y - centre, atoms, codes)),
        "l0": l0(codes),
        "unused": n_unused(codes),
        "negative": negative_share(codes) if codes.nnz else 0.0,
    }
    if made.truth is not None:
        numbers |= recovered(made.truth, atoms, codes, Y - centre)
    return {name: float(value) for name, value in numbers.items()}


def recovered(truth, atoms, codes, Y):
    """Recovery of the known features, and absorption where they have parents."""
    on, true = truth.codes[-len(Y) :], truth.dictionary
    matching = match_atoms(atoms, true)
    parents = truth.get("parents")
    family = parents is not None and (parents >= 0).any()
    scores = detection_scores(codes, on != 0, matching, groups=hierarchy_groups(parents) if family else None)
    numbers = {
        "mcc": mean_correlation_after_matching(atoms, true),
        "f1": scores.mean_f1,
        "uniqueness": uniqueness(atoms, true),
        "split": feature_splitting(codes, on != 0).mean,
    }
    if family:
        absorbed = absorption_scores(codes, atoms, on, true, matching)
        of_parents = np.unique(parents[parents >= 0])
        numbers |= {
            "f1_parent": scores.by_group["parent"].mean_f1,
            "f1_child": scores.by_group["child"].mean_f1,
            "holes": hierarchy_holes(codes, on != 0, parents, matching).mean,
            "leak": hierarchy_leak(atoms, true, parents, matching).mean,
            "absorption": np.nanmean(absorbed.fraction[of_parents]),
            "absorbed": np.nanmean(absorbed.full[of_parents]),
        }
    return numbers


def _ev_of_omp(Y, atoms, centre, k, n_rows=1024):
    Y = Y[:n_rows]
    found = orthogonal_matching_pursuit(Y - centre, atoms, k)
    reconstruction = centre + np.einsum("nk,nkd->nd", found.coefs, atoms[found.indices])
    return float(1 - fraction_of_variance_unexplained(Y, reconstruction))


def _pca(made, k):
    """The best k dimensions that are the same for all rows."""
    centre = made.train.mean(axis=0, dtype=np.float64)
    directions = np.linalg.svd(made.train - centre, full_matrices=False)[2][:k].astype(np.float64)
    Y = made.test - centre
    return {"ev": float(1 - fraction_of_variance_unexplained(made.test, centre + (Y @ directions.T) @ directions))}


def _oracle(made, k):
    """Least squares on the features that are really on, however many: the truth's own explained variance."""
    truth = made.truth
    codes = sparse.csr_matrix(truth.codes[-len(made.test) :])
    reconstruction = resolve(made.test, truth.dictionary, codes)
    return {"ev": float(1 - fraction_of_variance_unexplained(made.test, reconstruction)), "l0": float(l0(codes))}


REFERENCES = {"pca": _pca, "oracle": _oracle}


# ---- why children lean on their parents: a problem of one number


def best_lean(precision, objective, spread=0.15, n_samples=4_000):
    """Cosine of the child's atom with its parent at which ridge projection loses least.

    Truth: orthogonal f_p and f_c, both on, magnitudes 1 ± ``spread``; half of the rows have the parent alone. The atoms
    are f_p and ``(f_c + a f_p) / norm``, both with the given precision; a is searched over a grid. ``objective`` is
    "squared error" or "ridge", the minimum that the coefficients solve.
    """
    rng = np.random.default_rng(0)
    rows = 1 + spread * rng.standard_normal((n_samples, 2))
    rows[::2, 1] = 0.0  # the parent alone
    leans = np.linspace(0.0, 0.95, 96)
    losses = []
    for lean in leans:
        atoms = np.array([[1.0, 0.0], [lean, np.sqrt(1 - lean**2)]])
        gram = atoms @ atoms.T
        loss = 0.0
        for used, members in ((rows[::2], [0]), (rows[1::2], [0, 1])):
            own = gram[np.ix_(members, members)] + np.eye(len(members)) / precision
            coefs = np.linalg.solve(own, atoms[members] @ used.T).T
            residual = used - coefs @ atoms[members]
            loss += (residual**2).sum() + (objective == "ridge") * (coefs**2).sum() / precision
        losses.append(loss)
    return float(leans[int(np.argmin(losses))])
