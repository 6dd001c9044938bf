"""What measured numbers depend on: commit, versions, processor, load of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["environment", "usable_cores", "versions"]

_PACKAGES = ("numpy", "numba", "pandas", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x")
_PACKAGE = Path(__file__).resolve().parent


def versions() -> dict[str, str]:
    """Return the versions of traccc_py, Python and the packages that results depend on."""
    import traccc_py

    found = {"traccc_py": traccc_py.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment() -> dict[str, Any]:
    """Return commit ("" where the package is not in a clone), versions, processor, cores, load and niceness."""
    return {
        "commit": _commit(),
        "versions": versions(),
        "cpu": _cpu(),
        "n_cores": os.cpu_count() or 1,
        "n_usable_cores": len(usable_cores()),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "niceness": os.nice(0),
    }


def _commit() -> str:
    commit = _git("rev-parse", "HEAD")
    return commit and commit + (" with changes" if _git("status", "--porcelain", str(_PACKAGE)) else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", _PACKAGE, *words], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
