"""Reading of events for the chain: from CSV files of one event, and Parquet files of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from traccc_py.cli.files import TRACKML, TRACKML_KINDS
from traccc_py.errors import InputDataError

if TYPE_CHECKING:
    from traccc_py.cli.files import EventFile
    from traccc_py.data.athena_ids import AthenaIds
    from traccc_py.data.csv_table import Column
    from traccc_py.data.parquet_files import ParquetEvents
    from traccc_py.data.source import Source
    from traccc_py.geometry import Detector

__all__ = ["TABLE_KINDS", "EventReader", "ReadEvent", "check_table", "known_kind", "table_events"]

#: Columns by which the kind of a Parquet file is known, in the order in which a directory is searched.
TABLE_KINDS = {
    "cells": {"geometry_id", "channel0", "channel1"},
    "tracker_hits": {"x", "y", "z", "volume_id", "layer_id", "surface_id"},
    "measurements": {"geometry_id", "local_key", "local0"},
}
_LEFT_OUT = {("cells", "measurement_id")}  #: columns of truth, which the chain has no use for


class ReadEvent(NamedTuple):
    """An event as the chain takes it."""

    event: Any  # Cells, Measurements, (Measurements, Spacepoints) or (Measurements, Spacepoints, Candidates)
    source: Source
    particle_of_measurement: np.ndarray | None = None  # (n,) uint64, of hits with truth
    hit_id: np.ndarray | None = None  # (n,) int64, of TrackML: the hit of each cell or measurement


def table_events(path: Path) -> tuple[str | None, list[int]]:
    """Return what the events of a Parquet file are, None if nothing that can be reconstructed, and their numbers.

    Raises
    ------
    InputDataError
        If the file can't be read.
    """
    from traccc_py.data.parquet_files import ParquetEvents

    events = ParquetEvents(path)
    kind = next((kind for kind, names in TABLE_KINDS.items() if names <= events.names), None)
    return kind, events.numbers.tolist()


def check_table(path: Path, kind: str) -> None:
    """Raise InputDataError if a Parquet file lacks a column of its kind, or has one of another type."""
    from traccc_py.data.parquet_files import ParquetEvents

    ParquetEvents(path).check_columns(_rules(kind))


def _rules(kind: str) -> Sequence[Column]:
    if kind == "tracker_hits":
        from traccc_py.data.colliderml import HIT_RULES

        return HIT_RULES
    from traccc_py.data.layouts import reading_rules

    return [rule for rule in reading_rules(kind) if (kind, rule.name) not in _LEFT_OUT]


class EventReader:
    """Reads events; the Parquet file read last stays open.

    Parameters
    ----------
    detector : Detector
        Which hits of ColliderML are put on.
    athena_ids : AthenaIds, optional
        Identifiers of the modules of cells, where they are Athena's.
    """

    def __init__(self, detector: Detector, athena_ids: AthenaIds | None = None) -> None:
        self._detector, self._athena_ids = detector, athena_ids
        self._table: ParquetEvents | None = None

    def read(self, file: EventFile) -> ReadEvent:
        """Read an event.

        Raises
        ------
        InputDataError
            If a file can't be used.
        """
        if file.row is not None:
            return self._of_table(file, file.row)
        from traccc_py.data.csv_events import read_cells, read_measurements
        from traccc_py.data.source import Source
        from traccc_py.data.spacepoint_files import measurements_file_of, read_prototracks, read_spacepoints

        if file.kind in TRACKML_KINDS:
            return self._of_trackml(file)
        if file.kind == "cells":
            return self._translated(read_cells(file.path), Source(str(file.path)))
        if file.kind == "measurements":
            return ReadEvent(read_measurements(file.path), Source(str(file.path)))
        beside = measurements_file_of(file.path)
        measurements = read_measurements(beside)
        source = Source(str(file.path), measurements=str(beside))
        if file.kind == "prototracks":
            return ReadEvent((measurements, *read_prototracks(file.path, measurements, self._detector)), source)
        spacepoints = read_spacepoints(file.path, measurements)
        return ReadEvent((measurements, spacepoints), source)

    def _of_trackml(self, file: EventFile) -> ReadEvent:
        from traccc_py.data.source import Source
        from traccc_py.data.trackml_files import read_trackml_cells, read_trackml_hits, sibling, trackml_measurements

        source = Source(str(file.path))
        if file.kind == TRACKML:
            cells, hit_id = read_trackml_cells(file.path, self._detector)
            return ReadEvent(cells, Source(str(sibling(file.path, "cells"))), hit_id=hit_id)
        hits = read_trackml_hits(file.path)
        return ReadEvent(trackml_measurements(hits, self._detector, source), source, hit_id=hits.hit_id)

    def _translated(self, cells: Any, source: Source) -> ReadEvent:
        if self._athena_ids is None:
            return ReadEvent(cells, source)
        from traccc_py.data.athena_ids import translate_cells

        return ReadEvent(*translate_cells(cells, self._athena_ids, source.name))

    def _of_table(self, file: EventFile, row: int) -> ReadEvent:
        from traccc_py.data.csv_events import measurements_of_table
        from traccc_py.data.layouts import columns_from_table
        from traccc_py.data.parquet_files import ParquetEvents
        from traccc_py.data.source import Source
        from traccc_py.edm import Cells

        if self._table is None or self._table.path != file.path:
            self._table = ParquetEvents(file.path)
        table = self._table.read(row, _rules(file.kind))
        source = Source(str(file.path), event=file.event)
        if file.kind == "cells":
            table["measurement_id"] = np.full(len(table["geometry_id"]), -1)
            return self._translated(Cells(**columns_from_table("cells", table)), source)
        if file.kind == "measurements":
            return ReadEvent(measurements_of_table(f"{file.path}, event {file.event}", table), source)
        from traccc_py.data.colliderml import hit_measurements

        has_truth = "particle_id" in self._table.names
        measurements = hit_measurements(table, self._detector, source)
        return ReadEvent(measurements, source, table["particle_id"] if has_truth else None)


def known_kind(path: Path, kind: str | None, wanted: str | None) -> str:
    """Return the kind of a Parquet file.

    Raises
    ------
    InputDataError
        If it holds nothing that can be reconstructed, or not what is wanted.
    """
    if kind is None or wanted not in (None, kind):
        expected = "; or ".join(
            f"{name}: {', '.join(sorted(columns))}" for name, columns in TABLE_KINDS.items() if wanted in (None, name)
        )
        msg = f"{path}: has no table that can be reconstructed; expected the columns of {expected}"
        raise InputDataError(msg)
    return kind
