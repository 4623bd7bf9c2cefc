# SPDX-License-Identifier: BSD-3-Clause
"""Products of rows with all atoms, by whatever multiplies fastest here."""

import functools

from ._array import (
    array_namespace,
    in_numpy_memory,
    is_cupy_namespace,
    is_numpy_namespace,
    is_torch_namespace,
    to_torch,
)
from ._memory import uninitialised
from ._openmp import forked

# Of the products by oneDNN: multiplications from which on one is worth its copies, and in NumPy that torch is loaded;
# rows and atoms of a block, whose copies stay in the cache.
LEAST_PRODUCT, LEAST_OF_NUMPY, BLOCK = 1 << 26, 1 << 31, (512, 1024)


@functools.cache
def processor():
    """What torch knows of the processor: its name and which instructions it has; nothing before torch tells."""
    import torch

    return getattr(torch.cpu, "get_capabilities", dict)()


@functools.cache
def onednn_is_ahead():
    """Whether oneDNN multiplies float32 matrices faster than MKL, torch's own choice, does here.

    On AMD's processors MKL leaves half of AVX-512 unused: 98 GFLOP/s of a core of Zen 5, where oneDNN has 220.
    """
    import torch

    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and "AMD" in processor().get("cpu_name", "") and processor().get("avx512_f", False)


@functools.cache
def numpy_is_behind():
    """Whether oneDNN multiplies faster than NumPy, too, whose OpenBLAS knows but AVX2 there: 120 GFLOP/s."""
    from threadpoolctl import threadpool_info

    kernels = {library.get("architecture") for library in threadpool_info()}
    return bool(kernels & {"Haswell", "Zen"}) and onednn_is_ahead()


@functools.cache
def multiplies_bfloat16():
    """Whether the processor multiplies bfloat16 matrices several times as fast as float32 ones.

    With matrix units four times as fast. AVX-512 alone does so on AMD's processors, 4.5 times as fast as MKL and twice
    as fast as oneDNN in float32; on Intel's it gains a fifth, which scoring again costs.
    """
    import torch

    knows = processor()
    fast = knows.get("amx_bf16", False) or (onednn_is_ahead() and knows.get("avx512_bf16", False))
    return fast and torch.backends.mkldnn.is_available()  # other libraries would emulate it


def affine(X, matrix, shift):
    """``X @ matrix.T + shift`` of rows X, without a second pass over the product where the library can.

    A ``shift`` of None is 0.
    """
    xp = array_namespace(X)
    on_torch = is_torch_namespace(xp)
    if on_torch and xp.is_grad_enabled() and any(t is not None and t.requires_grad for t in (X, matrix, shift)):
        return X @ matrix.T if shift is None else xp.addmm(shift, X, matrix.T)
    if _onednn_pays(X, matrix, shift):
        out = uninitialised((X.shape[0], matrix.shape[0]), X)
        _by_onednn(*(None if each is None else to_torch(each) for each in (X, matrix, shift, out)))
        return out
    if on_torch:
        out = uninitialised((X.shape[0], matrix.shape[0]), X)
        return xp.mm(X, matrix.T, out=out) if shift is None else xp.addmm(shift, X, matrix.T, out=out)
    product = X @ matrix.T
    if shift is None:
        return product
    if is_numpy_namespace(xp) or is_cupy_namespace(xp):
        product += shift
        return product
    return product + shift


def _onednn_pays(X, matrix, shift):
    """Whether a product is to be left to oneDNN: large, of float32 alone, where what would take it is behind."""
    if not in_numpy_memory(X) or not all(str(t.dtype).endswith("float32") for t in (X, matrix, shift) if t is not None):
        return False
    n_products = X.shape[0] * matrix.shape[0] * matrix.shape[1]
    if is_torch_namespace(array_namespace(X)):
        return n_products >= LEAST_PRODUCT and onednn_is_ahead()
    return n_products >= LEAST_OF_NUMPY and not forked() and numpy_is_behind()


def _by_onednn(X, matrix, shift, out):
    """Write the product in blocks: oneDNN gives each in memory of its own, which has to come from somewhere."""
    import torch

    rows, atoms = BLOCK
    shift = None if shift is None else shift.contiguous()  # it would read a strided one from elsewhere
    with torch.autocast("cpu", enabled=False):  # which does not know oneDNN's tensors
        for block, places in zip(X.split(rows), out.split(rows), strict=True):
            inputs = block.contiguous().to_mkldnn()
            for start, place in zip(range(0, matrix.shape[0], atoms), places.split(atoms, dim=1), strict=True):
                some = slice(start, start + atoms)
                part = torch.nn.functional.linear(inputs, matrix[some], None if shift is None else shift[some])
                place.copy_(part.to_dense())
