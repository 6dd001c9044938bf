"""Buffers of the chain and the sizes that stages tell each other.

Sizes live in one device array of counts. On the CPU a driver can look at them at once and buffers grow as needed; on
CUDA the launches cover the capacity, kernels read the size on the device, and an overflow is found at the end of the
batch, where the buffers grow and the batch is redone. Nothing is ever cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import CapacityError

__all__ = ["COUNT", "NEEDED", "WRAPPED", "Extent", "ScanColumn", "Workspace"]

MAX_EXTENTS = 64
COUNT, NEEDED, WRAPPED = range(3)  #: rows of the record of sizes: in use, asked for, more than 32 bits can say
_FIXED = -1  # slot of sizes that the host knows and no kernel changes
_GROWTH = 1.25  # spare room, so that events of like size do not reallocate


@dataclass(slots=True)
class Extent:
    """The size of one collection.

    Parameters
    ----------
    name : str
        Name of the collection.
    counts : array of shape (MAX_EXTENTS,), int32
        Device array of all sizes.
    slot : int
        Where this size stands in `counts`; -1: it is always the capacity.
    capacity : int
        Number of rows its buffers have room for [1].
    sizes : array of shape (3, MAX_EXTENTS), int32
        The whole record of sizes, of which `counts` is the first row.
    """

    name: str
    counts: Any
    slot: int
    capacity: int = 0
    sizes: Any = None


class ScanColumn(NamedTuple):
    """A column of counts, where its running sums go, and the collection that receives the total."""

    values: Any  # (capacity,) int32
    offsets: Any  # (capacity + 1,) int32
    total: Extent
    rows: Any = None  # (total.capacity,) int32, receives the rows whose count is 1; where sizes stay on the device


@dataclass(slots=True)
class _Store:
    """What a workspace and its scopes share."""

    sizes: Any  # (3, MAX_EXTENTS) int32, on the device
    sizes_read: np.ndarray | None = None  # a host copy, good until the next operation
    extents: dict[str, Extent] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    generation: int = 0


class Workspace:
    """Named device arrays that are kept from event to event and grow when they must.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        self._store = _Store(device.zeros((3, MAX_EXTENTS), np.int32))
        self.counts = self._store.sizes[COUNT]
        self._prefix = ""
        self._shared: frozenset[str] = frozenset()

    @property
    def generation(self) -> int:
        """A number that grows when a buffer or the room of a collection does."""
        return self._store.generation

    def scope(self, name: str, shared: Iterable[str]) -> Workspace:
        """Return this workspace under other names, for stages that run a second time in a batch.

        Parameters
        ----------
        name : str
            Put before the names of its extents and arrays.
        shared : iterable of str
            Extents that are the same in both.
        """
        other = copy(self)
        other._prefix, other._shared = f"{self._prefix}{name}.", frozenset(shared)
        return other

    def _name(self, name: str) -> str:
        return name if name in self._shared else self._prefix + name

    def extent(self, name: str) -> Extent:
        """Return the extent called `name`; it is made, with size 0, on first use."""
        name = self._name(name)
        found = self._store.extents.get(name)
        if found is None:
            if len(self._store.extents) == MAX_EXTENTS:
                msg = f"no slot is left for extent {name!r}; raise MAX_EXTENTS ({MAX_EXTENTS})"
                raise ValueError(msg)
            found = self._store.extents[name] = Extent(
                name, self.counts, len(self._store.extents), 0, self._store.sizes
            )
        return found

    def fixed(self, name: str, n: int) -> Extent:
        """Return an extent of `n` rows that the host knows and no kernel changes; it takes no place in the record."""
        if not 0 <= n <= np.iinfo(np.int32).max:
            msg = f"{n} {name} in one batch; at most {np.iinfo(np.int32).max} are possible: use smaller batches"
            raise CapacityError(msg)
        return Extent(name, self.counts, _FIXED, n, self._store.sizes)

    def set_size(self, extent: Extent, n: int) -> None:
        """Set a size that the host knows, and make room for it."""
        self._set({extent.slot: (extent, n)})

    def set_sizes(self, **sizes: int) -> None:
        """Set sizes that the host knows, by the names of the extents, and make room; one copy if made one by one."""
        extents = [(self.extent(name), n) for name, n in sizes.items()]
        self._set({extent.slot: (extent, n) for extent, n in extents})

    def _set(self, sizes: dict[int, tuple[Extent, int]]) -> None:
        self._store.sizes_read = None
        first = min(sizes)
        if len(sizes) == max(sizes) - first + 1:
            together = np.array([sizes[slot][1] for slot in sorted(sizes)], np.int32)
            self.device.upload(together, self.counts[first : first + len(sizes)])
        else:
            for slot, (_, n) in sizes.items():
                self.device.upload(np.array([n], np.int32), self.counts[slot : slot + 1])
        for extent, n in sizes.values():
            self._make_room(extent, n)

    def reserve(self, extent: Extent, n: int) -> None:
        """Make room for at least `n` rows: a good guess saves a redone batch where sizes stay on the device."""
        if n > extent.capacity:
            extent.capacity = n
            self._store.generation += 1

    def array(self, name: str, extent: Extent, dtype: Any, *columns: int, extra: int = 0) -> Any:
        """Return the array called `name` with at least ``extent.capacity + extra`` rows; contents are undefined.

        Parameters
        ----------
        name : str
            Unique name of the array.
        extent : Extent
            Collection whose rows it holds.
        dtype : data-type
            Element type.
        *columns : int
            Further dimensions.
        extra : int, optional
            Rows beyond the capacity, such as the end of an offsets array.
        """
        rows = max(1, extent.capacity + extra)
        name = self._prefix + name
        found = self._store.arrays.get(name)
        if found is None or found.shape[0] < rows or found.shape[1:] != columns or found.dtype != np.dtype(dtype):
            self._store.arrays.pop(name, None)  # free what it replaces first
            self.device.forget()
            self._store.generation += 1
            found = self._store.arrays[name] = self.device.empty((rows, *columns), dtype)
        return found

    def put(self, name: str, extent: Extent, values: np.ndarray) -> Any:
        """Copy a host array to the first rows of the array called `name`, and return that array.

        Parameters
        ----------
        name : str
            Unique name of the array.
        extent : Extent
            Collection whose rows it holds; its capacity must cover `values`.
        values : ndarray of shape (n, ...)
            What to copy.
        """
        out = self.array(name, extent, values.dtype, *values.shape[1:])
        self.device.upload(values, out)
        return out

    def launch(self, kernel: Any, extent: Extent | int, payload: Any) -> None:
        """Run `kernel` once for each row of `extent`."""
        self._store.sizes_read = None
        self.device.launch(kernel, extent, payload)

    def clear(self, array: Any) -> None:
        """Fill an array with zeros."""
        self.device.clear(array)

    def scan(self, values: Any, extent: Extent, offsets: Any, total: Extent) -> None:
        """Write the exclusive running sums of `values` to `offsets`, and their total to the size of `total`.

        Parameters
        ----------
        values : array of shape (capacity,), int32
            One count per row of `extent`.
        extent : Extent
            Rows to sum over.
        offsets : array of shape (capacity + 1,), int32
            Output.
        total : Extent
            Its size becomes the sum; on the CPU its capacity grows to hold it. On CUDA a sum beyond the capacity
            makes the size 0, so that later stages do nothing, and `overflowed` tells of it.
        """
        self.scan_together(extent, ScanColumn(values, offsets, total))

    def scan_together(self, extent: Extent, *columns: ScanColumn) -> None:
        """Do several scans over the same rows at once.

        Parameters
        ----------
        extent : Extent
            Rows to sum over.
        *columns : ScanColumn
            Up to three; where one outgrows its buffers, the sizes of all become 0.
        """
        self._store.sizes_read = None
        self.device.exclusive_scan(extent, columns)
        if self.device.sizes_are_on_host:
            for column in columns:
                self._make_room(column.total, self.size(column.total))

    def size(self, extent: Extent) -> int:
        """Return the size of `extent`; on CUDA this waits for the device and is for tests and the end of a batch."""
        return int(self._read_sizes()[COUNT, extent.slot])

    def overflowed(self) -> bool:
        """Return whether a collection outgrew its buffers, after making room for it: then the batch must be redone.

        To be asked at the end of a batch, until it answers False. On the CPU buffers grow on the way.

        Raises
        ------
        CapacityError
            If a collection is larger than 32-bit indices can say.
        """
        if self.device.sizes_are_on_host:
            return False
        sizes = self._read_sizes()
        outgrown = False
        for extent in self._store.extents.values():
            if sizes[WRAPPED, extent.slot]:
                self.device.clear(self._store.sizes[WRAPPED])
                self._store.sizes_read = None
                limit = np.iinfo(np.int32).max
                msg = f"more than {limit} {extent.name} in one batch; at most {limit} are possible: use smaller batches"
                raise CapacityError(msg)
            if sizes[NEEDED, extent.slot] > extent.capacity:
                self._make_room(extent, int(sizes[NEEDED, extent.slot]))
                outgrown = True
        return outgrown

    def reset(self) -> None:
        """Give all buffers back: those of a batch that was too large must not be asked for again by the next one."""
        self._store.arrays.clear()
        for extent in self._store.extents.values():
            extent.capacity = 0
        self._store.generation += 1
        self.device.forget()
        self.device.clear(self._store.sizes)  # the sizes that were needed, too
        self._store.sizes_read = None

    def _read_sizes(self) -> np.ndarray:
        if self._store.sizes_read is None or self.device.sizes_are_on_host:
            self._store.sizes_read = self.device.to_host(self._store.sizes)
        return self._store.sizes_read

    def _make_room(self, extent: Extent, n: int) -> None:
        if n > extent.capacity:
            self._store.generation += 1
            extent.capacity = min(int(n * _GROWTH) + 16, np.iinfo(np.int32).max)
