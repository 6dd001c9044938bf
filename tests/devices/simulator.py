"""Kernels in Numba's CUDA simulator: NumPy arrays, the generated CUDA loops, threads and blocks without a GPU.

Slow: some 100 us a thread. For tests, in a process started with ``NUMBA_ENABLE_CUDASIM=1``. Bodies stay compiled, for
plain Python would compute in double precision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numba
import numpy as np

from traccc_py.device.cuda.compile import loop_source
from traccc_py.device.cuda.layout import payload_type
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent
from traccc_py.errors import DeviceUnavailableError

__all__ = ["SimulatorDevice"]

_THREADS_PER_BLOCK = 8  # small, so that small data crosses the edges of blocks ...
_THREADS_OF_INDEX = 4  # where a block works on one index: threads that wait for each other are slow
_MAX_BLOCKS = 2  # ... and loops stride over the grid


class SimulatorDevice(DeferredDevice):
    """Runs the CUDA loops of kernels in Numba's simulator; sizes stay "on the device" as on a GPU.

    Parameters
    ----------
    block_bodies : bool, optional
        Run the bodies for blocks of threads where kernels have them. Threads that wait for each other take
        milliseconds here, so a whole chain takes the plain bodies.

    Raises
    ------
    DeviceUnavailableError
        If the process was not started with ``NUMBA_ENABLE_CUDASIM=1``.
    """

    name = "simulator"

    def __init__(self, *, block_bodies: bool = True) -> None:
        if not numba.config.ENABLE_CUDASIM:
            msg = "the CUDA simulator is off; set NUMBA_ENABLE_CUDASIM=1 before Python starts"
            raise DeviceUnavailableError(msg)
        super().__init__(threads=1)
        self._block_bodies = block_bodies
        self._grids: dict[Any, Any] = {}

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run the CUDA loop of `kernel` over the capacity of `extent`; the loop reads the size."""
        if isinstance(extent, int):
            counts, slot, capacity = np.zeros(1, np.int32), -1, extent
        else:
            counts, slot, capacity = extent.counts, extent.slot, extent.capacity
        if capacity <= 0:
            return  # a driver refuses empty grids
        is_plain = bool(kernel.scratch and kernel.cuda and not kernel.cuda.threads)  # but for constants
        if is_plain or not self._block_bodies:
            kernel = replace(kernel, cuda=None)
        of_block = kernel.cuda.threads if kernel.cuda else 0
        n_threads = min(of_block, _THREADS_OF_INDEX) if of_block else _THREADS_PER_BLOCK
        n_blocks = min(_MAX_BLOCKS, capacity if of_block else -(-capacity // _THREADS_PER_BLOCK))
        loop = self._grid_loop(kernel, payload)
        loop[n_blocks, n_threads](payload, counts, np.int32(slot), np.int32(capacity))

    def _grid_loop(self, kernel: Kernel, payload: Any) -> Any:
        from numba import cuda

        kind = payload_type(payload)
        key = (kernel.name, kind)
        if key not in self._grids:
            source, names = loop_source(kernel, kind)
            if kernel.cuda is None:
                names["body"] = self._one_index(kernel, payload)
            names["cuda"] = cuda
            exec(compile(source, kernel.filename, "exec"), names)
            self._grids[key] = cuda.jit(names[kernel.name])
        return self._grids[key]

    def _one_index(self, kernel: Kernel, payload: Any) -> Any:
        """Return a compiled ``body(i, payload, *scratch)``: the CPU's cached loop, for one index.

        It is compiled here: in the simulator's threads that takes minutes, as the thread that waits for them does so
        without rest.
        """
        loop = self.compiled(kernel, payload)
        loop.function(np.zeros(1, np.int64), 1, 0, payload, *loop.scratch(payload))
        return lambda i, p, *scratch: loop.function(np.array([i], np.int64), 1, int(i) + 1, p, *scratch)
