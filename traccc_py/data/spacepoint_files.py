"""Spacepoints and track candidates in CSV files, as Acts writes them, both linked to measurements."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_table import format_table, input_error, read_table
from traccc_py.data.layouts import columns_from_table, reading_rules
from traccc_py.edm import Candidates, Measurements, Spacepoints, columns_of
from traccc_py.errors import InputDataError
from traccc_py.files import write_files
from traccc_py.geometry import Detector

__all__ = ["measurements_file_of", "read_prototracks", "read_spacepoints", "write_spacepoints"]

_NONE = 2**64 - 1  #: measurement_id_2 of a spacepoint made of one measurement
_NAME = re.compile(r"-(?:spacepoints?|prototracks)(\.csv(?:\.gz)?)$")
_PIXEL = 2  #: dimensions


def measurements_file_of(path: Path | str) -> Path:
    """Return the measurements file in the folder of a file of spacepoints or prototracks.

    Raises
    ------
    InputDataError
        If there is none, or a plain and a gzipped one.

    Examples
    --------
    >>> from traccc_py.data.sample import sample_event_path
    >>> folder = sample_event_path().parent
    >>> measurements_file_of(folder / "event000000000-spacepoints.csv").name.partition(".")[0]
    'event000000000-measurements'
    """
    path = Path(path)
    if not _NAME.search(path.name):
        ends = "-spacepoints.csv or -prototracks.csv, perhaps with .gz"
        msg = f"{path}: expected a name that ends in {ends}, to find its measurements file"
        raise InputDataError(msg)
    stem = _NAME.sub("-measurements.csv", path.name)
    candidates = [path.with_name(name) for name in (stem, f"{stem}.gz")]
    found = [candidate for candidate in candidates if candidate.exists()]
    if len(found) != 1:
        problem = "there are both; remove one" if found else "there is neither; its rows need them"
        msg = f"{path}: its measurements are in {candidates[0].name} or {candidates[1].name}: {problem}"
        raise InputDataError(msg)
    return found[0]


def read_spacepoints(path: Path | str, measurements: Measurements) -> Spacepoints:
    """Read the spacepoints of one event.

    Parameters
    ----------
    path : path
        File with the columns measurement_id (or measurement_id_1), x, y, z (or sp_x, sp_y, sp_z).
    measurements : Measurements
        Measurements of the event, whose ids the file uses.

    Returns
    -------
    Spacepoints
        Rows in the order of the file; `measurement_index` counts the rows of `measurements`.

    Raises
    ------
    InputDataError
        If the file can't be used, an id is not that of exactly one measurement, or a spacepoint was made of two
        measurements; the message names file, line and value.
    """
    table = read_table(path, reading_rules("spacepoints"))
    is_pair = table["measurement_id_2"] != np.uint64(_NONE)
    if is_pair.any():
        row = int(np.argmax(is_pair))
        value = table["measurement_id_2"][row]
        expected = f"{_NONE} (none): spacepoints of two strip measurements can't be reconstructed"
        raise input_error(path, row + FIRST_DATA_LINE, "measurement_id_2", value, expected)
    rows = _measurement_rows(path, table["measurement_id"], measurements)
    position = columns_from_table("spacepoints", table)["global_position"]
    return Spacepoints(position, rows.astype(np.int32))


def _measurement_rows(path: Path | str, wanted: np.ndarray, measurements: Measurements) -> np.ndarray:
    """Return the rows of measurements by their ids; raise InputDataError for one that is not that of exactly one."""
    ids = np.asarray(measurements.measurement_id)
    order = np.argsort(ids, kind="stable")
    first, last = (np.searchsorted(ids[order], wanted, side) for side in ("left", "right"))
    is_bad = last - first != 1
    if is_bad.any():
        row = int(np.argmax(is_bad))
        found = "none has it" if first[row] == last[row] else f"{last[row] - first[row]} have it"
        expected = f"the id of one of the event's {len(ids)} measurements; {found}"
        raise input_error(path, row + FIRST_DATA_LINE, "measurement_id", wanted[row], expected)
    return order[first]


def read_prototracks(
    path: Path | str, measurements: Measurements, detector: Detector
) -> tuple[Spacepoints, Candidates]:
    """Read the track candidates of one event, of any finder.

    Parameters
    ----------
    path : path
        File with the columns measurement_id and track_id (or measurementId, trackId): a row for each measurement of a
        candidate, in any order.
    measurements : Measurements
        Measurements of the event, whose ids the file uses.
    detector : Detector
        Knows the modules.

    Returns
    -------
    spacepoints : Spacepoints
        Of all measurements of two coordinates.
    candidates : Candidates
        Those of the file with at least three spacepoints; measurements of one coordinate are left to track following.

    Raises
    ------
    InputDataError
        If the file can't be used, an id is not that of exactly one measurement, or a measurement is in two candidates;
        the message names file, line and value.
    """
    table = read_table(path, reading_rules("prototracks"))
    row = _measurement_rows(path, table["measurement_id"], measurements)
    seen = np.ones(len(row), bool)
    seen[np.unique(row, return_index=True)[1]] = False
    if seen.any():
        line = int(np.argmax(seen))
        expected = "a measurement that is in no candidate before"
        value = table["measurement_id"][line]
        raise input_error(path, line + FIRST_DATA_LINE, "measurement_id", value, expected)
    of_point = np.flatnonzero(np.asarray(measurements.dimensions) == _PIXEL)
    module = detector.module_index(measurements.geometry_id[of_point])
    position = detector.surfaces.global_positions(module, np.asarray(measurements.local_position)[of_point])
    label = np.full(len(measurements), -1, np.int64)
    label[row] = np.unique(table["track_id"], return_inverse=True)[1]
    points = Spacepoints(position.astype(np.float32), of_point.astype(np.int32))
    return points, Candidates.of_labels(label[of_point])


def write_spacepoints(path: Path | str, spacepoints: Spacepoints, measurements: Measurements) -> None:
    """Write the spacepoints of one event; gzipped if the name ends in ``.gz``.

    Parameters
    ----------
    path : path
        File.
    spacepoints : Spacepoints
        What to write.
    measurements : Measurements
        Measurements of the event; their ids are the links.
    """
    link = spacepoints.measurement_index
    columns = {
        "measurement_id": measurements.measurement_id[link],
        "geometry_id": measurements.geometry_id[link],
        **columns_of(Spacepoints)["global_position"].to_csv(spacepoints.global_position),
    }
    write_files({Path(path): format_table(columns)})
