"""Devices: the same kernels on the host's cores or on a GPU. Importing this loads neither Numba nor CuPy."""

from __future__ import annotations

import importlib.util
import logging
import re
from typing import TYPE_CHECKING, Any

from traccc_py.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from traccc_py.device.base import Device

__all__ = ["get_device"]

_log = logging.getLogger(__name__)


def get_device(name: str = "auto", threads: int | None = None, **gpu_options: Any) -> Device:
    """Return a device to run kernels on.

    Parameters
    ----------
    name : str, optional
        "cpu", "cuda" (the first GPU), "cuda:N" (GPU number N), or "auto": the first GPU if it can be used, else the
        CPU.
    threads : int, optional
        Number of threads on the CPU; by default the cores this process may run on.
    **gpu_options
        For a GPU: `memory_limit` [bytes] and `uses_graphs`, see `CudaDevice`.

    Returns
    -------
    Device
        The executor.

    Raises
    ------
    DeviceUnavailableError
        If a GPU was asked for and can't be used; the message says what was found and what to install.
    ValueError
        If `name` is none of the above.

    Examples
    --------
    >>> get_device("cpu", threads=2).name
    'cpu'
    """
    if name == "auto":
        return _best_device(threads, gpu_options)
    if name == "cpu":
        from traccc_py.device.cpu.executor import CpuDevice

        return CpuDevice(threads)
    chosen = re.fullmatch(r"cuda(?::(\d+))?", name)
    if chosen is None:
        msg = f"device is {name!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:N'"
        raise ValueError(msg)
    return _gpu(int(chosen.group(1) or 0), gpu_options)


def _gpu(index: int, options: dict[str, Any]) -> Device:
    missing = [module for module in ("cupy", "numba_cuda", "cuda.bindings") if not _is_installed(module)]
    if missing:
        msg = (
            f"cuda:{index} was asked for, but these Python packages were not found: {', '.join(missing)}; install them "
            'with pip install "traccc-py[cuda13]" (driver 580 or newer) or "traccc-py[cuda12]", or use device "cpu"'
        )
        raise DeviceUnavailableError(msg)
    from traccc_py.device.cuda.executor import CudaDevice

    return CudaDevice(index, **options)


def _best_device(threads: int | None, gpu_options: dict[str, Any]) -> Device:
    if _is_installed("cupy"):
        try:
            return _gpu(0, gpu_options)
        except DeviceUnavailableError as error:
            _log.warning("no GPU can be used, running on the CPU: %s", error)
    return get_device("cpu", threads)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False
