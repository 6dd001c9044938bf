"""Triplets of the seeding: for every middle its bottoms, the triplets they make, and the best of these."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.cuts import SeedingCuts, polar_tolerance, triplet_circle
from traccc_py.kernels.seeding.doublets import (
    BOTTOM,
    COT_MARGIN,
    MAX_BITS,
    N_BUCKETS,
    Tops,
    bucket_of,
    buckets_per_unit,
    doublet_bits,
    first_wrapped_cell,
    lowest_bit,
    partner_coordinates,
)
from traccc_py.kernels.seeding.grid import Grid, SortedSpacepoints, ring_range, ring_window

__all__ = ["BestTriplets", "find_best_triplets"]

_ZERO = scalar(0)
_LARGE_RADIUS = scalar(1e30)  # [mm], beyond any spacepoint
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


class _Payload(NamedTuple):
    sp: SortedSpacepoints
    cuts: SeedingCuts
    grid: Grid
    tops: Tops
    rules: _Rules
    offsets: Any  # (n_middles + 1,) int32, first triplet
    out_n_bottoms: Any  # (n_middles,) int32, bottoms with triplets
    out_n_triplets: Any  # (n_middles,) int32
    out_bottom_slots: Any  # (n_middles, _N_SLOTS) int32, the first bottoms with triplets
    out_top: Any  # (n_triplets,) int32, row of the sorted spacepoints
    out_curvature: Any  # (n_triplets,) scalar [1/mm]
    out_weight: Any  # (n_triplets,) scalar
    out_best: BestTriplets


@device_function(inlined=True)
def _fill_buckets(tops, first, last, starts):
    """Write the first top of each bucket to `starts`; return (low, per_unit)."""
    low = tops.cot_theta[first]
    per_unit = buckets_per_unit(low, tops.cot_theta[last - 1])
    filled = 0
    for k in range(first, last):
        bucket = bucket_of(low, per_unit, tops.cot_theta[k])
        while filled <= bucket:
            starts[filled] = k
            filled += 1
    while filled <= N_BUCKETS:
        starts[filled] = last
        filled += 1
    return low, per_unit


@device_function(inlined=True)
def _triplets_of_bottom(p, i, j, buckets, starts, position, is_filling):
    """Try the tops that bottom j of middle i can go on to; return the position after the last triplet found."""
    cot_theta, u, v = partner_coordinates(p.sp, i, j, BOTTOM)
    last = p.tops.offsets[i + 1]
    tolerance = polar_tolerance(p.cuts, cot_theta) + COT_MARGIN
    lowest, highest = cot_theta - tolerance, cot_theta + tolerance
    k = starts[bucket_of(buckets[0], buckets[1], lowest)]
    while k < last and p.tops.cot_theta[k] < lowest:
        k += 1
    while k < last and p.tops.cot_theta[k] <= highest:
        is_allowed, curvature, impact = triplet_circle(
            p.cuts, p.sp.r[i], cot_theta, u, v, p.tops.cot_theta[k], p.tops.u[k], p.tops.v[k]
        )
        if is_allowed:
            if is_filling:
                p.out_top[position] = p.tops.partner[k]
                p.out_curvature[position] = curvature
                p.out_weight[position] = -impact * p.rules.impact_weight
            position += 1
        k += 1
    return position


@device_function(inlined=True)
def _count_compatible(p, triplet, first, last):
    """Count, from the inside out, the separate radii at which other triplets of the doublet confirm `triplet`."""
    radius, curvature = p.sp.r[p.out_top[triplet]], p.out_curvature[triplet]
    n = np.int32(0)
    bound = -_LARGE_RADIUS
    while n < p.rules.compatible_limit:
        nearest = _LARGE_RADIUS
        for k in range(first, last):
            r = p.sp.r[p.out_top[k]]
            agrees = abs(p.out_curvature[k] - curvature) <= p.rules.curvature_tolerance
            if agrees and bound <= r < nearest and abs(r - radius) >= p.rules.radius_separation:
                nearest = r
        if nearest == _LARGE_RADIUS:
            break
        n += 1
        bound = nearest + p.rules.radius_separation
    return n


@device_function(inlined=True)
def _weigh(p, triplet, bottom_radius):
    """Add what the radii of a triplet are worth to its weight; return whether it may become a seed."""
    increase = _ZERO
    if bottom_radius > p.rules.good_bottom_min_radius:
        increase = p.rules.good_bottom_weight_increase
    if p.sp.r[p.out_top[triplet]] < p.rules.good_top_max_radius:
        increase = p.rules.good_top_weight_increase
    p.out_weight[triplet] += increase
    return not (
        bottom_radius > p.rules.good_bottom_min_radius and p.out_weight[triplet] < p.rules.good_bottom_min_weight
    )


@device_function(inlined=True)
def _size2(sp, bottom, top):
    """Return the squared y and z of bottom and top summed: traccc's tie break [mm^2]."""
    y_b, z_b, y_t, z_t = sp.y[bottom], sp.z[bottom], sp.y[top], sp.z[top]
    return y_b * y_b + z_b * z_b + y_t * y_t + z_t * z_t


@device_function(inlined=True)
def _is_better(sp, weight, bottom, top, other_weight, other_bottom, other_top):
    """Return whether a triplet comes before another one of the same middle."""
    if weight != other_weight:
        return weight > other_weight
    size2, other_size2 = _size2(sp, bottom, top), _size2(sp, other_bottom, other_top)
    if size2 != other_size2:
        return size2 > other_size2
    if bottom != other_bottom:
        return sp.spacepoint[bottom] < sp.spacepoint[other_bottom]
    return sp.spacepoint[top] < sp.spacepoint[other_top]


@device_function(inlined=True)
def _insert(sp, best, i, n, weight, bottom, top):
    """Insert a triplet into the n best ones of middle i; return how many there are then."""
    most = best.bottom.shape[1]
    place = n
    while place > 0 and _is_better(
        sp, weight, bottom, top, best.weight[i, place - 1], best.bottom[i, place - 1], best.top[i, place - 1]
    ):
        place -= 1
    if place == most:
        return n
    n = min(n + 1, most)
    for k in range(n - 1, place, -1):
        best.bottom[i, k] = best.bottom[i, k - 1]
        best.top[i, k] = best.top[i, k - 1]
        best.weight[i, k] = best.weight[i, k - 1]
    best.bottom[i, place] = bottom
    best.top[i, place] = top
    best.weight[i, place] = weight
    return n


@device_function(inlined=True)
def _add_bottom(p, i, j, buckets, starts, n_best, first):
    """Write the triplets of bottom j, weigh them, rank them; return (number of best ones, position after the last)."""
    last = _triplets_of_bottom(p, i, j, buckets, starts, first, True)
    if last - first > 1:
        for k in range(first, last):
            p.out_weight[k] += scalar(_count_compatible(p, k, first, last)) * p.rules.compatible_weight
    bottom_radius = p.sp.r[j]
    for k in range(first, last):
        if _weigh(p, k, bottom_radius):
            n_best = _insert(p.sp, p.out_best, i, n_best, p.out_weight[k], j, p.out_top[k])
    return n_best, last


@device_function(inlined=True)
def _count_bottom(p, i, j, buckets, starts, n_bottoms, n_triplets):
    """Count the triplets of bottom j and remember it if it has any; return the numbers of bottoms and triplets."""
    n = _triplets_of_bottom(p, i, j, buckets, starts, n_triplets, False)
    if n > n_triplets:
        if n_bottoms < _N_SLOTS:
            p.out_bottom_slots[i, n_bottoms] = j
        n_bottoms += 1
    return n_bottoms, n


@device_function(inlined=True)
def _bottoms_in_run(p, i, run, buckets, starts, state, is_filling):
    """Treat the spacepoints run[0] ... run[1] - 1 that are bottoms of middle i; `state`: as in the two above."""
    a, b = state
    for start in range(run[0], run[1], MAX_BITS):
        bits = doublet_bits(p.cuts, p.sp, i, start, min(run[1] - start, MAX_BITS), BOTTOM)
        while bits != np.uint32(0):
            j = start + lowest_bit(bits)
            bits &= bits - np.uint32(1)
            if is_filling:
                a, b = _add_bottom(p, i, j, buckets, starts, a, b)
            else:
                a, b = _count_bottom(p, i, j, buckets, starts, a, b)
    return a, b


@device_function(inlined=True)
def _search_bottoms(p, i, buckets, starts, state, is_filling):
    """Treat all bottoms of middle i."""
    first, last = ring_range(p.grid, p.cuts, p.sp.r[i], BOTTOM)
    offsets = p.sp.cell_offsets
    for ring in range(first, last):
        z_first, z_last, start, n, n_wrapped = ring_window(p.grid, p.cuts, p.sp, i, BOTTOM, ring)
        for k in range(z_first, z_last):
            cell = start + k * p.grid.n_phi
            state = _bottoms_in_run(p, i, (offsets[cell], offsets[cell + n]), buckets, starts, state, is_filling)
            if n_wrapped > 0:
                cell = first_wrapped_cell(p.grid, cell)
                run = (offsets[cell], offsets[cell + n_wrapped])
                state = _bottoms_in_run(p, i, run, buckets, starts, state, is_filling)
    return state


@device_function(inlined=True)
def _keep_best(p, i, n):
    """Drop from the n best triplets of middle i those too poor for a further seed; return how many are left."""
    best = p.out_best
    n_kept = min(n, 1)
    for k in range(1, n):
        if best.weight[i, k] > p.rules.seed_min_weight or p.sp.r[best.bottom[i, k]] > p.rules.bottom_min_radius:
            best.bottom[i, n_kept] = best.bottom[i, k]
            best.top[i, n_kept] = best.top[i, k]
            best.weight[i, n_kept] = best.weight[i, k]
            n_kept += 1
    return n_kept


@kernel(scratch=(Scratch(N_BUCKETS + 1, np.int32),), grain=64, fuses=False)
def _count_triplets(i, p, starts):
    """One middle: number of bottoms that make triplets, and number of triplets."""
    p.out_n_bottoms[i] = 0
    p.out_n_triplets[i] = 0
    first, last = p.tops.offsets[i], p.tops.offsets[i + 1]
    if first == last or last > p.tops.partner.shape[0]:
        return
    buckets = _fill_buckets(p.tops, first, last, starts)
    n_bottoms, n_triplets = _search_bottoms(p, i, buckets, starts, (np.int64(0), np.int64(0)), False)
    p.out_n_bottoms[i] = n_bottoms
    p.out_n_triplets[i] = n_triplets


@kernel(scratch=(Scratch(N_BUCKETS + 1, np.int32),), grain=64, fuses=False)
def _select_triplets(i, p, starts):
    """One middle: write, weigh and rank its triplets; keep the best ones."""
    p.out_best.n[i] = 0
    position = np.int64(p.offsets[i])
    n_bottoms = p.out_n_bottoms[i]
    if n_bottoms == 0 or p.offsets[i + 1] > p.out_top.shape[0]:
        return
    buckets = _fill_buckets(p.tops, p.tops.offsets[i], p.tops.offsets[i + 1], starts)
    n = np.int64(0)
    if n_bottoms <= _N_SLOTS:
        for k in range(n_bottoms):
            n, position = _add_bottom(p, i, p.out_bottom_slots[i, k], buckets, starts, n, position)
    else:
        n, position = _search_bottoms(p, i, buckets, starts, (n, position), True)
    p.out_best.n[i] = _keep_best(p, i, n)


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
    ws: Workspace, sp: SortedSpacepoints, tops: Tops, cuts: SeedingCuts, grid: Grid, config: SeedingConfig
) -> BestTriplets:
    """Find the triplets of all middles and select those that become seeds.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "seeding_spacepoints" and "top_doublets" must be set; that of "triplets" is set here.
    sp : SortedSpacepoints
        Each is a middle.
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
    n_bottoms = ws.array("seeding.n_bottoms", middles, np.int32)
    n_triplets = ws.array("seeding.n_triplets", middles, np.int32)
    slots = ws.array("seeding.bottom_slots", middles, np.int32, _N_SLOTS)
    best = BestTriplets(
        n=ws.array("seeding.n_best", middles, np.int32),
        bottom=ws.array("seeding.best_bottom", middles, np.int32, most),
        top=ws.array("seeding.best_top", middles, np.int32, most),
        weight=ws.array("seeding.best_weight", middles, dtype, most),
    )

    def payload() -> _Payload:
        out = (ws.array("seeding.triplet_top", triplets, np.int32),)
        out += tuple(ws.array(f"seeding.triplet_{name}", triplets, dtype) for name in ("curvature", "weight"))
        return _Payload(sp, cuts, grid, tops, _make_rules(config), offsets, n_bottoms, n_triplets, slots, *out, best)

    ws.launch(_count_triplets, middles, payload())
    ws.scan(n_triplets, middles, offsets, triplets)
    ws.launch(_select_triplets, middles, payload())
    return best
