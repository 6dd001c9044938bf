"""The compiled loops that check an event's cells, bring their columns into the types of the device, and order them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from traccc_py.device.cpu.host_loop import host_loop, read_only

__all__ = ["CHANNEL_TYPES", "MAX_ACTIVATION", "STRIDED_CHANNEL_TYPE", "check_and_convert", "order_cells"]

#: Types that channels may have: those of the standard tensors, of files, of the compact tensor.
CHANNEL_TYPES = (np.int64, np.int32, np.uint16)

#: Their type in columns of rows, those of the standard tensors: copies of the columns took as long as the check.
STRIDED_CHANNEL_TYPE = np.int64

#: The largest activation: the sum of 2^31 of them is a float32 number.
MAX_ACTIVATION = np.float32(1e29)

_LARGEST = np.float32(np.finfo(np.float32).max)
_ZERO = np.float32(0)


def _strided(dtype: Any) -> np.ndarray:
    """Return an example of a column of rows, which a loop only reads."""
    column = np.empty((2, 2), dtype)[:, 0]
    column.flags.writeable = False
    return column


def _arguments(channel: Any, column: Callable[[Any], np.ndarray] = read_only) -> tuple:
    """Return arguments with channels of a type."""
    i32, f32 = np.empty(0, np.int32), np.empty(0, np.float32)
    columns = (column(channel), column(channel), column(np.float32), column(np.float32))
    return np.empty(0, np.int64), i32, (i32, i32), columns, (i32, i32, i32, f32, f32)


@host_loop([*map(_arguments, CHANNEL_TYPES), _arguments(STRIDED_CHANNEL_TYPE, _strided)])
def check_and_convert(starts: Any, modules: Any, limits: Any, columns: Any, out: Any) -> tuple[bool, bool]:
    """Check the cells of an event and copy them.

    Parameters
    ----------
    starts : ndarray of shape (n_runs + 1,), int64
        First cell of each run of cells of one module, and the number of cells.
    modules : ndarray of shape (n_runs,), int32
        Module of each run.
    limits : tuple of ndarray of shape (n_runs,), int32
        Its numbers of channels along both axes.
    columns : tuple of ndarray of shape (n,)
        channel0, channel1 (one of `CHANNEL_TYPES`, both the same), activation, time (float32); contiguous, or all
        of them columns of rows, with channels of `STRIDED_CHANNEL_TYPE`.
    out : tuple of ndarray of shape (n,)
        Gets module, channel0, channel1 (int32), activation, time (float32).

    Returns
    -------
    is_good : bool
        Whether all channels are on their modules, all activations from 0 to `MAX_ACTIVATION`, and all times finite.
    is_ordered : bool
        Whether cells are ordered by (module, channel1, channel0) and none has a channel of another; undefined if they
        are not good.
    """
    limits0, limits1 = limits
    channel0, channel1, activation, time = columns
    out_module, out0, out1, out_activation, out_time = out
    is_good: Any = True
    is_ordered: Any = True
    for i in range(len(activation)):
        a, t = activation[i], time[i]
        is_good &= (a >= _ZERO) & (a <= MAX_ACTIVATION) & (abs(t) <= _LARGEST)
        out_activation[i], out_time[i] = a, t
    for run in range(len(modules)):
        # Indices that start at 0 can't be negative, so loops over them are vectorised.
        begin, end = starts[run], starts[run + 1]
        from0, from1 = channel0[begin:end], channel1[begin:end]
        to_module, to0, to1 = out_module[begin:end], out0[begin:end], out1[begin:end]
        module = modules[run]
        limit0, limit1 = np.uint64(limits0[run]), np.uint64(limits1[run])
        for i in range(len(to0)):
            is_good &= (np.uint64(from0[i]) < limit0) & (np.uint64(from1[i]) < limit1)  # negative values become huge
            to_module[i], to0[i], to1[i] = module, from0[i], from1[i]
        is_ordered &= run == 0 or modules[run - 1] < module
        for i in range(1, len(to0)):
            is_ordered &= (to1[i] > to1[i - 1]) | ((to1[i] == to1[i - 1]) & (to0[i] > to0[i - 1]))
    return is_good, is_ordered


_I32, _I64 = np.empty(0, np.int32), np.empty(0, np.int64)


@host_loop([(_I32, _I32, _I32, _I64, _I64, _I64)])
def order_cells(module: Any, channel0: Any, channel1: Any, ends: Any, keys: Any, order: Any) -> None:
    """Find the order by (module, channel1, channel0).

    Parameters
    ----------
    module, channel0, channel1 : ndarray of shape (n,), int32
        Cells.
    ends : ndarray of shape (n_modules,), int64
        Zeros; gets the number of cells on each module and those before it.
    keys : ndarray of shape (n,), int64
        Gets both channels in one number, ordered.
    order : ndarray of shape (n,), int64
        Gets the rows in their order; cells of one channel in any.
    """
    for i in range(len(module)):
        ends[module[i]] += 1
    begin = 0
    for m in range(len(ends)):  # first the starts; placing the cells turns them into the ends
        n, ends[m] = ends[m], begin
        begin += n
    for i in range(len(module)):
        place = ends[module[i]]
        ends[module[i]] += 1
        keys[place], order[place] = (np.int64(channel1[i]) << 32) + channel0[i], i
    begin = 0
    for m in range(len(ends)):
        key, row = keys[begin : ends[m]], order[begin : ends[m]]
        begin = ends[m]
        gap = 1
        while 9 * gap < len(key):
            gap = 3 * gap + 1
        while gap > 0:  # Shell sort: fast for nearly ordered cells, and acceptable for a full module
            for i in range(gap, len(key)):
                k, r, j = key[i], row[i], i
                while j >= gap and key[j - gap] > k:
                    key[j], row[j] = key[j - gap], row[j - gap]
                    j -= gap
                key[j], row[j] = k, r
            gap //= 3
