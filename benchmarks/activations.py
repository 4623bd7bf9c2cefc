# SPDX-License-Identifier: BSD-3-Clause
"""Fidelity on a file of activations: every form of the paper, held-out fraction of variance unexplained.

    python benchmarks/activations.py --data activations.npy

trains each form on all rows but the last ``--test-rows``, for ``--steps`` minibatches of 1024 rows, and writes
``benchmarks/results/activations.md``.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import sklearn
import torch

import skprojdict
from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning
from skprojdict.datasets import load_image_patches
from skprojdict.metrics import fraction_of_variance_unexplained, l0

FORMS = {
    "TopK autoencoder": (TopKDictionaryLearning, {}),
    "projective, defaults": (ProjectiveDictionaryLearning, {}),
    "projective, candidate_factor=1": (ProjectiveDictionaryLearning, {"candidate_factor": 1.0}),
    "tied exact (paper, section 4), candidate_factor=1": (
        ProjectiveDictionaryLearning,
        {"tied": True, "encoder_loss": "penalty", "candidate_factor": 1.0},
    ),
    "lambda = e^-2, no quota (paper, literal)": (
        ProjectiveDictionaryLearning,
        {"penalty": "inverse_square", "encoder_loss": "penalty", "candidate_factor": 1.0},
    ),
    "lambda = e^-2, scores at fixed norm (section 6)": (
        ProjectiveDictionaryLearning,
        {"penalty": "inverse_square", "quota": "normalize", "encoder_loss": "penalty", "candidate_factor": 1.0},
    ),
    "tied exact (paper, section 4)": (ProjectiveDictionaryLearning, {"tied": True, "encoder_loss": "penalty"}),
    "tied, regressing": (ProjectiveDictionaryLearning, {"tied": True}),
    "projective, n_refinements=1 at fit too": (ProjectiveDictionaryLearning, {"n_refinements": 1}),
}
REFINED = (0, 1, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help=".npy file of rows, memory-mapped; default: 16 x 16 patches of photographs")
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--n-components", type=int, default=3072)
    parser.add_argument("--n-nonzero-coefs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="forms whose name starts with one of these")
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "activations.md"))
    args = parser.parse_args()

    if args.data:
        X, source = np.load(args.data, mmap_mode="r"), Path(args.data).name
    else:
        X, source = load_image_patches((16, 16), n_patches=80_000, random_state=args.seed), "image patches"
    train, test = X[: -args.test_rows], X[-args.test_rows :].astype(np.float32)
    lines = [
        f"# Activations: {source}, {X.shape[0]} x {X.shape[1]} {X.dtype}",
        "",
        f"skprojdict {skprojdict.__version__}, torch {torch.__version__}, scikit-learn {sklearn.__version__}, numpy "
        f"{np.__version__}, Python {platform.python_version()}; {platform.machine()}, {torch.get_num_threads()} "
        f"threads. p = {args.n_components}, k = {args.n_nonzero_coefs}, {args.steps} steps of 1024 rows, seed "
        f"{args.seed}; the last {args.test_rows} rows held out. FVU at 0, 1 and 3 refinements at transform, other "
        "parameters as trained.",
        "",
        "| form | FVU | refined once | 3 times | L0 | dead | fit seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for name, (Estimator, options) in FORMS.items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        model = Estimator(
            args.n_components,
            n_nonzero_coefs=args.n_nonzero_coefs,
            max_steps=args.steps,
            batch_size=1024,
            random_state=args.seed,
            **options,
        )
        start = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - start
        row = [name]
        for steps in REFINED:
            if steps < options.get("n_refinements", 0) or (steps and Estimator is TopKDictionaryLearning):
                row.append("")
                continue
            if Estimator is ProjectiveDictionaryLearning:
                model.set_params(n_refinements=steps)
            codes = model.transform(test)
            row.append(f"{fraction_of_variance_unexplained(test, model.inverse_transform(codes)):.4f}")
        row += [f"{l0(codes):.1f}", str(model.history_["n_dead"][-1]), f"{seconds:.0f}"]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
        Path(args.output).write_text("\n".join(lines) + "\n")  # what is done stays when a long run is cut off


if __name__ == "__main__":
    main()
