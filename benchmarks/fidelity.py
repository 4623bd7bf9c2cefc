# SPDX-License-Identifier: BSD-3-Clause
"""Fidelity at equal sparsity: every form of ours and the dictionary learners of others, on real activations.

    make bench-env                                  # once: the other libraries, in an environment of their own
    python benchmarks/fidelity.py --estimate        # how many hours the full table takes here
    python benchmarks/fidelity.py                   # go on where the last run was cut off
    python benchmarks/fidelity.py --data FILE.npy   # rows of your own, the last --test-rows held out
    python benchmarks/fidelity.py --quick           # everything, tiny, in minutes

Every method gets the same number of shuffled passes over the same rows. Ours train at their defaults. Peers train at
the learning rate that is their own default and at the best of at least five, tuned at one k on one seed, with our
warm-up and decay. The same code judges all: fraction of variance unexplained (FVU) of held-out rows, the same after
least squares on the support that a method chose, mean L0, unused atoms, rows coded a second. Each cell (method, data,
k, seed, learning rate) is one file in ``benchmarks/.cells``; the table is ``benchmarks/results/fidelity-DATA.md``.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from _cells import CACHE, HERE, PEER_PYTHON, Cells, write_whole
from _data import real_rows
from _fidelity_tables import page
from _judge import fidelity
from _methods import OURS, PEERS, chosen
from _plan import Plan, Settings, score
from _report import duration


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Methods: " + " ".join(method.key for method in (*OURS, *PEERS))
    )
    parser.add_argument("--data", help=".npy file of rows (n, d); default: activations of a small transformer")
    parser.add_argument("--test-rows", type=int, default=5000, help="rows at the end that are held out (5000)")
    parser.add_argument("--n-components", type=int, default=3072)
    parser.add_argument("--ks", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (3)")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="keys of methods; 'ours*' works")
    parser.add_argument(
        "--cell-limit", type=float, help="minutes: a cell that takes longer is not run (60; with --quick a third)"
    )
    parser.add_argument("--estimate", action="store_true", help="time a few steps of each method; print the hours")
    parser.add_argument("--table", action="store_true", help="write the table of the cells that are there; run none")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, all methods, one seed: minutes")
    parser.add_argument("--peer-python", default=PEER_PYTHON, help="Python of the peers (.venv-bench/bin/python)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the cells (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the table (benchmarks/results/fidelity-DATA.md)")
    return parser.parse_args(argv)


def settings_of(args):
    if args.quick:
        return Settings(n_components=128, n_steps=40, batch_size=256, ks=(8,), seeds=(0,), tune_k=8)
    tune_k = 32 if 32 in args.ks else sorted(args.ks)[len(args.ks) // 2]
    return Settings(
        n_components=args.n_components,
        n_steps=args.steps,
        batch_size=args.batch_size,
        ks=tuple(args.ks),
        seeds=tuple(range(args.seeds)),
        tune_k=tune_k,
    )


def main(argv=None):
    args = arguments(argv)
    settings = settings_of(args)
    methods = chosen((*OURS, *PEERS), args.only)
    if args.quick:  # one rate beside the default shows that the tuning works
        from dataclasses import replace

        methods = [replace(method, rates=method.rates[2:3]) for method in methods]
    data = real_rows(args.data, args.test_rows, args.quick, args.cache)
    test = np.asarray(data.load()[-data.test_rows :], dtype=np.float64)
    cells = Cells(
        "fidelity",
        lambda spec, report, arrays: fidelity(test, report, arrays),
        threads=args.threads,
        limit=60 * (args.cell_limit or (1 / 3 if args.quick else 60)),
        together=40 if args.quick else 1,
        cache=args.cache,
        peer_python=args.peer_python,
    )
    plan = Plan(cells, lambda seed: data, settings)
    output = args.output or (
        args.cache / f"fidelity-{data.name}.md" if args.quick else HERE / "results" / f"fidelity-{data.name}.md"
    )
    write = partial(_write, output, plan, methods)
    started, counts = time.perf_counter(), [0]

    def after(spec, cell):
        counts[0] += 1
        asked = spec["arguments"]
        rate = "default" if asked["learning_rate"] is None else f"{asked['learning_rate']:g}"
        result = cell.get("why") or f"FVU {score(cell):.4f}, {cell['wall_seconds']:.0f} s"
        print(
            f"[{duration(time.perf_counter() - started)}] {spec['method']} k={asked['k']} seed={asked['seed']} "
            f"lr={rate} steps={asked['n_steps']}: {result}",
            flush=True,
        )
        if asked["n_steps"] == settings.n_steps and counts[0] % (40 if args.quick else 1) == 0:
            write()

    try:
        if not args.quick and not args.table:
            plan.probe(methods if args.estimate else [m for m in methods if m.peer], after)
        if args.estimate:
            _print_estimate(plan, methods)
            return
        if not args.table:
            plan.run(methods, after)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        if not args.estimate:
            write()
    print(f"written to {output}")


def _write(output, plan, methods):
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, page(plan, methods))


def _print_estimate(plan, methods):
    total = 0.0
    for method, (n_cells, seconds) in plan.estimate(methods).items():
        why = plan.too_long(method, plan.settings.tune_k)
        per_cell = plan.seconds(method, plan.settings.tune_k)
        text = "unknown: the probe did not run" if seconds is None else duration(seconds)
        each = f" ({duration(per_cell)} a cell at k = {plan.settings.tune_k})" if per_cell else ""
        print(f"{method.key:24s} {n_cells:4d} cells  {why or text}{each}")
        total += seconds or 0.0
    print(f"in all {duration(total)}; a rate beyond the grid adds cells, and what is in the cache is not counted")


if __name__ == "__main__":
    main()
