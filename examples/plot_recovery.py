# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Recovering known features
===============================

A better reconstruction need not be a truer one. Where the features are known, look at both: here 96 features fire, four
a row, in 24 dimensions, and dictionaries are judged by the variance that they explain, by how close their atoms come to
the true ones, and by whether the right atoms fire.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.datasets import make_sparse_features
from skprojdict.metrics import detection_scores, match_atoms

data = make_sparse_features(6000, n_features=24, n_components=96, n_nonzero=4, noise=0.05, random_state=0)
X, X_test, truth = data.X[:5000], data.X[5000:], data.codes[5000:]

options = {"n_components": 96, "n_nonzero_coefs": 4, "random_state": 0}
models = {
    "TopK autoencoder": TopKDictionaryLearning(**options, max_steps=180),
    "projective": ProjectiveDictionaryLearning(**options, max_steps=180),
    "MOD": MethodOfOptimalDirections(**options, max_iter=15),
}

# %%
# True and learned atoms are paired one to one so that the sum of their absolute cosines is largest: a pursuit gives its
# coefficients either sign, and may find a feature upside down.
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
scores = {}
for number, (name, model) in enumerate(models.items()):
    model.fit(X)
    matching = match_atoms(model.components_, data.dictionary)
    cosines = np.abs(np.sum(model.components_[matching] * data.dictionary, axis=1))
    found = detection_scores(model.transform(X_test), truth, matching)
    scores[name] = [model.score(X_test), np.mean(cosines), found.mean_f1]
    axes[0].plot(np.sort(cosines)[::-1], linestyle=("-", "--", "-.")[number], linewidth=2, label=name)
axes[0].set_xlabel("True feature (rank)")
axes[0].set_ylabel("Absolute cosine with its atom (from 0.9)")
axes[0].set_ylim(0.9, 1.003)
axes[0].legend()
axes[0].grid(alpha=0.3)

measures = ["variance\nexplained", "mean cosine", "F1 of firing"]
width = 0.26
for number, (name, values) in enumerate(scores.items()):
    place = np.arange(3) + (number - 1) * width
    bars = axes[1].bar(
        place, values, width, label=name, hatch=("", "//", "..")[number], color=f"C{number}", edgecolor="black"
    )
    axes[1].bar_label(bars, fmt="%.2f", fontsize=8)
axes[1].set_xticks(range(3), measures)
axes[1].set_ylim(0, 1.3)
axes[1].set_ylabel("Score (share)")
axes[1].legend(loc="upper center", ncols=3, fontsize=8)
plt.show()
