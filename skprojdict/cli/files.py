# SPDX-License-Identifier: BSD-3-Clause
"""Files in and out of the command line: every complaint names the file, what is wrong with it, and the remedy."""

import os
import sys
from pathlib import Path

import numpy as np

from skprojdict import persistence, sources

# Rows are read in slabs of about this size, so that a file may be larger than memory.
SLAB_BYTES = 64 * 2**20


class InputError(Exception):
    """What the user gave cannot be used; the message says what to change."""


class StoppedError(Exception):
    """The command could not be finished for a reason that lies in another process."""


def say(message):
    """Tell about progress."""
    print(message, file=sys.stderr, flush=True)


def open_rows(paths, *, min_rows=1, stream=False):
    """Open files of rows without reading them into memory.

    One ``.npy`` file is memory-mapped, after a look at every value. Several files, or files of another kind, are shards
    in this order, whose values are looked at when they are read.

    Parameters
    ----------
    paths : str, or list of str
        Files with a 2-d array of real numbers, ``FILE::NAME`` where a file has several.
    min_rows : int, default=1
        Fewest rows that make sense.
    stream : bool, default=False
        Take a ``.npy`` file as a shard, too.

    Returns
    -------
    rows : memmap or RowSource of shape (n_samples, n_features)

    Raises
    ------
    InputError
        If a file is missing, something else, not 2-d, not numeric, too short, or holds NaN or infinity.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if len(paths) == 1 and not stream and not _of_another_kind(paths[0]):
        return _mapped(paths[0], min_rows)
    try:
        rows = sources.open_rows(paths)
    except ImportError as error:
        raise InputError(f"{paths[0]}: needs {error.name}, which is missing; pip install {error.name}.") from None
    except (ValueError, OSError) as error:
        raise InputError(error) from None
    if rows.shape[0] < min_rows or rows.shape[1] < 1:
        raise InputError(f"{paths[0]}: has shape {rows.shape}; at least {min_rows} rows and 1 column are needed.")
    return rows


def _of_another_kind(path):
    return Path(path.partition("::")[0]).suffix in (".safetensors", ".h5", ".hdf5", ".zarr")


def _mapped(path, min_rows):
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a .npy file.")
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:4] == b"PK\x03\x04":
        raise InputError(f"{path}: is a zip archive (.npz); save the array in it on its own with numpy.save.")
    if magic != np.lib.format.MAGIC_PREFIX:
        raise InputError(f"{path}: is not a .npy file; write one with numpy.save(path, array).")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(
            f"{path}: cannot be read ({error}); only whole files of plain numbers are, never Python objects. Write it "
            "again with numpy.save(path, array.astype('float32'))."
        ) from None
    if rows.ndim != 2:
        more = " Flatten the leading axes with array.reshape(-1, array.shape[-1])." if rows.ndim > 2 else ""
        raise InputError(
            f"{path}: holds {rows.ndim}-d data of shape {rows.shape}; rows x columns (2-d) are needed.{more}"
        )
    if rows.dtype.kind not in "fiu" or not rows.dtype.isnative or rows.dtype.itemsize > 8:
        raise InputError(f"{path}: holds {rows.dtype}; convert it to real numbers with array.astype('float32').")
    if rows.shape[0] < min_rows or rows.shape[1] < 1:
        raise InputError(f"{path}: has shape {rows.shape}; at least {min_rows} rows and 1 column are needed.")
    if rows.dtype.kind == "f":
        _refuse_non_finite(path, rows)
    return rows


def _refuse_non_finite(path, rows):
    for part in slabs(rows.shape[0], rows.shape[1] * rows.itemsize):
        bad = ~np.isfinite(rows[part]).all(axis=1)
        if bad.any():
            raise InputError(
                f"{path}: row {part.start + int(bad.argmax())} holds NaN or infinity (the first such row; counted from "
                "0); drop or repair such rows."
            )


def slabs(n_rows, row_bytes):
    """Yield slices over rows of about ``SLAB_BYTES`` each."""
    step = max(1, SLAB_BYTES // max(1, row_bytes))
    for start in range(0, n_rows, step):
        yield slice(start, min(n_rows, start + step))


def check_output(path, *, force, inputs=()):
    """Refuse an output file that cannot or must not be written, before any work is done.

    Parameters
    ----------
    path : str
        File to write.
    force : bool
        Whether an existing file may be replaced.
    inputs : sequence of str
        Files that are read, which are never replaced.

    Returns
    -------
    path : Path

    Raises
    ------
    InputError
        If it exists and ``force`` is False, is a folder or an input, or its folder is missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name.")
    if path.exists() and any(Path(other).exists() and path.samefile(other) for other in inputs):
        raise InputError(f"{path}: is an input of this command; give another output file.")
    if path.exists() and not force:
        raise InputError(f"{path}: exists; use --force to replace it, or another name.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it, or give another output file.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent}: cannot be written to; give another output file.")
    return path


def load_model(path):
    """Load a saved estimator, or say why not."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; write a model with 'skprojdict fit DATA.npy --output {path}'.")
    try:
        model = persistence.load(path)
    except ValueError as error:
        raise InputError(error) from None
    if not hasattr(model, "components_") or not hasattr(model, "transform"):
        raise InputError(f"{path}: holds a {type(model).__name__} and no dictionary; load it in Python.")
    return model


def check_columns(model, model_path, rows, paths):
    """Refuse data of another width than the model's."""
    if rows.shape[1] != model.n_features_in_:
        path = paths if isinstance(paths, str) else paths[0]
        raise InputError(
            f"{path}: has {rows.shape[1]} columns, but {model_path} was fitted on {model.n_features_in_}; give data "
            "of the same kind."
        )
