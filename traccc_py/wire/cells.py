"""Cells as standard tensors: packing on the side of the client, unpacking on that of the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from traccc_py.edm import Cells
from traccc_py.wire.tensors import (
    CELL_POSITIONS,
    CELL_PROPERTIES,
    STANDARD_INPUTS,
    Allocate,
    check_rows,
    new_tensors,
    received,
)

__all__ = ["pack_cells", "unpack_cells"]


def pack_cells(cells: Cells, allocate: Allocate = new_tensors) -> dict[str, np.ndarray]:
    """Return the standard input tensors of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event, in any order.
    allocate : callable, optional
        Gives the memory of the tensors.

    Returns
    -------
    dict of str to ndarray
        CELL_POSITIONS and CELL_PROPERTIES by name; 40 bytes a cell.
    """
    tensors = allocate({CELL_POSITIONS: len(cells), CELL_PROPERTIES: len(cells)})
    positions, properties = (tensors[spec.name] for spec in STANDARD_INPUTS)
    positions[:, 0] = np.asarray(cells.geometry_id).astype(np.uint64, copy=False).view(np.int64)
    positions[:, 1] = cells.measurement_id
    positions[:, 2] = cells.channel0
    positions[:, 3] = cells.channel1
    properties[:, 0] = cells.time
    properties[:, 1] = cells.activation
    return tensors


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
