"""Devices where the sizes of collections stay on the device, as on CUDA.

A host that does not know a size can't allocate for it. So launches cover the capacity, the size is read on the device,
and a sum that outgrows the buffers of its collection sets the size to 0 and says what was needed:
`Workspace.overflowed` reads that at the end of the batch. `DeferredDevice` does the same on the CPU, to test drivers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import Kernel
from traccc_py.device.scan import WORK_SPACE, launch_scan
from traccc_py.device.workspace import Extent, ScanColumn, Workspace

__all__ = ["DeferredDevice", "DeferredSizes", "exercise_primitives"]


class DeferredSizes:
    """The part of a device's interface that deals with sizes on the device; to be mixed in."""

    sizes_are_on_host = False
    _work: Any = None  # space of scans

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel`; provided by the device."""
        raise NotImplementedError

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an array of zeros; provided by the device."""
        raise NotImplementedError

    def exclusive_scan(self, extent: Extent, columns: tuple[ScanColumn, ...]) -> None:
        """Write the running sums of up to three columns and their totals, as `Workspace.scan_together` says."""
        if self._work is None:
            self._work = self.zeros(WORK_SPACE, np.int64)
        launch_scan(self, extent, columns, self._work)


class DeferredDevice(DeferredSizes, CpuDevice):
    """A CPU device that treats sizes as CUDA does: for tests of drivers, with every speed of the CPU.

    Parameters
    ----------
    threads : int, optional
        As for `CpuDevice`.
    """

    name = "cpu-deferred"
    launch = CpuDevice.launch
    zeros = CpuDevice.zeros

    def fetch(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return copies of the arrays."""
        return tuple(array.copy() for array in arrays)

    @staticmethod
    def _size(extent: Extent | int) -> int:
        return extent if isinstance(extent, int) else min(CpuDevice._size(extent), extent.capacity)


def exercise_primitives(device: Any) -> None:
    """Launch the kernels behind scans and groups once, for the record of signatures."""
    workspace = Workspace(device)
    rows, grouped = workspace.extent("rows"), workspace.extent("grouped")
    workspace.set_sizes(rows=1)
    key = device.zeros(rows.capacity, np.int32)
    group_rows(workspace, "groups", key, rows, workspace.fixed("keys", 1), grouped)
