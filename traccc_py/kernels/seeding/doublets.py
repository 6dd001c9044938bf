"""Doublets of the seeding: the tops of every middle spacepoint, in the order of their cot(theta)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.cuts import SeedingCuts, doublet_is_allowed, linearise
from traccc_py.kernels.seeding.grid import Grid, SortedSpacepoints, ring_range, ring_window

__all__ = [
    "BOTTOM",
    "COT_MARGIN",
    "MAX_BITS",
    "N_BUCKETS",
    "TOP",
    "Tops",
    "bucket_of",
    "buckets_per_unit",
    "doublet_bits",
    "find_tops",
    "first_wrapped_cell",
    "lowest_bit",
    "partner_coordinates",
]

_ZERO = scalar(0)
TOP = scalar(1)
BOTTOM = scalar(-1)
COT_MARGIN = scalar(3e-5)  #: windows of cot(theta) are wider by this, for all rounding
N_BUCKETS = 64  #: of cot(theta) of a middle's tops
_SMALLEST_RANGE = scalar(1e-6)
MAX_BITS = 32  #: spacepoints that `doublet_bits` tests at a time
_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127  # of float32


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
    out_found: Any  # (n_tops,) int32, tops of a middle as they were found
    out_cot_theta: Any  # (n_tops,) scalar, of these
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
def buckets_per_unit(low, high):
    """Return the number of buckets per unit of cot(theta) for values from low to high."""
    return scalar(N_BUCKETS) / max(high - low, _SMALLEST_RANGE)


@device_function(inlined=True)
def bucket_of(low, per_unit, cot_theta):
    """Return the bucket of cot(theta), within 0 ... N_BUCKETS - 1."""
    position = (cot_theta - low) * per_unit
    if not position > _ZERO:
        return np.int32(0)
    return np.int32(min(position, scalar(N_BUCKETS - 1)))


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
def _write_from_run(p, i, start, stop, position):
    """Write the tops among the spacepoints start ... stop - 1, as found; return the position after the last."""
    for first in range(start, stop, MAX_BITS):
        bits = doublet_bits(p.cuts, p.sp, i, first, min(stop - first, MAX_BITS), TOP)
        while bits != np.uint32(0):
            p.out_found[position] = first + lowest_bit(bits)
            bits &= bits - np.uint32(1)
            position += 1
    return position


@device_function(inlined=True)
def _tops_in_run(p, i, start, stop, position, is_filling):
    """Test the spacepoints start ... stop - 1 as tops of middle i; return the position after the last one found."""
    if is_filling:
        return _write_from_run(p, i, start, stop, position)
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
def partner_coordinates(sp, i, j, side):
    """Return (cot theta, u, v) of top (side 1) or bottom (side -1) j of middle i."""
    x, y, r = sp.x[i], sp.y[i], sp.r[i]
    return linearise(x / r, y / r, sp.x[j] - x, sp.y[j] - y, sp.z[j] - sp.z[i], side)


@device_function(inlined=True)
def _place_in_buckets(p, first, last, starts):
    """Bring the tops first ... last - 1 of a middle into the order of the buckets of their cot(theta)."""
    low, high = p.out_cot_theta[first], p.out_cot_theta[first]
    for k in range(first + 1, last):
        low, high = min(low, p.out_cot_theta[k]), max(high, p.out_cot_theta[k])
    per_unit = buckets_per_unit(low, high)
    for bucket in range(N_BUCKETS + 1):
        starts[bucket] = 0
    for k in range(first, last):
        starts[bucket_of(low, per_unit, p.out_cot_theta[k]) + 1] += 1
    starts[0] = first
    for bucket in range(N_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    for k in range(first, last):
        bucket = bucket_of(low, per_unit, p.out_cot_theta[k])
        place = starts[bucket]
        starts[bucket] = place + 1
        p.out_tops.partner[place] = p.out_found[k]
        p.out_tops.cot_theta[place] = p.out_cot_theta[k]


@device_function(inlined=True)
def _sort_by_insertion(tops, first, last):
    """Sort the tops first ... last - 1 by cot(theta); equal ones keep their order."""
    for k in range(first + 1, last):
        cot_theta, partner = tops.cot_theta[k], tops.partner[k]
        hole = k
        while hole > first and tops.cot_theta[hole - 1] > cot_theta:
            tops.cot_theta[hole] = tops.cot_theta[hole - 1]
            tops.partner[hole] = tops.partner[hole - 1]
            hole -= 1
        tops.cot_theta[hole] = cot_theta
        tops.partner[hole] = partner


@kernel(grain=64, fuses=False)
def _count_tops(i, p):
    """One middle: number of tops; none if there can be no bottom."""
    n = np.int32(0)
    if _has_candidates(p, i, BOTTOM):
        n = np.int32(_find_tops(p, i, np.int32(0), False))
    p.out_n_tops[i] = n


@kernel(scratch=(Scratch(N_BUCKETS + 1, np.int32),), grain=64, fuses=False)
def _fill_tops(i, p, starts):
    """One middle: write its tops in the order of cot(theta)."""
    first, last = p.out_tops.offsets[i], p.out_tops.offsets[i + 1]
    if first == last or last > p.out_found.shape[0]:
        return
    _find_tops(p, i, first, True)
    for k in range(first, last):
        p.out_cot_theta[k] = partner_coordinates(p.sp, i, p.out_found[k], TOP)[0]
    _place_in_buckets(p, first, last, starts)
    _sort_by_insertion(p.out_tops, first, last)
    for k in range(first, last):
        _, u, v = partner_coordinates(p.sp, i, p.out_tops.partner[k], TOP)
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
        names = ("found_cot_theta", "cot_theta", "u", "v")
        found_cot_theta, *columns = (ws.array(f"seeding.top_{name}", tops, sp.x.dtype) for name in names)
        partner, found = (ws.array(f"seeding.top_{name}", tops, np.int32) for name in ("partner", "found"))
        return _Payload(sp, cuts, grid, n_tops, found, found_cot_theta, Tops(offsets, partner, *columns))

    ws.launch(_count_tops, middles, payload())
    ws.scan(n_tops, middles, offsets, tops)
    filled = payload()
    ws.launch(_fill_tops, middles, filled)
    return filled.out_tops
