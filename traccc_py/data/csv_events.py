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
from traccc_py.data.csv_table import Column, format_table, input_error, read_table
from traccc_py.data.particle_ids import BARCODE_BITS, BARCODE_COLUMNS, unpack_particle_id
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = [
    "CHANNEL_MAX",
    "COLUMNS",
    "event_file_name",
    "event_files",
    "event_number",
    "find_event_file",
    "has_event_file",
    "measurement_columns",
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

CHANNEL_MAX = 2**31 - 1
NO_MEASUREMENT = -1  #: measurement_id of cells whose file has no truth link

_LOC0_MEASURED = 2  # bits of local_key
_LOC1_MEASURED = 4
_KEY_BITS = _LOC0_MEASURED | _LOC1_MEASURED
_EVENT_NUMBER = re.compile(r"(?:event|evt)[_-]?(\d+)", re.IGNORECASE)


def _vector(name: str, names: str, **options: Any) -> list[Column]:
    return [Column(f"{name}{axis}", "f4", **options) for axis in names]


_PARTICLE_ID = Column("particle_id", "u8", parts=tuple(zip(BARCODE_COLUMNS, BARCODE_BITS, strict=True)))
_ID = {"dtype": "i8", "minimum": 0}
_CELLS = [
    Column("geometry_id", "u8"),
    Column("measurement_id", "i8", default=NO_MEASUREMENT),
    Column("channel0", "i4", minimum=0, maximum=CHANNEL_MAX),
    Column("channel1", "i4", minimum=0, maximum=CHANNEL_MAX),
    Column("timestamp", "f4", default=0),
    Column("value", "f4", minimum=0),
]
_HITS = [
    _PARTICLE_ID,
    Column("geometry_id", "u8"),
    *_vector("t", "xyz"),
    Column("tt", "f4", default=0),
    *_vector("tp", "xyz"),
    Column("te", "f4", default=0),
    *_vector("deltap", "xyz", default=0),
    Column("deltae", "f4", default=0),
    Column("index", "i8", default=-1),
]
_PARTICLES = [
    _PARTICLE_ID,
    Column("particle_type", "i4"),
    Column("process", "i4", default=0),
    *_vector("v", "xyz"),
    Column("vt", "f4", default=0),
    *_vector("p", "xyz"),
    Column("m", "f4", default=0, minimum=0),
    Column("q", "f4"),
]
_MEASUREMENT_HIT_MAP = [Column("measurement_id", **_ID), Column("hit_id", **_ID)]  # type: ignore[arg-type]
_MEASUREMENTS = [
    Column("measurement_id", **_ID),  # type: ignore[arg-type]
    Column("geometry_id", "u8"),
    Column("local_key", "i4", is_text=True),
    Column("local0", "f4"),
    Column("local1", "f4"),
    Column("time", "f4", default=0),
    Column("var_local0", "f4", minimum=0),
    Column("var_local1", "f4", minimum=0),
]

#: Columns of the files of an event, by the kind that their names tell.
COLUMNS = {
    "cells": _CELLS,
    "hits": _HITS,
    "particles": _PARTICLES,
    "particles_initial": _PARTICLES,
    "measurements": _MEASUREMENTS,
    "measurement-simhit-map": _MEASUREMENT_HIT_MAP,
}


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

    It is the number behind "event" or "evt".

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
    """Return the files of a kind in a folder whose names have an event number, with it and in its order."""
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
    t = read_table(path, _CELLS)
    return Cells(t["geometry_id"], t["channel0"], t["channel1"], t["value"], t["timestamp"], t["measurement_id"])


def write_cells(path: Path | str, cells: Cells) -> None:
    """Write the cells of one event; without any truth link measurement_id is 0, as traccc has it, else -1 for noise.

    Parameters
    ----------
    path : path
        File; gzipped if its name ends in ``.gz``.
    cells : Cells
        What to write.

    Raises
    ------
    OSError
        If the file can't be written; nothing has changed then.
    """
    has_truth = (cells.measurement_id >= 0).any()
    columns = {
        "geometry_id": cells.geometry_id,
        "measurement_id": cells.measurement_id if has_truth else np.zeros(len(cells), np.int64),
        "channel0": cells.channel0,
        "channel1": cells.channel1,
        "timestamp": cells.time,
        "value": cells.activation,
    }
    write_files({Path(path): format_table(columns)})


def _stack(table: dict[str, np.ndarray], name: str) -> np.ndarray:
    return np.stack([table[name + axis] for axis in "xyz"], axis=1)


def read_hits(path: Path | str) -> Hits:
    """Read the simulated hits of one event.

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    t = read_table(path, _HITS)
    return Hits(
        particle_id=t["particle_id"],
        geometry_id=t["geometry_id"],
        position=_stack(t, "t"),
        time=t["tt"],
        momentum=_stack(t, "tp"),
        energy=t["te"],
        delta_momentum=_stack(t, "deltap"),
        delta_energy=t["deltae"],
        index=t["index"],
    )


def _with_particle_ids(columns: Sequence[Column], values: Sequence[np.ndarray], *, in_fields: bool) -> bytes:
    """Return a table whose first column is particle_id, which may be written as the fields of a barcode."""
    table = dict(zip((c.name for c in columns), values, strict=True))
    if in_fields:
        table = unpack_particle_id(table.pop("particle_id")) | table
    return format_table(table)


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
    values = [
        hits.particle_id,
        hits.geometry_id,
        *hits.position.T,
        hits.time,
        *hits.momentum.T,
        hits.energy,
        *hits.delta_momentum.T,
        hits.delta_energy,
        hits.index,
    ]
    write_files({Path(path): _with_particle_ids(_HITS, values, in_fields=ids_in_fields)})


def read_particles(path: Path | str) -> Particles:
    """Read the generated particles of one event (``-particles_initial.csv``).

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    t = read_table(path, _PARTICLES)
    return Particles(
        particle_id=t["particle_id"],
        particle_type=t["particle_type"],
        process=t["process"],
        vertex=_stack(t, "v"),
        time=t["vt"],
        momentum=_stack(t, "p"),
        mass=t["m"],
        charge=t["q"],
    )


def write_particles(path: Path | str, particles: Particles, *, ids_in_fields: bool = False) -> None:
    """Write the generated particles of one event; parameters as for `write_hits`."""
    values = [
        particles.particle_id,
        particles.particle_type,
        particles.process,
        *particles.vertex.T,
        particles.time,
        *particles.momentum.T,
        particles.mass,
        particles.charge,
    ]
    write_files({Path(path): _with_particle_ids(_PARTICLES, values, in_fields=ids_in_fields)})


def read_measurement_hit_map(path: Path | str) -> MeasurementHitMap:
    """Read which hits made which measurement (``-measurement-simhit-map.csv``).

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line, column and value.
    """
    table = read_table(path, _MEASUREMENT_HIT_MAP)
    return MeasurementHitMap(table["measurement_id"], table["hit_id"])


def write_measurement_hit_map(path: Path | str, links: MeasurementHitMap) -> None:
    """Write which hits made which measurement; gzipped if the name ends in ``.gz``."""
    columns = {"measurement_id": links.measurement_id, "hit_id": links.hit_id}
    write_files({Path(path): format_table(columns)})


def read_measurements(path: Path | str, detector: Any = None) -> Measurements:
    """Read the measurements of one event.

    Parameters
    ----------
    path : path
        File with traccc's columns. local_key may be a raw byte, as traccc writes it, or a decimal number.
    detector : Detector, optional
        Gives the module indices; without it they are -1.

    Returns
    -------
    Measurements
        Rows in the order of the file. There are no cells: cluster sizes and numbers of cells are 0.

    Raises
    ------
    InputDataError
        If the file can't be used, or a measurement does not measure loc0; the message names file, line and value.
    """
    t = read_table(path, _MEASUREMENTS)
    n = len(t["measurement_id"])
    module_index = np.full(n, -1) if detector is None else detector.module_index(t["geometry_id"])
    return Measurements(
        geometry_id=t["geometry_id"],
        local_position=np.stack([t["local0"], t["local1"]], axis=1),
        local_variance=np.stack([t["var_local0"], t["var_local1"]], axis=1),
        dimensions=_dimensions(path, t["local_key"]),
        time=t["time"],
        module_index=np.asarray(module_index, np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=t["measurement_id"],
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def _dimensions(path: Path | str, local_keys: np.ndarray) -> np.ndarray:
    """Return the number of measured coordinates of each row."""
    unique, inverse = np.unique(local_keys.astype(str), return_inverse=True)
    dimensions = np.zeros(len(unique), np.int32)
    for k, text in enumerate(unique):
        mask = _local_key(text) & _KEY_BITS
        if not mask & _LOC0_MEASURED:
            row = int(np.argmax(inverse == k))
            expected = "2 (loc0 measured) or 6 (loc0 and loc1 measured), as a number or as one raw byte"
            if mask:
                expected += "; measurements of loc1 alone can't be reconstructed"
            raise input_error(path, row + FIRST_DATA_LINE, "local_key", text, expected)
        dimensions[k] = mask.bit_count()
    return dimensions[inverse].astype(np.int32)


def _local_key(text: str) -> int:
    """Return the bit mask that `text` stands for, 0 if none: a decimal number or one raw byte."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit():
        return int(stripped)
    return ord(text) if len(text) == 1 else 0


def measurement_columns(measurements: Measurements) -> dict[str, np.ndarray]:
    """Return measurements as the columns of their file. local_key is written as a digit, which traccc reads too."""
    zero = np.zeros(len(measurements), np.float32)
    return {
        "measurement_id": measurements.measurement_id,
        "geometry_id": measurements.geometry_id,
        "local_key": np.where(np.asarray(measurements.dimensions) == 1, _LOC0_MEASURED, _KEY_BITS),
        "local0": measurements.local_position[:, 0],
        "local1": measurements.local_position[:, 1],
        "phi": zero,
        "theta": zero,
        "time": measurements.time,
        "var_local0": measurements.local_variance[:, 0],
        "var_local1": measurements.local_variance[:, 1],
        "var_phi": zero,
        "var_theta": zero,
        "var_time": zero,
    }


def write_measurements(path: Path | str, measurements: Measurements) -> None:
    """Write the measurements of one event in traccc's columns; gzipped if the name ends in ``.gz``."""
    write_files({Path(path): format_table(measurement_columns(measurements))})
