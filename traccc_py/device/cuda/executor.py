"""The CUDA executor: CuPy's memory, streams and graphs; kernels compiled ahead and launched through the driver.

Everything goes to one stream, in order, but copies of input that are made ahead, and what is done `side_by_side` with
it, which have streams of their own. Nothing waits for the GPU but `to_host`, `fetch` and `synchronize`. No kernel of
CuPy's runs: its scans allocate, take three to five launches over the whole capacity and can't read a size on the
device; its sorts take ten.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.device.cuda.compile import INSTALL_HINT
from traccc_py.device.cuda.launch import BindingsDriver, Driver, Launcher
from traccc_py.device.cuda.layout import DeviceRecords
from traccc_py.device.deferred import DeferredSizes
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent
from traccc_py.errors import CapacityError, DeviceUnavailableError

__all__ = ["CudaDevice", "count_gpus"]

_MAX_RECORDINGS = 8  # graphs that are kept


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        msg = f"CuPy can't be imported ({error}); install it with {INSTALL_HINT}"
        raise DeviceUnavailableError(msg) from error
    return cupy


def count_gpus() -> int:
    """Return the number of GPUs that CuPy sees.

    Raises
    ------
    DeviceUnavailableError
        If CuPy is not installed or finds no driver or no GPU.
    """
    cupy = _import_cupy()
    try:
        found = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        msg = f"CuPy {cupy.__version__} is installed but finds no usable GPU: {error}; check the driver with nvidia-smi"
        raise DeviceUnavailableError(msg) from error
    if found == 0:
        msg = f"CuPy {cupy.__version__} is installed but finds no GPU{_visible()}; check with nvidia-smi"
        raise DeviceUnavailableError(msg)
    return found


def _visible() -> str:
    """Return what CUDA_VISIBLE_DEVICES says, for messages."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen})"


@dataclass(slots=True)
class _Recording:
    """What a function asked for under a key returned, and the graph of its launches once they were recorded."""

    result: Any
    graph: Any = None


class CudaDevice(DeferredSizes):
    """Runs kernels on one GPU.

    Parameters
    ----------
    index : int, optional
        Which GPU, counted from 0 among those that CUDA_VISIBLE_DEVICES leaves.
    driver : Driver, optional
        Stands in for the CUDA driver in tests.
    memory_limit : int, optional
        Most device memory that this device's pool may take [bytes]; by default there is no limit. The pool keeps what
        it took: processes that share a GPU need one each.
    uses_graphs : bool, optional
        Replay the launches of a batch as one CUDA graph where they are the same as those of the batch before.

    Raises
    ------
    DeviceUnavailableError
        If there is no such GPU, or a package that is needed is not installed.
    """

    def __init__(
        self,
        index: int = 0,
        driver: Driver | None = None,
        *,
        memory_limit: int | None = None,
        uses_graphs: bool = False,
    ) -> None:
        n_gpus = count_gpus()
        if not 0 <= index < n_gpus:
            msg = f"GPU {index} was asked for; found {n_gpus}, numbered from 0{_visible()}"
            raise DeviceUnavailableError(msg)
        self._cupy = _import_cupy()
        self.name = f"cuda:{index}"
        self.index = index
        self._gpu = self._cupy.cuda.Device(index)
        self._of_thread = threading.local()
        digits = self._gpu.compute_capability  # "90", "120"
        self.capability = int(digits[:-1]), int(digits[-1])
        self.uses_graphs = uses_graphs
        self._recordings: dict[Any, _Recording] = {}
        try:
            self._open(memory_limit)
            no_counts = self.zeros(1, np.int32)
        except (self._cupy.cuda.runtime.CUDARuntimeError, CapacityError) as error:
            msg = f"{self.name} is there but can't be used: {error}; nvidia-smi shows its mode and who has its memory"
            raise DeviceUnavailableError(msg) from error
        n_multiprocessors = int(self._gpu.attributes["MultiProcessorCount"])
        self._launcher = Launcher(driver or BindingsDriver(), self.capability, n_multiprocessors, no_counts)

    def _open(self, memory_limit: int | None) -> None:
        """Make streams and the pool of memory."""
        self._make_current()
        self.stream = self._cupy.cuda.Stream(non_blocking=True)
        self._copy_stream = self._cupy.cuda.Stream(non_blocking=True)
        self._side_stream = self._cupy.cuda.Stream(non_blocking=True)
        self._copied, self._begun, self._ended = (self._cupy.cuda.Event(disable_timing=True) for _ in range(3))
        self._pool = self._cupy.cuda.MemoryPool()
        if memory_limit is not None:
            self._pool.set_limit(size=memory_limit)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised device array of `shape` and `dtype`; records are allowed.

        Raises
        ------
        CapacityError
            If the GPU's memory does not suffice.
        """
        return self._allocate(self._cupy.empty, shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return a device array of zeros of `shape` and `dtype`; records are allowed."""
        return self._allocate(self._cupy.zeros, shape, dtype)

    def to_device(self, array: np.ndarray) -> Any:
        """Return a copy of a host array on the device."""
        out = self.empty(array.shape, array.dtype)
        self.upload(array, out)
        return out

    def upload(self, values: np.ndarray, out: Any) -> None:
        """Copy a host array to the first rows of `out`; only from pinned memory this is still under way on return."""
        self._copy_in(values, out, self.stream)

    def staging(self, n: int, dtype: Any) -> tuple[np.ndarray, Any]:
        """Return arrays of `n` rows, uninitialised: one in pinned memory, one on the device for `upload_ahead`."""
        return self._pinned((n,), dtype), self.empty(n, dtype)

    def upload_ahead(self, values: np.ndarray, out: Any) -> None:
        """Copy as `upload` does, beside what is running; `join_uploads` comes before the first use of `out`.

        Parameters
        ----------
        values : ndarray
            Pinned memory of `staging`, to be left alone until then.
        out : device array
            Nothing that is running may use it.
        """
        self._copy_in(values, out, self._copy_stream)

    def join_uploads(self) -> None:
        """Let what is asked for from now on wait for the copies made ahead."""
        self._make_current()
        self._copied.record(self._copy_stream)
        self.stream.wait_event(self._copied)

    def _pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised host array in page-locked memory, from which `upload` does not wait."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes == 0:
            return np.empty(shape, dtype)
        self._make_current()
        return np.ndarray(shape, dtype, buffer=self._cupy.cuda.alloc_pinned_memory(n_bytes))

    def to_host(self, array: Any) -> np.ndarray:
        """Return a host copy of a device array; waits for it."""
        return self.fetch(array)[0]

    def fetch(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        """Return host copies of several device arrays; waits once, for all of them."""
        copies: list[np.ndarray] = []
        try:
            with self._current():
                copies.extend(self._start_copy(array) for array in arrays)
        finally:  # after an error, too: memory that is still written to must not be given to others
            self.synchronize()
        return tuple(copies)

    def synchronize(self) -> None:
        """Wait until everything asked for so far is done."""
        self.stream.synchronize()

    def forget(self) -> None:
        """Drop the references to the arrays of past launches, so that memory of replaced ones is freed."""
        self._launcher.forget()
        self._recordings.clear()

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel` for the indices 0 ... n - 1, in any order and in parallel; returns at once.

        Parameters
        ----------
        kernel : Kernel
            What to run; compiled at its first launch unless `traccc-py compile` did so.
        extent : Extent or int
            Number of indices n [1], or the collection whose size, read on the device, it is.
        payload : NamedTuple
            Device arrays and scalars the body reads and writes.
        """
        self._make_current()
        self._launcher.launch(kernel, extent, payload, self.stream.ptr)

    def clear(self, array: Any) -> None:
        """Fill a contiguous array with zeros."""
        self._make_current()
        array.data.memset_async(0, array.nbytes, self.stream)

    def recorded(self, key: Any, function: Callable[[], Any]) -> Any:
        """Do what `function` asks for, whose launches are the same each time for equal keys, and return its result.

        With graphs, the first call runs it (and compiles, and allocates), the second one records its launches, and
        from then on they are replayed: `function` is not called.
        """
        if not self.uses_graphs:
            return function()
        known = self._recordings.get(key)
        if known is None:
            if len(self._recordings) >= _MAX_RECORDINGS:
                self._recordings.clear()
            known = self._recordings[key] = _Recording(function())
        elif known.graph is None:
            known.result, known.graph = self._record(function)
        if known.graph is not None:
            self._make_current()
            known.graph.launch(self.stream)
        return known.result

    def side_by_side(self, aside: Callable[[], object], function: Callable[[], Any]) -> Any:
        """Do what two functions ask for in two streams, which meet again at the end.

        Parameters
        ----------
        aside : callable
            Its launches must not share anything with those of `function` that one of them writes. It must not scan.
        function : callable
            What goes to the stream of everything else.

        Returns
        -------
        object
            What `function` returns.
        """
        self._make_current()
        main = self.stream
        self._begun.record(main)
        self._side_stream.wait_event(self._begun)
        try:
            self.stream = self._side_stream
            try:
                aside()
            finally:
                self.stream = main
            return function()
        finally:
            self._ended.record(self._side_stream)
            main.wait_event(self._ended)

    def _record(self, function: Callable[[], Any]) -> tuple[Any, Any]:
        """Return what a function returns, and the graph of what it asked for, which has not been done yet."""
        with self._current():
            self.stream.begin_capture()
            try:
                result = function()
            except BaseException:
                with contextlib.suppress(self._cupy.cuda.runtime.CUDARuntimeError):  # it would hide the error
                    self.stream.end_capture()
                raise
            return result, self.stream.end_capture()

    def _copy_in(self, values: np.ndarray, out: Any, stream: Any) -> None:
        if values.size == 0:
            return
        rows = out[: len(values)]
        host = np.ascontiguousarray(values, dtype=out.dtype)
        if isinstance(rows, DeviceRecords):
            rows, host = rows.storage, host.reshape(-1).view(np.uint8)
        self._make_current()
        with stream:
            rows.set(host, stream=stream)

    def _allocate(self, make: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        try:
            with self._current(), self._cupy.cuda.using_allocator(self._pool.malloc):
                if dtype.fields is None:
                    return make(shape, dtype)
                n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                return DeviceRecords(make(n_bytes, np.uint8), dtype, shape)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            msg = f"{self.name} has no memory for an array of shape {shape}, {dtype}: {error}; use smaller batches"
            raise CapacityError(msg) from error

    def _start_copy(self, array: Any) -> np.ndarray:
        host = self._pinned(tuple(array.shape), array.dtype)
        if host.size == 0:
            return host
        if isinstance(array, DeviceRecords):
            array.storage.get(stream=self.stream, out=host.reshape(-1).view(np.uint8), blocking=False)
        else:
            array.get(stream=self.stream, out=host, blocking=False)
        return host

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make this GPU and this stream CuPy's for a while, in this thread."""
        self._make_current()
        with self.stream:
            yield

    def _make_current(self) -> None:
        """Make this GPU the runtime's and the driver's for this thread; a new thread has none until the first call.

        It stays so: CuPy's ``with Device`` would go back to GPU 0 each time, and so make a context there, too.
        """
        runtime = self._cupy.cuda.runtime
        if not getattr(self._of_thread, "is_prepared", False) or runtime.getDevice() != self.index:
            runtime.setDevice(self.index)
            self._of_thread.is_prepared = True
