# SPDX-License-Identifier: BSD-3-Clause
"""Checks that involve two arguments, or an argument and the data. Their messages live here."""

import math
import warnings
from contextlib import contextmanager
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from ._array import (
    array_namespace,
    asarray_like,
    get_namespace_and_device,
    is_numpy_namespace,
    move_to,
    supported_float_dtypes,
    to_numpy,
    unwrapped,
)
from ._chunks import slabs
from .sources import ForwardRows, RowSource, is_source, open_rows


def validate_rows(estimator, X, *, reset, min_samples=1):
    """Validate X without copying memory maps or half-precision data.

    Floating dtypes are kept, float16 included (NumPy); others become the widest float of the namespace. Rows of a
    :class:`skprojdict.sources.RowSource` are looked at for NaN and infinity when they are read, not here.

    Returns
    -------
    X : array or RowSource of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        For NaN or infinity, naming the first bad row; for other columns than at fit; as scikit-learn otherwise.
    """
    if isinstance(X, RowSource):
        X = validate_data(estimator, X, reset=reset, skip_check_array=True)
        if X.shape[0] < min_samples or not X.shape[1]:
            raise ValueError(
                f"{X.parts[0].name}{' and so on' if len(X.parts) > 1 else ''}: found {X.shape[0]} sample(s) of "
                f"{X.shape[1]} feature(s) while a minimum of {min_samples} sample(s) and 1 feature is required."
            )
        return X
    X = unwrapped(X)
    X = validate_data(estimator, X, reset=reset, **_array_options(X, min_samples))
    check_finite(X, "X")
    return X


@contextmanager
def shape_kept(estimator):
    """Give a fitted estimator its columns back when data for a new fit are refused."""
    names = ("n_features_in_", "feature_names_in_")
    kept = {name: vars(estimator)[name] for name in names if name in vars(estimator)}
    try:
        yield
    except Exception:
        for name in names:
            vars(estimator).pop(name, None)
        vars(estimator).update(kept)
        raise


def validate_second_view(estimator, X, y):
    """Validate the second view y against validated rows X: float (n_samples, n_targets) where X is.

    A 1-d y becomes one column. ``reset=False`` checks of the number of targets are the caller's. Where y is a source
    that lies elsewhere, or X is a :class:`skprojdict.sources.RowSource` or :class:`skprojdict.sources.ForwardRows`, so
    is what is returned.
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} with target='y' requires y to be passed, but the target y is None. Pass the "
            "array to reconstruct as y, or set target='X'."
        )
    if is_source(y) or isinstance(X, (RowSource, ForwardRows)):
        return _second_source(X, y)
    y = unwrapped(y)
    xp, _, device = get_namespace_and_device(X)
    own, _, own_device = get_namespace_and_device(y)
    if hasattr(y, "dtype") and (own is not xp or own_device != device):
        y = move_to(y, xp=xp, device=device)
    y = check_array(y, ensure_2d=False, input_name="y", estimator=estimator, **_array_options(y, 1))
    check_consistent_length(X, y)
    if y.ndim == 1:
        y = xp.reshape(y, (-1, 1))
    if y.ndim != 2:
        raise ValueError(f"y must have 1 or 2 dimensions with target='y', got an array of shape {tuple(y.shape)}")
    check_finite(y, "y")
    return y[:, :]  # never X itself: one object for both views means one view


def _second_source(X, y):
    """The second view where it, or the first, lies elsewhere."""
    if getattr(y, "ndim", 2) == 1 and not is_source(y):
        y = y[:, None]
    source = open_rows(y if is_source(y) or hasattr(y, "shape") else np.asarray(y))
    if source.shape[0] != X.shape[0]:
        raise ValueError(
            f"X has {X.shape[0]} rows and y {source.shape[0]}. Pass the two views of the same rows, in the same order."
        )
    if isinstance(X, RowSource):
        return source
    convert = X.convert if isinstance(X, ForwardRows) else lambda rows: asarray_like(rows, X)
    return ForwardRows(source, convert)


def _array_options(X, min_samples):
    xp, _, device = get_namespace_and_device(X)
    dtypes = [*supported_float_dtypes(xp, device=device)]
    if isinstance(X, np.ndarray):
        dtypes = [np.float64, np.float32, np.float16]
        if X.dtype.kind in "iu":
            dtypes.append(X.dtype)  # integers on disk are cast batch by batch, too
    return {"dtype": dtypes, "ensure_all_finite": False, "ensure_min_samples": min_samples}


def torch_device(name):
    """The device that a user named, tried with an empty tensor."""
    import torch

    try:
        where = torch.device(name)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device={name!r} is not a device that torch can use here ({str(error).splitlines()[0]}). Name one that "
            "is, such as 'cpu' or 'cuda', or leave device=None to compute where the data are."
        ) from error
    if where.type == "meta":
        raise ValueError("device='meta' holds no numbers to train on. Name another device, or leave device=None.")
    return where


def check_finite(X, name):
    """Raise a ValueError that names the first row with NaN or infinity."""
    xp = array_namespace(X)
    for rows in slabs(X):
        good = xp.all(xp.isfinite(X[rows, ...]), axis=1)
        if not bool(xp.all(good)):
            first = rows.start + int(np.argmin(to_numpy(good)))
            bad = np.count_nonzero(~to_numpy(good))
            raise ValueError(
                f"Input {name} contains NaN or infinity: the first such row is {first} ({bad} in rows {rows.start} to "
                f"{rows.stop - 1}). Drop or impute these rows; values beyond the range of {X.dtype} count as infinity."
            )


def resolve_n_components(n_components, n_targets):
    """Number of atoms: 8 times the number of target columns unless given."""
    return 8 * n_targets if n_components is None else int(n_components)


def resolve_n_nonzero(n_nonzero_coefs, n_components, n_targets, *, warn=True):
    """Number of atoms a row at most; None stays None (every positive score).

    "auto" is a tenth of the target columns, at least 1 and at most ``n_components``. A number larger than
    ``n_components`` is clipped, with one warning (``warn=False``: in silence).
    """
    if n_nonzero_coefs is None:
        return None
    if isinstance(n_nonzero_coefs, str):
        return min(n_components, max(1, n_targets // 10))
    if not isinstance(n_nonzero_coefs, Integral) or n_nonzero_coefs < 1:  # fit checks it, but it may be set afterwards
        raise ValueError(
            f"n_nonzero_coefs={n_nonzero_coefs!r} is no number of atoms. Give a whole number of at least 1, 'auto' or "
            "None."
        )
    if n_nonzero_coefs > n_components and warn:
        warnings.warn(
            f"n_nonzero_coefs={n_nonzero_coefs} is larger than n_components={n_components}: every row uses at most "
            f"{n_components} atoms. Lower n_nonzero_coefs or raise n_components to silence this.",
            UserWarning,
            stacklevel=2,
        )
    return min(n_components, int(n_nonzero_coefs))


def check_projective_options(est):
    """Refuse combinations of a projective dictionary's parameters that cannot mean anything."""
    score_free = est.penalty in ("exact", "ridge") if isinstance(est.penalty, str) else False
    if est.quota is not None and score_free:
        raise ValueError(
            f"quota={est.quota!r} limits importance scores, but penalty={est.penalty!r} does not use them. Set "
            "quota=None or a penalty that depends on the score, such as 'inverse_square'."
        )
    if est.selection == "budget":
        if est.penalty == "exact":
            raise ValueError(
                "selection='budget' counts effective dimensions, which are all 1 with penalty='exact'. Use "
                "selection='top_k' (n_nonzero_coefs is the budget), or another penalty."
            )
        if est.dimension_budget is None:
            raise ValueError("selection='budget' needs dimension_budget, a positive number; got None.")
    if est.selection == "threshold" and est.n_nonzero_coefs is None:
        raise ValueError(
            "selection='threshold' learns the threshold that n_nonzero_coefs atoms a row exceed on average; got "
            "n_nonzero_coefs=None. Give a number or 'auto'."
        )
    if est.selection == "adaptive":
        _check_adaptive(est)
    if est.encoder_loss == "penalty" and score_free and not est.tied:
        raise ValueError(
            f"encoder_loss='penalty' trains the encoder through the penalty, but penalty={est.penalty!r} passes it no "
            "gradient: an untied encoder would never move. Use encoder_loss='coefficients', tied=True, or a penalty "
            "that depends on the score."
        )
    if est.target == "y" and est.n_refinements:
        raise ValueError(
            f"n_refinements={est.n_refinements} selects atoms by their fit to the target, which prediction from X does "
            "not know. Set n_refinements=0 with target='y'."
        )


def _check_adaptive(est):
    """Atoms are taken out of more than are to stay, by what the target says."""
    for name, refused, remedy in (
        ("n_nonzero_coefs", est.n_nonzero_coefs is None, "a number or 'auto'"),
        ("target", est.target == "y", "target='X'"),
        ("candidate_factor", est.candidate_factor == 1, "a factor above 1"),
    ):
        if refused:
            raise ValueError(
                "selection='adaptive' takes atoms out of candidate_factor times n_nonzero_coefs candidates by how much "
                f"the target misses them; got {name}={getattr(est, name)!r}. Give {remedy}, or set selection='top_k'."
            )


def check_choice(n_candidates, k, n_components):
    """A number of atoms that is met on average needs more to choose from, if there are more."""
    if n_candidates <= k < n_components:
        raise ValueError(
            f"selection='adaptive' leaves k = {k} atoms a row on average and has {n_candidates} candidates to choose "
            "from. Set a larger candidate_factor, or selection='top_k'."
        )


def check_tied(est, *, n_features, n_targets):
    """A tied encoder reads what the dictionary writes."""
    if est.tied and n_features != n_targets:
        raise ValueError(
            f"tied={est.tied!r} uses the dictionary as encoder, so X and y need as many columns; got {n_features} and "
            f"{n_targets}. Set tied=False."
        )


def check_batch_selection(est):
    """A batch shares out a number of coefficients."""
    if est.selection == "batch" and est.n_nonzero_coefs is None:
        raise ValueError(
            "selection='batch' shares n_nonzero_coefs times the number of rows among the rows of a batch; got "
            "n_nonzero_coefs=None. Give a number or 'auto', or set selection='row'."
        )


def check_prediction(est):
    """A skip needs a second view, and a surrogate something that a skip has not explained already."""
    if est.skip and est.target == "X":
        raise ValueError(
            "skip=True adds a linear map of X to the dictionary, which with target='X' would be the identity and leave "
            "nothing to explain. Set skip=False, or target='y' with another view as y."
        )
    if est.skip and est.target == "y" and est.predict_mode == "surrogate":
        raise ValueError(
            "predict_mode='surrogate' projects a linear map of X, and skip=True takes just that off the target before "
            "the dictionary sees it. Set skip=False, or predict_mode='regressed' or 'additive'."
        )


def check_mean_number(est):
    """A penalty is steered towards a number of atoms."""
    if est.alpha == "auto" and est.n_nonzero_coefs is None:
        raise ValueError(
            "alpha='auto' steers the penalty towards n_nonzero_coefs atoms a row; got n_nonzero_coefs=None. Give a "
            "number or 'auto', or a number for alpha."
        )


def _every_score_decides(est):
    """Parameters under which no known number of scores decides: ``(name, value, what it would have to be)``."""
    for name, value, wanted in (
        ("n_nonzero_coefs", est.n_nonzero_coefs, "a number or 'auto'"),
        ("selection", getattr(est, "selection", "top_k"), "'top_k', 'budget' or 'row'"),
        ("prefix_sizes", getattr(est, "prefix_sizes", None), "None"),
    ):
        ruled_out = {"n_nonzero_coefs": value is None, "selection": value in ("threshold", "batch")}
        if ruled_out.get(name, value is not None):
            yield name, value, wanted


def check_selection_dtype(est):
    """Low-precision selection rescores a known number of candidates: refuse rules that have none."""
    if est.selection_dtype in (None, "auto"):
        return
    for name, value, wanted in _every_score_decides(est):
        raise ValueError(
            f"selection_dtype={est.selection_dtype!r} scores a known number of candidates again in full precision, "
            f"which needs {name} to be {wanted}; got {name}={value!r}. Set selection_dtype=None."
        )


def training_dtype(est):
    """The ``selection_dtype`` of training, where "auto" leaves exact what it cannot serve."""
    return None if est.selection_dtype == "auto" and any(_every_score_decides(est)) else est.selection_dtype


def coding_dtype(est):
    """The ``selection_dtype`` of codes, which "auto" leaves exact."""
    return None if est.selection_dtype == "auto" else est.selection_dtype


def resolve_prefixes(prefix_sizes, n_components, k):
    """Nested prefixes of the dictionary as (size, atoms a row), the whole dictionary last.

    A prefix of m of p atoms selects ``k sqrt(m / p)`` atoms a row, at least 1.
    """
    whole = [(n_components, k)]
    if prefix_sizes is None:
        return whole
    whole_numbers = all(isinstance(m, Integral) for m in prefix_sizes)
    sizes = [int(m) for m in prefix_sizes]
    ordered = whole_numbers and sizes == sorted(set(sizes)) and min(sizes, default=1) >= 1
    if not ordered or (sizes and sizes[-1] > n_components):
        raise ValueError(
            "prefix_sizes must be increasing positive whole numbers, none above the number of atoms "
            f"({n_components}); got {prefix_sizes!r}."
        )
    return [
        (m, None if k is None else min(m, max(1, round(k * math.sqrt(m / n_components)))))
        for m in sizes
        if m < n_components
    ] + whole


def check_initial_components(components, n_components, n_targets):
    """Validate the result of ``init`` when it is an array or callable; rows of norm 0 are refused."""
    components = np.asarray(to_numpy(components), dtype=np.float64)
    if components.shape != (n_components, n_targets):
        raise ValueError(
            f"init must give an array of shape (n_components, n_targets) = {(n_components, n_targets)}, got shape "
            f"{components.shape}."
        )
    norms = np.linalg.norm(components, axis=1)
    if not np.all(np.isfinite(norms)) or np.any(norms == 0):
        row = int(np.argmin(np.isfinite(norms) & (norms > 0)))
        raise ValueError(f"init must give finite atoms of positive norm; row {row} has norm {norms[row]}.")
    return components / norms[:, None]


def check_sparse_output(X):
    """CSR codes exist for NumPy only."""
    if not is_numpy_namespace(array_namespace(X)):
        raise TypeError(
            f"sparse_output=True needs NumPy input, got an array of {array_namespace(X).__name__}: other namespaces "
            "have no CSR arrays. Set sparse_output=False."
        )
