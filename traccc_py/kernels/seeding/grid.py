"""Spacepoints sorted into cells of (event, radius, z, phi), and the windows of cells in which partners can lie.

A search visits, for each ring of radii and each z bin that the cuts leave, one or two contiguous runs of spacepoints.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import HALF, HALF_PI, PI, QUARTER, ZERO, X, Y, Z
from traccc_py.kernels.seeding.cluster_slopes import LEAST_DOWN, LEAST_UP, MOST_DOWN, MOST_UP, fits_no_slope
from traccc_py.kernels.seeding.cuts import SeedingCuts
from traccc_py.kernels.tracking.batch import SpacepointBatch

__all__ = [
    "Grid",
    "RingWindow",
    "SlopeBounds",
    "SortedSpacepoints",
    "make_grid",
    "ring_range",
    "ring_window",
    "sort_spacepoints",
]

_RING_WIDTH = 10.0  # [mm]
_Z_BIN_WIDTH = 125.0  # [mm]
_N_PHI = 128
_MAX_RINGS = 64
_MAX_Z_BINS = 64

_THREE_PI = scalar(3 * math.pi)
_PHI_MARGIN = scalar(1e-4)  # [rad], over all rounding in windows and bins
_Z_MARGIN = scalar(0.05)  # [mm]
_SMALLEST_RADIUS = scalar(1e-3)  # [mm], keeps divisions by a radius finite
_NOT_ACCEPTED = np.int32(-1)
_POSITION = ("x", "y", "z", "r", "phi")  # fields of `SortedSpacepoints`


class Grid(NamedTuple):
    """Binning of one event. Cell = (ring * n_z + z bin) * n_phi + phi bin, plus event * n_cells."""

    n_rings: np.int32
    n_z: np.int32
    n_phi: np.int32
    n_cells: np.int32
    rings_per_mm: np.float32
    ring_width: np.float32  # [mm]
    z_min: np.float32  # [mm]
    z_bins_per_mm: np.float32
    phi_bins_per_rad: np.float32


class SlopeBounds(NamedTuple):
    """Which |cot(theta)| fits the cluster of each spacepoint: bounds where z grows outwards, and where it falls."""

    least_up: Any  # (n,) scalar
    most_up: Any  # (n,) scalar
    least_down: Any  # (n,) scalar
    most_down: Any  # (n,) scalar


class RingWindow(NamedTuple):
    """Where the partners of a middle can lie in one ring: in z bin k, runs of cells from ``first_cell + k * n_phi``."""

    first_z: Any  # bin
    end_z: Any  # one past the last bin
    first_cell: Any  # in z bin 0
    n_cells: Any  # from there on
    n_wrapped: Any  # further ones, from the first phi bin on


class SortedSpacepoints(NamedTuple):
    """Accepted spacepoints in the order of their cells, then of their index. Extent: "seeding_spacepoints"."""

    x: Any  # (n,) scalar [mm]
    y: Any  # (n,) scalar [mm]
    z: Any  # (n,) scalar [mm]
    r: Any  # (n,) scalar [mm]
    phi: Any  # (n,) scalar [rad]
    slopes: SlopeBounds
    spacepoint: Any  # (n,) int32
    event: Any  # (n,) int32
    cell_offsets: Any  # (n_events * n_cells + 1,) int32, first row of each cell
    phi_windows: Any  # (n_rings * n_rings,) scalar, largest phi distance of a doublet between two rings [rad]


class _CellPayload(NamedTuple):
    spacepoints: SpacepointBatch
    slopes: Any  # (n_spacepoints, N_SLOPES) scalar, see `cluster_slopes`
    cuts: SeedingCuts
    grid: Grid
    out_cell: Any  # (n_spacepoints,) int32, -1: not accepted


class _GatherPayload(NamedTuple):
    spacepoints: SpacepointBatch
    slopes: Any  # (n_spacepoints, N_SLOPES) scalar, see `cluster_slopes`
    order: Any  # (n,) int32
    out: SortedSpacepoints


class _WindowPayload(NamedTuple):
    cuts: SeedingCuts
    grid: Grid
    out_phi_windows: Any  # (n_rings * n_rings,) scalar [rad]


def make_grid(config: SeedingConfig) -> Grid:
    """Choose the binning for the acceptance of `config`.

    Parameters
    ----------
    config : SeedingConfig
        Acceptance in r and z [mm].

    Returns
    -------
    Grid
        Scalars for kernels.
    """
    n_rings = min(_MAX_RINGS, max(1, math.ceil(config.r_max / _RING_WIDTH)))
    n_z = min(_MAX_Z_BINS, max(1, math.ceil((config.z_max - config.z_min) / _Z_BIN_WIDTH)))
    return Grid(
        n_rings=np.int32(n_rings),
        n_z=np.int32(n_z),
        n_phi=np.int32(_N_PHI),
        n_cells=np.int32(n_rings * n_z * _N_PHI),
        rings_per_mm=scalar(n_rings / config.r_max),
        ring_width=scalar(config.r_max / n_rings),
        z_min=scalar(config.z_min),
        z_bins_per_mm=scalar(n_z / (config.z_max - config.z_min)),
        phi_bins_per_rad=scalar(_N_PHI / (2 * math.pi)),
    )


@device_function(inlined=True)
def _clamped_bin(position, n):
    """Return floor(position) within 0 ... n - 1."""
    if not position > ZERO:
        return np.int32(0)
    return np.int32(min(position, scalar(n - 1)))


@device_function(inlined=True)
def _radius_ring(grid, r):
    """Return the ring of a radius [mm]."""
    return _clamped_bin(r * grid.rings_per_mm, grid.n_rings)


@device_function(inlined=True)
def _z_bin(grid, z):
    """Return the z bin of a position [mm]; positions outside belong to the outermost bins."""
    return _clamped_bin((z - grid.z_min) * grid.z_bins_per_mm, grid.n_z)


@device_function(inlined=True)
def _phi_window(grid, phi, half_width):
    """Return (first bin, number of bins) of phi +- half_width; the bins go on at 0 after n_phi - 1."""
    # One turn is added: positive numbers are rounded down.
    first = np.int32((phi - half_width + _THREE_PI) * grid.phi_bins_per_rad)
    last = np.int32((phi + half_width + _THREE_PI) * grid.phi_bins_per_rad)
    return first % grid.n_phi, min(last - first + 1, grid.n_phi)


@device_function(inlined=True)
def _z_window(cuts, sp, i, side, r_low, r_high):
    """Return (lowest, highest) z of partners of middle i with radii between r_low and r_high, all on one side of it."""
    middle_r, middle_z = sp.r[i], sp.z[i]
    r = max(middle_r, _SMALLEST_RADIUS)
    near, far = r_low / r, r_high / r
    a = cuts.collision_region_min + (middle_z - cuts.collision_region_min) * near
    b = cuts.collision_region_min + (middle_z - cuts.collision_region_min) * far
    c = cuts.collision_region_max + (middle_z - cuts.collision_region_max) * near
    d = cuts.collision_region_max + (middle_z - cuts.collision_region_max) * far
    least, most = abs(r_low - middle_r), abs(r_high - middle_r)
    least, most = min(least, most), max(least, most)
    low, high = min(min(a, b), min(c, d)) - middle_z, max(max(a, b), max(c, d)) - middle_z
    least_up, most_up = sp.slopes.least_up[i], sp.slopes.most_up[i]
    least_down, most_down = sp.slopes.least_down[i], sp.slopes.most_down[i]
    if side < ZERO:
        least_up, most_up, least_down, most_down = least_down, most_down, least_up, most_up
    low = max(low, -min(cuts.delta_z_max, min(cuts.cot_theta_max, most_down) * most))
    high = min(high, min(cuts.delta_z_max, min(cuts.cot_theta_max, most_up) * most))
    if low > -least_down * least:  # too flat: only upwards
        low = max(low, least_up * least)
    elif high < least_up * least:
        high = min(high, -least_down * least)
    return middle_z + low - _Z_MARGIN, middle_z + high + _Z_MARGIN


@device_function(inlined=True)
def ring_range(grid, cuts, r, side):
    """Return (first ring, one past the last) of the partners of a middle; `side` is 1 for tops, -1 for bottoms."""
    a, b = r + side * cuts.delta_r_min, r + side * cuts.delta_r_max
    return _radius_ring(grid, min(a, b)), _radius_ring(grid, max(a, b)) + 1


@device_function(inlined=True)
def ring_window(grid, cuts, sp, i, side, ring):
    """Return the `RingWindow` of the partners of middle i in one ring."""
    r = sp.r[i]
    a, b = r + side * cuts.delta_r_min, r + side * cuts.delta_r_max
    low = max(min(a, b), scalar(ring) * grid.ring_width)
    high = min(max(a, b), scalar(ring + 1) * grid.ring_width)
    z_low, z_high = _z_window(cuts, sp, i, side, low, high)
    if z_high < z_low:
        return RingWindow(np.int32(0), np.int32(0), np.int32(0), np.int32(0), np.int32(0))
    half_width = sp.phi_windows[_radius_ring(grid, r) * grid.n_rings + ring]
    first_phi, n = _phi_window(grid, sp.phi[i], half_width)
    n_wrapped = max(np.int32(first_phi + n - grid.n_phi), np.int32(0))
    first = np.int32(sp.event[i] * grid.n_cells + ring * grid.n_z * grid.n_phi + first_phi)
    first_z, end_z = _z_bin(grid, z_low), np.int32(_z_bin(grid, z_high) + 1)
    return RingWindow(first_z, end_z, first, np.int32(n - n_wrapped), n_wrapped)


@kernel(grain=2048)
def _find_cells(i, p):
    """One spacepoint: its cell, if it is in the acceptance of the seeding."""
    position = p.spacepoints.global_position
    x, y, z = position[i, X], position[i, Y], position[i, Z]
    r = math.sqrt(x * x + y * y)
    is_inside = p.cuts.z_min <= z <= p.cuts.z_max and scalar(math.floor(r)) < scalar(math.floor(p.cuts.r_max))
    if not is_inside or fits_no_slope(p.slopes, i):
        p.out_cell[i] = _NOT_ACCEPTED
        return
    phi_bin = _clamped_bin((math.atan2(y, x) + PI) * p.grid.phi_bins_per_rad, p.grid.n_phi)
    cell = (_radius_ring(p.grid, r) * p.grid.n_z + _z_bin(p.grid, z)) * p.grid.n_phi + phi_bin
    p.out_cell[i] = p.spacepoints.event[i] * p.grid.n_cells + cell


@kernel(grain=2048)
def _gather_spacepoints(i, p):
    """One row of the sorted spacepoints: fill it."""
    index = p.order[i]
    position = p.spacepoints.global_position
    x, y = position[index, X], position[index, Y]
    p.out.x[i] = x
    p.out.y[i] = y
    p.out.z[i] = position[index, Z]
    p.out.r[i] = math.sqrt(x * x + y * y)
    p.out.phi[i] = math.atan2(y, x)
    p.out.slopes.least_up[i] = p.slopes[index, LEAST_UP]
    p.out.slopes.most_up[i] = p.slopes[index, MOST_UP]
    p.out.slopes.least_down[i] = p.slopes[index, LEAST_DOWN]
    p.out.slopes.most_down[i] = p.slopes[index, MOST_DOWN]
    p.out.spacepoint[i] = index
    p.out.event[i] = p.spacepoints.event[index]


@kernel(grain=256)
def _fill_phi_windows(i, p):
    """One pair of rings: the largest phi distance that the curvature and impact cut of doublets allows.

    That cut bounds the distance h of the chord from the beam line; then phi is asin(h/r_inner) - asin(h/r_outer).
    """
    ring_a, ring_b = i // p.grid.n_rings, i % p.grid.n_rings
    inner = scalar(min(ring_a, ring_b)) * p.grid.ring_width
    inner_high = inner + p.grid.ring_width
    outer = scalar(max(ring_a, ring_b) + 1) * p.grid.ring_width
    s2 = p.cuts.min_helix_radius2 - (inner_high * inner_high + outer * outer) * QUARTER
    window = HALF_PI
    if s2 > ZERO:
        h = HALF * (inner_high * outer + p.cuts.impact_allowance) / math.sqrt(s2)
        if h < inner:
            window = math.asin(h / inner) - math.asin(h / outer)
    p.out_phi_windows[i] = window + _PHI_MARGIN


def sort_spacepoints(
    ws: Workspace, spacepoints: SpacepointBatch, slopes: Any, cuts: SeedingCuts, grid: Grid, n_events: int
) -> SortedSpacepoints:
    """Select and sort the spacepoints of a batch.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set; that of "seeding_spacepoints" is set here.
    spacepoints : SpacepointBatch
        Global positions [mm].
    slopes : array of shape (n_spacepoints, N_SLOPES), scalar
        Slopes that fit their clusters, from `find_cluster_slopes`.
    cuts : SeedingCuts
        Acceptance.
    grid : Grid
        Binning.
    n_events : int
        Number of events in the batch [1].

    Returns
    -------
    SortedSpacepoints
        Accepted spacepoints and the table of cells.
    """
    extent, accepted = ws.extent("spacepoints"), ws.extent("seeding_spacepoints")
    cells = ws.fixed("seeding_cells", n_events * int(grid.n_cells))
    pairs = ws.fixed("seeding_ring_pairs", int(grid.n_rings) ** 2)
    dtype = spacepoints.global_position.dtype
    cell = ws.array("seeding.cell", extent, np.int32)
    ws.launch(_find_cells, extent, _CellPayload(spacepoints, slopes, cuts, grid, out_cell=cell))
    groups = group_rows(ws, "seeding", cell, extent, cells, accepted)
    out = SortedSpacepoints(
        **{name: ws.array(f"seeding.sorted_{name}", accepted, dtype) for name in _POSITION},
        slopes=SlopeBounds(*(ws.array(f"seeding.sorted_{name}", accepted, dtype) for name in SlopeBounds._fields)),
        spacepoint=ws.array("seeding.sorted_spacepoint", accepted, np.int32),
        event=ws.array("seeding.sorted_event", accepted, np.int32),
        cell_offsets=groups.offsets,
        phi_windows=ws.array("seeding.phi_windows", pairs, dtype),
    )
    gather = _GatherPayload(spacepoints=spacepoints, slopes=slopes, order=groups.order, out=out)
    ws.launch(_gather_spacepoints, accepted, gather)
    ws.launch(_fill_phi_windows, pairs, _WindowPayload(cuts=cuts, grid=grid, out_phi_windows=out.phi_windows))
    return out
