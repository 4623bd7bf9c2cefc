# SPDX-License-Identifier: BSD-3-Clause
"""Starting points: atoms and encoder before training. NumPy in, NumPy out; drawn from ``random_state`` alone."""

import numpy as np


def initial_components(init, sample, n_components, rng):
    """Unit-norm starting atoms.

    Parameters
    ----------
    init : {"data", "random", "svd"}
        "data": distinct rows of the sample, then random combinations of rows where there are too few. "random":
        directions uniform on the sphere. "svd": right singular vectors of the sample, then as "data".
    sample : ndarray of shape (n, d)
        Centred rows.
    n_components : int
    rng : numpy.random.RandomState

    Returns
    -------
    components : ndarray of shape (n_components, d), float64
    """
    sample = np.asarray(sample, dtype=np.float64)
    d = sample.shape[1]
    if init == "random":
        return _unit(rng.standard_normal((n_components, d)), rng)
    parts = []
    missing = n_components
    if init == "svd":
        covariance = sample.T @ sample
        parts.append(np.linalg.eigh(covariance)[1].T[::-1][:missing])
        missing -= parts[0].shape[0]
    if missing:
        norms = np.linalg.norm(sample, axis=1)
        live = np.flatnonzero(norms > 1e-6 * norms.max(initial=0.0))
        chosen = rng.permutation(live)[:missing]
        parts.append(sample[chosen])
        missing -= chosen.shape[0]
    if missing:
        few = sample[rng.permutation(sample.shape[0])[:256]]
        parts.append(rng.standard_normal((missing, few.shape[0])) @ few)
    return _unit(np.concatenate(parts), rng)


def _unit(rows, rng):
    """Rows scaled to norm 1; a row of zeros becomes a random direction."""
    norms = np.linalg.norm(rows, axis=1)
    empty = norms <= 1e-12 * max(norms.max(initial=0.0), 1e-300)
    if empty.any():
        rows[empty] = rng.standard_normal((int(empty.sum()), rows.shape[1]))
        norms = np.linalg.norm(rows, axis=1)
    return rows / norms[:, None]


def geometric_median(sample, *, max_iter=100, tol=1e-6):
    """Point of least summed distance to the rows, by Weiszfeld's iteration.

    Minimises ``sum_i || x_i - m ||`` over m (d,).
    """
    sample = np.asarray(sample, dtype=np.float64)
    median = sample.mean(axis=0)
    for _ in range(max_iter):
        distance = np.linalg.norm(sample - median, axis=1)
        floor = 1e-12 * distance.max()
        if floor < 1e-300:  # all rows are the same
            break
        weight = 1.0 / np.maximum(distance, floor)
        update = weight @ sample / weight.sum()
        moved = np.linalg.norm(update - median)
        median = update
        if moved <= tol * max(distance.mean(), 1e-300):
            break
    return median


def linear_map(inputs, targets, *, ridge=1e-3):
    """``W`` (d, m) of least ``|| targets - inputs W^T ||^2 + r || W ||^2``, r relative to the inputs' variance."""
    inputs, targets = np.asarray(inputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    covariance = inputs.T @ inputs
    scale = np.trace(covariance) / covariance.shape[0]
    shifted = covariance + (ridge * scale if scale > 0 else 1.0) * np.eye(covariance.shape[0])
    return np.linalg.solve(shifted, inputs.T @ targets).T


def paired_start(inputs, targets, components, k, rng):
    """Random encoder rows, and the atoms that their features stand for: the mean target of the rows that fire them.

    Each row of the sample fires the k largest positive products with the encoder, ``f_j`` is the direction of the sum
    of its targets weighted by them, and one factor for the whole encoder makes the scores the best coefficients.

    Parameters
    ----------
    inputs, targets : ndarray of shape (n, m), (n, d)
        Centred sample rows.
    components : ndarray of shape (p, d)
        Atoms of features that never fire.
    k : int or None
        None: every positive product fires.
    rng : numpy.random.RandomState

    Returns
    -------
    components, encoder : ndarrays of shape (p, d), (p, m)
    """
    p = components.shape[0]
    encoder = _unit(rng.standard_normal((p, inputs.shape[1])), rng)
    sums, slabs = np.zeros_like(components), range(0, len(inputs), 1024)

    def fired(start):
        scores = np.maximum(inputs[start : start + 1024] @ encoder.T, 0)
        if k is None or k >= p:
            return scores
        return np.where(scores >= np.partition(scores, p - k, axis=1)[:, p - k, None], scores, 0)

    for start in slabs:
        sums += fired(start).T @ targets[start : start + 1024]
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    atoms = np.where(norms > 0, sums / np.where(norms > 0, norms, 1), components)
    product = energy = 0.0
    for start in slabs:
        decoded = fired(start) @ atoms
        product += float((decoded * targets[start : start + 1024]).sum())
        energy += float((decoded * decoded).sum())
    return atoms, encoder * (product / energy if energy > 0 else 0.0)
