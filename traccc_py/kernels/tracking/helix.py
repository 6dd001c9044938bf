"""Helices in a field along z: positions, crossings with planes and cylinders, and derivatives.

Everything is written with sinc functions of half the turning angle and relative to the start point: differences of
sines of absolute angles lose the sagitta in float32 (several micrometres at 100 GeV).

``curvature`` = -q/p B_z is the change of phi per path length [rad/mm], so phi(s) = phi + curvature * s; the curvature
of the circle in the transverse plane is curvature / sin(theta).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import HALF, INFINITY, ONE, PI, QUARTER, TWO, ZERO
from traccc_py.kernels.tracking.linalg import add_scaled, cross, dot, scaled, sinc_pair, sincos
from traccc_py.kernels.tracking.state import Direction, Jacobian, Vector

__all__ = [
    "HelixColumn",
    "curvilinear_axes",
    "direction_after",
    "direction_of",
    "helix_displacement",
    "helix_jacobian",
    "is_outwards",
    "path_to_beam_line",
    "path_to_cylinder",
    "path_to_plane",
    "unit_vector",
]

_CONVERGED = scalar(2e-5)  # [mm], a tenth of the rounding of coordinates at 1 m
_MAX_NEWTON = 6
_A3, _A5, _A7 = (scalar(c) for c in (-1 / 3, 1 / 5, -1 / 7))  # Taylor coefficients of atan(x) / x
_SMALL = scalar(0.1)


class HelixColumn(NamedTuple):
    """Derivatives of the parameters that change along a helix, with respect to one start parameter."""

    loc0: Any
    loc1: Any
    phi: Any


@device_function
def direction_of(phi, theta):
    """Return the `Direction` with azimuth phi and polar angle theta."""
    sin_phi, cos_phi = sincos(phi)
    sin_theta, cos_theta = sincos(theta)
    return Direction(sin_phi, cos_phi, sin_theta, cos_theta)


@device_function
def unit_vector(direction):
    """Return a direction as a vector of length one."""
    return Vector(direction.sin_theta * direction.cos_phi, direction.sin_theta * direction.sin_phi, direction.cos_theta)


@device_function
def curvilinear_axes(direction):
    """Return axes u (transverse) and v of the plane perpendicular to the direction; u x v is the direction."""
    u = Vector(-direction.sin_phi, direction.cos_phi, ZERO * direction.sin_phi)
    v = Vector(-direction.cos_theta * direction.cos_phi, -direction.cos_theta * direction.sin_phi, direction.sin_theta)
    return u, v


@device_function
def helix_displacement(direction, curvature, path):
    """Return the displacement [mm] after a path length."""
    half = HALF * curvature * path
    sinc, _ = sinc_pair(half)
    s, c = sincos(half)
    chord = path * direction.sin_theta * sinc
    return Vector(
        chord * (direction.cos_phi * c - direction.sin_phi * s),
        chord * (direction.sin_phi * c + direction.cos_phi * s),
        path * direction.cos_theta,
    )


@device_function
def direction_after(direction, curvature, path):
    """Return the direction after a path length."""
    s, c = sincos(curvature * path)
    return Direction(
        sin_phi=direction.sin_phi * c + direction.cos_phi * s,
        cos_phi=direction.cos_phi * c - direction.sin_phi * s,
        sin_theta=direction.sin_theta,
        cos_theta=direction.cos_theta,
    )


@device_function
def is_outwards(position, direction):
    """Return whether a track moves away from the beam line."""
    return position.x * direction.cos_phi + position.y * direction.sin_phi >= ZERO


@device_function
def path_to_plane(offset, direction, curvature, normal, guess):
    """Return the path length to a plane, by Newton's method.

    `offset` is the start point relative to a point of the plane. With `guess` 0 the search starts from the parabola
    that touches the helix at its start and so finds the crossing nearest to it; otherwise from `guess`.
    """
    distance = dot(offset, normal)
    t = unit_vector(direction)
    slope = dot(t, normal)
    path = guess
    if guess == ZERO:
        bend = curvature * (t.x * normal.y - t.y * normal.x)
        root = slope * slope - TWO * distance * bend
        if root > ZERO:
            root = math.sqrt(root)
        else:
            root = ZERO * root
        divisor = slope + root if slope >= ZERO else slope - root
        path = -TWO * distance / divisor
    for _ in range(_MAX_NEWTON):
        d = helix_displacement(direction, curvature, path)
        t = unit_vector(direction_after(direction, curvature, path))
        miss = distance + d.x * normal.x + d.y * normal.y + d.z * normal.z
        step = miss / dot(t, normal)
        path = path - step
        if not abs(step) > _CONVERGED:
            break
    return path


@device_function
def _atan_over(x):
    """Return atan(x) / x, 1 at 0."""
    if abs(x) < _SMALL:
        x2 = x * x
        return ONE + x2 * (_A3 + x2 * (_A5 + x2 * _A7))
    return math.atan(x) / x


@device_function
def path_to_cylinder(x, y, direction, curvature, radius, is_far):
    """Return the path length to a cylinder around the z axis, or `INFINITY` if the helix does not reach it.

    With u = (2/k) tan(k s/2), k the transverse curvature and s the transverse path, the condition
    r(s) = R is a quadratic equation in u. `is_far` false gives the crossing on this leg of the helix (that may lie a
    little behind), true the one after the next turning point of r.
    """
    transverse_curvature = curvature / direction.sin_theta
    along = x * direction.cos_phi + y * direction.sin_phi
    across = y * direction.cos_phi - x * direction.sin_phi
    r = math.sqrt(x * x + y * y)
    delta = (radius - r) * (radius + r)
    a = ONE + transverse_curvature * across - QUARTER * transverse_curvature * transverse_curvature * delta
    root = along * along + a * delta
    if not root >= ZERO:
        return INFINITY * (ONE + ZERO * root)
    root = math.sqrt(root)
    q = -(along + root) if along >= ZERO else root - along
    u = q / a if is_far else -delta / q
    arc = u * _atan_over(HALF * transverse_curvature * u)
    if is_far and arc < ZERO:
        arc = arc + TWO * PI / abs(transverse_curvature)
    return arc / direction.sin_theta


@device_function
def path_to_beam_line(x, y, direction, curvature):
    """Return the (signed) path length to the point of closest transverse approach to the z axis."""
    transverse_curvature = curvature / direction.sin_theta
    along = x * direction.cos_phi + y * direction.sin_phi
    across = y * direction.cos_phi - x * direction.sin_phi
    ratio = along / (ONE + transverse_curvature * across)
    return -ratio * _atan_over(transverse_curvature * ratio) / direction.sin_theta


@device_function
def _derivatives(direction, curvature, path, b_z):
    """Return the displacement, and its derivatives with respect to theta and q/p at fixed path length."""
    half = HALF * curvature * path
    sinc, slope = sinc_pair(half)
    s, c = sincos(half)
    chord_x = direction.cos_phi * c - direction.sin_phi * s
    chord_y = direction.sin_phi * c + direction.cos_phi * s
    chord = path * direction.sin_theta * sinc
    by_theta = Vector(
        path * direction.cos_theta * sinc * chord_x,
        path * direction.cos_theta * sinc * chord_y,
        -path * direction.sin_theta,
    )
    scale = -HALF * b_z * path * path * direction.sin_theta
    along = half * slope
    by_qop = Vector(scale * (along * chord_x - sinc * chord_y), scale * (along * chord_y + sinc * chord_x), ZERO * path)
    return Vector(chord * chord_x, chord * chord_y, path * direction.cos_theta), by_theta, by_qop


@device_function
def _jacobian_column(shift, phi, t, curvature, u, v, w_over):
    """Project a change of the end point along the track onto the target plane.

    `shift` and `phi` are the changes of position and phi at fixed path length, t the direction at the end, u and v the
    axes of the plane, `w_over` its normal over its scalar product with t.
    """
    path = -dot(w_over, shift)
    shift = add_scaled(shift, path, t)
    return HelixColumn(loc0=dot(u, shift), loc1=dot(v, shift), phi=phi + curvature * path)


@device_function
def helix_jacobian(direction, curvature, path, b_z, u0, v0, u1, v1):
    """Return displacement, direction at the end, and the Jacobian from a plane to another.

    Its columns hold the derivatives of (loc0, loc1, phi) at the target plane (axes u1, v1); theta and q/p do not
    change. u0, v0 are the axes of the start plane.
    """
    d, by_theta, by_qop = _derivatives(direction, curvature, path, b_z)
    end = direction_after(direction, curvature, path)
    t = unit_vector(end)
    w = cross(u1, v1)
    w = scaled(ONE / dot(w, t), w)
    zero = ZERO * path
    jacobian = Jacobian(
        loc0=_jacobian_column(u0, zero, t, curvature, u1, v1, w),
        loc1=_jacobian_column(v0, zero, t, curvature, u1, v1, w),
        phi=_jacobian_column(Vector(-d.y, d.x, zero), ONE + zero, t, curvature, u1, v1, w),
        theta=_jacobian_column(by_theta, zero, t, curvature, u1, v1, w),
        qop=_jacobian_column(by_qop, -b_z * path, t, curvature, u1, v1, w),
    )
    return d, end, jacobian
