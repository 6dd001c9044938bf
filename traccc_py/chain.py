"""The reconstruction chain: cells of events in, fitted tracks out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.data.prepare import PreparedCells, prepare_cells
from traccc_py.device import get_device
from traccc_py.device.staging import InputBuffers
from traccc_py.device.workspace import Workspace
from traccc_py.edm import Cells, EventResult, Measurements, Seeds, Spacepoints, Tracks, TrackStates
from traccc_py.errors import CapacityError, GeometryError
from traccc_py.geometry import Detector, build_detector
from traccc_py.geometry.records import LayerKind
from traccc_py.kernels.ambiguity_resolution import TrackSelection, resolve_ambiguities
from traccc_py.kernels.batch import CellBatch, MeasurementBatch, SeedBatch, SpacepointBatch
from traccc_py.kernels.candidates import CandidateBatch
from traccc_py.kernels.clusterization import form_measurements
from traccc_py.kernels.finding import MAX_SURFACES_IN_BIN, find_tracks
from traccc_py.kernels.fitting import FittedBatch, fit_tracks
from traccc_py.kernels.navigation import StackRanges
from traccc_py.kernels.parameter_estimation import estimate_parameters
from traccc_py.kernels.seed_thinning import thin_seeds
from traccc_py.kernels.seeding import find_seeds
from traccc_py.kernels.spacepoint_formation import form_spacepoints
from traccc_py.units import T

__all__ = ["STAGES", "TrackingChain"]

#: Stages whose times are reported, in order.
STAGES = (
    "preparation",
    "clusterization",
    "spacepoint_formation",
    "seeding",
    "parameter_estimation",
    "finding",
    "ambiguity_resolution",
    "fitting",
    "output",
)


SMALLEST_FIELD = 0.1  #: [T]
MAX_BATCH = 10_000  #: events; keys of events and seeding cells have 32 bits


_CELL_COLUMNS = {
    **dict.fromkeys(("event_module", "channel0", "channel1"), np.int32),
    **dict.fromkeys(("activation", "time"), np.float32),
}


class _BatchOutput(NamedTuple):
    measurements: MeasurementBatch
    spacepoints: SpacepointBatch
    seeds: SeedBatch
    candidates: CandidateBatch
    selection: TrackSelection
    fitted: FittedBatch


@dataclass(slots=True)
class _Job:
    """A batch on its way through the chain."""

    prepared: list[PreparedCells]
    cells: Any  # CellBatch on the device
    buffer: int  # of the input
    clock: _Clock
    out: Any = None  # _BatchOutput


class _Clock:
    """Wall time per stage; each stage ends with the device idle where times are asked for."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._last = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def resume(self) -> None:
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if self._device.sizes_are_on_host:
            self._device.synchronize()
        now = time.perf_counter()
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now


def _check_detector(arrays: Any) -> None:
    """Raise for a detector the kernels can't work with."""
    if abs(arrays.b_z) < SMALLEST_FIELD * T:
        msg = (
            f"the field along z is {arrays.b_z / T:.3g} T; expected at least {SMALLEST_FIELD} T in size: "
            "seeds get their momentum from the curvature"
        )
        raise GeometryError(msg)
    largest = int(np.diff(arrays.bin_offsets).max(initial=0))
    if largest > MAX_SURFACES_IN_BIN:
        msg = (
            f"a bin of a layer's grid lists {largest} surfaces; expected at most {MAX_SURFACES_IN_BIN}: use finer bins"
        )
        raise GeometryError(msg)


def _stack_ranges(stacks: np.ndarray) -> StackRanges:
    """Return the ranges of the layers by kind."""
    found = {int(s["kind"]): (np.int32(s["first_layer"]), np.int32(s["n_layers"])) for s in stacks}
    none = (np.int32(0), np.int32(0))
    ranges = [found.get(int(kind), none) for kind in (LayerKind.CYLINDER, LayerKind.DISC, LayerKind.PLANE)]
    return StackRanges(*(value for pair in ranges for value in pair))


class TrackingChain:
    """Reconstruct tracks from cells.

    Parameters
    ----------
    detector : Detector or str
        The detector, or the name of a built-in one.
    config : ChainConfig, optional
        Configuration of the stages.
    device : str, optional
        "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
    threads : int, optional
        Number of CPU threads; by default the cores this process may run on.

    Raises
    ------
    DeviceUnavailableError
        If the device does not exist or its packages are missing.
    GeometryError
        If the detector is unknown.

    Notes
    -----
    A chain keeps its buffers from event to event and is for one thread at a time; threads take a chain each.

    Examples
    --------
    >>> from traccc_py import TrackingChain, build_detector, read_cells
    >>> from traccc_py.data.sample import sample_event_path
    >>> chain = TrackingChain(build_detector("odd"), threads=1)
    >>> result = chain.run(read_cells(sample_event_path()))
    >>> len(result.tracks) > 0
    True
    """

    def __init__(
        self,
        detector: Detector | str,
        config: ChainConfig | None = None,
        device: str | Any = "auto",
        threads: int | None = None,
    ) -> None:
        self.detector = build_detector(detector) if isinstance(detector, str) else detector
        self.config = config or ChainConfig()
        self.device = get_device(device, threads=threads) if isinstance(device, str) else device
        self._workspace = Workspace(self.device)
        self._inputs = InputBuffers(self.device, _CELL_COLUMNS)
        self._arrays: Any = None
        self._stacks: StackRanges | None = None

    def initialize(self) -> None:
        """Put the detector into device memory and compile all kernels, by running an event without cells.

        Called by the first `run`; a service calls it before it takes requests.
        """
        if self._arrays is not None:
            return
        host = self.detector.arrays()
        _check_detector(host)
        self._arrays = type(host)(*(self.device.to_device(a) if isinstance(a, np.ndarray) else a for a in host))
        self._stacks = _stack_ranges(host.stacks)
        self.run(_no_cells())

    def run(self, cells: Cells) -> EventResult:
        """Reconstruct one event.

        Parameters
        ----------
        cells : Cells
            Its cells, in any order.

        Returns
        -------
        EventResult
            Measurements, spacepoints, seeds, tracks and track states, and the time of each stage [ms].

        Raises
        ------
        InputDataError
            If a cell is not on the detector or has an impossible value.
        """
        return self.run_batch([cells])[0]

    def run_batch(self, events: Sequence[Cells]) -> list[EventResult]:
        """Reconstruct several events in the same launches; results do not depend on the batch.

        Parameters
        ----------
        events : sequence of Cells
            Cells of each event.

        Returns
        -------
        list of EventResult
            One per event. Stage times are those of the whole batch divided by the number of events.

        Raises
        ------
        InputDataError
            If a cell is not on the detector or has an impossible value.
        """
        return next(self.run_batches([events]))

    def run_batches(self, batches: Iterable[Sequence[Cells]]) -> Iterator[list[EventResult]]:
        """Reconstruct batch after batch; on a GPU the next batch is prepared and copied while this one is worked on.

        Parameters
        ----------
        batches : iterable of sequence of Cells
            Cells of the events of each batch. It is asked for a batch before the results of the one before are given.

        Yields
        ------
        list of EventResult
            Results of each batch, as `run_batch` returns them, in order.

        Raises
        ------
        InputDataError
            If a cell is not on the detector or has an impossible value.
        """
        running: _Job | None = None
        for events in batches:
            self.initialize()
            waiting = self._stage(events)
            finished = None if running is None else self._collect(running)
            running = self._start(waiting)
            if finished is not None:
                yield finished
        if running is not None:
            yield self._collect(running)

    def _stage(self, events: Sequence[Cells]) -> _Job:
        """Check the cells of a batch and start to copy them to the device."""
        clock = _Clock(self.device)
        if len(events) > MAX_BATCH:
            msg = f"a batch of {len(events)} events; at most {MAX_BATCH} are possible: use smaller batches"
            raise CapacityError(msg)
        prepared = [prepare_cells(cells, self.detector) for cells in events]
        n_modules = len(self.detector.geometry_ids)
        columns = {
            "event_module": [p.module_index + np.int32(k * n_modules) for k, p in enumerate(prepared)],
            "channel0": [p.channel0 for p in prepared],
            "channel1": [p.channel1 for p in prepared],
            "activation": [p.activation for p in prepared],
            "time": [p.time for p in prepared],
        }
        cells = CellBatch(**self._inputs.fill(columns)) if prepared else None
        clock.lap("preparation")
        return _Job(prepared, cells, self._inputs.current, clock)

    def _start(self, job: _Job) -> _Job:
        """Ask the device for everything a batch needs."""
        if not job.prepared:
            return job
        job.clock.resume()
        n_events, n_cells = len(job.prepared), sum(p.n_cells for p in job.prepared)
        n_event_modules = n_events * len(self.detector.geometry_ids)
        self._workspace.set_sizes(events=n_events, event_modules=n_event_modules, cells=n_cells)
        self.device.join_uploads()
        job.clock.lap("preparation")
        key = (id(self), n_events, job.buffer, self._workspace.generation)
        job.out = self.device.recorded(key, lambda: self._run_stages(job.cells, n_events, job.clock))
        return job

    def _collect(self, job: _Job) -> list[EventResult]:
        """Wait for a batch, redo it while buffers were too small, and return its results."""
        if not job.prepared:
            return []
        while self._workspace.overflowed():
            self._start(job)
        results = self._split(job.out, job.prepared)
        job.clock.lap("output")
        for result in results:
            result.stage_milliseconds = {k: v / len(results) for k, v in job.clock.milliseconds.items()}
        return results

    def _run_stages(self, cells: CellBatch, n_events: int, clock: _Clock) -> _BatchOutput:
        ws, detector, config, stacks = self._workspace, self._arrays, self.config, self._stacks
        assert stacks is not None
        n_modules = len(self.detector.geometry_ids)
        measurements = form_measurements(ws, cells, detector, config.clusterization)
        clock.lap("clusterization")
        spacepoints = form_spacepoints(ws, measurements, detector, n_modules)
        clock.lap("spacepoint_formation")
        seeds = find_seeds(ws, spacepoints, config.seeding, n_events)
        is_kept = thin_seeds(ws, seeds, spacepoints, measurements, config.seeding)
        clock.lap("seeding")
        parameters = estimate_parameters(
            ws, seeds, spacepoints, measurements, detector, config.parameter_estimation, n_modules
        )
        clock.lap("parameter_estimation")
        links = spacepoints.measurement_index
        candidates = find_tracks(ws, seeds, is_kept, parameters, links, measurements, detector, stacks, config.finding)
        clock.lap("finding")
        selection = resolve_ambiguities(ws, candidates, measurements.offsets, n_modules, config.ambiguity_resolution)
        clock.lap("ambiguity_resolution")
        fitted = fit_tracks(ws, candidates, selection, parameters, measurements, detector, stacks, config.fitting)
        clock.lap("fitting")
        return _BatchOutput(measurements, spacepoints, seeds, candidates, selection, fitted)

    def _split(self, out: _BatchOutput, prepared: list[PreparedCells]) -> list[EventResult]:
        """Copy the outputs to the host and cut them into events."""
        host = _HostBatch(self._workspace, out)
        first_cells = np.cumsum([0, *(p.n_cells for p in prepared)])
        return [self._event(host, k, p, int(first_cells[k])) for k, p in enumerate(prepared)]

    def _event(self, host: _HostBatch, k: int, prepared: PreparedCells, first_cell: int) -> EventResult:
        n_modules = len(self.detector.geometry_ids)
        first_measurement = int(host.measurement.offsets[k * n_modules])
        end_measurement = int(host.measurement.offsets[(k + 1) * n_modules])
        first_spacepoint, end_spacepoint = np.searchsorted(host.spacepoint.event, [k, k + 1])
        seeds = slice(*np.searchsorted(host.seed.event, [k, k + 1]))
        candidate_event = host.candidate_event
        tracks = slice(*np.searchsorted(candidate_event[host.selection.candidate], [k, k + 1]))
        rows = slice(first_measurement, end_measurement)
        return EventResult(
            measurements=self._measurements(host, rows, prepared, first_cell),
            spacepoints=Spacepoints(
                host.spacepoint.global_position[first_spacepoint:end_spacepoint].copy(),
                host.spacepoint.measurement_index[first_spacepoint:end_spacepoint] - np.int32(first_measurement),
            ),
            seeds=Seeds(
                *(column[seeds] - np.int32(first_spacepoint) for column in host.seed[:3]),
                host.seed.quality[seeds].copy(),
            ),
            tracks=self._tracks(host, tracks),
            track_states=self._states(host, tracks, rows),
            n_cells=prepared.n_cells,
            n_candidates=int(np.count_nonzero(candidate_event == k)),
        )

    def _measurements(self, host: _HostBatch, rows: slice, prepared: PreparedCells, first_cell: int) -> Measurements:
        m = host.measurement
        of_cell = m.cell_measurement[first_cell : first_cell + prepared.n_cells] - np.int32(rows.start)
        order = np.argsort(of_cell, kind="stable")
        n = rows.stop - rows.start
        module = m.event_module[rows] % np.int32(len(self.detector.geometry_ids))
        return Measurements(
            geometry_id=self.detector.geometry_ids[module],
            local_position=m.local_position[rows].copy(),
            local_variance=m.local_variance[rows].copy(),
            dimensions=m.dimensions[rows].copy(),
            time=m.time[rows].copy(),
            module_index=module,
            cluster_size=m.cluster_size[rows].copy(),
            n_cells=m.n_cells[rows].copy(),
            measurement_id=np.arange(n, dtype=np.int64),
            cell_offsets=np.concatenate(([0], np.cumsum(m.n_cells[rows], dtype=np.int64))),
            cell_indices=prepared.input_row[order],
        )

    def _tracks(self, host: _HostBatch, rows: slice) -> Tracks:
        fit, offsets = host.fitted, host.selection.state_offsets
        candidate = host.selection.candidate[rows]
        first_state = offsets[rows.start : rows.stop]
        n_measurements = np.diff(offsets[rows.start : rows.stop + 1])
        first = fit.measurement[first_state]
        return Tracks(
            fit_outcome=fit.outcome[rows].copy(),
            geometry_id=self._geometry_id(host, first),
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
        )

    def _states(self, host: _HostBatch, tracks: slice, measurements: slice) -> TrackStates:
        fit, offsets = host.fitted, host.selection.state_offsets
        rows = slice(int(offsets[tracks.start]), int(offsets[tracks.stop]))
        measurement = fit.measurement[rows]
        return TrackStates(
            measurement_index=measurement - np.int32(measurements.start),
            geometry_id=self._geometry_id(host, measurement),
            params=fit.state_params[rows].copy(),
            covariance=fit.state_covariance[rows].copy(),
            chi2=fit.state_chi2[rows].copy(),
        )

    def _geometry_id(self, host: _HostBatch, measurement: np.ndarray) -> np.ndarray:
        n_modules = len(self.detector.geometry_ids)
        return self.detector.geometry_ids[host.measurement.event_module[measurement] % n_modules]


_OF_STATES = dict.fromkeys(("measurement", "state_params", "state_covariance", "state_chi2"), "track_states")


class _HostBatch:
    """The outputs of a batch on the host, cut to their sizes; the device is waited for once."""

    def __init__(self, ws: Workspace, out: _BatchOutput) -> None:
        self._ws = ws
        links = {"offsets": "event_modules", "cell_measurement": "cells"}
        collections = [
            (out.measurements, self._rows(out.measurements, "measurements", links)),
            (out.spacepoints, self._rows(out.spacepoints, "spacepoints", {})),
            (out.seeds, self._rows(out.seeds, "seeds", {})),
            (out.selection, self._rows(out.selection, "tracks", {})),
            (out.fitted, self._rows(out.fitted, "tracks", _OF_STATES)),
        ]
        n = ws.size(ws.extent("candidates"))
        candidates = (out.candidates.event[:n], out.candidates.n_holes[:n])
        columns = iter(ws.device.fetch(*(row for _, rows in collections for row in rows), *candidates))
        made: list[Any] = [type(collection)(*(next(columns) for _ in rows)) for collection, rows in collections]
        self.measurement, self.spacepoint, self.seed, self.selection, self.fitted = made
        self.candidate_event, self.candidate_holes = columns
        self.selection.state_offsets[0] = 0  # not written where there is no candidate

    def _rows(self, collection: Any, default: str, extents: dict[str, str]) -> list[Any]:
        """Return the columns of a collection, cut to their sizes."""
        rows = []
        for name, column in zip(collection._fields, collection, strict=True):
            extra = 1 if name.endswith("offsets") else 0
            rows.append(column[: self._ws.size(self._ws.extent(extents.get(name, default))) + extra])
        return rows


def _no_cells() -> Cells:
    """Return an event without cells."""
    integers, reals = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Cells(np.zeros(0, np.uint64), integers, integers, reals, reals, integers)
