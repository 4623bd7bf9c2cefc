# SPDX-License-Identifier: BSD-3-Clause
"""``skprojdict fit | transform | score``: the steps of the comparison, one at a time, on files."""

import copy
import json
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

import skprojdict
from skprojdict import persistence
from skprojdict.cli.files import (
    InputError,
    StoppedError,
    check_columns,
    check_output,
    load_model,
    open_rows,
    say,
    slabs,
)
from skprojdict.cli.parser import METHODS
from skprojdict.sources import UnreadableRowsError, write_codes


def fit(options):
    """Learn a dictionary from files and save it; under torchrun, as one of several processes."""
    from skprojdict.training.distributed import LostRankError, launched

    with launched() as ranks:
        try:
            _fit(options, ranks)
        except LostRankError as error:
            raise StoppedError(error) from error


def _fit(options, ranks):
    output = check_output(options.output, force=options.force, inputs=options.data)
    partial = check_output(output.with_suffix(f".partial{output.suffix}"), force=options.force, inputs=options.data)
    if ranks.size > 1 and options.method == "mod":
        raise InputError("--method mod: is no fit for torchrun; start one process, or fit a Dask array in Python.")
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
    rows = open_rows(options.data, min_rows=2, stream=options.stream)
    if ranks.first:
        shared = f", shared by {ranks.size} processes" if ranks.size > 1 else ""
        say(f"fitting {type(estimator).__name__} on {rows.shape[0]} rows of {rows.shape[1]} columns{shared}")
    keep = (estimator, partial, options.force) if ranks.first else None
    try:
        seconds = fit_aloud(estimator, rows, silent=not ranks.first, **({"resume": True} if options.resume else {}))
    except (FloatingPointError, UnreadableRowsError) as error:
        raise InputError(f"{error} {_keep(keep)}") from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted. {_keep(keep)}") from error
    if not ranks.first:
        return
    persistence.save(estimator, output, overwrite=options.force)
    n_atoms, n_used = estimator.components_.shape[0], int((np.asarray(estimator.n_activations_) > 0).sum())
    print(f"{output}: {n_atoms} atoms ({n_used} used in training), fitted in {seconds:.1f} s")


def _keep(keep):
    """Save what an ended fit has learnt, where that is sound and this process writes, and say so."""
    if keep is None:
        return ""
    estimator, path, force = keep
    atoms = getattr(estimator, "components_", None)
    if atoms is None or not np.isfinite(np.asarray(atoms)).all():
        return "Nothing was learnt that could be saved."
    persistence.save(estimator, path, overwrite=force)
    return f"What was learnt until then is in {path}."


def transform(options):
    """Write the codes of the rows of files."""
    if options.rows_a_shard is not None:
        _transform_to_shards(options)
        return
    if options.resume:
        raise InputError("--resume: completes a folder of shards; give --rows-a-shard, too.")
    output = check_output(options.output, force=options.force, inputs=[options.model, *options.data])
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


def _transform_to_shards(options):
    """Write codes that need not fit into memory: a folder of CSR shards."""
    if Path(options.output).exists() and not Path(options.output).is_dir():
        raise InputError(f"{options.output}: is a file; --rows-a-shard writes a folder, give another name.")
    model = load_model(options.model)
    rows = open_rows(options.data)
    check_columns(model, options.model, rows, options.data)
    start = time.perf_counter()
    try:
        with _estimator_errors():
            paths = write_codes(
                model,
                rows,
                options.output,
                rows_a_shard=options.rows_a_shard,
                resume=options.resume,
                force=options.force,
            )
    except FileExistsError as error:
        raise InputError(
            f"{options.output}: holds codes; use --resume to complete them, --force to replace them, or another folder."
        ) from error
    seconds = time.perf_counter() - start
    print(
        f"{options.output}: codes of {rows.shape[0]} rows, {model.components_.shape[0]} atoms, {len(paths)} shards, "
        f"{rows.shape[0] / seconds:.0f} rows/s"
    )


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
    rows : array or RowSource of shape (n_samples, n_features)
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
    except (ValueError, TypeError, UnreadableRowsError) as error:
        raise InputError(error) from error


def build_estimator(method, *, n_components, n_nonzero_coefs, steps=None, seed=0, settings=None):
    """Make an unfitted estimator from the options of the command line.

    Parameters
    ----------
    method : str
        One of ``METHODS``.
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
        raise InputError("--checkpoint-dir: mod writes no checkpoints; leave it out, or fit another method.")
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


def fit_aloud(estimator, rows, *, silent=False, **options):
    """Fit, with keywords of ``fit``; return the seconds it took.

    Unless ``silent``, progress and warnings are told on standard error.

    Raises
    ------
    InputError
        Where the estimator refuses a parameter or the data; with its message.
    FloatingPointError
        If the loss stops being finite.
    """
    if hasattr(estimator, "set_callbacks") and not silent:
        estimator.set_callbacks(_Progress())
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            try:
                estimator.fit(rows, **options)
            except (ValueError, TypeError) as error:
                raise InputError(error) from error
        finally:
            for message in {str(warning.message) for warning in caught if not silent}:
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
