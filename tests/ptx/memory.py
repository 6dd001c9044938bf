"""Device memory that is memory of the host, and the stand-in for CuPy that gives it out."""

from __future__ import annotations

import mmap
import types
from typing import Any

import numpy as np

from tests.devices.cuda_fakes import FakeArray, fake_cupy

__all__ = ["ABSENT", "POISON", "UNWRITTEN", "WRITTEN", "Memory", "cupy_on"]

ABSENT, UNWRITTEN, WRITTEN = range(3)  # states of a byte
POISON = 0xA5  # in memory that nothing was written to
_BETWEEN = 256  # bytes between arrays, which belong to none
_WORD_RECORD = 24  # bytes: what `c/memory.h` keeps of a word


class Memory:
    """One mapping of the host, from which arrays are cut and never given back.

    Parameters
    ----------
    size : int
        Its size [bytes]; only what is used is taken from the machine.
    is_checked : bool, optional
        Keep who accessed each word last.
    """

    def __init__(self, size: int, *, is_checked: bool = False) -> None:
        self.bytes = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        self.state = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        self.words = np.frombuffer(mmap.mmap(-1, size // 4 * _WORD_RECORD if is_checked else 1), np.uint8)
        self.base = self.bytes.ctypes.data
        self.used = _BETWEEN

    def allocate(self, shape: Any, dtype: Any, *, is_clear: bool) -> np.ndarray:
        """Return an array of zeros, or of poison that nothing was written to."""
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        start = -(-self.used // _BETWEEN) * _BETWEEN
        self.used = start + n_bytes + _BETWEEN
        if self.used > len(self.bytes):
            msg = f"the {len(self.bytes)} bytes of device memory of this test are used up"
            raise MemoryError(msg)
        raw = self.bytes[start : start + n_bytes]
        raw[:] = 0 if is_clear else POISON
        self.state[start : start + n_bytes] = WRITTEN if is_clear else UNWRITTEN
        return raw.view(dtype).reshape(shape)

    def of(self, array: np.ndarray) -> slice:
        """Return where a contiguous array lies."""
        start = array.ctypes.data - self.base
        return slice(start, start + array.nbytes)

    def holds(self, array: np.ndarray) -> bool:
        """Return whether an array lies here."""
        return self.base <= array.ctypes.data < self.base + len(self.bytes)

    def forget(self, array: np.ndarray) -> None:
        """Poison an array, as if nothing had been written to it."""
        self.bytes[self.of(array)] = POISON
        self.state[self.of(array)] = UNWRITTEN


def cupy_on(memory: Memory, n_multiprocessors: int) -> types.SimpleNamespace:
    """Return a module that looks like CuPy on a GPU with this memory."""

    class Array(FakeArray):
        def __getitem__(self, rows):
            return Array(self.host[rows])

        def reshape(self, *shape):
            assert self.flags.c_contiguous
            return Array(self.host.reshape(*shape))

        def _memset(self, value, n_bytes, stream):
            super()._memset(value, n_bytes, stream)
            stream.do(self._written)

        def fill(self, value):
            super().fill(value)
            self._written()

        def set(self, host, stream):
            super().set(host, stream)
            self._written()

        def _written(self):
            memory.state[memory.of(self.host)] = WRITTEN

    cupy = fake_cupy()
    cupy.empty = lambda shape, dtype: Array(memory.allocate(shape, dtype, is_clear=False))
    cupy.zeros = lambda shape, dtype: Array(memory.allocate(shape, dtype, is_clear=True))
    cupy.cuda.Device.attributes = types.MappingProxyType({"MultiProcessorCount": n_multiprocessors})
    return cupy
