# SPDX-License-Identifier: BSD-3-Clause
"""Small data that many test files fit."""

import numpy as np


def sparse_rows(n=600, d=16, p=32, k=3, *, seed=7, noise=0.02, centre=0.3):
    """Rows of k out of p random atoms in d dimensions, with noise and a centre away from 0."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((p, d))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((n, p))
    for row in codes:
        row[rng.choice(p, k, replace=False)] = rng.uniform(0.5, 1.5, k)
    return codes @ atoms + noise * rng.standard_normal((n, d)) + centre


def scaled(model, X):
    """X in a fitted model's training units."""
    return (X - model.mean_) / model.scale_


def scores_of(model, X):
    """Encoder scores, by the formula that the attribute docs state."""
    return (X - model.encoder_mean_) / model.encoder_scale_ @ model.encoder_components_.T + model.encoder_bias_


def fvu(model, X):
    """Fraction of variance unexplained."""
    return 1 - model.score(X)
