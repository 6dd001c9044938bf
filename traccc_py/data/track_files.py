"""Files of a reconstructed event: tracks, track states, measurements, seeds, and TrackML's submission.

By default three CSV files per event, written all or none. `docs/file_formats.md` lists the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from traccc_py.data.csv_events import event_file_name, find_event_file, measurement_table
from traccc_py.data.csv_table import format_table, read_table
from traccc_py.data.layouts import reading_rules, table_of
from traccc_py.data.trackml_files import submission_table
from traccc_py.edm import LOC0, LOC1, EventResult, Tracks
from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = [
    "OUTPUTS",
    "SUBMISSION",
    "event_table",
    "read_track_states",
    "read_tracks",
    "seed_table",
    "track_state_table",
    "track_table",
    "write_event_result",
]


def track_table(tracks: Tracks) -> dict[str, np.ndarray]:
    """Return tracks as the columns of their file."""
    return table_of("tracks", tracks, track_id=np.arange(len(tracks)))


def track_state_table(result: EventResult) -> dict[str, np.ndarray]:
    """Return track states as the columns of their file. What was not measured is NaN."""
    states, measurements = result.track_states, result.measurements
    lengths = np.diff(result.tracks.state_offsets)
    track_id = np.repeat(np.arange(len(lengths)), lengths)
    has_measurement = states.measurement_index >= 0
    link = np.where(has_measurement, states.measurement_index, 0)
    if len(measurements):
        measurement_id = np.where(has_measurement, measurements.measurement_id[link], -1)
        measured = measurements.local_position[link]
        np.copyto(measured, np.nan, where=~has_measurement[:, None])
        np.copyto(measured[:, LOC1], np.nan, where=measurements.dimensions[link] == 1)
    else:
        measurement_id = np.full(len(states), -1)
        measured = np.full((len(states), 2), np.nan, np.float32)
    return table_of(
        "track_states",
        states,
        track_id=track_id,
        state_index=np.arange(len(track_id)) - np.repeat(result.tracks.state_offsets[:-1], lengths),
        measurement_id=measurement_id,
        measured=measured,
        residual=measured - states.params[:, [LOC0, LOC1]],
    )


def seed_table(result: EventResult) -> dict[str, np.ndarray]:
    """Return seeds as the columns of their file."""
    seeds, ids = result.seeds, result.measurements.measurement_id
    places = {"bottom": seeds.bottom_index, "middle": seeds.middle_index, "top": seeds.top_index}
    links = {f"{k}_measurement_id": ids[result.spacepoints.measurement_index[row]] for k, row in places.items()}
    return table_of("seeds", seeds, **links)


_TABLES: dict[str, Callable[[EventResult], dict[str, np.ndarray]]] = {
    "tracks": lambda result: track_table(result.tracks),
    "track_states": track_state_table,
    "measurements": lambda result: measurement_table(result.measurements),
    "seeds": seed_table,
}
SUBMISSION = "submission"
OUTPUTS = (*_TABLES, SUBMISSION)  #: kinds of files that results are written to
_USUAL = OUTPUTS[:3]


def event_table(kind: str, result: EventResult) -> dict[str, np.ndarray]:
    """Return one of `OUTPUTS`, except a submission, as the columns of its file."""
    return _TABLES[kind](result)


def write_event_result(
    directory: Path | str,
    event: int,
    result: EventResult,
    *,
    compress: bool = False,
    kinds: Sequence[str] = _USUAL,
    hit_id: np.ndarray | None = None,
) -> list[Path]:
    """Write tracks, track states and measurements of one event: all three files or none.

    Files of an earlier run of the event, compressed or not, are replaced.

    Parameters
    ----------
    directory : path
        Folder; made if needed.
    event : int
        Event number.
    result : EventResult
        What the chain returned.
    compress : bool, optional
        Write ``.csv.gz``.
    kinds : sequence of str, optional
        Which of `OUTPUTS` to write.
    hit_id : ndarray of shape (n,), int64, optional
        TrackML's hit of each row of the input, for a submission.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OSError
        If a file can't be written; none has been changed.
    InputDataError
        If a submission is wanted without `hit_id`.
    """
    directory = Path(directory)
    tables = {kind: event_table(kind, result) for kind in kinds if kind != SUBMISSION}
    if SUBMISSION in kinds:
        if hit_id is None:
            msg = f"event {event} has no hits of TrackML; a submission can be made of its files only"
            raise InputDataError(msg)
        tables[SUBMISSION] = submission_table(event, result, hit_id)
    paths = {kind: directory / event_file_name(event, kind, compress=compress) for kind in tables}
    write_files({path: format_table(tables[kind]) for kind, path in paths.items()})
    for kind in tables:
        (directory / event_file_name(event, kind, compress=not compress)).unlink(missing_ok=True)
    return list(paths.values())


def _read(directory: Path | str, event: int, kind: str) -> dict[str, np.ndarray]:
    return read_table(find_event_file(directory, event, kind), reading_rules(kind))


def read_tracks(directory: Path | str, event: int) -> dict[str, np.ndarray]:
    """Read the tracks file of an event.

    Returns
    -------
    dict of str to ndarray of shape (n_tracks,)
        The columns by name; parameters as float32 [mm, rad, e/GeV].

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    return _read(directory, event, "tracks")


def read_track_states(directory: Path | str, event: int) -> dict[str, np.ndarray]:
    """Read the track states file of an event.

    Returns
    -------
    dict of str to ndarray of shape (n_states,)
        The columns by name; positions as float32 [mm].

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    return _read(directory, event, "track_states")
