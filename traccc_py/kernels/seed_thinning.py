"""Seed thinning: of the seeds that would follow the same particle, the best one is kept.

Triplet seeding finds a particle about seven times. Two seeds *agree* if they share a spacepoint, point the same way at
the beam line, bend alike, and hold no two different spacepoints of one module (these exclude each other: one of them
belongs to another particle). A seed is dropped only if it agrees with a kept seed of higher rank: each dropped seed has
a kept one that shares a spacepoint and the direction with it, so no chain of drops can lose a particle. Ranks: the
innermost bottom first (in steps of 20 mm), then the seed that more others agree with, then the quality.

A seed with a kink in z (a spacepoint from a piece of a split cluster, mostly) drops only seeds with its own bottom:
the others may be the particle's better ones.

This is the greedy choice in the order of ranks, done in parallel rounds: a seed is kept when all higher-ranked seeds it
agrees with are dropped. What is not decided after the last round is kept.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.batch import MeasurementBatch, SeedBatch, SpacepointBatch
from traccc_py.kernels.linalg import wrap_angle
from traccc_py.kernels.parameter_estimation import helix_through_points

__all__ = ["thin_seeds"]

# Agreement, from seeds of the same particle (0.5 to 100 GeV, 10 um, 1.5 % of a radiation length a layer): 99.9 % of
# the differences of seeds that share a spacepoint are smaller. The second number is multiplied by the curvature:
# scattering grows like 1/pT.
_CURVATURE_TOLERANCE = scalar(1.5e-4), scalar(0.12)  # [1/mm], [1]
_PHI_TOLERANCE = scalar(0.02), scalar(16.0)  # [rad], [mm]
_THETA_TOLERANCE = scalar(1e-3), scalar(8.0)  # [rad], [mm]
# Kink without a wrong spacepoint: resolution, and scattering at three standard deviations (the number times curvature).
_KINK_TOLERANCE = scalar(1.5e-3), scalar(9.0)  # [1], [mm]
_RINGS_PER_MM = scalar(1 / 20)
_ONE = scalar(1)
_ONE_24TH = scalar(1 / 24)
_N_ROUNDS = 8  # 5 are needed for 5,000 tracks
_PER_SEED = 3
_X, _Y, _Z = 0, 1, 2
_UNDECIDED, _KEPT, _DROPPED = 0, 1, 2


class _Lists(NamedTuple):
    """The seeds of each spacepoint: entries begin[s] ... end[s] - 1."""

    begin: Any  # (n_spacepoints,) int32
    end: Any  # (n_spacepoints,) int32
    seed: Any  # (3 n_seeds,) int32


class _Described(NamedTuple):
    """What agreement and rank are judged by."""

    curvature: Any  # (n_seeds,) scalar [1/mm]
    phi: Any  # (n_seeds,) scalar [rad], direction at the beam line
    cot_theta: Any  # (n_seeds,) scalar
    ring: Any  # (n_seeds,) int32, of the bottom
    modules: Any  # (n_seeds, 3) int32, event_module of the spacepoints
    n_agreeing: Any  # (n_seeds,) int32
    is_straight: Any  # (n_seeds,) int32, 0 if there is a kink in z at the middle


class _DescribePayload(NamedTuple):
    seeds: SeedBatch
    global_position: Any  # (n_spacepoints, 3) scalar [mm]
    measurement_index: Any  # (n_spacepoints,) int32
    event_module: Any  # (n_measurements,) int32
    out: _Described
    out_n_entries: Any  # (n_seeds,) int32


class _ListPayload(NamedTuple):
    seeds: SeedBatch
    order: Any  # (3 n_seeds,) int32
    counts: Any  # (n_extents,) int32
    slot: Any  # int32
    out_key: Any  # (3 n_seeds,) int64, spacepoint
    out: _Lists


class _AgreePayload(NamedTuple):
    seeds: SeedBatch
    described: _Described
    lists: _Lists
    offsets: Any  # (n_seeds + 1,) int32
    out_neighbour: Any  # (n_neighbours,) int32, seeds that agree


class _StatePayload(NamedTuple):
    out_state: Any  # (n_seeds,) int32


class _RoundPayload(NamedTuple):
    seeds: SeedBatch
    described: _Described
    offsets: Any  # (n_seeds + 1,) int32
    neighbour: Any  # (n_neighbours,) int32
    state: Any  # (n_seeds,) int32
    out_state: Any  # (n_seeds,) int32


class _KeepPayload(NamedTuple):
    state: Any  # (n_seeds,) int32
    out_is_kept: Any  # (n_seeds,) int32


@device_function
def _spacepoint(seeds, i, k):
    """Return spacepoint k (0 bottom, 1 middle, 2 top) of a seed."""
    if k == 0:
        return seeds.bottom_index[i]
    if k == 1:
        return seeds.middle_index[i]
    return seeds.top_index[i]


@device_function(inlined=True)
def _is_straight(position, bottom, middle, top, cot_theta, curvature):
    """Return whether the slopes in z below and above the middle agree."""
    below = _slope(position, bottom, middle, curvature)
    above = _slope(position, middle, top, curvature)
    one_over_sin2 = _ONE + cot_theta * cot_theta
    return abs(below - above) <= _KINK_TOLERANCE[0] + _KINK_TOLERANCE[1] * abs(curvature) * one_over_sin2


@device_function(inlined=True)
def _slope(position, a, b, curvature):
    """Return dz per arc length between two spacepoints."""
    dx, dy = position[b, _X] - position[a, _X], position[b, _Y] - position[a, _Y]
    chord2 = dx * dx + dy * dy
    arc = math.sqrt(chord2) * (_ONE + chord2 * curvature * curvature * _ONE_24TH)
    return (position[b, _Z] - position[a, _Z]) / arc


@kernel(grain=512)
def _describe_seeds(i, p):
    """One seed: direction, curvature, modules."""
    bottom, middle, top = p.seeds.bottom_index[i], p.seeds.middle_index[i], p.seeds.top_index[i]
    x0, y0, z0 = p.global_position[bottom, _X], p.global_position[bottom, _Y], p.global_position[bottom, _Z]
    phi, cot_theta, curvature = helix_through_points(
        p.global_position[middle, _X] - x0,
        p.global_position[middle, _Y] - y0,
        p.global_position[top, _X] - x0,
        p.global_position[top, _Y] - y0,
        p.global_position[top, _Z] - z0,
    )
    r = math.sqrt(x0 * x0 + y0 * y0)
    p.out.curvature[i] = curvature
    p.out.phi[i] = phi + curvature * r
    p.out.cot_theta[i] = cot_theta
    p.out.ring[i] = np.int32(r * _RINGS_PER_MM)
    p.out.n_agreeing[i] = 0
    straight = _is_straight(p.global_position, bottom, middle, top, cot_theta, curvature)
    p.out.is_straight[i] = np.int32(1) if straight else np.int32(0)
    for k in range(_PER_SEED):
        p.out.modules[i, k] = p.event_module[p.measurement_index[_spacepoint(p.seeds, i, k)]]
    p.out_n_entries[i] = _PER_SEED


@kernel(grain=4096)
def _fill_entry_keys(i, p):
    """One seed: its three spacepoints are the sorting keys of its list entries."""
    if _PER_SEED * (i + 1) > p.out_key.shape[0]:
        return
    for k in range(_PER_SEED):
        p.out_key[_PER_SEED * i + k] = _spacepoint(p.seeds, i, k)


@kernel(grain=8192)
def _clear_lists(i, p):
    """One spacepoint: no seeds."""
    p.out.begin[i] = 0
    p.out.end[i] = 0


@kernel(grain=4096)
def _fill_lists(i, p):
    """One sorted entry: its seed; the first and last of a spacepoint mark its range."""
    entry = p.order[i]
    spacepoint = p.out_key[entry]
    p.out.seed[i] = entry // _PER_SEED
    if i == 0 or p.out_key[p.order[i - 1]] != spacepoint:
        p.out.begin[spacepoint] = i
    if i + 1 == p.counts[p.slot] or p.out_key[p.order[i + 1]] != spacepoint:
        p.out.end[spacepoint] = i + 1


@device_function(inlined=True)
def _point_alike(d, a, b):
    """Return whether two seeds agree in curvature and direction."""
    curvature = max(abs(d.curvature[a]), abs(d.curvature[b]))
    if abs(d.curvature[a] - d.curvature[b]) > _CURVATURE_TOLERANCE[0] + _CURVATURE_TOLERANCE[1] * curvature:
        return False
    if abs(wrap_angle(d.phi[a] - d.phi[b])) > _PHI_TOLERANCE[0] + _PHI_TOLERANCE[1] * curvature:
        return False
    cot_a, cot_b = d.cot_theta[a], d.cot_theta[b]
    one_over_sin2 = _ONE + min(cot_a * cot_a, cot_b * cot_b)
    return abs(cot_a - cot_b) <= (_THETA_TOLERANCE[0] + _THETA_TOLERANCE[1] * curvature) * one_over_sin2


@device_function(inlined=True)
def _exclude_each_other(seeds, d, a, b):
    """Return whether two seeds have different spacepoints on one module."""
    for k in range(_PER_SEED):
        for m in range(_PER_SEED):
            if d.modules[a, k] == d.modules[b, m] and _spacepoint(seeds, a, k) != _spacepoint(seeds, b, m):
                return True
    return False


@device_function(inlined=True)
def _shared_before(seeds, a, b, last):
    """Return whether seed b holds one of the first `last` spacepoints of seed a."""
    for k in range(last):
        spacepoint = _spacepoint(seeds, a, k)
        for m in range(_PER_SEED):
            if _spacepoint(seeds, b, m) == spacepoint:
                return True
    return False


@device_function(inlined=True)
def _find_agreeing(p, i, position, is_filling):
    """Go through the seeds that agree with seed i, each once; return the position after the last one."""
    for k in range(_PER_SEED):
        spacepoint = _spacepoint(p.seeds, i, k)
        for entry in range(p.lists.begin[spacepoint], p.lists.end[spacepoint]):
            other = p.lists.seed[entry]
            if (
                other != i
                and _point_alike(p.described, i, other)
                and not _shared_before(p.seeds, i, other, k)
                and not _exclude_each_other(p.seeds, p.described, i, other)
            ):
                if is_filling:
                    p.out_neighbour[position] = other
                position += 1
    return position


@kernel(grain=128)
def _count_agreeing(i, p):
    """One seed: how many others agree with it."""
    p.described.n_agreeing[i] = _find_agreeing(p, i, np.int64(0), False)


@kernel(grain=128)
def _fill_agreeing(i, p):
    """One seed: write those that agree with it."""
    if p.offsets[i + 1] > p.out_neighbour.shape[0]:
        return
    _find_agreeing(p, i, np.int64(p.offsets[i]), True)


@device_function(inlined=True)
def _ranks_higher(seeds, d, a, b):
    """Return whether seed a ranks higher than seed b."""
    if d.ring[a] != d.ring[b]:
        return d.ring[a] < d.ring[b]
    if d.n_agreeing[a] != d.n_agreeing[b]:
        return d.n_agreeing[a] > d.n_agreeing[b]
    if seeds.quality[a] != seeds.quality[b]:
        return seeds.quality[a] > seeds.quality[b]
    for k in range(_PER_SEED):
        spacepoint_a, spacepoint_b = _spacepoint(seeds, a, k), _spacepoint(seeds, b, k)
        if spacepoint_a != spacepoint_b:
            return spacepoint_a < spacepoint_b
    return False


@kernel(grain=4096)
def _start_rounds(i, p):
    """One seed: nothing is decided."""
    p.out_state[i] = _UNDECIDED


@device_function(inlined=True)
def _may_drop(seeds, d, a, b):
    """Return whether seed a, if it is kept, drops seed b, which it agrees with."""
    if d.is_straight[a] == 0 and seeds.bottom_index[a] != seeds.bottom_index[b]:
        return False
    return _ranks_higher(seeds, d, a, b)


@kernel(grain=1024)
def _decide_seeds(i, p):
    """One seed: drop it if a seed that may drop it is kept, keep it if all those are dropped."""
    state = p.state[i]
    last = p.offsets[i + 1]
    if state == _UNDECIDED and last <= p.neighbour.shape[0]:
        state = _KEPT
        for k in range(p.offsets[i], last):
            other = p.neighbour[k]
            if p.state[other] != _DROPPED and _may_drop(p.seeds, p.described, other, i):
                if p.state[other] == _KEPT:
                    state = _DROPPED
                    break
                state = _UNDECIDED
    p.out_state[i] = state


@kernel(grain=4096)
def _flag_kept(i, p):
    """One seed: is it kept? What is not decided is."""
    p.out_is_kept[i] = np.int32(1) if p.state[i] != _DROPPED else np.int32(0)


def _describe(
    ws: Workspace, seeds: SeedBatch, spacepoints: SpacepointBatch, measurements: MeasurementBatch
) -> _Described:
    """Describe the seeds; set the size of "seed_entries"."""
    extent, dtype = ws.extent("seeds"), spacepoints.global_position.dtype
    out = _Described(
        *(ws.array(f"seed_thinning.{name}", extent, dtype) for name in ("curvature", "phi", "cot_theta")),
        ring=ws.array("seed_thinning.ring", extent, np.int32),
        modules=ws.array("seed_thinning.modules", extent, np.int32, _PER_SEED),
        n_agreeing=ws.array("seed_thinning.n_agreeing", extent, np.int32),
        is_straight=ws.array("seed_thinning.is_straight", extent, np.int32),
    )
    n_entries = ws.array("seed_thinning.n_entries", extent, np.int32)
    offsets = ws.array("seed_thinning.entry_offsets", extent, np.int32, extra=1)
    position, links = spacepoints.global_position, spacepoints.measurement_index
    ws.launch(
        _describe_seeds, extent, _DescribePayload(seeds, position, links, measurements.event_module, out, n_entries)
    )
    ws.scan(n_entries, extent, offsets, ws.extent("seed_entries"))
    return out


def _make_lists(ws: Workspace, seeds: SeedBatch) -> _Lists:
    """List the seeds of each spacepoint."""
    extent, spacepoints, entries = (ws.extent(name) for name in ("seeds", "spacepoints", "seed_entries"))
    key = ws.array("seed_thinning.key", entries, np.int64)
    order = ws.array("seed_thinning.order", entries, np.int32)
    lists = _Lists(
        begin=ws.array("seed_thinning.begin", spacepoints, np.int32),
        end=ws.array("seed_thinning.end", spacepoints, np.int32),
        seed=ws.array("seed_thinning.entry_seed", entries, np.int32),
    )
    payload = _ListPayload(seeds, order, ws.counts, np.int32(entries.slot), key, lists)
    ws.launch(_fill_entry_keys, extent, payload)
    ws.argsort(key, entries, order)
    ws.launch(_clear_lists, spacepoints, payload)
    ws.launch(_fill_lists, entries, payload)
    return lists


def _decide(ws: Workspace, seeds: SeedBatch, described: _Described, lists: _Lists) -> Any:
    """Find who agrees with whom and do the rounds; return the states."""
    extent, neighbours = ws.extent("seeds"), ws.extent("agreeing_seeds")
    offsets = ws.array("seed_thinning.offsets", extent, np.int32, extra=1)
    empty = ws.array("seed_thinning.neighbour", neighbours, np.int32)
    ws.launch(_count_agreeing, extent, _AgreePayload(seeds, described, lists, offsets, empty))
    ws.scan(described.n_agreeing, extent, offsets, neighbours)
    neighbour = ws.array("seed_thinning.neighbour", neighbours, np.int32)
    ws.launch(_fill_agreeing, extent, _AgreePayload(seeds, described, lists, offsets, neighbour))

    state = ws.array("seed_thinning.state", extent, np.int32)
    other_state = ws.array("seed_thinning.other_state", extent, np.int32)
    ws.launch(_start_rounds, extent, _StatePayload(state))
    for _ in range(_N_ROUNDS):
        ws.launch(_decide_seeds, extent, _RoundPayload(seeds, described, offsets, neighbour, state, other_state))
        state, other_state = other_state, state
    return state


def thin_seeds(
    ws: Workspace,
    seeds: SeedBatch,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    config: SeedingConfig,
) -> Any:
    """Choose the seeds to follow, so that few would follow the same particle.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "seeds" and "spacepoints" must be set.
    seeds : SeedBatch
        Seeds as found.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Tells the modules of the spacepoints.
    config : SeedingConfig
        With `thinning` off all seeds are kept.

    Returns
    -------
    array of shape (n_seeds,), int32
        1 for seeds that are kept, 0 for those that are dropped.
    """
    extent = ws.extent("seeds")
    if config.thinning:
        described = _describe(ws, seeds, spacepoints, measurements)
        state = _decide(ws, seeds, described, _make_lists(ws, seeds))
    else:
        state = ws.array("seed_thinning.state", extent, np.int32)
        ws.launch(_start_rounds, extent, _StatePayload(state))
    is_kept = ws.array("seed_thinning.is_kept", extent, np.int32)
    ws.launch(_flag_kept, extent, _KeepPayload(state, is_kept))
    return is_kept
