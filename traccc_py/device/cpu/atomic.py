"""Counting by several CPU threads at once. On CUDA a kernel that needs it has a body of its own (`CudaBody`)."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

__all__ = ["fetch_add"]


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typing_context: Any, array: Any, index: Any, step: Any) -> Any:
    """Return ``array[index]`` of a contiguous array and add `step` to it, in one atomic operation."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(values.data, [arguments[1]])
        return builder.atomic_rmw("add", place, arguments[2], "monotonic")

    return array.dtype(types.Array(array.dtype, 1, "C"), types.int64, array.dtype), generate
