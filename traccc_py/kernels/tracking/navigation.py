"""Which surfaces a track meets, and in which order.

Layers are ordered in up to three stacks: cylinders ordered by radius, discs by z, planes by offset. A track meets the
layers of one stack in order, so the next layer is the nearer of one candidate per stack. The place in a stack is a
*gap*: gap g lies between layers g - 1 and g (counted from the stack's first layer). Going outwards the next layer is g
and the gap behind it g + 1; going inwards they are g - 1 and g - 1. A cylinder that has just been left can be met again
only after the radial direction has turned.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.kernels.constants import HALF, ONE, PI, TWO, TWO_PI, ZERO
from traccc_py.kernels.tracking.helix import (
    direction_after,
    helix_displacement,
    is_outwards,
    path_to_cylinder,
    path_to_plane,
    unit_vector,
)
from traccc_py.kernels.tracking.linalg import add, as_precise_as, dot, radius_of
from traccc_py.kernels.tracking.polar import is_polar
from traccc_py.kernels.tracking.state import Gaps, Vector

__all__ = [
    "MIN_INCIDENCE",
    "NONE",
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
    "surface_incidence",
]

CYLINDER = np.int32(LayerKind.CYLINDER)
DISC = np.int32(LayerKind.DISC)
PLANE = np.int32(LayerKind.PLANE)
NONE = np.int32(-1)
UNREACHABLE = scalar(1e29)  #: [mm], a path this long is none
MIN_INCIDENCE = scalar(0.02)  #: smallest |cos| of an angle of incidence: slabs are not infinitely long
_LONGEST_STEP = scalar(6000)  # [mm], longer than any path between layers: a helix outside of them never ends
_MOST_TURNED = scalar(64)  # [rad], of 0.06 GeV in 2 T after the longest step: slower ones would cross for ever
_BEYOND = scalar(100)  # [mm], a track that gets this far outside of all layers does not come back: it meets the coil
ON_PLANE = scalar(0.1)  # [mm], far more than rounding leaves where a crossing was found
_ROUNDING = scalar(0.1)  # [mm], far more than of a crossing
_TRAPEZOID = np.int32(Shape.TRAPEZOID)


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
def first_gaps(layers, stacks, layer, position, direction):
    """Return the `Gaps` of a track on `layer` (-1: on none) at `position`."""
    radius = radius_of(position)
    outwards = is_outwards(position, direction)
    cylinder = _gap_below(layers, stacks.first_cylinder, stacks.n_cylinders, radius)
    cylinder = _own_gap(layer, stacks.first_cylinder, stacks.n_cylinders, outwards, cylinder)
    forward = direction.cos_theta >= ZERO
    disc = _gap_below(layers, stacks.first_disc, stacks.n_discs, position.z)
    disc = _own_gap(layer, stacks.first_disc, stacks.n_discs, forward, disc)
    plane = np.int32(0)
    if stacks.n_planes > 0:
        normal = layer_axis(layers, stacks.first_plane)
        offset = dot(position, normal)
        ahead = dot(unit_vector(direction), normal) >= ZERO
        plane = _gap_below(layers, stacks.first_plane, stacks.n_planes, offset)
        plane = _own_gap(layer, stacks.first_plane, stacks.n_planes, ahead, plane)
    return Gaps(cylinder=cylinder, disc=disc, plane=plane)


@device_function
def layer_axis(layers, layer):
    """Return the normal of a plane layer."""
    return Vector(layers[layer].normal_x, layers[layer].normal_y, layers[layer].normal_z)


@device_function
def _next_cylinder(layers, stacks, gap, position, direction, curvature):
    """Return (layer or -1, path, gap behind it)."""
    first, n = stacks.first_cylinder, stacks.n_cylinders
    outwards = is_outwards(position, direction)
    step = np.int32(0) if outwards else np.int32(-1)
    ahead = np.int32(gap + step)
    if ahead >= 0 and ahead < n:
        path = path_to_cylinder(position.x, position.y, direction, curvature, layers[first + ahead].position, False)
        if path < UNREACHABLE:
            return np.int32(first + ahead), max(path, ZERO), np.int32(gap + 1 + 2 * step)
    # The radial direction turns before the next layer: the one on the other side of the gap comes next.
    ahead = np.int32(gap - 1 - step)
    if ahead < 0 or ahead >= n:
        return NONE, UNREACHABLE * (ONE + ZERO * curvature), gap
    path = path_to_cylinder(position.x, position.y, direction, curvature, layers[first + ahead].position, True)
    if not path < UNREACHABLE:
        return NONE, path, gap
    return np.int32(first + ahead), path, np.int32(gap - 1 - 2 * step)


@device_function
def _next_disc(layers, stacks, gap, z, cos_theta):
    """Return (layer or -1, path, gap behind it)."""
    step = np.int32(0) if cos_theta >= ZERO else np.int32(-1)
    ahead = np.int32(gap + step)
    if ahead < 0 or ahead >= stacks.n_discs or cos_theta == ZERO:
        return NONE, UNREACHABLE * (ONE + ZERO * z), gap
    layer = np.int32(stacks.first_disc + ahead)
    return layer, max((layers[layer].position - z) / cos_theta, ZERO), np.int32(gap + 1 + 2 * step)


@device_function
def _next_plane(layers, stacks, gap, position, direction, curvature):
    """Return (layer or -1, path, gap behind it)."""
    normal = layer_axis(layers, stacks.first_plane)
    ahead = dot(unit_vector(direction), normal)
    step = np.int32(0) if ahead >= ZERO else np.int32(-1)
    index = np.int32(gap + step)
    if index < 0 or index >= stacks.n_planes or ahead == ZERO:
        return NONE, UNREACHABLE * (ONE + ZERO * curvature), gap
    layer = np.int32(stacks.first_plane + index)
    offset = layers[layer].position
    relative = Vector(position.x - offset * normal.x, position.y - offset * normal.y, position.z - offset * normal.z)
    path = path_to_plane(relative, direction, curvature, normal, ZERO * curvature)
    miss = dot(add(relative, helix_displacement(direction, curvature, path)), normal)
    if not abs(miss) < ON_PLANE:  # the helix turns back before the plane
        path = UNREACHABLE * (ONE + ZERO * curvature)
        layer = NONE
    return layer, max(path, ZERO * path), np.int32(gap + 1 + 2 * step)


@device_function
def cross_stack(layers, stacks, kind, gap, position, direction, curvature):
    """Return (layer or -1, path, gap behind it) of the next layer in the stack of one kind."""
    if kind == CYLINDER:
        return _next_cylinder(layers, stacks, gap, position, direction, curvature)
    if kind == DISC:
        return _next_disc(layers, stacks, gap, position.z, direction.cos_theta)
    if stacks.n_planes == 0:
        return NONE, UNREACHABLE * (ONE + ZERO * curvature), gap
    return _next_plane(layers, stacks, gap, position, direction, curvature)


@device_function
def _within_extent(layers, layer, position):
    """Return whether a crossing lies between the ends of its layer."""
    kind = layers[layer].kind
    if kind == CYLINDER:
        along = position.z
    elif kind == DISC:
        along = radius_of(position)
    else:
        return True
    return layers[layer].extent_min <= along <= layers[layer].extent_max


@device_function
def _passes_disc(layers, layer, position, direction, curvature, path):
    """Return True only if a track crosses the plane of a disc outside of its ends.

    A straight line and the most that the track bends tell it of most discs, without sines.
    """
    along = path * direction.sin_theta
    x, y = position.x + along * direction.cos_phi, position.y + along * direction.sin_phi
    slack = HALF * abs(curvature * path) * along + _ROUNDING
    outer, inner = layers[layer].extent_max + slack, layers[layer].extent_min - slack
    r2 = x * x + y * y
    return r2 > outer * outer or (inner > ZERO and r2 < inner * inner)


@device_function
def is_on_new_leg(position, direction, curvature, path, crossing):
    """Return whether a track comes to a crossing after a turn.

    That is where its radial direction has reversed, or its own one changed by more than a radian: gaps and crossings of
    planes have to be found from the crossing then, and no longer from `position`.
    """
    end = direction_after(direction, curvature, path)
    return is_outwards(position, direction) != is_outwards(crossing, end) or abs(curvature * path) > ONE


@device_function
def _leaves_world(layers, stacks, position, direction, curvature, path, crossing):
    """Return whether a track gets far outside of all layers before it comes back to a crossing."""
    is_back = False
    if is_outwards(position, direction):
        is_back = not is_outwards(crossing, direction_after(direction, curvature, path))
    if not (is_back or abs(curvature * path) > PI) or stacks.n_cylinders + stacks.n_discs == 0:
        return False
    limit = ZERO * curvature
    if stacks.n_cylinders > 0:
        limit = layers[stacks.first_cylinder + stacks.n_cylinders - 1].position + limit
    disc = stacks.first_disc
    while disc < np.int32(stacks.first_disc + stacks.n_discs):
        limit = max(limit, layers[disc].extent_max)
        disc = np.int32(disc + 1)
    radius = direction.sin_theta / curvature  # of the circle in the transverse plane, with its centre at (x, y)
    x, y = position.x - radius * direction.sin_phi, position.y + radius * direction.cos_phi
    return math.sqrt(x * x + y * y) + abs(radius) > limit + _BEYOND


@device_function
def next_layer(layers, stacks, gaps, position, direction, curvature):
    """Return (layer or -1, path, position of the crossing, gaps behind it) of the next layer on the track."""
    cylinder, cylinder_path, cylinder_gap = cross_stack(
        layers, stacks, CYLINDER, gaps.cylinder, position, direction, curvature
    )
    disc, disc_path, disc_gap = cross_stack(layers, stacks, DISC, gaps.disc, position, direction, curvature)
    plane, plane_path, plane_gap = cross_stack(layers, stacks, PLANE, gaps.plane, position, direction, curvature)
    behind = gaps
    while cylinder != NONE or disc != NONE or plane != NONE:
        if disc_path <= cylinder_path and disc_path <= plane_path:
            layer, path = disc, disc_path
            behind = Gaps(cylinder=behind.cylinder, disc=disc_gap, plane=behind.plane)
        elif cylinder_path <= plane_path:
            layer, path = cylinder, cylinder_path
            behind = Gaps(cylinder=cylinder_gap, disc=behind.disc, plane=behind.plane)
        else:
            layer, path = plane, plane_path
            behind = Gaps(cylinder=behind.cylinder, disc=behind.disc, plane=plane_gap)
        if layer == NONE or not path < _LONGEST_STEP or not abs(curvature * path) < _MOST_TURNED:
            break
        if layer == disc and _passes_disc(layers, layer, position, direction, curvature, path):
            disc, disc_path, disc_gap = cross_stack(layers, stacks, DISC, behind.disc, position, direction, curvature)
            continue
        crossing = add(position, helix_displacement(direction, curvature, path))
        if _within_extent(layers, layer, crossing):
            if _leaves_world(layers, stacks, position, direction, curvature, path, crossing):
                break
            return layer, path, crossing, behind
        if layer == disc:
            disc, disc_path, disc_gap = cross_stack(layers, stacks, DISC, behind.disc, position, direction, curvature)
        elif layer == cylinder:
            cylinder, cylinder_path, cylinder_gap = _after_miss(
                layers, stacks, behind.cylinder, position, direction, curvature, path
            )
        else:
            plane, plane_path, plane_gap = cross_stack(
                layers, stacks, PLANE, behind.plane, position, direction, curvature
            )
    return NONE, ZERO * curvature, position, behind


@device_function
def _after_miss(layers, stacks, gap, position, direction, curvature, path):
    """Return the next cylinder after one was crossed beyond its end: seen from that crossing."""
    there = add(position, helix_displacement(direction, curvature, path))
    end = direction_after(direction, curvature, path)
    layer, more, behind = _next_cylinder(layers, stacks, gap, there, end, curvature)
    return layer, path + more, behind


@device_function
def grid_bin(layers, layer, crossing):
    """Return the index into bin_offsets of the grid bin of a crossing; ends are clamped."""
    n_phi = layers[layer].n_phi
    n_other = layers[layer].n_other
    i_phi = np.int32(0)
    if n_phi > 1:
        phi = math.atan2(crossing.y, crossing.x)
        i_phi = np.int32((phi + PI) / TWO_PI * scalar(n_phi))
        i_phi = min(max(i_phi, np.int32(0)), np.int32(n_phi - 1))
    if layers[layer].kind == CYLINDER:
        along = crossing.z
    else:
        along = radius_of(crossing)
    low = layers[layer].other_min
    width = layers[layer].other_max - low
    i_other = np.int32(0)
    if n_other > 1:
        i_other = np.int32(min(max((along - low) / width, ZERO), ONE) * scalar(n_other))
        i_other = max(np.int32(0), min(i_other, np.int32(n_other - 1)))  # not a number becomes any integer
    return np.int32(layers[layer].first_bin + i_phi * n_other + i_other)


@device_function
def layer_normal(layers, layer, position):
    """Return the normal of a layer's reference surface at a position."""
    kind = layers[layer].kind
    if kind == CYLINDER:
        over = ONE / radius_of(position)
        return Vector(position.x * over, position.y * over, ZERO * over)
    if kind == DISC:
        zero = ZERO * position.x
        return Vector(zero, zero, ONE + zero)
    return as_precise_as(position.x, layer_axis(layers, layer))


@device_function
def surface_axes(surfaces, i):
    """Return the axes u and v of a surface."""
    s = surfaces[i]
    return Vector(s.ux, s.uy, s.uz), Vector(s.vx, s.vy, s.vz)


@device_function
def surface_incidence(surfaces, i, direction):
    """Return |cos| of the angle between a direction and the normal of a surface."""
    t = unit_vector(direction)
    cosine = abs(t.x * surfaces[i].wx + t.y * surfaces[i].wy + t.z * surfaces[i].wz)
    return max(cosine, MIN_INCIDENCE + ZERO * cosine)


@device_function
def surface_distance(surfaces, i, position):
    """Return the distance of a position from the plane of a surface, along its normal."""
    return (
        (position.x - surfaces[i].cx) * surfaces[i].wx
        + (position.y - surfaces[i].cy) * surfaces[i].wy
        + (position.z - surfaces[i].cz) * surfaces[i].wz
    )


@device_function
def intersect_surface(surfaces, i, position, direction, curvature, guess):
    """Return (path, loc0, loc1) of the crossing of a helix with a surface's plane; loc0 is 1e29 if there is none."""
    offset = Vector(position.x - surfaces[i].cx, position.y - surfaces[i].cy, position.z - surfaces[i].cz)
    normal = Vector(surfaces[i].wx, surfaces[i].wy, surfaces[i].wz)
    path = path_to_plane(offset, direction, curvature, normal, guess)
    crossing = add(offset, helix_displacement(direction, curvature, path))
    u, v = surface_axes(surfaces, i)
    loc0 = dot(crossing, u)
    if not abs(dot(crossing, normal)) < ON_PLANE:  # the helix turns back before the plane
        loc0 = UNREACHABLE * (ONE + ZERO * curvature)
    return path, loc0, dot(crossing, v)


@device_function
def _annulus_margin(surfaces, i, loc0, loc1):
    """Return how far inside the sides and the arcs of an annulus a point is; for a ring both are those of the arcs."""
    x, y = loc0 - surfaces[i].beam_x, loc1 - surfaces[i].beam_y
    radius = math.sqrt(x * x + y * y)
    radial = surfaces[i].r_max - radius
    if surfaces[i].r_min > ZERO:
        radial = min(radial, radius - surfaces[i].r_min)
    opening = surfaces[i].half_opening
    if opening >= PI:
        return radial, radial
    ahead = loc1 + surfaces[i].focal
    return math.sqrt(loc0 * loc0 + ahead * ahead) * (opening - abs(math.atan2(loc0, ahead))), radial


@device_function
def inside_margin(surfaces, i, loc0, loc1):
    """Return how far inside the edges in loc0 and loc1 a point is [mm]; negative outside."""
    if is_polar(surfaces, i):
        return _annulus_margin(surfaces, i, loc0, loc1)
    hy = surfaces[i].hy
    half_width = surfaces[i].hx_min
    if surfaces[i].shape == _TRAPEZOID:
        half_width = half_width + (surfaces[i].hx_max - half_width) * (loc1 + hy) / (TWO * hy)
    return half_width - abs(loc0), hy - abs(loc1)
