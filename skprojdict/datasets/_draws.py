# SPDX-License-Identifier: BSD-3-Clause
"""What the generators draw alike: atoms, how often each fires, how much, and noise."""

import numpy as np

# Where atoms fire independently of each other, none fires in more than this share of the rows.
MAX_PROBABILITY = 0.5


def atoms(rng, n_components, n_features, dictionary):
    """Return random unit atoms, or the user's own, checked.

    Raises
    ------
    ValueError
        If ``dictionary`` is given and does not have shape (n_components, n_features), or is not finite.
    """
    if dictionary is None:
        dictionary = rng.standard_normal((n_components, n_features))
        return dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)
    dictionary = np.asarray(dictionary, dtype=np.float64)
    if dictionary.shape != (n_components, n_features):
        raise ValueError(
            f"dictionary has shape {dictionary.shape}, but there are {n_components} atoms and n_features={n_features}: "
            f"pass an array of shape {(n_components, n_features)}, or change the two numbers."
        )
    if not np.isfinite(dictionary).all():
        raise ValueError("dictionary has entries that are NaN or infinite: pass finite atoms.")
    return dictionary


def firing_probabilities(ranks, zipf_exponent, n_nonzero, weights=1.0):
    """Probabilities ``min(MAX_PROBABILITY, c * rank ** -zipf_exponent)`` under which a row has n_nonzero atoms.

    The constant c solves ``sum(weights * probabilities) = n_nonzero``; a weight is the number of atoms that fire, in
    the mean, when this one does.

    Raises
    ------
    ValueError
        If ``n_nonzero`` asks for more than ``MAX_PROBABILITY`` of every atom.
    """
    shares = np.asarray(ranks, dtype=np.float64) ** -float(zipf_exponent)
    weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), shares.shape)
    limit = MAX_PROBABILITY * weights.sum()
    if n_nonzero > limit:
        raise ValueError(
            f"n_nonzero={n_nonzero} is more than {limit:g}, the mean number of atoms in a row when each fires in half "
            "of the rows: lower n_nonzero, or ask for more atoms."
        )
    capped = np.zeros(shares.shape, dtype=bool)
    while not capped.all():
        left = n_nonzero - MAX_PROBABILITY * weights[capped].sum()
        constant = left / (weights * shares)[~capped].sum()
        over = ~capped & (constant * shares > MAX_PROBABILITY)
        if not over.any():
            return np.where(capped, MAX_PROBABILITY, constant * shares)
        capped |= over
    return np.full(shares.shape, MAX_PROBABILITY)


def coefficients(rng, size, magnitude_range, positive):
    """Magnitudes uniform in ``magnitude_range``; with random signs unless ``positive``.

    Raises
    ------
    ValueError
        If ``magnitude_range`` is not two numbers with 0 < low <= high.
    """
    try:
        low, high = (float(bound) for bound in magnitude_range)
        valid = 0.0 < low <= high < np.inf
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"magnitude_range must be two numbers, 0 < low <= high; got {magnitude_range!r}.")
    values = rng.uniform(low, high, size=size)
    return values if positive else values * rng.choice([-1.0, 1.0], size=size)


def codes_where(rng, fires, magnitude_range, positive):
    """Codes that are zero except where the boolean matrix ``fires`` says."""
    codes = np.zeros(fires.shape)
    codes[fires] = coefficients(rng, int(fires.sum()), magnitude_range, positive)
    return codes


def noisy(rng, X, noise):
    """X plus Gaussian noise whose norm is ``noise`` times that of X, over the whole data set."""
    if noise > 0:
        disturbance = rng.standard_normal(X.shape)
        X = X + disturbance * (noise * np.linalg.norm(X) / np.linalg.norm(disturbance))
    return X
