"""Settings of a client."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from traccc_py import wire
from traccc_py.edm import Cells
from traccc_py.errors import ConfigError

__all__ = ["FIRST_PAUSE", "LAST_PAUSE", "ClientOptions", "Tls"]

FIRST_PAUSE = 0.1  #: [s] before an event is sent again, doubled each time ...
LAST_PAUSE = 2.0  #: [s] ... up to this

_STANDARD = tuple(spec.name for spec in (*wire.STANDARD_OUTPUTS, wire.STAGE_TIMES))
_COMPACT = (*wire.TRACK_TENSORS, wire.STAGE_TIMES.name)


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption.

    Parameters
    ----------
    ca : path, optional
        File with the certificates of authorities (PEM); by default the system's.
    certificate, key : path, optional
        The client's own certificate and key (PEM), where the server asks for them.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context for HTTP."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client talks to a server.

    Parameters
    ----------
    url : str, optional
        ``host:port``, without ``http://``.
    protocol : str, optional
        "grpc" or "http".
    compact : bool, optional
        Send 7 to 12 bytes a cell instead of 40, and get tracks without their states unless `outputs` names those. The
        server must be one of this package; that of traccc-aaS has the standard tensors alone.
    outputs : sequence of str, optional
        Names of the tensors wanted (`traccc_py.wire.OUTPUTS`); TRK_PARAMS always comes. By default all standard ones,
        or those of tracks if `compact`.
    timeout : float, optional
        How long an event may take, repetitions included [s].
    retries : int, optional
        How often an event is sent again when the server could not be reached or its model instance died [1]. That is
        safe: a request changes nothing on the server. What the server refused or did not do in time is not repeated.
    shared_memory : str, optional
        "system" or "cuda": pass tensors through memory shared with a server on this machine.
    cuda_device : int, optional
        GPU whose memory is shared.
    headers : mapping of str to str, optional
        Further headers (gRPC: metadata), such as a token.
    tls : Tls, optional
        Encryption; by default none.
    fingerprint : str, optional
        `Detector.fingerprint`: the server refuses events if its detector is another one.
    """

    url: str = "127.0.0.1:8001"
    protocol: str = "grpc"
    compact: bool = False
    outputs: Sequence[str] | None = None
    timeout: float = 60.0
    retries: int = 5
    shared_memory: str | None = None
    cuda_device: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("protocol", ("grpc", "http")), ("shared_memory", (None, "system", "cuda"))):
            if getattr(self, name) not in allowed:
                msg = f"{name} is {getattr(self, name)!r}; expected {' or '.join(map(repr, allowed))}"
                raise ConfigError(msg)
        if "://" in self.url:
            msg = f"url is {self.url!r}; expected host:port, without {self.url.partition('://')[0]}://"
            raise ConfigError(msg)
        for name, least in (("timeout", 0), ("retries", -1)):
            if not getattr(self, name) > least:
                msg = f"{name} is {getattr(self, name)}; expected more than {least}"
                raise ConfigError(msg)
        for name in self.outputs or ():
            if name not in self._known_outputs:
                msg = f"outputs has {name!r}; expected some of {', '.join(self._known_outputs)}"
                raise ConfigError(msg)

    @property
    def model(self) -> str:
        """Name of the model on the server."""
        return wire.COMPACT_MODEL if self.compact else wire.MODEL

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensors wanted."""
        default = _COMPACT if self.compact else _STANDARD
        return default if self.outputs is None else tuple(dict.fromkeys((wire.TRK_PARAMS.name, *self.outputs)))

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of each request."""
        found = {} if self.fingerprint is None else {wire.FINGERPRINT_PARAMETER: self.fingerprint}
        if set(self.output_names) < set(self._known_outputs):
            found[wire.OUTPUTS_PARAMETER] = ",".join(self.output_names)
        return found

    @property
    def _known_outputs(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in wire.OUTPUTS) if self.compact else _STANDARD

    def pack(self, cells: Cells, allocate: wire.Allocate = wire.new_tensors) -> dict[str, np.ndarray]:
        """Return the input tensors of an event, in memory that `allocate` gives.

        Raises
        ------
        WireError
            If a channel does not fit into the compact tensor.
        """
        pack = wire.pack_compact_cells if self.compact else wire.pack_cells
        return pack(cells, allocate)
