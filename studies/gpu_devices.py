"""Timers of kernels for `gpu.py`: CUDA events around each launch, or the host's clock; memory; the rate of a copy."""

from __future__ import annotations

import resource
import time
from typing import Any

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cuda.launch import BindingsDriver
from traccc_py.device.cuda.layout import leaves

__all__ = ["GpuTimer", "HostTimer", "copy_bandwidth", "memory_in_use"]

_COPY_BYTES = 1 << 30
_COPIES = 10


def _payload_bytes(payload: Any) -> int:
    return sum(
        {id(leaf): leaf.size * leaf.dtype.itemsize for leaf in leaves(payload) if hasattr(leaf, "size")}.values()
    )


class _Timer:
    """What both timers share: times and the sizes of payloads by kernel, between `begin` and `end`."""

    def __init__(self) -> None:
        self.payload_bytes: dict[str, int] = {}
        self.is_on = False

    def begin(self) -> None:
        """Start to take times."""
        self.payload_bytes.clear()
        self.is_on = True

    def note(self, name: str, payload: Any) -> None:
        """Add the size of a payload."""
        if self.is_on:
            self.payload_bytes[name] = self.payload_bytes.get(name, 0) + _payload_bytes(payload)


class HostTimer(_Timer):
    """Times launches on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, list[float]] = {}
        timer = self

        class Device(CpuDevice):
            def launch(self, kernel: Any, extent: Any, payload: Any) -> None:
                begin = time.perf_counter()
                super().launch(kernel, extent, payload)
                if timer.is_on:
                    timer._times.setdefault(kernel.name, []).append(1e3 * (time.perf_counter() - begin))
                    timer.note(kernel.name, payload)

        self.device = Device()

    def end(self) -> dict[str, list[float]]:
        """Return the time of each launch by kernel [ms]."""
        found, self._times, self.is_on = self._times, {}, False
        return found


class GpuTimer(_Timer):
    """The CUDA driver with an event before and after each launch while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self._driver = BindingsDriver()
        self._events: list[tuple[str, Any, Any]] = []
        self._stream: Any = None

    def watch(self, device: Any) -> None:
        """Take the payloads of a device's launches into account."""
        self._stream = device.stream
        launch = device.launch

        def noting(kernel: Any, extent: Any, payload: Any) -> None:
            self.note(kernel.name, payload)
            launch(kernel, extent, payload)

        device.launch = noting

    def load(self, compiled: Any) -> Any:
        """Load machine code; the handle knows its name."""
        return compiled.name, self._driver.load(compiled)

    def launch(self, function: Any, blocks: int, threads: int, stream: int, parameters: int) -> None:
        """Start a function."""
        name, handle = function
        if not self.is_on:
            self._driver.launch(handle, blocks, threads, stream, parameters)
            return
        import cupy

        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        before.record(self._stream)
        self._driver.launch(handle, blocks, threads, stream, parameters)
        after.record(self._stream)
        self._events.append((name, before, after))

    def end(self) -> dict[str, list[float]]:
        """Wait, and return the time of each launch by kernel [ms]."""
        import cupy

        self._stream.synchronize()
        self.is_on = False
        found: dict[str, list[float]] = {}
        for name, before, after in self._events:
            found.setdefault(name, []).append(cupy.cuda.get_elapsed_time(before, after))
        self._events.clear()
        return found


def memory_in_use(device: Any) -> int:
    """Return the memory a device's pool has taken [bytes]; on the CPU, the most that the process has had."""
    if device.name == "cpu":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(device._pool.total_bytes())


def copy_bandwidth(device: Any) -> float | None:
    """Return the rate at which the GPU copies within its memory, read and written counted [GB/s]."""
    if device.name == "cpu":
        return None
    import cupy

    with device._current():
        a, b = (cupy.zeros(_COPY_BYTES, cupy.uint8) for _ in range(2))
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        for k in range(_COPIES + 1):
            if k == 1:  # the first one warms up
                before.record(device.stream)
            b.data.copy_from_device_async(a.data, _COPY_BYTES, device.stream)
        after.record(device.stream)
        after.synchronize()
    return round(2 * _COPIES * _COPY_BYTES / cupy.cuda.get_elapsed_time(before, after) / 1e6, 1)
