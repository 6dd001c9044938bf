"""The embedding: each spacepoint becomes a place in which those of one particle on layers in a row are close together.

A multilayer perceptron of what networks see of a node. Blocks of rows go through all of its layers together, as in
`networks`. A distance of one is where the training has put the pairs that it wants to keep.

References
----------
arXiv:2103.06995, metric learning for graphs of tracks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.products import BLOCK_ROWS, COLUMNS_TOGETHER
from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel
from traccc_py.device.workspace import Extent, Workspace
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import RowCount, add_layer, block_count, row_count, rows_of_block

__all__ = ["EMBEDDING_ROOM", "EMBEDDING_WIDTH", "N_DIMENSIONS", "OUT_COLUMNS", "EmbeddingWeights", "embed_points"]

EMBEDDING_WIDTH = 48  #: of all layers but the last
N_DIMENSIONS = 8  #: of the space
OUT_COLUMNS = COLUMNS_TOGETHER  #: of the last layer, as products are made; those beyond the dimensions are not used
EMBEDDING_ROOM = EMBEDDING_WIDTH + 1  #: as `networks.ROOM`
_STATES = Scratch(BLOCK_ROWS * EMBEDDING_WIDTH)
_SHARED = (Scratch(BLOCK_ROWS * EMBEDDING_ROOM), Scratch(BLOCK_ROWS * EMBEDDING_ROOM))


class EmbeddingWeights(NamedTuple):
    """Weights of the embedding; matrices are (inputs, outputs)."""

    first: Any  # (N_NODE_FEATURES, EMBEDDING_WIDTH) scalar
    first_bias: Any
    second: Any  # (EMBEDDING_WIDTH, EMBEDDING_WIDTH) scalar
    second_bias: Any
    third: Any  # (EMBEDDING_WIDTH, EMBEDDING_WIDTH) scalar
    third_bias: Any
    out: Any  # (EMBEDDING_WIDTH, OUT_COLUMNS) scalar
    out_bias: Any  # (OUT_COLUMNS,) scalar


class _Payload(NamedTuple):
    size: RowCount
    features: Any  # (n_points, N_NODE_FEATURES) scalar
    weights: EmbeddingWeights
    out: Any  # (n_points, N_DIMENSIONS) scalar


@device_function(inlined=True)
def _repeat(bias, width, out):
    """Write the bias to each row of a block."""
    for row in range(0, BLOCK_ROWS * width, width):
        for k in range(width):
            out[row + k] = bias[k]


@device_function(inlined=True)
def _rectify(block):
    for k in range(BLOCK_ROWS * EMBEDDING_WIDTH):
        block[k] = max(block[k], ZERO) + ZERO  # as in `networks`


@kernel(
    grain=8,
    scratch=(_STATES, _STATES),
    cuda=CudaBody("traccc_py.kernels.gnn.embedding_cuda:embed", BLOCK_ROWS, _SHARED),
)
def _embed(i, p, u, v):
    """Write the places of a block of points."""
    first, w = i * np.int32(BLOCK_ROWS), p.weights
    n = rows_of_block(p.size, first)
    if n <= 0:
        return
    _repeat(w.first_bias, EMBEDDING_WIDTH, u)
    add_layer(p.features, first, N_NODE_FEATURES, w.first, EMBEDDING_WIDTH, u, 0)
    _rectify(u)
    _repeat(w.second_bias, EMBEDDING_WIDTH, v)
    add_layer(u, 0, EMBEDDING_WIDTH, w.second, EMBEDDING_WIDTH, v, 0)
    _rectify(v)
    _repeat(w.third_bias, EMBEDDING_WIDTH, u)
    add_layer(v, 0, EMBEDDING_WIDTH, w.third, EMBEDDING_WIDTH, u, 0)
    _rectify(u)
    _repeat(w.out_bias, OUT_COLUMNS, v)
    add_layer(u, 0, EMBEDDING_WIDTH, w.out, OUT_COLUMNS, v, 0)
    for row in range(n):
        for k in range(N_DIMENSIONS):
            p.out[first + row, k] = v[row * OUT_COLUMNS + k]


def embed_points(ws: Workspace, features: Any, extent: Extent, weights: EmbeddingWeights) -> Any:
    """Embed points.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of `extent` must be set.
    features : array of shape (n, N_NODE_FEATURES)
        What is known of them, with `BLOCK_ROWS` rows to spare.
    extent : Extent
        The points.
    weights : EmbeddingWeights
        On the device.

    Returns
    -------
    array of shape (n, N_DIMENSIONS)
        Their places.
    """
    out = ws.array("graph.embedded", extent, features.dtype, N_DIMENSIONS)
    ws.launch(_embed, block_count(ws, extent), _Payload(row_count(ws, extent), features, weights, out))
    return out
