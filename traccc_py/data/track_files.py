"""Files of a reconstructed event: tracks, track states and measurements.

Three CSV files an event, which appear together or not at all. `docs/file_formats.md` lists the columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data.csv_events import event_file_name, find_event_file, measurement_columns
from traccc_py.data.csv_table import Column, format_table, read_table
from traccc_py.edm import LOC0, LOC1, N_PARAMETERS, EventResult, Tracks, packed_index
from traccc_py.files import write_files

__all__ = [
    "COLUMNS",
    "read_track_states",
    "read_tracks",
    "track_columns",
    "track_state_columns",
    "write_event_result",
]

_FIRST_STATE = ("loc0", "loc1", "phi", "theta", "qop")
_PERIGEE = ("d0", "z0", "perigee_phi", "perigee_theta", "perigee_qop")

_COVARIANCES = {  # name by place in the packed matrix
    packed_index(row, column): f"cov_{_PERIGEE[column]}_{_PERIGEE[row]}"
    for row in range(N_PARAMETERS)
    for column in range(row)
}

_TRACKS = [
    Column("track_id", "i8", minimum=0),
    Column("fit_outcome", "i4", minimum=0),
    Column("geometry_id", "u8"),
    *(Column(name, "f4", allow_nan=True) for name in (*_FIRST_STATE, "time")),
    *(Column(f"var_{name}", "f4", allow_nan=True) for name in _FIRST_STATE),
    Column("chi2", "f4", allow_nan=True),
    Column("ndf", "f4"),
    Column("pval", "f4", allow_nan=True),
    Column("n_measurements", "i4", minimum=0),
    Column("n_holes", "i4", minimum=0),
    *(Column(name, "f4", allow_nan=True) for name in _PERIGEE),
    *(Column(f"var_{name}", "f4", allow_nan=True) for name in _PERIGEE),
    *(Column(name, "f4", allow_nan=True) for name in _COVARIANCES.values()),
]
_STATES = [
    Column("track_id", "i8", minimum=0),
    Column("state_index", "i4", minimum=0),
    Column("geometry_id", "u8"),
    Column("measurement_id", "i8", minimum=-1),
    *(
        Column(f"{what}_{axis}", "f4", allow_nan=True)
        for what in ("measured", "smoothed", "residual")
        for axis in ("loc0", "loc1")
    ),
    Column("chi2", "f4", allow_nan=True),
]

COLUMNS = {"tracks": _TRACKS, "track_states": _STATES}  #: of the files, by the kind that their names tell


def track_columns(tracks: Tracks) -> dict[str, np.ndarray]:
    """Return tracks as the columns of their file: parameters and variances at the first state, then at the beam line.

    The perigee has its covariances too: they are needed to fit vertices.
    """
    columns = {
        "track_id": np.arange(len(tracks)),
        "fit_outcome": tracks.fit_outcome,
        "geometry_id": tracks.geometry_id,
    }
    columns |= {name: tracks.params[:, k] for k, name in enumerate(_FIRST_STATE)}
    columns["time"] = tracks.time
    columns |= {f"var_{name}": tracks.covariance[:, packed_index(k, k)] for k, name in enumerate(_FIRST_STATE)}
    columns |= {
        "chi2": tracks.chi2,
        "ndf": tracks.ndf,
        "pval": tracks.pval,
        "n_measurements": tracks.n_measurements,
        "n_holes": tracks.n_holes,
    }
    columns |= {name: tracks.perigee[:, k] for k, name in enumerate(_PERIGEE)}
    columns |= {f"var_{name}": tracks.perigee_covariance[:, packed_index(k, k)] for k, name in enumerate(_PERIGEE)}
    return columns | {name: tracks.perigee_covariance[:, place] for place, name in _COVARIANCES.items()}


def track_state_columns(result: EventResult) -> dict[str, np.ndarray]:
    """Return track states as the columns of their file. What was not measured is NaN."""
    states, measurements = result.track_states, result.measurements
    lengths = np.diff(result.tracks.state_offsets)
    track_id = np.repeat(np.arange(len(lengths)), lengths)
    has_measurement = states.measurement_index >= 0
    link = np.where(has_measurement, states.measurement_index, 0)
    if len(measurements):
        measurement_id = np.where(has_measurement, measurements.measurement_id[link], -1)
        measured = np.where(has_measurement[:, None], measurements.local_position[link], np.float32(np.nan))
        measured[measurements.dimensions[link] == 1, LOC1] = np.nan
    else:
        measurement_id = np.full(len(states), -1)
        measured = np.full((len(states), 2), np.nan, np.float32)
    smoothed = states.params[:, [LOC0, LOC1]]
    return {
        "track_id": track_id,
        "state_index": np.arange(len(track_id)) - np.repeat(result.tracks.state_offsets[:-1], lengths),
        "geometry_id": states.geometry_id,
        "measurement_id": measurement_id,
        "measured_loc0": measured[:, LOC0],
        "measured_loc1": measured[:, LOC1],
        "smoothed_loc0": smoothed[:, LOC0],
        "smoothed_loc1": smoothed[:, LOC1],
        "residual_loc0": measured[:, LOC0] - smoothed[:, LOC0],
        "residual_loc1": measured[:, LOC1] - smoothed[:, LOC1],
        "chi2": states.chi2,
    }


def write_event_result(directory: Path | str, event: int, result: EventResult, *, compress: bool = False) -> list[Path]:
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

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OSError
        If a file can't be written; none has changed then.
    """
    directory = Path(directory)
    tables = {
        "tracks": track_columns(result.tracks),
        "track_states": track_state_columns(result),
        "measurements": measurement_columns(result.measurements),
    }
    paths = {kind: directory / event_file_name(event, kind, compress=compress) for kind in tables}
    write_files({path: format_table(tables[kind]) for kind, path in paths.items()})
    for kind in tables:
        (directory / event_file_name(event, kind, compress=not compress)).unlink(missing_ok=True)
    return list(paths.values())


def _read(columns: list[Column], directory: Path | str, event: int, kind: str) -> dict[str, np.ndarray]:
    return read_table(find_event_file(directory, event, kind), columns)


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
    return _read(_TRACKS, directory, event, "tracks")


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
    return _read(_STATES, directory, event, "track_states")
