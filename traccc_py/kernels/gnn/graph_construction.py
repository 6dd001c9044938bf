"""The edges of a graph: doublets of spacepoints on pairs of layers that particles cross one after another.

Each pair of layers has windows of what a doublet measures: differences in r, phi and z, where its line meets the beam
line, dphi / dr, cot(theta), and by how many channels both clusters differ from what a path of this slope leaves. The
windows hold nearly all doublets of particles from the collision region in simulation, so a map of layers needs far
fewer events than one of modules.

References
----------
arXiv:2103.06995, module maps of the graphs of the ATLAS ITk.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import HALF, ONE, PI, TWO_PI, ZERO
from traccc_py.kernels.gnn.graph_map import N_PHI, N_VALUES, GraphMap
from traccc_py.kernels.gnn.graph_points import PHI_BINS_PER_RAD, GraphPoints, asinh, other_bin

__all__ = ["N_EDGE_FEATURES", "Edges", "describe_doublet", "find_edges", "outward"]

N_EDGE_FEATURES = N_VALUES
_DR, _DPHI, _DZ, _Z0, _BEND, _COT, _INNER, _OUTER = range(N_VALUES)
_LOW, _HIGH = 0, 1
_NOTED = 64  # edges of a point that are searched for once; where there are more, twice
_FEWEST = scalar(1e-3)
_SLACK = scalar(0.1)  # [mm], by which cells are searched farther than the windows say: rounding
_PER_200MM, _PER_100MRAD, _BEND_SCALE, _COT_SCALE, _PER_CHANNEL = (
    scalar(1 / 200),
    scalar(10),
    scalar(1000),
    scalar(1 / 3),
    scalar(1 / 5),
)
_MOST_Z0, _MOST_BEND, _MOST_CHANNELS = scalar(3), scalar(5), scalar(4)


class Edges(NamedTuple):
    """Doublets, ordered by their outer point, then by pair of layers and inner point. Extent: "graph_edges"."""

    inner: Any  # (n_edges,) int32, row of the points
    outer: Any  # (n_edges,) int32
    features: Any  # (n_edges, N_EDGE_FEATURES) scalar


class _Payload(NamedTuple):
    points: GraphPoints
    map: GraphMap
    offsets: Any  # (n_points + 1,) int32, first edge of each outer point
    noted: Any  # (n_points, _NOTED) int32, inner points of the first edges of each outer one
    out_n: Any  # (n_points,) int32
    out: Edges


class _Doublet(NamedTuple):
    """What a doublet measures."""

    dr: Any  # [mm]
    dphi: Any  # [rad]
    dz: Any  # [mm]
    z0: Any  # [mm]
    bend: Any  # dphi / dr [1/mm]
    cot: Any
    inner: Any  # channels too many in the inner cluster
    outer: Any


class _Range(NamedTuple):
    low: Any
    high: Any


@device_function(inlined=True)
def _extra_channels(points, i, cot):
    """Return by how many channels the cluster of point i is longer than the path of slope cot; 0 if not known.

    Less than 0 if the path is longer, than the cluster with all that may belong to it.
    """
    if not points.size1[i] > ZERO:
        return ZERO * cot
    through = max(abs(points.through[i] + points.through_z[i] * cot), _FEWEST)
    crossed = points.channels[i] * abs(cot * points.along_z[i] + points.along[i]) / through
    return max(points.size1[i] - crossed, min(points.longest1[i] - crossed, ZERO))


@device_function(inlined=True)
def _within(windows, pair, value, x):
    return windows[pair, value, _LOW] <= x <= windows[pair, value, _HIGH]


@device_function(inlined=True)
def _turn(points, inner, outer):
    """Return the difference in phi [rad]."""
    dphi = points.phi[outer] - points.phi[inner]
    if dphi > PI:
        dphi -= TWO_PI
    elif dphi < -PI:
        dphi += TWO_PI
    return dphi


@device_function(inlined=True)
def _doublet(points, inner, outer):
    """Return what two points measure."""
    dr = points.r[outer] - points.r[inner]
    dz = points.z[outer] - points.z[inner]
    dphi = _turn(points, inner, outer)
    bend = dphi / max(abs(dr), ONE)
    middle = HALF * (points.r[inner] + points.r[outer]) * dphi
    cot = dz / max(math.sqrt(dr * dr + middle * middle), _FEWEST)
    z0 = points.z[inner] - points.r[inner] * cot
    return _Doublet(
        dr, dphi, dz, z0, bend, cot, _extra_channels(points, inner, cot), _extra_channels(points, outer, cot)
    )


@device_function(inlined=True)
def _is_edge(p, pair, inner, outer):
    """Return whether what two points measure is within the windows of their pair of layers."""
    points, windows = p.points, p.map.windows
    # Most are told by this alone: cells are wider than windows.
    if not _within(windows, pair, _DPHI, _turn(points, inner, outer)):
        return False
    d = _doublet(points, inner, outer)
    if not (
        _within(windows, pair, _DR, d.dr)
        & _within(windows, pair, _DZ, d.dz)
        & _within(windows, pair, _Z0, d.z0)
        & _within(windows, pair, _BEND, d.bend)
        & _within(windows, pair, _COT, d.cot)
        & (outward(points, outer) > outward(points, inner))
    ):
        return False
    fits_inner = not points.size1[inner] > ZERO or _within(windows, pair, _INNER, d.inner)
    return fits_inner and (not points.size1[outer] > ZERO or _within(windows, pair, _OUTER, d.outer))


@device_function(inlined=True)
def outward(points, i):
    """Return the squared distance from the origin, by which points of a path are ordered."""
    return points.r[i] * points.r[i] + points.z[i] * points.z[i]


@device_function(inlined=True)
def _other_range(p, pair, layer, outer):
    """Return the range of z (barrel) or r (disc) of the inner points that an outer one may have."""
    windows = p.map.windows
    r, z = p.points.r[outer], p.points.z[outer]
    z0_low, z0_high = windows[pair, _Z0, _LOW], windows[pair, _Z0, _HIGH]
    most_bend = max(abs(windows[pair, _BEND, _LOW]), abs(windows[pair, _BEND, _HIGH]))
    stretch = math.sqrt(ONE + r * r * most_bend * most_bend)  # of the path against dr
    if layer.is_disc == 1:
        low, high = r - windows[pair, _DR, _HIGH], r - windows[pair, _DR, _LOW]
        if z > max(z0_high, layer.high) or z < min(z0_low, layer.low):
            a, b = (layer.low - z0_low) / (z - z0_low), (layer.high - z0_high) / (z - z0_high)
            c, d = (layer.low - z0_high) / (z - z0_high), (layer.high - z0_low) / (z - z0_low)
            least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))  # of r_inner / path
            if least > ZERO and most < ONE:
                low = max(low, r * least)
                high = min(high, r * stretch * most / (ONE - most + stretch * most))
        return _Range(low - _SLACK, high + _SLACK)
    low, high = z - windows[pair, _DZ, _HIGH], z - windows[pair, _DZ, _LOW]
    least, most = layer.low / (layer.low + stretch * max(r - layer.low, ZERO)), min(layer.high / r, ONE)
    a, b = z0_low + least * (z - z0_low), z0_low + most * (z - z0_low)
    c, d = z0_high + least * (z - z0_high), z0_high + most * (z - z0_high)
    low, high = max(low, min(min(a, b), min(c, d))), min(high, max(max(a, b), max(c, d)))
    return _Range(low - _SLACK, high + _SLACK)


@device_function(inlined=True)
def describe_doublet(points, f, row, inner, outer):
    """Write the features of two points to a row of f."""
    d = _doublet(points, inner, outer)
    f[row, _DR] = d.dr * _PER_200MM
    f[row, _DPHI] = d.dphi * _PER_100MRAD
    f[row, _DZ] = d.dz * _PER_200MM
    f[row, _Z0] = min(max(d.z0 * _PER_200MM, -_MOST_Z0), _MOST_Z0)
    f[row, _BEND] = min(max(d.bend * _BEND_SCALE, -_MOST_BEND), _MOST_BEND)
    f[row, _COT] = asinh(d.cot) * _COT_SCALE
    f[row, _INNER] = min(max(d.inner * _PER_CHANNEL, -_MOST_CHANNELS), _MOST_CHANNELS)
    f[row, _OUTER] = min(max(d.outer * _PER_CHANNEL, -_MOST_CHANNELS), _MOST_CHANNELS)


@device_function(inlined=True)
def _write(p, row, inner, outer):
    """Write an edge."""
    p.out.inner[row] = inner
    p.out.outer[row] = outer
    describe_doublet(p.points, p.out.features, row, inner, outer)


@device_function(inlined=True)
def _search(p, i, row, writes):
    """Visit the edges whose outer point is i; write them from `row` on, or only note them. Return the row after."""
    points = p.points
    layer_index = points.layer[i]
    first_pair = p.map.layers[layer_index].first_pair
    for pair in range(first_pair, first_pair + p.map.layers[layer_index].n_pairs):
        layer = p.map.layers[p.map.inner[pair]]
        other = _other_range(p, pair, layer, i)
        if not other.low <= other.high:
            continue
        first_other, last_other = other_bin(layer, other.low), other_bin(layer, other.high)
        low = points.phi[i] - p.map.windows[pair, _DPHI, _HIGH] + PI
        high = points.phi[i] - p.map.windows[pair, _DPHI, _LOW] + PI
        first_phi = np.int32(math.floor(low * PHI_BINS_PER_RAD - _FEWEST))
        last_phi = np.int32(math.floor(high * PHI_BINS_PER_RAD + _FEWEST))
        for phi_bin in range(first_phi, min(last_phi, first_phi + np.int32(N_PHI - 1)) + np.int32(1)):
            wrapped = (phi_bin + np.int32(2 * N_PHI)) % np.int32(N_PHI)
            cell = points.event[i] * p.map.n_cells + layer.first_cell + wrapped * layer.n_other
            for inner in range(points.cell_offsets[cell + first_other], points.cell_offsets[cell + last_other + 1]):
                if _is_edge(p, pair, inner, i):
                    if writes:
                        _write(p, row, inner, i)
                    elif row < _NOTED:
                        p.noted[i, row] = inner
                    row += 1
    return row


@kernel(grain=64, fuses=False)
def _count_edges(i, p):
    """One outer point: the number of its edges, and the inner points of the first of them."""
    p.out_n[i] = np.int32(_search(p, i, 0, False))


@kernel(grain=64, fuses=False)
def _fill_edges(i, p):
    """One outer point: write its edges."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out.inner.shape[0]:
        return
    if last - first > _NOTED:
        _search(p, i, first, True)
    else:
        for row in range(first, last):
            _write(p, row, p.noted[i, row - first], i)


def find_edges(ws: Workspace, points: GraphPoints, graph_map: GraphMap) -> tuple[Edges, Any]:
    """Find the edges of a batch.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "graph_points" must be set; that of "graph_edges" is set here.
    points : GraphPoints
        Nodes.
    graph_map : GraphMap
        Pairs of layers and their windows, on the device.

    Returns
    -------
    edges : Edges
        Doublets within the windows.
    offsets : array of shape (n_points + 1,), int32
        First edge of each outer point.
    """
    extent, edges = ws.extent("graph_points"), ws.extent("graph_edges")
    n = ws.array("graph.n_edges", extent, np.int32)
    offsets = ws.array("graph.edge_offsets", extent, np.int32, extra=1)
    noted = ws.array("graph.noted", extent, np.int32, _NOTED)

    def payload() -> _Payload:
        out = Edges(
            inner=ws.array("graph.edge_inner", edges, np.int32),
            outer=ws.array("graph.edge_outer", edges, np.int32),
            features=ws.array("graph.edge_features", edges, points.r.dtype, N_EDGE_FEATURES, extra=BLOCK_ROWS),
        )
        return _Payload(points=points, map=graph_map, offsets=offsets, noted=noted, out_n=n, out=out)

    ws.launch(_count_edges, extent, payload())
    ws.scan(n, extent, offsets, edges)
    filled = payload()
    ws.launch(_fill_edges, extent, filled)
    return filled.out, offsets
