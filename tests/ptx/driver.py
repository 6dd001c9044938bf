"""The stand-in for the CUDA driver: a launch executes the PTX of the kernel over its grid."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.devices.cuda_fakes import STREAMS
from tests.ptx.checks import Checks, Problem
from tests.ptx.library import compiled_library
from tests.ptx.memory import POISON, Memory
from tests.ptx.parser import Function, parse
from traccc_py.device.cuda.compile import CompiledKernel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loaded", "PtxDriver"]

STATUS = {1: "trap", 2: "threads of a block wait at different barriers", 4: "a thread ended while others wait"}
_RESIDENT = 8  # blocks whose threads take turns
_ALIGNMENT = 16  # of a block of parameters [bytes]


class Loaded:
    """A kernel that was loaded.

    Parameters
    ----------
    compiled : CompiledKernel
        As the package compiled it.
    function : Function
        Its PTX.
    """

    def __init__(self, compiled: CompiledKernel, function: Function) -> None:
        self.compiled = compiled
        self.function = function


class PtxDriver:
    """What `Launcher` needs of a driver.

    Parameters
    ----------
    memory : Memory
        Device memory.
    mode : str
        "run", "check", "mix" (threads of some blocks in random turns) or "count" (with the statistics of a GPU).
    seed : int
        Of the order of blocks and threads; with 0 they come in their order.
    change : callable, optional
        Returns the PTX to execute for (name, PTX) of a kernel: for tests that break it.
    """

    def __init__(
        self, memory: Memory, mode: str, seed: int, change: Callable[[str, str], str] = lambda _, ptx: ptx
    ) -> None:
        self.memory, self.mode, self.seed = memory, mode, seed
        self.problems: list[Problem] = []
        self.on_problems: Callable[[list[Problem]], None] = lambda _: None  #: given those of each launch
        self.statuses: dict[str, str] = {}
        self.statistics: list[Any] = []
        self.n_launches = 0
        self._change = change
        self._loaded: dict[str, Loaded] = {}

    def load(self, compiled: CompiledKernel) -> Loaded:
        """Read the PTX of a kernel."""
        if compiled.path not in self._loaded:
            function = parse(self._change(compiled.name, compiled.ptx))
            self._loaded[compiled.path] = Loaded(compiled, function)
        return self._loaded[compiled.path]

    @property
    def kernels(self) -> set[str]:
        """Names of the kernels that were loaded."""
        return {one.compiled.name for one in self._loaded.values()}

    def launch(self, function: Loaded, blocks: int, threads: int, stream: int, parameters: int) -> None:
        """Run a kernel when the stream comes to it; the addresses of its parameters are read now, as by the driver."""
        assert 1 <= blocks < 2**31
        assert 1 <= threads <= 1024
        declared = function.function.parameters
        addresses = (ctypes.c_uint64 * len(declared)).from_address(parameters)
        n_bytes = function.function.parameter_bytes
        block = np.zeros(-(-n_bytes // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT, np.uint8)
        for parameter, address in zip(declared, addresses, strict=True):
            ctypes.memmove(block.ctypes.data + parameter.offset, address, parameter.size)
        STREAMS[stream].do(lambda: self._run(function, blocks, threads, block))

    def _run(self, loaded: Loaded, blocks: int, threads: int, block: np.ndarray) -> None:
        self.n_launches += 1
        grid = ctypes.c_void_p(block.ctypes.data), blocks, threads
        seed = ctypes.c_uint64(self.seed * 1_000_003 + self.n_launches if self.seed else 0)
        library = compiled_library(loaded.function, self.mode)
        if self.mode == "count":
            from tests.ptx.statistics import Statistics

            counted = Statistics(self.memory, loaded, library.sites, blocks, threads)
            status = library.code.run_warps(*grid, counted.pointer)
            self.statistics.append(counted)
        elif self.mode == "mix":
            status = library.code.run_mixed(*grid, seed, ctypes.c_uint8(POISON), _RESIDENT)
        else:
            checks = None
            if self.mode == "check":
                checks = Checks(self.memory, block, loaded.function.parameters, self.n_launches)
            pointer = checks.pointer if checks else None
            status = library.code.run_grid(*grid, seed, ctypes.c_uint8(POISON), pointer)
            if checks:
                found = checks.problems(loaded.function.name, library.sites)
                self.problems += found
                self.on_problems(found)
        if status:
            self.statuses[loaded.function.name] = ", ".join(text for bit, text in STATUS.items() if status & bit)
