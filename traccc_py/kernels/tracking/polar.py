"""Measurements on annuli and rings, whose strips point to the focal point of the sensor.

The place of such a measurement is kept in mm like any other; where only the strip is known, it is the strip's middle.
The two coordinates it measures lie across and along the line from the focal point through that place: across, a strip's
distance from a point of the track is linear in loc0 and loc1, so the filter needs no expansion. The filter turns
prediction and covariance by the strip's angle, updates as on a rectangle, and turns back.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import Shape

__all__ = ["is_polar", "strip_direction", "turned_covariance", "turned_place", "widening"]

_ZERO = scalar(0)
_ONE = scalar(1)
_TWO = scalar(2)
_ANNULUS = np.int32(Shape.ANNULUS)  # and, beyond it, rings
_TINY = scalar(1e-6)  # [mm]


@device_function
def is_polar(surfaces, i):
    """Return whether strips of a surface point to one place."""
    return surfaces[i].shape >= _ANNULUS


@device_function
def strip_direction(surfaces, i, loc0, loc1):
    """Return sine and cosine of the angle between the axis of loc1 and the strip through a place."""
    ahead = loc1 + surfaces[i].focal
    over = _ONE / max(math.sqrt(loc0 * loc0 + ahead * ahead), _TINY + _ZERO * ahead)
    return loc0 * over, ahead * over


@device_function
def widening(surfaces, i, loc0, loc1, x):
    """Return the square of the ratio of the distances of a track and a measurement from the focal point.

    Strips fan out: a distance across them that holds for the place (loc0, loc1) is this much wider at the track.
    """
    ahead, there = loc1 + surfaces[i].focal, x[1] + surfaces[i].focal
    return (x[0] * x[0] + there * there) / max(loc0 * loc0 + ahead * ahead, _TINY + _ZERO * ahead)


@device_function
def turned_place(loc0, loc1, sine, cosine):
    """Return the coordinates of a place across and along a strip."""
    return cosine * loc0 - sine * loc1, sine * loc0 + cosine * loc1


@device_function
def turned_covariance(c, sine, cosine):
    """Return a packed covariance with the axes of loc0 and loc1 turned to lie across and along a strip."""
    mixed = _TWO * sine * cosine * c[1]
    ss, cc = sine * sine, cosine * cosine
    first0, second0 = turned_place(c[3], c[4], sine, cosine)
    first1, second1 = turned_place(c[6], c[7], sine, cosine)
    first2, second2 = turned_place(c[10], c[11], sine, cosine)
    return (
        cc * c[0] - mixed + ss * c[2],
        sine * cosine * (c[0] - c[2]) + (cc - ss) * c[1],
        ss * c[0] + mixed + cc * c[2],
        first0, second0, c[5],
        first1, second1, c[8], c[9],
        first2, second2, c[12], c[13], c[14],
    )  # fmt: skip
