"""Charged-particle track reconstruction for silicon trackers, from cells to fitted tracks.

Names are imported when they are first used: ``import traccc_py`` is fast and loads neither compilers nor devices.

Examples
--------
>>> from traccc_py import TrackingChain, build_detector, read_cells
>>> from traccc_py.data.sample import sample_event_path
>>> chain = TrackingChain(build_detector("odd"))  # doctest: +SKIP
>>> result = chain.run(read_cells(sample_event_path()))  # doctest: +SKIP
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traccc_py.chain import TrackingChain
    from traccc_py.config import ChainConfig, read_config
    from traccc_py.data.csv_events import read_cells, read_measurements, write_cells
    from traccc_py.data.dead_channels import read_dead_channels
    from traccc_py.data.spacepoint_files import read_spacepoints
    from traccc_py.data.track_files import write_event_result
    from traccc_py.edm import (
        Candidates,
        Cells,
        EventResult,
        FitOutcome,
        Measurements,
        ModuleCells,
        Seeds,
        Spacepoints,
        Tracks,
        TrackStates,
    )
    from traccc_py.errors import (
        CapacityError,
        ConfigError,
        DeviceUnavailableError,
        GeometryError,
        InputDataError,
        ServiceError,
        TracccError,
        WireError,
    )
    from traccc_py.geometry import build_detector
    from traccc_py.performance.match import match
    from traccc_py.performance.truth import read_truth

    __version__: str

_MODULES = {
    "TrackingChain": "chain",
    "ChainConfig": "config",
    "read_config": "config",
    "read_cells": "data.csv_events",
    "read_measurements": "data.csv_events",
    "read_dead_channels": "data.dead_channels",
    "read_spacepoints": "data.spacepoint_files",
    "write_cells": "data.csv_events",
    "write_event_result": "data.track_files",
    "Candidates": "edm",
    "Cells": "edm",
    "EventResult": "edm",
    "FitOutcome": "edm",
    "Measurements": "edm",
    "ModuleCells": "edm",
    "Seeds": "edm",
    "Spacepoints": "edm",
    "TrackStates": "edm",
    "Tracks": "edm",
    "CapacityError": "errors",
    "ConfigError": "errors",
    "DeviceUnavailableError": "errors",
    "GeometryError": "errors",
    "InputDataError": "errors",
    "ServiceError": "errors",
    "TracccError": "errors",
    "WireError": "errors",
    "build_detector": "geometry",
    "match": "performance.match",
    "read_truth": "performance.truth",
}

__all__ = [
    "Candidates",
    "CapacityError",
    "Cells",
    "ChainConfig",
    "ConfigError",
    "DeviceUnavailableError",
    "EventResult",
    "FitOutcome",
    "GeometryError",
    "InputDataError",
    "Measurements",
    "ModuleCells",
    "Seeds",
    "ServiceError",
    "Spacepoints",
    "TracccError",
    "TrackStates",
    "TrackingChain",
    "Tracks",
    "WireError",
    "__version__",
    "build_detector",
    "match",
    "read_cells",
    "read_config",
    "read_dead_channels",
    "read_measurements",
    "read_spacepoints",
    "read_truth",
    "write_cells",
    "write_event_result",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    metadata = _import_module("importlib.metadata")
    try:
        return str(metadata.version("traccc-py"))
    except metadata.PackageNotFoundError:
        return "0+unknown"  # run from the sources, not installed
