"""Track parameters at the point of closest approach to the beam line, carried inwards through what lies between.

d0 = y cos(phi) - x sin(phi) and z0 = z at that point, with phi the direction there (the sign convention of ATLAS and
Acts).
"""

from __future__ import annotations

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.tracking.helix import (
    helix_jacobian,
    path_to_beam_line,
    transport_covariance,
    trigonometry,
)
from traccc_py.kernels.tracking.linalg import wrap_angle
from traccc_py.kernels.tracking.magnetic_field import HOMOGENEOUS, bending_field, local_turn
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    next_layer,
)
from traccc_py.kernels.tracking.propagation import (
    stack_ranges,
    transport_to_curvilinear,
    transport_to_surface,
    with_layer_material,
    with_surface_material,
)

__all__ = ["track_at_beam_line"]

_ZERO = scalar(0)
_ONE = scalar(1)
_FAR = scalar(1e30)
_SHORTEST = scalar(0.01)  # [mm]
_MAX_LAYERS = 20
_PHI, _THETA, _QOP = 2, 3, 4


@device_function
def _reversed(trig):
    """Return the opposite direction."""
    return -trig[0], -trig[1], trig[2], -trig[3]


@device_function(inlined=True)
def _crossed_surface(p, layer, crossing, track, trig, turn):
    """Return (surface or -1, path) of the surface of a layer that the track crosses first going backwards."""
    best = NONE
    best_path = -_FAR * (_ONE + _ZERO * turn)
    grid = grid_bin(p.layers, layer, crossing)
    for k in range(p.bin_offsets[grid], p.bin_offsets[grid + 1]):
        i = p.bin_surfaces[k]
        path, loc0, loc1 = intersect_surface(p.surfaces, i, track[0], trig, turn, _ZERO * turn)
        margin0, margin1 = inside_margin(p.surfaces, i, loc0, loc1)
        if margin0 > _ZERO and margin1 > _ZERO and path < -_SHORTEST and path > best_path:
            best = np.int32(i)
            best_path = path
    return best, best_path


@device_function
def _near_beam_line(field, track, trig):
    """Return a track where the helix that touches it is sure to meet the beam line, and its direction there."""
    if len(field) == HOMOGENEOUS:
        return track, trig
    turn = local_turn(field, track[0], trig, track[1][_QOP])
    path = path_to_beam_line(track[0][0], track[0][1], trig, turn)
    return transport_to_curvilinear(track, trig, turn, path, field)


@device_function(inlined=True)
def _to_beam_line(p, track, trig, turn):
    """Return (parameters, covariance) at the beam line; loc0 = d0, loc1 = z0."""
    path = path_to_beam_line(track[0][0], track[0][1], trig, turn)
    phi = track[1][_PHI] + turn * path
    there = trigonometry(phi, track[1][_THETA])
    zero = _ZERO * path
    u = (-there[0], there[1], zero)
    v = (zero, zero, _ONE + zero)
    b_z = bending_field(p.field, track[0], trig)
    d, _, j = helix_jacobian(trig, turn, path, b_z, track[3], track[4], u, v)
    x, y, z = track[0][0] + d[0], track[0][1] + d[1], track[0][2] + d[2]
    d0 = y * there[1] - x * there[0]
    # The plane turns with phi: moving along the track by -d0 dphi / sin(theta) keeps the point closest.
    along = -d0 / (there[2] * (_ONE + d0 * turn / there[2]))
    cotangent = there[3]
    j = (
        _turned_column(j[0], along, cotangent, turn),
        _turned_column(j[1], along, cotangent, turn),
        _turned_column(j[2], along, cotangent, turn),
        _turned_column(j[3], along, cotangent, turn),
        _turned_column(j[4], along, cotangent, turn),
    )
    return (d0, z, wrap_angle(phi), track[1][_THETA], track[1][_QOP]), transport_covariance(j, track[2])


@device_function
def _turned_column(column, along, cos_theta, turn):
    """Add the shift along the track that a change of phi means for the closest point."""
    ds = along * column[2]
    return column[0], column[1] + cos_theta * ds, column[2] + turn * ds


@device_function(inlined=True)
def track_at_beam_line(p, track, surface):
    """Return (parameters, covariance, survived) at the beam line of the track that stands on its first surface."""
    stacks = stack_ranges(p)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    track, alive = with_surface_material(track, trig, p, surface, -_ONE)
    gaps = first_gaps(p.layers, stacks, p.surfaces[surface].layer, track[0], _reversed(trig))
    for _ in range(np.int32(_MAX_LAYERS)):
        trig = trigonometry(track[1][_PHI], track[1][_THETA])
        turn = local_turn(p.field, track[0], trig, track[1][_QOP])
        remaining = -path_to_beam_line(track[0][0], track[0][1], trig, turn)
        layer, path, crossing, gaps = next_layer(p.layers, stacks, gaps, track[0], _reversed(trig), -turn)
        if not alive or layer == NONE or not path < remaining:
            break
        if p.layers[layer].is_sensitive == 0:
            track, trig = transport_to_curvilinear(track, trig, turn, -path, p.field)
            track, alive = with_layer_material(track, trig, p, layer, -_ONE)
        else:
            i, back = _crossed_surface(p, layer, crossing, track, trig, turn)
            if i != NONE:
                track, trig = transport_to_surface(track, trig, turn, back, p.field, p.surfaces, i)
                track, alive = with_surface_material(track, trig, p, i, -_ONE)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    track, trig = _near_beam_line(p.field, track, trig)
    x, c = _to_beam_line(p, track, trig, local_turn(p.field, track[0], trig, track[1][_QOP]))
    return x, c, alive
