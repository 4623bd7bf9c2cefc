# SPDX-License-Identifier: BSD-3-Clause
"""Save fitted estimators without pickle, and load them again.

A saved estimator is a zip archive that ``numpy.load(path, allow_pickle=False)`` reads too: one ``.npy`` member for
each array (``components_.npy``, ``mean_.npy``, ...) and ``skprojdict.json`` with the class, the parameters, everything
else that was fitted, the versions that wrote it and a checksum of every array. Loading runs no code from the file. The
checksums find damage; they are no signature, and do not say who wrote the file.
"""

import hashlib
import io
import json
import math
import os
import secrets
import zipfile
import zlib
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skprojdict._array import to_numpy

__all__ = ["load", "save"]

FORMAT = "skprojdict-estimator"
FORMAT_VERSION = 1
HEADER = "skprojdict.json"
CLASSES = ("MethodOfOptimalDirections", "ProjectiveDictionaryLearning", "TopKDictionaryLearning")


def save(estimator, path, *, overwrite=False):
    """Write a fitted estimator to one file.

    Everything that ``fit`` stored as numbers, strings or arrays is kept, so a loaded estimator transforms and scores as
    before. Callbacks and the optimiser's running averages are not.

    Parameters
    ----------
    estimator : ProjectiveDictionaryLearning, TopKDictionaryLearning or MethodOfOptimalDirections
        A fitted estimator. Arrays may lie on any device; they are written as NumPy arrays.
    path : str or path-like
        Where to write; ``.npz`` is the customary ending. The file appears whole or not at all.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    TypeError
        If a parameter or fitted attribute cannot be written without pickle, such as a callable.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    load : The way back.
    """
    import skprojdict  # here, since the package may import this module

    name = type(estimator).__name__
    if name not in CLASSES or type(estimator) is not getattr(skprojdict, name):
        raise TypeError(f"estimator must be one of {', '.join(CLASSES)}; got {name}. Save other estimators with skops.")
    check_is_fitted(estimator)
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"{path} exists: pass overwrite=True to replace it, or another path.")
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": name,
        "params": {
            key: _encode(value, f"params.{key}", f"the parameter {key}", arrays)
            for key, value in estimator.get_params(deep=False).items()
        },
        "fitted": _encode_fitted(estimator, arrays),
        "versions": {package: _version(package) for package in ("skprojdict", "scikit-learn", "numpy", "torch")},
    }
    members = {f"{key}.npy": _npy_bytes(value) for key, value in arrays.items()}
    header["sha256"] = {member: hashlib.sha256(content).hexdigest() for member, content in members.items()}
    header["header_sha256"] = _digest(header)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, json.dumps(header, indent=1))
        for member, content in members.items():
            archive.writestr(member, content)


def load(path):
    """Read an estimator that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : ProjectiveDictionaryLearning, TopKDictionaryLearning or MethodOfOptimalDirections
        Fitted, with NumPy arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of ours, is truncated or was altered.

    See Also
    --------
    save : The way there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            methods = {info.compress_type for info in archive.infolist()}
            if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                # One flipped bit turns deflate into another method, whose errors are of all kinds.
                raise zipfile.BadZipFile("a member is not compressed as save does it")
            # Reading a member checks its CRC, so damage to the bytes shows here.
            members = {member: archive.read(member) for member in archive.namelist()}
        header = json.loads(members.pop(HEADER))
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
    # RuntimeError is zipfile's for an encrypted member, NotImplementedError for an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not an estimator saved by skprojdict.persistence.save, or it is damaged "
            f"({type(error).__name__}: {error}). Save the estimator again."
        ) from None
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')}; this skprojdict reads {FORMAT_VERSION}. It was "
            f"written by skprojdict {header.get('versions', {}).get('skprojdict')}: install that version to read it."
        )
    recorded = header.pop("header_sha256", None)
    if recorded != _digest(header):
        raise ValueError(f"{path} was altered: the checksum of its {HEADER} does not fit. Save the estimator again.")
    for member in sorted(header["sha256"].keys() | members.keys()):
        content = members.get(member)
        if content is None or hashlib.sha256(content).hexdigest() != header["sha256"].get(member):
            raise ValueError(f"{path} was altered: the checksum of {member} does not fit. Save the estimator again.")
    if header["class"] not in CLASSES:
        raise ValueError(
            f"{path} holds a {header['class']}, which this version does not know: one of {CLASSES} is read."
        )

    import skprojdict

    arrays = {
        member.removesuffix(".npy"): np.load(io.BytesIO(content), allow_pickle=False)
        for member, content in members.items()
    }
    try:
        params = {key: _decode(value, arrays) for key, value in header["params"].items()}
        estimator = getattr(skprojdict, header["class"])(**params)
    except TypeError as error:
        raise ValueError(
            f"{path} was written by skprojdict {header['versions']['skprojdict']}, whose {header['class']} took other "
            f"parameters ({error}): install that version to read it."
        ) from error
    for key, value in header["fitted"].items():
        setattr(estimator, key, _decode(value, arrays))
    return estimator


@contextmanager
def atomic_path(path):
    """Give a temporary path beside ``path`` to write to, and move it into place when all went well.

    A reader sees the old file or the new one; whatever goes wrong, nothing half-written stays behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode_fitted(estimator, arrays):
    """JSON for everything that ``fit`` stored; private state is kept where it is plain data, such as a resolved k."""
    fitted = {}
    for key, value in sorted(vars(estimator).items()):
        if key in estimator.get_params(deep=False):
            continue
        try:
            fitted[key] = _encode(value, key, f"the attribute {key}", arrays)
        except TypeError:
            if not key.startswith("_"):  # a trainer and its optimiser, or callbacks, start afresh
                raise
    return fitted


def _encode(value, key, what, arrays):
    """JSON for one value; arrays go to ``arrays`` under ``key`` and are replaced by that name."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{key}.{i}", what, arrays) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encode(item, f"{key}.{name}", what, arrays) for name, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype == object and all(isinstance(item, str) for item in value.flat):
        return {"strings": value.tolist()}  # feature_names_in_
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(to_numpy(value))
        if not array.dtype.hasobject:
            arrays[key] = array
            return {"scalar" if isinstance(value, np.generic) else "array": key}
    remedy = (
        "Replace it with set_params before saving (by its name or an array), or keep the estimator with joblib."
        if callable(value)
        else "Set it to a number, string or array before saving, or keep the estimator with joblib."
    )
    raise TypeError(f"{what} is {value!r}, which cannot be written without pickle. {remedy}")


def _decode(value, arrays):
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "float":
            return float(content)
        case "list":
            return [_decode(item, arrays) for item in content]
        case "tuple":
            return tuple(_decode(item, arrays) for item in content)
        case "dict":
            return {name: _decode(item, arrays) for name, item in content.items()}
        case "strings":
            return np.asarray(content, dtype=object)
        case "scalar":
            return arrays[content][()]
        case _:
            return arrays[content]


def _npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _digest(header):
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None
