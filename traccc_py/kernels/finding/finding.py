"""Track finding: a combinatorial Kalman filter in which one index follows one seed through the whole detector.

There is a second pass, with a wider gate, over the seeds that thinning dropped and that no track through the detector
accounts for by then. So a particle is found whose kept seed went wrong, for one by a piece of a split cluster.

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
from traccc_py.kernels.finding.candidates import Branches, CandidateBatch, collect_candidates
from traccc_py.kernels.finding.measurement_search import best_measurement, variance_on
from traccc_py.kernels.finding.retry import list_retried
from traccc_py.kernels.finding.starts import move_starts
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SeedParameters
from traccc_py.kernels.tracking.helix import trigonometry
from traccc_py.kernels.tracking.magnetic_field import field_in_precision, local_turn, position_ahead, turn_ahead
from traccc_py.kernels.tracking.navigation import (
    NONE,
    StackRanges,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    is_on_new_leg,
    next_layer,
)
from traccc_py.kernels.tracking.propagation import (
    MASSES,
    on_surface,
    seed_track,
    stack_ranges,
    surface_incidence,
    transport_to_curvilinear,
    transport_to_surface,
    updated,
    with_layer_material,
    with_surface_material,
)
from traccc_py.kernels.tracking.selection import list_flagged

__all__ = ["MAX_SURFACES_IN_BIN", "find_tracks"]

_ZERO = scalar(0)
_ONE = scalar(1)
_TWO = scalar(2)
_HALF = scalar(0.5)
_INFINITY = scalar(1e30)
_AHEAD = scalar(0.01)  # [mm], surfaces must be this far ahead: else a track could go to and fro between two for ever.
# At its start a track may be this far behind others of the layer, which may lie in one plane with the seed's.
_PHI, _THETA, _QOP = 2, 3, 4
MAX_SURFACES_IN_BIN = 63  #: surfaces of a grid bin are bits of an int64
_MAX_STEPS = 1000  # of one branch: a helix at theta = 90 degrees never leaves
_N_STATE = 20  # x and c of a waiting branch
_N_LINKS = 10

# A branch is followed with
#   track: see `propagation`;
#   way = (gaps, first, mask): place in the stacks of layers (see `navigation`), first entry of the grid bin at hand,
#         and a bit for each surface of that bin that is still to be tried;
#   tally = (n_entries, n_measurements, n_holes, n_consecutive_holes, ndf).


class _Payload(NamedTuple):
    surfaces: Any
    layers: Any
    bin_offsets: Any
    bin_surfaces: Any
    designs: Any
    path_sigmas: Any
    material_maps: Any
    slabs: Any
    first_cylinder: Any
    n_cylinders: Any
    first_disc: Any
    n_discs: Any
    first_plane: Any
    n_planes: Any
    n_modules: Any
    field: Any  # see `geometry.records`
    # measurements
    local_position: Any  # (n_measurements, 2)
    local_variance: Any  # (n_measurements, 2)
    cluster_size: Any  # (n_measurements, 2)
    dimensions: Any  # (n_measurements,)
    offsets: Any  # (n_events * n_modules + 1,)
    # seeds
    listed: Any  # (n_listed,) seeds to follow in this pass
    seed_module: Any  # (n_seeds,)
    seed_event: Any
    seed_measurement: Any  # (n_seeds,)
    seed_params: Any  # (n_seeds, 5)
    seed_variance: Any  # (n_seeds, 5)
    # cuts
    mass: Any
    chi2_max: Any
    min_p: Any
    min_pt: Any
    mask_sigma: Any
    mask_tolerance: Any
    mask_max: Any
    max_holes: Any
    max_consecutive_holes: Any
    measurements_before_hole: Any
    max_measurements: Any
    max_entries: Any
    branches_per_seed: Any
    branches_per_surface: Any
    # waiting branches
    branch_state: Any  # (n_slots, 20) x and c
    branch_sums: Any  # (n_slots,) chi2
    branch_links: Any  # (n_slots, 10) int32
    branch_mask: Any  # (n_slots,) int64
    # output, by slot = seed * branches_per_seed + branch
    out_code: Any  # (n_slots, max_entries) int32, see `CandidateBatch.code`
    out_path: Any  # (n_slots, max_entries) scalar, path length from the entry before [mm]
    out_n_entries: Any  # (n_slots,) int32, 0 where there is no candidate
    out_n_measurements: Any  # (n_slots,) int32
    out_n_holes: Any  # (n_slots,) int32, holes before the last measurement
    out_chi2: Any  # (n_slots,) scalar, sum of predicted chi2
    out_ndf: Any  # (n_slots,) int32, sum of dimensions
    out_is_stopped: Any  # (n_slots,) int32


@device_function(inlined=True)
def _reachable(p, layer, crossing, path, track, trig, turn, least):
    """Return the first entry of the crossing's bin and a bit for each surface of it that the track may cross."""
    grid = grid_bin(p.layers, layer, crossing)
    first = p.bin_offsets[grid]
    c = track[2]
    spread = max(c[0], c[2]) + path * path * max(c[5] * trig[2] * trig[2], c[9])
    bend = _HALF * path * path * p.field.b_z
    reach = p.mask_sigma * math.sqrt(_TWO * (spread + bend * bend * c[14]))
    mask = np.int64(0)
    for k in range(p.bin_offsets[grid + 1] - first):
        i = p.bin_surfaces[first + k]
        s, loc0, loc1 = intersect_surface(p.surfaces, i, track[0], trig, turn, _ZERO * turn)
        margin0, margin1 = inside_margin(p.surfaces, i, loc0, loc1)
        band = min(p.mask_tolerance + reach / surface_incidence(p.surfaces, i, trig), p.mask_max)
        if s > least and margin0 > -band and margin1 > -band:
            mask = mask | (np.int64(1) << np.int64(k))
    return first, mask


@device_function(inlined=True)
def _without(p, first, mask, surface):
    """Return the bits of `mask` but that of one surface."""
    for k in range(np.int32(MAX_SURFACES_IN_BIN)):
        if (mask >> np.int64(k)) == np.int64(0):
            break
        if p.bin_surfaces[first + k] == surface:
            mask = mask & ~(np.int64(1) << np.int64(k))
    return mask


@device_function(inlined=True)
def _nearest(p, first, mask, track, trig, turn):
    """Return (place in the bin, path) of the surface among the bits of `mask` that the track meets first."""
    best = np.int32(-1)
    best_path = _INFINITY * (_ONE + _ZERO * turn)
    for k in range(np.int32(MAX_SURFACES_IN_BIN)):
        if (mask >> np.int64(k)) == np.int64(0):
            break
        if (mask >> np.int64(k)) & np.int64(1):
            s, _, _ = intersect_surface(p.surfaces, p.bin_surfaces[first + k], track[0], trig, turn, _ZERO * turn)
            if s < best_path or best < 0:
                best = np.int32(k)
                best_path = s
    return best, best_path


@device_function(inlined=True)
def _append(p, slot, n_entries, code, path):
    """Write the next entry of a trail; return the number of entries."""
    p.out_code[slot, n_entries] = code
    p.out_path[slot, n_entries] = path
    return np.int32(n_entries + 1)


@device_function(inlined=True)
def _save_branch(p, slot, source, surface, track, way, tally, sums):
    """Keep a branch for later: its trail so far, track, way and tally."""
    for k in range(tally[0]):
        p.out_code[slot, k] = p.out_code[source, k]
        p.out_path[slot, k] = p.out_path[source, k]
    for k in range(np.int32(5)):
        p.branch_state[slot, k] = track[1][k]
    for k in range(np.int32(15)):
        p.branch_state[slot, 5 + k] = track[2][k]
    p.branch_sums[slot] = sums
    p.branch_mask[slot] = way[2]
    p.branch_links[slot, 0] = surface
    p.branch_links[slot, 1] = way[1]
    for k in range(np.int32(3)):
        p.branch_links[slot, 2 + k] = way[0][k]
    for k in range(np.int32(5)):
        p.branch_links[slot, 5 + k] = tally[k]


@device_function(inlined=True)
def _load_branch(p, slot):
    """Return (track, way, tally, chi2 sum) of a waiting branch."""
    s, links = p.branch_state, p.branch_links
    x = (s[slot, 0], s[slot, 1], s[slot, 2], s[slot, 3], s[slot, 4])
    c = (
        s[slot, 5], s[slot, 6], s[slot, 7], s[slot, 8], s[slot, 9], s[slot, 10], s[slot, 11], s[slot, 12],
        s[slot, 13], s[slot, 14], s[slot, 15], s[slot, 16], s[slot, 17], s[slot, 18], s[slot, 19],
    )  # fmt: skip
    way = ((links[slot, 2], links[slot, 3], links[slot, 4]), links[slot, 1], p.branch_mask[slot])
    tally = (links[slot, 5], links[slot, 6], links[slot, 7], links[slot, 8], links[slot, 9])
    return on_surface(p.surfaces, links[slot, 0], x, c), way, tally, p.branch_sums[slot]


@device_function(inlined=True)
def _start(i, p, slot):
    """Return (track, way, tally, chi2 sum) of a seed after its first measurement."""
    module = p.seed_module[i]
    layer = p.surfaces[module].layer
    m = p.seed_measurement[i]
    track = seed_track(p.surfaces, module, p.seed_params, p.seed_variance, i, _ONE)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    track, chi2 = updated(track, p.surfaces, module, p, m, variance_on(p, module, trig, m))
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    track, alive = with_surface_material(track, trig, p, module, _ONE)
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    gaps = first_gaps(p.layers, stack_ranges(p), layer, track[0], trig)
    turn = local_turn(p.field, track[0], trig, track[1][_QOP])
    first, mask = _reachable(p, layer, track[0], _ZERO * chi2, track, trig, turn, -_AHEAD)
    mask = _without(p, first, mask, module)
    if not alive:
        mask = np.int64(0)
    n_entries = _append(p, slot, np.int32(0), m, _ZERO * chi2)
    tally = (n_entries, np.int32(1), np.int32(0), np.int32(0), np.int32(p.dimensions[m]))
    return track, (gaps, np.int32(first), mask), tally, chi2


@device_function(inlined=True)
def _is_slow(p, track, trig):
    """Return whether a track is below the momentum cuts (or not a number)."""
    momentum = _ONE / abs(track[1][_QOP])
    return not (momentum > p.min_p and momentum * trig[2] > p.min_pt)


@device_function(inlined=True)
def _finish(p, slot, tally, sums):
    """Write the outcome of a branch, as it was at its last measurement."""
    p.out_n_entries[slot] = tally[0]
    p.out_n_measurements[slot] = tally[1]
    p.out_n_holes[slot] = tally[2]
    p.out_ndf[slot] = tally[4]
    p.out_chi2[slot] = sums


@device_function(inlined=True)
def _branch_off(i, p, slot, surface, track, trig, way, tally, sums, since, best, n_branches):
    """Save branches for the next best measurements of a surface after `best`; return the number of branches."""
    m, chi2 = best
    for _ in range(p.branches_per_surface - np.int32(1)):
        if n_branches >= p.branches_per_seed:
            break
        m, chi2 = best_measurement(p, p.seed_event[i], surface, track, trig, chi2, m)
        if m < 0:
            break
        branch, _ = updated(track, p.surfaces, surface, p, m, variance_on(p, surface, trig, m))
        branch, survives = with_surface_material(branch, trig, p, surface, _ONE)
        if survives:
            to = np.int32(i * p.branches_per_seed + n_branches)
            _save_branch(p, to, slot, surface, branch, way, tally, sums + chi2)
            p.branch_links[to, 5] = _append(p, to, tally[0], m, since)
            p.branch_links[to, 6] = tally[1] + 1
            p.branch_links[to, 8] = 0
            p.branch_links[to, 9] = tally[4] + p.dimensions[m]
            n_branches = np.int32(n_branches + 1)
    return n_branches


@device_function(inlined=True)
def _cross_layer(p, slot, track, trig, turn, gaps, tally, since):
    """Go on to the next layer: through its material if it is passive, else choose the surfaces to try.

    Returns (track, way, tally, path since the last entry, whether the track goes on).
    """
    layer, path, crossing, gaps = next_layer(p.layers, stack_ranges(p), gaps, track[0], trig, turn)
    none = (gaps, np.int32(0), np.int64(0))
    if layer == NONE:
        return track, none, tally, since, False
    if p.layers[layer].is_sensitive:
        least = _AHEAD + _ZERO * path
        if is_on_new_leg(track[0], trig, turn, path, crossing):
            track, trig = transport_to_curvilinear(track, trig, turn, path, p.field)
            turn = local_turn(p.field, track[0], trig, track[1][_QOP])
            since = since + path
            least = least - path
            path = _ZERO * path
        turn = turn_ahead(p.field, track[0], trig, turn, path, track[1][_QOP])
        crossing = position_ahead(p.field, track[0], trig, turn, path, crossing)
        first, mask = _reachable(p, layer, crossing, path, track, trig, turn, least)
        return track, (gaps, np.int32(first), mask), tally, since, True
    track, trig = transport_to_curvilinear(track, trig, turn, path, p.field)
    track, alive = with_layer_material(track, trig, p, layer, _ONE)
    n_entries = _append(p, slot, tally[0], np.int32(-1 - p.n_modules - layer), since + path)
    return track, none, (n_entries, tally[1], tally[2], tally[3], tally[4]), _ZERO * since, alive


@device_function(inlined=True)
def _pass_without_measurement(p, slot, surface, track, trig, tally, since, bands):
    """Take the material of a surface that was crossed inside its edges, and count a hole if that is sure.

    Returns (track, tally, path since the last entry, whether the track goes on).
    """
    margin0, margin1 = inside_margin(p.surfaces, surface, track[1][0], track[1][1])
    if not (margin0 > _ZERO and margin1 > _ZERO):
        return track, tally, since, True
    track, alive = with_surface_material(track, trig, p, surface, _ONE)
    n_entries = _append(p, slot, tally[0], np.int32(-1 - surface), since)
    is_readout = p.surfaces[surface].design >= 0
    missed = np.int32(1) if is_readout and margin0 > bands[0] and margin1 > bands[1] else np.int32(0)
    n_holes, n_consecutive = np.int32(tally[2] + missed), np.int32(tally[3] + missed)
    alive = alive and n_holes <= p.max_holes and n_consecutive <= p.max_consecutive_holes
    alive = alive and (missed == 0 or tally[1] >= p.measurements_before_hole)
    return track, (n_entries, tally[1], n_holes, n_consecutive, tally[4]), _ZERO * since, alive


@device_function(inlined=True)
def _visit_surface(i, p, slot, track, trig, turn, way, tally, sums, since, n_branches):
    """Try the nearest surface at hand.

    Returns (track, way, tally, chi2 sum, path since the last entry, number of branches, whether a measurement was
    found, whether the track goes on).
    """
    place, path = _nearest(p, way[1], way[2], track, trig, turn)
    way = (way[0], way[1], way[2] & ~(np.int64(1) << np.int64(place)))
    surface = p.bin_surfaces[way[1] + place]
    before = track
    track, trig = transport_to_surface(track, trig, turn, path, p.field, p.surfaces, surface)
    bands = (
        min(p.mask_tolerance + p.mask_sigma * math.sqrt(track[2][0]), p.mask_max),
        min(p.mask_tolerance + p.mask_sigma * math.sqrt(track[2][2]), p.mask_max),
    )
    margin0, margin1 = inside_margin(p.surfaces, surface, track[1][0], track[1][1])
    if not (margin0 > -bands[0] and margin1 > -bands[1]):
        return before, way, tally, sums, since, n_branches, False, True
    since = since + path
    m, chi2 = best_measurement(p, p.seed_event[i], surface, track, trig, -_ONE + _ZERO * sums, np.int32(-1))
    if m < 0:
        track, tally, since, alive = _pass_without_measurement(p, slot, surface, track, trig, tally, since, bands)
        return track, way, tally, sums, since, n_branches, False, alive
    if p.branches_per_surface > 1:
        best = (m, chi2)
        n_branches = _branch_off(i, p, slot, surface, track, trig, way, tally, sums, since, best, n_branches)
    track, _ = updated(track, p.surfaces, surface, p, m, variance_on(p, surface, trig, m))
    track, alive = with_surface_material(track, trig, p, surface, _ONE)
    n_entries = _append(p, slot, tally[0], m, since)
    tally = (n_entries, np.int32(tally[1] + 1), tally[2], np.int32(0), np.int32(tally[4] + p.dimensions[m]))
    return track, way, tally, sums + chi2, _ZERO * since, n_branches, True, alive


@device_function(inlined=True)
def _follow(i, p, slot, track, way, tally, sums, n_branches):
    """Follow one branch to its end; return the number of branches of its seed."""
    at_last, sums_at_last = tally, sums
    since = _ZERO * sums
    alive = True
    n_steps = np.int32(0)
    while alive and tally[0] < p.max_entries and tally[1] < p.max_measurements and n_steps < _MAX_STEPS:
        n_steps = np.int32(n_steps + 1)
        trig = trigonometry(track[1][_PHI], track[1][_THETA])
        turn = local_turn(p.field, track[0], trig, track[1][_QOP])
        if _is_slow(p, track, trig):
            break
        if way[2] == np.int64(0):
            track, way, tally, since, alive = _cross_layer(p, slot, track, trig, turn, way[0], tally, since)
            continue
        track, way, tally, sums, since, n_branches, is_found, alive = _visit_surface(
            i, p, slot, track, trig, turn, way, tally, sums, since, n_branches
        )
        if is_found:
            at_last, sums_at_last = tally, sums
    _finish(p, slot, at_last, sums_at_last)
    is_stopped = tally[2] > p.max_holes or tally[3] > p.max_consecutive_holes
    p.out_is_stopped[slot] = np.int32(1) if is_stopped else np.int32(0)
    return n_branches


@kernel(grain=8)
def follow_seeds(k, p):
    """Follow listed seed k and its branches; writes only the slots of that seed."""
    i = p.listed[k]
    slot = np.int32(i * p.branches_per_seed)
    track, way, tally, sums = _start(i, p, slot)
    n_branches = _follow(i, p, slot, track, way, tally, sums, np.int32(1))
    branch = np.int32(1)
    while branch < n_branches:
        track, way, tally, sums = _load_branch(p, np.int32(slot + branch))
        n_branches = _follow(i, p, np.int32(slot + branch), track, way, tally, sums, n_branches)
        branch = np.int32(branch + 1)
    while branch < p.branches_per_seed:  # of an earlier pass
        p.out_n_measurements[slot + branch] = np.int32(0)
        branch = np.int32(branch + 1)


def _slots(ws: Any, name: str, seeds: Any, dtype: Any, branches: int, width: int | None = None) -> Any:
    """Return an array with one row per slot: branches rows for each seed."""
    array = ws.array(name, seeds, dtype, branches * (width or 1))
    return array.reshape(-1, width) if width else array.reshape(-1)


def _branches(config: Any) -> int:
    """Return the slots of a seed: without a choice on surfaces there is one branch."""
    return 1 if config.max_branches_per_surface == 1 else config.max_branches_per_seed


def _finding_payload(
    ws: Any,
    seeds: SeedBatch,
    parameters: SeedParameters,
    measurements: MeasurementBatch,
    detector: Any,
    stacks: StackRanges,
    config: Any,
) -> _Payload:
    extent = ws.extent("seeds")
    branches = _branches(config)
    dtype = parameters.params.dtype
    real = dtype.type
    return _Payload(
        surfaces=detector.surfaces,
        layers=detector.layers,
        bin_offsets=detector.bin_offsets,
        bin_surfaces=detector.bin_surfaces,
        designs=detector.designs,
        path_sigmas=detector.path_sigmas,
        material_maps=detector.material_maps,
        slabs=detector.slabs,
        **stacks._asdict(),
        n_modules=np.int32(detector.surfaces.shape[0]),
        field=field_in_precision(detector.field, real),
        local_position=measurements.local_position,
        local_variance=measurements.local_variance,
        cluster_size=measurements.cluster_size,
        dimensions=measurements.dimensions,
        offsets=measurements.offsets,
        listed=seeds.bottom_index,  # replaced for each pass
        seed_module=parameters.module,
        seed_event=parameters.event,
        seed_measurement=parameters.measurement,
        seed_params=parameters.params,
        seed_variance=parameters.variance,
        mass=real(MASSES[config.particle]),
        chi2_max=real(config.chi2_max),
        min_p=real(config.min_p),
        min_pt=real(config.min_pt),
        mask_sigma=real(config.mask_sigma),
        mask_tolerance=real(config.mask_tolerance),
        mask_max=real(config.mask_max),
        max_holes=np.int32(config.max_holes),
        max_consecutive_holes=np.int32(config.max_consecutive_holes),
        measurements_before_hole=np.int32(0),
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
        out_is_stopped=_slots(ws, "finding.is_stopped", extent, np.int32, branches),
    )


def find_tracks(
    ws: Any,
    seeds: SeedBatch,
    is_kept: Any,
    parameters: SeedParameters,
    spacepoint_measurement: Any,
    measurements: MeasurementBatch,
    detector: Any,
    stacks: StackRanges,
    config: Any,
) -> CandidateBatch:
    """Follow seeds through the detector: those that were kept, then all that no track accounts for.

    Parameters
    ----------
    ws : Workspace
        Buffers; the extent "seeds" holds the number of seeds.
    seeds : SeedBatch
        All seeds.
    is_kept : array of shape (n_seeds,), int32
        Which of them thinning kept.
    parameters : SeedParameters
        Their track parameters at the bottom measurement; see `seed_starts` for what becomes of them.
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
    payload = _finding_payload(ws, seeds, parameters, measurements, detector, stacks, config)
    extent = ws.extent("seeds")
    ws.clear(payload.out_n_measurements)  # of seeds that are not followed
    listed = list_flagged(ws, is_kept, extent, "kept_seeds")
    move_starts(ws, listed, "kept_seeds", parameters, measurements, detector, config)
    ws.launch(follow_seeds, ws.extent("kept_seeds"), payload._replace(listed=listed))
    branches = Branches(
        payload.out_code, payload.out_path, payload.out_n_entries, payload.out_n_measurements, payload.out_n_holes,
        payload.out_chi2, payload.out_ndf, payload.out_is_stopped,
    )  # fmt: skip
    listed = list_retried(ws, seeds, is_kept, spacepoint_measurement, branches, _branches(config), config)
    move_starts(ws, listed, "retried_seeds", parameters, measurements, detector, config)
    wider = payload.chi2_max.dtype.type(config.retry_chi2_max)
    n_before_hole = np.int32(config.retry_measurements_before_hole)
    payload = payload._replace(listed=listed, chi2_max=wider, measurements_before_hole=n_before_hole)
    ws.launch(follow_seeds, ws.extent("retried_seeds"), payload)
    return collect_candidates(ws, branches, parameters.event, _branches(config), config)
