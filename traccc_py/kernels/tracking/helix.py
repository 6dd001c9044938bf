"""Helices in a field along z: positions, crossings with planes and cylinders, and transport of covariances.

Everything is written with sinc functions of half the turning angle and relative to the start point: differences of
sines of absolute angles lose the sagitta in float32 (several micrometres at 100 GeV).

Conventions: direction = (sin(theta) cos(phi), sin(theta) sin(phi), cos(theta)) is passed as
``trig`` = (sin phi, cos phi, sin theta, cos theta); ``turn`` = -q/p B_z is the change of phi per path length [rad/mm],
so phi(s) = phi + turn * s.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.tracking.linalg import sinc_pair, sincos

__all__ = [
    "curvilinear_axes",
    "direction",
    "helix_displacement",
    "path_to_beam_line",
    "path_to_cylinder",
    "path_to_plane",
    "transport_covariance",
    "transport_covariance_and_theta",
    "trigonometry",
    "turned",
]

_ZERO = scalar(0)
_HALF = scalar(0.5)
_ONE = scalar(1)
_TWO = scalar(2)
_QUARTER = scalar(0.25)
_PI = scalar(math.pi)
_NO_CROSSING = scalar(1e30)
_CONVERGED = scalar(2e-5)  # [mm], a tenth of the rounding of coordinates at 1 m
_MAX_NEWTON = 6
_A3, _A5, _A7 = (scalar(c) for c in (-1 / 3, 1 / 5, -1 / 7))
_SMALL = scalar(0.1)


@device_function
def trigonometry(phi, theta):
    """Return (sin phi, cos phi, sin theta, cos theta)."""
    sin_phi, cos_phi = sincos(phi)
    sin_theta, cos_theta = sincos(theta)
    return sin_phi, cos_phi, sin_theta, cos_theta


@device_function
def direction(trig):
    """Return the unit direction of ``trig``."""
    return trig[2] * trig[1], trig[2] * trig[0], trig[3]


@device_function
def curvilinear_axes(trig):
    """Return axes u (transverse) and v of the plane perpendicular to the direction; u x v is the direction."""
    u = (-trig[0], trig[1], _ZERO * trig[0])
    v = (-trig[3] * trig[1], -trig[3] * trig[0], trig[2])
    return u, v


@device_function
def helix_displacement(trig, turn, path):
    """Return the displacement (dx, dy, dz) [mm] after a path length."""
    half = _HALF * turn * path
    sinc, _ = sinc_pair(half)
    s, c = sincos(half)
    chord = path * trig[2] * sinc
    return chord * (trig[1] * c - trig[0] * s), chord * (trig[0] * c + trig[1] * s), path * trig[3]


@device_function
def turned(trig, turn, path):
    """Return (sin phi, cos phi, sin theta, cos theta) after a path length."""
    s, c = sincos(turn * path)
    return trig[0] * c + trig[1] * s, trig[1] * c - trig[0] * s, trig[2], trig[3]


@device_function
def path_to_plane(offset, trig, turn, normal, guess):
    """Return the path length to a plane, by Newton's method.

    `offset` is the start point relative to a point of the plane. With `guess` 0 the search starts from the parabola
    that touches the helix at its start and so finds the crossing nearest to it; otherwise from `guess`.
    """
    distance = offset[0] * normal[0] + offset[1] * normal[1] + offset[2] * normal[2]
    t = direction(trig)
    slope = t[0] * normal[0] + t[1] * normal[1] + t[2] * normal[2]
    path = guess
    if guess == _ZERO:
        bend = turn * (t[0] * normal[1] - t[1] * normal[0])
        root = slope * slope - _TWO * distance * bend
        if root > _ZERO:
            root = math.sqrt(root)
        else:
            root = _ZERO * root
        divisor = slope + root if slope >= _ZERO else slope - root
        path = -_TWO * distance / divisor
    for _ in range(_MAX_NEWTON):
        d = helix_displacement(trig, turn, path)
        t = direction(turned(trig, turn, path))
        miss = distance + d[0] * normal[0] + d[1] * normal[1] + d[2] * normal[2]
        step = miss / (t[0] * normal[0] + t[1] * normal[1] + t[2] * normal[2])
        path = path - step
        if not abs(step) > _CONVERGED:
            break
    return path


@device_function
def _atan_over(x):
    """Return atan(x) / x, 1 at 0."""
    if abs(x) < _SMALL:
        x2 = x * x
        return _ONE + x2 * (_A3 + x2 * (_A5 + x2 * _A7))
    return math.atan(x) / x


@device_function
def path_to_cylinder(x, y, trig, turn, radius, is_far):
    """Return the path length to a cylinder around the z axis, or 1e30 if the helix does not reach it.

    With u = (2/k) tan(k s/2), k the transverse curvature and s the transverse path, the condition
    r(s) = R is a quadratic equation in u. `is_far` false gives the crossing on this leg of the helix (that may lie a
    little behind), true the one after the next turning point of r.
    """
    curvature = turn / trig[2]
    along = x * trig[1] + y * trig[0]
    across = y * trig[1] - x * trig[0]
    r = math.sqrt(x * x + y * y)
    delta = (radius - r) * (radius + r)
    a = _ONE + curvature * across - _QUARTER * curvature * curvature * delta
    root = along * along + a * delta
    if not root >= _ZERO:
        return _NO_CROSSING * (_ONE + _ZERO * root)
    root = math.sqrt(root)
    q = -(along + root) if along >= _ZERO else root - along
    u = q / a if is_far else -delta / q
    arc = u * _atan_over(_HALF * curvature * u)
    if is_far and arc < _ZERO:
        arc = arc + _TWO * _PI / abs(curvature)
    return arc / trig[2]


@device_function
def path_to_beam_line(x, y, trig, turn):
    """Return the (signed) path length to the point of closest transverse approach to the z axis."""
    curvature = turn / trig[2]
    along = x * trig[1] + y * trig[0]
    across = y * trig[1] - x * trig[0]
    ratio = along / (_ONE + curvature * across)
    return -ratio * _atan_over(curvature * ratio) / trig[2]


@device_function
def _derivatives(trig, turn, path, b_z):
    """Return derivatives of the end point at fixed path length with respect to theta and q/p, and the displacement."""
    half = _HALF * turn * path
    sinc, slope = sinc_pair(half)
    s, c = sincos(half)
    ex = trig[1] * c - trig[0] * s
    ey = trig[0] * c + trig[1] * s
    chord = path * trig[2] * sinc
    by_theta = (path * trig[3] * sinc * ex, path * trig[3] * sinc * ey, -path * trig[2])
    scale = -_HALF * b_z * path * path * trig[2]
    along = half * slope
    by_qop = (scale * (along * ex - sinc * ey), scale * (along * ey + sinc * ex))
    return (chord * ex, chord * ey, path * trig[3]), by_theta, by_qop


@device_function
def _jacobian_column(dx, dy, dz, dphi, t, turn, u, v, w_over):
    """Project a change of the end point along the track onto the target surface: (loc0, loc1, phi)."""
    ds = -(w_over[0] * dx + w_over[1] * dy + w_over[2] * dz)
    dx = dx + t[0] * ds
    dy = dy + t[1] * ds
    dz = dz + t[2] * ds
    return (
        u[0] * dx + u[1] * dy + u[2] * dz,
        v[0] * dx + v[1] * dy + v[2] * dz,
        dphi + turn * ds,
    )


@device_function
def helix_jacobian(trig, turn, path, b_z, u0, v0, u1, v1):
    """Return displacement, direction at the end, and the columns (loc0, loc1, phi, theta, q/p) of the Jacobian.

    Each column holds the derivatives of (loc0, loc1, phi) at the target plane (axes u1, v1); theta and q/p do not
    change. u0, v0 are the axes of the start plane.
    """
    d, by_theta, by_qop = _derivatives(trig, turn, path, b_z)
    end = turned(trig, turn, path)
    t = direction(end)
    w = (u1[1] * v1[2] - u1[2] * v1[1], u1[2] * v1[0] - u1[0] * v1[2], u1[0] * v1[1] - u1[1] * v1[0])
    over = _ONE / (w[0] * t[0] + w[1] * t[1] + w[2] * t[2])
    w = (w[0] * over, w[1] * over, w[2] * over)
    zero = _ZERO * path
    j0 = _jacobian_column(u0[0], u0[1], u0[2], zero, t, turn, u1, v1, w)
    j1 = _jacobian_column(v0[0], v0[1], v0[2], zero, t, turn, u1, v1, w)
    j2 = _jacobian_column(-d[1], d[0], zero, _ONE + zero, t, turn, u1, v1, w)
    j3 = _jacobian_column(by_theta[0], by_theta[1], by_theta[2], zero, t, turn, u1, v1, w)
    j4 = _jacobian_column(by_qop[0], by_qop[1], zero, -b_z * path, t, turn, u1, v1, w)
    return d, end, (j0, j1, j2, j3, j4)


@device_function
def _row_times_covariance(a0, a1, a2, a3, a4, c):
    """Return the row vector a C for a packed symmetric C."""
    return (
        a0 * c[0] + a1 * c[1] + a2 * c[3] + a3 * c[6] + a4 * c[10],
        a0 * c[1] + a1 * c[2] + a2 * c[4] + a3 * c[7] + a4 * c[11],
        a0 * c[3] + a1 * c[4] + a2 * c[5] + a3 * c[8] + a4 * c[12],
        a0 * c[6] + a1 * c[7] + a2 * c[8] + a3 * c[9] + a4 * c[13],
        a0 * c[10] + a1 * c[11] + a2 * c[12] + a3 * c[13] + a4 * c[14],
    )


@device_function
def _times_column(m, j, row):
    """Return the product of the row vector m with row `row` of the Jacobian."""
    return m[0] * j[0][row] + m[1] * j[1][row] + m[2] * j[2][row] + m[3] * j[3][row] + m[4] * j[4][row]


@device_function
def transport_covariance(j, c):
    """Return J C J^T; rows theta and q/p of J are those of the unit matrix."""
    m0 = _row_times_covariance(j[0][0], j[1][0], j[2][0], j[3][0], j[4][0], c)
    m1 = _row_times_covariance(j[0][1], j[1][1], j[2][1], j[3][1], j[4][1], c)
    m2 = _row_times_covariance(j[0][2], j[1][2], j[2][2], j[3][2], j[4][2], c)
    return (
        _times_column(m0, j, np.int32(0)),
        _times_column(m1, j, np.int32(0)),
        _times_column(m1, j, np.int32(1)),
        _times_column(m2, j, np.int32(0)),
        _times_column(m2, j, np.int32(1)),
        _times_column(m2, j, np.int32(2)),
        m0[3],
        m1[3],
        m2[3],
        c[9],
        m0[4],
        m1[4],
        m2[4],
        c[13],
        c[14],
    )


@device_function
def transport_covariance_and_theta(j, c):
    """Return J C J^T; the row q/p of J is that of the unit matrix, each column of J has (loc0, loc1, phi, theta)."""
    m0 = _row_times_covariance(j[0][0], j[1][0], j[2][0], j[3][0], j[4][0], c)
    m1 = _row_times_covariance(j[0][1], j[1][1], j[2][1], j[3][1], j[4][1], c)
    m2 = _row_times_covariance(j[0][2], j[1][2], j[2][2], j[3][2], j[4][2], c)
    m3 = _row_times_covariance(j[0][3], j[1][3], j[2][3], j[3][3], j[4][3], c)
    return (
        _times_column(m0, j, np.int32(0)),
        _times_column(m1, j, np.int32(0)),
        _times_column(m1, j, np.int32(1)),
        _times_column(m2, j, np.int32(0)),
        _times_column(m2, j, np.int32(1)),
        _times_column(m2, j, np.int32(2)),
        _times_column(m3, j, np.int32(0)),
        _times_column(m3, j, np.int32(1)),
        _times_column(m3, j, np.int32(2)),
        _times_column(m3, j, np.int32(3)),
        m0[4],
        m1[4],
        m2[4],
        m3[4],
        c[14],
    )
