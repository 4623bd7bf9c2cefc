# SPDX-License-Identifier: BSD-3-Clause
"""State that outlives its machine: pickles that open where the device is missing, learners as plain arrays."""

import copy
import dataclasses
import warnings

import numpy as np

from ._array import array_namespace, asarray_like, device, is_numpy_namespace, is_torch_namespace, on_cpu, to_numpy


class OnDevice:
    """An array on an accelerator, pickled as a NumPy array: it comes back on its device, or without one on the CPU."""

    def __init__(self, array):
        self.array = array

    def __deepcopy__(self, memo):
        return OnDevice(copy.deepcopy(self.array, memo))

    def __reduce__(self):
        library = "torch" if is_torch_namespace(array_namespace(self.array)) else "cupy"
        return bring_back, (to_numpy(self.array), library, str(device(self.array)))


def bring_back(values, library, where):
    """The array that :class:`OnDevice` pickled: on its device, or where that is missing on the CPU, with a warning.

    Parameters
    ----------
    values : ndarray
    library : {"torch", "cupy"}
    where : str
        The device, as torch names it.
    """
    try:
        if library == "torch":
            import torch

            return torch.from_numpy(values.copy()).to(where)
        import cupy

        return cupy.asarray(values)
    except (ImportError, RuntimeError, AssertionError) as error:  # torch's for a device that it was built without
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    warnings.warn(
        f"the estimator was pickled on {library} device {where!r}, which is not here ({reason}): its arrays are on the "
        "CPU.",
        UserWarning,
        stacklevel=2,
    )
    return torch.from_numpy(values.copy()) if library == "torch" else values


def portable(value):
    """A fitted attribute as it can be pickled: arrays on a device inside :class:`OnDevice`, everything else as is."""
    if hasattr(value, "__array_namespace__") or hasattr(value, "is_cuda"):
        return value if on_cpu(value) else OnDevice(value)
    return value


def restored(value):
    """What :func:`portable` was given, where no pickle was in between."""
    return value.array if isinstance(value, OnDevice) else value


def as_plain(learner):
    """A data class of arrays and numbers as nested dictionaries of NumPy arrays; None stays None."""
    if learner is None or isinstance(learner, dict):
        return learner
    plain = {}
    for field in dataclasses.fields(learner):
        value = getattr(learner, field.name)
        if dataclasses.is_dataclass(value):
            value = as_plain(value)
        elif hasattr(value, "dtype") and not isinstance(value, np.generic):
            value = to_numpy(value)
        plain[field.name] = value
    return plain


def from_plain(cls, plain, like, **nested):
    """The data class that :func:`as_plain` took apart, its arrays in the namespace and on the device of ``like``.

    ``nested`` names the classes of fields that are data classes themselves.
    """
    xp = array_namespace(like)
    learner = object.__new__(cls)  # __post_init__ is for fresh ones
    for name, value in plain.items():
        if isinstance(value, dict):
            value = from_plain(nested[name], value, like)
        elif isinstance(value, np.ndarray):
            copied = value.copy()  # learners add in place
            value = (
                copied if is_numpy_namespace(xp) else asarray_like(copied, like, dtype=getattr(xp, str(value.dtype)))
            )
        setattr(learner, name, value)
    return learner
