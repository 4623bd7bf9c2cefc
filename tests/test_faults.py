# SPDX-License-Identifier: BSD-3-Clause
"""Faults on purpose, a few of each, in a process of their own: benchmarks/faults.py does thousands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_nothing_is_lost_to_a_few_of_each_fault(tmp_path):
    """Damaged and foreign files, bad rows, lost shards, full disks, short memory, Ctrl-C; kills are in
    test_checkpoints.
    """
    faults = ["files", "rows", "shard", "disk", "disk-save", "memory", "keyboard"]
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--quick", "--cache", str(tmp_path), "--only"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, *faults], env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing was lost" in result.stdout
    for fault in faults:
        assert f"\n{fault}: " in "\n" + result.stdout


@pytest.mark.parametrize(("fault", "message"), [("nonsense", "invalid choice"), ("files", None)])
def test_losses_are_an_exit_status(fault, message, tmp_path):
    """A loader that takes everything for the same file is found out."""
    if message:
        command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--only", fault]
    else:
        code = (
            "import sys; sys.path.insert(0, 'benchmarks'); import faults, _fault_files\n"
            "_fault_files.estimator_loader = lambda path: {'length': len(path.read_bytes())}\n"
            "_fault_files.same = lambda one, other: one == other\n"
            f"sys.exit(faults.main(['--quick', '--only', 'files', '--cache', {str(tmp_path)!r}]))"
        )
        command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == (2 if message else 1), result.stdout + result.stderr
    assert (message or "loaded something else") in result.stdout + result.stderr
