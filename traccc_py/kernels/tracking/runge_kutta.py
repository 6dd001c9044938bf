"""Tracks in a field map: Runge-Kutta-Nystroem transport of position, direction and their derivatives.

A step of the fourth-order method (Bugge, Myrheim, NIM 179 (1981) 365) is taken over the whole path at hand if that is
accurate enough, else over pieces. The derivatives go through the same stages; the gradient of the field is that in the
middle of the step. A plane is met in two parts: by the path that the helix in the local field gives, then by parabolas
of what is left.

A *column* is the pair of derivatives (of the position, of the direction) with respect to one start parameter.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import EIGHT, HALF, ONE, SIX, TWO, ZERO
from traccc_py.kernels.tracking.helix import unit_vector
from traccc_py.kernels.tracking.linalg import add, add_scaled, cross, dot, scaled
from traccc_py.kernels.tracking.magnetic_field import field_and_gradient, field_at
from traccc_py.kernels.tracking.state import Jacobian, Vector

__all__ = ["STEP_ERROR", "FieldColumn", "bound_jacobian", "follow_field"]

STEP_ERROR = scalar(2e-3)  #: [mm], largest estimate of a step's error; the true one is some 50 times smaller
_MAX_STEPS = 200
_SHORT = scalar(3)  # [mm], so far a parabola is exact
_ESTIMATE = scalar(24)  # in a homogeneous field the estimate is curvature^3 step^4 / 24
_SMALLEST = scalar(1e-30)
_VERY_ACCURATE = STEP_ERROR / scalar(32)  # twice the step has 16 times the error
_MAX_AIMS = 8  # parabolas towards one plane
_LONGEST_AIM = scalar(50)  # [mm]


class GlobalColumn(NamedTuple):
    """Derivatives of the place of a track with respect to one start parameter."""

    position: Any  # Vector
    direction: Any  # Vector


class FieldColumn(NamedTuple):
    """Derivatives of the parameters that change in a field, with respect to one start parameter."""

    loc0: Any
    loc1: Any
    phi: Any
    theta: Any


class _Stages(NamedTuple):
    """What the derivatives need to know of a step: directions and fields of its second to fourth stage."""

    t2: Any  # Vector, unit vector
    t3: Any
    t4: Any
    b_middle: Any  # Vector [GeV / (e mm)], of the second and third stage
    b_end: Any
    gradient: Any  # FieldAndGradient in the middle of the step


class _Sums(NamedTuple):
    """Sums of the stages of a step."""

    position: Any  # Vector, k1 + k2 + k3
    direction: Any  # Vector, k1 + 2 k2 + 2 k3 + k4


@device_function
def _bend(qop, t, b):
    """Return q/p (t x B): the change of a direction per path length."""
    return scaled(qop, cross(t, b))


@device_function
def _column_bend(qop, dt, b, t, gradient, dr, dqop):
    """Return the derivative of q/p (t x B): of t, of B at a place that moves by dr, and of q/p."""
    db = Vector(
        gradient.by_x.x * dr.x + gradient.by_y.x * dr.y + gradient.by_z.x * dr.z,
        gradient.by_x.y * dr.x + gradient.by_y.y * dr.y + gradient.by_z.y * dr.z,
        gradient.by_x.z * dr.x + gradient.by_y.z * dr.y + gradient.by_z.z * dr.z,
    )
    return add_scaled(scaled(qop, add(cross(dt, b), cross(t, db))), dqop, cross(t, b))


@device_function
def _stage_sums(k1, k2, k3, k4):
    return _Sums(
        position=Vector(k1.x + k2.x + k3.x, k1.y + k2.y + k3.y, k1.z + k2.z + k3.z),
        direction=Vector(
            k1.x + TWO * (k2.x + k3.x) + k4.x,
            k1.y + TWO * (k2.y + k3.y) + k4.y,
            k1.z + TWO * (k2.z + k3.z) + k4.z,
        ),
    )


@device_function
def _step(field, position, t, b1, qop, h):
    """Return (shift of the position, new direction before it is normalised, error [mm], stages) of a step h."""
    half = HALF * h
    k1 = _bend(qop, t, b1)
    middle = field_and_gradient(field, add_scaled(add_scaled(position, half, t), h * h / EIGHT, k1))
    t2 = add_scaled(t, half, k1)
    k2 = _bend(qop, t2, middle.b)
    t3 = add_scaled(t, half, k2)
    k3 = _bend(qop, t3, middle.b)
    b4 = field_at(field, add_scaled(add_scaled(position, h, t), h * half, k3))
    t4 = add_scaled(t, h, k3)
    k4 = _bend(qop, t4, b4)
    sums = _stage_sums(k1, k2, k3, k4)
    c = h * h / SIX
    error = c * (abs(k1.x - k2.x - k3.x + k4.x) + abs(k1.y - k2.y - k3.y + k4.y) + abs(k1.z - k2.z - k3.z + k4.z))
    shift = add_scaled(scaled(h, t), c, sums.position)
    end = add_scaled(t, h / SIX, sums.direction)
    return shift, end, error, _Stages(t2=t2, t3=t3, t4=t4, b_middle=middle.b, b_end=b4, gradient=middle)


@device_function
def _column_after_step(column, dqop, qop, h, t, b1, stages):
    """Return a column after a step."""
    dr, dt = column
    half = HALF * h
    gradient = stages.gradient
    k1 = _column_bend(qop, dt, b1, t, gradient, dr, dqop)
    middle = add_scaled(add_scaled(dr, half, dt), h * h / EIGHT, k1)
    dt2 = add_scaled(dt, half, k1)
    k2 = _column_bend(qop, dt2, stages.b_middle, stages.t2, gradient, middle, dqop)
    dt3 = add_scaled(dt, half, k2)
    k3 = _column_bend(qop, dt3, stages.b_middle, stages.t3, gradient, middle, dqop)
    dt4 = add_scaled(dt, h, k3)
    end = add_scaled(add_scaled(dr, h, dt), h * half, k3)
    k4 = _column_bend(qop, dt4, stages.b_end, stages.t4, gradient, end, dqop)
    sums = _stage_sums(k1, k2, k3, k4)
    return GlobalColumn(
        position=add_scaled(add_scaled(dr, h, dt), h * h / SIX, sums.position),
        direction=add_scaled(dt, h / SIX, sums.direction),
    )


@device_function
def _normalised(t):
    """Return the unit vector."""
    over = ONE / math.sqrt(dot(t, t))
    return scaled(over, t)


@device_function
def _to_plane(distance, normal, t, bend):
    """Return the path along a parabola to a plane, or to its point nearest to it."""
    slope = dot(t, normal)
    curve = dot(bend, normal)
    root = slope * slope - TWO * distance * curve
    root = math.sqrt(max(root, ZERO * root))
    path = -TWO * distance / (slope + root if slope >= ZERO else slope - root)
    return min(max(path, -_LONGEST_AIM + ZERO * path), _LONGEST_AIM + ZERO * path)


@device_function
def _column_after_parabola(column, dqop, qop, h, t, b):
    """Return a column after a short path."""
    dr, dt = column
    bend = add_scaled(scaled(qop, cross(dt, b)), dqop, cross(t, b))
    return GlobalColumn(
        position=add_scaled(add_scaled(dr, h, dt), HALF * h * h, bend), direction=add_scaled(dt, h, bend)
    )


@device_function
def _first_step(left, b, qop):
    """Return the first of equal steps that are accurate enough if the field stays as it is."""
    curvature = abs(qop) * math.sqrt(dot(b, b)) + _SMALLEST
    longest = math.sqrt(math.sqrt(_ESTIMATE * STEP_ERROR / curvature) / curvature)
    return left / (scalar(np.int32(abs(left) / longest)) + ONE)


@device_function
def _first_columns(direction, u, v, zero):
    """Return the columns at the start, on a plane with axes u, v."""
    none = Vector(zero, zero, zero)
    t = unit_vector(direction)
    by_theta = Vector(
        direction.cos_theta * direction.cos_phi, direction.cos_theta * direction.sin_phi, -direction.sin_theta
    )
    return Jacobian(
        loc0=GlobalColumn(position=u, direction=none),
        loc1=GlobalColumn(position=v, direction=none),
        phi=GlobalColumn(position=none, direction=Vector(-t.y, t.x, zero)),
        theta=GlobalColumn(position=none, direction=by_theta),
        qop=GlobalColumn(position=none, direction=none),
    )


@device_function
def _columns_after_step(columns, qop, h, t, b, stages, zero):
    return Jacobian(
        loc0=_column_after_step(columns.loc0, zero, qop, h, t, b, stages),
        loc1=_column_after_step(columns.loc1, zero, qop, h, t, b, stages),
        phi=_column_after_step(columns.phi, zero, qop, h, t, b, stages),
        theta=_column_after_step(columns.theta, zero, qop, h, t, b, stages),
        qop=_column_after_step(columns.qop, ONE + zero, qop, h, t, b, stages),
    )


@device_function
def _columns_after_parabola(columns, qop, h, t, b, zero):
    return Jacobian(
        loc0=_column_after_parabola(columns.loc0, zero, qop, h, t, b),
        loc1=_column_after_parabola(columns.loc1, zero, qop, h, t, b),
        phi=_column_after_parabola(columns.phi, zero, qop, h, t, b),
        theta=_column_after_parabola(columns.theta, zero, qop, h, t, b),
        qop=_column_after_parabola(columns.qop, ONE + zero, qop, h, t, b),
    )


@device_function
def follow_field(field, position, direction, qop, path, distance, normal, is_plane, u, v):
    """Follow a track in a field map along a path, or until it meets a plane near the path's end.

    Parameters: start position, direction, q/p; path length; of a plane the distance of the start from it along its
    normal; axes u, v of the surface that the start parameters belong to.

    Returns (displacement, direction as a unit vector, its change per path length, columns by start parameter).
    """
    zero = ZERO * path
    d = Vector(zero, zero, zero)
    t = unit_vector(direction)
    columns = _first_columns(direction, u, v, zero)
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
        if abs(step) > abs(left) or step * left < ZERO:
            step = left
        shift, end, error, stages = _step(field, add(position, d), t, b, qop, step)
        if error > STEP_ERROR:
            step = HALF * step
            continue
        columns = _columns_after_step(columns, qop, step, t, b, stages, zero)
        d = add(d, shift)
        t = _normalised(end)
        b = stages.b_end
        left = left - step
        if error < _VERY_ACCURATE:
            step = TWO * step
    left = min(max(left, -_SHORT + zero), _SHORT + zero)
    bend = _bend(qop, t, b)
    columns = _columns_after_parabola(columns, qop, left, t, b, zero)
    d = add_scaled(add_scaled(d, left, t), HALF * left * left, bend)
    t = _normalised(add_scaled(t, left, bend))
    return d, t, _bend(qop, t, b), columns


@device_function
def _bound_column(column, t, bend, u, v, w_over, direction):
    """Project a column along the track onto a surface."""
    path = -dot(w_over, column.position)
    dr = add_scaled(column.position, path, t)
    dt = add_scaled(column.direction, path, bend)
    outwards = direction.cos_phi * dt.x + direction.sin_phi * dt.y
    return FieldColumn(
        loc0=dot(u, dr),
        loc1=dot(v, dr),
        phi=(direction.cos_phi * dt.y - direction.sin_phi * dt.x) / direction.sin_theta,
        theta=direction.cos_theta * outwards - direction.sin_theta * dt.z,
    )


@device_function
def bound_jacobian(columns, t, bend, u, v, direction):
    """Return the Jacobian on a surface with axes u, v: columns of derivatives of (loc0, loc1, phi, theta).

    q/p does not change.
    """
    w = cross(u, v)
    w = scaled(ONE / dot(w, t), w)
    return Jacobian(
        loc0=_bound_column(columns.loc0, t, bend, u, v, w, direction),
        loc1=_bound_column(columns.loc1, t, bend, u, v, w, direction),
        phi=_bound_column(columns.phi, t, bend, u, v, w, direction),
        theta=_bound_column(columns.theta, t, bend, u, v, w, direction),
        qop=_bound_column(columns.qop, t, bend, u, v, w, direction),
    )
