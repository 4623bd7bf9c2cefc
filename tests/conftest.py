# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures that every test file shares. SciPy reads SCIPY_ARRAY_API at import, so it is set before anything else."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


class Backend:
    """An array library and device to run a test on: ``asarray`` brings NumPy arrays there, ``to_numpy`` back."""

    def __init__(self, name):
        self.name = name
        if name == "numpy":
            self.xp, self.device = np, None
        elif name.startswith("torch"):
            import torch

            self.xp, self.device = torch, torch.device(name.partition(":")[2] or "cpu")
        elif name.startswith("strict"):
            import array_api_strict

            self.xp = array_api_strict
            self.device = array_api_strict.Device(name.partition(":")[2] or "CPU_DEVICE")
        else:
            self.xp, self.device = pytest.importorskip("cupy"), None

    def asarray(self, values):
        if self.device is None:
            return self.xp.asarray(values)
        return self.xp.asarray(values, device=self.device)

    def to_numpy(self, values):
        from skprojdict._array import to_numpy

        return to_numpy(values)

    def __repr__(self):
        return self.name


def _cuda_missing():
    import torch

    return not torch.cuda.is_available()


BACKENDS = ["numpy", "torch", "strict", "strict:device1"]
GPU_BACKENDS = [pytest.param(name, marks=pytest.mark.gpu) for name in ("torch:cuda", "cupy")]


@pytest.fixture(params=[*BACKENDS, *GPU_BACKENDS])
def backend(request):
    """Every array library that the solvers promise to run on; those of a GPU are skipped where there is none."""
    if request.node.get_closest_marker("gpu") and _cuda_missing():
        pytest.skip(f"{request.param} needs a CUDA device, and none is here")
    return Backend(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Small problems: a second thread only adds noise, and xdist workers would fight over the cores."""
    import torch

    torch.set_num_threads(1)
