# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Fidelity against sparsity
===============================

A larger k always explains more, so methods are compared along the whole curve: at the same k, how much is left
unexplained; or, for the same rest, how many coefficients it takes.
"""

# %%
# Patches of two photographs. Nobody knows how many atoms such a patch has, so the whole curve is what there is to see.
import matplotlib.pyplot as plt

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.datasets import load_image_patches
from skprojdict.plotting import FidelitySparsityDisplay

X = load_image_patches((8, 8), n_patches=1_500, columns=(0.0, 0.75), random_state=0)
X_test = load_image_patches((8, 8), n_patches=1_000, columns=(0.75, 1.0), random_state=0)

options = {"n_components": 128, "max_steps": 36, "random_state": 0}
methods = {
    "TopK autoencoder": TopKDictionaryLearning(**options),
    "projective": ProjectiveDictionaryLearning(**options),
    "MOD": MethodOfOptimalDirections(128, max_iter=2, random_state=0),
}

# %%
# ``from_grid`` fits a clone of each for every k. (``from_estimator`` with several k asks one fitted dictionary for all
# of them, which is faster and a little worse.)
display = FidelitySparsityDisplay.from_grid(
    list(methods.values()), X, X_test, n_nonzero_coefs=[1, 2, 4, 8], names=list(methods)
)
display.ax_.set_title("Held-out rows, a dictionary for each k")
plt.show()

# %%
# Read it across, too: what the projection explains with four atoms takes the autoencoder about eight. The pursuit of
# MOD tries every atom for every coefficient, and may give it either sign. The numbers are kept.
for name, k, fvu in zip(display.names, display.n_nonzero, display.fvu, strict=True):
    print(f"{name:20s} {k:5.2f} {fvu:.4f}")
