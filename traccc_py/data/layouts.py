"""Which columns the files of an event have, in order: those of the collections, and a few that only files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from traccc_py.data.csv_table import Column as Rule
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import (
    Cells,
    Column,
    Component,
    Csv,
    Measurements,
    Seeds,
    Spacepoints,
    Tracks,
    TrackStates,
    columns_of,
)

__all__ = ["LAYOUTS", "columns_from_table", "reading_rules", "table_of"]

_NO_SECOND = 2**64 - 1


def _in_files(collection: type, *names: str) -> list[Column]:
    """Return the columns of a collection that files have; by default all, in their order."""
    columns = columns_of(collection)
    return [columns[name] for name in names or columns if columns[name].csv is not None]


def _position(name: str, meaning: str) -> Column:
    components = tuple(Component(f"{name}_{axis}", "mm", meaning) for axis in ("loc0", "loc1"))
    return Column(name, "float32", meaning, components=components, csv=Csv(allow_nan=True))


def _zeros(*names: str) -> Column:
    meaning = "0; there for traccc's reader"
    components = tuple(Component(name, "1", meaning) for name in names)
    return Column("zeros", "float32", meaning, components=components, csv=Csv(is_read=False))


_TRACK_ID = Column("track_id", "int64", "row of the track", csv=Csv(minimum=0))

#: Columns of files by the kind that their names tell.
LAYOUTS: dict[str, list[Column]] = {
    "cells": _in_files(Cells, "geometry_id", "measurement_id", "channel0", "channel1", "time", "activation"),
    "hits": _in_files(Hits),
    "particles": _in_files(Particles),
    "particles_initial": _in_files(Particles),
    "measurement-simhit-map": _in_files(MeasurementHitMap),
    "measurements": [
        *_in_files(Measurements, "measurement_id", "geometry_id", "dimensions", "local_position"),
        _zeros("phi", "theta"),
        *_in_files(Measurements, "time", "local_variance"),
        _zeros("var_phi", "var_theta", "var_time"),
    ],
    "spacepoints": [
        Column(
            "measurement_id",
            "int64",
            "`measurement_id` of a measurement of loc0 and loc1; it must be that of one measurement only",
            csv=Csv(minimum=0, aliases={"measurement_id": "measurement_id_1"}),
        ),
        Column(
            "measurement_id_2",
            "uint64",
            f"{_NO_SECOND} (none): spacepoints of strip pairs can't be reconstructed",
            csv=Csv(default=_NO_SECOND),
        ),
        *_in_files(Spacepoints),
    ],
    "prototracks": [
        Column(
            "measurement_id",
            "int64",
            "`measurement_id` of a measurement of the event",
            csv=Csv(minimum=0, aliases={"measurement_id": "measurementId"}),
        ),
        Column("track_id", "int64", "number of the candidate", csv=Csv(minimum=0, aliases={"track_id": "trackId"})),
    ],
    "tracks": [_TRACK_ID, *_in_files(Tracks)],
    "track_states": [
        _TRACK_ID,
        Column("state_index", "int32", "place on the track, from 0", csv=Csv(minimum=0)),
        *_in_files(TrackStates, "geometry_id"),
        Column("measurement_id", "int64", "that of the measurements file", csv=Csv(minimum=-1)),
        _position("measured", "measured position; `nan` where the sensor measures one coordinate"),
        *_in_files(TrackStates, "params"),
        _position("residual", "measured - smoothed"),
        *_in_files(TrackStates, "chi2"),
    ],
    "seeds": [
        *(
            Column(f"{place}_measurement_id", "int64", f"measurement of the {which} spacepoint", csv=Csv(minimum=0))
            for place, which in (("bottom", "inner"), ("middle", "middle"), ("top", "outer"))
        ),
        *_in_files(Seeds),
    ],
}


def reading_rules(kind: str) -> list[Rule]:
    """Return how the columns of a kind of file are read."""
    rules = []
    for column in LAYOUTS[kind]:
        csv = column.csv
        if csv is not None and csv.is_read:
            options: dict[str, Any] = {
                name: getattr(csv, name) for name in ("default", "minimum", "maximum", "allow_nan", "is_text", "parts")
            }
            for name in column.csv_names:
                aliases = (csv.aliases[name],) if name in csv.aliases else ()
                rules.append(Rule(name, column.dtype, aliases=aliases, **options))
    return rules


def columns_from_table(kind: str, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a collection by name from those of a file that was read."""
    return {c.name: c.from_csv(table) for c in LAYOUTS[kind] if c.csv is not None and c.csv.is_read}


def table_of(kind: str, collection: Any, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of a file by name, in order.

    Parameters
    ----------
    kind : str
        Kind of the file.
    collection : Collection
        What it holds.
    **more : ndarray
        Columns that the collection does not have, or that differ from it.
    """
    table: dict[str, np.ndarray] = {}
    for column in LAYOUTS[kind]:
        if column.name in more:
            values = more[column.name]
        elif column.csv is not None and not column.csv.is_read:
            values = np.zeros((len(collection), *column.shape), column.dtype)
        else:
            values = getattr(collection, column.name)
        table |= column.to_csv(values)
    return table
