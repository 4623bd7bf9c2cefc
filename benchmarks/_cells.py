# SPDX-License-Identifier: BSD-3-Clause
"""Cells of a benchmark: one fit of one method on one data set, run in a process of its own and kept in one file.

A cell's file is named after what was asked for, hashed with the code that answers, and appears whole or not at all. A
run that was cut off therefore goes on where it stopped, and a change of the code or of a version makes new cells.
"""

import ast
import hashlib
import json
import os
import platform
import re
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cells"
PACKAGE = HERE.parent / "skprojdict"
PEER_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
PEERS = HERE / "peers"

# A process may take so long to import what it needs before its clock starts.
IMPORT_SECONDS = 300.0
# To find out again that a cell takes longer costs as long: from so many seconds on it is kept.
COSTLY_SECONDS = 60.0

# What fits and codes; the rest of the package can change without making our cells old.
OUR_SOURCES = ("_*.py", "solvers/**/*.py", "training/**/*.py")


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    ``distributions`` name the packages of a peer, and are empty for us. ``rates`` are the learning rates to try beside
    its default. ``rival`` marks the TopK and BatchTopK autoencoders of others, which ours are compared with.
    """

    key: str
    label: str
    entry: str
    options: dict = field(default_factory=dict, hash=False)
    distributions: tuple = ()
    rates: tuple = ()
    rival: bool = False
    cost_in_k: bool = False

    @property
    def peer(self):
        return bool(self.distributions)


@dataclass(frozen=True)
class Data:
    """A file of rows whose last ``test_rows`` are held out.

    ``origin`` says what rows were computed from, where they were: another processor rounds otherwise, and cells of the
    one belong to the other.
    """

    name: str
    path: Path
    test_rows: int
    origin: str = ""

    def load(self):
        return np.load(self.path, mmap_mode="r")

    def identity(self):
        """What makes a cell belong to these rows: shape, type, and a digest of the origin or of rows from all over."""
        array = self.load()
        sample = self.origin.encode() or np.ascontiguousarray(array[:: max(1, len(array) // 256)]).tobytes()
        digest = hashlib.sha256(sample).hexdigest()[:12]
        return {
            "name": self.name,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "test_rows": self.test_rows,
            "digest": digest,
        }


def fingerprint(paths):
    """Digest of Python sources without comments, docstrings and layout; other files as they are."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            tree = ast.parse(text)
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                first = body[0] if isinstance(body, list) and body else None
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    first.value.value = ""  # a docstring
            text = ast.dump(tree)
        digest.update(f"{path.name}\n{text}\n".encode())
    return digest.hexdigest()[:12]


def code_of(method):
    """Fingerprint of the code that trains and codes for a method."""
    module = method.entry.split(":")[0]
    if method.peer:
        return fingerprint([PEERS / f"{module}.py", PEERS / "requirements.txt", HERE / "_rows.py"])
    sources = [path for pattern in OUR_SOURCES for path in PACKAGE.glob(pattern)]
    return fingerprint([*sources, HERE / f"{module}.py", HERE / "_rows.py"])


class Cells:
    """Runs cells that are not there yet, and remembers why one could not run.

    Parameters
    ----------
    room : str
        Folder of the cells inside the cache.
    judge : callable
        ``judge(spec, report, arrays) -> {coding: numbers}``, in this process, the same for every method.
    threads : int
        Threads of each process.
    limit : float
        Seconds after which a cell is given up.
    together : int
        Cells that share a process. More than 1 saves seconds of imports, and makes their peak memory meaningless.
    timed : bool
        Whether coders are timed: fast ones are then repeated for a second.
    """

    def __init__(
        self, room, judge, *, threads=2, limit=3600.0, together=1, timed=True, cache=CACHE, peer_python=PEER_PYTHON
    ):
        self.folder, self.judge, self.threads, self.timed = Path(cache) / room, judge, threads, timed
        self.limit, self.together, self.peer_python = limit, together, Path(peer_python)
        self.failed, self._codes, self._identities = {}, {}, {}

    def spec(self, method, data, *, n_components, k, n_steps, batch_size, seed, learning_rate=None):
        """All that decides the numbers of a cell."""
        if method.key not in self._codes:
            self._codes[method.key] = code_of(method)
        if data not in self._identities:
            self._identities[data] = data.identity()
        return {
            "method": method.key,
            "entry": method.entry,
            "options": method.options,
            "distributions": list(method.distributions),
            "data": self._identities[data],
            "arguments": {
                "n_components": n_components,
                "k": k,
                "n_steps": n_steps,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "seed": seed,
                "threads": self.threads,
            },
            "code": self._codes[method.key],
        }

    def path(self, spec):
        asked = spec["arguments"]
        rate = "default" if asked["learning_rate"] is None else f"{asked['learning_rate']:g}"
        name = f"{spec['method']}-k{asked['k']}-s{asked['seed']}-lr{rate}-{asked['n_steps']}steps-{_digest(spec)}.json"
        return self.folder / spec["data"]["name"] / name

    def known(self, spec, limit=0.0):
        """The cell, a dictionary with "why" where it could not run, or None where nobody has tried as long as this."""
        path = self.path(spec)
        if path.exists():
            cell = json.loads(path.read_text(encoding="utf-8"))
            if cell.get("stopped_after", limit) >= limit:
                return cell
        return self.failed.get(_digest(spec))

    def run(self, asked, after=lambda spec, cell: None, limit=None):
        """Run what is not known of ``asked``, pairs of a spec and its data; ``after`` is told of each new cell."""
        limit = limit or self.limit
        queue = {True: [], False: []}
        for spec, data in asked:
            if self.known(spec, limit) is None and spec not in [
                other for other, _ in queue[bool(spec["distributions"])]
            ]:
                queue[bool(spec["distributions"])].append((spec, data))
        if queue[True] and not self.peer_python.exists():
            for spec, _ in queue.pop(True):
                self._fail(spec, f"there is no {_shown(self.peer_python)}: make bench-env", after)
            queue[True] = []
        for peer, waiting in queue.items():
            while waiting:
                batch, waiting = waiting[: self.together], waiting[self.together :]
                done = self._run_batch(batch, self.peer_python if peer else sys.executable, after, limit)
                waiting = batch[done:] + waiting

    def _run_batch(self, batch, python, after, limit):
        """Run some cells in one process; returns how many of them are settled."""
        with tempfile.TemporaryDirectory(prefix="skprojdict-bench-") as folder:
            folder = Path(folder)
            outputs = [folder / f"{number}.json" for number in range(len(batch))]
            jobs = [self._job(spec, data, output) for (spec, data), output in zip(batch, outputs, strict=True)]
            (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
            with (folder / "stderr").open("w+b") as errors:
                command = [str(python), str(HERE / "_worker.py"), str(folder / "jobs.json")]
                process = subprocess.Popen(  # unbuffered: a line in a buffer would be invisible to the clock
                    command, stdout=subprocess.PIPE, stderr=errors, env=self._environment(), bufsize=0
                )
                try:
                    for number, ((spec, _), output) in enumerate(zip(batch, outputs, strict=True)):
                        seconds = _watch(process, limit)
                        if seconds is None:
                            ended = process.poll() is not None
                            process.kill()
                            process.wait()
                            errors.seek(0)
                            why = _last_words(errors, process.returncode) if ended else f"stopped after {limit:.0f} s"
                            self._fail(spec, why, after, stopped_after=None if ended else limit)
                            return number + 1
                        self._settle(spec, output, seconds, after)
                finally:  # an interrupt leaves nothing running
                    process.kill()
                    process.wait()
                    process.stdout.close()
        return len(batch)

    def _job(self, spec, data, output):
        return {
            "entry": spec["entry"],
            "peer": bool(spec["distributions"]),
            "distributions": spec["distributions"],
            "options": spec["options"],
            "arguments": spec["arguments"],
            "timed": self.timed,
            "rows": str(Path(data.path).resolve()),
            "test_rows": data.test_rows,
            "output": str(output),
        }

    def _settle(self, spec, output, seconds, after):
        report = json.loads(output.read_text(encoding="utf-8"))
        if "why" in report:
            self._fail(spec, report["why"], after)
            return
        with np.load(output.with_suffix(".npz")) as arrays:
            numbers = self.judge(spec, report, arrays)
        output.with_suffix(".npz").unlink()
        for name, values in numbers.items():
            report["codings"][name] |= values
        if self.together > 1:
            report["peak_mb"] = None
        self._keep(spec, {"spec": spec, "machine": platform.machine(), "wall_seconds": seconds, **report})
        after(spec, self.known(spec))

    def _fail(self, spec, why, after, stopped_after=None):
        cell = {"spec": spec, "why": why}
        self.failed[_digest(spec)] = cell
        if stopped_after is not None and stopped_after >= COSTLY_SECONDS:
            self._keep(spec, cell | {"stopped_after": stopped_after})
        after(spec, cell)

    def _keep(self, spec, cell):
        path = self.path(spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(cell, indent=1))

    def _environment(self):
        threads = str(self.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        return os.environ | dict.fromkeys(names, threads) | {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}


def write_whole(path, text):
    """Write a file that appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(spec):
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:10]


def _watch(process, limit):
    """Seconds of one job from its imports on; None where its process ended or the limit was up."""
    started = None
    deadline = time.perf_counter() + IMPORT_SECONDS + limit
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while waiting.select(timeout=max(0.0, deadline - time.perf_counter())):
            line = process.stdout.readline()
            if line.startswith(b"begin"):
                started = time.perf_counter()
                deadline = started + limit
            elif line.startswith(b"end"):
                return time.perf_counter() - (started or time.perf_counter())
            else:  # the end of the stream
                process.wait()
                return None
    return None


def _last_words(errors, returncode):
    lines = errors.read().decode(errors="replace").strip().splitlines()
    words = re.sub(r"[|`]", "'", lines[-1])[:160] if lines else "no message"
    return f"the process ended with code {returncode}: {words}"


def _shown(path):
    return path.relative_to(HERE.parent) if path.is_relative_to(HERE.parent) else path
