"""How a kernel's payload becomes the parameter block of a CUDA launch.

Numba passes an array to a kernel as separate parameters: two pointers for the reference count (unused on the device),
the number of elements, the size of one, the address of the data, the shape, the strides. Scalars are passed as
themselves, tuples element by element. The order is checked on the PTX in the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core import types
from numba.core.types.containers import BaseTuple
from numba.np.numpy_support import as_dtype

__all__ = ["DeviceRecords", "LaunchRange", "ParameterLayout", "aligned", "leaf_keys", "leaves", "payload_type"]

_HEADER = 5  # values in front of an array's shape: meminfo, parent, n_items, item size, data
_SCALAR_FORMATS = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}


class LaunchRange(NamedTuple):
    """What a generated CUDA loop needs to know about its index range, after the payload."""

    counts: Any  # (MAX_EXTENTS,) int32
    slot: Any  # int32, where the size stands in `counts`; -1: the size is `capacity`
    capacity: Any  # int32


class DeviceRecords:
    """An array of records on the device: bytes to CuPy, which has no such type, and typed on our side.

    Parameters
    ----------
    storage : cupy.ndarray of shape (n_bytes,), uint8
        The bytes, contiguous.
    dtype : numpy.dtype
        Structured type of one record.
    shape : tuple of int
        Shape of the array of records.
    """

    __slots__ = ("dtype", "shape", "storage")

    def __init__(self, storage: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.storage = storage
        self.dtype = np.dtype(dtype)
        self.shape = shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of records."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one record to the next, by dimension."""
        steps = np.cumprod((self.dtype.itemsize, *self.shape[:0:-1]))
        return tuple(int(step) for step in steps[::-1])

    @property
    def data(self) -> Any:
        """Memory pointer of the bytes."""
        return self.storage.data

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceRecords:
        """Return some rows in succession; they share memory with this array."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            msg = f"records on the device are sliced with step {step}; only contiguous slices are possible"
            raise IndexError(msg)
        n_rows = max(0, stop - start)
        width = self.strides[0]
        storage = self.storage[start * width : (start + n_rows) * width]
        return DeviceRecords(storage, self.dtype, (n_rows, *self.shape[1:]))


def leaves(payload: Any) -> list[Any]:
    """Return the arrays and scalars of a payload, those of nested tuples included, in order."""
    found: list[Any] = []
    for value in payload:
        if isinstance(value, tuple):
            found.extend(leaves(value))
        else:
            found.append(value)
    return found


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and bool(value.shape)


def _is_contiguous(array: Any) -> bool:
    flags = getattr(array, "flags", None)
    return flags is None or bool(flags.c_contiguous)


def leaf_keys(values: list[Any]) -> tuple[Any, ...]:
    """Return a cheap key of the types of a payload's leaves: equal keys mean equal compiled code."""
    return tuple(
        (value.dtype, len(value.shape), _is_contiguous(value)) if _is_array(value) else type(value) for value in values
    )


def _leaf_type(value: Any) -> types.Type:
    """Return Numba's type of an array or scalar, wherever an array lives."""
    if not _is_array(value):
        return numba.typeof(value)
    return types.Array(numba.from_dtype(value.dtype), len(value.shape), "C" if _is_contiguous(value) else "A")


def aligned(kind: types.Type) -> types.Type:
    """Return a payload's type with its records said to be aligned where they are.

    NumPy's structured types count as unaligned unless made with ``align=True``; CUDA code for them loads byte by byte.
    """
    if isinstance(kind, BaseTuple):
        members = [aligned(member) for member in kind]
        return BaseTuple.from_types(members, getattr(kind, "instance_class", None))
    if isinstance(kind, types.Array) and isinstance(kind.dtype, types.Record) and not kind.dtype.aligned:
        packed = as_dtype(kind.dtype)
        padded = np.dtype(packed.descr, align=True)
        if padded.itemsize == packed.itemsize:
            return types.Array(numba.from_dtype(padded), kind.ndim, kind.layout)
    return kind


def payload_type(payload: Any) -> BaseTuple:
    """Return the type a payload of NumPy or device arrays, scalars and tuples of them is compiled for."""
    members = [payload_type(value) if isinstance(value, tuple) else aligned(_leaf_type(value)) for value in payload]
    return BaseTuple.from_types(members, type(payload) if hasattr(payload, "_fields") else None)


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Where each kernel parameter stands in a parameter block.

    Parameters
    ----------
    formats : str
        One `struct` character per parameter.
    offsets : tuple of int
        Start of each parameter in the block [bytes].
    is_array : tuple of bool
        For each leaf of payload and launch range, whether it is an array.
    """

    formats: str
    offsets: tuple[int, ...]
    is_array: tuple[bool, ...]

    @classmethod
    def of(cls, payload: BaseTuple) -> ParameterLayout:
        """Return the layout for a payload's type, the launch range appended.

        Raises
        ------
        TypeError
            If the payload holds something that is no array, number or tuple of them.
        """
        arguments = [*_type_leaves(payload), types.Array(types.int32, 1, "C"), types.int32, types.int32]
        characters = [_formats(leaf) for leaf in arguments]
        formats = "".join(characters)
        # native alignment: the same rule as for kernel parameters
        offsets = tuple(struct.calcsize(formats[: k + 1]) - struct.calcsize(formats[k]) for k in range(len(formats)))
        return cls(formats, offsets, tuple(isinstance(leaf, types.Array) for leaf in arguments))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Width of each parameter [bytes]."""
        return tuple(struct.calcsize(character) for character in self.formats)

    def pack(self, values: list[Any]) -> np.ndarray:
        """Return the parameter block for the leaves of a payload and a launch range.

        Parameters
        ----------
        values : list
            Device arrays and host scalars.

        Returns
        -------
        ndarray of shape (n_bytes,), uint8
            The block.
        """
        numbers: list[Any] = []
        for value, is_array in zip(values, self.is_array, strict=True):
            if is_array:
                numbers += (0, 0, value.size, value.dtype.itemsize, value.data.ptr, *value.shape, *value.strides)
            else:
                numbers.append(value)
        return np.frombuffer(struct.pack(self.formats, *numbers), np.uint8)


def _type_leaves(payload: BaseTuple) -> list[types.Type]:
    found: list[types.Type] = []
    for member in payload:
        if isinstance(member, BaseTuple):
            found.extend(_type_leaves(member))
        else:
            found.append(member)
    return found


def _formats(leaf: types.Type) -> str:
    if isinstance(leaf, types.Array):
        return "Q" * (_HEADER + 2 * leaf.ndim)
    character = _SCALAR_FORMATS.get(str(leaf))
    if character is None:
        msg = f"a payload holds {leaf}; kernels take arrays, numbers and tuples of them"
        raise TypeError(msg)
    return character
