"""The edges of a graph from an embedding: pairs of points whose places are closer together than a radius.

Points are sorted by the cells of a grid over the first three dimensions, which the training turns so that most of the
spread is in them. The grid is repeated, so that it needs no limits: cells a whole period apart share their points, and
distances tell them apart. Distances are taken in all dimensions, so the search is exact.

Of a point with more neighbours than allowed only the nearest count: those within the largest step of squared distance
that holds no more. A pair is an edge if each counts for the other, so none depends on the order of the points.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Extent, Workspace
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.gnn.embedding import N_DIMENSIONS, EmbeddingWeights, embed_points
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES, Edges, describe_doublet, outward
from traccc_py.kernels.gnn.graph_points import GraphPoints

__all__ = [
    "LIMITED_POINTS",
    "EmbeddedPoints",
    "Pairs",
    "describe_pairs",
    "find_metric_edges",
    "find_outward",
    "find_pairs",
]

LIMITED_POINTS = "limited_points"  #: extent: points that had more neighbours than allowed
_N_WIDE, _N_FINE = 64, 64  # cells of a period of the first two dimensions, and of the third
_N_CELLS = _N_WIDE * _N_WIDE * _N_FINE
_PER_RADIUS, _FINE_PER_RADIUS = 2, 4  # cells
_REACH = _PER_RADIUS  # cells that a neighbour may be away
_WIDENED = 1.001  # of cells: rounding must not put a neighbour beyond the reach
_MARGIN = scalar(1.0001)  # of distances that cells are left out by
_FARTHEST = scalar(1e6)  # [cells], beyond which places are taken together
_NOTED = 128  # neighbours of a point that are noted; where more count, they are searched for again
_N_PARTS = 64  # of the range of squared distances, each of as many steps
_N_STEPS = _N_PARTS * _N_PARTS
_N_SEGMENTS = 2 * (2 * _REACH + 1) ** 2  # of a search: where cells of the third dimension begin anew there are two


class EmbeddedPoints(NamedTuple):
    """What the search wants to know of points."""

    place: Any  # (n, N_DIMENSIONS) scalar
    event: Any  # (n,) int32
    layer: Any  # (n,) int32; two of one layer are no edge
    outward: Any  # (n,) scalar; the inner end of an edge has the smaller one


class Pairs(NamedTuple):
    """Pairs of points, ordered by the outer, then by the inner one."""

    inner: Any  # (n_pairs,) int32
    outer: Any  # (n_pairs,) int32
    offsets: Any  # (n + 1,) int32, first pair of each outer point


class _Grid(NamedTuple):
    per_unit: Any  # scalar, cells of the first two dimensions
    fine_per_unit: Any  # scalar, of the third
    limit: Any  # scalar, squared radius
    steps: Any  # scalar, in a unit of squared distance


class _CellPayload(NamedTuple):
    points: EmbeddedPoints
    grid: _Grid
    out_cell: Any  # (n,) int32, -1: a place that is no number


class _Search(NamedTuple):
    points: EmbeddedPoints
    grid: _Grid
    order: Any  # (n,) int32, points by cell
    offsets: Any  # (n_events * _N_CELLS + 1,) int32
    sorted: Any  # (n, N_DIMENSIONS) scalar, places in the order of the cells


class _SortPayload(NamedTuple):
    search: _Search


class _NearPayload(NamedTuple):
    search: _Search
    most: Any  # int32, neighbours of a point that count
    noted: Any  # (n, _NOTED) int32
    out_near: Any  # (n,) int32, neighbours that count
    out_limit: Any  # (n,) int32, steps of squared distance in which they are
    out_is_limited: Any  # (n,) int32, 1 where there were more


class _PairPayload(NamedTuple):
    search: _Search
    near: Any  # (n,) int32
    limit: Any  # (n,) int32
    noted: Any  # (n, _NOTED) int32
    offsets: Any  # (n + 1,) int32
    out_n: Any  # (n,) int32
    out_inner: Any  # (n_pairs,) int32
    out_outer: Any  # (n_pairs,) int32


class _OutwardPayload(NamedTuple):
    points: GraphPoints
    out: Any  # (n,) scalar


class _DescribePayload(NamedTuple):
    points: GraphPoints
    inner: Any  # (n_edges,) int32
    outer: Any  # (n_edges,) int32
    features: Any  # (n_edges, N_EDGE_FEATURES) scalar


class _Slots(NamedTuple):
    first: Any  # int32
    last: Any


@device_function(inlined=True)
def _cell_along(x, per_unit):
    """Return the cell of a coordinate; those of all periods have numbers of their own."""
    return np.int32(math.floor(min(max(x * per_unit, -_FARTHEST), _FARTHEST)))


@device_function(inlined=True)
def _is_number(place, i):
    for k in range(N_DIMENSIONS):
        if not abs(place[i, k]) < math.inf:
            return False
    return True


@device_function(inlined=True)
def _row_of_cells(points, i, x_cell, y_cell):
    """Return the first of the cells of an event along the third dimension."""
    wide = (x_cell & np.int32(_N_WIDE - 1)) * np.int32(_N_WIDE) + (y_cell & np.int32(_N_WIDE - 1))
    return points.event[i] * np.int32(_N_CELLS) + wide * np.int32(_N_FINE)


@kernel(grain=2048, fuses=False)
def _find_cells(i, p):
    """One point: its cell."""
    place, grid = p.points.place, p.grid
    if not _is_number(place, i):
        p.out_cell[i] = np.int32(-1)
        return
    row = _row_of_cells(p.points, i, _cell_along(place[i, 0], grid.per_unit), _cell_along(place[i, 1], grid.per_unit))
    p.out_cell[i] = row + (_cell_along(place[i, 2], grid.fine_per_unit) & np.int32(_N_FINE - 1))


@kernel(grain=2048)
def _sort_places(slot, p):
    """One slot: copy the place of its point."""
    i = p.search.order[slot]
    for k in range(N_DIMENSIONS):
        p.search.sorted[slot, k] = p.search.points.place[i, k]


@device_function(inlined=True)
def _squared(x):
    return x * x


@device_function(inlined=True)
def _distance(a, i, b, j):
    """Return the squared distance of two places; that of either from the other has the same bits."""
    return (
        (_squared(a[i, 0] - b[j, 0]) + _squared(a[i, 1] - b[j, 1]))
        + (_squared(a[i, 2] - b[j, 2]) + _squared(a[i, 3] - b[j, 3]))
    ) + (
        (_squared(a[i, 4] - b[j, 4]) + _squared(a[i, 5] - b[j, 5]))
        + (_squared(a[i, 6] - b[j, 6]) + _squared(a[i, 7] - b[j, 7]))
    )


@device_function(inlined=True)
def _away(x, per_unit, cell):
    """Return the squared distance of a coordinate from a cell."""
    at = x * per_unit
    return _squared(max(max(scalar(cell) - at, at - scalar(cell + 1)), ZERO) / per_unit)


@device_function(inlined=True)
def _segment(search, i, number):
    """Return the slots of one of the rows of cells, or parts of them, in which neighbours of a point may be."""
    place, grid, none = search.points.place, search.grid, _Slots(np.int32(0), np.int32(0))
    number, is_second = number // 2, number % 2
    x_cell = _cell_along(place[i, 0], grid.per_unit) + np.int32(number // (2 * _REACH + 1) - _REACH)
    y_cell = _cell_along(place[i, 1], grid.per_unit) + np.int32(number % (2 * _REACH + 1) - _REACH)
    away = _away(place[i, 0], grid.per_unit, x_cell) + _away(place[i, 1], grid.per_unit, y_cell)
    rest = grid.limit * _MARGIN - away
    if not rest > ZERO:
        return none
    half, z = math.sqrt(rest) * _MARGIN, place[i, 2]
    low = _cell_along(z - half, grid.fine_per_unit) & np.int32(_N_FINE - 1)
    high = _cell_along(z + half, grid.fine_per_unit) & np.int32(_N_FINE - 1)
    first = _row_of_cells(search.points, i, x_cell, y_cell)
    if low <= high:
        if is_second:
            return none
    elif is_second:  # beyond the end of a period the cells begin anew
        low = np.int32(0)
    else:
        high = np.int32(_N_FINE - 1)
    return _Slots(search.offsets[first + low], search.offsets[first + high + np.int32(1)])


@device_function(inlined=True)
def _step_of(grid, away):
    """Return the step of a squared distance within the radius."""
    return min(np.int32(away * grid.steps), np.int32(_N_STEPS - 1))


@device_function(inlined=True)
def _note_near(search, i, n_steps, noted):
    """Note the neighbours of point i in the first steps of distance, as far as there is room; return their number."""
    n = np.int32(0)
    for number in range(_N_SEGMENTS):
        slots = _segment(search, i, number)
        for slot in range(slots.first, slots.last):
            away = _distance(search.points.place, i, search.sorted, slot)
            if away <= search.grid.limit and _step_of(search.grid, away) < n_steps and search.order[slot] != i:
                if n < _NOTED:
                    noted[i, n] = search.order[slot]
                n += np.int32(1)
    return n


@device_function(inlined=True)
def _count_steps(search, i, first, size, parts):
    """Count the neighbours of point i in each of the parts, of so many steps, from a step on."""
    for k in range(_N_PARTS):
        parts[k] = np.int32(0)
    for number in range(_N_SEGMENTS):
        slots = _segment(search, i, number)
        for slot in range(slots.first, slots.last):
            away = _distance(search.points.place, i, search.sorted, slot)
            if away <= search.grid.limit and search.order[slot] != i:
                step = _step_of(search.grid, away) - first
                if 0 <= step < _N_PARTS * size:
                    parts[step // size] += np.int32(1)


@device_function(inlined=True)
def _steps_that_fit(search, i, most, parts):
    """Return the largest number of steps that hold no more neighbours than allowed, where not all do."""
    n, first, size = np.int32(0), np.int32(0), np.int32(_N_PARTS)
    for _ in range(2):  # the part in which the limit is, then the step
        _count_steps(search, i, first, size, parts)
        k = 0
        while k < _N_PARTS - 1 and n + parts[k] <= most:
            n += parts[k]
            first += size
            k += 1
        size = np.int32(1)
    return first


@kernel(grain=64, fuses=False, scratch=(Scratch(_N_PARTS, np.int32),))
def _find_near(slot, p, parts):
    """One slot: find the neighbours of its point that count, and how far they are."""
    search = p.search
    i = search.order[slot]
    limit = np.int32(_N_STEPS)
    n = _note_near(search, i, limit, p.noted)
    p.out_is_limited[i] = np.int32(n > p.most)
    if n > p.most:
        limit = _steps_that_fit(search, i, p.most, parts)
        n = _note_near(search, i, limit, p.noted)
    p.out_near[i] = n
    p.out_limit[i] = limit


@device_function(inlined=True)
def _is_pair(p, i, j):
    """Return whether a point and one of its neighbours that count are an edge, of which it is the outer end."""
    points = p.search.points
    if not points.outward[j] < points.outward[i] or points.layer[i] == points.layer[j]:
        return False
    return _step_of(p.search.grid, _distance(points.place, i, points.place, j)) < p.limit[j]


@device_function(inlined=True)
def _add_pair(p, i, j, row, first, writes):
    """Write a pair, if it is one, to its place among those of point i from `first` on; return the row behind them."""
    if not _is_pair(p, i, j):
        return row
    if writes:
        place = row
        while place > first and p.out_inner[place - 1] > j:
            p.out_inner[place] = p.out_inner[place - 1]
            place -= 1
        p.out_inner[place] = j
        p.out_outer[row] = i
    return row + 1


@device_function(inlined=True)
def _add_pairs(p, i, first, writes):
    """Write the pairs of an outer point from a row on, or only count them; return the row behind them."""
    search, row = p.search, first
    if p.near[i] <= _NOTED:
        for k in range(p.near[i]):
            row = _add_pair(p, i, p.noted[i, k], row, first, writes)
        return row
    for number in range(_N_SEGMENTS):
        slots = _segment(search, i, number)
        for slot in range(slots.first, slots.last):
            away = _distance(search.points.place, i, search.sorted, slot)
            if away <= search.grid.limit and _step_of(search.grid, away) < p.limit[i] and search.order[slot] != i:
                row = _add_pair(p, i, search.order[slot], row, first, writes)
    return row


@kernel(grain=128, fuses=False)
def _count_pairs(i, p):
    """One outer point: the number of its pairs."""
    p.out_n[i] = np.int32(_add_pairs(p, i, 0, False))


@kernel(grain=128, fuses=False)
def _fill_pairs(i, p):
    """One outer point: write its pairs."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > first and last <= p.out_inner.shape[0]:
        _add_pairs(p, i, first, True)


@kernel(grain=4096, fuses=False)
def _find_outward(i, p):
    """One point: its squared distance from the origin."""
    p.out[i] = outward(p.points, i)


@kernel(grain=1024)
def _describe(i, p):
    """One edge: write its features."""
    describe_doublet(p.points, p.features, i, p.inner[i], p.outer[i])


def _sorted_places(ws: Workspace, points: EmbeddedPoints, extent: Extent, n_events: int, radius: float) -> _Search:
    """Return points by the cells of a grid."""
    dtype, placed = points.place.dtype, ws.extent("placed_points")
    per_unit = 1 / (radius * _WIDENED)
    numbers = (_PER_RADIUS * per_unit, _FINE_PER_RADIUS * per_unit, radius**2, _N_STEPS / radius**2)
    grid = _Grid(*(dtype.type(number) for number in numbers))
    cell = ws.array("graph.place_cell", extent, np.int32)
    ws.launch(_find_cells, extent, _CellPayload(points, grid, cell))
    groups = group_rows(ws, "graph.places", cell, extent, ws.fixed("place_cells", n_events * _N_CELLS), placed)
    search = _Search(points, grid, *reversed(groups), ws.array("graph.sorted_places", placed, dtype, N_DIMENSIONS))
    ws.launch(_sort_places, placed, _SortPayload(search))
    return search


def find_pairs(ws: Workspace, points: EmbeddedPoints, extent: Extent, n_events: int, radius: float, most: int) -> Pairs:
    """Find the pairs of points that are close together.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of `extent` must be set; those of "graph_edges" and `LIMITED_POINTS` are set here.
    points : EmbeddedPoints
        Points; those whose place is no number are in no pair.
    extent : Extent
        The points.
    n_events : int
        Number of events in the batch [1].
    radius : float
        Largest distance of a pair.
    most : int
        Neighbours of a point that count [1].

    Returns
    -------
    Pairs
        Pairs of an event.
    """
    pairs, search = ws.extent("graph_edges"), _sorted_places(ws, points, extent, n_events, radius)
    columns = {name: ws.array(f"graph.{name}", extent, np.int32) for name in ("near", "limit", "is_limited", "n_pairs")}
    for name in ("near", "is_limited"):
        ws.clear(columns[name])  # of points that are in no cell
    noted = ws.array("graph.near_noted", extent, np.int32, _NOTED)
    near = _NearPayload(search, np.int32(most), noted, columns["near"], columns["limit"], columns["is_limited"])
    ws.launch(_find_near, ws.extent("placed_points"), near)
    limited = ws.array("graph.limited", extent, np.int32, extra=1)
    ws.scan(columns["is_limited"], extent, limited, ws.extent(LIMITED_POINTS))
    offsets = ws.array("graph.pair_offsets", extent, np.int32, extra=1)

    def payload() -> _PairPayload:
        inner, outer = (ws.array(f"graph.edge_{end}", pairs, np.int32) for end in ("inner", "outer"))
        return _PairPayload(search, columns["near"], columns["limit"], noted, offsets, columns["n_pairs"], inner, outer)

    ws.launch(_count_pairs, extent, payload())
    ws.scan(columns["n_pairs"], extent, offsets, pairs)
    filled = payload()
    ws.launch(_fill_pairs, extent, filled)
    return Pairs(filled.out_inner, filled.out_outer, offsets)


def describe_pairs(ws: Workspace, points: GraphPoints, inner: Any, outer: Any) -> Edges:
    """Return pairs of points as edges with features.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "graph_edges" must be set.
    points : GraphPoints
        Nodes.
    inner, outer : array of shape (n_edges,), int32
        Rows of the points.
    """
    extent = ws.extent("graph_edges")
    features = ws.array("graph.edge_features", extent, points.r.dtype, N_EDGE_FEATURES, extra=BLOCK_ROWS)
    ws.launch(_describe, extent, _DescribePayload(points, inner, outer, features))
    return Edges(inner, outer, features)


def find_outward(ws: Workspace, points: GraphPoints) -> Any:
    """Return the squared distances of points from the origin, by which the ends of edges are told apart [mm^2]."""
    extent = ws.extent("graph_points")
    away = ws.array("graph.outward", extent, points.r.dtype)
    ws.launch(_find_outward, extent, _OutwardPayload(points, away))
    return away


def find_metric_edges(
    ws: Workspace, points: GraphPoints, weights: EmbeddingWeights, n_events: int, radius: float, most: int
) -> Edges:
    """Find the edges of a batch.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "graph_points" must be set; those of "graph_edges" and `LIMITED_POINTS` are set here.
    points : GraphPoints
        Nodes; their features must have `BLOCK_ROWS` rows to spare.
    weights : EmbeddingWeights
        On the device.
    n_events : int
        Number of events in the batch [1].
    radius : float
        Largest distance of an edge's ends.
    most : int
        Neighbours of a point that count [1].

    Returns
    -------
    Edges
        Pairs of points on different layers.
    """
    extent = ws.extent("graph_points")
    places = embed_points(ws, points.features, extent, weights)
    embedded = EmbeddedPoints(places, points.event, points.layer, find_outward(ws, points))
    pairs = find_pairs(ws, embedded, extent, n_events, radius, most)
    return describe_pairs(ws, points, pairs.inner, pairs.outer)
