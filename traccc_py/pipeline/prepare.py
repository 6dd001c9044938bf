"""Preparation of events: the stage where the chain starts, checks and canonical order.

The chain starts with what is given: cells, measurements, or measurements and spacepoints, perhaps with candidates.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from traccc_py.data.source import Source
from traccc_py.edm import Candidates, Cells, Measurements, ModuleCells, Spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry import Detector
from traccc_py.pipeline.prepare_cells import PreparedCells
from traccc_py.pipeline.prepare_measurements import PreparedMeasurements, prepare_measurements, prepare_spacepoints

__all__ = ["Event", "PreparedEvent", "first_stage", "prepare_event"]

Event: TypeAlias = (
    Cells | ModuleCells | Measurements | tuple[Measurements, Spacepoints] | tuple[Measurements, Spacepoints, Candidates]
)
PreparedEvent: TypeAlias = PreparedCells | PreparedMeasurements


def first_stage(event: Event) -> str:
    """Return the stage that an event starts with.

    Raises
    ------
    InputDataError
        If it is not an event.
    """
    if isinstance(event, (Cells, ModuleCells)):
        return "clusterization"
    if isinstance(event, Measurements):
        return "spacepoint_formation"
    parts: Any = event  # whatever was given
    if isinstance(parts, tuple) and [type(part) for part in parts] == [Measurements, Spacepoints]:
        return "seeding"
    if isinstance(parts, tuple) and [type(part) for part in parts] == [Measurements, Spacepoints, Candidates]:
        return "parameter_estimation"
    expected = (
        "Cells, ModuleCells, Measurements, (Measurements, Spacepoints) or (Measurements, Spacepoints, Candidates)"
    )
    msg = f"an event is a {type(event).__name__}; expected {expected}"
    raise InputDataError(msg)


def prepare_event(event: Any, detector: Detector, source: Source | str | None = None) -> PreparedMeasurements:
    """Check an event that starts after clusterisation and bring its rows into canonical order.

    Parameters
    ----------
    event : Measurements, (Measurements, Spacepoints) or (Measurements, Spacepoints, Candidates)
        Event; `stage_cells` is for cells.
    detector : Detector
        Knows the modules.
    source : Source or str, optional
        File of the measurements or spacepoints, for errors and warnings.

    Raises
    ------
    InputDataError
        If a row is not on the detector or has an impossible value.
    """
    if isinstance(event, Measurements):
        return prepare_measurements(event, detector, source)
    of_measurements = source.measurements if isinstance(source, Source) else None
    measurements, spacepoints, *candidates = event
    return prepare_spacepoints(measurements, spacepoints, detector, source, of_measurements, *candidates)
