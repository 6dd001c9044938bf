"""TCP ports of the server."""

from __future__ import annotations

import socket
from typing import NamedTuple

from traccc_py.errors import ServiceError

__all__ = ["Ports", "check_port", "free_port"]


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
            msg = (
                f"{name} port {port} of {address} can't be used ({error.strerror}); choose another or stop what uses it"
            )
            raise ServiceError(msg) from error
