# SPDX-License-Identifier: BSD-3-Clause
"""Alignment search on networks whose causal variables are known: the projective form beside its baselines.

    python benchmarks/alignment.py             # everything; the same command goes on where it was cut off
    python benchmarks/alignment.py --quick     # small networks, two of them, few steps: minutes
    python benchmarks/alignment.py --table     # write the page of the trials that are there; run none

Hierarchical equality (Geiger et al., 2024), independent attributes of entities (6, 48 and 144 concepts in 32
dimensions), and composed attributes (trained on single ones and half of the pairs, tested on the other pairs and on
all triples, 24 dimensions). All networks are trained here. Every baseline is swept over its rank or its quota; the
page, ``benchmarks/results/alignment.md``, shows all settings, and its comparisons take each baseline's best.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch load: these networks are too small to share

from _alignment_page import page
from _cells import CACHE, HERE, write_whole

EQUALITY, INDEPENDENT, COMPOSITIONAL = "equality", "independent", "compositional"


@dataclass(frozen=True)
class Section:
    """Searches on one kind of network; ``methods`` maps rows of the table to a search and its options."""

    title: str
    kind: str
    network: dict
    methods: dict
    sizes: dict


def das(k, **options):
    return "das", {"n_directions": k, **options}


def mask(strength, **options):
    return "das", {"width": "mask", "shared_rotation": True, "quota_strength": strength, **options}


def householder(k):
    return "householder", {"n_directions": k}


PROJECTIVE = ("projective", {})
EQUALITY_METHODS = {
    "projective": PROJECTIVE,
    **{f"DAS k={k}": das(k) for k in (1, 2, 4, 8)},
    "DAS, one rotation, 8 + 8": das(8, shared_rotation=True),
    "mask, own rotations": ("das", {"width": "mask"}),
    "random k=8": ("random", {"n_directions": 8}),
    "nothing swapped": ("nothing", {}),
    "everything swapped": ("everything", {}),
}
WEAK_METHODS = {"projective": PROJECTIVE, "DAS k=8": das(8)}
INDEPENDENT_METHODS = {
    "projective": PROJECTIVE,
    **{f"DAS k={k}": das(k) for k in (2, 3, 4)},
    **{f"shared mask, quota {strength:g}": mask(strength) for strength in (0.005, 0.02, 0.1)},
    **{f"Householder k={k}": householder(k) for k in (3, 6, 9)},
}
# Where nothing is shared, concepts need atoms of their own: here as many as their dimensions together, and some.
MANY_METHODS = {
    **INDEPENDENT_METHODS,
    "projective, 512 atoms, quota 0.1": ("projective", {"n_atoms": 512, "quota_strength": 0.1}),
}
COMPOSITIONAL_METHODS = {
    "projective": PROJECTIVE,
    "projective, 24 atoms": ("projective", {"n_atoms": 24}),
    **{f"shared mask, quota {strength:g}": mask(strength) for strength in (0.0002, 0.001, 0.005, 0.02, 0.05)},
    "shared mask, quota 0.02, no decay": mask(0.02, weight_decay=0.0),
    **{f"Householder k={k}": householder(k) for k in (2, 3, 6, 9)},
    **{f"joined DAS k={k}": ("joined", {"n_directions": k}) for k in (2, 3, 4)},
    "random k=6": ("random", {"n_directions": 6}),
    "nothing swapped": ("nothing", {}),
    "everything swapped": ("everything", {}),
}
# One setting of each family, on all networks before the rest of the sweeps begins.
FIRST = ("projective", "shared mask, quota 0.02", "Householder k=6", "joined DAS k=3", "DAS k=3")
FEW_PAIRS = ("projective", "shared mask, quota 0.001", "shared mask, quota 0.005", "shared mask, quota 0.02")
FEW_PAIRS_METHODS = {name: COMPOSITIONAL_METHODS[name] for name in FEW_PAIRS}


def sections(quick=False, steps=None):
    """The plan: every section with its searches, small for ``quick``."""
    factor = 0.1 if quick else 1.0
    n_rows, max_steps = (5_000, 120) if quick else (50_000, steps or 1_200)
    sizes = {"n_rows": n_rows, "max_steps": max_steps}
    equality = {"weight_decay": 0.3, "n_steps": int(5_000 * factor)}
    entities = {"n_steps": int(4_000 * factor), "n_attributes": 6, "n_features": 32}
    composed = {"n_types": 1, "n_attributes": 10, "n_features": 24, "n_steps": int(4_000 * factor)}
    found = [
        Section("Hierarchical equality", EQUALITY, equality, EQUALITY_METHODS, sizes),
        Section("Composed attributes", COMPOSITIONAL, composed, COMPOSITIONAL_METHODS, {**sizes, "n_pairs": 23}),
        Section("6 independent concepts", INDEPENDENT, {**entities, "n_types": 1}, INDEPENDENT_METHODS, sizes),
    ]
    more = [
        Section("48 independent concepts", INDEPENDENT, {**entities, "n_types": 8}, INDEPENDENT_METHODS, sizes),
        Section("144 independent concepts", INDEPENDENT, {**entities, "n_types": 24}, MANY_METHODS, sizes),
        Section(
            "Composed attributes, 4 pairs trained", COMPOSITIONAL, composed, FEW_PAIRS_METHODS, {**sizes, "n_pairs": 4}
        ),
        Section(
            "Hierarchical equality, networks without weight decay",
            EQUALITY,
            {**equality, "weight_decay": 0.0},
            WEAK_METHODS,
            sizes,
        ),
    ]
    return found if quick else found + more


def asked(section, method, seed):
    """All that decides one trial."""
    search, options = section.methods[method]
    return {
        "seed": seed,
        "kind": section.kind,
        "network": section.network,
        "search": search,
        "options": options,
        **section.sizes,
    }


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="networks of each kind, from seed 0 (5)")
    parser.add_argument("--steps", type=int, help="training steps of every search (1200)")
    parser.add_argument("--only", nargs="+", default=[], metavar="TITLE", help="sections whose title begins so")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many minutes")
    parser.add_argument("--quick", action="store_true", help="two small networks of each kind, few steps: minutes")
    parser.add_argument("--table", action="store_true", help="write the page of the trials that are there; run none")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the trials (benchmarks/.cells)")
    parser.add_argument("--output", type=Path, help="the page (benchmarks/results/alignment.md)")
    return parser.parse_args(argv)


def run(trials, plan, seeds, minutes=None):
    """Run what is not known: one setting of each family on every network first, then the rest of the sweeps."""
    import time

    from _alignment_trials import Tasks

    tasks = Tasks(trials.kept)
    for section in plan:
        for first in (True, False):
            for seed in range(seeds):
                for method in section.methods:
                    if (method in FIRST) != first:
                        continue
                    if minutes and time.perf_counter() - trials.started > 60 * minutes:
                        print("out of time: the same command goes on from here", flush=True)
                        return
                    trials.run(tasks.search, f"{section.kind}-{_slug(method)}", asked(section, method, seed))


def results(trials, plan, seeds):
    """Trials that are known: for each section a dictionary from method to {seed: trial}."""
    found = []
    for section in plan:
        table = {}
        for method in section.methods:
            known = {
                seed: trials.known(f"{section.kind}-{_slug(method)}", asked(section, method, seed))
                for seed in range(seeds)
            }
            table[method] = {seed: trial for seed, trial in known.items() if trial is not None}
        found.append((section, table))
    return found


def _slug(text):
    return "".join(each if each.isalnum() else "-" for each in text.lower())


def main(argv=None):
    args = arguments(argv)
    import torch
    from _alignment_trials import trials as open_trials

    torch.set_num_threads(1)
    plan = [
        section
        for section in sections(args.quick, args.steps)
        if not args.only or any(section.title.lower().startswith(each.lower()) for each in args.only)
    ]
    if not plan:
        raise SystemExit(f"--only {' '.join(args.only)} begins none of: {', '.join(s.title for s in sections())}")
    seeds = min(args.seeds, 2) if args.quick else args.seeds
    trials = open_trials(args.cache)
    output = args.output or (args.cache / "alignment-quick.md" if args.quick else HERE / "results" / "alignment.md")
    try:
        if not args.table:
            run(trials, plan, seeds, args.minutes)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", flush=True)
        raise SystemExit(130) from None
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page(results(trials, plan, seeds), seeds))
    print(f"written to {output}")


if __name__ == "__main__":
    main()
