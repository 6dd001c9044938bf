"""A service at the end of a slow line: a network namespace of this machine, with delay and rate by `tc`.

Where the kernel has no `netem`, `tbf` limits the rate, and a relay delays what clients send and get.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from traccc_py.backend.ports import free_port
from traccc_py.errors import ServiceError

__all__ = ["SlowLine", "slow_line"]

# Of the block for benchmarks between networks (RFC 2544): never in use elsewhere.
_HERE, _THERE, _MASK = "198.18.71.1", "198.18.71.2", 30
_UNLIMITED = 100_000.0  #: [Mbit/s], more than the line can
_START_SECONDS = 10


class SlowLine:
    """A line to a namespace; `slow_line` makes it."""

    def __init__(self, name: str) -> None:
        self.address = _THERE  #: of what runs there
        self.prefix = ("ip", "netns", "exec", name)  #: words before a command that is to run there
        self.has_netem = True

    @property
    def means(self) -> str:
        """What makes it slow."""
        return "netem" if self.has_netem else "tbf and a relay"

    @contextlib.contextmanager
    def slowed(self, port: int, delay_ms: float, megabits: float | None) -> Iterator[str]:
        """Give the address of a port of the namespace while the line is slow.

        Parameters
        ----------
        port : int
            The port.
        delay_ms : float
            Of a round trip, half of it each way [ms].
        megabits : float or None
            Rate of each direction [Mbit/s]; None: unlimited.
        """
        self.has_netem = self.has_netem and self._set_netem(delay_ms, megabits)
        if self.has_netem:
            yield f"{self.address}:{port}"
            return
        for place, device in self._ends():
            rate = _UNLIMITED if megabits is None else megabits
            limits = ["tbf", "rate", f"{rate:g}mbit", "burst", "512kb", "latency", "400ms"]
            _run(*place, "tc", "qdisc", "replace", "dev", device, "root", *limits)
        if not delay_ms:
            yield f"{self.address}:{port}"
            return
        with _relay(self.address, port, delay_ms / 2) as url:
            yield url

    def _ends(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        return ((), "traccc0"), (self.prefix, "traccc1")

    def _set_netem(self, delay_ms: float, megabits: float | None) -> bool:
        rate = [] if megabits is None else ["rate", f"{megabits:g}mbit"]
        for place, device in self._ends():
            words = ["tc", "qdisc", "replace", "dev", device, "root", "netem", "limit", "100000"]
            try:
                _run(*place, *words, "delay", f"{delay_ms / 2:g}ms", *rate)
            except ServiceError as error:
                if "kind is unknown" in str(error):
                    return False
                raise
        return True


@contextlib.contextmanager
def _relay(address: str, port: int, delay_ms: float) -> Iterator[str]:
    import socket
    import time

    listen = free_port("127.0.0.1")
    words = [sys.executable, "-m", "traccc_py.studies.relay", str(listen), address, str(port), f"{delay_ms:g}"]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listen), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                msg = "the relay that delays connections does not start"
                raise ServiceError(msg)
            time.sleep(0.1)
        yield f"127.0.0.1:{listen}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def slow_line() -> Iterator[SlowLine]:
    """Give a line to a network namespace, and remove both at the end.

    Raises
    ------
    ServiceError
        If there is no `ip` or `tc`, or this user may not make namespaces.
    """
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        msg = f"{' and '.join(missing)} can't be found; install iproute2 (apt-get install iproute2)"
        raise ServiceError(msg)
    if os.geteuid() != 0:
        msg = "a network namespace needs root; run the study as root, such as in a container of its own"
        raise ServiceError(msg)
    name = f"traccc-study-{os.getpid()}"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", "traccc0", "type", "veth", "peer", "name", "traccc1", "netns", name)
        _run("ip", "address", "add", f"{_HERE}/{_MASK}", "dev", "traccc0")
        _run("ip", "link", "set", "traccc0", "up")
        line = SlowLine(name)
        _run(*line.prefix, "ip", "address", "add", f"{_THERE}/{_MASK}", "dev", "traccc1")
        for device in ("traccc1", "lo"):
            _run(*line.prefix, "ip", "link", "set", device, "up")
        yield line
    finally:
        for words in (("ip", "link", "delete", "traccc0"), ("ip", "netns", "delete", name)):
            subprocess.run(words, capture_output=True, check=False)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{' '.join(words)} failed: {done.stderr.strip()}"
        raise ServiceError(msg)
