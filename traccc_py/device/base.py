"""What the drivers of stages expect of a device: the interface that all executors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from traccc_py.device.kernel import Kernel
    from traccc_py.device.workspace import Extent, ScanColumn

__all__ = ["Device"]


class Device(Protocol):
    """Memory, launches, scans and sorts of one device."""

    name: str
    sizes_are_on_host: bool  #: whether sizes can be read without waiting; else buffers can't grow within a batch

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array of `shape` and `dtype`."""

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an array of zeros of `shape` and `dtype`."""

    def to_device(self, array: np.ndarray) -> Any:
        """Return `array` as an array that kernels may write."""

    def upload(self, values: np.ndarray, out: Any) -> None:
        """Copy a host array to the first rows of `out`."""

    def staging(self, n: int, dtype: Any) -> tuple[np.ndarray, Any]:
        """Return arrays of `n` rows, uninitialised: one to fill on the host, one on the device for `upload_ahead`."""

    def upload_ahead(self, values: np.ndarray, out: Any) -> None:
        """Copy the first rows of a host array of `staging` to its device array, beside what is running."""

    def join_uploads(self) -> None:
        """Let what is asked for from now on wait for the copies made ahead."""

    def recorded(self, key: Any, function: Callable[[], Any]) -> Any:
        """Do what `function` asks for, whose launches are the same each time for equal keys; return its result."""

    def side_by_side(self, aside: Callable[[], object], function: Callable[[], Any]) -> Any:
        """Do what two functions ask for in no order, after all before it and before all behind it.

        What they launch must not share anything that one of them writes, and scans are for the second one alone.

        Returns
        -------
        object
            What the second one returns.
        """

    def to_host(self, array: Any) -> np.ndarray:
        """Return an array's contents on the host; waits for them."""

    def fetch(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        """Return the contents of several arrays on the host; waits once."""

    def synchronize(self) -> None:
        """Wait until everything asked for so far is done."""

    def forget(self) -> None:
        """Drop references to the arrays of past launches."""

    def launch(self, kernel: Kernel, extent: Extent | int, payload: Any) -> None:
        """Run `kernel` for the indices 0 ... n - 1."""

    def clear(self, array: Any) -> None:
        """Fill a contiguous array with zeros."""

    def exclusive_scan(self, extent: Extent, columns: tuple[ScanColumn, ...]) -> None:
        """Write the running sums of columns and their totals, as `Workspace.scan_together` says."""
