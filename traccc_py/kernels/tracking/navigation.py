"""Which surfaces a track meets, and in which order.

Layers stand in up to three stacks: cylinders ordered by radius, discs by z, planes by offset. A track meets the layers
of one stack in order, so the next layer is the nearer of one candidate per stack. The place in a stack is a *gap*:
gap g lies between layers g - 1 and g (counted from the stack's first layer). Going outwards the next layer is g and the
gap behind it g + 1; going inwards they are g - 1 and g - 1. A cylinder that has just been left can be met again only
after the radial direction has turned.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.kernels.tracking.helix import direction, helix_displacement, path_to_cylinder, path_to_plane, turned
from traccc_py.kernels.tracking.linalg import PI, TWO_PI

__all__ = [
    "ON_PLANE",
    "UNREACHABLE",
    "StackRanges",
    "cross_stack",
    "first_gaps",
    "grid_bin",
    "inside_margin",
    "intersect_surface",
    "is_on_new_leg",
    "layer_normal",
    "next_layer",
    "surface_axes",
    "surface_distance",
]

CYLINDER = np.int32(LayerKind.CYLINDER)
DISC = np.int32(LayerKind.DISC)
PLANE = np.int32(LayerKind.PLANE)
NONE = np.int32(-1)
_ZERO = scalar(0)
_ONE = scalar(1)
_TWO = scalar(2)
_HALF = scalar(0.5)
UNREACHABLE = scalar(1e29)
_LONGEST_STEP = scalar(6000)  # [mm], longer than any way between layers: a helix outside winds on for ever
_BEYOND = scalar(100)  # [mm], a track that gets this far outside of all layers does not come back: it meets the coil
ON_PLANE = scalar(0.1)  # [mm], far more than rounding leaves where a crossing was found
_TRAPEZOID = np.int32(Shape.TRAPEZOID)
_ANNULUS = np.int32(Shape.ANNULUS)  # and, beyond it, rings


class StackRanges(NamedTuple):
    """First layer and number of layers of each stack (0 where there is none)."""

    first_cylinder: Any  # int32
    n_cylinders: Any
    first_disc: Any
    n_discs: Any
    first_plane: Any
    n_planes: Any


@device_function
def _gap_below(layers, first, n, value):
    """Return how many of the n layers from `first` lie below `value`, by bisection."""
    low = np.int32(0)
    high = np.int32(n)
    while low < high:
        middle = (low + high) // np.int32(2)
        if layers[first + middle].position < value:
            low = np.int32(middle + 1)
        else:
            high = np.int32(middle)
    return low


@device_function
def _own_gap(layer, first, n, outwards, gap):
    """Return the gap behind `layer` if it belongs to this stack, else `gap`."""
    if layer >= first and layer < first + n:
        return np.int32(layer - first + (1 if outwards else 0))
    return gap


@device_function
def first_gaps(layers, stacks, layer, position, trig):
    """Return the gaps (cylinder, disc, plane) of a track that stands on `layer` (-1: on none) at `position`."""
    radius = math.sqrt(position[0] * position[0] + position[1] * position[1])
    outwards = position[0] * trig[1] + position[1] * trig[0] >= _ZERO
    cylinder = _gap_below(layers, stacks.first_cylinder, stacks.n_cylinders, radius)
    cylinder = _own_gap(layer, stacks.first_cylinder, stacks.n_cylinders, outwards, cylinder)
    forward = trig[3] >= _ZERO
    disc = _gap_below(layers, stacks.first_disc, stacks.n_discs, position[2])
    disc = _own_gap(layer, stacks.first_disc, stacks.n_discs, forward, disc)
    plane = np.int32(0)
    if stacks.n_planes > 0:
        normal = layer_axis(layers, stacks.first_plane)
        offset = position[0] * normal[0] + position[1] * normal[1] + position[2] * normal[2]
        t = direction(trig)
        ahead = t[0] * normal[0] + t[1] * normal[1] + t[2] * normal[2] >= _ZERO
        plane = _gap_below(layers, stacks.first_plane, stacks.n_planes, offset)
        plane = _own_gap(layer, stacks.first_plane, stacks.n_planes, ahead, plane)
    return cylinder, disc, plane


@device_function
def layer_axis(layers, layer):
    """Return the normal of a plane layer."""
    return layers[layer].normal_x, layers[layer].normal_y, layers[layer].normal_z


@device_function
def _next_cylinder(layers, stacks, gap, position, trig, turn):
    """Return (layer or -1, path, gap behind it)."""
    first, n = stacks.first_cylinder, stacks.n_cylinders
    outwards = position[0] * trig[1] + position[1] * trig[0] >= _ZERO
    step = np.int32(0) if outwards else np.int32(-1)
    ahead = np.int32(gap + step)
    if ahead >= 0 and ahead < n:
        path = path_to_cylinder(position[0], position[1], trig, turn, layers[first + ahead].position, False)
        if path < UNREACHABLE:
            return np.int32(first + ahead), max(path, _ZERO), np.int32(gap + 1 + 2 * step)
    # The radial direction turns before the next layer: the one on the other side of the gap comes next.
    ahead = np.int32(gap - 1 - step)
    if ahead < 0 or ahead >= n:
        return NONE, UNREACHABLE * (_ONE + _ZERO * turn), gap
    path = path_to_cylinder(position[0], position[1], trig, turn, layers[first + ahead].position, True)
    if not path < UNREACHABLE:
        return NONE, path, gap
    return np.int32(first + ahead), path, np.int32(gap - 1 - 2 * step)


@device_function
def _next_disc(layers, stacks, gap, z, cos_theta):
    """Return (layer or -1, path, gap behind it)."""
    step = np.int32(0) if cos_theta >= _ZERO else np.int32(-1)
    ahead = np.int32(gap + step)
    if ahead < 0 or ahead >= stacks.n_discs or cos_theta == _ZERO:
        return NONE, UNREACHABLE * (_ONE + _ZERO * z), gap
    layer = np.int32(stacks.first_disc + ahead)
    return layer, max((layers[layer].position - z) / cos_theta, _ZERO), np.int32(gap + 1 + 2 * step)


@device_function
def _next_plane(layers, stacks, gap, position, trig, turn):
    """Return (layer or -1, path, gap behind it)."""
    normal = layer_axis(layers, stacks.first_plane)
    t = direction(trig)
    ahead = t[0] * normal[0] + t[1] * normal[1] + t[2] * normal[2]
    step = np.int32(0) if ahead >= _ZERO else np.int32(-1)
    index = np.int32(gap + step)
    if index < 0 or index >= stacks.n_planes or ahead == _ZERO:
        return NONE, UNREACHABLE * (_ONE + _ZERO * turn), gap
    layer = np.int32(stacks.first_plane + index)
    offset = layers[layer].position
    relative = (position[0] - offset * normal[0], position[1] - offset * normal[1], position[2] - offset * normal[2])
    path = path_to_plane(relative, trig, turn, normal, _ZERO * turn)
    d = helix_displacement(trig, turn, path)
    miss = (relative[0] + d[0]) * normal[0] + (relative[1] + d[1]) * normal[1] + (relative[2] + d[2]) * normal[2]
    if not abs(miss) < ON_PLANE:  # the helix turns back before the plane
        path = UNREACHABLE * (_ONE + _ZERO * turn)
        layer = NONE
    return layer, max(path, _ZERO * path), np.int32(gap + 1 + 2 * step)


@device_function
def cross_stack(layers, stacks, kind, gap, position, trig, turn):
    """Return (layer or -1, path, gap behind it) of the next layer in the stack of one kind."""
    if kind == CYLINDER:
        return _next_cylinder(layers, stacks, gap, position, trig, turn)
    if kind == DISC:
        return _next_disc(layers, stacks, gap, position[2], trig[3])
    if stacks.n_planes == 0:
        return NONE, UNREACHABLE * (_ONE + _ZERO * turn), gap
    return _next_plane(layers, stacks, gap, position, trig, turn)


@device_function
def _within_extent(layers, layer, position):
    """Return whether a crossing lies between the ends of its layer."""
    kind = layers[layer].kind
    if kind == CYLINDER:
        along = position[2]
    elif kind == DISC:
        along = math.sqrt(position[0] * position[0] + position[1] * position[1])
    else:
        return True
    return layers[layer].extent_min <= along <= layers[layer].extent_max


@device_function
def _is_outwards(position, trig):
    """Return whether a track moves away from the beam line."""
    return position[0] * trig[1] + position[1] * trig[0] >= _ZERO


@device_function
def is_on_new_leg(position, trig, turn, path, crossing):
    """Return whether a track comes to a crossing by another way than on the straight.

    That is where its radial direction has reversed, or its own one turned by more than a radian: gaps and crossings of
    planes have to be reckoned from the crossing then, and no longer from `position`.
    """
    end = turned(trig, turn, path)
    return _is_outwards(position, trig) != _is_outwards(crossing, end) or abs(turn * path) > _ONE


@device_function
def _leaves_world(layers, stacks, position, trig, turn, path, crossing):
    """Return whether a track gets far outside of all layers before it comes back to a crossing."""
    is_back = _is_outwards(position, trig) and not _is_outwards(crossing, turned(trig, turn, path))
    if not (is_back or abs(turn * path) > PI) or stacks.n_cylinders + stacks.n_discs == 0:
        return False
    limit = _ZERO * turn
    if stacks.n_cylinders > 0:
        limit = layers[stacks.first_cylinder + stacks.n_cylinders - 1].position + limit
    for k in range(stacks.first_disc, stacks.first_disc + stacks.n_discs):
        limit = max(limit, layers[k].extent_max)
    radius = trig[2] / turn
    x, y = position[0] - radius * trig[0], position[1] + radius * trig[1]
    return math.sqrt(x * x + y * y) + abs(radius) > limit + _BEYOND


@device_function
def next_layer(layers, stacks, gaps, position, trig, turn):
    """Return (layer or -1, path, position of the crossing, gaps behind it) of the next layer on the track."""
    cylinder, cylinder_path, cylinder_gap = cross_stack(layers, stacks, CYLINDER, gaps[0], position, trig, turn)
    disc, disc_path, disc_gap = cross_stack(layers, stacks, DISC, gaps[1], position, trig, turn)
    plane, plane_path, plane_gap = cross_stack(layers, stacks, PLANE, gaps[2], position, trig, turn)
    here = gaps
    while cylinder != NONE or disc != NONE or plane != NONE:
        if disc_path <= cylinder_path and disc_path <= plane_path:
            layer, path = disc, disc_path
            here = (here[0], disc_gap, here[2])
        elif cylinder_path <= plane_path:
            layer, path = cylinder, cylinder_path
            here = (cylinder_gap, here[1], here[2])
        else:
            layer, path = plane, plane_path
            here = (here[0], here[1], plane_gap)
        if layer == NONE or not path < _LONGEST_STEP:
            break
        d = helix_displacement(trig, turn, path)
        crossing = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
        if _within_extent(layers, layer, crossing):
            if _leaves_world(layers, stacks, position, trig, turn, path, crossing):
                break
            return layer, path, crossing, here
        if layer == disc:
            disc, disc_path, disc_gap = cross_stack(layers, stacks, DISC, here[1], position, trig, turn)
        elif layer == cylinder:
            cylinder, cylinder_path, cylinder_gap = _after_miss(layers, stacks, here[0], position, trig, turn, path)
        else:
            plane, plane_path, plane_gap = cross_stack(layers, stacks, PLANE, here[2], position, trig, turn)
    return NONE, _ZERO * turn, position, here


@device_function
def _after_miss(layers, stacks, gap, position, trig, turn, path):
    """Return the next cylinder after one was crossed beyond its end: seen from that crossing."""
    d = helix_displacement(trig, turn, path)
    there = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
    layer, more, behind = _next_cylinder(layers, stacks, gap, there, turned(trig, turn, path), turn)
    return layer, path + more, behind


@device_function
def grid_bin(layers, layer, crossing):
    """Return the index into bin_offsets of the grid bin of a crossing; ends are clamped."""
    n_phi = layers[layer].n_phi
    n_other = layers[layer].n_other
    i_phi = np.int32(0)
    if n_phi > 1:
        phi = math.atan2(crossing[1], crossing[0])
        i_phi = np.int32((phi + PI) / TWO_PI * scalar(n_phi))
        i_phi = min(max(i_phi, np.int32(0)), np.int32(n_phi - 1))
    if layers[layer].kind == CYLINDER:
        along = crossing[2]
    else:
        along = math.sqrt(crossing[0] * crossing[0] + crossing[1] * crossing[1])
    low = layers[layer].other_min
    width = layers[layer].other_max - low
    i_other = np.int32(0)
    if n_other > 1:
        i_other = np.int32(min(max((along - low) / width, _ZERO), _ONE) * scalar(n_other))
        i_other = min(i_other, np.int32(n_other - 1))
    return np.int32(layers[layer].first_bin + i_phi * n_other + i_other)


@device_function
def layer_normal(layers, layer, position):
    """Return the normal of a layer's reference surface at a position."""
    kind = layers[layer].kind
    if kind == CYLINDER:
        over = _ONE / math.sqrt(position[0] * position[0] + position[1] * position[1])
        return position[0] * over, position[1] * over, _ZERO * over
    if kind == DISC:
        zero = _ZERO * position[0]
        return zero, zero, _ONE + zero
    return layer_axis(layers, layer)


@device_function
def surface_axes(surfaces, i):
    """Return the axes u and v of a surface."""
    return (surfaces[i].ux, surfaces[i].uy, surfaces[i].uz), (surfaces[i].vx, surfaces[i].vy, surfaces[i].vz)


@device_function
def surface_distance(surfaces, i, position):
    """Return the distance of a position from the plane of a surface, along its normal."""
    return (
        (position[0] - surfaces[i].cx) * surfaces[i].wx
        + (position[1] - surfaces[i].cy) * surfaces[i].wy
        + (position[2] - surfaces[i].cz) * surfaces[i].wz
    )


@device_function
def intersect_surface(surfaces, i, position, trig, turn, guess):
    """Return (path, loc0, loc1) of the crossing of a helix with a surface's plane; loc0 is 1e29 if there is none."""
    offset = (position[0] - surfaces[i].cx, position[1] - surfaces[i].cy, position[2] - surfaces[i].cz)
    normal = (surfaces[i].wx, surfaces[i].wy, surfaces[i].wz)
    path = path_to_plane(offset, trig, turn, normal, guess)
    d = helix_displacement(trig, turn, path)
    u, v = surface_axes(surfaces, i)
    dx, dy, dz = offset[0] + d[0], offset[1] + d[1], offset[2] + d[2]
    loc0 = dx * u[0] + dy * u[1] + dz * u[2]
    if not abs(dx * normal[0] + dy * normal[1] + dz * normal[2]) < ON_PLANE:  # the helix turns back before the plane
        loc0 = UNREACHABLE * (_ONE + _ZERO * turn)
    return path, loc0, dx * v[0] + dy * v[1] + dz * v[2]


@device_function
def _annulus_margin(surfaces, i, loc0, loc1):
    """Return how far inside the sides and the arcs of an annulus a point is; for a ring both are those of the arcs."""
    x, y = loc0 - surfaces[i].beam_x, loc1 - surfaces[i].beam_y
    radius = math.sqrt(x * x + y * y)
    radial = surfaces[i].r_max - radius
    if surfaces[i].r_min > _ZERO:
        radial = min(radial, radius - surfaces[i].r_min)
    opening = surfaces[i].half_opening
    if opening >= PI:
        return radial, radial
    ahead = loc1 + surfaces[i].focal
    return math.sqrt(loc0 * loc0 + ahead * ahead) * (opening - abs(math.atan2(loc0, ahead))), radial


@device_function
def inside_margin(surfaces, i, loc0, loc1):
    """Return how far inside the edges in loc0 and loc1 a point is [mm]; negative outside."""
    if surfaces[i].shape >= _ANNULUS:
        return _annulus_margin(surfaces, i, loc0, loc1)
    hy = surfaces[i].hy
    half_width = surfaces[i].hx_min
    if surfaces[i].shape == _TRAPEZOID:
        half_width = half_width + (surfaces[i].hx_max - half_width) * (loc1 + hy) / (_TWO * hy)
    return half_width - abs(loc0), hy - abs(loc1)
