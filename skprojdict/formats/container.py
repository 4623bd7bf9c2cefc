# SPDX-License-Identifier: BSD-3-Clause
"""The one container of our files: safetensors, with a JSON header and a checksum of everything that means anything.

The arrays are ordinary safetensors entries, so that any reader of safetensors opens them. The header lies in the
``__metadata__`` of the file under the key ``skprojdict``, as JSON: what the caller says, plus for every array its
dtype, shape and SHA-256, plus the SHA-256 of the header itself. Reading runs no code from the file. The checksums find
damage; they are no signature, and do not say who wrote the file.
"""

import hashlib
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["DamagedFileError", "atomic_path", "read", "sync_folder", "write"]

KEY = "skprojdict"
# safetensors' names of what NumPy can hold.
DTYPES = {
    np.dtype(name): code
    for name, code in {
        "float64": "F64",
        "float32": "F32",
        "float16": "F16",
        "int64": "I64",
        "int32": "I32",
        "int16": "I16",
        "int8": "I8",
        "uint64": "U64",
        "uint32": "U32",
        "uint16": "U16",
        "uint8": "U8",
        "bool": "BOOL",
    }.items()
}


class DamagedFileError(ValueError):
    """A file that is not ours, is cut short or was altered."""


def write(path, arrays, header):
    """Write arrays and a header to one file, which appears whole or not at all and survives a crash once it is there.

    Parameters
    ----------
    path : str or path-like
        An existing file is replaced.
    arrays : dict of str to ndarray
        Of the dtypes in ``DTYPES``, in any byte order and layout.
    header : dict
        Plain JSON, without NaN or infinity.

    Raises
    ------
    TypeError
        For an array that safetensors cannot hold, such as strings or long doubles.
    OSError
        When the disk is full or the folder is gone. What was at ``path`` before is still there.
    """
    arrays = {name: _plain(name, array) for name, array in arrays.items()}
    entries = {
        name: {"dtype": DTYPES[array.dtype], "shape": list(array.shape), "sha256": _digest(_bytes(array))}
        for name, array in arrays.items()
    }
    header = {**header, "arrays": entries}
    header["sha256"] = _digest_of_json(header)
    layout: dict = {"__metadata__": {KEY: json.dumps(header, allow_nan=False)}}
    offset = 0
    # Widest first, which keeps every array aligned to its own dtype.
    names = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    for name in names:
        end = offset + arrays[name].nbytes
        layout[name] = {k: entries[name][k] for k in ("dtype", "shape")} | {"data_offsets": [offset, end]}
        offset = end
    text = json.dumps(layout, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(_bytes(arrays[name]))


def read(path):
    """Read a file that :func:`write` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    arrays : dict of str to ndarray
        Copies, writeable.
    header : dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedFileError
        If a checksum does not fit, or the file is another kind of file. The message does not name the remedy, which is
        the caller's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})[KEY])
            recorded = header.pop("sha256")
            if recorded != _digest_of_json(header):
                raise DamagedFileError(f"{path} was altered: the checksum of its header does not fit.")
            entries = header.pop("arrays")
            if set(file.keys()) != entries.keys():
                raise DamagedFileError(f"{path} was altered: it does not hold the arrays that its header lists.")
            arrays = {name: np.array(file.get_tensor(name)) for name in entries}
    except DamagedFileError:
        raise
    # Whatever damage does to the outer frame, safetensors and json refuse it with one of these.
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} is not a file that skprojdict wrote, or it is damaged ({type(error).__name__}: {error})."
        ) from None
    for name, array in arrays.items():
        found = {"dtype": DTYPES.get(array.dtype), "shape": list(array.shape), "sha256": _digest(_bytes(array))}
        if found != entries[name]:
            raise DamagedFileError(f"{path} was altered: the checksum of {name} does not fit.")
    return arrays, header


@contextmanager
def atomic_path(path):
    """Give a temporary path beside ``path`` to write to, and move it into place when all went well.

    A reader sees the old file or the new one; whatever goes wrong, nothing half-written stays behind. The bytes are on
    the disk before the name is, so that not even a power cut leaves a name without its content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder):
    """Bring the names in a folder to the disk, where the system can (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(name, array):
    """The array in the machine-independent form: C order, little-endian, of a dtype that safetensors knows."""
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<")
    if array.dtype.hasobject or little not in DTYPES:
        raise TypeError(f"the array {name} has dtype {array.dtype}, which safetensors cannot hold.")
    return np.array(array, dtype=little, order="C", copy=None)


def _bytes(array):
    # a memoryview with a 0 in its shape has no cast
    return array.data.cast("B") if array.size else b""


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _digest_of_json(header):
    return _digest(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
