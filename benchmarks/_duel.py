# SPDX-License-Identifier: BSD-3-Clause
"""Timings that can be compared on a busy machine: contestants take turns, one short round each.

Ours and the peers live in different environments, hence in two processes; only one of them works at a time. Run as a
script, this file is such a process: it reads one JSON request a line and answers with one.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Contestant:
    """``entry`` is "module:function"; the function takes ``options`` and returns a callable, called once a round.

    ``warm=False`` is for those that take long and compile nothing: their first round counts. Of several ``calls`` in
    a row the median counts: what is repeated in earnest finds its memory in the cache, as it does not after others.
    """

    label: str
    entry: str
    options: dict = field(default_factory=dict)
    peer: bool = False
    warm: bool = True
    calls: int = 1


@dataclass
class Times:
    """Wall and CPU seconds of each round, what the last call returned, or why there is none."""

    wall: list = field(default_factory=list)
    cpu: list = field(default_factory=list)
    value: object = None
    why: str | None = None


class Stage:
    """A process of one environment. Use as a context manager."""

    def __init__(self, python, threads, peer=False):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads)) | {"SPARSIFY_DISABLE_TRITON": "1"}
        root = str(HERE.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        command = [str(python), str(HERE / "_duel.py"), "peer" if peer else "ours"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"why": "its process has ended"}


class Duel:
    """Two stages, the peers' one where their environment exists."""

    def __init__(self, threads, peer_python=PEER_PYTHON):
        self.threads = threads
        self.ours = Stage(sys.executable, threads)
        self.peers = Stage(peer_python, threads, peer=True) if Path(peer_python).exists() else None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for stage in (self.ours, self.peers):
            if stage is not None:
                stage.__exit__(*error)

    def run(self, contestants, rounds, most_seconds):
        """``{label: Times}``: a round that does not count, then ``rounds`` in turn.

        Whoever has used up ``most_seconds`` of CPU time, or four times as long by the clock, sits out the rest, but has
        been timed once at least.
        """
        results = {}
        for one in contestants:
            stage = self.peers if one.peer else self.ours
            if stage is None:
                results[one.label] = Times(why="there is no .venv-bench: make bench-env")
                continue
            answer = stage.ask(op="load", key=one.label, entry=one.entry, options=one.options)
            results[one.label] = Times(why=answer.get("why"))
        for turn in range(1 + rounds):
            for one in contestants:
                times = results[one.label]
                if not turn and not one.warm:
                    continue
                late = max(sum(times.cpu), sum(times.wall) / 4) * one.calls > most_seconds
                if times.why is not None or (turn > 1 and late):
                    continue
                stage = self.peers if one.peer else self.ours
                answer = stage.ask(op="run", key=one.label, calls=one.calls)
                times.why = answer.get("why")
                if times.why is None and turn:
                    times.wall.append(answer["wall"])
                    times.cpu.append(answer["cpu"])
                    times.value = answer["value"]
        for stage in filter(None, (self.ours, self.peers)):
            stage.ask(op="clear")
        return results

    def versions(self, ours, peers):
        found = self.ours.ask(op="versions", names=ours)
        if self.peers is not None:
            found |= self.peers.ask(op="versions", names=peers)
        return {name: version for name, version in found.items() if version}


def ratio(times, reference, kind="cpu"):
    """Median and quartiles of the ratios of one contestant to another, round by round; None where one has not run."""
    pairs = list(zip(getattr(times, kind), getattr(reference, kind), strict=False))
    if not pairs:
        return None
    ratios = sorted(a / b for a, b in pairs)
    if len(ratios) < 3:
        return statistics.median(ratios), ratios[0], ratios[-1]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


# ---- the other side


def serve(peer):
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not part of an answer
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(HERE), str(HERE / "peers")]
    if peer:
        from stubs import install

        install()
    ready = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = respond(request, ready)
        except Exception as error:
            if os.environ.get("SPEED_TRACEBACK"):
                traceback.print_exc()
            answer = {"why": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:150]}"}
        print(json.dumps(answer), file=channel, flush=True)


def respond(request, ready):
    if request["op"] == "load":
        module, function = request["entry"].split(":")
        ready[request["key"]] = getattr(importlib.import_module(module), function)(**request["options"])
        return {}
    if request["op"] == "run":
        walls, cpus = [], []
        for _ in range(request.get("calls", 1)):
            wall, cpu = time.perf_counter(), time.process_time()
            value = ready[request["key"]]()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        return {"wall": statistics.median(walls), "cpu": statistics.median(cpus), "value": value}
    if request["op"] == "versions":
        return {name: version(name) for name in request["names"]}
    ready.clear()
    return {}


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    serve(sys.argv[1] == "peer")
