# SPDX-License-Identifier: BSD-3-Clause
"""The paper's five candidate purposes, each with an experiment, its number, controls and a verdict.

    python benchmarks/purposes.py              # five seeds; the same command goes on where it was cut off
    python benchmarks/purposes.py --seeds 2    # fewer seeds
    python benchmarks/purposes.py --quick      # two seeds, small sizes: minutes
    python benchmarks/purposes.py --table      # write the page of what is there; run nothing

Purposes 1 and 2 take the networks and searches of ``benchmarks/alignment.py``, trials included. Purposes 3 to 5 fit the
package's own dictionaries to rows whose features are known, and to the rows of ``--data`` where it is given; other
libraries are compared in ``fidelity.py`` and ``recovery.py``. Writes ``docs/purposes.md``; a purpose of which no trial
is in the cache keeps what the page said of it, with its date.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch load: these fits are too small to share

import alignment
from _cells import CACHE, HERE, write_whole
from _purpose_page import page

DOCS = HERE.parent / "docs"
# Learning rates of the baseline beside its default, tried on a seed that no table shows.
TOPK_RATES, TUNING_SEED = (0.002, 0.006), 100
RATES, AT_BEST = (None, *TOPK_RATES), "best"
# Sections of the alignment benchmark that purposes 1 and 2 read.
ALIGNMENT = ("Hierarchical equality", "Composed attributes", "6 independent", "48 independent", "144 independent")


@dataclass(frozen=True)
class Rows:
    """Some rows, the size of the dictionaries fitted to them, and which methods."""

    title: str
    data: str
    n_components: int
    k: int
    n_steps: int
    batch_size: int
    methods: tuple


METHODS = {
    "TopK": ("topk", {}),
    "TopK, tied": ("topk", {"tied": True}),
    "projective": ("projective", {}),
    "projective, tied": ("projective", {"tied": True}),
    "tied, exact, literal (paper, section 4)": (
        "projective",
        {"tied": True, "encoder_loss": "penalty", "candidate_factor": 1.0},
    ),
    "lambda = e^-2, scores at fixed norm (section 6)": (
        "projective",
        {"penalty": "inverse_square", "quota": "normalize", "encoder_loss": "penalty", "candidate_factor": 1.0},
    ),
    **{f"projective, overlap {rho:g}": ("projective", {"overlap_penalty": rho}) for rho in (0.03, 0.1, 0.3)},
    "projective, tied, overlap 0.1": ("projective", {"tied": True, "overlap_penalty": 0.1}),
    "MOD, OLS pursuit": ("mod", {}),
    "PCA, k dimensions": ("pca", {}),
    "true support": ("oracle", {}),
}
CORE = ("TopK", "TopK, tied", "projective", "projective, tied")
REFERENCE = ("MOD, OLS pursuit", "PCA, k dimensions", "true support")
OVERLAP = tuple(method for method in METHODS if "overlap" in method)
LITERAL = tuple(method for method in METHODS if "section" in method)
FAMILIES, FAMILY_CURE = (1.0, 0.2, 0.6), "projective, overlap 0.1"


def plan(data=None):
    """All rows of purposes 3 to 5, the most telling first."""
    every = (*CORE, *OVERLAP, *REFERENCE, *LITERAL)
    known = [
        Rows("tree in 12 dimensions", "tree:12", 20, 2, 500, 256, every),
        Rows("hierarchy", "hierarchy", 256, 6, 500, 512, every),
        Rows("tree in 20 dimensions", "tree:20", 20, 2, 500, 256, every),
        *(
            Rows(f"families, child with probability {q:g}", f"families:{q:g}", 20, 2, 500, 256, (*CORE, FAMILY_CURE))
            for q in FAMILIES
        ),
        Rows("correlated", "correlated", 50, 11, 500, 512, (*CORE, *REFERENCE)),
        Rows("tree in 12 dimensions, twice the atoms", "tree:12", 40, 2, 500, 256, CORE[::2]),
        Rows("hierarchy, twice the atoms", "hierarchy", 512, 6, 500, 512, CORE[::2]),
    ]
    real = [] if data is None else [Rows("activations", f"file:{data}", 1_024, 16, 400, 512, (*CORE, *REFERENCE[:2]))]
    return known + real


def quick(rows):
    """A small copy of the plan."""
    kept = [each for each in rows if each.data.startswith(("tree", "families:1"))]
    return [replace(each, n_steps=150, methods=tuple(m for m in each.methods if m not in LITERAL)) for each in kept]


def asked(rows, method, seed, rate=None):
    """All that decides one trial."""
    name, options = METHODS[method]
    return {
        "seed": seed,
        "data": rows.data,
        "method": name,
        "options": options if rate is None else {**options, "learning_rate": rate},
        "n_components": rows.n_components,
        "k": rows.k,
        "n_steps": rows.n_steps,
        "batch_size": rows.batch_size,
    }


def name_of(rows, method):
    return "".join(each if each.isalnum() else "-" for each in f"{rows.title}-{method}".lower())[:80]


def best_rate(trials, rows, method):
    """Learning rate of the lowest error on the tuning seed among those tried; None for the default."""
    if not is_tuned(method):
        return None
    found = {rate: trials.known(name_of(rows, method), asked(rows, method, TUNING_SEED, rate)) for rate in RATES}
    scores = {rate: trial["numbers"][""]["ev"] for rate, trial in found.items() if trial}
    return max(scores, key=scores.get) if len(scores) == len(found) else None


def is_tuned(method):
    return METHODS[method][0] == "topk"


def run(trials, rows, seeds, tune=True, minutes=None):
    """Tune the baseline and run what is not known: the three hierarchies first, of each the four core methods.

    Returns whether the time sufficed.
    """
    from _purpose_trials import dictionary

    groups = (CORE, OVERLAP, (*REFERENCE, *LITERAL))
    order = [(group, each) for part in (rows[:3], rows[3:]) for group in groups for each in part]
    for group, each in order:
        methods = [method for method in each.methods if method in group]
        todo = [(method, TUNING_SEED, rate) for method in methods if tune and is_tuned(method) for rate in RATES]
        todo += [(method, seed, AT_BEST) for seed in range(seeds) for method in methods]
        for method, seed, rate in todo:
            if minutes is not None and time.perf_counter() - trials.started > 60 * minutes:
                print("out of time: the same command goes on from here", flush=True)
                return False
            if rate is AT_BEST:
                rate = best_rate(trials, each, method)
            trials.run(dictionary, name_of(each, method), asked(each, method, seed, rate))
    return True


def results(trials, rows, seeds):
    """Known numbers: {title: {method: {seed: {coding: numbers}}}}; and the trials they are from."""
    found, used = {}, []
    for each in rows:
        table = {}
        for method in each.methods:
            rate = best_rate(trials, each, method)
            table[method] = {}
            for seed in range(seeds):
                trial = trials.known(name_of(each, method), asked(each, method, seed, rate))
                if trial is not None:
                    table[method][seed] = trial["numbers"]
                    used.append(trial)
        found[each.title] = table
    return found, used


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="real activations, a .npy file of rows; the last 6000 are held out")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument("--only", nargs="+", type=int, choices=(1, 2, 3, 4, 5), default=[], help="purposes to run")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many minutes")
    parser.add_argument("--quick", action="store_true", help="two seeds, small sizes: minutes")
    parser.add_argument("--table", action="store_true", help="write the page of the trials that are there; run none")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the trials (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the page (docs/purposes.md)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    import torch
    from _alignment_trials import trials as alignment_trials
    from _purpose_trials import trials as purpose_trials

    torch.set_num_threads(1)
    seeds = min(2, args.seeds) if args.quick else args.seeds
    sections = [s for s in alignment.sections(args.quick) if s.title.startswith(ALIGNMENT)]
    rows = quick(plan(args.data)) if args.quick else plan(args.data)
    searches, fits = alignment_trials(args.cache), purpose_trials(args.cache)
    output = args.output or (args.cache / "purposes-quick.md" if args.quick else DOCS / "purposes.md")
    wanted = set(args.only) or {1, 2, 3, 4, 5}
    try:
        if not args.table and wanted & {1, 2}:
            alignment.run(searches, sections, seeds, args.minutes)
        if not args.table and wanted & {3, 4, 5}:
            run(fits, rows, seeds, tune=not args.quick, minutes=args.minutes)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        found, used = results(fits, rows, seeds)
        aligned = alignment.results(searches, sections, seeds)
        output.parent.mkdir(parents=True, exist_ok=True)
        before = output.read_text(encoding="utf-8") if output.exists() and not args.quick else ""
        write_whole(output, page(aligned, found, rows, used, seeds, quick=args.quick, before=before))
    print(f"written to {output}")


if __name__ == "__main__":
    main()
