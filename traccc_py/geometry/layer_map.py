"""The layer map: which layers of the seeding a particle crosses one after another, and the cells of each layer.

Straight lines from the collision region say it. A layer is followed by its neighbours on such lines, and by those with
one layer between them: that one may be dead, or the particle passed between its sensors.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.records import DetectorArrays, LayerKind

__all__ = [
    "MAP_LAYER",
    "N_PHI",
    "LayerMap",
    "SeedingAcceptance",
    "SensorRanges",
    "make_late_map",
    "make_layer_map",
    "sensor_points",
    "sensor_ranges",
]

N_PHI = 32  #: phi bins of all layers
_CELL_WIDTH = 3.0  # along z (barrel) or r (disc) [mm]
_MOST_CELLS = 512  # along z or r
_ETA_STEP = 0.01
_N_VERTICES = 11
_EDGE_MARGIN = 5.0  # an edge may be so far from where it is taken to be: staggered sensors, curved paths [mm]
_SAME_STEP = 0.3  # a step shorter than this part of the median one leads to an overlapping layer: rings of a disc
_FAR = 5  # layers that are counted, at least
_FEWEST_LEVELS = 3
_ADJACENT, _OVER_ONE, _NEVER = 1, 2, 9  # steps between two layers
_N_U, _N_V = 7, 3  # points on a sensor
_TWO_DIMENSIONS = 2

#: One layer of the map; fields are four bytes wide.
MAP_LAYER = np.dtype(
    [
        ("is_disc", "i4"),
        ("low", "f4"),  # range of r (barrel) or z (disc) of its sensors [mm]
        ("high", "f4"),
        ("other_min", "f4"),  # range of z (barrel) or r (disc) [mm]
        ("other_max", "f4"),
        ("bins_per_mm", "f4"),
        ("n_other", "i4"),  # bins along that
        ("first_cell", "i4"),  # cell = first_cell + phi bin * n_other + bin
        ("first_neighbour", "i4"),
        ("n_adjacent", "i4"),  # neighbours on the inner side without a layer between
        ("n_first", "i4"),  # of those, the ones to which first links of a chain go
        ("n_neighbours", "i4"),  # all without a layer between, then those over one layer
        ("most_points", "i4"),  # of a chain that begins here, exact up to 5; 0: none may
    ]
)


class SeedingAcceptance(Protocol):
    """Where seeds are looked for, as `SeedingConfig` says; lengths in mm."""

    @property
    def z_min(self) -> float:
        """Smallest z of spacepoints."""

    @property
    def z_max(self) -> float:
        """Largest z of spacepoints."""

    @property
    def r_max(self) -> float:
        """Largest radius of spacepoints."""

    @property
    def collision_region_min(self) -> float:
        """Smallest z at which particles start."""

    @property
    def collision_region_max(self) -> float:
        """Largest z at which particles start."""

    @property
    def cot_theta_max(self) -> float:
        """Largest |cot(theta)| of particles."""


class LayerMap(NamedTuple):
    """The layers that seeds are made of."""

    layer_of: Any  # (n_detector_layers,) int32, -1: not in the map
    layers: Any  # (n_layers,) MAP_LAYER, in the order of the detector's
    neighbours: Any  # (n,) int32, layers on the inner side
    n_cells: Any  # int32, of one event
    r_min: Any  # scalar, smallest radius [mm]


class SensorRanges(NamedTuple):
    """Ranges of each sensor, (n_surfaces,) float64 [mm]."""

    r_low: np.ndarray
    r_high: np.ndarray
    z_low: np.ndarray
    z_high: np.ndarray


class _Extents(NamedTuple):
    """Ranges of the sensors of each layer, (n_layers,) float64 [mm]."""

    is_disc: np.ndarray
    r_low: np.ndarray
    r_high: np.ndarray
    z_low: np.ndarray
    z_high: np.ndarray


def make_layer_map(
    detector: DetectorArrays, acceptance: SeedingAcceptance, ranges: SensorRanges | None = None
) -> LayerMap:
    """Make the map of a detector.

    Parameters
    ----------
    detector : DetectorArrays
        Surfaces, layers and designs, on the host.
    acceptance : SeedingAcceptance
        Its ranges of r and z say which layers are used, its collision region and `cot_theta_max` where particles go.
    ranges : SensorRanges, optional
        Those of its surfaces, for who makes several maps.

    Returns
    -------
    LayerMap
        On the host.

    Raises
    ------
    GeometryError
        If no line from the collision region crosses three layers, one after another, or some of the layers are planes.
    """
    ranges = ranges or sensor_ranges(detector.surfaces)
    layer_of_surface = detector.surfaces["layer"]
    used = _used_layers(detector, ranges, acceptance)
    members = [np.flatnonzero(layer_of_surface == layer) for layer in used]
    extents = _Extents(
        is_disc=detector.layers["kind"][used] == LayerKind.DISC,
        r_low=np.array([ranges.r_low[m].min() for m in members]),
        r_high=np.array([ranges.r_high[m].max() for m in members]),
        z_low=np.array([ranges.z_low[m].min() for m in members]),
        z_high=np.array([ranges.z_high[m].max() for m in members]),
    )
    steps = _steps_between(extents, acceptance)
    layers = _layer_records(extents)
    neighbours: list[int] = []
    for outer in range(len(used)):
        adjacent, over_one = (np.flatnonzero(steps[:, outer] == n).tolist() for n in (_ADJACENT, _OVER_ONE))
        layers["first_neighbour"][outer] = len(neighbours)
        layers["n_adjacent"][outer] = layers["n_first"][outer] = len(adjacent)
        layers["n_neighbours"][outer] = len(adjacent) + len(over_one)
        neighbours += adjacent + over_one
    layers["most_points"] = 1
    for _ in range(_FAR):
        for outer in range(len(used)):
            inside = np.flatnonzero(steps[:, outer] <= _OVER_ONE)
            layers["most_points"][outer] = 1 + layers["most_points"][inside].max(initial=0)
    layer_of = np.full(len(detector.layers), -1, np.int32)
    layer_of[used] = np.arange(len(used), dtype=np.int32)
    n_cells = np.int32(N_PHI * layers["n_other"].sum())
    return LayerMap(layer_of, layers, np.array(neighbours, np.int32), n_cells, np.float32(extents.r_low.min()))


def make_late_map(seeding: LayerMap, everywhere: LayerMap) -> LayerMap | None:
    """Make the map for a search among the spacepoints that no track has, on all layers.

    Chains may begin where a particle has crossed two layers beyond those of the seeding: farther in, what kinks between
    layers of the seeding has too few points behind its kink.

    Parameters
    ----------
    seeding, everywhere : LayerMap
        Where seeds are looked for first, and then; on the host.

    Returns
    -------
    LayerMap or None
        On the host, with arrays of its own where it differs; None if chains can't begin anywhere.
    """
    layers, neighbours = everywhere.layers.copy(), everywhere.neighbours.copy()
    is_beyond = np.zeros(len(layers), bool)
    is_beyond[everywhere.layer_of[(everywhere.layer_of >= 0) & (seeding.layer_of < 0)]] = True
    for row, layer in enumerate(layers):
        adjacent = slice(layer["first_neighbour"], layer["first_neighbour"] + layer["n_adjacent"])
        is_near = is_beyond[neighbours[adjacent]] & is_beyond[row]
        neighbours[adjacent] = neighbours[adjacent][np.argsort(~is_near, kind="stable")]
        layer["n_first"] = is_near.sum()
    layers["most_points"][layers["n_first"] == 0] = 0
    return everywhere._replace(layers=layers, neighbours=neighbours) if layers["most_points"].any() else None


def sensor_points(surfaces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return r and z, (n_surfaces, n_points), of points on the sensors [mm]."""
    a, b = (grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1, _N_U), np.linspace(-1, 1, _N_V)))
    low, high, half1 = (surfaces[name].astype(float)[:, None] for name in ("hx_min", "hx_max", "hy"))
    loc0, loc1 = a * (low * (1 - b) + high * (1 + b)) / 2, b * half1
    x, y, z = (
        surfaces[f"c{i}"][:, None] + loc0 * surfaces[f"u{i}"][:, None] + loc1 * surfaces[f"v{i}"][:, None]
        for i in "xyz"
    )
    return np.hypot(x, y), z


def sensor_ranges(surfaces: np.ndarray) -> SensorRanges:
    """Return the ranges of r and z of sensors."""
    r, z = sensor_points(surfaces)
    return SensorRanges(r.min(axis=1), r.max(axis=1), z.min(axis=1), z.max(axis=1))


def _used_layers(detector: DetectorArrays, ranges: SensorRanges, acceptance: SeedingAcceptance) -> np.ndarray:
    """Return the detector's layers that measure two coordinates and lie within the acceptance of the seeding."""
    layers, layer_of_surface, design = detector.layers, detector.surfaces["layer"], detector.surfaces["design"]
    is_used = layers["is_sensitive"] == 1
    is_measured = (design >= 0) & (detector.designs["dimensions"][design] == _TWO_DIMENSIONS)
    is_inside = (
        (ranges.r_low < acceptance.r_max) & (ranges.z_high >= acceptance.z_min) & (ranges.z_low <= acceptance.z_max)
    )
    is_used[layer_of_surface[~is_measured]] = False
    has_inside = np.zeros(len(layers), bool)
    has_inside[layer_of_surface[is_inside]] = True
    used = np.flatnonzero(is_used & has_inside)
    n_planes = int((layers["kind"][used] == LayerKind.PLANE).sum())
    if n_planes:
        msg = (
            f"{n_planes} of the {len(used)} layers that seeds could be made of are planes; expected cylinders and "
            'discs: set seeding.method = "grid"'
        )
        raise GeometryError(msg)
    return used


def _steps_between(extents: _Extents, acceptance: SeedingAcceptance) -> np.ndarray:
    """Return the fewest steps from an inner layer (row) to an outer one (column) on lines from the collision region."""
    n = len(extents.is_disc)
    steps = np.full((n, n), _NEVER)
    vertices = np.linspace(acceptance.collision_region_min, acceptance.collision_region_max, _N_VERTICES)
    most = math.asinh(acceptance.cot_theta_max)
    cot_theta = np.sinh(np.linspace(-most, most, 2 * math.ceil(most / _ETA_STEP)))  # none is 0
    vertex, slope = (grid.ravel()[:, None] for grid in np.meshgrid(vertices, cot_theta))
    n_levels = 0
    for margin in (-_EDGE_MARGIN, _EDGE_MARGIN) if n else ():
        n_levels = max(n_levels, _take_steps(extents, vertex, slope, margin, steps))
    if n_levels < _FEWEST_LEVELS:
        msg = (
            f"no line from the collision region crosses three layers that seeds could be made of; the detector has {n} "
            'of them in cylinders and discs: set seeding.method = "grid", or check the ranges of seeding'
        )
        raise GeometryError(msg)
    return steps


def _take_steps(extents: _Extents, vertex: np.ndarray, slope: np.ndarray, margin: float, steps: np.ndarray) -> int:
    """Lower `steps` to what lines need; the layers' edges lie `margin` farther out. Return the most layers crossed."""
    e = extents
    z_disc = (e.z_low + e.z_high) / 2
    r_at = np.where(e.is_disc, (z_disc - vertex) / slope, (e.r_low + e.r_high) / 2)
    z_at = vertex + slope * r_at
    on_disc = (r_at > 0) & (r_at > e.r_low - margin) & (r_at < e.r_high + margin)
    on_barrel = (z_at > e.z_low - margin) & (z_at < e.z_high + margin)
    length = np.where(np.where(e.is_disc, on_disc, on_barrel), r_at * np.sqrt(1 + slope**2), np.inf)
    n_crossed = np.isfinite(length).sum(axis=1).max()  # a fifth of the layers
    order = np.argsort(length, axis=1, kind="stable")[:, :n_crossed]
    length = np.take_along_axis(length, order, axis=1)
    with np.errstate(invalid="ignore"):
        step = np.diff(length, axis=1)
    step = np.where(np.isfinite(step), step, np.nan)
    has_steps = np.isfinite(step).any(axis=1)
    order, length, step = order[has_steps], length[has_steps], step[has_steps]
    if not len(step):
        return 0
    is_far = step > _SAME_STEP * _medians(step)
    level = np.concatenate([np.zeros((len(step), 1), int), np.cumsum(is_far, axis=1)], axis=1)
    is_crossed = np.isfinite(length)
    for span in range(1, order.shape[1]):
        n = np.where(is_crossed[:, span:], level[:, span:] - level[:, :-span], _NEVER)
        if n.min() > _OVER_ONE:  # nor are layers farther from each other
            break
        for fewest in (_ADJACENT, _OVER_ONE):
            line, a = np.nonzero(n == fewest)
            pairs = order[line, a], order[line, a + span]
            steps[pairs] = np.minimum(steps[pairs], fewest)
    return 1 + int(np.where(is_crossed, level, 0).max())


def _medians(rows: np.ndarray) -> np.ndarray:
    """Return the medians of rows without their NaN, (n, 1); each row has a number."""
    ascending = np.sort(rows, axis=1)  # NaN last
    n = np.isfinite(rows).sum(axis=1, keepdims=True)
    return (np.take_along_axis(ascending, (n - 1) // 2, 1) + np.take_along_axis(ascending, n // 2, 1)) / 2


def _layer_records(extents: _Extents) -> np.ndarray:
    """Return the layers with their cells, without neighbours."""
    layers = np.zeros(len(extents.is_disc), MAP_LAYER)
    disc = extents.is_disc
    layers["is_disc"] = disc
    layers["low"], layers["high"] = (
        np.where(disc, z, r) for r, z in ((extents.r_low, extents.z_low), (extents.r_high, extents.z_high))
    )
    low, high = (np.where(disc, r, z) for r, z in ((extents.r_low, extents.z_low), (extents.r_high, extents.z_high)))
    layers["other_min"], layers["other_max"] = low, high
    layers["n_other"] = np.clip(np.ceil((high - low) / _CELL_WIDTH), 1, _MOST_CELLS)
    layers["bins_per_mm"] = layers["n_other"] / np.maximum(high - low, 1e-3)
    layers["first_cell"] = N_PHI * np.concatenate([[0], np.cumsum(layers["n_other"])[:-1]])
    return layers
