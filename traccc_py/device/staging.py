"""Input of batches on its way to the device: two buffers, so that the next batch is copied while this one is run."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.current = 0  #: the buffer that was sent last

    def begin(self, n: int) -> dict[str, np.ndarray]:
        """Return host memory for `n` rows of each column, in the buffer that was not sent last.

        What uses its device columns must be over: the batch before the last one. Nothing happens to them before `send`.
        """
        return {name: host[:n] for name, (host, _) in self._with_room(n, self._next).items()}

    def send(self, n: int) -> dict[str, Any]:
        """Start to copy the first `n` rows that were written since `begin`.

        Returns
        -------
        dict of str to device array
            The columns, with room for at least their rows. What uses them comes after `Device.join_uploads`.
        """
        self.current = self._next
        columns = self._columns[self.current]
        for host, on_device in columns.values():
            self._device.upload_ahead(host[:n], on_device)
        return {name: on_device for name, (_, on_device) in columns.items()}

    @property
    def _next(self) -> int:
        return (self.current + 1) % _N_BUFFERS

    def _with_room(self, n: int, buffer: int) -> dict[str, tuple[np.ndarray, Any]]:
        if not self._columns[buffer] or n > self._capacity[buffer]:
            capacity = self._capacity[buffer] = int(n * _GROWTH) + 16
            self._columns[buffer] = {}  # free what is replaced first
            self._device.forget()
            self._device.join_uploads()
            self._device.synchronize()  # else the copies might come before the end of what had the memory
            self._columns[buffer] = {
                name: self._device.staging(capacity, dtype) for name, dtype in self._dtypes.items()
            }
        return self._columns[buffer]
