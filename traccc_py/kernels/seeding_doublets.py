"""Doublets of the seeding: the tops of every middle spacepoint, in the order of their cot(theta)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding_cuts import SeedingCuts, doublet_is_allowed, linearise
from traccc_py.kernels.seeding_grid import Grid, SortedSpacepoints, ring_range, ring_window

__all__ = [
    "BOTTOM",
    "COT_MARGIN",
    "MAX_BITS",
    "TOP",
    "Tops",
    "doublet_bits",
    "find_tops",
    "first_wrapped_cell",
    "lowest_bit",
]

_ZERO = scalar(0)
TOP = scalar(1)
BOTTOM = scalar(-1)
_COT_QUANTA = 65536  # tops are sorted by cot(theta) in steps of 1/65536, rounded towards 0 ...
COT_MARGIN = scalar(3 / _COT_QUANTA)  # ... so windows of cot(theta) are wider by some steps
_QUANTA = scalar(_COT_QUANTA)
_KEY_SHIFT = 2**32
MAX_BITS = 32  #: spacepoints that `doublet_bits` tests at a time
_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127  # of float32
_GAPS = (701, 301, 132, 57, 23, 10, 4, 1)  # Ciura's sequence for shell sort


class Tops(NamedTuple):
    """Top doublets of the middles, sorted by cot(theta). Extent: "top_doublets"."""

    offsets: Any  # (n_middles + 1,) int32
    partner: Any  # (n_tops,) int32, row of the sorted spacepoints
    cot_theta: Any  # (n_tops,) scalar
    u: Any  # (n_tops,) scalar [1/mm]
    v: Any  # (n_tops,) scalar [1/mm]


class _Payload(NamedTuple):
    sp: SortedSpacepoints
    cuts: SeedingCuts
    grid: Grid
    out_n_tops: Any  # (n_middles,) int32
    out_key: Any  # (n_tops,) int64: quantised cot(theta) * 2^32 + row of the spacepoint
    out_tops: Tops


@device_function(inlined=True)
def _fits(least_up, most_up, least_down, most_down, dr, dz):
    """Return whether a direction (dr, dz) fits the cluster of a spacepoint."""
    least = least_up if dz >= _ZERO else least_down
    most = most_up if dz >= _ZERO else most_down
    rise = abs(dz)
    return (least * dr <= rise) & (rise <= most * dr)


@device_function(inlined=True)
def _is_doublet(cuts, sp, i, j, side):
    """Return whether spacepoint j is a top (side 1) or a bottom (side -1) of middle i."""
    dr = side * (sp.r[j] - sp.r[i])
    dz = side * (sp.z[j] - sp.z[i])
    fits = _fits(sp.least_up[i], sp.most_up[i], sp.least_down[i], sp.most_down[i], dr, dz)
    fits &= _fits(sp.least_up[j], sp.most_up[j], sp.least_down[j], sp.most_down[j], dr, dz)
    z_at_beam_times_dr = sp.z[i] * dr - sp.r[i] * dz
    is_allowed = doublet_is_allowed(cuts, (sp.x[i], sp.y[i]), (sp.x[j], sp.y[j]), z_at_beam_times_dr, dr, dz)
    return fits & is_allowed


@device_function(inlined=True)
def doublet_bits(cuts, sp, i, first, n, side):
    """Return which of the spacepoints first ... first + n - 1 are tops or bottoms of middle i, a bit for each.

    At most MAX_BITS of them. Without a branch, one column of numbers at a time and unsigned rows (which need no test
    for negative ones), compilers for the CPU turn the loop into vector instructions.
    """
    bits = np.uint32(0)
    for k in range(np.uint64(n)):
        is_doublet = _is_doublet(cuts, sp, i, np.uint64(first) + k, side)
        bits |= np.uint32(is_doublet) << np.uint32(k)
    return bits


@device_function(inlined=True)
def lowest_bit(bits):
    """Return the place of the lowest bit that is set."""
    lowest = bits & (~bits + np.uint32(1))
    return (np.float32(lowest).view(np.int32) >> np.int32(_MANTISSA_BITS)) - np.int32(_EXPONENT_BIAS)


@device_function(inlined=True)
def first_wrapped_cell(grid, cell):
    """Return the cell at phi = -pi in the same ring and z bin."""
    return cell - cell % grid.n_phi


@device_function(inlined=True)
def _has_candidates(p, i, side):
    """Return whether there is a spacepoint at all where partners of middle i can lie."""
    first, last = ring_range(p.grid, p.cuts, p.sp.r[i], side)
    for ring in range(first, last):
        z_first, z_last, start, n, n_wrapped = ring_window(p.grid, p.cuts, p.sp, i, side, ring)
        for k in range(z_first, z_last):
            cell = start + k * p.grid.n_phi
            if p.sp.cell_offsets[cell] < p.sp.cell_offsets[cell + n]:
                return True
            cell = first_wrapped_cell(p.grid, cell)
            if p.sp.cell_offsets[cell] < p.sp.cell_offsets[cell + n_wrapped]:
                return True
    return False


@device_function(inlined=True)
def _count_in_run(p, i, start, stop):
    """Return how many of the spacepoints start ... stop - 1 are tops of middle i."""
    n = np.int32(0)
    for j in range(np.uint64(start), np.uint64(stop)):
        n += np.int32(_is_doublet(p.cuts, p.sp, i, j, TOP))
    return n


@device_function(inlined=True)
def _fill_from_run(p, i, start, stop, position):
    """Write the keys of the tops among the spacepoints start ... stop - 1; return the position after the last."""
    for first in range(start, stop, MAX_BITS):
        bits = doublet_bits(p.cuts, p.sp, i, first, min(stop - first, MAX_BITS), TOP)
        while bits != np.uint32(0):
            j = first + lowest_bit(bits)
            bits &= bits - np.uint32(1)
            dx, dy, dz = p.sp.x[j] - p.sp.x[i], p.sp.y[j] - p.sp.y[i], p.sp.z[j] - p.sp.z[i]
            cot_theta = dz / math.sqrt(dx * dx + dy * dy)
            p.out_key[position] = np.int64(cot_theta * _QUANTA) * _KEY_SHIFT + j
            position += 1
    return position


@device_function(inlined=True)
def _tops_in_run(p, i, start, stop, position, is_filling):
    """Test the spacepoints start ... stop - 1 as tops of middle i; return the position after the last one found."""
    if is_filling:
        return _fill_from_run(p, i, start, stop, position)
    return position + _count_in_run(p, i, start, stop)


@device_function(inlined=True)
def _find_tops(p, i, position, is_filling):
    """Search the windows of middle i for tops; return the position after the last one."""
    first, last = ring_range(p.grid, p.cuts, p.sp.r[i], TOP)
    for ring in range(first, last):
        z_first, z_last, start, n, n_wrapped = ring_window(p.grid, p.cuts, p.sp, i, TOP, ring)
        for k in range(z_first, z_last):
            cell = start + k * p.grid.n_phi
            position = _tops_in_run(p, i, p.sp.cell_offsets[cell], p.sp.cell_offsets[cell + n], position, is_filling)
            if n_wrapped > 0:
                cell = first_wrapped_cell(p.grid, cell)
                end = p.sp.cell_offsets[cell + n_wrapped]
                position = _tops_in_run(p, i, p.sp.cell_offsets[cell], end, position, is_filling)
    return position


@device_function(inlined=True)
def _sort_keys(keys, first, last):
    """Sort keys[first:last] in place (shell sort)."""
    for gap in _GAPS:
        for k in range(first + gap, last):
            key = keys[k]
            hole = k
            while hole - gap >= first and keys[hole - gap] > key:
                keys[hole] = keys[hole - gap]
                hole -= gap
            keys[hole] = key


@kernel(grain=64)
def _count_tops(i, p):
    """One middle: number of tops; none if there can be no bottom."""
    n = np.int32(0)
    if _has_candidates(p, i, BOTTOM):
        n = np.int32(_find_tops(p, i, np.int32(0), False))
    p.out_n_tops[i] = n


@kernel(grain=64)
def _fill_tops(i, p):
    """One middle: write its tops in the order of cot(theta)."""
    first, last = p.out_tops.offsets[i], p.out_tops.offsets[i + 1]
    if first == last or last > p.out_key.shape[0]:
        return
    _find_tops(p, i, first, True)
    _sort_keys(p.out_key, first, last)
    x, y, z, r = p.sp.x[i], p.sp.y[i], p.sp.z[i], p.sp.r[i]
    for k in range(first, last):
        j = np.int32(p.out_key[k] % _KEY_SHIFT)
        cot_theta, u, v = linearise(x / r, y / r, p.sp.x[j] - x, p.sp.y[j] - y, p.sp.z[j] - z, TOP)
        p.out_tops.partner[k] = j
        p.out_tops.cot_theta[k] = cot_theta
        p.out_tops.u[k] = u
        p.out_tops.v[k] = v


def find_tops(ws: Workspace, sp: SortedSpacepoints, cuts: SeedingCuts, grid: Grid) -> Tops:
    """Find the tops of all middles that may have bottoms.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "seeding_spacepoints" must be set; that of "top_doublets" is set here.
    sp : SortedSpacepoints
        Each is a middle.
    cuts : SeedingCuts
        Doublet cuts.
    grid : Grid
        Binning of `sp`.

    Returns
    -------
    Tops
        Partners and their linear coordinates.
    """
    middles, tops = ws.extent("seeding_spacepoints"), ws.extent("top_doublets")
    offsets = ws.array("seeding.top_offsets", middles, np.int32, extra=1)
    n_tops = ws.array("seeding.n_tops", middles, np.int32)

    def payload() -> _Payload:
        columns = (ws.array(f"seeding.top_{name}", tops, sp.x.dtype) for name in ("cot_theta", "u", "v"))
        partner = ws.array("seeding.top_partner", tops, np.int32)
        return _Payload(
            sp, cuts, grid, n_tops, ws.array("seeding.top_key", tops, np.int64), Tops(offsets, partner, *columns)
        )

    ws.launch(_count_tops, middles, payload())
    ws.scan(n_tops, middles, offsets, tops)
    filled = payload()
    ws.launch(_fill_tops, middles, filled)
    return filled.out_tops
