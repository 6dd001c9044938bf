"""Running sums of integers where sizes stay on the device: two launches for up to three columns, nothing allocated.

The range is cut into chunks. The first launch sums each chunk, the second one adds the sums of the chunks before and
writes the running sums. A total that outgrows the buffers of its collection becomes 0, with those of the columns summed
together with it, and what was needed is kept for `Workspace.overflowed`. Sums are formed in 64 bits; where they
pass 2^31 the running sums stay at the largest number, beyond every buffer, so that no fill kernel writes there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel
from traccc_py.device.workspace import COUNT, NEEDED, WRAPPED, Extent, ScanColumn

__all__ = ["MAX_CHUNKS", "MAX_COLUMNS", "launch_scan"]

MAX_COLUMNS = 3
MAX_CHUNKS = 512  #: of a column
_CHUNK = 4096  # rows, at least: fewer are not worth a block
THREADS = 256  #: of a block
LARGEST = np.iinfo(np.int32).max
_CUDA = "traccc_py.device.cuda.primitives:"
_SHARED = (Scratch(THREADS, np.int64),)
_FIRST, _SECOND, _THIRD = range(MAX_COLUMNS)
_BEGIN = 0  # where running sums begin


class _Column(NamedTuple):
    values: Any  # (capacity,) int32
    out_offsets: Any  # (capacity + 1,) int32
    slot: Any  # int32, size that receives the total
    room: Any  # int32, rows that the buffers of the total's collection have room for


class _Payload(NamedTuple):
    first: _Column
    second: _Column  # the first again where there are fewer, as for the third
    third: _Column
    n_columns: Any  # int32
    n_chunks: Any  # int32, of a column
    chunk: Any  # int32, rows of a chunk
    slot: Any  # int32, size that is summed over; -1: it is `capacity`
    capacity: Any  # int32, rows at most
    out_sums: Any  # (MAX_COLUMNS * MAX_CHUNKS,) int64, of chunks
    out_sizes: Any  # (3, MAX_EXTENTS) int32


@device_function
def chunk_range(p, i):
    """Return (first row, one past the last) of chunk i, within the size."""
    n = np.int64(p.capacity)
    if p.slot >= 0:
        n = min(n, np.int64(p.out_sizes[COUNT, p.slot]))
    first = np.int64(i % p.n_chunks) * np.int64(p.chunk)
    return min(first, n), min(first + np.int64(p.chunk), n)


@device_function
def sum_before(p, first, last):
    """Return the sum of the sums of chunks first ... last - 1."""
    total = np.int64(0)
    for k in range(first, last):
        total += p.out_sums[k]
    return total


@device_function
def _total(p, number):
    """Return the sum of a column by its number."""
    return sum_before(p, number * p.n_chunks, (number + 1) * p.n_chunks)


@device_function
def _close(p, column, number, fits):
    """Put the total of a column in its place, or 0 if there is no room for it or for one of the others."""
    total = _total(p, number)
    if total > LARGEST:
        p.out_sizes[WRAPPED, column.slot] = 1
    p.out_sizes[NEEDED, column.slot] = np.int32(min(total, np.int64(LARGEST)))
    p.out_sizes[COUNT, column.slot] = np.int32(total) if fits else np.int32(0)


@device_function
def close_columns(p):
    """Put the totals of all columns in their places."""
    fits = _total(p, _FIRST) <= p.first.room
    if p.n_columns > _SECOND:
        fits = fits and _total(p, _SECOND) <= p.second.room
    if p.n_columns > _THIRD:
        fits = fits and _total(p, _THIRD) <= p.third.room
        _close(p, p.third, _THIRD, fits)
    if p.n_columns > _SECOND:
        _close(p, p.second, _SECOND, fits)
    _close(p, p.first, _FIRST, fits)


@device_function
def _sum(values, first, last):
    total = np.int64(0)
    for k in range(first, last):
        total += np.int64(values[k])
    return total


@device_function
def _write(column, first, last, total):
    """Write the running sums of a chunk, which begins with `total`."""
    if first == 0:
        column.out_offsets[_BEGIN] = 0
    for k in range(first, last):
        total += np.int64(column.values[k])
        column.out_offsets[k + 1] = np.int32(min(total, np.int64(LARGEST)))


@kernel(grain=1, cuda=CudaBody(f"{_CUDA}sum_chunk", THREADS, _SHARED))
def _sum_chunks(i, p):
    """Sum chunk i: chunks of the first column, then of the second, then of the third."""
    first, last = chunk_range(p, i)
    if i < p.n_chunks:
        p.out_sums[i] = _sum(p.first.values, first, last)
    elif i < 2 * p.n_chunks:
        p.out_sums[i] = _sum(p.second.values, first, last)
    else:
        p.out_sums[i] = _sum(p.third.values, first, last)


@kernel(grain=1, cuda=CudaBody(f"{_CUDA}write_chunk", THREADS, _SHARED))
def _write_chunks(i, p):
    """Write the running sums of chunk i; the first one closes the sums."""
    first, last = chunk_range(p, i)
    before = sum_before(p, i - i % p.n_chunks, i)
    if i < p.n_chunks:
        _write(p.first, first, last, before)
    elif i < 2 * p.n_chunks:
        _write(p.second, first, last, before)
    else:
        _write(p.third, first, last, before)
    if i == 0:
        close_columns(p)


def _chunks(capacity: int) -> tuple[int, int]:
    """Return the number of chunks of a column and the rows of each."""
    n_chunks = max(1, min(MAX_CHUNKS, -(-capacity // _CHUNK)))
    return n_chunks, -(-max(1, capacity) // n_chunks)


def launch_scan(device: Any, extent: Extent, columns: tuple[ScanColumn, ...], sums: Any) -> None:
    """Write the running sums of up to three columns over the rows of one collection.

    Parameters
    ----------
    device : Device
        Where the kernels run.
    extent : Extent
        Rows to sum over.
    columns : tuple of ScanColumn
        At most `MAX_COLUMNS`.
    sums : array of shape (MAX_COLUMNS * MAX_CHUNKS,), int64
        Work space.

    Raises
    ------
    ValueError
        If there are more columns than `MAX_COLUMNS`.
    """
    if len(columns) > MAX_COLUMNS:
        msg = f"{len(columns)} columns are summed together; at most {MAX_COLUMNS} are possible"
        raise ValueError(msg)
    n_chunks, rows = _chunks(extent.capacity)
    made = [_Column(c.values, c.offsets, np.int32(c.total.slot), np.int32(c.total.capacity)) for c in columns]
    first, second, third = made + made[:1] * (MAX_COLUMNS - len(made))
    payload = _Payload(
        first=first,
        second=second,
        third=third,
        n_columns=np.int32(len(columns)),
        n_chunks=np.int32(n_chunks),
        chunk=np.int32(rows),
        slot=np.int32(extent.slot),
        capacity=np.int32(extent.capacity),
        out_sums=sums,
        out_sizes=extent.sizes,
    )
    device.launch(_sum_chunks, len(columns) * n_chunks, payload)
    device.launch(_write_chunks, len(columns) * n_chunks, payload)
