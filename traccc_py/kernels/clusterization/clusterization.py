"""Clusterisation: fired channels that touch become one cluster, and each cluster one measurement.

Two cells are connected if they lie on one module and differ by at most one in both channels. Cells come sorted, so a
module's clusters are found in one pass with two moving pointers; measurements are ordered by their first cell.

References
----------
Connectivity and activation-weighted position: traccc v1.6.0, `core/include/traccc/clusterization`. The calibrated
variances are our own (ADR 32).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import ClusterizationConfig
from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import MAX_CLUSTER_SIZE, DetectorArrays
from traccc_py.kernels.constants import HALF, ONE, TWELFTH, TWO_DIMENSIONS, ZERO
from traccc_py.kernels.tracking.batch import CellBatch, MeasurementBatch
from traccc_py.kernels.tracking.dead_channels import is_cut_off
from traccc_py.kernels.tracking.linalg import sincos
from traccc_py.kernels.tracking.polar import is_polar

__all__ = ["form_measurements"]

_NO_CELL = -1
_CUDA = "traccc_py.kernels.clusterization.clusterization_cuda:"
_WARP = 32  # threads that work on a module on CUDA


class _RangePayload(NamedTuple):
    event_module: Any  # (n_cells,) int32
    counts: Any  # (n_extents,) int32, sizes of all collections
    cells_slot: Any  # int32, where the number of cells stands
    out_begin: Any  # (n_event_modules,) int32, first cell
    out_end: Any  # (n_event_modules,) int32, one past the last cell


class _LabelPayload(NamedTuple):
    channel0: Any  # (n_cells,) int32
    channel1: Any  # (n_cells,) int32
    begin: Any  # (n_event_modules,) int32
    end: Any  # (n_event_modules,) int32
    out_root: Any  # (n_cells,) int32, smallest cell of the cluster
    out_next: Any  # (n_cells,) int32, next cell of the cluster, or -1
    out_last: Any  # (n_cells,) int32, for roots: last cell of the cluster so far
    out_n_clusters: Any  # (n_event_modules,) int32


class _NumberPayload(NamedTuple):
    begin: Any  # (n_event_modules,) int32
    end: Any  # (n_event_modules,) int32
    root: Any  # (n_cells,) int32
    offsets: Any  # (n_event_modules + 1,) int32
    out_first_cell: Any  # (n_measurements,) int32


class _Clusters(NamedTuple):
    """The cells of each cluster, chained in ascending order."""

    next: Any  # (n_cells,) int32, next cell of the cluster, or -1
    first_cell: Any  # (n_measurements,) int32


class _Readout(NamedTuple):
    """What is known of the modules."""

    surfaces: Any  # (n_modules,) SURFACE
    designs: Any  # (n_designs,) DESIGN
    variances: Any  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) scalar [mm^2]
    translations: Any  # (n_modules, 2) scalar [mm]
    n_modules: Any  # int32
    dead_offsets: Any  # (n_modules + 1,) int32; (1,): all channels work
    dead_ranges: Any  # (dead_offsets[-1],) DEAD_RANGE


class _MeasurementPayload(NamedTuple):
    cells: CellBatch
    clusters: _Clusters
    readout: _Readout
    is_calibrated: Any  # int32, 1: table, 0: traccc's formula
    variance_floor: Any  # scalar [mm^2]
    out: MeasurementBatch  # but its offsets, which are known before


class _Moments(NamedTuple):
    """What a walk through the cells of a cluster finds."""

    mean0: Any  # relative to the first cell [mm]
    mean1: Any
    variance0: Any  # of the cells' centres, weighted by activation [mm^2]
    variance1: Any
    size0: Any  # channels spanned
    size1: Any
    n_cells: Any
    first0: Any  # smallest channels
    first1: Any


@device_function
def _find_root(root, cell):
    """Return the smallest cell known to be connected to `cell`, halving the path to it on the way."""
    while root[cell] != cell:
        root[cell] = root[root[cell]]
        cell = root[cell]
    return cell


@device_function
def _unite(root, a, b):
    """Join the clusters of two cells; the smaller index stays root, so the first cell of a cluster is its root."""
    root_a = _find_root(root, a)
    root_b = _find_root(root, b)
    if root_a < root_b:
        root[root_b] = root_a
    else:
        root[root_a] = root_b


@device_function
def _axis_variance(spread, pitch, table_value, is_calibrated):
    """Return the variance [mm^2] along one axis; `spread` is that of the cells' centres."""
    if is_calibrated == 1 and table_value > ZERO:
        return table_value
    return spread + pitch * pitch * TWELFTH


@kernel(grain=8192)
def _mark_ranges(i, p):
    """One cell: the first and last of a module write its range."""
    event_module = p.event_module[i]
    if i == 0 or p.event_module[i - 1] != event_module:
        p.out_begin[event_module] = i
    if i + 1 == p.counts[p.cells_slot] or p.event_module[i + 1] != event_module:
        p.out_end[event_module] = i + 1


@kernel(grain=1024, cuda=CudaBody(f"{_CUDA}label_cells", 4 * _WARP, (Scratch(1, np.int32),)))
def _label_cells(i, p):
    """One event_module: join its cells, chain each cluster's cells in ascending order, count the clusters."""
    begin, end = p.begin[i], p.end[i]
    below = begin  # first cell of the previous row (channel1 - 1) that may touch the current one: only moves forward
    for cell in range(begin, end):
        row, column = p.channel1[cell], p.channel0[cell]
        p.out_root[cell] = cell
        if cell > begin and p.channel1[cell - 1] == row and p.channel0[cell - 1] >= column - 1:
            _unite(p.out_root, cell - 1, cell)
        while p.channel1[below] < row - 1 or (p.channel1[below] == row - 1 and p.channel0[below] < column - 1):
            below += 1
        touching = below
        while p.channel1[touching] == row - 1 and p.channel0[touching] <= column + 1:
            _unite(p.out_root, touching, cell)
            touching += 1
    n_clusters = 0
    for cell in range(begin, end):
        root = p.out_root[p.out_root[cell]]  # parents are smaller and final already
        p.out_root[cell] = root
        p.out_next[cell] = _NO_CELL
        if root == cell:
            n_clusters += 1
        else:
            p.out_next[p.out_last[root]] = cell
        p.out_last[root] = cell
    p.out_n_clusters[i] = n_clusters


@kernel(grain=1024, cuda=CudaBody(f"{_CUDA}number_measurements", _WARP, (Scratch(_WARP, np.int64),)))
def _number_measurements(i, p):
    """One event_module: its roots, in ascending order, start its measurements."""
    measurement = p.offsets[i]
    if p.offsets[i + 1] == measurement or p.offsets[i + 1] > p.out_first_cell.shape[0]:
        return
    for cell in range(p.begin[i], p.end[i]):
        if p.root[cell] == cell:
            p.out_first_cell[measurement] = cell
            measurement += 1


@device_function
def _weighted_moments(p, measurement, pitch0, pitch1, is_digital):
    """Return the `_Moments` of a cluster. With digital readout the means are the middle of the channels."""
    cells = p.cells
    first = p.clusters.first_cell[measurement]
    origin0, origin1 = cells.channel0[first], cells.channel1[first]
    low0 = high0 = origin0
    low1 = high1 = origin1
    weight = mean0 = mean1 = variance0 = variance1 = cells.activation[first] * ZERO
    n_cells = 0
    cell = first
    while cell != _NO_CELL:
        following = p.clusters.next[cell]  # before anything is written: on a GPU a load that comes later waits for it
        activation = cells.activation[cell]
        c0, c1 = cells.channel0[cell], cells.channel1[cell]
        low0, high0, low1, high1 = min(low0, c0), max(high0, c0), min(low1, c1), max(high1, c1)
        p.out.cell_measurement[cell] = measurement
        n_cells += 1
        if activation > ZERO:
            weight += activation
            share = activation / weight
            d0 = scalar(c0 - origin0) * pitch0 - mean0
            d1 = scalar(c1 - origin1) * pitch1 - mean1
            mean0 += share * d0
            mean1 += share * d1
            variance0 = (ONE - share) * (variance0 + share * d0 * d0)
            variance1 = (ONE - share) * (variance1 + share * d1 * d1)
        cell = following
    # Activations that are all zero carry no weight. With digital readout a mean of the cells would lean towards the row
    # in which more of them fired, which says nothing about where the path crossed the border between the rows.
    if weight == ZERO or is_digital == 1:
        mean0 = scalar(low0 + high0 - 2 * origin0) * HALF * pitch0
        mean1 = scalar(low1 + high1 - 2 * origin1) * HALF * pitch1
    return _Moments(mean0, mean1, variance0, variance1, high0 - low0 + 1, high1 - low1 + 1, n_cells, low0, low1)


@device_function
def _place(surfaces, module, dimensions, first, second):
    """Return (loc0, loc1, distance from the focal point) of a position along the axes of the channels.

    On annuli and rings these are r and phi; where r is not measured, the strip's middle is taken.
    """
    if not is_polar(surfaces, module):
        return first, second, ONE
    sine, cosine = sincos(surfaces[module].phi_middle - second)
    focal = surfaces[module].focal
    if dimensions != TWO_DIMENSIONS and focal > ZERO:
        first = focal / cosine
    return first * sine, first * cosine - focal, first


@kernel(grain=256)
def _fill_measurements(i, p):
    """One measurement: position, variance and size from its cells; also links the cells to it.

    A cluster that ends at dead channels has a negative size, and a variance for one channel that is missing. Most have
    no more; what a longer path would hide is known where the track's direction is (`measurement_variance`).
    """
    first = p.clusters.first_cell[i]
    event_module = p.cells.event_module[first]
    surfaces, translations, variances = p.readout.surfaces, p.readout.translations, p.readout.variances
    module = event_module % p.readout.n_modules
    design_index = surfaces[module].design
    design = p.readout.designs[design_index]
    pitch0, pitch1 = design.pitch0, design.pitch1
    moments = _weighted_moments(p, i, pitch0, pitch1, design.is_digital)
    size0, size1 = moments.size0, moments.size1
    from_table = variances[design_index, LOC0, min(size0, MAX_CLUSTER_SIZE)]
    var0 = _axis_variance(moments.variance0, pitch0, from_table, p.is_calibrated)
    from_table = variances[design_index, LOC1, min(size1, MAX_CLUSTER_SIZE)]
    var1 = _axis_variance(moments.variance1, pitch1, from_table, p.is_calibrated)
    is_cut0, is_cut1 = is_cut_off(p.readout, module, moments.first0, size0, moments.first1, size1)
    if is_cut0:
        size0, var0 = -size0, var0 + pitch0 * pitch0 * TWELFTH
    if is_cut1:
        size1, var1 = -size1, var1 + pitch1 * pitch1 * TWELFTH
    centre0 = design.min0 + (scalar(p.cells.channel0[first]) + HALF) * pitch0
    centre1 = design.min1 + (scalar(p.cells.channel1[first]) + HALF) * pitch1
    loc0, loc1, radius = _place(
        surfaces,
        module,
        design.dimensions,
        centre0 + moments.mean0 + translations[module, LOC0],
        centre1 + moments.mean1 + translations[module, LOC1],
    )
    if is_polar(surfaces, module):  # across the strips comes first
        size0, size1 = size1, size0
        var0, var1 = var1 * radius * radius, var0
    if p.is_calibrated == 1 and design.dimensions == TWO_DIMENSIONS and design.is_digital == 0:
        var0 = max(var0, p.variance_floor)
        var1 = max(var1, p.variance_floor)
    p.out.event_module[i] = event_module
    p.out.local_position[i, LOC0] = loc0
    p.out.local_position[i, LOC1] = loc1
    p.out.local_variance[i, LOC0] = var0
    p.out.local_variance[i, LOC1] = var1
    p.out.dimensions[i] = design.dimensions
    p.out.time[i] = p.cells.time[first]
    p.out.cluster_size[i, LOC0] = size0
    p.out.cluster_size[i, LOC1] = size1
    p.out.n_cells[i] = moments.n_cells


def _find_clusters(ws: Workspace, cells: CellBatch) -> tuple[_Clusters, Any]:
    """Join the cells; set the size of "measurements". Return the clusters, and the first of each event_module."""
    all_cells, modules, measurements = (ws.extent(name) for name in ("cells", "event_modules", "measurements"))
    begin = ws.array("clusterization.begin", modules, np.int32)
    end = ws.array("clusterization.end", modules, np.int32)
    root = ws.array("clusterization.root", all_cells, np.int32)
    following = ws.array("clusterization.next", all_cells, np.int32)
    last = ws.array("clusterization.last", all_cells, np.int32)
    n_clusters = ws.array("clusterization.n_clusters", modules, np.int32)
    offsets = ws.array("measurements.offsets", modules, np.int32, extra=1)

    ranges = _RangePayload(
        event_module=cells.event_module,
        counts=ws.counts,
        cells_slot=np.int32(all_cells.slot),
        out_begin=begin,
        out_end=end,
    )
    ws.clear(begin)
    ws.clear(end)
    ws.launch(_mark_ranges, all_cells, ranges)
    labels = _LabelPayload(
        channel0=cells.channel0,
        channel1=cells.channel1,
        begin=begin,
        end=end,
        out_root=root,
        out_next=following,
        out_last=last,
        out_n_clusters=n_clusters,
    )
    ws.launch(_label_cells, modules, labels)
    ws.scan(n_clusters, modules, offsets, measurements)
    first_cell = ws.array("clusterization.first_cell", measurements, np.int32)
    numbers = _NumberPayload(begin=begin, end=end, root=root, offsets=offsets, out_first_cell=first_cell)
    ws.launch(_number_measurements, modules, numbers)
    return _Clusters(next=following, first_cell=first_cell), offsets


def form_measurements(
    ws: Workspace, cells: CellBatch, detector: DetectorArrays, config: ClusterizationConfig
) -> MeasurementBatch:
    """Join the cells of a batch into clusters and make a measurement of each.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "cells" and "event_modules" (events times modules) must be set; that of "measurements"
        is set here.
    cells : CellBatch
        Cells, ordered by (event_module, channel1, channel0).
    detector : DetectorArrays
        Surfaces, designs, variance table and translations.
    config : ClusterizationConfig
        Where variances come from.

    Returns
    -------
    MeasurementBatch
        Measurements, ordered by event_module, then by first cell; positions [mm], variances [mm^2].

    Notes
    -----
    Activations that are not positive have no weight; where no cell has any, the position is the middle of the cluster.
    """
    clusters, offsets = _find_clusters(ws, cells)
    extent, all_cells = ws.extent("measurements"), ws.extent("cells")
    out = MeasurementBatch(
        event_module=ws.array("measurements.event_module", extent, np.int32),
        local_position=ws.array("measurements.local_position", extent, cells.activation.dtype, 2),
        local_variance=ws.array("measurements.local_variance", extent, cells.activation.dtype, 2),
        dimensions=ws.array("measurements.dimensions", extent, np.int32),
        time=ws.array("measurements.time", extent, cells.activation.dtype),
        cluster_size=ws.array("measurements.cluster_size", extent, np.int32, 2),
        n_cells=ws.array("measurements.n_cells", extent, np.int32),
        offsets=offsets,
        cell_measurement=ws.array("measurements.cell_measurement", all_cells, np.int32),
    )
    readout = _Readout(
        surfaces=detector.surfaces,
        designs=detector.designs,
        variances=detector.variances,
        translations=detector.translations,
        n_modules=np.int32(detector.surfaces.shape[0]),
        dead_offsets=detector.dead_offsets,
        dead_ranges=detector.dead_ranges,
    )
    payload = _MeasurementPayload(
        cells=cells,
        clusters=clusters,
        readout=readout,
        is_calibrated=np.int32(config.variance == "calibrated"),
        variance_floor=scalar(config.pixel_sigma_floor**2),
        out=out,
    )
    ws.launch(_fill_measurements, extent, payload)
    return out
