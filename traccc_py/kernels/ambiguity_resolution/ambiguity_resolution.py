"""Greedy ambiguity resolution: tracks that share measurements are removed, the worst first.

Of the tracks that share at least `max_shared_measurements` with others, the worst goes first: that with the largest
share of shared measurements, then the smallest p-value, then the largest index. Removals only improve the tracks that
stay, so a track that is worse than all removable tracks it shares a measurement with stays so until its turn: all such
tracks of a round go at once, and the result equals the sequential one.

Source: traccc v1.6.0, greedy ambiguity resolution, whose max_shared_meas = 1 this equals for 1. Above 1 traccc stops as
soon as no track has so many, too, but takes the worst track also where it shares less; here such tracks are left alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import AmbiguityResolutionConfig
from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel
from traccc_py.device.workspace import ScanColumn, Workspace
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.tracking.selection import first_of_event

__all__ = ["TrackSelection", "resolve_ambiguities"]

_BLOCK = CudaBody(
    "traccc_py.kernels.ambiguity_resolution.ambiguity_resolution_cuda:resolve_event", 1024, (Scratch(2, np.int32),)
)
_FIRST_TRACK = 0
LEAVING = 2  # in `_Kept.flag`: accepted so far, removed in this round


class TrackSelection(NamedTuple):
    """Accepted candidates, in their order. Extent: "tracks"."""

    candidate: Any  # (n_tracks,) int32
    state_offsets: Any  # (n_tracks + 1,) int32, first state of each track; extent of states: "track_states"


class _Held(NamedTuple):
    """The measurements of each candidate."""

    offsets: Any  # (n_candidates + 1,) int32
    measurements: Any  # (n_entries,) int32


class _Owners(NamedTuple):
    """The accepted candidates of each measurement: work space. CUDA keeps no lists, see `ambiguity_resolution_cuda`."""

    n: Any  # (n_measurements,) int32
    offsets: Any  # (n_measurements + 1,) int32; on CUDA the exclusive or of the candidates
    candidate: Any  # (n_entries,) int32; on CUDA 1 for entries that hold a measurement for the first time


class _Worst(NamedTuple):
    """The worst removable candidate of each measurement: work space of CUDA."""

    key: Any  # (n_candidates,) int64, larger for worse candidates, but for ties
    key_of: Any  # (n_measurements,) int64, the largest of those that share it
    candidate_of: Any  # (n_measurements,) int32, the largest index among those with it, plus one
    next_active: Any  # (n_candidates,) int32


class _Kept(NamedTuple):
    flag: Any  # (n_candidates,) int32: 1 for what is accepted
    n_states: Any  # (n_candidates,) int32, 0 where it is not


class _Payload(NamedTuple):
    event: Any  # (n_candidates,) int32, ascending
    counts: Any  # (n_extents,) int32, sizes of all collections
    slot: Any  # int32, where the number of candidates stands
    held: _Held
    pval: Any  # (n_candidates,) scalar
    event_modules: Any  # (n_events * n_modules + 1,) int32, first measurement of each module
    n_modules: Any
    min_measurements: Any
    max_shared: Any  # tracks that share at least this many measurements are removed
    owners: _Owners
    n_shared: Any  # (n_candidates,) int32
    active: Any  # (n_candidates,) int32, accepted candidates that share too many
    worst: _Worst
    out: _Kept


@device_function
def candidates_of_event(p, event):
    """Return (first candidate of an event, one past the last)."""
    n = p.counts[p.slot]
    return first_of_event(p.event, n, event), first_of_event(p.event, n, event + 1)


@device_function
def is_repeated(held, candidate, k):
    """Return whether entry k of a candidate stands earlier in it too."""
    for j in range(held.offsets[candidate], k):
        if held.measurements[j] == held.measurements[k]:
            return True
    return False


@device_function
def occurrences(held, candidate, measurement):
    """Return how often a candidate holds a measurement."""
    n = np.int32(0)
    for k in range(held.offsets[candidate], held.offsets[candidate + 1]):
        if held.measurements[k] == measurement:
            n += np.int32(1)
    return n


@device_function
def length(offsets, candidate):
    """Return the number of measurements of a candidate."""
    return np.int64(offsets[candidate + 1] - offsets[candidate])


@device_function
def _is_worse(p, a, b):
    """Return whether candidate a goes before candidate b."""
    left = p.n_shared[a] * length(p.held.offsets, b)
    right = p.n_shared[b] * length(p.held.offsets, a)
    if left != right:
        return left > right
    if p.pval[a] != p.pval[b]:
        return p.pval[a] < p.pval[b]
    return a > b


@device_function
def n_states(offsets, is_kept, candidate):
    """Return the number of states of a candidate: none if it is not kept."""
    return np.int32(length(offsets, candidate)) if is_kept[candidate] == 1 else np.int32(0)


@device_function
def _list_owners(p, first, end, first_measurement, end_measurement):
    """Fill, for each measurement of an event, the list of accepted candidates that hold it."""
    for m in range(first_measurement, end_measurement):
        p.owners.n[m] = np.int32(0)
    for candidate in range(first, end):
        p.out.flag[candidate] = np.int32(1) if length(p.held.offsets, candidate) >= p.min_measurements else np.int32(0)
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                if not is_repeated(p.held, candidate, k):
                    p.owners.n[p.held.measurements[k]] += np.int32(1)
    at = p.held.offsets[first]
    for m in range(first_measurement, end_measurement):
        p.owners.offsets[m] = at
        at = np.int32(at + p.owners.n[m])
        p.owners.n[m] = np.int32(0)
    for candidate in range(first, end):
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                m = p.held.measurements[k]
                if not is_repeated(p.held, candidate, k):
                    p.owners.candidate[p.owners.offsets[m] + p.owners.n[m]] = np.int32(candidate)
                    p.owners.n[m] += np.int32(1)


@device_function
def _count_shared(p, first, end):
    """Count the shared measurements of each accepted candidate; list those that share too many."""
    n_active = np.int32(0)
    for candidate in range(first, end):
        n = np.int32(0)
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                if p.owners.n[p.held.measurements[k]] > 1:
                    n += np.int32(1)
        p.n_shared[candidate] = n
        if n >= p.max_shared:
            p.active[first + n_active] = np.int32(candidate)
            n_active += np.int32(1)
    return n_active


@device_function
def _is_locally_worst(p, candidate):
    """Return whether a candidate is worse than all removable ones that it shares a measurement with."""
    for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
        m = p.held.measurements[k]
        if p.owners.n[m] > 1:
            for at in range(p.owners.offsets[m], p.owners.offsets[m] + p.owners.n[m]):
                other = p.owners.candidate[at]
                if other != candidate and p.n_shared[other] >= p.max_shared and not _is_worse(p, candidate, other):
                    return False
    return True


@device_function
def _remove(p, candidate):
    """Take a candidate out of the lists of its measurements; a sole owner that is left no longer shares them."""
    for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
        if is_repeated(p.held, candidate, k):
            continue
        m = p.held.measurements[k]
        last = np.int32(p.owners.offsets[m] + p.owners.n[m] - 1)
        for at in range(p.owners.offsets[m], last):
            if p.owners.candidate[at] == candidate:
                p.owners.candidate[at] = p.owners.candidate[last]
        p.owners.n[m] -= np.int32(1)
        if p.owners.n[m] == 1:
            rest = p.owners.candidate[p.owners.offsets[m]]
            p.n_shared[rest] -= occurrences(p.held, rest, m)


@kernel(grain=1, cuda=_BLOCK)
def resolve_event(i, p):
    """Resolve the candidates of event i; writes only their flags and numbers of states."""
    first, end = candidates_of_event(p, i)
    if first == end:
        return
    first_measurement = p.event_modules[i * p.n_modules]
    end_measurement = p.event_modules[(i + 1) * p.n_modules]
    _list_owners(p, first, end, first_measurement, end_measurement)
    n_active = _count_shared(p, first, end)
    while n_active > 0:
        # Who goes is decided for all before anyone goes.
        for k in range(first, first + n_active):
            if _is_locally_worst(p, p.active[k]):
                p.out.flag[p.active[k]] = np.int32(LEAVING)
        for k in range(first, first + n_active):
            if p.out.flag[p.active[k]] == LEAVING:
                _remove(p, p.active[k])
                p.out.flag[p.active[k]] = np.int32(0)
        left = np.int32(0)
        for k in range(first, first + n_active):
            candidate = p.active[k]
            if p.out.flag[candidate] == 1 and p.n_shared[candidate] >= p.max_shared:
                p.active[first + left] = candidate
                left += np.int32(1)
        n_active = left
    for candidate in range(first, end):
        p.out.n_states[candidate] = n_states(p.held.offsets, p.out.flag, candidate)


class _SelectPayload(NamedTuple):
    is_kept: Any  # (n_candidates,) int32
    track_offsets: Any  # (n_candidates + 1,) int32
    state_offsets: Any  # (n_candidates + 1,) int32
    out: TrackSelection


@kernel(grain=4096)
def select_tracks(i, p):
    """Write candidate i to its place among the accepted ones."""
    track = p.track_offsets[i]
    if i == 0:
        p.out.state_offsets[_FIRST_TRACK] = np.int32(0)
    if p.is_kept[i] != 1 or track >= p.out.candidate.shape[0] or track + 1 >= p.out.state_offsets.shape[0]:
        return
    p.out.candidate[track] = i
    p.out.state_offsets[track + 1] = p.state_offsets[i + 1]


class _KeepPayload(NamedTuple):
    offsets: Any  # (n_candidates + 1,) int32
    min_measurements: Any
    out: _Kept


@kernel(grain=4096)
def keep_all(i, p):
    """Accept candidate i if it is long enough."""
    p.out.flag[i] = np.int32(1) if length(p.offsets, i) >= p.min_measurements else np.int32(0)
    p.out.n_states[i] = n_states(p.offsets, p.out.flag, i)


def _payload(
    ws: Workspace,
    candidates: CandidateBatch,
    event_modules: Any,
    n_modules: int,
    config: AmbiguityResolutionConfig,
    out: _Kept,
) -> _Payload:
    extent = ws.extent("candidates")
    entries, measurements = ws.extent("candidate_measurements"), ws.extent("measurements")
    owners = _Owners(
        n=ws.array("resolution.n_owners", measurements, np.int32),
        offsets=ws.array("resolution.owner_offsets", measurements, np.int32),
        candidate=ws.array("resolution.owners", entries, np.int32),
    )
    return _Payload(
        event=candidates.start.event,
        counts=ws.counts,
        slot=np.int32(extent.slot),
        held=_Held(offsets=candidates.measurement_offsets, measurements=candidates.measurements),
        pval=candidates.pval,
        event_modules=event_modules,
        n_modules=np.int32(n_modules),
        min_measurements=np.int32(config.min_measurements_per_track),
        max_shared=np.int32(config.max_shared_measurements),
        owners=owners,
        n_shared=ws.array("resolution.n_shared", extent, np.int32),
        active=ws.array("resolution.active", extent, np.int32),
        worst=_Worst(
            key=ws.array("resolution.key", extent, np.int64),
            key_of=ws.array("resolution.worst_key", measurements, np.int64),
            candidate_of=ws.array("resolution.worst_candidate", measurements, np.int32),
            next_active=ws.array("resolution.next_active", extent, np.int32),
        ),
        out=out,
    )


def resolve_ambiguities(
    ws: Workspace,
    candidates: CandidateBatch,
    event_modules: Any,
    n_modules: int,
    config: AmbiguityResolutionConfig,
) -> TrackSelection:
    """Select the candidates that become tracks.

    Parameters
    ----------
    ws : Workspace
        Buffers; extents "candidates", "candidate_measurements", "measurements", "events".
    candidates : CandidateBatch
        Candidates, ordered by event.
    event_modules : array of shape (n_events * n_modules + 1,), int32
        First measurement of each module of each event.
    n_modules : int
        Number of modules of the detector [1].
    config : AmbiguityResolutionConfig
        With ``enabled`` false every candidate that is long enough is kept.

    Returns
    -------
    TrackSelection
        Accepted candidates in ascending order.
    """
    extent, tracks = ws.extent("candidates"), ws.extent("tracks")
    kept = _Kept(
        flag=ws.array("resolution.keep", extent, np.int32), n_states=ws.array("resolution.n_states", extent, np.int32)
    )
    if config.enabled:
        payload = _payload(ws, candidates, event_modules, n_modules, config, kept)
        ws.launch(resolve_event, ws.extent("events"), payload)
    else:
        long_enough = _KeepPayload(
            offsets=candidates.measurement_offsets,
            min_measurements=np.int32(config.min_measurements_per_track),
            out=kept,
        )
        ws.launch(keep_all, extent, long_enough)
    track_offsets = ws.array("resolution.track_offsets", extent, np.int32, extra=1)
    state_offsets = ws.array("resolution.state_offsets", extent, np.int32, extra=1)
    ws.scan_together(
        extent,
        ScanColumn(values=kept.flag, offsets=track_offsets, total=tracks),
        ScanColumn(values=kept.n_states, offsets=state_offsets, total=ws.extent("track_states")),
    )
    selection = TrackSelection(
        candidate=ws.array("tracks.candidate", tracks, np.int32),
        state_offsets=ws.array("tracks.state_offsets", tracks, np.int32, extra=1),
    )
    accepted = _SelectPayload(
        is_kept=kept.flag, track_offsets=track_offsets, state_offsets=state_offsets, out=selection
    )
    ws.launch(select_tracks, extent, accepted)
    return selection
