# SPDX-License-Identifier: BSD-3-Clause
"""Two atoms in the plane: added up with an encoder's coefficients, and projected on; then the same, measured."""

import matplotlib.pyplot as plt
import numpy as np

from skprojdict import TopKDictionaryLearning
from skprojdict.datasets import make_sparse_features
from skprojdict.metrics import shrinkage
from skprojdict.solvers.ridge import project

ANGLES = np.radians([15.0, 70.0])
ATOMS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
TARGET = 0.9 * ATOMS[0] + 0.7 * ATOMS[1]


def draw_sum(ax, coefs, title):
    """The target, the two contributions head to tail, and what they miss."""
    tip = coefs @ ATOMS
    for atom in ATOMS:
        ax.plot(*np.stack([0 * atom, 1.35 * atom]).T, color="0.75", linewidth=1, zorder=0)
    corner = coefs[0] * ATOMS[0]
    arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.012, "zorder": 2}
    ax.quiver(*np.zeros(2), *corner, color="C0", **arrow)
    ax.quiver(*corner, *(tip - corner), color="C1", **arrow)
    ax.plot(*np.stack([tip, TARGET]).T, color="C3", linestyle=":", linewidth=2.5, zorder=1)
    ax.plot(*TARGET, marker="o", color="black", markersize=7, zorder=3)
    ax.plot(*tip, marker="s", color="black", markerfacecolor="white", markersize=8, zorder=4)
    ax.annotate("row $y$", TARGET, xytext=(-6, 8), textcoords="offset points", ha="right")
    if np.linalg.norm(TARGET - tip) > 0.1:
        ax.annotate(r"$\hat y$", tip, xytext=(8, -14), textcoords="offset points")
    for j, (atom, coef) in enumerate(zip(ATOMS, coefs, strict=True), 1):
        ax.annotate(f"$f_{j}$, {coef:.2f}", 1.35 * atom, xytext=(0, 3), textcoords="offset points", ha="center")
    missed = np.sum((TARGET - tip) ** 2) / np.sum(TARGET**2)
    ax.set_title(f"{title}\nmisses {100 * missed:.0f} % of $||y||^2$", fontsize=10)
    ax.set_xlim(-0.1, 1.6)
    ax.set_ylim(-0.1, 1.6)
    ax.set_aspect("equal")
    ax.set_xlabel("first coordinate")
    ax.set_ylabel("second coordinate")


def solved(weights, **options):
    """Coefficients of the target on both atoms."""
    return project(TARGET[None], ATOMS, np.array([[0, 1]]), np.array([weights]), **options).coefs[0]


def measured(ax):
    """Coefficients of a trained TopK autoencoder against least squares on the very same supports."""
    X = make_sparse_features(4000, n_features=24, n_components=48, n_nonzero=4, noise=0.02, random_state=0).X
    model = TopKDictionaryLearning(48, n_nonzero_coefs=4, max_steps=300, random_state=0).fit(X[:3000])
    codes = model.transform(X[3000:])
    support = np.argsort(-np.abs(codes), axis=1, kind="stable")[:, :4]
    given = np.take_along_axis(codes, support, axis=1)
    best = project(X[3000:] - model.mean_, model.components_, support, (given != 0).astype(X.dtype), exact=True).coefs
    there = given != 0
    ax.plot(best[there], given[there], ".", color="0.35", markersize=2)
    top = np.quantile(best[there], 0.999)
    slope = np.sum(given[there] * best[there]) / np.sum(best[there] ** 2)
    ax.plot([0, top], [0, top], color="black", label="equal")
    ax.plot([0, top], [0, slope * top], "--", color="C1", linewidth=2, label=f"slope {slope:.2f}")
    factor = shrinkage(X[3000:], model.inverse_transform(codes))
    ax.set_title(f"A trained TopK autoencoder\n(row lengths shrink to {factor:.2f})", fontsize=10)
    ax.set_xlim(0, top)
    ax.set_ylim(0, top)
    ax.set_aspect("equal")
    ax.set_xlabel("least squares on the same support\n(units of the rows)")
    ax.set_ylabel("coefficient of the encoder\n(units of the rows)")
    ax.legend(loc="upper left")


figure, axes = plt.subplots(2, 2, figsize=(8, 7.6), layout="constrained")
axes = axes.ravel()
exact = solved([1.0, 1.0], exact=True)
draw_sum(axes[0], np.array([0.55, 0.5]), "Additive: the encoder's scores\nare the coefficients")
draw_sum(axes[1], solved([5.0, 5.0]), "Ridge projection: least squares\nunder a penalty $\\lambda = 0.2$ each")
draw_sum(axes[2], exact, "Exact projection: least squares\non the selected atoms")
measured(axes[3])
plt.show()
