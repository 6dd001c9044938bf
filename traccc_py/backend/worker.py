"""The threads of a model instance that reconstruct events, one batch after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from traccc_py.backend.queue import EventQueue, Job
from traccc_py.backend.service import Answer, BatchReport, TrackingService

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_PATIENCE = 0.05  # [s]: whether a request was cancelled is asked, which takes 0.1 ms, for those that waited longer


class Worker:
    """Takes batches from a queue until it is closed.

    Parameters
    ----------
    make_service : callable
        Returns the service, ready; called in the thread, because a GPU's context belongs to the one that made it.
    queue : EventQueue
        Where events wait.
    on_batch : callable
        Called after each batch with its report and the seconds it took.
    kind : str, optional
        "small" or "large": of such events alone.
    """

    def __init__(
        self,
        make_service: Callable[[], TrackingService],
        queue: EventQueue,
        on_batch: Callable[[BatchReport, float], None],
        kind: str | None = None,
    ) -> None:
        self._make_service, self._queue, self._on_batch, self._kind = make_service, queue, on_batch, kind
        self._service: TrackingService | None = None
        self._failure: Exception | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traccc_py-worker", daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> TrackingService:
        """Return the service when it is ready; raise what went wrong with it."""
        self._is_ready.wait()
        if self._failure is not None:
            raise self._failure
        assert self._service is not None
        return self._service

    def close(self) -> None:
        """Answer the events that wait, then end."""
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._service = self._make_service()
        except Exception as error:
            self._failure = error
            return
        finally:
            self._is_ready.set()
        while batch := self._queue.take(self._kind):
            self._work(self._service, batch)

    def _work(self, service: TrackingService, batch: Sequence[Job]) -> None:
        begin = time.monotonic()
        wanted, report = [], BatchReport()
        for job in batch:
            why = job.why_withdrawn() if begin - job.arrived > _PATIENCE or job.timeout is not None else None
            if why is None:
                wanted.append(job)
            else:
                report.add_answer(why)
                job.answer(why)
        try:
            answers: list[Answer] = service.process(
                [job.event for job in wanted], report, lambda k: wanted[k].why_withdrawn()
            )
        except Exception as error:  # none is expected, and no request may be left without an answer
            _log.exception("a batch of %d events failed", len(wanted))
            answers = [error] * len(wanted)
        for job, answer in zip(wanted, answers, strict=True):
            report.add_answer(answer)
            job.answer(answer)
            if not isinstance(answer, Exception):
                report.latencies.append(time.monotonic() - job.arrived)
        self._on_batch(report, time.monotonic() - begin)
