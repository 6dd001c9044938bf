"""Spacepoints in CSV files, as Acts writes them: global positions and the measurements they were made of."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_table import format_table, input_error, read_table
from traccc_py.data.layouts import columns_from_table, reading_rules
from traccc_py.edm import Measurements, Spacepoints, columns_of
from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = ["measurements_file_of", "read_spacepoints", "write_spacepoints"]

_NONE = 2**64 - 1  #: measurement_id_2 of a spacepoint made of one measurement
_NAME = re.compile(r"-spacepoints?(\.csv(?:\.gz)?)$")


def measurements_file_of(path: Path | str) -> Path:
    """Return the measurements file in the folder of a spacepoints file.

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
        msg = f"{path}: expected a name that ends in -spacepoints.csv or .csv.gz, to find its measurements file"
        raise InputDataError(msg)
    stem = _NAME.sub("-measurements.csv", path.name)
    candidates = [path.with_name(name) for name in (stem, f"{stem}.gz")]
    found = [candidate for candidate in candidates if candidate.exists()]
    if len(found) != 1:
        problem = "there are both; remove one" if found else "there is neither; spacepoints need their measurements"
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
    ids = np.asarray(measurements.measurement_id)
    wanted = table["measurement_id"]
    order = np.argsort(ids, kind="stable")
    first, last = (np.searchsorted(ids[order], wanted, side) for side in ("left", "right"))
    is_bad = last - first != 1
    if is_bad.any():
        row = int(np.argmax(is_bad))
        found = "none has it" if first[row] == last[row] else f"{last[row] - first[row]} have it"
        expected = f"the id of one of the event's {len(ids)} measurements; {found}"
        raise input_error(path, row + FIRST_DATA_LINE, "measurement_id", wanted[row], expected)
    position = columns_from_table("spacepoints", table)["global_position"]
    return Spacepoints(position, order[first].astype(np.int32))


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
