"""The networks that judge edges: a filter that looks at one edge, and one in which nodes and edges learn of each other.

Both are multilayer perceptrons of 32 columns. Their first layer is a sum of what both ends and the edge add to it, so
that a node's part is computed once for all of its edges. The interaction network has four steps: each edge gets the sum
of its own state and an update from both of its ends, each node the same from the sums of its edges on the inner and on
the outer side; both are normalised. Sums run over edges in their order, so their bits depend on nothing else.

Each index of a kernel is a block of rows, which go through all layers between two gathers together, while they are in
the cache. On CUDA each row of a block has a thread (`networks_cuda`).

References
----------
arXiv:2103.06995, interaction networks for tracks. arXiv:1612.00222, interaction networks. arXiv:1607.06450, the
normalisation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.products import BLOCK_ROWS, COLUMNS_TOGETHER, ROWS_TOGETHER, add_columns, add_products
from traccc_py.device.grouping import Groups, group_rows
from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Extent, Workspace
from traccc_py.kernels.constants import ONE, ZERO
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES, Edges
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES, GraphPoints

__all__ = [
    "HIDDEN",
    "N_STEPS",
    "ROOM",
    "SCALE",
    "SUM_SCALE",
    "FilterWeights",
    "FilteredGraph",
    "JudgedEdges",
    "NetworkWeights",
    "RowCount",
    "ScoredEdges",
    "add_layer",
    "block_count",
    "edges_of_nodes",
    "filter_edges",
    "judge_edges",
    "kept_graph",
    "logit_cut",
    "row_count",
    "rows_of_block",
    "score_edges",
]

HIDDEN = 32  #: width of all layers
N_STEPS = 4  #: in which nodes and edges learn of each other
SUM_SCALE = 0.3  #: of the sums of a node's edges
SCALE = scalar(SUM_SCALE)
_PER_COLUMN = scalar(1 / HIDDEN)
_EPSILON = scalar(1e-5)  # of the normalisation
_WEIGHT, _BIAS = 0, 1
_STATES, _WIDE, _ROWS = Scratch(BLOCK_ROWS * HIDDEN), Scratch(2 * BLOCK_ROWS * HIDDEN), Scratch(BLOCK_ROWS)
_CUDA = "traccc_py.kernels.gnn.networks_cuda:"
ROOM = HIDDEN + 1  #: elements of a row in the memory that a block's threads share; one more avoids conflicts of banks
_PAIR = (Scratch(BLOCK_ROWS * ROOM), Scratch(BLOCK_ROWS * ROOM))


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


class JudgedEdges(NamedTuple):
    """What the filter says of the edges. Extents: "graph_edges" and "graph_points"."""

    logit: Any  # (n_edges,) scalar
    is_kept: Any  # (n_edges,) int32
    is_node: Any  # (n_points,) int32, 1 for ends of edges that are kept


class ScoredEdges(NamedTuple):
    """What the network says of the edges that the filter left. Extent: "kept_edges"."""

    logit: Any  # (n_edges,) scalar, above 0 where an edge is more likely true than not
    of_outer: Groups  # edges by their outer node
    of_inner: Groups  # edges by their inner node


class RowCount(NamedTuple):
    """How many rows there are."""

    counts: Any  # sizes of all collections
    slot: Any  # int32


class _EndsPayload(NamedTuple):
    size: RowCount
    features: Any  # (n_points, N_NODE_FEATURES) scalar
    ends: Any  # (N_NODE_FEATURES, 2 * HIDDEN) scalar, weights
    ends_bias: Any
    out_ends: Any  # (n_points, 2 * HIDDEN) scalar


class _FilterPayload(NamedTuple):
    size: RowCount
    edges: Edges
    ends: Any  # (n_points, 2 * HIDDEN) scalar, what points add to the first layer
    weights: FilterWeights
    cut: Any  # scalar, a logit
    out_logit: Any  # (n_edges,) scalar
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


class _EncodeEdgesPayload(NamedTuple):
    size: RowCount
    features: Any  # (n_edges, N_EDGE_FEATURES) scalar
    first: Any  # (N_EDGE_FEATURES, HIDDEN) scalar, weights
    first_bias: Any
    second: Any  # (HIDDEN, HIDDEN) scalar, weights
    second_bias: Any
    out_state: Any  # (n_edges, HIDDEN) scalar


class _EncodeNodesPayload(NamedTuple):
    size: RowCount
    features: Any  # (n_nodes, N_NODE_FEATURES) scalar
    first: Any  # (N_NODE_FEATURES, HIDDEN) scalar, weights
    first_bias: Any
    second: Any  # (HIDDEN, HIDDEN) scalar, weights
    second_bias: Any
    ends: Any  # (HIDDEN, 2 * HIDDEN) scalar, weights
    ends_bias: Any
    out_state: Any  # (n_nodes, HIDDEN) scalar
    out_ends: Any  # (n_nodes, 2 * HIDDEN) scalar


class _EdgeStepPayload(NamedTuple):
    size: RowCount
    inner: Any  # (n_edges,) int32
    outer: Any  # (n_edges,) int32
    ends: Any  # (n_nodes, 2 * HIDDEN) scalar, what nodes add to the first layer
    message: Any  # (HIDDEN, HIDDEN) scalar, weights
    update: Any  # (HIDDEN, HIDDEN) scalar, weights
    update_bias: Any
    norm: Any  # (2, HIDDEN) scalar
    out_state: Any  # (n_edges, HIDDEN) scalar


class _NodeStepPayload(NamedTuple):
    size: RowCount
    edges: Any  # (n_edges, HIDDEN) scalar
    of_outer: Groups  # edges by their outer node
    of_inner: Groups
    hidden: Any  # (3 * HIDDEN, HIDDEN) scalar, weights: of the node's state, of its edges inwards and outwards
    hidden_bias: Any
    update: Any  # (HIDDEN, HIDDEN) scalar, weights
    update_bias: Any
    norm: Any  # (2, HIDDEN) scalar
    ends: Any  # (HIDDEN, 2 * HIDDEN) scalar, weights of what comes after this step
    ends_bias: Any
    out_state: Any  # (n_nodes, HIDDEN) scalar
    out_ends: Any  # (n_nodes, 2 * HIDDEN) scalar


class _ScorePayload(NamedTuple):
    size: RowCount
    inner: Any  # (n_edges,) int32
    outer: Any  # (n_edges,) int32
    ends: Any  # (n_nodes, 2 * HIDDEN) scalar
    state: Any  # (n_edges, HIDDEN) scalar
    message: Any  # (HIDDEN, HIDDEN) scalar, weights
    hidden: Any  # (HIDDEN, HIDDEN) scalar, weights
    hidden_bias: Any
    weights: Any  # (HIDDEN,) scalar
    bias: Any  # (1,) scalar
    out_logit: Any  # (n_edges,) scalar


@device_function(inlined=True)
def rows_of_block(size, first):
    """Return how many rows the block that begins at a row has; 0 or less if there is no such row."""
    return min(size.counts[size.slot] - first, np.int32(BLOCK_ROWS))


@device_function(inlined=True)
def add_layer(x, first, n_in, weights, width, sums, first_sum):
    """Add the products of a block of rows of x with weights to the sums; both begin at a row."""
    for column in range(0, width, COLUMNS_TOGETHER):
        for row in range(0, BLOCK_ROWS, ROWS_TOGETHER):
            place = (first_sum + row) * width + column
            add_products(x, (first + row) * n_in, n_in, n_in, weights, column, width, sums, place, width)


@device_function(inlined=True)
def _write_ends(p, x, n_in, first, n, zeros, sums):
    """Write what n nodes of states or features x add to the first layer of networks of edges."""
    for k in range(HIDDEN):
        zeros[k] = ZERO
    for row in range(0, 2 * BLOCK_ROWS * HIDDEN, 2 * HIDDEN):
        add_columns(p.ends_bias, 0, zeros, 0, sums, row)
        add_columns(p.ends_bias, HIDDEN, zeros, 0, sums, row + HIDDEN)
    add_layer(x, first, n_in, p.ends, 2 * HIDDEN, sums, 0)
    for half in range(0, 2 * n * HIDDEN, HIDDEN):
        add_columns(sums, half, zeros, 0, p.out_ends, 2 * HIDDEN * first + half)


@device_function(inlined=True)
def _add_ends(ends, inner, outer, i, n, out):
    """Write the sums of what both ends of n edges from edge i on add."""
    for row in range(n):
        a, b = 2 * HIDDEN * inner[i + row], 2 * HIDDEN * outer[i + row] + HIDDEN
        add_columns(ends, a, ends, b, out, row * HIDDEN)


@device_function(inlined=True)
def _repeat(bias, out):
    """Write the bias to each row of a block."""
    for row in range(BLOCK_ROWS):
        for k in range(HIDDEN):
            out[row * HIDDEN + k] = bias[k]


@device_function(inlined=True)
def _rectify(block):
    for k in range(BLOCK_ROWS * HIDDEN):
        block[k] = max(block[k], ZERO) + ZERO  # without the sum the compiler stores only what changes, one by one


# The lanes of these sums are variables: the compiler keeps them in one vector register.


@device_function(inlined=True)
def logit_of(x, first, weights, bias):
    """Return the sum of a row's weighted columns that are greater than zero; `first` is the row's first element."""
    a = b = c = d = e = f = g = h = ZERO
    for k in range(0, HIDDEN, 8):
        n = first + k
        a += max(x[n], ZERO) * weights[k]
        b += max(x[n + 1], ZERO) * weights[k + 1]
        c += max(x[n + 2], ZERO) * weights[k + 2]
        d += max(x[n + 3], ZERO) * weights[k + 3]
        e += max(x[n + 4], ZERO) * weights[k + 4]
        f += max(x[n + 5], ZERO) * weights[k + 5]
        g += max(x[n + 6], ZERO) * weights[k + 6]
        h += max(x[n + 7], ZERO) * weights[k + 7]
    return ((a + e) + (c + g)) + ((b + f) + (d + h)) + bias[0]


@device_function(inlined=True)
def mean_of(x, first):
    """Return the mean of a row."""
    a = b = c = d = e = f = g = h = ZERO
    for n in range(first, first + HIDDEN, 8):
        a += x[n]
        b += x[n + 1]
        c += x[n + 2]
        d += x[n + 3]
        e += x[n + 4]
        f += x[n + 5]
        g += x[n + 6]
        h += x[n + 7]
    return (((a + e) + (c + g)) + ((b + f) + (d + h))) * _PER_COLUMN


@device_function(inlined=True)
def _squared(x):
    return x * x


@device_function(inlined=True)
def variance_of(x, first, mean):
    """Return the variance of a row."""
    a = b = c = d = e = f = g = h = ZERO
    for n in range(first, first + HIDDEN, 8):
        a += _squared(x[n] - mean)
        b += _squared(x[n + 1] - mean)
        c += _squared(x[n + 2] - mean)
        d += _squared(x[n + 3] - mean)
        e += _squared(x[n + 4] - mean)
        f += _squared(x[n + 5] - mean)
        g += _squared(x[n + 6] - mean)
        h += _squared(x[n + 7] - mean)
    return (((a + e) + (c + g)) + ((b + f) + (d + h))) * _PER_COLUMN


@device_function(inlined=True)
def normalised(x, mean, factor, norm, column):
    """Return a column of a row, normalised."""
    return (x - mean) * factor * norm[_WEIGHT, column] + norm[_BIAS, column]


@device_function(inlined=True)
def factor_of(variance):
    """Return what the columns of a row are multiplied by."""
    return ONE / math.sqrt(variance + _EPSILON)


@device_function(inlined=True)
def _normalise(x, n, norm, mean, factor, state, first):
    """Write a block of rows, normalised, to n states."""
    for row in range(BLOCK_ROWS):
        mean[row] = mean_of(x, row * HIDDEN)
    for row in range(BLOCK_ROWS):
        factor[row] = variance_of(x, row * HIDDEN, mean[row])
    for row in range(BLOCK_ROWS):
        factor[row] = factor_of(factor[row])
    for row in range(n):
        for k in range(HIDDEN):
            state[first + row, k] = normalised(x[row * HIDDEN + k], mean[row], factor[row], norm, k)


@device_function(inlined=True)
def _add_state(state, i, n, bias, out):
    """Write the sums of bias and the states of n rows from row i on."""
    for row in range(n):
        add_columns(state, HIDDEN * (i + row), bias, 0, out, row * HIDDEN)


@device_function(inlined=True)
def keep_edge(p, i, logit):
    """Write the logit of edge i, and whether it is kept."""
    is_kept = logit > p.cut
    p.out_logit[i] = logit
    p.out_is_kept[i] = np.int32(is_kept)
    if is_kept:  # several edges of a node write the same
        p.out_is_node[p.edges.inner[i]] = np.int32(1)
        p.out_is_node[p.edges.outer[i]] = np.int32(1)


@kernel(grain=16, scratch=(Scratch(HIDDEN), _WIDE), cuda=CudaBody(f"{_CUDA}prepare_points", BLOCK_ROWS))
def _prepare_points(i, p, zeros, sums):
    """Write what a block of points adds to the filter of edges."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n > 0:
        _write_ends(p, p.features, N_NODE_FEATURES, first, n, zeros, sums)


@kernel(grain=8, scratch=(_STATES, _STATES), cuda=CudaBody(f"{_CUDA}filter_edges", BLOCK_ROWS, _PAIR))
def _filter_edges(i, p, u, v):
    """Decide for a block of edges whether each is kept."""
    first, w = i * np.int32(BLOCK_ROWS), p.weights
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _add_ends(p.ends, p.edges.inner, p.edges.outer, first, n, u)
    add_layer(p.edges.features, first, N_EDGE_FEATURES, w.edge, HIDDEN, u, 0)
    _rectify(u)
    _repeat(w.hidden_bias, v)
    add_layer(u, 0, HIDDEN, w.hidden, HIDDEN, v, 0)
    for row in range(n):
        keep_edge(p, first + row, logit_of(v, row * HIDDEN, w.out, w.out_bias))


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


@device_function(inlined=True)
def _encode(p, first, n, n_features, u, v):
    """Write the states of n rows."""
    _repeat(p.first_bias, u)
    add_layer(p.features, first, n_features, p.first, HIDDEN, u, 0)
    _rectify(u)
    _repeat(p.second_bias, v)
    add_layer(u, 0, HIDDEN, p.second, HIDDEN, v, 0)
    for row in range(n):
        for k in range(HIDDEN):
            p.out_state[first + row, k] = v[row * HIDDEN + k]


@kernel(grain=8, scratch=(_STATES, _STATES, _WIDE), cuda=CudaBody(f"{_CUDA}encode_nodes", BLOCK_ROWS, _PAIR))
def _encode_nodes(i, p, u, v, sums):
    """Write the states of a block of nodes, and what they add to networks of edges."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _encode(p, first, n, N_NODE_FEATURES, u, v)
    _write_ends(p, p.out_state, HIDDEN, first, n, u, sums)


@kernel(grain=8, scratch=(_STATES, _STATES), cuda=CudaBody(f"{_CUDA}encode_edges", BLOCK_ROWS, _PAIR))
def _encode_edges(i, p, u, v):
    """Write the states of a block of edges."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _encode(p, first, n, N_EDGE_FEATURES, u, v)


@kernel(grain=8, scratch=(_STATES, _STATES, _ROWS, _ROWS), cuda=CudaBody(f"{_CUDA}tell_edges", BLOCK_ROWS, _PAIR))
def _tell_edges(i, p, u, v, mean, factor):
    """Add what their ends tell them to the states of a block of edges, and normalise these."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _add_ends(p.ends, p.inner, p.outer, first, n, u)
    add_layer(p.out_state, first, HIDDEN, p.message, HIDDEN, u, 0)
    _rectify(u)
    _add_state(p.out_state, first, n, p.update_bias, v)
    add_layer(u, 0, HIDDEN, p.update, HIDDEN, v, 0)
    _normalise(v, n, p.norm, mean, factor, p.out_state, first)


@device_function(inlined=True)
def _sum_edges(p, groups, i, first, out):
    """Write the scaled sum of a group of edges to the elements from `first` on."""
    for k in range(HIDDEN):
        out[first + k] = ZERO
    for entry in range(groups.offsets[i], groups.offsets[i + 1]):
        add_columns(out, first, p.edges, HIDDEN * groups.order[entry], out, first)
    for k in range(HIDDEN):
        out[first + k] *= SCALE


@kernel(
    grain=8,
    scratch=(Scratch(3 * BLOCK_ROWS * HIDDEN), _STATES, _STATES, _ROWS, _ROWS),
    cuda=CudaBody(f"{_CUDA}tell_nodes", BLOCK_ROWS, _PAIR),
)
def _tell_nodes(i, p, joined, u, v, mean, factor):
    """Add what their edges tell them to the states of a block of nodes, and normalise these."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    for row in range(n):
        place = 3 * HIDDEN * row
        for k in range(HIDDEN):
            joined[place + k] = p.out_state[first + row, k]
        _sum_edges(p, p.of_outer, first + row, place + HIDDEN, joined)
        _sum_edges(p, p.of_inner, first + row, place + 2 * HIDDEN, joined)
    _repeat(p.hidden_bias, u)
    add_layer(joined, 0, 3 * HIDDEN, p.hidden, HIDDEN, u, 0)
    _rectify(u)
    _add_state(p.out_state, first, n, p.update_bias, v)
    add_layer(u, 0, HIDDEN, p.update, HIDDEN, v, 0)
    _normalise(v, n, p.norm, mean, factor, p.out_state, first)
    _write_ends(p, p.out_state, HIDDEN, first, n, u, joined)


@kernel(grain=8, scratch=(_STATES, _STATES), cuda=CudaBody(f"{_CUDA}score_edges", BLOCK_ROWS, _PAIR))
def _score_edges(i, p, u, v):
    """Write the logits of a block of edges."""
    first = i * np.int32(BLOCK_ROWS)
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _add_ends(p.ends, p.inner, p.outer, first, n, u)
    add_layer(p.state, first, HIDDEN, p.message, HIDDEN, u, 0)
    _rectify(u)
    _repeat(p.hidden_bias, v)
    add_layer(u, 0, HIDDEN, p.hidden, HIDDEN, v, 0)
    for row in range(n):
        p.out_logit[first + row] = logit_of(v, row * HIDDEN, p.weights, p.bias)


def _rows(ws: Workspace, name: str, extent: Extent, dtype: Any, columns: int) -> Any:
    """Return an array with room for a whole block at its end."""
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
    judged = judge_edges(ws, points, edges, weights, logit_cut(cut))
    return kept_graph(ws, points, edges, judged)


def judge_edges(ws: Workspace, points: GraphPoints, edges: Edges, weights: FilterWeights, cut: float) -> JudgedEdges:
    """Judge edges by the filter.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "graph_points" and "graph_edges" must be set.
    points : GraphPoints
        Nodes; their features must have `BLOCK_ROWS` rows to spare.
    edges : Edges
        Edges.
    weights : FilterWeights
        On the device.
    cut : float
        Logit above which an edge is kept.
    """
    n_points, n_edges = ws.extent("graph_points"), ws.extent("graph_edges")
    dtype = points.features.dtype
    ends = _rows(ws, "filter_ends", n_points, dtype, 2 * HIDDEN)
    prepared = _EndsPayload(row_count(ws, n_points), points.features, weights.ends, weights.ends_bias, ends)
    ws.launch(_prepare_points, block_count(ws, n_points), prepared)
    judged = JudgedEdges(
        logit=ws.array("network.filter_logit", n_edges, dtype),
        is_kept=ws.array("network.is_kept", n_edges, np.int32),
        is_node=ws.array("network.is_node", n_points, np.int32),
    )
    ws.clear(judged.is_node)
    payload = _FilterPayload(
        size=row_count(ws, n_edges),
        edges=edges,
        ends=ends,
        weights=weights,
        cut=dtype.type(cut),
        out_logit=judged.logit,
        out_is_kept=judged.is_kept,
        out_is_node=judged.is_node,
    )
    ws.launch(_filter_edges, block_count(ws, n_edges), payload)
    return judged


def kept_graph(ws: Workspace, points: GraphPoints, edges: Edges, judged: JudgedEdges) -> FilteredGraph:
    """Gather the edges that are kept, and their ends.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "graph_points" and "graph_edges" must be set; those of "graph_nodes" and "kept_edges" are
        set here.
    points : GraphPoints
        Nodes.
    edges : Edges
        Edges.
    judged : JudgedEdges
        Which of them are kept.
    """
    n_points, n_edges = ws.extent("graph_points"), ws.extent("graph_edges")
    nodes, kept = ws.extent("graph_nodes"), ws.extent("kept_edges")
    dtype = points.features.dtype
    node = ws.array("network.node", n_points, np.int32, extra=1)
    place = ws.array("network.place", n_edges, np.int32, extra=1)
    ws.scan(judged.is_node, n_points, node, nodes)
    ws.scan(judged.is_kept, n_edges, place, kept)
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


def row_count(ws: Workspace, extent: Extent) -> RowCount:
    """Return where kernels find the number of rows."""
    return RowCount(ws.counts, np.int32(extent.slot))


def block_count(ws: Workspace, extent: Extent) -> int:
    """Return the number of blocks of rows; where sizes stay on the device, of those that there is room for."""
    return -(-(ws.size(extent) if ws.device.sizes_are_on_host else extent.capacity) // BLOCK_ROWS)


def logit_cut(score: float) -> float:
    """Return the logit of a score; that of 0 is below, that of 1 above all others."""
    return math.log(score / (1 - score)) if 0 < score < 1 else math.copysign(math.inf, score - 0.5)


def edges_of_nodes(ws: Workspace, graph: FilteredGraph) -> tuple[Groups, Groups]:
    """Return the edges of a graph by their outer node, and by their inner one."""
    n_nodes, n_edges = ws.extent("graph_nodes"), ws.extent("kept_edges")
    of_outer = group_rows(ws, "network.outer", graph.outer, n_edges, n_nodes, ws.extent("edges_by_outer"))
    of_inner = group_rows(ws, "network.inner", graph.inner, n_edges, n_nodes, ws.extent("edges_by_inner"))
    return of_outer, of_inner


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
    ends = _rows(ws, "ends", n_nodes, dtype, 2 * HIDDEN)
    of_nodes, of_edges = row_count(ws, n_nodes), row_count(ws, n_edges)
    node_blocks, edge_blocks = block_count(ws, n_nodes), block_count(ws, n_edges)
    encoder = (w.node1, w.node1_bias, w.node2, w.node2_bias, w.ends[0], w.ends_bias[0])
    encoded = _EncodeNodesPayload(of_nodes, graph.node_features, *encoder, nodes, ends)
    ws.launch(_encode_nodes, node_blocks, encoded)
    weights_of_edges = (w.edge1, w.edge1_bias, w.edge2, w.edge2_bias)
    ws.launch(_encode_edges, edge_blocks, _EncodeEdgesPayload(of_edges, graph.edge_features, *weights_of_edges, edges))
    of_outer, of_inner = edges_of_nodes(ws, graph)
    between = (graph.inner, graph.outer, ends)
    for k in range(N_STEPS):
        step = (w.message[k], w.edge_update[k], w.edge_update_bias[k], w.edge_norm[k])
        ws.launch(_tell_edges, edge_blocks, _EdgeStepPayload(of_edges, *between, *step, edges))
        update = (w.node_hidden[k], w.node_hidden_bias[k], w.node_update[k], w.node_update_bias[k], w.node_norm[k])
        told = (*update, w.ends[k + 1], w.ends_bias[k + 1], nodes, ends)
        ws.launch(_tell_nodes, node_blocks, _NodeStepPayload(of_nodes, edges, of_outer, of_inner, *told))
    logit = ws.array("network.logit", n_edges, dtype)
    last = (w.message[N_STEPS], w.out1, w.out1_bias, w.out2, w.out2_bias)
    ws.launch(_score_edges, edge_blocks, _ScorePayload(of_edges, *between, edges, *last, logit))
    return ScoredEdges(logit, of_outer, of_inner)
