"""Spacepoints sorted by the layers of the map: cells of (event, layer, phi, z or r)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.layer_map import N_PHI, LayerMap
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import PI, ZERO, X, Y, Z
from traccc_py.kernels.seeding.cluster_slopes import LEAST_DOWN, LEAST_UP, MOST_DOWN, MOST_UP, fits_no_slope
from traccc_py.kernels.seeding.cuts import SeedingCuts
from traccc_py.kernels.seeding.grid import SlopeBounds
from traccc_py.kernels.seeding.spacepoint_variances import PHI, PHI_VARIANCE, R_VARIANCE, Z_VARIANCE, R
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["AT_ONCE", "ONLY", "PHI_BINS_PER_RAD", "LayerPoints", "SeedingPoints", "other_bin", "sort_by_layer"]

ONLY = 0  #: row of a column with one number
AT_ONCE = 8  #: rows that a search reads in one go; there are at least as many, the last ones of few points with zeros
PHI_BINS_PER_RAD = scalar(N_PHI / (2 * math.pi))
_NOT_ACCEPTED = np.int32(-1)
_OF_POSITION = ("x", "y", "z", "r", "phi", "r_variance", "z_variance", "phi_variance")


class LayerPoints(NamedTuple):
    """Accepted spacepoints in the order of their cells, then of their index. Extent: "seeding_spacepoints"."""

    x: Any  # (n,) scalar [mm]
    y: Any  # (n,) scalar [mm]
    z: Any  # (n,) scalar [mm]
    r: Any  # (n,) scalar [mm]
    phi: Any  # (n,) scalar [rad]
    r_variance: Any  # (n,) scalar [mm^2]
    z_variance: Any  # (n,) scalar [mm^2]
    phi_variance: Any  # (n,) scalar, of the arc r phi [mm^2]
    slopes: SlopeBounds
    layer: Any  # (n,) int32, of the map
    spacepoint: Any  # (n,) int32
    event: Any  # (n,) int32
    cell_offsets: Any  # (n_events * n_cells + 1,) int32, first row of each cell
    n_rows: Any  # (1,) int32, in row ONLY


class SeedingPoints(NamedTuple):
    """Spacepoints with all that the seeding wants to know of them. Extent: "spacepoints"."""

    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    polar: Any  # (n_spacepoints, 2) scalar, their radii [mm] and phi [rad]
    variances: Any  # (n_spacepoints, 3) scalar, of their radii, z and arcs r phi [mm^2]; see `spacepoint_variances`
    slopes: Any  # (n_spacepoints, N_SLOPES) scalar, slopes that fit their clusters; see `cluster_slopes`


class _CellPayload(NamedTuple):
    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    polar: Any  # (n_spacepoints, 2) scalar, see `spacepoint_variances`
    slopes: Any  # (n_spacepoints, N_SLOPES) scalar, see `cluster_slopes`
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    is_used: Any  # (n_measurements,) int32, 1: on a track
    cuts: SeedingCuts
    map: LayerMap
    out_layer: Any  # (n_spacepoints,) int32
    out_cell: Any  # (n_spacepoints,) int32, -1: not accepted


class _GatherPayload(NamedTuple):
    spacepoints: SpacepointBatch
    polar: Any  # (n_spacepoints, 2) scalar, see `spacepoint_variances`
    variances: Any  # (n_spacepoints, 3) scalar, see `spacepoint_variances`
    slopes: Any  # (n_spacepoints, N_SLOPES) scalar, see `cluster_slopes`
    layer: Any  # (n_spacepoints,) int32
    order: Any  # (n,) int32
    out: LayerPoints


@device_function(inlined=True)
def other_bin(layer, other):
    """Return the bin of z (barrel) or r (disc); what is outside belongs to the outermost ones."""
    position = (other - layer.other_min) * layer.bins_per_mm
    if not position > ZERO:
        return np.int32(0)
    return np.int32(min(position, scalar(layer.n_other - 1)))


@kernel(grain=2048)
def _find_cells(i, p):
    """One spacepoint: its layer and cell, if it is in the acceptance of the seeding, and on no track."""
    m = p.spacepoints.measurement_index[i]
    module = p.measurements.event_module[m] % p.n_modules
    place = p.map.layer_of[p.surfaces[module].layer]
    r, z = p.polar[i, R], p.spacepoints.global_position[i, Z]
    is_inside = p.cuts.z_min <= z <= p.cuts.z_max and ZERO < r < p.cuts.r_max
    p.out_layer[i] = place
    if place < 0 or not is_inside or p.is_used[m] == 1 or fits_no_slope(p.slopes, i):
        p.out_cell[i] = _NOT_ACCEPTED
        return
    layer = p.map.layers[place]
    phi_bin = min(np.int32((p.polar[i, PHI] + PI) * PHI_BINS_PER_RAD), np.int32(N_PHI - 1))
    other = r if layer.is_disc == 1 else z
    cell = layer.first_cell + phi_bin * layer.n_other + other_bin(layer, other)
    p.out_cell[i] = p.spacepoints.event[i] * p.map.n_cells + cell


@device_function(inlined=True)
def _fill_up(out, n):
    """Write zeros behind n points, if they are fewer than are read in one go."""
    for i in range(n, np.int32(AT_ONCE)):
        out.z[i], out.r[i], out.phi[i] = ZERO, ZERO, ZERO
        out.slopes.least_up[i], out.slopes.most_up[i] = ZERO, ZERO
        out.slopes.least_down[i], out.slopes.most_down[i] = ZERO, ZERO


@kernel(grain=2048)
def _gather_points(i, p):
    """One row of the sorted spacepoints: fill it."""
    if i == 0:
        _fill_up(p.out, p.out.n_rows[ONLY])
    index = p.order[i]
    position = p.spacepoints.global_position
    p.out.x[i] = position[index, X]
    p.out.y[i] = position[index, Y]
    p.out.z[i] = position[index, Z]
    p.out.r[i] = p.polar[index, R]
    p.out.phi[i] = p.polar[index, PHI]
    p.out.r_variance[i] = p.variances[index, R_VARIANCE]
    p.out.z_variance[i] = p.variances[index, Z_VARIANCE]
    p.out.phi_variance[i] = p.variances[index, PHI_VARIANCE]
    p.out.slopes.least_up[i] = p.slopes[index, LEAST_UP]
    p.out.slopes.most_up[i] = p.slopes[index, MOST_UP]
    p.out.slopes.least_down[i] = p.slopes[index, LEAST_DOWN]
    p.out.slopes.most_down[i] = p.slopes[index, MOST_DOWN]
    p.out.layer[i] = p.layer[index]
    p.out.spacepoint[i] = index
    p.out.event[i] = p.spacepoints.event[index]


def sort_by_layer(
    ws: Workspace,
    points: SeedingPoints,
    detector: DetectorArrays,
    layer_map: LayerMap,
    cuts: SeedingCuts,
    n_modules: int,
    n_events: int,
    is_used: Any = None,
) -> LayerPoints:
    """Select and sort the spacepoints of a batch.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set; that of "seeding_spacepoints" is set here.
    points : SeedingPoints
        The spacepoints.
    detector : DetectorArrays
        Surfaces.
    layer_map : LayerMap
        On the device.
    cuts : SeedingCuts
        Acceptance.
    n_modules : int
        Number of surfaces [1].
    n_events : int
        Number of events in the batch [1].
    is_used : array of shape (n_measurements,), int32, optional
        1 for measurements whose spacepoints are left out.

    Returns
    -------
    LayerPoints
        Accepted spacepoints and the table of cells.
    """
    extent, accepted = ws.extent("spacepoints"), ws.extent("seeding_spacepoints")
    cells = ws.fixed("seeding_cells", n_events * int(layer_map.n_cells))
    spacepoints, dtype = points.spacepoints, points.variances.dtype
    if is_used is None:
        is_used = ws.array("seeding.none_used", ws.extent("measurements"), np.int32)
        ws.clear(is_used)
    cell = ws.array("seeding.cell", extent, np.int32)
    layer = ws.array("seeding.layer", extent, np.int32)
    find = _CellPayload(
        spacepoints=spacepoints,
        measurements=points.measurements,
        polar=points.polar,
        slopes=points.slopes,
        surfaces=detector.surfaces,
        n_modules=np.int32(n_modules),
        is_used=is_used,
        cuts=cuts,
        map=layer_map,
        out_layer=layer,
        out_cell=cell,
    )
    ws.launch(_find_cells, extent, find)
    groups = group_rows(ws, "seeding", cell, extent, cells, accepted)
    out = LayerPoints(
        **{name: ws.array(f"seeding.sorted_{name}", accepted, dtype, extra=AT_ONCE) for name in _OF_POSITION},
        slopes=SlopeBounds(
            *(ws.array(f"seeding.sorted_{name}", accepted, dtype, extra=AT_ONCE) for name in SlopeBounds._fields)
        ),
        layer=ws.array("seeding.sorted_layer", accepted, np.int32),
        spacepoint=ws.array("seeding.sorted_spacepoint", accepted, np.int32),
        event=ws.array("seeding.sorted_event", accepted, np.int32),
        cell_offsets=groups.offsets,
        n_rows=accepted.counts[accepted.slot : accepted.slot + 1],
    )
    gather = _GatherPayload(
        spacepoints=spacepoints,
        polar=points.polar,
        variances=points.variances,
        slopes=points.slopes,
        layer=layer,
        order=groups.order,
        out=out,
    )
    ws.launch(_gather_points, accepted, gather)
    return out
