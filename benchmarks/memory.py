# SPDX-License-Identifier: BSD-3-Clause
"""Rows larger than memory: anonymous memory of a fit as the rows grow, and how long its steps wait for them.

    python benchmarks/memory.py            # 1e5 to 1e7 rows in shards (1.3 GB of disk); goes on where it was cut off
    python benchmarks/memory.py --quick    # 1e5 and 3e5 rows; writes no table

Each fit runs in a process of its own. RssAnon (Linux) is what it holds besides mapped files; "above imports" is its
peak over what the imports left. A step's wait is the time that it spends in asking for its batch; blocks come
from the local disk, or from the system's cache of it. The table is ``benchmarks/results/memory.md``.
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
COLUMNS, SHARD_ROWS = 64, 250_000
OPTIONS = {"n_components": 256, "n_nonzero_coefs": 4, "batch_size": 1024, "random_state": 0}
# Enough to end a window of the shuffle and to begin another: one is 524 288 rows here.
STEPS = 600


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes, no table")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    parser.add_argument("--folder", type=Path, help="where the shards go (default: a temporary folder)")
    parser.add_argument("--cache", type=Path, default=CACHE / "memory")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "memory.md")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "ROWS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), int(args.one[1]))))
        return
    sizes = SIZES[:2] if args.quick else SIZES
    code = fingerprint([*(HERE.parent / "skprojdict").rglob("*.py"), Path(__file__)])
    with tempfile.TemporaryDirectory(prefix="skprojdict-memory-") as temporary:
        folder = args.folder or Path(temporary)
        found = [cell(args, code, folder, n) for n in sizes]
    if not args.quick:
        write_whole(args.output, page(found))
        print(f"written to {args.output}")


def cell(args, code, folder, n):
    """What was measured with n rows, from the cache where the code is the same."""
    path = args.cache / f"{code}-{n}.json"
    if args.again or not path.exists():
        write_shards(folder, n)
        command = [sys.executable, __file__, "--one", str(folder), str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{n} rows: {done.stderr}")
        args.cache.mkdir(parents=True, exist_ok=True)
        write_whole(path, done.stdout.splitlines()[-1])
    found = json.loads(path.read_text(encoding="utf-8"))
    print(found, flush=True)
    return found


def shard(folder, i):
    return folder / f"rows-{i:04d}.npy"


def write_shards(folder, n):
    """Sparse mixtures of random directions, float16: shards that are there are kept."""
    directions = np.random.default_rng(0).standard_normal((256, COLUMNS), dtype=np.float32)
    for i in range(-(-n // SHARD_ROWS)):
        if shard(folder, i).exists():
            continue
        rng = np.random.default_rng(i)
        rows = 0.1 * rng.standard_normal((SHARD_ROWS, COLUMNS), dtype=np.float32)
        for _ in range(6):
            rows += rng.random((SHARD_ROWS, 1), dtype=np.float32) * directions[rng.integers(256, size=SHARD_ROWS)]
        with shard(folder, i).with_suffix(".part").open("wb") as file:
            np.save(file, rows.astype(np.float16))
        shard(folder, i).with_suffix(".part").rename(shard(folder, i))


def measure(folder, n):
    """One fit on the first n rows of the shards, in this process."""
    import torch  # noqa: F401 - what imports take is no memory of the fit

    from skprojdict import TopKDictionaryLearning
    from skprojdict.sources import ReadAhead
    from skprojdict.training.loop import Trainer

    small = np.random.default_rng(0).standard_normal((4096, COLUMNS), dtype=np.float32)
    TopKDictionaryLearning(**OPTIONS, max_steps=3).fit(small)  # what is imported late
    spent = {"waiting": 0.0, "stepping": 0.0}
    ReadAhead.__next__ = timed(ReadAhead.__next__, spent, "waiting")
    Trainer.step = timed(Trainer.step, spent, "stepping")
    paths = [shard(folder, i) for i in range(-(-n // SHARD_ROWS))]
    rows = [np.load(path, mmap_mode="r") for path in paths]
    rows[-1] = rows[-1][: n - SHARD_ROWS * (len(paths) - 1)]
    before, begun = anonymous(), time.perf_counter()
    with Peak() as peak:
        model = TopKDictionaryLearning(**OPTIONS, max_steps=STEPS).fit(rows)
    return {
        "rows": n,
        "megabytes": n * COLUMNS * 2 / 2**20,
        "imports": before,
        "peak": peak.largest - before,
        "seconds": time.perf_counter() - begun,
        "fvu": model.history_["fvu"][-1],
        **spent,
    }


def timed(method, spent, name):
    def wrapper(*args, **kwargs):
        begun = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - begun

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
    rows = [
        [
            f"{each['rows']:.0e}".replace("e+0", "e"),
            f"{each['megabytes']:.0f}",
            f"{each['peak']:.0f}",
            f"{each['seconds']:.0f}",
            f"{1e3 * each['stepping'] / STEPS:.1f}",
            f"{1e3 * each['waiting'] / STEPS:.2f}",
            f"{each['waiting'] / (each['waiting'] + each['stepping']):.1%}",
        ]
        for each in found
    ]
    head = ["rows", "MiB on disk", "peak above imports, MiB", "fit, s", "step, ms", "wait, ms", "share of waiting"]
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    options = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
    text = [
        "# Memory and waiting as the rows grow",
        "",
        f"`python benchmarks/memory.py`. {machine(threads)}. `TopKDictionaryLearning({options})`, {STEPS} steps,",
        f"{COLUMNS} columns, float16 shards of {SHARD_ROWS} rows, written just before (partly in the system's cache).",
        '"Peak" is RssAnon. The first pass, for mean and starting atoms, reads all rows and is part of "fit" alone.',
        "",
        *table(head, rows),
    ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
