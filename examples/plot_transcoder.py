# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
A transcoder: two views
===============================

With ``target="y"`` the encoder reads one view and the atoms explain another, say the input and the output of a layer.
Two questions must be kept apart. How well do the selected atoms span the output, if somebody knew it? That is the
*oracle*, ``score_projection(X, y)``. And how well is the output predicted from the input alone? That is ``score(X,
y)``. The gap is what the coefficients cannot know.
"""

# %%
# A layer to explain: a random ReLU network of one hidden layer, on sparse inputs.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LinearRegression

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.datasets import make_sparse_features

rng = np.random.default_rng(0)
X = make_sparse_features(5000, n_features=24, n_components=48, n_nonzero=3, random_state=0).X
W_in, W_out = rng.standard_normal((24, 96)) / np.sqrt(24), rng.standard_normal((96, 24)) / np.sqrt(96)
y = (np.maximum(X @ W_in - 0.1, 0) @ W_out).astype(X.dtype)
X, X_test, y, y_test = X[:4000], X[4000:], y[:4000], y[4000:]

# %%
ks = [2, 4, 8]
curves = {"TopK, predicted": [], "projective, predicted": [], "projective, oracle": []}
for k in ks:
    options = {"n_components": 96, "n_nonzero_coefs": k, "target": "y", "max_steps": 120, "random_state": 0}
    topk = TopKDictionaryLearning(**options).fit(X, y)
    projective = ProjectiveDictionaryLearning(**options).fit(X, y)
    curves["TopK, predicted"].append(1 - topk.score(X_test, y_test))
    curves["projective, predicted"].append(1 - projective.score(X_test, y_test))
    curves["projective, oracle"].append(1 - projective.score_projection(X_test, y_test))
linear = 1 - LinearRegression().fit(X, y).score(X_test, y_test)

# %%
# A linear map needs no dictionary, and is the first thing to beat. Projection makes the oracle better; what X alone can
# say of the coefficients is much the same for both.
figure, ax = plt.subplots(figsize=(6.8, 4.8), layout="constrained")
for (name, values), marker, dash in zip(curves.items(), "osD", ("-", "--", "-."), strict=True):
    ax.plot(ks, values, marker=marker, linestyle=dash, label=name)
ax.axhline(linear, color="0.4", linestyle=":", label="linear map, no dictionary")
ax.set_xlabel("Atoms a row, at most (count)")
ax.set_ylabel("Fraction of variance of y unexplained (share)")
ax.set_ylim(bottom=0)
ax.set_xticks(ks)
ax.grid(alpha=0.3)
ax.legend()
plt.show()
