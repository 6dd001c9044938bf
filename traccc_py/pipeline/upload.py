"""Copy prepared events to device memory, as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from traccc_py.data.source import Source
from traccc_py.device.staging import InputBuffers
from traccc_py.device.workspace import Workspace
from traccc_py.errors import CapacityError
from traccc_py.geometry import Detector
from traccc_py.kernels.gnn.candidate_seeds import PointLists
from traccc_py.kernels.tracking.batch import CellBatch, MeasurementBatch, SpacepointBatch
from traccc_py.pipeline.prepare import PreparedEvent
from traccc_py.pipeline.prepare_cells import COLUMN_TYPES, prepare_cells
from traccc_py.pipeline.prepare_measurements import PreparedMeasurements

__all__ = [
    "CELL_COLUMNS",
    "set_batch_size",
    "stage_cells",
    "upload_candidates",
    "upload_measurements",
    "upload_spacepoints",
]

#: Columns of cells and their types on the device, in the order of prepared cells.
CELL_COLUMNS = dict(zip(CellBatch._fields, COLUMN_TYPES, strict=True))
_MAX_BATCH = 10_000  #: events; keys of events and seeding cells have 32 bits


def set_batch_size(ws: Workspace, prepared: Sequence[PreparedEvent], n_modules: int) -> None:
    """Set the sizes of "events", "event_modules" (events times modules) and "cells".

    Raises
    ------
    CapacityError
        If the batch is too large.
    """
    if len(prepared) > _MAX_BATCH:
        msg = f"a batch of {len(prepared)} events; at most {_MAX_BATCH} are possible: use smaller batches"
        raise CapacityError(msg)
    ws.set_sizes(events=len(prepared), event_modules=len(prepared) * n_modules, cells=sum(p.n_cells for p in prepared))


def _event_module(prepared: Sequence[PreparedEvent], n_modules: int) -> np.ndarray:
    return np.concatenate([p.module_index + np.int32(k * n_modules) for k, p in enumerate(prepared)])


def _put_columns(ws: Workspace, name: str, prepared: Sequence[Any], columns: Sequence[str]) -> dict[str, Any]:
    """Copy columns of the events of a batch, concatenated, to the device."""
    extent = ws.extent(name)
    values = {column: np.concatenate([getattr(p, column) for p in prepared]) for column in columns}
    return {column: ws.put(f"{name}.{column}", extent, v) for column, v in values.items()}


def stage_cells(
    buffers: InputBuffers, events: Sequence[Any], detector: Detector, sources: Sequence[Source | str | None]
) -> tuple[list[PreparedEvent], CellBatch]:
    """Check and order the cells of a batch and start copying them to the device, while it may be busy.

    Parameters
    ----------
    buffers : InputBuffers
        For the columns of `CELL_COLUMNS`.
    events : sequence of Cells or ModuleCells
        Events, at least one.
    detector : Detector
        Knows the modules.
    sources : sequence of Source or str or None
        Their files, for errors and warnings.

    Raises
    ------
    InputDataError
        If a cell is not on the detector or has an impossible value.
    """
    columns = list(buffers.begin(sum(map(len, events))).values())
    prepared: list[PreparedEvent] = []
    first = 0
    for k, (event, source) in enumerate(zip(events, sources, strict=True)):
        cells = prepare_cells(event, detector, source, [column[first:] for column in columns])
        if k > 0:
            columns[0][first : first + cells.n_cells] += np.int32(k * len(detector.geometry_ids))
        first += cells.n_cells
        prepared.append(cells)
    return prepared, CellBatch(**buffers.send(first))


def upload_measurements(ws: Workspace, prepared: Sequence[PreparedEvent], n_modules: int) -> MeasurementBatch:
    """Put the measurements of a batch into device memory; sets the size of "measurements". There are no cells.

    Parameters
    ----------
    ws : Workspace
        Buffers; the sizes of "event_modules" and "cells" must be set.
    prepared : sequence of PreparedMeasurements
        Events.
    n_modules : int
        Number of surfaces [1].
    """
    extent, modules = ws.extent("measurements"), ws.extent("event_modules")
    event_module = _event_module(prepared, n_modules)
    n = len(event_module)
    ws.set_size(extent, n)
    n_per_module = np.bincount(event_module, minlength=len(prepared) * n_modules)
    offsets = ws.array("measurements.offsets", modules, np.int32, extra=1)
    ws.device.upload(np.concatenate(([0], np.cumsum(n_per_module))).astype(np.int32), offsets)
    columns = ("local_position", "local_variance", "dimensions", "time")
    return MeasurementBatch(
        event_module=ws.put("measurements.event_module", extent, event_module),
        **_put_columns(ws, "measurements", prepared, columns),
        cluster_size=ws.put("measurements.cluster_size", extent, np.zeros((n, 2), np.int32)),
        n_cells=ws.put("measurements.n_cells", extent, np.zeros(n, np.int32)),
        offsets=offsets,
        cell_measurement=ws.array("measurements.cell_measurement", ws.extent("cells"), np.int32),
    )


def upload_spacepoints(ws: Workspace, prepared: Sequence[PreparedEvent]) -> SpacepointBatch:
    """Put the spacepoints of a batch into device memory; sets the size of "spacepoints".

    Parameters
    ----------
    ws : Workspace
        Buffers.
    prepared : sequence of PreparedMeasurements
        Events, with spacepoints.
    """
    parts = [p.spacepoints for p in prepared if isinstance(p, PreparedMeasurements) and p.spacepoints is not None]
    first = np.cumsum([0, *(len(p.module_index) for p in prepared[:-1])])
    links = [p.measurement_index + np.int32(f) for p, f in zip(parts, first, strict=True)]
    n = [len(link) for link in links]
    extent = ws.extent("spacepoints")
    ws.set_size(extent, sum(n))
    return SpacepointBatch(
        **_put_columns(ws, "spacepoints", parts, ("global_position",)),
        measurement_index=ws.put("spacepoints.measurement_index", extent, np.concatenate(links)),
        event=ws.put("spacepoints.event", extent, np.repeat(np.arange(len(n), dtype=np.int32), n)),
    )


def upload_candidates(ws: Workspace, prepared: Sequence[PreparedEvent]) -> PointLists:
    """Put the track candidates of a batch into device memory; sets the sizes of "point_lists" and "listed_points".

    Parameters
    ----------
    ws : Workspace
        Buffers.
    prepared : sequence of PreparedMeasurements
        Events, with spacepoints and candidates.
    """
    events = [p for p in prepared if isinstance(p, PreparedMeasurements)]
    n_spacepoints = [0 if p.spacepoints is None else len(p.spacepoints.measurement_index) for p in events]
    first = np.cumsum([0, *n_spacepoints[:-1]])
    parts = [p.candidates for p in events if p.candidates is not None]
    points = [part.spacepoint + np.int32(f) for part, f in zip(parts, first, strict=True)]
    n = [len(part.offsets) - 1 for part in parts]
    lists, listed = ws.extent("point_lists"), ws.extent("listed_points")
    ws.set_size(lists, sum(n))
    ws.set_size(listed, sum(map(len, points)))
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = ws.array("point_lists.offsets", lists, np.int32, extra=1)
    ws.device.upload(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32), offsets)
    return PointLists(
        offsets=offsets,
        spacepoint=ws.put("point_lists.spacepoint", listed, np.concatenate(points)),
        event=ws.put("point_lists.event", lists, np.repeat(np.arange(len(n), dtype=np.int32), n)),
    )
