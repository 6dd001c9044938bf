"""Derive the layers of a detector from its surfaces: reference cylinders, discs or planes, and the stacks they form.

A layer holds the surfaces of one key: (volume, layer) of the Acts geometry ids, or from `layer_keys`. Discs are
split by ring, because a ring is thinner in z than a disc and because passive material may lie between rings. A track
finds a layer by crossing its reference surface; `traccc_py.geometry.bins` lists the sensors it may then hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.records import LAYER, STACK, LayerKind
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, decode_geometry_id

__all__ = [
    "DISC_COSINE",
    "UNLIMITED",
    "LayerTable",
    "SurfacePoints",
    "are_nearly_parallel",
    "derive_layers",
    "spans_along",
    "split_by_ring",
    "stack_normal",
]

UNLIMITED = 1e6  #: extent of planes [mm]
DISC_COSINE = 0.7  #: sensors whose normal is closer to the z axis than this belong to discs
_PARALLEL_TOLERANCE = 1e-6  # 1 - cosine between normals that are one
_LEAST_COSINE = 0.995  # between the normal of a sensor and that of its stack of planes: 6 degrees, for alignment
_N_U, _N_V = 7, 3  #: points on a sensor for which distances to a reference surface are calculated


@dataclass(frozen=True, slots=True)
class SurfacePoints:
    """Cylinder coordinates of points on all sensors, float64, shape (n_surfaces, n_points)."""

    r: np.ndarray
    phi: np.ndarray
    z: np.ndarray

    @classmethod
    def of(cls, surfaces: Surfaces) -> SurfacePoints:
        """Return the points of `surfaces`."""
        x, y, z = np.moveaxis(surfaces.points(_N_U, _N_V), 2, 0)
        return cls(np.hypot(x, y), np.arctan2(y, x), z)


@dataclass(frozen=True, slots=True)
class _Group:
    """A layer in the making."""

    name: str
    kind: LayerKind
    members: np.ndarray  # surface indices; none for a passive layer
    position: float
    low: float  # range along the direction in which its stack is ordered
    high: float
    transverse_low: float  # physical range in z (cylinder) or r (disc)
    transverse_high: float
    normal: tuple[float, float, float] = (0.0, 0.0, 0.0)
    passive: PassiveSurface | None = None


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Layers without their bins."""

    layers: np.ndarray  # (n_layers,) LAYER, ordered by stack, then position
    stacks: np.ndarray  # (n_stacks,) STACK
    names: tuple[str, ...]  # of the layers
    layer_of_surface: np.ndarray  # (n_surfaces,) int32


def derive_layers(
    surfaces: Surfaces,
    points: SurfacePoints,
    passive: Sequence[PassiveSurface] = (),
    *,
    keys: np.ndarray | None = None,
    are_planes: bool = False,
    volume_names: Mapping[int, str] | None = None,
) -> LayerTable:
    """Group surfaces into layers and layers into stacks.

    Parameters
    ----------
    surfaces : Surfaces
        Sensitive surfaces, n of them.
    points : SurfacePoints
        Points on them.
    passive : sequence of PassiveSurface, optional
        Surfaces that have material and no sensors.
    keys : ndarray of shape (n, 2), int64, optional
        Volume and number of the layer of each surface; None: those of the Acts geometry ids.
    are_planes : bool, optional
        Take parallel planes as reference surfaces (telescopes) instead of cylinders and discs.
    volume_names : mapping of int to str, optional
        Names of volumes, for tables.

    Returns
    -------
    LayerTable
        Layers with kind, position, physical extent and material. Bins are empty.

    Raises
    ------
    GeometryError
        If two layers of a stack interleave, so that no order of them is right, or planes are not parallel.
    """
    if keys is None:
        ids = decode_geometry_id(surfaces.geometry_id)
        keys = np.stack([ids.volume, ids.layer], axis=1)
    if are_planes and not are_nearly_parallel(surfaces):
        _raise_for_normals(surfaces)
    groups = list(_sensitive_groups(surfaces, points, keys, are_planes, volume_names or {}))
    groups += [_passive_group(p) for p in passive]
    groups.sort(key=lambda g: (g.kind, g.position, g.transverse_low))
    _check_order(groups)
    layers = np.zeros(len(groups), LAYER)
    layer_of_surface = np.full(len(surfaces), -1, np.int32)
    for i, group in enumerate(groups):
        layers[i] = _layer_record(group)
        layer_of_surface[group.members] = i
    kinds, first, counts = np.unique(layers["kind"], return_index=True, return_counts=True)
    stacks = np.zeros(len(kinds), STACK)
    stacks["kind"], stacks["first_layer"], stacks["n_layers"] = kinds, first, counts
    return LayerTable(layers, stacks, tuple(g.name for g in groups), layer_of_surface)


def _sensitive_groups(
    surfaces: Surfaces, points: SurfacePoints, layer_keys: np.ndarray, are_planes: bool, volume_names: Mapping[int, str]
) -> Iterator[_Group]:
    keys, inverse = np.unique(layer_keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
    for (volume, layer), members in zip(keys.tolist(), pieces, strict=True):
        name = f"{volume_names.get(volume, 'volume')} {volume}/{layer}"
        if are_planes:
            yield _plane_group(name, surfaces, members)
        elif np.abs(surfaces.w[members, 2]).min() > DISC_COSINE:
            rings = split_by_ring(surfaces, points, members)
            for i_ring, ring in enumerate(rings):
                suffix = f" ring {i_ring}" if len(rings) > 1 else ""
                yield _round_group(name + suffix, LayerKind.DISC, ring, points)
        else:
            yield _round_group(name, LayerKind.CYLINDER, members, points)


def _round_group(name: str, kind: LayerKind, members: np.ndarray, points: SurfacePoints) -> _Group:
    r, z = points.r[members], points.z[members]
    along, across = (r, z) if kind == LayerKind.CYLINDER else (z, r)
    low, high = float(along.min()), float(along.max())
    middle = (low + high) / 2  # the largest distance from it to a sensor is as small as it can be
    return _Group(name, kind, members, middle, low, high, float(across.min()), float(across.max()))


def _plane_group(name: str, surfaces: Surfaces, members: np.ndarray) -> _Group:
    normal = stack_normal(surfaces)
    of_sensors = spans_along(surfaces, normal)
    low, high = float(of_sensors[0][members].min()), float(of_sensors[1][members].max())
    middle = (low + high) / 2
    n_x, n_y, n_z = (float(c) for c in normal)
    return _Group(name, LayerKind.PLANE, members, middle, low, high, -UNLIMITED, UNLIMITED, (n_x, n_y, n_z))


def _passive_group(p: PassiveSurface) -> _Group:
    low, high = p.position - p.thickness / 2, p.position + p.thickness / 2
    none = np.zeros(0, np.int64)
    return _Group(p.name, p.kind, none, p.position, low, high, p.extent_min, p.extent_max, passive=p)


def split_by_ring(surfaces: Surfaces, points: SurfacePoints, members: np.ndarray) -> list[np.ndarray]:
    """Return the rings of a disc; rings that overlap both in z and in r stay together."""
    radius = np.hypot(surfaces.centre[members, 0], surfaces.centre[members, 1])
    order = np.argsort(radius, kind="stable")
    gap = surfaces.hy[members].min() / 2  # radii of one ring's sensors differ by less than this
    rings = np.split(members[order], np.flatnonzero(np.diff(radius[order]) > gap) + 1)
    merged = [rings[0]]
    for ring in rings[1:]:
        a, b = merged[-1], ring
        if _overlap(points.z[a], points.z[b]) and _overlap(points.r[a], points.r[b]):
            merged[-1] = np.concatenate([a, b])
        else:
            merged.append(ring)
    return [np.sort(ring) for ring in merged]


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(a.min() <= b.max() and b.min() <= a.max())


def _check_order(groups: Sequence[_Group]) -> None:
    """Raise if two layers of one kind overlap both in the direction of their order and across it."""
    kind = np.array([g.kind for g in groups])
    low, high = np.array([g.low for g in groups]), np.array([g.high for g in groups])
    t_low, t_high = np.array([g.transverse_low for g in groups]), np.array([g.transverse_high for g in groups])
    clash = (kind[:, None] == kind) & (low[:, None] <= high) & (low <= high[:, None])
    clash &= (t_low[:, None] < t_high) & (t_low < t_high[:, None])
    pairs = np.argwhere(np.triu(clash, 1))
    if len(pairs):
        a, b = (groups[i] for i in pairs[0])
        what = {LayerKind.CYLINDER: "in r", LayerKind.DISC: "in z", LayerKind.PLANE: "along their normal"}[a.kind]
        spans = [f"{g.name!r} ({g.low:.3f} to {g.high:.3f} mm {what})" for g in (a, b)]
        msg = (
            f"layers {spans[0]} and {spans[1]} interleave; a track must cross one after the other: move their surfaces "
            "or give them one layer number"
        )
        raise GeometryError(msg)


def stack_normal(surfaces: Surfaces) -> np.ndarray:
    """Return the normal of a stack of planes, on the side of the first one's: that of all, or their mean."""
    cosine = surfaces.w @ surfaces.w[0]
    if (np.abs(cosine) > 1 - _PARALLEL_TOLERANCE).all():
        return surfaces.w[0]
    mean = np.where(cosine < 0, -1.0, 1.0) @ surfaces.w  # a plane may face the other way
    return mean / np.linalg.norm(mean)


def are_nearly_parallel(surfaces: Surfaces) -> bool:
    """Return whether surfaces are parallel but for their alignment."""
    return bool((np.abs(surfaces.w @ stack_normal(surfaces)) > _LEAST_COSINE).all())


def spans_along(surfaces: Surfaces, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each surface begins and ends along the normal of a stack of planes, (n,) each [mm]."""
    offsets = surfaces.points(_N_U, _N_V) @ normal
    return offsets.min(1), offsets.max(1)


def _raise_for_normals(surfaces: Surfaces) -> None:
    normal = stack_normal(surfaces)
    worst = int(np.argmin(np.abs(surfaces.w @ normal)))
    angle = np.degrees(np.arccos(min(1.0, abs(float(surfaces.w[worst] @ normal)))))
    msg = (
        f"planes are not parallel: the normal of surface {surfaces.geometry_id[worst]}, "
        f"{np.round(surfaces.w[worst], 4).tolist()}, is {angle:.1f} degrees from {np.round(normal, 4).tolist()}, that "
        f"of their stack; expected at most {np.degrees(np.arccos(_LEAST_COSINE)):.1f}"
    )
    raise GeometryError(msg)


def _layer_record(g: _Group) -> np.void:
    record = np.zeros(1, LAYER)
    record["kind"], record["position"] = g.kind, g.position
    record["normal_x"], record["normal_y"], record["normal_z"] = g.normal
    record["extent_min"], record["extent_max"] = g.transverse_low, g.transverse_high
    record["is_sensitive"] = g.passive is None
    if g.passive is not None:
        for name, value in zip(g.passive.slab._fields, g.passive.slab, strict=True):
            record[name] = value
        record["material_map"] = g.passive.material_map
    return record[0]
