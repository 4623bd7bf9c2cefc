# SPDX-License-Identifier: BSD-3-Clause
"""Where large results go: memory that is lent, used again, or comes in huge pages."""

import contextlib
from contextvars import ContextVar
from typing import Any

import numpy as np

from ._array import array_namespace, device, is_torch_namespace

# What lends memory for large results of torch on a CPU, as ``take(shape, dtype)``; None: the system.
_lender: ContextVar[Any] = ContextVar("_lender", default=None)
# NumPy's memory for tensors; it has no bfloat16.
_NUMPY_DTYPES = {
    "torch.float32": "float32",
    "torch.float64": "float64",
    "torch.bfloat16": "int16",
    "torch.float16": "float16",
    "torch.bool": "bool",
}
# Arrays begin where vectors and lines of the cache do: at other places a product in bfloat16 takes half as long again.
ALIGNMENT = 64
# Tensors of so many bytes are worth huge pages of 2 MiB.
LEAST_HUGE = 1 << 23


def aligned_bytes(size):
    """So many bytes that begin at a multiple of the alignment. NumPy asks for huge pages, torch does not."""
    room = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


def in_huge_pages(tensor):
    """A large tensor on a CPU copied to memory in huge pages; any other as it is.

    Atoms that are gathered from all over a dictionary of 50 MB otherwise wait for the page table: a projective training
    step takes a tenth longer.
    """
    numpy_dtype = _NUMPY_DTYPES.get(str(tensor.dtype))
    size = tensor.numel() * tensor.element_size()
    if tensor.device.type != "cpu" or not numpy_dtype or size < LEAST_HUGE:
        return tensor
    import torch

    memory = aligned_bytes(size).view(numpy_dtype).reshape(tensor.shape)
    return torch.from_numpy(memory).view(tensor.dtype).copy_(tensor)


@contextlib.contextmanager
def memory_from(lender):
    """Take the memory of large results on a CPU from ``lender.take(shape, dtype)``."""
    token = _lender.set(lender)
    try:
        yield
    finally:
        _lender.reset(token)


def uninitialised(shape, like, dtype=None):
    """An array of the library and device of ``like`` whose entries are yet to be written, of its dtype or another.

    Large tensors on a CPU take their memory from :func:`memory_from`, else from NumPy, which asks the kernel for huge
    pages where torch does not: 50 MB of fresh memory then cost 7 ms to touch instead of 35.
    """
    xp = array_namespace(like)
    dtype = like.dtype if dtype is None else dtype
    numpy_dtype = _NUMPY_DTYPES.get(str(dtype))
    if is_torch_namespace(xp) and like.device.type == "cpu" and numpy_dtype:
        import torch

        lender = _lender.get()
        memory = np.empty(shape, numpy_dtype) if lender is None else lender.take(shape, numpy_dtype)
        return torch.from_numpy(memory).view(dtype)
    return xp.empty(shape, dtype=dtype, device=device(like))


def gather_rows(F, indices, out=None):
    """``F[indices]``: rows of a (p, d) matrix by an (n, k) index, as (n, k, d).

    ``out`` is memory from :func:`gather_room` to put them in, which the next gathering into it will overwrite.
    """
    xp = array_namespace(F)
    n, k = indices.shape
    if out is not None:
        xp.index_select(F, 0, indices.reshape(-1), out=out[: n * k])
        return out[: n * k].view(n, k, F.shape[1])
    return xp.reshape(xp.take(F, xp.reshape(indices, (-1,)), axis=0), (n, k, F.shape[1]))


def gather_room(F, n_rows):
    """Memory for ``n_rows`` gathered rows of F, to be used again and again; None where the library has no use for it.

    Fresh memory for every chunk costs as much to touch as the chunk costs to gather.
    """
    xp = array_namespace(F)
    if not is_torch_namespace(xp) or (F.requires_grad and xp.is_grad_enabled()):
        return None
    return xp.empty((n_rows, F.shape[1]), dtype=F.dtype, device=F.device)
