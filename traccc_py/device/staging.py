"""Input of batches on its way to the device: two buffers, so that the next batch is copied while this one is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["InputBuffers"]

_N_BUFFERS = 2
_GROWTH = 1.25


class InputBuffers:
    """Columns of equal length, in pinned host memory and on the device, twice.

    Parameters
    ----------
    device : Device
        Where they go.
    dtypes : mapping of str to data-type
        Columns.
    """

    def __init__(self, device: Any, dtypes: Mapping[str, Any]) -> None:
        self._device = device
        self._dtypes = dict(dtypes)
        self._columns: list[dict[str, tuple[np.ndarray, Any]]] = [{} for _ in range(_N_BUFFERS)]
        self._capacity = [0] * _N_BUFFERS
        self.current = 0  #: the buffer that was filled last

    def fill(self, parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
        """Put the pieces of each column one after the other and start to copy them to the device.

        Parameters
        ----------
        parts : mapping of str to sequence of ndarray
            Pieces of each column; the same lengths for all.

        Returns
        -------
        dict of str to device array
            The columns, with room for at least their rows. What uses them comes after `Device.join_uploads`, and is
            over before the second call from now.
        """
        self.current = (self.current + 1) % _N_BUFFERS
        n = max(sum(len(piece) for piece in pieces) for pieces in parts.values())
        columns = self._with_room(n)
        for name, pieces in parts.items():
            host, on_device = columns[name]
            np.concatenate(pieces, out=host[:n], casting="same_kind")
            self._device.upload_ahead(host[:n], on_device)
        return {name: on_device for name, (_, on_device) in columns.items()}

    def _with_room(self, n: int) -> dict[str, tuple[np.ndarray, Any]]:
        buffer = self.current
        if not self._columns[buffer] or n > self._capacity[buffer]:
            capacity = self._capacity[buffer] = int(n * _GROWTH) + 16
            self._columns[buffer] = {}  # free what is replaced first
            self._device.forget()
            self._device.synchronize()  # else the copies might come before the end of what had the memory
            self._columns[buffer] = {
                name: (self._device.pinned(capacity, dtype), self._device.empty(capacity, dtype))
                for name, dtype in self._dtypes.items()
            }
        return self._columns[buffer]
