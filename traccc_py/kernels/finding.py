"""Track finding: a combinatorial Kalman filter in which one index follows one seed through the whole detector.

A branch is followed until the detector ends or too many holes were met; where several measurements of a surface are
kept, the further ones start branches of their own, in slots that belong to the seed. The outcome is a *trail* per
branch: every surface met in order (measurements, crossed surfaces without one, passive layers) with the path lengths
between them, so that the fit needs no navigation.

Source: Frühwirth, NIM A 262 (1987) 444; cuts as traccc v1.6.0, where each seed takes one step per launch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.kernels.batch import MeasurementBatch, SeedParameters
from traccc_py.kernels.helix import (
    curvilinear_axes,
    direction,
    helix_jacobian,
    transport_covariance,
    trigonometry,
)
from traccc_py.kernels.kalman import chi2_survival, predicted_chi2, update
from traccc_py.kernels.linalg import wrap_angle
from traccc_py.kernels.material import interact
from traccc_py.kernels.navigation import (
    NONE,
    StackRanges,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    layer_normal,
    next_layer,
    surface_axes,
)
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = ["MASSES", "CandidateBatch", "find_tracks", "stack_ranges"]

MASSES = {"pion": pion_mass, "muon": muon_mass, "electron": electron_mass}  #: mass hypotheses [GeV]

_ZERO = scalar(0)
_ONE = scalar(1)
_TWO = scalar(2)
_HALF = scalar(0.5)
_INFINITY = scalar(1e30)
_AHEAD = scalar(0.01)  # [mm], a surface nearer than this to the start is the start itself
_NDF_OF_PARAMETERS = 5
_PHI, _THETA, _QOP = 2, 3, 4
_MAX_IN_BIN = 63  # surfaces of a grid bin are bits of an int64
_MIN_INCIDENCE = scalar(0.02)
_MAX_STEPS = 1000  # of one branch: a helix at theta = 90 degrees never leaves
_N_STATE = 20  # x and c of a waiting branch
_N_LINKS = 12


class _Payload(NamedTuple):
    surfaces: Any
    layers: Any
    bin_offsets: Any
    bin_surfaces: Any
    b_z: Any
    first_cylinder: Any
    n_cylinders: Any
    first_disc: Any
    n_discs: Any
    first_plane: Any
    n_planes: Any
    n_modules: Any
    # measurements
    local_position: Any  # (n_measurements, 2)
    local_variance: Any  # (n_measurements, 2)
    dimensions: Any  # (n_measurements,)
    offsets: Any  # (n_events * n_modules + 1,)
    # seeds
    seed_module: Any  # (n_seeds,)
    seed_event: Any
    seed_bottom: Any  # (n_seeds,) bottom spacepoint
    spacepoint_measurement: Any  # (n_spacepoints,)
    seed_params: Any  # (n_seeds, 5)
    seed_variance: Any  # (n_seeds, 5)
    # cuts
    mass: Any
    chi2_max: Any
    min_p: Any
    min_pt: Any
    mask_sigma: Any
    mask_tolerance: Any
    max_holes: Any
    max_consecutive_holes: Any
    max_measurements: Any
    max_entries: Any
    branches_per_seed: Any
    branches_per_surface: Any
    # waiting branches
    branch_state: Any  # (n_slots, 20) x and c
    branch_sums: Any  # (n_slots,) chi2
    branch_links: Any  # (n_slots, 12) int32
    branch_mask: Any  # (n_slots,) int64
    # output, by slot = seed * branches_per_seed + branch
    out_code: Any  # (n_slots, max_entries) int32, see `_encode`
    out_path: Any  # (n_slots, max_entries) scalar, path length from the entry before [mm]
    out_n_entries: Any  # (n_slots,) int32, 0 where there is no candidate
    out_n_measurements: Any  # (n_slots,) int32
    out_n_holes: Any  # (n_slots,) int32, holes before the last measurement
    out_chi2: Any  # (n_slots,) scalar, sum of predicted chi2
    out_ndf: Any  # (n_slots,) int32, sum of dimensions


class CandidateBatch(NamedTuple):
    """Track candidates, ordered by seed. Extent: "candidates"."""

    seed: Any  # (n_candidates,) int32
    event: Any  # (n_candidates,) int32
    entry_offsets: Any  # (n_candidates + 1,) int32
    code: Any  # (n_entries,) int32: >= 0 measurement; below 0: -1 - surface, or -1 - n_modules - layer
    path: Any  # (n_entries,) scalar, path length from the entry before [mm]
    measurement_offsets: Any  # (n_candidates + 1,) int32
    measurements: Any  # (sum,) int32
    n_holes: Any  # (n_candidates,) int32
    chi2: Any  # (n_candidates,) scalar
    ndf: Any  # (n_candidates,) int32, sum of dimensions - 5
    pval: Any  # (n_candidates,) scalar


@device_function
def stack_ranges(p):
    """Return the stack ranges of a payload."""
    return StackRanges(p.first_cylinder, p.n_cylinders, p.first_disc, p.n_discs, p.first_plane, p.n_planes)


@device_function
def transport(track, trig, turn, path, b_z, u1, v1):
    """Return (position, phi, covariance) after a path length, on the plane with axes u1, v1."""
    position, x, c, u0, v0 = track
    d, end, j = helix_jacobian(trig, turn, path, b_z, u0, v0, u1, v1)
    there = (position[0] + d[0], position[1] + d[1], position[2] + d[2])
    return there, wrap_angle(x[_PHI] + turn * path), transport_covariance(j, c), end


@device_function
def transport_to_surface(track, trig, turn, path, b_z, surfaces, i):
    """Return the track on the plane of a surface that it reaches after `path`."""
    u1, v1 = surface_axes(surfaces, i)
    there, phi, c, end = transport(track, trig, turn, path, b_z, u1, v1)
    dx, dy, dz = there[0] - surfaces[i].cx, there[1] - surfaces[i].cy, there[2] - surfaces[i].cz
    x = track[1]
    loc0 = dx * u1[0] + dy * u1[1] + dz * u1[2]
    loc1 = dx * v1[0] + dy * v1[1] + dz * v1[2]
    return (there, (loc0, loc1, phi, x[_THETA], x[_QOP]), c, u1, v1), end


@device_function
def transport_to_curvilinear(track, trig, turn, path, b_z):
    """Return the track on the plane perpendicular to it after `path`."""
    there, phi, end_trig = track[0], track[1][_PHI] + turn * path, trigonometry(track[1][_PHI] + turn * path, track[1][_THETA])
    u1, v1 = curvilinear_axes(end_trig)
    there, phi, c, end = transport(track, trig, turn, path, b_z, u1, v1)
    zero = _ZERO * path
    x = track[1]
    return (there, (zero, zero, phi, x[_THETA], x[_QOP]), c, u1, v1), end


@device_function
def surface_slab(surfaces, i):
    """Return the slab of a surface."""
    s = surfaces[i]
    return s.thickness_in_x0, s.bethe_xi, s.excitation_energy, s.plasma_energy


@device_function
def surface_incidence(surfaces, i, trig):
    """Return |cos| of the angle between a direction and the normal of a surface."""
    t = direction(trig)
    cosine = abs(t[0] * surfaces[i].wx + t[1] * surfaces[i].wy + t[2] * surfaces[i].wz)
    return max(cosine, _MIN_INCIDENCE + _ZERO * cosine)


@device_function
def with_surface_material(track, trig, surfaces, i, mass, sign):
    """Return the track after the material of a surface, and whether it survives."""
    cosine = surface_incidence(surfaces, i, trig)
    x, c, alive = interact(track[1], track[2], surface_slab(surfaces, i), _ONE / cosine, trig[2], mass, sign)
    return (track[0], x, c, track[3], track[4]), alive


@device_function
def with_layer_material(track, trig, layers, layer, mass, sign):
    """Return the track after the material of a passive layer, and whether it survives."""
    t = direction(trig)
    n = layer_normal(layers, layer, track[0])
    cosine = abs(t[0] * n[0] + t[1] * n[1] + t[2] * n[2])
    cosine = max(cosine, _MIN_INCIDENCE + _ZERO * cosine)
    found = layers[layer]
    slab = (found.thickness_in_x0, found.bethe_xi, found.excitation_energy, found.plasma_energy)
    x, c, alive = interact(track[1], track[2], slab, _ONE / cosine, trig[2], mass, sign)
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
def seed_track(surfaces, module, seed_params, seed_variance, i):
    """Return the track of a seed on the surface of its bottom measurement."""
    zero = _ZERO * seed_params[i, 0]
    x = (seed_params[i, 0], seed_params[i, 1], seed_params[i, 2], seed_params[i, 3], seed_params[i, 4])
    c = (
        seed_variance[i, 0], zero, seed_variance[i, 1], zero, zero, seed_variance[i, 2], zero, zero, zero,
        seed_variance[i, 3], zero, zero, zero, zero, seed_variance[i, 4],
    )  # fmt: skip
    return on_surface(surfaces, module, x, c)


@device_function
def updated(track, surfaces, i, p, m):
    """Return the track after measurement m on its surface i, and the chi2 of the update."""
    x, c, chi2 = update(
        track[1], track[2], p.local_position[m, 0], p.local_position[m, 1],
        p.local_variance[m, 0], p.local_variance[m, 1], p.dimensions[m],
    )  # fmt: skip
    return on_surface(surfaces, i, x, c), chi2


@device_function
def _reachable(p, layer, crossing, path, track, trig, turn, least):
    """Return the first entry of the crossing's bin and a bit for each surface of it that the track may cross."""
    grid = grid_bin(p.layers, layer, crossing)
    first = p.bin_offsets[grid]
    c = track[2]
    spread = max(c[0], c[2]) + path * path * max(c[5] * trig[2] * trig[2], c[9])
    bend = _HALF * path * path * p.b_z
    reach = p.mask_sigma * math.sqrt(_TWO * (spread + bend * bend * c[14]))
    mask = np.int64(0)
    for k in range(p.bin_offsets[grid + 1] - first):
        i = p.bin_surfaces[first + k]
        s, loc0, loc1 = intersect_surface(p.surfaces, i, track[0], trig, turn, _ZERO * turn)
        margin0, margin1 = inside_margin(p.surfaces, i, loc0, loc1)
        band = p.mask_tolerance + reach / surface_incidence(p.surfaces, i, trig)
        if s > least and margin0 > -band and margin1 > -band:
            mask = mask | (np.int64(1) << np.int64(k))
    return first, mask


@device_function
def _nearest(p, first, mask, track, trig, turn):
    """Return (place in the bin, path) of the surface among the bits of `mask` that the track meets first."""
    best = np.int32(-1)
    best_path = _INFINITY * (_ONE + _ZERO * turn)
    for k in range(np.int32(_MAX_IN_BIN)):
        if (mask >> np.int64(k)) == np.int64(0):
            break
        if (mask >> np.int64(k)) & np.int64(1):
            s, _, _ = intersect_surface(p.surfaces, p.bin_surfaces[first + k], track[0], trig, turn, _ZERO * turn)
            if s < best_path or best < 0:
                best = np.int32(k)
                best_path = s
    return best, best_path


@device_function
def _best_measurement(p, event_module, track, after_chi2, after):
    """Return (measurement or -1, chi2): the smallest chi2 within the gate that follows (after_chi2, after)."""
    best = np.int32(-1)
    best_chi2 = p.chi2_max
    x, c = track[1], track[2]
    for m in range(p.offsets[event_module], p.offsets[event_module + 1]):
        chi2 = predicted_chi2(
            p.local_position[m, 0] - x[0], p.local_position[m, 1] - x[1],
            p.local_variance[m, 0], p.local_variance[m, 1], p.dimensions[m], c,
        )  # fmt: skip
        follows = chi2 > after_chi2 or (chi2 == after_chi2 and m > after)
        if follows and (chi2 < best_chi2 or (chi2 == best_chi2 and best < 0)):
            best = np.int32(m)
            best_chi2 = chi2
    return best, best_chi2


@device_function
def _append(p, slot, n_entries, code, path):
    """Write the next entry of a trail; return the number of entries."""
    p.out_code[slot, n_entries] = code
    p.out_path[slot, n_entries] = path
    return np.int32(n_entries + 1)


@device_function
def _save_branch(p, slot, source, surface, track, nav, first, mask, tally, sums):
    """Keep a branch for later: its trail so far, track, navigation and tally."""
    n_entries = tally[0]
    for k in range(n_entries):
        p.out_code[slot, k] = p.out_code[source, k]
        p.out_path[slot, k] = p.out_path[source, k]
    for k in range(np.int32(5)):
        p.branch_state[slot, k] = track[1][k]
    for k in range(np.int32(15)):
        p.branch_state[slot, 5 + k] = track[2][k]
    p.branch_sums[slot] = sums
    p.branch_mask[slot] = mask
    p.branch_links[slot, 0] = surface
    p.branch_links[slot, 1] = first
    for k in range(np.int32(3)):
        p.branch_links[slot, 2 + k] = nav[k]
    for k in range(np.int32(5)):
        p.branch_links[slot, 5 + k] = tally[k]


@device_function
def _load_track(p, slot):
    """Return the track of a waiting branch."""
    s = p.branch_state
    x = (s[slot, 0], s[slot, 1], s[slot, 2], s[slot, 3], s[slot, 4])
    c = (
        s[slot, 5], s[slot, 6], s[slot, 7], s[slot, 8], s[slot, 9], s[slot, 10], s[slot, 11], s[slot, 12],
        s[slot, 13], s[slot, 14], s[slot, 15], s[slot, 16], s[slot, 17], s[slot, 18], s[slot, 19],
    )  # fmt: skip
    return on_surface(p.surfaces, p.branch_links[slot, 0], x, c)


@device_function
def _load_branch(p, slot):
    """Return (track, gaps, first of bin, mask, tally, chi2 sum) of a waiting branch."""
    links = p.branch_links
    gaps = (links[slot, 2], links[slot, 3], links[slot, 4])
    tally = (links[slot, 5], links[slot, 6], links[slot, 7], links[slot, 8], links[slot, 9])
    return _load_track(p, slot), gaps, links[slot, 1], p.branch_mask[slot], tally, p.branch_sums[slot]


@device_function
def _start(i, p, slot):
    """Return (track, gaps, first of bin, mask, tally, chi2 sum) of a seed after its bottom measurement."""
    module = p.seed_module[i]
    layer = p.surfaces[module].layer
    m = p.spacepoint_measurement[p.seed_bottom[i]]
    track = seed_track(p.surfaces, module, p.seed_params, p.seed_variance, i)
    track, chi2 = updated(track, p.surfaces, module, p, m)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    track, alive = with_surface_material(track, trig, p.surfaces, module, p.mass, _ONE)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    gaps = first_gaps(p.layers, stack_ranges(p), layer, track[0], trig)
    first, mask = _reachable(p, layer, track[0], _ZERO * chi2, track, trig, -track[1][_QOP] * p.b_z, _AHEAD)
    if not alive:
        mask = np.int64(0)
    n_entries = _append(p, slot, np.int32(0), m, _ZERO * chi2)
    return track, gaps, first, mask, (n_entries, np.int32(1), np.int32(0), np.int32(0), p.dimensions[m]), chi2


@device_function
def _is_slow(p, track, trig):
    """Return whether a track is below the momentum cuts (or not a number)."""
    momentum = _ONE / abs(track[1][_QOP])
    return not (momentum > p.min_p and momentum * trig[2] > p.min_pt)


@device_function
def _finish(p, slot, keep, sums):
    """Write the outcome of a branch; `keep` is the tally at its last measurement."""
    p.out_n_entries[slot] = keep[0]
    p.out_n_measurements[slot] = keep[1]
    p.out_n_holes[slot] = keep[2]
    p.out_ndf[slot] = keep[4]
    p.out_chi2[slot] = sums


@device_function
def _choose(p, i, slot, surface, track, trig, gaps, first, mask, tally, sums, path, n_branches):
    """Take the best measurement of a surface and save branches for the next best ones.

    Returns (measurement or -1, track after it and the surface's material, its chi2, alive, number of branches).
    """
    event_module = p.seed_event[i] * p.n_modules + surface
    m, chi2 = _best_measurement(p, event_module, track, -_ONE + _ZERO * sums, np.int32(-1))
    if m < 0:
        return m, track, chi2, True, n_branches
    best, _ = updated(track, p.surfaces, surface, p, m)
    best, alive = with_surface_material(best, trig, p.surfaces, surface, p.mass, _ONE)
    other, other_chi2 = m, chi2
    for _ in range(p.branches_per_surface - np.int32(1)):
        if n_branches >= p.branches_per_seed:
            break
        other, other_chi2 = _best_measurement(p, event_module, track, other_chi2, other)
        if other < 0:
            break
        branch, _ = updated(track, p.surfaces, surface, p, other)
        branch, survives = with_surface_material(branch, trig, p.surfaces, surface, p.mass, _ONE)
        if survives:
            to = np.int32(i * p.branches_per_seed + n_branches)
            counted = (tally[0], np.int32(tally[1] + 1), tally[2], np.int32(0), np.int32(tally[4] + p.dimensions[other]))
            _save_branch(p, to, slot, surface, branch, gaps, first, mask, counted, sums + other_chi2)
            p.branch_links[to, 5] = _append(p, to, tally[0], other, path)
            n_branches = np.int32(n_branches + 1)
    return m, best, chi2, alive, n_branches


@device_function
def _follow(i, p, slot, track, gaps, first, mask, tally, sums, n_branches):
    """Follow one branch to its end; return the number of branches of its seed."""
    stacks = stack_ranges(p)
    n_entries, n_measurements, n_holes, n_consecutive, ndf = tally
    keep, keep_sums = tally, sums
    since = _ZERO * sums  # path since the last entry
    n_steps = np.int32(0)
    while n_entries < p.max_entries and n_measurements < p.max_measurements and n_steps < _MAX_STEPS:
        n_steps = np.int32(n_steps + 1)
        trig = trigonometry(track[1][_PHI], track[1][_THETA])
        turn = -track[1][_QOP] * p.b_z
        if _is_slow(p, track, trig):
            break
        if mask == np.int64(0):
            layer, path, crossing, gaps = next_layer(p.layers, stacks, gaps, track[0], trig, turn)
            if layer == NONE:
                break
            if p.layers[layer].is_sensitive == 0:
                track, trig = transport_to_curvilinear(track, trig, turn, path, p.b_z)
                track, alive = with_layer_material(track, trig, p.layers, layer, p.mass, _ONE)
                n_entries = _append(p, slot, n_entries, np.int32(-1 - p.n_modules - layer), since + path)
                since = _ZERO * sums
                if not alive:
                    break
            else:
                first, mask = _reachable(p, layer, crossing, path, track, trig, turn, -_INFINITY)
            continue
        place, path = _nearest(p, first, mask, track, trig, turn)
        mask = mask & ~(np.int64(1) << np.int64(place))
        surface = p.bin_surfaces[first + place]
        track, trig = transport_to_surface(track, trig, turn, path, p.b_z, p.surfaces, surface)
        since = since + path
        margin0, margin1 = inside_margin(p.surfaces, surface, track[1][0], track[1][1])
        band0 = p.mask_tolerance + p.mask_sigma * math.sqrt(track[2][0])
        band1 = p.mask_tolerance + p.mask_sigma * math.sqrt(track[2][2])
        if not (margin0 > -band0 and margin1 > -band1):
            continue
        tally = (n_entries, n_measurements, n_holes, n_consecutive, ndf)
        m, track, chi2, alive, n_branches = _choose(
            p, i, slot, surface, track, trig, gaps, first, mask, tally, sums, since, n_branches
        )
        if m >= 0:
            n_entries = _append(p, slot, n_entries, m, since)
            n_measurements = np.int32(n_measurements + 1)
            n_consecutive = np.int32(0)
            ndf = np.int32(ndf + p.dimensions[m])
            sums = sums + chi2
            keep = (n_entries, n_measurements, n_holes, n_consecutive, ndf)
            keep_sums = sums
            since = _ZERO * sums
        elif margin0 > _ZERO and margin1 > _ZERO:
            track, alive = with_surface_material(track, trig, p.surfaces, surface, p.mass, _ONE)
            n_entries = _append(p, slot, n_entries, np.int32(-1 - surface), since)
            since = _ZERO * sums
            if margin0 > band0 and margin1 > band1:
                n_holes = np.int32(n_holes + 1)
                n_consecutive = np.int32(n_consecutive + 1)
        if not alive or n_holes > p.max_holes or n_consecutive > p.max_consecutive_holes:
            break
    _finish(p, slot, keep, keep_sums)
    return n_branches


@kernel(grain=8)
def follow_seeds(i, p):
    """Follow seed i and its branches; writes only the slots of seed i."""
    slot = np.int32(i * p.branches_per_seed)
    track, gaps, first, mask, tally, sums = _start(i, p, slot)
    n_branches = _follow(i, p, slot, track, gaps, first, mask, tally, sums, np.int32(1))
    branch = np.int32(1)
    while branch < n_branches:
        track, gaps, first, mask, tally, sums = _load_branch(p, slot + branch)
        n_branches = _follow(i, p, slot + branch, track, gaps, first, mask, tally, sums, n_branches)
        branch = np.int32(branch + 1)
    while branch < p.branches_per_seed:
        p.out_n_entries[slot + branch] = np.int32(0)
        p.out_n_measurements[slot + branch] = np.int32(0)
        branch = np.int32(branch + 1)


class _AcceptPayload(NamedTuple):
    n_entries: Any  # (n_slots,)
    n_measurements: Any  # (n_slots,)
    min_measurements: Any
    branches_per_seed: Any
    out_n_candidates: Any  # (n_seeds,) int32
    out_n_entries: Any  # (n_seeds,) int32
    out_n_measurements: Any  # (n_seeds,) int32


@kernel(grain=2048)
def count_candidates(i, p):
    """Count the accepted branches of seed i, their entries and measurements."""
    n = np.int32(0)
    entries = np.int32(0)
    measurements = np.int32(0)
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if p.n_measurements[slot] >= p.min_measurements:
            n += np.int32(1)
            entries += p.n_entries[slot]
            measurements += p.n_measurements[slot]
    p.out_n_candidates[i] = n
    p.out_n_entries[i] = entries
    p.out_n_measurements[i] = measurements


class _FillPayload(NamedTuple):
    n_entries: Any  # (n_slots,)
    n_measurements: Any
    n_holes: Any
    chi2: Any
    ndf: Any
    code: Any  # (n_slots, max_entries)
    path: Any
    seed_event: Any  # (n_seeds,)
    candidate_offsets: Any  # (n_seeds + 1,)
    entry_offsets: Any  # (n_seeds + 1,)
    measurement_offsets: Any  # (n_seeds + 1,)
    min_measurements: Any
    branches_per_seed: Any
    out_seed: Any  # (n_candidates,)
    out_event: Any
    out_entry_offsets: Any  # (n_candidates + 1,)
    out_code: Any  # (n_entries,)
    out_path: Any
    out_measurement_offsets: Any  # (n_candidates + 1,)
    out_measurements: Any
    out_n_holes: Any
    out_chi2: Any
    out_ndf: Any
    out_pval: Any


@kernel(grain=512)
def fill_candidates(i, p):
    """Copy the accepted branches of seed i to their places."""
    candidate = p.candidate_offsets[i]
    entry = p.entry_offsets[i]
    measurement = p.measurement_offsets[i]
    if (
        p.candidate_offsets[i + 1] >= p.out_entry_offsets.shape[0]
        or p.entry_offsets[i + 1] > p.out_code.shape[0]
        or p.measurement_offsets[i + 1] > p.out_measurements.shape[0]
    ):
        return
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if p.n_measurements[slot] < p.min_measurements:
            continue
        for k in range(p.n_entries[slot]):
            p.out_code[entry] = p.code[slot, k]
            p.out_path[entry] = p.path[slot, k]
            entry = np.int32(entry + 1)
            if p.code[slot, k] >= 0:
                p.out_measurements[measurement] = p.code[slot, k]
                measurement = np.int32(measurement + 1)
        ndf = np.int32(p.ndf[slot] - _NDF_OF_PARAMETERS)
        p.out_seed[candidate] = i
        p.out_event[candidate] = p.seed_event[i]
        p.out_n_holes[candidate] = p.n_holes[slot]
        p.out_chi2[candidate] = p.chi2[slot]
        p.out_ndf[candidate] = ndf
        p.out_pval[candidate] = chi2_survival(p.chi2[slot], ndf)
        candidate = np.int32(candidate + 1)
        p.out_entry_offsets[candidate] = entry
        p.out_measurement_offsets[candidate] = measurement
    if i == 0:
        p.out_entry_offsets[0] = np.int32(0)
        p.out_measurement_offsets[0] = np.int32(0)


def _slots(ws: Any, name: str, seeds: Any, dtype: Any, branches: int, width: int | None = None) -> Any:
    """Return an array with one row per slot: branches rows for each seed."""
    array = ws.array(name, seeds, dtype, branches * (width or 1))
    return array.reshape(-1, width) if width else array.reshape(-1)


def _branches(config: Any) -> int:
    """Return the slots of a seed: without a choice on surfaces there is one branch."""
    return 1 if config.max_branches_per_surface == 1 else config.max_branches_per_seed


def _finding_payload(
    ws: Any,
    seeds: SeedParameters,
    seed_bottom: Any,
    spacepoint_measurement: Any,
    measurements: MeasurementBatch,
    detector: Any,
    stacks: StackRanges,
    config: Any,
) -> _Payload:
    extent = ws.extent("seeds")
    branches = _branches(config)
    dtype = seeds.params.dtype
    real = dtype.type
    return _Payload(
        surfaces=detector.surfaces,
        layers=detector.layers,
        bin_offsets=detector.bin_offsets,
        bin_surfaces=detector.bin_surfaces,
        b_z=real(detector.b_z),
        **stacks._asdict(),
        n_modules=np.int32(detector.surfaces.shape[0]),
        local_position=measurements.local_position,
        local_variance=measurements.local_variance,
        dimensions=measurements.dimensions,
        offsets=measurements.offsets,
        seed_module=seeds.module,
        seed_event=seeds.event,
        seed_bottom=seed_bottom,
        spacepoint_measurement=spacepoint_measurement,
        seed_params=seeds.params,
        seed_variance=seeds.variance,
        mass=real(MASSES[config.particle]),
        chi2_max=real(config.chi2_max),
        min_p=real(config.min_p),
        min_pt=real(config.min_pt),
        mask_sigma=real(config.mask_sigma),
        mask_tolerance=real(config.mask_tolerance),
        max_holes=np.int32(config.max_holes),
        max_consecutive_holes=np.int32(config.max_consecutive_holes),
        max_measurements=np.int32(config.max_measurements),
        max_entries=np.int32(config.max_surfaces),
        branches_per_seed=np.int32(branches),
        branches_per_surface=np.int32(config.max_branches_per_surface),
        branch_state=_slots(ws, "finding.branch_state", extent, dtype, branches, _N_STATE),
        branch_sums=_slots(ws, "finding.branch_sums", extent, dtype, branches),
        branch_links=_slots(ws, "finding.branch_links", extent, np.int32, branches, _N_LINKS),
        branch_mask=_slots(ws, "finding.branch_mask", extent, np.int64, branches),
        out_code=_slots(ws, "finding.code", extent, np.int32, branches, config.max_surfaces),
        out_path=_slots(ws, "finding.path", extent, dtype, branches, config.max_surfaces),
        out_n_entries=_slots(ws, "finding.n_entries", extent, np.int32, branches),
        out_n_measurements=_slots(ws, "finding.n_measurements", extent, np.int32, branches),
        out_n_holes=_slots(ws, "finding.n_holes", extent, np.int32, branches),
        out_chi2=_slots(ws, "finding.chi2", extent, dtype, branches),
        out_ndf=_slots(ws, "finding.ndf", extent, np.int32, branches),
    )


def _collect(ws: Any, found: _Payload, config: Any) -> CandidateBatch:
    """Gather the accepted branches of all seeds in one collection."""
    seeds, real = ws.extent("seeds"), found.seed_params.dtype
    names = ("candidates", "candidate_entries", "candidate_measurements")
    per_seed = [ws.array(f"finding.n_{name}", seeds, np.int32) for name in names]
    offsets = [ws.array(f"finding.{name}_offsets", seeds, np.int32, extra=1) for name in names]
    minimum = np.int32(config.min_measurements)
    ws.launch(
        count_candidates,
        seeds,
        _AcceptPayload(found.out_n_entries, found.out_n_measurements, minimum, found.branches_per_seed, *per_seed),
    )
    for name, counts, offset in zip(names, per_seed, offsets, strict=True):
        ws.scan(counts, seeds, offset, ws.extent(name))
    candidates, entries, measurements = (ws.extent(name) for name in names)
    batch = CandidateBatch(
        seed=ws.array("candidates.seed", candidates, np.int32),
        event=ws.array("candidates.event", candidates, np.int32),
        entry_offsets=ws.array("candidates.entry_offsets", candidates, np.int32, extra=1),
        code=ws.array("candidates.code", entries, np.int32),
        path=ws.array("candidates.path", entries, real),
        measurement_offsets=ws.array("candidates.measurement_offsets", candidates, np.int32, extra=1),
        measurements=ws.array("candidates.measurements", measurements, np.int32),
        n_holes=ws.array("candidates.n_holes", candidates, np.int32),
        chi2=ws.array("candidates.chi2", candidates, real),
        ndf=ws.array("candidates.ndf", candidates, np.int32),
        pval=ws.array("candidates.pval", candidates, real),
    )
    ws.launch(
        fill_candidates,
        seeds,
        _FillPayload(
            found.out_n_entries, found.out_n_measurements, found.out_n_holes, found.out_chi2, found.out_ndf,
            found.out_code, found.out_path, found.seed_event, *offsets, minimum, found.branches_per_seed,
            batch.seed, batch.event, batch.entry_offsets, batch.code, batch.path, batch.measurement_offsets,
            batch.measurements, batch.n_holes, batch.chi2, batch.ndf, batch.pval,
        ),
    )  # fmt: skip
    return batch


def find_tracks(
    ws: Any,
    seeds: SeedParameters,
    seed_bottom: Any,
    spacepoint_measurement: Any,
    measurements: MeasurementBatch,
    detector: Any,
    stacks: StackRanges,
    config: Any,
) -> CandidateBatch:
    """Follow all seeds through the detector.

    Parameters
    ----------
    ws : Workspace
        Buffers; the extent "seeds" holds the number of seeds.
    seeds : SeedParameters
        Track parameters of the seeds at their bottom measurement.
    seed_bottom : array of shape (n_seeds,), int32
        Bottom spacepoint of each seed.
    spacepoint_measurement : array of shape (n_spacepoints,), int32
        Measurement of each spacepoint.
    measurements : MeasurementBatch
        Measurements of all events of the batch.
    detector : DetectorArrays
        The detector on the device.
    stacks : StackRanges
        Ranges of its layers.
    config : FindingConfig
        Cuts.

    Returns
    -------
    CandidateBatch
        Candidates with at least ``config.min_measurements`` measurements, ordered by seed, then branch.
    """
    payload = _finding_payload(
        ws, seeds, seed_bottom, spacepoint_measurement, measurements, detector, stacks, config
    )
    ws.launch(follow_seeds, ws.extent("seeds"), payload)
    return _collect(ws, payload, config)
