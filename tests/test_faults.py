# SPDX-License-Identifier: BSD-3-Clause
"""Faults on purpose, a few of each, in a process of their own: benchmarks/faults.py does thousands."""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts: their modules are found beside them

import _fault_files  # noqa: E402
import faults  # noqa: E402


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_nothing_is_lost_to_a_few_of_each_fault(tmp_path):
    """Damaged and foreign files, bad rows, lost shards, full disks, short memory, Ctrl-C; kills are in
    test_checkpoints.
    """
    injected = ["files", "rows", "shard", "disk", "disk-save", "memory", "keyboard"]
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--quick", "--cache", str(tmp_path), "--only"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, *injected], env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing was lost" in result.stdout
    said = {line.partition(": ")[0]: line for line in result.stdout.splitlines()}
    for fault in injected:  # and each has struck, where it can
        assert re.search(r": [1-9]\d* faults", said[fault]) or "needs root" in said[fault], result.stdout


def test_losses_are_an_exit_status(monkeypatch, tmp_path):
    """A loader that takes everything for the same file is found out."""
    monkeypatch.setattr(_fault_files, "estimator_loader", lambda path: {"length": np.array(path.stat().st_size)})
    monkeypatch.setattr(faults, "FILES", (60, 60))
    with redirect_stdout(io.StringIO()) as said:
        assert faults.main(["--quick", "--only", "files", "--cache", str(tmp_path)]) == 1
    assert "loaded something else" in said.getvalue()


def test_an_unknown_fault_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        faults.main(["--only", "nonsense"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
