"""Straight paths clipped to the polar channels of annuli and rings, in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from traccc_py.simulation.compiled import compiled

__all__ = ["PolarChannels", "next_event", "polar_channel"]

_BEYOND = 1e-9  # of a channel: a border this close has been crossed
_AHEAD = 1e-12  # of the path


class PolarChannels(NamedTuple):
    """Channels and outline of one sensor, relative to the focal point: x and y are loc0 and loc1 + focal [mm]."""

    r_min: float  # of the channels [mm]
    r_pitch: float
    n_r: int
    phi_min: float  # [rad]
    phi_pitch: float
    n_phi: int
    phi_middle: float  # direction of y
    beam_x: float  # centre of the outline's circles [mm]
    beam_y: float
    beam_r_min: float
    beam_r_max: float
    half_opening: float  # of the outline around y [rad]


@compiled
def _places(sensor, x, y):
    """Return the positions along both axes in channels; phi is within pi of the middle of the channels."""
    middle = sensor.phi_min + 0.5 * sensor.n_phi * sensor.phi_pitch
    phi = sensor.phi_middle - math.atan2(x, y)
    phi -= 2.0 * math.pi * math.floor((phi - middle) / (2.0 * math.pi) + 0.5)
    return (math.hypot(x, y) - sensor.r_min) / sensor.r_pitch, (phi - sensor.phi_min) / sensor.phi_pitch


@compiled
def polar_channel(sensor, x, y):
    """Return the channels (r, phi) at a point, (-1, -1) outside of them or of the outline."""
    at_r, at_phi = _places(sensor, x, y)
    radius = math.hypot(x - sensor.beam_x, y - sensor.beam_y)
    if not (0.0 <= at_r < sensor.n_r and 0.0 <= at_phi < sensor.n_phi):
        return -1, -1
    if not sensor.beam_r_min <= radius <= sensor.beam_r_max or abs(math.atan2(x, y)) > sensor.half_opening:
        return -1, -1
    return int(at_r), int(at_phi)


@compiled
def _circle(x, y, dx, dy, radius, t):
    """Return the next t' > t at which a path crosses a circle around the origin, or inf."""
    a, b, c = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y - radius * radius
    if a == 0.0 or b * b < a * c:
        return np.inf
    root = math.sqrt(b * b - a * c)
    for sign in (-1.0, 1.0):
        s = (-b + sign * root) / a
        if s > t + _AHEAD:
            return s
    return np.inf


@compiled
def _ray(x, y, dx, dy, angle, t):
    """Return the t' > t at which a path crosses the line through the origin at an angle to y, or inf."""
    sine, cosine = math.sin(angle), math.cos(angle)
    slope = dx * cosine - dy * sine
    if slope == 0.0:
        return np.inf
    s = -(x * cosine - y * sine) / slope
    return s if s > t + _AHEAD else np.inf


@compiled
def next_event(sensor, path, t):
    """Return the next t' in (t, 1] at which a path (x, y, dx, dy) may leave its channel or the outline."""
    x, y, dx, dy = path
    at_r, at_phi = _places(sensor, x + t * dx, y + t * dy)
    end = 1.0
    for k in (math.floor(at_r + _BEYOND), math.floor(at_r + _BEYOND) + 1, math.ceil(at_r - _BEYOND) - 1):
        if 0 <= k <= sensor.n_r:
            end = min(end, _circle(x, y, dx, dy, sensor.r_min + k * sensor.r_pitch, t))
    for k in (math.floor(at_phi + _BEYOND), math.floor(at_phi + _BEYOND) + 1, math.ceil(at_phi - _BEYOND) - 1):
        if 0 <= k <= sensor.n_phi:
            phi = sensor.phi_min + k * sensor.phi_pitch
            end = min(end, _ray(x, y, dx, dy, sensor.phi_middle - phi, t))
    for side in (-1.0, 1.0):
        end = min(end, _ray(x, y, dx, dy, side * sensor.half_opening, t))
    for radius in (sensor.beam_r_min, sensor.beam_r_max):
        end = min(end, _circle(x - sensor.beam_x, y - sensor.beam_y, dx, dy, radius, t))
    return end
