"""Watchdog of a server: Triton does not restart a model instance that dies, and its health check stays green."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from traccc_py.errors import ServiceError, TracccError
from traccc_py.settings import Positive, Settings

__all__ = ["WatchOptions", "Watchdog", "WatchedServer"]

_log = logging.getLogger(__name__)


class WatchedServer(Protocol):
    """What the watchdog needs of a server."""

    def start(self) -> None:
        """Start the process."""

    def wait_until_ready(self, timeout: float) -> None:
        """Wait for it."""

    def is_running(self) -> bool:
        """Return whether the process is running."""

    def exit_code(self) -> int | None:
        """Return its exit code."""

    def probe(self, timeout: float) -> str | None:
        """Return what is wrong with an answer."""

    def instance_processes(self) -> set[int]:
        """Return the live instances."""

    def record(self, reloads: int, restarts: int) -> None:
        """Set the counts that the metrics show from the next load on."""

    def reload(self, timeout: float) -> None:
        """Replace the instances."""

    def stop(self) -> None:
        """Stop the process."""


@dataclass(frozen=True, slots=True)
class WatchOptions(Settings):
    """How a server is watched."""

    period: float = 0.5  #: time between looks at the processes [s]
    probe_period: float = 1.0  #: time between inferences that test the server [s]
    probe_timeout: float = (
        30.0  #: an instance that does not answer for so long hangs [s]; requests queue before the probe
    )
    #: how long new instances may take to start in a running server, before it is started again [s]
    reload_timeout: float = 60.0
    load_timeout: Positive = 300.0  #: how long instances may take to start [s]
    first_backoff: float = 1.0  #: pause before a second attempt to recover [s], doubled with each
    last_backoff: float = 60.0  #: its largest value [s]


class Watchdog:
    """Watches one server, and recovers it, until `stop` is called.

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
        self._next_probe = 0.0
        self.n_reloads = 0  # instances replaced
        self.n_restarts = 0  # server processes restarted

    def run(self) -> None:
        """Watch and recover until `stop` is called.

        Raises
        ------
        ServiceError
            If the server exits and recovery is off.
        """
        while not self._stop.wait(self._options.period):
            if not self._is_active:
                self._raise_if_ended()
                continue
            problem = self.look()
            if problem is not None:
                self._recover(problem)

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
        dead = self._instances - self._server.instance_processes()
        if dead:
            return f"model instances ended: processes {', '.join(map(str, sorted(dead)))}"
        if time.monotonic() < self._next_probe:
            return None
        problem = self._server.probe(self._options.probe_timeout)
        self._next_probe = time.monotonic() + self._options.probe_period
        return problem

    def _recover(self, problem: str) -> None:
        backoff, must_restart = self._options.first_backoff, False
        while not self._stop.is_set():
            begin, old = time.monotonic(), self._server.instance_processes()
            _log.error("%s", problem)
            try:
                self._repair(must_restart=must_restart)
                answer = self._server.probe(self._options.probe_timeout)
            except TracccError as error:
                answer = str(error)
            if answer is None:
                self._instances = self._server.instance_processes() - old  # old ones exit when they have finished
                _log.warning(
                    "the service answers again after %.1f s (%d reloads, %d restarts so far)",
                    time.monotonic() - begin,
                    self.n_reloads,
                    self.n_restarts,
                )
                return
            problem, must_restart = answer, True  # a restart may help where a reload does not
            self._stop.wait(backoff)
            backoff = min(2 * backoff, self._options.last_backoff)

    def _repair(self, *, must_restart: bool) -> None:
        if self._server.is_running() and not must_restart:
            self.n_reloads += 1
            self._server.record(self.n_reloads, self.n_restarts)
            self._server.reload(self._options.reload_timeout)
            return
        self.n_restarts += 1
        self._server.stop()
        self._server.record(self.n_reloads, self.n_restarts)
        self._server.start()
        self._server.wait_until_ready(self._options.load_timeout)
