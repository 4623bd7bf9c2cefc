# SPDX-License-Identifier: BSD-3-Clause
"""OpenMP's waiting threads: they end when asked to, come back, and are left alone in a fork."""

import os
import subprocess
import sys
import textwrap

import pytest

from skprojdict import _openmp
from skprojdict.kernels import threads

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux lists them")


def run(script):
    """What a process of its own says, whose OpenMP has two threads."""
    known = os.environ | {"OMP_NUM_THREADS": "2", "OMP_DYNAMIC": "false"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@linux
def test_waiting_threads_end_and_come_back():
    before, between, after, same = run(
        """
        import os, torch
        from skprojdict._openmp import _pauses, let_go

        torch.set_num_threads(2)
        X = torch.ones(1 << 20)
        count = lambda: len(os.listdir("/proc/self/task"))
        first = X + 1
        print(count())
        let_go(2)
        print(count())
        second = X + 1
        print(count() if _pauses(True) else "none")
        print(bool((first == second).all()))
        """
    )
    if after == "none":
        pytest.skip("an OpenMP without omp_pause_resource_all")
    assert int(between) == int(before) - 1
    assert after == before
    assert same == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_leaves_alone_what_did_not_come_with_it():
    """Its parent's threads are not there to end, and would be waited for forever."""
    assert run(
        """
        import os, torch
        from skprojdict._openmp import forked, let_go

        torch.set_num_threads(2)
        torch.ones(1 << 20) + 1
        child = os.fork()
        if not child:
            let_go(2)
            os._exit(3 if forked() else 4)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), forked())
        """
    ) == ["3", "False"]


def test_kernels_ask_before_they_start_threads(monkeypatch):
    asked, parts = [], []
    monkeypatch.setattr(threads, "let_go", asked.append)
    monkeypatch.setattr(threads, "effective_n_threads", lambda: 3)
    threads.over_rows(parts.append, threads.ROWS_A_THREAD)  # too few rows for two
    assert (asked, parts) == ([], [slice(0, 64)])
    parts.clear()
    threads.over_rows(parts.append, 150)
    assert asked == [3]  # who wait are not as few as those that start
    assert sorted(parts, key=lambda part: part.start) == [slice(0, 75), slice(75, 150)]


def test_many_threads_are_not_made_anew(monkeypatch):
    calls = []
    monkeypatch.setattr(_openmp, "_pauses", lambda with_torch: [calls.append])
    _openmp.let_go(_openmp.MOST_THREADS + 1)
    assert not calls
    _openmp.let_go(_openmp.MOST_THREADS)
    assert calls == [1]
