"""Overlapped batches: inputs are prepared and results cut into events while the device works on another batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.data.source import Source
from traccc_py.device.base import Device
from traccc_py.device.staging import InputBuffers
from traccc_py.device.workspace import Workspace
from traccc_py.edm import STAGES, Cells, EventResult
from traccc_py.errors import TracccError
from traccc_py.geometry import Detector
from traccc_py.pipeline.plausibility import Plausibility
from traccc_py.pipeline.prepare import Event, first_stage, prepare_event
from traccc_py.pipeline.results import BatchOutput, HostBatch, split_batch
from traccc_py.pipeline.stages import StageClock, StageInput, Stages
from traccc_py.pipeline.upload import CELL_COLUMNS, set_batch_size, stage_cells

__all__ = ["BatchSchedule", "Sources"]

Sources: TypeAlias = Sequence[Source | str | None] | None


@dataclass(slots=True)
class _Job:
    """Events of a batch that start with the same stage, with their input and results."""

    given: StageInput
    rows: list[int]  # of the batch
    results: list[EventResult | None]  # of the batch
    sources: Sequence[Source | str | None]  # of the batch
    is_last: bool  # of the batch
    clock: StageClock
    buffer: int = 0  # that the cells are in
    out: BatchOutput | None = None
    host: HostBatch | None = None
    number: int = 0  # of the start


class BatchSchedule:
    """Runs batches on one device, one after another, in shared buffers.

    Parameters
    ----------
    device : Device
        Where the kernels run.
    detector : Detector
        Knows the modules.
    config : ChainConfig
        Configuration of the stages.
    """

    def __init__(self, device: Device, detector: Detector, config: ChainConfig) -> None:
        self.workspace = Workspace(device)
        self._device, self._detector, self._config = device, detector, config
        self.time_limit: float | None = None  # of a batch up to the fit [s], where waiting for the device costs nothing
        self._inputs = InputBuffers(device, CELL_COLUMNS)
        self._stages: Stages | None = None
        self._n_started = 0
        self._plausibility = Plausibility(config, detector)

    def initialize(self) -> None:
        """Put the detector into device memory and compile all kernels, by running an event without cells."""
        if self._stages is None:
            self._stages = Stages(self._device, self._detector, self._config)
            try:
                next(self.run([([_no_cells()], None)]))
            except BaseException:
                self._stages = None
                raise
            self._plausibility.warn_of_settings()

    def beside(self, device: Device) -> BatchSchedule:
        """Return a schedule with buffers of its own on another device of the same memory, initialised."""
        self.initialize()
        other = BatchSchedule(device, self._detector, self._config)
        other._stages, other.time_limit = self._stages, self.time_limit
        return other

    def run(self, batches: Iterable[tuple[Sequence[Event], Sources]]) -> Iterator[list[EventResult]]:
        """Yield the results of each batch; the next batch is requested before the results of one are yielded."""
        try:
            yield from self._overlapping(batches)
        except MemoryError:  # or `CapacityError`, which is one
            self.workspace.reset()
            raise

    def _overlapping(self, batches: Iterable[tuple[Sequence[Event], Sources]]) -> Iterator[list[EventResult]]:
        running: _Job | None = None
        for job in self.jobs(batches):  # its input is being copied while `running` runs
            if running is not None:
                self._wait_for(running)
            self.start(job)
            if running is not None and (finished := self._collect(running)) is not None:
                yield finished
            running = job
        if running is not None:
            self._wait_for(running)
            yield self._collect(running) or []

    def jobs(self, batches: Iterable[tuple[Sequence[Event], Sources]]) -> Iterator[_Job]:
        """Prepare the events of each batch; those that start with the same stage form one job."""
        for events, sources in batches:
            self.initialize()
            names = [None] * len(events) if sources is None else sources
            by_stage: dict[str, list[int]] = {} if events else {STAGES[1]: []}
            for k, event in enumerate(events):
                by_stage.setdefault(first_stage(event), []).append(k)
            results: list[EventResult | None] = [None] * len(events)
            last = list(by_stage)[-1]
            for stage, rows in by_stage.items():
                given, clock = StageInput(stage, [], None), StageClock(self._device, self.time_limit)
                job = _Job(given, rows, results, names, stage == last, clock)
                if rows:
                    self._prepare(job, [events[k] for k in rows], [names[k] for k in rows])
                job.clock.lap("preparation")
                yield job

    def _prepare(self, job: _Job, events: Sequence[Event], sources: Sequence[Source | str | None]) -> None:
        """Check the events; start copying cells to the device."""
        given = job.given
        if given.first_stage == "clusterization":
            given.prepared, given.cells = stage_cells(self._inputs, events, self._detector, sources)
            job.buffer = self._inputs.current
        else:
            given.prepared = [prepare_event(e, self._detector, s) for e, s in zip(events, sources, strict=True)]

    def start(self, job: _Job) -> None:
        """Start all device work for the events of a job."""
        given, stages = job.given, self._stages
        if not given.prepared:
            return
        assert stages is not None
        job.clock.resume()
        self._n_started = job.number = self._n_started + 1
        job.out = None  # arrays of a first attempt, whose buffers were too small
        set_batch_size(self.workspace, given.prepared, len(self._detector.geometry_ids))
        self._device.join_uploads()
        if given.cells is None:  # input is copied by the stages
            job.out = stages.run(self.workspace, given, job.clock)
        else:
            key = (id(self), len(given.prepared), job.buffer, self.workspace.generation)
            job.out = self._device.recorded(key, lambda: stages.run(self.workspace, given, job.clock))

    def _wait_for(self, job: _Job) -> None:
        """Wait for the events, and redo them while buffers are too small; then the device is free for others."""
        if not job.given.prepared:
            return
        if self._n_started != job.number:  # the workspace has been used for others since
            msg = "the chain was given another event while batches were in progress; use a separate chain for it"
            raise TracccError(msg)
        while self.workspace.overflowed():
            self.start(job)
        self._plausibility.warn_of_limit(self.workspace)
        assert job.out is not None
        job.host = HostBatch(self.workspace, job.out, self._detector.surfaces)
        if self._device.sizes_are_on_host:  # these are views
            _split(job)
        job.clock.lap("output")

    def _collect(self, job: _Job) -> list[EventResult] | None:
        """Cut the output into events while the device works on others; return all after the last job."""
        job.clock.resume()
        if job.host is not None:
            _split(job)
            job.clock.lap("output")
        for row in job.rows:
            self._plausibility.warn_of_result(job.results[row], job.sources[row])  # type: ignore[arg-type]
            times = {stage: t / len(job.rows) for stage, t in job.clock.milliseconds.items()}
            job.results[row].stage_milliseconds = times  # type: ignore[union-attr]
        return [result for result in job.results if result is not None] if job.is_last else None


def _split(job: _Job) -> None:
    assert job.host is not None
    for row, result in zip(job.rows, split_batch(job.host, job.given.prepared), strict=True):
        job.results[row] = result
    job.host = None


def _no_cells() -> Cells:
    """Return an event without cells."""
    integers, reals = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Cells(np.zeros(0, np.uint64), integers, integers, reals, reals, integers)
