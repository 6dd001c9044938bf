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
from traccc_py.kernels.constants import ONE, TWO, ZERO
from traccc_py.kernels.tracking.state import Covariance, Local

__all__ = ["is_polar", "rotated", "rotated_covariance", "strip_direction", "widening"]

_ANNULUS = np.int32(Shape.ANNULUS)  # and, beyond it, rings
_TINY = scalar(1e-6)  # [mm]


@device_function
def is_polar(surfaces, i):
    """Return whether strips of a surface point to one place."""
    return surfaces[i].shape >= _ANNULUS


@device_function
def strip_direction(surfaces, i, local):
    """Return sine and cosine of the angle between the axis of loc1 and the strip through a place."""
    ahead = local.loc1 + surfaces[i].focal
    over = ONE / max(math.sqrt(local.loc0 * local.loc0 + ahead * ahead), _TINY + ZERO * ahead)
    return local.loc0 * over, ahead * over


@device_function
def widening(surfaces, i, local, x):
    """Return the square of the ratio of the distances of a track and a measurement from the focal point.

    Strips fan out: a distance across them that holds for the place `local` is this much wider at the track.
    """
    ahead, there = local.loc1 + surfaces[i].focal, x.loc1 + surfaces[i].focal
    return (x.loc0 * x.loc0 + there * there) / max(local.loc0 * local.loc0 + ahead * ahead, _TINY + ZERO * ahead)


@device_function
def rotated(loc0, loc1, sine, cosine):
    """Return coordinates (or a row of covariances with them) across and along a strip."""
    return Local(loc0=cosine * loc0 - sine * loc1, loc1=sine * loc0 + cosine * loc1)


@device_function
def rotated_covariance(c, sine, cosine):
    """Return a covariance with the axes of loc0 and loc1 turned to lie across and along a strip."""
    mixed = TWO * sine * cosine * c.loc1_loc0
    ss, cc = sine * sine, cosine * cosine
    phi = rotated(c.phi_loc0, c.phi_loc1, sine, cosine)
    theta = rotated(c.theta_loc0, c.theta_loc1, sine, cosine)
    qop = rotated(c.qop_loc0, c.qop_loc1, sine, cosine)
    return Covariance(
        loc0_loc0=cc * c.loc0_loc0 - mixed + ss * c.loc1_loc1,
        loc1_loc0=sine * cosine * (c.loc0_loc0 - c.loc1_loc1) + (cc - ss) * c.loc1_loc0,
        loc1_loc1=ss * c.loc0_loc0 + mixed + cc * c.loc1_loc1,
        phi_loc0=phi.loc0,
        phi_loc1=phi.loc1,
        phi_phi=c.phi_phi,
        theta_loc0=theta.loc0,
        theta_loc1=theta.loc1,
        theta_phi=c.theta_phi,
        theta_theta=c.theta_theta,
        qop_loc0=qop.loc0,
        qop_loc1=qop.loc1,
        qop_phi=c.qop_phi,
        qop_theta=c.qop_theta,
        qop_qop=c.qop_qop,
    )
