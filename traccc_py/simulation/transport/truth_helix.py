"""Helices in a field along z and all their crossings of planes and cylinders, in float64.

A helix is the tuple (x, y, z, dx, dy, dz, kappa): position [mm], unit direction, and the turning rate of the
direction's azimuth [rad / mm of path], kappa = -q B / p.

A crossing is a zero of a function of the path that is monotone between extrema known in closed form: each piece with a
change of sign has exactly one zero, so none is missed, even if a track grazes a surface or loops.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled

__all__ = ["CYLINDER_SURFACE", "PLANE_SURFACE", "helix_direction", "helix_position", "next_crossing"]

PLANE_SURFACE = 0  #: surface tuple (kind, wx, wy, wz, offset): points with w . x = offset
CYLINDER_SURFACE = 1  #: surface tuple (kind, radius^2, 0, 0, 0): around the z axis

_NO_CROSSING = np.inf
_TINY_TURN = 1e-9  # below it sin(x)/x is 1 in float64
_PATH_TOLERANCE = 1e-10  # [mm]
_MAX_ITERATIONS = 100
_MIN_KAPPA = 1e-13  # [1/mm] counts as a straight line
_TWO_PI = 2.0 * math.pi


@compiled
def helix_position(helix, s):
    """Return the position at path `s`; written with sin(x)/x, so that straight tracks lose no digits."""
    x, y, z, dx, dy, dz, kappa = helix
    half = 0.5 * kappa * s
    chord = s
    if abs(half) > _TINY_TURN:
        chord = s * math.sin(half) / half
    c, sn = math.cos(half), math.sin(half)
    return x + chord * (dx * c - dy * sn), y + chord * (dx * sn + dy * c), z + s * dz


@compiled
def helix_direction(helix, s):
    """Return the unit direction at path `s`."""
    _, _, _, dx, dy, dz, kappa = helix
    c, sn = math.cos(kappa * s), math.sin(kappa * s)
    return dx * c - dy * sn, dx * sn + dy * c, dz


@compiled
def _value(helix, surface, s):
    x, y, z = helix_position(helix, s)
    kind, a, b, c, offset = surface
    if kind == PLANE_SURFACE:
        return a * x + b * y + c * z - offset
    return x * x + y * y - a


@compiled
def _slope(helix, surface, s):
    dx, dy, dz = helix_direction(helix, s)
    kind, a, b, c, _ = surface
    if kind == PLANE_SURFACE:
        return a * dx + b * dy + c * dz
    x, y, _ = helix_position(helix, s)
    return 2.0 * (x * dx + y * dy)


@compiled
def _extrema(helix, surface):
    """Return the smallest path >= 0 of each of the two families of extrema, and their common period."""
    x, y, _, dx, dy, dz, kappa = helix
    kind, a, b, c, _ = surface
    if abs(kappa) < _MIN_KAPPA:
        if kind == PLANE_SURFACE:
            return _NO_CROSSING, _NO_CROSSING, _NO_CROSSING
        nearest = -(x * dx + y * dy) / (dx * dx + dy * dy)
        return (nearest if nearest > 0.0 else _NO_CROSSING), _NO_CROSSING, _NO_CROSSING
    period = _TWO_PI / abs(kappa)
    if kind == PLANE_SURFACE:
        along, across = a * dx + b * dy, b * dx - a * dy
        amplitude = math.hypot(along, across)
        if abs(c * dz) >= amplitude:
            return _NO_CROSSING, _NO_CROSSING, _NO_CROSSING
        # slope = along cos(turn) + across sin(turn) + c dz
        phase = math.atan2(across, along)
        opening = math.acos(-c * dz / amplitude)
        first, second = (phase - opening) / kappa, (phase + opening) / kappa
    else:
        along = x * dx + y * dy
        across = y * dx - x * dy + (dx * dx + dy * dy) / kappa
        # slope / 2 = along cos(turn) + across sin(turn)
        first = math.atan2(-along, across) / kappa
        second = first + 0.5 * period
    return first - period * math.floor(first / period), second - period * math.floor(second / period), period


@compiled
def _zero(helix, surface, low, high, value_low):
    """Return the zero in [low, high], at whose ends the signs differ: Newton's steps, kept inside by bisection."""
    s = 0.5 * (low + high)
    slope = _slope(helix, surface, low)
    if slope != 0.0:
        guess = low - value_low / slope
        if low < guess < high:
            s = guess
    for _ in range(_MAX_ITERATIONS):
        value = _value(helix, surface, s)
        if (value > 0.0) == (value_low > 0.0):
            low = s
        else:
            high = s
        slope = _slope(helix, surface, s)
        step = value / slope if slope != 0.0 else np.inf
        if abs(step) < _PATH_TOLERANCE or high - low < _PATH_TOLERANCE:
            break
        s = s - step if low < s - step < high else 0.5 * (low + high)
    return s


@compiled
def next_crossing(helix, surface, s_low, s_high):
    """Return the smallest path in (s_low, s_high] at which the helix crosses the surface, or inf."""
    first, second, period = _extrema(helix, surface)
    if period < _NO_CROSSING and s_low > 0.0:
        turns = math.floor(s_low / period)
        first += period * turns
        second += period * turns
    low = s_low
    value_low = _value(helix, surface, low)
    while low < s_high:
        while first <= low:
            first += period
        while second <= low:
            second += period
        high = min(first, second, s_high)
        value_high = _value(helix, surface, high)
        if value_low == 0.0 or (value_low > 0.0) != (value_high > 0.0):
            return low if value_low == 0.0 else _zero(helix, surface, low, high, value_low)
        low, value_low = high, value_high
    return _NO_CROSSING
