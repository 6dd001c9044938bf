"""Segmentation: track candidates as the best paths through the edges of a graph.

Edges above a cut fall into connected components. In each, the path with the largest sum of weights (logits above the
cut) is a candidate; its nodes are taken out, and the next best path follows, until none is left. So a node is in one
candidate at most. When a path is taken only what lies behind its nodes is weighed anew, and the ends of paths wait in a
heap by the largest sum they may have: the work grows with the number of edges and not with the square of a component.

References
----------
arXiv:2103.06995 and the pipeline of ATLAS (GNN4ITk): walkthrough of components, there after junctions are removed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.grouping import Groups, group_rows
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import ScanColumn, Workspace
from traccc_py.edm.parameters import FEWEST_SPACEPOINTS
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.gnn.candidate_seeds import PointLists
from traccc_py.kernels.gnn.graph_points import GraphPoints
from traccc_py.kernels.gnn.networks import FilteredGraph, ScoredEdges

__all__ = ["find_paths"]

_LEAST_WEIGHT = scalar(1e-3)  # of an edge at the cut
_NONE = np.int32(-1)


class _Links(NamedTuple):
    """Edges above the cut. Extent: "graph_links"."""

    inner: Any  # (n_links,) int32, node
    outer: Any  # (n_links,) int32, node, ascending
    weight: Any  # (n_links,) scalar, > 0


class _CutPayload(NamedTuple):
    graph: FilteredGraph
    scored: ScoredEdges
    cut: Any  # scalar, a logit
    only_best: Any  # int32, 1: only edges that are the best of both of their ends
    out_is_link: Any  # (n_edges,) int32


class _LinkPayload(NamedTuple):
    graph: FilteredGraph
    logit: Any  # (n_edges,) scalar
    cut: Any  # scalar
    offsets: Any  # (n_edges + 1,) int32
    out: _Links


class _ComponentPayload(NamedTuple):
    links: _Links
    points: GraphPoints
    point: Any  # (n_nodes,) int32
    counts: Any  # sizes of all collections
    node_slot: Any  # int32
    link_slot: Any  # int32
    by_outer: Groups  # links by their outer node
    by_inner: Groups
    out_label: Any  # (n_nodes,) int32, the first node of the component; -1: no links
    out_size: Any  # (n_nodes,) int32, nodes of each label
    out_place: Any  # (n_nodes,) int32, how many nodes of its component come before it


class _MemberPayload(NamedTuple):
    label: Any  # (n_nodes,) int32
    place: Any  # (n_nodes,) int32
    offsets: Any  # (n_nodes + 1,) int32, first member of each label
    out_order: Any  # (n_slots,) int32


class _Walk(NamedTuple):
    """State of the walk; nodes of a component have a slot each, in their order."""

    total: Any  # (n_nodes,) scalar, largest sum of a path that ends at the node
    before: Any  # (n_nodes,) int32, the node before on that path
    is_taken: Any  # (n_nodes,) int32
    n_open: Any  # (n_nodes,) int32, links from nodes not weighed yet; then whether it waits in the queue
    queue: Any  # (n_slots,) int32, nodes to weigh, a ring for each component
    heap: Any  # (n_slots,) int32, nodes by `bound`, the largest first
    bound: Any  # (n_nodes,) scalar, a sum that the node had


class _WalkPayload(NamedTuple):
    links: _Links
    by_outer: Groups  # links by their outer node
    by_inner: Groups
    components: Groups  # nodes by the label of their component
    walk: _Walk
    out_last: Any  # (n_slots,) int32, the outermost node of each path, in the slots of its component
    out_is_path: Any  # (n_slots,) int32
    out_length: Any  # (n_slots,) int32, nodes of each path


class _FillPayload(NamedTuple):
    before: Any  # (n_nodes,) int32
    last: Any  # (n_slots,) int32
    length: Any  # (n_slots,) int32
    place: Any  # (n_slots + 1,) int32, list of each slot that has one
    first: Any  # (n_slots + 1,) int32, first point of it
    point: Any  # (n_nodes,) int32
    points: GraphPoints
    out: PointLists


@device_function(inlined=True)
def _has_better(groups, node, logit, edge):
    """Return whether another edge of a node comes before one of them."""
    for k in range(groups.offsets[node], groups.offsets[node + 1]):
        other = groups.order[k]
        if logit[other] > logit[edge] or (logit[other] == logit[edge] and other < edge):
            return True
    return False


@kernel(grain=2048)
def _cut_edges(i, p):
    """One edge: whether it is above the cut, and if asked for the best of both of its ends."""
    logit = p.scored.logit
    is_link = logit[i] >= p.cut
    if is_link and p.only_best:
        is_link = not (
            _has_better(p.scored.of_outer, p.graph.outer[i], logit, i)
            or _has_better(p.scored.of_inner, p.graph.inner[i], logit, i)
        )
    p.out_is_link[i] = np.int32(is_link)


@kernel(grain=2048)
def _gather_links(i, p):
    """One edge: write its link, if it is one."""
    row = p.offsets[i]
    if p.offsets[i + 1] == row or p.offsets[i + 1] > p.out.inner.shape[0]:
        return
    p.out.inner[row] = p.graph.inner[i]
    p.out.outer[row] = p.graph.outer[i]
    p.out.weight[row] = p.logit[i] - p.cut + _LEAST_WEIGHT


@device_function(inlined=True)
def _root(label, node):
    """Return the first node of a component as far as it is known; halve the way there."""
    while label[node] != node:
        label[node] = label[label[node]]
        node = label[node]
    return node


@device_function(inlined=True)
def _first_of_event(p, event, n):
    """Return the first of n nodes that is not of an event before."""
    low, high = np.int32(0), n
    while low < high:
        middle = (low + high) // np.int32(2)
        if p.points.event[p.point[middle]] < event:
            low = middle + np.int32(1)
        else:
            high = middle
    return low


@device_function(inlined=True)
def _first_link(p, node, n):
    """Return the first of n links whose outer node is not before a node."""
    low, high = np.int32(0), n
    while low < high:
        middle = (low + high) // np.int32(2)
        if p.links.outer[middle] < node:
            low = middle + np.int32(1)
        else:
            high = middle
    return low


@device_function(inlined=True)
def _has_none(groups, node):
    return groups.offsets[node] == groups.offsets[node + 1]


@kernel(grain=1)
def _find_components(i, p):
    """One event: label its nodes, and number those of each label."""
    n_nodes, n_links = p.counts[p.node_slot], p.counts[p.link_slot]
    first, last = _first_of_event(p, i, n_nodes), _first_of_event(p, i + np.int32(1), n_nodes)
    label = p.out_label
    for node in range(first, last):
        label[node] = node
        p.out_size[node] = np.int32(0)
    first_link, last_link = _first_link(p, first, n_links), _first_link(p, last, n_links)
    for link in range(first_link, last_link):
        a, b = _root(label, p.links.inner[link]), _root(label, p.links.outer[link])
        label[max(a, b)] = min(a, b)
    for node in range(first, last):
        if _has_none(p.by_outer, node) and _has_none(p.by_inner, node):
            label[node] = _NONE
            continue
        label[node] = label[label[node]]  # labels never rise along the nodes, so that of the parent is final
        p.out_place[node] = p.out_size[label[node]]
        p.out_size[label[node]] += np.int32(1)


@kernel(grain=4096)
def _order_members(i, p):
    """One node: write it to its place in its component."""
    if p.label[i] >= 0:
        p.out_order[p.offsets[p.label[i]] + p.place[i]] = i


@device_function(inlined=True)
def _weigh(p, node):
    """Find the best path that ends at a node; return whether its sum changed."""
    best, before = ZERO, _NONE
    for k in range(p.by_outer.offsets[node], p.by_outer.offsets[node + 1]):
        link = p.by_outer.order[k]
        inner = p.links.inner[link]
        if p.walk.is_taken[inner] == 0:
            total = p.walk.total[inner] + p.links.weight[link]
            if total > best or (total == best and inner < before):
                best, before = total, inner
    changed = best != p.walk.total[node]
    p.walk.total[node] = best
    p.walk.before[node] = before
    return changed


@device_function(inlined=True)
def _weigh_all(p, first, last):
    """Weigh the nodes of a component, those inside before those outside."""
    queue, walk = p.walk.queue, p.walk
    head = tail = first
    for slot in range(first, last):
        node = p.components.order[slot]
        walk.is_taken[node] = np.int32(0)
        walk.total[node] = ZERO
        walk.before[node] = _NONE
        walk.n_open[node] = p.by_outer.offsets[node + 1] - p.by_outer.offsets[node]
        p.out_is_path[slot] = np.int32(0)
        p.out_length[slot] = np.int32(0)
        if walk.n_open[node] == 0:
            queue[tail] = node
            tail += 1
    while head < tail:
        node = queue[head]
        head += 1
        _weigh(p, node)
        for k in range(p.by_inner.offsets[node], p.by_inner.offsets[node + 1]):
            outer = p.links.outer[p.by_inner.order[k]]
            walk.n_open[outer] -= np.int32(1)
            if walk.n_open[outer] == 0:
                queue[tail] = outer
                tail += 1


@device_function(inlined=True)
def _comes_first(walk, a, b):
    """Return whether node a is above node b in the heap."""
    return walk.bound[a] > walk.bound[b] or (walk.bound[a] == walk.bound[b] and a < b)


@device_function(inlined=True)
def _sink(walk, first, n, place):
    """Move the node at a place of a heap of n nodes down to where it belongs."""
    heap = walk.heap
    node = heap[first + place]
    while True:
        child = 2 * place + 1
        if child >= n:
            break
        if child + 1 < n and _comes_first(walk, heap[first + child + 1], heap[first + child]):
            child += 1
        if not _comes_first(walk, heap[first + child], node):
            break
        heap[first + place] = heap[first + child]
        place = child
    heap[first + place] = node


@device_function(inlined=True)
def _push(walk, node, first, size, tail):
    """Put a node into the queue, if it does not wait there; return the new end."""
    if walk.n_open[node]:
        return tail
    walk.n_open[node] = np.int32(1)
    walk.queue[first + tail % size] = node
    return tail + 1


@device_function(inlined=True)
def _take_out(p, last_node, first, size):
    """Take the nodes of a path, and weigh again what lies behind; return the number of nodes."""
    walk = p.walk
    length, node = np.int32(0), last_node
    while node >= 0:
        walk.is_taken[node] = np.int32(1)
        length += np.int32(1)
        node = walk.before[node]
    head = tail = 0
    node = last_node
    while node >= 0:
        for k in range(p.by_inner.offsets[node], p.by_inner.offsets[node + 1]):
            outer = p.links.outer[p.by_inner.order[k]]
            if walk.is_taken[outer] == 0 and walk.before[outer] == node:
                tail = _push(walk, outer, first, size, tail)
        node = walk.before[node]
    while head < tail:
        node = walk.queue[first + head % size]
        head += 1
        walk.n_open[node] = np.int32(0)
        if _weigh(p, node):
            for k in range(p.by_inner.offsets[node], p.by_inner.offsets[node + 1]):
                outer = p.links.outer[p.by_inner.order[k]]
                if walk.is_taken[outer] == 0:
                    tail = _push(walk, outer, first, size, tail)
    return length


@kernel(grain=8)
def _walk_component(i, p):
    """One label: the paths of its component."""
    first, last = p.components.offsets[i], p.components.offsets[i + 1]
    size = last - first
    if size == 0:
        return
    walk = p.walk
    _weigh_all(p, first, last)
    for slot in range(first, last):
        node = p.components.order[slot]
        walk.heap[slot] = node
        walk.bound[node] = walk.total[node]
        walk.n_open[node] = np.int32(0)
    for place in range(size // 2 - 1, -1, -1):
        _sink(walk, first, size, place)
    n, slot = size, first
    while n > 0:
        top = walk.heap[first]
        if walk.is_taken[top] == 0 and walk.total[top] == walk.bound[top] and walk.total[top] > ZERO:
            length = _take_out(p, top, first, size)
            if length >= FEWEST_SPACEPOINTS:
                p.out_last[slot] = top
                p.out_length[slot] = length
                p.out_is_path[slot] = np.int32(1)
                slot += 1
        if walk.is_taken[top] or not walk.total[top] > ZERO:
            n -= 1
            walk.heap[first] = walk.heap[first + n]
        else:
            walk.bound[top] = walk.total[top]
        if n > 0:
            _sink(walk, first, n, 0)


@kernel(grain=512)
def _fill_lists(i, p):
    """One slot: write the points of its path, if it has one."""
    row, start = p.place[i], p.first[i]
    length = p.first[i + 1] - start
    if p.place[i + 1] == row or p.place[i + 1] >= p.out.offsets.shape[0] or start + length > p.out.spacepoint.shape[0]:
        return
    node = p.last[i]
    p.out.event[row] = p.points.event[p.point[node]]
    p.out.offsets[row] = start
    p.out.offsets[row + 1] = start + length
    for k in range(length - 1, -1, -1):
        p.out.spacepoint[start + k] = p.points.spacepoint[p.point[node]]
        node = p.before[node]


def find_paths(
    ws: Workspace, points: GraphPoints, graph: FilteredGraph, scored: ScoredEdges, cut: float, *, only_best: bool
) -> PointLists:
    """Find track candidates.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "events", "graph_nodes" and "kept_edges" must be set; those of "point_lists" and
        "listed_points" are set here.
    points : GraphPoints
        Points.
    graph : FilteredGraph
        Nodes and edges.
    scored : ScoredEdges
        What the network says of the edges.
    cut : float
        Smallest score of an edge of a path, above 0 and below 1.
    only_best : bool
        Whether branchings are removed first: of a node's edges on one side only the best one stays, if it is the best
        one of its other end, too.

    Returns
    -------
    PointLists
        Paths of at least three points, ordered by their component, then the best first.
    """
    nodes, extent = ws.extent("graph_nodes"), ws.extent("graph_links")
    links = _find_links(ws, graph, scored, math.log(cut / (1 - cut)), only_best=only_best)
    by_outer = group_rows(ws, "segmentation.outer", links.outer, extent, nodes, ws.extent("links_by_outer"))
    by_inner = group_rows(ws, "segmentation.inner", links.inner, extent, nodes, ws.extent("links_by_inner"))
    components = _components(ws, points, graph, links, by_outer, by_inner)
    return _walk(ws, points, graph, links, by_outer, by_inner, components)


def _components(
    ws: Workspace, points: GraphPoints, graph: FilteredGraph, links: _Links, by_outer: Groups, by_inner: Groups
) -> Groups:
    """Return the nodes by the label of their component."""
    nodes, slots = ws.extent("graph_nodes"), ws.extent("component_slots")
    label, size, place = (ws.array(f"segmentation.{n}", nodes, np.int32) for n in ("label", "size", "member"))
    of_event = _ComponentPayload(
        links=links,
        points=points,
        point=graph.point,
        counts=ws.counts,
        node_slot=np.int32(nodes.slot),
        link_slot=np.int32(ws.extent("graph_links").slot),
        by_outer=by_outer,
        by_inner=by_inner,
        out_label=label,
        out_size=size,
        out_place=place,
    )
    ws.launch(_find_components, ws.extent("events"), of_event)
    offsets = ws.array("segmentation.component_offsets", nodes, np.int32, extra=1)
    ws.reserve(slots, nodes.capacity)
    ws.scan(size, nodes, offsets, slots)
    order = ws.array("segmentation.component_order", slots, np.int32)
    ws.launch(_order_members, nodes, _MemberPayload(label, place, offsets, order))
    return Groups(offsets, order)


def _find_links(ws: Workspace, graph: FilteredGraph, scored: ScoredEdges, cut: float, *, only_best: bool) -> _Links:
    """Return the edges above the cut [logit]."""
    kept, extent = ws.extent("kept_edges"), ws.extent("graph_links")
    dtype = scored.logit.dtype
    is_link = ws.array("segmentation.is_link", kept, np.int32)
    offsets = ws.array("segmentation.link_offsets", kept, np.int32, extra=1)
    chosen = _CutPayload(
        graph=graph,
        scored=scored,
        cut=dtype.type(cut),
        only_best=np.int32(only_best),
        out_is_link=is_link,
    )
    ws.launch(_cut_edges, kept, chosen)
    ws.scan(is_link, kept, offsets, extent)
    links = _Links(
        inner=ws.array("segmentation.link_inner", extent, np.int32),
        outer=ws.array("segmentation.link_outer", extent, np.int32),
        weight=ws.array("segmentation.link_weight", extent, dtype),
    )
    gather = _LinkPayload(graph=graph, logit=scored.logit, cut=dtype.type(cut), offsets=offsets, out=links)
    ws.launch(_gather_links, kept, gather)
    return links


def _walk(
    ws: Workspace,
    points: GraphPoints,
    graph: FilteredGraph,
    links: _Links,
    by_outer: Groups,
    by_inner: Groups,
    components: Groups,
) -> PointLists:
    """Return the paths of all components."""
    nodes, slots = ws.extent("graph_nodes"), ws.extent("component_slots")
    lists, listed = ws.extent("point_lists"), ws.extent("listed_points")
    dtype = links.weight.dtype
    integers = {name: ws.array(f"segmentation.{name}", nodes, np.int32) for name in ("before", "is_taken", "n_open")}
    payload = _WalkPayload(
        links=links,
        by_outer=by_outer,
        by_inner=by_inner,
        components=components,
        walk=_Walk(
            **integers,
            total=ws.array("segmentation.total", nodes, dtype),
            bound=ws.array("segmentation.bound", nodes, dtype),
            queue=ws.array("segmentation.queue", slots, np.int32),
            heap=ws.array("segmentation.heap", slots, np.int32),
        ),
        out_last=ws.array("segmentation.last", slots, np.int32),
        out_is_path=ws.array("segmentation.is_path", slots, np.int32),
        out_length=ws.array("segmentation.length", slots, np.int32),
    )
    ws.launch(_walk_component, nodes, payload)
    place = ws.array("segmentation.place", slots, np.int32, extra=1)
    first = ws.array("segmentation.first", slots, np.int32, extra=1)
    ws.scan_together(
        slots, ScanColumn(payload.out_is_path, place, lists), ScanColumn(payload.out_length, first, listed)
    )
    out = PointLists(
        offsets=ws.array("point_lists.offsets", lists, np.int32, extra=1),
        spacepoint=ws.array("point_lists.spacepoint", listed, np.int32),
        event=ws.array("point_lists.event", lists, np.int32),
    )
    fill = _FillPayload(
        before=payload.walk.before,
        last=payload.out_last,
        length=payload.out_length,
        place=place,
        first=first,
        point=graph.point,
        points=points,
        out=out,
    )
    ws.launch(_fill_lists, slots, fill)
    return out
