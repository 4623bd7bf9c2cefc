# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
In a Pipeline, in a grid search
===============================

Dictionaries are transformers, so a classifier can read their codes, and a search can choose their parameters: not by
how much they reconstruct, for which a larger k always wins, but by what the codes are good for.
"""

# %%
# Handwritten digits; a logistic regression sees nothing but the codes.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler

from skprojdict import ProjectiveDictionaryLearning

X, y = load_digits(return_X_y=True)
pipeline = Pipeline(
    [
        ("dictionary", ProjectiveDictionaryLearning(96, max_steps=60, random_state=0)),
        ("scale", MaxAbsScaler()),
        ("classify", LogisticRegression(max_iter=300)),
    ]
)
grid = {"dictionary__n_nonzero_coefs": [1, 3, 9], "dictionary__tied": [False, True]}
search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
print(search.best_params_, f"{search.best_score_:.3f}")

# %%
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
results = search.cv_results_
for tied, marker, dash in ((False, "o", "-"), (True, "s", "--")):
    mine = np.flatnonzero(results["param_dictionary__tied"] == tied)
    k = results["param_dictionary__n_nonzero_coefs"][mine].astype(int)
    mean, spread = results["mean_test_score"][mine], results["std_test_score"][mine]
    label = "tied encoder" if tied else "untied encoder"
    ax.errorbar(k, mean, spread, marker=marker, linestyle=dash, capsize=3, label=label)
ax.set_xlabel("Nonzero coefficients of a row, at most (count)")
ax.set_ylabel("Accuracy (share, two folds: mean, deviation)")
ax.set_xticks(grid["dictionary__n_nonzero_coefs"])
ax.grid(alpha=0.3)
ax.legend()
plt.show()
