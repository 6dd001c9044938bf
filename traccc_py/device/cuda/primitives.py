"""What CUDA runs for the kernels of scans and of grouping."""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, block_sums, cuda
from traccc_py.device.scan import DONE, LARGEST, TAKEN, chunk_range, close_columns, list_row

__all__ = ["count_members", "scan_chunk"]

_SECOND, _THIRD = 1, 2  # columns
_CLIPPED = 2 * LARGEST  # sums of chunks beyond it are too large anyhow


@block_function
def count_members(i, p):
    """Give each row of index i a place within its key."""
    for row in range(i * p.width, (i + 1) * p.width):
        if p.key[row] >= 0:
            p.place[row] = cuda.atomic.add(p.size, p.key[row], np.int32(1))


@block_function
def _sum(values, first, last):
    """Return the sum of rows; four loads are under way at once."""
    total = np.int64(0)
    k = first
    while k + 4 <= last:
        total += (np.int64(values[k]) + values[k + 1]) + (np.int64(values[k + 2]) + values[k + 3])
        k += 4
    while k < last:
        total += np.int64(values[k])
        k += 1
    return total


@block_function
def _store(column, k, before, total):
    """Write the running sum behind row k, and the row to the list if it is on it."""
    column.out_offsets[k + 1] = np.int32(min(total, np.int64(LARGEST)))
    list_row(column, k, before)


@block_function
def _write(column, first, last, total):
    """Write the running sums of rows, which begin with `total`; four loads are under way at once."""
    values = column.values
    k = first
    while k + 4 <= last:
        a, b, c, d = np.int64(values[k]), np.int64(values[k + 1]), np.int64(values[k + 2]), np.int64(values[k + 3])
        b += a
        c += b
        d += c
        _store(column, k, total, total + a)
        _store(column, k + 1, total + a, total + b)
        _store(column, k + 2, total + b, total + c)
        _store(column, k + 3, total + c, total + d)
        total += d
        k += 4
    while k < last:
        behind = total + np.int64(values[k])
        _store(column, k, total, behind)
        total = behind
        k += 1


@block_function
def _sum_of_chunks(p, first, last, thread, n_threads, shared):
    """Return the sum of chunks whose blocks run already or are done; it waits for them."""
    if thread == 0:
        shared[0] = 0
    cuda.syncthreads()
    own = np.int64(0)
    for k in range(first + thread, last, n_threads):
        known = np.int64(0)
        while known == 0:
            known = cuda.atomic.add(p.work, k, np.int64(0))
        own += known >> 1
    if own > 0:
        cuda.atomic.add(shared, 0, own)
    cuda.syncthreads()
    total = shared[0]
    cuda.syncthreads()
    return total


@block_function
def _count(p, row, thread, shared):
    """Add one to a number of chunks; return to all threads what it was."""
    if thread == 0:
        shared[0] = cuda.atomic.add(p.work, row, np.int64(1))
    cuda.syncthreads()
    number = np.int32(shared[0])
    cuda.syncthreads()
    return number


@block_function
def _tidy(p, n, thread, n_threads):
    """Leave the work space as it was."""
    for k in range(thread, n, n_threads):
        cuda.atomic.exch(p.work, k, np.int64(0))
    if thread == 0:
        cuda.atomic.exch(p.work, TAKEN, np.int64(0))
        cuda.atomic.exch(p.work, DONE, np.int64(0))


@block_function
def _close(p, thread, n_threads, shared, last_total):
    """Close the columns; `last_total` is that of the last one."""
    first, second, third = last_total, np.int64(0), np.int64(0)
    if p.n_columns > _SECOND:
        first, second = _sum_of_chunks(p, 0, p.n_chunks, thread, n_threads, shared), last_total
    if p.n_columns > _THIRD:
        second = _sum_of_chunks(p, p.n_chunks, 2 * p.n_chunks, thread, n_threads, shared)
        third = last_total
    if thread == 0:
        close_columns(p, first, second, third)


@block_function
def scan_chunk(_, thread, n_threads, p, shared):
    """Write the running sums of a chunk, and the totals behind the last one."""
    n = np.int32(p.n_columns * p.n_chunks)
    i = np.int32(0)
    if n > 1:
        i = _count(p, TAKEN, thread, shared)
    number = i // p.n_chunks
    column = p.first if number == 0 else p.second if number == _SECOND else p.third
    begin, end = chunk_range(p, i)
    rows = (np.int32(end - begin) + np.int32(n_threads) - np.int32(1)) // np.int32(n_threads)
    first = min(begin + thread * rows, end)
    last = min(first + rows, end)
    before, total = block_sums(_sum(column.values, first, last), thread, n_threads, shared)
    outside = np.int64(0)
    if n > 1:
        if thread == 0:
            cuda.atomic.add(p.work, i, 2 * min(total, np.int64(_CLIPPED)) + 1)
        outside = _sum_of_chunks(p, number * p.n_chunks, i, thread, n_threads, shared)
    if i == number * p.n_chunks and thread == 0:
        column.out_offsets[0] = 0
    _write(column, first, last, outside + before)
    if i == n - 1:
        _close(p, thread, n_threads, shared, outside + total)
    if n > 1 and _count(p, DONE, thread, shared) == n - 1:
        _tidy(p, n, thread, n_threads)
