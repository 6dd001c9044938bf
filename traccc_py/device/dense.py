"""Layers of networks: rows times a small matrix, where the number of rows is known on the device alone.

A row's bits don't depend on the other rows. On the CPU `numpy.matmul` works on blocks of so many rows that BLAS neither
takes another path for the last ones nor starts threads of its own; elsewhere each index is a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from traccc_py.device.kernel import kernel, scalar

__all__ = ["BLOCK_ROWS", "launch_dense"]

BLOCK_ROWS = 256  #: rows of a block at most; arrays must have room for so many beyond their size
_ZERO = scalar(0)


class _Payload(NamedTuple):
    x: Any  # (n, n_in) scalar
    weights: Any  # (n_in, n_out) scalar
    bias: Any  # (n_out,) scalar
    is_rectified: Any  # int32
    out: Any  # (n, n_out) scalar


@kernel(grain=64)
def _multiply_row(i, p):
    """One row: the sums of its products, in the order of the columns."""
    for column in range(p.weights.shape[1]):
        total = p.bias[column]
        for k in range(p.weights.shape[0]):
            total += p.x[i, k] * p.weights[k, column]
        p.out[i, column] = max(total, _ZERO) if p.is_rectified else total


def launch_dense(device: Any, extent: Any, x: Any, weights: Any, bias: Any, out: Any, is_rectified: Any) -> None:
    """Multiply rows by one kernel, as `Device.dense` says."""
    device.launch(_multiply_row, extent, _Payload(x, weights, bias, is_rectified, out))
