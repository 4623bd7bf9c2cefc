# SPDX-License-Identifier: BSD-3-Clause
"""Faults on purpose, counted: kills, full disks, damaged files, bad rows, lost shards, lost ranks, lack of memory.

    python benchmarks/faults.py                     # everything; goes on where the last run was cut off
    python benchmarks/faults.py --only files rows   # some of it
    python benchmarks/faults.py --quick             # every fault a few times, in a minute; writes no table
    python benchmarks/faults.py --again             # forget what was counted before

Each fault has a promised outcome, and whatever else happens is counted as a loss; the table is
``benchmarks/results/faults.md``, and the exit status is 1 where anything was lost. The faults that take seconds are
tests, too (``tests/test_checkpoints.py``, ``test_formats.py``, ``test_persistence.py``, ``test_memory.py``).
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy: trials fork
    os.environ.setdefault(name, "1")

import _fault_files  # noqa: E402
import _fault_sources  # noqa: E402
import _fault_trials as trials  # noqa: E402
import numpy as np  # noqa: E402
from _cells import CACHE, HERE, fingerprint, write_whole  # noqa: E402
from _report import machine, table  # noqa: E402

# name: (trial, how often in full and with --quick, fault, promise)
TRIALS = {
    "kill-training": (
        trials.kill_while_training,
        (50, 3),
        "SIGKILL at a random moment of training",
        "resumed, equal to the uninterrupted fit bit for bit",
    ),
    "kill-writing": (
        trials.kill_while_writing,
        (50, 3),
        "SIGKILL at a random moment of writing a checkpoint",
        "resumed, equal to the uninterrupted fit bit for bit",
    ),
    "disk": (
        trials.full_disk,
        (20, 2),
        "disk full during training",
        "a warning; the fit ends as without checkpoints, and the last good one resumes to the same",
    ),
    "disk-save": (
        trials.full_disk_at_save,
        (10, 2),
        "disk full while `save` replaces a file",
        "OSError; the older file is whole, nothing else is left",
    ),
    "keyboard": (
        trials.interrupt,
        (20, 2),
        "Ctrl-C at a random moment of `fit`",
        "the last state is in the estimator: unit atoms, a finite score, `partial_fit` goes on",
    ),
    "memory": (
        trials.short_memory,
        (20, 2),
        "a chunk that memory does not hold (RLIMIT_AS)",
        "smaller chunks with a warning and the same codes, or MemoryError",
    ),
}
SOURCES = {
    "rows": (
        _fault_sources.bad_rows,
        (400, 8),
        "NaN or infinity in one row (of arrays, memory maps, shards)",
        "ValueError that names the row",
    ),
    "shard": (
        _fault_sources.lost_shards,
        (60, 3),
        "a shard that vanishes or is cut short, before or during reading",
        "an error that names the file",
    ),
    "rank": (
        _fault_sources.dead_rank,
        (3, 1),
        "a rank killed under torchrun",
        "the others stop with an error within a minute, the checkpoint is good",
    ),
}
FILES = (12_000, 300)
WORDS = {
    "exit status 0, signal 0": "state kept",
    "exit status 8, signal 0": "came after the end",
    "exit status 9, signal 0": "came before the first state",
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*TRIALS, "files", *SOURCES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="faults to inject")
    parser.add_argument("--quick", action="store_true", help="a few of each, no table")
    parser.add_argument("--again", action="store_true", help="forget earlier counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE / "faults")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "faults.md")
    args = parser.parse_args(argv)
    counts = Counts(args)
    with tempfile.TemporaryDirectory(prefix="skprojdict-faults-") as folder:
        trials.prepare()
        whole = trials.Whole(Path(folder), trials.rows())
        for name in args.only:
            start = time.perf_counter()
            if name == "files":
                files(counts, Path(folder) / "files", whole.X)
            else:
                inject(counts, name, whole)
            print(f"{name}: {counts.told(name)} ({time.perf_counter() - start:.0f} s)", flush=True)
    if not args.quick:
        write_whole(args.output, page(counts))
        print(f"written to {args.output}")
    losses = {name: counts.of(name)["losses"] for name in args.only if counts.of(name)["losses"]}
    print(f"lost: {losses}" if losses else "nothing was lost")
    return 1 if losses else 0


def inject(counts, name, whole):
    """Trials of one fault until it has struck as often as asked."""
    function, asked, _, _ = (TRIALS | SOURCES)[name]
    wanted, kept = asked[counts.quick], counts.of(name)
    while kept["happened"] < wanted and kept["tried"] < 4 * wanted and not kept["skipped"]:
        try:
            happened, promised, what = trials.trial(function, kept["tried"], whole, counts.seed)
        except _fault_sources.Skip as reason:
            kept["skipped"] = str(reason)
            counts.keep(name)
            break
        kept["tried"] += 1
        kept["happened"] += bool(happened)
        if not promised:
            kept["losses"].append(f"{name} {kept['tried'] - 1}: {what}")
            print(f"  {kept['losses'][-1]}", flush=True)
        elif what:
            kept["notes"][what] = kept["notes"].get(what, 0) + 1
        counts.keep(name)


def files(counts, folder, X):
    """Damaged and foreign files for every loader."""
    kept = counts.of("files")
    if kept["tried"]:
        return
    folder.mkdir()
    outcomes, executed = _fault_files.run(folder, X, FILES[counts.quick], counts.seed)
    kept["tried"] = kept["happened"] = sum(sum(outcome.values()) for outcome in outcomes.values())
    kept["notes"] = dict(sum(outcomes.values(), Counter()))
    kept["by loader"] = {name: dict(outcome) for name, outcome in outcomes.items()}
    wrong = {what: n for what, n in kept["notes"].items() if what not in ("refused", "same")}
    kept["losses"] = [f"files: {what}, {n} times" for what, n in wrong.items()]
    kept["losses"] += ["files: something in a file was executed"] if executed else []
    counts.keep("files")


class Counts:
    """What was counted, one file a fault, forgotten when the code changes."""

    def __init__(self, args):
        self.quick, self.seed, self.found = args.quick, args.seed, {}
        sources = [*(HERE.parent / "skprojdict").rglob("*.py"), *HERE.glob("_fault*.py")]
        self.code = fingerprint(sources)
        self.folder = args.cache / ("quick" if args.quick else f"seed-{args.seed}")
        self.again = args.again or args.quick

    def of(self, name):
        if name not in self.found:
            empty = {"code": self.code, "tried": 0, "happened": 0, "losses": [], "notes": {}, "skipped": ""}
            path = self.folder / f"{name}.json"
            old = json.loads(path.read_text()) if path.exists() and not self.again else empty
            self.found[name] = old if old["code"] == self.code else empty
        return self.found[name]

    def last(self, name):
        """The newest counts there are, of an earlier state of the code where this one was not tried."""
        kept, path = self.of(name), self.folder / f"{name}.json"
        if kept["tried"] or kept["skipped"] or not path.exists():
            return kept
        old = json.loads(path.read_text())
        return old | {"notes": old["notes"] | {"counted on an earlier state of the code": old["tried"]}}

    def keep(self, name):
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{name}.json", json.dumps(self.found[name], indent=1))

    def told(self, name):
        kept = self.of(name)
        if kept["skipped"]:
            return f"not run: {kept['skipped']}"
        return f"{kept['happened']} faults in {kept['tried']} trials, {len(kept['losses'])} losses {kept['notes']}"


def page(counts):
    """The table."""
    rows = []
    described = {name: entry[2:] for name, entry in (TRIALS | SOURCES).items()}
    described["files"] = (
        "truncated, bit-flipped, overwritten, foreign files on load",
        "refused, or the same as the undamaged file; nothing executed",
    )
    for name, (fault, promise) in described.items():
        kept = counts.last(name)
        count = kept["happened"] or ("not run: " + (kept["skipped"] or "not yet"))
        notes = ", ".join(f"{WORDS.get(what, what)}: {n}" for what, n in sorted(kept["notes"].items()))
        rows.append((fault, count, promise, "" if not kept["happened"] else len(kept["losses"]), notes))
    by_loader = counts.last("files").get("by loader", {})
    loaders = [
        (name, sum(found.values()), found.get("refused", 0), found.get("same", 0), _others(found))
        for name, found in by_loader.items()
    ]
    losses = [loss for name in described for loss in counts.last(name)["losses"]]
    return "\n".join(
        [
            "# Faults on purpose",
            "",
            f"`python benchmarks/faults.py --seed {counts.seed}`; {machine(1)}",
            "",
            "A trial counts where the fault struck: a kill that comes after the end of a fit does not. Losses are",
            "trials with another outcome than the promised one.",
            "",
            *table(("fault", "times", "promised", "losses", "outcomes"), rows),
            "",
            'Damaged files by what was to be read. "same": only bits without meaning were hit, such as times in a',
            "zip archive. sparsify's and SAELens' own safetensors have no checksum, so only truncation and foreign",
            "files are counted there: see docs/reliability.md.",
            "",
            *table(("file", "damaged", "refused", "same", "wrong"), loaders),
            *([""] + [f"- {loss}" for loss in losses] if losses else []),
            "",
        ]
    )


def _others(found):
    return sum(n for what, n in found.items() if what not in ("refused", "same"))


if __name__ == "__main__":
    warnings.simplefilter("default")
    np.seterr(all="warn")
    sys.exit(main())
