# SPDX-License-Identifier: BSD-3-Clause
"""Train sparsify's TopK autoencoder step by step, and leave the folder that sparsify itself writes.

    .venv-bench/bin/python benchmarks/peers/sparsify_folder.py ROWS.npy FOLDER P K STEPS BATCH RATE SEED

The rows are used as they are. Steps, warm-up and decay are those of ``autoencoders.sparsify``.
"""

import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import stubs  # noqa: E402

stubs.install()

import torch  # noqa: E402
from _rows import schedule  # noqa: E402
from sparsify import SparseCoder, SparseCoderConfig  # noqa: E402


def main(path, folder, n_components, k, n_steps, batch_size, learning_rate, seed):
    rows = np.load(path, mmap_mode="r")
    torch.manual_seed(seed)
    coder = SparseCoder(rows.shape[1], SparseCoderConfig(num_latents=n_components, k=k))
    steps = torch.optim.Adam(coder.parameters(), lr=learning_rate)
    rate = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: schedule(step, n_steps))
    rng = np.random.RandomState(seed)
    for number in range(n_steps):
        chosen = np.sort(rng.choice(len(rows), batch_size, replace=False))
        batch = torch.from_numpy(rows[chosen].astype(np.float32))
        if number == 0:
            coder.b_dec.data = batch.mean(dim=0)
        coder.set_decoder_norm_to_unit_norm()
        coder(batch).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        steps.step()
        steps.zero_grad()
        rate.step()
    coder.set_decoder_norm_to_unit_norm()
    coder.save_to_disk(folder)


if __name__ == "__main__":
    source, target, *sizes, rate, seed = sys.argv[1:]
    main(source, target, *map(int, sizes), float(rate), int(seed))
