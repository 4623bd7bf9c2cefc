# SPDX-License-Identifier: BSD-3-Clause
"""One face for rows that lie elsewhere: memory maps, shards, Zarr, HDF5, safetensors, torch data sets, Dask arrays."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# What is read in one go: long enough for a disk, and short enough that many of them make a window of a shuffle.
BLOCK_BYTES = 512 * 2**10
ENDINGS = ".npy, .safetensors, .h5, .hdf5, .zarr"


class UnreadableRowsError(OSError):
    """Rows that were there when their source was opened cannot be read any more."""


@dataclass(frozen=True)
class Part:
    """A run of rows that one file or chunk holds: ``read(start, stop)`` gives some of them as a NumPy array."""

    name: str
    shape: tuple
    dtype: np.dtype
    read: Callable
    chunk: int = 1  # rows that are cheapest read together


class RowSource:
    """Rows of one or several parts, read when they are asked for, and looked at for NaN and infinity then.

    Looks like a 2-d array as far as reading slices and sorted row numbers goes; ``source[a:b]`` is a NumPy array.

    Parameters
    ----------
    parts : list of Part
        With as many columns each.

    Attributes
    ----------
    shape : (n_samples, n_features)
    dtype : numpy.dtype
        The widest of the parts.
    """

    ndim = 2

    def __init__(self, parts):
        if not parts:
            raise ValueError("no shards were given: at least one is needed.")
        widths = {part.shape[1] for part in parts if len(part.shape) == 2}
        for part in parts:
            if len(part.shape) != 2 or len(widths) > 1:
                raise ValueError(
                    f"{part.name} has shape {tuple(part.shape)}; rows x columns are needed, and every shard needs as "
                    f"many columns (found {sorted(widths)}). Reshape or leave it out."
                )
            if part.dtype.kind not in "fiu":
                raise ValueError(
                    f"{part.name} holds {part.dtype}, not real numbers. Convert it with astype('float32')."
                )
        self.parts = parts
        self.starts = np.concatenate([[0], np.cumsum([part.shape[0] for part in parts])])
        self.shape = (int(self.starts[-1]), widths.pop())
        self.dtype = np.result_type(*(part.dtype for part in parts)).newbyteorder("=")

    def __len__(self):
        return self.shape[0]

    @property
    def nbytes(self):
        """Bytes that all rows would take."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, rows):
        if isinstance(rows, tuple):
            rows = rows[0]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step != 1:
                raise IndexError("rows are read forwards and one after the other; got a slice with a step.")
            return self._read(start, max(start, stop))
        return self._take(np.asarray(rows))

    def blocks(self):
        """Starts and stops (two int arrays) of runs of rows that are read in one go, in order."""
        starts, stops = [], []
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        for first, part in zip(self.starts, self.parts, strict=False):
            step = max(1, BLOCK_BYTES // row_bytes // part.chunk) * part.chunk
            begin = np.arange(0, part.shape[0], step)
            starts.append(first + begin)
            stops.append(first + np.minimum(begin + step, part.shape[0]))
        return np.concatenate(starts), np.concatenate(stops)

    def runs(self, n_bytes):
        """Slices over all rows, of whole blocks and about ``n_bytes`` each, in order."""
        starts, stops = self.blocks()
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        first = 0
        while first < len(starts):
            last = int(np.searchsorted(stops, starts[first] + n_bytes // row_bytes, side="right"))
            last = max(first + 1, last)
            yield slice(int(starts[first]), int(stops[last - 1]))
            first = last

    def whereabouts(self, row):
        """In words, where a row lies."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        place = f"row {row}"
        return (
            place if len(self.parts) == 1 else f"{place} (row {row - self.starts[number]} of {self.parts[number].name})"
        )

    def _read(self, start, stop):
        out = np.empty((stop - start, self.shape[1]), dtype=self.dtype)
        number = int(np.searchsorted(self.starts, start, side="right")) - 1
        done = start
        while done < stop:
            part, first = self.parts[number], int(self.starts[number])
            end = min(stop, int(self.starts[number + 1]))
            out[done - start : end - start] = self._of(part, done - first, end - first)
            done, number = end, number + 1
        self._check_finite(out, start)
        return out

    def _of(self, part, start, stop):
        try:
            rows = np.asarray(part.read(start, stop))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UnreadableRowsError(
                f"{part.name} cannot be read any more (rows {start} to {stop - 1}: {type(error).__name__}: {error}). "
                "Bring it back as it was, and go on from a checkpoint or start again."
            ) from error
        if rows.shape != (stop - start, self.shape[1]):
            raise UnreadableRowsError(
                f"{part.name} gave rows of shape {rows.shape} where {(stop - start, self.shape[1])} were asked for: it "
                "has changed since it was opened."
            )
        return rows

    def _check_finite(self, rows, start):
        if self.dtype.kind != "f":
            return
        good = np.isfinite(rows).all(axis=1)
        if not good.all():
            raise ValueError(
                f"Input X contains NaN or infinity: {self.whereabouts(start + int(np.argmin(good)))} is the first of "
                f"{np.count_nonzero(~good)} such rows in a block of {len(rows)}. Drop or impute these rows."
            )

    def _take(self, rows):
        """Rows by number, in any order; each block that holds one of them is read once."""
        starts, stops = self.blocks()
        out = np.empty((rows.size, self.shape[1]), dtype=self.dtype)
        owner = np.searchsorted(starts, rows, side="right") - 1
        for block in np.unique(owner):
            mine = owner == block
            first, last = int(rows[mine].min()), int(rows[mine].max()) + 1
            out[mine] = self._read(max(first, int(starts[block])), min(last, int(stops[block])))[rows[mine] - first]
        return out


def is_source(X):
    """Whether X is rows that lie elsewhere, rather than an array (or what scikit-learn makes one of)."""
    if isinstance(X, (RowSource, str, os.PathLike)):
        return True
    if isinstance(X, (list, tuple)):
        # Shards, not a list of rows: paths, or things with two dimensions.
        return bool(X) and all(isinstance(x, (str, os.PathLike)) or len(getattr(x, "shape", ())) == 2 for x in X)
    return _library(X) in ("zarr", "h5py", "dask") or _is_torch_data(X)


def prototype(X):
    """An array whose namespace, device and dtype say where work on X is done: X itself, or NumPy for a source."""
    return np.empty(0, dtype=X.dtype) if isinstance(X, RowSource) else X


def as_source(X):
    """X as a :class:`RowSource` where :func:`is_source`; anything else as it is."""
    return open_rows(X) if is_source(X) else X


def open_rows(X):
    """Open rows that lie elsewhere.

    Parameters
    ----------
    X : str, path-like, array-like of two dimensions, or list of these
        A ``.npy``, ``.safetensors`` or HDF5 file or a Zarr folder (``path::name`` where it holds several arrays); a
        NumPy array, memory-mapped or not, a Zarr, HDF5 or Dask array; a map-style torch ``Dataset`` or a ``DataLoader``
        of one, whose rows are its items or the first of each item (the estimator shuffles and makes batches itself). A
        list: shards, in this order.

    Returns
    -------
    source : RowSource

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For a file of another kind, for rows that are not two-dimensional or not real numbers, for shards of different
        widths, for a torch loader with a sampler of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.sources import open_rows
    >>> open_rows([np.zeros((3, 2)), np.ones((2, 2))])[2:4]
    array([[0., 0.],
           [1., 1.]])
    """
    if isinstance(X, RowSource):
        return X
    if _library(X) == "dask":
        return _of_dask(X, "the Dask array")
    if not isinstance(X, (list, tuple)):
        return RowSource(_parts(X, ""))
    return RowSource([part for i, shard in enumerate(X) for part in _parts(shard, f"shard {i}")])


def _parts(X, name):
    if isinstance(X, (str, os.PathLike)):
        return _of_file(os.fspath(X))
    if isinstance(X, RowSource):
        return X.parts
    if _library(X) == "dask":
        return _of_dask(X, name).parts
    if _is_torch_data(X):
        return [_of_torch(X, name or "the data set")]
    chunks = getattr(X, "chunks", None)
    rows_a_chunk = int(chunks[0]) if chunks and not isinstance(X, np.ndarray) else 1
    return [_of_array(X, name or "the array", rows_a_chunk)]


def _of_array(X, name, chunk=1):
    """Anything with a shape, a dtype and slices."""
    if hasattr(X, "detach"):  # a torch tensor
        X = X.detach().cpu().numpy()
    return Part(name, tuple(X.shape), np.dtype(X.dtype), lambda a, b: X[a:b], max(1, chunk))


def _of_file(text):
    text, _, inner = text.partition("::")
    path = Path(text)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    if path.suffix == ".npy":
        return [_of_npy(path)]
    if path.suffix == ".safetensors":
        return [_of_safetensors(path, inner)]
    if path.suffix in (".h5", ".hdf5"):
        import h5py

        return [_of_group(h5py.File(path, "r"), path, inner)]
    if path.suffix == ".zarr":
        import zarr

        return [_of_group(zarr.open(path, mode="r"), path, inner)]
    raise ValueError(f"{path}: is no file of rows that is known here ({ENDINGS}).")


def _of_npy(path):
    def opened():
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        head = opened()
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read as a .npy file of numbers ({error}). Write it with numpy.save."
        ) from None
    shape, dtype = head.shape, head.dtype
    # Opened anew for each block: a thousand shards are not a thousand maps, and one that is gone is noticed.
    return Part(str(path), shape, dtype, lambda a, b: opened()[a:b])


def _of_safetensors(path, name):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - not a dict
            name = _the_one(path, {key for key, shape in shapes.items() if len(shape) == 2}, name)
            kind = file.get_slice(name).get_dtype()
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}).") from None
    half = kind == "BF16"  # which NumPy lacks
    dtype = np.dtype("float32" if half else {"F": "float", "I": "int", "U": "uint"}[kind[0]] + kind[1:])

    def read(a, b):
        with safe_open(path, framework="pt" if half else "np") as file:
            rows = file.get_slice(name)[a:b]
            return rows.float().numpy() if half else rows

    return Part(f"{path}::{name}", tuple(shapes[name]), dtype, read)


def _of_group(opened, path, name):
    """The one array of an HDF5 file or a Zarr folder, or the named one."""
    if hasattr(opened, "shape"):
        array = opened
    else:
        found = {key for key in opened if len(getattr(opened[key], "shape", ())) == 2}
        array = opened[name] if name in opened and name else opened[_the_one(path, found, name)]
    return _of_array(array, str(path), int(array.chunks[0]) if array.chunks else 1)


def _the_one(path, names, wanted):
    if wanted in names:
        return wanted
    if not wanted and len(names) == 1:
        return next(iter(names))
    said = f"no two-dimensional array {wanted!r}" if wanted else f"{len(names)} two-dimensional arrays"
    raise ValueError(f"{path}: holds {said}; it has {sorted(names)}. Name one of them: '{path}::NAME'.")


def _of_dask(X, name):
    from .dask_rows import DaskRows

    return DaskRows(X, name)


def _of_torch(data, name):
    from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

    if isinstance(data, DataLoader):
        if not isinstance(data.sampler, (RandomSampler, SequentialSampler)) or data.collate_fn is not default_collate:
            raise ValueError(
                f"{name} is a DataLoader with a sampler or collate_fn of its own, which shuffling by the estimator "
                "would pass over. Call partial_fit on each of its batches, or pass its data set."
            )
        data = data.dataset
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise ValueError(f"{name} has no row numbers (IterableDataset). Call partial_fit on each of its batches.")

    def row(item):
        return (item[0] if isinstance(item, (tuple, list)) else item).detach().cpu()

    def read(a, b):
        import torch

        if hasattr(data, "__getitems__"):
            items = data.__getitems__(list(range(a, b)))
        else:
            items = [data[i] for i in range(a, b)]
        rows = torch.stack([row(item) for item in items])
        return (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()

    first = read(0, 1)
    return Part(name, (len(data), *first.shape[1:]), first.dtype, read)


def _library(X):
    return type(X).__module__.partition(".")[0]


def _is_torch_data(X):
    torch = sys.modules.get("torch")  # who has a data set of torch's has loaded it
    return torch is not None and isinstance(X, (torch.utils.data.Dataset, torch.utils.data.DataLoader))
