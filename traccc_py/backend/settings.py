"""Settings of one model: written to config.pbtxt as parameters by the launcher, read from there by the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from traccc_py.errors import ConfigError
from traccc_py.geometry import Detector, build_detector

__all__ = ["MAX_CELLS", "ModelSettings"]

MAX_CELLS = 4_000_000

_WHOLE_NUMBERS = ("threads", "max_cells", "gpu_memory_mb")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a model instance is told.

    Parameters
    ----------
    detector : str, optional
        Name of a built-in detector.
    detector_options : dict, optional
        Options of `build_detector`: names, paths and numbers.
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
        File with lines ``hexadecimal Athena identifier,decimal Acts geometry id``: ids on the wire are Athena's then.
    log_calls : bool, optional
        Log each call with counts and times; else only those with refused or failed requests.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """

    detector: str = "odd"
    detector_options: dict[str, Any] = field(default_factory=dict)
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

    def build_detector(self) -> Detector:
        """Return the detector.

        Raises
        ------
        GeometryError
            If there is no such detector, or an option has an impossible value.
        """
        return build_detector(self.detector, **self.detector_options)

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as parameters of config.pbtxt; what is not set is left out."""
        values = {
            **asdict(self),
            "detector_options": json.dumps(self.detector_options) if self.detector_options else None,
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
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {name: text for name, text in parameters.items() if name in known and text}
        for name in _WHOLE_NUMBERS:
            if name in values:
                values[name] = _whole_number(name, values[name])
        if "detector_options" in values:
            values["detector_options"] = _options(values["detector_options"])
        if "log_calls" in values:
            values["log_calls"] = values["log_calls"].lower() == "true"
        return cls(**values)

    def resolved(self) -> ModelSettings:
        """Return the settings with absolute paths: the server runs in another folder."""
        paths = {name: getattr(self, name) for name in ("config", "cache_dir", "athena_map")}
        absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items() if path}
        options = {k: str(Path(v).resolve()) if _is_file(v) else v for k, v in self.detector_options.items()}
        return replace(self, **absolute, detector_options=options)

    def with_threads(self, threads: int) -> ModelSettings:
        """Return the settings with another number of CPU threads."""
        return replace(self, threads=threads)


def _is_file(value: Any) -> bool:
    return isinstance(value, (str, Path)) and Path(value).is_file()


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"parameter {name} is {text!r}; expected a whole number"
        raise ConfigError(msg) from error


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        msg = f"parameter detector_options is {text!r}; expected a JSON object: {error}"
        raise ConfigError(msg) from error
    if not isinstance(options, dict):
        msg = f"parameter detector_options is {text!r}; expected a JSON object"
        raise ConfigError(msg)
    return options
