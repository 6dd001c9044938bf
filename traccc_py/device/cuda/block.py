"""Primitives of CUDA for bodies that only CUDA runs: threads of a block, shared memory, atomic additions.

Importing this loads numba-cuda; modules with such bodies are imported when they are compiled (`CudaBody`). In Numba's
simulator `cuda` stands for the launch that is running, and functions stay plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["block_function", "block_sums", "cuda"]


def _cuda() -> Any:
    """Return the module `numba.cuda`, or what stands for it in the simulator."""
    if not numba.config.ENABLE_CUDASIM:
        from numba import cuda

        return cuda
    from numba.cuda.simulator.kernel import _get_kernel_context

    class RunningLaunch:
        def __getattr__(self, name: str) -> Any:
            return getattr(_get_kernel_context(), name)

    return RunningLaunch()


cuda: Any = _cuda()


def block_function(function: Callable[..., Any]) -> Any:
    """Compile a function that only CUDA runs, for calls from kernels."""
    return function if numba.config.ENABLE_CUDASIM else cuda.jit(device=True)(function)


@block_function
def block_sums(value, thread, n_threads, shared):
    """Return (sum over the threads before this one, sum over all threads); `shared` holds n_threads int64."""
    shared[thread] = value
    cuda.syncthreads()
    step = 1
    while step < n_threads:
        lower = shared[thread - step] if thread >= step else shared[thread] * 0
        cuda.syncthreads()
        shared[thread] += lower
        cuda.syncthreads()
        step *= 2
    through, total = shared[thread], shared[n_threads - 1]
    cuda.syncthreads()
    return through - value, total
