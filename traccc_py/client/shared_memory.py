"""Memory shared with a server on the same machine: a region for the tensors of an event, reused for every event."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from collections.abc import Callable, Mapping
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from traccc_py import wire
from traccc_py.client.requests import make_input
from traccc_py.errors import DeviceUnavailableError, ServiceError

__all__ = ["CudaRegion", "SystemRegion"]

_SPECS = {spec.name: spec for spec in wire.OUTPUTS}
_GROWTH = 1.25
_OUTPUT_GROWTH = 4  # each attempt is a reconstruction
_ALIGNMENT = 64
# Room for outputs, in rows per cell. Each state has a measurement of at least one cell, and few are shared; a track has
# at least three states. If something does not fit, the region grows.
_SPARE_ROWS = 256
_ROWS_PER_CELL = {"track": 0.4, "state": 1.0}
_MORE_ROWS = 1.4


def _aligned(n: int) -> int:
    return -(-n // _ALIGNMENT) * _ALIGNMENT


class SystemRegion:
    """A region of system shared memory, registered with a server.

    Parameters
    ----------
    client : object
        tritonclient's client.
    headers : mapping of str to str
        Headers of requests.
    """

    has_outputs = True

    def __init__(self, client: Any, headers: Mapping[str, str]) -> None:
        self._client = client
        self._headers = dict(headers)
        self._memory: SharedMemory | None = None
        self._rows_factor = 1.0
        self._places: dict[str, tuple[int, int]] = {}  # of outputs: offset, bytes

    @property
    def _name(self) -> str:
        assert self._memory is not None
        return self._memory.name

    def put(
        self, module: Any, pack: Callable[[wire.Allocate], dict[str, np.ndarray]], n_cells: int, names: tuple[str, ...]
    ) -> tuple[list, list]:
        """Pack an event with this number of cells into the region.

        Returns
        -------
        tuple of list and list
            tritonclient's inputs and outputs that refer to the region.
        """
        rooms = {name: self._room(name, n_cells) for name in names}
        places: dict[str, tuple[int, int]] = {}

        def allocate(rows: Mapping[wire.TensorSpec, int]) -> dict[str, np.ndarray]:
            end = 0
            for name, size in (*((spec.name, spec.n_bytes(n)) for spec, n in rows.items()), *rooms.items()):
                places[name] = (end, size)
                end += _aligned(size)
            self._reserve(end)
            return {spec.name: self._view(spec, (n, *spec.dims[1:]), places[spec.name][0]) for spec, n in rows.items()}

        tensors = pack(allocate)  # views must not outlive this call, else the region could not be closed
        self._places = {name: places[name] for name in rooms}
        inputs = [make_input(module, name, values) for name, values in tensors.items()]
        for one, (name, values) in zip(inputs, tensors.items(), strict=True):
            if values.size:
                one.set_shared_memory(self._name, values.nbytes, places[name][0])
            else:
                one.set_data_from_numpy(values)
        outputs = [module.InferRequestedOutput(name) for name in names]
        for one, (offset, size) in zip(outputs, self._places.values(), strict=True):
            one.set_shared_memory(self._name, size, offset)
        return inputs, outputs

    def _view(self, spec: wire.TensorSpec, shape: tuple[int, ...], offset: int) -> np.ndarray:
        assert self._memory is not None
        return np.ndarray(shape, spec.dtype, self._memory.buf, offset)

    def get(self, answer: Any, name: str) -> np.ndarray:
        """Return a copy of an output tensor."""
        return self._view(_SPECS[name], tuple(_shape(answer.get_output(name))), self._places[name][0]).copy()

    def enlarge_outputs(self) -> None:
        """Make more room for outputs in later events."""
        self._rows_factor *= _OUTPUT_GROWTH

    def register_again(self) -> None:
        """Register the region with a server that was restarted."""
        if self._memory is not None:
            self._register()

    def close(self) -> None:
        """Free the memory."""
        if self._memory is None:
            return
        with contextlib.suppress(Exception):  # the server is gone; the memory is freed all the same
            self._client.unregister_system_shared_memory(self._name, headers=self._headers)
        self._memory.close()
        self._memory.unlink()
        self._memory = None

    def _room(self, name: str, n_cells: int) -> int:
        spec = _SPECS[name]
        rows = sum(per_cell for what, per_cell in _ROWS_PER_CELL.items() if spec.rows.startswith(what))
        if spec is wire.GEOMETRY_IDS:
            rows = _MORE_ROWS  # including separators
        return spec.n_bytes(int((n_cells * rows + _SPARE_ROWS) * self._rows_factor))

    def _reserve(self, size: int) -> None:
        if self._memory is not None and self._memory.size >= size:
            return
        self.close()
        self._memory = SharedMemory(f"traccc_py_{uuid.uuid4().hex}", create=True, size=int(size * _GROWTH))
        self._register()

    def _register(self) -> None:
        assert self._memory is not None
        self._client.register_system_shared_memory(
            self._name, f"/{self._name}", self._memory.size, headers=self._headers
        )


class CudaRegion:
    """A region of GPU memory for input tensors, registered with a server; outputs are sent in the answer.

    Parameters
    ----------
    client : object
        tritonclient's client.
    headers : mapping of str to str
        Headers of requests.
    device : int
        GPU.

    Raises
    ------
    DeviceUnavailableError
        If there is no GPU, or a package is missing.
    """

    has_outputs = False

    def __init__(self, client: Any, headers: Mapping[str, str], device: int) -> None:
        try:
            self._cuda = importlib.import_module("tritonclient.utils.cuda_shared_memory")
        except Exception as error:
            msg = f'CUDA shared memory can\'t be used ({error}); it needs a GPU and pip install "tritonclient[cuda]"'
            raise DeviceUnavailableError(msg) from error
        self._client = client
        self._headers = dict(headers)
        self._device = device
        self._handle: Any = None
        self._name, self._size = "", 0

    def put(
        self, module: Any, pack: Callable[[wire.Allocate], dict[str, np.ndarray]], n_cells: int, names: tuple[str, ...]
    ) -> tuple[list, list]:
        """Pack an event and copy its tensors into the region; as `SystemRegion.put`."""
        tensors = pack(wire.new_tensors)
        self._reserve(sum(_aligned(t.nbytes) for t in tensors.values()))
        inputs, offset = [], 0
        for name, values in tensors.items():
            inputs.append(make_input(module, name, values))
            if values.size:
                self._cuda.set_shared_memory_region(self._handle, [values], offset)
                inputs[-1].set_shared_memory(self._name, values.nbytes, offset)
            else:
                inputs[-1].set_data_from_numpy(values)
            offset += _aligned(values.nbytes)
        return inputs, [module.InferRequestedOutput(name) for name in names]

    def get(self, answer: Any, name: str) -> np.ndarray:
        """Return an output tensor."""
        return np.asarray(answer.as_numpy(name))

    def enlarge_outputs(self) -> None:
        """Do nothing: outputs are not in the region."""

    def register_again(self) -> None:
        """Register the region with a server that was restarted."""
        if self._handle is not None:
            self._register()

    def close(self) -> None:
        """Free the memory."""
        if self._handle is None:
            return
        with contextlib.suppress(Exception):  # the server is gone; the memory is freed all the same
            self._client.unregister_cuda_shared_memory(self._name, headers=self._headers)
        self._cuda.destroy_shared_memory_region(self._handle)
        self._handle = None

    def _reserve(self, size: int) -> None:
        if self._handle is not None and self._size >= size:
            return
        self.close()
        self._name, self._size = f"traccc_py_{uuid.uuid4().hex}", max(_ALIGNMENT, int(size * _GROWTH))
        try:
            self._handle = self._cuda.create_shared_memory_region(self._name, self._size, self._device)
        except Exception as error:
            msg = f"{self._size} bytes of GPU {self._device} can't be shared: {error}"
            raise DeviceUnavailableError(msg) from error
        self._register()

    def _register(self) -> None:
        self._client.register_cuda_shared_memory(
            self._name, self._cuda.get_raw_handle(self._handle), self._device, self._size, headers=self._headers
        )


def _shape(output: Any) -> Any:
    if output is None:
        msg = "the server left out an output that was asked for"
        raise ServiceError(msg)
    return output["shape"] if isinstance(output, dict) else output.shape
