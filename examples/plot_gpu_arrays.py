# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Arrays on a GPU
===============================

Everything follows X: fit on a torch tensor on some device, and atoms and codes are tensors on that device. Where there
is no GPU, as where this page was built unless it says otherwise below, the same lines run on the CPU.

Array API dispatch is scikit-learn's switch. It needs ``SCIPY_ARRAY_API=1`` in the environment before SciPy is imported.
"""

# %%
import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import sklearn
import torch

from skprojdict import ProjectiveDictionaryLearning
from skprojdict.datasets import make_sparse_features

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"device: {device}")

X = make_sparse_features(4096, n_features=64, n_components=512, n_nonzero=8, random_state=0).X.astype(np.float32)
options = {"n_components": 512, "n_nonzero_coefs": 8, "max_steps": 40, "random_state": 0}

# %%
# A NumPy user names the device for the training, and gets NumPy back.
model = ProjectiveDictionaryLearning(**options, device=device).fit(X)
print(type(model.components_).__module__, model.score(X))

# %%
# A torch user hands over a tensor.
with sklearn.config_context(array_api_dispatch=True):
    tensor = torch.from_numpy(X).to(device)
    on_device = ProjectiveDictionaryLearning(**options).fit(tensor)
    codes = on_device.transform(tensor)
    print(type(codes).__module__, codes.device, on_device.score(tensor))

# %%
# Larger calls keep a GPU busy; a CPU cares little. Rows are coded in chunks either way, so memory stays bounded.


def rows_per_second(estimator, rows):
    """Median of three calls of transform."""
    times = []
    for _ in range(3):
        start = perf_counter()
        estimator.transform(rows)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return rows.shape[0] / np.median(times)


sizes = [16, 64, 256, 1024]
with sklearn.config_context(array_api_dispatch=True):
    speeds = {
        "NumPy": [rows_per_second(model, X[:n]) for n in sizes],
        f"torch, {device}": [rows_per_second(on_device, tensor[:n]) for n in sizes],
    }
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
for (name, values), marker, dash in zip(speeds.items(), "os", ("-", "--"), strict=True):
    ax.loglog(sizes, values, marker=marker, linestyle=dash, label=name)
ax.set_xlabel("Rows in one call of transform (count)")
ax.set_ylabel("Speed (rows per second)")
ax.grid(alpha=0.3, which="both")
ax.legend()
plt.show()
