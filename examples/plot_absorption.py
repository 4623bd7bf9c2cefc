# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Absorption in a toy hierarchy
===============================

A child feature implies its parent: every red thing has a colour. A sparse code can save a coefficient by an atom that
is child and parent in one, used where the child is on, and a parent's atom that stays silent there. Nothing in the
reconstruction tells: the feature "coloured" then has a hole wherever a thing is red.

Here an autoencoder and a projective dictionary both absorb, at very different errors (where there are hundreds of
features, better selection absorbs more: see the page on choosing parameters). A penalty on the overlap of atoms that
fire together pushes back.
"""

# %%
# Six parents with two children each, and six features without relatives, in 24 dimensions.
import matplotlib.pyplot as plt
import numpy as np

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.datasets import make_hierarchical_features
from skprojdict.metrics import hierarchy_holes, hierarchy_leak, match_atoms

data = make_hierarchical_features(
    6000,
    n_features=24,
    n_parents=6,
    n_children=2,
    n_independent=6,
    n_nonzero=2.5,
    child_probability=0.35,
    zipf_exponent=0.0,
    random_state=0,
)
X, X_test, truth = data.X[:5000], data.X[5000:], data.codes[5000:]

options = {"n_components": 24, "n_nonzero_coefs": 3, "max_steps": 180, "random_state": 0}
models = {
    "TopK\nautoencoder": TopKDictionaryLearning(**options),
    "projective": ProjectiveDictionaryLearning(**options),
    "overlap\npenalty 0.3": ProjectiveDictionaryLearning(**options, overlap_penalty=0.3),
}

# %%
# *Holes*: how much more often a parent's atom is silent where a child is on than where the parent is on alone. *Leak*:
# how much closer a child's atom is to its parent than the true child is.
results, angles = {}, {}
for name, model in models.items():
    model.fit(X)
    matching = match_atoms(model.components_, data.dictionary, signed=True)
    holes = hierarchy_holes(model.transform(X_test), truth, data.parents, matching)
    leak = hierarchy_leak(model.components_, data.dictionary, data.parents, matching)
    results[name] = [1 - model.score(X_test), holes.mean, leak.mean]
    angles[name] = model.components_[matching] @ data.dictionary.T

titles = ["Fraction of variance unexplained", "Holes of the parents", "Leak of the children"]
units = ["share", "difference of two probabilities", "difference of two cosines"]
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for i, ax in enumerate(axes):
    bars = ax.bar(list(results), [values[i] for values in results.values()], color="0.8", edgecolor="black")
    ax.bar_label(bars, fmt="%.2f")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_title(titles[i])
    ax.set_ylabel(units[i])
    ax.tick_params(axis="x", labelsize=8)
plt.show()

# %%
# Each learned atom (row) against all true features (column), parents first, then their children. A second dark square
# in the row of a child is its parent.
figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
for ax, name in zip(axes, ("projective", "overlap\npenalty 0.3"), strict=True):
    image = ax.imshow(np.abs(angles[name]), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(name.replace("\n", " "))
    ax.set_xlabel("True feature (number)")
    ax.set_ylabel("Atom of the feature (number)")
    for edge in (5.5, 17.5):
        ax.axhline(edge, color="C0", linewidth=0.8)
        ax.axvline(edge, color="C0", linewidth=0.8)
figure.colorbar(image, ax=axes, label="Absolute cosine (0 to 1)")
plt.show()
