"""The reconstruction chain: cells, measurements or spacepoints of events in, fitted tracks out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from traccc_py.config import ChainConfig, read_config
from traccc_py.data.source import Source
from traccc_py.device import get_device
from traccc_py.device.staging import InputBuffers
from traccc_py.device.workspace import Workspace
from traccc_py.edm import Cells, EventResult
from traccc_py.errors import GeometryError, TracccError
from traccc_py.geometry import Detector, build_detector
from traccc_py.geometry.records import LayerKind
from traccc_py.geometry.variance_table import path_sigmas
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import resolve_ambiguities
from traccc_py.kernels.clusterization.clusterization import form_measurements
from traccc_py.kernels.finding.finding import MAX_SURFACES_IN_BIN, find_tracks
from traccc_py.kernels.fitting.fitting import fit_tracks
from traccc_py.kernels.seeding.cluster_slopes import find_cluster_slopes
from traccc_py.kernels.seeding.parameter_estimation import estimate_parameters
from traccc_py.kernels.seeding.seeding import find_seeds
from traccc_py.kernels.seeding.spacepoint_formation import form_spacepoints
from traccc_py.kernels.seeding.thinning import thin_seeds
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch
from traccc_py.kernels.tracking.navigation import StackRanges
from traccc_py.pipeline.results import BatchOutput, HostBatch, split_batch
from traccc_py.pipeline.upload import (
    CELL_COLUMNS,
    Event,
    PreparedEvent,
    first_stage,
    prepare_event,
    set_batch_size,
    stage_cells,
    upload_measurements,
    upload_spacepoints,
)
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

_Sources: TypeAlias = Sequence[Source | str | None] | None


@dataclass(slots=True)
class _Job:
    """Events of a batch that start with the same stage, on their way through the chain."""

    stage: str
    rows: list[int]  # of the batch
    results: list[EventResult | None]  # of the batch
    is_last: bool  # of the batch
    clock: _Clock
    prepared: list[PreparedEvent] = field(default_factory=list)
    cells: Any = None  # CellBatch on the device, where the chain starts with cells
    buffer: int = 0  # that the cells are in
    out: Any = None  # BatchOutput
    host: HostBatch | None = None
    number: int = 0  # of the start


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
            f"the field along z at the origin is {arrays.b_z / T:.3g} T; expected at least {SMALLEST_FIELD} T in size: "
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
    """Reconstruct tracks from cells, measurements or spacepoints.

    Parameters
    ----------
    detector : Detector or str
        The detector, or the name of a built-in one.
    config : ChainConfig, optional
        Configuration of the stages; by default that of the detector, see `read_config`.
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
        self.config = config or read_config(None, self.detector.name)
        self.device = get_device(device, threads=threads) if isinstance(device, str) else device
        self._workspace = Workspace(self.device)
        self._inputs = InputBuffers(self.device, CELL_COLUMNS)
        self._arrays: Any = None
        self._stacks: StackRanges | None = None
        self._n_started = 0

    def initialize(self) -> None:
        """Put the detector into device memory and compile all kernels, by running an event without cells.

        Called by the first `run`; a service calls it before it takes requests.
        """
        if self._arrays is not None:
            return
        host = self.detector.arrays()
        _check_detector(host)
        host = host._replace(path_sigmas=path_sigmas(host, self.config.clusterization))
        self._arrays = self._on_device(host)
        self._stacks = _stack_ranges(host.stacks)
        self.run(_no_cells())

    def _on_device(self, arrays: Any) -> Any:
        """Return a tuple of arrays, scalars and such tuples with its arrays in device memory."""
        members = (
            self._on_device(a) if isinstance(a, tuple) else self.device.to_device(a) if isinstance(a, np.ndarray) else a
            for a in arrays
        )
        return type(arrays)(*members)

    def run(self, event: Event, source: Source | str | None = None) -> EventResult:
        """Reconstruct one event.

        Parameters
        ----------
        event : Cells, ModuleCells, Measurements or (Measurements, Spacepoints)
            Where the chain starts; rows in any order.
        source : Source or str, optional
            File the event is from, for errors and warnings.

        Returns
        -------
        EventResult
            Measurements, spacepoints, seeds, tracks and track states, and the time of each stage [ms].

        Raises
        ------
        InputDataError
            If a row is not on the detector or has an impossible value.
        """
        return self.run_batch([event], [source])[0]

    def run_batch(
        self, events: Sequence[Event], sources: Sequence[Source | str | None] | None = None
    ) -> list[EventResult]:
        """Reconstruct several events in the same launches; results do not depend on the batch.

        Parameters
        ----------
        events : sequence of Cells, ModuleCells, Measurements or (Measurements, Spacepoints)
            Where the chain starts, for each event. Measurements are used as they are: positions, variances, ids.
            Spacepoints are global positions and rows of the measurements they were made of.
        sources : sequence of Source or str, optional
            Files the events are from, for errors and warnings.

        Returns
        -------
        list of EventResult
            One per event, in their order. Stage times are those of all events of one kind, which share launches,
            divided by their number; stages before the one an event starts with have none.

        Raises
        ------
        InputDataError
            If a row is not on the detector or has an impossible value, or an event is of another type.
        """
        return next(self._in_a_row([(events, sources)]))

    def run_batches(self, batches: Iterable[Sequence[Event]]) -> Iterator[list[EventResult]]:
        """Reconstruct batch after batch; on a GPU cells of the next one are prepared and copied while one is worked on.

        Parameters
        ----------
        batches : iterable of sequence of Cells, ModuleCells, Measurements or (Measurements, Spacepoints)
            Events of each batch. It is asked for a batch before the results of the one before are given.

        Yields
        ------
        list of EventResult
            Results of each batch, as `run_batch` returns them, in order.

        Raises
        ------
        InputDataError
            If a row is not on the detector or has an impossible value, or an event is of another type.
        TracccError
            If the chain was given other events before the last result was taken.
        """
        return self._in_a_row((events, None) for events in batches)

    def _in_a_row(self, batches: Iterable[tuple[Sequence[Event], _Sources]]) -> Iterator[list[EventResult]]:
        try:
            yield from self._overlapping(batches)
        except MemoryError:  # or `CapacityError`, which is one
            self._workspace.reset()
            raise

    def _overlapping(self, batches: Iterable[tuple[Sequence[Event], _Sources]]) -> Iterator[list[EventResult]]:
        running: _Job | None = None
        for job in self._jobs(batches):  # has its input under way while `running` runs
            if running is not None:
                self._wait_for(running)
            self._start(job)
            if running is not None and (finished := self._collect(running)) is not None:
                yield finished
            running = job
        if running is not None:
            self._wait_for(running)
            yield self._collect(running) or []

    def _jobs(self, batches: Iterable[tuple[Sequence[Event], _Sources]]) -> Iterator[_Job]:
        """Prepare the events of each batch, those that start with the same stage together."""
        for events, sources in batches:
            self.initialize()
            names = [None] * len(events) if sources is None else sources
            by_stage: dict[str, list[int]] = {} if events else {STAGES[1]: []}
            for k, event in enumerate(events):
                by_stage.setdefault(first_stage(event), []).append(k)
            results: list[EventResult | None] = [None] * len(events)
            last = list(by_stage)[-1]
            for stage, rows in by_stage.items():
                clock = _Clock(self.device)
                job = _Job(stage, rows, results, stage == last, clock)
                if rows:
                    self._prepare(job, [events[k] for k in rows], [names[k] for k in rows])
                clock.lap("preparation")
                yield job

    def _prepare(self, job: _Job, events: Sequence[Event], sources: Sequence[Source | str | None]) -> None:
        """Check the events; cells start on their way to the device."""
        if job.stage == "clusterization":
            job.prepared, job.cells = stage_cells(self._inputs, events, self.detector, sources)
            job.buffer = self._inputs.current
        else:
            job.prepared = [prepare_event(e, self.detector, s) for e, s in zip(events, sources, strict=True)]

    def _start(self, job: _Job) -> None:
        """Ask the device for everything the events need."""
        if not job.prepared:
            return
        job.clock.resume()
        self._n_started = job.number = self._n_started + 1
        job.out = None  # arrays of a first try that was too small
        set_batch_size(self._workspace, job.prepared, len(self.detector.geometry_ids))
        self.device.join_uploads()
        if job.cells is None:  # input is copied on the way
            job.out = self._run_stages(job)
        else:
            key = (id(self), len(job.prepared), job.buffer, self._workspace.generation)
            job.out = self.device.recorded(key, lambda: self._run_stages(job))

    def _wait_for(self, job: _Job) -> None:
        """Wait for the events, redo them while buffers were too small; then the device is free for others."""
        if not job.prepared:
            return
        if self._n_started != job.number:  # the workspace holds what came later
            msg = "the chain was given another event while batches were under way; take a chain of its own for it"
            raise TracccError(msg)
        while self._workspace.overflowed():
            self._start(job)
        job.host = HostBatch(self._workspace, job.out, self.detector.geometry_ids)
        if self.device.sizes_are_on_host:  # these are views
            self._split(job)
        job.clock.lap("output")

    def _split(self, job: _Job) -> None:
        assert job.host is not None
        for row, result in zip(job.rows, split_batch(job.host, job.prepared), strict=True):
            job.results[row] = result
        job.host = None

    def _collect(self, job: _Job) -> list[EventResult] | None:
        """Cut the output into events, while the next ones are on the device; return the batch's after its last."""
        job.clock.resume()
        if job.host is not None:
            self._split(job)
            job.clock.lap("output")
        for row in job.rows:
            times = {stage: t / len(job.rows) for stage, t in job.clock.milliseconds.items()}
            job.results[row].stage_milliseconds = times  # type: ignore[union-attr]
        return [result for result in job.results if result is not None] if job.is_last else None

    def _form_spacepoints(self, job: _Job) -> tuple[MeasurementBatch, SpacepointBatch]:
        """Do what comes before the seeding, as far as the events have not been through it."""
        prepared, stage, clock = job.prepared, job.stage, job.clock
        ws, detector, n_modules = self._workspace, self._arrays, len(self.detector.geometry_ids)
        if stage == "clusterization":
            clock.lap("preparation")
            measurements = form_measurements(ws, job.cells, detector, self.config.clusterization)
            clock.lap("clusterization")
        else:
            measurements = upload_measurements(ws, prepared, n_modules)
            clock.lap("preparation")
        if stage == "seeding":
            spacepoints = upload_spacepoints(ws, prepared)
            clock.lap("preparation")
        else:
            spacepoints = form_spacepoints(ws, measurements, detector, n_modules)
            clock.lap("spacepoint_formation")
        return measurements, spacepoints

    def _run_stages(self, job: _Job) -> BatchOutput:
        ws, detector, config, stacks = self._workspace, self._arrays, self.config, self._stacks
        assert stacks is not None
        clock, n_events, n_modules = job.clock, len(job.prepared), len(self.detector.geometry_ids)
        measurements, spacepoints = self._form_spacepoints(job)
        tolerance = config.seeding.cluster_size_tolerance
        slopes = find_cluster_slopes(ws, spacepoints, measurements, detector, n_modules, tolerance)
        seeds = find_seeds(ws, spacepoints, slopes, config.seeding, float(detector.b_z), n_events)
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
        return BatchOutput(measurements, spacepoints, seeds, candidates, selection, fitted)


def _no_cells() -> Cells:
    """Return an event without cells."""
    integers, reals = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Cells(np.zeros(0, np.uint64), integers, integers, reals, reals, integers)
