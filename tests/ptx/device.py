"""A `CudaDevice` whose kernels are executed from their PTX, on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.ptx.driver import PtxDriver
from tests.ptx.memory import Memory, cupy_on
from traccc_py.device.cuda.executor import CudaDevice

__all__ = ["MULTIPROCESSORS", "ptx_device"]

MULTIPROCESSORS = 132  # of an H200


def ptx_device(
    mode: str = "run",
    *,
    seed: int = 0,
    size: int = 512 << 20,
    change: Callable[[str, str], str] = lambda _, ptx: ptx,
    **options: Any,
) -> CudaDevice:
    """Return a device of compute capability 9.0.

    Parameters
    ----------
    mode : str, optional
        How kernels run, see `PtxDriver`.
    seed : int, optional
        Of the order of blocks and threads; 0: as they are numbered.
    size : int, optional
        Memory of the device [bytes].
    change : callable, optional
        Returns the PTX to execute instead, for tests that break it.
    **options
        Options of `CudaDevice`.

    Returns
    -------
    CudaDevice
        Its attribute `ptx` is the `PtxDriver`.
    """
    memory = Memory(size, is_checked=mode == "check")
    driver = PtxDriver(memory, mode, seed, change)
    with mock.patch.dict(sys.modules, cupy=cupy_on(memory, MULTIPROCESSORS)):
        device = CudaDevice(0, driver, **options)
    device.ptx = driver
    return device
