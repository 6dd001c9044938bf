"""Track parameters at the point of closest approach to the beam line, carried inwards through what lies between.

d0 = y cos(phi) - x sin(phi) and z0 = z at that point, with phi the direction there (the sign convention of ATLAS and
Acts).
"""

from __future__ import annotations

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import INFINITY, ONE, ZERO
from traccc_py.kernels.tracking.covariance import transport_covariance
from traccc_py.kernels.tracking.helix import HelixColumn, direction_of, helix_jacobian, path_to_beam_line
from traccc_py.kernels.tracking.linalg import add, wrap_angle
from traccc_py.kernels.tracking.magnetic_field import HOMOGENEOUS, bending_field
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    next_layer,
)
from traccc_py.kernels.tracking.propagation import (
    track_curvature,
    track_direction,
    transport_to_curvilinear,
    transport_to_surface,
    with_layer_material,
    with_surface_material,
)
from traccc_py.kernels.tracking.state import BoundParameters, Direction, Jacobian, Vector

__all__ = ["track_at_beam_line"]

_SHORTEST = scalar(0.01)  # [mm]
_MAX_LAYERS = 20


@device_function
def _reversed(direction):
    """Return the opposite direction."""
    return Direction(
        sin_phi=-direction.sin_phi,
        cos_phi=-direction.cos_phi,
        sin_theta=direction.sin_theta,
        cos_theta=-direction.cos_theta,
    )


@device_function(inlined=True)
def _crossed_surface(detector, layer, crossing, track, direction, curvature):
    """Return (surface or -1, path) of the surface of a layer that the track crosses first going backwards."""
    best = NONE
    best_path = -INFINITY * (ONE + ZERO * curvature)
    grid = grid_bin(detector.layers, layer, crossing)
    for k in range(detector.bin_offsets[grid], detector.bin_offsets[grid + 1]):
        i = detector.bin_surfaces[k]
        path, loc0, loc1 = intersect_surface(
            detector.surfaces, i, track.position, direction, curvature, ZERO * curvature
        )
        margin0, margin1 = inside_margin(detector.surfaces, i, loc0, loc1)
        if margin0 > ZERO and margin1 > ZERO and path < -_SHORTEST and path > best_path:
            best = np.int32(i)
            best_path = path
    return best, best_path


@device_function
def _near_beam_line(field, track, direction):
    """Return a track where the helix that touches it is sure to meet the beam line, and its direction there."""
    if len(field) == HOMOGENEOUS:
        return track, direction
    curvature = track_curvature(field, track, direction)
    path = path_to_beam_line(track.position.x, track.position.y, direction, curvature)
    return transport_to_curvilinear(track, direction, curvature, path, field)


@device_function
def _at_closest_point(column, along, cos_theta, curvature):
    """Add the shift along the track that a change of phi means for the closest point."""
    shift = along * column.phi
    return HelixColumn(loc0=column.loc0, loc1=column.loc1 + cos_theta * shift, phi=column.phi + curvature * shift)


@device_function(inlined=True)
def _to_beam_line(p, track, direction, curvature):
    """Return (parameters, covariance) at the beam line; loc0 = d0, loc1 = z0."""
    path = path_to_beam_line(track.position.x, track.position.y, direction, curvature)
    phi = track.params.phi + curvature * path
    there = direction_of(phi, track.params.theta)
    zero = ZERO * path
    u = Vector(-there.sin_phi, there.cos_phi, zero)
    v = Vector(zero, zero, ONE + zero)
    b_z = bending_field(p.detector.field, track.position, direction)
    d, _, j = helix_jacobian(direction, curvature, path, b_z, track.u, track.v, u, v)
    place = add(track.position, d)
    d0 = place.y * there.cos_phi - place.x * there.sin_phi
    # The plane turns with phi: moving along the track by -d0 dphi / sin(theta) keeps the point closest.
    along = -d0 / (there.sin_theta * (ONE + d0 * curvature / there.sin_theta))
    j = Jacobian(
        loc0=_at_closest_point(j.loc0, along, there.cos_theta, curvature),
        loc1=_at_closest_point(j.loc1, along, there.cos_theta, curvature),
        phi=_at_closest_point(j.phi, along, there.cos_theta, curvature),
        theta=_at_closest_point(j.theta, along, there.cos_theta, curvature),
        qop=_at_closest_point(j.qop, along, there.cos_theta, curvature),
    )
    x = BoundParameters(loc0=d0, loc1=place.z, phi=wrap_angle(phi), theta=track.params.theta, qop=track.params.qop)
    return x, transport_covariance(j, track.covariance)


@device_function(inlined=True)
def track_at_beam_line(p, track, surface):
    """Return (parameters, covariance, survived) at the beam line of a track on its first surface."""
    detector, field = p.detector, p.detector.field
    direction = track_direction(track)
    track, alive = with_surface_material(track, direction, p, surface, -ONE)
    layer = detector.surfaces[surface].layer
    gaps = first_gaps(detector.layers, detector.stacks, layer, track.position, _reversed(direction))
    for _ in range(np.int32(_MAX_LAYERS)):
        direction = track_direction(track)
        curvature = track_curvature(field, track, direction)
        remaining = -path_to_beam_line(track.position.x, track.position.y, direction, curvature)
        layer, path, crossing, gaps = next_layer(
            detector.layers, detector.stacks, gaps, track.position, _reversed(direction), -curvature
        )
        if not alive or layer == NONE or not path < remaining:
            break
        if detector.layers[layer].is_sensitive == 0:
            track, direction = transport_to_curvilinear(track, direction, curvature, -path, field)
            track, alive = with_layer_material(track, direction, p, layer, -ONE)
        else:
            i, back = _crossed_surface(detector, layer, crossing, track, direction, curvature)
            if i != NONE:
                track, direction = transport_to_surface(track, direction, curvature, back, field, detector.surfaces, i)
                track, alive = with_surface_material(track, direction, p, i, -ONE)
    track, direction = _near_beam_line(field, track, track_direction(track))
    x, c = _to_beam_line(p, track, direction, track_curvature(field, track, direction))
    return x, c, alive
