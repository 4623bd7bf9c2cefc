# SPDX-License-Identifier: BSD-3-Clause
"""Codes that do not fit into memory: CSR shards on disk."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
from scipy import sparse

from ..formats.container import atomic_path
from .opening import as_source

MANIFEST, PLAN = "codes.json", "codes.plan.json"
# Parameters that a code does not depend on, but for rounding.
FREE = ("checkpoint_dir", "checkpoint_every", "chunk_size", "device", "sparse_output", "warm_start")


def write_codes(estimator, X, folder, *, rows_a_shard=65536, resume=False, force=False):
    """Transform rows to CSR shards on disk, one after the other.

    Parameters
    ----------
    estimator : fitted estimator
        With ``transform``; its ``sparse_output`` is left as it is.
    X : array, or anything that :func:`skprojdict.sources.open_rows` opens
    folder : str or path-like
        Gets ``codes-000000.npz``, ... (:func:`scipy.sparse.save_npz`), each whole or not at all, and, when all are
        there, ``codes.json`` with their rows.
    rows_a_shard : int, default=65536
    resume : bool, default=False
        Keep the shards that are there, and write the missing ones.
    force : bool, default=False
        Replace codes that are there.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    FileExistsError
        If the folder holds codes, and neither ``resume`` nor ``force`` is set.
    ValueError
        If the codes that are to be completed are of another dictionary, other rows, or in other shards.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.sources import read_codes, write_codes
    >>> X = load_digits().data
    >>> model = TopKDictionaryLearning(64, n_nonzero_coefs=4, max_iter=2, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_codes(model, X, folder, rows_a_shard=1000)
    ...     [codes.shape for codes in read_codes(folder)]
    [(1000, 64), (797, 64)]
    """
    folder = Path(folder)
    found = sorted(folder.glob("codes[.-]*")) if folder.is_dir() else []
    if found and not resume and not force:
        raise FileExistsError(f"{folder} holds codes: pass resume=True to complete them, or another folder.")
    X = as_source(X)
    coder = copy.copy(estimator).set_params(sparse_output=True)
    n, p = X.shape[0], estimator.components_.shape[0]
    plan = {"shape": [n, p], "rows_a_shard": rows_a_shard, "coder": _digest(estimator)}
    if found and resume:
        _check_plan(folder, plan)
    else:
        for path in found:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / PLAN, plan)
    paths = []
    for number, start in enumerate(range(0, n, rows_a_shard)):
        paths.append(folder / f"codes-{number:06d}.npz")
        if resume and paths[-1].exists():
            continue
        codes = sparse.csr_array(coder.transform(X[start : min(n, start + rows_a_shard), ...]))
        with atomic_path(paths[-1]) as temporary, temporary.open("wb") as file:
            sparse.save_npz(file, codes, compressed=False)
    _write_json(folder / MANIFEST, {**plan, "shards": [path.name for path in paths]})
    return paths


def _digest(estimator):
    """What decides the codes, in short: fitted arrays, and parameters that are plain."""
    params = {name: value for name, value in sorted(estimator.get_params().items()) if name not in FREE}
    plain = {name: value for name, value in params.items() if isinstance(value, (str, int, float))}
    digest = hashlib.sha256(repr(plain).encode())
    for name, value in sorted(vars(estimator).items()):
        if name.endswith("_") and hasattr(value, "shape"):
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def _check_plan(folder, plan):
    found = json.loads((folder / PLAN).read_text(encoding="utf-8")) if (folder / PLAN).is_file() else {}
    for name, value in plan.items():
        if found.get(name) != value:
            raise ValueError(
                f"{folder} holds codes of another {name} ({found.get(name)}, now {value}), which cannot be completed. "
                "Pass force=True to replace them, or another folder."
            )


def _write_json(path, content):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_codes(folder):
    """Read what :func:`write_codes` wrote.

    Parameters
    ----------
    folder : str or path-like
        The folder that it wrote to.

    Yields
    ------
    codes : scipy.sparse.csr_array
        One shard.

    Raises
    ------
    FileNotFoundError
        If the writing was not completed, or a shard is gone.
    ValueError
        If a shard has other rows than were written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.datasets import make_sparse_features
    >>> from skprojdict.sources import read_codes, write_codes
    >>> X = make_sparse_features(250, n_features=8, n_components=16, n_nonzero=2, random_state=0).X
    >>> model = TopKDictionaryLearning(16, n_nonzero_coefs=2, max_steps=5, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_codes(model, X, folder, rows_a_shard=100)
    ...     print([codes.shape for codes in read_codes(folder)])
    [(100, 16), (100, 16), (50, 16)]
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: its codes are incomplete. Call write_codes(resume=True).")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (n, p), step = manifest["shape"], manifest["rows_a_shard"]
    for number, name in enumerate(manifest["shards"]):
        codes = sparse.csr_array(sparse.load_npz(folder / name))
        if codes.shape != (min(step, n - number * step), p) or not np.isfinite(codes.data).all():
            raise ValueError(f"{folder / name} has shape {codes.shape} or NaN: it was altered. Write it again.")
        yield codes
