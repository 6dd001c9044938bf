"""Triplets of the seeding: for every middle its bottoms, the triplets they make, and the best of these."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.constants import INFINITY, ZERO
from traccc_py.kernels.seeding.cuts import DoubletLine, SeedingCuts, polar_tolerance, triplet_circle
from traccc_py.kernels.seeding.doublets import (
    BOTTOM,
    COT_MARGIN,
    MAX_BITS,
    N_BUCKETS,
    Tops,
    bucket_of,
    doublet_bits,
    doublet_line,
    first_wrapped_cell,
    lowest_bit,
    make_buckets,
    without_lowest,
)
from traccc_py.kernels.seeding.grid import Grid, SortedSpacepoints, ring_range, ring_window

__all__ = ["BestTriplets", "find_best_triplets"]

_N_SLOTS = 64  # bottoms of a middle that are remembered from counting to filling; with more the search is repeated


class _Rules(NamedTuple):
    """Thresholds and weights of the selection."""

    curvature_tolerance: np.float32  # [1/mm]
    radius_separation: np.float32  # [mm]
    compatible_weight: np.float32
    impact_weight: np.float32  # [1/mm]
    good_bottom_min_radius: np.float32  # [mm]
    good_bottom_weight_increase: np.float32
    good_bottom_min_weight: np.float32
    good_top_max_radius: np.float32  # [mm]
    good_top_weight_increase: np.float32
    seed_min_weight: np.float32
    bottom_min_radius: np.float32  # [mm]
    compatible_limit: np.int32


class BestTriplets(NamedTuple):
    """The triplets of each middle that become seeds, best first. Extent: "seeding_spacepoints"."""

    n: Any  # (n_middles,) int32
    bottom: Any  # (n_middles, max_seeds_per_middle) int32, row of the sorted spacepoints
    top: Any  # (n_middles, max_seeds_per_middle) int32
    weight: Any  # (n_middles, max_seeds_per_middle) scalar


class _Bottoms(NamedTuple):
    """What counting finds of each middle."""

    n: Any  # (n_middles,) int32, bottoms with triplets
    n_triplets: Any  # (n_middles,) int32
    slots: Any  # (n_middles, _N_SLOTS) int32, the first bottoms with triplets


class _Triplets(NamedTuple):
    """The triplets of all middles. Extent: "triplets"."""

    top: Any  # (n_triplets,) int32, row of the sorted spacepoints
    curvature: Any  # (n_triplets,) scalar [1/mm]
    weight: Any  # (n_triplets,) scalar


class _Triplet(NamedTuple):
    """A triplet of one middle, as it is ranked."""

    weight: Any
    bottom: Any  # row of the sorted spacepoints
    top: Any


class _Progress(NamedTuple):
    """How far the search of a middle has come: int64, for it is carried around loops."""

    n: Any  # counting: bottoms with triplets; filling: best triplets
    position: Any  # one past the last triplet


class _Payload(NamedTuple):
    sp: SortedSpacepoints
    cuts: SeedingCuts
    grid: Grid
    variances: Any  # (n_spacepoints, 2) scalar, see `spacepoint_variances`
    tops: Tops
    rules: _Rules
    offsets: Any  # (n_middles + 1,) int32, first triplet
    out_bottoms: _Bottoms
    out: _Triplets
    out_best: BestTriplets


@device_function(inlined=True)
def _fill_buckets(tops, first, last, starts):
    """Write the first top of each bucket to `starts`; return the buckets."""
    buckets = make_buckets(tops.cot_theta[first], tops.cot_theta[last - 1])
    filled = 0
    for k in range(first, last):
        bucket = bucket_of(buckets, tops.cot_theta[k])
        while filled <= bucket:
            starts[filled] = k
            filled += 1
    while filled <= N_BUCKETS:
        starts[filled] = last
        filled += 1
    return buckets


@device_function(inlined=True)
def _triplets_of_bottom(p, i, j, buckets, starts, position, is_filling):
    """Try the tops that bottom j of middle i can go on to; return the position after the last triplet found."""
    bottom = doublet_line(p, i, j, BOTTOM)
    last = p.tops.offsets[i + 1]
    error2 = bottom.error2 + p.tops.largest_error2[i]
    tolerance = polar_tolerance(p.cuts, bottom.cot_theta, error2) + COT_MARGIN
    lowest, highest = bottom.cot_theta - tolerance, bottom.cot_theta + tolerance
    k = starts[bucket_of(buckets, lowest)]
    while k < last and p.tops.cot_theta[k] < lowest:
        k += 1
    while k < last and p.tops.cot_theta[k] <= highest:
        top = DoubletLine(p.tops.cot_theta[k], p.tops.error2[k], p.tops.u[k], p.tops.v[k])
        circle = triplet_circle(p.cuts, p.sp.r[i], bottom, top)
        if circle.is_allowed:
            if is_filling:
                p.out.top[position] = p.tops.partner[k]
                p.out.curvature[position] = circle.curvature
                p.out.weight[position] = -circle.impact * p.rules.impact_weight
            position += 1
        k += 1
    return position


@device_function(inlined=True)
def _count_compatible(p, triplet, first, last):
    """Count, from the inside out, the separate radii at which other triplets of the doublet confirm `triplet`."""
    radius, curvature = p.sp.r[p.out.top[triplet]], p.out.curvature[triplet]
    n = np.int32(0)
    bound = -INFINITY
    while n < p.rules.compatible_limit:
        nearest = INFINITY
        for k in range(first, last):
            r = p.sp.r[p.out.top[k]]
            agrees = abs(p.out.curvature[k] - curvature) <= p.rules.curvature_tolerance
            if agrees and bound <= r < nearest and abs(r - radius) >= p.rules.radius_separation:
                nearest = r
        if nearest == INFINITY:
            break
        n += 1
        bound = nearest + p.rules.radius_separation
    return n


@device_function(inlined=True)
def _weigh(p, triplet, bottom_radius):
    """Add what the radii of a triplet are worth to its weight; return whether it may become a seed."""
    increase = ZERO
    if bottom_radius > p.rules.good_bottom_min_radius:
        increase = p.rules.good_bottom_weight_increase
    if p.sp.r[p.out.top[triplet]] < p.rules.good_top_max_radius:
        increase = p.rules.good_top_weight_increase
    p.out.weight[triplet] += increase
    return not (
        bottom_radius > p.rules.good_bottom_min_radius and p.out.weight[triplet] < p.rules.good_bottom_min_weight
    )


@device_function(inlined=True)
def _size2(sp, triplet):
    """Return the squared y and z of bottom and top summed: traccc's tie break [mm^2]."""
    y_b, z_b, y_t, z_t = sp.y[triplet.bottom], sp.z[triplet.bottom], sp.y[triplet.top], sp.z[triplet.top]
    return y_b * y_b + z_b * z_b + y_t * y_t + z_t * z_t


@device_function(inlined=True)
def _is_better(sp, triplet, other):
    """Return whether a triplet comes before another one of the same middle."""
    if triplet.weight != other.weight:
        return triplet.weight > other.weight
    size2, other_size2 = _size2(sp, triplet), _size2(sp, other)
    if size2 != other_size2:
        return size2 > other_size2
    if triplet.bottom != other.bottom:
        return sp.spacepoint[triplet.bottom] < sp.spacepoint[other.bottom]
    return sp.spacepoint[triplet.top] < sp.spacepoint[other.top]


@device_function(inlined=True)
def _best(best, i, k):
    """Return the triplet of middle i with rank k."""
    return _Triplet(best.weight[i, k], best.bottom[i, k], best.top[i, k])


@device_function(inlined=True)
def _move(best, i, k, rank):
    """Give the triplet of middle i with rank k another rank."""
    best.bottom[i, rank] = best.bottom[i, k]
    best.top[i, rank] = best.top[i, k]
    best.weight[i, rank] = best.weight[i, k]


@device_function(inlined=True)
def _insert(sp, best, i, n, triplet):
    """Insert a triplet into the n best ones of middle i; return how many there are then."""
    most = best.bottom.shape[1]
    place = n
    while place > 0 and _is_better(sp, triplet, _best(best, i, place - 1)):
        place -= 1
    if place == most:
        return n
    n = min(n + 1, most)
    for k in range(n - 1, place, -1):
        _move(best, i, k - 1, k)
    best.bottom[i, place] = triplet.bottom
    best.top[i, place] = triplet.top
    best.weight[i, place] = triplet.weight
    return n


@device_function(inlined=True)
def _add_bottom(p, i, j, buckets, starts, progress):
    """Write the triplets of bottom j, weigh them, rank them."""
    n_best, first = progress
    last = _triplets_of_bottom(p, i, j, buckets, starts, first, True)
    if last - first > 1:
        for k in range(first, last):
            p.out.weight[k] += scalar(_count_compatible(p, k, first, last)) * p.rules.compatible_weight
    bottom_radius = p.sp.r[j]
    for k in range(first, last):
        if _weigh(p, k, bottom_radius):
            n_best = _insert(p.sp, p.out_best, i, n_best, _Triplet(p.out.weight[k], j, p.out.top[k]))
    return _Progress(n_best, last)


@device_function(inlined=True)
def _count_bottom(p, i, j, buckets, starts, progress):
    """Count the triplets of bottom j and remember it if it has any."""
    n_bottoms, n_triplets = progress
    n = _triplets_of_bottom(p, i, j, buckets, starts, n_triplets, False)
    if n > n_triplets:
        if n_bottoms < _N_SLOTS:
            p.out_bottoms.slots[i, n_bottoms] = j
        n_bottoms += 1
    return _Progress(n_bottoms, n)


@device_function(inlined=True)
def _bottoms_in_run(p, i, start, stop, buckets, starts, progress, is_filling):
    """Add or count those of the spacepoints start ... stop - 1 that are bottoms of middle i."""
    for first in range(start, stop, MAX_BITS):
        bits = doublet_bits(p.cuts, p.sp, i, first, min(stop - first, MAX_BITS), BOTTOM)
        while bits != np.uint32(0):
            j = first + lowest_bit(bits)
            bits = without_lowest(bits)
            if is_filling:
                progress = _add_bottom(p, i, j, buckets, starts, progress)
            else:
                progress = _count_bottom(p, i, j, buckets, starts, progress)
    return progress


@device_function(inlined=True)
def _search_bottoms(p, i, buckets, starts, progress, is_filling):
    """Add or count all bottoms of middle i."""
    first, last = ring_range(p.grid, p.cuts, p.sp.r[i], BOTTOM)
    offsets = p.sp.cell_offsets
    for ring in range(first, last):
        window = ring_window(p.grid, p.cuts, p.sp, i, BOTTOM, ring)
        for k in range(window.first_z, window.end_z):
            cell = window.first_cell + k * p.grid.n_phi
            begin, end = offsets[cell], offsets[cell + window.n_cells]
            progress = _bottoms_in_run(p, i, begin, end, buckets, starts, progress, is_filling)
            if window.n_wrapped > 0:
                cell = first_wrapped_cell(p.grid, cell)
                begin, end = offsets[cell], offsets[cell + window.n_wrapped]
                progress = _bottoms_in_run(p, i, begin, end, buckets, starts, progress, is_filling)
    return progress


@device_function(inlined=True)
def _keep_best(p, i, n):
    """Drop from the n best triplets of middle i those too poor for a further seed; return how many are left."""
    best = p.out_best
    n_kept = min(n, 1)
    for k in range(1, n):
        if best.weight[i, k] > p.rules.seed_min_weight or p.sp.r[best.bottom[i, k]] > p.rules.bottom_min_radius:
            _move(best, i, k, n_kept)
            n_kept += 1
    return n_kept


@kernel(scratch=(Scratch(N_BUCKETS + 1, np.int32),), grain=64, fuses=False)
def _count_triplets(i, p, starts):
    """One middle: number of bottoms that make triplets, and number of triplets."""
    p.out_bottoms.n[i] = 0
    p.out_bottoms.n_triplets[i] = 0
    first, last = p.tops.offsets[i], p.tops.offsets[i + 1]
    if first == last or last > p.tops.partner.shape[0]:
        return
    buckets = _fill_buckets(p.tops, first, last, starts)
    found = _search_bottoms(p, i, buckets, starts, _Progress(np.int64(0), np.int64(0)), False)
    p.out_bottoms.n[i] = found.n
    p.out_bottoms.n_triplets[i] = found.position


@kernel(scratch=(Scratch(N_BUCKETS + 1, np.int32),), grain=64, fuses=False)
def _select_triplets(i, p, starts):
    """One middle: write, weigh and rank its triplets; keep the best ones."""
    p.out_best.n[i] = 0
    progress = _Progress(np.int64(0), np.int64(p.offsets[i]))
    n_bottoms = p.out_bottoms.n[i]
    if n_bottoms == 0 or p.offsets[i + 1] > p.out.top.shape[0]:
        return
    buckets = _fill_buckets(p.tops, p.tops.offsets[i], p.tops.offsets[i + 1], starts)
    if n_bottoms <= _N_SLOTS:
        for k in range(n_bottoms):
            progress = _add_bottom(p, i, p.out_bottoms.slots[i, k], buckets, starts, progress)
    else:
        progress = _search_bottoms(p, i, buckets, starts, progress, True)
    p.out_best.n[i] = _keep_best(p, i, progress.n)


def _make_rules(config: SeedingConfig) -> _Rules:
    return _Rules(
        curvature_tolerance=scalar(config.delta_inverse_helix_diameter),
        radius_separation=scalar(config.filter_delta_r_min),
        compatible_weight=scalar(config.compatible_seed_weight),
        impact_weight=scalar(config.impact_weight_factor),
        good_bottom_min_radius=scalar(config.good_bottom_min_radius),
        good_bottom_weight_increase=scalar(config.good_bottom_weight_increase),
        good_bottom_min_weight=scalar(config.good_bottom_min_weight),
        good_top_max_radius=scalar(config.good_top_max_radius),
        good_top_weight_increase=scalar(config.good_top_weight_increase),
        seed_min_weight=scalar(config.seed_min_weight),
        bottom_min_radius=scalar(config.bottom_min_radius),
        compatible_limit=np.int32(config.compatible_seed_limit),
    )


def find_best_triplets(
    ws: Workspace,
    sp: SortedSpacepoints,
    variances: Any,
    tops: Tops,
    cuts: SeedingCuts,
    grid: Grid,
    config: SeedingConfig,
) -> BestTriplets:
    """Find the triplets of all middles and select those that become seeds.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "seeding_spacepoints" and "top_doublets" must be set; that of "triplets" is set here.
    sp : SortedSpacepoints
        Each is a middle.
    variances : array of shape (n_spacepoints, 2), scalar
        Of r and z of the spacepoints before they were sorted [mm^2], from `find_spacepoint_variances`.
    tops : Tops
        Top doublets of the middles.
    cuts : SeedingCuts
        Doublet and triplet cuts.
    grid : Grid
        Binning of `sp`.
    config : SeedingConfig
        Weights and selection.

    Returns
    -------
    BestTriplets
        Up to `max_seeds_per_middle` triplets of each middle.
    """
    middles, triplets = ws.extent("seeding_spacepoints"), ws.extent("triplets")
    dtype, most = sp.x.dtype, config.max_seeds_per_middle
    offsets = ws.array("seeding.triplet_offsets", middles, np.int32, extra=1)
    bottoms = _Bottoms(
        n=ws.array("seeding.n_bottoms", middles, np.int32),
        n_triplets=ws.array("seeding.n_triplets", middles, np.int32),
        slots=ws.array("seeding.bottom_slots", middles, np.int32, _N_SLOTS),
    )
    best = BestTriplets(
        n=ws.array("seeding.n_best", middles, np.int32),
        bottom=ws.array("seeding.best_bottom", middles, np.int32, most),
        top=ws.array("seeding.best_top", middles, np.int32, most),
        weight=ws.array("seeding.best_weight", middles, dtype, most),
    )

    def payload() -> _Payload:
        out = _Triplets(
            top=ws.array("seeding.triplet_top", triplets, np.int32),
            curvature=ws.array("seeding.triplet_curvature", triplets, dtype),
            weight=ws.array("seeding.triplet_weight", triplets, dtype),
        )
        return _Payload(
            sp=sp,
            cuts=cuts,
            grid=grid,
            variances=variances,
            tops=tops,
            rules=_make_rules(config),
            offsets=offsets,
            out_bottoms=bottoms,
            out=out,
            out_best=best,
        )

    ws.launch(_count_triplets, middles, payload())
    ws.scan(bottoms.n_triplets, middles, offsets, triplets)
    ws.launch(_select_triplets, middles, payload())
    return best
