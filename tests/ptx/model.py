"""Times that the statistics of launches would mean on an H200: a model, never compared with one.

A launch takes the longest of four: instructions issued by the busiest multiprocessor, chains of dependent instructions
of blocks that wait for a place, sectors that come from L2, sectors that are touched at all and come from HBM. Launches
in two streams take as long as the longer of both, or as what they share: instructions, places, bytes. What it leaves
out: misses of the instruction cache, conflicts of banks, loads that wait for others. Ratios are firmer than times.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.ptx.statistics import LANES, SECTOR, Statistics

__all__ = ["LAUNCH", "Estimate", "estimate", "total"]

MULTIPROCESSORS, CLOCK, ISSUED_PER_CYCLE = 132, 1.98e9, 4  # NVIDIA's data sheet; [1/s]; warp instructions
L2_BANDWIDTH, HBM_BANDWIDTH = 5.5e12, 4.8e12  # [bytes/s]
LAUNCH = 3e-6  # [s], of one launch after the other
REGISTERS, SHARED, MAX_WARPS, MAX_BLOCKS = 65_536, 227 * 1024, 64, 32  # of a multiprocessor
_REGISTER_UNIT, _SHARED_OF_BLOCK = 256, 1024


@dataclass(frozen=True)
class Estimate:
    """Modelled times of one launch [s], and what they come from."""

    name: str
    grid: tuple[int, int]
    n_busy: int  # threads that did more than look at their index
    efficiency: float  # active lanes of an issued instruction
    registers: int
    issue: float
    latency: float
    longest: float  # the longest block alone
    held: float  # time of all its blocks / places for them
    l2: float
    hbm: float
    hits: float  # share of the loads found in L1
    used: float  # share of the bytes moved that were asked for

    @property
    def time(self) -> float:
        """Time of the launch without starting it [s]."""
        return max(self.issue, self.latency, self.l2, self.hbm)


def resident_blocks(registers: int, threads: int, shared: int) -> int:
    """Return the number of blocks that a multiprocessor holds at a time."""
    warps = -(-threads // LANES)
    of_warp = -(-registers * LANES // _REGISTER_UNIT) * _REGISTER_UNIT
    by_shared = SHARED // (shared + _SHARED_OF_BLOCK)
    return max(1, min(MAX_BLOCKS, MAX_WARPS // warps, REGISTERS // (of_warp * warps), by_shared))


def _makespan(durations: np.ndarray, places: int) -> float:
    """Return when the last of tasks ends that start in order as places get free."""
    if len(durations) <= places:
        return float(durations.max())
    free = [0.0] * places
    for duration in durations:
        heapq.heapreplace(free, free[0] + float(duration))
    return max(free)


def estimate(s: Statistics) -> Estimate:
    """Return the modelled time of a launch."""
    threads, warps = s.thread_instructions.astype(float), s.warp_instructions.astype(float)
    of_blocks = warps.reshape(s.blocks, -1).sum(1)
    per_multiprocessor = np.bincount(np.arange(s.blocks) % MULTIPROCESSORS, weights=of_blocks)
    places = MULTIPROCESSORS * resident_blocks(s.compiled.registers, s.threads, s.compiled.shared)
    loads, n_loads = s.sectors[s.is_load].sum(), max(1, int(s.requests[s.is_load].sum()))
    hits = float(s.hits.sum()) / n_loads
    moved = float(s.sectors.sum()) * SECTOR
    return Estimate(
        name=s.compiled.name,
        grid=(s.blocks, s.threads),
        n_busy=int((threads > threads.min() * 1.5 + 5).sum()),
        efficiency=threads.sum() / max(1.0, LANES * warps.sum()),
        registers=s.compiled.registers,
        issue=per_multiprocessor.max() / ISSUED_PER_CYCLE / CLOCK,
        latency=_makespan(s.block_cycles, places) / CLOCK,
        longest=float(s.block_cycles.max()) / CLOCK,
        held=float(s.block_cycles.sum()) / places / CLOCK,
        l2=(float(loads) * (1 - hits) + float(s.sectors[~s.is_load].sum())) * SECTOR / L2_BANDWIDTH,
        hbm=s.n_touched * SECTOR / HBM_BANDWIDTH,
        hits=hits,
        used=float((s.lanes * s.width).sum()) / max(1.0, moved),
    )


def _in_turn(estimates: Sequence[Estimate]) -> float:
    """Return the time of launches one after the other [s]."""
    return sum(one.time + LAUNCH for one in estimates)


def _side_by_side(aside: Sequence[Estimate], others: Sequence[Estimate]) -> float:
    """Return the time of launches in two streams, from where these part to where they meet [s]."""
    shared = [sum(getattr(one, name) for one in (*aside, *others)) for name in ("issue", "held", "l2", "hbm")]
    return max(_in_turn(aside), _in_turn(others), *shared) + LAUNCH


def total(estimates: Sequence[Estimate], pairs: Iterable[tuple[int, int, int]] = ()) -> float:
    """Return the modelled time of launches [s].

    Parameters
    ----------
    estimates : sequence of Estimate
        In the order of launches.
    pairs : iterable of (int, int, int), optional
        Launches begin ... middle - 1 run side by side with middle ... end - 1; ascending. All others run in turn.
    """
    time, done = 0.0, 0
    for begin, middle, end in pairs:
        time += _in_turn(estimates[done:begin]) + _side_by_side(estimates[begin:middle], estimates[middle:end])
        done = end
    return time + _in_turn(estimates[done:])
