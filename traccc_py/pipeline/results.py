"""Results of a batch: copied to the host at once and cut into events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.workspace import Workspace
from traccc_py.edm import EventResult, Measurements, Seeds, Spacepoints, Tracks, TrackStates
from traccc_py.geometry.surfaces import Surfaces
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import TrackSelection
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.fitting.fitting import FittedBatch
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SpacepointBatch
from traccc_py.pipeline.prepare import PreparedEvent
from traccc_py.pipeline.prepare_cells import PreparedCells
from traccc_py.pipeline.result_loop import list_cells, place_on_surfaces

__all__ = ["BatchOutput", "HostBatch", "split_batch"]

_OF_STATES = dict.fromkeys(
    ("measurement", "state_params", "state_covariance", "state_chi2", "is_outlier"), "track_states"
)


class BatchOutput(NamedTuple):
    """Results of the stages for a batch, in device memory."""

    measurements: MeasurementBatch
    spacepoints: SpacepointBatch
    seeds: SeedBatch
    late_seeds: SeedBatch | None  # of what no track had after the others
    candidates: CandidateBatch
    selection: TrackSelection
    fitted: FittedBatch


class _Rows(NamedTuple):
    """Rows of the collections that belong to one event."""

    cells: slice
    measurements: slice
    spacepoints: slice
    seeds: slice
    late_seeds: slice
    tracks: slice


def split_batch(host: HostBatch, prepared: Sequence[PreparedEvent]) -> list[EventResult]:
    """Cut the outputs of a batch into events.

    Parameters
    ----------
    host : HostBatch
        The outputs.
    prepared : sequence of PreparedEvent
        The events that went in.

    Returns
    -------
    list of EventResult
        One per event, without times; no array is shared.
    """
    n_candidates = np.bincount(host.candidate_event, minlength=len(prepared))
    bounds = _bounds(host, prepared)
    return [
        _event(host, _Rows(*(slice(*b[k : k + 2].tolist()) for b in bounds)), p, int(n_candidates[k]))
        for k, p in enumerate(prepared)
    ]


def _bounds(host: HostBatch, prepared: Sequence[PreparedEvent]) -> list[np.ndarray]:
    """Return the first row of each event, and the number of rows, in the order of `_Rows`."""
    events = np.arange(len(prepared) + 1, dtype=np.int32)
    modules = events * len(host.geometry_ids)
    track_event = host.candidate_event[host.selection.candidate]
    return [
        np.cumsum([0, *(p.n_cells for p in prepared)]),
        host.measurement.offsets[modules],
        *(
            np.searchsorted(rows, events)
            for rows in (host.spacepoint.event, host.seed.event, host.late_seed.event, track_event)
        ),
    ]


def _event(host: HostBatch, rows: _Rows, prepared: PreparedEvent, n_candidates: int) -> EventResult:
    first_measurement = np.int32(rows.measurements.start)
    return EventResult(
        measurements=_measurements(host, rows, prepared),
        spacepoints=Spacepoints(
            host.spacepoint.global_position[rows.spacepoints].copy(),
            host.spacepoint.measurement_index[rows.spacepoints] - first_measurement,
        ),
        seeds=_seeds(host, rows),
        tracks=_tracks(host, rows),
        track_states=_states(host, rows),
        n_cells=prepared.n_cells,
        n_candidates=n_candidates,
    )


def _seeds(host: HostBatch, rows: _Rows) -> Seeds:
    """Return the seeds of an event, the late ones behind the others."""
    columns = zip(host.seed[:4], host.late_seed[:4], strict=True)
    *points, quality = (np.concatenate([column[rows.seeds], late[rows.late_seeds]]) for column, late in columns)
    return Seeds(*(column - np.int32(rows.spacepoints.start) for column in points), quality)


def _measurements(host: HostBatch, rows: _Rows, prepared: PreparedEvent) -> Measurements:
    m, n = host.measurement, rows.measurements.stop - rows.measurements.start
    n_cells = m.n_cells[rows.measurements].copy()
    cell_offsets = np.concatenate(([0], np.cumsum(n_cells, dtype=np.int64)))
    module = m.event_module[rows.measurements] % np.int32(len(host.geometry_ids))
    if isinstance(prepared, PreparedCells):
        ids = np.arange(n, dtype=np.int64)
        of_cell = m.cell_measurement[rows.cells] - np.int32(rows.measurements.start)
        cell_indices = np.empty(len(of_cell), np.int64)
        list_cells(of_cell, cell_offsets[:-1].copy(), cell_indices)
        if prepared.input_row is not None:
            cell_indices = prepared.input_row[cell_indices]
    else:
        ids, cell_indices = prepared.measurement_id.copy(), np.zeros(0, np.int64)
    return Measurements(
        geometry_id=host.geometry_ids[module],
        local_position=m.local_position[rows.measurements].copy(),
        local_variance=m.local_variance[rows.measurements].copy(),
        dimensions=m.dimensions[rows.measurements].copy(),
        time=m.time[rows.measurements].copy(),
        module_index=module,
        cluster_size=np.abs(m.cluster_size[rows.measurements]),
        n_cells=n_cells,
        measurement_id=ids,
        cell_offsets=cell_offsets,
        cell_indices=cell_indices,
    )


def _tracks(host: HostBatch, event: _Rows) -> Tracks:
    fit, offsets, rows = host.fitted, host.selection.state_offsets, event.tracks
    candidate = host.selection.candidate[rows]
    first_state = offsets[rows.start : rows.stop]
    n_measurements = np.diff(offsets[rows.start : rows.stop + 1])
    first = fit.measurement[first_state]
    return Tracks(
        fit_outcome=fit.outcome[rows].copy(),
        geometry_id=host.geometry_id(first),
        params=fit.params[rows].copy(),
        covariance=fit.covariance[rows].copy(),
        time=host.measurement.time[first],
        chi2=fit.chi2[rows].copy(),
        ndf=fit.ndf[rows].astype(np.float32),
        pval=fit.pval[rows].copy(),
        n_measurements=n_measurements.astype(np.int32),
        n_holes=host.candidate_holes[candidate],
        perigee=fit.perigee[rows].copy(),
        perigee_covariance=fit.perigee_covariance[rows].copy(),
        state_offsets=np.concatenate(([0], np.cumsum(n_measurements, dtype=np.int64))),
        n_shared_measurements=_n_shared(
            fit.measurement[offsets[rows.start] : offsets[rows.stop]], n_measurements, event.measurements
        ),
        n_outliers=fit.n_outliers[rows].copy(),
        n_kinks=fit.n_kinks[rows].copy(),
    )


def _n_shared(measurement: np.ndarray, n_measurements: np.ndarray, of_event: slice) -> np.ndarray:
    """Return how many of the measurements of each track are on other tracks, too."""
    track = np.repeat(np.arange(len(n_measurements), dtype=np.int32), n_measurements)
    row = measurement - np.int32(of_event.start)
    first, last = (np.empty(of_event.stop - of_event.start, np.int32) for _ in range(2))
    first[row[::-1]] = track[::-1]  # of several values for a row the last one stays
    last[row] = track
    is_shared = first[row] != last[row]
    return np.bincount(track[is_shared], minlength=len(n_measurements)).astype(np.int32)


def _states(host: HostBatch, rows: _Rows) -> TrackStates:
    fit, offsets = host.fitted, host.selection.state_offsets
    states = slice(int(offsets[rows.tracks.start]), int(offsets[rows.tracks.stop]))
    measurement, params = fit.measurement[states], fit.state_params[states].copy()
    lengths = np.diff(offsets[rows.tracks.start : rows.tracks.stop + 1])
    return TrackStates(
        track_index=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        measurement_index=measurement - np.int32(rows.measurements.start),
        geometry_id=host.geometry_id(measurement),
        params=params,
        covariance=fit.state_covariance[states].copy(),
        chi2=fit.state_chi2[states].copy(),
        is_outlier=fit.is_outlier[states].copy(),
        global_position=host.global_position(measurement, params),
    )


class HostBatch:
    """The outputs of a batch on the host, cut to their sizes; waits for the device once.

    On the CPU they are views of the workspace, which the next batch changes.

    Parameters
    ----------
    ws : Workspace
        Knows the sizes.
    out : BatchOutput
        Outputs of the stages.
    surfaces : Surfaces
        Surfaces of the detector.
    """

    def __init__(self, ws: Workspace, out: BatchOutput, surfaces: Surfaces) -> None:
        self._ws = ws
        self._surfaces = surfaces
        self.geometry_ids = surfaces.geometry_id
        links = {"offsets": "event_modules", "cell_measurement": "cells"}
        late_seeds = out.late_seeds or type(out.seeds)(*(column[:0] for column in out.seeds))
        collections = [
            (out.measurements, self._rows(out.measurements, "measurements", links)),
            (out.spacepoints, self._rows(out.spacepoints, "spacepoints", {})),
            (out.seeds, self._rows(out.seeds, "seeds", {})),
            (late_seeds, self._rows(late_seeds, "late.seeds", {})),
            (out.selection, self._rows(out.selection, "tracks", {})),
            (out.fitted, self._rows(out.fitted, "tracks", _OF_STATES)),
        ]
        n = ws.size(ws.extent("candidates"))
        candidates = (out.candidates.start.event[:n], out.candidates.n_holes[:n])
        columns = iter(ws.device.fetch(*(row for _, rows in collections for row in rows), *candidates))
        made: list[Any] = [type(collection)(*(next(columns) for _ in rows)) for collection, rows in collections]
        self.measurement, self.spacepoint, self.seed, self.late_seed, self.selection, self.fitted = made
        self.candidate_event, self.candidate_holes = columns
        self.selection.state_offsets[0] = 0  # not written if there is no candidate

    def _rows(self, collection: Any, default: str, extents: dict[str, str]) -> list[Any]:
        """Return the columns of a collection, cut to their sizes."""
        rows = []
        for name, column in zip(collection._fields, collection, strict=True):
            extra = 1 if name.endswith("offsets") else 0
            rows.append(column[: self._ws.size(self._ws.extent(extents.get(name, default))) + extra])
        return rows

    def _module(self, measurement: np.ndarray) -> np.ndarray:
        return self.measurement.event_module[measurement] % len(self.geometry_ids)

    def geometry_id(self, measurement: np.ndarray) -> np.ndarray:
        """Return the geometry ids of measurements."""
        return self.geometry_ids[self._module(measurement)]

    def global_position(self, measurement: np.ndarray, params: np.ndarray) -> np.ndarray:
        """Return the global positions of parameters on the surfaces of measurements, (n, 3) float32 [mm]."""
        position = np.empty((len(measurement), 3), np.float32)
        frames = (self._surfaces.centre, self._surfaces.u, self._surfaces.v)
        place_on_surfaces(self._module(measurement), params, frames, position)
        return position
