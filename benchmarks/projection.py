# SPDX-License-Identifier: BSD-3-Clause
"""Projection of rows on their atoms: Cholesky against conjugate gradients, milliseconds for 1024 rows.

    python benchmarks/projection.py

times ``skprojdict.solvers.ridge.project`` on random unit atoms in torch, float32, and writes
``benchmarks/results/projection.md``. Both solvers are timed in turn within one process; the median ratio is of pairs.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

import skprojdict
from skprojdict.solvers.ridge import project

SHAPES = [(384, 3072, 16), (384, 3072, 32), (384, 3072, 64), (384, 3072, 128), (768, 16384, 32), (64, 512, 128)]
CASES = [("exact", None), ("ridge, s = 10", 10.0), ("ridge, s = 900", 900.0)]

SOLVERS = {"cholesky": {}, "cg": {"solver": "cg"}, "cg8": {"solver": "cg", "cg_max_iter": 8}}


def timed(Y, F, indices, weights, **options):
    start = time.perf_counter()
    result = project(Y, F, indices, weights, **options)
    return 1e3 * (time.perf_counter() - start), result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="3 repeats")
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "projection.md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    lines = [
        "# Projection: Cholesky and conjugate gradients",
        "",
        f"skprojdict {skprojdict.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}, {args.threads} threads; {args.rows} rows, float32. The error of cg is the largest "
        "difference of a coefficient, over the largest coefficient. cg/8: stopped after 8 steps.",
        "",
        "| d | p | k | penalty | Cholesky ms | cg ms | cg / Cholesky | cg/8 / Cholesky | error of cg | of cg/8 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for d, p, k in SHAPES:
        F = torch.nn.functional.normalize(torch.randn(p, d), dim=1)
        Y = torch.nn.functional.normalize(torch.randn(args.rows, d), dim=1)
        indices = (Y @ F.T).topk(k, dim=1).indices
        for name, precision in CASES:
            weights = torch.full((args.rows, k), precision or 1.0)
            options = {"exact": precision is None}
            times = {"cholesky": [], "cg": [], "cg8": []}
            for _ in range(1 + (3 if args.quick else args.repeat)):
                for key, more in SOLVERS.items():
                    milliseconds, result = timed(Y, F, indices, weights, **options, **more)
                    times[key].append((milliseconds, result.coefs))
            reference = times["cholesky"][0][1]
            largest = reference.abs().max()
            errors = [float((times[key][0][1] - reference).abs().max() / largest) for key in ("cg", "cg8")]
            seconds = {key: [t for t, _ in runs[1:]] for key, runs in times.items()}  # the first run warms up
            ratio = {
                key: statistics.median(a / b for a, b in zip(seconds[key], seconds["cholesky"], strict=True))
                for key in ("cg", "cg8")
            }
            row = [d, p, k, name, *(f"{statistics.median(seconds[key]):.1f}" for key in ("cholesky", "cg"))]
            row += [f"{ratio['cg']:.2f}", f"{ratio['cg8']:.2f}", f"{errors[0]:.0e}", f"{errors[1]:.0e}"]
            lines.append("| " + " | ".join(map(str, row)) + " |")
            print(lines[-1], flush=True)
    Path(args.output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
