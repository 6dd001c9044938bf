"""Rows of a collection that carry a flag, or belong to an event."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import Extent, ScanColumn, Workspace

__all__ = ["first_of_event", "list_flagged"]


@device_function
def first_of_event(event_of_row, n, event):
    """Return the first of n rows, ordered by event, that belongs to `event` or a later one."""
    low = np.int32(0)
    high = np.int32(n)
    while low < high:
        middle = (low + high) // np.int32(2)
        if event_of_row[middle] < event:
            low = np.int32(middle + 1)
        else:
            high = np.int32(middle)
    return low


class _Payload(NamedTuple):
    flag: Any  # (n,) int32, 0 or 1
    offsets: Any  # (n + 1,) int32
    out_row: Any  # (n_flagged,) int32


@kernel(grain=4096)
def _fill_list(i, p):
    """One row: write its index to its place if it is flagged."""
    if p.flag[i] == 1 and p.offsets[i] < p.out_row.shape[0]:
        p.out_row[p.offsets[i]] = i


def list_flagged(ws: Workspace, flag: Any, extent: Extent, name: str, *others: ScanColumn) -> Any:
    """List the rows whose flag is 1.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of the extent called `name` is set here.
    flag : array of shape (n,), int32
        0 or 1.
    extent : Extent
        The collection.
    name : str
        Name of the list.
    *others : ScanColumn
        Up to two, summed over the same rows in the same launch.

    Returns
    -------
    array of shape (n_flagged,), int32
        Row indices, ascending.
    """
    listed = ws.extent(name)
    offsets = ws.array(f"{name}.offsets", extent, np.int32, extra=1)
    if ws.device.sizes_are_on_host:
        ws.scan_together(extent, ScanColumn(flag, offsets, listed), *others)
        rows = ws.array(f"{name}.rows", listed, np.int32)
        ws.launch(_fill_list, extent, _Payload(flag=flag, offsets=offsets, out_row=rows))
    else:
        rows = ws.array(f"{name}.rows", listed, np.int32)
        ws.scan_together(extent, ScanColumn(flag, offsets, listed, rows), *others)
    return rows
