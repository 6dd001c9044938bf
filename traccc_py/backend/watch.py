"""Watchdog of a server: Triton does not restart a model instance that dies, and its health check stays green.

It does not answer what such an instance has taken either. So the whole server is restarted: its clients see at once
that their requests are lost, and that it is not ready until it is again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from traccc_py.errors import ServiceError, TracccError
from traccc_py.settings import Positive, Settings

__all__ = ["WatchOptions", "Watchdog", "WatchedServer"]

_log = logging.getLogger(__name__)

_LONGEST_EVENT = 600.0  # [s]; a test inference waits for a batch of others
_MOST_DOUBLINGS = 30  # of pauses
_AT_ONCE = 2  # attempts to recover without a pause before
_LEAST_CPU_SECONDS = 0.05  # that count as progress: an instance that waits uses less in half a minute


class WatchedServer(Protocol):
    """What the watchdog needs of a server."""

    def start(self) -> None:
        """Start the process."""

    def wait_until_ready(self, timeout: float, is_stopping: Callable[[], bool]) -> None:
        """Wait for it."""

    def is_running(self) -> bool:
        """Return whether the process is running."""

    def exit_code(self) -> int | None:
        """Return its exit code."""

    def probe(self, timeout: float) -> str | None:
        """Return what is wrong with an answer; raise TimeoutError if none comes."""

    def wait_for_an_end(self, instances: Collection[int], seconds: float) -> None:
        """Wait until the process or one of some instances has ended, or for so long [s]."""

    def instance_processes(self) -> set[int]:
        """Return the live instances."""

    def cpu_seconds(self, pid: int) -> float:
        """Return the processor time that an instance has used."""

    def forget_dead_clients(self) -> int:
        """Release shared memory of clients that were killed; return how many regions."""

    def record(self, restarts: int) -> None:
        """Set the count that the metrics show from the next start on."""

    def kill(self) -> None:
        """Kill the process and its instances."""


@dataclass(frozen=True, slots=True)
class WatchOptions(Settings):
    """How a server is watched."""

    period: float = 0.5  #: time between looks at the processes [s]; the end of one is seen at once
    probe_period: float = 1.0  #: time between inferences that test the server [s]
    #: how long an instance may use no processor time while an inference that tests the server waits, before it counts
    #: as hanging [s]; one that works is busy, however long it takes
    hang_timeout: Positive = 30.0
    #: how long all inferences that test the server must be answered with errors before it is restarted [s]: one that
    #: has much to do may answer one so
    error_timeout: float = 2.0
    cleaning_period: float = 5.0  #: time between looks for shared memory of clients that were killed [s]
    load_timeout: Positive = 300.0  #: how long instances may take to start [s]
    #: pause before a third attempt to recover [s], doubled with each; the second follows the first at once
    first_backoff: float = 1.0
    last_backoff: float = 60.0  #: its largest value [s]


class _Probe:
    """Test inferences, one at a time, in a thread: a busy server may take long to answer."""

    def __init__(self, probe: Callable[[float], str | None], timeout: float) -> None:
        self._probe, self._timeout = probe, timeout
        self._pool = ThreadPoolExecutor(1, "traccc_py-probe")
        self._running: Future[str | None] | None = None
        self._since = time.monotonic()

    def seconds_without_answer(self) -> float:
        """Return for how long the present one waits [s], 0 if there is none."""
        return 0.0 if self._running is None else time.monotonic() - self._since

    def start(self) -> None:
        """Start one, if none waits."""
        if self._running is None:
            self._running, self._since = self._pool.submit(self._probe, self._timeout), time.monotonic()

    def answer(self) -> tuple[bool, str | None]:
        """Return whether an answer came, and what is wrong with it."""
        if self._running is None or not self._running.done():
            return False, None
        done, self._running = self._running, None
        try:
            return True, done.result()
        except TimeoutError:
            return True, f"no answer within {self._timeout:.0f} s"

    def forget(self) -> None:
        """Do not wait for the present one any more."""
        self._running = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = ThreadPoolExecutor(1, "traccc_py-probe")


class Watchdog:
    """Watches one server, and recovers it, until `stop` is called.

    The server is restarted if an instance's process has ended, if it answers test inferences with errors, or if it
    hangs: if it uses no processor time while a test inference waits for it. That an answer takes long only means that
    it is busy.

    Parameters
    ----------
    server : WatchedServer
        A server that is ready.
    options : WatchOptions, optional
        How it is watched.
    is_active : bool, optional
        False: only wait, until the server ends or `stop` is called.
    """

    def __init__(self, server: WatchedServer, options: WatchOptions | None = None, *, is_active: bool = True) -> None:
        self._server = server
        self._is_active = is_active
        self._options = options or WatchOptions()
        self._instances = server.instance_processes()
        self._stop = threading.Event()
        self._next_probe = self._next_cleaning = 0.0
        self._probe = _Probe(server.probe, _LONGEST_EVENT)
        self._bad_since: float | None = None  # time of the first of the bad answers in a row
        self._n_attempts = 0  # to recover since the last good answer
        self._progress: dict[int, tuple[float, float]] = {}  # of instances: processor time, and when it last grew
        self.problem: str | None = None  #: what is being recovered from; None while all is well
        self.n_restarts = 0  # server processes restarted

    def run(self) -> None:
        """Watch and recover until `stop` is called.

        Raises
        ------
        ServiceError
            If the server exits and recovery is off.
        """
        while not self._stop.is_set():
            self._server.wait_for_an_end(self._instances if self._is_active else (), self._options.period)
            if self._stop.is_set():
                return
            if not self._is_active:
                self._raise_if_ended()
                continue
            self.problem = self.look()
            if self.problem is not None:
                self._recover(self.problem)
                self.problem = None

    def stop(self) -> None:
        """Make `run` return; may be called from signal handlers and other threads."""
        self._stop.set()

    def _raise_if_ended(self) -> None:
        if not self._server.is_running():
            msg = f"the server ended with code {self._server.exit_code()}"
            raise ServiceError(msg)

    def look(self) -> str | None:
        """Return what is wrong, or None."""
        if not self._server.is_running():
            return f"the server ended with code {self._server.exit_code()}"
        living = self._server.instance_processes()
        dead = self._instances - living
        if dead:
            return f"model instances ended: processes {', '.join(map(str, sorted(dead)))}"
        hanging = self._hanging(living & self._instances)
        if hanging:
            return f"model instances hang: processes {', '.join(map(str, sorted(hanging)))}"
        self._clean()
        return self._wrong_answer()

    def _clean(self) -> None:
        if time.monotonic() < self._next_cleaning:
            return
        self._next_cleaning = time.monotonic() + self._options.cleaning_period
        n_regions = self._server.forget_dead_clients()
        if n_regions:
            _log.info("released %d regions of shared memory of clients that have ended", n_regions)

    def _wrong_answer(self) -> str | None:
        """Return what is wrong with test inferences, if it is so for a while."""
        now = time.monotonic()
        has_come, problem = self._probe.answer()
        if has_come:
            self._next_probe = now + self._options.probe_period
            if problem is None:
                self._n_attempts, self._bad_since = 0, None
            elif self._bad_since is None:
                self._bad_since = now
            elif now - self._bad_since >= self._options.error_timeout:
                return problem
        if now >= self._next_probe:
            self._probe.start()
        return None

    def _hanging(self, pids: set[int]) -> set[int]:
        """Return the instances without progress, if a test inference has waited for so long."""
        now = time.monotonic()
        for pid in pids:
            used = self._server.cpu_seconds(pid)
            before, _ = self._progress.get(pid, (-_LEAST_CPU_SECONDS, now))
            if used >= before + _LEAST_CPU_SECONDS or pid not in self._progress:
                self._progress[pid] = used, now
        self._progress = {pid: self._progress[pid] for pid in pids}
        if self._probe.seconds_without_answer() < self._options.hang_timeout:
            return set()
        stalled = {pid for pid in pids if now - self._progress[pid][1] >= self._options.hang_timeout}
        if stalled:
            self._probe.forget()
            self._progress.clear()
        return stalled

    def _recover(self, problem: str) -> None:
        """Restart the server until it is ready; whether its answers are good is seen later, as at any other time."""
        begin = time.monotonic()
        self._probe.forget()
        while not self._stop.wait(self._backoff()):
            self._n_attempts += 1
            _log.error("%s; the server is restarted", problem)
            try:
                self._restart()
            except TracccError as error:
                problem = str(error)
                continue
            self._instances = self._server.instance_processes()
            self._progress.clear()
            self._next_probe, self._bad_since = 0.0, None
            seconds = time.monotonic() - begin
            _log.warning("the service answers again after %.1f s (%d restarts so far)", seconds, self.n_restarts)
            return

    def _backoff(self) -> float:
        """Return how long to wait before the next attempt [s]."""
        n_pauses = self._n_attempts - _AT_ONCE
        if n_pauses < 0:
            return 0.0
        return min(self._options.first_backoff * 2.0 ** min(n_pauses, _MOST_DOUBLINGS), self._options.last_backoff)

    def _restart(self) -> None:
        self.n_restarts += 1
        self._server.kill()
        self._server.record(self.n_restarts)
        self._server.start()
        self._server.wait_until_ready(self._options.load_timeout, self._stop.is_set)
