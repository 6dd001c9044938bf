"""The transport of particles in a field map, in float64: short classical Runge-Kutta steps.

Independent of the reconstruction's transport, and of its interpolation in the map. Every step is searched for crossings
of all modules near it; they are located on the cubic through both ends of the step. A surface that is crossed twice
within one step is not seen: that takes a track that grazes it by less than a thousandth of the step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.records import LayerKind
from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.transport.crossed_surfaces import crossed_surfaces, forget, remember, search_from
from traccc_py.simulation.transport.particle_loop import (
    FIRST_CAPACITY,
    N_COLUMNS,
    cross_slab,
    keep_decay,
    keep_hit,
    keep_vertices,
    particle_of,
    slab_and_cosine,
)
from traccc_py.simulation.transport.reachable_modules import MAX_DEVIATION, empty_list, find_reachable_modules
from traccc_py.simulation.transport.surface_places import is_inside
from traccc_py.simulation.transport.truth_helix import helix_position
from traccc_py.units import speed_of_light

__all__ = ["TruthField", "field_vector", "runge_kutta_step", "transport_particles_in_map", "truth_field"]

_STEP = 10.0  # [mm]
_STEP_PER_MOMENTUM = 300.0  # below 33 MeV steps are shorter, so that their cubic is good to a micrometre [mm / GeV]
_HORIZON = 1000.0  # the prefilter looks this far ahead [mm]
_MAX_ITERATIONS = 60
_PATH_TOLERANCE = 1e-10  # [mm]
_TWO_PI = 2.0 * math.pi
_CYLINDER, _DISC = int(LayerKind.CYLINDER), int(LayerKind.DISC)
_NOTHING = -1


class TruthField(NamedTuple):
    """A field map for compiled loops; the axes of an (r, z) map are r, none and z."""

    values: Any  # (n0 n1 n2 k,) float64 [GeV / (e mm)]: Bx, By, Bz, or Br / r [GeV / (e mm^2)] and Bz
    shape: Any  # (3,) int64
    origin: Any  # (3,) float64 [mm]
    spacing: Any  # (3,) float64 [mm]
    is_cylindrical: bool


def truth_field(field: Any) -> TruthField:
    """Return a `CartesianField` or `CylindricalField` as the loops read it."""
    values = np.asarray(field.values, np.float64)
    if values.ndim == 4:  # noqa: PLR2004
        origin = np.array([field.x_min, field.y_min, field.z_min], np.float64)
        per_mm = np.array([field.nodes_per_x, field.nodes_per_y, field.nodes_per_z], np.float64)
    else:
        values = values[:, None]
        origin = np.array([0.0, 0.0, field.z_min], np.float64)
        per_mm = np.array([field.nodes_per_r, 1.0, field.nodes_per_z], np.float64)
    is_cylindrical = bool(values.shape[3] == 2)  # noqa: PLR2004
    return TruthField(values.ravel(), np.array(values.shape[:3]), origin, 1 / per_mm, is_cylindrical)


@compiled
def _place(field, axis, value):
    """Return (node below, weight of the node above) along one axis."""
    n = field.shape[axis]
    if n == 1:
        return 0, 0.0
    place = min(max((value - field.origin[axis]) / field.spacing[axis], 0.0), n - 1.0)
    low = min(int(place), n - 2)
    return low, place - low


@compiled
def field_vector(field, x, y, z):
    """Return (Bx, By, Bz) [GeV / (e mm)] at a point [mm]."""
    first = math.hypot(x, y) if field.is_cylindrical else x
    i, fi = _place(field, 0, first)
    j, fj = _place(field, 1, y)
    k, fk = _place(field, 2, z)
    width = 2 if field.is_cylindrical else 3
    a = b = c = 0.0
    for corner in range(8):
        di, dj, dk = corner >> 2, (corner >> 1) & 1, corner & 1
        weight = (fi if di else 1.0 - fi) * (fj if dj else 1.0 - fj) * (fk if dk else 1.0 - fk)
        if weight != 0.0:
            at = (((i + di) * field.shape[1] + j + dj) * field.shape[2] + k + dk) * width
            a += weight * field.values[at]
            b += weight * field.values[at + 1]
            c += weight * field.values[at + width - 1]
    if not field.is_cylindrical:
        return a, b, c
    edge = (field.shape[0] - 1) * field.spacing[0]
    scale = a * edge / max(first, edge)
    return x * scale, y * scale, c


@compiled
def _derivative(field, qop, state):
    bx, by, bz = field_vector(field, state[0], state[1], state[2])
    tx, ty, tz = state[3], state[4], state[5]
    return tx, ty, tz, qop * (ty * bz - tz * by), qop * (tz * bx - tx * bz), qop * (tx * by - ty * bx)


@compiled
def _moved(state, h, change):
    return (
        state[0] + h * change[0], state[1] + h * change[1], state[2] + h * change[2],
        state[3] + h * change[3], state[4] + h * change[4], state[5] + h * change[5],
    )  # fmt: skip


@compiled
def runge_kutta_step(field, qop, state, h):
    """Return (position, direction), six numbers, after a path h [mm]."""
    k1 = _derivative(field, qop, state)
    k2 = _derivative(field, qop, _moved(state, 0.5 * h, k1))
    k3 = _derivative(field, qop, _moved(state, 0.5 * h, k2))
    k4 = _derivative(field, qop, _moved(state, h, k3))
    end = _moved(_moved(_moved(_moved(state, h / 6.0, k1), h / 3.0, k2), h / 3.0, k3), h / 6.0, k4)
    norm = math.sqrt(end[3] ** 2 + end[4] ** 2 + end[5] ** 2)
    return end[0], end[1], end[2], end[3] / norm, end[4] / norm, end[5] / norm


@compiled
def _on_cubic(start, end, h, s):
    """Return the position at path s of the cubic through both ends of a step, with their directions."""
    f = s / h
    g = 1.0 - f
    a, b, c, d = g * g * (1.0 + 2.0 * f), f * f * (3.0 - 2.0 * f), h * f * g * g, -h * f * f * g
    return (
        a * start[0] + b * end[0] + c * start[3] + d * end[3],
        a * start[1] + b * end[1] + c * start[4] + d * end[4],
        a * start[2] + b * end[2] + c * start[5] + d * end[5],
    )


@compiled
def _value(surface, point):
    """Return a function that changes sign at a surface (kind, a, b, c, offset)."""
    kind, a, b, c, offset = surface
    x, y, z = point
    if kind == _CYLINDER:
        return math.hypot(x, y) - offset
    return a * x + b * y + c * z - offset


@compiled
def _crossing(surface, start, end, h, low):
    """Return the path in (low, h] at which a step crosses a surface, or inf: the rule of false position, guarded."""
    high = h
    at_low = _value(surface, _on_cubic(start, end, h, low))
    at_high = _value(surface, (end[0], end[1], end[2]))
    if low >= h or (at_low > 0.0) == (at_high > 0.0):
        return np.inf
    for k in range(_MAX_ITERATIONS):
        s = low - at_low * (high - low) / (at_high - at_low) if k % 3 else 0.5 * (low + high)
        value = _value(surface, _on_cubic(start, end, h, s))
        if (value > 0.0) == (at_low > 0.0):
            low, at_low = s, value
        else:
            high, at_high = s, value
        if high - low < _PATH_TOLERANCE or abs(value) < _PATH_TOLERANCE:
            return s
    return 0.5 * (low + high)


@compiled
def _on_module(module, point):
    """Return (is inside, local0, local1) of a point of a module's plane."""
    x, y, z = point[0] - module.cx, point[1] - module.cy, point[2] - module.cz
    local0 = module.ux * x + module.uy * y + module.uz * z
    local1 = module.vx * x + module.vy * y + module.vz * z
    return is_inside(module, local0, local1), local0, local1


@compiled
def _on_passive(passive, point):
    """Return whether a point of a passive surface is within its extent."""
    if passive.kind == _CYLINDER:
        return passive.extent_min <= point[2] <= passive.extent_max
    if passive.kind == _DISC:
        return passive.extent_min <= math.hypot(point[0], point[1]) <= passive.extent_max
    return True


@compiled
def _passive_surface(passive):
    if passive.kind == _DISC:
        return passive.kind, 0.0, 0.0, 1.0, passive.position
    return passive.kind, passive.normal_x, passive.normal_y, passive.normal_z, passive.position


@compiled
def _first_surface(geometry, reachable, n_reachable, start, end, h, travelled, crossed):
    """Return (path, surface, local0, local1) of the first crossing within a step, path >= 0."""
    n_modules = len(geometry.modules)
    best, surface, best0, best1 = np.inf, _NOTHING, 0.0, 0.0
    for i in range(n_reachable):
        if reachable.s_low[i] - travelled > h:
            break
        if reachable.s_high[i] < travelled:
            continue
        index = reachable.module[i]
        module = geometry.modules[index]
        offset = module.wx * module.cx + module.wy * module.cy + module.wz * module.cz
        plane = (-1, module.wx, module.wy, module.wz, offset)
        s = _crossing(plane, start, end, h, search_from(crossed, index))
        if s < best:
            is_met, local0, local1 = _on_module(module, _on_cubic(start, end, h, s))
            if is_met:
                best, surface, best0, best1 = s, index, local0, local1
    for k in range(len(geometry.passives)):
        passive = geometry.passives[k]
        s = _crossing(_passive_surface(passive), start, end, h, search_from(crossed, n_modules + k))
        if s < best and _on_passive(passive, _on_cubic(start, end, h, s)):
            best, surface = s, n_modules + k
    return max(best, 0.0), surface, best0, best1


@compiled
def _guide(field, qop, state):
    """Return the helix around z with the track's local curvature, for the prefilter."""
    bx, by, bz = field_vector(field, state[0], state[1], state[2])
    transverse = max(math.hypot(state[3], state[4]), 1e-9)
    b = bz - state[5] / transverse * (bx * state[3] + by * state[4]) / transverse
    return state[0], state[1], state[2], state[3], state[4], state[5], -qop * b


@compiled
def _deviation(helix, s, state):
    x, y, z = helix_position(helix, s)
    return math.sqrt((x - state[0]) ** 2 + (y - state[1]) ** 2 + (z - state[2]) ** 2)


@compiled
def _is_outside(state, options, turned):
    """Return whether a track has left the world or made its turns."""
    return (
        math.hypot(state[0], state[1]) > options.r_max
        or abs(state[2]) > options.z_max
        or turned > _TWO_PI * options.max_turns
    )


@compiled
def _transport_particle(geometry, reachable, crossed, particle, start, index, options, key, rows, n_rows):
    """Transport one particle; returns the rows, possibly in a larger array, and their number."""
    mass, charge, life, path_left = particle.mass, particle.charge, particle.proper_path, particle.path_limit
    field = geometry.field
    p = math.sqrt(start[4] ** 2 + start[5] ** 2 + start[6] ** 2)
    state = (start[0], start[1], start[2], start[4] / p, start[5] / p, start[6] / p)
    time, turned, draw = start[3], 0.0, 0
    crossed.n[0] = 0
    n_reachable, travelled = -1, 0.0
    guide = _guide(field, charge / p, state)
    while p > 0.0 and time <= options.max_time and not _is_outside(state, options, turned):
        step = min(_STEP, _STEP_PER_MOMENTUM * p)
        end = runge_kutta_step(field, charge / p, state, step)
        is_far = travelled + step > _HORIZON or _deviation(guide, travelled + step, end) > MAX_DEVIATION
        if n_reachable < 0 or is_far:
            guide, travelled = _guide(field, charge / p, state), 0.0
            n_reachable, reachable = find_reachable_modules(geometry, guide, _HORIZON, reachable)
        s, surface, local0, local1 = _first_surface(
            geometry, reachable, n_reachable, state, end, step, travelled, crossed
        )
        if surface == _NOTHING:
            s = step
        does_decay = life * p < min(s, path_left)
        if does_decay:
            s = life * p
        elif s > path_left:
            break
        if s < step:
            end = runge_kutta_step(field, charge / p, state, s)
        turned += math.acos(min(1.0, state[3] * end[3] + state[4] * end[4] + state[5] * end[5]))
        time += s * math.sqrt(p * p + mass * mass) / (p * speed_of_light)
        travelled += s
        path_left -= s
        life -= s / p
        state = end
        if does_decay:
            momentum = (p, (state[3], state[4], state[5]))
            rows, n_rows = keep_decay(rows, n_rows, index, (state[0], state[1], state[2]), time, momentum)
            break
        forget(crossed, s)
        if surface == _NOTHING:
            continue
        position, direction = (state[0], state[1], state[2]), (state[3], state[4], state[5])
        slab, cosine = slab_and_cosine(geometry, surface, position, direction, local0, local1)
        before = (p, direction)
        crossing = cross_slab(slab, cosine, particle, p, direction, options, key, draw)
        p, direction = crossing.p, crossing.direction
        state = (end[0], end[1], end[2], direction[0], direction[1], direction[2])
        draw += 1
        hit = (index, surface, position, time, before, (p, direction), mass, local0, local1)
        rows, n_rows = keep_hit(geometry, rows, n_rows, hit)
        rows, n_rows = keep_vertices(rows, n_rows, index, position, time, crossing)
        remember(crossed, surface)
    return reachable, rows, n_rows


@compiled_entry
def transport_particles_in_map(geometry, particles, options, key, start, stop):
    """Return the rows (HIT_COLUMNS) of the hits of particles start ... stop - 1."""
    rows = np.empty((FIRST_CAPACITY, N_COLUMNS))
    n_rows = 0
    reachable = empty_list(FIRST_CAPACITY)
    crossed = crossed_surfaces(len(geometry.modules) + len(geometry.passives))
    for i in range(start, stop):
        if particles.charge[i] == 0.0:
            continue
        particle = particle_of(particles, i, options, key)
        reachable, rows, n_rows = _transport_particle(
            geometry, reachable, crossed, particle, particles.state[i], i, options, key, rows, n_rows
        )
    return rows[:n_rows].copy()
