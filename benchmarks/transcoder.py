# SPDX-License-Identifier: BSD-3-Clause
"""Transcoders: the output of a layer from its input, through k atoms.

    python benchmarks/transcoder.py --data-x X.npy --data-y Y.npy
    python benchmarks/transcoder.py            # an MLP of a small transformer, or of a small network made here
    python benchmarks/transcoder.py --quick    # few rows, steps and rates: under 3 minutes

Ours in every ``predict_mode``, with and without a linear skip, beside sparsify's plain and skip transcoders, each at
the best of at least five learning rates; an affine map; and as oracles, in a table of their own, the same dictionaries
with atoms selected by X, at random, and by orthogonal matching pursuit on y. The same command goes on where it was cut
off. ``make bench-env`` sets sparsify up.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _cells import CACHE, HERE, PEER_PYTHON, Cells, Data, Method, write_whole
from _data import save
from _methods import chosen
from _plan import Plan, Settings, score
from _report import duration
from _transcoder_judge import PairJudge, affine_map
from _transcoder_tables import page

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
PROJECTIVE, TOPK = "ProjectiveDictionaryLearning", "TopKDictionaryLearning"
OURS = (
    ("regressed", "projective, regressed (M2, default)", PROJECTIVE, {}),
    ("regressed-skip", "projective, regressed, skip", PROJECTIVE, {"skip": True}),
    ("additive", "projective, additive (M1)", PROJECTIVE, {"predict_mode": "additive"}),
    ("additive-skip", "projective, additive, skip", PROJECTIVE, {"predict_mode": "additive", "skip": True}),
    ("surrogate", "projective, surrogate (M3)", PROJECTIVE, {"predict_mode": "surrogate"}),
    ("topk", "TopKDictionaryLearning", TOPK, {}),
    ("topk-skip", "TopKDictionaryLearning, skip", TOPK, {"skip": True}),
)


def methods_for(n_inputs):
    """The rows of the tables; a cell is told where the second view begins."""
    ours = [
        Method(key, label, "_pairs:transcoder", {"n_inputs": n_inputs, "name": name, "parameters": options}, (), RATES)
        for key, label, name, options in OURS
    ]
    peers = [
        Method(key, label, "transcoders:sparsify", {"n_inputs": n_inputs, "skip": skip}, ("eai-sparsify",), RATES, True)
        for key, label, skip in (
            ("sparsify", "sparsify transcoder", False),
            ("sparsify-skip", "sparsify skip transcoder", True),
        )
    ]
    return [*peers, *ours]


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Methods: " + " ".join(method.key for method in methods_for(0))
    )
    parser.add_argument("--data-x", type=Path, help=".npy file of inputs (n, m)")
    parser.add_argument("--data-y", type=Path, help=".npy file of outputs (n, d)")
    parser.add_argument("--own", choices=["minilm", "network"], default="minilm", help="pairs made here (minilm)")
    parser.add_argument("--test-rows", type=int, default=5000, help="rows held out, the last ones (5000)")
    parser.add_argument("--n-components", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="keys of methods; '*-skip' works")
    parser.add_argument("--table", action="store_true", help="write the table of the cells that are there; run none")
    parser.add_argument("--quick", action="store_true", help="few rows, steps and rates")
    parser.add_argument("--peer-python", default=PEER_PYTHON, help="Python of the peers (.venv-bench/bin/python)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the cells (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the page (benchmarks/results/transcoder.md)")
    args = parser.parse_args(argv)
    if (args.data_x is None) != (args.data_y is None):
        parser.error("--data-x and --data-y go together: the pair is a row of each")
    return args


def pair_of(args):
    """The pairs of a run, both views side by side in one file of the cache; and the columns of the first view."""
    if args.data_x is not None:
        X, Y = (np.load(path, mmap_mode="r") for path in (args.data_x, args.data_y))
        if len(X) != len(Y):
            raise SystemExit(f"{args.data_x} has {len(X)} rows and {args.data_y} {len(Y)}: they must be pairs.")
        name = f"{args.data_x.stem}-{args.data_y.stem}"
    else:
        name, X, Y = (small_network if args.own == "network" else small_transformer)(args.test_rows)
    n_test, n = args.test_rows, len(X)
    if n <= 2 * n_test:
        raise SystemExit(f"{name} has {n} rows and {n_test} are held out: lower --test-rows.")
    if args.quick:
        name, n_test = f"{name}-quick", min(1000, n_test)
        keep = np.r_[: min(4000, n - n_test), n - n_test : n]
        X, Y = X[keep], Y[keep]
    rows = np.concatenate([X, Y], axis=1)
    return Data(name, save(args.cache / "data" / f"{name}.npy", rows), n_test), X.shape[1]


def small_transformer(test_rows):
    """Input and output of an MLP of all-MiniLM-L6-v2; those of a small network without the extra "minilm"."""
    try:
        from skprojdict.datasets import load_minilm_activations

        found = load_minilm_activations(site="mlp", dtype="float16")
    except ImportError as error:
        print(f"no transformer ({error}); a small network instead", flush=True)
        return small_network(test_rows)
    X, Y = (np.concatenate([found[f"{view}_train"], found[f"{view}_test"][-test_rows:]]) for view in "Xy")
    return "minilm-mlp", X, Y


def small_network(test_rows, *, n_train=20_000, width=64, n_hidden=256):
    """A hidden layer of a random network that reads sparse features in superposition, and what it writes."""
    from skprojdict.datasets import make_sparse_features

    X = make_sparse_features(
        n_train + test_rows, n_components=n_hidden, n_features=width, n_nonzero=6, random_state=7
    ).X
    rng = np.random.default_rng(7)
    hidden = X @ rng.standard_normal((width, n_hidden)) / np.sqrt(width)
    hidden = np.maximum(hidden - np.quantile(hidden, 0.8, axis=0), 0)  # a unit fires for a fifth of the rows
    Y = hidden @ rng.standard_normal((n_hidden, width))
    return "small-network", X.astype(np.float32), Y.astype(np.float32)


def main(argv=None):
    args = arguments(argv)
    data, n_inputs = pair_of(args)
    methods = chosen(methods_for(n_inputs), args.only)
    settings = Settings(
        args.n_components, args.steps, args.batch_size, (args.k,), tuple(range(args.seeds)), args.k, more_rates=1
    )
    if args.quick:
        methods = [replace(method, rates=method.rates[2:3]) for method in methods]
        settings = Settings(256, 60, 256, (8,), (0,), 8)
    cells = Cells(
        "transcoder",
        PairJudge(data, n_inputs),
        threads=args.threads,
        together=1000,
        timed=False,
        cache=args.cache,
        peer_python=args.peer_python,
    )
    plan = Plan(cells, lambda seed: data, settings, defaults=False)
    output = args.output or (args.cache / "transcoder-quick.md" if args.quick else HERE / "results" / "transcoder.md")
    started, affine = time.perf_counter(), affine_map(data, n_inputs)

    def after(spec, cell):
        asked = spec["arguments"]
        result = cell.get("why") or f"FVU {score(cell):.4f}, {cell['wall_seconds']:.0f} s"
        print(
            f"[{duration(time.perf_counter() - started)}] {spec['method']} seed {asked['seed']} "
            f"lr={asked['learning_rate'] or 'default'}: {result}",
            flush=True,
        )

    try:
        if not args.table:
            plan.run(methods, after)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page(plan, methods, affine, command(args)))
    print(f"written to {output}")


def command(args):
    """The command that makes the page, as far as it decides the numbers."""
    words = ["python benchmarks/transcoder.py"]
    if args.data_x is not None:
        words.append(f"--data-x {args.data_x.name} --data-y {args.data_y.name}")
    elif args.own != "minilm":
        words.append(f"--own {args.own}")
    sizes = {"n-components": 3072, "k": 32, "steps": 800, "batch-size": 1024, "seeds": 5}
    words += ["--quick"] if args.quick else []
    words += [
        f"--{name} {getattr(args, name.replace('-', '_'))}"
        for name, default in sizes.items()
        if getattr(args, name.replace("-", "_")) != default
    ]
    words += [f"--only {' '.join(args.only)}"] if args.only else []
    return " ".join(words)


if __name__ == "__main__":
    main()
