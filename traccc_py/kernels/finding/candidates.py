"""Track candidates: the accepted branches of all seeds, gathered in one collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import Extent, ScanColumn, Workspace
from traccc_py.edm.parameters import N_PARAMETERS
from traccc_py.kernels.finding.branches import Branches
from traccc_py.kernels.tracking.batch import SeedParameters, make_seed_parameters
from traccc_py.kernels.tracking.kalman import chi2_survival
from traccc_py.kernels.tracking.selection import first_of_event

__all__ = [
    "Acceptance",
    "CandidateBatch",
    "Followed",
    "acceptance",
    "collect_candidates",
    "fits_well",
    "is_accepted",
]


class CandidateBatch(NamedTuple):
    """Track candidates, ordered by event. Extent: "candidates"."""

    seed: Any  # (n_candidates,) int32, of those of its pass
    start: SeedParameters  # parameters of that seed
    entry_offsets: Any  # (n_candidates + 1,) int32
    # (n_entries,) int32: >= 0 measurement; below 0 (`tracking/entries.py`) a surface crossed without one (a hole, or
    # near the edge, or without readout), a passive layer, or a kink
    code: Any
    path: Any  # (n_entries,) scalar, path length from the entry before [mm]
    measurement_offsets: Any  # (n_candidates + 1,) int32
    measurements: Any  # (measurement_offsets[-1],) int32
    n_holes: Any  # (n_candidates,) int32
    chi2: Any  # (n_candidates,) scalar
    ndf: Any  # (n_candidates,) int32, sum of dimensions - 5
    pval: Any  # (n_candidates,) scalar


_FIRST = 0  # candidate
_EXTENTS = ("candidates", "candidate_entries", "candidate_measurements")


class Acceptance(NamedTuple):
    """Cuts of `is_accepted`."""

    min_measurements: Any  # int32
    measurements_per_hole: Any  # int32
    long_candidate_extra: Any  # int32
    short_min_pval: Any
    stopped_min_pval: Any


def acceptance(config: FindingConfig, real: Any) -> Acceptance:
    """Return the cuts that decide which branches are tracks."""
    return Acceptance(
        min_measurements=np.int32(config.min_measurements),
        measurements_per_hole=np.int32(config.measurements_per_hole),
        long_candidate_extra=np.int32(config.long_candidate_extra),
        short_min_pval=real(config.short_min_pval),
        stopped_min_pval=real(config.stopped_min_pval),
    )


@device_function(inlined=True)
def survival(branches, slot):
    """Return the p-value of a branch."""
    return chi2_survival(branches.chi2[slot], np.int32(branches.ndf[slot] - N_PARAMETERS))


@device_function(inlined=True)
def fits_well(branches, cuts, slot):
    """Return whether the measurements of a branch agree as those of short candidates have to."""
    return survival(branches, slot) >= cuts.short_min_pval


@device_function(inlined=True)
def is_accepted(branches, cuts, slot):
    """Return whether a branch is a track: long, or without too many holes, well fitting and not of chance."""
    n = branches.n_measurements[slot]
    if n < cuts.min_measurements:  # there may be no branch, and then no number of holes
        return False
    spare = n - cuts.min_measurements - cuts.measurements_per_hole * branches.n_holes[slot]
    if spare < cuts.measurements_per_hole * branches.is_stopped[slot]:
        # One short: it may be a particle that ends, if the measurements agree.
        return (
            spare + 1 == cuts.measurements_per_hole
            and branches.n_holes[slot] == 0
            and survival(branches, slot) >= cuts.stopped_min_pval
        )
    return spare >= cuts.long_candidate_extra or fits_well(branches, cuts, slot)


class Followed(NamedTuple):
    """Seeds that were followed, and what was found."""

    seeds: SeedParameters
    extent: Extent  # their number
    branches: Branches


class _Counts(NamedTuple):
    """What the accepted branches of each seed add up to, (n_places,) int32."""

    candidates: Any
    entries: Any
    measurements: Any


class _Offsets(NamedTuple):
    """Running sums of `_Counts`, (n_places + 1,) int32."""

    candidates: Any
    entries: Any
    measurements: Any


class _Order(NamedTuple):
    """Where the seeds of one pass stand among those of two: ordered by event, those of the first pass before."""

    event: Any  # (n_seeds,) int32, of the seeds of this pass
    other: Any  # (n_others,) int32, ... of the other pass
    counts: Any  # (MAX_EXTENTS,) int32
    slot: Any  # int32, where the number of the others stands in `counts`
    is_late: Any  # int32, 1: this is the second pass


class _CountPayload(NamedTuple):
    branches: Branches
    branches_per_seed: Any
    cuts: Acceptance
    order: _Order
    out: _Counts


@device_function(inlined=True)
def _place(order, i):
    """Return the place of seed i among those of both passes."""
    return i + first_of_event(order.other, order.counts[order.slot], order.event[i] + order.is_late)


@kernel(grain=2048)
def count_candidates(i, p):
    """Count the accepted branches of seed i, their entries and measurements."""
    n = np.int32(0)
    entries = np.int32(0)
    measurements = np.int32(0)
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if is_accepted(p.branches, p.cuts, slot):
            n += np.int32(1)
            entries += p.branches.n_entries[slot]
            measurements += p.branches.n_measurements[slot]
    place = _place(p.order, i)
    p.out.candidates[place] = n
    p.out.entries[place] = entries
    p.out.measurements[place] = measurements


class _FillPayload(NamedTuple):
    branches: Branches
    branches_per_seed: Any
    cuts: Acceptance
    seeds: SeedParameters
    order: _Order
    offsets: _Offsets
    out: CandidateBatch


@device_function(inlined=True)
def _copy_start(seeds, i, out, candidate):
    """Copy the parameters that a candidate started with."""
    out.module[candidate] = seeds.module[i]
    out.measurement[candidate] = seeds.measurement[i]
    out.event[candidate] = seeds.event[i]
    for k in range(N_PARAMETERS):
        out.params[candidate, k] = seeds.params[i, k]
        out.variance[candidate, k] = seeds.variance[i, k]


@kernel(grain=512)
def fill_candidates(i, p):
    """Copy the accepted branches of seed i to their places."""
    branches, offsets, out = p.branches, p.offsets, p.out
    place = _place(p.order, i)
    candidate = offsets.candidates[place]
    entry = offsets.entries[place]
    measurement = offsets.measurements[place]
    if (
        offsets.candidates[place + 1] >= out.entry_offsets.shape[0]
        or offsets.entries[place + 1] > out.code.shape[0]
        or offsets.measurements[place + 1] > out.measurements.shape[0]
    ):
        return
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if not is_accepted(branches, p.cuts, slot):
            continue
        for k in range(branches.n_entries[slot]):
            out.code[entry] = branches.code[slot, k]
            out.path[entry] = branches.path[slot, k]
            entry = np.int32(entry + 1)
            if branches.code[slot, k] >= 0:
                out.measurements[measurement] = branches.code[slot, k]
                measurement = np.int32(measurement + 1)
        ndf = np.int32(branches.ndf[slot] - N_PARAMETERS)
        out.seed[candidate] = i
        _copy_start(p.seeds, i, out.start, candidate)
        out.n_holes[candidate] = branches.n_holes[slot]
        out.chi2[candidate] = branches.chi2[slot]
        out.ndf[candidate] = ndf
        out.pval[candidate] = chi2_survival(branches.chi2[slot], ndf)
        if candidate == _FIRST:
            out.entry_offsets[_FIRST] = np.int32(0)
            out.measurement_offsets[_FIRST] = np.int32(0)
        candidate = np.int32(candidate + 1)
        out.entry_offsets[candidate] = entry
        out.measurement_offsets[candidate] = measurement


def _make_candidates(ws: Workspace, real: Any) -> CandidateBatch:
    candidates, entries, measurements = (ws.extent(name) for name in _EXTENTS)
    return CandidateBatch(
        seed=ws.array("candidates.seed", candidates, np.int32),
        start=make_seed_parameters(ws, candidates, real, "candidates"),
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


def collect_candidates(
    ws: Workspace, passes: Sequence[Followed], branches_per_seed: int, config: FindingConfig
) -> CandidateBatch:
    """Gather the accepted branches of all seeds.

    Parameters
    ----------
    ws : Workspace
        Buffers; the sizes of "candidates", "candidate_entries" and "candidate_measurements" are set here.
    passes : sequence of Followed
        One, or two with seeds of their own, each ordered by event.
    branches_per_seed : int
        Slots of a seed [1].
    config : FindingConfig
        Its `min_measurements` and `measurements_per_hole` decide which branches are accepted.

    Returns
    -------
    CandidateBatch
        Candidates ordered by event, then pass, then seed, then branch.
    """
    places = passes[0].extent
    if len(passes) > 1:
        places = ws.fixed("seeds of all passes", sum(followed.extent.capacity for followed in passes))
    counts = _Counts(*(ws.array(f"finding.n_{name}", places, np.int32) for name in _EXTENTS))
    offsets = _Offsets(*(ws.array(f"finding.{name}_offsets", places, np.int32, extra=1) for name in _EXTENTS))
    real = passes[0].branches.chi2.dtype
    cuts, slots = acceptance(config, real.type), np.int32(branches_per_seed)
    if len(passes) > 1:  # places behind the last seed
        for column in counts:
            ws.clear(column)
    orders = _orders(ws, passes)
    for followed, order in zip(passes, orders, strict=True):
        count = _CountPayload(branches=followed.branches, branches_per_seed=slots, cuts=cuts, order=order, out=counts)
        ws.launch(count_candidates, followed.extent, count)
    scans = [ScanColumn(n, o, ws.extent(name)) for name, n, o in zip(_EXTENTS, counts, offsets, strict=True)]
    ws.scan_together(places, *scans)
    out = _make_candidates(ws, real)
    for followed, order in zip(passes, orders, strict=True):
        fill = _FillPayload(
            branches=followed.branches,
            branches_per_seed=slots,
            cuts=cuts,
            seeds=followed.seeds,
            order=order,
            offsets=offsets,
            out=out,
        )
        ws.launch(fill_candidates, followed.extent, fill)
    return out


def _orders(ws: Workspace, passes: Sequence[Followed]) -> list[_Order]:
    """Return how to order the seeds of one or two passes."""
    none = ws.extent("no_seeds")  # its size stays 0
    orders = []
    for number, followed in enumerate(passes):
        other = passes[1 - number] if len(passes) > 1 else followed._replace(extent=none)
        orders.append(
            _Order(
                event=followed.seeds.event,
                other=other.seeds.event,
                counts=ws.counts,
                slot=np.int32(other.extent.slot),
                is_late=np.int32(number),
            )
        )
    return orders
