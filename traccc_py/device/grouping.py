"""Rows of a collection gathered by an integer key: a counting sort, for keys with few rows each.

Count the rows of each key, sum up, put each row into a place of its key, and order the rows of a key by their index.
The places are given in an order that varies on CUDA and with several CPU threads; the last step makes up for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu.atomic import fetch_add
from traccc_py.device.kernel import CudaBody, kernel
from traccc_py.device.workspace import Extent, Workspace

__all__ = ["Groups", "group_rows"]


class Groups(NamedTuple):
    """Rows by key: those of key k are ``order[offsets[k]:offsets[k + 1]]``, ascending."""

    offsets: Any  # (n_keys + 1,) int32
    order: Any  # (n_rows,) int32


class _Payload(NamedTuple):
    key: Any  # (n * width,) int32; below 0: the row is left out
    width: Any  # int32, rows of one index
    offsets: Any  # (n_keys + 1,) int32
    size: Any  # (n_keys,) int32, rows of each key
    place: Any  # (n * width,) int32, of a row within its key, before they are ordered
    unordered: Any  # (n * width,) int32
    out_order: Any  # (n * width,) int32


@kernel(grain=4096, cuda=CudaBody("traccc_py.device.cuda.primitives:count_members"))
def _count_members(i, p):
    """Give each row of index i a place within its key."""
    for row in range(i * p.width, (i + 1) * p.width):
        if p.key[row] >= 0:
            p.place[row] = fetch_add(p.size, p.key[row], np.int32(1))


@kernel(grain=4096)
def _place_members(i, p):
    """Write the rows of index i to their places."""
    for row in range(i * p.width, (i + 1) * p.width):
        if p.key[row] >= 0:
            p.unordered[p.offsets[p.key[row]] + p.place[row]] = row


@kernel(grain=2048)
def _order_members(i, p):
    """Write each row of index i behind the rows of its key with a smaller index."""
    for row in range(i * p.width, (i + 1) * p.width):
        if p.key[row] >= 0:
            first, last = p.offsets[p.key[row]], p.offsets[p.key[row] + 1]
            position = first
            for k in range(first, last):
                if p.unordered[k] < row:
                    position += 1
            p.out_order[position] = row


def group_rows(
    ws: Workspace, name: str, key: Any, extent: Extent, keys: Extent, rows: Extent, *, width: int = 1
) -> Groups:
    """Gather rows by key.

    Parameters
    ----------
    ws : Workspace
        Buffers.
    name : str
        Prefix of the names of the arrays.
    key : array of shape (n * width,), int32
        Key of each row; rows with a negative one are left out.
    extent : Extent
        The collection: `width` rows for each of its indices.
    keys : Extent
        The keys.
    rows : Extent
        Its size becomes the number of rows that are not left out; there is always room for them.
    width : int, optional
        Rows of an index [1].

    Returns
    -------
    Groups
        The rows of each key.
    """
    ws.reserve(rows, extent.capacity * width)
    size = ws.array(f"{name}.group_size", keys, np.int32)
    offsets = ws.array(f"{name}.group_offsets", keys, np.int32, extra=1)
    place, unordered, order = (ws.array(f"{name}.{part}", rows, np.int32) for part in ("place", "unordered", "order"))
    payload = _Payload(
        key=key,
        width=np.int32(width),
        offsets=offsets,
        size=size,
        place=place,
        unordered=unordered,
        out_order=order,
    )
    ws.clear(size)
    ws.launch(_count_members, extent, payload)
    ws.scan(size, keys, offsets, rows)
    ws.launch(_place_members, extent, payload)
    ws.launch(_order_members, extent, payload)
    return Groups(offsets, order)
