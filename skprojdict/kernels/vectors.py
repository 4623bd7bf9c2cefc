# SPDX-License-Identifier: BSD-3-Clause
"""Vectors of 64 bytes as values inside kernels: 16 numbers of float32, 8 of float64.

Loops that write rows while they read others are vectorised by LLVM only behind tests that the rows do not overlap, and
with a tail for what is left over; for rows of some 64 numbers both cost more than the arithmetic. Here the kernel says
what is a vector. Where the machine's are shorter, several of them do the same. Offsets count numbers in the memory of a
contiguous array, whatever its shape; no bounds are checked. Importing this file needs the extra "numba".
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

BYTES = 64
# Sums may be reordered and products fused: see ``compiling``.
FREE = ("contract", "nsz", "reassoc")


def inside(function) -> Any:
    """An intrinsic of Numba's; its own annotations would be those of the function, with the typing context."""
    return intrinsic(function)


class Vector(types.Type):
    """The type, for Numba, of a vector of one dtype."""

    def __init__(self, dtype):
        self.dtype, self.lanes = dtype, BYTES * 8 // dtype.bitwidth
        super().__init__(f"vector of {self.lanes} {dtype}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        number = ir.FloatType() if kind.dtype.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(number, kind.lanes))


def data_at(context, builder, kind, array, offset):
    """Pointer to the number at an offset of an array of that type."""
    return builder.gep(cgutils.create_struct_proxy(kind)(context, builder, array).data, [offset])


def _place(context, builder, signature, args):
    """Pointer to the vector at an offset of an array, and the alignment that it is sure to have."""
    kind = signature.args[0].dtype
    pointer = data_at(context, builder, signature.args[0], *args[:2])
    return builder.bitcast(pointer, context.get_value_type(Vector(kind)).as_pointer()), kind.bitwidth // 8


def everywhere(builder, number, count):
    """So many places with one number."""
    nothing = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    first = builder.insert_element(nothing, number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, places([0] * count))


def call(builder, name, result, args):
    """Call one of LLVM's own functions of vectors; the last argument is one."""
    vector = args[-1].type
    bits = 64 if isinstance(vector.element, ir.DoubleType) else 32
    shape = ir.FunctionType(result, [each.type for each in args])
    function = cgutils.get_or_insert_function(builder.module, shape, f"llvm.{name}.v{vector.count}f{bits}")
    return builder.call(function, args, fastmath=FREE)


@inside
def lanes_of(typing, array):
    """How many numbers of an array's dtype a vector holds; known when it is compiled, as ``array.itemsize`` is not.

    Loops that go so far at a time are then counted without divisions.
    """
    kind = Vector(array.dtype)

    def generate(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), kind.lanes)

    return types.intp(array), generate


@inside
def load(typing, array, offset):
    """The vector at an offset."""

    def generate(context, builder, signature, args):
        pointer, align = _place(context, builder, signature, args)
        return builder.load(pointer, align=align)

    return Vector(array.dtype)(array, types.intp), generate


@inside
def widened(typing, halves, offset):
    """The vector of single precision whose upper halves are the int16 numbers at an offset, bit by bit."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        kind = ir.VectorType(ir.IntType(16), vector.count)
        pointer = data_at(context, builder, signature.args[0], *args)
        pointer = builder.bitcast(pointer, kind.as_pointer())
        whole = ir.VectorType(ir.IntType(32), vector.count)
        bits = builder.zext(builder.load(pointer, align=2), whole)
        return builder.bitcast(builder.shl(bits, ir.Constant(whole, [16] * vector.count)), vector)

    return Vector(types.float32)(halves, types.intp), generate


@inside
def added(typing, a, b):
    """``a + b``."""

    def generate(context, builder, signature, args):
        return builder.fadd(*args)

    return a(a, b), generate


@inside
def store(typing, array, offset, vector):
    """Write a vector to an offset."""

    def generate(context, builder, signature, args):
        pointer, align = _place(context, builder, signature, args)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@inside
def filled(typing, number):
    """A vector of one number."""

    def generate(context, builder, signature, args):
        return everywhere(builder, args[0], context.get_value_type(signature.return_type).count)

    return Vector(number)(number), generate


@inside
def fused(typing, a, b, c):
    """``a * b + c``."""

    def generate(context, builder, signature, args):
        return builder.fadd(builder.fmul(args[0], args[1], flags=FREE), args[2], flags=FREE)

    return a(a, b, c), generate


@inside
def quotient(typing, a, b):
    """``a / b``."""

    def generate(context, builder, signature, args):
        return builder.fdiv(*args)

    return a(a, b), generate


@inside
def root(typing, vector):
    """Square roots."""

    def generate(context, builder, signature, args):
        return call(builder, "sqrt", args[0].type, args)

    return vector(vector), generate


@inside
def larger(typing, a, b):
    """The larger of two numbers in each place; the second where they do not compare."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), generate


@inside
def smaller(typing, a, b):
    """The smaller of two numbers in each place; the second where they do not compare."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return a(a, b), generate


@inside
def total(typing, vector):
    """The sum of a vector's numbers."""

    def generate(context, builder, signature, args):
        number = args[0].type.element
        return call(builder, "vector.reduce.fadd", number, [number(0.0), *args])

    return vector.dtype(vector), generate


@inside
def put_totals(typing, array, offset, a, b, c, d):
    """Write the sums of four vectors to the four places from an offset on.

    Numbers change places inside lines of 16 bytes for as long as that helps, which is what processors do fastest.
    """

    def generate(context, builder, signature, args):
        vectors, place = args[2:], data_at(context, builder, signature.args[0], *args[:2])
        count, line = vectors[0].type.count, 128 // signature.args[0].dtype.bitwidth
        while len(vectors) > max(1, 4 // line):
            vectors = [_pairwise(builder, *pair, line) for pair in zip(vectors[::2], vectors[1::2], strict=True)]
        while count > line:
            count //= 2
            halves = [[_part(builder, v, start, count) for start in (0, count)] for v in vectors]
            vectors = [builder.fadd(*both, flags=FREE) for both in halves]
        for u, vector in enumerate(vectors):
            at = builder.bitcast(builder.gep(place, [ir.IntType(64)(u * line)]), vector.type.as_pointer())
            builder.store(vector, at, align=signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c, d), generate


def places(numbers):
    """Numbers of places in vectors, as a shuffle takes them."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


def _pairwise(builder, x, y, line):
    """Sums of neighbours in each line of two vectors, those of x before those of y."""
    count = x.type.count
    even = [at + j + whose for at in range(0, count, line) for whose in (0, count) for j in range(0, line, 2)]
    odd = [j + 1 for j in even]
    parts = [builder.shuffle_vector(x, y, places(numbers)) for numbers in (even, odd)]
    return builder.fadd(*parts, flags=FREE)


def _part(builder, vector, start, count):
    """So many numbers of a vector."""
    return builder.shuffle_vector(vector, vector, places(list(range(start, start + count))))


@inside
def least(typing, vector):
    """The smallest of a vector's numbers."""

    def generate(context, builder, signature, args):
        return call(builder, "vector.reduce.fmin", args[0].type.element, args)

    return vector.dtype(vector), generate


@inside
def reaching(typing, vector, bound):
    """Which numbers of a vector are at least those of another, as the bits of an integer, the first one lowest."""

    def generate(context, builder, signature, args):
        bits = builder.fcmp_ordered(">=", *args)
        return builder.zext(builder.bitcast(bits, ir.IntType(bits.type.count)), ir.IntType(64))

    return types.int64(vector, bound), generate


@inside
def lowest(typing, bits):
    """Place of the lowest bit that is set in an integer other than 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(bits), generate
