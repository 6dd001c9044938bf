"""Arrays of Triton's tensors and back, by DLPack."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from traccc_py.errors import WireError

__all__ = ["from_triton", "to_triton"]


# Tensor.as_numpy() and Tensor(name, array) of servers up to at least 2.51 were built for NumPy 1: with NumPy 2 they
# silently give zeros and empty buffers. DLPack works with both.
def from_triton(tensor: Any) -> np.ndarray:
    """Return the array of a tensor; raise WireError if it can't be read."""
    try:
        return np.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        msg = f"{tensor.name()} can't be read: {error}"
        raise WireError(msg) from error


def to_triton(name: str, array: np.ndarray) -> Any:
    """Return a tensor of an array."""
    if array.size == 0:  # from_dlpack refuses it: its check of strides does not handle empty arrays
        return pb_utils.Tensor(name, array)
    return pb_utils.Tensor.from_dlpack(name, _Exported(array))


class _Exported:
    """An array as DLPack.

    The server takes over the memory and renames the capsule, but not to the name that NumPy's destructor expects, which
    then complains on stderr for each tensor. The destructor has nothing left to do, so the capsule has none.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self._array.__dlpack__()
        _set_destructor(capsule, None)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = (ctypes.py_object, ctypes.c_void_p)
_set_destructor.restype = ctypes.c_int
