"""Settings of the service: of a model instance and its queue, of the instances, of the server that runs them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from traccc_py.config import PRESETS
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError
from traccc_py.settings import Choice, Count, PositiveCount, Range, Settings, shown

__all__ = ["SETTINGS_FILE", "ModelSettings", "QueueSettings", "SchedulingSettings", "ServerSettings"]

#: Beside the model's Python file: clients can read a model's configuration, and should not see paths of the server.
SETTINGS_FILE = "settings.json"

_SWITCHES = ("exatrkx", "exatrkx_ensemble", "hide_values", "log_calls")
_WHOLE_NUMBERS = ("threads", "max_cells", "gpu_memory_mb", "memory_mb", "event_seconds")

# Options of Triton that serve sets, or that would keep it from seeing how its server is.
_RESERVED = (
    *("model-repository", "model-store", "model-control-mode", "strict-readiness", "backend-directory"),
    *("allow-http", "http-address", "http-port", "grpc-address", "grpc-port", "metrics-address", "metrics-port"),
    *("reuse-http-port", "reuse-grpc-port", "backend-config=python,shm-region-prefix-name"),
)

Port = Annotated[int, Range(0, 65_535)]


@dataclass(frozen=True, slots=True)
class ModelSettings(Settings):
    """What a model instance is told about the chain, in a file that comes with the model."""

    detector: DetectorOptions = field(default_factory=DetectorOptions)
    config: str | None = None  #: TOML file with settings of the chain, or their name; by default the detector's
    #: what starts tracks, in the place of the settings' finder.method
    finder: Annotated[str, Choice(("seeds", "gnn"))] | None = None
    exatrkx: bool = False  #: also serve exatrkx: positions of spacepoints in, labels out, by the graph neural network
    #: also serve exatrkx, and the same in steps: the six models of exatrkx-service and exatrkx-ensemble of them; the
    #: graph of both is made by the embedding
    exatrkx_ensemble: bool = False
    threads: PositiveCount | None = None  #: CPU threads of an instance; by default cores / instances
    cache_dir: str | None = None  #: folder of compiled kernels; by default `TRACCC_PY_CACHE_DIR` or the user's cache
    #: cells of an event at most; one with more is refused
    max_cells: PositiveCount = 4_000_000
    gpu_memory_mb: PositiveCount | None = None  #: GPU memory an instance may use [MB]; by default all
    #: ids on the wire are Athena's: the file that maps them to detray's, with lines "hexadecimal,decimal"
    athena_map: str | None = None
    #: leave values of cells out of error messages: they may be of memory that its sender must not see
    hide_values: bool = False
    log_calls: bool = False  #: log each call with its times; else only those with refused or failed requests
    #: memory an instance may use for events [MB], on CPUs; an event that would need more is refused; by default its
    #: share of 90 % of what is free when it starts, and at least 1 GB
    memory_mb: PositiveCount | None = None
    #: how long the events of a batch may take on CPUs [s], looked at after each stage; of more than one the batch is
    #: halved until the event that takes too long is found, and refused
    event_seconds: PositiveCount = 60

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as texts; what is not set is left out."""
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
        for name in _SWITCHES:
            if name in values:
                values[name] = values[name].lower() == "true"
        return cls(detector=_detector(parameters), **values)

    def resolved(self) -> ModelSettings:
        """Return the settings with absolute paths: the server runs in another folder."""
        paths = {name: getattr(self, name) for name in ("config", "cache_dir", "athena_map")}
        if self.config in PRESETS:
            del paths["config"]
        absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items() if path}
        return replace(self, **absolute, detector=self.detector.resolved())

    @property
    def has_labels(self) -> bool:
        """Whether models label spacepoints."""
        return self.exatrkx or self.exatrkx_ensemble

    def with_threads(self, threads: int) -> ModelSettings:
        """Return the settings with another number of CPU threads."""
        return replace(self, threads=threads)


@dataclass(frozen=True, slots=True)
class QueueSettings(Settings):
    """How the events that wait at a model instance are limited and put into batches."""

    max_batch: PositiveCount = 64  #: events reconstructed together at most
    #: cells reconstructed together at most; an event with more is a batch by itself
    batch_cells: PositiveCount = 1_000_000
    queue_delay_us: Count = 0  #: how long an event may wait for others to join [us]
    #: cells that may wait at an instance; an event that would make it more is refused, to be sent again
    queue_cells: PositiveCount = 16_000_000
    queue_events: PositiveCount = 10_000  #: events that may wait at an instance

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as texts."""
        return {f.name: str(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> QueueSettings:
        """Read what `to_parameters` wrote; other parameters are left alone.

        Raises
        ------
        ConfigError
            If a value can't be understood.
        """
        names = [f.name for f in fields(cls) if f.name in parameters]
        return cls(**{name: _whole_number(name, parameters[name]) for name in names})


@dataclass(frozen=True, slots=True)
class SchedulingSettings(Settings):
    """Which model instances there are."""

    instances: PositiveCount = 1  #: model instances, on each GPU if there are several; each is a process
    gpus: tuple[int, ...] = ()  #: numbers of the GPUs to use; by default all

    def _check_together(self) -> None:
        if any(number < 0 for number in self.gpus) or len(set(self.gpus)) < len(self.gpus):
            self._reject("gpus", "different numbers from 0")


@dataclass(frozen=True, slots=True)
class ServerSettings(Settings):
    """How a server is run."""

    address: str = "127.0.0.1"  #: address to listen on; the default is reached from this machine alone
    http_port: Port = 8000  #: port of inference and health by HTTP; 0: any free one
    grpc_port: Port = 8001  #: port of inference by gRPC; 0: any free one
    metrics_port: Port = 8002  #: port of metrics for Prometheus; 0: any free one
    exit_timeout: Count = 30  #: how long requests in flight may take at the end [s]
    #: whether clients may register memory of this machine: then each can read and write what others have registered,
    #: and whatever this user can; "local" refuses addresses that other machines reach, "always" does not
    shared_memory: Annotated[str, Choice(("off", "local", "always"))] = "off"
    shm_mb: PositiveCount = 4  #: shared memory each instance begins with [MB]; it grows by itself
    extra_arguments: tuple[str, ...] = ()  #: further options of tritonserver
    log_file: Path | None = None  #: where Triton's log goes; by default to stderr

    def _check_together(self) -> None:
        chosen: dict[int, str] = {}
        for name in ("http_port", "grpc_port", "metrics_port"):
            port = getattr(self, name)
            if port and port in chosen:
                self._reject(name, f"another port than {chosen[port]}")
            chosen[port] = name
        if self.shared_memory == "local" and not _is_loopback(self.address):
            self._reject("shared_memory", f'"off" or "always", because other machines may reach {self.address}')
        for argument in self.extra_arguments:
            if _is_reserved(argument):
                msg = (
                    f"has {shown(argument)}; expected none of the options of Triton that are set here, or on which the "
                    "restarts depend (ports and address have settings of their own)"
                )
                raise ConfigError(msg, field=self.path_of("extra_arguments"))

    def open_log(self) -> BinaryIO | None:
        """Return the file for Triton's log, opened to append to it; None: it goes to stderr.

        Raises
        ------
        ConfigError
            If it can't be opened.
        """
        try:
            return None if self.log_file is None else self.log_file.open("ab")
        except OSError as error:
            path = str(self.log_file)
            msg = f"is {shown(path)}, which can't be written ({error.strerror}); expected one in a folder that exists"
            raise ConfigError(msg, field=self.path_of("log_file"), value=path) from error


def _is_reserved(argument: str) -> bool:
    """Return whether Triton would take an argument for a reserved option; it takes beginnings of names, too."""
    if not argument.startswith("--"):
        return False
    name, _, value = argument.removeprefix("--").partition("=")
    with_key = f"{name}={value.partition('=')[0]}"
    return with_key in _RESERVED or any(option.startswith(name) and "=" not in option for option in _RESERVED)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


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
