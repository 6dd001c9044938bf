"""Entries of a candidate: what it met, in order, as track finding recorded it; finding and fitting follow them again.

A code >= 0 is a measurement. Below 0 stand, as -1 - k: a surface crossed without one (k < n_modules); then, after
n_modules, a passive layer; after those, in the same order, surfaces and layers behind which the track kinks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.tracking.navigation import intersect_surface
from traccc_py.kernels.tracking.propagation import (
    track_curvature,
    track_direction,
    transport_to_curvilinear,
    transport_to_surface,
    with_layer_material,
    with_surface_material,
)
from traccc_py.kernels.tracking.state import Covariance, Track

__all__ = [
    "KINK_PARAMETERS",
    "Kink",
    "is_kink",
    "kink_code",
    "kink_of",
    "move_to",
    "surface_of",
    "with_kink",
    "with_material",
]

KINK_PARAMETERS = 2  #: what a kink adds to the parameters of a track: two angles
_QOP_OF_KINK = scalar(0.1)  # relative sigma of q/p: what is lost with the kink


class Kink(NamedTuple):
    """The size of kinks."""

    momentum: Any  # sigma of the momentum given in each of two directions across the track [GeV]


def kink_of(config: FindingConfig, real: Any) -> Kink:
    """Return the size of kinks in the precision `real`."""
    return Kink(momentum=real(config.kink_momentum))


@device_function(inlined=True)
def kink_code(p, surface):
    """Return the code of a kink behind a surface or, below 0, passive layer."""
    place = surface if surface >= 0 else p.detector.n_modules - 1 - surface
    return np.int32(-1 - p.detector.n_modules - p.detector.layers.shape[0] - place)


@device_function(inlined=True)
def is_kink(p, code):
    """Return whether an entry is a kink."""
    return -1 - code >= p.detector.n_modules + p.detector.layers.shape[0]


@device_function(inlined=True)
def surface_of(p, code):
    """Return the surface of an entry, or -1 - layer for a passive layer."""
    if code >= 0:
        return np.int32(p.measurements.event_module[code] % p.detector.n_modules)
    if -1 - code < p.detector.n_modules:
        return np.int32(-1 - code)
    if is_kink(p, code):
        place = np.int32(-1 - code - p.detector.n_modules - p.detector.layers.shape[0])
        return place if place < p.detector.n_modules else np.int32(p.detector.n_modules - 1 - place)
    return np.int32(code + p.detector.n_modules)


@device_function(inlined=True)
def move_to(p, track, surface, guess):
    """Return the track on a surface (or, below 0, passive layer) about `guess` ahead, and its direction there."""
    direction = track_direction(track)
    curvature = track_curvature(p.detector.field, track, direction)
    if surface < 0:
        return transport_to_curvilinear(track, direction, curvature, guess, p.detector.field)
    surfaces = p.detector.surfaces
    path, _, _ = intersect_surface(surfaces, surface, track.position, direction, curvature, guess)
    return transport_to_surface(track, direction, curvature, path, p.detector.field, surfaces, surface)


@device_function(inlined=True)
def with_material(p, track, direction, surface, sign):
    """Return the track after the material of a surface or, below 0, passive layer; and whether it survives."""
    if surface < 0:
        return with_layer_material(track, direction, p, np.int32(-1 - surface), sign)
    return with_surface_material(track, direction, p, surface, sign)


@device_function(inlined=True)
def with_kink(track, direction, kink):
    """Return the track with the variances of its direction and momentum enlarged by those of a kink."""
    c, qop = track.covariance, track.params.qop
    angle = kink.momentum * qop
    azimuth = angle / direction.sin_theta
    lost = _QOP_OF_KINK * qop
    wide = Covariance(
        loc0_loc0=c.loc0_loc0,
        loc1_loc0=c.loc1_loc0,
        loc1_loc1=c.loc1_loc1,
        phi_loc0=c.phi_loc0,
        phi_loc1=c.phi_loc1,
        phi_phi=c.phi_phi + azimuth * azimuth,
        theta_loc0=c.theta_loc0,
        theta_loc1=c.theta_loc1,
        theta_phi=c.theta_phi,
        theta_theta=c.theta_theta + angle * angle,
        qop_loc0=c.qop_loc0,
        qop_loc1=c.qop_loc1,
        qop_phi=c.qop_phi,
        qop_theta=c.qop_theta,
        qop_qop=c.qop_qop + lost * lost,
    )
    return Track(position=track.position, params=track.params, covariance=wide, u=track.u, v=track.v)
