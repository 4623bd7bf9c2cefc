# SPDX-License-Identifier: BSD-3-Clause
"""What people ask of a fitted dictionary: which rows fire a feature most, how features are used, where it errs.

Those that look for rows and for usage code chunk by chunk and keep what they need of each chunk, so that neither the
data (a memory map, in half precision as well) nor the codes ever lie in memory as a whole.
"""

import math
from numbers import Integral

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from ._array import array_namespace, asarray_like, to_numpy
from .metrics import prediction_error_split, selection_skill, usage_per_feature

__all__ = ["feature_usage", "second_view_errors", "top_activating_rows"]

# Dense codes of one chunk take about this much.
CHUNK_BYTES = 64 * 2**20
# Rows of a chunk where nothing says how many features there are.
FIRST_ROWS = 1024


@validate_params(
    {
        "estimator": [HasMethods("transform")],
        "n": [Interval(Integral, 1, None, closed="left")],
        "by": [StrOptions({"coefficient", "magnitude"})],
        "chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    },
    prefer_skip_nested_validation=True,
)
def top_activating_rows(estimator, X, feature, n=10, *, by="coefficient", chunk_size="auto"):
    """Find the rows on which features have their largest coefficients.

    Parameters
    ----------
    estimator : estimator
        Fitted, with a ``transform`` that returns codes: one column a feature, zeros where it does not fire.
    X : array or dataframe of shape (n_samples, n_features)
        Rows to look through; a NumPy memory map is read one chunk at a time.
    feature : int or array of int of shape (n_asked,)
        Column of the codes to look at, or several of them, which costs no second pass.
    n : int, default=10
        How many rows to return for each feature.
    by : {"coefficient", "magnitude"}, default="coefficient"
        What is largest: the coefficient, negative ones being the smallest of all, or its absolute value.
    chunk_size : int or "auto", default="auto"
        Rows to code at once; "auto" takes as many as have dense codes of 64 MiB.

    Returns
    -------
    rows : array of int64, of shape (n_found,) or (n_asked, n)
        Numbers of the rows, those of the largest coefficients first and, of equal ones, in the order of X. Only rows
        on which the feature fires: for one feature ``n_found`` is at most ``n``; where several were asked for, a
        feature that fires on fewer rows has -1 in the places left.
    coefficients : array of the same shape
        The coefficients of the feature on these rows; 0 in places left. Both are in the library, and on the device, of
        what ``transform`` returns (NumPy for sparse codes and dataframes).

    Raises
    ------
    ValueError
        If there is no such feature.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.datasets import make_sparse_features
    >>> from skprojdict.inspection import top_activating_rows
    >>> X = make_sparse_features(500, random_state=0).X
    >>> model = TopKDictionaryLearning(64, n_nonzero_coefs=4, max_iter=5, random_state=0).fit(X)
    >>> rows, coefficients = top_activating_rows(model, X, feature=3, n=5)
    >>> bool((model.transform(X)[rows, 3] == coefficients).all())
    True
    """
    asked = _asked(feature)
    best: list[tuple[np.ndarray, np.ndarray]] = []
    codes = None
    for start, codes in _coded_chunks(estimator, X, chunk_size):
        _check_in_range(feature, asked, codes.shape[1])
        columns = _columns(codes, asked)
        if not best:
            best = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=columns.dtype))] * asked.size
        best = [_merged(*found, column, start, n, by) for found, column in zip(best, columns.T, strict=True)]
    if np.ndim(feature) == 0:
        rows, coefficients = best[0]
    else:
        rows = np.full((asked.size, n), -1, dtype=np.int64)
        coefficients = np.zeros((asked.size, n), dtype=best[0][1].dtype)
        for i, (own_rows, own_coefficients) in enumerate(best):
            rows[i, : own_rows.size], coefficients[i, : own_rows.size] = own_rows, own_coefficients
    return _beside(rows, codes, "int64"), _beside(coefficients, codes)


@validate_params(
    {
        "estimator": [HasMethods("transform")],
        "chunk_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    },
    prefer_skip_nested_validation=True,
)
def feature_usage(estimator, X, *, chunk_size="auto"):
    """How often, how strongly and with which sign each feature of a fitted dictionary fires.

    It is :func:`~skprojdict.metrics.usage_per_feature` of the codes of X, in one pass that never holds them all.

    Parameters
    ----------
    estimator : estimator
        Fitted, with a ``transform`` that returns codes: one column a feature, zeros where it does not fire.
    X : array or dataframe of shape (n_samples, n_features)
        Rows to code; a NumPy memory map is read one chunk at a time.
    chunk_size : int or "auto", default="auto"
        Rows to code at once; "auto" takes as many as have dense codes of 64 MiB.

    Returns
    -------
    usage : :class:`~sklearn.utils.Bunch`
        Arrays of shape (n_components,), all but the first in the library and on the device of what ``transform``
        returns (NumPy for sparse codes and dataframes). Averages over the rows on which a feature fires are 0 for one
        that never does.

        ``n_rows``
            NumPy array of int: rows on which the feature fires.
        ``density``
            The same as a share of the rows.
        ``mean``, ``mean_magnitude``
            Mean of the coefficient and of its absolute value, over the rows on which the feature fires.
        ``negative_share``
            Share of those rows on which the coefficient is negative.

        And numbers over all features:

        ``n_samples``
            Rows of X.
        ``l0``
            Mean number of features that fire on a row.
        ``overall_negative_share``
            Share of all coefficients that are negative, zeros apart; NaN where nothing fires.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> from skprojdict import TopKDictionaryLearning
    >>> from skprojdict.datasets import make_sparse_features
    >>> from skprojdict.inspection import feature_usage
    >>> X = make_sparse_features(500, random_state=0).X
    >>> model = TopKDictionaryLearning(64, n_nonzero_coefs=4, max_iter=5, random_state=0).fit(X)
    >>> usage = feature_usage(model, X)
    >>> usage.n_rows.shape, usage.overall_negative_share
    ((64,), 0.0)
    """
    n_samples, sums, codes = 0, np.zeros((4, 1)), None
    for _, codes in _coded_chunks(estimator, X, chunk_size):
        usage = usage_per_feature(codes)
        n_rows = usage.n_rows
        averages = [to_numpy(usage[name]) for name in ("mean", "mean_magnitude", "negative_share")]
        chunk = np.stack([n_rows, *(average * n_rows for average in averages)]).astype(np.float64)
        chunk[3] = np.rint(chunk[3])  # a count
        sums = sums + chunk
        n_samples += codes.shape[0]
    n_rows, total, magnitude, negative = sums
    fired = np.maximum(n_rows, 1)
    arrays = {
        "density": n_rows / n_samples,
        "mean": total / fired,
        "mean_magnitude": magnitude / fired,
        "negative_share": negative / fired,
    }
    return Bunch(
        n_rows=n_rows.astype(np.int64),
        **{name: _beside(values, codes) for name, values in arrays.items()},
        n_samples=n_samples,
        l0=float(n_rows.sum() / n_samples),
        overall_negative_share=float(negative.sum() / n_rows.sum()) if n_rows.sum() else math.nan,
    )


@validate_params(
    {
        "estimator": [HasMethods("transform")],
        "n_random": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def second_view_errors(estimator, X, y, *, n_random=1, random_state=None):
    """Where a fitted transcoder errs: in its choice of atoms, or in the coefficients that it predicts for them.

    It is :func:`~skprojdict.metrics.prediction_error_split` and :func:`~skprojdict.metrics.selection_skill` of the
    estimator's own predictions and projections.

    Parameters
    ----------
    estimator : ProjectiveDictionaryLearning or TopKDictionaryLearning
        Fitted with ``target="y"``.
    X : array of shape (n_samples, n_features)
        What predicts.
    y : array of shape (n_samples, n_targets)
        What is predicted.
    n_random : int, default=1
        Random supports a row for the lower end of the skill.
    random_state : int, RandomState instance or None, default=None
        For the random supports.

    Returns
    -------
    errors : :class:`~sklearn.utils.Bunch`
        ``selection``, ``prediction``, ``cross`` and ``total``, shares of the variance of y (the first three add up to
        the last); ``skill``, and ``selected``, ``random`` and ``pursued``, the shares explained that it is made of:
        with a linear skip, of the variance that the skip leaves over.

    Raises
    ------
    AttributeError
        If the estimator was made with ``target="X"``.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict import ProjectiveDictionaryLearning
    >>> from skprojdict.inspection import second_view_errors
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 8))
    >>> y = np.maximum(X @ rng.standard_normal((8, 16)), 0) @ rng.standard_normal((16, 6))
    >>> model = ProjectiveDictionaryLearning(32, n_nonzero_coefs=3, target="y", max_iter=5, random_state=0).fit(X, y)
    >>> errors = second_view_errors(model, X, y, random_state=0)
    >>> abs(errors.selection + errors.prediction + errors.cross - errors.total) < 1e-9
    True
    """
    if not hasattr(estimator, "predict"):
        raise AttributeError(
            f"second_view_errors is about predictions, and {type(estimator).__name__} makes none: its target is X. Fit "
            "it with target='y' and a second view."
        )
    check_is_fitted(estimator)
    predicted, codes = estimator.predict(X), estimator.transform(X)
    predicted, y = (array[:, None] if array.ndim == 1 else array for array in (predicted, y))
    beside = predicted - estimator.inverse_transform(codes)  # a linear skip, or rounding
    projected = estimator.inverse_transform(estimator.project(X, y)) + beside
    split = prediction_error_split(y, predicted, projected)
    rest = y - beside - estimator.mean_
    skill = selection_skill(rest, estimator.components_, codes, n_random=n_random, random_state=random_state)
    return Bunch(**split, **skill)


def _coded_chunks(estimator, X, chunk_size):
    """Yield ``(number of the first row, codes)`` over X: dense codes in their library, or CSR."""
    check_is_fitted(estimator)
    n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
    if chunk_size == "auto":
        components = getattr(estimator, "components_", None)
        chunk_size = FIRST_ROWS if components is None else max(1, CHUNK_BYTES // (8 * components.shape[0]))
    # Without rows the estimator gets X as it is: the message about that is its own.
    for start in range(0, max(1, n_samples), chunk_size):
        rows = slice(start, min(n_samples, start + chunk_size))
        # Not for dataframes and lists, which have no dtype.
        part = X[rows, ...] if hasattr(X, "dtype") else _safe_indexing(X, rows)
        codes = estimator.transform(part)
        if sparse.issparse(codes):
            codes = codes.tocsr()
        elif not hasattr(codes, "dtype"):  # set_output made a dataframe of them
            codes = to_numpy(codes)
        yield start, codes


def _asked(feature):
    """Return the features asked for, as a 1-d NumPy array of integers."""
    asked = to_numpy(feature)
    if asked.ndim > 1 or asked.size == 0 or asked.dtype.kind not in "iu":
        raise ValueError(f"feature must be an integer, or a list of some; got {feature!r}.")
    return np.atleast_1d(asked).astype(np.int64)


def _check_in_range(feature, asked, n_components):
    if not ((asked >= 0) & (asked < n_components)).all():
        raise ValueError(
            f"feature={feature!r}, but the codes have {n_components} columns: pass numbers from 0 to "
            f"{n_components - 1}."
        )


def _columns(codes, asked):
    """Columns of the codes as a dense NumPy array (n, n_asked)."""
    if sparse.issparse(codes):
        return codes[:, asked].toarray()
    xp = array_namespace(codes)
    return to_numpy(xp.take(codes, asarray_like(asked, codes, dtype=xp.int64), axis=1))


def _merged(rows, coefficients, column, start, n, by):
    """Return the first ``n`` of the best rows so far and those of another chunk, whose first row is ``start``."""
    fires = np.flatnonzero(column)
    rows = np.concatenate([rows, fires + start])
    coefficients = np.concatenate([coefficients, column[fires]])
    # Rows come in order already, and a stable sort keeps it where coefficients are equal.
    order = np.argsort(-(np.abs(coefficients) if by == "magnitude" else coefficients), kind="stable")[:n]
    return rows[order], coefficients[order]


def _beside(values, codes, dtype=None):
    """Bring an array to the library and device of dense codes, averages in their precision."""
    if sparse.issparse(codes):
        return values
    xp = array_namespace(codes)
    return asarray_like(values, codes, dtype=codes.dtype if dtype is None else getattr(xp, dtype))
