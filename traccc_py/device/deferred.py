"""Scans and sorts where the sizes of collections stay on the device, as on CUDA.

A host that does not know a size can't allocate for it. So operations cover the capacity, the size is read on the
device, and a sum that outgrows the buffers of its collection sets the size to 0 and says what was needed:
`Workspace.overflowed` reads that at the end of the batch. `DeferredDevice` does the same on the CPU, to test drivers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.cpu import CpuDevice
from traccc_py.device.kernel import Kernel, kernel
from traccc_py.device.workspace import COUNT, NEEDED, WRAPPED, Extent, Workspace

__all__ = ["DeferredDevice", "DeferredSizes", "exercise_primitives"]

_NO_SLOT = -1  # the size is known on the host
_INT32_MAX = np.iinfo(np.int32).max


class _CloseScan(NamedTuple):
    slot: Any  # int32, size that was summed over; -1: it is `capacity`
    capacity: Any  # int32, rows that were summed over
    total_slot: Any  # int32, size that receives the sum
    total_capacity: Any  # int32, rows its buffers have room for
    out_offsets: Any  # (capacity + 1,) int32; [1:] holds the inclusive sums
    out_sizes: Any  # (3, MAX_EXTENTS) int32


@kernel()
def _close_scan(i: Any, p: Any) -> None:
    """Put a scan's total in its place, or 0 if there is no room for it; marks sums that don't fit in 32 bits."""
    n = p.capacity
    if p.slot >= 0:
        n = min(n, p.out_sizes[COUNT, p.slot])
    if i < n and p.out_offsets[i + 1] < 0:
        p.out_sizes[WRAPPED, p.total_slot] = 1
        p.out_offsets[i + 1] = _INT32_MAX  # beyond every buffer: no fill kernel writes there
    if i == 0:
        p.out_offsets[0] = 0
        total = p.out_offsets[n]
        p.out_sizes[NEEDED, p.total_slot] = total
        p.out_sizes[COUNT, p.total_slot] = total if 0 <= total <= p.total_capacity else 0


class _PadKeys(NamedTuple):
    keys: Any  # (capacity,) integer
    largest: Any  # same type as the keys
    slot: Any  # int32, as above
    sizes: Any  # (3, MAX_EXTENTS) int32
    out_keys: Any  # (capacity,) same type


@kernel()
def _pad_keys(i: Any, p: Any) -> None:
    """Copy the keys in use and fill up with the largest one, so that a sort leaves the rest at the end."""
    in_use = p.slot < 0 or i < p.sizes[COUNT, p.slot]
    p.out_keys[i] = p.keys[i] if in_use else p.largest


class DeferredSizes:
    """The part of a device's interface that deals with sizes on the device; to be mixed in."""

    sizes_are_on_host = False

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel`; provided by the device."""
        raise NotImplementedError

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array; provided by the device."""
        raise NotImplementedError

    def inclusive_scan(self, values: Any, out: Any) -> None:
        """Write the running sums of `values` to `out`; provided by the device."""
        raise NotImplementedError

    def stable_order(self, keys: Any, out: Any) -> None:
        """Write the stable ascending order of all `keys` to `out`; provided by the device."""
        raise NotImplementedError

    def exclusive_scan(self, values: Any, extent: Extent | int, offsets: Any, total: Extent) -> None:
        """Write the running sums of ``values[:n]``, from 0, to ``offsets[:n + 1]`` and their end to `total`.

        A sum beyond the capacity of `total` sets its size to 0; what it needs is kept for `Workspace.overflowed`.
        """
        slot, capacity = _slot_and_capacity(extent)
        if capacity > 0:
            self.inclusive_scan(values[:capacity], offsets[1 : capacity + 1])
        summed, receiving = (np.int32(slot), np.int32(capacity)), (np.int32(total.slot), np.int32(total.capacity))
        self.launch(_close_scan, max(1, capacity), _CloseScan(*summed, *receiving, offsets, total.sizes))

    def argsort(self, keys: Any, extent: Extent, order: Any) -> None:
        """Write the stable ascending order of ``keys[:n]`` to ``order[:n]``; the rest of `order` has no meaning."""
        slot, capacity = _slot_and_capacity(extent)
        if capacity == 0:
            return
        largest = keys.dtype.type(np.iinfo(keys.dtype).max)
        padded = self.empty(capacity, keys.dtype)
        self.launch(_pad_keys, capacity, _PadKeys(keys[:capacity], largest, np.int32(slot), extent.sizes, padded))
        self.stable_order(padded, order[:capacity])


def _slot_and_capacity(extent: Extent | int) -> tuple[int, int]:
    return (_NO_SLOT, extent) if isinstance(extent, int) else (extent.slot, extent.capacity)


class DeferredDevice(DeferredSizes, CpuDevice):
    """A CPU device that treats sizes as CUDA does: for tests of drivers, with every speed of the CPU.

    Parameters
    ----------
    threads : int, optional
        As for `CpuDevice`.
    """

    name = "cpu-deferred"
    launch = CpuDevice.launch
    empty = CpuDevice.empty

    def inclusive_scan(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write the running sums of `values` to `out`, modulo 2^32."""
        np.cumsum(values, dtype=out.dtype, out=out)

    def stable_order(self, keys: np.ndarray, out: np.ndarray) -> None:
        """Write the stable ascending order of `keys` to `out`."""
        out[:] = np.argsort(keys, kind="stable")

    @staticmethod
    def _size(extent: Extent | int) -> int:
        return extent if isinstance(extent, int) else min(int(extent.counts[extent.slot]), extent.capacity)


def exercise_primitives(device: Any) -> None:
    """Launch every kernel of this file once, for the record of signatures."""
    workspace = Workspace(device)
    rows, total = workspace.extent("rows"), workspace.extent("total")
    workspace.set_size(rows, 1)
    workspace.scan(device.zeros(rows.capacity, np.int32), rows, device.zeros(rows.capacity + 1, np.int32), total)
    workspace.argsort(device.zeros(rows.capacity, np.int64), rows, device.zeros(rows.capacity, np.int32))
