"""`traccc-py info` and `traccc-py compile`: what this machine has, and kernels compiled ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from traccc_py.cli.report import versions
from traccc_py.data.words import counted

__all__ = ["show_info"]

_BYTES_PER_MB = 1e6


def show_info(console: Console) -> None:
    """Print versions, devices, detectors and caches.

    Parameters
    ----------
    console : Console
        Where the table goes.
    """
    from traccc_py.device.cache import cache_root
    from traccc_py.geometry import detector_names

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    for name, found in _devices():
        table.add_row(name, found)
    table.add_row("detectors", ", ".join(detector_names()))
    root = cache_root()
    table.add_row("cache", f"{root} ({_size(root) / _BYTES_PER_MB:.1f} MB)")
    console.print(table)


def _devices() -> list[tuple[str, str]]:
    """Return what can be used, and why the rest can't."""
    from traccc_py.device import get_device
    from traccc_py.errors import DeviceUnavailableError

    devices: list[tuple[str, str]] = [("cpu", counted(getattr(get_device("cpu"), "threads", 1), "thread"))]
    try:
        devices.append(("cuda", _describe_gpu(get_device("cuda"))))
    except DeviceUnavailableError as error:
        devices.append(("cuda", f"not available: {error}"))
    return devices


def _describe_gpu(device: Any) -> str:
    return str(getattr(device, "description", device.name))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
