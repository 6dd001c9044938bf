"""Loops over the rows of an event's results, in compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.device.cpu.host_loop import host_loop, read_only

__all__ = ["list_cells", "place_on_surfaces"]


@host_loop([(read_only(np.int32), np.empty(0, np.int64), np.empty(0, np.int64))])
def list_cells(measurement: Any, places: Any, rows: Any) -> None:
    """List the cells in the order of their measurements, then of their rows.

    Parameters
    ----------
    measurement : ndarray of shape (n_cells,), int32
        Measurement of each cell.
    places : ndarray of shape (n_measurements,), int64
        Where the first cell of each measurement goes; one more for each cell at the end.
    rows : ndarray of shape (n_cells,), int64
        Gets the cells.
    """
    for cell in range(len(measurement)):
        m = measurement[cell]
        rows[places[m]] = cell
        places[m] += 1


@host_loop([(read_only(np.int32), np.empty((0, 6), np.float32), (np.empty((0, 3)),) * 3, np.empty((0, 3), np.float32))])
def place_on_surfaces(surface: Any, params: Any, frames: Any, position: Any) -> None:
    """Write the global positions of track parameters.

    Parameters
    ----------
    surface : ndarray of shape (n,), int32
        Surface of each row.
    params : ndarray of shape (n, 6), float32
        Track parameters, loc0 and loc1 first [mm].
    frames : tuple of ndarray of shape (n_surfaces, 3), float64
        Centre, axis u, axis v of all surfaces [mm].
    position : ndarray of shape (n, 3), float32
        Gets the positions [mm].
    """
    centre, u, v = frames
    for i in range(len(surface)):
        s, loc0, loc1 = surface[i], np.float64(params[i, 0]), np.float64(params[i, 1])
        for k in range(3):
            position[i, k] = np.float32(loc0 * u[s, k] + loc1 * v[s, k] + centre[s, k])
