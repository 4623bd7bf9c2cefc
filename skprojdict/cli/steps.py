# SPDX-License-Identifier: BSD-3-Clause
"""``skprojdict fit | transform | score``: the steps of the comparison, one at a time, on files."""

import copy
import json
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy import sparse

import skprojdict
from skprojdict import persistence
from skprojdict.cli.files import InputError, check_columns, check_output, load_model, open_rows, say, slabs
from skprojdict.cli.parser import METHODS


def fit(options):
    """Learn a dictionary from a file and save it."""
    output = check_output(options.output, force=options.force, inputs=[options.data])
    partial = check_output(output.with_suffix(f".partial{output.suffix}"), force=options.force, inputs=[options.data])
    settings = _settings(options.set)
    _refuse_said_twice(options, settings)
    settings |= _checkpoint_settings(options)
    estimator = build_estimator(
        options.method,
        n_components=options.n_components,
        n_nonzero_coefs="auto" if options.n_nonzero_coefs is None else options.n_nonzero_coefs,
        steps=options.steps,
        seed=options.seed or 0,
        settings=settings,
    )
    if estimator.get_params().get("target") == "y":
        raise InputError("--set target=y: the command line fits one file; use Python for a second view.")
    rows = open_rows(options.data, min_rows=2)
    say(f"fitting {type(estimator).__name__} on {rows.shape[0]} rows of {rows.shape[1]} columns")
    try:
        seconds = fit_aloud(estimator, rows, **({"resume": True} if options.resume else {}))
    except FloatingPointError as error:
        raise InputError(f"{error} {_keep(estimator, partial, options.force)}") from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted. {_keep(estimator, partial, options.force)}") from error
    persistence.save(estimator, output, overwrite=options.force)
    n_atoms, n_used = estimator.components_.shape[0], int((np.asarray(estimator.n_activations_) > 0).sum())
    print(f"{output}: {n_atoms} atoms ({n_used} used in training), fitted in {seconds:.1f} s")


def _keep(estimator, path, force):
    """Save what an ended fit has learnt, where that is sound, and say so."""
    atoms = getattr(estimator, "components_", None)
    if atoms is None or not np.isfinite(np.asarray(atoms)).all():
        return "Nothing was learnt that could be saved."
    persistence.save(estimator, path, overwrite=force)
    return f"What was learnt until then is in {path}."


def transform(options):
    """Write the codes of a file's rows."""
    output = check_output(options.output, force=options.force, inputs=[options.model, options.data])
    model = load_model(options.model)
    rows = open_rows(options.data)
    check_columns(model, options.model, rows, options.data)
    start = time.perf_counter()
    with persistence.atomic_path(output) as temporary:
        if options.sparse:
            codes = sparse.vstack(list(_codes(model, rows)), format="csr")
            with temporary.open("wb") as file:
                sparse.save_npz(file, codes)
        else:
            shape = (rows.shape[0], model.components_.shape[0])
            codes = np.lib.format.open_memmap(temporary, mode="w+", dtype=model.components_.dtype, shape=shape)
            done = 0
            for part in _codes(model, rows):
                codes[done : done + part.shape[0]] = part.toarray()
                done += part.shape[0]
            codes.flush()
    seconds = time.perf_counter() - start
    print(f"{output}: codes of {codes.shape[0]} rows, {codes.shape[1]} atoms, {codes.shape[0] / seconds:.0f} rows/s")


def score(options):
    """Print how well a dictionary explains a file's rows."""
    model = load_model(options.model)
    if getattr(model, "target", "X") == "y":
        raise InputError(
            f"{options.model}: predicts a second view, so X alone has no score; use its score(X, y) in Python."
        )
    rows = open_rows(options.data, min_rows=2)
    check_columns(model, options.model, rows, options.data)
    result = evaluate(model, rows)
    print(f"rows           {rows.shape[0]}")
    print(f"FVU            {result.fvu:.6g}")
    print(f"L0             {result.l0:.6g}")
    print(f"unused atoms   {result.n_unused} of {model.components_.shape[0]}")


@dataclass(frozen=True)
class Evaluation:
    """Results on held-out rows."""

    fvu: float
    l0: float
    n_unused: int
    rows_per_second: float


def evaluate(model, rows):
    """Code and reconstruct rows in one pass, slab by slab.

    Parameters
    ----------
    model : fitted estimator
    rows : array of shape (n_samples, n_features)
        May be a memory map larger than memory.

    Returns
    -------
    result : Evaluation
        ``rows_per_second`` counts the coding alone. FVU is NaN where the rows do not vary.
    """
    error = second = seconds = 0.0
    first = np.zeros(rows.shape[1])
    n_nonzero = np.zeros(model.components_.shape[0], dtype=np.int64)
    # About the centre of the training rows: sums of squares about 0 lose all digits where the mean is large.
    centre = np.asarray(getattr(model, "mean_", np.zeros(rows.shape[1])), dtype=np.float64)
    done = 0
    start = time.perf_counter()
    for codes in _codes(model, rows):
        seconds += time.perf_counter() - start
        X = np.asarray(rows[done : done + codes.shape[0]], dtype=np.float64)
        done += codes.shape[0]
        error += float(((X - model.inverse_transform(codes)) ** 2).sum())
        X -= centre
        second += float((X * X).sum())
        first += X.sum(axis=0)
        n_nonzero += codes.astype(bool).sum(axis=0).astype(np.int64)
        start = time.perf_counter()
    total = second - float(first @ first) / done
    return Evaluation(
        fvu=error / total if total > 0 else float("nan"),
        l0=float(n_nonzero.sum()) / done,
        n_unused=int((n_nonzero == 0).sum()),
        rows_per_second=done / max(seconds, 1e-9),
    )


def _codes(model, rows):
    """Yield CSR codes, slab by slab."""
    if "sparse_output" in model.get_params():
        model = copy.copy(model).set_params(sparse_output=True)  # the caller's model keeps its parameters
    for part in slabs(rows.shape[0], rows.shape[1] * 8):
        with _estimator_errors():
            codes = sparse.csr_array(model.transform(rows[part]))
        yield codes


@contextmanager
def _estimator_errors():
    """Turn what an estimator refuses into an error of the command line, with its message."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InputError(error) from error


def build_estimator(method, *, n_components, n_nonzero_coefs, steps=None, seed=0, settings=None):
    """Make an unfitted estimator from the options of the command line.

    Parameters
    ----------
    method : {"projective", "topk", "mod"}
    n_components, n_nonzero_coefs, steps, seed
        As on the command line; ``steps`` may be None.
    settings : dict, default=None
        Any other parameters, by name.

    Returns
    -------
    estimator : estimator

    Raises
    ------
    InputError
        For a parameter that the estimator does not have.
    """
    estimator = getattr(skprojdict, METHODS[method])(n_components, n_nonzero_coefs=n_nonzero_coefs, random_state=seed)
    settings = dict(settings or {})
    if steps is not None:
        if method == "mod":
            raise InputError("--steps: mod counts passes over the rows, not steps; use --set max_iter=N.")
        settings["max_steps"] = steps
    for name in settings:
        if name not in estimator.get_params():
            known = ", ".join(estimator.get_params())
            raise InputError(f"--set {name}: {type(estimator).__name__} has no such parameter; it has {known}.")
    with _estimator_errors():
        return estimator.set_params(**settings)


def _refuse_said_twice(options, settings):
    """Refuse a parameter given both by its own option and by --set."""
    own = {name: name for name in ("n_components", "n_nonzero_coefs", "checkpoint_dir", "checkpoint_every")}
    for name, option in {**own, "max_steps": "steps", "random_state": "seed"}.items():
        if name in settings and getattr(options, option) is not None:
            flag = f"--{option.replace('_', '-')}"
            raise InputError(f"--set {name}: is the same parameter as {flag}, given too; leave one of them out.")


def _checkpoint_settings(options):
    """Parameters of the checkpoint options that were given."""
    given = {name: getattr(options, name) for name in ("checkpoint_dir", "checkpoint_every")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.checkpoint_dir is None and (given or options.resume):
        flag = "--resume" if options.resume else "--checkpoint-every"
        raise InputError(f"{flag}: needs --checkpoint-dir, the folder of the checkpoints.")
    if given and options.method == "mod":
        raise InputError("--checkpoint-dir: mod writes no checkpoints; leave it out, or fit projective or topk.")
    return given


def _settings(pairs):
    """Parameters from NAME=VALUE; a value that is no JSON is a string."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set {pair}: give NAME=VALUE, such as --set n_refinements=1.")
        if name in settings:
            raise InputError(f"--set {name}: is given twice; leave one of them out.")
        try:
            settings[name] = json.loads(text)
        except ValueError:
            settings[name] = text
    return settings


def fit_aloud(estimator, rows, **options):
    """Fit, with keywords of ``fit``; tell about progress and warnings on standard error, return the seconds it took.

    Raises
    ------
    InputError
        Where the estimator refuses a parameter or the data; with its message.
    FloatingPointError
        If the loss stops being finite.
    """
    if hasattr(estimator, "set_callbacks"):
        estimator.set_callbacks(_Progress())
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            with _estimator_errors():
                estimator.fit(rows, **options)
        finally:
            for message in {str(warning.message) for warning in caught}:
                say(f"warning: {message}")
    return time.perf_counter() - start


class _Progress:
    """Callback of scikit-learn's protocol that says a line every few seconds."""

    def __init__(self, every=5.0):
        self.every = every

    def setup(self, estimator, context):
        """Start the clock."""
        self._said = time.perf_counter()

    def teardown(self, estimator, context):
        """Nothing to tear down."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing to say before an iteration."""

    def on_fit_task_end(self, estimator, context, *, metadata=None):
        """Say where the fit is, if it has been silent for long enough."""
        now = time.perf_counter()
        if metadata and "step" in metadata and now - self._said >= self.every:
            self._said = now
            say(f"  step {metadata['step']}, training FVU {metadata.get('fvu', float('nan')):.4f}")
        return False
