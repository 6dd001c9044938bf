"""Settings of one model: written to config.pbtxt as parameters by the launcher, read from there by the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from traccc_py.config import PRESETS
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError

__all__ = ["MAX_CELLS", "ModelSettings"]

MAX_CELLS = 4_000_000

_WHOLE_NUMBERS = ("threads", "max_cells", "gpu_memory_mb")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of a model instance.

    Parameters
    ----------
    detector : DetectorOptions, optional
        Name or files of the detector, its readout and field.
    config : str, optional
        TOML file with the settings of the chain; by default the default ones.
    threads : int, optional
        CPU threads of each instance; by default all cores.
    cache_dir : str, optional
        Folder of compiled kernels; by default `TRACCC_PY_CACHE_DIR` or the user's cache.
    max_cells : int, optional
        Cells reconstructed together at most [1]: a call with more is split, an event with more is refused.
    gpu_memory_mb : int, optional
        Device memory an instance may use [MB]; by default all of it.
    athena_map : str, optional
        File with lines ``hexadecimal Athena identifier,decimal detray identifier``: ids on the wire are Athena's then.
    log_calls : bool, optional
        Log each call with counts and times; else only those with refused or failed requests.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """

    detector: DetectorOptions = field(default_factory=DetectorOptions)
    config: str | None = None
    threads: int | None = None
    cache_dir: str | None = None
    max_cells: int = MAX_CELLS
    gpu_memory_mb: int | None = None
    athena_map: str | None = None
    log_calls: bool = False

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} is {value}; expected at least 1"
                raise ConfigError(msg)

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as parameters of config.pbtxt; what is not set is left out."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "detector"}
        chosen = {f.name: getattr(self.detector, f.name) for f in fields(self.detector)}
        files = [str(path) for path in chosen["material_files"]]
        values = {
            "detector": chosen.pop("name"),
            **chosen,
            "material_files": json.dumps(files) if files else None,
            **own,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> ModelSettings:
        """Read what `to_parameters` wrote; other parameters are left alone.

        Raises
        ------
        ConfigError
            If a value can't be understood.
        """
        known = {f.name for f in fields(cls)} - {"detector"}
        values: dict[str, Any] = {name: text for name, text in parameters.items() if name in known and text}
        for name in _WHOLE_NUMBERS:
            if name in values:
                values[name] = _whole_number(name, values[name])
        if "log_calls" in values:
            values["log_calls"] = values["log_calls"].lower() == "true"
        return cls(detector=_detector(parameters), **values)

    def resolved(self) -> ModelSettings:
        """Return the settings with absolute paths: the server runs in another folder."""
        paths = {name: getattr(self, name) for name in ("config", "cache_dir", "athena_map")}
        if self.config in PRESETS:
            del paths["config"]
        absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items() if path}
        return replace(self, **absolute, detector=self.detector.resolved())

    def with_threads(self, threads: int) -> ModelSettings:
        """Return the settings with another number of CPU threads."""
        return replace(self, threads=threads)


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"parameter {name} is {text!r}; expected a whole number"
        raise ConfigError(msg) from error


def _detector(parameters: Mapping[str, str]) -> DetectorOptions:
    values: dict[str, Any] = {}
    for f in fields(DetectorOptions):
        name = "detector" if f.name == "name" else f.name
        text = parameters.get(name)
        if not text:
            continue
        if name == "material_files":
            values[name] = tuple(Path(path) for path in _list(name, text))
        elif name == "bfield_value":
            values[name] = _number(name, text)
        elif name == "bfield_partial":
            values[name] = text.lower() == "true"
        else:
            values[f.name] = Path(text) if name.endswith("_file") else text
    return DetectorOptions(**values)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        msg = f"parameter {name} is {text!r}; expected a number"
        raise ConfigError(msg) from error


def _list(name: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        msg = f"parameter {name} is {text!r}; expected a JSON list of files"
        raise ConfigError(msg)
    return found
