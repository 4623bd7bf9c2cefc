# SPDX-License-Identifier: BSD-3-Clause
"""Products with all atoms: by whichever library, and in whichever precision, they mean the same."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skprojdict import ProjectiveDictionaryLearning, TopKDictionaryLearning, _products
from skprojdict._memory import memory_from
from skprojdict._products import affine
from skprojdict._validation import coding_dtype, training_dtype
from skprojdict.solvers import select
from skprojdict.training.arena import Arena

from .data import sparse_rows

N, D, P = 70, 24, 40
ZEN_5 = {"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}
XEON = {"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}
# name -> what torch says of it, oneDNN is ahead in float32, bfloat16 pays
PROCESSORS = {
    "Zen 5": (ZEN_5, True, True),
    "Zen 3": ({"cpu_name": "AMD EPYC", "avx512_f": False}, False, False),
    "Sapphire Rapids": (XEON, False, True),
    "Cooper Lake": ({**XEON, "amx_bf16": False}, False, False),
    "unknown": ({}, False, False),
}


@pytest.fixture
def by_onednn(monkeypatch):
    """All products of float32 on the CPU go to oneDNN, in three blocks of rows and two of atoms."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    for name in ("onednn_is_ahead", "numpy_is_behind"):
        monkeypatch.setattr(_products, name, lambda: True)
    for name in ("LEAST_PRODUCT", "LEAST_OF_NUMPY"):
        monkeypatch.setattr(_products, name, 0)
    monkeypatch.setattr(_products, "BLOCK", (32, 25))


def given(library, order="C"):
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(shape), dtype=np.float32, order=order) for shape in ((N, D), (P, D), P)]
    return [torch.from_numpy(each) if library == "torch" else each for each in arrays]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shifted", [True, False])
def test_a_product_by_onednn_is_the_product(by_onednn, library, order, shifted):
    X, matrix, shift = given(library, order)
    found = affine(X, matrix, shift if shifted else None)
    assert type(found) is type(X)
    assert "float32" in str(found.dtype)
    exact = np.asarray(X, dtype=np.float64) @ np.asarray(matrix, dtype=np.float64).T + (np.asarray(shift) * shifted)
    assert_allclose(np.asarray(found), exact, rtol=0, atol=2e-5)


def test_rows_that_are_no_numbers_spoil_no_others(by_onednn):
    X, matrix, shift = given("torch")
    clean = affine(X, matrix, shift)
    X[40] = torch.nan
    found = affine(X, matrix, shift)
    assert bool(found[40].isnan().all())
    assert_array_equal(np.delete(found.numpy(), 40, 0), np.delete(clean.numpy(), 40, 0))


def test_memory_that_may_not_be_written_is_read(by_onednn):
    X, matrix, shift = given("numpy")
    wanted = affine(X, matrix, shift)
    for each in (X, matrix, shift):
        each.flags.writeable = False
    assert_array_equal(affine(X, matrix, shift), wanted)
    assert_array_equal(affine(X[::-1], matrix, shift), wanted[::-1])


def test_a_product_by_onednn_lies_in_memory_that_is_lent(by_onednn):
    X, matrix, shift = given("torch")
    arena = Arena()
    with memory_from(arena):
        affine(X, matrix, shift)  # tells how much is wanted
        found = affine(X, matrix, shift)
    assert found.data_ptr() == arena._room.ctypes.data


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_shift_may_lie_anywhere(by_onednn, library):
    """oneDNN takes the numbers of a strided one from memory that is not its own."""
    X, matrix, shift = given(library)
    table = np.stack([np.asarray(shift), np.full(P, 1e9, np.float32)], axis=1)
    one = np.broadcast_to(np.float32(1), P)
    if library == "torch":
        table, one = torch.from_numpy(table), torch.ones(1).expand(P)
    for _ in range(5):
        assert_allclose(np.asarray(affine(X, matrix, table[:, 0])), np.asarray(affine(X, matrix, shift)), atol=1e-6)
        found = np.asarray(affine(X, matrix, one)) - np.asarray(affine(X, matrix, None))
        assert_allclose(found, 1, atol=2e-5)


def test_autocast_leaves_products_alone(by_onednn):
    X, matrix, shift = given("torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = affine(X, matrix, shift)
    torch.testing.assert_close(found, affine(X, matrix, shift), rtol=0, atol=0)


def test_mixed_precision_is_left_to_numpy(by_onednn):
    X, matrix, shift = given("numpy")
    for mixed in ((X, matrix.astype(np.float64), None), (X, matrix, shift.astype(np.float64))):
        product = mixed[0] @ mixed[1].T
        assert_allclose(affine(*mixed), product if mixed[2] is None else product + np.float32(shift), rtol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_does_not_wait_for_threads_that_stayed_behind():
    """The threads of torch's products are not in the child, and those of NumPy's are; a child of its own forks."""
    script = textwrap.dedent(
        """
        import os, sys
        import numpy as np
        import torch
        from skprojdict import _products

        torch.set_num_threads(2)
        for name in ("onednn_is_ahead", "numpy_is_behind"):
            setattr(_products, name, lambda: True)
        _products.LEAST_OF_NUMPY = 0
        X, F = np.ones((600, 64), np.float32), np.ones((5000, 64), np.float32)
        _products.affine(X, F, None)
        child = os.fork()
        if not child:
            os._exit(0 if (_products.affine(X, F, None) == 64).all() else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False)
    assert done.returncode == 0


def test_gradients_pass_through_products(by_onednn):
    X, matrix, shift = given("torch")
    affine(X.requires_grad_(), matrix, shift).sum().backward()
    torch.testing.assert_close(X.grad, matrix.sum(0).expand(N, D))


def test_small_products_of_numpy_ask_nobody(monkeypatch):
    """What there is to gain does not pay for loading torch."""

    def ask():
        raise AssertionError("asked")

    monkeypatch.setattr(_products, "numpy_is_behind", ask)
    X, matrix, shift = given("numpy")
    assert_array_equal(affine(X, matrix, shift), X @ matrix.T + shift)
    monkeypatch.setattr(_products, "LEAST_OF_NUMPY", N * D * P)
    affine(X.astype(np.float64), matrix.astype(np.float64), shift)
    with pytest.raises(AssertionError, match="asked"):
        affine(X, matrix, shift)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_multiplies_fastest_depends_on_the_processor(name, monkeypatch):
    about, ahead, bfloat16 = PROCESSORS[name]
    monkeypatch.setattr(_products, "processor", lambda: about)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    plain = _products.onednn_is_ahead.__wrapped__
    monkeypatch.setattr(_products, "onednn_is_ahead", plain)
    assert plain() == ahead
    assert _products.multiplies_bfloat16.__wrapped__() == bfloat16
    with monkeypatch.context() as without:
        without.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not _products.multiplies_bfloat16.__wrapped__()
        assert not plain()
    for kernels, behind in (("Haswell", ahead), ("Zen", ahead), ("SkylakeX", False)):
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda kernels=kernels: [{"architecture": kernels}])
        assert _products.numpy_is_behind.__wrapped__() == behind


def test_torch_tells_of_the_processor():
    about = _products.processor()
    assert about is _products.processor()
    assert isinstance(about.get("cpu_name", ""), str)


# ---- precision of training steps


@pytest.fixture
def units(monkeypatch):
    """A processor that multiplies bfloat16 fast, and a limit that small dictionaries pass."""
    monkeypatch.setattr(select, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(select, "compiled_pays", lambda *size: True)
    monkeypatch.setattr(select, "MANY_ATOMS", 2)
    monkeypatch.setattr(select, "MANY_COLUMNS", 4)


def test_training_scores_in_bfloat16_where_that_pays(units, monkeypatch):
    encoder = torch.zeros(80, 4)  # of 4 exact scores, 22 are computed again
    assert select.trained_dtype("auto", encoder, 4, 100) == "bfloat16"
    for other in (encoder.double(), encoder.to("meta"), encoder[:40], encoder[:, :3]):
        assert select.trained_dtype("auto", other, 4, 100) is None
    for n_exact in (30, None):
        assert select.trained_dtype("auto", encoder, n_exact, 100) is None
    for asked in (None, "bfloat16", "float16"):
        assert select.trained_dtype(asked, encoder, 30, 100) == asked
    for name in ("compiled_pays", "multiplies_bfloat16"):
        with monkeypatch.context() as patch:
            patch.setattr(select, name, lambda *size: False)
            assert select.trained_dtype("auto", encoder, 4, 100) is None


OPTIONS = {"n_components": 96, "n_nonzero_coefs": 2, "batch_size": 128, "max_steps": 3, "random_state": 0}


def fitted(estimator, X, **options):
    return estimator(**{**OPTIONS, **options}).fit(X)


@pytest.mark.parametrize("estimator", [TopKDictionaryLearning, ProjectiveDictionaryLearning])
def test_auto_is_bfloat16_in_training_and_exact_in_coding(units, estimator):
    X = sparse_rows(n=512).astype(np.float32)
    auto, low, exact = (fitted(estimator, X, selection_dtype=dtype) for dtype in ("auto", "bfloat16", None))
    assert_array_equal(auto.components_, low.components_)
    assert not np.array_equal(auto.components_, exact.components_)
    assert_array_equal(auto.transform(X), low.set_params(selection_dtype=None).transform(X))


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (TopKDictionaryLearning, {"selection": "batch"}),
        (TopKDictionaryLearning, {"prefix_sizes": (32,)}),
        (ProjectiveDictionaryLearning, {"prefix_sizes": (32,)}),
        (ProjectiveDictionaryLearning, {"selection": "threshold"}),
        (ProjectiveDictionaryLearning, {"n_nonzero_coefs": None, "selection": "budget", "dimension_budget": 2.0}),
    ],
    ids=str,
)
def test_auto_is_exact_where_every_score_decides(units, estimator, options):
    X = sparse_rows(n=512).astype(np.float32)
    if options.get("selection") == "budget":
        options = {**options, "penalty": "inverse_square"}
    auto, exact = (fitted(estimator, X, selection_dtype=dtype, **options) for dtype in ("auto", None))
    assert_array_equal(auto.components_, exact.components_)
    assert (training_dtype(auto), coding_dtype(auto)) == (None, None)
