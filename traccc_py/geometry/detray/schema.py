"""Read detray's geometry file: its volumes and surfaces, checked, in columns.

Format of detray 0.99 and later, `io/frontend/payloads.hpp` and `io/json`. A rotation lists the local axes x, y, z in
global coordinates. Violations of the format are errors that name file and key path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from traccc_py.geometry.json_node import JsonNode

__all__ = [
    "MAX_LENGTH",
    "NO_LINK",
    "N_BOUNDARIES",
    "DetrayGeometry",
    "DetrayShape",
    "DetrayTag",
    "Mask",
    "SurfaceKind",
    "detray_identifiers",
    "ordered",
    "parse_geometry",
    "read_header",
]

NO_LINK = 0xFFFF  #: link out of the world
MAX_LENGTH = 1e6  #: [mm], larger numbers are mistakes
_MAX_SOURCE = 2**64 - 1
_MAX_VOLUMES = 2**12 - 1  #: of detray's identifiers
_MAX_SURFACES = 2**21 - 1
_ORTHONORMAL = 1e-5  #: deviation of axes from an orthonormal right-handed frame that is accepted [1]
_MIN_LENGTH = 1e-6  #: of half lengths [mm]
_COUNTER = re.compile(r"_\d+$")


class SurfaceKind(IntEnum):
    """Type of a surface."""

    PORTAL = 0
    SENSITIVE = 1
    PASSIVE = 2


class DetrayShape(IntEnum):
    """Shape of a mask."""

    ANNULUS = 0
    CUBOID = 1
    CYLINDER = 2
    CYLINDER3 = 3
    CONCENTRIC_CYLINDER = 4
    RECTANGLE = 5
    RING = 6
    TRAPEZOID = 7
    DRIFT_CELL = 8
    STRAW_TUBE = 9
    SINGLE_X = 10
    SINGLE_Y = 11
    SINGLE_Z = 12


class DetrayTag:
    """Content of a file, by its header."""

    GEOMETRY = "geometry"
    HOMOGENEOUS = "homogeneous_material"
    MAPS = "material_maps"
    GRIDS = "surface_grids"


#: Numbers that describe a mask.
N_BOUNDARIES = {
    DetrayShape.ANNULUS: 7,
    DetrayShape.CYLINDER: 3,
    DetrayShape.CONCENTRIC_CYLINDER: 3,
    DetrayShape.RECTANGLE: 2,
    DetrayShape.RING: 2,
    DetrayShape.TRAPEZOID: 4,
}
_UNSUPPORTED = (
    "straws, drift cells, cuboids and single values are not supported: tracks are made of crossings of thin surfaces"
)


class Mask(NamedTuple):
    """Outline of a surface, and the volume behind it."""

    shape: DetrayShape
    volume_link: int  # NO_LINK: the world's end
    boundaries: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DetrayGeometry:
    """A geometry file; surfaces in detray's global order."""

    name: str  # of the detector
    volume_names: tuple[str, ...]
    volume: np.ndarray  # (n_surfaces,) int64, volume of each surface
    kind: np.ndarray  # (n_surfaces,) int64, SurfaceKind
    source: np.ndarray  # (n_surfaces,) uint64, Acts geometry id; 0 or all ones: none
    centre: np.ndarray  # (n_surfaces, 3) float64 [mm]
    axes: np.ndarray  # (n_surfaces, 3, 3) float64, rows are the local axes
    masks: tuple[tuple[Mask, ...], ...]
    nodes: tuple[JsonNode, ...]  # for errors
    first_surface: np.ndarray  # (n_volumes + 1,) int64, first surface of each volume

    @property
    def identifiers(self) -> np.ndarray:
        """Identifiers in detray, (n_surfaces,) uint64."""
        return detray_identifiers(self.volume, self.kind)

    def volume_name(self, volume: int) -> str:
        """Return the name of a volume without detray's counter."""
        return _COUNTER.sub("", self.volume_names[volume])


def detray_identifiers(volume: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Return the identifiers of surfaces in a detector that detray reads.

    Parameters
    ----------
    volume : ndarray of shape (n,), int
        Volume of each surface, ascending.
    kind : ndarray of shape (n,), int
        SurfaceKind.

    Returns
    -------
    ndarray of shape (n,), uint64
        Bits, high to low: volume 12, kind 4, number of the surface 21, number of its transform 21, extra 6 (all ones).

    Notes
    -----
    The transform of a volume goes before those of its surfaces, hence surface i of volume v has transform i + v + 1.
    """
    index = np.arange(len(volume), dtype=np.uint64)
    v, k = np.asarray(volume).astype(np.uint64), np.asarray(kind).astype(np.uint64)
    shifts = [np.uint64(s) for s in (52, 48, 27, 6)]
    transform = index + v + np.uint64(1)
    return (v << shifts[0]) | (k << shifts[1]) | (index << shifts[2]) | (transform << shifts[3]) | np.uint64(0x3F)


def read_header(top: JsonNode, tags: Sequence[str]) -> tuple[str, str]:
    """Return tag and detector name of a file; raise GeometryError if the tag is none of `tags`."""
    common = top.at("header.common")
    tag = common.at("tag")
    if tag.value not in tags:
        tag.fail(f"is {tag.shown()}; expected {' or '.join(repr(t) for t in tags)}")
    return tag.text(), common.at("detector").text()


def parse_geometry(top: JsonNode) -> DetrayGeometry:
    """Read and check a geometry file.

    Parameters
    ----------
    top : JsonNode
        Top level of the file.

    Returns
    -------
    DetrayGeometry
        Its content.

    Raises
    ------
    GeometryError
        With file and key path, if it breaks the format.
    """
    _, name = read_header(top, [DetrayTag.GEOMETRY])
    volumes = top.at("data.volumes").items()
    if not 1 <= len(volumes) <= _MAX_VOLUMES:
        top.at("data.volumes").fail(f"has {len(volumes)} volumes; expected 1 to {_MAX_VOLUMES}")
    names, surfaces, counts = [], [], []
    for i, volume in enumerate(volumes):
        index = volume.at("index")
        if index.integer(0, NO_LINK) != i:
            index.fail(f"is {index.shown()}; expected {i}: volumes must be in the order of their indices")
        names.append(volume.at("name").text())
        of_volume = ordered(volume.at("surfaces").items(), "index_in_coll")
        counts.append(len(of_volume))
        surfaces += of_volume
    if len(surfaces) > _MAX_SURFACES:
        top.at("data.volumes").fail(f"has {len(surfaces)} surfaces; expected at most {_MAX_SURFACES}")
    _check_counts(top, len(volumes), len(surfaces))
    return _columns(name, names, surfaces, np.asarray(counts))


def _check_counts(top: JsonNode, n_volumes: int, n_surfaces: int) -> None:
    for key, count in (("volume_count", n_volumes), ("surface_count", n_surfaces)):
        stated = top.at("header").get(key)
        if stated is not None and stated.value != count:
            stated.fail(f"is {stated.shown()}, but the file has {count}: is it complete?")


def ordered(nodes: list[JsonNode], key: str) -> list[JsonNode]:
    """Return nodes in the order of their `key`, which all or none of them have."""
    found = [node.get(key) for node in nodes]
    if not nodes or found[0] is None:
        for node in found:
            if node is not None:
                node.fail("is set, but not for all elements")
        return nodes
    places: list[JsonNode | None] = [None] * len(nodes)
    for node, place in zip(nodes, found, strict=True):
        if place is None:
            node.fail(f"has no {key!r}, but the first element has")
        i = place.integer(0, len(nodes) - 1)
        if places[i] is not None:
            place.fail(f"is {i}, as that of {places[i].path}")  # type: ignore[union-attr]
        places[i] = node
    return [node for node in places if node is not None]


def _columns(name: str, volume_names: list[str], nodes: list[JsonNode], counts: np.ndarray) -> DetrayGeometry:
    first = np.concatenate([[0], np.cumsum(counts)])
    volume = np.repeat(np.arange(len(counts)), counts)
    kind, source, placements, masks = [], [], [], []
    for node, own in zip(nodes, volume.tolist(), strict=True):
        kind.append(node.at("type").integer(0, len(SurfaceKind) - 1))
        source.append(node.at("source").integer(0, _MAX_SOURCE))
        transform = node.at("transform")
        placements.append(
            transform.at("translation").numbers(3, MAX_LENGTH) + transform.at("rotation").numbers(9, MAX_LENGTH)
        )
        masks.append(_masks(node, kind[-1], own, len(counts)))
    placed = np.array(placements, np.float64).reshape(-1, 12)
    axes = _orthonormal(placed[:, 3:].reshape(-1, 3, 3), nodes)
    return DetrayGeometry(
        name=name,
        volume_names=tuple(volume_names),
        volume=volume,
        kind=np.array(kind, np.int64),
        source=np.array(source, np.uint64),
        centre=placed[:, :3],
        axes=axes,
        masks=tuple(masks),
        nodes=tuple(nodes),
        first_surface=first,
    )


def _orthonormal(axes: np.ndarray, nodes: list[JsonNode]) -> np.ndarray:
    """Return the axes, orthonormal and right-handed; the file's rounding is removed, larger deviations are errors."""
    deviation = np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(3)).max((1, 2), initial=0)
    deviation = np.maximum(deviation, np.abs(np.cross(axes[:, 0], axes[:, 1]) - axes[:, 2]).max(1, initial=0))
    bad = np.flatnonzero(~(deviation < _ORTHONORMAL))
    if len(bad):
        rotation = nodes[bad[0]].at("transform.rotation")
        rotation.fail(
            f"is off an orthonormal right-handed frame by {deviation[bad[0]]:.2g}; expected local x, y, z axes"
        )
    w = axes[:, 2] / np.linalg.norm(axes[:, 2], axis=1, keepdims=True)
    u = axes[:, 0] - np.sum(axes[:, 0] * w, axis=1, keepdims=True) * w
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    exact = np.stack([u, np.cross(w, u), w], axis=1)
    # exact axes are unchanged
    return np.where(deviation[:, None, None] < 1e-14, axes, exact)  # noqa: PLR2004


def _masks(surface: JsonNode, kind: int, own_volume: int, n_volumes: int) -> tuple[Mask, ...]:
    plural = surface.get("masks")
    nodes = [surface.at("mask")] if plural is None and surface.get("mask") is not None else surface.at("masks").items()
    if not nodes:
        surface.at("masks").fail("is empty; expected at least one mask")
    return tuple(_mask(node, kind, own_volume, n_volumes) for node in nodes)


def _mask(node: JsonNode, kind: int, own_volume: int, n_volumes: int) -> Mask:
    shape = DetrayShape(node.at("shape").integer(0, len(DetrayShape) - 1))
    count = N_BOUNDARIES.get(shape)
    if count is None:
        node.at("shape").fail(f"is {int(shape)} ({shape.name.lower()}); {_UNSUPPORTED}")
    link = node.at("volume_link")
    target = min(link.integer(0, _MAX_SOURCE), NO_LINK)
    if kind == SurfaceKind.PORTAL:
        if target != NO_LINK and target >= n_volumes:
            link.fail(f"is {target}; expected a volume, 0 to {n_volumes - 1}, or {NO_LINK} for the world's end")
    elif target != own_volume:
        link.fail(f"is {link.shown()}; expected {own_volume}, the volume of the surface")
    boundaries = node.at("boundaries")
    values = tuple(float(v) for v in boundaries.numbers(count, MAX_LENGTH))
    problem = _boundary_problem(shape, values)
    if problem:
        boundaries.fail(f"is {list(values)}; expected {problem}")
    return Mask(shape, target, values)


def _boundary_problem(shape: DetrayShape, b: tuple[float, ...]) -> str:
    """Return the requirement that the boundaries violate, or nothing."""
    if shape == DetrayShape.RECTANGLE and not min(b) >= _MIN_LENGTH:
        return f"two half lengths > {_MIN_LENGTH} mm"
    if shape == DetrayShape.TRAPEZOID and not (min(b[:2]) >= 0 and max(b[:2]) >= _MIN_LENGTH and b[2] >= _MIN_LENGTH):
        return f"half lengths in x at -y and +y, and in y, > {_MIN_LENGTH} mm, and 1 / (2 y)"
    if shape in (DetrayShape.CYLINDER, DetrayShape.CONCENTRIC_CYLINDER) and not (b[0] >= _MIN_LENGTH and b[1] < b[2]):
        return "radius > 0, z min < z max"
    if shape in (DetrayShape.RING, DetrayShape.ANNULUS) and not 0 <= b[0] < b[1]:
        return "0 <= r min < r max"
    if shape == DetrayShape.ANNULUS and not (b[2] < b[3] and max(abs(a) for a in b[2:5]) <= 2 * np.pi):
        return "relative phi min < phi max and angles of at most 2 pi"
    return ""
