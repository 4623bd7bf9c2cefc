# SPDX-License-Identifier: BSD-3-Clause
"""Save fitted estimators without pickle, and load them again.

The ending of the file decides its frame. ``.safetensors``: arrays that any reader of safetensors opens, and a JSON
header in its metadata (:mod:`skprojdict.formats.container`). ``.npz``: a zip archive that
``numpy.load(path, allow_pickle=False)`` reads too, one ``.npy`` member for each array and ``skprojdict.json``. Both
hold the class, the parameters, everything else that was fitted, the versions that wrote them and a checksum of every
array. Loading runs no code from the file. The checksums find damage; they are no signature, and do not say who wrote
the file.
"""

import importlib
import math
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skprojdict._array import to_numpy
from skprojdict._portable import restored
from skprojdict.formats import container
from skprojdict.persistence import archive

FORMAT = "skprojdict-estimator"
FORMAT_VERSION = 1
# Where each class that is saved lives. A module is loaded when one of its files is met: alignment loads torch.
CLASSES = {
    "AttributeDictionary": "skprojdict.alignment",
    "DistributedAlignmentSearch": "skprojdict.alignment",
    "GatedDictionaryLearning": "skprojdict",
    "HouseholderAlignmentSearch": "skprojdict.alignment",
    "JumpReLUDictionaryLearning": "skprojdict",
    "LayerStacker": "skprojdict.crosscoders",
    "MethodOfOptimalDirections": "skprojdict",
    "ProjectiveAlignmentSearch": "skprojdict.alignment",
    "ProjectiveDictionaryLearning": "skprojdict",
    "ReLUDictionaryLearning": "skprojdict",
    "TopKDictionaryLearning": "skprojdict",
}


def save(estimator, path, *, overwrite=False):
    """Write a fitted estimator to one file.

    Everything that ``fit`` stored as numbers, strings or arrays is kept, so a loaded estimator transforms and scores as
    before, and ``partial_fit`` goes on to the last bit, with the optimiser's running averages. Callbacks are not kept,
    nor is the network of an alignment search: ``load(path).set_params(model=network)``.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted: a dictionary, a :class:`~skprojdict.crosscoders.LayerStacker`, an alignment search or an
        :class:`~skprojdict.alignment.AttributeDictionary`. Arrays may lie on any device; they are written as NumPy
        arrays.
    path : str or path-like
        Where to write: ``.npz`` for NumPy's archive, any other ending (``.safetensors`` is the customary one) for
        safetensors. The file appears whole or not at all.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    TypeError
        If a parameter or fitted attribute cannot be written without pickle, such as a callable or a hypernetwork.
    ValueError
        If the parameters of an alignment search were changed since it was fitted.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import MethodOfOptimalDirections
    >>> from skprojdict.persistence import load, save
    >>> X = load_digits().data
    >>> model = MethodOfOptimalDirections(64, n_nonzero_coefs=4, max_iter=1, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     save(model, Path(folder) / "model.safetensors")
    ...     same = load(Path(folder) / "model.safetensors")
    >>> bool((same.transform(X) == model.transform(X)).all())
    True
    """
    name = type(estimator).__name__
    if type(estimator) is not _class(name):
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
            if key not in getattr(estimator, "_not_saved", ())
        },
        "fitted": _encode_fitted(estimator, arrays),
        "versions": {package: _version(package) for package in ("skprojdict", "scikit-learn", "numpy", "torch")},
    }
    if Path(path).suffix == ".npz":
        archive.write(path, arrays, header)
    else:
        container.write(path, arrays, header)


def load(path):
    """Read an estimator that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : estimator
        Of the class that was saved: fitted, with NumPy arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of ours, is truncated or was altered.

    See Also
    --------
    save : The way there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.persistence import load, save
    >>> model = TopKDictionaryLearning(64, n_nonzero_coefs=4, max_steps=5, random_state=0).fit(load_digits().data)
    >>> with TemporaryDirectory() as folder:
    ...     save(model, Path(folder) / "model.npz")
    ...     load(Path(folder) / "model.npz").n_steps_
    5
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        arrays, header = (archive if archive.is_one(path) else container).read(path)
        if header["format"] != FORMAT:
            raise container.DamagedFileError(f"{path} is a {header['format']} file and no saved estimator.")
    except (KeyError, container.DamagedFileError) as error:
        reason = error if isinstance(error, container.DamagedFileError) else f"{path} has no {error} in its header."
        raise ValueError(
            f"{path} is not an estimator saved by skprojdict.persistence.save, or it is damaged. {reason} Save the "
            "estimator again."
        ) from None
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')}; this skprojdict reads {FORMAT_VERSION}. It was "
            f"written by skprojdict {header.get('versions', {}).get('skprojdict')}: install that version to read it."
        )
    try:
        return _estimator(path, arrays, header)
    # RuntimeError is torch's for arrays that do not fit into a module.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, StopIteration) as error:
        if str(path) in str(error):
            raise
        # Whole, but of no sense: save has not written it.
        raise ValueError(
            f"{path} has a header that save does not write ({type(error).__name__}: {error}). Save the estimator again."
        ) from None


def _estimator(path, arrays, header):
    """The estimator that a header describes."""
    Estimator = _class(header["class"])
    if Estimator is None:
        raise ValueError(
            f"{path} holds a {header['class']}, which this version does not know: one of {', '.join(CLASSES)} is read."
        )
    params = {key: _decode(value, arrays) for key, value in header["params"].items()}
    try:
        estimator = Estimator(**dict.fromkeys(getattr(Estimator, "_not_saved", ())) | params)
    except TypeError as error:
        raise ValueError(
            f"{path} was written by skprojdict {header['versions']['skprojdict']}, whose {header['class']} took other "
            f"parameters ({error}): install that version to read it."
        ) from error
    for key, value in header["fitted"].items():
        inherited = getattr(Estimator, key, None)
        if not key.isidentifier() or key.startswith("__") or callable(inherited) or isinstance(inherited, property):
            raise ValueError(f"{path} has a fitted attribute {key!r}, which save does not write. Save it again.")
        setattr(estimator, key, _decode(value, arrays))
    if hasattr(estimator, "_from_plain_state"):
        estimator._from_plain_state()
    return estimator


def _class(name):
    """The class of that name, or None if it is not one that is saved."""
    return getattr(importlib.import_module(CLASSES[name]), name) if name in CLASSES else None


def _encode_fitted(estimator, arrays):
    """JSON for everything that ``fit`` stored; private state is kept where it is plain data, such as a resolved k."""
    fitted = {}
    params = estimator.get_params(deep=False)
    state = estimator._plain_state() if hasattr(estimator, "_plain_state") else estimator.__getstate__()
    for key, value in sorted(state.items()):
        if key in params:
            continue
        value = restored(value)
        try:
            fitted[key] = _encode(value, key, f"the attribute {key}", arrays)
        except TypeError:
            if not key.startswith("_"):  # callbacks start afresh
                raise
    return fitted


def _encode(value, key, what, arrays):
    """JSON for one value; arrays go to ``arrays`` under ``key`` and are replaced by that name."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{key}.{i}", what, arrays) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encode(item, f"{key}.{name}", what, arrays) for name, item in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype == object and all(isinstance(item, str) for item in value.flat):
        return {"strings": value.tolist()}  # feature_names_in_
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return {"text": [value.tolist(), value.dtype.str]}  # labels of concepts
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
        case "text":
            items, kind = content
            return np.asarray(items, dtype=np.dtype(kind))
        case "scalar":
            return arrays[content][()]
        case _:
            return arrays[content]


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None
