"""Compilation of the simulation's inner loops: plain Numba on the host, in float64, with a cache that can't be stale.

The simulation shares no compiled code with the reconstruction, so that each can check the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from traccc_py.device.cache import code_digest, code_directory
from traccc_py.device.cpu.kept_code import CODE_SUFFIX, keeps_code
from traccc_py.files import package_sources

__all__ = ["code_folder", "compiled", "compiled_entry", "is_compiled"]

_OPTIONS = {"nogil": True, "error_model": "numpy"}


@cache
def code_folder() -> Path:
    """Return the cache folder of these sources; entries of other versions are never read."""
    sources = package_sources(("simulation", "units.py", "geometry/records.py"))
    return code_directory("simulation", code_digest(sources), sources)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a helper that is called by compiled loops of the simulation."""
    return numba.njit(**_OPTIONS)(function)


def compiled_entry(function: Callable[..., Any]) -> Any:
    """Compile a loop that is called from Python, and cache its machine code on disk."""
    return keeps_code(numba.njit(**_OPTIONS)(function), code_folder())


def is_compiled() -> bool:
    """Return whether machine code of these sources is cached on disk."""
    return any(code_folder().glob(f"*{CODE_SUFFIX}"))
