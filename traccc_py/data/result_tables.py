"""Results of `run` in Parquet, read as the columns of the CSV files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from traccc_py.data.csv_events import measurements_of_table
from traccc_py.data.csv_table import Column
from traccc_py.data.layouts import reading_rules
from traccc_py.data.parquet_files import ParquetEvents
from traccc_py.edm import Measurements
from traccc_py.errors import InputDataError

__all__ = ["has_result_tables", "read_table_measurements", "read_table_states", "read_table_tracks"]

_FIRST = ("loc0", "loc1", "phi", "theta", "qop")
#: Columns of tables by those of tracks.csv, where they differ: there names without a prefix are at the first state.
_NAMES = {
    "time": "t",
    **{name: f"first_{name}" for name in _FIRST},
    **{f"var_{name}": f"var_first_{name}" for name in _FIRST},
    **{f"perigee_{name}": name for name in ("phi", "theta", "qop")},
}


def has_result_tables(folder: Path | str) -> bool:
    """Return whether a folder has tables of tracks."""
    return any((Path(folder) / "tracks").glob("*.parquet"))


@lru_cache(maxsize=8)
def _open(path: Path, _: float) -> ParquetEvents:
    """Open a file; the time of its last change is a part of the key."""
    return ParquetEvents(path)


def _read(folder: Path | str, kind: str, event: int, rules: list[Column]) -> tuple[str, dict[str, np.ndarray]]:
    """Return file and event in words, and the columns."""
    for path in sorted((Path(folder) / kind).glob("*.parquet")):
        events = _open(path, path.stat().st_mtime)
        rows = np.flatnonzero(events.numbers == event)
        if len(rows):
            events.check_columns(rules)
            return f"{path}, event {event}", events.read(int(rows[0]), rules)
    msg = f"{Path(folder) / kind}: no Parquet file has event {event}"
    raise InputDataError(msg)


def read_table_tracks(folder: Path | str, event: int) -> dict[str, np.ndarray]:
    """Return the tracks of an event as the columns of their CSV file.

    Raises
    ------
    InputDataError
        If the event is not there, or a file can't be used.
    """
    rules = [
        Column(_NAMES.get(rule.name, rule.name), rule.dtype, rule.default, rule.minimum, rule.maximum, rule.allow_nan)
        for rule in reading_rules("tracks")
    ]
    _, table = _read(folder, "tracks", event, rules)
    return {rule.name: table[_NAMES.get(rule.name, rule.name)] for rule in reading_rules("tracks")}


def read_table_states(folder: Path | str, event: int) -> dict[str, np.ndarray]:
    """Return the track states of an event as the columns of their CSV file; errors as `read_table_tracks`."""
    return _read(folder, "track_states", event, reading_rules("track_states"))[1]


def read_table_measurements(folder: Path | str, event: int) -> Measurements:
    """Return the measurements of an event; errors as `read_table_tracks`."""
    return measurements_of_table(*_read(folder, "measurements", event, reading_rules("measurements")))
