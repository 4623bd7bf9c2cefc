# SPDX-License-Identifier: BSD-3-Clause
"""The family of sparse autoencoders, the projective form and the method of optimal directions in one table.

    python benchmarks/family.py --data FILE.npy   # rows in a file, and features that are known
    python benchmarks/family.py                   # activations of a small transformer or image patches instead
    python benchmarks/family.py --quick           # few rows, steps and one rate: three minutes

Each form of ours beside the trainer of the same form in dictionary_learning. The same rows, atoms, k and number of
steps for all; ours at their defaults, the others at the best of at least four learning rates that keep about k atoms a
row. The page is ``benchmarks/results/family.md``; cells are in ``benchmarks/.cells``, so that the same command goes on
where it was cut off. ``make bench-env`` sets the peers up.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _cells import CACHE, HERE, PEER_PYTHON, Cells, Method, write_whole
from _data import real_rows
from _family_page import MOST_SURPLUS, page
from _judge import fidelity
from _methods import chosen, peer
from _plan import Plan, Settings, score
from _report import duration
from recovery import GENERATORS, N_TRUE, Truths
from recovery import K as TRUE_K

RATES = (1e-3, 2e-3, 4e-3, 8e-3)
PACKAGE = "dictionary-learning"


def ours(key, label, name, **parameters):
    return Method(key, label, "_ours:estimator", {"name": name, "parameters": parameters})


def theirs(form, name, rates):
    key, label = f"dl-{form}", f"dictionary_learning {name}"
    if form in {"topk", "batchtopk"}:
        return peer(key, label, "dictionary_learning", PACKAGE, rates, rival=True, kind=form)
    return Method(key, label, "forms:dictionary_learning", {"form": form}, (PACKAGE,), tuple(rates))


def prefixes(p):
    return [p // 8, p // 4, p // 2]


def methods_for(p, rates=RATES):
    """The rows of a table for dictionaries of p atoms: ours, the peer of each right behind it."""
    return (
        ours("projective", "projective", "ProjectiveDictionaryLearning"),
        ours("topk", "TopK", "TopKDictionaryLearning"),
        theirs("topk", "TopK", rates),
        ours("batchtopk", "BatchTopK", "TopKDictionaryLearning", selection="batch"),
        theirs("batchtopk", "BatchTopK", rates),
        ours("matryoshka", "BatchTopK, nested", "TopKDictionaryLearning", selection="batch", prefix_sizes=prefixes(p)),
        theirs("matryoshka", "Matryoshka BatchTopK", rates),
        ours("relu", "ReLU + L1", "ReLUDictionaryLearning"),
        theirs("relu", "Standard", rates),
        ours("jumprelu", "JumpReLU", "JumpReLUDictionaryLearning"),
        theirs("jumprelu", "JumpReLU", rates),
        ours("gated", "Gated", "GatedDictionaryLearning"),
        theirs("gated", "Gated", rates),
        Method("mod", "method of optimal directions", "_optimal_directions:optimal_directions"),
    )


def at_k(cell):
    """What decides between rates: the error, or where that was bought with more atoms than asked for, the surplus."""
    codings = (cell or {}).get("codings")
    if not codings:
        return float("inf")
    surplus = next(iter(codings.values()))["l0"] / cell["spec"]["arguments"]["k"]
    return score(cell) if surplus <= MOST_SURPLUS else 100 * surplus


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Methods: " + " ".join(method.key for method in methods_for(8)),
    )
    parser.add_argument("--data", type=Path, help=".npy file of rows (default: activations, or image patches)")
    parser.add_argument("--test-rows", type=int, default=5000, help="rows of it held out, the last ones (5000)")
    parser.add_argument("--n-components", type=int, default=3072, help="atoms on these rows (3072)")
    parser.add_argument("--k", type=int, default=32, help="atoms a row on these rows (32)")
    parser.add_argument("--generator", choices=list(GENERATORS), default="independent", help="known features")
    parser.add_argument("--dimensions", type=int, default=48, help="in so many dimensions (48)")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (3)")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="learning rates of the peers")
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="keys of methods; 'dl-*' works")
    parser.add_argument("--table", action="store_true", help="write the page of the cells that are there; run none")
    parser.add_argument("--quick", action="store_true", help="few rows, steps and one rate: three minutes")
    parser.add_argument("--peer-python", default=PEER_PYTHON, help="Python of the peers (.venv-bench/bin/python)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the cells (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the page (benchmarks/results/family.md)")
    return parser.parse_args(argv)


def command(args):
    """The command that makes the page, as far as it decides the numbers."""
    defaults = vars(arguments([]))
    words = ["python benchmarks/family.py"]
    for name, value in vars(args).items():
        if name in {"table", "peer_python", "cache", "output"} or value == defaults[name]:
            continue
        text = (
            value.name if isinstance(value, Path) else " ".join(map(str, value)) if isinstance(value, list) else value
        )
        words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {text}"))
    return " ".join(words)


def plans_of(args):
    """Real rows and known features, each with its methods: pairs by the name of the data."""
    seeds, steps, batch = tuple(range(args.seeds)), args.steps, args.batch_size
    p, k, truths = args.n_components, args.k, Truths(args.cache)
    if args.quick:
        seeds, steps, batch, p, k, truths = (0,), 60, 256, 128, 8, Truths(args.cache, 6000, 2000)
    data = real_rows(args.data, args.test_rows, args.quick, args.cache)
    held_out = np.asarray(data.load()[-data.test_rows :], dtype=np.float64)

    def cells(judge):
        options = {"threads": args.threads, "cache": args.cache, "peer_python": args.peer_python}
        return Cells("family", judge, together=1000, timed=False, **options)

    def known(seed):
        return truths.data(args.generator, args.dimensions, seed)

    real = Plan(
        cells(lambda spec, report, arrays: fidelity(held_out, report, arrays, most_solved=8 * k)),
        lambda seed: data,
        Settings(p, steps, batch, (k,), seeds, k, more_rates=1),
        at_k,
    )
    true = Plan(cells(truths.judge), known, Settings(N_TRUE, steps, batch, (TRUE_K,), seeds, TRUE_K, 1), at_k)
    plans = {}
    for name, plan in (
        (data.name, real),
        (f"{args.generator} features, {N_TRUE} in {args.dimensions} dimensions", true),
    ):
        methods = chosen(methods_for(plan.settings.n_components, args.rates), args.only)
        if args.quick:
            methods = [replace(method, rates=method.rates[-2:-1] or method.rates) for method in methods]
        plans[name] = plan, methods
    return plans


def main(argv=None):
    args = arguments(argv)
    plans = plans_of(args)
    output = args.output or (args.cache / "family-quick.md" if args.quick else HERE / "results" / "family.md")
    started = time.perf_counter()

    def after(spec, cell):
        asked, coding = spec["arguments"], next(iter(cell.get("codings", {}).values()), {})
        result = cell.get("why") or f"FVU {score(cell):.4f}, L0 {coding['l0']:.1f}, {cell['wall_seconds']:.0f} s"
        print(
            f"[{duration(time.perf_counter() - started)}] {spec['data']['name']} {spec['method']} seed {asked['seed']} "
            f"lr={asked['learning_rate'] or 'default'}: {result}",
            flush=True,
        )

    def write():
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page(plans, command(args)))

    try:
        for plan, methods in plans.values():
            if not args.table:
                plan.run(methods, after)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        write()
    print(f"written to {output}")


if __name__ == "__main__":
    main()
