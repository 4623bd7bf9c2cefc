# SPDX-License-Identifier: BSD-3-Clause
"""Rows larger than memory: anonymous memory of a fit as the rows grow, and how long its steps wait for them.

    python benchmarks/memory.py            # 1e5 to 1e7 rows in shards (17 GB of disk); goes on where it was cut off
    python benchmarks/memory.py --quick    # 1e5 and 3e5 rows of 64 columns; writes no table

Each fit runs in a process of its own. RssAnon (Linux) is what it holds besides mapped files; "above imports" is its
peak over what the imports left. A step's wait is the time that it spends in asking for its batch. The shards are put
out of the system's cache before a fit and again before its first step, so that blocks come from the local disk. The
table is ``benchmarks/results/memory.md``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from _cells import CACHE, HERE, fingerprint, write_whole
from _report import machine, table

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
SHARD_ROWS = 25_000
OPTIONS = {"n_nonzero_coefs": 4, "batch_size": 1024, "random_state": 0}
# By columns, atoms and steps. Short steps are the hard case for waiting; of wide rows even 1e5 are more than what a fit
# holds of them. The steps are enough to end a window of the shuffle and to begin another (524 288 rows and 43 690).
SHAPES = {64: (256, 600), 768: (1024, 200)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of short rows, no table")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    parser.add_argument("--folder", type=Path, help="where the shards go (default: a temporary folder)")
    parser.add_argument("--cache", type=Path, default=CACHE / "memory")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "memory.md")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "ROWS", "COLUMNS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), int(args.one[1]), int(args.one[2]))))
        return
    cells = [(n, 64) for n in SIZES[:2]] if args.quick else [(n, columns) for columns in SHAPES for n in SIZES]
    code = fingerprint([*(HERE.parent / "skprojdict").rglob("*.py"), Path(__file__)])
    with tempfile.TemporaryDirectory(prefix="skprojdict-memory-") as temporary:
        folder = args.folder or Path(temporary)
        found = [cell(args, code, folder, n, columns) for n, columns in cells]
    if not args.quick:
        write_whole(args.output, page(found))
        print(f"written to {args.output}")


def cell(args, code, folder, n, columns):
    """What was measured with n rows, from the cache where the code is the same."""
    path = args.cache / f"{code}-{columns}-{n}.json"
    if args.again or not path.exists():
        write_shards(folder, n, columns)
        command = [sys.executable, __file__, "--one", str(folder), str(n), str(columns)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{n} rows: {done.stderr}")
        args.cache.mkdir(parents=True, exist_ok=True)
        write_whole(path, done.stdout.splitlines()[-1])
    found = json.loads(path.read_text(encoding="utf-8"))
    print(found, flush=True)
    return found


def shards(folder, n, columns):
    return [folder / f"rows-{columns}-{i:04d}.npy" for i in range(n // SHARD_ROWS)]


def write_shards(folder, n, columns):
    """Sparse mixtures of random directions, float16, the same in another order in each shard; kept where they are."""
    paths = [path for path in shards(folder, n, columns) if not path.exists()]
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((256, columns), dtype=np.float32)
    rows = 0.1 * rng.standard_normal((SHARD_ROWS, columns), dtype=np.float32)
    for _ in range(4):
        rows += rng.random((SHARD_ROWS, 1), dtype=np.float32) * directions[rng.integers(256, size=SHARD_ROWS)]
    rows = rows.astype(np.float16)
    for path in paths:
        with path.with_suffix(".part").open("wb") as file:
            np.save(file, np.roll(rows, int(rng.integers(SHARD_ROWS)), axis=0))
            file.flush()
            os.fsync(file.fileno())  # pages that are not yet on the disk stay in the cache
        path.with_suffix(".part").rename(path)


def evict(paths):
    """Put files out of the system's cache."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder, n, columns):
    """One fit on the first n rows of the shards, in this process."""
    import torch  # noqa: F401 - what imports take is no memory of the fit

    from skprojdict import TopKDictionaryLearning
    from skprojdict.sources import ReadAhead
    from skprojdict.training.loop import Trainer

    atoms, steps = SHAPES[columns]
    small = np.random.default_rng(0).standard_normal((4096, columns), dtype=np.float32)
    TopKDictionaryLearning(atoms, **OPTIONS, max_steps=3).fit(small)  # what is imported late
    spent = {"waiting": [], "stepping": []}
    paths = shards(folder, n, columns)
    ReadAhead.__next__ = timed(ReadAhead.__next__, spent["waiting"], first=lambda: evict(paths))
    Trainer.step = timed(Trainer.step, spent["stepping"])
    evict(paths)
    before, begun = anonymous(), time.perf_counter()
    with Peak() as peak:
        model = TopKDictionaryLearning(atoms, **OPTIONS, max_steps=steps).fit(paths)
    return {
        "rows": n,
        "columns": columns,
        "megabytes": n * columns * 2 / 2**20,
        "imports": before,
        "peak": peak.largest - before,
        "seconds": time.perf_counter() - begun,
        "fvu": model.history_["fvu"][-1],
        "first": spent["waiting"][0],
        "waiting": sum(spent["waiting"]),
        "stepping": sum(spent["stepping"]),
    }


def timed(method, spent, first=None):
    def wrapper(*args, **kwargs):
        if first and not spent:
            first()
        begun = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - begun)

    return wrapper


def anonymous():
    """RssAnon of this process in MiB."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak:
    """The largest RssAnon while it is open, looked at every 20 ms."""

    def __enter__(self):
        self.largest, self._stop = anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self):
        while not self._stop.wait(0.02):
            self.largest = max(self.largest, anonymous())

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def page(found):
    rows = []
    for each in found:
        steps = SHAPES[each["columns"]][1]
        rows.append(
            [
                str(each["columns"]),
                f"{each['rows']:.0e}".replace("e+0", "e"),
                f"{each['megabytes']:.0f}",
                f"{each['peak']:.0f}",
                f"{each['seconds']:.0f}",
                f"{1e3 * each['stepping'] / steps:.1f}",
                f"{1e3 * each['waiting'] / steps:.2f}",
                f"{1e3 * each['first']:.0f}",
                f"{each['waiting'] / (each['waiting'] + each['stepping']):.1%}",
            ]
        )
    head = ["columns", "rows", "MiB on disk", "peak above imports, MiB", "fit, s", "step, ms", "wait, ms"]
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    options = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
    shapes = " and ".join(
        f"{atoms} atoms of {columns} columns ({steps} steps)" for columns, (atoms, steps) in SHAPES.items()
    )
    text = [
        "# Memory and waiting as the rows grow",
        "",
        f"`python benchmarks/memory.py`. {machine(threads)}. `TopKDictionaryLearning({options})`,",
        f"{shapes}, float16 shards of {SHARD_ROWS} rows,",
        "put out of the system's cache before the fit and before its first step.",
        '"Peak" is RssAnon. The first pass, for mean and starting atoms, reads all rows and is part of "fit" alone.',
        '"Wait" is the mean over all steps, that for the first batch included.',
        "",
        *table([*head, "first wait, ms", "share of waiting"], rows),
    ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
