"""The compact form of an event's cells: one tensor of bytes, 11 a cell with times and 10 a module.

One tensor, because each costs client, server and model some hundredth of a millisecond. Little-endian, in this order,
every column at a multiple of the size of its numbers:

==============  ======  =========  ================================================================
column          type    rows       meaning
==============  ======  =========  ================================================================
header          uint32  4          version of the input, flags , number of modules, number of cells
geometry_id     int64   n_modules  as in CELL_POSITIONS
activation      float32 n_cells    as in CELL_PROPERTIES
time            float32 n_cells    as in CELL_PROPERTIES; without the flag `HAS_TIMES` no rows: all are 0
channels        uint16  n_cells    channel0, above its 12 bits the 4 lowest of channel1; `WIDE`: channel0
module_cells    uint16  n_modules  how many of the next cells are on this module
more_channels   uint8   n_cells    the other bits of channel1; `WIDE`: uint16, channel1
==============  ======  =========  ================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

import numpy as np

from traccc_py.edm import Cells, ModuleCells
from traccc_py.errors import WireError
from traccc_py.wire.tensors import CELLS, INPUT_VERSION, STANDARD_INPUTS, Allocate, new_tensors, received

__all__ = ["pack_compact_cells", "unpack_compact_cells"]

_MAX_16_BITS = int(np.iinfo(np.uint16).max)
_CHANNEL_BITS = 12  # of each channel, unless they are wide
_LOW_BITS = 16 - _CHANNEL_BITS  # of channel1, that stand beside channel0
_CHANNEL_MASK = (1 << _CHANNEL_BITS) - 1
_HEADER = ("version", "flags", "n_modules", "n_cells")
_HEADER_TYPE = np.dtype("<u4")
_TRACCC_AAS_HEADER, _TRACCC_AAS_CELL = 8, 20  # [bytes], of the raw cells that a branch of traccc-aaS (83ab51d) takes
_HEADER_BYTES = len(_HEADER) * _HEADER_TYPE.itemsize


class _Flag(IntFlag):
    HAS_TIMES = 1
    WIDE = 2


def _columns(n_modules: int, n_cells: int, flags: int) -> dict[str, tuple[str, int]]:
    """Return type and rows of each column behind the header, in order."""
    return {
        "geometry_id": ("<i8", n_modules),
        "activation": ("<f4", n_cells),
        "time": ("<f4", n_cells if flags & _Flag.HAS_TIMES else 0),
        "channels": ("<u2", n_cells),
        "module_cells": ("<u2", n_modules),
        "more_channels": ("<u2" if flags & _Flag.WIDE else "<u1", n_cells),
    }


def _n_bytes(columns: Mapping[str, tuple[str, int]]) -> int:
    return _HEADER_BYTES + sum(np.dtype(dtype).itemsize * n for dtype, n in columns.values())


def _views(tensor: np.ndarray, columns: Mapping[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """Return the columns as views of the tensor."""
    views, begin = {}, _HEADER_BYTES
    for name, (dtype, n) in columns.items():
        end = begin + np.dtype(dtype).itemsize * n
        views[name] = tensor[begin:end].view(dtype)
        begin = end
    return views


def pack_compact_cells(cells: Cells, allocate: Allocate = new_tensors) -> dict[str, np.ndarray]:
    """Return the compact input tensor of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event; those of a module should stand together, as in most files.
    allocate : callable, optional
        Gives the memory of the tensor.

    Returns
    -------
    dict of str to ndarray
        CELLS by name: 16 bytes, 10 a run of cells of one module, 7 a cell, and 4 more if any time is not 0, and 1 more
        if a channel is above 4095.

    Raises
    ------
    WireError
        If a channel does not fit in 16 bits: use the standard tensors then.
    """
    n = len(cells)
    ids = np.asarray(cells.geometry_id).astype(np.uint64, copy=False)
    starts, lengths = _runs(ids)
    channel0, channel1, time = np.asarray(cells.channel0), np.asarray(cells.channel1), np.asarray(cells.time)
    is_wide = max(_largest(channel0, "channel0"), _largest(channel1, "channel1")) > _CHANNEL_MASK
    has_times = n > 0 and bool(time[0] != 0 or time.any())
    flags = _Flag.HAS_TIMES * has_times | _Flag.WIDE * is_wide
    columns = _columns(len(starts), n, flags)
    tensors = allocate({CELLS: _n_bytes(columns)})
    tensor = tensors[CELLS.name]
    tensor[:_HEADER_BYTES].view(_HEADER_TYPE)[:] = INPUT_VERSION, flags, len(starts), n
    views = _views(tensor, columns)
    views["geometry_id"][:] = ids[starts].view(np.int64)
    views["module_cells"][:] = lengths
    views["activation"][:] = cells.activation
    if has_times:
        views["time"][:] = time
    low, more = views["channels"], views["more_channels"]
    low[:] = channel0
    if is_wide:
        more[:] = channel1
    else:
        short = channel1.astype(np.uint16)
        np.right_shift(short, _LOW_BITS, out=more, casting="unsafe")
        short <<= _CHANNEL_BITS
        low |= short
    return tensors


def _runs(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first cell and length of each run of cells of one module, cut where a length exceeds 16 bits."""
    is_first = np.empty(len(ids), bool)
    is_first[:1] = True
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=len(ids))
    if lengths.max(initial=0) > _MAX_16_BITS:
        n_pieces = -(-lengths // _MAX_16_BITS)
        first_piece = np.cumsum(n_pieces) - n_pieces
        piece = np.arange(n_pieces.sum()) - np.repeat(first_piece, n_pieces)
        starts = np.repeat(starts, n_pieces) + piece * _MAX_16_BITS
        lengths = np.diff(starts, append=len(ids))
    return starts, lengths


def _largest(channel: np.ndarray, name: str) -> int:
    """Return the largest channel, 0 if there is none."""
    unsigned = channel.view(channel.dtype.str.replace("i", "u"))  # one pass for both ends
    largest = int(unsigned.max(initial=0))
    if largest > _MAX_16_BITS:
        worst = int(channel.min()) if int(channel.min()) < 0 else largest
        msg = f"cells.{name} has {worst}; expected 0 to {_MAX_16_BITS}: use the standard tensors"
        raise WireError(msg)
    return largest


def unpack_compact_cells(tensors: Mapping[str, np.ndarray]) -> ModuleCells:
    """Return the cells in the compact input tensor, as views of it where their types allow.

    Raises
    ------
    WireError
        If the tensor is missing, has the wrong type or shape, or its numbers of modules, cells and bytes contradict
        each other.
    """
    tensor = received(tensors, CELLS)
    columns, n_cells = _checked_columns(tensor)
    views = _views(tensor, columns)
    module_cells, low, more = views["module_cells"], views["channels"], views["more_channels"]
    total = int(module_cells.sum(dtype=np.int64))
    if total != n_cells:
        msg = f"CELLS has {total} cells in its modules; expected {n_cells}, as its header says"
        raise WireError(msg)
    channel0, channel1 = low, more
    if low.dtype != more.dtype:
        channel0, channel1 = low & np.uint16(_CHANNEL_MASK), low >> _CHANNEL_BITS
        channel1 |= np.left_shift(more, _LOW_BITS, dtype=np.uint16)
    return ModuleCells(
        geometry_id=views["geometry_id"].view(np.uint64),
        n_cells=module_cells,
        channel0=channel0,
        channel1=channel1,
        activation=views["activation"],
        time=views["time"] if len(views["time"]) else np.zeros(n_cells, np.float32),
    )


def _checked_columns(tensor: np.ndarray) -> tuple[dict[str, tuple[str, int]], int]:
    """Return the columns that the header announces, and the number of cells."""
    if len(tensor) < _HEADER_BYTES:
        msg = f"CELLS has {len(tensor)} bytes; expected at least {_HEADER_BYTES}: {', '.join(_HEADER)}"
        raise WireError(msg)
    version, flags, n_modules, n_cells = map(int, tensor[:_HEADER_BYTES].view(_HEADER_TYPE))
    if len(tensor) == _TRACCC_AAS_HEADER + _TRACCC_AAS_CELL * (version + (flags << 32)) and version != INPUT_VERSION:
        msg = (
            "CELLS is as in traccc-aaS's branch accept-raw-cell-buffer, with indices of modules instead of their ids; "
            f"expected input of version {INPUT_VERSION}, or {' and '.join(spec.name for spec in STANDARD_INPUTS)}"
        )
        raise WireError(msg)
    if version != INPUT_VERSION:
        msg = f"CELLS is of version {version}; expected {INPUT_VERSION}"
        raise WireError(msg)
    if flags > sum(_Flag):
        msg = f"CELLS has the flags {flags}; expected a sum of {', '.join(f'{f.value} ({f.name})' for f in _Flag)}"
        raise WireError(msg)
    columns = _columns(n_modules, n_cells, flags)
    if len(tensor) != _n_bytes(columns):
        expected = f"{_n_bytes(columns)} for {n_modules} modules and {n_cells} cells with the flags {flags}"
        msg = f"CELLS has {len(tensor)} bytes; expected {expected}"
        raise WireError(msg)
    return columns, n_cells
