"""What a launch would spend on a GPU: instructions, cycles of warps, sectors of memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.ptx.costs import block_costs
from tests.ptx.instructions import Site
from tests.ptx.memory import Memory

if TYPE_CHECKING:
    from tests.ptx.driver import Loaded

__all__ = ["SECTOR", "Statistics"]

LANES = 32
SECTOR = 32  # bytes that memory moves at once


class _Counts(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cost", "latency", "latency_hit", "is_load")),
        *((f"{name}", ctypes.c_void_p) for name in ("thread_instructions", "warp_instructions", "warp_cycles")),
        *(
            (name, ctypes.c_void_p)
            for name in ("block_cycles", "cycles_at", "requests", "hits", "sectors", "lanes", "touched")
        ),
        ("base", ctypes.c_uint64),
    )


class Statistics:
    """Counts of one launch, filled by `c/run_warps.h`.

    Parameters
    ----------
    memory : Memory
        Device memory.
    loaded : Loaded
        The kernel.
    sites : sequence of Site
        Its instructions that access memory.
    blocks, threads : int
        The grid.

    Attributes
    ----------
    thread_instructions, warp_instructions : ndarray of uint64
        Instructions that each thread needed, and that were issued for each warp.
    block_cycles : ndarray of uint64
        Cycles of each block of threads, if nothing but its own chains of dependent instructions delays it.
    cycles_at : ndarray of uint64
        The same of all warps, by basic block of the PTX.
    requests, hits, sectors, lanes : ndarray of uint64
        Of each instruction that accesses memory: how often it was issued and, of loads, found in L1; sectors and lanes.
    """

    def __init__(self, memory: Memory, loaded: Loaded, sites: Sequence[Site], blocks: int, threads: int) -> None:
        self.compiled = loaded.compiled
        self.blocks, self.threads = blocks, threads
        n_warps = blocks * -(-threads // LANES)
        self._tables = (*block_costs(loaded.function), np.array([site.is_load for site in sites] or [0], np.uint8))
        self.is_load = self._tables[-1].astype(bool)
        self.width = np.array([site.width for site in sites] or [0])
        self.thread_instructions = np.zeros(blocks * threads, np.uint64)
        self.warp_instructions, self._warp_cycles = np.zeros((2, n_warps), np.uint64)
        self.block_cycles = np.zeros(blocks, np.uint64)
        self.cycles_at = np.zeros(len(loaded.function.blocks), np.uint64)
        self.requests, self.hits, self.sectors, self.lanes = np.zeros((4, len(self.width)), np.uint64)
        self._touched = np.zeros(memory.used // SECTOR + 2, np.uint8)
        counted = (
            self.thread_instructions,
            self.warp_instructions,
            self._warp_cycles,
            self.block_cycles,
            self.cycles_at,
        )
        of_sites = (self.requests, self.hits, self.sectors, self.lanes, self._touched)
        self._c = _Counts(*(a.ctypes.data for a in (*self._tables, *counted, *of_sites)), memory.base)

    @property
    def pointer(self) -> Any:
        """What the C is given."""
        return ctypes.byref(self._c)

    @property
    def n_touched(self) -> int:
        """Sectors of memory that were read or written."""
        return int(self._touched.sum())
