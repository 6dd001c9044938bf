"""Event files in traccc's CSV format: cells, hits, measurements, particles and the measurement-hit map.

Names are ``event000000000-cells.csv`` and so on, or the same with ``.csv.gz``. Lengths in mm, momenta in GeV, angles
in rad; times are copied. `docs/file_formats.md` lists the columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_table import format_table, input_error, read_table
from traccc_py.data.layouts import columns_from_table, reading_rules, table_of
from traccc_py.data.particle_ids import unpack_particle_id
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = [
    "event_file_name",
    "event_files",
    "event_number",
    "find_event_file",
    "has_event_file",
    "local_key",
    "measurement_table",
    "measurements_of_table",
    "read_cells",
    "read_hits",
    "read_measurement_hit_map",
    "read_measurements",
    "read_particles",
    "write_cells",
    "write_hits",
    "write_measurement_hit_map",
    "write_measurements",
    "write_particles",
]

_LOC0_MEASURED = 2  # bits of local_key
_LOC1_MEASURED = 4
_KEY_BITS = _LOC0_MEASURED | _LOC1_MEASURED
_EVENT_NUMBER = re.compile(r"(?:event|evt)[_-]?(\d+)", re.IGNORECASE)


def event_file_name(event: int, kind: str, *, compress: bool = False) -> str:
    """Return the name of an event's file.

    Parameters
    ----------
    event : int
        Event number.
    kind : str
        ``cells``, ``hits``, ``measurements``, ``tracks`` ...
    compress : bool, optional
        Whether the file is gzipped.

    Examples
    --------
    >>> event_file_name(7, "cells")
    'event000000007-cells.csv'
    """
    return f"event{event:09d}-{kind}.csv" + (".gz" if compress else "")


def event_number(path: Path | str) -> int | None:
    """Return the event number in a file's name, or None if it has none.

    It is the number after "event" or "evt".

    Examples
    --------
    >>> event_number("muons/event000000007-cells.csv.gz"), event_number("event12-hits.csv"), event_number("cells.csv")
    (7, 12, None)
    """
    found = _EVENT_NUMBER.search(Path(path).name)
    return int(found[1]) if found else None


def find_event_file(directory: Path | str, event: int, kind: str) -> Path:
    """Return the path of an event's file, plain or gzipped.

    Raises
    ------
    InputDataError
        If there is none, or several.
    """
    paths = [Path(directory) / event_file_name(event, kind, compress=compress) for compress in (False, True)]
    found = [path for path in paths if path.exists()] or _of_event(event_files(directory, kind), event)
    if len(found) != 1:
        names = " and ".join(path.name for path in found)
        problem = f"there are {names}; remove all but one" if found else "there is neither"
        msg = f"{paths[0]} or {paths[1].name}: {problem}"
        raise InputDataError(msg)
    return found[0]


def has_event_file(directory: Path | str, event: int, kind: str) -> bool:
    """Return whether a folder has a file of an event, plain or gzipped."""
    return bool(_of_event(event_files(directory, kind), event))


def event_files(directory: Path | str, kind: str) -> list[tuple[int, Path]]:
    """Return the files of a kind in a folder with their event numbers, sorted by these; others are left out."""
    ends = (f"-{kind}.csv", f"-{kind}.csv.gz")
    paths = [path for path in Path(directory).glob(f"*-{kind}.csv*") if path.name.endswith(ends)]
    numbered = [(number, path) for path in paths if (number := event_number(path)) is not None]
    return sorted(numbered)


def _of_event(files: Sequence[tuple[int, Path]], event: int) -> list[Path]:
    return [path for number, path in files if number == event]


def read_cells(path: Path | str) -> Cells:
    """Read the cells of one event.

    Parameters
    ----------
    path : path
        File with the columns geometry_id, channel0, channel1, value and optionally measurement_id, timestamp.

    Returns
    -------
    Cells
        Rows in the order of the file; row ``i`` is line ``i + 2``.

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.

    Examples
    --------
    >>> from traccc_py.data.sample import sample_event_path
    >>> cells = read_cells(sample_event_path())
    >>> cells.geometry_id.dtype
    dtype('uint64')
    """
    return Cells(**_read_columns(path, "cells"))


def write_cells(path: Path | str, cells: Cells) -> None:
    """Write the cells of one event; measurement_id is -1 for noise, or 0, as in traccc, if no cell has a truth link.

    Parameters
    ----------
    path : path
        File; gzipped if its name ends in ``.gz``.
    cells : Cells
        What to write.

    Raises
    ------
    OSError
        If the file can't be written; nothing has been changed.
    """
    has_truth = (cells.measurement_id >= 0).any()
    measurement_id = cells.measurement_id if has_truth else np.zeros(len(cells), np.int64)
    _write(path, table_of("cells", cells, measurement_id=measurement_id))


def _read_columns(path: Path | str, kind: str) -> dict[str, np.ndarray]:
    return columns_from_table(kind, read_table(path, reading_rules(kind)))


def _write(path: Path | str, table: dict[str, np.ndarray]) -> None:
    write_files({Path(path): format_table(table)})


def read_hits(path: Path | str) -> Hits:
    """Read the simulated hits of one event.

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    return Hits(**_read_columns(path, "hits"))


def _with_particle_ids(table: dict[str, np.ndarray], *, in_fields: bool) -> dict[str, np.ndarray]:
    """Return a table whose first column is particle_id; that may be written as the fields of a barcode."""
    return unpack_particle_id(table.pop("particle_id")) | table if in_fields else table


def write_hits(path: Path | str, hits: Hits, *, ids_in_fields: bool = False) -> None:
    """Write the simulated hits of one event; gzipped if the name ends in ``.gz``.

    Parameters
    ----------
    path : path
        File.
    hits : Hits
        What to write.
    ids_in_fields : bool, optional
        Write the particles' ids as the five columns of newer Acts files instead of one packed number.
    """
    _write(path, _with_particle_ids(table_of("hits", hits), in_fields=ids_in_fields))


def read_particles(path: Path | str) -> Particles:
    """Read the generated particles of one event (``-particles_initial.csv``).

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    return Particles(**_read_columns(path, "particles"))


def write_particles(path: Path | str, particles: Particles, *, ids_in_fields: bool = False) -> None:
    """Write the generated particles of one event; parameters as for `write_hits`."""
    _write(path, _with_particle_ids(table_of("particles", particles), in_fields=ids_in_fields))


def read_measurement_hit_map(path: Path | str) -> MeasurementHitMap:
    """Read which hits made which measurement (``-measurement-simhit-map.csv``).

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    return MeasurementHitMap(**_read_columns(path, "measurement-simhit-map"))


def write_measurement_hit_map(path: Path | str, links: MeasurementHitMap) -> None:
    """Write which hits made which measurement; gzipped if the name ends in ``.gz``."""
    _write(path, table_of("measurement-simhit-map", links))


def read_measurements(path: Path | str, detector: Any = None) -> Measurements:
    """Read the measurements of one event.

    Parameters
    ----------
    path : path
        File with traccc's columns. local_key may be a raw byte, as written by traccc, or a decimal number.
    detector : Detector, optional
        For the module indices; without it they are -1.

    Returns
    -------
    Measurements
        Rows in the order of the file. There are no cells: cluster sizes and numbers of cells are 0.

    Raises
    ------
    InputDataError
        If the file can't be used, or a measurement does not measure loc0; the message names file, line and value.
    """
    found = measurements_of_table(path, read_table(path, reading_rules("measurements")))
    if detector is not None:
        found.module_index = detector.module_index(found.geometry_id)
    return found


def measurements_of_table(path: Path | str, table: dict[str, np.ndarray]) -> Measurements:
    """Return measurements from the columns of their file, without module indices; parameters as `read_measurements`."""
    columns = columns_from_table("measurements", table)
    n = len(columns["measurement_id"])
    columns["dimensions"] = _dimensions(path, columns["dimensions"])
    return Measurements(
        **columns,
        module_index=np.full(n, -1, np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def _dimensions(path: Path | str, local_keys: np.ndarray) -> np.ndarray:
    """Return the number of measured coordinates of each row."""
    unique, inverse = np.unique(local_keys.astype(str), return_inverse=True)
    dimensions = np.zeros(len(unique), np.int32)
    for k, text in enumerate(unique):
        mask = local_key(text) & _KEY_BITS
        if not mask & _LOC0_MEASURED:
            row = int(np.argmax(inverse == k))
            expected = "2 (loc0 measured) or 6 (loc0 and loc1 measured), as a number or as one raw byte"
            if mask:
                expected += "; measurements of loc1 alone can't be reconstructed"
            raise input_error(path, row + FIRST_DATA_LINE, "local_key", text, expected)
        dimensions[k] = mask.bit_count()
    return dimensions[inverse].astype(np.int32)


def local_key(text: str) -> int:
    """Return the bit mask of measured coordinates in `text`, a decimal number or one raw byte; 0 if it is neither."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit():
        return int(stripped)
    return ord(text) if len(text) == 1 else 0


def measurement_table(measurements: Measurements) -> dict[str, np.ndarray]:
    """Return measurements as the columns of their file. local_key is written as a digit, which traccc can read too."""
    local_key = np.where(np.asarray(measurements.dimensions) == 1, _LOC0_MEASURED, _KEY_BITS)
    return table_of("measurements", measurements, dimensions=local_key)


def write_measurements(path: Path | str, measurements: Measurements) -> None:
    """Write the measurements of one event in traccc's columns; gzipped if the name ends in ``.gz``."""
    _write(path, measurement_table(measurements))
