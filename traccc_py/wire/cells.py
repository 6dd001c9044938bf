"""Cells as tensors: packing on the side of the client, unpacking on that of the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from traccc_py.edm import Cells
from traccc_py.errors import WireError
from traccc_py.wire.tensors import (
    CELL_ACTIVATIONS,
    CELL_CHANNELS,
    CELL_POSITIONS,
    CELL_PROPERTIES,
    CELL_TIMES,
    COMPACT_INPUTS,
    MODULE_CELLS,
    MODULES,
    STANDARD_INPUTS,
    check_rows,
    received,
)

__all__ = ["pack_cells", "pack_compact_cells", "unpack_cells", "unpack_compact_cells"]

_MAX_16_BITS = int(np.iinfo(np.uint16).max)


def pack_cells(cells: Cells) -> dict[str, np.ndarray]:
    """Return the standard input tensors of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event, in any order.

    Returns
    -------
    dict of str to ndarray
        CELL_POSITIONS and CELL_PROPERTIES by name; 40 bytes a cell.
    """
    positions = np.empty((len(cells), 4), np.int64)
    positions[:, 0] = np.asarray(cells.geometry_id).astype(np.uint64, copy=False).view(np.int64)
    positions[:, 1] = cells.measurement_id
    positions[:, 2] = cells.channel0
    positions[:, 3] = cells.channel1
    properties = np.empty((len(cells), 2), np.float32)
    properties[:, 0] = cells.time
    properties[:, 1] = cells.activation
    return {CELL_POSITIONS.name: positions, CELL_PROPERTIES.name: properties}


def unpack_cells(tensors: Mapping[str, np.ndarray]) -> Cells:
    """Return the cells in standard input tensors.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        CELL_POSITIONS and CELL_PROPERTIES by name.

    Returns
    -------
    Cells
        Views into the tensors.

    Raises
    ------
    WireError
        If a tensor is missing, has the wrong type or shape, or both differ in the number of rows.
    """
    positions, properties = (received(tensors, spec) for spec in STANDARD_INPUTS)
    check_rows((CELL_POSITIONS, positions), (CELL_PROPERTIES, properties))
    return Cells(
        geometry_id=np.ascontiguousarray(positions[:, 0]).view(np.uint64),
        channel0=positions[:, 2],
        channel1=positions[:, 3],
        activation=properties[:, 1],
        time=properties[:, 0],
        measurement_id=positions[:, 1],
    )


def pack_compact_cells(cells: Cells) -> dict[str, np.ndarray]:
    """Return the compact input tensors of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event; those of a module should stand together, as in most files.

    Returns
    -------
    dict of str to ndarray
        The tensors of `COMPACT_INPUTS` by name: 10 bytes a run of cells of one module, 8 bytes a cell, and 4 more if
        any time is not 0.

    Raises
    ------
    WireError
        If a channel does not fit in 16 bits: use the standard tensors then.
    """
    n = len(cells)
    ids = np.asarray(cells.geometry_id).astype(np.uint64, copy=False)
    starts = _starts_of_runs(ids)
    channels = np.empty((n, 2), np.uint16)
    for column, name in enumerate(("channel0", "channel1")):
        values = np.asarray(getattr(cells, name))
        if not 0 <= int(np.bitwise_or.reduce(values)) <= _MAX_16_BITS:  # one pass; some bit is beyond the 16
            worst = int(values.min()) if int(values.min()) < 0 else int(values.max())
            msg = f"cells.{name} has {worst}; expected 0 to {_MAX_16_BITS}: use the standard tensors"
            raise WireError(msg)
        channels[:, column] = values
    times = np.asarray(cells.time, np.float32)
    return {
        MODULES.name: ids[starts].view(np.int64),
        MODULE_CELLS.name: np.diff(starts, append=n).astype(np.uint16),
        CELL_CHANNELS.name: channels,
        CELL_ACTIVATIONS.name: np.ascontiguousarray(cells.activation, np.float32),
        CELL_TIMES.name: np.ascontiguousarray(times) if times.any() else CELL_TIMES.empty(),
    }


def _starts_of_runs(ids: np.ndarray) -> np.ndarray:
    """Return where each run of cells of one module begins; their lengths fit into 16 bits, longer ones are cut."""
    starts = np.flatnonzero(np.concatenate(([len(ids) > 0], ids[1:] != ids[:-1])))
    n_pieces = -(-np.diff(starts, append=len(ids)) // _MAX_16_BITS)
    if len(starts) and n_pieces.max() > 1:
        first_piece = np.cumsum(n_pieces) - n_pieces
        piece = np.arange(n_pieces.sum()) - np.repeat(first_piece, n_pieces)
        starts = np.repeat(starts, n_pieces) + piece * _MAX_16_BITS
    return starts


def unpack_compact_cells(tensors: Mapping[str, np.ndarray]) -> Cells:
    """Return the cells in compact input tensors.

    Raises
    ------
    WireError
        If a tensor is missing, has the wrong type or shape, or the numbers of rows contradict each other.
    """
    modules, n_in_module, channels, activation, times = (received(tensors, spec) for spec in COMPACT_INPUTS)
    n = len(channels)
    check_rows((MODULES, modules), (MODULE_CELLS, n_in_module))
    check_rows((CELL_CHANNELS, channels), (CELL_ACTIVATIONS, activation))
    if len(times):
        check_rows((CELL_CHANNELS, channels), (CELL_TIMES, times))
    total = int(n_in_module.sum(dtype=np.int64))
    if total != n:
        msg = f"MODULE_CELLS sum up to {total}; expected {n}, the number of rows of CELL_CHANNELS"
        raise WireError(msg)
    return Cells(
        geometry_id=np.repeat(modules.view(np.uint64), n_in_module),
        channel0=channels[:, 0],
        channel1=channels[:, 1],
        activation=activation,
        time=times if len(times) else np.broadcast_to(np.float32(0), n),
        measurement_id=np.broadcast_to(np.int64(-1), n),
    )
