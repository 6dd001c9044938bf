"""The CUDA executor: CuPy memory, scans and sorts; kernels compiled ahead and launched through the driver.

Everything goes to one stream, in order; nothing waits for the GPU but `to_host`, `fetch` and `synchronize`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from traccc_py.device.cuda_compile import INSTALL_HINT
from traccc_py.device.cuda_launch import BindingsDriver, Driver, Launcher
from traccc_py.device.cuda_layout import DeviceRecords
from traccc_py.device.deferred import DeferredSizes
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent
from traccc_py.errors import CapacityError, DeviceUnavailableError

__all__ = ["CudaDevice", "count_gpus"]


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
        msg = f"CuPy {cupy.__version__} is installed but finds no GPU; check CUDA_VISIBLE_DEVICES and nvidia-smi"
        raise DeviceUnavailableError(msg)
    return found


class CudaDevice(DeferredSizes):
    """Runs kernels on one GPU.

    Parameters
    ----------
    index : int, optional
        Which GPU, counted from 0.
    driver : Driver, optional
        Stands in for the CUDA driver in tests.

    Raises
    ------
    DeviceUnavailableError
        If there is no such GPU, or a package that is needed is not installed.
    """

    def __init__(self, index: int = 0, driver: Driver | None = None) -> None:
        n_gpus = count_gpus()
        if not 0 <= index < n_gpus:
            msg = f"GPU {index} was asked for; found {n_gpus}, numbered from 0"
            raise DeviceUnavailableError(msg)
        self._cupy = _import_cupy()
        self.name = f"cuda:{index}"
        self.index = index
        self._gpu = self._cupy.cuda.Device(index)
        self._prepared_threads: set[int] = set()
        with self._gpu:
            self.stream = self._cupy.cuda.Stream(non_blocking=True)
        digits = self._gpu.compute_capability  # "90", "120"
        self.capability = int(digits[:-1]), int(digits[-1])
        n_multiprocessors = int(self._gpu.attributes["MultiProcessorCount"])
        no_counts = self.zeros(1, np.int32)
        self._launcher = Launcher(driver or BindingsDriver(), self.capability, n_multiprocessors, no_counts)

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
        if values.size == 0:
            return
        rows = out[: len(values)]
        host = np.ascontiguousarray(values, dtype=out.dtype)
        if isinstance(rows, DeviceRecords):
            rows, host = rows.storage, host.reshape(-1).view(np.uint8)
        with self._current():
            rows.set(host, stream=self.stream)

    def pinned(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised host array in page-locked memory, from which `upload` does not wait."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes == 0:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, buffer=self._cupy.cuda.alloc_pinned_memory(n_bytes))

    def to_host(self, array: Any) -> np.ndarray:
        """Return a host copy of a device array; waits for it."""
        return self.fetch(array)[0]

    def fetch(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        """Return host copies of several device arrays; waits once, for all of them."""
        with self._current():
            copies = tuple(self._start_copy(array) for array in arrays)
        self.synchronize()
        return copies

    def synchronize(self) -> None:
        """Wait until everything asked for so far is done."""
        self.stream.synchronize()

    def forget(self) -> None:
        """Drop the references to the arrays of past launches, so that memory of replaced ones is freed."""
        self._launcher.forget()

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

    def _allocate(self, make: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        try:
            with self._current():
                if dtype.fields is None:
                    return make(shape, dtype)
                n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                return DeviceRecords(make(n_bytes, np.uint8), dtype, shape)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            msg = f"{self.name} has no memory for an array of shape {shape}, {dtype}: {error}; use smaller batches"
            raise CapacityError(msg) from error

    def _start_copy(self, array: Any) -> np.ndarray:
        host = self.pinned(array.shape, array.dtype)
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
        with self._gpu, self.stream:
            yield

    def _make_current(self) -> None:
        """Make this GPU the driver's for this thread; a new thread has none until the first call."""
        runtime = self._cupy.cuda.runtime
        thread = threading.get_ident()
        if thread not in self._prepared_threads or runtime.getDevice() != self.index:
            runtime.setDevice(self.index)
            self._prepared_threads.add(thread)
