# SPDX-License-Identifier: BSD-3-Clause
"""Every metric gives the same on every array library and device, and its arrays follow what it was given."""

import importlib
import inspect

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from skprojdict import metrics
from skprojdict._array import device, to_numpy

# Results that are indices or counts for NumPy, whatever the input: docstrings say so.
ON_HOST = {"n_rows", "parents", "children", "counts", "log10_edges", "n_atoms", "atoms", "by_group"}


def arguments():
    """One of each letter, in float32, as NumPy arrays."""
    rng = np.random.default_rng(0)
    F_true = rng.standard_normal((6, 8))
    parents = np.array([-1, -1, 0, 0, 1, -1])
    on = rng.random((80, 6)) < 0.4
    on[:, parents >= 0] &= on[:, parents[parents >= 0]]
    Z_true = on * (0.5 + rng.random(on.shape))
    F = np.concatenate([F_true + 0.3 * rng.standard_normal(F_true.shape), rng.standard_normal((3, 8))])
    Z = np.concatenate([Z_true, rng.standard_normal((80, 3))], axis=1) * (rng.random((80, 9)) < 0.8)
    floats = {"Z": Z, "F": F, "Z_true": Z_true, "F_true": F_true, "Y": Z_true @ F_true, "Y_hat": Z @ F}
    floats |= {"Y_predicted": Z @ F, "Y_projected": 0.9 * Z_true @ F_true}
    return {name: value.astype(np.float32) for name, value in floats.items()} | {
        "parents": parents,
        "matching": np.array([0, 1, 2, 3, 4, 8]),
    }


def call(metric, given):
    # Y is the data where it is the first argument, and an option elsewhere.
    parameters = inspect.signature(metric).parameters
    fixed = {"random_state": 0} if "random_state" in parameters else {}
    return metric(**{name: given[name] for name in parameters if name in given}, **fixed)


def flat(result):
    """Numbers and arrays of a result by name."""
    if isinstance(result, dict):
        return {name: value for name, value in result.items() if name not in ("by_group", "atoms")}
    return {"": result}


METRICS = sorted(set(metrics.__all__) - {"hierarchy_groups"})
OF_CODES = [name for name in METRICS if "Z" in inspect.signature(getattr(metrics, name)).parameters]


@pytest.mark.parametrize("name", METRICS)
def test_every_library_and_device_gives_the_same(name, backend):
    metric, given = getattr(metrics, name), arguments()
    expected = flat(call(metric, given))
    brought = {key: backend.asarray(value) for key, value in given.items()}
    found = flat(call(metric, brought))
    assert set(found) == set(expected)
    for key, value in found.items():
        assert_allclose(to_numpy(value), expected[key], rtol=2e-5, atol=1e-6, err_msg=key)
        if isinstance(value, int | float) or key in ON_HOST:
            assert isinstance(value, int | float | np.ndarray)
            continue
        first = brought[next(each for each in inspect.signature(metric).parameters if each in brought)]
        assert type(value) is type(first)
        assert device(value) == device(first)
        assert (key == "" and name in ("match_atoms", "best_true_atoms")) or value.dtype == first.dtype


@pytest.mark.parametrize("name", OF_CODES)
def test_sparse_codes_beside_arrays_of_any_library(name, backend):
    metric, given = getattr(metrics, name), arguments()
    expected = flat(call(metric, given))
    given |= {key: backend.asarray(value) for key, value in given.items() if key in ("F", "F_true", "Z_true")}
    # Stored zeros are no coefficients.
    Z = sparse.coo_array(given["Z"] + 1)
    Z.data -= 1
    found = flat(call(metric, given | {"Z": Z}))
    for key, value in found.items():
        assert isinstance(value, int | float | np.ndarray), key
        assert_allclose(value, expected[key], rtol=2e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("library", ["numpy", "torch"])  # array-api-strict has no half precision
@pytest.mark.parametrize("name", METRICS)
def test_half_precision_is_read_and_single_precision_returned(name, library):
    xp = importlib.import_module(library)
    metric, given = getattr(metrics, name), arguments()
    expected = flat(call(metric, given))
    half = {k: xp.asarray(v.astype(np.float16) if v.dtype == np.float32 else v) for k, v in given.items()}
    for key, value in flat(call(metric, half)).items():
        assert_allclose(to_numpy(value), expected[key], rtol=2e-2, atol=2e-3, err_msg=key)
        if hasattr(value, "dtype") and key not in ON_HOST:
            assert value.dtype in (xp.float32, xp.int64)
