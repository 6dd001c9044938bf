"""Where results of events go: CSV files of each event, or Parquet files of ranges of events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from traccc_py.data.csv_events import event_file_name
from traccc_py.data.parquet_files import ParquetTables
from traccc_py.data.track_files import event_table, write_event_result
from traccc_py.edm import EventResult, Tracks, columns_of
from traccc_py.errors import CapacityError

__all__ = ["CsvOutput", "EventOutput", "ParquetOutput", "collider_track_table"]

_MAX_TRACKS = 1 << 16  #: that Acts's type of track_id can count
_ZEROS_OF_CSV = ("phi", "theta", "var_phi", "var_theta", "var_time")  #: of measurements, for traccc's reader


class EventOutput(Protocol):
    """Takes the results of events, in ascending order of their numbers."""

    def files_of(self, event: int) -> list[Path]:
        """Return the files that have an event, once they are complete."""

    def add(
        self,
        event: int,
        result: EventResult,
        particle_of_measurement: np.ndarray | None,
        hit_id: np.ndarray | None = None,
    ) -> None:
        """Write an event; of hits with truth, the particles by `measurement_id`; of TrackML, the hit of each row."""

    def close(self) -> None:
        """Complete the files."""

    def abandon(self) -> None:
        """Remove files that are not complete."""


class CsvOutput:
    """Files of each event.

    Parameters
    ----------
    folder : Path
        Their folder.
    kinds : sequence of str
        Which of `OUTPUTS`.
    compress : bool, optional
        Write ``.csv.gz``.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], *, compress: bool = False) -> None:
        self._folder, self._kinds, self._compress = folder, kinds, compress

    def files_of(self, event: int) -> list[Path]:
        """Return the files of an event."""
        return [self._folder / event_file_name(event, kind, compress=self._compress) for kind in self._kinds]

    def add(
        self,
        event: int,
        result: EventResult,
        particle_of_measurement: np.ndarray | None,
        hit_id: np.ndarray | None = None,
    ) -> None:
        """Write an event."""
        write_event_result(self._folder, event, result, compress=self._compress, kinds=self._kinds, hit_id=hit_id)

    def close(self) -> None:
        """Do nothing: the files are complete."""

    def abandon(self) -> None:
        """Do nothing: the files are complete."""


class ParquetOutput:
    """Tables with a row for each event.

    Parameters
    ----------
    folder : Path
        Folder, which gets one for each kind of table.
    kinds : sequence of str
        Which of `OUTPUTS`.
    events_per_file : int
        Size of the range of event numbers of a file [1].
    """

    def __init__(self, folder: Path, kinds: Sequence[str], events_per_file: int) -> None:
        self._tables, self._kinds = ParquetTables(folder, events_per_file), kinds

    def files_of(self, event: int) -> list[Path]:
        """Return the files of the event's range."""
        return self._tables.paths_of(event, self._kinds)

    def add(
        self,
        event: int,
        result: EventResult,
        particle_of_measurement: np.ndarray | None,
        hit_id: np.ndarray | None = None,
    ) -> None:
        """Add an event."""
        tables = {}
        for kind in self._kinds:
            if kind == "tracks":
                tables[kind] = collider_track_table(event, result, particle_of_measurement)
            else:
                tables[kind] = _own_table(kind, result)
        self._tables.add(event, tables)

    def close(self) -> None:
        """Complete the files."""
        self._tables.close()

    def abandon(self) -> None:
        """Remove files that are not complete."""
        self._tables.abandon()


def _own_table(kind: str, result: EventResult) -> dict[str, Any]:
    """Return the columns of a CSV file, without zeros that are there for traccc, and positions of states."""
    table = event_table(kind, result)
    if kind == "measurements":
        table = {name: values for name, values in table.items() if name not in _ZEROS_OF_CSV}
        table["local_key"] = table["local_key"].astype(np.uint8)
    elif kind == "track_states":
        table |= columns_of(type(result.track_states))["global_position"].in_table(result.track_states.global_position)
    return table


def collider_track_table(event: int, result: EventResult, particle_of_measurement: np.ndarray | None) -> dict[str, Any]:
    """Return tracks as the columns of Acts's and ColliderML's table of tracks, and ours behind them.

    Parameters
    ----------
    event : int
        Number of the event, for the error.
    result : EventResult
        The event.
    particle_of_measurement : ndarray of shape (n,), uint64, optional
        Particles by `measurement_id`, where measurements are rows of a file of hits with truth.

    Raises
    ------
    CapacityError
        If there are more tracks than the format can number.
    """
    from traccc_py.data.colliderml import majority_particles

    tracks, states = result.tracks, result.track_states
    if len(tracks) > _MAX_TRACKS:
        msg = f"event {event} has {len(tracks)} tracks; the format of Acts numbers {_MAX_TRACKS} at most"
        raise CapacityError(msg)
    ours = tracks.table()
    found: dict[str, Any] = {name: ours.pop(name) for name in ("d0", "z0", "phi", "theta", "qop")}
    ids = result.measurements.measurement_id[states.measurement_index].astype(np.uint32)
    if particle_of_measurement is None:
        found["majority_particle_id"] = np.zeros(len(tracks), np.uint64)
    else:
        found["majority_particle_id"] = majority_particles(result, particle_of_measurement)
        found["hit_ids"] = (tracks.state_offsets, ids)
    found["measurement_ids"] = (tracks.state_offsets, ids)
    found["track_id"] = np.arange(len(tracks), dtype=np.uint16)
    found["t"] = ours.pop("time")
    columns = columns_of(Tracks)
    variances = columns["covariance"].to_csv(tracks.covariance)
    ours |= {f"var_first_{name.removeprefix('var_')}": values for name, values in variances.items()}
    return found | ours | columns["perigee_covariance"].to_csv(tracks.perigee_covariance)
