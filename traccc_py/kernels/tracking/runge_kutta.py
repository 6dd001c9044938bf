"""Tracks in a field map: Runge-Kutta-Nystroem transport of position, direction and their derivatives.

A step of the fourth-order method (Bugge, Myrheim, NIM 179 (1981) 365) is taken over the whole path at hand if that is
accurate enough, else over pieces. The derivatives go through the same stages; the gradient of the field is that in the
middle of the step. A plane is met in two parts: by the path that the helix in the local field gives, then by parabolas
of what is left.

A *column* is the pair of derivatives (of the position, of the direction) with respect to one start parameter.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.tracking.helix import direction
from traccc_py.kernels.tracking.linalg import cross, dot
from traccc_py.kernels.tracking.magnetic_field import field_and_gradient, field_at

__all__ = ["STEP_ERROR", "bound_columns", "follow_field"]

STEP_ERROR = scalar(2e-3)  #: [mm], largest estimate of a step's error; the true one is some 50 times smaller
_MAX_STEPS = 200
_SHORT = scalar(3)  # [mm], so far a parabola is exact
_ZERO = scalar(0)
_HALF = scalar(0.5)
_ONE = scalar(1)
_TWO = scalar(2)
_SIX = scalar(6)
_EIGHT = scalar(8)
_ESTIMATE = scalar(24)  # in a homogeneous field the estimate is curvature^3 step^4 / 24
_SMALLEST = scalar(1e-30)
_SHRINK = scalar(0.5)
_VERY_ACCURATE = STEP_ERROR / scalar(32)  # twice the step has 16 times the error
_MAX_AIMS = 8  # parabolas towards one plane
_LONGEST_AIM = scalar(50)  # [mm]


@device_function
def _plus(a, scale, b):
    """Return a + scale b."""
    return a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]


@device_function
def _bend(scale, t, b):
    """Return scale (t x b): the change of a direction per path length."""
    c = cross(t, b)
    return scale * c[0], scale * c[1], scale * c[2]


@device_function
def _column_bend(qop, dt, b, t, gradient, dr, dqop):
    """Return the derivative of q/p (t x B): of t, of B at a place that moves by dr, and of q/p."""
    db = (
        gradient[0][0] * dr[0] + gradient[1][0] * dr[1] + gradient[2][0] * dr[2],
        gradient[0][1] * dr[0] + gradient[1][1] * dr[1] + gradient[2][1] * dr[2],
        gradient[0][2] * dr[0] + gradient[1][2] * dr[1] + gradient[2][2] * dr[2],
    )
    moved, shifted, stronger = cross(dt, b), cross(t, db), cross(t, b)
    return (
        qop * (moved[0] + shifted[0]) + dqop * stronger[0],
        qop * (moved[1] + shifted[1]) + dqop * stronger[1],
        qop * (moved[2] + shifted[2]) + dqop * stronger[2],
    )


@device_function
def _stage_sums(k1, k2, k3, k4):
    """Return (k1 + k2 + k3, k1 + 2 k2 + 2 k3 + k4)."""
    return (
        (k1[0] + k2[0] + k3[0], k1[1] + k2[1] + k3[1], k1[2] + k2[2] + k3[2]),
        (
            k1[0] + _TWO * (k2[0] + k3[0]) + k4[0],
            k1[1] + _TWO * (k2[1] + k3[1]) + k4[1],
            k1[2] + _TWO * (k2[2] + k3[2]) + k4[2],
        ),
    )


@device_function
def _stages(field, position, t, b1, qop, h):
    """Return (shift of the position, change of the direction, error, what columns need) of a step h."""
    half = _HALF * h
    k1 = _bend(qop, t, b1)
    b2, gx, gy, gz = field_and_gradient(field, _plus(_plus(position, half, t), h * h / _EIGHT, k1))
    t2 = _plus(t, half, k1)
    k2 = _bend(qop, t2, b2)
    t3 = _plus(t, half, k2)
    k3 = _bend(qop, t3, b2)
    b4 = field_at(field, _plus(_plus(position, h, t), h * half, k3))
    t4 = _plus(t, h, k3)
    k4 = _bend(qop, t4, b4)
    for_position, for_direction = _stage_sums(k1, k2, k3, k4)
    error = (
        h
        * h
        / _SIX
        * (abs(k1[0] - k2[0] - k3[0] + k4[0]) + abs(k1[1] - k2[1] - k3[1] + k4[1]) + abs(k1[2] - k2[2] - k3[2] + k4[2]))
    )
    c = h * h / _SIX
    shift = (h * t[0] + c * for_position[0], h * t[1] + c * for_position[1], h * t[2] + c * for_position[2])
    end = _plus(t, h / _SIX, for_direction)
    return shift, end, error, (t2, t3, t4, b2, b4, (gx, gy, gz))


@device_function
def _moved_column(column, dqop, qop, h, t, b1, stages):
    """Return a column after a step."""
    dr, dt = column
    t2, t3, t4, b2, b4, gradient = stages
    half = _HALF * h
    k1 = _column_bend(qop, dt, b1, t, gradient, dr, dqop)
    middle = _plus(_plus(dr, half, dt), h * h / _EIGHT, k1)
    dt2 = _plus(dt, half, k1)
    k2 = _column_bend(qop, dt2, b2, t2, gradient, middle, dqop)
    dt3 = _plus(dt, half, k2)
    k3 = _column_bend(qop, dt3, b2, t3, gradient, middle, dqop)
    dt4 = _plus(dt, h, k3)
    k4 = _column_bend(qop, dt4, b4, t4, gradient, _plus(_plus(dr, h, dt), h * half, k3), dqop)
    for_position, for_direction = _stage_sums(k1, k2, k3, k4)
    return _plus(_plus(dr, h, dt), h * h / _SIX, for_position), _plus(dt, h / _SIX, for_direction)


@device_function
def _normalised(t):
    """Return the unit vector."""
    over = _ONE / math.sqrt(dot(t, t))
    return over * t[0], over * t[1], over * t[2]


@device_function
def _to_plane(distance, normal, t, bend):
    """Return the path along a parabola to a plane, or to its point nearest to it."""
    slope = dot(t, normal)
    curve = dot(bend, normal)
    root = slope * slope - _TWO * distance * curve
    root = math.sqrt(max(root, _ZERO * root))
    path = -_TWO * distance / (slope + root if slope >= _ZERO else slope - root)
    return min(max(path, -_LONGEST_AIM + _ZERO * path), _LONGEST_AIM + _ZERO * path)


@device_function
def _last_bit(column, dqop, qop, h, t, b):
    """Return a column after a short path."""
    dr, dt = column
    moved, stronger = cross(dt, b), cross(t, b)
    bend = (
        qop * moved[0] + dqop * stronger[0],
        qop * moved[1] + dqop * stronger[1],
        qop * moved[2] + dqop * stronger[2],
    )
    return _plus(_plus(dr, h, dt), _HALF * h * h, bend), _plus(dt, h, bend)


@device_function
def _first_step(left, b, qop):
    """Return the first of equal steps that are accurate enough if the field stays as it is."""
    curvature = abs(qop) * math.sqrt(dot(b, b)) + _SMALLEST
    longest = math.sqrt(math.sqrt(_ESTIMATE * STEP_ERROR / curvature) / curvature)
    return left / (scalar(np.int32(abs(left) / longest)) + _ONE)


@device_function
def follow_field(field, position, trig, qop, path, distance, normal, is_plane, u0, v0):
    """Follow a track in a field map along a path, or until it meets a plane near the path's end.

    Parameters: start position, direction, q/p; path length; of a plane the distance of the start from it along its
    normal; axes u0, v0 of the surface that the start parameters belong to.

    Returns (displacement, direction, its change per path length, columns by loc0, loc1, phi, theta, q/p).
    """
    zero = _ZERO * path
    none = (zero, zero, zero)
    one = _ONE + zero
    t = direction(trig)
    d = none
    c0, c1 = (u0, none), (v0, none)
    c2 = (none, (-t[1], t[0], zero))
    c3 = (none, (trig[3] * trig[1], trig[3] * trig[0], -trig[2]))
    c4 = (none, none)
    b = field_at(field, position)
    step = _first_step(path, b, qop)
    left = path
    n_aims = np.int32(0)
    for _ in range(np.int32(_MAX_STEPS)):
        if not abs(left) > _SHORT:
            if is_plane:
                left = _to_plane(distance + dot(d, normal), normal, t, _bend(qop, t, b))
                n_aims = np.int32(n_aims + 1)
            if not abs(left) > _SHORT or n_aims > _MAX_AIMS:
                break
        if abs(step) > abs(left) or step * left < _ZERO:
            step = left
        place = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
        shift, end, error, stages = _stages(field, place, t, b, qop, step)
        if error > STEP_ERROR:
            step = _SHRINK * step
            continue
        c0 = _moved_column(c0, zero, qop, step, t, b, stages)
        c1 = _moved_column(c1, zero, qop, step, t, b, stages)
        c2 = _moved_column(c2, zero, qop, step, t, b, stages)
        c3 = _moved_column(c3, zero, qop, step, t, b, stages)
        c4 = _moved_column(c4, one, qop, step, t, b, stages)
        d = (d[0] + shift[0], d[1] + shift[1], d[2] + shift[2])
        t = _normalised(end)
        b = stages[4]
        left = left - step
        if error < _VERY_ACCURATE:
            step = _TWO * step
    left = min(max(left, -_SHORT + zero), _SHORT + zero)
    bend = _bend(qop, t, b)
    c0 = _last_bit(c0, zero, qop, left, t, b)
    c1 = _last_bit(c1, zero, qop, left, t, b)
    c2 = _last_bit(c2, zero, qop, left, t, b)
    c3 = _last_bit(c3, zero, qop, left, t, b)
    c4 = _last_bit(c4, one, qop, left, t, b)
    d = _plus(_plus(d, left, t), _HALF * left * left, bend)
    t = _normalised(_plus(t, left, bend))
    return d, t, _bend(qop, t, b), (c0, c1, c2, c3, c4)


@device_function
def _bound_column(column, t, bend, u, v, w_over, trig):
    """Project a column along the track onto a surface: derivatives of (loc0, loc1, phi, theta)."""
    dr, dt = column
    ds = -dot(w_over, dr)
    dr = _plus(dr, ds, t)
    dt = _plus(dt, ds, bend)
    outwards = trig[1] * dt[0] + trig[0] * dt[1]
    return (
        dot(u, dr),
        dot(v, dr),
        (trig[1] * dt[1] - trig[0] * dt[0]) / trig[2],
        trig[3] * outwards - trig[2] * dt[2],
    )


@device_function
def bound_columns(columns, t, bend, u, v, trig):
    """Return the columns (loc0, loc1, phi, theta, q/p) of the Jacobian on a surface with axes u, v.

    Each holds the derivatives of (loc0, loc1, phi, theta); q/p does not change.
    """
    w = cross(u, v)
    over = _ONE / dot(w, t)
    w = (w[0] * over, w[1] * over, w[2] * over)
    return (
        _bound_column(columns[0], t, bend, u, v, w, trig),
        _bound_column(columns[1], t, bend, u, v, w, trig),
        _bound_column(columns[2], t, bend, u, v, w, trig),
        _bound_column(columns[3], t, bend, u, v, w, trig),
        _bound_column(columns[4], t, bend, u, v, w, trig),
    )
