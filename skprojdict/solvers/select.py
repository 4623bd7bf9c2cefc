# SPDX-License-Identifier: BSD-3-Clause
"""Selection: which atoms explain a row, from its encoder scores alone. No rule here mixes rows."""

from typing import Any, NamedTuple

from .._array import array_namespace, is_torch_namespace, on_cpu, take_along_rows, top_k
from .._chunks import chunk_rows
from .._memory import uninitialised
from .._products import affine, multiplies_bfloat16
from .compiled_rows import compiled_pays, rescore_compiled, rescoring_pays
from .penalties import precisions
from .ridge import prefix_dimensions, sampled_products

# Rules whose proposals are cut down by what the target says.
PRUNED = ("top_k", "adaptive")


class Support(NamedTuple):
    """Selected atoms of each row, by descending score.

    ``indices`` (n, K) int64; ``scores`` (n, K); ``active`` (n, K) bool, False for padding, which comes last;
    ``added`` (n, K) bool or None: atoms that a refinement step brought in.
    """

    indices: Any
    scores: Any
    active: Any
    added: Any = None


# Atoms in low precision that exist at a time. On matrix units a product with a power of two of them is faster by a
# third than one with some more, and one with so few that threads find too little to share takes twice as long.
CAST_BYTES = 1 << 23
# In low precision a dictionary is scored that has so many times the atoms of those that are scored again, of so many
# columns at least, whose product is then what a step spends its time on.
MANY_ATOMS, MANY_COLUMNS = 32, 128


def n_scored_again(n_exact):
    """How many of a row's scores are computed again so that its ``n_exact`` largest are sure to be right."""
    return n_exact + n_exact // 2 + 16 if n_exact else 0


def trained_dtype(selection_dtype, encoder, n_exact, n_rows):
    """The ``selection_dtype`` of training steps that "auto" stands for; any other as it is.

    "bfloat16" for float32 on a processor with units for it, where atoms are many and kernels score again; else None.

    Parameters
    ----------
    selection_dtype : {"auto", "bfloat16", "float16"} or None
    encoder : torch.Tensor of shape (p, m)
    n_exact : int or None
        See :func:`score_all`.
    n_rows : int
        Rows of a step.
    """
    if selection_dtype != "auto":
        return selection_dtype
    if n_exact is None or encoder.device.type != "cpu" or str(encoder.dtype) != "torch.float32":
        return None
    n_again = n_scored_again(n_exact)
    large = encoder.shape[0] >= MANY_ATOMS * n_again and encoder.shape[1] >= MANY_COLUMNS
    return "bfloat16" if large and compiled_pays(encoder, n_rows, n_again) and multiplies_bfloat16() else None


def score_all(inputs, encoder, bias, *, selection_dtype=None, n_exact=None, chunk_size="auto"):
    """Scores ``E a + b`` of every atom.

    With a ``selection_dtype`` the product is taken in that precision, a margin of candidates beyond the ``n_exact``
    largest is scored again in full precision, and all other scores are held below those: the ``n_exact`` largest are
    exact, and differ from those of full precision only where scores are closer than the rounding. Only torch has such
    products; other namespaces score exactly.

    Parameters
    ----------
    inputs : array of shape (n, m)
    encoder : array of shape (p, m)
    bias : array of shape (p,) or None
        None: 0.
    selection_dtype : {"bfloat16", "float16"}, default=None
        None: full precision throughout.
    n_exact : int, default=None
        How many of the largest scores of a row must be right; None: all. 0: they only propose.

    Returns
    -------
    scores : array of shape (n, p)
    """
    xp = array_namespace(inputs)
    p = encoder.shape[0]
    n_again = p if n_exact is None else n_scored_again(n_exact)
    if selection_dtype is None or n_again >= p or not is_torch_namespace(xp):
        return affine(inputs, encoder, bias)
    low = getattr(xp, selection_dtype)
    scores = uninitialised((inputs.shape[0], p), inputs)  # first, so that what is free afterwards lies in one piece
    proposed, size = uninitialised(scores.shape, inputs, dtype=low), None
    if selection_dtype == "float16":  # whose range rows of another size than most would leave
        size = inputs.abs().amax(1, keepdim=True)
        size = xp.where((size > 0) & xp.isfinite(size), size, xp.ones_like(size))
    _low_product(inputs if size is None else inputs / size, encoder, proposed)
    if n_again and rescoring_pays(proposed, inputs, encoder, n_again):
        shift = encoder.new_zeros(p) if bias is None else bias
        rescore_compiled(proposed, inputs, encoder, shift, n_again, scores)
        return scores
    # The passes over all scores run on blocks that stay in the cache.
    for rows in chunk_rows(inputs.shape[0], p * scores.element_size(), "auto", inputs):
        block = scores[rows, ...].copy_(proposed[rows, ...])
        if size is not None:
            block.mul_(size[rows, ...])
        if bias is not None:
            block.add_(bias)
        if not n_again:
            continue
        candidates = top_k(block, n_again)[1]
        exact = sampled_products(encoder, candidates, inputs[rows, ...], chunk_size=chunk_size)
        exact = exact if bias is None else exact + bias[candidates]
        bound = xp.min(exact, axis=1, keepdims=True)
        xp.minimum(block, xp.nextafter(bound, xp.full_like(bound, -float("inf"))), out=block)
        block.scatter_(1, candidates, exact)
    return scores


def _low_product(inputs, encoder, out):
    """``inputs @ encoder.T`` in the dtype of ``out``, by as many atoms at a time as the host's cache holds in it."""
    size = encoder.shape[0]
    if on_cpu(out):
        size = max(256, 1 << (CAST_BYTES // (encoder.shape[1] * out.element_size())).bit_length() - 1)
    rows = _cast(inputs, out.dtype)
    for atoms, place in zip(encoder.split(size), out.split(size, dim=1), strict=True):
        array_namespace(out).mm(rows, _cast(atoms, out.dtype).T, out=place)


def _cast(values, dtype):
    """The same tensor in another dtype, in memory that is used again where there is any."""
    return uninitialised(values.shape, values, dtype=dtype).copy_(values)


def select(scores, k, *, selection="top_k", threshold=0.0, positive=True):
    """Select atoms by their scores.

    Parameters
    ----------
    scores : array of shape (n, p)
        Encoder scores.
    k : int or None
        Number of atoms at most; None: every one that the rule admits.
    selection : {"top_k", "adaptive", "budget", "threshold"}
        "top_k", "adaptive" and "budget" admit scores above 0 ("budget" then drops what does not fit, in
        :func:`fit_budget`; "adaptive" what is missed too little, in :func:`skprojdict.solvers.refine.prune`);
        "threshold" admits scores above ``threshold``, however many.
    threshold : float or array of shape (p,)
        The threshold of that rule, for all atoms or for each; an array must not be negative.
    positive : bool, default=True
        False: "top_k" and "adaptive" take the k largest scores whatever their sign.

    Returns
    -------
    support : Support

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.select import select
    >>> support = select(np.array([[0.3, -1.0, 0.9, 0.1]]), 2)
    >>> np.sort(support.indices), support.active
    (array([[0, 2]]), array([[ True,  True]]))
    """
    xp = array_namespace(scores)
    p = scores.shape[1]
    floor = 0.0
    if selection == "threshold":
        by_atom = hasattr(threshold, "shape")
        floor = 0.0 if by_atom else max(threshold, 0.0)
        if by_atom:  # those that stay below their own rank last
            scores = xp.where(scores > threshold, scores, xp.zeros_like(scores))
    if selection == "threshold" or k is None:
        counts = xp.sum(xp.astype(scores > floor, xp.int64), axis=1)
        k = max(1, int(xp.max(counts))) if scores.shape[0] else 1
    values, indices = top_k(scores, min(k, p))
    active = values > floor if positive or selection not in PRUNED else xp.ones_like(values, dtype=xp.bool)
    return Support(indices, values, active)


def fit_budget(support, components, budget, *, measure="estimate", chunk_size="auto", **penalty):
    """Keep the longest prefix of each row's atoms whose effective dimension fits the budget.

    Parameters
    ----------
    support : Support
        Atoms by descending score.
    components : array of shape (p, d)
        Atoms.
    budget : float
        Effective dimension of each row at most.
    measure : {"estimate", "exact"}
        "estimate": the paper's ``sum s / (1 + s)``, an upper bound for unit-norm atoms, so the budget is never
        exceeded. "exact": the trace of the hat matrix of each prefix.
    chunk_size : int or "auto", default="auto"
        See :func:`~skprojdict.solvers.ridge.project`.
    **penalty
        Passed to :func:`precisions`. With a quota the precisions are those of the whole support.

    Returns
    -------
    support : Support

    References
    ----------
    Sklar (2024), section 6: "only selecting as many dimensions as will fit under a certain total budget".

    Examples
    --------
    >>> import numpy as np
    >>> from skprojdict.solvers.select import fit_budget, select
    >>> support = select(np.array([[3.0, 2.0, 1.0]]), 3, selection="budget")
    >>> fit_budget(support, np.eye(3), 1.8, penalty="inverse_square").active  # 9/10, 4/5, 1/2
    array([[ True,  True, False]])
    """
    xp = array_namespace(support.scores)
    s = precisions(support.scores, support.active, added=support.added, **penalty)
    if measure == "estimate":
        used = xp.cumulative_sum(s / (1 + s), axis=1)
    else:
        used = prefix_dimensions(components, support.indices, s, chunk_size=chunk_size)
    slack = 8 * float(xp.finfo(s.dtype).eps) * s.shape[1]
    return support._replace(active=support.active & (used <= budget + slack))


def keep_best(support, ranking, k):
    """Keep the k active atoms of each row that rank highest; they come out in that order."""
    xp = array_namespace(ranking)
    lowest = xp.full_like(ranking, -float("inf"))
    values, order = top_k(xp.where(support.active, ranking, lowest), min(k, ranking.shape[1]))
    return Support(
        take_along_rows(support.indices, order),
        take_along_rows(support.scores, order),
        values > -float("inf"),
        None if support.added is None else take_along_rows(support.added, order),
    )
