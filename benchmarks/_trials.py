# SPDX-License-Identifier: BSD-3-Clause
"""Trials of a benchmark that fit in this process: one call of one function, its numbers kept in one file.

As with the cells of ``_cells.py``, a file is named after what was asked for, hashed with the code that answers, and
appears whole or not at all: a run that was cut off goes on where it stopped, and changed code makes new trials.
"""

import hashlib
import json
import pickle
import resource
import time
from pathlib import Path

from _cells import CACHE, fingerprint, write_whole


class Trials:
    """Runs trials that are not there yet.

    Parameters
    ----------
    room : str
        Folder of the trials inside the cache.
    sources : list of paths
        The code that decides the numbers.
    cache : path
    """

    def __init__(self, room, sources, cache=CACHE):
        self.folder = Path(cache) / room
        self.code = fingerprint(sources)
        self.started = time.perf_counter()

    def path(self, name, asked):
        digest = hashlib.sha256(json.dumps([asked, self.code], sort_keys=True).encode()).hexdigest()[:10]
        return self.folder / f"{name}-s{asked['seed']}-{digest}.json"

    def known(self, name, asked):
        """Numbers of a trial, or None where nobody has run it."""
        path = self.path(name, asked)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def run(self, function, name, asked):
        """Numbers of a trial, run now where they are not known."""
        found = self.known(name, asked)
        if found is not None:
            return found
        wall, cpu = time.perf_counter(), time.process_time()
        numbers = function(**asked)
        found = {
            "asked": asked,
            "numbers": numbers,
            "cpu_seconds": time.process_time() - cpu,
            "wall_seconds": time.perf_counter() - wall,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path(name, asked), json.dumps(found, indent=1))
        minutes = (time.perf_counter() - self.started) / 60
        print(f"[{minutes:5.1f} min] {name} seed {asked['seed']}: {found['cpu_seconds']:.0f} s", flush=True)
        return found

    def kept(self, name, asked, make):
        """An object that many trials need, such as a trained network: made once, then read from the cache."""
        path = self.path(name, asked).with_suffix(".pickle")
        if path.exists():
            return pickle.loads(path.read_bytes())  # only ever written by the lines below
        made = make(**asked)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(made))
        part.replace(path)
        return made


def cpu_seconds():
    """Processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
