"""Events that wait for reconstruction at a model instance: limits, order, batches.

Triton hands over every request at once, and the queue is here, where the sizes of events are known. Small events pass
large ones: each kind has a worker of its own, or, where there is one for both, batches of small and of large events
take turns, so an event of either kind waits for at most one batch of the other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from traccc_py.backend.service import Answer, BusyError, DecodedEvent, WithdrawnError
from traccc_py.backend.settings import QueueSettings

__all__ = ["EventQueue", "Job"]

_SMALL_SHARE = 0.1  # of a batch's cells: events up to it are small


@dataclass(slots=True)
class Job:
    """An event that waits, and what to do with its answer."""

    event: DecodedEvent
    answer: Callable[[Answer], None]  #: must not raise
    is_cancelled: Callable[[], bool] = lambda: False  #: asks the server, which takes a moment
    timeout: float | None = None  #: how long its sender waits [s]
    arrived: float = field(default_factory=time.monotonic)

    @property
    def n_cells(self) -> int:
        """Number of cells [1]."""
        return len(self.event.cells)

    def why_withdrawn(self) -> WithdrawnError | None:
        """Return why nobody waits for the answer any more, None if somebody does."""
        waited = time.monotonic() - self.arrived
        if self.timeout is not None and waited > self.timeout:
            return WithdrawnError(f"the event waited for {waited:.1f} s; its sender allows {self.timeout:g} s")
        return WithdrawnError("the request was cancelled") if self.is_cancelled() else None


class EventQueue:
    """The events that wait. Any thread may put; one takes, or one each takes small and large ones.

    Parameters
    ----------
    settings : QueueSettings
        Limits of batches and of the queue.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._batch_cells = settings.batch_cells
        self._small: deque[Job] = deque()
        self._large: deque[Job] = deque()
        self._n_cells = 0
        self._is_turn_of_large = False
        self._is_closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    def limit_batches(self, n_cells: int) -> None:
        """Let batches have no more cells than this: there is no memory for more."""
        self._batch_cells = min(self._batch_cells, n_cells)

    @property
    def n_cells(self) -> int:
        """Number of cells that wait [1]."""
        return self._n_cells

    def put(self, job: Job) -> None:
        """Let an event wait.

        Raises
        ------
        BusyError
            If there is no room. Events without cells, such as those of monitors, always find some.
        """
        settings, n = self._settings, job.n_cells
        with self._changed:
            if self._is_closed:
                msg = "the model instance ends; send the event again"
                raise BusyError(msg)
            if n and self._n_cells and self._n_cells + n > settings.queue_cells:
                msg = (
                    f"the service is busy: {self._n_cells} cells wait, expected at most {settings.queue_cells} "
                    f"(queue_cells) with the event's {n}; send it again later"
                )
                raise BusyError(msg)
            if n and len(self) >= settings.queue_events:
                msg = (
                    f"the service is busy: {len(self)} events wait, expected at most {settings.queue_events} "
                    "(queue_events); send the event again later"
                )
                raise BusyError(msg)
            self._waiting_with(n).append(job)
            self._n_cells += n
            self._changed.notify_all()

    def take(self, kind: str | None = None) -> list[Job]:
        """Wait for events; return the next batch, which is empty when the queue is closed and no event is left.

        Parameters
        ----------
        kind : str, optional
            "small" or "large": events of the other kind are left to another thread.
        """
        waiting = {"small": [self._small], "large": [self._large], None: [self._small, self._large]}[kind]
        with self._changed:
            while not any(waiting):
                if self._is_closed:
                    return []
                self._changed.wait()
        if self._settings.queue_delay_us and not self._is_closed:
            time.sleep(self._settings.queue_delay_us * 1e-6)  # others may join
        with self._changed:
            if kind is None:
                is_large = bool(self._large) and (self._is_turn_of_large or not self._small)
                self._is_turn_of_large = not is_large
                return self._next_batch(self._large if is_large else self._small)
            return self._next_batch(waiting[0])

    def close(self) -> None:
        """Take no further events; those that wait are still given out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _waiting_with(self, n_cells: int) -> deque[Job]:
        return self._small if n_cells <= _SMALL_SHARE * self._settings.batch_cells else self._large

    def _next_batch(self, waiting: deque[Job]) -> list[Job]:
        room = self._batch_cells
        batch: list[Job] = []
        while waiting and len(batch) < self._settings.max_batch and (not batch or waiting[0].n_cells <= room):
            job = waiting.popleft()
            batch.append(job)
            room -= job.n_cells
            self._n_cells -= job.n_cells
        return batch
