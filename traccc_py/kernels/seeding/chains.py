"""Chains of spacepoints on layers that follow each other: links, triplets, and what continues them to the beam line.

The search goes inwards. Outer layers hold few spacepoints per area, and the beam line is a third point: with it a pair
of spacepoints says where on the next layer the particle was, to a millimetre or two. So a link is followed at once, in
a window with less than one spacepoint of other particles, and no list of links or triplets is made.

For a small angle a particle with curvature k and impact parameter d0 is at phi(r) = phi0 + k r + d0 / r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.layer_map import N_PHI, LayerMap
from traccc_py.kernels.constants import HALF, HALF_PI, INFINITY, ONE, PI, TWO, TWO_PI, ZERO
from traccc_py.kernels.seeding.cuts import SeedingCuts
from traccc_py.kernels.seeding.doublets import BOTTOM, MAX_BITS, doublet_bits, fits_cluster, lowest_bit, without_lowest
from traccc_py.kernels.seeding.layer_points import AT_ONCE, ONLY, PHI_BINS_PER_RAD, LayerPoints, other_bin
from traccc_py.kernels.tracking.selection import list_flagged

__all__ = [
    "LONG_CHAIN",
    "MAX_HITS",
    "MOST_CHAINS",
    "Chains",
    "Density",
    "find_chains",
    "find_late_chains",
    "search_from",
]

MAX_HITS = 8  #: spacepoints of a chain
MOST_CHAINS = 3  #: chains of an outermost spacepoint
LONG_CHAIN = 4  #: spacepoints of a chain that is hardly ever made of several particles'
_SURE_COST = scalar(1)  # largest cost of a chain of four that is right: nine of ten are below, six of ten above
_SHORT_COST = scalar(1.5)  # largest cost of a short chain
_SPARSE = 20_000  # spacepoints of an event: with fewer, short chains may cost more, in proportion
_SHARING_COST = scalar(0.5)  # ... whose innermost point is used: one of a hundred is right
_SHORT_IMPACT = 1.5  # largest impact parameter in the search of short chains, in scales of the cost
_ANY_DENSITY = -1
_HITS = (Scratch(MAX_HITS, np.int32),)
_PER_TRIPLET = 3
_FIRST, _SECOND, _THIRD = range(_PER_TRIPLET)  # points of a chain from the outside in
_THREE_PI = scalar(3 * math.pi)
_MARGIN = scalar(0.1)  # of windows, over measurement errors and rounding [mm]
_PHI_MARGIN = scalar(0.002)  # ... and over paths that are no parabolas [rad]
_SMALL = scalar(1e-3)
_SMALLEST_DR = scalar(2)  # of a link: nearer ones have no direction [mm]
_CURVATURE_TOLERANCE = scalar(0.0001)  # of triplets in one chain, 1/(2 R) [1/mm]
_CURVATURE_SCATTERING = scalar(0.25)  # part of the curvature, added to that


class Density(IntEnum):
    """Whether an event has many spacepoints in the layers of the map."""

    DENSE = 0
    SPARSE = 1


class Chains(NamedTuple):
    """Chains of each outermost spacepoint, in the order they were found. Extent: "seeding_spacepoints"."""

    n: Any  # (n_points,) int32
    n_hits: Any  # (n_points, MOST_CHAINS) int32
    cost: Any  # (n_points, MOST_CHAINS) scalar, the mean of its triplets
    hits: Any  # (n_points, MOST_CHAINS * MAX_HITS) int32, rows of the sorted spacepoints from the outside in


class _Payload(NamedTuple):
    sp: LayerPoints
    map: LayerMap
    cuts: SeedingCuts
    per_diameter: Any  # scalar, 1/(2 R) of the smallest helix [1/mm]
    impact_scale2: Any  # scalar, square of the impact parameter that costs as much as the largest mismatch [mm^2]
    impact_max2: Any  # scalar, square of the largest impact parameter, errors included [mm^2]
    sparse: Any  # scalar, see `_SPARSE`
    shortest: Any  # int32, spacepoints of a chain
    is_second: Any  # int32, 1: short chains of points that are not used, layers may be left out
    is_used: Any  # (n_points,) int32, 1: on a chain that is hardly wrong
    listed: Any  # (n_listed,) int32, outermost points of the second pass
    out: Chains


class _StartPayload(NamedTuple):
    sp: LayerPoints
    map: LayerMap
    chains: Chains
    shortest: Any  # int32, spacepoints of a chain
    sparse: Any  # scalar, see `_SPARSE`
    density: Any  # int32, `Density` of the events whose points are listed, or `_ANY_DENSITY`
    out_is_used: Any  # (n_points,) int32
    out_is_listed: Any  # (n_points,) int32


class _Window(NamedTuple):
    """Cells of one layer: phi bins from `first_phi` on, the bins `first` to `last` of the other coordinate."""

    first_phi: Any
    n_phi: Any
    first: Any
    last: Any


class _Line(NamedTuple):
    """The outer point of a link as seen from the inner one; see `cuts.DoubletLine`."""

    cot_theta: Any
    error2: Any
    u: Any
    v: Any


class _Path(NamedTuple):
    """What is known of a link before a third point is: enough to tell most points that do not continue it."""

    line: _Line
    dz_per_dr: Any
    tolerance: Any  # of dz_per_dr
    bend: Any  # phi per radius [rad/mm]
    scattering: Any  # angle in the transverse plane [rad]
    phi_per_step: Any  # how far phi may be off, per radial distance, but for 1/r of the point [mm/mm]
    measured: Any  # largest error of the arc from the measurements of the middle, and as much of the third point [mm]
    measured_per_dr: Any  # ... of its direction


class _Triplet(NamedTuple):
    """What the three points of a triplet say."""

    is_allowed: Any
    curvature: Any  # 1/(2 R) with sign [1/mm]
    cost: Any  # 0: fits best; 2: worst allowed


class _Found(NamedTuple):
    """The best continuation of a chain."""

    point: Any  # row of the sorted spacepoints, -1: none
    curvature: Any
    cost: Any


@device_function(inlined=True)
def _other_range(layer, r, z, low, high):
    """Return (lowest, highest) z or r on a layer of lines through (r, z) with cot(theta) from low to high."""
    if layer.is_disc == 0:
        near, far = r - layer.high, r - layer.low
        return z - max(high * near, high * far) - _MARGIN, z - min(low * near, low * far) + _MARGIN
    near, far = z - layer.high, z - layer.low
    if near < ZERO:
        near, far, low, high = -far, -near, -high, -low
    if near <= ZERO or high <= _SMALL:
        return INFINITY, -INFINITY
    return r - far / max(low, _SMALL) - _MARGIN, r - near / high + _MARGIN


@device_function(inlined=True)
def _misses(layer, low, high):
    """Return whether a range of the other coordinate is empty or beside the layer."""
    return high < layer.other_min - _MARGIN or low > layer.other_max + _MARGIN or low > high


@device_function(inlined=True)
def _window(layer, low, high, phi, half_width):
    """Return the `_Window` of a range of the other coordinate and of phi."""
    first_phi = np.int32((phi - half_width + _THREE_PI) * PHI_BINS_PER_RAD)
    last_phi = np.int32((phi + half_width + _THREE_PI) * PHI_BINS_PER_RAD)
    n_phi = min(np.int32(last_phi - first_phi + 1), np.int32(N_PHI))
    return _Window(first_phi, n_phi, other_bin(layer, low), other_bin(layer, high))


@device_function(inlined=True)
def _link_window(p, i, layer):
    """Return where on an inner layer the particles of spacepoint i can have been."""
    r, z, slopes = p.sp.r[i], p.sp.z[i], p.sp.slopes
    low = max((z - p.cuts.collision_region_max) / r, -min(slopes.most_down[i], p.cuts.cot_theta_max))
    high = min((z - p.cuts.collision_region_min) / r, min(slopes.most_up[i], p.cuts.cot_theta_max))
    if low > -slopes.least_down[i]:
        low = max(low, slopes.least_up[i])
    elif high < slopes.least_up[i]:
        high = min(high, -slopes.least_down[i])
    if low > high:
        return _Window(np.int32(0), np.int32(0), np.int32(0), np.int32(0))
    first, last = _other_range(layer, r, z, low, high)
    if _misses(layer, first, last):
        return _Window(np.int32(0), np.int32(0), np.int32(0), np.int32(0))
    inner = max(first, layer.other_min) if layer.is_disc == 1 else layer.low
    inner = min(max(inner, _SMALL), r)
    sine = min(r * p.per_diameter, HALF)
    bend = (r - inner) * p.per_diameter / math.sqrt(ONE - sine * sine)
    half_width = min(bend + p.cuts.impact_max * (ONE / inner - ONE / r) + _PHI_MARGIN, HALF_PI)
    return _window(layer, first, last, p.sp.phi[i], half_width)


@device_function(inlined=True)
def _phi_distance(a, b):
    """Return a - b within -pi ... pi."""
    d = a - b
    if d > PI:
        d -= TWO_PI
    elif d < -PI:
        d += TWO_PI
    return d


@device_function(inlined=True)
def _line(cuts, sp, i, j, side):
    """Return the `_Line` of point j from point i; `side` is 1 if j is outside."""
    x, y, r = sp.x[i], sp.y[i], sp.r[i]
    cosine, sine = x / r, y / r
    dx, dy, dz = sp.x[j] - x, sp.y[j] - y, sp.z[j] - sp.z[i]
    inverse2 = ONE / (dx * dx + dy * dy)
    cot_theta = side * dz * math.sqrt(inverse2)
    variance = sp.z_variance[j] + TWO * sp.z_variance[i]
    variance += cot_theta * cot_theta * (sp.r_variance[j] + TWO * sp.r_variance[i])
    u, v = (dx * cosine + dy * sine) * inverse2, (dy * cosine - dx * sine) * inverse2
    return _Line(cot_theta, cuts.measurement2 * variance * inverse2, u, v)


@device_function(inlined=True)
def _path(p, outer, inner):
    """Return the `_Path` of the link between two points."""
    sp, cuts = p.sp, p.cuts
    line = _line(cuts, sp, inner, outer, ONE)
    dr = sp.r[outer] - sp.r[inner]
    per_dr = ONE / dr
    dz_per_dr = (sp.z[outer] - sp.z[inner]) * per_dr
    bend = _phi_distance(sp.phi[outer], sp.phi[inner]) * per_dr
    per_radii2 = ONE / (sp.r[outer] * sp.r[inner])
    curvature = min(abs(bend) + cuts.impact_max * per_radii2, p.per_diameter)
    scattering2 = max(cuts.scattering2_per_curvature2 * curvature * curvature, cuts.scattering2_high_pt)
    tolerance2 = scattering2 * (ONE + dz_per_dr * dz_per_dr) + TWO * line.error2
    sine = sp.r[outer] * curvature  # a path that bends is longer than the radius says
    tolerance = math.sqrt(tolerance2) + HALF * sine * sine * abs(dz_per_dr)
    of_inner, of_outer = sp.phi_variance[inner], sp.phi_variance[outer]
    return _Path(
        line,
        dz_per_dr,
        tolerance,
        bend,
        math.sqrt(scattering2),
        cuts.impact_max * per_radii2,
        TWO * math.sqrt(cuts.measurement2 * of_inner),
        math.sqrt(TWO * cuts.measurement2 * (of_inner + of_outer)) * per_dr,
    )


@device_function(inlined=True)
def _aside(path, dr, span):
    """Return how far from a link's path the arc may be at a distance dr from its inner point, `span` from its outer."""
    return (path.phi_per_step * span + path.scattering + path.measured_per_dr) * dr + path.measured


@device_function(inlined=True)
def _phi_tolerance(path, r_outer, r, r_inner):
    """Return how far from a link's path a point may be in phi: impact parameter, scattering and measurements [rad]."""
    return _aside(path, r - r_inner, r_outer - r_inner) / r_inner + _PHI_MARGIN


@device_function(inlined=True)
def _next_window(p, outer, inner, path, layer):
    """Return where on a layer farther in the particle of a link can have been."""
    r, z = p.sp.r[inner], p.sp.z[inner]
    first, last = _other_range(layer, r, z, path.dz_per_dr - path.tolerance, path.dz_per_dr + path.tolerance)
    low, high = layer.low, layer.high
    if layer.is_disc == 1:
        low, high = max(first, layer.other_min), min(last, layer.other_max)
    if _misses(layer, first, last) or low >= r:
        return _Window(np.int32(0), np.int32(0), np.int32(0), np.int32(0))
    phi = p.sp.phi[inner] - path.bend * (r - HALF * (low + high))
    half_width = _phi_tolerance(path, p.sp.r[outer], r, low) + abs(path.bend) * HALF * (high - low)
    return _window(layer, first, last, phi, min(half_width, HALF_PI))


@device_function(inlined=True)
def _may_continue(sp, outer, middle, path, inner):
    """Return whether a point lies near a link's path, and its cluster fits."""
    dr, dz = sp.r[middle] - sp.r[inner], sp.z[middle] - sp.z[inner]
    is_near = abs(dz - path.dz_per_dr * dr) <= path.tolerance * dr + _MARGIN
    aside = abs(sp.phi[middle] - sp.phi[inner] - path.bend * dr)
    aside = min(aside, abs(aside - TWO_PI))
    is_near &= (aside - _PHI_MARGIN) * sp.r[inner] <= _aside(path, dr, sp.r[outer] - sp.r[inner])
    return is_near & (dr > _SMALLEST_DR) & fits_cluster(sp.slopes, inner, dr, dz)


@device_function(inlined=True)
def _next_bits(sp, outer, middle, path, first, n, has_vectors):
    """Return which of the points first ... first + n - 1 may continue a link, a bit for each; n is at most AT_ONCE.

    With vectors as many as that are looked at, whatever n is: a cell has six points on average, and compilers for the
    CPU take one by one what does not fill a vector. Where the end is near they begin farther in front.
    """
    if not has_vectors:
        few = np.uint32(0)
        number = np.int32(0)
        while number < n:
            may = _may_continue(sp, outer, middle, path, np.int32(first + number))
            few = np.uint32(few | (np.uint32(may) << np.uint32(number)))
            number = np.int32(number + 1)
        return few
    begin = max(np.int32(0), min(first, np.int32(sp.n_rows[ONLY] - AT_ONCE)))
    bits = np.uint32(0)
    k = np.uint64(0)
    while k < np.uint64(AT_ONCE):
        may = _may_continue(sp, outer, middle, path, np.uint64(begin) + k)
        bits = np.uint32(bits | (np.uint32(may) << np.uint32(k)))
        k += np.uint64(1)
    return np.uint32((bits >> np.uint32(first - begin)) & ((np.uint32(1) << np.uint32(n)) - np.uint32(1)))


@device_function(inlined=True)
def _impact_error2(p, outer, middle, inner):
    """Return the square of the largest error of a triplet's impact parameter, from the measurements [mm^2]."""
    sp = p.sp
    r1, r2, r3 = sp.r[inner], sp.r[middle], sp.r[outer]
    to_middle, to_outer, span = r2 - r1, r3 - r2, r3 - r1
    of_inner, of_middle, of_outer = r2 * r3 * to_outer, r1 * r3 * span, r1 * r2 * to_middle
    lever = to_middle * to_outer * span
    error2 = sp.phi_variance[inner] * of_inner * of_inner + sp.phi_variance[middle] * of_middle * of_middle
    error2 += sp.phi_variance[outer] * of_outer * of_outer
    return p.cuts.measurement2 * error2 / (lever * lever)


@device_function(inlined=True)
def _triplet(p, outer, middle, top, inner):
    """Return the `_Triplet` of a link from `outer` to `middle` (`top` is its line) and a point farther in."""
    sp, cuts = p.sp, p.cuts
    bottom = _line(cuts, sp, middle, inner, BOTTOM)
    one_over_sin2 = ONE + top.cot_theta * top.cot_theta
    mismatch = bottom.cot_theta - top.cot_theta
    du = top.u - bottom.u
    slope = (top.v - bottom.v) / du
    intercept = bottom.v - slope * bottom.u
    stretch2 = ONE + slope * slope
    curvature2 = intercept * intercept / stretch2
    scattering2 = max(cuts.scattering2_per_curvature2 * curvature2, cuts.scattering2_high_pt)
    scattering2 = min(scattering2, cuts.scattering2)
    tolerance2 = scattering2 * one_over_sin2 + bottom.error2 + top.error2
    r = sp.r[middle]
    impact = abs((slope - intercept * r) * r)
    is_allowed = (du != ZERO) & (mismatch * mismatch <= tolerance2)
    error2 = _impact_error2(p, outer, middle, inner)
    is_allowed &= curvature2 * cuts.min_helix_diameter2 <= ONE
    is_allowed &= impact * impact <= min(cuts.impact_max * cuts.impact_max + error2, p.impact_max2)
    cost = mismatch * mismatch / tolerance2 + impact / math.sqrt(p.impact_scale2 + error2)
    return _Triplet(is_allowed, intercept / math.sqrt(stretch2), cost)


@device_function(inlined=True)
def _run(p, i, layer, window, k):
    """Return (first, end) of the spacepoints of event of point i in phi bin k of a window."""
    phi_bin = np.int32(np.int32(window.first_phi + k) % np.int32(N_PHI))
    cell = np.int32(p.sp.event[i] * p.map.n_cells + layer.first_cell + phi_bin * layer.n_other)
    return p.sp.cell_offsets[np.int32(cell + window.first)], p.sp.cell_offsets[np.int32(cell + window.last + 1)]


@device_function(inlined=True)
def _best_on(p, hits, n, path, curvature, number, found, has_vectors):
    """Return the best continuation of a chain on one layer, if better than `found`."""
    outer, inner = hits[n - 2], hits[n - 1]
    layer = p.map.layers[number]
    window = _next_window(p, outer, inner, path, layer)
    tolerance = _CURVATURE_TOLERANCE + _CURVATURE_SCATTERING * abs(curvature)
    k = np.int32(0)
    while k < window.n_phi:
        first, stop = _run(p, inner, layer, window, k)
        while first < stop:
            n_left = np.int32(stop - first)
            bits = _next_bits(p.sp, outer, inner, path, first, min(n_left, np.int32(AT_ONCE)), has_vectors)
            while bits != np.uint32(0):
                j = np.int32(first + lowest_bit(bits))
                bits = without_lowest(bits)
                triplet = _triplet(p, outer, inner, path.line, j)
                agrees = triplet.is_allowed and abs(triplet.curvature - curvature) <= tolerance
                if agrees and triplet.cost < found.cost:
                    found = _Found(j, triplet.curvature, triplet.cost)
            first = np.int32(first + AT_ONCE)
        k = np.int32(k + 1)
    return found


@device_function
def _extend(p, hits, curvature, cost, has_vectors):
    """Continue the triplet at the start of `hits` inwards, by the best point each time; return (length, cost)."""
    n = np.int32(_PER_TRIPLET)
    total = cost
    while n < MAX_HITS:
        inner = hits[n - 1]
        path = _path(p, hits[n - 2], inner)
        layer = p.map.layers[p.sp.layer[inner]]
        found = _Found(np.int32(-1), ZERO * cost, INFINITY + ZERO * cost)
        for k in range(layer.n_neighbours):
            if k >= layer.n_adjacent and found.point >= 0:
                break
            number = p.map.neighbours[layer.first_neighbour + k]
            found = _best_on(p, hits, n, path, curvature, number, found, has_vectors)
        if found.point < 0:
            break
        hits[n] = found.point
        total += found.cost
        n = np.int32(n + 1)
    return n, total / scalar(n - 2)


@device_function(inlined=True)
def _conflicts(out, i, rank, hits, n):
    """Return whether a chain shares a spacepoint with one of the same outermost point, other than that."""
    for a in range(1, n):
        for b in range(1, out.n_hits[i, rank]):
            if hits[a] == out.hits[i, rank * MAX_HITS + b]:
                return True
    return False


@device_function(inlined=True)
def _write(out, i, rank, hits, n, cost):
    out.n_hits[i, rank] = n
    out.cost[i, rank] = cost
    for k in range(n):
        out.hits[i, rank * MAX_HITS + k] = hits[k]


@device_function
def _keep(out, i, n_chains, hits, n, cost):
    """Keep a chain in the place of a worse one, of the same particle if there is one, or where there is room.

    Longer chains are better, then those of lower cost. Return how many there are.
    """
    place = np.int32(-1)
    for rank in range(n_chains):
        is_better = n > out.n_hits[i, rank] or (n == out.n_hits[i, rank] and cost < out.cost[i, rank])
        if _conflicts(out, i, rank, hits, n):
            if not is_better:
                return n_chains
            place = np.int32(rank)
            break
        if is_better and n_chains == MOST_CHAINS:
            place = np.int32(rank)
    if place < 0:
        if n_chains == MOST_CHAINS:
            return n_chains
        place = n_chains
        n_chains = np.int32(n_chains + 1)
    _write(out, i, place, hits, n, cost)
    return n_chains


@device_function(inlined=True)
def _n_points(sp, layer_map, i):
    """Return the number of spacepoints in the event of point i."""
    first = sp.event[i] * layer_map.n_cells
    return scalar(sp.cell_offsets[first + layer_map.n_cells] - sp.cell_offsets[first])


@device_function(inlined=True)
def _largest_cost(p, innermost):
    """Return the largest cost of a short chain: where there are few points, a bad one is less often a wrong one."""
    if p.is_used[innermost] == 1:
        return _SHARING_COST
    return _SHORT_COST * max(p.sparse / _n_points(p.sp, p.map, innermost), ONE)


@device_function(inlined=True)
def _follow_to(p, number, path, hits, n_chains, has_vectors):
    """Continue the link in `hits` on one layer farther in; return the number of chains of its outer point."""
    outer, inner = hits[_FIRST], hits[_SECOND]
    layer = p.map.layers[number]
    window = _next_window(p, outer, inner, path, layer)
    k = np.int32(0)
    while k < window.n_phi:
        first, stop = _run(p, inner, layer, window, k)
        while first < stop:
            n_left = np.int32(stop - first)
            bits = _next_bits(p.sp, outer, inner, path, first, min(n_left, np.int32(AT_ONCE)), has_vectors)
            while bits != np.uint32(0):
                hits[_THIRD] = np.int32(first + lowest_bit(bits))
                bits = without_lowest(bits)
                triplet = _triplet(p, outer, inner, path.line, hits[_THIRD])
                if triplet.is_allowed:
                    n, cost = _extend(p, hits, triplet.curvature, triplet.cost, has_vectors)
                    if n >= p.shortest or (p.is_second == 1 and cost <= _largest_cost(p, hits[_THIRD])):
                        n_chains = _keep(p.out, outer, n_chains, hits, n, cost)
            first = np.int32(first + AT_ONCE)
        k = np.int32(k + 1)
    return n_chains


@device_function(inlined=True)
def _follow_link(p, i, j, last, hits, n_chains, has_vectors):
    """Follow the link from point i to point j to the first `last` neighbours; return the number of chains of point i.

    A layer is left out only where nothing was found without.
    """
    hits[_FIRST] = i
    hits[_SECOND] = j
    path = _path(p, i, j)
    layer = p.map.layers[p.sp.layer[j]]
    n_before = n_chains
    for k in range(last):
        if k == layer.n_adjacent and n_chains > n_before:
            break
        number = p.map.neighbours[layer.first_neighbour + k]
        n_chains = _follow_to(p, number, path, hits, n_chains, has_vectors)
    return n_chains


@device_function(inlined=True)
def _links_to(p, i, number, hits, n_chains, has_vectors):
    """Follow all links from point i to one layer; return the number of chains of point i."""
    layer = p.map.layers[number]
    last_neighbour = layer.n_neighbours if p.is_second == 1 else layer.n_adjacent
    if last_neighbour == 0:
        return n_chains
    window = _link_window(p, i, layer)
    k = np.int32(0)
    while k < window.n_phi:
        first, stop = _run(p, i, layer, window, k)
        while first < stop:
            n_left = np.int32(stop - first)
            bits = doublet_bits(p.cuts, p.sp, i, first, min(n_left, np.int32(MAX_BITS)), BOTTOM)
            while bits != np.uint32(0):
                j = np.int32(first + lowest_bit(bits))
                bits = without_lowest(bits)
                if p.is_second == 0 or p.is_used[j] == 0:
                    n_chains = _follow_link(p, i, j, last_neighbour, hits, n_chains, has_vectors)
            first = np.int32(first + MAX_BITS)
        k = np.int32(k + 1)
    return n_chains


@device_function(inlined=True)
def search_from(k, p, hits, has_vectors):
    """Find the best chains that begin at the k-th listed spacepoint, beside those it has."""
    i = p.listed[k]
    layer = p.map.layers[p.sp.layer[i]]
    n_chains = p.out.n[i]
    for m in range(layer.n_neighbours if p.is_second == 1 else layer.n_first):
        n_chains = _links_to(p, i, p.map.neighbours[layer.first_neighbour + m], hits, n_chains, has_vectors)
    p.out.n[i] = n_chains


@kernel(scratch=_HITS, grain=64, cuda=CudaBody("traccc_py.kernels.seeding.chains_cuda:find_chains", shared=_HITS))
def _find_chains(k, p, hits):
    """One spacepoint: the best chains it is the outermost point of, beside those it has."""
    search_from(k, p, hits, True)


@kernel(grain=1024)
def _mark_used(i, p):
    """Mark the points of the chains of point i that are hardly wrong; all who write the same place write the same."""
    for rank in range(p.chains.n[i]):
        n = p.chains.n_hits[i, rank]
        if n > LONG_CHAIN or (n == LONG_CHAIN and p.chains.cost[i, rank] <= _SURE_COST):
            for k in range(rank * MAX_HITS, rank * MAX_HITS + n):
                p.out_is_used[p.chains.hits[i, k]] = np.int32(1)


@kernel(grain=4096)
def _flag_starts(i, p):
    """Flag point i if chains can begin there, it is on none that is hardly wrong, and its event is as dense."""
    is_sparse = np.int32(_n_points(p.sp, p.map, i) < p.sparse)
    is_free = p.map.layers[p.sp.layer[i]].most_points >= p.shortest and p.out_is_used[i] == 0
    p.out_is_listed[i] = np.int32(is_free and (p.density < 0 or p.density == is_sparse))


class _Searches:
    """Searches in the same spacepoints, one after another.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "seeding_spacepoints" must be set.
    sp : LayerPoints
        Each may be the outermost point of chains.
    layer_map : LayerMap
        On the device.
    n_events : int
        Number of events in the batch [1].
    """

    def __init__(self, ws: Workspace, sp: LayerPoints, layer_map: LayerMap, n_events: int) -> None:
        points, dtype = ws.extent("seeding_spacepoints"), sp.x.dtype
        self._ws, self._points = ws, points
        self._densities = _densities(ws, sp, layer_map, n_events)
        self.found = Chains(
            n=ws.array("seeding.n_chains", points, np.int32),
            n_hits=ws.array("seeding.chain_n_hits", points, np.int32, MOST_CHAINS),
            cost=ws.array("seeding.chain_cost", points, dtype, MOST_CHAINS),
            hits=ws.array("seeding.chain_hits", points, np.int32, MOST_CHAINS * MAX_HITS),
        )
        self._starts = _StartPayload(
            sp=sp,
            map=layer_map,
            chains=self.found,
            shortest=np.int32(0),
            sparse=scalar(_SPARSE),
            density=np.int32(_ANY_DENSITY),
            out_is_used=ws.array("seeding.is_used", points, np.int32),
            out_is_listed=ws.array("seeding.is_listed", points, np.int32),
        )
        ws.clear(self.found.n)
        ws.clear(self._starts.out_is_used)

    def mark_used(self) -> None:
        """Let points of good chains begin no further ones."""
        self._ws.launch(_mark_used, self._points, self._starts)

    def run(self, name: str, cuts: SeedingCuts, shortest: int, density: int = _ANY_DENSITY) -> None:
        """Search chains of at least `shortest` points; three are short ones, of points that are not used.

        `name` is that of the list of outermost points. Distances of links are the map's.
        """
        if density != _ANY_DENSITY and density not in self._densities:
            return
        ws, starts, impact_max = self._ws, self._starts, float(cuts.impact_max)
        flag = starts._replace(shortest=np.int32(shortest), density=np.int32(density))
        ws.launch(_flag_starts, self._points, flag)
        scale = _impact_scale(cuts, starts.map)
        if shortest < LONG_CHAIN and density != Density.SPARSE:
            impact_max = min(_SHORT_IMPACT * scale, impact_max)
        per_diameter = 1 / math.sqrt(float(cuts.min_helix_diameter2))
        payload = _Payload(
            sp=starts.sp,
            map=starts.map,
            cuts=cuts._replace(
                delta_r_min=_SMALLEST_DR,
                delta_r_max=INFINITY,
                delta_z_max=INFINITY,
                impact_max=scalar(impact_max),
                impact_allowance=scalar(impact_max / per_diameter - impact_max**2),
            ),
            per_diameter=scalar(per_diameter),
            impact_scale2=scalar(scale**2),
            impact_max2=scalar(float(cuts.impact_max) ** 2),
            sparse=starts.sparse,
            shortest=np.int32(max(shortest, LONG_CHAIN)),
            is_second=np.int32(shortest < LONG_CHAIN),
            is_used=starts.out_is_used,
            listed=list_flagged(ws, starts.out_is_listed, self._points, name),
            out=self.found,
        )
        ws.launch(_find_chains, ws.extent(name), payload)


def _densities(ws: Workspace, sp: LayerPoints, layer_map: LayerMap, n_events: int) -> set[int]:
    """Return which kinds of events may be in a batch: all, where the device alone knows how many points there are."""
    if not ws.device.sizes_are_on_host:
        return set(Density)
    n_cells = int(layer_map.n_cells)
    n_points = np.diff(sp.cell_offsets[: n_events * n_cells + 1 : n_cells])
    return {Density.SPARSE if n < _SPARSE else Density.DENSE for n in n_points.tolist()}


def _impact_scale(cuts: SeedingCuts, layer_map: LayerMap) -> float:
    """Return the impact parameter that costs as much as the largest mismatch [mm]."""
    return min(math.sqrt(float(cuts.scattering2)) * float(layer_map.r_min), float(cuts.impact_max))


def find_chains(
    ws: Workspace,
    sp: LayerPoints,
    layer_map: LayerMap,
    cuts: SeedingCuts,
    n_events: int,
    short_in: Sequence[Density] = tuple(Density),
) -> Chains:
    """Find chains of spacepoints that charged particles from the beam region may have left.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "seeding_spacepoints" must be set.
    sp : LayerPoints
        Each may be the outermost point of chains.
    layer_map : LayerMap
        On the device.
    cuts : SeedingCuts
        Cuts of links and triplets.
    n_events : int
        Number of events in the batch [1].
    short_in : sequence of Density, optional
        Events in which chains of three spacepoints are looked for, too, of points that are on no good chain.

    Returns
    -------
    Chains
        Up to `MOST_CHAINS` of each spacepoint.
    """
    searches = _Searches(ws, sp, layer_map, n_events)
    searches.run("chain_starts", cuts, LONG_CHAIN)
    if short_in:
        searches.mark_used()
    for density in short_in:
        searches.run(f"chain_starts_{density.name.lower()}", cuts, _PER_TRIPLET, density)
    return searches.found


def find_late_chains(
    ws: Workspace,
    sp: LayerPoints,
    layer_map: LayerMap,
    cuts: dict[Density, SeedingCuts],
    shortest: int,
    n_events: int,
) -> Chains:
    """Find chains among the spacepoints that no track has.

    Parameters
    ----------
    ws, sp, layer_map
        As for `find_chains`.
    cuts : dict of Density to SeedingCuts
        Cuts of links and triplets in each kind of events.
    shortest : int
        Spacepoints of a chain [1].
    n_events : int
        Number of events in the batch [1].

    Returns
    -------
    Chains
        Up to `MOST_CHAINS` of each spacepoint.
    """
    searches = _Searches(ws, sp, layer_map, n_events)
    for density, of_events in cuts.items():
        searches.run(f"chain_starts_{density.name.lower()}", of_events, max(shortest, LONG_CHAIN), density)
    return searches.found
