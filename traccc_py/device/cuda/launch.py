"""Launches of compiled kernels through the CUDA driver: which code, what grid, where the parameters stand.

Nothing here allocates device memory or names CuPy; arrays need ``dtype``, ``shape``, ``strides``, ``size`` and
``data.ptr``. The driver is an argument, so that tests can stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from traccc_py.device.cuda.compile import CompiledKernel, compile_kernel
from traccc_py.device.cuda.layout import LaunchRange, ParameterLayout, leaf_keys, leaves, payload_type
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent
from traccc_py.errors import DeviceUnavailableError, TracccError

__all__ = ["BindingsDriver", "CudaError", "Driver", "Launcher", "grid_of"]

_MAX_BLOCK = 128  # threads
_MIN_BLOCK = 32
_BLOCKS_PER_MULTIPROCESSOR = 32  # beyond that a loop strides: more blocks only wait
_LONG_GRAIN = (
    128  # an index of a kernel with at most this grain takes long, and some take many times longer than others
)
_LONGEST_GRAIN = 16  # an index of a kernel with at most this grain takes so long that blocks wait for a place
_WARPS_OF_LONG = 40  # of each multiprocessor: before there are as many, a warp gets fewer long indices
_WARPS_OF_LONGEST = 18
_MAX_PREPARED = 32  # parameter blocks of a kernel that are kept
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


def grid_of(kernel: Kernel, capacity: int, n_multiprocessors: int) -> tuple[int, int]:
    """Return the number of blocks and the threads of each for `capacity` indices of a kernel.

    Blocks shrink while multiprocessors would be left without one; large ranges are covered by striding. Where a whole
    block works on an index, it has as many threads as asked for. Indices that take long go their own ways: those of a
    warp wait for each other at most steps. They get smaller warps as long as multiprocessors have room for more.
    """
    if kernel.cuda is not None and kernel.cuda.threads:
        return min(capacity, n_multiprocessors * _BLOCKS_PER_MULTIPROCESSOR), kernel.cuda.threads
    if kernel.grain <= _LONG_GRAIN:
        warps = n_multiprocessors * (_WARPS_OF_LONGEST if kernel.grain <= _LONGEST_GRAIN else _WARPS_OF_LONG)
        threads = _MIN_BLOCK
        while threads > 1 and -(-capacity // threads) < warps:
            threads //= 2
        return -(-capacity // threads), threads
    threads = _MAX_BLOCK
    while threads > _MIN_BLOCK and -(-capacity // threads) < n_multiprocessors:
        threads //= 2
    return min(-(-capacity // threads), n_multiprocessors * _BLOCKS_PER_MULTIPROCESSOR), threads


@dataclass(slots=True)
class _Prepared:
    """The parameter blocks of a kernel's launches, in the order in which a batch makes them."""

    blocks: list[_Block]
    next: int = 0


@dataclass(slots=True)
class _Block:
    """A packed parameter block, what it was packed from, and the addresses of its parameters."""

    payload: Any
    range: LaunchRange
    function: Any
    storage: np.ndarray
    addresses: np.ndarray
    pointer: int  # of `addresses`: NumPy takes 1 us to tell
    grid: tuple[int, int]


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
        self._launches: dict[str, _Prepared] = {}

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
        block = self._prepared(kernel, payload, counts, slot, capacity)
        if capacity <= 0:
            return  # compiled and loaded, as `traccc-py compile` needs it; the driver refuses empty grids
        self._driver.launch(block.function, *block.grid, stream, block.pointer)

    def forget(self) -> None:
        """Drop the references to the arrays of past launches."""
        self._launches.clear()

    def _prepared(self, kernel: Kernel, payload: Any, counts: Any, slot: int, capacity: int) -> _Block:
        """Return the parameter block of a launch: that of the same launch of the batch before, if nothing changed."""
        known = self._launches.get(kernel.name)
        if known is None:
            known = self._launches[kernel.name] = _Prepared([])
        for k in range(known.next, known.next + len(known.blocks)):
            place = k % len(known.blocks)
            block = known.blocks[place]
            found = block.range
            is_range = found.counts is counts and found.slot == slot and found.capacity == capacity
            if is_range and _is_same(payload, block.payload):
                known.next = place + 1
                return block
        block = self._packed(kernel, payload, LaunchRange(counts, slot, capacity))
        if len(known.blocks) == _MAX_PREPARED:
            known.blocks.clear()
        known.blocks.append(block)
        known.next = 0
        return block

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
        grid = grid_of(kernel, index_range.capacity, self._n_multiprocessors)
        return _Block(payload, index_range, function, storage, addresses, addresses.ctypes.data, grid)


def _is_same(payload: Any, other: Any) -> bool:
    """Return whether two payloads have the same arrays and equal scalars."""
    if type(payload) is not type(other):
        return False
    for a, b in zip(payload, other, strict=True):
        if a is b:
            continue
        if isinstance(a, tuple):
            if not _is_same(a, b):
                return False
        elif isinstance(a, np.generic | int | float):
            if type(a) is not type(b) or a != b:
                return False
        elif not _is_same_memory(a, b):
            return False
    return True


def _is_same_memory(a: Any, b: Any) -> bool:
    """Return whether two device arrays are views of the same memory, alike in type and shape."""
    return a.data.ptr == b.data.ptr and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
