"""Requests to answers: cells of several clients through the chain as one batch, independent of Triton."""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from traccc_py import wire
from traccc_py.backend.settings import ModelSettings
from traccc_py.chain import TrackingChain
from traccc_py.config import read_config
from traccc_py.data.athena_ids import AthenaIds, read_athena_ids
from traccc_py.device.cache import CACHE_VARIABLE
from traccc_py.edm import Cells, EventResult, ModuleCells
from traccc_py.errors import CapacityError, InputDataError, ServiceError, TracccError, WireError
from traccc_py.pipeline.prepare_cells import prepare_cells

__all__ = ["Answer", "BatchReport", "BusyError", "DecodedEvent", "Request", "TrackingService", "WithdrawnError"]

_log = logging.getLogger(__name__)

_WARM_UP_MODULES = 16  # too few for a warning that there are no seeds
_WARM_UP_ACTIVATION = 0.1
_LEAST_BYTES_PER_CELL = 100  #: that the chain needs; events of pile-up take 250 to 580
_CHAINS = 2  #: of a process, at most


class Request(NamedTuple):
    """What one client sent."""

    tensors: Mapping[str, np.ndarray]
    outputs: Collection[str] | None = None  # names of the tensors wanted; None: all
    fingerprint: str | None = None  # of the detector that the client expects


class DecodedEvent(NamedTuple):
    """The event of a request."""

    cells: Cells | ModuleCells
    outputs: Collection[str] | None = None  # names of the tensors wanted; None: all


class BusyError(ServiceError):
    """So many events wait that a further one is refused; it may be sent again."""


class WithdrawnError(ServiceError):
    """Nobody waits for the event any more: it was cancelled, or its time is up."""


class _Turns:
    """Lets the chains of a process work beside each other, or one of them alone."""

    def __init__(self) -> None:
        self._places = threading.Semaphore(_CHAINS)
        self._is_waited_for = threading.Lock()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work while others may."""
        with self._places:
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while no other does; not to be asked for by one that works."""
        with self._is_waited_for, ExitStack() as places:
            for _ in range(_CHAINS):
                places.enter_context(self._places)
            yield


#: Output tensors by name, or why there are none. Errors other than TracccError are server errors.
Answer = dict[str, np.ndarray] | Exception


@dataclass(slots=True)
class BatchReport:
    """What was done with requests."""

    n_requests: int = 0
    n_refused: int = 0  # client errors
    n_failed: int = 0  # server errors
    n_withdrawn: int = 0  # cancelled, or out of time
    n_busy: int = 0  # refused because too many events wait
    n_cells: int = 0
    n_tracks: int = 0
    stage_milliseconds: dict[str, float] = field(default_factory=dict)  # summed over the batch
    latencies: list[float] = field(default_factory=list)  # of events that were reconstructed, from their arrival [s]

    def add_answer(self, answer: Answer) -> None:
        """Count one request by its answer."""
        self.n_requests += 1
        if isinstance(answer, WithdrawnError):
            self.n_withdrawn += 1
        elif isinstance(answer, BusyError):
            self.n_busy += 1
        elif isinstance(answer, TracccError):
            self.n_refused += 1
        elif isinstance(answer, Exception):
            self.n_failed += 1

    def add(self, result: EventResult, n_tracks: int) -> None:
        """Count one reconstructed event."""
        self.n_cells += result.n_cells
        self.n_tracks += n_tracks
        for stage, milliseconds in result.stage_milliseconds.items():
            self.stage_milliseconds[stage] = self.stage_milliseconds.get(stage, 0.0) + milliseconds


class TrackingService:
    """The chain behind a model instance.

    Parameters
    ----------
    settings : ModelSettings
        Detector, configuration, limits.
    device : str
        "cpu" or "cuda:N".

    Raises
    ------
    TracccError
        If a setting can't be used.
    """

    def __init__(self, settings: ModelSettings, device: str) -> None:
        _set_environment(settings)
        self.settings = settings
        detector = settings.detector.load()
        self._athena_ids: AthenaIds | None = None
        self._memory: int | None = None  # for events [bytes]
        self._turns = _Turns()
        if settings.athena_map is not None:
            ids = read_athena_ids(settings.athena_map).for_detector(detector)
            self._athena_ids = replace(ids, name="the server's map")  # clients need not know its path
        config = read_config(settings.config)
        if settings.finder is not None:
            config = config.with_settings({"finder.method": settings.finder})
        self.chain = TrackingChain(detector, config, device=device, threads=settings.threads)
        self._chains = [self.chain]  # of the process

    def beside(self) -> TrackingService:
        """Return a service of the same detector and settings, ready, for another thread."""
        other = copy.copy(self)
        other.chain = self.chain.beside()
        self._chains.append(other.chain)
        return other

    def set_memory(self, memory: int) -> None:
        """Refuse events that need more memory than this [bytes] for certain, before any is asked for."""
        self._memory = memory

    def initialize(self) -> None:
        """Compile the kernels and run a first small event."""
        self.chain.initialize()
        self.chain.run(_warm_up_cells(self.chain), "the event that the service starts with")
        self.chain.limit_time(self.settings.event_seconds)

    def process(
        self,
        events: Sequence[DecodedEvent],
        report: BatchReport | None = None,
        why_withdrawn: Callable[[int], WithdrawnError | None] = lambda _: None,
    ) -> list[Answer]:
        """Reconstruct events as one batch.

        Parameters
        ----------
        events : sequence of DecodedEvent
            Events of any clients.
        report : BatchReport, optional
            Cells, tracks and times are added to it.
        why_withdrawn : callable, optional
            Says of an event, by its place, why it is not wanted any more; asked before parts of a batch are done again.

        Returns
        -------
        list of Answer
            One per event, in order; an error of one does not affect the others.
        """
        report = BatchReport() if report is None else report
        with self._turns.beside():
            outcomes = self._run({k: event.cells for k, event in enumerate(events)}, why_withdrawn) if events else {}
        for k, outcome in outcomes.items():
            if isinstance(outcome, MemoryError) and not isinstance(outcome, TracccError):
                outcomes[k] = self._run_alone(events[k].cells)
        return [
            outcome if isinstance(outcome, Exception) else self._encode(outcome, events[k], report)
            for k, outcome in sorted(outcomes.items())
        ]

    def decode(self, request: Request) -> DecodedEvent:
        """Return the event of a request.

        Raises
        ------
        WireError
            If tensors are missing or not understood, or the request is for another detector.
        InputDataError
            If an identifier is not in the map of the server.
        CapacityError
            If the event has more cells than allowed.
        """
        own = self.chain.detector.fingerprint
        if request.fingerprint is not None and request.fingerprint != own:
            msg = (
                f"the request is for a detector with fingerprint {request.fingerprint!r}; expected {own!r}, that of "
                f"this server's detector {self.chain.detector.name!r}"
            )
            raise WireError(msg)
        is_compact = wire.CELLS.name in request.tensors
        cells = (wire.unpack_compact_cells if is_compact else wire.unpack_cells)(request.tensors)
        if len(cells) > self.settings.max_cells:
            msg = f"the event has {len(cells)} cells; expected at most {self.settings.max_cells} (max_cells)"
            raise CapacityError(msg)
        needed = len(cells) * _LEAST_BYTES_PER_CELL
        if self._memory is not None and needed > self._memory:
            msg = (
                f"the event has {len(cells)} cells, which need {needed * 1e-6:.0f} MB of memory at least; expected at "
                f"most {self._memory * 1e-6:.0f} MB (memory_mb)"
            )
            raise CapacityError(msg)
        if self._athena_ids is not None:
            try:
                rows = np.cumsum(cells.n_cells) - cells.n_cells if isinstance(cells, ModuleCells) else None
                cells.geometry_id = self._athena_ids.to_detray(cells.geometry_id, rows)
            except InputDataError as error:
                msg = f"cells {error}"
                raise InputDataError(msg) from error
        return DecodedEvent(cells, request.outputs)

    def _run(
        self, group: Mapping[int, Cells | ModuleCells], why_withdrawn: Callable[[int], WithdrawnError | None]
    ) -> dict[int, EventResult | Exception]:
        """Reconstruct a group of events; if that fails, find out which of them are bad."""
        keys = list(group)
        try:
            return dict(zip(keys, self.chain.run_batch([group[k] for k in keys]), strict=True))
        except InputDataError as error:
            if len(keys) == 1:
                return {keys[0]: error}
            refused = {k: problem for k in keys if (problem := self._problem(group[k])) is not None}
            if refused:  # only then are cells checked twice
                rest = {k: group[k] for k in keys if k not in refused}
                return {**refused, **(self._run(rest, why_withdrawn) if rest else {})}
            return self._run_halves(group, why_withdrawn)
        except Exception as error:
            if len(keys) == 1:
                if not isinstance(error, (TracccError, MemoryError)):
                    _log.exception("an event of %d cells failed", len(group[keys[0]]))
                return {keys[0]: error}
            return self._run_halves(group, why_withdrawn)

    def _run_alone(self, cells: Cells | ModuleCells) -> EventResult | Exception:
        """Reconstruct an event with all of the memory; it is at fault only if that does not suffice."""
        with self._turns.alone():
            for chain in self._chains:
                chain.free_buffers()
            try:
                return self.chain.run_batch([cells])[0]
            except MemoryError as error:
                if isinstance(error, TracccError):
                    return error
                return CapacityError(
                    f"the event, which has {len(cells)} cells, needs more memory than this service has for one; is it "
                    "of noise, or are its cells in few modules?"
                )
            except Exception as error:
                _log.exception("an event of %d cells failed", len(cells))
                return error

    def _run_halves(
        self, group: Mapping[int, Cells | ModuleCells], why_withdrawn: Callable[[int], WithdrawnError | None]
    ) -> dict[int, EventResult | Exception]:
        outcomes: dict[int, EventResult | Exception] = {}
        keys = list(group)
        half = len(keys) // 2
        for part in (keys[:half], keys[half:]):
            reasons = {k: why_withdrawn(k) for k in part}
            outcomes |= {k: why for k, why in reasons.items() if why is not None}
            wanted = {k: group[k] for k in part if reasons[k] is None}
            outcomes |= self._run(wanted, why_withdrawn) if wanted else {}
        return outcomes

    def _problem(self, cells: Cells | ModuleCells) -> InputDataError | None:
        try:
            prepare_cells(cells, self.chain.detector)
        except InputDataError as error:
            return error
        return None

    def _encode(self, result: EventResult, event: DecodedEvent, report: BatchReport) -> Answer:
        try:
            is_kept = wire.kept_tracks(result)
            tensors = wire.pack_result(result, event.outputs, is_kept)
            if self._athena_ids is not None and wire.GEOMETRY_IDS.name in tensors:
                ids = tensors[wire.GEOMETRY_IDS.name].view(np.uint64)
                is_state = ids != wire.SEPARATOR
                ids[is_state] = self._athena_ids.to_athena(ids[is_state])
            report.add(result, int(np.count_nonzero(is_kept)))
        except Exception as error:
            _log.exception("the result of an event could not be packed")
            return error
        return tensors


def _set_environment(settings: ModelSettings) -> None:
    """Set environment variables that libraries read when they are imported."""
    if settings.cache_dir is not None:
        os.environ[CACHE_VARIABLE] = settings.cache_dir
    if settings.gpu_memory_mb is not None:
        os.environ["CUPY_GPU_MEMORY_LIMIT"] = str(settings.gpu_memory_mb * 1_000_000)


def _warm_up_cells(chain: TrackingChain) -> Cells:
    """Return one cell in each of the first modules."""
    ids = chain.detector.geometry_ids[:_WARM_UP_MODULES]
    n = len(ids)
    channel, time = np.zeros(n, np.int64), np.zeros(n, np.float32)
    return Cells(ids, channel, channel, np.full(n, _WARM_UP_ACTIVATION, np.float32), time, channel)
