# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Denoising a photograph
===============================

A dictionary learned on the noisy patches themselves explains what they have in common; noise has nothing in common with
itself. Every patch is coded, and the reconstructions of all patches that cover a pixel are averaged (Elad and Aharon,
2006).

Two ways to decide how many atoms a patch deserves: as many as bring its residual down to the level of the noise, which
the pursuit of :class:`~skprojdict.MethodOfOptimalDirections` does with ``coder_tol``; or a small number: the same for
every patch in a TopK autoencoder, the same on average in a projective dictionary, where patches with more to explain
get more.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d, reconstruct_from_patches_2d

from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning

PATCH, SIGMA = 8, 25 / 255
clean = load_sample_image("china.jpg")[64:192, 200:344].mean(axis=2) / 255
noisy = clean + np.random.default_rng(0).normal(scale=SIGMA, size=clean.shape)

patches = extract_patches_2d(noisy, (PATCH, PATCH)).reshape(-1, PATCH**2)
brightness = patches.mean(axis=1, keepdims=True)
X = patches - brightness


def psnr(image):
    """Peak signal-to-noise ratio in decibels; white is 1."""
    return -10 * np.log10(np.mean((image - clean) ** 2))


def denoise(model):
    """Reconstruct all patches, then average those that overlap."""
    restored = model.inverse_transform(model.transform(X)) + brightness
    return reconstruct_from_patches_2d(restored.reshape(-1, PATCH, PATCH), clean.shape)


# %%
# The error at which a patch is as good as its noise allows is :math:`64\,(1.15\,\sigma)^2`, as in the paper of Elad and
# Aharon.
options = {"n_components": 100, "random_state": 0}
models = {
    "MOD, until the noise is left": MethodOfOptimalDirections(
        **options, n_nonzero_coefs=16, coder_tol=PATCH**2 * (1.15 * SIGMA) ** 2, max_iter=3
    ),
    "Projective, k = 2": ProjectiveDictionaryLearning(**options, n_nonzero_coefs=2, max_steps=120),
    "TopK autoencoder, k = 2": TopKDictionaryLearning(**options, n_nonzero_coefs=2, max_steps=120),
}
rng = np.random.default_rng(0)
training = X[rng.choice(X.shape[0], 4000, replace=False)]
restored = {name: denoise(model.fit(training)) for name, model in models.items()}

# %%
figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained")
pictures = {"Clean": clean, "Noisy": noisy, **restored}
for ax, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_title(name if picture is clean else f"{name}: {psnr(picture):.2f} dB", fontsize=10)
n_atoms = np.count_nonzero(models["MOD, until the noise is left"].transform(X), axis=1)
image = axes[1, 2].imshow(n_atoms.reshape(clean.shape[0] - PATCH + 1, -1), cmap="gray")
axes[1, 2].set_title("MOD: atoms of the patch at this place", fontsize=10)
figure.colorbar(image, ax=axes[1, 2], label="Atoms (count)", shrink=0.8)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# The pursuit that knows the noise wins: sky gets no atom at all, and roofs get many. Of the two that have two atoms a
# patch, everywhere or on average, the projection is ahead.
for name, picture in restored.items():
    print(f"{name:30s} {psnr(picture):.2f} dB")
