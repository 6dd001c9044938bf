"""Convert the surfaces of a detray file into sensors and, if they have material, passive surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from traccc_py.geometry.detray.material import SurfaceMaterial
from traccc_py.geometry.detray.schema import DetrayGeometry, DetrayShape, Mask, SurfaceKind
from traccc_py.geometry.material.maps import MaterialMap
from traccc_py.geometry.material.material import Slab
from traccc_py.geometry.records import OUTLINE, LayerKind, Shape
from traccc_py.geometry.surfaces import Annulus, PassiveSurface

__all__ = ["PlanarSurfaces", "passive_surfaces", "planar_surfaces"]

_CYLINDERS = (DetrayShape.CYLINDER, DetrayShape.CONCENTRIC_CYLINDER)
_SHAPES = {
    DetrayShape.RECTANGLE: Shape.RECTANGLE,
    DetrayShape.TRAPEZOID: Shape.TRAPEZOID,
    DetrayShape.ANNULUS: Shape.ANNULUS,
    DetrayShape.RING: Shape.RING,
}
_ALONG_Z = 1e-6  #: largest 1 - |cosine| of an axis that counts as parallel to z
_ON_AXIS = 1e-2  #: largest distance from the z axis that counts as 0 [mm]
_COINCIDENT = 1e-2  #: largest distance of surfaces that count as one [mm]
_SAME_EDGE = 1e-3  #: [mm]
_N_EDGE_POINTS = 33  #: points on an edge of an annulus, for its bounding box


@dataclass(slots=True)
class PlanarSurfaces:
    """Sensors and planar surfaces with material, in the order of the file; lengths in mm."""

    index: np.ndarray  # (n,) int64, global index of the surface
    centre: np.ndarray  # (n, 3)
    u: np.ndarray  # (n, 3)
    v: np.ndarray  # (n, 3)
    shape: np.ndarray  # (n,) int32
    half_lengths: np.ndarray  # (n, 3) hx at -hy, hx at +hy, hy
    outline: np.ndarray  # (n, 7)
    slab: np.ndarray  # (n, 4)
    material_map: np.ndarray  # (n,) int32


def planar_surfaces(geometry: DetrayGeometry, material: SurfaceMaterial, maps: list[MaterialMap]) -> PlanarSurfaces:
    """Return sensors, and the planar surfaces with material other than discs around the z axis.

    Parameters
    ----------
    geometry : DetrayGeometry
        Surfaces.
    material : SurfaceMaterial
        Their material.
    maps : list of MaterialMap
        Maps in use; those of the result are appended.

    Returns
    -------
    PlanarSurfaces
        Rows in the order of the file. The local frame is that of the file, except for annuli: their origin moves from
        the focal point of their strips to their middle, and loc1 points away from the focal point.

    Raises
    ------
    GeometryError
        For a sensor that is curved or has several masks, and for a tilted cylinder with material.
    """
    index = [i for i in range(len(geometry.kind)) if _is_planar(geometry, material, i)]
    n = len(index)
    centre, u, v = geometry.centre[index], geometry.axes[index, 0], geometry.axes[index, 1]
    shape, halves, outline = np.zeros(n, np.int32), np.zeros((n, 3)), np.zeros((n, len(OUTLINE)))
    slab, numbers = material.slab[index], np.zeros(n, np.int32)
    for row, i in enumerate(index):
        mask = geometry.masks[i][0]
        b = mask.boundaries
        shape[row] = _SHAPES[mask.shape]
        phi_0 = np.pi / 2  # direction of loc1 in the polar frame of the surface
        if mask.shape == DetrayShape.RECTANGLE:
            halves[row] = b[0], b[0], b[1]
        elif mask.shape == DetrayShape.TRAPEZOID:
            halves[row] = b[:3]
        elif mask.shape == DetrayShape.RING:
            halves[row] = b[1]
            outline[row] = Annulus(0.0, 0.0, 0.0, b[0], b[1], 2 * np.pi, phi_0)
        else:
            found, phi_0, halves[row] = _annulus(geometry, i, mask)
            outline[row] = found._replace(phi_middle=phi_0)
            x, y = np.cos(phi_0), np.sin(phi_0)
            v[row] = x * geometry.axes[i, 0] + y * geometry.axes[i, 1]
            u[row] = y * geometry.axes[i, 0] - x * geometry.axes[i, 1]
            centre[row] += found.focal * v[row]
        if i in material.maps:
            maps.append(material.maps[i].turned(phi_0, is_mirrored=True))
            numbers[row], slab[row] = len(maps), maps[-1].mean
    return PlanarSurfaces(np.array(index, np.int64), centre, u, v, shape, halves, outline, slab, numbers)


def _has_material(material: SurfaceMaterial, i: int) -> bool:
    return i in material.maps or bool(material.slab[i, 0] > 0)


def _is_planar(geometry: DetrayGeometry, material: SurfaceMaterial, i: int) -> bool:
    masks, node = geometry.masks[i], geometry.nodes[i]
    is_sensitive = geometry.kind[i] == SurfaceKind.SENSITIVE
    if not is_sensitive and (not _has_material(material, i) or _is_round(geometry, i)):
        return False
    if masks[0].shape in _CYLINDERS:
        if is_sensitive:
            node.at("type").fail(
                f"surface {i} (source {geometry.source[i]}) is a sensitive {masks[0].shape.name.lower()}; expected a "
                "plane: curved sensors are not supported, since measurements and parameters are those of planes"
            )
        node.at("transform").fail("is off the z axis; cylinders with material must be around it")
    if len(masks) > 1:
        node.fail(f"has {len(masks)} masks; planar surfaces that are sensitive or have material must have one")
    return True


def _is_round(geometry: DetrayGeometry, i: int) -> bool:
    """Return whether a surface is a cylinder around the z axis or a ring perpendicular to it and centred on it."""
    if geometry.masks[i][0].shape not in (*_CYLINDERS, DetrayShape.RING):
        return False
    is_along_z = abs(geometry.axes[i, 2, 2]) > 1 - _ALONG_Z
    return bool(is_along_z and np.hypot(*geometry.centre[i, :2]) < _ON_AXIS)


def _annulus(geometry: DetrayGeometry, i: int, mask: Mask) -> tuple[Annulus, float, tuple[float, float, float]]:
    """Return the outline around the middle of an annulus, the angle of its middle in the strip frame, half lengths."""
    r_min, r_max, phi_min, phi_max, phi_average, shift_x, shift_y = mask.boundaries
    middle, half = (phi_min + phi_max) / 2, (phi_max - phi_min) / 2
    c, s = np.cos(middle), np.sin(middle)
    # Angles and the beam's position are relative to phi_average; here loc1 points along the middle.
    beam_x, beam_y = s * shift_x - c * shift_y, c * shift_x + s * shift_y
    around_focus = Annulus(0.0, float(beam_x), float(beam_y), r_min, r_max, half)
    if np.hypot(beam_x, beam_y) >= r_max:
        geometry.nodes[i].fail("is an annulus whose strips' focal point is outside of its outer circle")
    edges = around_focus.points(
        min(half, np.pi) * np.linspace(-1, 1, _N_EDGE_POINTS), np.linspace(0, 1, _N_EDGE_POINTS)
    )
    x, y = edges[..., 0], edges[..., 1]
    focal = float(y.min() + y.max()) / 2
    hx, hy = float(np.abs(x).max()), float(y.max() - y.min()) / 2
    return around_focus._replace(focal=focal, beam_y=float(beam_y) - focal), phi_average + middle, (hx, hx, hy)


class _Piece(NamedTuple):
    """One mask of a passive surface or portal."""

    order: int  # of the surface in the file
    is_portal: bool
    name: str
    kind: LayerKind
    position: float
    low: float
    high: float
    slab: tuple[float, ...]
    material_map: int


def passive_surfaces(
    geometry: DetrayGeometry, material: SurfaceMaterial, maps: list[MaterialMap]
) -> list[PassiveSurface]:
    """Return the cylinders around the z axis and the discs perpendicular to it that have material.

    Parameters
    ----------
    geometry : DetrayGeometry
        Surfaces.
    material : SurfaceMaterial
        Their material.
    maps : list of MaterialMap
        Maps in use; those of the result are appended.

    Returns
    -------
    list of PassiveSurface
        Where portals coincide, as those of neighbouring volumes do, one of them counts; adjoining pieces with the same
        material are merged. Other surfaces that coincide are moved apart by 10 um, so that a track crosses each.
    """
    pieces: list[_Piece] = []
    for i in range(len(geometry.kind)):
        if geometry.kind[i] == SurfaceKind.SENSITIVE or not _has_material(material, i) or not _is_round(geometry, i):
            continue
        number, slab = 0, tuple(material.slab[i].tolist())
        is_cylinder = geometry.masks[i][0].shape in _CYLINDERS
        if i in material.maps:
            maps.append(material.maps[i] if is_cylinder else _in_global_phi(material.maps[i], geometry.axes[i]))
            number, slab = len(maps), tuple(maps[-1].mean)
        name = geometry.volume_name(int(geometry.volume[i]))
        is_portal = bool(geometry.kind[i] == SurfaceKind.PORTAL)
        name += " portal" if is_portal else ""
        z = float(geometry.centre[i, 2])
        for mask in geometry.masks[i]:
            b = mask.boundaries
            place = (b[0], z + b[1], z + b[2]) if is_cylinder else (z, b[0], b[1])
            kind = LayerKind.CYLINDER if is_cylinder else LayerKind.DISC
            pieces.append(_Piece(i, is_portal, name, kind, *place, slab, number))
    portals = [p for group in _coincident([p for p in pieces if p.is_portal]) for p in _without_overlap(group)]
    return [
        PassiveSurface(p.name, p.kind, p.position, p.low, p.high, 0.0, Slab(*p.slab), p.material_map)
        for p in _set_apart(portals + [p for p in pieces if not p.is_portal])
    ]


def _in_global_phi(found: MaterialMap, axes: np.ndarray) -> MaterialMap:
    """Return the map of a disc in global phi, which is that of its local frame up to a rotation and a reflection."""
    angle = float(np.arctan2(axes[0, 1], axes[0, 0]))
    return found.turned(angle, is_mirrored=bool(axes[2, 2] < 0))


def _coincident(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Group pieces on the same cylinder or in the same plane."""
    groups: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda p: (p.kind, p.position)):
        last = groups[-1][0] if groups else None
        if last is not None and last.kind == piece.kind and piece.position - last.position < _COINCIDENT:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _without_overlap(group: list[_Piece]) -> list[_Piece]:
    """Cut pieces of one cylinder or plane so that the first in the file counts at each point; join equal ones."""
    edges = np.unique([e for p in group for e in (p.low, p.high)])
    edges = edges[np.append(True, np.diff(edges) > _SAME_EDGE)]
    out: list[_Piece] = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        middle = (low + high) / 2
        owner = min((p for p in group if p.low <= middle <= p.high), key=lambda p: p.order, default=None)
        if owner is None:
            continue
        last = out[-1] if out else None
        if last and last.high == low and last.slab == owner.slab and last.material_map == owner.material_map:
            out[-1] = last._replace(high=high)
        else:
            out.append(owner._replace(position=group[0].position, low=low, high=high))
    return out


def _set_apart(pieces: list[_Piece]) -> list[_Piece]:
    """Move pieces that overlap apart, in the order of their positions."""
    out: list[_Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.kind, p.position, not p.is_portal, p.order)):
        position = piece.position
        while any(
            p.kind == piece.kind
            and abs(p.position - position) < _COINCIDENT / 2
            and min(p.high, piece.high) - max(p.low, piece.low) > _SAME_EDGE
            for p in out
        ):
            position += _COINCIDENT
        out.append(piece._replace(position=position))
    return out
