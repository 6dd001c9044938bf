"""The reconstruction chain: cells, measurements or spacepoints of events in, fitted tracks out."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterable, Iterator, Sequence

from traccc_py.config import ChainConfig
from traccc_py.data.source import Source
from traccc_py.data.words import counted
from traccc_py.derivation import derive
from traccc_py.device import get_device
from traccc_py.device.base import Device
from traccc_py.edm import EventResult
from traccc_py.edm.html import fact_table
from traccc_py.errors import TracccError
from traccc_py.geometry import Detector, build_detector
from traccc_py.pipeline.prepare import Event
from traccc_py.pipeline.schedule import BatchSchedule

__all__ = ["TrackingChain"]


class TrackingChain:
    """Reconstruct tracks from cells, measurements or spacepoints.

    Parameters
    ----------
    detector : Detector or str
        The detector, or the name of a built-in one.
    config : ChainConfig, optional
        Configuration of the stages; what it leaves open is derived from the detector, see `derive`.
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
    A chain keeps its buffers from event to event and is used by one thread at a time, else it raises `TracccError`: use
    one chain per thread.

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
        device: str | Device = "auto",
        threads: int | None = None,
    ) -> None:
        self.detector = build_detector(detector) if isinstance(detector, str) else detector
        self.config, self.derived = derive(config or ChainConfig(), self.detector)
        self.device = get_device(device, threads=threads) if isinstance(device, str) else device
        self._schedule = BatchSchedule(self.device, self.detector, self.config)
        self._user = threading.RLock()  # held by the thread that uses the buffers

    def __repr__(self) -> str:
        """Return detector, device and field."""
        return f"TrackingChain({self.detector!r}, {self._device_name()})"

    def _repr_html_(self) -> str:
        """Return detector, device and the settings that differ from the detector's own, for notebooks."""
        own = derive(ChainConfig(), self.detector)[0].to_dict()
        changed = {
            f"{section}.{name}": value
            for section, values in self.config.to_dict().items()
            for name, value in values.items()
            if value != own[section][name]
        }
        facts = {"detector": repr(self.detector), "device": self._device_name()}
        return fact_table("TrackingChain", facts | (changed or {"settings": "those of the detector"}))

    def _device_name(self) -> str:
        threads = getattr(self.device, "threads", None)
        return self.device.name if threads is None else f"{self.device.name}, {counted(threads, 'thread')}"

    def initialize(self) -> None:
        """Put the detector into device memory and compile all kernels, by running an event without cells.

        Called by the first `run`; a service calls it before it takes requests.
        """
        with self._in_use():
            self._schedule.initialize()

    def beside(self) -> TrackingChain:
        """Return a chain of the same detector and settings, initialised, for another thread.

        On a CPU both share the detector's arrays, which are only read, and the second takes no time to initialise.

        Returns
        -------
        TrackingChain
            With buffers and CPU threads of its own.
        """
        other = copy.copy(self)
        other.device = get_device(self.device.name, threads=getattr(self.device, "threads", None))
        other._user = threading.RLock()
        if other.device.sizes_are_on_host:
            with self._in_use():
                other._schedule = self._schedule.beside(other.device)
        else:
            other._schedule = BatchSchedule(other.device, self.detector, self.config)
            other.initialize()
        return other

    def free_buffers(self) -> None:
        """Give back the memory that is kept for events to come, which have to ask for it again."""
        with self._in_use():
            self._schedule.workspace.reset()

    def limit_time(self, seconds: float | None) -> None:
        """Give batches up from now on that take longer, with a `CapacityError`; those of before had to load kernels.

        Parameters
        ----------
        seconds : float or None
            How long all events of a batch may take, looked at after each stage [s]. Without effect on a GPU, which is
            not waited for.
        """
        self._schedule.time_limit = seconds

    def run(self, event: Event, source: Source | str | None = None) -> EventResult:
        """Reconstruct one event.

        Parameters
        ----------
        event : Cells, ModuleCells, Measurements, (Measurements, Spacepoints) or (Measurements, Spacepoints, Candidates)
            What the chain starts with; rows in any order.
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
        events : sequence of Cells, ModuleCells, Measurements, (Measurements, Spacepoints) or the same with Candidates
            What the chain starts with, for each event. Measurements are used as they are: positions, variances, ids.
            Spacepoints are global positions and the rows of their measurements; candidates, of any finder, are lists of
            spacepoints, and tracks are followed from each.
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
        TracccError
            If another thread uses the chain.
        """
        with self._in_use():
            return next(self._schedule.run([(events, sources)]))

    def run_batches(self, batches: Iterable[Sequence[Event]]) -> Iterator[list[EventResult]]:
        """Reconstruct batches in turn; on a GPU the next one's cells are prepared and copied while one is processed.

        Parameters
        ----------
        batches : iterable of sequence of Cells, ModuleCells, Measurements, (Measurements, Spacepoints) or with more
            Events of each batch. A batch is requested before the results of the previous one are yielded.

        Yields
        ------
        list of EventResult
            Results of each batch, as `run_batch` returns them, in order.

        Raises
        ------
        InputDataError
            If a row is not on the detector or has an impossible value, or an event is of another type.
        TracccError
            If the chain was given other events before the last results were yielded, or another thread uses it.
        """
        results = self._schedule.run((events, None) for events in batches)
        while True:
            with self._in_use():
                result = next(results, None)
            if result is None:
                return
            yield result

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        if not self._user.acquire(blocking=False):
            msg = "the chain is being used by another thread, and its buffers are for one; use one chain per thread"
            raise TracccError(msg)
        try:
            yield
        finally:
            self._user.release()
