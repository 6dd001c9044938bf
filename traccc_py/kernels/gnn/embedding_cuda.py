"""The embedding on CUDA: each thread of a block takes a row through all layers."""

from __future__ import annotations

from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.cuda.block import block_function
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.gnn.embedding import EMBEDDING_ROOM, EMBEDDING_WIDTH, N_DIMENSIONS
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import rows_of_block

__all__ = ["embed"]


@block_function
def _layer(x, weights, bias, out, at):
    """Write the sums of the bias and the weighted columns of x that are greater than zero."""
    for k in range(EMBEDDING_WIDTH):
        out[at + k] = bias[k]
    for j in range(EMBEDDING_WIDTH):
        value = max(x[at + j], ZERO)
        for k in range(EMBEDDING_WIDTH):
            out[at + k] += value * weights[j, k]


@block_function
def embed(i, thread, n_threads, p, u, v):
    """Write the places of a block of points."""
    w, first, at = p.weights, i * BLOCK_ROWS, thread * EMBEDDING_ROOM
    for row in range(first + thread, first + rows_of_block(p.size, first), n_threads):
        for k in range(EMBEDDING_WIDTH):
            u[at + k] = w.first_bias[k]
        for j in range(N_NODE_FEATURES):
            value = p.features[row, j]
            for k in range(EMBEDDING_WIDTH):
                u[at + k] += value * w.first[j, k]
        _layer(u, w.second, w.second_bias, v, at)
        _layer(v, w.third, w.third_bias, u, at)
        for k in range(N_DIMENSIONS):
            total = w.out_bias[k]
            for j in range(EMBEDDING_WIDTH):
                total += max(u[at + j], ZERO) * w.out[j, k]
            p.out[row, k] = total
