# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
Rows larger than memory
===============================

Activations come in shards, and there is no room for all of them. ``fit`` opens a list of files and reads them in
blocks, in a random order, ahead of the step that needs them. ``partial_fit`` takes one batch from wherever you have it,
so the stream may be endless and may change.
"""

# %%
# Four files, as another program may have written them.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skprojdict import ProjectiveDictionaryLearning
from skprojdict.datasets import make_sparse_features
from skprojdict.sources import rows

data = make_sparse_features(13_000, n_features=32, n_components=64, n_nonzero=3, noise=0.02, random_state=0)
X_test = data.X[12_000:].astype(np.float32)
folder = Path(tempfile.mkdtemp())
shards = []
for number in range(4):
    shards.append(folder / f"shard-{number}.npy")
    np.save(shards[-1], data.X[3000 * number : 3000 * (number + 1)].astype(np.float16))

# %%
# By hand: two passes over all shards, batch by batch. The score of held-out rows may be asked for at any time.
model = ProjectiveDictionaryLearning(64, n_nonzero_coefs=3, learning_rate=0.02, random_state=0)
seen, scores = [], []
for epoch in range(2):
    for number, batch in enumerate(rows(shards, batch_size=256, random_state=epoch)):
        model.partial_fit(batch.astype(np.float32))
        if number % 8 == 0:
            seen.append(int(model.n_steps_) * 256)
            scores.append(1 - model.score(X_test))

# %%
# By ``fit``: the learning rate then has a schedule, because the end is known.
fitted = ProjectiveDictionaryLearning(64, n_nonzero_coefs=3, batch_size=256, max_iter=2, random_state=0).fit(shards)

figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
ax.plot(seen, scores, marker="o", markersize=4, label="partial_fit, constant rate")
ax.plot(fitted.n_steps_ * 256, 1 - fitted.score(X_test), "s", color="black", markersize=8, label="fit on the files")
ax.set_yscale("log")
ax.set_xlabel("Rows seen (count)")
ax.set_ylabel("FVU of held-out rows (share, log scale)")
ax.grid(alpha=0.3, which="both")
ax.legend()
plt.show()

# %%
for shard in shards:
    shard.unlink()
folder.rmdir()
