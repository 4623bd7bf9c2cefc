# SPDX-License-Identifier: BSD-3-Clause
"""The ``.npz`` frame of a saved estimator: a zip archive of ``.npy`` members and a JSON header with their checksums."""

import errno
import hashlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np

from skprojdict.formats.container import DamagedFileError, atomic_path

HEADER = "skprojdict.json"


def is_one(path):
    """Whether a file begins like a zip archive."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def write(path, arrays, header):
    """Write arrays and a header, as :func:`skprojdict.formats.container.write` does."""
    members = {f"{key}.npy": _npy_bytes(value) for key, value in arrays.items()}
    header = {**header, "sha256": {member: _sha256(content) for member, content in members.items()}}
    header["header_sha256"] = _digest(header)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(HEADER, json.dumps(header, indent=1))
        for member, content in members.items():
            file.writestr(member, content)


def read(path):
    """``(arrays, header)`` of a file that :func:`write` wrote.

    Raises
    ------
    DamagedFileError
        If the file is foreign, truncated or altered.
    """
    try:
        with zipfile.ZipFile(path) as file:
            methods = {info.compress_type for info in file.infolist()}
            if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                # One flipped bit turns deflate into another method, whose errors are of all kinds.
                raise zipfile.BadZipFile("a member is not compressed as save does it")
            # Reading a member checks its CRC, so damage to the bytes shows here.
            members = {member: file.read(member) for member in file.namelist()}
        header = json.loads(members.pop(HEADER))
        recorded = header.pop("header_sha256", None)
        altered = recorded != _digest(header)
        sums = header.pop("sha256")
    except DamagedFileError:
        raise
    # RuntimeError is zipfile's for an encrypted member, NotImplementedError for an unknown compression and json's
    # RecursionError; OSError for an offset before the beginning of the file.
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, TypeError, ValueError, RuntimeError),
        *(AttributeError, OverflowError, OSError),
    ) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's, or the permissions'
        raise DamagedFileError(f"{type(error).__name__}: {error}.") from None
    if altered:
        raise DamagedFileError(f"It was altered: the checksum of its {HEADER} does not fit.")
    for member in sorted(sums.keys() | members.keys()):
        content = members.get(member)
        if content is None or _sha256(content) != sums.get(member):
            raise DamagedFileError(f"It was altered: the checksum of {member} does not fit.")
    arrays = {
        member.removesuffix(".npy"): np.load(io.BytesIO(content), allow_pickle=False)
        for member, content in members.items()
    }
    return arrays, header


def _npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _digest(header):
    return _sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
