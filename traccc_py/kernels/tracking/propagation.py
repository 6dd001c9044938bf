"""Tracks on surfaces: transport from one to the next, their material, and updates with measurements.

A *track* is a tuple (position, x, c, u, v): global position [mm], bound parameters, packed covariance, and the axes of
the plane they belong to (of a surface, or perpendicular to the track). `trig` is its direction (see `helix`).
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import MapKind
from traccc_py.kernels.tracking.helix import (
    curvilinear_axes,
    direction,
    helix_jacobian,
    transport_covariance,
    transport_covariance_and_theta,
    trigonometry,
)
from traccc_py.kernels.tracking.kalman import update
from traccc_py.kernels.tracking.linalg import cross, wrap_angle
from traccc_py.kernels.tracking.magnetic_field import HOMOGENEOUS
from traccc_py.kernels.tracking.material import interact
from traccc_py.kernels.tracking.navigation import (
    ON_PLANE,
    UNREACHABLE,
    StackRanges,
    layer_normal,
    surface_axes,
    surface_distance,
)
from traccc_py.kernels.tracking.polar import is_polar, strip_direction, turned_covariance, turned_place, widening
from traccc_py.kernels.tracking.runge_kutta import bound_columns, follow_field
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = [
    "MASSES",
    "on_surface",
    "seed_track",
    "stack_ranges",
    "surface_incidence",
    "transport_to_curvilinear",
    "transport_to_surface",
    "updated",
    "with_layer_material",
    "with_surface_material",
]

MASSES = {"pion": pion_mass, "muon": muon_mass, "electron": electron_mass}  #: mass hypotheses [GeV]

_ZERO = scalar(0)
_ONE = scalar(1)
_PHI, _THETA, _QOP = 2, 3, 4
_CARTESIAN = np.int32(MapKind.CARTESIAN)
_CYLINDER = np.int32(MapKind.CYLINDER)
_MIN_INCIDENCE = scalar(0.02)  # slabs are not infinitely long


@device_function
def stack_ranges(p):
    """Return the stack ranges of a payload."""
    return StackRanges(p.first_cylinder, p.n_cylinders, p.first_disc, p.n_discs, p.first_plane, p.n_planes)


@device_function
def _along_helix(track, trig, turn, path, b_z, u1, v1):
    """Return (position, phi, theta, covariance, direction) after a path length, on the plane with axes u1, v1."""
    position, x, c, u0, v0 = track
    d, end, j = helix_jacobian(trig, turn, path, b_z, u0, v0, u1, v1)
    there = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
    return there, wrap_angle(x[_PHI] + turn * path), x[_THETA], transport_covariance(j, c), end


@device_function
def _direction_after(x, trig, t):
    """Return (phi, theta, trig) of the direction t that a track has come to from `trig`."""
    rho = math.sqrt(t[0] * t[0] + t[1] * t[1])
    end = (t[1] / rho, t[0] / rho, rho, t[2])
    turned = math.atan2(end[0] * trig[1] - end[1] * trig[0], end[1] * trig[1] + end[0] * trig[0])
    tipped = math.atan2(rho * trig[3] - t[2] * trig[2], t[2] * trig[3] + rho * trig[2])
    return wrap_angle(x[_PHI] + turned), x[_THETA] + tipped, end


@device_function
def _in_map(track, trig, path, field, distance, u1, v1, is_plane):
    """Return what `_along_helix` does for a track in a field map; without a plane, on one perpendicular to it."""
    position, x, c, u0, v0 = track
    normal = cross(u1, v1)
    d, t, bend, columns = follow_field(field, position, trig, x[_QOP], path, distance, normal, is_plane, u0, v0)
    phi, theta, end = _direction_after(x, trig, t)
    if not is_plane:
        u1, v1 = curvilinear_axes(end)
    j = bound_columns(columns, t, bend, u1, v1, end)
    there = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
    return there, phi, theta, transport_covariance_and_theta(j, c), end


@device_function
def transport_to_surface(track, trig, turn, path, field, surfaces, i):
    """Return the track on the plane of a surface that it reaches after `path`, and its direction there.

    In a field map `path` is a guess; a track that does not meet the plane is given a loc0 outside of all surfaces.
    """
    u1, v1 = surface_axes(surfaces, i)
    if len(field) == HOMOGENEOUS:
        there, phi, theta, c, end = _along_helix(track, trig, turn, path, field.b_z, u1, v1)
    else:
        distance = surface_distance(surfaces, i, track[0])
        there, phi, theta, c, end = _in_map(track, trig, path, field, distance, u1, v1, True)
    dx, dy, dz = there[0] - surfaces[i].cx, there[1] - surfaces[i].cy, there[2] - surfaces[i].cz
    loc0 = dx * u1[0] + dy * u1[1] + dz * u1[2]
    loc1 = dx * v1[0] + dy * v1[1] + dz * v1[2]
    if len(field) != HOMOGENEOUS and not abs(surface_distance(surfaces, i, there)) < ON_PLANE:
        loc0 = UNREACHABLE * (_ONE + _ZERO * path)
    return (there, (loc0, loc1, phi, theta, track[1][_QOP]), c, u1, v1), end


@device_function
def transport_to_curvilinear(track, trig, turn, path, field):
    """Return the track on the plane perpendicular to it after `path`, and its direction there."""
    zero = _ZERO * path
    if len(field) == HOMOGENEOUS:
        u1, v1 = curvilinear_axes(trigonometry(track[1][_PHI] + turn * path, track[1][_THETA]))
        there, phi, theta, c, end = _along_helix(track, trig, turn, path, field.b_z, u1, v1)
    else:
        there, phi, theta, c, end = _in_map(track, trig, path, field, zero, track[3], track[4], False)
        u1, v1 = curvilinear_axes(end)
    return (there, (zero, zero, phi, theta, track[1][_QOP]), c, u1, v1), end


@device_function
def surface_incidence(surfaces, i, trig):
    """Return |cos| of the angle between a direction and the normal of a surface."""
    t = direction(trig)
    cosine = abs(t[0] * surfaces[i].wx + t[1] * surfaces[i].wy + t[2] * surfaces[i].wz)
    return max(cosine, _MIN_INCIDENCE + _ZERO * cosine)


@device_function
def _map_bin(coordinate, low, scale, n):
    """Return the bin of a coordinate; beyond the ends the first or last, for not-a-number the first."""
    place = (coordinate - low) * scale
    if place > _ZERO:
        return np.int32(min(place, scalar(n - 1)))
    return np.int32(0)


@device_function(inlined=True)
def _map_slab(p, m, a, b):
    """Return the slab of map m at the coordinates a, b."""
    found = p.material_maps[m]
    i0, i1 = _map_bin(a, found.low0, found.scale0, found.n0), _map_bin(b, found.low1, found.scale1, found.n1)
    slab = p.slabs[found.first_slab + i0 + found.n0 * i1]
    return slab.thickness_in_x0, slab.bethe_xi, slab.excitation_energy, slab.plasma_energy


@device_function(inlined=True)
def _surface_slab(p, i, loc0, loc1):
    """Return the slab of a surface at a place."""
    s = p.surfaces[i]
    m = s.material_map
    if m == 0:
        return s.thickness_in_x0, s.bethe_xi, s.excitation_energy, s.plasma_energy
    if p.material_maps[m].kind == _CARTESIAN:
        return _map_slab(p, m, loc0, loc1)
    ahead = loc1 + s.focal
    middle = p.material_maps[m].middle
    angle = middle + wrap_angle(math.atan2(loc0, ahead) - middle)
    return _map_slab(p, m, math.sqrt(loc0 * loc0 + ahead * ahead), angle)


@device_function(inlined=True)
def _layer_slab(p, layer, position):
    """Return the slab of a passive layer at a place."""
    found = p.layers[layer]
    m = found.material_map
    if m == 0:
        return found.thickness_in_x0, found.bethe_xi, found.excitation_energy, found.plasma_energy
    middle = p.material_maps[m].middle
    phi = middle + wrap_angle(math.atan2(position[1], position[0]) - middle)
    if p.material_maps[m].kind == _CYLINDER:
        return _map_slab(p, m, phi, position[2])
    return _map_slab(p, m, math.sqrt(position[0] * position[0] + position[1] * position[1]), phi)


@device_function(inlined=True)
def with_surface_material(track, trig, p, i, sign):
    """Return the track after the material of a surface, and whether it survives."""
    cosine = surface_incidence(p.surfaces, i, trig)
    slab = _surface_slab(p, i, track[1][0], track[1][1])
    x, c, alive = interact(track[1], track[2], slab, _ONE / cosine, trig[2], p.mass, sign)
    return (track[0], x, c, track[3], track[4]), alive


@device_function(inlined=True)
def with_layer_material(track, trig, p, layer, sign):
    """Return the track after the material of a passive layer, and whether it survives."""
    t = direction(trig)
    n = layer_normal(p.layers, layer, track[0])
    cosine = abs(t[0] * n[0] + t[1] * n[1] + t[2] * n[2])
    cosine = max(cosine, _MIN_INCIDENCE + _ZERO * cosine)
    slab = _layer_slab(p, layer, track[0])
    x, c, alive = interact(track[1], track[2], slab, _ONE / cosine, trig[2], p.mass, sign)
    return (track[0], x, c, track[3], track[4]), alive


@device_function
def on_surface(surfaces, i, x, c):
    """Return the track that stands on a surface with parameters x and covariance c."""
    u, v = surface_axes(surfaces, i)
    position = (
        surfaces[i].cx + x[0] * u[0] + x[1] * v[0],
        surfaces[i].cy + x[0] * u[1] + x[1] * v[1],
        surfaces[i].cz + x[0] * u[2] + x[1] * v[2],
    )
    return position, x, c, u, v


@device_function
def seed_track(surfaces, module, seed_params, seed_variance, i, inflation):
    """Return the track of a seed on the surface of its bottom measurement; variances of direction times `inflation`."""
    zero = _ZERO * seed_params[i, 0]
    x = (seed_params[i, 0], seed_params[i, 1], seed_params[i, 2], seed_params[i, 3], seed_params[i, 4])
    c = (
        seed_variance[i, 0], zero, seed_variance[i, 1], zero, zero, inflation * seed_variance[i, 2], zero, zero, zero,
        inflation * seed_variance[i, 3], zero, zero, zero, zero, inflation * seed_variance[i, 4],
    )  # fmt: skip
    return on_surface(surfaces, module, x, c)


@device_function
def updated(track, surfaces, i, p, m, variance):
    """Return the track after measurement m, with its two variances, on its surface i, and the chi2 of the update."""
    x, c = track[1], track[2]
    local0, local1 = p.local_position[m, 0], p.local_position[m, 1]
    if not is_polar(surfaces, i):
        x, c, chi2 = update(x, c, local0, local1, variance[0], variance[1], p.dimensions[m])
        return on_surface(surfaces, i, x, c), chi2
    sine, cosine = strip_direction(surfaces, i, local0, local1)
    across = variance[0] * widening(surfaces, i, local0, local1, x)
    local0, local1 = turned_place(local0, local1, sine, cosine)
    first, second = turned_place(x[0], x[1], sine, cosine)
    x, c, chi2 = update(
        (first, second, x[2], x[3], x[4]), turned_covariance(c, sine, cosine), local0, local1, across, variance[1],
        p.dimensions[m],
    )  # fmt: skip
    first, second = turned_place(x[0], x[1], -sine, cosine)
    return on_surface(surfaces, i, (first, second, x[2], x[3], x[4]), turned_covariance(c, -sine, cosine)), chi2
