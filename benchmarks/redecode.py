# SPDX-License-Identifier: BSD-3-Clause
"""A sparsify autoencoder re-decoded by projection: FVU at the same L0, on held-out activations.

    make bench-env                                  # once: sparsify, in an environment of its own
    python benchmarks/redecode.py                   # activations of a small transformer; or --data FILE.npy

sparsify trains its TopK autoencoder and writes its folder; ``from_sae`` opens it. The table compares what sparsify's
own decoder makes of the held-out rows with projections by the same encoder and the same atoms.
"""

import argparse
import subprocess
from pathlib import Path

from _cells import CACHE, HERE, PEER_PYTHON, fingerprint, write_whole
from _data import real_rows, save
from _report import machine, table
from _rows import Rows

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.metrics import l0

CODERS = (
    ("sparsify's own decoder", TopKDictionaryLearning, {}),
    ("projection on sparsify's support", ProjectiveDictionaryLearning, {"candidate_factor": 1.0}),
    ("projection, k of 2 k candidates (the default)", ProjectiveDictionaryLearning, {}),
    ("the same, refined once", ProjectiveDictionaryLearning, {"n_refinements": 1}),
)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help=".npy file of rows (n, d); default: activations of a small transformer")
    parser.add_argument("--n-components", type=int, default=1536)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="2e-3 was the best of five at p = 3072")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "redecode.md")
    args = parser.parse_args(argv)
    data = real_rows(args.data, args.test_rows, quick=False)
    rows = Rows(data.load()[: -data.test_rows])
    test = rows.standardise(data.load()[-data.test_rows :])
    sizes = [args.n_components, args.k, args.steps, args.batch_size, args.learning_rate, args.seed]
    folder = CACHE / "redecode" / "-".join([data.name, *map(str, sizes), fingerprint([_script()])])
    if not (folder / "sae.safetensors").exists():
        train(rows, folder, sizes)
    lines = [
        "# A sparsify autoencoder, re-decoded",
        "",
        f"`python benchmarks/redecode.py --data {data.name}.npy`; {machine(1)}",
        "",
        f"sparsify's TopK autoencoder, p = {args.n_components}, k = {args.k}, {args.steps} steps of {args.batch_size} "
        f"rows, learning rate {args.learning_rate:g}; d = {rows.n_columns}, {len(test)} held-out rows of {data.name}.",
        "",
    ]
    results = []
    for label, Estimator, options in CODERS:
        model = Estimator.from_sae(folder, **options)
        results.append((label, f"{1 - model.score(test):.4f}", f"{l0(model.transform(test)):.2f}"))
        print(*results[-1], sep="  ", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.output, "\n".join([*lines, *table(("coefficients", "FVU", "L0"), results), ""]))
    print(f"written to {args.output}")


def _script():
    return HERE / "peers" / "sparsify_folder.py"


def train(rows, folder, sizes):
    if not PEER_PYTHON.exists():
        raise SystemExit(f"there is no {PEER_PYTHON}: make bench-env")
    path = save(CACHE / "redecode" / "rows.npy", rows.standardise(rows.array))
    subprocess.run([str(PEER_PYTHON), str(_script()), str(path), str(folder), *map(str, sizes)], check=True)


if __name__ == "__main__":
    main()
