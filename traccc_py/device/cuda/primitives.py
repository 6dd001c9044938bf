"""What CUDA runs for the kernels of scans and of grouping."""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, block_sums, cuda
from traccc_py.device.scan import LARGEST, chunk_range, close_columns

__all__ = ["count_members", "sum_chunk", "write_chunk"]

_PER_THREAD = 8  # rows a thread sums before the block does


@block_function
def count_members(i, p):
    """Give each row of index i a place within its key."""
    for row in range(i * p.width, (i + 1) * p.width):
        if p.key[row] >= 0:
            p.place[row] = cuda.atomic.add(p.size, p.key[row], np.int32(1))


@block_function
def _sum(values, first, last, thread, n_threads):
    total = np.int64(0)
    for k in range(first + thread, last, n_threads):
        total += np.int64(values[k])
    return total


@block_function
def _write(column, first, last, total, thread, n_threads, shared):
    """Write the running sums of a chunk, which begins with `total`, some rows a thread at a time."""
    values, offsets = column.values, column.out_offsets
    if first == 0 and thread == 0:
        offsets[0] = 0
    for tile in range(first, last, n_threads * _PER_THREAD):
        begin = tile + thread * _PER_THREAD
        end = min(begin + _PER_THREAD, last)
        own = np.int64(0)
        for k in range(begin, end):
            own += np.int64(values[k])
        before, of_tile = block_sums(own, thread, n_threads, shared)
        before += total
        for k in range(begin, end):
            before += np.int64(values[k])
            offsets[k + 1] = np.int32(min(before, np.int64(LARGEST)))
        total += of_tile


@block_function
def sum_chunk(i, thread, n_threads, p, shared):
    """Sum a chunk."""
    first, last = chunk_range(p, i)
    if i < p.n_chunks:
        own = _sum(p.first.values, first, last, thread, n_threads)
    elif i < 2 * p.n_chunks:
        own = _sum(p.second.values, first, last, thread, n_threads)
    else:
        own = _sum(p.third.values, first, last, thread, n_threads)
    _, total = block_sums(own, thread, n_threads, shared)
    if thread == 0:
        p.out_sums[i] = total


@block_function
def write_chunk(i, thread, n_threads, p, shared):
    """Write the running sums of a chunk; the first one closes the sums."""
    first, last = chunk_range(p, i)
    own = _sum(p.out_sums, i - i % p.n_chunks, i, thread, n_threads)
    _, before = block_sums(own, thread, n_threads, shared)
    if i < p.n_chunks:
        _write(p.first, first, last, before, thread, n_threads, shared)
    elif i < 2 * p.n_chunks:
        _write(p.second, first, last, before, thread, n_threads, shared)
    else:
        _write(p.third, first, last, before, thread, n_threads, shared)
    if i == 0 and thread == 0:
        close_columns(p)
