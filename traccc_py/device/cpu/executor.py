"""The CPU executor: NumPy arrays, and kernels as compiled loops shared out over a pool of threads.

A loop is compiled without Numba's own threading layer: it releases the GIL, and each thread takes pieces of the index
range from a common cursor until none is left. That needs no tbb or OpenMP, may be called from several Python threads
at once, and survives a fork.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba.core import entrypoints

from traccc_py.device.cpu.compile import WORTH_A_THREAD, Loop
from traccc_py.device.cpu.running_sums import running_sums
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent, ScanColumn
from traccc_py.errors import CapacityError

__all__ = ["CpuDevice", "without_numba_extensions"]

_PIECES_PER_THREAD = 32  # work is uneven: many more pieces than threads

# Of this process, by kernel and class of payloads: a second device need not load the machine code again. Each measures
# the costs of its own events, with a copy.
_made: dict[tuple[Kernel, type], Loop] = {}


def without_numba_extensions() -> None:
    """Let Numba not import in this process what other packages add to it, before its first function runs.

    No kernel needs it, and awkward, if it is installed, takes a quarter of a second.
    """
    entrypoints._already_initialized = True


def _loop(kernel: Kernel, payload: Any) -> Loop:
    """Return a new loop of a kernel, compiled for payloads like this one, with the function of earlier ones."""
    key = (kernel, type(payload))
    if key not in _made:
        _made.setdefault(key, Loop(kernel, payload))
    loop = copy.copy(_made[key])
    loop.function(np.zeros(1, np.int64), 1, 0, payload, *loop.scratch(payload))  # for no index
    return loop


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
        self._loops: dict[tuple[str, type], Loop] = {}
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

    def staging(self, n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return an uninitialised array of `n` rows, twice: kernels read what the host wrote."""
        array = np.empty(n, dtype)
        return array, array

    def upload_ahead(self, values: np.ndarray, out: np.ndarray) -> None:
        """Return at once: both arrays of `staging` are one."""

    def join_uploads(self) -> None:
        """Return at once: copies end before they return."""

    def recorded(self, key: Any, function: Callable[[], Any]) -> Any:
        """Return what `function` returns."""
        return function()

    def side_by_side(self, aside: Callable[[], object], function: Callable[[], Any]) -> Any:
        """Do what two functions ask for, the first one first; return what the second one returns."""
        aside()
        return function()

    def fetch(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the arrays themselves."""
        return arrays

    def forget(self) -> None:
        """Return at once: no references to arrays are kept."""

    def synchronize(self) -> None:
        """Return at once: launches end before they return."""

    def compiled(self, kernel: Kernel, payload: Any) -> Loop:
        """Return the loop of `kernel` for payloads like this one, built on first use."""
        key = (kernel.name, type(payload))
        loop = self._loops.get(key)
        if loop is None:
            with self._lock:
                if key not in self._loops:
                    self._loops[key] = _loop(kernel, payload)
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

        Notes
        -----
        The loop is compiled at its first launch, also if that is for no index.
        """
        n = self._size(extent)
        loop = self.compiled(kernel, payload)
        if n <= 0:  # an event without cells has compiled the whole chain
            return
        threads = min(self.threads, n, int(loop.cost * n / WORTH_A_THREAD))
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

    def _share_out(self, loop: Loop, threads: int, cursor: np.ndarray, n: int, payload: Any) -> None:
        piece = -(-n // (threads * _PIECES_PER_THREAD))
        pool = self._threads_of_this_process()
        others = [
            pool.submit(loop.function, cursor, piece, n, payload, *loop.scratch(payload)) for _ in range(threads - 1)
        ]
        loop.function(cursor, piece, n, payload, *loop.scratch(payload))
        for other in others:
            if not other.cancel():  # a thread that has not begun by now has nothing left to do
                other.result()

    def clear(self, array: np.ndarray) -> None:
        """Fill an array with zeros."""
        array.fill(0)

    def exclusive_scan(self, extent: Extent, columns: tuple[ScanColumn, ...]) -> None:
        """Write the running sums of columns and their totals, as `Workspace.scan_together` says.

        Raises
        ------
        CapacityError
            If a sum does not fit in 32 bits.
        """
        n = self._size(extent)
        for values, offsets, total, _ in columns:
            found = running_sums(values[:n], offsets)
            limit = np.iinfo(np.int32).max
            if found > limit:
                msg = f"{found} {total.name} in one batch; at most {limit} are possible: use smaller batches"
                raise CapacityError(msg)
            total.counts[total.slot] = found

    @staticmethod
    def _size(extent: Extent | int) -> int:
        if isinstance(extent, int):
            return extent
        return extent.capacity if extent.slot < 0 else int(extent.counts[extent.slot])

    def _threads_of_this_process(self) -> ThreadPoolExecutor:
        """Return the pool; a forked child has none of its parent's threads and makes its own."""
        if self._pool is None or self._pool_owner != os.getpid():
            with self._lock:
                if self._pool is None or self._pool_owner != os.getpid():
                    self._pool = ThreadPoolExecutor(max(1, self.threads - 1), "traccc_py")
                    self._pool_owner = os.getpid()
        return self._pool
