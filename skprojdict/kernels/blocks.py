# SPDX-License-Identifier: BSD-3-Clause
"""Eight rows at a time inside kernels: blocks of 8 x 8 numbers that are turned or factorised, sums of eight products.

All of it stays in registers: what a loop does to such a block number by number costs as much as the arithmetic of whole
rows. Offsets and the ``stride`` from one of the eight to the next count numbers in the memory of a contiguous array; no
bounds are checked. Importing this file needs the extra "numba".
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .vectors import FREE, Vector, call, data_at, everywhere, inside, places

SIDE = 8
_INT = ir.IntType(32)


def _pointers(builder, kind, pointer, stride, shape):
    """Pointers to values of a shape that begin at a number and every ``stride`` further; what they are aligned to."""
    starts = [builder.gep(pointer, [builder.mul(stride, stride.type(u))]) for u in range(SIDE)]
    return [builder.bitcast(start, shape.as_pointer()) for start in starts], kind.dtype.bitwidth // 8


def _load(builder, kind, pointer, stride, shape):
    starts, align = _pointers(builder, kind, pointer, stride, shape)
    return [builder.load(start, align=align) for start in starts]


def _store(builder, kind, pointer, stride, rows):
    starts, align = _pointers(builder, kind, pointer, stride, rows[0].type)
    for start, row in zip(starts, rows, strict=True):
        builder.store(row, start, align=align)


def _row(pointer):
    return ir.VectorType(pointer.type.pointee, SIDE)


def _turned(builder, rows):
    """Columns in place of rows: halves of neighbours change places, then quarters, then single numbers."""
    rows, step = list(rows), SIDE // 2
    while step:
        upper = places([j if not j & step else SIDE + j - step for j in range(SIDE)])
        lower = places([j + step if not j & step else SIDE + j for j in range(SIDE)])
        for i in range(SIDE):
            if not i & step:
                pair = rows[i], rows[i + step]
                rows[i], rows[i + step] = (builder.shuffle_vector(*pair, which) for which in (upper, lower))
        step //= 2
    return rows


@inside
def turn(typing, array, at, stride, out, to, out_stride):
    """Move the block at an offset to another place, turned; zeros are left behind."""

    def generate(context, builder, signature, args):
        kind, other = signature.args[0], signature.args[3]
        start, end = data_at(context, builder, kind, *args[:2]), data_at(context, builder, other, *args[3:5])
        rows = _load(builder, kind, start, args[2], _row(start))
        _store(builder, other, end, args[5], _turned(builder, rows))
        _store(builder, kind, start, args[2], [ir.Constant(rows[0].type, None)] * SIDE)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, out, types.intp, types.intp), generate


@inside
def factorise(typing, array, at, stride, out, pivots):
    """Write M = L^-1 of the symmetric block ``L L^T`` whose lower triangle is at an offset, and L's diagonal squared.

    By elimination in the order of the rows, without exchanges. ``out`` is as large as the block, ``pivots`` as a row of
    it. Products with M are as accurate as substitution in L; with the block's inverse they would lose as many digits
    as its condition has.
    """

    def generate(context, builder, signature, args):
        kind, result, line = signature.args[0], signature.args[3], signature.args[4]
        index = args[1].type
        start = data_at(context, builder, kind, *args[:2])
        lower = _load(builder, kind, start, args[2], _row(start))
        upper = _turned(builder, lower)
        rows = []
        for u in range(SIDE):
            which = [v if v <= u else SIDE + v for v in range(SIDE)]
            rows.append(builder.shuffle_vector(lower[u], upper[u], places(which)))
        one, zero = (rows[0].type.element(number) for number in (1.0, 0.0))
        nothing = ir.Constant(rows[0].type, None)
        diagonal = ir.Constant(rows[0].type, ir.Undefined)
        # What is eliminated from a row makes room for the row of M, before it is divided by the root of its pivot.
        for s in range(SIDE):
            pivot = builder.extract_element(rows[s], _INT(s))
            diagonal = builder.insert_element(diagonal, pivot, _INT(s))
            inverse = everywhere(builder, builder.fdiv(one, pivot, flags=FREE), SIDE)
            rows[s] = own = builder.insert_element(rows[s], one, _INT(s))
            for i in range(s + 1, SIDE):
                factor = builder.shuffle_vector(rows[i], rows[i], places([s] * SIDE))
                rest = builder.insert_element(rows[i], zero, _INT(s))
                taken = builder.fmul(builder.fmul(factor, inverse, flags=FREE), own, flags=FREE)
                rows[i] = builder.fsub(rest, taken, flags=FREE)
        roots = call(builder, "sqrt", diagonal.type, [diagonal])
        for s in range(SIDE):
            kept = [v if v <= s else SIDE + v for v in range(SIDE)]
            root = builder.shuffle_vector(roots, roots, places([s] * SIDE))
            rows[s] = builder.fdiv(builder.shuffle_vector(rows[s], nothing, places(kept)), root, flags=FREE)
        _store(builder, result, data_at(context, builder, result, args[3], index(0)), index(SIDE), rows)
        place = data_at(context, builder, line, args[4], index(0))
        builder.store(diagonal, builder.bitcast(place, diagonal.type.as_pointer()), align=line.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, out, pivots), generate


@inside
def put_sum(typing, array, at, stride, weights, out, to):
    """Write the sum of the eight rows of a block, each times its own of the first eight weights, to an offset."""

    def generate(context, builder, signature, args):
        kind, line, result = signature.args[0], signature.args[3], signature.args[4]
        start = data_at(context, builder, kind, *args[:2])
        rows = _load(builder, kind, start, args[2], _row(start))
        first = data_at(context, builder, line, args[3], args[1].type(0))
        numbers = _load(builder, line, first, args[1].type(1), first.type.pointee)
        total = ir.Constant(rows[0].type, None)
        for number, row in zip(numbers, rows, strict=True):
            product = builder.fmul(everywhere(builder, number, SIDE), row, flags=FREE)
            total = builder.fadd(product, total, flags=FREE)
        place = data_at(context, builder, result, *args[4:])
        builder.store(total, builder.bitcast(place, total.type.as_pointer()), align=result.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, weights, out, types.intp), generate


@inside
def eight(typing, array, at, stride):
    """Eight vectors, each of one of the numbers at an offset and every ``stride`` further."""

    def generate(context, builder, signature, args):
        kind, result = signature.args[0], context.get_value_type(signature.return_type)
        start = data_at(context, builder, kind, *args[:2])
        numbers = _load(builder, kind, start, args[2], start.type.pointee)
        return cgutils.pack_array(builder, [everywhere(builder, each, result.element.count) for each in numbers])

    return types.UniTuple(Vector(array.dtype), SIDE)(array, types.intp, types.intp), generate


def _with_products(operation):
    """An intrinsic's code: start, with each of eight products added or taken off."""

    def generate(context, builder, signature, args):
        kind, total = signature.args[1], args[4]
        vectors = _load(builder, kind, data_at(context, builder, kind, *args[1:3]), args[3], total.type)
        for factor, vector in zip(cgutils.unpack_tuple(builder, args[0]), vectors, strict=True):
            product = builder.fmul(factor, vector, flags=FREE)
            total = getattr(builder, operation)(total, product, flags=FREE)
        return total

    return generate


@inside
def add_eight(typing, factors, array, at, stride, start):
    """``start`` and the products of eight vectors with those at an offset and every ``stride`` further."""
    return start(factors, array, types.intp, types.intp, start), _with_products("fadd")


@inside
def take_eight(typing, factors, array, at, stride, start):
    """``start`` less these products."""
    return start(factors, array, types.intp, types.intp, start), _with_products("fsub")
