"""Sensitive and passive surfaces of a detector in double precision, and Acts geometry identifiers.

Bits of an Acts geometry identifier, high to low: volume 8, boundary 8, layer 12, approach 8, sensitive 20, extra 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.material.material import Slab
from traccc_py.geometry.records import OUTLINE, LayerKind, Shape

__all__ = [
    "Annulus",
    "GeometryIdFields",
    "PassiveSurface",
    "Surfaces",
    "decode_geometry_id",
    "describe_geometry_id",
    "encode_geometry_id",
]

_VOLUME_SHIFT, _LAYER_SHIFT, _SENSITIVE_SHIFT = (np.uint64(s) for s in (56, 36, 8))
_VOLUME_MASK, _LAYER_MASK, _SENSITIVE_MASK, _EXTRA_MASK = (np.uint64(m) for m in (0xFF, 0xFFF, 0xFFFFF, 0xFF))
_AXES_TOLERANCE = 1e-5  #: largest accepted deviation of the axes from an orthonormal right-handed frame [1]


class GeometryIdFields(NamedTuple):
    """Parts of geometry identifiers."""

    volume: Any
    layer: Any
    sensitive: Any
    extra: Any


def encode_geometry_id(volume: Any, layer: Any, sensitive: Any, extra: Any = 0) -> np.ndarray:
    """Return Acts geometry identifiers, uint64, of numbers or arrays that broadcast."""
    v, la, s, e = (np.asarray(x).astype(np.uint64) for x in (volume, layer, sensitive, extra))
    return (v << _VOLUME_SHIFT) | (la << _LAYER_SHIFT) | (s << _SENSITIVE_SHIFT) | e


def decode_geometry_id(geometry_id: Any) -> GeometryIdFields:
    """Return volume, layer, sensitive and extra number of Acts geometry identifiers, as int64."""
    g = np.asarray(geometry_id).astype(np.uint64)
    parts = (
        (g >> _VOLUME_SHIFT) & _VOLUME_MASK,
        (g >> _LAYER_SHIFT) & _LAYER_MASK,
        (g >> _SENSITIVE_SHIFT) & _SENSITIVE_MASK,
        g & _EXTRA_MASK,
    )
    return GeometryIdFields(*(p.astype(np.int64) for p in parts))


def describe_geometry_id(geometry_id: int) -> str:
    """Return an identifier with its parts, for messages."""
    parts = decode_geometry_id(np.uint64(int(geometry_id) % 2**64))
    return (
        f"{geometry_id} (volume {parts.volume}, layer {parts.layer}, sensitive {parts.sensitive}, extra {parts.extra})"
    )


class PassiveSurface(NamedTuple):
    """A cylinder around the z axis, or a disc perpendicular to it, with material and without sensors."""

    name: str
    kind: LayerKind
    position: float  # radius or z of its middle [mm]
    extent_min: float  # z (cylinder) or r (disc) [mm]
    extent_max: float
    thickness: float  # [mm]
    slab: Slab  # of a map: its mean
    material_map: int = 0  # number of the detector's material map that replaces the slab; 0: none


class Annulus(NamedTuple):
    """Outline of a sensor whose strips point to a focal point, in a local frame with the origin on the sensor.

    With s = (loc0, loc1 + focal), the position relative to the focal point: the angle between s and the axis
    of loc1 is at most `half_opening`, and the distance from (beam_x, beam_y) is r_min to r_max. A ring has focal point
    and beam at its centre, and no limit in angle.
    """

    focal: float  # distance of the focal point below the origin along loc1 [mm]
    beam_x: float  # centre of the circles, in the local frame [mm]
    beam_y: float
    r_min: float  # [mm]
    r_max: float
    half_opening: float  # [rad], pi or more: no limit
    phi_middle: float = 0.0  # angle of the axis of loc1 in the frame that channels are counted in [rad]

    def points(self, angles: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Return local points (n_angles, n_fractions, 2) at angles about the focal point, between the two circles."""
        direction = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        beam = np.array([self.beam_x, self.beam_y + self.focal])
        along = direction @ beam
        across2 = beam @ beam - along**2
        low, high = (along + np.sqrt(np.maximum(r * r - across2, 0.0)) for r in (self.r_min, self.r_max))
        distance = low[:, None] + (high - low)[:, None] * fractions
        return distance[..., None] * direction[:, None] - np.array([0.0, self.focal])


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Planar surfaces, ascending in their geometry id. Global = centre + loc0 u + loc1 v.

    Columns are float64 unless said otherwise, lengths in mm.
    """

    geometry_id: np.ndarray  # (n,) uint64
    centre: np.ndarray  # (n, 3)
    u: np.ndarray  # (n, 3) direction of loc0
    v: np.ndarray  # (n, 3) direction of loc1
    w: np.ndarray  # (n, 3) normal, u x v
    shape: np.ndarray  # (n,) int32, Shape
    hx_min: np.ndarray  # (n,) half width at loc1 = -hy; annuli and rings: of the bounding box
    hx_max: np.ndarray  # (n,) half width at loc1 = +hy
    hy: np.ndarray  # (n,)
    thickness: np.ndarray  # (n,) of the active silicon
    slab: np.ndarray  # (n, 4) columns of Slab; where there is a map, its mean
    material_map: np.ndarray  # (n,) int32, number of the detector's map that replaces the slab; 0: none
    outline: np.ndarray  # (n, 7) columns of Annulus; 0 for rectangles and trapezoids
    is_sensitive: np.ndarray  # (n,) bool; False: material without readout

    def __len__(self) -> int:
        """Return the number of surfaces."""
        return len(self.geometry_id)

    def __getitem__(self, index: Any) -> Surfaces:
        """Return the surfaces selected by a NumPy index of rows."""
        return Surfaces(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Surfaces]) -> Surfaces:
        """Return the surfaces of several tables, sorted by geometry id and checked.

        Raises
        ------
        GeometryError
            If there is no surface, an id occurs twice, the axes are not an orthonormal right-handed frame, or a half
            length is not positive.
        """
        table = cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))
        table = table[np.argsort(table.geometry_id, kind="stable")]
        table.validate()
        return table

    @classmethod
    def planes(cls, geometry_id: np.ndarray, centre: np.ndarray, u: np.ndarray, v: np.ndarray, **rest: Any) -> Surfaces:
        """Return surfaces of one outline: `shape`, `hx_min`, `hx_max`, `hy`, `thickness`, `slab` are single values."""
        n = len(geometry_id)
        columns = {name: np.full(n, float(rest[name])) for name in ("hx_min", "hx_max", "hy", "thickness")}
        return cls(
            geometry_id=np.asarray(geometry_id, np.uint64),
            centre=np.asarray(centre, np.float64),
            u=np.asarray(u, np.float64),
            v=np.asarray(v, np.float64),
            w=np.cross(u, v),
            shape=np.full(n, int(rest["shape"]), np.int32),
            slab=np.tile(np.asarray(rest["slab"], np.float64), (n, 1)),
            material_map=np.zeros(n, np.int32),
            outline=np.zeros((n, len(OUTLINE))),
            is_sensitive=np.ones(n, bool),
            **columns,
        )

    def global_positions(self, rows: np.ndarray, local: np.ndarray) -> np.ndarray:
        """Return the global positions, (n, 3) float64, of local ones, (n, 2), on the surfaces in `rows` [mm]."""
        found = local[:, :1] * self.u[rows]
        found += local[:, 1:] * self.v[rows]
        found += self.centre[rows]
        return found

    def validate(self) -> None:
        """Raise GeometryError if the table can't describe a detector."""
        if not self.is_sensitive.any():
            msg = "the detector has no sensitive surface"
            raise GeometryError(msg)
        is_repeated = np.append(False, self.geometry_id[1:] == self.geometry_id[:-1])
        self._reject(is_repeated, "occurs twice; ids must be unique")
        axes = np.stack([self.u, self.v, self.w], axis=1)
        deviation = np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        deviation += np.abs(np.cross(self.u, self.v) - self.w).max(1)
        self._reject(~(deviation < _AXES_TOLERANCE), "has axes that are not orthonormal and right-handed")
        widths = np.maximum(self.hx_min, self.hx_max)
        bad = ~((self.hy > 0) & (widths > 0) & (self.hx_min >= 0) & (self.hx_max >= 0))
        self._reject(bad, "has a half length that is not positive")
        bad = (self.shape == Shape.RECTANGLE) & (self.hx_min != self.hx_max)
        self._reject(bad, "is a rectangle with two different half widths")

    def _reject(self, is_bad: np.ndarray, what: str) -> None:
        bad = np.flatnonzero(is_bad)
        if len(bad):
            msg = f"surface {describe_geometry_id(self.geometry_id[bad[0]])} {what} ({len(bad)} such surfaces)"
            raise GeometryError(msg)

    def points(self, n_u: int, n_v: int) -> np.ndarray:
        """Return points on each surface: a grid over its outline, edges and corners included.

        Parameters
        ----------
        n_u, n_v : int
            Number of points along each local axis, at least 2.

        Returns
        -------
        ndarray of shape (n, n_u * n_v, 3), float64
            Global positions [mm].
        """
        s, t = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, n_u), np.linspace(-1, 1, n_v), indexing="ij"))
        middle, slope = (self.hx_max + self.hx_min) / 2, (self.hx_max - self.hx_min) / 2
        loc0 = (middle[:, None] + slope[:, None] * t) * s
        loc1 = self.hy[:, None] * t
        for i in np.flatnonzero(self.shape >= Shape.ANNULUS):
            outline = Annulus(*self.outline[i].tolist())
            opening = min(outline.half_opening, np.pi)
            local = outline.points(opening * np.linspace(-1, 1, n_u), np.linspace(0, 1, n_v)).reshape(-1, 2)
            loc0[i], loc1[i] = local[:, 0], local[:, 1]
        return self.centre[:, None] + loc0[..., None] * self.u[:, None] + loc1[..., None] * self.v[:, None]
