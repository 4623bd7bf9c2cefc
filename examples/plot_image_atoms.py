# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Atoms of natural images
===============================

Dictionaries of small patches of photographs look like the receptive fields of the visual cortex: edges of all
orientations, at many places (Olshausen and Field, 1996). Here are those of a projective dictionary, whose encoder picks
the atoms of a patch in one product, beside those of the method of optimal directions, which searches for each atom.
"""

# %%
# Patches of the two photographs that ship with scikit-learn; the right quarter of each is held out.
import matplotlib.pyplot as plt

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning
from skprojdict.datasets import load_image_patches
from skprojdict.plotting import DictionaryDisplay, FeatureDensityDisplay

X = load_image_patches((8, 8), n_patches=4_000, columns=(0.0, 0.75), random_state=0)
X_test = load_image_patches((8, 8), n_patches=1_000, columns=(0.75, 1.0), random_state=0)

projective = ProjectiveDictionaryLearning(144, n_nonzero_coefs=5, max_steps=70, random_state=0).fit(X)
mod = MethodOfOptimalDirections(144, n_nonzero_coefs=5, max_iter=3, random_state=0).fit(X)

# %%
# Atoms in the order of their use, each scaled to its own largest entry; gray is 0.
figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
for ax, model, name in zip(axes, (projective, mod), ("Projective dictionary", "MOD"), strict=True):
    DictionaryDisplay.from_estimator(model, patch_size=(8, 8), n_atoms=144, ax=ax)
    ax.set_title(f"{name}: explains {model.score(X_test):.1%} of held-out patches")
plt.show()

# %%
# How often each atom is used. One hump, and few atoms that no patch wants, are signs of health. Code of either sign
# suits MOD here; the encoder of the projective dictionary proposes atoms whose score is positive.
figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
FeatureDensityDisplay.from_estimator(projective, X_test, name="projective", ax=ax)
FeatureDensityDisplay.from_estimator(mod, X_test, name="MOD", ax=ax)
plt.show()
