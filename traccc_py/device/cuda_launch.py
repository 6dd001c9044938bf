"""Launches of compiled kernels through the CUDA driver: which code, what grid, where the parameters stand.

Nothing here allocates device memory or names CuPy; arrays need ``dtype``, ``shape``, ``strides``, ``size`` and
``data.ptr``. The driver is an argument, so that tests can stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from traccc_py.device.cuda_compile import CompiledKernel, compile_kernel
from traccc_py.device.cuda_layout import LaunchRange, ParameterLayout, leaf_keys, leaves, payload_type
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent
from traccc_py.errors import DeviceUnavailableError, TracccError

__all__ = ["BindingsDriver", "CudaError", "Driver", "Launcher", "grid_of"]

_MAX_BLOCK = 128  # threads
_MIN_BLOCK = 32
_BLOCKS_PER_MULTIPROCESSOR = 32  # beyond that a loop strides: more blocks only wait
_NO_SLOT = -1  # the size is known on the host


class CudaError(TracccError, RuntimeError):
    """The CUDA driver refused an operation."""


class Driver(Protocol):
    """The two functions of the CUDA driver that launches need."""

    def load(self, compiled: CompiledKernel) -> Any:
        """Load machine code and return a handle of its function."""

    def launch(self, function: Any, blocks: int, threads: int, stream: int, parameters: int) -> None:
        """Start a function; `parameters` is the address of an array of addresses, one for each parameter."""


class BindingsDriver:
    """The CUDA driver through `cuda.bindings`.

    Raises
    ------
    DeviceUnavailableError
        If the package is not installed.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as error:
            msg = f"cuda-bindings can't be imported ({error}); install the CUDA extra of traccc-py"
            raise DeviceUnavailableError(msg) from error
        self._driver = driver

    def load(self, compiled: CompiledKernel) -> Any:
        """Load machine code and return a handle of its function; the module stays loaded."""
        module = self._checked(f"loading {compiled.name}", *self._driver.cuModuleLoadData(compiled.cubin))
        name = compiled.name.encode()
        return self._checked(f"finding {compiled.name}", *self._driver.cuModuleGetFunction(module, name))

    def launch(self, function: Any, blocks: int, threads: int, stream: int, parameters: int) -> None:
        """Start a function on a one-dimensional grid."""
        result = self._driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, 0)
        if result[0] != self._driver.CUresult.CUDA_SUCCESS:
            self._checked("launching a kernel", *result)

    def _checked(self, action: str, status: Any, value: Any = None) -> Any:
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            msg = f"CUDA driver: {action} failed with {status.name} ({(text or b'no description').decode()})"
            raise CudaError(msg)
        return value


def grid_of(capacity: int, n_multiprocessors: int) -> tuple[int, int]:
    """Return the number of blocks and the threads of each for `capacity` indices.

    Blocks shrink while multiprocessors would be left without one; large ranges are covered by striding.
    """
    threads = _MAX_BLOCK
    while threads > _MIN_BLOCK and -(-capacity // threads) < n_multiprocessors:
        threads //= 2
    return min(-(-capacity // threads), n_multiprocessors * _BLOCKS_PER_MULTIPROCESSOR), threads


@dataclass(slots=True)
class _Block:
    """A packed parameter block, what it was packed from, and the addresses of its parameters."""

    payload: Any
    range: LaunchRange
    function: Any
    storage: np.ndarray
    addresses: np.ndarray
    pointer: int  # of `addresses`: NumPy takes 1 us to tell


class Launcher:
    """Launches kernels on one GPU; compiles and loads each at its first launch.

    Parameters
    ----------
    driver : Driver
        The CUDA driver.
    capability : tuple of int
        Compute capability (major, minor) of the GPU.
    n_multiprocessors : int
        Number of its multiprocessors [1].
    no_counts : device array of shape (1,), int32
        Stands for the sizes where the host knows the range.
    """

    def __init__(self, driver: Driver, capability: tuple[int, int], n_multiprocessors: int, no_counts: Any) -> None:
        self._driver = driver
        self._capability = capability
        self._n_multiprocessors = n_multiprocessors
        self._no_counts = no_counts
        self._functions: dict[Any, tuple[Any, ParameterLayout]] = {}
        self._blocks: dict[str, _Block] = {}

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any, stream: int) -> None:
        """Start `kernel` for the indices below the size of `extent`, which is read on the device.

        Parameters
        ----------
        kernel : Kernel
            What to run.
        extent : Extent or int
            Collection whose size is the number of indices, or that number.
        payload : NamedTuple
            Device arrays and scalars.
        stream : int
            Handle of the CUDA stream.
        """
        if isinstance(extent, int):
            counts, slot, capacity = self._no_counts, _NO_SLOT, extent
        else:
            counts, slot, capacity = extent.counts, extent.slot, extent.capacity
        block = self._blocks.get(kernel.name)
        if block is None or block.range != (counts, slot, capacity) or not _is_same(payload, block.payload):
            block = self._blocks[kernel.name] = self._packed(kernel, payload, LaunchRange(counts, slot, capacity))
        if capacity <= 0:
            return  # compiled and loaded, as `traccc-py compile` needs it; the driver refuses empty grids
        blocks, threads = grid_of(capacity, self._n_multiprocessors)
        self._driver.launch(block.function, blocks, threads, stream, block.pointer)

    def forget(self) -> None:
        """Drop the references to the arrays of past launches."""
        self._blocks.clear()

    def _packed(self, kernel: Kernel, payload: Any, index_range: LaunchRange) -> _Block:
        values = leaves(payload)
        key = (kernel.name, type(payload), leaf_keys(values))
        found = self._functions.get(key)
        if found is None:
            kind = payload_type(payload)
            function = self._driver.load(compile_kernel(kernel, kind, self._capability))
            found = self._functions[key] = function, ParameterLayout.of(kind)
        function, layout = found
        storage = layout.pack([*values, *index_range])
        addresses = np.array(layout.offsets, np.uintp) + np.uintp(storage.ctypes.data)
        return _Block(payload, index_range, function, storage, addresses, addresses.ctypes.data)


def _is_same(payload: Any, other: Any) -> bool:
    """Return whether two payloads have the same arrays and equal scalars."""
    return type(payload) is type(other) and all(
        a is b or (isinstance(a, np.generic | int | float) and type(a) is type(b) and a == b)
        for a, b in zip(payload, other, strict=True)
    )
