"""Seeds of chains: innermost, middle and outermost spacepoint of each, and which of them are followed first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig, SeedThinningConfig
from traccc_py.device.grouping import Groups, group_rows
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.layer_map import LayerMap
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import HALF, QUARTER, TWO
from traccc_py.kernels.seeding.chains import LONG_CHAIN, MAX_HITS, Chains, Density, find_chains, find_late_chains
from traccc_py.kernels.seeding.cuts import dense_config, late_config, seeding_cuts
from traccc_py.kernels.seeding.layer_points import LayerPoints, SeedingPoints, sort_by_layer
from traccc_py.kernels.seeding.seeding import make_seed_batch
from traccc_py.kernels.tracking.batch import SeedBatch

__all__ = ["find_chain_seeds", "find_late_seeds"]

_SHORT_CHAIN = 3
_SPAN = 3  # points of a chain between the ends of a seed, and one: farther out scattering spoils the direction
_NO_POINT = np.int32(-1)
_SHARED = 2  # chains with so many common spacepoints are one particle's
_MOST_BETTER = 1  # better chains of the same particle that a chain may have


class _ChainRows(NamedTuple):
    """All chains, ordered by their outermost spacepoint. Extent: "chains"."""

    n_hits: Any  # (n_chains,) int32
    quality: Any  # (n_chains,) scalar
    hits: Any  # (n_chains * MAX_HITS,) int32, rows of the sorted spacepoints from the outside in, -1 beyond the last


class _FillPayload(NamedTuple):
    chains: Chains
    offsets: Any  # (n_points + 1,) int32, first row
    out: _ChainRows


class _ChoicePayload(NamedTuple):
    rows: _ChainRows
    of_point: Groups  # rows of `hits` by point
    first_hits: Any  # int32, spacepoints of chains to follow first
    out_n_seeds: Any  # (n_chains,) int32
    out_is_first: Any  # (n_chains,) int32


class _SeedPayload(NamedTuple):
    sp: LayerPoints
    rows: _ChainRows
    is_first: Any  # (n_chains,) int32
    offsets: Any  # (n_chains + 1,) int32, first seed
    all_kept: Any  # int32
    out: SeedBatch
    out_is_kept: Any  # (n_seeds,) int32


@kernel(grain=1024)
def _fill_rows(i, p):
    """One spacepoint: write the rows of its chains."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out.n_hits.shape[0] or last * MAX_HITS > p.out.hits.shape[0]:
        return
    for row in range(first, last):
        rank = row - first
        n = p.chains.n_hits[i, rank]
        p.out.n_hits[row] = n
        p.out.quality[row] = scalar(n) - QUARTER * min(p.chains.cost[i, rank], TWO)
        for k in range(MAX_HITS):
            p.out.hits[row * MAX_HITS + k] = p.chains.hits[i, rank * MAX_HITS + k] if k < n else _NO_POINT


class _Shared(NamedTuple):
    """What two chains have in common."""

    n: Any  # spacepoints
    first: Any  # row of `hits` of the outermost of them


@device_function(inlined=True)
def _shared(hits, a, n_hits, b):
    """Return what chain a, of so many spacepoints, has in common with chain b."""
    n, first = np.int32(0), np.int32(a * MAX_HITS)
    k = np.int32(first + n_hits - 1)
    while k >= a * MAX_HITS:
        is_shared = False
        for m in range(b * MAX_HITS, (b + 1) * MAX_HITS):
            is_shared |= hits[k] == hits[m]
        if is_shared:
            n, first = np.int32(n + 1), k
        k = np.int32(k - 1)
    return _Shared(n, first)


@device_function(inlined=True)
def _is_better(rows, a, b):
    """Return whether chain a comes before chain b."""
    return rows.quality[a] > rows.quality[b] or (rows.quality[a] == rows.quality[b] and a < b)


@kernel(grain=128)
def _choose_chains(i, p):
    """One chain: number of seeds, and whether it is followed first: if long, and best of those that share two points.

    A chain within a better one makes no seeds, nor does one with more than `_MOST_BETTER` better ones.
    """
    rows, n = p.rows, p.rows.n_hits[i]
    n_better, is_within = 0, False
    for k in range(i * MAX_HITS, i * MAX_HITS + n):
        point = rows.hits[k]
        for entry in range(p.of_point.offsets[point], p.of_point.offsets[point + 1]):
            other = p.of_point.order[entry] // MAX_HITS
            if not _is_better(rows, other, i):
                continue
            shared = _shared(rows.hits, i, n, other)
            is_within |= shared.n == n
            if shared.n >= _SHARED and shared.first == k:
                n_better += 1
    p.out_is_first[i] = np.int32(n_better == 0 and n >= p.first_hits)
    is_long = n > _SHORT_CHAIN
    n_seeds = np.int32(2 if is_long and n_better == 0 else 1)
    if is_within or n_better > _MOST_BETTER:
        n_seeds = np.int32(0)
    p.out_n_seeds[i] = n_seeds


@device_function(inlined=True)
def _write_seed(p, seed, row, innermost):
    """Write a seed of the points of a chain from the one called `innermost` on, at most four."""
    hits, r = p.rows.hits, p.sp.r
    outermost = max(innermost - _SPAN, 0)
    first, last = row * MAX_HITS + outermost, row * MAX_HITS + innermost
    top, middle, bottom = hits[first], hits[last - 1], hits[last]
    half = HALF * (r[top] + r[bottom])
    for k in range(first + 1, last - 1):
        if abs(r[hits[k]] - half) < abs(r[middle] - half):
            middle = hits[k]
    p.out.bottom_index[seed] = p.sp.spacepoint[bottom]
    p.out.middle_index[seed] = p.sp.spacepoint[middle]
    p.out.top_index[seed] = p.sp.spacepoint[top]
    p.out.quality[seed] = p.rows.quality[row]
    p.out.event[seed] = p.sp.event[top]


@kernel(grain=512)
def _fill_seeds(i, p):
    """One chain: write its seeds, one from its innermost point on and one without, should it have scattered there."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out.event.shape[0]:
        return
    for seed in range(first, last):
        _write_seed(p, seed, i, p.rows.n_hits[i] - 1 - (seed - first))
        p.out_is_kept[seed] = max(p.all_kept, p.is_first[i] if seed == first else np.int32(0))


def find_chain_seeds(
    ws: Workspace,
    points: SeedingPoints,
    detector: DetectorArrays,
    layer_map: LayerMap,
    config: SeedingConfig,
    thinning: SeedThinningConfig,
    n_modules: int,
    n_events: int,
    short_in: Sequence[Density] = tuple(Density),
) -> tuple[SeedBatch, Any]:
    """Find seeds by layer pairs, and say which to follow first.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set; that of "seeds" is set here.
    points : SeedingPoints
        The spacepoints.
    detector : DetectorArrays
        The detector on the device.
    layer_map : LayerMap
        Its layers, on the device.
    config : SeedingConfig
        Cuts.
    thinning : SeedThinningConfig
        Without `enabled`, or with `min_agreeing_seeds` 0, those of three spacepoints are followed first, too.
    n_modules : int
        Number of surfaces [1].
    n_events : int
        Number of events in the batch [1].
    short_in : sequence of Density, optional
        Events in which chains of three spacepoints make seeds; only in sparse ones these are followed first.

    Returns
    -------
    seeds : SeedBatch
        Ordered by event, then by the cell of the outermost spacepoint. Extent: "seeds". Their quality is the number of
        spacepoints less half of the mean cost of triplets.
    is_kept : array of shape (n_seeds,), int32
        1 for those to follow first.
    """
    cuts = seeding_cuts(config, float(detector.b_z))
    sp = sort_by_layer(ws, points, detector, layer_map, cuts, n_modules, n_events)
    is_thinned = thinning.enabled and thinning.min_agreeing_seeds > 0
    first_hits = LONG_CHAIN if is_thinned and Density.DENSE in short_in else _SHORT_CHAIN
    return _seeds_of(ws, sp, find_chains(ws, sp, layer_map, cuts, n_events, short_in), first_hits)


def find_late_seeds(
    ws: Workspace,
    points: SeedingPoints,
    detector: DetectorArrays,
    layer_map: LayerMap,
    config: SeedingConfig,
    is_used: Any,
    n_modules: int,
    n_events: int,
) -> tuple[SeedBatch, Any]:
    """Find seeds of the spacepoints that no track has, by long chains over all layers.

    A particle that kinks or scatters far between the layers of the first seeds, or crosses too few of them, has chains
    farther out. There are few other chains of `late_points` spacepoints, once those of tracks are gone.

    Parameters
    ----------
    ws, points, detector, n_modules, n_events
        As for `find_chain_seeds`.
    layer_map : LayerMap
        From `make_late_map`, on the device.
    config : SeedingConfig
        Cuts, see `late_config`.
    is_used : array of shape (n_measurements,), int32
        1 for those on tracks.

    Returns
    -------
    seeds : SeedBatch
        As of `find_chain_seeds`.
    is_kept : array of shape (n_seeds,), int32
        1 for all of them.
    """
    wide, narrow = (seeding_cuts(some, float(detector.b_z)) for some in (late_config(config), dense_config(config)))
    sp = sort_by_layer(ws, points, detector, layer_map, wide, n_modules, n_events, is_used)
    cuts = {Density.DENSE: narrow, Density.SPARSE: wide}
    return _seeds_of(ws, sp, find_late_chains(ws, sp, layer_map, cuts, config.late_points, n_events), 0)


def _seeds_of(ws: Workspace, sp: LayerPoints, chains: Chains, first_hits: int) -> tuple[SeedBatch, Any]:
    """Return the seeds of chains, and which to follow first: of chains of at least `first_hits` spacepoints."""
    rows = _fill(ws, sp, chains)
    n_chains, seeds = ws.extent("chains"), ws.extent("seeds")
    n_seeds = ws.array("seeding.chain_n_seeds", n_chains, np.int32)
    choice = _ChoicePayload(
        rows=rows,
        of_point=group_rows(
            ws,
            "chains",
            rows.hits,
            n_chains,
            ws.extent("seeding_spacepoints"),
            ws.extent("chain_points"),
            width=MAX_HITS,
        ),
        first_hits=np.int32(first_hits),
        out_n_seeds=n_seeds,
        out_is_first=ws.array("seeding.chain_is_first", n_chains, np.int32),
    )
    ws.launch(_choose_chains, n_chains, choice)
    offsets = ws.array("seeding.seed_offsets", n_chains, np.int32, extra=1)
    ws.scan(n_seeds, n_chains, offsets, seeds)
    filled = _SeedPayload(
        sp=sp,
        rows=rows,
        is_first=choice.out_is_first,
        offsets=offsets,
        all_kept=np.int32(first_hits == 0),
        out=make_seed_batch(ws, "seeds", sp.x.dtype),
        out_is_kept=ws.array("seeding.is_kept", seeds, np.int32),
    )
    ws.launch(_fill_seeds, n_chains, filled)
    return filled.out, filled.out_is_kept


def _fill(ws: Workspace, sp: LayerPoints, chains: Chains) -> _ChainRows:
    """Return the chains of all spacepoints in rows."""
    points, n_chains, entries = ws.extent("seeding_spacepoints"), ws.extent("chains"), ws.extent("chain_points")
    offsets = ws.array("seeding.chain_offsets", points, np.int32, extra=1)
    ws.scan(chains.n, points, offsets, n_chains)
    ws.reserve(entries, MAX_HITS * n_chains.capacity)
    rows = _ChainRows(
        n_hits=ws.array("chains.n_hits", n_chains, np.int32),
        quality=ws.array("chains.quality", n_chains, sp.x.dtype),
        hits=ws.array("chains.hits", entries, np.int32),
    )
    ws.launch(_fill_rows, points, _FillPayload(chains=chains, offsets=offsets, out=rows))
    return rows
