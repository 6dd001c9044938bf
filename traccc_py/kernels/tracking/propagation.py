"""Tracks on surfaces: transport from one to the next, their material, and updates with measurements.

Functions that take a payload `p` read ``p.detector`` (`DetectorPayload`), some ``p.mass`` [GeV] or ``p.measurements``
(`MeasurementBatch`). `direction` is that of the track.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import MapKind
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.tracking.covariance import transport_covariance, transport_covariance_and_theta
from traccc_py.kernels.tracking.helix import curvilinear_axes, direction_of, helix_jacobian, unit_vector
from traccc_py.kernels.tracking.kalman import diagonal, update
from traccc_py.kernels.tracking.linalg import add, as_precise_as, cross, dot, radius_of, wrap_angle
from traccc_py.kernels.tracking.magnetic_field import HOMOGENEOUS, local_curvature
from traccc_py.kernels.tracking.material import interact
from traccc_py.kernels.tracking.navigation import (
    MIN_INCIDENCE,
    ON_PLANE,
    UNREACHABLE,
    layer_normal,
    surface_axes,
    surface_distance,
    surface_incidence,
)
from traccc_py.kernels.tracking.polar import is_polar, rotated, rotated_covariance, strip_direction, widening
from traccc_py.kernels.tracking.runge_kutta import bound_jacobian, follow_field
from traccc_py.kernels.tracking.state import (
    BoundParameters,
    Direction,
    Local,
    Slab,
    Track,
    Vector,
    load_parameters,
)
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = [
    "MASSES",
    "local_position",
    "on_surface",
    "seed_track",
    "track_curvature",
    "track_direction",
    "transport_to_curvilinear",
    "transport_to_surface",
    "updated",
    "with_layer_material",
    "with_surface_material",
]

MASSES = {"pion": pion_mass, "muon": muon_mass, "electron": electron_mass}  #: mass hypotheses [GeV]

_CARTESIAN = np.int32(MapKind.CARTESIAN)
_CYLINDER = np.int32(MapKind.CYLINDER)


@device_function
def track_direction(track):
    """Return the direction of a track."""
    return direction_of(track.params.phi, track.params.theta)


@device_function
def track_curvature(field, track, direction):
    """Return the change of phi per path length [rad/mm] of a track where it is."""
    return local_curvature(field, track.position, direction, track.params.qop)


@device_function
def _along_helix(track, direction, curvature, path, b_z, u1, v1):
    """Return (position, phi, theta, covariance, direction) after a path length, on the plane with axes u1, v1."""
    d, end, j = helix_jacobian(direction, curvature, path, b_z, track.u, track.v, u1, v1)
    phi = wrap_angle(track.params.phi + curvature * path)
    return add(track.position, d), phi, track.params.theta, transport_covariance(j, track.covariance), end


@device_function
def _direction_along(x, before, t):
    """Return (phi, theta, direction) of a track with parameters x at `before` that now goes along the vector t."""
    rho = radius_of(t)
    end = Direction(sin_phi=t.y / rho, cos_phi=t.x / rho, sin_theta=rho, cos_theta=t.z)
    phi_change = math.atan2(
        end.sin_phi * before.cos_phi - end.cos_phi * before.sin_phi,
        end.cos_phi * before.cos_phi + end.sin_phi * before.sin_phi,
    )
    theta_change = math.atan2(
        rho * before.cos_theta - t.z * before.sin_theta, t.z * before.cos_theta + rho * before.sin_theta
    )
    return wrap_angle(x.phi + phi_change), x.theta + theta_change, end


@device_function
def _in_map(track, direction, path, field, distance, u1, v1, is_plane):
    """Return what `_along_helix` does for a track in a field map; without a plane, on one perpendicular to it."""
    position, x, c, u0, v0 = track
    normal = cross(u1, v1)
    d, t, bend, columns = follow_field(field, position, direction, x.qop, path, distance, normal, is_plane, u0, v0)
    phi, theta, end = _direction_along(x, direction, t)
    if not is_plane:
        u1, v1 = curvilinear_axes(end)
    j = bound_jacobian(columns, t, bend, u1, v1, end)
    return add(position, d), phi, theta, transport_covariance_and_theta(j, c), end


@device_function
def transport_to_surface(track, direction, curvature, path, field, surfaces, i):
    """Return the track on the plane of a surface that it reaches after `path`, and its direction there.

    In a field map `path` is a guess; a track that does not meet the plane is given a loc0 outside of all surfaces.
    """
    u, v = surface_axes(surfaces, i)
    if len(field) == HOMOGENEOUS:
        there, phi, theta, c, end = _along_helix(track, direction, curvature, path, field.b_z, u, v)
    else:
        distance = surface_distance(surfaces, i, track.position)
        there, phi, theta, c, end = _in_map(track, direction, path, field, distance, u, v, True)
    offset = Vector(there.x - surfaces[i].cx, there.y - surfaces[i].cy, there.z - surfaces[i].cz)
    loc0, loc1 = dot(offset, u), dot(offset, v)
    if len(field) != HOMOGENEOUS and not abs(surface_distance(surfaces, i, there)) < ON_PLANE:
        loc0 = UNREACHABLE * (ONE + ZERO * path)
    params = BoundParameters(loc0=loc0, loc1=loc1, phi=phi, theta=theta, qop=track.params.qop)
    u, v = as_precise_as(loc0, u), as_precise_as(loc0, v)
    return Track(position=there, params=params, covariance=c, u=u, v=v), end


@device_function
def transport_to_curvilinear(track, direction, curvature, path, field):
    """Return the track on the plane perpendicular to it after `path`, and its direction there."""
    zero = ZERO * path
    if len(field) == HOMOGENEOUS:
        u, v = curvilinear_axes(direction_of(track.params.phi + curvature * path, track.params.theta))
        there, phi, theta, c, end = _along_helix(track, direction, curvature, path, field.b_z, u, v)
    else:
        there, phi, theta, c, end = _in_map(track, direction, path, field, zero, track.u, track.v, False)
        u, v = curvilinear_axes(end)
    params = BoundParameters(loc0=zero, loc1=zero, phi=phi, theta=theta, qop=track.params.qop)
    return Track(position=there, params=params, covariance=c, u=u, v=v), end


@device_function
def _map_bin(coordinate, low, scale, n):
    """Return the bin of a coordinate; beyond the ends the first or last, for not-a-number the first."""
    place = (coordinate - low) * scale
    if place > ZERO:
        return np.int32(min(place, scalar(n - 1)))
    return np.int32(0)


@device_function(inlined=True)
def _map_slab(detector, m, a, b):
    """Return the slab of map m at the coordinates a, b."""
    found = detector.material_maps[m]
    i0, i1 = _map_bin(a, found.low0, found.scale0, found.n0), _map_bin(b, found.low1, found.scale1, found.n1)
    slab = detector.slabs[found.first_slab + i0 + found.n0 * i1]
    return Slab(slab.thickness_in_x0, slab.bethe_xi, slab.excitation_energy, slab.plasma_energy)


@device_function(inlined=True)
def _surface_slab(detector, i, loc0, loc1):
    """Return the slab of a surface at a place."""
    s = detector.surfaces[i]
    m = s.material_map
    if m == 0:
        return Slab(s.thickness_in_x0, s.bethe_xi, s.excitation_energy, s.plasma_energy)
    if detector.material_maps[m].kind == _CARTESIAN:
        return _map_slab(detector, m, loc0, loc1)
    ahead = loc1 + s.focal
    middle = detector.material_maps[m].middle
    angle = middle + wrap_angle(math.atan2(loc0, ahead) - middle)
    return _map_slab(detector, m, math.sqrt(loc0 * loc0 + ahead * ahead), angle)


@device_function(inlined=True)
def _layer_slab(detector, layer, position):
    """Return the slab of a passive layer at a place."""
    found = detector.layers[layer]
    m = found.material_map
    if m == 0:
        return Slab(found.thickness_in_x0, found.bethe_xi, found.excitation_energy, found.plasma_energy)
    middle = detector.material_maps[m].middle
    phi = middle + wrap_angle(math.atan2(position.y, position.x) - middle)
    if detector.material_maps[m].kind == _CYLINDER:
        return _map_slab(detector, m, phi, position.z)
    return _map_slab(detector, m, radius_of(position), phi)


@device_function(inlined=True)
def with_surface_material(track, direction, p, surface, sign):
    """Return the track after the material of a surface, and whether it survives."""
    cosine = surface_incidence(p.detector.surfaces, surface, direction)
    slab = _surface_slab(p.detector, surface, track.params.loc0, track.params.loc1)
    x, c, alive = interact(track.params, track.covariance, slab, ONE / cosine, direction.sin_theta, p.mass, sign)
    return Track(position=track.position, params=x, covariance=c, u=track.u, v=track.v), alive


@device_function(inlined=True)
def with_layer_material(track, direction, p, layer, sign):
    """Return the track after the material of a passive layer, and whether it survives."""
    t = unit_vector(direction)
    cosine = abs(dot(t, layer_normal(p.detector.layers, layer, track.position)))
    cosine = max(cosine, MIN_INCIDENCE + ZERO * cosine)
    slab = _layer_slab(p.detector, layer, track.position)
    x, c, alive = interact(track.params, track.covariance, slab, ONE / cosine, direction.sin_theta, p.mass, sign)
    return Track(position=track.position, params=x, covariance=c, u=track.u, v=track.v), alive


@device_function
def on_surface(surfaces, i, x, c):
    """Return the track on a surface with parameters x and covariance c."""
    u, v = surface_axes(surfaces, i)
    position = Vector(
        surfaces[i].cx + x.loc0 * u.x + x.loc1 * v.x,
        surfaces[i].cy + x.loc0 * u.y + x.loc1 * v.y,
        surfaces[i].cz + x.loc0 * u.z + x.loc1 * v.z,
    )
    u, v = as_precise_as(x.loc0, u), as_precise_as(x.loc0, v)
    return Track(position=position, params=x, covariance=c, u=u, v=v)


@device_function
def seed_track(surfaces, module, seeds, i, inflation):
    """Return the track of a seed on the module of its first measurement; variances of direction times `inflation`."""
    x = load_parameters(seeds.params, i, 0)
    variance = load_parameters(seeds.variance, i, 0)
    variances = BoundParameters(
        loc0=variance.loc0,
        loc1=variance.loc1,
        phi=inflation * variance.phi,
        theta=inflation * variance.theta,
        qop=inflation * variance.qop,
    )
    return on_surface(surfaces, module, x, diagonal(variances, ZERO * x.loc0))


@device_function
def local_position(measurements, m):
    """Return the local position of measurement m."""
    return Local(loc0=measurements.local_position[m, LOC0], loc1=measurements.local_position[m, LOC1])


@device_function
def _rotated_parameters(x, sine, cosine):
    """Return parameters with the axes of loc0 and loc1 turned by an angle."""
    place = rotated(x.loc0, x.loc1, sine, cosine)
    return BoundParameters(loc0=place.loc0, loc1=place.loc1, phi=x.phi, theta=x.theta, qop=x.qop)


@device_function
def updated(track, p, surface, m, variance):
    """Return the track after measurement m, with its two variances, on its surface, and the chi2 of the update."""
    surfaces = p.detector.surfaces
    x, c = track.params, track.covariance
    local = local_position(p.measurements, m)
    if not is_polar(surfaces, surface):
        x, c, chi2 = update(x, c, local, variance, p.measurements.dimensions[m])
        return on_surface(surfaces, surface, x, c), chi2
    sine, cosine = strip_direction(surfaces, surface, local)
    variance = Local(loc0=variance.loc0 * widening(surfaces, surface, local, x), loc1=variance.loc1)
    local = rotated(local.loc0, local.loc1, sine, cosine)
    x, c = _rotated_parameters(x, sine, cosine), rotated_covariance(c, sine, cosine)
    x, c, chi2 = update(x, c, local, variance, p.measurements.dimensions[m])
    x, c = _rotated_parameters(x, -sine, cosine), rotated_covariance(c, -sine, cosine)
    return on_surface(surfaces, surface, x, c), chi2
