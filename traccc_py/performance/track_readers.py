"""Tracks and seeds from files: our own output, and tables of traccc's tracks (`docs/performance.md`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_events import (
    event_files,
    find_event_file,
    has_event_file,
    read_measurements,
)
from traccc_py.data.csv_table import Column, check_header, input_error, read_table
from traccc_py.data.headers import check_event_headers
from traccc_py.data.layouts import columns_from_table
from traccc_py.data.result_tables import (
    has_result_tables,
    read_table_measurements,
    read_table_states,
    read_table_tracks,
)
from traccc_py.data.track_files import read_track_states, read_tracks
from traccc_py.data.trackml_files import check_trackml_headers, is_trackml
from traccc_py.data.truth import MeasurementHitMap
from traccc_py.edm import Tracks, columns_of
from traccc_py.errors import InputDataError
from traccc_py.performance.definitions import TRACK_KINDS
from traccc_py.performance.joins import check_rows, read_links, state_offsets
from traccc_py.performance.tracks import SEED_SIZE, EventTracks, TrackSet
from traccc_py.performance.truth import EventTruth, link_files, link_map, particle_kind

__all__ = ["check_event_tracks", "read_event_tracks", "tracks_kind"]

_OF_TRACKS = columns_of(Tracks)

_FIRST_STATE = [
    Column("geometry_id", "u8"),
    *(Column(name, "f8", allow_nan=True) for k in ("params", "covariance") for name in _OF_TRACKS[k].csv_names),
]
_TRACCC_TRACKS = [
    Column("outcome", "i8", minimum=0, maximum=8),
    Column("ndf", "f8", allow_nan=True),
    Column("chi2", "f8", allow_nan=True),
    Column("pval", "f8", allow_nan=True),
    Column("nholes", "i8", minimum=0),
    *_FIRST_STATE,
    Column("n_states", "i8", minimum=0),
    Column("hit_ids", "U", is_text=True),
]
_SEED_HITS = ("bottom_hit", "middle_hit", "top_hit")
_TRACCC_SEEDS = [*(Column(name, "i8", minimum=0) for name in _SEED_HITS), *_FIRST_STATE]


def tracks_kind(directory: Path | str, kind: str | None = None) -> str:
    """Return the kind of a folder's track files.

    Parameters
    ----------
    directory : path
        Folder.
    kind : str, optional
        The kind wanted; by default that of the last stage with files.

    Returns
    -------
    str
        "own": files of `traccc-py run`; "fitted", "resolved", "found", "seeds": tables of traccc's tracks.

    Raises
    ------
    InputDataError
        If there are none.
    """
    folder = Path(directory)
    files = {"own": "tracks", "seeds": "seeds"}
    files |= {k: f"{k}_tracks" for k in TRACK_KINDS if k not in files}
    there = [k for k in TRACK_KINDS if event_files(folder, files[k]) or (k == "own" and has_result_tables(folder))]
    if kind is None and there:
        return there[0]
    if kind in there:
        return str(kind)
    wanted = " or ".join(f"event*-{name}.csv" for name in (files.values() if kind is None else [files[kind]]))
    msg = f"{folder}: has no file {wanted}"
    raise InputDataError(msg)


def check_event_tracks(directory: Path | str, kind: str, truth_directory: Path | str, event: int) -> None:
    """Check that the files of an event's tracks and truth are there and have the columns needed; rows are not read.

    Parameters
    ----------
    directory, kind, truth_directory
        As for `read_event_tracks`.
    event : int
        Event number.

    Raises
    ------
    InputDataError
        If one can't be used.
    """
    of_truth = [particle_kind(truth_directory, event), "hits", "measurement-simhit-map"]
    of_trackml = is_trackml(hits_path := find_event_file(truth_directory, event, "hits"))
    if of_trackml and kind != "own":
        msg = (
            f"{hits_path}: is of TrackML, but the tracks in {directory} are traccc's; expected those of 'traccc-py run'"
        )
        raise InputDataError(msg)
    if of_trackml:
        check_trackml_headers(hits_path, with_cells=False)
    elif kind == "own":
        check_event_headers(truth_directory, event, [*of_truth, "measurements"])
    if kind == "own":
        if not _is_in_tables(directory, event):
            check_event_headers(directory, event, ("tracks", "track_states", "measurements"))
        return
    check_event_headers(truth_directory, event, of_truth)
    if kind != "seeds":
        check_header(find_event_file(directory, event, f"{kind}_tracks"), _TRACCC_TRACKS)
    if kind == "seeds" or _has_seeds(directory, event):
        check_header(find_event_file(directory, event, "seeds"), _TRACCC_SEEDS)


def _is_in_tables(directory: Path | str, event: int) -> bool:
    """Return whether our tracks of an event are in Parquet files, of many events."""
    return not has_event_file(directory, event, "tracks") and has_result_tables(directory)


def _has_seeds(directory: Path | str, event: int) -> bool:
    return has_event_file(directory, event, "seeds")


def read_event_tracks(directory: Path | str, kind: str, truth_directory: Path | str, event: EventTruth) -> EventTracks:
    """Read what was reconstructed in an event, and link its measurements to the truth.

    Parameters
    ----------
    directory : path
        Folder of the tracks.
    kind : str
        One of `TRACK_KINDS`.
    truth_directory : path
        Folder of the truth: the measurement-hit map, and cells or measurements.
    event : EventTruth
        The event's truth.

    Raises
    ------
    InputDataError
        If a file is missing or can't be used.
    """
    if kind == "own":
        return _read_own(directory, truth_directory, event)
    _, links = read_links(truth_directory, event.number, len(event.hits))
    ids, dense = np.unique(links.measurement_id, return_inverse=True)  # ids in files may be arbitrarily large
    n, links = len(ids), MeasurementHitMap(dense, links.hit_id)
    measurement_of_hit = np.full(len(event.hits), -1)
    measurement_of_hit[links.hit_id[::-1]] = links.measurement_id[::-1]
    tracks = None if kind == "seeds" else _read_traccc(directory, kind, event.number, measurement_of_hit)
    seeds = None
    if kind == "seeds" or _has_seeds(directory, event.number):
        seeds = _read_traccc_seeds(directory, event.number, measurement_of_hit)
    return EventTracks(link_map(links, n, event.particle_of_hit), tracks, seeds)


def _fill_first_state(tracks: TrackSet, table: dict[str, np.ndarray]) -> None:
    tracks.fill({name: _OF_TRACKS[name].from_csv(table) for name in ("geometry_id", "params", "covariance")})


def _hits_to_measurements(
    path: Path, column: str, rows: np.ndarray, hit: np.ndarray, measurement_of_hit: np.ndarray
) -> np.ndarray:
    check_rows(path, column, hit, len(measurement_of_hit), "the hits file", rows)
    return measurement_of_hit[hit]


def _read_traccc(directory: Path | str, kind: str, event: int, measurement_of_hit: np.ndarray) -> TrackSet:
    path = find_event_file(directory, event, f"{kind}_tracks")
    table = read_table(path, _TRACCC_TRACKS)
    lists = [str(text).split() for text in table["hit_ids"]]
    n_hits = np.array([len(hits) for hits in lists], np.int64)
    bad = n_hits != table["n_states"]
    if bad.any():
        row = int(np.argmax(bad))
        expected = f"{table['n_states'][row]} ids, as n_states says"
        raise input_error(path, row + FIRST_DATA_LINE, "hit_ids", table["hit_ids"][row], expected)
    rows = np.repeat(np.arange(len(lists)), n_hits)
    try:
        hit = np.array([h for hits in lists for h in hits], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        msg = f"{path}: hit_ids are not all integers ({error}); expected rows of the hits file with spaces between"
        raise InputDataError(msg) from error
    measurement = _hits_to_measurements(path, "hit_ids", rows, hit, measurement_of_hit)
    tracks = TrackSet.without_fit(np.concatenate(([0], np.cumsum(n_hits))), measurement)
    _fill_first_state(tracks, table)
    tracks.fill({"fit_outcome": table["outcome"], "n_holes": table["nholes"], **table})
    return tracks


def _read_traccc_seeds(directory: Path | str, event: int, measurement_of_hit: np.ndarray) -> TrackSet:
    path = find_event_file(directory, event, "seeds")
    table = read_table(path, _TRACCC_SEEDS)
    hit = np.stack([table[name] for name in _SEED_HITS], axis=1).ravel()
    rows = np.repeat(np.arange(len(hit) // SEED_SIZE), SEED_SIZE)
    measurement = _hits_to_measurements(path, ", ".join(_SEED_HITS), rows, hit, measurement_of_hit)
    seeds = TrackSet.without_fit(np.arange(0, len(hit) + 1, SEED_SIZE), measurement)
    _fill_first_state(seeds, table)
    return seeds


def _read_own(directory: Path | str, truth_directory: Path | str, event: EventTruth) -> EventTracks:
    number = event.number
    if _is_in_tables(directory, number):
        table, states = read_table_tracks(directory, number), read_table_states(directory, number)
        measurements = read_table_measurements(directory, number)
        of_tracks, of_states, path = (Path(directory) / kind for kind in ("tracks", "track_states", "measurements"))
    else:
        table, states = read_tracks(directory, number), read_track_states(directory, number)
        kinds = ("tracks", "track_states", "measurements")
        of_tracks, of_states, path = (find_event_file(directory, number, kind) for kind in kinds)
        measurements = read_measurements(path)
    _check_track_ids(of_tracks, table["track_id"])
    offsets = state_offsets(of_states, states["track_id"], len(table["track_id"]))
    measurement = _rows_of_ids(of_states, path, measurements.measurement_id, states["measurement_id"])
    tracks = TrackSet.without_fit(offsets, measurement)
    tracks.fill(columns_from_table("tracks", table))
    links = link_files(measurements, truth_directory, event, str(path))
    return EventTracks(links, tracks, None)


def _check_track_ids(path: Path, track_id: np.ndarray) -> None:
    """Check that tracks are numbered by their rows, which states refer to."""
    is_bad = track_id != np.arange(len(track_id))
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise input_error(path, row + FIRST_DATA_LINE, "track_id", track_id[row], f"{row}, the number of the row")


def _rows_of_ids(of_states: Path, path: Path, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the rows of the measurements of track states; -1 for holes."""
    order = np.argsort(ids, kind="stable")
    first, last = (np.searchsorted(ids[order], wanted, side) for side in ("left", "right"))
    is_bad = (last - first != 1) & (wanted >= 0)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        found = "none has it" if first[row] == last[row] else f"{last[row] - first[row]} have it"
        expected = f"-1 (none) or the id of one of the {len(ids)} measurements in {path.name}; {found}"
        raise input_error(of_states, row + FIRST_DATA_LINE, "measurement_id", wanted[row], expected)
    rows = np.full(len(wanted), -1)
    rows[wanted >= 0] = order[first[wanted >= 0]]
    return rows
