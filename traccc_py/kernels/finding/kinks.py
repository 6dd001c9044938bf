"""Past a kink: short candidates that holes ended are followed again from their last measurement, in a wide cone.

A hadron that scatters off a nucleus changes its direction by some 0.1 GeV over its momentum, far more than the filter
allows for, and so its track seems to end in the detector. Here such a branch is brought back to its last measurement,
gets the uncertainty of a kink, and waits there; so it does at each of the passive layers that come next. `follow_seeds`
goes on with all of these, in arrays of their own. The best one takes the place of the branch, if enough measurements
behind the kink agree with each other and with a kink of that size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import ScanColumn, Workspace
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.finding.branches import (
    Branches,
    WaitingBranches,
    append_entry,
    copy_entries,
    make_branches,
    make_waiting_branches,
    save_branch,
)
from traccc_py.kernels.finding.candidates import Acceptance, acceptance, fits_well
from traccc_py.kernels.finding.layers import cross_layer, first_navigation, is_slow
from traccc_py.kernels.finding.measurement_search import variance_on
from traccc_py.kernels.finding.retry import find_used
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedParameters
from traccc_py.kernels.tracking.detector import DetectorPayload
from traccc_py.kernels.tracking.entries import (
    KINK_PARAMETERS,
    Kink,
    kink_code,
    kink_of,
    move_to,
    surface_of,
    with_kink,
    with_material,
)
from traccc_py.kernels.tracking.kalman import chi2_survival
from traccc_py.kernels.tracking.propagation import seed_track, track_curvature, track_direction, updated
from traccc_py.kernels.tracking.selection import list_flagged
from traccc_py.kernels.tracking.state import Branch, Counters, Navigation

__all__ = ["keep_continuations", "resume_at_kinks"]


_MAX_LAYERS = 16  # that are crossed between two measurements


class _ChoicePayload(NamedTuple):
    branches: Branches
    branches_per_seed: Any
    cuts: Acceptance
    max_entries: Any
    is_used: Any  # (n_measurements,) int32, 1: on a track through the detector
    places: Any  # int32, where a seed may kink
    out_is_kinked: Any  # (n_seeds,) int32
    out_places: Any  # (n_seeds,) int32


@device_function(inlined=True)
def _n_used(p, slot):
    """Return how many measurements of a branch are on tracks through the detector."""
    n = np.int32(0)
    for k in range(p.branches.n_entries[slot]):
        code = p.branches.code[slot, k]
        if code >= 0:
            n = np.int32(n + p.is_used[code])
    return n


@kernel(grain=2048)
def choose_kinked(i, p):
    """Choose seed i if holes ended its first branch, which has no hole before, fits well and is of no other track."""
    slot = i * p.branches_per_seed
    n = p.branches.n_measurements[slot]
    is_kinked = False
    if n >= p.cuts.min_measurements - 1:  # there may be no branch, and then nothing else is known of it
        is_kinked = (
            p.branches.is_stopped[slot] == 1
            and p.branches.n_holes[slot] == 0
            and p.branches.n_entries[slot] < p.max_entries
            and _n_used(p, slot) <= 1
            and fits_well(p.branches, p.cuts, slot)
        )
    p.out_is_kinked[i] = np.int32(1) if is_kinked else np.int32(0)
    p.out_places[i] = p.places if is_kinked else np.int32(0)


class _ResumePayload(NamedTuple):
    detector: DetectorPayload
    measurements: MeasurementBatch
    seeds: SeedParameters
    listed: Any  # (n_listed,) int32, seeds
    branches_per_seed: Any
    found: Branches  # of all seeds
    places: Any  # int32, rows of a listed seed
    cuts: Any  # of navigation
    kink: Kink
    mass: Any  # [GeV]
    waiting: WaitingBranches
    out: Branches  # by row, behind the kinks of listed seeds
    out_event: Any  # (n_rows,) int32
    out_is_waiting: Any  # (n_rows,) int32


@device_function(inlined=True)
def _filtered_again(i, p, slot):
    """Return the track of a branch at its last entry, a measurement, behind the material."""
    track = seed_track(p.detector.surfaces, p.seeds.module[i], p.seeds, i, ONE)
    for k in range(p.found.n_entries[slot]):
        code = p.found.code[slot, k]
        surface = surface_of(p, code)
        direction = track_direction(track)
        if k > 0:
            track, direction = move_to(p, track, surface, p.found.path[slot, k])
        if code >= 0:
            track, _ = updated(track, p, surface, code, variance_on(p, surface, direction, code))
            direction = track_direction(track)
        track, _ = with_material(p, track, direction, surface, ONE)
    return track


@device_function(inlined=True)
def _wait_behind_kink(p, row, surface, branch, navigation):
    """Let a branch wait behind a kink where it is: on a surface or, below 0, passive layer."""
    track = with_kink(branch.track, track_direction(branch.track), p.kink)
    counters = branch.counters
    zero = ZERO * branch.chi2
    counters = Counters(
        entries=append_entry(p, row, counters.entries, kink_code(p, surface), zero),
        measurements=counters.measurements,
        holes=counters.holes,
        consecutive_holes=np.int32(0),
        ndf=np.int32(counters.ndf - KINK_PARAMETERS),
        last_layer=counters.last_layer,
    )
    save_branch(p, row, surface, Branch(track, navigation, counters, branch.chi2, zero))
    p.out_is_waiting[row] = np.int32(1)


@device_function(inlined=True)
def _last_branch(i, p, before, row, surface):
    """Return the branch of a seed as it was behind its last measurement, and write its entries to a row."""
    track = _filtered_again(i, p, before)
    n = p.found.n_entries[before]
    for entry in range(n):
        p.out.code[row, entry] = p.found.code[before, entry]
        p.out.path[row, entry] = p.found.path[before, entry]
    counters = Counters(
        entries=n,
        measurements=p.found.n_measurements[before],
        holes=p.found.n_holes[before],
        consecutive_holes=np.int32(0),
        ndf=p.found.ndf[before],
        last_layer=np.int32(p.detector.surfaces[surface].layer),
    )
    zero = ZERO * p.found.chi2[before]
    gaps = first_navigation(p, surface, track, track_direction(track), False, zero).gaps
    navigation = Navigation(gaps=gaps, bin_start=np.int32(0), untried=np.int64(0))
    return Branch(track, navigation, counters, p.found.chi2[before], zero)


@kernel(grain=8)
def resume_at_kink(k, p):
    """Let the first branch of listed seed k wait behind kinks: at its last measurement and at the passive layers there.

    A kink may be in any of the material between two measurements, and what follows fits only from where it was.
    """
    i = p.listed[k]
    before, row = np.int32(i * p.branches_per_seed), np.int32(k * p.places)
    end = np.int32(row + p.places)
    if end > p.out_event.shape[0]:  # there is no room for the places of all: the batch is redone
        return
    for place in range(row, end):
        p.out.n_measurements[place] = p.found.n_measurements[before]
        p.out_event[place] = p.seeds.event[i]
        p.out_is_waiting[place] = np.int32(0)
    surface = surface_of(p, p.found.code[before, p.found.n_entries[before] - 1])
    branch = _last_branch(i, p, before, row, surface)
    track = with_kink(branch.track, track_direction(branch.track), p.kink)
    navigation = first_navigation(p, surface, track, track_direction(track), True, branch.path)
    _wait_behind_kink(p, row, surface, branch, navigation)
    for _ in range(np.int32(_MAX_LAYERS)):
        n = branch.counters.entries
        row = np.int32(row + 1)
        if row >= end or n + np.int32(2) > p.cuts.max_entries:  # that of the layer and that of the kink
            break
        copy_entries(p, np.int32(row - 1), row, n)
        direction = track_direction(branch.track)
        if is_slow(p, branch.track, direction):
            break
        curvature = track_curvature(p.detector.field, branch.track, direction)
        branch, alive = cross_layer(p, row, branch, direction, curvature)
        if not alive or branch.navigation.untried != np.int64(0):  # at the end, or at the sensors of the next layer
            break
        if branch.counters.entries > n:
            _wait_behind_kink(p, row, surface_of(p, p.out.code[row, n]), branch, branch.navigation)
        else:
            row = np.int32(row - 1)


class _KeepPayload(NamedTuple):
    listed: Any  # (n_listed,) int32, seeds
    branches_per_seed: Any
    places: Any
    min_pval: Any
    behind: Branches
    out: Branches


@device_function(inlined=True)
def _agrees(p, row, slot):
    """Return whether the measurements behind a kink agree with each other and with the size of kinks."""
    chi2 = p.behind.chi2[row] - p.out.chi2[slot]
    # The filter knows how large kinks are: their parameters are no free ones.
    ndf = np.int32(p.behind.ndf[row] + KINK_PARAMETERS - p.out.ndf[slot])
    return chi2_survival(chi2, ndf) >= p.min_pval


@device_function(inlined=True)
def _best_continuation(p, first, slot):
    """Return the row with most measurements behind a kink, then with the smallest chi2; -1 if there is none."""
    behind = p.behind
    best = np.int32(-1)
    n_best = p.out.n_measurements[slot]
    for row in range(first, first + p.places):
        n = behind.n_measurements[row]
        is_better = n > n_best or (best >= 0 and n == n_best and behind.chi2[row] < behind.chi2[best])
        if is_better and _agrees(p, row, slot):
            best = np.int32(row)
            n_best = n
    return best


@kernel(grain=512)
def keep_continuation(k, p):
    """Put the best continuation of listed seed k in the place of the branch that ended at the kink."""
    slot = np.int32(p.listed[k] * p.branches_per_seed)
    if np.int32((k + 1) * p.places) > p.behind.n_entries.shape[0]:
        return
    best = _best_continuation(p, np.int32(k * p.places), slot)
    if best < 0:
        return
    behind = p.behind
    for entry in range(behind.n_entries[best]):
        p.out.code[slot, entry] = behind.code[best, entry]
        p.out.path[slot, entry] = behind.path[best, entry]
    p.out.n_entries[slot] = behind.n_entries[best]
    p.out.n_measurements[slot] = behind.n_measurements[best]
    p.out.n_holes[slot] = behind.n_holes[best]
    p.out.ndf[slot] = behind.ndf[best]
    p.out.chi2[slot] = behind.chi2[best]
    p.out.is_stopped[slot] = behind.is_stopped[best]


def resume_at_kinks(ws: Workspace, payload: Any, cuts: Any, config: FindingConfig) -> Any:
    """Let the seeds whose first branches may have ended at a kink wait behind it.

    Parameters
    ----------
    ws : Workspace
        Buffers; the size of "kinked_seeds" is set here.
    payload : NamedTuple
        That of `follow_seeds`, after it was launched.
    cuts : NamedTuple
        Cuts for following a branch behind its kink.
    config : FindingConfig
        The size of kinks; what makes a branch acceptable.

    Returns
    -------
    NamedTuple
        The payload of `follow_seeds` for what waits, "kinks".
    """
    seeds, real = ws.extent("seeds"), payload.out.chi2.dtype.type
    n_places = np.int32(config.kink_places)
    is_kinked, places = (ws.array(f"finding.{name}", seeds, np.int32) for name in ("is_kinked", "kink_places"))
    branches_per_seed = payload.cuts.branches_per_seed
    choice = _ChoicePayload(
        branches=payload.out,
        branches_per_seed=branches_per_seed,
        cuts=acceptance(config, real),
        max_entries=payload.cuts.max_entries,
        is_used=find_used(ws, payload.out, int(branches_per_seed), config),
        places=n_places,
        out_is_kinked=is_kinked,
        out_places=places,
    )
    ws.launch(choose_kinked, seeds, choice)
    kinked, rows, dtype = ws.extent("kinked_seeds"), ws.extent("kink_places"), payload.out.chi2.dtype
    offsets = ws.array("finding.kink_offsets", seeds, np.int32, extra=1)
    listed = list_flagged(ws, is_kinked, seeds, "kinked_seeds", ScanColumn(places, offsets, rows))
    resume = _ResumePayload(
        detector=payload.detector,
        measurements=payload.measurements,
        seeds=payload.seeds,
        listed=listed,
        branches_per_seed=branches_per_seed,
        found=payload.out,
        places=n_places,
        cuts=cuts,
        kink=kink_of(config, real),
        mass=payload.mass,
        waiting=make_waiting_branches(ws, rows, dtype, 1, "kinks"),
        out=make_branches(ws, rows, dtype, 1, config.max_surfaces, "kinks"),
        out_event=ws.array("kinks.event", rows, np.int32),
        out_is_waiting=ws.array("kinks.is_waiting", rows, np.int32),
    )
    ws.launch(resume_at_kink, kinked, resume)
    return payload._replace(
        seeds=payload.seeds._replace(event=resume.out_event),
        listed=list_flagged(ws, resume.out_is_waiting, rows, "kinks"),
        is_resumed=np.int32(1),
        cuts=cuts,
        waiting=resume.waiting,
        out=resume.out,
    )


def keep_continuations(
    ws: Workspace, found: Branches, branches_per_seed: Any, resumed: Any, config: FindingConfig
) -> None:
    """Put what was found behind kinks in the place of the branches that ended there.

    Parameters
    ----------
    ws : Workspace
        Buffers; the size of "kinked_seeds" is set.
    found : Branches
        Branches of all seeds, changed here.
    branches_per_seed : int32
        Their number [1].
    resumed : NamedTuple
        What `resume_at_kinks` returned, after `follow_seeds` was launched with it.
    config : FindingConfig
        The number of places, and how well what follows a kink must fit.
    """
    kinked = ws.extent("kinked_seeds")
    payload = _KeepPayload(
        listed=ws.array("kinked_seeds.rows", kinked, np.int32),
        branches_per_seed=branches_per_seed,
        places=np.int32(config.kink_places),
        min_pval=found.chi2.dtype.type(config.kink_min_pval),
        behind=resumed.out,
        out=found,
    )
    ws.launch(keep_continuation, kinked, payload)
