"""Settings of a client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traccc_py import wire
from traccc_py.client.settings import ConnectionSettings
from traccc_py.edm import Cells
from traccc_py.edm.checks import check_cell_columns
from traccc_py.errors import ConfigError

__all__ = ["FIRST_PAUSE", "LAST_PAUSE", "ClientOptions"]

FIRST_PAUSE = 0.1  #: [s] before an event is sent again, doubled each time ...
LAST_PAUSE = 2.0  #: [s] ... up to this

_STANDARD = tuple(spec.name for spec in (*wire.STANDARD_OUTPUTS, wire.STAGE_TIMES))
_COMPACT = (*wire.TRACK_TENSORS, wire.STAGE_TIMES.name)


@dataclass(frozen=True, slots=True)
class ClientOptions(ConnectionSettings):
    """How a client reaches a server, and what it asks for."""

    #: names of the tensors wanted (`traccc_py.wire.OUTPUTS`), TRK_PARAMS always comes; by default all standard ones, or
    #: those of tracks if `compact`
    outputs: Sequence[str] | None = None
    fingerprint: str | None = None  #: `Detector.fingerprint`: the server refuses events if its detector is another one

    def _check_together(self) -> None:
        ConnectionSettings._check_together(self)
        for name in self.outputs or ():
            if name not in self._known_outputs:
                msg = f"has {name!r}; expected some of {', '.join(self._known_outputs)}"
                raise ConfigError(msg, field=self.path_of("outputs"), value=self.outputs)

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
        InputDataError
            If columns differ in length or have the wrong type.
        WireError
            If a channel does not fit into the compact tensor.
        """
        check_cell_columns(cells)
        pack = wire.pack_compact_cells if self.compact else wire.pack_cells
        return pack(cells, allocate)
