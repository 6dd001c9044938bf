"""How a client reaches a server. Loads no NumPy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from traccc_py.settings import Choice, Count, Positive, Settings

__all__ = ["ConnectionSettings", "Tls"]


@dataclass(frozen=True, slots=True)
class Tls(Settings):
    """Encryption."""

    ca: Path | str | None = None  #: file with certificates of authorities (PEM); by default the system's
    certificate: Path | str | None = None  #: the client's own certificate (PEM), where the server asks for it
    key: Path | str | None = None  #: key of this certificate (PEM)

    def context(self) -> ssl.SSLContext:
        """Return a context for HTTP."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class ConnectionSettings(Settings):
    """How a client reaches a server."""

    url: str = "127.0.0.1:8001"  #: the server, host:port
    protocol: Annotated[str, Choice(("grpc", "http"))] = "grpc"  #: protocol
    #: compact tensors: 7 to 12 bytes a cell instead of 40, tracks without states; not for servers of traccc-aaS
    compact: bool = False
    timeout: Positive = 60.0  #: how long an event may take, repetitions included [s]
    #: how often an event is sent again when the server could not be reached or its instance died: that changes nothing
    #: there; what the server refused or did not do in time is not repeated
    retries: Count = 8
    #: memory shared with a server on this machine, through which tensors pass
    shared_memory: Annotated[str, Choice(("system", "cuda"))] | None = None
    cuda_device: Count = 0  #: GPU whose memory is shared
    headers: Mapping[str, str] = field(default_factory=dict)  #: further headers (gRPC: metadata), such as a token
    tls: Tls | None = None  #: encryption; by default none

    def _check_together(self) -> None:
        if "://" in self.url:
            self._reject("url", f"host:port, without {self.url.partition('://')[0]}://")
