"""Track finding: a combinatorial Kalman filter in which one thread follows one seed through the whole detector.

Seed thinning, the stage before, keeps one of the seeds that would follow the same particle. A second pass follows those
that it dropped where no track was found: the middle spacepoint is on none, and at most one of the others (`retry`). It
finds particles whose kept seed picked up wrong measurements, and has a wider chi2 gate and a stricter rule for holes.
Beside it, seeds are made of what neither a track nor a seed of the second pass has (`seed_the_rest`), and followed. A
last pass goes on behind kinks.

A branch is a track on its way: `Branch` in `tracking/state.py` lists its state, `branches` says where that is stored.
It ends where the detector ends, at a limit of holes, of momentum, of measurements or of surfaces, or if material stops
it, and is cut back to its last measurement. Where several measurements of a surface are kept, all but the best start
branches of their own while the seed has free slots.

Source: Frühwirth, NIM A 262 (1987) 444, for the filter. The cuts are those of traccc v1.6.0, which takes one step of
all branches per launch instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.finding.branches import (
    Branches,
    WaitingBranches,
    append_entry,
    copy_entries,
    load_branch,
    make_branches,
    make_waiting_branches,
    save_branch,
    store_outcome,
)
from traccc_py.kernels.finding.candidates import CandidateBatch, Followed, collect_candidates
from traccc_py.kernels.finding.kinks import keep_continuations, resume_at_kinks
from traccc_py.kernels.finding.layers import cross_layer, first_navigation, is_slow, nearest_surface, without_bit
from traccc_py.kernels.finding.measurement_search import best_measurement, variance_on
from traccc_py.kernels.finding.retry import find_used, list_retried, mark_retried
from traccc_py.kernels.finding.starts import move_starts
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SeedParameters
from traccc_py.kernels.tracking.dead_channels import may_cross_dead_channels
from traccc_py.kernels.tracking.detector import DetectorPayload, detector_payload
from traccc_py.kernels.tracking.navigation import StackRanges, inside_margin
from traccc_py.kernels.tracking.propagation import (
    MASSES,
    seed_track,
    track_curvature,
    track_direction,
    transport_to_surface,
    updated,
    with_surface_material,
)
from traccc_py.kernels.tracking.selection import list_flagged
from traccc_py.kernels.tracking.state import Branch, Counters, Local

__all__ = ["SeedTheRest", "find_tracks"]

SeedTheRest = Callable[[Workspace, Any], tuple[SeedParameters, Any]]  #: see `find_tracks`

_SHARED = ("events", "event_modules", "measurements", "spacepoints")  # collections of all passes
_SEED_MEASUREMENTS = 3
_MAX_STEPS = 1000  # of one branch: a helix at theta = 90 degrees never leaves


class _Cuts(NamedTuple):
    """The cuts of `FindingConfig` in the precision of the kernel, and the number of slots of a seed."""

    chi2_max: Any  # of a measurement against the prediction
    min_p: Any  # [GeV]
    min_pt: Any  # [GeV]
    mask_sigma: Any
    mask_tolerance: Any  # [mm]
    mask_max: Any  # [mm]
    max_holes: Any
    max_consecutive_holes: Any
    seed_max_consecutive_holes: Any
    max_measurements: Any
    max_entries: Any
    branches_per_seed: Any
    branches_per_surface: Any
    measurements_per_hole: Any  # that make up for a hole
    measurements_behind_kink: Any  # that a resumed branch needs


class _Payload(NamedTuple):
    detector: DetectorPayload
    measurements: MeasurementBatch
    seeds: SeedParameters
    listed: Any  # (n_listed,) int32, seeds to follow in this pass
    is_resumed: Any  # int32, 1: their first branches wait behind a kink
    cuts: _Cuts
    mass: Any  # [GeV]
    waiting: WaitingBranches
    out: Branches


@device_function
def _with_measurement(counters, n_entries, dimensions, layer):
    """Return the counters after a measurement; if it is in the layer of the last hole, that was none."""
    is_no_hole = counters.consecutive_holes > 0 and layer == counters.last_layer
    return Counters(
        entries=n_entries,
        measurements=np.int32(counters.measurements + 1),
        holes=np.int32(counters.holes - (1 if is_no_hole else 0)),
        consecutive_holes=np.int32(0),
        ndf=np.int32(counters.ndf + dimensions),
        last_layer=np.int32(layer),
    )


@device_function(inlined=True)
def _start(i, p, slot):
    """Return the branch of a seed after its first measurement."""
    module, m = p.seeds.module[i], p.seeds.measurement[i]
    track = seed_track(p.detector.surfaces, module, p.seeds, i, ONE)
    direction = track_direction(track)
    track, chi2 = updated(track, p, module, m, variance_on(p, module, direction, m))
    direction = track_direction(track)
    track, alive = with_surface_material(track, direction, p, module, ONE)
    direction = track_direction(track)
    zero = ZERO * chi2
    navigation = first_navigation(p, module, track, direction, alive, zero)
    counters = Counters(
        entries=append_entry(p, slot, np.int32(0), m, zero),
        measurements=np.int32(1),
        holes=np.int32(0),
        consecutive_holes=np.int32(0),
        ndf=np.int32(p.measurements.dimensions[m]),
        last_layer=np.int32(p.detector.surfaces[module].layer),
    )
    return Branch(track=track, navigation=navigation, counters=counters, chi2=chi2, path=zero)


@device_function(inlined=True)
def _has_too_many_holes(p, counters):
    """Return whether a branch is above a limit of holes."""
    in_a_row = p.cuts.max_consecutive_holes
    if counters.measurements <= _SEED_MEASUREMENTS:
        in_a_row = min(in_a_row, p.cuts.seed_max_consecutive_holes)
    return counters.holes > p.cuts.max_holes or counters.consecutive_holes > in_a_row


@device_function(inlined=True)
def _score(p, counters):
    """Return what decides where a branch is cut back: measurements that don't make up for the holes before go, too."""
    return counters.measurements - p.cuts.measurements_per_hole * counters.holes


@device_function(inlined=True)
def _branch_off(i, p, slot, surface, branch, direction, best, best_chi2, n_branches):
    """Save branches for the next best measurements of a surface after `best`; return the number of branches.

    `branch` is on the surface, before its measurement.
    """
    m, chi2 = best, best_chi2
    for _ in range(p.cuts.branches_per_surface - np.int32(1)):
        if n_branches >= p.cuts.branches_per_seed:
            break
        m, chi2 = best_measurement(p, p.seeds.event[i], surface, branch.track, direction, chi2, m)
        if m < 0:
            break
        track, _ = updated(branch.track, p, surface, m, variance_on(p, surface, direction, m))
        track, survives = with_surface_material(track, direction, p, surface, ONE)
        if survives:
            to = np.int32(i * p.cuts.branches_per_seed + n_branches)
            copy_entries(p, slot, to, branch.counters.entries)
            n_entries = append_entry(p, to, branch.counters.entries, m, branch.path)
            other = Branch(
                track=track,
                navigation=branch.navigation,
                counters=_with_measurement(
                    branch.counters, n_entries, p.measurements.dimensions[m], p.detector.surfaces[surface].layer
                ),
                chi2=branch.chi2 + chi2,
                path=ZERO * branch.path,
            )
            save_branch(p, to, surface, other)
            n_branches = np.int32(n_branches + 1)
    return n_branches


@device_function(inlined=True)
def _pass_without_measurement(p, slot, surface, branch, direction, bands):
    """Take the material of a surface that was crossed inside its edges, count a hole if it is well inside.

    Sensors of a layer overlap: a layer has one hole at most, and none beside a measurement.

    Returns (branch, whether it goes on).
    """
    counters = branch.counters
    margin0, margin1 = inside_margin(p.detector.surfaces, surface, branch.track.params.loc0, branch.track.params.loc1)
    if not (margin0 > ZERO and margin1 > ZERO):
        return branch, True
    track, alive = with_surface_material(branch.track, direction, p, surface, ONE)
    n_entries = append_entry(p, slot, counters.entries, np.int32(-1 - surface), branch.path)
    is_readout = p.detector.surfaces[surface].design >= 0
    layer = p.detector.surfaces[surface].layer
    is_hole = is_readout and margin0 > bands.loc0 and margin1 > bands.loc1 and layer != counters.last_layer
    if is_hole and may_cross_dead_channels(p.detector, surface, branch.track.params, bands):
        is_hole = False
    missed = np.int32(1) if is_hole else np.int32(0)
    counters = Counters(
        entries=n_entries,
        measurements=counters.measurements,
        holes=np.int32(counters.holes + missed),
        consecutive_holes=np.int32(counters.consecutive_holes + missed),
        ndf=counters.ndf,
        last_layer=np.int32(layer) if is_hole else counters.last_layer,
    )
    zero = ZERO * branch.path
    return Branch(track=track, navigation=branch.navigation, counters=counters, chi2=branch.chi2, path=zero), alive


@device_function(inlined=True)
def _edge_bands(p, c):
    """Return how far outside of the edges of a surface a prediction may be, if the surface is to be tried [mm]."""
    return Local(
        loc0=min(p.cuts.mask_tolerance + p.cuts.mask_sigma * math.sqrt(c.loc0_loc0), p.cuts.mask_max),
        loc1=min(p.cuts.mask_tolerance + p.cuts.mask_sigma * math.sqrt(c.loc1_loc1), p.cuts.mask_max),
    )


@device_function(inlined=True)
def _visit_surface(i, p, slot, branch, direction, curvature, n_branches):
    """Try the nearest untried surface.

    Returns (branch, number of branches, whether a measurement was found, whether the branch goes on).
    """
    place, path = nearest_surface(p, branch.navigation, branch.track, direction, curvature)
    navigation = without_bit(branch.navigation, place)
    surface = p.detector.bin_surfaces[navigation.bin_start + place]
    track, direction = transport_to_surface(
        branch.track, direction, curvature, path, p.detector.field, p.detector.surfaces, surface
    )
    bands = _edge_bands(p, track.covariance)
    margin0, margin1 = inside_margin(p.detector.surfaces, surface, track.params.loc0, track.params.loc1)
    chi2_sum = branch.chi2
    if not (margin0 > -bands.loc0 and margin1 > -bands.loc1):
        passed = Branch(branch.track, navigation, branch.counters, chi2_sum, branch.path)
        return passed, n_branches, False, True
    branch = Branch(track, navigation, branch.counters, chi2_sum, branch.path + path)
    any_chi2 = -ONE + ZERO * chi2_sum
    m, chi2 = best_measurement(p, p.seeds.event[i], surface, track, direction, any_chi2, np.int32(-1))
    if m < 0:
        branch, alive = _pass_without_measurement(p, slot, surface, branch, direction, bands)
        return branch, n_branches, False, alive
    if p.cuts.branches_per_surface > 1:
        n_branches = _branch_off(i, p, slot, surface, branch, direction, m, chi2, n_branches)
    track, _ = updated(track, p, surface, m, variance_on(p, surface, direction, m))
    track, alive = with_surface_material(track, direction, p, surface, ONE)
    n_entries = append_entry(p, slot, branch.counters.entries, m, branch.path)
    dimensions, layer = p.measurements.dimensions[m], p.detector.surfaces[surface].layer
    counters = _with_measurement(branch.counters, n_entries, dimensions, layer)
    return Branch(track, navigation, counters, chi2_sum + chi2, ZERO * branch.path), n_branches, True, alive


@device_function(inlined=True)
def _follow(i, p, slot, branch, n_branches):
    """Follow one branch to its end; return the number of branches of its seed.

    A resumed branch without enough measurements behind its kink, for the holes there, stays what it was.
    """
    # Carried through the loop one by one: as one tuple of tuples they take 24 more registers on CUDA.
    track, navigation, counters, chi2, travelled = branch
    counters_at_last, chi2_at_last = counters, chi2
    alive = True
    n_steps = np.int32(0)
    while (
        alive
        and counters.entries < p.cuts.max_entries
        and counters.measurements < p.cuts.max_measurements
        and n_steps < _MAX_STEPS
    ):
        n_steps = np.int32(n_steps + 1)
        direction = track_direction(track)
        curvature = track_curvature(p.detector.field, track, direction)
        if is_slow(p, track, direction):
            break
        here = Branch(track=track, navigation=navigation, counters=counters, chi2=chi2, path=travelled)
        if navigation.untried == np.int64(0):
            if _has_too_many_holes(p, counters):
                break
            after, alive = cross_layer(p, slot, here, direction, curvature)
            track, navigation, counters, _, travelled = after
            continue
        after, n_branches, is_found, alive = _visit_surface(i, p, slot, here, direction, curvature, n_branches)
        track, navigation, counters, chi2, travelled = after
        if is_found and _score(p, counters) >= _score(p, counters_at_last):
            counters_at_last, chi2_at_last = counters, chi2
    # Worked out again: what is kept through the loop takes registers.
    has_slowed = is_slow(p, track, track_direction(track))
    behind = _score(p, counters_at_last) - p.is_resumed * p.out.n_measurements[slot]
    if p.is_resumed == 0 or behind >= p.cuts.measurements_behind_kink:
        store_outcome(p, slot, counters_at_last, chi2_at_last)
        is_cut = counters.measurements > counters_at_last.measurements
        p.out.is_stopped[slot] = (
            np.int32(1) if is_cut or has_slowed or _has_too_many_holes(p, counters) else np.int32(0)
        )
    return n_branches


@kernel(grain=8)
def follow_seeds(k, p):
    """Follow listed seed k and its branches; writes only the slots of that seed."""
    i = p.listed[k]
    slot = np.int32(i * p.cuts.branches_per_seed)
    n_branches = np.int32(1)
    number = np.int32(0)
    while number < n_branches:
        if number > 0 or p.is_resumed == 1:
            branch = load_branch(p, np.int32(slot + number))
        else:
            branch = _start(i, p, slot)
        n_branches = _follow(i, p, np.int32(slot + number), branch, n_branches)
        number = np.int32(number + 1)
    if p.is_resumed == 0:
        while number < p.cuts.branches_per_seed:  # slots that no branch took
            p.out.n_measurements[slot + number] = np.int32(0)
            number = np.int32(number + 1)


def _branches_per_seed(config: FindingConfig) -> int:
    """Return the number of slots of a seed: one if one measurement per surface is kept."""
    return 1 if config.max_branches_per_surface == 1 else config.max_branches_per_seed


def _first_cuts(config: FindingConfig, real: Any) -> _Cuts:
    """Return the cuts of the first pass."""
    return _Cuts(
        chi2_max=real(config.chi2_max),
        min_p=real(config.min_p),
        min_pt=real(config.min_pt),
        mask_sigma=real(config.mask_sigma),
        mask_tolerance=real(config.mask_tolerance),
        mask_max=real(config.mask_max),
        max_holes=np.int32(config.max_holes),
        max_consecutive_holes=np.int32(config.max_consecutive_holes),
        seed_max_consecutive_holes=np.int32(config.seed_max_consecutive_holes),
        max_measurements=np.int32(config.max_measurements),
        max_entries=np.int32(config.max_surfaces),
        branches_per_seed=np.int32(_branches_per_seed(config)),
        branches_per_surface=np.int32(config.max_branches_per_surface),
        measurements_per_hole=np.int32(config.measurements_per_hole),
        measurements_behind_kink=np.int32(config.measurements_behind_kink),
    )


def _cuts_behind_kink(first: _Cuts, config: FindingConfig, real: Any) -> _Cuts:
    """Return the cuts behind a kink: sensors far off the prediction are tried, but the cone is no wider than kinks."""
    return first._replace(
        chi2_max=real(config.kink_chi2_max),
        mask_max=real(config.kink_mask_max),
        branches_per_seed=np.int32(1),
        branches_per_surface=np.int32(1),
    )


def _payload(
    ws: Workspace,
    parameters: SeedParameters,
    measurements: MeasurementBatch,
    detector: DetectorPayload,
    config: FindingConfig,
) -> _Payload:
    """Return the payload of the first pass, without the list of seeds."""
    seeds, dtype, n_branches = ws.extent("seeds"), parameters.params.dtype, _branches_per_seed(config)
    return _Payload(
        detector=detector,
        measurements=measurements,
        seeds=parameters,
        listed=None,
        is_resumed=np.int32(0),
        cuts=_first_cuts(config, dtype.type),
        mass=dtype.type(MASSES[config.particle]),
        waiting=make_waiting_branches(ws, seeds, dtype, n_branches),
        out=make_branches(ws, seeds, dtype, n_branches, config.max_surfaces),
    )


def _follow_first(ws: Workspace, is_kept: Any, payload: _Payload, config: FindingConfig) -> None:
    """Follow the seeds that thinning kept."""
    listed = list_flagged(ws, is_kept, ws.extent("seeds"), "kept_seeds")
    ws.clear(payload.out.n_measurements)  # of seeds that are not followed
    move_starts(ws, listed, "kept_seeds", payload.seeds, payload.measurements, payload.detector, config)
    ws.launch(follow_seeds, ws.extent("kept_seeds"), payload._replace(listed=listed))


def _follow_again(ws: Workspace, listed: Any, payload: _Payload, config: FindingConfig) -> None:
    """Follow the listed ones of the seeds that thinning dropped."""
    move_starts(ws, listed, "retried_seeds", payload.seeds, payload.measurements, payload.detector, config)
    ws.launch(follow_seeds, ws.extent("retried_seeds"), payload._replace(listed=listed))


def _follow_the_rest(
    ws: Workspace, rest: tuple[SeedParameters, Any], retried: _Payload, config: FindingConfig
) -> Followed:
    """Follow the seeds that were made of the measurements that are left; `retried` has the cuts."""
    parameters, is_kept = rest
    payload = _payload(ws, parameters, retried.measurements, retried.detector, config)._replace(cuts=retried.cuts)
    _follow_first(ws, is_kept, payload, config)
    return Followed(parameters, ws.extent("seeds"), payload.out)


def find_tracks(
    ws: Workspace,
    seeds: SeedBatch,
    is_kept: Any,
    parameters: SeedParameters,
    spacepoint_measurement: Any,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    stacks: StackRanges,
    config: FindingConfig,
    seed_the_rest: SeedTheRest | None = None,
) -> CandidateBatch:
    """Follow seeds through the detector: those that thinning kept, then the dropped ones that no track accounts for.

    Parameters
    ----------
    ws : Workspace
        Buffers; the extent "seeds" holds the number of seeds.
    seeds : SeedBatch
        All seeds.
    is_kept : array of shape (n_seeds,), int32
        Which of them thinning kept.
    parameters : SeedParameters
        Their track parameters at the bottom measurement; overwritten where a seed starts on another sensor (`starts`).
    spacepoint_measurement : array of shape (n_spacepoints,), int32
        Measurement of each spacepoint.
    measurements : MeasurementBatch
        Measurements of all events of the batch.
    detector : DetectorArrays
        The detector on the device.
    stacks : StackRanges
        Ranges of its layers, ordered by radius or z: cylinders, discs, planes.
    config : FindingConfig
        Cuts.
    seed_the_rest : callable, optional
        Given a workspace for them and an array of shape (n_measurements,), int32, 1 for those on tracks or of seeds
        that are followed again, it returns the parameters of seeds that are made of the others, and which are followed.

    Returns
    -------
    CandidateBatch
        Candidates with enough measurements (`is_accepted`), ordered by event, then seed, then branch.
    """
    n_branches, dtype = _branches_per_seed(config), parameters.params.dtype
    payload = _payload(ws, parameters, measurements, detector_payload(detector, stacks, dtype.type), config)
    _follow_first(ws, is_kept, payload, config)
    passes = [Followed(parameters, ws.extent("seeds"), payload.out)]
    is_used = find_used(ws, payload.out, n_branches, config)
    listed = list_retried(ws, seeds, is_kept, spacepoint_measurement, is_used)
    mark_retried(ws, listed, seeds, spacepoint_measurement, is_used)
    wider = payload._replace(cuts=payload.cuts._replace(chi2_max=dtype.type(config.retry_chi2_max)))
    if seed_the_rest is None:
        _follow_again(ws, listed, wider, config)
    else:
        late = ws.scope("late", _SHARED)
        followed = ws.device.side_by_side(
            lambda: _follow_again(ws, listed, wider, config),
            lambda: _follow_the_rest(late, seed_the_rest(late, is_used), wider, config),
        )
        passes.append(followed)
    if config.measurements_behind_kink > 0:
        behind = _cuts_behind_kink(payload.cuts, config, dtype.type)
        resumed = resume_at_kinks(ws, payload, behind, config)
        ws.launch(follow_seeds, ws.extent("kinks"), resumed)
        keep_continuations(ws, payload.out, payload.cuts.branches_per_seed, resumed, config)
    return collect_candidates(ws, passes, n_branches, config)
