# SPDX-License-Identifier: BSD-3-Clause
"""How well rows are reconstructed, and whether the reconstruction comes out too small."""

from .._array import array_namespace
from ._inputs import floating, matrix, undefined


def fraction_of_variance_unexplained(Y, Y_hat):
    """``sum ||y - y_hat||^2 / sum ||y - y_bar||^2`` over the rows, with y_bar the mean row of ``Y``.

    It is one minus the variance-weighted R^2: 0 for a perfect reconstruction, 1 for a constant one.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        What was to be reconstructed.
    Y_hat : array of shape (n_samples, n_targets)
        The reconstruction.

    Returns
    -------
    fvu : float
        NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where the rows of ``Y`` do not vary.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import fraction_of_variance_unexplained
    >>> fraction_of_variance_unexplained(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
    0.5
    """
    Y, Y_hat = _targets(Y, Y_hat)
    xp = array_namespace(Y, Y_hat)
    total = float(xp.sum((Y - xp.mean(Y, axis=0)) ** 2))
    if total == 0.0:
        return undefined(
            "The rows of Y do not vary, so the fraction of variance unexplained is undefined: pass two different "
            "rows at least."
        )
    return float(xp.sum((Y - Y_hat) ** 2)) / total


def shrinkage(Y, Y_hat):
    """Mean of ``||y_hat|| / ||y||`` over the rows: 1 where nothing shrinks.

    An L1 penalty makes it fall below 1, and so does every part of y that no atom can reach:
    :func:`relative_reconstruction_bias` tells the two apart. Pass targets and reconstructions without the mean row that
    the model adds, or that mean hides the effect.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        What was to be reconstructed.
    Y_hat : array of shape (n_samples, n_targets)
        The reconstruction.

    Returns
    -------
    shrinkage : float
        Rows of zeros in ``Y`` are left out; NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where no
        other is left.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    The ratio of norms that SynthSAEBench reports (SAELens 6.54, ``sae_lens.synthetic.evals``).

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import shrinkage
    >>> Y = np.array([[3.0, 4.0], [0.0, 2.0]])
    >>> shrinkage(Y, 0.75 * Y)
    0.75
    """
    Y, Y_hat = _targets(Y, Y_hat)
    xp = array_namespace(Y, Y_hat)
    norms = xp.sqrt(xp.sum(Y * Y, axis=1))
    some = norms > 0
    n_rows = int(xp.sum(xp.astype(some, xp.int64)))
    if n_rows == 0:
        return undefined("Every row of Y is zero, so nothing can shrink: pass rows that are not zero.")
    ratios = xp.sqrt(xp.sum(Y_hat * Y_hat, axis=1)) / xp.where(some, norms, xp.ones_like(norms))
    return float(xp.sum(xp.where(some, ratios, xp.zeros_like(ratios)))) / n_rows


def relative_reconstruction_bias(Y, Y_hat):
    """``sum ||y_hat||^2 / sum <y, y_hat>``: 1 for every orthogonal projection, below 1 where the coefficients shrink.

    Its inverse is the factor on the reconstruction that would minimise the squared error, so it sees no loss of norm
    that a larger reconstruction could not repair. Pass both arguments without the mean row that the model adds.

    Parameters
    ----------
    Y : array of shape (n_samples, n_targets)
        What was to be reconstructed.
    Y_hat : array of shape (n_samples, n_targets)
        The reconstruction.

    Returns
    -------
    bias : float
        NaN, with an :class:`~sklearn.exceptions.UndefinedMetricWarning`, where the two are orthogonal, as they are for
        a reconstruction of zeros.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Rajamanoharan et al. (2024), Improving Dictionary Learning with Gated Sparse Autoencoders, equation 10.

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.metrics import relative_reconstruction_bias
    >>> Y = np.array([[3.0, 4.0], [0.0, 2.0]])
    >>> relative_reconstruction_bias(Y, Y * [0.0, 1.0])  # a projection: some of Y is lost, and nothing shrinks
    1.0
    >>> relative_reconstruction_bias(Y, Y * 0.5)
    0.5
    """
    Y, Y_hat = _targets(Y, Y_hat)
    xp = array_namespace(Y, Y_hat)
    shared = float(xp.sum(Y * Y_hat))
    if shared == 0.0:
        return undefined("Y and Y_hat are orthogonal, so no factor on Y_hat would help: pass a reconstruction of Y.")
    return float(xp.sum(Y_hat * Y_hat)) / shared


def _targets(Y, Y_hat):
    Y, Y_hat = floating(matrix(Y, "Y")), floating(matrix(Y_hat, "Y_hat"))
    if tuple(Y.shape) != tuple(Y_hat.shape):
        raise ValueError(f"Y has shape {tuple(Y.shape)} and Y_hat {tuple(Y_hat.shape)}: pass arrays of one shape.")
    return Y, Y_hat
