"""The magnetic field at a point: homogeneous, or interpolated in a map.

The kind of field is told by the number of members of its tuple (`geometry.records`). Numba replaces the `len` of an
argument by a number and drops the branches that are not taken, so a kernel contains the code of one kind alone.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import CartesianField, HomogeneousField
from traccc_py.kernels.tracking.helix import helix_displacement, turned

__all__ = [
    "HOMOGENEOUS",
    "bending_field",
    "field_and_gradient",
    "field_at",
    "field_in_precision",
    "local_turn",
    "position_ahead",
    "turn_ahead",
]

HOMOGENEOUS = len(HomogeneousField._fields)
_CARTESIAN = len(CartesianField._fields)
_ZERO = scalar(0)
_ONE = scalar(1)
_THIRD = scalar(1 / 3)
_NEAR_AXIS = scalar(1e-6)  # of the distance between nodes


def field_in_precision(field, real):
    """Return a detector's field with its scalars in the precision of a kernel's payload."""
    return type(field)(*(member if np.ndim(member) else real(member) for member in field))


@device_function
def _cell(value, low, nodes_per_mm, n):
    """Return (index of the node below, fraction of the way to the next); clamped to the map."""
    place = min(max((value - low) * nodes_per_mm, _ZERO * value), scalar(n - 1) + _ZERO * value)
    i = max(np.int32(0), min(np.int32(place), np.int32(n - 2)))  # not a number becomes any integer
    return i, place - scalar(i)


@device_function
def _between(a, b, fraction):
    """Return the 3-vector between two."""
    return a[0] + fraction * (b[0] - a[0]), a[1] + fraction * (b[1] - a[1]), a[2] + fraction * (b[2] - a[2])


@device_function
def _slope(a, b, per_mm):
    """Return the change from a to b per mm."""
    return per_mm * (b[0] - a[0]), per_mm * (b[1] - a[1]), per_mm * (b[2] - a[2])


@device_function
def _node(values, i, j, k):
    """Return the field at a node of a Cartesian map."""
    return values[i, j, k, 0], values[i, j, k, 1], values[i, j, k, 2]


@device_function
def _in_cartesian_map(field, position):
    """Return (field, its derivatives by x, y and z)."""
    values = field.values
    i, fx = _cell(position[0], field.x_min, field.nodes_per_x, values.shape[0])
    j, fy = _cell(position[1], field.y_min, field.nodes_per_y, values.shape[1])
    k, fz = _cell(position[2], field.z_min, field.nodes_per_z, values.shape[2])
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
    return (
        _between(low, high, fz),
        _slope(near, far, field.nodes_per_x),
        _slope(front, back, field.nodes_per_y),
        _slope(low, high, field.nodes_per_z),
    )


@device_function
def _in_cylindrical_map(field, position):
    """Return (field, its derivatives by x, y and z)."""
    x, y = position[0], position[1]
    values = field.values
    r = math.sqrt(x * x + y * y)
    i, fr = _cell(r, _ZERO * r, field.nodes_per_r, values.shape[0])
    k, fz = _cell(position[2], field.z_min, field.nodes_per_z, values.shape[1])
    q_near = values[i, k, 0] + fz * (values[i, k + 1, 0] - values[i, k, 0])
    q_far = values[i + 1, k, 0] + fz * (values[i + 1, k + 1, 0] - values[i + 1, k, 0])
    z_near = values[i, k, 1] + fz * (values[i, k + 1, 1] - values[i, k, 1])
    z_far = values[i + 1, k, 1] + fz * (values[i + 1, k + 1, 1] - values[i + 1, k, 1])
    q_low = values[i, k, 0] + fr * (values[i + 1, k, 0] - values[i, k, 0])
    q_high = values[i, k + 1, 0] + fr * (values[i + 1, k + 1, 0] - values[i, k + 1, 0])
    z_low = values[i, k, 1] + fr * (values[i + 1, k, 1] - values[i, k, 1])
    z_high = values[i, k + 1, 1] + fr * (values[i + 1, k + 1, 1] - values[i, k + 1, 1])
    edge = scalar(values.shape[0] - 1)
    q = q_near + fr * (q_far - q_near)
    if r * field.nodes_per_r > edge:  # outside of the map Br, not Br / r, is that of the edge
        q = q * edge / (r * field.nodes_per_r)
    over = _ONE / max(r, _NEAR_AXIS / field.nodes_per_r)
    q_by_r = (q_far - q_near) * field.nodes_per_r * over
    z_by_r = (z_far - z_near) * field.nodes_per_r * over
    q_by_z = (q_high - q_low) * field.nodes_per_z
    return (
        (q * x, q * y, z_near + fr * (z_far - z_near)),
        (q + x * x * q_by_r, x * y * q_by_r, x * z_by_r),
        (x * y * q_by_r, q + y * y * q_by_r, y * z_by_r),
        (x * q_by_z, y * q_by_z, (z_high - z_low) * field.nodes_per_z),
    )


@device_function
def field_and_gradient(field, position):
    """Return (B, dB/dx, dB/dy, dB/dz) in a map [GeV / (e mm)] at a position [mm]."""
    if len(field) == _CARTESIAN:
        return _in_cartesian_map(field, position)
    return _in_cylindrical_map(field, position)


@device_function
def field_at(field, position):
    """Return (Bx, By, Bz) in a map [GeV / (e mm)] at a position [mm]."""
    return field_and_gradient(field, position)[0]


@device_function
def bending_field(field, position, trig):
    """Return the field along z that would turn a track's phi as fast as the field at a position does."""
    if len(field) == HOMOGENEOUS:
        return field.b_z
    b = field_at(field, position)
    return b[2] - trig[3] / trig[2] * (b[0] * trig[1] + b[1] * trig[0])


@device_function
def local_turn(field, position, trig, qop):
    """Return the change of phi per path length [rad/mm] of a track at a position: the helix that touches it there."""
    return -qop * bending_field(field, position, trig)


@device_function
def turn_ahead(field, position, trig, turn, path, qop):
    """Return the turn of the helix from here that best meets the track after a path length.

    The sideways shift after a path s is the integral of (s - s') turn(s') ds': in a field that changes evenly it is
    that of the field at s / 3.
    """
    if len(field) == HOMOGENEOUS:
        return turn
    part = path * _THIRD
    d = helix_displacement(trig, turn, part)
    there = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
    return local_turn(field, there, turned(trig, turn, part), qop)


@device_function
def position_ahead(field, position, trig, turn, path, crossing):
    """Return the place a path length ahead; in a homogeneous field that is the `crossing` known already."""
    if len(field) == HOMOGENEOUS:
        return crossing
    d = helix_displacement(trig, turn, path)
    return position[0] + d[0], position[1] + d[1], position[2] + d[2]
