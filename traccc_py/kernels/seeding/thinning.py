"""Seed thinning: of the seeds that would follow the same particle, the best one is kept.

Triplet seeding finds a particle about seven times. Two seeds *agree* if they share a spacepoint, point the same way at
the beam line, bend alike, and hold no two different spacepoints of one module (these exclude each other: one of them
belongs to another particle). A seed is dropped only if it agrees with a kept seed of higher rank: each dropped seed has
a kept one that shares a spacepoint and the direction with it, so no chain of drops can lose a particle. Ranks: the
innermost bottom first (in rings of 20 mm), then the seed that more others agree with, then the quality.

A seed with a kink in z (a spacepoint from a piece of a split cluster, mostly) drops only seeds with its own bottom:
the others may be the particle's better ones.

A seed that no other agrees with is most likely made of several particles' spacepoints in a dense event, and is dropped
too: it is followed after the others, if they leave its spacepoints over.

This is the greedy choice in the order of ranks: a seed is kept when all higher-ranked seeds it agrees with are dropped.
All seeds are tried at once, some times; what one sees of another may be decided in the same launch or not yet, which
changes nothing, for a decision is final and there is only one that is right. Each event then settles what is left.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedThinningConfig
from traccc_py.device.grouping import Groups, group_rows
from traccc_py.device.kernel import CudaBody, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import ONE, X, Y, Z
from traccc_py.kernels.seeding.parameter_estimation import helix_through_points
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SpacepointBatch
from traccc_py.kernels.tracking.linalg import wrap_angle
from traccc_py.kernels.tracking.selection import first_of_event

__all__ = ["thin_seeds"]

_ONE_24TH = scalar(1 / 24)
_N_ROUNDS = 6  # over all seeds; what is left, 26 of 56,000 in an event of mu = 200, is for `_settle_event`
_PER_SEED = 3
_CURVATURE, _PHI, _COT_THETA, _QUALITY, _N_SHAPE = range(5)  # columns of `_Described.shape` ...
_BOTTOM, _MIDDLE, _TOP, _MODULES = range(4)  # ... and of `_Described.places`, with three columns of modules
_RING, _STRAIGHT, _N_PLACES = range(_MODULES + _PER_SEED, _MODULES + _PER_SEED + 3)
UNDECIDED, KEPT, DROPPED = 0, 1, 2


class _Described(NamedTuple):
    """What agreement and rank are judged by. What belongs to a seed lies together: others look it up in any order."""

    shape: Any  # (n_seeds, 4) scalar: curvature [1/mm], phi at the beam line [rad], cot theta, quality
    places: Any  # (n_seeds, 8) int32: spacepoints, their event_modules, ring of the bottom, 0 if there is a kink in z
    n_agreeing: Any  # (n_seeds,) int32


class _Tolerance(NamedTuple):
    """The largest difference of what agrees: a constant, and what grows like 1/pT, for scattering does."""

    constant: Any
    per_curvature: Any


class _Agreement(NamedTuple):
    """Tolerances for two seeds of one particle."""

    curvature: _Tolerance  # [1/mm], [1]
    phi: _Tolerance  # [rad], [mm]
    theta: _Tolerance  # [rad], [mm]


class _DescribePayload(NamedTuple):
    seeds: SeedBatch
    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    kink: _Tolerance  # [1], [mm]
    rings_per_mm: Any  # scalar
    out: _Described
    out_state: Any  # (n_seeds,) int32
    out_key: Any  # (3 n_seeds,) int32, spacepoints


class _DecisionPayload(NamedTuple):
    event: Any  # (n_seeds,) int32
    described: _Described
    of_spacepoint: Groups  # keys: spacepoints; row 3 i + k is spacepoint k of seed i
    counts: Any  # (n_extents,) int32
    slot: Any  # int32, where the number of seeds stands
    state: Any  # (n_seeds,) int32
    agreement: _Agreement
    min_agreeing: Any  # int32
    out_is_kept: Any  # (n_seeds,) int32


class _KeepPayload(NamedTuple):
    out_is_kept: Any  # (n_seeds,) int32


@device_function(inlined=True)
def _allowed(tolerance, curvature):
    """Return the largest difference allowed at a curvature, without sign."""
    return tolerance.constant + tolerance.per_curvature * curvature


@device_function(inlined=True)
def _is_straight(kink, position, bottom, middle, top, cot_theta, curvature):
    """Return whether the slopes in z below and above the middle agree."""
    below = _slope(position, bottom, middle, curvature)
    above = _slope(position, middle, top, curvature)
    one_over_sin2 = ONE + cot_theta * cot_theta
    return abs(below - above) <= kink.constant + kink.per_curvature * abs(curvature) * one_over_sin2


@device_function(inlined=True)
def _slope(position, a, b, curvature):
    """Return dz per arc length between two spacepoints."""
    dx, dy = position[b, X] - position[a, X], position[b, Y] - position[a, Y]
    chord2 = dx * dx + dy * dy
    arc = math.sqrt(chord2) * (ONE + chord2 * curvature * curvature * _ONE_24TH)
    return (position[b, Z] - position[a, Z]) / arc


@kernel(grain=512)
def _describe_seeds(i, p):
    """One seed: direction, curvature, modules."""
    bottom, middle, top = p.seeds.bottom_index[i], p.seeds.middle_index[i], p.seeds.top_index[i]
    position = p.spacepoints.global_position
    x0, y0, z0 = position[bottom, X], position[bottom, Y], position[bottom, Z]
    phi, cot_theta, curvature = helix_through_points(
        position[middle, X] - x0,
        position[middle, Y] - y0,
        position[top, X] - x0,
        position[top, Y] - y0,
        position[top, Z] - z0,
    )
    r = math.sqrt(x0 * x0 + y0 * y0)
    p.out.shape[i, _CURVATURE] = curvature
    p.out.shape[i, _PHI] = phi + curvature * r
    p.out.shape[i, _COT_THETA] = cot_theta
    p.out.shape[i, _QUALITY] = p.seeds.quality[i]
    p.out.places[i, _BOTTOM] = bottom
    p.out.places[i, _MIDDLE] = middle
    p.out.places[i, _TOP] = top
    p.out.places[i, _RING] = np.int32(r * p.rings_per_mm)
    straight = _is_straight(p.kink, position, bottom, middle, top, cot_theta, curvature)
    p.out.places[i, _STRAIGHT] = np.int32(1) if straight else np.int32(0)
    for k in range(_PER_SEED):
        spacepoint = p.out.places[i, _BOTTOM + k]
        measurement = p.spacepoints.measurement_index[spacepoint]
        p.out.places[i, _MODULES + k] = p.measurements.event_module[measurement]
        p.out_key[_PER_SEED * i + k] = spacepoint
    p.out_state[i] = UNDECIDED


@device_function(inlined=True)
def _point_alike(shape, agreement, a, b):
    """Return whether two seeds agree in curvature and direction."""
    curvature_a, curvature_b = shape[a, _CURVATURE], shape[b, _CURVATURE]
    curvature = max(abs(curvature_a), abs(curvature_b))
    if abs(curvature_a - curvature_b) > _allowed(agreement.curvature, curvature):
        return False
    if abs(wrap_angle(shape[a, _PHI] - shape[b, _PHI])) > _allowed(agreement.phi, curvature):
        return False
    cot_a, cot_b = shape[a, _COT_THETA], shape[b, _COT_THETA]
    one_over_sin2 = ONE + min(cot_a * cot_a, cot_b * cot_b)
    return abs(cot_a - cot_b) <= _allowed(agreement.theta, curvature) * one_over_sin2


@device_function(inlined=True)
def _exclude_each_other(places, a, b):
    """Return whether two seeds have different spacepoints on one module."""
    for k in range(_PER_SEED):
        for m in range(_PER_SEED):
            is_same_module = places[a, _MODULES + k] == places[b, _MODULES + m]
            if is_same_module and places[a, _BOTTOM + k] != places[b, _BOTTOM + m]:
                return True
    return False


@device_function(inlined=True)
def _shared_before(places, a, b, last):
    """Return whether seed b holds one of the first `last` spacepoints of seed a."""
    for k in range(last):
        for m in range(_PER_SEED):
            if places[b, _BOTTOM + m] == places[a, _BOTTOM + k]:
                return True
    return False


@device_function(inlined=True)
def _agree(p, a, b):
    """Return whether two seeds that share a spacepoint agree."""
    is_alike = _point_alike(p.described.shape, p.agreement, a, b)
    return is_alike and not _exclude_each_other(p.described.places, a, b)


@kernel(grain=128)
def _count_agreeing(i, p):
    """One seed: how many others agree with it."""
    n = np.int32(0)
    for k in range(_PER_SEED):
        spacepoint = p.described.places[i, _BOTTOM + k]
        for entry in range(p.of_spacepoint.offsets[spacepoint], p.of_spacepoint.offsets[spacepoint + 1]):
            other = p.of_spacepoint.order[entry] // _PER_SEED
            if other != i and _agree(p, i, other) and not _shared_before(p.described.places, i, other, k):
                n += np.int32(1)
    p.described.n_agreeing[i] = n


@device_function(inlined=True)
def _ranks_higher(d, a, b):
    """Return whether seed a ranks higher than seed b."""
    if d.places[a, _RING] != d.places[b, _RING]:
        return d.places[a, _RING] < d.places[b, _RING]
    if d.n_agreeing[a] != d.n_agreeing[b]:
        return d.n_agreeing[a] > d.n_agreeing[b]
    if d.shape[a, _QUALITY] != d.shape[b, _QUALITY]:
        return d.shape[a, _QUALITY] > d.shape[b, _QUALITY]
    for k in range(_PER_SEED):
        if d.places[a, _BOTTOM + k] != d.places[b, _BOTTOM + k]:
            return d.places[a, _BOTTOM + k] < d.places[b, _BOTTOM + k]
    return False


@device_function(inlined=True)
def _may_drop(d, a, b):
    """Return whether seed a, if it is kept, drops seed b, which it agrees with."""
    if d.places[a, _STRAIGHT] == 0 and d.places[a, _BOTTOM] != d.places[b, _BOTTOM]:
        return False
    return _ranks_higher(d, a, b)


@device_function
def decision(p, i):
    """Return what is known of seed i: dropped if a seed that may drop it is kept, kept if all those are dropped."""
    state = np.int32(KEPT)
    for k in range(_PER_SEED):
        spacepoint = p.described.places[i, _BOTTOM + k]
        for entry in range(p.of_spacepoint.offsets[spacepoint], p.of_spacepoint.offsets[spacepoint + 1]):
            other = p.of_spacepoint.order[entry] // _PER_SEED
            of_other = p.state[other]
            may_drop = other != i and of_other != DROPPED and _may_drop(p.described, other, i)
            if may_drop and _agree(p, i, other):
                if of_other == KEPT:
                    return np.int32(DROPPED)
                state = np.int32(UNDECIDED)
    return state


@kernel(grain=512)
def _decide_seeds(i, p):
    """One seed: decide on it if that can be done by now."""
    if p.state[i] == UNDECIDED:
        p.state[i] = decision(p, i)


@device_function
def is_followed(p, i):
    """Return 1 for a seed that is kept and that enough others agree with, else 0."""
    return np.int32(1) if p.state[i] == KEPT and p.described.n_agreeing[i] >= p.min_agreeing else np.int32(0)


@device_function
def seeds_of_event(p, event):
    """Return (first seed of an event, one past the last)."""
    n = p.counts[p.slot]
    return first_of_event(p.event, n, event), first_of_event(p.event, n, event + 1)


@kernel(grain=1, cuda=CudaBody("traccc_py.kernels.seeding.thinning_cuda:settle_event", 512))
def _settle_event(i, p):
    """One event: decide on all its seeds that are left, the highest-ranked first, and flag those that are kept."""
    first, end = seeds_of_event(p, i)
    is_left = True
    while is_left:
        is_left = False
        for seed in range(first, end):
            if p.state[seed] == UNDECIDED:
                p.state[seed] = decision(p, seed)
                is_left = is_left or p.state[seed] == UNDECIDED
    for seed in range(first, end):
        p.out_is_kept[seed] = is_followed(p, seed)


@kernel(grain=4096)
def _keep_all(i, p):
    """One seed: keep it."""
    p.out_is_kept[i] = np.int32(1)


def _tolerance(constant: float, per_curvature: float) -> _Tolerance:
    return _Tolerance(constant=scalar(constant), per_curvature=scalar(per_curvature))


def _describe(
    ws: Workspace,
    seeds: SeedBatch,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    config: SeedThinningConfig,
) -> tuple[_Described, Any, Groups]:
    """Return the seeds described, their states, and the seeds of each spacepoint."""
    extent, dtype = ws.extent("seeds"), spacepoints.global_position.dtype
    out = _Described(
        shape=ws.array("seed_thinning.shape", extent, dtype, _N_SHAPE),
        places=ws.array("seed_thinning.places", extent, np.int32, _N_PLACES),
        n_agreeing=ws.array("seed_thinning.n_agreeing", extent, np.int32),
    )
    state = ws.array("seed_thinning.state", extent, np.int32)
    entries = ws.extent("seed_entries")
    ws.reserve(entries, _PER_SEED * extent.capacity)
    key = ws.array("seed_thinning.key", entries, np.int32)
    payload = _DescribePayload(
        seeds=seeds,
        spacepoints=spacepoints,
        measurements=measurements,
        kink=_tolerance(config.kink_tolerance, config.kink_scattering),
        rings_per_mm=scalar(1 / config.ring_width),
        out=out,
        out_state=state,
        out_key=key,
    )
    ws.launch(_describe_seeds, extent, payload)
    groups = group_rows(ws, "seed_thinning", key, extent, ws.extent("spacepoints"), entries, width=_PER_SEED)
    return out, state, groups


def thin_seeds(
    ws: Workspace,
    seeds: SeedBatch,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    config: SeedThinningConfig,
) -> Any:
    """Choose the seeds to follow, so that few would follow the same particle.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "events", "seeds" and "spacepoints" must be set.
    seeds : SeedBatch
        Seeds as found.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Tells the modules of the spacepoints.
    config : SeedThinningConfig
        Without `enabled` all seeds are kept.

    Returns
    -------
    array of shape (n_seeds,), int32
        1 for seeds that are kept, 0 for those that are dropped, among them those with too few that agree.
    """
    extent = ws.extent("seeds")
    is_kept = ws.array("seed_thinning.is_kept", extent, np.int32)
    if not config.enabled:
        ws.launch(_keep_all, extent, _KeepPayload(out_is_kept=is_kept))
        return is_kept
    described, state, of_spacepoint = _describe(ws, seeds, spacepoints, measurements, config)
    agreement = _Agreement(
        curvature=_tolerance(config.curvature_tolerance, config.curvature_scattering),
        phi=_tolerance(config.phi_tolerance, config.phi_scattering),
        theta=_tolerance(config.theta_tolerance, config.theta_scattering),
    )
    payload = _DecisionPayload(
        event=seeds.event,
        described=described,
        of_spacepoint=of_spacepoint,
        counts=ws.counts,
        slot=np.int32(extent.slot),
        state=state,
        agreement=agreement,
        min_agreeing=np.int32(config.min_agreeing_seeds),
        out_is_kept=is_kept,
    )
    ws.launch(_count_agreeing, extent, payload)
    for _ in range(_N_ROUNDS):
        ws.launch(_decide_seeds, extent, payload)
    ws.launch(_settle_event, ws.extent("events"), payload)
    return is_kept
