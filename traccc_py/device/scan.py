"""Running sums of integers where sizes stay on the device: one launch for up to three columns, nothing allocated.

The range is cut into chunks. On CUDA a block sums its chunk, says so, waits for the sums of the chunks before and
writes the running sums. Chunks are taken by number, the lowest first: a block waits for none that has not begun. The
last block leaves the work space as it was.

A total that outgrows the buffers of its collection becomes 0, with those of the columns summed together with it, and
what was needed is kept for `Workspace.overflowed`. Sums are formed in 64 bits; where they pass 2^31 the running sums
stay at the largest number, beyond every buffer, so that no fill kernel writes there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import CudaBody, Scratch, device_function, kernel
from traccc_py.device.workspace import COUNT, NEEDED, WRAPPED, Extent, ScanColumn

__all__ = ["MAX_COLUMNS", "WORK_SPACE", "launch_scan"]

MAX_COLUMNS = 3
MAX_CHUNKS = 512  #: of a column
_CHUNK = 4096  # rows, at least: fewer are not worth a block
THREADS = 256  #: of a block
LARGEST = np.iinfo(np.int32).max
TAKEN, DONE = MAX_COLUMNS * MAX_CHUNKS, MAX_COLUMNS * MAX_CHUNKS + 1  #: rows of the work space, numbers of chunks
WORK_SPACE = MAX_COLUMNS * MAX_CHUNKS + 2  #: rows
_SHARED = (Scratch(THREADS, np.int64),)
_SECOND, _THIRD = 1, 2  # columns
_BEGIN = 0  # where running sums begin


class _Column(NamedTuple):
    values: Any  # (capacity,) int32
    out_offsets: Any  # (capacity + 1,) int32
    out_rows: Any  # (n,) int32, rows whose value is 1
    has_rows: Any  # int32, 0: `out_rows` stands for none
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
    work: Any  # (WORK_SPACE,) int64, 0 between launches; of a chunk 2 sum + 1 once that is known
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
def _close(p, column, total, fits):
    """Put the total of a column in its place, or 0 if there is no room for it or for one of the others."""
    if total > LARGEST:
        p.out_sizes[WRAPPED, column.slot] = 1
    p.out_sizes[NEEDED, column.slot] = np.int32(min(total, np.int64(LARGEST)))
    p.out_sizes[COUNT, column.slot] = np.int32(total) if fits else np.int32(0)


@device_function
def close_columns(p, first, second, third):
    """Put the totals of the columns in their places; those of columns that there are not are 0."""
    fits = first <= p.first.room and second <= p.second.room and third <= p.third.room
    if p.n_columns > _THIRD:
        _close(p, p.third, third, fits)
    if p.n_columns > _SECOND:
        _close(p, p.second, second, fits)
    _close(p, p.first, first, fits)


@device_function
def _sum(values, first, last):
    total = np.int64(0)
    for k in range(first, last):
        total += np.int64(values[k])
    return total


@device_function
def list_row(column, k, place):
    """Write row k to its place if it is to be listed."""
    if column.has_rows == 1 and column.values[k] == 1 and place < column.out_rows.shape[0]:
        column.out_rows[place] = k


@device_function
def _write(column, first, last):
    """Write the running sums of a chunk; return the sum of the column up to its end."""
    if first == 0:
        column.out_offsets[_BEGIN] = 0
    total = _sum(column.values, 0, first)
    for k in range(first, last):
        list_row(column, k, total)
        total += np.int64(column.values[k])
        column.out_offsets[k + 1] = np.int32(min(total, np.int64(LARGEST)))
    return total


@kernel(grain=1, cuda=CudaBody("traccc_py.device.cuda.primitives:scan_chunk", THREADS, _SHARED))
def _chunks(i, p):
    """Write the running sums of chunk i: of the first column, then of the second, then of the third."""
    first, last = chunk_range(p, i)
    if i < p.n_chunks:
        _write(p.first, first, last)
    elif i < 2 * p.n_chunks:
        _write(p.second, first, last)
    else:
        _write(p.third, first, last)
    if i == 0:
        _, n = chunk_range(p, p.n_chunks - 1)
        none = np.int64(0)
        second = _sum(p.second.values, 0, n) if p.n_columns > _SECOND else none
        third = _sum(p.third.values, 0, n) if p.n_columns > _THIRD else none
        close_columns(p, _sum(p.first.values, 0, n), second, third)


def _cut(capacity: int) -> tuple[int, int]:
    """Return the number of chunks of a column and the rows of each."""
    n_chunks = max(1, min(MAX_CHUNKS, -(-capacity // _CHUNK)))
    return n_chunks, -(-max(1, capacity) // n_chunks)


def _column(given: ScanColumn) -> _Column:
    return _Column(
        values=given.values,
        out_offsets=given.offsets,
        out_rows=given.offsets if given.rows is None else given.rows,
        has_rows=np.int32(given.rows is not None),
        slot=np.int32(given.total.slot),
        room=np.int32(given.total.capacity),
    )


def launch_scan(device: Any, extent: Extent, columns: tuple[ScanColumn, ...], work: Any) -> None:
    """Write the running sums of up to three columns over the rows of one collection.

    Parameters
    ----------
    device : Device
        Where the kernels run.
    extent : Extent
        Rows to sum over.
    columns : tuple of ScanColumn
        At most `MAX_COLUMNS`.
    work : array of shape (WORK_SPACE,), int64
        Zeros, and so again behind the launch.

    Raises
    ------
    ValueError
        If there are more columns than `MAX_COLUMNS`.
    """
    if len(columns) > MAX_COLUMNS:
        msg = f"{len(columns)} columns are summed together; at most {MAX_COLUMNS} are possible"
        raise ValueError(msg)
    n_chunks, rows = _cut(extent.capacity)
    made = [_column(c) for c in columns]
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
        work=work,
        out_sizes=extent.sizes,
    )
    device.launch(_chunks, len(columns) * n_chunks, payload)
