"""The networks of the finder on CUDA: each thread of a block takes a row through all layers between two gathers."""

from __future__ import annotations

from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.cuda.block import block_function
from traccc_py.device.kernel import scalar
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import (
    HIDDEN,
    ROOM,
    SCALE,
    factor_of,
    keep_edge,
    logit_of,
    mean_of,
    normalised,
    rows_of_block,
    variance_of,
)

__all__ = ["encode_edges", "encode_nodes", "filter_edges", "prepare_points", "score_edges", "tell_edges", "tell_nodes"]


@block_function
def _set_ends(ends, inner, outer, out, at):
    for k in range(HIDDEN):
        out[at + k] = ends[inner, k] + ends[outer, HIDDEN + k]


@block_function
def _set(bias, out, at):
    for k in range(HIDDEN):
        out[at + k] = bias[k]


@block_function
def _set_state(state, i, bias, out, at):
    for k in range(HIDDEN):
        out[at + k] = state[i, k] + bias[k]


@block_function
def _add_row(x, i, n_in, weights, out, at):
    """Add the products of row i of x."""
    for j in range(n_in):
        value = x[i, j]
        for k in range(HIDDEN):
            out[at + k] += value * weights[j, k]


@block_function
def _add_rectified(x, weights, out, at):
    """Add the products of what is greater than zero."""
    for j in range(HIDDEN):
        value = max(x[at + j], ZERO)
        for k in range(HIDDEN):
            out[at + k] += value * weights[j, k]


@block_function
def _add_sums(x, weights, first, out, at):
    """Add the products of a row with the rows of the weights from `first` on."""
    for j in range(HIDDEN):
        value = x[at + j]
        for k in range(HIDDEN):
            out[at + k] += value * weights[first + j, k]


@block_function
def _sum_edges(p, groups, i, out, at):
    """Write the scaled sum of a group of edges."""
    for k in range(HIDDEN):
        out[at + k] = ZERO
    for entry in range(groups.offsets[i], groups.offsets[i + 1]):
        edge = groups.order[entry]
        for k in range(HIDDEN):
            out[at + k] += p.edges[edge, k]
    for k in range(HIDDEN):
        out[at + k] *= SCALE


@block_function
def _normalise(x, at, norm, state, i):
    mean = scalar(mean_of(x, at))
    factor = scalar(factor_of(scalar(variance_of(x, at, mean))))
    for k in range(HIDDEN):
        state[i, k] = normalised(x[at + k], mean, factor, norm, k)


@block_function
def _write_ends(p, x, n_in, i):
    """Write what node i of states or features x adds to the first layer of networks of edges."""
    for k in range(2 * HIDDEN):
        total = p.ends_bias[k]
        for j in range(n_in):
            total += x[i, j] * p.ends[j, k]
        p.out_ends[i, k] = total


@block_function
def prepare_points(i, thread, n_threads, p):
    """Write what a block of points adds to the filter of edges."""
    first = i * BLOCK_ROWS
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _write_ends(p, p.features, N_NODE_FEATURES, row)


@block_function
def filter_edges(i, thread, n_threads, p, u, v):
    """Decide for a block of edges whether each is kept."""
    w, first, at = p.weights, i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _set_ends(p.ends, p.edges.inner[row], p.edges.outer[row], u, at)
        _add_row(p.edges.features, row, N_EDGE_FEATURES, w.edge, u, at)
        _set(w.hidden_bias, v, at)
        _add_rectified(u, w.hidden, v, at)
        keep_edge(p, row, logit_of(v, at, w.out, w.out_bias))


@block_function
def _encode(p, i, n_features, u, v, at):
    """Write the state of row i."""
    _set(p.first_bias, u, at)
    _add_row(p.features, i, n_features, p.first, u, at)
    _set(p.second_bias, v, at)
    _add_rectified(u, p.second, v, at)
    for k in range(HIDDEN):
        p.out_state[i, k] = v[at + k]


@block_function
def encode_nodes(i, thread, n_threads, p, u, v):
    """Write the states of a block of nodes, and what they add to networks of edges."""
    first, at = i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _encode(p, row, N_NODE_FEATURES, u, v, at)
        _write_ends(p, p.out_state, HIDDEN, row)


@block_function
def encode_edges(i, thread, n_threads, p, u, v):
    """Write the states of a block of edges."""
    first, at = i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _encode(p, row, N_EDGE_FEATURES, u, v, at)


@block_function
def tell_edges(i, thread, n_threads, p, u, v):
    """Add what their ends tell them to the states of a block of edges, and normalise these."""
    first, at = i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _set_ends(p.ends, p.inner[row], p.outer[row], u, at)
        _add_row(p.out_state, row, HIDDEN, p.message, u, at)
        _set_state(p.out_state, row, p.update_bias, v, at)
        _add_rectified(u, p.update, v, at)
        _normalise(v, at, p.norm, p.out_state, row)


@block_function
def tell_nodes(i, thread, n_threads, p, u, v):
    """Add what their edges tell them to the states of a block of nodes, and normalise these."""
    first, at = i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _set(p.hidden_bias, v, at)
        _add_row(p.out_state, row, HIDDEN, p.hidden, v, at)
        _sum_edges(p, p.of_outer, row, u, at)
        _add_sums(u, p.hidden, HIDDEN, v, at)
        _sum_edges(p, p.of_inner, row, u, at)
        _add_sums(u, p.hidden, 2 * HIDDEN, v, at)
        _set_state(p.out_state, row, p.update_bias, u, at)
        _add_rectified(v, p.update, u, at)
        _normalise(u, at, p.norm, p.out_state, row)
        _write_ends(p, p.out_state, HIDDEN, row)


@block_function
def score_edges(i, thread, n_threads, p, u, v):
    """Write the logits of a block of edges."""
    first, at = i * BLOCK_ROWS, thread * ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        _set_ends(p.ends, p.inner[row], p.outer[row], u, at)
        _add_row(p.state, row, HIDDEN, p.message, u, at)
        _set(p.hidden_bias, v, at)
        _add_rectified(u, p.hidden, v, at)
        p.out_logit[row] = logit_of(v, at, p.weights, p.bias)
