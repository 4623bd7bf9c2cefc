# SPDX-License-Identifier: BSD-3-Clause
"""A folder for the Hugging Face hub: the estimator and a model card. Nothing here touches the network."""

import math
from pathlib import Path

from skprojdict._array import to_numpy
from skprojdict.formats.container import atomic_path
from skprojdict.persistence.native import save

MODEL = "model.safetensors"
CARD = "README.md"


def save_for_hub(estimator, folder, *, data, licence, X=None, y=None, model_name=None, overwrite=False):
    """Write ``model.safetensors`` and a model card, as ``huggingface_hub.upload_folder`` takes them.

    Parameters
    ----------
    estimator : ProjectiveDictionaryLearning, TopKDictionaryLearning or MethodOfOptimalDirections
        Fitted.
    folder : str or path-like
        Made where it is missing.
    data : str
        What it was trained on, in a sentence.
    licence : str
        The hub's identifier of the licence, such as "mit" or "cc-by-4.0".
    X, y : arrays, default=None
        Held-out rows: their fraction of variance unexplained, nonzeros a row and unused features go into the card.
    model_name : str, default=None
        Heading of the card. None: the name of the folder.
    overwrite : bool, default=False
        Whether the two files may be replaced.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is False.
    TypeError
        If the estimator cannot be saved without pickle, as :func:`save` says.
    ValueError
        For an empty ``data`` or ``licence``, which a reader of the card could not do without.

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
    used = to_numpy(estimator.n_activations_) > 0
    rows = [
        ("Class", f"`skprojdict.{type(estimator).__name__}`"),
        ("Atoms, dimensions", f"{p} x {d}"),
        ("Active atoms a row, at most", "every positive score" if k is None else str(k)),
        ("Passes, steps", f"{estimator.n_iter_}, {estimator.n_steps_}"),
        ("Features that never fired in training", f"{int((~used).sum())} of {p}"),
    ]
    rows += [] if X is None else _held_out(estimator, X, y)
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
codes = model.transform(X)
reconstruction = model.inverse_transform(codes)
```

## Parameters

{parameters}
"""


def _held_out(estimator, X, y):
    second = getattr(estimator, "target", "X") == "y"
    fvu = 1.0 - (estimator.score(X, y) if second else estimator.score(X))
    codes = estimator.transform(X)
    nonzero = (codes.toarray() if hasattr(codes, "toarray") else to_numpy(codes)) != 0
    return [
        ("Fraction of variance unexplained, held out", "not defined" if math.isnan(fvu) else f"{fvu:.4f}"),
        ("Nonzero coefficients a row, held out", f"{nonzero.sum() / nonzero.shape[0]:.2f}"),
        ("Features unused by the held-out rows", f"{int((~nonzero.any(axis=0)).sum())} of {nonzero.shape[1]}"),
    ]


def _is_plain(value):
    return value is None or isinstance(value, (bool, int, float, str))
