"""The volumes, surfaces, materials and grids of a detector as in detray's JSON files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from traccc_py.geometry.detector import Detector
from traccc_py.geometry.detray.material import DENSITY_UNIT, EXCITATION_CONSTANT, EXCITATION_POWER
from traccc_py.geometry.detray.schema import NO_LINK, DetrayShape, SurfaceKind
from traccc_py.geometry.detray.volumes import Border, Box, TubeVolume, borders, divide_world
from traccc_py.geometry.material.maps import MaterialMap
from traccc_py.geometry.material.material import PLASMA_CONSTANT
from traccc_py.geometry.records import LayerKind, MapKind, Shape
from traccc_py.geometry.surfaces import Annulus, PassiveSurface
from traccc_py.units import bethe_constant

__all__ = ["DetrayContent", "detray_content"]

_log = logging.getLogger(__name__)

_CYLINDER_VOLUME, _CUBOID_VOLUME = 0, 4
_SLAB_TYPE = 6
_MAP_TYPES = {MapKind.POLAR: 0, MapKind.CARTESIAN: 1, MapKind.CYLINDER: 3}
_DISC_GRID, _CYLINDER_GRID = 3, 4
_CLOSED, _CIRCULAR = 1, 2
_IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
_FULL_TURN = 1e-3  #: largest deviation from 2 pi of a range of angles that counts as full [rad]
_CUBOID_MARGIN = 5.0  #: [mm]
_GRAM_PER_CM3 = 1e-3  #: in g / mm^3
_Z_OVER_A = 0.5
_L0_SCALE = 350.0  #: nuclear interaction length is about 35 g / cm^2 A^(1/3)
_VACUUM = {"thickness": 0.0, "material": {"params": [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 3.0]}}


@dataclass(slots=True)
class DetrayContent:
    """Content of the files, by volume."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    slabs: list[list[dict[str, Any]]] = field(default_factory=list)
    material_maps: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    surface_grids: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    n_slabs: int = 0


@dataclass(slots=True)
class _SurfaceEntry:
    """A surface with its material."""

    kind: SurfaceKind
    source: int
    translation: list[float]
    rotation: list[float]
    shape: DetrayShape
    masks: list[tuple[int | None, list[float]]]  # link (None: the own volume) and boundaries
    slab: tuple[float, ...] = ()
    material_map: MaterialMap | None = None


def detray_content(detector: Detector) -> DetrayContent:
    """Return the content of detray's files for a detector; see `write_detray`."""
    content = DetrayContent()
    passive_of_layer = _passive_of_layers(detector)
    if (detector.layers["kind"] == LayerKind.PLANE).any():
        surfaces = _planar(detector, np.arange(len(detector.surfaces)))
        surfaces += [_round(detector, p) for p in detector.passive]
        name = next(iter(detector.volume_names.values()), detector.name)
        _add_volume(content, name, _CUBOID_VOLUME, 0.0, surfaces + _cuboid_portals(detector))
    else:
        volumes = _in_order_of_ids(detector, divide_world(_boxes(detector, passive_of_layer)))
        for i, volume in enumerate(volumes):
            members = _members(detector, volume)
            surfaces = _planar(detector, members)
            surfaces += [
                _round(detector, passive_of_layer[b.layer]) for b in volume.boxes if b.layer in passive_of_layer
            ]
            z = (volume.low[1] + volume.high[1]) / 2
            name = " and ".join(b.name for b in volume.boxes)
            _add_volume(content, name, _CYLINDER_VOLUME, z, surfaces + _tube_portals(volumes, i))
            if len(volume.boxes) == 1 and len(members):
                _add_surface_grid(content, detector, volume, members)
    return content


def _members(detector: Detector, volume: TubeVolume) -> np.ndarray:
    """Return the planar surfaces of a volume, ascending in their ids."""
    return np.flatnonzero(np.isin(detector.layer_of_surface, [b.layer for b in volume.boxes]))


def _in_order_of_ids(detector: Detector, volumes: list[TubeVolume]) -> list[TubeVolume]:
    """Return volumes in the order of their sensors' ids, and apart from them those without sensors.

    detray numbers surfaces as they stand in the file. traccc's CPU programs take the measurements in the order of their
    Acts ids and then search them by detray's number: where the two orders differ, whole volumes have no measurements.
    Simulated particles start in volume 0, so the innermost of those without sensors comes first; without Acts ids they
    come last, since readout designs then go by the numbers of volumes.
    """
    is_sensitive = detector.surfaces.is_sensitive
    sensors = [rows[is_sensitive[rows]] for rows in (_members(detector, v) for v in volumes)]
    passive = [v for v, rows in zip(volumes, sensors, strict=True) if not len(rows)]
    ranged = sorted((int(rows[0]), int(rows[-1]), i) for i, rows in enumerate(sensors) if len(rows))
    passive, sensitive = sorted(passive, key=lambda v: v.low[0]), [volumes[i] for _, _, i in ranged]
    if not _has_acts_ids(detector):
        return sensitive + passive
    for (_, last, i), (first, _, k) in pairwise(ranged):
        if first < last:
            _log.warning(
                "the ids of sensors in %s and %s interleave: traccc's CPU programs need them in the order of volumes, "
                "and will miss measurements",
                *(" and ".join(b.name for b in volumes[j].boxes) for j in (i, k)),
            )
            break
    return passive + sensitive


def _has_acts_ids(detector: Detector) -> bool:
    is_sensitive = detector.surfaces.is_sensitive
    return np.array_equal(detector.acts_ids[is_sensitive], detector.geometry_ids[is_sensitive])


def _passive_of_layers(detector: Detector) -> dict[int, PassiveSurface]:
    """Return the passive surface of each passive layer."""
    layers = np.flatnonzero(detector.layers["is_sensitive"] == 0)
    ordered = sorted(detector.passive, key=lambda p: (p.kind, p.position, p.extent_min))  # as `derive_layers` does
    return dict(zip(layers.tolist(), ordered, strict=True))


def _boxes(detector: Detector, passive_of_layer: dict[int, PassiveSurface]) -> list[Box]:
    points = detector.surfaces.points(7, 3)
    r, z = np.hypot(points[..., 0], points[..., 1]), points[..., 2]
    boxes = []
    for layer, name in enumerate(detector.layer_names):
        p = passive_of_layer.get(layer)
        if p is None:
            members = detector.layer_of_surface == layer
            low, high = (r[members].min(), z[members].min()), (r[members].max(), z[members].max())
        elif p.kind == LayerKind.CYLINDER:
            low, high = (p.position, p.extent_min), (p.position, p.extent_max)
        else:
            low, high = (p.extent_min, p.position), (p.extent_max, p.position)
        boxes.append(Box(name, layer, (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))))
    return boxes


def _planar(detector: Detector, rows: np.ndarray) -> list[_SurfaceEntry]:
    """Return the entries of planar surfaces."""
    s = detector.surfaces
    is_acts = _has_acts_ids(detector)
    entries = []
    for i in rows.tolist():
        axes, centre = [s.u[i], s.v[i], s.w[i]], s.centre[i]
        shape, phi_0 = Shape(int(s.shape[i])), np.pi / 2  # where loc1 points in the polar frame of the file
        if shape == Shape.RECTANGLE:
            kind, boundaries = DetrayShape.RECTANGLE, [s.hx_min[i], s.hy[i]]
        elif shape == Shape.TRAPEZOID:
            kind, boundaries = DetrayShape.TRAPEZOID, [s.hx_min[i], s.hx_max[i], s.hy[i], 0.5 / s.hy[i]]
        elif shape == Shape.RING:
            kind, boundaries = DetrayShape.RING, list(s.outline[i, 3:5])
        else:  # back to the frame around the strips' focal point
            a = Annulus(*s.outline[i].tolist())
            phi_0, centre = a.phi_middle, centre - a.focal * s.v[i]
            x, y = np.cos(phi_0), np.sin(phi_0)
            axes = [x * s.v[i] + y * s.u[i], y * s.v[i] - x * s.u[i], s.w[i]]
            kind = DetrayShape.ANNULUS
            shift = [x * (a.beam_y + a.focal) + y * a.beam_x, y * (a.beam_y + a.focal) - x * a.beam_x]
            boundaries = [a.r_min, a.r_max, phi_0 - a.half_opening, phi_0 + a.half_opening, 0.0, *shift]
        number = int(s.material_map[i])
        entries.append(
            _SurfaceEntry(
                kind=SurfaceKind.SENSITIVE if s.is_sensitive[i] else SurfaceKind.PASSIVE,
                source=int(s.geometry_id[i]) if is_acts and s.is_sensitive[i] else 0,
                translation=centre.tolist(),
                rotation=np.concatenate(axes).tolist(),
                shape=kind,
                masks=[(None, [float(b) for b in boundaries])],
                slab=() if number else tuple(s.slab[i].tolist()),
                material_map=detector.material_maps[number - 1].turned(phi_0, is_mirrored=True) if number else None,
            )
        )
    return entries


def _round(detector: Detector, p: PassiveSurface) -> _SurfaceEntry:
    """Return the entry of a passive cylinder or disc."""
    is_cylinder = p.kind == LayerKind.CYLINDER
    boundaries = [p.position, p.extent_min, p.extent_max] if is_cylinder else [p.extent_min, p.extent_max]
    return _SurfaceEntry(
        kind=SurfaceKind.PASSIVE,
        source=0,
        translation=[0.0, 0.0, 0.0 if is_cylinder else float(p.position)],
        rotation=_IDENTITY,
        shape=DetrayShape.CONCENTRIC_CYLINDER if is_cylinder else DetrayShape.RING,
        masks=[(None, [float(b) for b in boundaries])],
        slab=() if p.material_map else tuple(p.slab),
        material_map=detector.material_maps[p.material_map - 1] if p.material_map else None,
    )


def _tube_portals(volumes: list[TubeVolume], index: int) -> list[_SurfaceEntry]:
    """Return the sides of a volume: inner and outer cylinder, lower and upper disc."""
    low, high = volumes[index].low, volumes[index].high
    entries = []
    for axis, is_upper in ((0, False), (0, True), (1, False), (1, True)):
        place = (high if is_upper else low)[axis]
        if axis == 0 and place == 0:
            continue
        parts = borders(volumes, index, axis, is_upper=is_upper)
        masks: list[tuple[int | None, list[float]]] = [
            (_link(b), [place, b.low, b.high] if axis == 0 else [b.low, b.high]) for b in parts
        ]
        shape = DetrayShape.CONCENTRIC_CYLINDER if axis == 0 else DetrayShape.RING
        z = 0.0 if axis == 0 else place
        entries.append(_SurfaceEntry(SurfaceKind.PORTAL, 0, [0.0, 0.0, z], _IDENTITY, shape, masks))
    return entries


def _link(border: Border) -> int:
    return NO_LINK if border.neighbour is None else border.neighbour


def _cuboid_portals(detector: Detector) -> list[_SurfaceEntry]:
    """Return the six sides of a cuboid around all sensors."""
    points = detector.surfaces.points(2, 2).reshape(-1, 3)
    reach = [abs(v) for p in detector.passive for v in (p.position, p.extent_min, p.extent_max)]
    half = np.abs(points).max(0) + _CUBOID_MARGIN
    half = np.maximum(half, max(reach, default=0.0) + _CUBOID_MARGIN) if reach else half
    entries = []
    for k in range(3):
        u, v, w = (np.roll(np.eye(3), shift, axis=0)[k] for shift in (-1, -2, 0))
        boundaries = [float(half[(k + 1) % 3]), float(half[(k + 2) % 3])]
        rotation = np.concatenate([u, v, w]).tolist()
        for sign in (-1, 1):
            masks: list[tuple[int | None, list[float]]] = [(NO_LINK, boundaries)]
            place = (sign * half[k] * w).tolist()
            entries.append(_SurfaceEntry(SurfaceKind.PORTAL, 0, place, rotation, DetrayShape.RECTANGLE, masks))
    return entries


def _add_volume(content: DetrayContent, name: str, kind: int, z: float, entries: list[_SurfaceEntry]) -> None:
    volume = len(content.volumes)
    surfaces: list[dict[str, Any]] = []
    slabs: list[dict[str, Any]] = []
    for i, e in enumerate(entries):
        masks = [
            {"shape": int(e.shape), "volume_link": volume if link is None else link, "boundaries": b}
            for link, b in e.masks
        ]
        placed = {"translation": e.translation, "rotation": e.rotation}
        surface = {"type": int(e.kind), "source": e.source, "transform": placed, "masks": masks, "index_in_coll": i}
        if e.material_map is not None:
            n_maps = sum(len(g) for g in content.material_maps.values())
            surface["material"] = {"type": _MAP_TYPES[e.material_map.kind], "index": n_maps}
            content.material_maps.setdefault(volume, []).append(_map_grid(e.material_map, i, n_maps))
        elif e.slab and e.slab[0] > 0:
            surface["material"] = {"type": _SLAB_TYPE, "index": content.n_slabs}
            slabs.append({"type": _SLAB_TYPE, "surface_idx": i, **_slab_record(e.slab), "index_in_coll": len(slabs)})
            content.n_slabs += 1
        surfaces.append(surface)
    transform = {"translation": [0.0, 0.0, z], "rotation": _IDENTITY}
    named = f"{name}_{volume}"
    content.volumes.append({"name": named, "index": volume, "type": kind, "transform": transform, "surfaces": surfaces})
    content.slabs.append(slabs)


def _slab_record(slab: tuple[float, ...] | np.ndarray) -> dict[str, Any]:
    """Return the thickness and material for which detray's formulas give this slab."""
    thickness_in_x0, xi, excitation, plasma = (float(v) for v in slab)
    if not (thickness_in_x0 > 0 and xi > 0):
        return _VACUUM
    electron_density = (plasma / PLASMA_CONSTANT) ** 2  # Z/A density [mol / cm^3]
    thickness = xi / (0.5 * bethe_constant * electron_density * _GRAM_PER_CM3)
    z = (excitation / EXCITATION_CONSTANT) ** (1 / EXCITATION_POWER)
    a, density = z / _Z_OVER_A, electron_density / _Z_OVER_A
    l0 = _L0_SCALE * a ** (1 / 3) / density
    params = [thickness / thickness_in_x0, l0, a, z, density * DENSITY_UNIT, density * _GRAM_PER_CM3 / a, 0.0]
    return {"thickness": thickness, "material": {"params": params}}


def _axis(label: int, n: int, low: float, high: float, *, is_angle: bool) -> dict[str, Any]:
    is_circular = is_angle and abs(high - low - 2 * np.pi) < _FULL_TURN
    bounds = _CIRCULAR if is_circular else _CLOSED
    return {"label": label, "bounds": bounds, "binning": 0, "bins": n, "edges": [float(low), float(high)]}


def _map_grid(m: MaterialMap, surface: int, index: int) -> dict[str, Any]:
    axes = [_axis(k, m.n_bins[k], m.low[k], m.high[k], is_angle=k == m.angle_axis) for k in (0, 1)]
    bins = [
        {"loc_index": [i % m.n_bins[0], i // m.n_bins[0]], "content": [{"type": _SLAB_TYPE, "surface_idx": surface,
         **_slab_record(slab)}]}
        for i, slab in enumerate(m.slabs)
    ]  # fmt: skip
    link = {"type": _MAP_TYPES[m.kind], "index": index}
    return {"owner_link": surface, "grid_link": link, "axes": axes, "bins": bins}


def _add_surface_grid(content: DetrayContent, detector: Detector, volume: TubeVolume, members: np.ndarray) -> None:
    """List the sensors of a volume by the bins they overlap, phi x z or r x phi; `members` come first in the volume."""
    points = detector.surfaces[members].points(7, 3)
    phi, r, z = np.arctan2(points[..., 1], points[..., 0]), np.hypot(points[..., 0], points[..., 1]), points[..., 2]
    is_cylinder = detector.layers["kind"][volume.boxes[0].layer] == LayerKind.CYLINDER
    other = z if is_cylinder else r
    low, high = float(other.min()), float(other.max())
    middle = phi[:, :1]
    phi = middle + np.mod(phi - middle + np.pi, 2 * np.pi) - np.pi
    width = float(np.median(np.ptp(phi, axis=1)))
    n_phi = int(np.clip(2 * np.pi / max(width, 1e-6), 1, 2 * len(members)))
    n_other = int(np.clip((high - low) / max(float(np.median(np.ptp(other, axis=1))), 1e-6), 1, len(members)))
    phi_bins = np.floor((np.stack([phi.min(1), phi.max(1)]) + np.pi) / (2 * np.pi) * n_phi).astype(int)
    other_bins = np.clip(
        ((np.stack([other.min(1), other.max(1)]) - low) / max(high - low, 1e-6) * n_other), 0, n_other - 1
    )
    bins: dict[tuple[int, int], list[int]] = {}
    for k, (first, last, below, above) in enumerate(zip(*phi_bins, *other_bins.astype(int), strict=True)):
        for i in range(first, min(last, first + n_phi - 1) + 1):
            for j in range(below, above + 1):
                bins.setdefault((i % n_phi, j) if is_cylinder else (j, i % n_phi), []).append(k)
    number = len(content.volumes) - 1
    phi_axis, other_axis = (n_phi, -np.pi, np.pi), (n_other, low, max(high, low + 1e-3))
    axes = [phi_axis, other_axis] if is_cylinder else [other_axis, phi_axis]
    link = {"type": _CYLINDER_GRID if is_cylinder else _DISC_GRID, "index": len(content.surface_grids)}
    grid = {
        "owner_link": number,
        "grid_link": link,
        "axes": [_axis(k, *a, is_angle=a is phi_axis) for k, a in enumerate(axes)],
        "bins": [{"loc_index": list(place), "content": found} for place, found in sorted(bins.items())],
    }
    content.surface_grids[number] = [grid]
    content.volumes[number]["acc_links"] = [link]
