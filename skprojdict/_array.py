# SPDX-License-Identifier: BSD-3-Clause
"""The only door to array libraries and to scikit-learn's private array helpers.

Solvers are written once for the array API standard. What the standard lacks (top-k, a Cholesky
solve, scattering along rows) is here, with a faster native branch where a library has one.
"""

import functools
import importlib.util
import math

import array_api_compat
import array_api_extra as xpx
import numpy as np
from array_api_compat import array_namespace, device, is_cupy_namespace, is_numpy_namespace, is_torch_namespace
from scipy.linalg import get_lapack_funcs
from sklearn import get_config
from sklearn.utils import _align_api_if_sparse as align_sparse  # private in 1.9: the global option `sparse_interface`
from sklearn.utils._array_api import (  # private in 1.9; scikit-learn#34135 proposes to publish them
    check_same_namespace,
    get_namespace_and_device,
    move_to,
    supported_float_dtypes,
)

__all__ = [
    "OnTensors",
    "add_to_diagonal",
    "align_sparse",
    "array_namespace",
    "asarray_like",
    "check_same_namespace",
    "cho_inverse",
    "cho_solve",
    "cholesky",
    "detached",
    "device",
    "for_kernels",
    "from_torch",
    "get_namespace_and_device",
    "has_numba",
    "in_numpy_memory",
    "is_numpy_namespace",
    "is_torch_namespace",
    "lower_at",
    "move_to",
    "nonzero_rows",
    "on_cpu",
    "put_rows",
    "scatter_rows",
    "supported_float_dtypes",
    "take_along_rows",
    "to_numpy",
    "to_torch",
    "top_k",
    "unwrapped",
]

# Systems larger than this are worth a call each.
LOOPED_SIZE = 8


@functools.cache
def has_numba():
    """Whether Numba can be imported, for the kernels that it compiles."""
    return importlib.util.find_spec("numba") is not None


def top_k(values, k):
    """The k largest entries of each row, in descending order: ``(values, indices)``, both (n, k).

    Which of several equal entries at the cut is taken depends on the library; array-api-strict takes the first.
    """
    xp = array_namespace(values)
    if _long_rows(values, k, xp):
        from .kernels.largest import largest_rows

        (rows,) = for_kernels(values)
        found, indices = largest_rows(rows, k)
        return asarray_like(found, values), asarray_like(indices, values, dtype=xp.int64)
    if is_torch_namespace(xp):
        return _top_k_of_groups(values, k) if values.device.type == "cpu" else _torch_top_k(values, k)
    if (is_numpy_namespace(xp) or is_cupy_namespace(xp)) and k < values.shape[1]:
        part = xpx.argpartition(-values, k - 1, axis=1)[:, :k]
        # argpartition leaves the winners in any order: by index first, so that equal ones come in order of index.
        part = xp.sort(part, axis=1)
        order = xp.argsort(-xp.take_along_axis(values, part, axis=1), axis=1, stable=True)
        part = xp.take_along_axis(part, order, axis=1)
        return xp.take_along_axis(values, part, axis=1), part
    indices = xp.argsort(values, axis=1, descending=True, stable=True)[:, :k]
    return xp.take_along_axis(values, indices, axis=1), indices


# Numba's kernel looks at rows that are so many times longer than k, where a call has so many entries.
LONG_ROWS, MANY_ENTRIES = 8, 1 << 19


def _long_rows(values, k, xp):
    """Whether the compiled top-k is to be used. It has no gradient."""
    n, p = values.shape
    if n * p < MANY_ENTRIES or not 0 < LONG_ROWS * k <= p:
        return False
    if is_torch_namespace(xp) and values.requires_grad and xp.is_grad_enabled():
        return False
    return in_numpy_memory(values) and values.dtype in (xp.float32, xp.float64) and has_numba()


# torch.topk on a CPU spends 3 ns on every entry, a maximum over groups of strided columns a tenth of that.
GROUP, FEWEST_GROUPS = 8, 128


def _torch_top_k(values, k, *, ordered=True):
    import torch

    top = torch.topk(values, k, dim=1, sorted=ordered)
    return top.values, top.indices


def _top_k_of_groups(values, k, *, ordered=True):
    """Top-k by groups of columns: the k largest entries lie in the k groups whose own maxima are largest."""
    import torch

    n, p = values.shape
    n_groups = p // GROUP
    if n_groups < max(FEWEST_GROUPS, 2 * k):
        return _torch_top_k(values, k, ordered=ordered)
    whole = n_groups * GROUP
    best = values[:, :whole].unflatten(1, (GROUP, n_groups)).amax(1)
    groups = _top_k_of_groups(best, k, ordered=False)[1]
    members = torch.arange(0, whole, n_groups, device=values.device)
    columns = (groups[:, None, :] + members[:, None]).flatten(1)
    if whole < p:
        rest = torch.arange(whole, p, device=values.device).expand(n, -1)
        columns = torch.cat([columns, rest], dim=1)
    top, place = _torch_top_k(values.gather(1, columns), k, ordered=ordered)
    return top, columns.gather(1, place)


def take_along_rows(values, indices, axis=1):
    """``values[i, indices[i, j]]`` for every row i; three axes: along ``axis``, as wide in the other."""
    xp = array_namespace(values)
    if is_torch_namespace(xp):  # its take_along_dim spends as long again on indices below zero
        return values.gather(axis, indices)
    return xp.take_along_axis(values, indices, axis=axis)


def lower_at(values, indices, mask):
    """``values`` (n, p) with minus infinity at the ``indices`` (n, k) of each row where ``mask`` holds.

    Elsewhere indices may point anywhere, also where another one of the row does. May change ``values`` in place, since
    a pass over all of them costs more than the few that change.
    """
    xp = array_namespace(values)
    if is_torch_namespace(xp):
        return values.scatter_reduce_(1, indices, xp.where(mask, -math.inf, math.inf).to(values.dtype), "amin")
    if is_numpy_namespace(xp) or is_cupy_namespace(xp):
        rows, columns = xp.nonzero(mask)
        values[rows, indices[rows, columns]] = -math.inf
        return values
    chosen = scatter_rows(indices, xp.astype(mask, values.dtype), values.shape[1]) > 0
    return xp.where(chosen, xp.full_like(values, -math.inf), values)


def scatter_rows(indices, values, n_columns):
    """Dense (n, n_columns) array with ``values`` added at ``indices`` of each row; zeros elsewhere.

    Entries whose value is 0 are no-ops, so padding may point anywhere.
    """
    xp = array_namespace(values)
    n, k = indices.shape
    shape = (n, n_columns)
    if is_torch_namespace(xp):
        return xp.zeros(shape, dtype=values.dtype, device=values.device).scatter_add_(1, indices, values)
    dense = xp.zeros(shape, dtype=values.dtype, device=device(values))
    if is_numpy_namespace(xp) or is_cupy_namespace(xp):
        rows = xp.arange(n)
        for j in range(k):  # one column of the support at a time: padding may repeat an index inside a row
            dense[rows, indices[:, j]] += values[:, j]
        return dense
    columns = xp.arange(n_columns, device=device(values))[None, :]
    zero = xp.zeros((), dtype=values.dtype, device=device(values))
    for j in range(k):
        dense = dense + xp.where(columns == indices[:, j : j + 1], values[:, j : j + 1], zero)
    return dense


def add_to_diagonal(A, values):
    """``A + diag(values)`` for a stack of square matrices (..., k, k); values broadcasts to (..., k)."""
    xp = array_namespace(A)
    if is_torch_namespace(xp):
        out = A.clone()
        xp.diagonal(out, dim1=-2, dim2=-1).add_(values)
        return out
    if is_numpy_namespace(xp):
        out = A.copy()
        np.einsum("...ii->...i", out)[...] += values
        return out
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=device(A))
    if isinstance(values, (int, float)):
        return A + values * eye
    return A + values[..., None] * eye


def cholesky(A):
    """Lower Cholesky factors of a stack of positive definite matrices, without raising on any library.

    A matrix that is not positive definite to working precision gives NaN in its own factor only.
    """
    xp = array_namespace(A)
    if is_torch_namespace(xp):
        import torch

        factor, info = torch.linalg.cholesky_ex(A)
        if info.device.type == "cpu" and not bool(info.any()):
            return factor  # elsewhere looking would wait for the device
        return torch.where((info > 0)[..., None, None], torch.full_like(factor, math.nan), factor)
    try:
        return xp.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        if A.ndim == 2:
            return xp.full_like(A, math.nan)
        return xp.stack([cholesky(A[i, ...]) for i in range(A.shape[0])])


def cho_solve(factor, B):
    """Solve ``L L^T X = B`` for stacks of lower factors L (..., k, k) and right-hand sides (..., k, c)."""
    xp = array_namespace(factor)
    if is_torch_namespace(xp):
        import torch

        return torch.cholesky_solve(B, factor)
    if _each_by_lapack(factor, xp):
        (solve,) = get_lapack_funcs(("potrs",), (factor, B))
        out = np.empty(B.shape, dtype=factor.dtype)
        for i in range(out.shape[0]):
            out[i] = solve(factor[i].T, B[i], lower=0)[0]  # a transposed lower factor is an upper one in its order
        return out
    # The standard has no triangular solve. LAPACK's general one is a compiled loop over the stack in NumPy and
    # CuPy, which beats SciPy's Python loop over triangular solves for the small systems met here.
    return xp.linalg.solve(xp.matrix_transpose(factor), xp.linalg.solve(factor, B))


def cho_inverse(factor):
    """``(L L^T)^-1`` for a stack of lower factors L (..., k, k)."""
    xp = array_namespace(factor)
    if is_torch_namespace(xp):
        import torch

        return torch.cholesky_inverse(factor)  # 3.5 times faster than solving for the unit vectors, at k = 64
    if _each_by_lapack(factor, xp):
        (invert,) = get_lapack_funcs(("potri",), (factor,))
        half = np.empty_like(factor)
        for i in range(half.shape[0]):
            half[i] = invert(factor[i].T, lower=0)[0]  # the upper triangle; zeros below, as in the factor
        out = half + xp.matrix_transpose(half)
        diagonal = np.arange(out.shape[-1])
        out[:, diagonal, diagonal] *= 0.5
        return out
    eye = xp.eye(factor.shape[-1], dtype=factor.dtype, device=device(factor))
    return cho_solve(factor, xp.broadcast_to(eye, factor.shape))


def _each_by_lapack(factor, xp):
    """Whether LAPACK's routine for triangles, called in a Python loop, beats NumPy's general one over the stack.

    At k = 32 it solves in a third of the time, at k = 64 it inverts in a fifth; at k = 8 the loop costs as much.
    """
    return is_numpy_namespace(xp) and factor.ndim == 3 and factor.shape[-1] > LOOPED_SIZE


def in_numpy_memory(x):
    """Whether NumPy can look at an array without a copy: it is one of its own, or a tensor on the CPU."""
    xp = array_namespace(x)
    return is_numpy_namespace(xp) or (is_torch_namespace(xp) and x.device.type == "cpu")


def for_kernels(*arrays):
    """NumPy arrays in the layout that kernels are compiled for: others, and read-only ones, would be compiled anew."""
    return [np.require(to_numpy(array), requirements=["C", "W"]) for array in arrays]


def nonzero_rows(mask):
    """Indices where a 1-d boolean mask holds, as an integer array."""
    return array_namespace(mask).nonzero(mask)[0]


def put_rows(values, rows, replacement):
    """A copy of ``values`` (n, c) whose rows at the integer indices ``rows`` are those of ``replacement``."""
    xp = array_namespace(values)
    if is_torch_namespace(xp):
        return values.index_copy(0, rows, replacement)
    if is_numpy_namespace(xp) or is_cupy_namespace(xp):
        values = values.copy()
        values[rows] = replacement
        return values
    # The standard has no assignment by an integer array: a permutation does the same.
    kept = xp.arange(values.shape[0], device=device(values))
    for i in range(rows.shape[0]):
        kept[int(rows[i])] = values.shape[0] + i
    return xp.take(xp.concat([values, replacement], axis=0), kept, axis=0)


def on_cpu(x):
    """Whether an array is in the memory of the host, where looking at a value waits for nothing."""
    return str(getattr(device(x), "type", device(x))).lower().startswith(("cpu", "device"))


def asarray_like(values, like, *, dtype=None):
    """Bring a NumPy array (or nested list) to the namespace and device of ``like``; dtype follows ``like``."""
    xp = array_namespace(like)
    return xp.asarray(np.asarray(values), dtype=like.dtype if dtype is None else dtype, device=device(like))


def to_numpy(x):
    """A NumPy copy or view of any array, from any device."""
    if not array_api_compat.is_array_api_obj(x):
        return np.asarray(x)
    xp = array_namespace(x)
    if is_numpy_namespace(xp):
        return x
    if is_torch_namespace(xp):
        return x.detach().cpu().numpy()
    if is_cupy_namespace(xp):
        return x.get()
    cpu = xp.Device("CPU_DEVICE") if hasattr(xp, "Device") else "cpu"
    return np.from_dlpack(array_api_compat.to_device(x, cpu))


def to_torch(x, target_device=None):
    """A torch tensor that shares memory with ``x`` where its library allows it (DLPack), else a copy."""
    import torch

    if isinstance(x, torch.Tensor):
        tensor = x.detach()
    elif array_api_compat.is_cupy_array(x):
        tensor = torch.from_dlpack(x)
    else:
        x = to_numpy(x)
        if not x.flags.writeable or any(stride < 0 for stride in x.strides):
            x = x.copy()  # torch warns on read-only memory and has no negative strides
        tensor = torch.from_numpy(x)
    return tensor if target_device is None else tensor.to(target_device)


def unwrapped(x):
    """A tensor without its history of gradients; anything else as it is.

    Without array API dispatch scikit-learn reads a tensor as float64, whatever it is, so that one in the host's memory
    becomes the NumPy array of its own dtype here (float32 for bfloat16, which NumPy does not have).
    """
    if not array_api_compat.is_torch_array(x):
        return x
    x = x.detach()
    if get_config()["array_api_dispatch"] or x.device.type != "cpu" or str(x.layout) != "torch.strided":
        return x
    return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()


def detached(x):
    """The array without its history of gradients, where it is a tensor that has one."""
    return x.detach() if array_api_compat.is_torch_array(x) else x


class OnTensors:
    """A user's elementwise torch function, callable on arrays of any library.

    Parameters
    ----------
    function : callable
        Maps a tensor to a tensor of the same shape.
    name : str
        The parameter that it was given as, for the error message.
    """

    def __init__(self, function, name):
        self.function, self.name = function, name

    def __call__(self, x):
        """Apply the function to ``x``, and bring the result to where ``x`` is."""
        on_torch = array_api_compat.is_torch_array(x)
        try:
            value = self.function(x if on_torch else to_torch(x))
        except (TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"{self.name} must map a torch tensor to a tensor by operations that torch can differentiate, but it "
                f"raised {type(error).__name__}: {error}. Use operators or torch functions."
            ) from error
        if not array_api_compat.is_torch_array(value):
            raise ValueError(
                f"{self.name} must map a torch tensor to a tensor, got {type(value).__name__}: gradients have to pass "
                "through it. Use operators or torch functions."
            )
        return value if on_torch else from_torch(value, x)


def from_torch(tensor, like):
    """Bring a torch tensor to the namespace and device of ``like``; its dtype is kept."""
    xp = array_namespace(like)
    tensor = tensor.detach()
    if is_torch_namespace(xp):
        return tensor.to(device(like))
    if is_cupy_namespace(xp):
        return xp.from_dlpack(tensor) if tensor.is_cuda else xp.asarray(tensor.numpy())
    return xp.asarray(tensor.cpu().numpy(), device=device(like))
