"""TCP ports of the server."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import NamedTuple

from traccc_py.errors import ServiceError

__all__ = ["Ports", "check_port", "free_port"]

_LISTEN = "0A"  # state of a socket in /proc/net/tcp
_LONGEST_COMMAND = 100


class Ports(NamedTuple):
    """TCP ports."""

    http: int
    grpc: int
    metrics: int


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def free_port(address: str) -> int:
    """Return a port that nothing listens on."""
    with socket.socket(_family(address)) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def check_port(address: str, name: str, port: int) -> None:
    """Raise if the server can't listen on a port; `name` is what the port is for.

    Raises
    ------
    ServiceError
        If so.
    """
    with socket.socket(_family(address)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            owner = _listener(port)
            by = f", by {owner}" if owner else ""
            msg = (
                f"{name} port {port} of {address} can't be used ({error.strerror}{by}); choose another or stop what "
                "uses it"
            )
            raise ServiceError(msg) from error


def _listener(port: int) -> str | None:
    """Return process id and command of who listens on a port, None if that can't be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_sockets(port)}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # another user's, or it ended
            if any(str(link.readlink()) in sockets for link in (entry / "fd").iterdir()):
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
                return f"process {entry.name}: {' '.join(words)[:_LONGEST_COMMAND].strip()}"
    return None


def _listening_sockets(port: int) -> set[str]:
    """Return the inodes of sockets that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state, inode = fields[1], fields[3], fields[9]
                if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                    found.add(inode)
    return found
