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


class _Totals(NamedTuple):
    slot_0: Any  # int32, size that receives the sum of column 0
    slot_1: Any
    slot_2: Any
    capacity_0: Any  # int32, rows its buffers have room for
    capacity_1: Any
    capacity_2: Any


class _Payload(NamedTuple):
    values_0: Any  # (capacity,) int32
    values_1: Any
    values_2: Any
    offsets_0: Any  # (capacity + 1,) int32, output
    offsets_1: Any
    offsets_2: Any
    n_columns: Any  # int32
    n_chunks: Any  # int32, of a column
    chunk: Any  # int32, rows of a chunk
    slot: Any  # int32, size that is summed over; -1: it is `capacity`
    capacity: Any  # int32, rows at most
    totals: _Totals
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
def _close(p, column, slot, capacity, fits):
    """Put the total of a column in its place, or 0 if there is no room for it or for one of the others."""
    total = sum_before(p, column * p.n_chunks, (column + 1) * p.n_chunks)
    if total > LARGEST:
        p.out_sizes[WRAPPED, slot] = 1
    p.out_sizes[NEEDED, slot] = np.int32(min(total, np.int64(LARGEST)))
    p.out_sizes[COUNT, slot] = np.int32(total) if fits else np.int32(0)


@device_function
def close_columns(p):
    """Put the totals of all columns in their places."""
    t = p.totals
    fits = sum_before(p, 0, p.n_chunks) <= t.capacity_0
    if p.n_columns > 1:
        fits = fits and sum_before(p, p.n_chunks, 2 * p.n_chunks) <= t.capacity_1
    if p.n_columns > 2:  # noqa: PLR2004
        fits = fits and sum_before(p, 2 * p.n_chunks, 3 * p.n_chunks) <= t.capacity_2
        _close(p, 2, t.slot_2, t.capacity_2, fits)
    if p.n_columns > 1:
        _close(p, 1, t.slot_1, t.capacity_1, fits)
    _close(p, 0, t.slot_0, t.capacity_0, fits)


@device_function
def _sum(values, first, last):
    total = np.int64(0)
    for k in range(first, last):
        total += np.int64(values[k])
    return total


@device_function
def _write(values, offsets, first, last, total):
    """Write the running sums of a chunk, which begins with `total`."""
    if first == 0:
        offsets[0] = 0
    for k in range(first, last):
        total += np.int64(values[k])
        offsets[k + 1] = np.int32(min(total, np.int64(LARGEST)))


@kernel(grain=1, cuda=CudaBody(f"{_CUDA}sum_chunk", THREADS, _SHARED))
def _sum_chunks(i, p):
    """Sum chunk i: chunks of the first column, then of the second, then of the third."""
    first, last = chunk_range(p, i)
    if i < p.n_chunks:
        p.out_sums[i] = _sum(p.values_0, first, last)
    elif i < 2 * p.n_chunks:
        p.out_sums[i] = _sum(p.values_1, first, last)
    else:
        p.out_sums[i] = _sum(p.values_2, first, last)


@kernel(grain=1, cuda=CudaBody(f"{_CUDA}write_chunk", THREADS, _SHARED))
def _write_chunks(i, p):
    """Write the running sums of chunk i; the first one closes the sums."""
    first, last = chunk_range(p, i)
    before = sum_before(p, i - i % p.n_chunks, i)
    if i < p.n_chunks:
        _write(p.values_0, p.offsets_0, first, last, before)
    elif i < 2 * p.n_chunks:
        _write(p.values_1, p.offsets_1, first, last, before)
    else:
        _write(p.values_2, p.offsets_2, first, last, before)
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
    padded = columns + (columns[0],) * (MAX_COLUMNS - len(columns))
    payload = _Payload(
        *(c.values for c in padded),
        *(c.offsets for c in padded),
        np.int32(len(columns)),
        np.int32(n_chunks),
        np.int32(rows),
        np.int32(extent.slot),
        np.int32(extent.capacity),
        _Totals(*(np.int32(c.total.slot) for c in padded), *(np.int32(c.total.capacity) for c in padded)),
        sums,
        extent.sizes,
    )
    device.launch(_sum_chunks, len(columns) * n_chunks, payload)
    device.launch(_write_chunks, len(columns) * n_chunks, payload)
