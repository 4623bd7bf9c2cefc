# SPDX-License-Identifier: BSD-3-Clause
"""A folder for the Hugging Face hub: the estimator and a model card. Nothing here touches the network."""

import math
import re
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from skprojdict._array import to_numpy
from skprojdict.formats.container import atomic_path
from skprojdict.persistence.native import save
from skprojdict.sources import as_source

MODEL = "model.safetensors"
CARD = "README.md"
SLAB_ROWS = 4096


def save_for_hub(estimator, folder, *, data, licence, X=None, y=None, model_name=None, overwrite=False):
    """Write ``model.safetensors`` and a model card, as ``huggingface_hub.upload_folder`` takes them.

    Parameters
    ----------
    estimator : fitted dictionary
        Any estimator of this package with ``components_`` and ``transform``.
    folder : str or path-like
        Made where it is missing.
    data : str
        What it was trained on, in a sentence.
    licence : str
        The hub's identifier of the licence, such as "mit" or "cc-by-4.0".
    X, y : arrays, or what :func:`skprojdict.sources.open_rows` opens, default=None
        Held-out rows: their fraction of variance unexplained, nonzeros a row and unused features go into the card.
        None: the card has the fraction of the last training rows only, and says so.
    model_name : str, default=None
        Heading of the card. None: the name of the folder.
    overwrite : bool, default=False
        Whether the two files may be replaced.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is False.
    TypeError
        If the estimator is no dictionary, or cannot be saved without pickle, as :func:`save` says.
    ValueError
        For an empty ``data`` or ``licence``, which a reader of the card could not do without, or a licence that is no
        identifier.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_digits
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.persistence import load, save_for_hub
    >>> X = load_digits().data
    >>> model = TopKDictionaryLearning(64, n_nonzero_coefs=4, max_iter=2, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     save_for_hub(model, folder, data="Handwritten digits.", licence="mit", X=X, overwrite=True)
    ...     load(f"{folder}/model.safetensors").components_.shape
    (64, 64)
    """
    for name, value in (("data", data), ("licence", licence)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} must be a text for the model card, got {value!r}.")
    if not re.fullmatch(r"[A-Za-z0-9.+-]+", licence.strip()):  # it goes into YAML
        raise ValueError(
            f"licence must be an identifier such as 'mit' or 'cc-by-4.0', got {licence!r}. See hf.co/docs."
        )
    if not hasattr(estimator, "history_") or not hasattr(estimator, "transform"):
        raise TypeError(f"{type(estimator).__name__} is no fitted dictionary, which a card describes. Use save for it.")
    folder = Path(folder)
    if not overwrite and ((folder / MODEL).exists() or (folder / CARD).exists()):
        raise FileExistsError(f"{folder} holds a model: pass overwrite=True to replace it, or another folder.")
    card = _card(estimator, data, licence, X, y, model_name or folder.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    save(estimator, folder / MODEL, overwrite=overwrite)
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")


def _card(estimator, data, licence, X, y, name):
    p, d = estimator.components_.shape
    k = estimator._k
    rows = [
        ("Class", f"`skprojdict.{type(estimator).__name__}`"),
        ("Atoms, dimensions", f"{p} x {d}"),
        (_label_of_k(estimator), "every positive score" if k is None else str(k)),
        ("Passes, steps", f"{estimator.n_iter_}, {estimator.n_steps_}"),
        *_training(estimator),
        *([] if X is None else _held_out(estimator, X, y)),
    ]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows)
    changed = {key: value for key, value in sorted(estimator.get_params(deep=False).items()) if _is_plain(value)}
    parameters = "\n".join(f"- `{key}={value!r}`" for key, value in changed.items())
    return f"""---
license: {licence.strip()}
library_name: skprojdict
tags:
- sparse-autoencoder
- dictionary-learning
- interpretability
---

# {name}

A sparse dictionary of {p} features in {d} dimensions, trained with skprojdict. The file holds no code.

## Data

{data.strip()}

## Results

| | |
| --- | --- |
{table}

## Use

```python
from huggingface_hub import hf_hub_download
from skprojdict.persistence import load

model = load(hf_hub_download(REPOSITORY, "{MODEL}"))
{_use(estimator)}
```

## Parameters

{parameters}
"""


def _label_of_k(estimator):
    """What k means: rows of a form with thresholds may have more."""
    rule = getattr(estimator, "_fitted_selection", getattr(estimator, "selection", None))
    mean = getattr(estimator, "_k_is_a_mean", False) or rule in (
        "adaptive",
        "batch",
        "threshold",
    )
    return "Active atoms a row, mean aimed at in training" if mean else "Active atoms a row, at most"


def _use(estimator):
    lines = ["codes = model.transform(X)", "reconstruction = model.inverse_transform(codes)"]
    if getattr(estimator, "target", "X") == "y":  # atoms of another view, which not every form decodes from codes alone
        lines[1] = "prediction = model.predict(X)"
    return "\n".join(lines)


def _training(estimator):
    """Rows of the table about training; an imported dictionary has none."""
    p, history = estimator.components_.shape[0], estimator.history_
    if not estimator.n_steps_:
        return [("Training", "elsewhere: the dictionary was imported, and not trained on since")]
    silent = int((to_numpy(estimator.n_activations_) == 0).sum())
    rows = [("Features that never fired in training", f"{silent} of {p}")]
    if history.get("n_dead"):
        rows.append(("Dead features at the end of training", f"{history['n_dead'][-1]} of {p}"))
    if history.get("fvu"):
        rows.append(("Fraction of variance unexplained, last training rows", f"{history['fvu'][-1]:.4f}"))
    return rows


def _held_out(estimator, X, y):
    X = as_source(X)
    second = getattr(estimator, "target", "X") == "y"
    fvu = 1.0 - (estimator.score(X, y) if second else estimator.score(X))
    uses = np.zeros(estimator.components_.shape[0], dtype=np.int64)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    for start in range(0, n, SLAB_ROWS):  # never the dense codes of all rows
        codes = estimator.transform(_rows(X, slice(start, start + SLAB_ROWS)))
        uses += np.asarray(((codes if sp.issparse(codes) else to_numpy(codes)) != 0).sum(axis=0)).reshape(-1)
    return [
        ("Fraction of variance unexplained, held out", "not defined" if math.isnan(fvu) else f"{fvu:.4f}"),
        ("Nonzero coefficients a row, held out", f"{uses.sum() / n:.2f}"),
        ("Dead features on the held-out rows", f"{int((uses == 0).sum())} of {uses.size}"),
    ]


def _rows(X, rows):
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    return X[rows, ...] if hasattr(X, "ndim") else X[rows]


def _is_plain(value):
    return value is None or isinstance(value, (bool, int, float, str))
