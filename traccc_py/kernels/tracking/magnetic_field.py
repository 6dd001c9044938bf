"""The magnetic field at a point: homogeneous, or interpolated in a map.

The kind of field is told by the number of members of its tuple (`geometry.records`). Numba replaces the `len` of an
argument by a number and drops the branches that are not taken, so a kernel contains the code of one kind alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import CartesianField, HomogeneousField
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.tracking.helix import direction_after, helix_displacement
from traccc_py.kernels.tracking.linalg import add
from traccc_py.kernels.tracking.state import Vector

__all__ = [
    "HOMOGENEOUS",
    "FieldAndGradient",
    "bending_field",
    "curvature_ahead",
    "field_and_gradient",
    "field_at",
    "field_in_precision",
    "local_curvature",
    "position_ahead",
]

HOMOGENEOUS = len(HomogeneousField._fields)
_CARTESIAN = len(CartesianField._fields)
_THIRD = scalar(1 / 3)
_NEAR_AXIS = scalar(1e-6)  # of the distance between nodes
_BX, _BY, _BZ = range(3)  # last index of the values of a Cartesian map
_BR_OVER_R, _BZ_OF_R = range(2)  # of a cylindrical map


class FieldAndGradient(NamedTuple):
    """The field at a point and its derivatives along the global axes."""

    b: Any  # Vector [GeV / (e mm)]
    by_x: Any  # Vector [GeV / (e mm^2)]
    by_y: Any
    by_z: Any


def field_in_precision(field, real):
    """Return a detector's field with its scalars in the precision of a kernel's payload."""
    return type(field)(*(member if np.ndim(member) else real(member) for member in field))


@device_function
def _cell(value, low, nodes_per_mm, n):
    """Return (index of the node below, fraction of the way to the next); clamped to the map."""
    place = min(max((value - low) * nodes_per_mm, ZERO * value), scalar(n - 1) + ZERO * value)
    i = max(np.int32(0), min(np.int32(place), np.int32(n - 2)))  # not a number becomes any integer
    return i, place - scalar(i)


@device_function
def _between(a, b, fraction):
    """Return the vector between two."""
    return Vector(a.x + fraction * (b.x - a.x), a.y + fraction * (b.y - a.y), a.z + fraction * (b.z - a.z))


@device_function
def _slope(a, b, per_mm):
    """Return the change from a to b per mm."""
    return Vector(per_mm * (b.x - a.x), per_mm * (b.y - a.y), per_mm * (b.z - a.z))


@device_function
def _node(values, i, j, k):
    """Return the field at a node of a Cartesian map."""
    return Vector(values[i, j, k, _BX], values[i, j, k, _BY], values[i, j, k, _BZ])


@device_function
def _in_cartesian_map(field, position):
    values = field.values
    i, fx = _cell(position.x, field.x_min, field.nodes_per_x, values.shape[0])
    j, fy = _cell(position.y, field.y_min, field.nodes_per_y, values.shape[1])
    k, fz = _cell(position.z, field.z_min, field.nodes_per_z, values.shape[2])
    low00, high00 = _node(values, i, j, k), _node(values, i, j, k + 1)
    low01, high01 = _node(values, i, j + 1, k), _node(values, i, j + 1, k + 1)
    low10, high10 = _node(values, i + 1, j, k), _node(values, i + 1, j, k + 1)
    low11, high11 = _node(values, i + 1, j + 1, k), _node(values, i + 1, j + 1, k + 1)
    low0, high0 = _between(low00, low01, fy), _between(high00, high01, fy)
    low1, high1 = _between(low10, low11, fy), _between(high10, high11, fy)
    low, high = _between(low0, low1, fx), _between(high0, high1, fx)
    near, far = _between(low0, high0, fz), _between(low1, high1, fz)
    front = _between(_between(low00, high00, fz), _between(low10, high10, fz), fx)
    back = _between(_between(low01, high01, fz), _between(low11, high11, fz), fx)
    return FieldAndGradient(
        b=_between(low, high, fz),
        by_x=_slope(near, far, field.nodes_per_x),
        by_y=_slope(front, back, field.nodes_per_y),
        by_z=_slope(low, high, field.nodes_per_z),
    )


@device_function
def _in_cylindrical_map(field, position):
    x, y = position.x, position.y
    values = field.values
    r = math.sqrt(x * x + y * y)
    i, fr = _cell(r, ZERO * r, field.nodes_per_r, values.shape[0])
    k, fz = _cell(position.z, field.z_min, field.nodes_per_z, values.shape[1])
    q00, q01 = values[i, k, _BR_OVER_R], values[i, k + 1, _BR_OVER_R]
    q10, q11 = values[i + 1, k, _BR_OVER_R], values[i + 1, k + 1, _BR_OVER_R]
    z00, z01 = values[i, k, _BZ_OF_R], values[i, k + 1, _BZ_OF_R]
    z10, z11 = values[i + 1, k, _BZ_OF_R], values[i + 1, k + 1, _BZ_OF_R]
    q_near, q_far = q00 + fz * (q01 - q00), q10 + fz * (q11 - q10)
    z_near, z_far = z00 + fz * (z01 - z00), z10 + fz * (z11 - z10)
    q_low, q_high = q00 + fr * (q10 - q00), q01 + fr * (q11 - q01)
    z_low, z_high = z00 + fr * (z10 - z00), z01 + fr * (z11 - z01)
    edge = scalar(values.shape[0] - 1)
    q = q_near + fr * (q_far - q_near)
    if r * field.nodes_per_r > edge:  # outside of the map Br, not Br / r, is that of the edge
        q = q * edge / (r * field.nodes_per_r)
    over = ONE / max(r, _NEAR_AXIS / field.nodes_per_r)
    q_by_r = (q_far - q_near) * field.nodes_per_r * over
    z_by_r = (z_far - z_near) * field.nodes_per_r * over
    q_by_z = (q_high - q_low) * field.nodes_per_z
    return FieldAndGradient(
        b=Vector(q * x, q * y, z_near + fr * (z_far - z_near)),
        by_x=Vector(q + x * x * q_by_r, x * y * q_by_r, x * z_by_r),
        by_y=Vector(x * y * q_by_r, q + y * y * q_by_r, y * z_by_r),
        by_z=Vector(x * q_by_z, y * q_by_z, (z_high - z_low) * field.nodes_per_z),
    )


@device_function
def field_and_gradient(field, position):
    """Return the field in a map at a position [mm], and its gradient."""
    if len(field) == _CARTESIAN:
        return _in_cartesian_map(field, position)
    return _in_cylindrical_map(field, position)


@device_function
def field_at(field, position):
    """Return the field in a map at a position [mm], as a vector [GeV / (e mm)]."""
    return field_and_gradient(field, position).b


@device_function
def bending_field(field, position, direction):
    """Return the field along z that would change a track's phi as fast as the field at a position does."""
    if len(field) == HOMOGENEOUS:
        return field.b_z
    b = field_at(field, position)
    return b.z - direction.cos_theta / direction.sin_theta * (b.x * direction.cos_phi + b.y * direction.sin_phi)


@device_function
def local_curvature(field, position, direction, qop):
    """Return the change of phi per path length [rad/mm] of a track at a position: the helix that touches it there."""
    return -qop * bending_field(field, position, direction)


@device_function
def curvature_ahead(field, position, direction, curvature, path, qop):
    """Return the curvature of the helix from here that best meets the track after a path length.

    The sideways shift after a path s is the integral of (s - s') curvature(s') ds': in a field that changes evenly it
    is that of the field at s / 3.
    """
    if len(field) == HOMOGENEOUS:
        return curvature
    part = path * _THIRD
    there = add(position, helix_displacement(direction, curvature, part))
    return local_curvature(field, there, direction_after(direction, curvature, part), qop)


@device_function
def position_ahead(field, position, direction, curvature, path, crossing):
    """Return the place a path length ahead; in a homogeneous field that is the `crossing` known already."""
    if len(field) == HOMOGENEOUS:
        return crossing
    return add(position, helix_displacement(direction, curvature, path))
