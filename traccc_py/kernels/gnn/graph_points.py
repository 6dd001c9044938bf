"""Spacepoints as the nodes of a graph: sorted by the cells of their layers, with the features that networks see.

A cluster says how steep the path through its sensor was. Where spacepoints came without cells, or the cluster was cut
off by dead channels or the sensor's edge, its features are zero, as in a part of the training. Noise splits long
clusters: where another piece begins behind a gap of one channel, the path may have crossed both.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import HALF, ONE, PI, ZERO, X, Y, Z
from traccc_py.kernels.gnn.graph_map import N_PHI, GraphMap
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = [
    "CLUSTER_FEATURES",
    "N_NODE_FEATURES",
    "PHI_BINS_PER_RAD",
    "GraphPoints",
    "asinh",
    "other_bin",
    "sort_points",
]

PHI_BINS_PER_RAD = scalar(N_PHI / (2 * math.pi))
#: r [m], cos(phi), sin(phi), z [m], asinh(z / r) / 3, cluster size along loc0 / 5 and loc1 / 10, what a straight line
#: from the origin leaves along loc1 / 10 and loc0, whether on a disc, whether pixels
N_NODE_FEATURES = 11
_NOT_USED = np.int32(-1)
_FEWEST = scalar(1e-3)  # of a length or cosine that is divided by
_PER_M = scalar(1e-3)
_ETA_SCALE = scalar(1 / 3)
_MOST0, _SCALE0, _MOST1, _SCALE1 = scalar(10), scalar(1 / 5), scalar(20), scalar(1 / 10)  # channels
_MOST_ACROSS = scalar(3)
_GAP = scalar(3)  # channels between the pieces of a split cluster: one, and the error of both middles
(_R, _COS, _SIN, _Z, _ETA, _SIZE0, _SIZE1, _EXPECTED1, _EXPECTED0, _IS_DISC, _IS_FINE) = range(N_NODE_FEATURES)
CLUSTER_FEATURES = slice(_SIZE0, _IS_DISC)  #: columns that are zero where the cluster is not known


class GraphPoints(NamedTuple):
    """Spacepoints on layers of the map, in the order of their cells, then of their index. Extent: "graph_points"."""

    r: Any  # (n,) scalar [mm]
    phi: Any  # (n,) scalar [rad]
    z: Any  # (n,) scalar [mm]
    size1: Any  # (n,) scalar, channels of the cluster along loc1; 0: not known
    longest1: Any  # (n,) scalar, the same with another piece that may belong to it
    channels: Any  # (n,) scalar, along loc1 in the sensor's thickness
    along: Any  # (n,) scalar, radial component of the sensor's axis along loc1
    along_z: Any  # (n,) scalar, its z component
    through: Any  # (n,) scalar, radial component of the sensor's normal
    through_z: Any  # (n,) scalar, its z component
    layer: Any  # (n,) int32, of the map
    spacepoint: Any  # (n,) int32
    event: Any  # (n,) int32
    features: Any  # (n, N_NODE_FEATURES) scalar
    cell_offsets: Any  # (n_events * n_cells + 1,) int32, first row of each cell


class _CellPayload(NamedTuple):
    spacepoints: SpacepointBatch
    event_module: Any  # (n_measurements,) int32
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    map: GraphMap
    out_layer: Any  # (n_spacepoints,) int32
    out_cell: Any  # (n_spacepoints,) int32, -1: not used


class _Clusters(NamedTuple):
    """The columns of measurements that are used."""

    event_module: Any  # (n_measurements,) int32
    local_position: Any  # (n_measurements, 2) scalar [mm]
    cluster_size: Any  # (n_measurements, 2) int32
    offsets: Any  # (n_events * n_modules + 1,) int32


class _GatherPayload(NamedTuple):
    spacepoints: SpacepointBatch
    clusters: _Clusters
    surfaces: Any  # (n_modules,) SURFACE
    designs: Any  # (n_designs,) DESIGN
    n_modules: Any  # int32
    map: GraphMap
    layer: Any  # (n_spacepoints,) int32
    order: Any  # (n,) int32
    out: GraphPoints


@device_function(inlined=True)
def asinh(x):
    """Return the inverse hyperbolic sine; CUDA's own works in double precision."""
    y = math.log(abs(x) + math.sqrt(x * x + ONE))
    return y if x >= ZERO else -y


@device_function(inlined=True)
def other_bin(layer, other):
    """Return the bin of z (barrel) or r (disc); what is outside belongs to the outermost ones."""
    position = (other - layer.other_min) * layer.bins_per_mm
    if not position > ZERO:
        return np.int32(0)
    return np.int32(min(position, scalar(layer.n_other - 1)))


@kernel(grain=2048)
def _find_cells(i, p):
    """One spacepoint: its layer and cell, if that is in the map."""
    module = p.event_module[p.spacepoints.measurement_index[i]] % p.n_modules
    place = p.map.layer_of[p.surfaces[module].layer]
    position = p.spacepoints.global_position
    x, y, z = position[i, X], position[i, Y], position[i, Z]
    r = math.sqrt(x * x + y * y)
    p.out_layer[i] = place
    if place < 0 or not r > ZERO:
        p.out_cell[i] = _NOT_USED
        return
    layer = p.map.layers[place]
    phi_bin = min(np.int32((math.atan2(y, x) + PI) * PHI_BINS_PER_RAD), np.int32(N_PHI - 1))
    other = r if layer.is_disc == 1 else z
    cell = layer.first_cell + phi_bin * layer.n_other + other_bin(layer, other)
    p.out_cell[i] = p.spacepoints.event[i] * p.map.n_cells + cell


@device_function(inlined=True)
def _clipped(x, most):
    return min(max(x, -most), most)


@device_function(inlined=True)
def _is_whole(clusters, m, design):
    """Return whether the channels of cluster m are known, and none of them may lie beyond the sensor's edge."""
    size0, size1 = clusters.cluster_size[m, LOC0], clusters.cluster_size[m, LOC1]
    if size0 < 1 or size1 < 1 or not design.thickness > ZERO:
        return False
    middle = (clusters.local_position[m, LOC1] - design.min1) / design.pitch1
    half = HALF * scalar(size1)
    return middle - half >= ONE and middle + half <= scalar(design.n_channels1) - ONE


@device_function(inlined=True)
def _longest(clusters, m, design):
    """Return the channels along loc1 of cluster m and another piece that may belong to it."""
    position, size = clusters.local_position, clusters.cluster_size
    n0, n1 = scalar(size[m, LOC0]), scalar(size[m, LOC1])
    longest = n1
    module = clusters.event_module[m]
    for k in range(clusters.offsets[module], clusters.offsets[module + 1]):
        aside = abs(position[k, LOC0] - position[m, LOC0]) / design.pitch0
        along = abs(position[k, LOC1] - position[m, LOC1]) / design.pitch1
        half0 = HALF * (n0 + scalar(abs(size[k, LOC0])))
        half1 = HALF * (n1 + scalar(abs(size[k, LOC1])))
        if k != m and aside <= half0 + ONE and along <= half1 + _GAP:
            longest = max(longest, along + half1)
    return longest


@kernel(grain=1024)
def _gather_points(i, p):
    """One row of the sorted spacepoints: fill it."""
    index = p.order[i]
    measurement = p.spacepoints.measurement_index[index]
    surface = p.surfaces[p.clusters.event_module[measurement] % p.n_modules]
    design = p.designs[surface.design]
    layer = p.map.layers[p.layer[index]]
    x, y = p.spacepoints.global_position[index, X], p.spacepoints.global_position[index, Y]
    z = p.spacepoints.global_position[index, Z]
    r = math.sqrt(x * x + y * y)
    cos_phi, sin_phi = x / r, y / r
    along = surface.vx * cos_phi + surface.vy * sin_phi
    through = surface.wx * cos_phi + surface.wy * sin_phi
    p.out.r[i] = r
    p.out.phi[i] = math.atan2(y, x)
    p.out.z[i] = z
    p.out.along[i] = along
    p.out.along_z[i] = surface.vz
    p.out.through[i] = through
    p.out.through_z[i] = surface.wz
    p.out.layer[i] = p.layer[index]
    p.out.spacepoint[i] = index
    p.out.event[i] = p.spacepoints.event[index]
    f = p.out.features
    f[i, _R] = r * _PER_M
    f[i, _COS] = cos_phi
    f[i, _SIN] = sin_phi
    f[i, _Z] = z * _PER_M
    f[i, _ETA] = asinh(z / max(r, ONE)) * _ETA_SCALE
    f[i, _IS_DISC] = scalar(layer.is_disc)
    f[i, _IS_FINE] = scalar(layer.is_fine)
    if not _is_whole(p.clusters, measurement, design):
        p.out.size1[i] = ZERO
        p.out.longest1[i] = ZERO
        p.out.channels[i] = ZERO
        for k in range(_SIZE0, _IS_DISC):
            f[i, k] = ZERO
        return
    channels = design.thickness / design.pitch1
    size0, longest1 = p.clusters.cluster_size[measurement, LOC0], _longest(p.clusters, measurement, design)
    p.out.size1[i] = scalar(p.clusters.cluster_size[measurement, LOC1])
    p.out.longest1[i] = longest1
    p.out.channels[i] = channels
    rise = z / r
    across = surface.ux * cos_phi + surface.uy * sin_phi + surface.uz * rise
    normal = through + surface.wz * rise
    if abs(normal) < _FEWEST:
        normal = _FEWEST
    f[i, _SIZE0] = min(scalar(size0), _MOST0) * _SCALE0
    f[i, _SIZE1] = min(longest1, _MOST1) * _SCALE1
    f[i, _EXPECTED1] = min(abs((along + surface.vz * rise) / normal) * channels, _MOST1) * _SCALE1
    f[i, _EXPECTED0] = _clipped(across / normal * (design.thickness / design.pitch0), _MOST_ACROSS)


def sort_points(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    graph_map: GraphMap,
    n_modules: int,
    n_events: int,
) -> GraphPoints:
    """Sort the spacepoints of a batch and describe them.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set; that of "graph_points" is set here.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Their modules, local positions and the sizes of their clusters.
    detector : DetectorArrays
        Surfaces and designs.
    graph_map : GraphMap
        On the device.
    n_modules : int
        Number of surfaces [1].
    n_events : int
        Number of events in the batch [1].

    Returns
    -------
    GraphPoints
        Spacepoints on layers of the map, and the table of cells.
    """
    extent, points = ws.extent("spacepoints"), ws.extent("graph_points")
    cells = ws.fixed("graph_cells", n_events * int(graph_map.n_cells))
    dtype = spacepoints.global_position.dtype
    cell = ws.array("graph.cell", extent, np.int32)
    layer = ws.array("graph.layer", extent, np.int32)
    find = _CellPayload(
        spacepoints=spacepoints,
        event_module=measurements.event_module,
        surfaces=detector.surfaces,
        n_modules=np.int32(n_modules),
        map=graph_map,
        out_layer=layer,
        out_cell=cell,
    )
    ws.launch(_find_cells, extent, find)
    groups = group_rows(ws, "graph", cell, extent, cells, points)
    reals = ("r", "phi", "z", "size1", "longest1", "channels", "along", "along_z", "through", "through_z")
    integers = ("layer", "spacepoint", "event")
    out = GraphPoints(
        **{name: ws.array(f"graph.point_{name}", points, dtype) for name in reals},
        **{name: ws.array(f"graph.point_{name}", points, np.int32) for name in integers},
        features=ws.array("graph.point_features", points, dtype, N_NODE_FEATURES, extra=BLOCK_ROWS),
        cell_offsets=groups.offsets,
    )
    gather = _GatherPayload(
        spacepoints=spacepoints,
        clusters=_Clusters(*(getattr(measurements, name) for name in _Clusters._fields)),
        surfaces=detector.surfaces,
        designs=detector.designs,
        n_modules=np.int32(n_modules),
        map=graph_map,
        layer=layer,
        order=groups.order,
        out=out,
    )
    ws.launch(_gather_points, points, gather)
    return out
