# SPDX-License-Identifier: BSD-3-Clause
"""Recovery of known features at equal sparsity: does the better reconstruction cost the truth?

    python benchmarks/recovery.py            # the whole table; the same command goes on where it was cut off
    python benchmarks/recovery.py --quick    # one level of superposition, few steps: minutes

256 features in 96, 48 and 32 dimensions, about six a row: independent, correlated in blocks, and hierarchical (a child
implies its parent). As many atoms as features, k = 6. Every seed draws another truth, on which all methods are trained:
differences between methods are paired by seed. Ours train at their defaults, the autoencoders of other libraries at the
best of at least five learning rates, by the fraction of variance unexplained on one seed of each data set. The table is
``benchmarks/results/recovery.md``; cells are in ``benchmarks/.cells``, and ``make bench-env`` sets the peers up.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _cells import CACHE, HERE, PEER_PYTHON, Cells, Data, write_whole
from _data import save
from _judge import codes_of, fidelity
from _methods import RECOVERY_OURS, RECOVERY_PEERS, chosen
from _plan import Plan, Settings, score
from _recovery_tables import page
from _report import duration

from skprojdict.datasets import make_correlated_features, make_hierarchical_features, make_sparse_features
from skprojdict.metrics import (
    detection_scores,
    hierarchy_groups,
    hierarchy_holes,
    hierarchy_leak,
    match_atoms,
    mean_correlation_after_matching,
    uniqueness,
)

N_TRUE, K, NOISE = 256, 6, 0.05
TRAIN_ROWS, TEST_ROWS = 24_000, 6_000
COMMON = {"n_nonzero": K, "noise": NOISE, "zipf_exponent": 1.0}
GENERATORS = {
    "independent": (make_sparse_features, {"n_components": N_TRUE, "firing": "independent", **COMMON}),
    "correlated": (make_correlated_features, {"n_components": N_TRUE, **COMMON}),
    "hierarchical": (make_hierarchical_features, COMMON),
}
DIMENSIONS = (96, 48, 32)
# Equal seeds for data and models are not independent: initial weights would know something of the truth.
TRUTH_SEED = 7_000


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Methods: " + " ".join(method.key for method in (*RECOVERY_OURS, *RECOVERY_PEERS)),
    )
    parser.add_argument("--generators", nargs="+", choices=list(GENERATORS), default=list(GENERATORS))
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(DIMENSIONS))
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="keys of methods; 'ours*' works")
    parser.add_argument("--estimate", action="store_true", help="time a few steps of each method; print the hours")
    parser.add_argument("--table", action="store_true", help="write the table of the cells that are there; run none")
    parser.add_argument("--quick", action="store_true", help="48 dimensions, two seeds, few steps: minutes")
    parser.add_argument("--peer-python", default=PEER_PYTHON, help="Python of the peers (.venv-bench/bin/python)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the cells (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the table (benchmarks/results/recovery.md)")
    return parser.parse_args(argv)


class Truths:
    """Data with known features, made when they are first asked for and kept in the cache."""

    def __init__(self, cache, train_rows=TRAIN_ROWS, test_rows=TEST_ROWS):
        self.folder, self.train_rows, self.test_rows = Path(cache) / "data" / "recovery", train_rows, test_rows
        self._loaded = {}

    def data(self, generator, n_features, seed):
        name = f"{generator}-d{n_features}-s{seed}"
        rows = self.folder / f"{name}-{self.train_rows}.npy"
        if not rows.exists():
            make, options = GENERATORS[generator]
            made = make(
                self.train_rows + self.test_rows, n_features=n_features, random_state=TRUTH_SEED + seed, **options
            )
            np.savez_compressed(
                self._made(rows),
                dictionary=made.dictionary,
                on=made.codes[-self.test_rows :] != 0,
                parents=made.get("parents", np.full(len(made.dictionary), -1)),
            )
            save(rows, made.X.astype(np.float32))  # last: where the rows are, their truth is
        return Data(name, rows, self.test_rows)

    def _made(self, rows):
        rows.parent.mkdir(parents=True, exist_ok=True)
        return rows.with_suffix(".truth.npz")

    def truth(self, name):
        """Dictionary, which features are on in the held-out rows, parents; and the held-out rows."""
        if name not in self._loaded:
            rows = self.folder / f"{name}-{self.train_rows}.npy"
            with np.load(self._made(rows)) as truth:
                held_out = np.asarray(np.load(rows, mmap_mode="r")[-self.test_rows :], dtype=np.float64)
                self._loaded = {name: ({key: truth[key] for key in truth.files}, held_out)}
        return self._loaded[name]

    def judge(self, spec, report, arrays):
        """Fidelity, and what became of the known features, for each coding."""
        truth, held_out = self.truth(spec["data"]["name"])
        atoms, dictionary, parents = arrays["atoms"].astype(np.float64), truth["dictionary"], truth["parents"]
        matching = match_atoms(atoms, dictionary)
        shared = {
            "mcc": mean_correlation_after_matching(atoms, dictionary),
            "uniqueness": uniqueness(atoms, dictionary),
        }
        family = (parents >= 0).any()
        if family:
            shared["leak"] = hierarchy_leak(atoms, dictionary, parents, matching).mean
        numbers = fidelity(held_out, report, arrays)
        for name, values in numbers.items():
            codes = codes_of(report, arrays, name)
            scores = detection_scores(
                codes, truth["on"], matching, groups=hierarchy_groups(parents) if family else None
            )
            values |= {"f1": scores.mean_f1, **shared}
            if family:
                values |= {f"f1_{group}": each.mean_f1 for group, each in scores.by_group.items()}
                values["holes"] = hierarchy_holes(codes, truth["on"], parents, matching).mean
        return {name: {key: float(value) for key, value in values.items()} for name, values in numbers.items()}


def main(argv=None):
    args = arguments(argv)
    methods = chosen((*RECOVERY_OURS, *RECOVERY_PEERS), args.only)
    dimensions, seeds, steps, truths = args.dimensions, args.seeds, args.steps, Truths(args.cache)
    if args.quick:
        dimensions, seeds, steps, truths = [48], 2, 100, Truths(args.cache, 6000, 2000)
        methods = [replace(method, rates=method.rates[2:3]) for method in methods]
    settings = Settings(N_TRUE, steps, 1024, (K,), tuple(range(seeds)), K)
    cells = Cells(
        "recovery",
        truths.judge,
        threads=args.threads,
        together=1000,
        timed=False,
        cache=args.cache,
        peer_python=args.peer_python,
    )
    plans = {
        (generator, d): Plan(cells, lambda seed, generator=generator, d=d: truths.data(generator, d, seed), settings)
        for generator in args.generators
        for d in dimensions
    }
    output = args.output or (args.cache / "recovery-quick.md" if args.quick else HERE / "results" / "recovery.md")
    started = time.perf_counter()

    def after(spec, cell):
        coding = next(iter(cell.get("codings", {}).values()), {})
        result = cell.get("why") or f"FVU {score(cell):.4f}, MCC {coding['mcc']:.3f}, {cell['wall_seconds']:.0f} s"
        asked = spec["arguments"]
        print(
            f"[{duration(time.perf_counter() - started)}] {spec['data']['name']} {spec['method']} "
            f"lr={asked['learning_rate'] or 'default'} steps={asked['n_steps']}: {result}",
            flush=True,
        )

    if args.estimate:
        first = next(iter(plans.values()))
        first.probe(methods, after)
        seconds = [left for _, left in first.estimate(methods).values()]
        print(f"about {duration(len(plans) * sum(left or 0.0 for left in seconds))} for {len(plans)} data sets")
        return
    try:
        for plan in plans.values():
            if not args.table:
                plan.run(methods, after)
                _write(output, plans, methods)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        _write(output, plans, methods)
    print(f"written to {output}")


def _write(output, plans, methods):
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, page(plans, methods))


if __name__ == "__main__":
    main()
