"""Compilation of the simulation's inner loops: plain Numba on the host, in float64, with a cache that can't be stale.

The simulation shares no compiled code with the reconstruction, so that each can check the other.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

from traccc_py.device.cache import cache_root

__all__ = ["compiled", "compiled_entry", "is_compiled"]

_OPTIONS = {"nogil": True, "error_model": "numpy"}


@cache
def _cache_directory() -> Path:
    """Return the cache folder of these sources; entries of other versions are never read."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256(f"{platform.python_version()} {numba.__version__} {np.__version__}".encode())
    for path in [*sorted(here.rglob("*.py")), here.parent / "units.py", here.parent / "geometry" / "records.py"]:
        digest.update(path.name.encode() + path.read_bytes())
    folder = cache_root() / f"simulation-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a helper that compiled loops of the simulation call."""
    return numba.njit(**_OPTIONS)(function)


def compiled_entry(function: Callable[..., Any]) -> Any:
    """Compile a loop that is called from Python, and keep its machine code on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_cache_directory())
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before


def is_compiled() -> bool:
    """Return whether machine code of these sources is kept on disk."""
    return any(_cache_directory().rglob("*.nbi"))  # Numba makes the folders at once
