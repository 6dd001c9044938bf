"""The CPU executor: NumPy arrays, and kernels as compiled loops shared out over a pool of threads.

A loop is compiled without Numba's own threading layer: it releases the GIL, and each thread takes pieces of the index
range from a common cursor until none is left. That needs no tbb or OpenMP, may be called from several Python threads
at once, and survives a fork.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from traccc_py.device.cache import cache_directory, is_packaged
from traccc_py.device.kernel import Kernel, scalar
from traccc_py.device.workspace import Extent
from traccc_py.errors import CapacityError

__all__ = ["CpuDevice", "cached_function"]

_PIECES_PER_THREAD = 32  # work is uneven: many more pieces than threads
_WORTH_A_THREAD = 100e-6  # [s]; waking a thread costs 20 to 50 us
_ROOM = 128  # elements, at least as many bytes
_SMOOTHING = 0.5  # weight of the newest measurement of a loop's cost

_LOOP = """
def {name}(cursor, piece, stop, payload{scratch}):
    while True:
        start = take(cursor, piece)
        if start >= stop:
            return
        for i in range(start, min(start + piece, stop)):
            body(np.int32(i), payload{scratch})
"""


@intrinsic  # type: ignore[untyped-decorator]
def _take(typing_context: Any, cursor: Any, step: Any) -> Any:
    """Return ``cursor[0]`` and add `step` to it, in one atomic operation: hands each piece to one thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, arguments[1], "monotonic")

    return types.int64(types.Array(types.int64, 1, "C"), types.int64), generate


def _floating_field(payload: Any, path: str = "") -> str | None:
    """Return the name, with dots, of the first array of floating-point numbers in a payload."""
    for name in getattr(payload, "_fields", ()):
        value = getattr(payload, name)
        if isinstance(value, tuple):
            found = _floating_field(value, f"{path}{name}.")
            if found:
                return found
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return f"{path}{name}"
    return None


class _Loop:
    """The compiled loop around a kernel's body, for payloads of one class, and what it was seen to cost.

    Parameters
    ----------
    kernel : Kernel
        What to compile.
    payload : NamedTuple
        One payload of the class.
    """

    __slots__ = ("_field_of_precision", "_scratch", "cost", "function")

    def __init__(self, kernel: Kernel, payload: Any) -> None:
        scratch = "".join(f", s{k}" for k in range(len(kernel.scratch)))
        names: dict[str, Any] = {"body": kernel.body, "np": np, "take": _take}
        self.function = cached_function(kernel, kernel.name, _LOOP.format(name=kernel.name, scratch=scratch), names)
        self.cost = _WORTH_A_THREAD / kernel.grain  # time per index [s], a guess until it is measured
        self._scratch = kernel.scratch
        field = _floating_field(payload) if kernel.scratch else None
        self._field_of_precision = attrgetter(field) if field else None

    def scratch(self, payload: Any) -> list[np.ndarray]:
        """Return private arrays for one thread; floating-point ones have the payload's precision."""
        if not self._scratch:
            return []
        field = self._field_of_precision
        precision = scalar if field is None else field(payload).dtype
        dtypes = [precision if s.dtype is scalar else s.dtype for s in self._scratch]
        # Room behind each keeps the arrays of two threads out of one cache line.
        return [np.empty(s.length + _ROOM, dtype)[: s.length] for s, dtype in zip(self._scratch, dtypes, strict=True)]

    def measured(self, cost: float) -> None:
        """Take a new measurement of the time per index [s] into account."""
        self.cost += _SMOOTHING * (cost - self.cost)


def cached_function(kernel: Kernel, name: str, source: str, names: dict[str, Any]) -> Any:
    """Compile generated code around a kernel's body, kept on disk if the kernel belongs to this package.

    Parameters
    ----------
    kernel : Kernel
        Whose body the code calls.
    name : str
        Unique name of the function that `source` defines.
    source : str
        The code.
    names : dict
        Globals of the code. It can't make arrays.

    Returns
    -------
    callable
        The function, compiled at its first call; it releases the GIL.
    """
    # A cached function is rebuilt by importing the module it names.
    scope = {**names, "__name__": kernel.body.py_func.__module__}
    exec(compile(source, kernel.filename, "exec"), scope)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_directory("cpu"))
    # Without reference counting, as in bodies: else each index counts each array of the payload up and down.
    options = {"nogil": True, "error_model": "numpy", "_nrt": False, "cache": is_packaged(kernel.filename)}
    try:
        return numba.njit(**options)(scope[name])
    finally:
        numba.config.CACHE_DIR = before


class CpuDevice:
    """Runs kernels on the host's cores.

    Parameters
    ----------
    threads : int, optional
        Number of threads a launch may use; by default the cores this process may run on.

    Raises
    ------
    ValueError
        If `threads` is less than one.
    """

    name = "cpu"
    sizes_are_on_host = True

    def __init__(self, threads: int | None = None) -> None:
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if threads < 1:
            msg = f"threads is {threads}; expected at least 1"
            raise ValueError(msg)
        self.threads = threads
        self._loops: dict[tuple[str, type], _Loop] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pool_owner = -1
        self._lock = threading.Lock()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised array of `shape` and `dtype`."""
        return np.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros of `shape` and `dtype`."""
        return np.zeros(shape, dtype)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """Return `array` as a contiguous array that kernels may write."""
        out = np.ascontiguousarray(array)
        return out if out.flags.writeable else out.copy()

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """Return `array` itself."""
        return array

    def upload(self, values: np.ndarray, out: np.ndarray) -> None:
        """Copy a host array to the first rows of `out`."""
        out[: len(values)] = values

    def fetch(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the arrays themselves."""
        return arrays

    def forget(self) -> None:
        """Return at once: no references to arrays are kept."""

    def synchronize(self) -> None:
        """Return at once: launches end before they return."""

    def compiled(self, kernel: Kernel, payload: Any) -> _Loop:
        """Return the loop of `kernel` for payloads like this one, built on first use."""
        key = (kernel.name, type(payload))
        loop = self._loops.get(key)
        if loop is None:
            with self._lock:
                if key not in self._loops:
                    self._loops[key] = _Loop(kernel, payload)
                loop = self._loops[key]
        return loop

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel` for the indices 0 ... n - 1, in any order and in parallel.

        Parameters
        ----------
        kernel : Kernel
            What to run.
        extent : Extent or int
            Number of indices n [1], or the collection whose size it is.
        payload : NamedTuple
            Arrays and scalars the body reads and writes.
        """
        n = self._size(extent)
        if n <= 0:
            return
        loop = self.compiled(kernel, payload)
        threads = min(self.threads, n, int(loop.cost * n / _WORTH_A_THREAD))
        cursor = np.zeros(1, np.int64)
        n_compiled = len(loop.function.overloads)
        begin = time.perf_counter()
        if threads <= 1:
            threads = 1
            loop.function(cursor, n, n, payload, *loop.scratch(payload))
        else:
            self._share_out(loop, threads, cursor, n, payload)
        if len(loop.function.overloads) == n_compiled:  # else the time is the compiler's
            loop.measured((time.perf_counter() - begin) * threads / n)

    def _share_out(self, loop: _Loop, threads: int, cursor: np.ndarray, n: int, payload: Any) -> None:
        piece = -(-n // (threads * _PIECES_PER_THREAD))
        pool = self._threads_of_this_process()
        others = [
            pool.submit(loop.function, cursor, piece, n, payload, *loop.scratch(payload)) for _ in range(threads - 1)
        ]
        loop.function(cursor, piece, n, payload, *loop.scratch(payload))
        for other in others:
            if not other.cancel():  # a thread that has not begun by now has nothing left to do
                other.result()

    def set_count(self, extent: Extent, n: int) -> None:
        """Set the size of `extent`."""
        extent.counts[extent.slot] = n

    def exclusive_scan(self, values: np.ndarray, extent: Extent, offsets: np.ndarray, total: Extent) -> None:
        """Write the running sums of ``values[:n]``, from 0, to ``offsets[:n + 1]`` and their end to `total`.

        Raises
        ------
        CapacityError
            If the sum does not fit in 32 bits.
        """
        n = self._size(extent)
        offsets[0] = 0
        np.cumsum(values[:n], out=offsets[1 : n + 1])
        expected = int(values[:n].sum(dtype=np.int64))
        limit = np.iinfo(np.int32).max
        if expected > limit:
            msg = f"{expected} {total.name} in one batch; at most {limit} are possible: use smaller batches"
            raise CapacityError(msg)
        total.counts[total.slot] = expected

    def argsort(self, keys: np.ndarray, extent: Extent, order: np.ndarray) -> None:
        """Write the stable ascending order of ``keys[:n]`` to ``order[:n]``."""
        n = self._size(extent)
        order[:n] = np.argsort(keys[:n], kind="stable")

    @staticmethod
    def _size(extent: Extent | int) -> int:
        return extent if isinstance(extent, int) else int(extent.counts[extent.slot])

    def _threads_of_this_process(self) -> ThreadPoolExecutor:
        """Return the pool; a forked child has none of its parent's threads and makes its own."""
        if self._pool is None or self._pool_owner != os.getpid():
            with self._lock:
                if self._pool is None or self._pool_owner != os.getpid():
                    self._pool = ThreadPoolExecutor(max(1, self.threads - 1), "traccc_py")
                    self._pool_owner = os.getpid()
        return self._pool
