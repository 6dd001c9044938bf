"""A magnetic field on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.field.strength import check_strength
from traccc_py.geometry.records import CartesianField, CylindricalField
from traccc_py.units import T

__all__ = ["FieldMap"]

_KINDS = {3: ("x", "y", "z"), 2: ("r", "z")}  # axes by number of dimensions
_ON_AXIS = 1e-6  # the first node may be this far from r = 0, in distances between nodes
_ON_PLANE = 1e-3  # ... and from a plane of symmetry
_ODD_PART = 0.02  # of the largest field: components that have to vanish at a plane of symmetry


def _strongest(values: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("...k,...k", values, values, dtype=np.float64).max()))


@dataclass(frozen=True, eq=False)
class FieldMap:
    """A magnetic field on a regular grid in x, y, z, or in r, z if it has rotational symmetry around z.

    Parameters
    ----------
    values : array of shape (nx, ny, nz, 3) or (nr, nz, 2)
        Bx, By, Bz, or Br, Bz at the nodes [T]; kept as float32. At least two nodes along each axis.
    origin : sequence of 3 or 2 floats
        Position of the first node [mm]; r starts at 0.
    spacing : sequence of 3 or 2 floats
        Distances between nodes [mm].

    Raises
    ------
    GeometryError
        If shapes don't fit together, or a value is not finite or not possible: fields of 20 T and more are mistakes.

    Notes
    -----
    Between nodes Bx, By, Bz are linear in x, y, z; of an (r, z) map Br / r and Bz are linear in r and z. Outside of the
    map the field is that of the nearest point inside.
    """

    values: np.ndarray
    origin: tuple[float, ...]
    spacing: tuple[float, ...]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):  # infinities are refused below
            values = np.ascontiguousarray(self.values, np.float32)
        n_axes = values.ndim - 1
        if n_axes not in _KINDS or values.shape[-1] != n_axes or min(values.shape[:-1]) < 2:  # noqa: PLR2004
            msg = (
                f"field values have shape {values.shape}; expected (nx, ny, nz, 3) or (nr, nz, 2) with at least two "
                "nodes along each axis"
            )
            raise GeometryError(msg)
        for name in ("origin", "spacing"):
            numbers = tuple(float(v) for v in getattr(self, name))
            if len(numbers) != n_axes or not np.isfinite(numbers).all():
                msg = f"{name} of a field map is {numbers}; expected {n_axes} finite numbers, {', '.join(self.axes)}"
                raise GeometryError(msg)
            object.__setattr__(self, name, numbers)
        if min(self.spacing) <= 0:
            msg = f"spacing of a field map is {self.spacing}; expected numbers > 0"
            raise GeometryError(msg)
        if self.axes[0] == "r" and abs(self.origin[0]) > _ON_AXIS * self.spacing[0]:
            msg = f"r of a field map starts at {self.origin[0]} mm; expected 0"
            raise GeometryError(msg)
        if not np.isfinite(values).all():
            node = tuple(int(k) for k in np.argwhere(~np.isfinite(values))[0][:-1])
            msg = f"the field at node {node} is {values[node].tolist()} T; expected finite numbers"
            raise GeometryError(msg)
        check_strength(_strongest(values), "the largest field of the map")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        """Return the extent and the number of nodes."""
        extents = zip(self.axes, self.nodes, strict=True)
        ranges = ", ".join(f"{axis} {n[0]:g} ... {n[-1]:g} mm ({len(n)})" for axis, n in extents)
        return f"FieldMap({ranges})"

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes: ("x", "y", "z") or ("r", "z")."""
        return _KINDS[np.ndim(self.values) - 1]

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        """Positions of the nodes along each axis, float64 [mm]."""
        shape = self.values.shape[:-1]
        return tuple(o + s * np.arange(n) for o, s, n in zip(self.origin, self.spacing, shape, strict=True))

    @property
    def strongest(self) -> float:
        """Largest field strength at a node [T]."""
        return _strongest(self.values)

    def is_mirrorable(self, axis: str) -> bool:
        """Whether the map begins or ends at 0 along an axis, or half a distance between nodes away from it."""
        k = self.axes.index(axis)
        nodes, spacing = self.nodes[k], self.spacing[k]
        ends = np.array([nodes[0], -nodes[-1]]) / spacing
        return bool((np.minimum(abs(ends), abs(ends - 0.5)) <= _ON_PLANE).any())

    def mirrored(self, axes: str) -> FieldMap:
        """Return the map of the whole field of which this is one side.

        Parameters
        ----------
        axes : str
            Axes that are mirrored: "z" of a half, "xy" of a quadrant, "xyz" of an octant; of an (r, z) map "z".

        Returns
        -------
        FieldMap
            The map on both sides of 0.

        Raises
        ------
        GeometryError
            If the map does not begin or end at 0 (or half a distance between nodes away) along an axis, or a component
            that changes its sign there does not vanish.

        Notes
        -----
        The symmetry is that of a solenoid around z with its middle at the origin: Bz is the same on both sides of each
        plane; Bx changes its sign at x = 0, By at y = 0, and Bx, By or Br at z = 0.
        """
        if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(self.axes) - {"r"}:
            known = ", ".join(a for a in self.axes if a != "r")
            msg = f"a field map is mirrored at {axes!r}; expected some of its axes {known}, each once"
            raise GeometryError(msg)
        found = self
        for axis in axes:
            found = found._mirrored_at(axis)
        return found

    def _mirrored_at(self, axis: str) -> FieldMap:
        k = self.axes.index(axis)
        nodes, spacing = self.nodes[k], self.spacing[k]
        if not self.is_mirrorable(axis):
            msg = (
                f"{axis} of a field map goes from {nodes[0]:g} to {nodes[-1]:g} mm; expected one side of a symmetric "
                f"field, which begins or ends at {axis} = 0 or half a distance between nodes ({spacing / 2:g} mm) away"
            )
            raise GeometryError(msg)
        is_odd = [component != "z" if axis == "z" else component == axis for component in self.axes]
        reflected = np.flip(self.values, k) * np.where(is_odd, np.float32(-1), np.float32(1)) + np.float32(0)  # no -0
        is_upper = abs(nodes[0]) < abs(nodes[-1])
        lower, upper = (reflected, self.values) if is_upper else (self.values, reflected)
        if np.abs(nodes).min() <= _ON_PLANE * spacing:  # its nodes stand once
            odd_part = float(np.abs(np.take(upper, 0, k)[..., is_odd]).max())
            if odd_part > _ODD_PART * self.strongest:
                names = " and ".join(f"B{a}" for a, odd in zip(self.axes, is_odd, strict=True) if odd)
                msg = (
                    f"{names} of a field map is up to {odd_part:.3g} T at {axis} = 0; expected 0 of a field that is "
                    "symmetric there as that of a solenoid"
                )
                raise GeometryError(msg)
            upper = np.delete(upper, 0, k)
        origin = [*self.origin[:k], -float(np.abs(nodes).max()), *self.origin[k + 1 :]]
        return FieldMap(np.concatenate([lower, upper], k), tuple(origin), self.spacing)

    def at(self, positions: Any) -> np.ndarray:
        """Return the field at positions.

        Parameters
        ----------
        positions : array-like of shape (..., 3)
            x, y, z [mm].

        Returns
        -------
        ndarray of shape (..., 3), float64
            Bx, By, Bz [T].
        """
        positions = np.asarray(positions, np.float64)
        if self.axes[0] == "x":
            return self._interpolated(self.values, positions)
        radius = np.hypot(positions[..., 0], positions[..., 1])
        found = self._interpolated(self._over_radius(), np.stack([radius, positions[..., 2]], axis=-1))
        # outside of the map Br, not Br / r, is that of the edge
        edge = self.nodes[0][-1]
        scale = found[..., 0] * edge / np.maximum(radius, edge)
        return np.stack([positions[..., 0] * scale, positions[..., 1] * scale, found[..., 1]], axis=-1)

    def _interpolated(self, values: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        shape = np.array(values.shape[:-1])
        place = np.clip((coordinates - self.origin) / np.array(self.spacing), 0, shape - 1)
        low = np.minimum(place.astype(np.int64), shape - 2)
        fraction = place - low
        total = np.zeros((*coordinates.shape[:-1], values.shape[-1]))
        for corner in np.ndindex(*(2,) * len(shape)):
            weight = np.prod(np.where(corner, fraction, 1 - fraction), axis=-1, keepdims=True)
            total += weight * values[tuple(np.moveaxis(low + corner, -1, 0))]
        return total

    def _over_radius(self) -> np.ndarray:
        """Return Br / r and Bz of an (r, z) map; on the axis Br / r is that of the next node."""
        out = self.values.astype(np.float64)
        radius = self.nodes[0]
        out[1:, :, 0] /= radius[1:, None]
        out[0, :, 0] = out[1, :, 0]
        return out

    def record(self) -> CartesianField | CylindricalField:
        """Return the map as kernels read it, in GeV / (e mm)."""
        b_z = np.float32(self.at(np.zeros(3))[2] * T)
        per_mm = [np.float32(1 / s) for s in self.spacing]
        origin = [np.float32(o) for o in self.origin]
        if self.axes[0] == "x":
            return CartesianField(b_z, (self.values * T).astype(np.float32), *origin, *per_mm)
        return CylindricalField(b_z, (self._over_radius() * T).astype(np.float32), origin[1], *per_mm)
