"""Past a kink: short candidates that holes ended are followed again from their last measurement, in a wide cone.

A hadron that scatters off a nucleus changes its direction by some 0.1 GeV over its momentum, far more than the filter
allows for, and so its track seems to end in the detector. Here such a branch is brought back to its last measurement,
gets the uncertainty of a kink, and waits there; `follow_seeds` goes on with it. It counts only if enough measurements
behind the kink agree with each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.finding.branches import Branches, WaitingBranches, append_entry, save_branch
from traccc_py.kernels.finding.candidates import Acceptance, acceptance, fits_well
from traccc_py.kernels.finding.layers import first_navigation
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
from traccc_py.kernels.tracking.propagation import seed_track, track_direction, updated
from traccc_py.kernels.tracking.selection import list_flagged
from traccc_py.kernels.tracking.state import Branch, Counters

__all__ = ["resume_at_kinks"]


class _ChoicePayload(NamedTuple):
    branches: Branches
    branches_per_seed: Any
    cuts: Acceptance
    max_entries: Any
    is_used: Any  # (n_measurements,) int32, 1: on a track through the detector
    out_is_kinked: Any  # (n_seeds,) int32


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


class _ResumePayload(NamedTuple):
    detector: DetectorPayload
    measurements: MeasurementBatch
    seeds: SeedParameters
    listed: Any  # (n_listed,) int32, seeds
    branches_per_seed: Any
    cuts: Any  # of `first_navigation`
    kink: Kink
    mass: Any  # [GeV]
    waiting: WaitingBranches
    out: Branches


@device_function(inlined=True)
def _filtered_again(i, p, slot):
    """Return the track of a branch at its last entry, a measurement, behind the material."""
    track = seed_track(p.detector.surfaces, p.seeds.module[i], p.seeds, i, ONE)
    for k in range(p.out.n_entries[slot]):
        code = p.out.code[slot, k]
        surface = surface_of(p, code)
        direction = track_direction(track)
        if k > 0:
            track, direction = move_to(p, track, surface, p.out.path[slot, k])
        if code >= 0:
            track, _ = updated(track, p, surface, code, variance_on(p, surface, direction, code))
            direction = track_direction(track)
        track, _ = with_material(p, track, direction, surface, ONE)
    return track


@kernel(grain=8)
def resume_at_kink(k, p):
    """Let the first branch of listed seed k wait behind a kink at its last measurement."""
    i = p.listed[k]
    slot = np.int32(i * p.branches_per_seed)
    n = p.out.n_entries[slot]
    surface = surface_of(p, p.out.code[slot, n - 1])
    track = _filtered_again(i, p, slot)
    direction = track_direction(track)
    track = with_kink(track, direction, p.kink)
    zero = ZERO * p.out.chi2[slot]
    counters = Counters(
        entries=append_entry(p, slot, n, kink_code(p, surface), zero),
        measurements=p.out.n_measurements[slot],
        holes=np.int32(0),
        consecutive_holes=np.int32(0),
        ndf=np.int32(p.out.ndf[slot] - KINK_PARAMETERS),
        last_layer=np.int32(p.detector.surfaces[surface].layer),
    )
    navigation = first_navigation(p, surface, track, direction, True, zero)
    save_branch(p, slot, surface, Branch(track, navigation, counters, p.out.chi2[slot], zero))


def resume_at_kinks(ws: Workspace, payload: Any, cuts: Any, config: FindingConfig) -> Any:
    """List the seeds whose first branches may have ended at a kink, and let these wait behind it.

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
    array of shape (n_kinked,), int32
        Seeds. Extent: "kinked_seeds".
    """
    seeds, real = ws.extent("seeds"), payload.out.chi2.dtype.type
    is_kinked = ws.array("finding.is_kinked", seeds, np.int32)
    branches_per_seed = payload.cuts.branches_per_seed
    choice = _ChoicePayload(
        branches=payload.out,
        branches_per_seed=branches_per_seed,
        cuts=acceptance(config, real),
        max_entries=payload.cuts.max_entries,
        is_used=find_used(ws, payload.out, int(branches_per_seed), config),
        out_is_kinked=is_kinked,
    )
    ws.launch(choose_kinked, seeds, choice)
    listed = list_flagged(ws, is_kinked, seeds, "kinked_seeds")
    resume = _ResumePayload(
        detector=payload.detector,
        measurements=payload.measurements,
        seeds=payload.seeds,
        listed=listed,
        branches_per_seed=branches_per_seed,
        cuts=cuts,
        kink=kink_of(config, real),
        mass=payload.mass,
        waiting=payload.waiting,
        out=payload.out,
    )
    ws.launch(resume_at_kink, ws.extent("kinked_seeds"), resume)
    return listed
