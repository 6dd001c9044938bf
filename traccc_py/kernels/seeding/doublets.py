"""Doublets of the seeding: the tops of every middle spacepoint, in the order of their cot(theta)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.bits import trailing_zeros
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.seeding.cuts import PointVariance, PointXY, SeedingCuts, doublet_is_allowed, linearise
from traccc_py.kernels.seeding.grid import Grid, SortedSpacepoints, ring_range, ring_window
from traccc_py.kernels.seeding.spacepoint_variances import R_VARIANCE, Z_VARIANCE

__all__ = [
    "BOTTOM",
    "COT_MARGIN",
    "MAX_BITS",
    "N_BUCKETS",
    "TOP",
    "Tops",
    "bucket_of",
    "doublet_bits",
    "doublet_line",
    "find_tops",
    "first_wrapped_cell",
    "fits_cluster",
    "lowest_bit",
    "make_buckets",
    "without_lowest",
]

TOP = scalar(1)
BOTTOM = scalar(-1)
COT_MARGIN = scalar(3e-5)  #: windows of cot(theta) are wider by this, for all rounding
N_BUCKETS = 64  #: of cot(theta) of a middle's tops
_LOWEST_BUCKET = 0
_SMALLEST_RANGE = scalar(1e-6)
MAX_BITS = 32  #: spacepoints that `doublet_bits` tests at a time


class Tops(NamedTuple):
    """Top doublets of the middles, sorted by cot(theta). Extent: "top_doublets"."""

    offsets: Any  # (n_middles + 1,) int32
    partner: Any  # (n_tops,) int32, row of the sorted spacepoints
    cot_theta: Any  # (n_tops,) scalar
    error2: Any  # (n_tops,) scalar, see `DoubletLine`
    u: Any  # (n_tops,) scalar [1/mm]
    v: Any  # (n_tops,) scalar [1/mm]
    largest_error2: Any  # (n_middles,) scalar, of the middle's tops; not set where there are none


class Buckets(NamedTuple):
    """Bins of cot(theta)."""

    low: Any
    per_unit: Any


class _Payload(NamedTuple):
    sp: SortedSpacepoints
    cuts: SeedingCuts
    grid: Grid
    variances: Any  # (n_spacepoints, 2) scalar, see `spacepoint_variances`
    out_n_tops: Any  # (n_middles,) int32
    out_found: Any  # (n_tops,) int32, tops of a middle as they were found
    out_cot_theta: Any  # (n_tops,) scalar, of these
    out_tops: Tops


@device_function(inlined=True)
def fits_cluster(slopes, i, dr, dz):
    """Return whether a direction (dr, dz) fits the cluster of spacepoint i."""
    least_up, most_up = slopes.least_up[i], slopes.most_up[i]
    least_down, most_down = slopes.least_down[i], slopes.most_down[i]
    least = least_up if dz >= ZERO else least_down
    most = most_up if dz >= ZERO else most_down
    rise = abs(dz)
    return (least * dr <= rise) & (rise <= most * dr)


@device_function(inlined=True)
def _is_doublet(cuts, sp, i, j, side):
    """Return whether spacepoint j is a top (side 1) or a bottom (side -1) of middle i."""
    dr = side * (sp.r[j] - sp.r[i])
    dz = side * (sp.z[j] - sp.z[i])
    fits = fits_cluster(sp.slopes, i, dr, dz) & fits_cluster(sp.slopes, j, dr, dz)
    z_at_beam_times_dr = sp.z[i] * dr - sp.r[i] * dz
    middle, partner = PointXY(sp.x[i], sp.y[i]), PointXY(sp.x[j], sp.y[j])
    return fits & doublet_is_allowed(cuts, middle, partner, z_at_beam_times_dr, dr, dz)


@device_function(inlined=True)
def doublet_bits(cuts, sp, i, first, n, side):
    """Return which of the spacepoints first ... first + n - 1 are tops or bottoms of middle i, a bit for each.

    At most MAX_BITS of them. Without a branch, one column of numbers at a time and unsigned rows (which need no test
    for negative ones), compilers for the CPU turn the loop into vector instructions.
    """
    bits = np.uint32(0)
    k = np.uint64(0)
    while k < np.uint64(n):
        is_doublet = _is_doublet(cuts, sp, i, np.uint64(first) + k, side)
        bits = np.uint32(bits | (np.uint32(is_doublet) << np.uint32(k)))
        k += np.uint64(1)
    return bits


@device_function(inlined=True)
def lowest_bit(bits):
    """Return the place of the lowest bit that is set."""
    return trailing_zeros(bits)


@device_function(inlined=True)
def without_lowest(bits):
    """Return the bits but for the lowest that is set."""
    return np.uint32(bits & (bits - np.uint32(1)))


@device_function(inlined=True)
def make_buckets(low, high):
    """Return the buckets for values of cot(theta) from low to high."""
    return Buckets(low, scalar(N_BUCKETS) / max(high - low, _SMALLEST_RANGE))


@device_function(inlined=True)
def bucket_of(buckets, cot_theta):
    """Return the bucket of cot(theta), within 0 ... N_BUCKETS - 1."""
    position = (cot_theta - buckets.low) * buckets.per_unit
    if not position > ZERO:
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
        window = ring_window(p.grid, p.cuts, p.sp, i, side, ring)
        for k in range(window.first_z, window.end_z):
            cell = window.first_cell + k * p.grid.n_phi
            if p.sp.cell_offsets[cell] < p.sp.cell_offsets[cell + window.n_cells]:
                return True
            cell = first_wrapped_cell(p.grid, cell)
            if p.sp.cell_offsets[cell] < p.sp.cell_offsets[cell + window.n_wrapped]:
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
            bits = without_lowest(bits)
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
    offsets = p.sp.cell_offsets
    for ring in range(first, last):
        window = ring_window(p.grid, p.cuts, p.sp, i, TOP, ring)
        for k in range(window.first_z, window.end_z):
            cell = window.first_cell + k * p.grid.n_phi
            position = _tops_in_run(p, i, offsets[cell], offsets[cell + window.n_cells], position, is_filling)
            if window.n_wrapped > 0:
                cell = first_wrapped_cell(p.grid, cell)
                end = offsets[cell + window.n_wrapped]
                position = _tops_in_run(p, i, offsets[cell], end, position, is_filling)
    return position


@device_function(inlined=True)
def _variance(p, i):
    """Return the `PointVariance` of spacepoint i."""
    row = p.sp.spacepoint[i]
    return PointVariance(p.variances[row, R_VARIANCE], p.variances[row, Z_VARIANCE])


@device_function(inlined=True)
def doublet_line(p, i, j, side):
    """Return the `DoubletLine` of top (side 1) or bottom (side -1) j of middle i."""
    sp = p.sp
    x, y, r = sp.x[i], sp.y[i], sp.r[i]
    middle, partner = _variance(p, i), _variance(p, j)
    return linearise(p.cuts, PointXY(x / r, y / r), sp.x[j] - x, sp.y[j] - y, sp.z[j] - sp.z[i], side, middle, partner)


@device_function(inlined=True)
def _place_in_buckets(p, first, last, starts):
    """Bring the tops first ... last - 1 of a middle into the order of the buckets of their cot(theta)."""
    low, high = p.out_cot_theta[first], p.out_cot_theta[first]
    for k in range(first + 1, last):
        low, high = min(low, p.out_cot_theta[k]), max(high, p.out_cot_theta[k])
    buckets = make_buckets(low, high)
    for bucket in range(N_BUCKETS + 1):
        starts[bucket] = 0
    for k in range(first, last):
        starts[bucket_of(buckets, p.out_cot_theta[k]) + 1] += 1
    starts[_LOWEST_BUCKET] = first
    for bucket in range(N_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    for k in range(first, last):
        bucket = bucket_of(buckets, p.out_cot_theta[k])
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
        p.out_cot_theta[k] = doublet_line(p, i, p.out_found[k], TOP).cot_theta
    _place_in_buckets(p, first, last, starts)
    _sort_by_insertion(p.out_tops, first, last)
    largest = ZERO
    for k in range(first, last):
        line = doublet_line(p, i, p.out_tops.partner[k], TOP)
        p.out_tops.error2[k] = line.error2
        p.out_tops.u[k] = line.u
        p.out_tops.v[k] = line.v
        largest = max(largest, line.error2)
    p.out_tops.largest_error2[i] = largest


def find_tops(ws: Workspace, sp: SortedSpacepoints, variances: Any, cuts: SeedingCuts, grid: Grid) -> Tops:
    """Find the tops of all middles that may have bottoms.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "seeding_spacepoints" must be set; that of "top_doublets" is set here.
    sp : SortedSpacepoints
        Each is a middle.
    variances : array of shape (n_spacepoints, 2), scalar
        Of r and z of the spacepoints before they were sorted [mm^2], from `find_spacepoint_variances`.
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
    largest_error2 = ws.array("seeding.largest_top_error2", middles, sp.x.dtype)

    def payload() -> _Payload:
        dtype = sp.x.dtype
        out = Tops(
            offsets=offsets,
            partner=ws.array("seeding.top_partner", tops, np.int32),
            cot_theta=ws.array("seeding.top_cot_theta", tops, dtype),
            error2=ws.array("seeding.top_error2", tops, dtype),
            u=ws.array("seeding.top_u", tops, dtype),
            v=ws.array("seeding.top_v", tops, dtype),
            largest_error2=largest_error2,
        )
        return _Payload(
            sp=sp,
            cuts=cuts,
            grid=grid,
            variances=variances,
            out_n_tops=n_tops,
            out_found=ws.array("seeding.top_found", tops, np.int32),
            out_cot_theta=ws.array("seeding.top_found_cot_theta", tops, dtype),
            out_tops=out,
        )

    ws.launch(_count_tops, middles, payload())
    ws.scan(n_tops, middles, offsets, tops)
    filled = payload()
    ws.launch(_fill_tops, middles, filled)
    return filled.out_tops
