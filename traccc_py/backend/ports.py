"""TCP ports of the server."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

from traccc_py.errors import ServiceError

__all__ = ["PortClaim", "Ports", "check_port", "free_port", "free_ports", "wait_for_port"]

_LISTEN = "0A"  # state of a socket in /proc/net/tcp
_LONGEST_COMMAND = 100
_CREDENTIALS = struct.Struct("3i")  # of who listens on a Unix socket: process, user, group
_POLL = 0.05  # [s]


class Ports(NamedTuple):
    """TCP ports."""

    http: int
    grpc: int
    metrics: int


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def free_port(address: str) -> int:
    """Return a port that nothing listens on."""
    return free_ports(address, 1)[0]


def free_ports(address: str, n: int) -> list[int]:
    """Return n different ports that nothing listens on."""
    with contextlib.ExitStack() as probes:
        made = [probes.enter_context(socket.socket(_family(address))) for _ in range(n)]
        for probe in made:
            probe.bind((address, 0))
        return [int(probe.getsockname()[1]) for probe in made]


def check_port(address: str, name: str, port: int) -> None:
    """Raise if the server can't listen on a port, or it is another service's; `name` is what the port is for.

    Raises
    ------
    ServiceError
        If so.
    """
    _bind(address, name, port).close()
    owner = _claimant(address, port)
    if owner is not None:
        raise _in_use(address, name, port, f"claimed by {owner}")


def wait_for_port(address: str, name: str, port: int, seconds: float) -> None:
    """Wait until the server can listen on a port that is claimed for it; it may be just being let go.

    Raises
    ------
    ServiceError
        If it can't after so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            _bind(address, name, port).close()
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)
        else:
            return


class PortClaim:
    """A port kept for one service until it is closed, also while no server listens on it.

    A socket that is bound and does not listen keeps the system from giving the port to others, be it for one end of a
    connection; the server, which shares addresses, can listen beside it. A name tells other services.

    Parameters
    ----------
    address : str
        Where the server listens.
    name : str
        What the port is for, for errors.
    port : int
        0: one that is free.

    Raises
    ------
    ServiceError
        If it is in use.
    """

    def __init__(self, address: str, name: str, port: int) -> None:
        if port:
            check_port(address, name, port)
        self._bound = _bind(address, name, port)
        self.port = int(self._bound.getsockname()[1])
        self._named = socket.socket(socket.AF_UNIX)
        try:
            self._named.bind(_claim(address, self.port))
        except OSError as error:
            self.close()
            raise _in_use(address, name, self.port, str(error.strerror)) from error
        self._named.listen()

    def close(self) -> None:
        """Let it go."""
        self._bound.close()
        self._named.close()


def _bind(address: str, name: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port; raise if that is in use."""
    bound = socket.socket(_family(address))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        owner = _listener(port)
        why = f"{error.strerror}, by {owner}" if owner else f"{error.strerror}{_connections(port)}"
        raise _in_use(address, name, port, why) from error
    return bound


def _in_use(address: str, name: str, port: int, why: str) -> ServiceError:
    msg = f"{name} port {port} of {address} can't be used ({why}); choose another or stop what uses it"
    return ServiceError(msg)


def _claim(address: str, port: int) -> str:
    """Return the name of a claim: one without a file, of the same network namespace as the port."""
    return f"\0traccc_py-port-{address}-{port}"


def _claimant(address: str, port: int) -> str | None:
    """Return process id and command of the service that claims a port, None if there is none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_POLL)
        try:
            probe.connect(_claim(address, port))
        except ConnectionRefusedError:
            return None
        except OSError:  # too many ask at once
            return "another service"
        pid, _, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return _describe(pid)


def _describe(pid: int) -> str:
    words = ""
    with contextlib.suppress(OSError):  # it ended
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return f"process {pid}: {words[:_LONGEST_COMMAND].strip()}"


def _listener(port: int) -> str | None:
    """Return process id and command of who listens on a port, None if that can't be seen."""
    sockets = {f"socket:[{inode}]" for state, inode in _sockets(port) if state == _LISTEN}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # another user's, or it ended
            if any(str(link.readlink()) in sockets for link in (entry / "fd").iterdir()):
                return _describe(int(entry.name))
    return None


def _connections(port: int) -> str:
    """Return the states of sockets at a port as the kernel numbers them, for an error."""
    states = sorted({state for state, _ in _sockets(port)})
    return f"; sockets there are in states {', '.join(states)} of /proc/net/tcp" if states else ""


def _sockets(port: int) -> list[tuple[str, str]]:
    """Return states and inodes of sockets with a local port."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state, inode = fields[1], fields[3], fields[9]
                if int(local.rpartition(":")[2], 16) == port:
                    found.append((state, inode))
    return found
