"""How a client reaches a server. Loads no NumPy."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from traccc_py.errors import ConfigError
from traccc_py.settings import Choice, Count, Positive, Settings

__all__ = ["ConnectionSettings", "Tls"]

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^\[\]:/,\s]+):([0-9]{1,5})")
_LAST_PORT = 65_535
_SOCKETS = ("unix:", "unix-abstract:", "vsock:")  # of gRPC: addresses without a TCP port
_RESOLVED = ("dns:", "ipv4:", "ipv6:")  # of gRPC: in front of addresses
# Names of headers, by protocol. gRPC refuses others without a word which one it is.
_HEADER_NAMES = {"grpc": re.compile(r"[0-9a-z_.-]+"), "http": re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")}
_LETTERS = {"grpc": "small letters", "http": "letters"}


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
        if not _is_target(self.url, self.protocol):
            # Without a port gRPC would go to 443 and HTTP to 80, and from a larger one both would take the lowest bits.
            self._reject("url", f"host:port with a port from 1 to {_LAST_PORT}, such as 127.0.0.1:8001 or [::1]:8001")
        self._check_headers()

    def _check_headers(self) -> None:
        """Check names; values, which may be secrets, are in no error."""
        for name in self.headers:
            if not _HEADER_NAMES[self.protocol].fullmatch(name):
                msg = f"has the name {name!r}; expected {_LETTERS[self.protocol]}, digits, -, _ and . alone"
                raise ConfigError(msg, field=self.path_of("headers"))


def _is_target(url: str, protocol: str) -> bool:
    """Return whether a client would go where `url` says."""
    if protocol == "http":
        return _is_address(url.partition("/")[0])  # a path may follow: a proxy's
    if url.startswith(_SOCKETS) or _is_address(url):
        return True
    scheme = next((scheme for scheme in _RESOLVED if url.startswith(scheme)), None)
    return scheme is not None and all(map(_is_address, url.removeprefix(scheme).split(",")))


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and 1 <= int(found[2]) <= _LAST_PORT
