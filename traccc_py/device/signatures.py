"""The payload types that kernels are launched with, found by running them on the CPU.

Kernels declare no types. To compile them for a GPU that is not there, the chain runs once on a device that takes notes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.types.containers import BaseTuple

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice, exercise_primitives
from traccc_py.device.kernel import Kernel
from traccc_py.device.workspace import Extent

__all__ = ["record_signatures"]


class _Recorder:
    """Remembers the payload types of every kernel launched; to be mixed in."""

    def __init__(self, seen: dict[str, dict[BaseTuple, None]]) -> None:
        super().__init__()
        self._seen = seen

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel` and remember its types; where there is nothing to run over it is not even compiled."""
        self._seen.setdefault(kernel.name, {})[numba.typeof(payload)] = None
        if self._size(extent) > 0:  # type: ignore[attr-defined]
            super().launch(kernel, extent, payload)  # type: ignore[misc]


class _RecordingDevice(_Recorder, CpuDevice):
    pass


class _RecordingDeferredDevice(_Recorder, DeferredDevice):
    pass


def record_signatures(run: Callable[[Any], object]) -> dict[str, tuple[BaseTuple, ...]]:
    """Return the payload types of all kernels that a function launches.

    Parameters
    ----------
    run : callable
        ``run(device)``, for example building a chain on `device` and reconstructing a small event.

    Returns
    -------
    dict of str to tuple of numba types
        Distinct payload types by kernel name; the kernels behind scans and sorts on CUDA are among them.
    """
    seen: dict[str, dict[BaseTuple, None]] = {}
    run(_RecordingDevice(seen))
    exercise_primitives(_RecordingDeferredDevice(seen))
    return {name: tuple(kinds) for name, kinds in seen.items()}
