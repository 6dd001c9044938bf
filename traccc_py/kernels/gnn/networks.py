"""The networks that judge edges: a filter that looks at one edge, and one in which nodes and edges learn of each other.

Both are multilayer perceptrons of 32 columns. Their first layer is a sum of what both ends and the edge add to it, so
that a node's part is computed once for all of its edges. The interaction network has four steps: each edge gets the sum
of its own state and an update from both of its ends, each node the same from the sums of its edges on the inner and on
the outer side; both are normalised. Sums run over edges in their order, so their bits depend on nothing else.

References
----------
arXiv:2103.06995, interaction networks for tracks. arXiv:1612.00222, interaction networks. arXiv:1607.06450, the
normalisation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.dense import BLOCK_ROWS
from traccc_py.device.grouping import Groups, group_rows
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Extent, Workspace
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES, Edges
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES, GraphPoints

__all__ = [
    "HIDDEN",
    "N_STEPS",
    "SUM_SCALE",
    "FilterWeights",
    "FilteredGraph",
    "NetworkWeights",
    "ScoredEdges",
    "filter_edges",
    "score_edges",
]

HIDDEN = 32  #: width of all layers
N_STEPS = 4  #: in which nodes and edges learn of each other
SUM_SCALE = 0.3  #: of the sums of a node's edges
_SCALE = scalar(SUM_SCALE)
_LANES = 8  # partial sums, which the compiler adds in parallel
_PER_COLUMN = scalar(1 / HIDDEN)
_EPSILON = scalar(1e-5)  # of the normalisation
_WEIGHT, _BIAS = 0, 1


class FilterWeights(NamedTuple):
    """Weights of the filter; matrices are (inputs, outputs)."""

    ends: Any  # (N_NODE_FEATURES, 2 * HIDDEN) scalar, for the inner and for the outer end
    ends_bias: Any  # (2 * HIDDEN,) scalar
    edge: Any  # (N_EDGE_FEATURES, HIDDEN) scalar
    hidden: Any  # (HIDDEN, HIDDEN) scalar
    hidden_bias: Any  # (HIDDEN,) scalar
    out: Any  # (HIDDEN,) scalar
    out_bias: Any  # (1,) scalar


class NetworkWeights(NamedTuple):
    """Weights of the interaction network; matrices are (inputs, outputs), and there is one for each step."""

    node1: Any  # (N_NODE_FEATURES, HIDDEN) scalar
    node1_bias: Any
    node2: Any  # (HIDDEN, HIDDEN) scalar
    node2_bias: Any
    edge1: Any  # (N_EDGE_FEATURES, HIDDEN) scalar
    edge1_bias: Any
    edge2: Any  # (HIDDEN, HIDDEN) scalar
    edge2_bias: Any
    ends: Any  # (N_STEPS + 1, HIDDEN, 2 * HIDDEN) scalar
    ends_bias: Any
    message: Any  # (N_STEPS + 1, HIDDEN, HIDDEN) scalar
    edge_update: Any  # (N_STEPS, HIDDEN, HIDDEN) scalar
    edge_update_bias: Any
    edge_norm: Any  # (N_STEPS, 2, HIDDEN) scalar, weight and bias
    node_hidden: Any  # (N_STEPS, 3 * HIDDEN, HIDDEN) scalar
    node_hidden_bias: Any
    node_update: Any  # (N_STEPS, HIDDEN, HIDDEN) scalar
    node_update_bias: Any
    node_norm: Any  # (N_STEPS, 2, HIDDEN) scalar
    out1: Any  # (HIDDEN, HIDDEN) scalar
    out1_bias: Any
    out2: Any  # (HIDDEN,) scalar
    out2_bias: Any  # (1,) scalar


class FilteredGraph(NamedTuple):
    """What the filter leaves of a graph. Extents: "graph_nodes" and "kept_edges"."""

    point: Any  # (n_nodes,) int32, row of the points, ascending
    node_features: Any  # (n_nodes, N_NODE_FEATURES) scalar
    inner: Any  # (n_edges,) int32, node
    outer: Any  # (n_edges,) int32, node, ascending
    edge_features: Any  # (n_edges, N_EDGE_FEATURES) scalar


class ScoredEdges(NamedTuple):
    """What the network says of the edges that the filter left. Extent: "kept_edges"."""

    logit: Any  # (n_edges,) scalar, above 0 where an edge is more likely true than not
    of_outer: Groups  # edges by their outer node
    of_inner: Groups  # edges by their inner node


class _FilterPayload(NamedTuple):
    edges: Edges
    ends: Any  # (n_points, 2 * HIDDEN) scalar, what points add to the first layer
    weights: FilterWeights
    cut: Any  # scalar, a logit
    out_is_kept: Any  # (n_edges,) int32
    out_is_node: Any  # (n_points,) int32, 1 for ends of edges that are kept


class _NodePayload(NamedTuple):
    points: GraphPoints
    offsets: Any  # (n_points + 1,) int32, node of each point that is one
    out: FilteredGraph


class _EdgePayload(NamedTuple):
    edges: Edges
    offsets: Any  # (n_edges + 1,) int32, place of each edge that is kept
    node: Any  # (n_points + 1,) int32
    out: FilteredGraph


class _MessagePayload(NamedTuple):
    inner: Any  # (n_edges,) int32
    outer: Any  # (n_edges,) int32
    ends: Any  # (n_nodes, 2 * HIDDEN) scalar
    out_message: Any  # (n_edges, HIDDEN) scalar; holds what the edges add


class _UpdatePayload(NamedTuple):
    update: Any  # (n, HIDDEN) scalar
    norm: Any  # (2, HIDDEN) scalar
    out_state: Any  # (n, HIDDEN) scalar


class _SumPayload(NamedTuple):
    nodes: Any  # (n_nodes, HIDDEN) scalar
    edges: Any  # (n_edges, HIDDEN) scalar
    of_outer: Groups  # edges by their outer node
    of_inner: Groups
    out_joined: Any  # (n_nodes, 3 * HIDDEN) scalar: the node's state, sums of its edges inwards and outwards


class _ScorePayload(NamedTuple):
    hidden: Any  # (n_edges, HIDDEN) scalar
    weights: Any  # (HIDDEN,) scalar
    bias: Any  # (1,) scalar
    out_logit: Any  # (n_edges,) scalar


@kernel(grain=256, scratch=(Scratch(HIDDEN), Scratch(HIDDEN)))
def _filter_edges(i, p, u, v):
    """One edge: whether it is kept."""
    w, inner, outer = p.weights, p.edges.inner[i], p.edges.outer[i]
    for k in range(HIDDEN):
        u[k] = p.ends[inner, k] + p.ends[outer, HIDDEN + k]
        v[k] = w.hidden_bias[k]
    for j in range(N_EDGE_FEATURES):
        x = p.edges.features[i, j]
        for k in range(HIDDEN):
            u[k] += x * w.edge[j, k]
    for j in range(HIDDEN):
        x = u[j]
        if x > ZERO:
            for k in range(HIDDEN):
                v[k] += x * w.hidden[j, k]
    logit = w.out_bias[0]
    for k in range(HIDDEN):
        logit += max(v[k], ZERO) * w.out[k]
    is_kept = logit > p.cut
    p.out_is_kept[i] = np.int32(is_kept)
    if is_kept:  # several edges of a node write the same
        p.out_is_node[inner] = np.int32(1)
        p.out_is_node[outer] = np.int32(1)


@kernel(grain=2048)
def _gather_nodes(i, p):
    """One point: write its node, if it is one."""
    node = p.offsets[i]
    if p.offsets[i + 1] == node or p.offsets[i + 1] > p.out.point.shape[0]:
        return
    p.out.point[node] = i
    for k in range(N_NODE_FEATURES):
        p.out.node_features[node, k] = p.points.features[i, k]


@kernel(grain=2048)
def _gather_edges(i, p):
    """One edge: write it to its place, if it is kept."""
    row = p.offsets[i]
    if p.offsets[i + 1] == row or p.offsets[i + 1] > p.out.inner.shape[0]:
        return
    p.out.inner[row] = p.node[p.edges.inner[i]]
    p.out.outer[row] = p.node[p.edges.outer[i]]
    for k in range(N_EDGE_FEATURES):
        p.out.edge_features[row, k] = p.edges.features[i, k]


@kernel(grain=1024)
def _add_ends(i, p):
    """One edge: add what its ends say to its message, and rectify it."""
    inner, outer = p.inner[i], p.outer[i]
    for k in range(HIDDEN):
        total = p.out_message[i, k] + p.ends[inner, k] + p.ends[outer, HIDDEN + k]
        p.out_message[i, k] = max(total, ZERO)


@device_function(inlined=True)
def _folded(part):
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]))


@kernel(grain=1024, scratch=(Scratch(_LANES),))
def _update(i, p, part):
    """One row: add the update to its state, and normalise that."""
    state = p.out_state
    for lane in range(_LANES):
        part[lane] = ZERO
    for first in range(0, HIDDEN, _LANES):
        for lane in range(_LANES):
            x = state[i, first + lane] + p.update[i, first + lane]
            state[i, first + lane] = x
            part[lane] += x
    mean = _folded(part) * _PER_COLUMN
    for lane in range(_LANES):
        part[lane] = ZERO
    for first in range(0, HIDDEN, _LANES):
        for lane in range(_LANES):
            x = state[i, first + lane] - mean
            part[lane] += x * x
    factor = ONE / math.sqrt(_folded(part) * _PER_COLUMN + _EPSILON)
    for k in range(HIDDEN):
        state[i, k] = (state[i, k] - mean) * factor * p.norm[_WEIGHT, k] + p.norm[_BIAS, k]


@device_function(inlined=True)
def _add_edges(p, groups, i, first_column):
    """Write the scaled sum of a group of edges to columns of the joined row."""
    for k in range(HIDDEN):
        p.out_joined[i, first_column + k] = ZERO
    for entry in range(groups.offsets[i], groups.offsets[i + 1]):
        edge = groups.order[entry]
        for k in range(HIDDEN):
            p.out_joined[i, first_column + k] += p.edges[edge, k]
    for k in range(HIDDEN):
        p.out_joined[i, first_column + k] *= _SCALE


@kernel(grain=512)
def _join_node(i, p):
    """One node: its state and the sums of its edges."""
    for k in range(HIDDEN):
        p.out_joined[i, k] = p.nodes[i, k]
    _add_edges(p, p.of_outer, i, HIDDEN)
    _add_edges(p, p.of_inner, i, 2 * HIDDEN)


@kernel(grain=1024, scratch=(Scratch(_LANES),))
def _score(i, p, part):
    """One edge: its logit."""
    for lane in range(_LANES):
        part[lane] = ZERO
    for first in range(0, HIDDEN, _LANES):
        for lane in range(_LANES):
            part[lane] += p.hidden[i, first + lane] * p.weights[first + lane]
    p.out_logit[i] = _folded(part) + p.bias[0]


def _rows(ws: Workspace, name: str, extent: Extent, dtype: Any, columns: int) -> Any:
    """Return an array for `Device.dense`."""
    return ws.array(f"network.{name}", extent, dtype, columns, extra=BLOCK_ROWS)


def filter_edges(ws: Workspace, points: GraphPoints, edges: Edges, weights: FilterWeights, cut: float) -> FilteredGraph:
    """Leave out the edges that can't be any particle's, and the nodes without others.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "graph_points" and "graph_edges" must be set; those of "graph_nodes" and "kept_edges" are
        set here.
    points : GraphPoints
        Nodes; their features must have `BLOCK_ROWS` rows to spare.
    edges : Edges
        Edges.
    weights : FilterWeights
        On the device.
    cut : float
        Smallest score of an edge that is kept, from 0 to 1.

    Returns
    -------
    FilteredGraph
        In the order of points and edges.
    """
    n_points, n_edges = ws.extent("graph_points"), ws.extent("graph_edges")
    nodes, kept = ws.extent("graph_nodes"), ws.extent("kept_edges")
    dtype = points.features.dtype
    ends = _rows(ws, "filter_ends", n_points, dtype, 2 * HIDDEN)
    ws.device.dense(n_points, points.features, weights.ends, weights.ends_bias, ends)
    is_kept = ws.array("network.is_kept", n_edges, np.int32)
    is_node = ws.array("network.is_node", n_points, np.int32)
    ws.clear(is_node)
    payload = _FilterPayload(
        edges=edges,
        ends=ends,
        weights=weights,
        cut=dtype.type(_logit(cut)),
        out_is_kept=is_kept,
        out_is_node=is_node,
    )
    ws.launch(_filter_edges, n_edges, payload)
    node = ws.array("network.node", n_points, np.int32, extra=1)
    place = ws.array("network.place", n_edges, np.int32, extra=1)
    ws.scan(is_node, n_points, node, nodes)
    ws.scan(is_kept, n_edges, place, kept)
    out = FilteredGraph(
        point=ws.array("network.point", nodes, np.int32),
        node_features=_rows(ws, "node_features", nodes, dtype, N_NODE_FEATURES),
        inner=ws.array("network.inner", kept, np.int32),
        outer=ws.array("network.outer", kept, np.int32),
        edge_features=_rows(ws, "edge_features", kept, dtype, N_EDGE_FEATURES),
    )
    ws.launch(_gather_nodes, n_points, _NodePayload(points=points, offsets=node, out=out))
    ws.launch(_gather_edges, n_edges, _EdgePayload(edges=edges, offsets=place, node=node, out=out))
    return out


def _logit(score: float) -> float:
    return math.log(score / (1 - score)) if 0 < score < 1 else math.copysign(math.inf, score - 0.5)


def score_edges(ws: Workspace, graph: FilteredGraph, weights: NetworkWeights) -> ScoredEdges:
    """Judge edges by the interaction network.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "graph_nodes" and "kept_edges" must be set.
    graph : FilteredGraph
        The graph.
    weights : NetworkWeights
        On the device.

    Returns
    -------
    ScoredEdges
        Logits, and the edges by their ends.
    """
    n_nodes, n_edges = ws.extent("graph_nodes"), ws.extent("kept_edges")
    dtype, w = graph.node_features.dtype, weights
    nodes, edges = (_rows(ws, name, n, dtype, HIDDEN) for name, n in (("nodes", n_nodes), ("edges", n_edges)))
    node_hidden, message = (_rows(ws, n, e, dtype, HIDDEN) for n, e in (("node_hidden", n_nodes), ("message", n_edges)))
    node_update, edge_update = (
        _rows(ws, n, e, dtype, HIDDEN) for n, e in (("node_update", n_nodes), ("edge_update", n_edges))
    )
    ends, joined = (_rows(ws, n, n_nodes, dtype, c) for n, c in (("ends", 2 * HIDDEN), ("joined", 3 * HIDDEN)))
    ws.device.dense(n_nodes, graph.node_features, w.node1, w.node1_bias, node_hidden, is_rectified=True)
    ws.device.dense(n_nodes, node_hidden, w.node2, w.node2_bias, nodes)
    ws.device.dense(n_edges, graph.edge_features, w.edge1, w.edge1_bias, message, is_rectified=True)
    ws.device.dense(n_edges, message, w.edge2, w.edge2_bias, edges)
    of_outer = group_rows(ws, "network.outer", graph.outer, n_edges, n_nodes, ws.extent("edges_by_outer"))
    of_inner = group_rows(ws, "network.inner", graph.inner, n_edges, n_nodes, ws.extent("edges_by_inner"))
    no_bias = ws.array("network.no_bias", ws.fixed("columns", HIDDEN), dtype)
    ws.clear(no_bias)

    def tell_edges(step: int) -> None:
        ws.device.dense(n_nodes, nodes, w.ends[step], w.ends_bias[step], ends)
        ws.device.dense(n_edges, edges, w.message[step], no_bias, message)
        ws.launch(_add_ends, n_edges, _MessagePayload(graph.inner, graph.outer, ends, message))

    for step in range(N_STEPS):
        tell_edges(step)
        ws.device.dense(n_edges, message, w.edge_update[step], w.edge_update_bias[step], edge_update)
        ws.launch(_update, n_edges, _UpdatePayload(edge_update, w.edge_norm[step], edges))
        ws.launch(_join_node, n_nodes, _SumPayload(nodes, edges, of_outer, of_inner, joined))
        ws.device.dense(n_nodes, joined, w.node_hidden[step], w.node_hidden_bias[step], node_hidden, is_rectified=True)
        ws.device.dense(n_nodes, node_hidden, w.node_update[step], w.node_update_bias[step], node_update)
        ws.launch(_update, n_nodes, _UpdatePayload(node_update, w.node_norm[step], nodes))
    tell_edges(N_STEPS)
    ws.device.dense(n_edges, message, w.out1, w.out1_bias, edge_update, is_rectified=True)
    logit = ws.array("network.logit", n_edges, dtype)
    ws.launch(_score, n_edges, _ScorePayload(edge_update, w.out2, w.out2_bias, logit))
    return ScoredEdges(logit, of_outer, of_inner)
