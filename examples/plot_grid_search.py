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
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler

from skprojdict import ProjectiveDictionaryLearning

X, y = load_digits(return_X_y=True)
pipeline = Pipeline(
    [
        ("dictionary", ProjectiveDictionaryLearning(64, max_steps=30, random_state=0)),
        ("scale", MaxAbsScaler()),
        ("classify", LogisticRegression(max_iter=200)),
    ]
)
grid = {"dictionary__n_nonzero_coefs": [1, 4, 12], "dictionary__tied": [False, True]}
folds = StratifiedKFold(2, shuffle=True, random_state=0)
search = GridSearchCV(pipeline, grid, cv=folds).fit(X, y)
print(search.best_params_, f"{search.best_score_:.3f}")

# %%
# The same classifier on the pixels themselves sets the mark.
pixels = cross_val_score(Pipeline(pipeline.steps[1:]), X, y, cv=folds).mean()
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
results = search.cv_results_
for tied, marker, dash in ((False, "o", "-"), (True, "s", "--")):
    mine = np.flatnonzero(results["param_dictionary__tied"] == tied)
    k = results["param_dictionary__n_nonzero_coefs"][mine].astype(int)
    label = "tied encoder" if tied else "untied encoder"
    ax.plot(k, results["mean_test_score"][mine], marker=marker, linestyle=dash, label=label)
ax.axhline(pixels, color="0.3", linestyle=":", label="the 64 pixels")
ax.set_xlabel("Nonzero coefficients asked for (count a row)")
ax.set_ylabel("Accuracy (share, mean of two folds)")
ax.set_xticks(grid["dictionary__n_nonzero_coefs"])
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %%
# The mark is not reached here, but nearly so, by twelve numbers a row, each of which stands for a stroke that can be
# looked at. Tied encoders have half as many weights, which helps where rows are as few as these.
