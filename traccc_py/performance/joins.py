"""Checks of rows in one file that refer to rows in another, before they are used as sizes or indices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_events import find_event_file, read_measurement_hit_map
from traccc_py.data.csv_table import input_error
from traccc_py.data.truth import MeasurementHitMap
from traccc_py.errors import InputDataError

__all__ = ["check_rows", "read_links", "state_offsets"]


def check_rows(path: Path, column: str, values: np.ndarray, n: int, what: str, rows: np.ndarray | None = None) -> None:
    """Check that values are rows of another collection.

    Parameters
    ----------
    path : Path
        File of the values.
    column : str
        Their column.
    values : ndarray of shape (m,), integers
        Rows of the other collection, counted from 0.
    n : int
        Number of rows there are [1].
    what : str
        What they are rows of, for messages.
    rows : ndarray of shape (m,), int64, optional
        Rows of `path` that the values are in; by default one each.

    Raises
    ------
    InputDataError
        If one is negative, or `n` or more; the message names file, line and value.
    """
    is_bad = (values < 0) | (values >= n)
    if is_bad.any():
        first = int(np.argmax(is_bad))
        row = first if rows is None else int(rows[first])
        limits = f"0 to {n - 1}" if n else "which has none"
        expected = f"a row of {what}, {limits} (is that file complete?)"
        raise input_error(path, row + FIRST_DATA_LINE, column, values[first], expected)


def read_links(directory: Path | str, event: int, n_hits: int) -> tuple[Path, MeasurementHitMap]:
    """Read which hits made which measurement, and check that the hits exist.

    Parameters
    ----------
    directory : path
        Folder of the truth.
    event : int
        Event number.
    n_hits : int
        Number of hits of the event [1].

    Returns
    -------
    path : Path
        The file.
    links : MeasurementHitMap
        Its rows.

    Raises
    ------
    InputDataError
        If the file is missing or can't be used, names a hit that does not exist, or has no row though there are hits.
    """
    path = find_event_file(directory, event, "measurement-simhit-map")
    links = read_measurement_hit_map(path)
    if n_hits and not len(links):
        msg = f"{path}: has no rows, but the event has {n_hits} hits; without links nothing can be matched to the truth"
        raise InputDataError(msg)
    check_rows(path, "hit_id", links.hit_id, n_hits, "the hits file")
    return path, links


def state_offsets(path: Path, track_id: np.ndarray, n_tracks: int) -> np.ndarray:
    """Return the first state of each track, and the number of states, (n_tracks + 1,) int64.

    Parameters
    ----------
    path : Path
        File of the track states.
    track_id : ndarray of shape (n_states,), int64
        Track of each state.
    n_tracks : int
        Number of tracks [1].

    Raises
    ------
    InputDataError
        If a track does not exist, or states are not in the order of their tracks.
    """
    check_rows(path, "track_id", track_id, n_tracks, "the tracks file")
    is_back = np.diff(track_id) < 0
    if is_back.any():
        row = int(np.argmax(is_back)) + 1
        expected = f"{track_id[row - 1]} or more: states are in the order of their tracks"
        raise input_error(path, row + FIRST_DATA_LINE, "track_id", track_id[row], expected)
    return np.searchsorted(track_id, np.arange(n_tracks + 1))
