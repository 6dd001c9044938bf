"""The compiled loop over particles of the transport in a homogeneous field."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from traccc_py.geometry.records import LayerKind
from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.random_numbers import normal_pair
from traccc_py.simulation.transport.crossed_surfaces import LEAVE, crossed_surfaces, forget, remember, search_from
from traccc_py.simulation.transport.decays import proper_path
from traccc_py.simulation.transport.elements import nuclei_of
from traccc_py.simulation.transport.interactions import highland_angle, mean_energy_loss
from traccc_py.simulation.transport.kinematics import turned_by
from traccc_py.simulation.transport.nuclear import ABSORBED, SCATTERED, fate_in_nuclei, scatter
from traccc_py.simulation.transport.radiation import conversion_depth, radiated_fractions
from traccc_py.simulation.transport.reachable_modules import MAX_DEVIATION, empty_list, find_reachable_modules
from traccc_py.simulation.transport.single_scattering import single_scatter
from traccc_py.simulation.transport.straggling import straggled_loss
from traccc_py.simulation.transport.surface_places import is_inside, module_slab, passive_slab
from traccc_py.simulation.transport.truth_helix import (
    CYLINDER_SURFACE,
    PLANE_SURFACE,
    helix_direction,
    helix_position,
    next_crossing,
)
from traccc_py.units import speed_of_light

__all__ = [
    "BREMSSTRAHLUNG_PROCESS",
    "CONVERSION_PROCESS",
    "DECAY_PROCESS",
    "ELECTRON_CODE",
    "FIRST_CAPACITY",
    "HIT_COLUMNS",
    "NUCLEAR_PROCESS",
    "N_COLUMNS",
    "TracedParticle",
    "convert_photons",
    "cross_slab",
    "keep_decay",
    "keep_hit",
    "keep_vertices",
    "particle_of",
    "slab_and_cosine",
    "transport_particles",
]

ELECTRON_CODE = 11  #: PDG code
#: Processes that make particles, as ActsFatras numbers them.
DECAY_PROCESS, CONVERSION_PROCESS, BREMSSTRAHLUNG_PROCESS, NUCLEAR_PROCESS = 1, 2, 3, 4
#: Columns of the rows that the loop returns. Where the module is negative it is a vertex of that process, no hit: with
#: the particle's momentum there, and in the place of local0 the energy of a photon or the mass number of a nucleus.
HIT_COLUMNS = (
    "particle", "module", "x", "y", "z", "time", "px", "py", "pz", "energy",
    "delta_px", "delta_py", "delta_pz", "delta_energy", "local0", "local1",
)  # fmt: skip
N_COLUMNS = len(HIT_COLUMNS)

_CYLINDER = int(LayerKind.CYLINDER)
_DISC = int(LayerKind.DISC)
_TWO_PI = 2.0 * math.pi
_STREAM_SCATTERING = 1
_MIN_COSINE = 0.01  # a module's material is no longer than a hundred times its thickness
_NOTHING = -1  # index of a surface: the world's end
FIRST_CAPACITY = 256  #: rows
_SLACK = 100.0  # the end of the world is searched again this far beyond that of the prefilter's helix [mm]
_STRAIGHT = 1e-30  # curvature that counts as none [1/mm]

LOCAL = 14  # first local column of HIT_COLUMNS


@compiled
def _make_helix(position, direction, charge, b_z, p):
    x, y, z = position
    dx, dy, dz = direction
    return x, y, z, dx, dy, dz, -charge * b_z / p


@compiled
def _plane_crossing(module, helix, s_low, s_high):
    """Return path and local position of the next crossing inside the module's bounds, path inf if there is none."""
    cx, cy, cz = module.cx, module.cy, module.cz
    wx, wy, wz = module.wx, module.wy, module.wz
    distance = wx * (helix[0] - cx) + wy * (helix[1] - cy) + wz * (helix[2] - cz)
    if abs(distance) > s_high:
        return np.inf, 0.0, 0.0
    surface = (PLANE_SURFACE, wx, wy, wz, wx * cx + wy * cy + wz * cz)
    low = s_low
    while True:
        s = next_crossing(helix, surface, low, s_high)
        if s > s_high:
            return np.inf, 0.0, 0.0
        x, y, z = helix_position(helix, s)
        x, y, z = x - cx, y - cy, z - cz
        local0 = module.ux * x + module.uy * y + module.uz * z
        local1 = module.vx * x + module.vy * y + module.vz * z
        if is_inside(module, local0, local1):
            return s, local0, local1
        low = s + LEAVE


@compiled
def _passive_crossing(passive, helix, s_low, s_high):
    """Return the path to the next crossing of a passive surface inside its extent, or inf."""
    if passive.kind == _DISC:
        s = (passive.position - helix[2]) / helix[5] if helix[5] != 0.0 else np.inf
        if not s_low < s <= s_high:
            return np.inf
        x, y, _ = helix_position(helix, s)
        return s if passive.extent_min <= math.hypot(x, y) <= passive.extent_max else np.inf
    if passive.kind == _CYLINDER:
        if abs(math.hypot(helix[0], helix[1]) - passive.position) > s_high:
            return np.inf
        surface = (CYLINDER_SURFACE, passive.position * passive.position, 0.0, 0.0, 0.0)
    else:
        surface = (PLANE_SURFACE, passive.normal_x, passive.normal_y, passive.normal_z, passive.position)
    low = s_low
    while True:
        s = next_crossing(helix, surface, low, s_high)
        if s > s_high:
            return np.inf
        _, _, z = helix_position(helix, s)
        if passive.kind != _CYLINDER or passive.extent_min <= z <= passive.extent_max:
            return s
        low = s + LEAVE


@compiled
def _path_to_world_end(helix, options, turned):
    """Return the path to where the world or the allowed number of turns ends."""
    end = (_TWO_PI * options.max_turns - turned) / max(abs(helix[6]), _STRAIGHT)
    if helix[5] != 0.0:
        end = min(end, (math.copysign(options.z_max, helix[5]) - helix[2]) / helix[5])
    surface = (CYLINDER_SURFACE, options.r_max * options.r_max, 0.0, 0.0, 0.0)
    return min(end, next_crossing(helix, surface, 0.0, end))


@compiled
def _ends_before(helix, options, turned, s):
    """Return whether the track has made its turns, or was beyond the world's radius, before path `s`."""
    if turned + abs(helix[6]) * s > _TWO_PI * options.max_turns:
        return True
    if math.hypot(helix[0], helix[1]) + s * math.hypot(helix[3], helix[4]) < options.r_max:
        return False
    surface = (CYLINDER_SURFACE, options.r_max * options.r_max, 0.0, 0.0, 0.0)
    return next_crossing(helix, surface, 0.0, s) < s


@compiled
def _next_surface(geometry, reachable, n_reachable, helix, travelled, crossed, s_end):
    """Return (path, surface, local0, local1) of the first crossing within `s_end`, path >= 0.

    Surfaces are numbered modules first, then passive ones. `crossed` are those just crossed; `travelled` is the path
    since the prefilter was made.
    """
    n_modules = len(geometry.modules)
    best, surface, local0, local1 = s_end, _NOTHING, 0.0, 0.0
    for i in range(n_reachable):
        if reachable.s_low[i] - travelled > best:
            break
        if reachable.s_high[i] < travelled:
            continue
        module = reachable.module[i]
        low = max(search_from(crossed, module), reachable.s_low[i] - travelled)
        high = min(best, reachable.s_high[i] - travelled)
        s, a, b = _plane_crossing(geometry.modules[module], helix, low, high)
        if s < best:
            best, surface, local0, local1 = s, module, a, b
    for k in range(len(geometry.passives)):
        low = search_from(crossed, n_modules + k)
        s = _passive_crossing(geometry.passives[k], helix, low, best)
        if s < best:
            best, surface = s, n_modules + k
    return max(best, 0.0), surface, local0, local1


@compiled
def slab_and_cosine(geometry, surface, position, direction, local0, local1):
    """Return the slab of a surface and the cosine of the incidence."""
    n_modules = len(geometry.modules)
    dx, dy, dz = direction
    if surface < n_modules:
        module = geometry.modules[surface]
        cosine = abs(module.wx * dx + module.wy * dy + module.wz * dz)
        return module_slab(geometry, module, local0, local1), max(cosine, _MIN_COSINE)
    passive = geometry.passives[surface - n_modules]
    if passive.kind == _DISC:
        cosine = abs(dz)
    elif passive.kind == _CYLINDER:
        cosine = abs(position[0] * dx + position[1] * dy) / math.hypot(position[0], position[1])
    else:
        cosine = abs(passive.normal_x * dx + passive.normal_y * dy + passive.normal_z * dz)
    return passive_slab(geometry, passive, position), max(cosine, _MIN_COSINE)


@compiled
def _deflect(direction, first, second):
    """Return the unit direction rotated by two small angles about axes perpendicular to it."""
    dx, dy, dz = direction
    transverse = math.hypot(dx, dy)
    if transverse > 0.0:
        ex, ey = -dy / transverse, dx / transverse
    else:
        ex, ey = 1.0, 0.0
    # second axis: direction x first axis
    fx, fy, fz = -dz * ey, dz * ex, dx * ey - dy * ex
    nx, ny, nz = dx + first * ex + second * fx, dy + first * ey + second * fy, dz + second * fz
    norm = math.sqrt(nx * nx + ny * ny + nz * nz)
    return nx / norm, ny / norm, nz / norm


class TracedParticle(NamedTuple):
    """What the loops have to know of a particle."""

    identity: int
    mass: float
    charge: float
    is_electron: bool
    hadron_kind: int  # `nuclear.hadron_kinds`
    path_limit: float  # path after which it decays [mm]
    proper_path: float  # the same per momentum [mm / GeV]


class Crossing(NamedTuple):
    """What a slab did to a particle."""

    p: float  # momentum after it, 0 if the particle is gone
    direction: tuple[float, float, float]
    photon: float  # energy of an emitted photon [GeV], else 0
    mass_number: float  # of the nucleus on which the particle broke up, else 0
    p_before: float  # momentum with which it did


@compiled
def _scattered(slab, cosine, particle, p, direction, options, key, draw):
    """Return the direction after multiple scattering in a slab: Highland's core and, with it, single scatters."""
    identity, mass, charge = particle.identity, particle.mass, particle.charge
    x0 = slab[0] / cosine
    theta0 = highland_angle(p, mass, charge, x0)
    first, second = normal_pair(key, identity, draw, _STREAM_SCATTERING)
    direction = _deflect(direction, theta0 * first, theta0 * second)
    if options.scattering_tails and slab[1] > 0.0:
        angle, azimuth = single_scatter(p, mass, charge, x0, slab[1] / cosine, theta0, key, identity, draw)
        if angle > 0.0:
            direction = turned_by(direction, math.cos(angle), azimuth)
    return direction


@compiled
def _slowed(slab, cosine, particle, p, options, key, draw):
    """Return the momentum after the energy loss in a slab, 0 if the particle stops."""
    mass, charge = particle.mass, particle.charge
    xi = slab[1] / cosine
    loss = mean_energy_loss(p, mass, charge, xi, slab[2], slab[3])
    if options.straggling:
        loss = straggled_loss(loss, p, mass, charge, xi, key, particle.identity, draw)
    energy = math.sqrt(p * p + mass * mass) - loss
    return math.sqrt(energy * energy - mass * mass) if energy > mass else 0.0


@compiled
def _through_nuclei(slab, cosine, particle, p, direction, options, key, draw):
    """Return (momentum, direction, mass number) after a slab; mass number 0 unless the hadron breaks up there."""
    nuclei = nuclei_of(slab[0], slab[1])
    does_scatter = options.nuclear_scattering
    fate = fate_in_nuclei(particle.hadron_kind, p, nuclei, cosine, does_scatter, key, particle.identity, draw)
    if fate == ABSORBED:
        return 0.0, direction, nuclei.mass_number
    if fate == SCATTERED:
        p, turn, azimuth = scatter(p, particle.mass, nuclei.mass_number, key, particle.identity, draw)
        direction = turned_by(direction, turn, azimuth)
    return p, direction, 0.0


@compiled
def cross_slab(slab, cosine, particle, p, direction, options, key, draw):
    """Return the `Crossing` of a slab."""
    photon, mass_number = 0.0, 0.0
    if options.scattering and slab[0] > 0.0:
        direction = _scattered(slab, cosine, particle, p, direction, options, key, draw)
    if options.energy_loss and slab[1] > 0.0:
        p = _slowed(slab, cosine, particle, p, options, key, draw)
    if options.bremsstrahlung and particle.is_electron:
        kept, radiated = radiated_fractions(slab[0] / cosine, key, particle.identity, draw)
        photon = radiated * p
        p *= kept
    p_before = p
    if options.nuclear_interactions and particle.hadron_kind >= 0 and p > options.min_momentum and slab[1] > 0.0:
        p, direction, mass_number = _through_nuclei(slab, cosine, particle, p, direction, options, key, draw)
    if p < options.min_momentum:
        p = 0.0
    return Crossing(p, direction, photon, mass_number, p_before)


@compiled
def _record_hit(row, hit):
    """Fill a row of HIT_COLUMNS; momenta before and after are (p, direction)."""
    index, module, position, time, (p, (dx, dy, dz)), (q, (ex, ey, ez)), mass, local0, local1 = hit
    energy = math.sqrt(p * p + mass * mass)
    row[0], row[1] = index, module
    row[2], row[3], row[4], row[5] = position[0], position[1], position[2], time
    row[6], row[7], row[8], row[9] = p * dx, p * dy, p * dz, energy
    row[10], row[11], row[12] = q * ex - p * dx, q * ey - p * dy, q * ez - p * dz
    row[13] = math.sqrt(q * q + mass * mass) - energy
    row[LOCAL], row[LOCAL + 1] = local0, local1


@compiled
def keep_hit(geometry, rows, n_rows, hit):
    """Add the row of a hit if its surface is a sensor; returns the rows, possibly in a larger array, and their number.

    `hit` is (index of the particle, surface, position, time, momentum before and after, mass, local0, local1).
    """
    surface = hit[1]
    if surface < len(geometry.modules) and geometry.modules[surface].design >= 0:
        if n_rows == len(rows):
            rows = np.concatenate((rows, np.empty_like(rows)))
        _record_hit(rows[n_rows], hit)
        n_rows += 1
    return rows, n_rows


@compiled
def _keep_vertex(rows, n_rows, process, index, position, time, momentum, number):
    if n_rows == len(rows):
        rows = np.concatenate((rows, np.empty_like(rows)))
    _record_hit(rows[n_rows], (index, -process, position, time, momentum, momentum, 0.0, number, 0.0))
    return rows, n_rows + 1


@compiled
def keep_vertices(rows, n_rows, index, position, time, crossing):
    """Add rows of what a slab made; returns the rows, possibly in a larger array, and their number."""
    if crossing.photon > 0.0:
        momentum = (crossing.p, crossing.direction)
        process = BREMSSTRAHLUNG_PROCESS
        rows, n_rows = _keep_vertex(rows, n_rows, process, index, position, time, momentum, crossing.photon)
    if crossing.mass_number > 0.0:
        momentum = (crossing.p_before, crossing.direction)
        process = NUCLEAR_PROCESS
        rows, n_rows = _keep_vertex(rows, n_rows, process, index, position, time, momentum, crossing.mass_number)
    return rows, n_rows


@compiled
def keep_decay(rows, n_rows, index, position, time, momentum):
    """Add the row of a decay; returns the rows, possibly in a larger array, and their number."""
    return _keep_vertex(rows, n_rows, DECAY_PROCESS, index, position, time, momentum, 0.0)


@compiled
def _distance(first, second):
    return math.sqrt((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2 + (first[2] - second[2]) ** 2)


@compiled
def particle_of(particles, i, options, key):
    """Return the `TracedParticle` in a row."""
    identity = particles.identity[i]
    return TracedParticle(
        identity,
        particles.mass[i],
        particles.charge[i],
        particles.is_electron[i],
        particles.hadron_kind[i],
        particles.path_limit[i],
        proper_path(particles.mean_path[i], key, identity) if options.decays else np.inf,
    )


@compiled
def _transport_particle(geometry, reachable, crossed, particle, state, index, options, key, rows, n_rows):
    """Transport one particle; returns the rows, possibly in a larger array, and their number."""
    mass, charge, life, path_left = particle.mass, particle.charge, particle.proper_path, particle.path_limit
    p = math.sqrt(state[4] ** 2 + state[5] ** 2 + state[6] ** 2)
    position, direction = (state[0], state[1], state[2]), (state[4] / p, state[5] / p, state[6] / p)
    time, turned, draw = state[3], 0.0, 0
    crossed.n[0] = 0
    n_reachable, travelled, deviation, reachable_end = -1, 0.0, 0.0, 0.0
    helix = _make_helix(position, direction, charge, geometry.b_z, p)
    reference = helix
    while p > 0.0:
        helix = _make_helix(position, direction, charge, geometry.b_z, p)
        s, surface, local0, local1 = np.inf, _NOTHING, 0.0, 0.0
        if n_reachable >= 0:
            s_end = reachable_end - travelled
            s, surface, local0, local1 = _next_surface(
                geometry, reachable, n_reachable, helix, travelled, crossed, s_end
            )
            deviation = _distance(helix_position(helix, s), helix_position(reference, travelled + s))
        if n_reachable < 0 or deviation > MAX_DEVIATION:
            reference, travelled = helix, 0.0
            s_end = _path_to_world_end(helix, options, turned)
            reachable_end = s_end + _SLACK
            n_reachable, reachable = find_reachable_modules(geometry, helix, s_end, reachable)
            s, surface, local0, local1 = _next_surface(
                geometry, reachable, n_reachable, helix, travelled, crossed, s_end
            )
        does_decay = life * p < min(s, path_left)
        if does_decay:
            s = life * p
        elif surface == _NOTHING or s > path_left:
            break
        if time > options.max_time or _ends_before(helix, options, turned, s):
            break
        path_left -= s
        life -= s / p
        position, direction = helix_position(helix, s), helix_direction(helix, s)
        time += s * math.sqrt(p * p + mass * mass) / (p * speed_of_light)
        turned += abs(helix[6]) * s
        travelled += s
        if does_decay:
            rows, n_rows = keep_decay(rows, n_rows, index, position, time, (p, direction))
            break
        slab, cosine = slab_and_cosine(geometry, surface, position, direction, local0, local1)
        before = (p, direction)
        crossing = cross_slab(slab, cosine, particle, p, direction, options, key, draw)
        p, direction = crossing.p, crossing.direction
        draw += 1
        hit = (index, surface, position, time, before, (p, direction), mass, local0, local1)
        rows, n_rows = keep_hit(geometry, rows, n_rows, hit)
        rows, n_rows = keep_vertices(rows, n_rows, index, position, time, crossing)
        forget(crossed, s)
        remember(crossed, surface)
    return reachable, rows, n_rows


@compiled_entry
def transport_particles(geometry, particles, options, key, start, stop):
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


@compiled
def _convert_photon(geometry, reachable, crossed, identity, state, options, key):
    """Follow one photon; returns whether it converts, and where (x, y, z, time)."""
    p = math.sqrt(state[4] ** 2 + state[5] ** 2 + state[6] ** 2)
    direction = (state[4] / p, state[5] / p, state[6] / p)
    helix = _make_helix((state[0], state[1], state[2]), direction, 0.0, geometry.b_z, p)
    s_end = _path_to_world_end(helix, options, 0.0)
    n_reachable, reachable = find_reachable_modules(geometry, helix, s_end, reachable)
    left, travelled = conversion_depth(key, identity), 0.0
    crossed.n[0] = 0
    while True:
        s_left = s_end - travelled
        s, surface, local0, local1 = _next_surface(geometry, reachable, n_reachable, helix, travelled, crossed, s_left)
        if surface == _NOTHING:
            return False, (0.0, 0.0, 0.0, 0.0), reachable
        x, y, z = helix_position(helix, s)
        travelled += s
        slab, cosine = slab_and_cosine(geometry, surface, (x, y, z), direction, local0, local1)
        left -= slab[0] / cosine
        if left <= 0.0:
            return True, (x, y, z, state[3] + travelled / speed_of_light), reachable
        helix = _make_helix((x, y, z), direction, 0.0, geometry.b_z, p)
        forget(crossed, s)
        remember(crossed, surface)


@compiled_entry
def convert_photons(geometry, particles, options, key, start, stop):
    """Return rows (particle, x, y, z, time) of the photons among particles start ... stop - 1 that convert."""
    rows = np.empty((stop - start, 5))
    n_rows = 0
    reachable = empty_list(FIRST_CAPACITY)
    crossed = crossed_surfaces(len(geometry.modules) + len(geometry.passives))
    for i in range(start, stop):
        if particles.charge[i] != 0.0:
            continue
        is_converted, where, reachable = _convert_photon(
            geometry, reachable, crossed, particles.identity[i], particles.state[i], options, key
        )
        if is_converted:
            rows[n_rows, 0] = i
            rows[n_rows, 1], rows[n_rows, 2], rows[n_rows, 3], rows[n_rows, 4] = where
            n_rows += 1
    return rows[:n_rows].copy()
