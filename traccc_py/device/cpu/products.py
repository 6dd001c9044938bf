"""Sums of columns, and products of rows with a small matrix, in vector registers: plain loops are not made so.

Sums run over the inputs in their order, each product rounded on its own: the bits are those of the plain loops, on any
processor. Only CPUs run this; a kernel that needs it has a body of its own for CUDA (`CudaBody`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["BLOCK_ROWS", "COLUMNS_TOGETHER", "ROWS_TOGETHER", "add_columns", "add_products"]

ROWS_TOGETHER = 6  #: rows whose sums are in registers at a time
COLUMNS_TOGETHER = 16  #: columns of these sums
#: Rows that go through the layers of a network together; arrays have room for so many beyond their size.
BLOCK_ROWS = 16 * ROWS_TOGETHER
_INDEX = ir.IntType(64)


def _vector_at(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """Return a vector of equal elements."""
    none = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(none, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count))


@intrinsic  # type: ignore[untyped-decorator]
def add_products(
    typing_context: Any, x: Any, x_first: Any, x_width: Any, n_in: Any, weights: Any, w_first: Any, w_width: Any,
    sums: Any, s_first: Any, s_width: Any,
) -> Any:  # fmt: skip
    """Add to ``sums[r, c]`` the ``x[r, k] * weights[k, c]`` for k = 0 ... n_in - 1, for 6 rows and 16 columns.

    Arrays are contiguous and of one type; `x_first`, `w_first` and `s_first` are the elements where the rows, the
    columns and the sums begin, the widths are what lies between two of their rows [elements]. `n_in` is at least one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(k: int) -> Any:
            return context.make_array(signature.args[k])(context, builder, arguments[k]).data

        rows, columns, totals = data(0), data(4), data(7)
        x0, x_step, n, w0, w_step, s0, s_step = (arguments[k] for k in (1, 2, 3, 5, 6, 8, 9))
        kind = ir.VectorType(context.get_data_type(sums.dtype), COLUMNS_TOGETHER)
        align = sums.dtype.bitwidth // 8

        def row(base: Any, first: Any, step: Any, r: int) -> Any:
            return builder.gep(base, [builder.add(first, builder.mul(step, _INDEX(r)))])

        numbers = range(ROWS_TOGETHER)
        places = [builder.bitcast(row(totals, s0, s_step, r), kind.as_pointer()) for r in numbers]
        before_them = [builder.load(place, align=align) for place in places]
        inputs = [row(rows, x0, x_step, r) for r in numbers]
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INDEX)
        k.add_incoming(_INDEX(0), before)
        sums_before = [builder.phi(kind) for _ in numbers]
        factors = builder.load(_vector_at(builder, columns, builder.add(w0, builder.mul(k, w_step)), kind), align=align)
        following = builder.add(k, _INDEX(1))
        k.add_incoming(following, loop)
        found = []
        for r in numbers:
            value = _spread(builder, builder.load(builder.gep(inputs[r], [k])), kind)
            found.append(builder.fadd(sums_before[r], builder.fmul(value, factors)))
            sums_before[r].add_incoming(before_them[r], before)
            sums_before[r].add_incoming(found[r], loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
        builder.position_at_end(after)
        for place, total in zip(places, found, strict=True):
            builder.store(total, place, align=align)
        return context.get_dummy_value()

    number = types.int64
    return types.void(x, number, number, number, weights, number, number, sums, number, number), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_columns(typing_context: Any, a: Any, a_first: Any, b: Any, b_first: Any, out: Any, out_first: Any) -> Any:
    """Write ``a[c] + b[c]`` to ``out[c]`` for 32 columns; arrays and first elements as in `add_products`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(context.get_data_type(out.dtype), 2 * COLUMNS_TOGETHER)
        align = out.dtype.bitwidth // 8
        places = []
        for k in (0, 2, 4):
            base = context.make_array(signature.args[k])(context, builder, arguments[k]).data
            places.append(_vector_at(builder, base, arguments[k + 1], kind))
        total = builder.fadd(*(builder.load(place, align=align) for place in places[:2]))
        builder.store(total, places[2], align=align)
        return context.get_dummy_value()

    number = types.int64
    return types.void(a, number, b, number, out, number), generate
