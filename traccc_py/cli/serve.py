"""`traccc-py serve`: the tracking service on this machine, started, watched and stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from traccc_py.backend.installation import find_installation, package_folder
from traccc_py.backend.ports import check_port, free_port
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import ServerOptions, TritonServer
from traccc_py.backend.service import TrackingService
from traccc_py.backend.settings import MAX_CELLS, ModelSettings
from traccc_py.backend.watch import Watchdog, WatchOptions
from traccc_py.cli.common import consoles
from traccc_py.cli.compilation import compile_missing_kernels
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError

__all__ = ["ServeOptions", "make_repository", "parse_gpus", "serve"]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `traccc-py serve` was asked for."""

    detector: DetectorOptions = field(default_factory=DetectorOptions)
    device: str = "auto"
    instances: int = 1
    gpus: Sequence[int] = ()
    address: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    config: Path | None = None
    threads: int | None = None
    max_batch: int = 64
    max_cells: int = MAX_CELLS
    queue_delay_us: int = 0
    gpu_memory_mb: int | None = None
    athena_map: Path | None = None
    server_log: Path | None = None
    verbose: bool = False
    watch: bool = True
    timeout: float = 300.0
    server_arguments: Sequence[str] = ()


def serve(options: ServeOptions, log: Console) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Parameters
    ----------
    options : ServeOptions
        Detector, device, ports.
    log : Console
        Where progress goes.

    Raises
    ------
    ServiceError
        If no server is installed, a port is in use, or the server does not start.
    ConfigError, GeometryError, DeviceUnavailableError
        If a setting can't be used; nothing was started then.
    """
    begin = time.perf_counter()
    installation = find_installation()
    _check_ports(options)
    repository = _compiled_repository(options, log)
    server_options = ServerOptions(
        repository=repository,
        address=options.address,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        extra_arguments=options.server_arguments,
        log_file=options.server_log,
    )
    with TritonServer(server_options, installation) as server:
        stopping = _Stopping()
        server.start_until_ready(options.timeout, stopping.is_set)
        if stopping.is_set():
            return
        watchdog = Watchdog(server, WatchOptions(load_timeout=options.timeout), is_active=options.watch)
        stopping.then(watchdog.stop)
        ports = server.ports
        log.print(
            f"ready in {time.perf_counter() - begin:.1f} s: gRPC {options.address}:{ports.grpc}, "
            f"HTTP {options.address}:{ports.http}, metrics {options.address}:{ports.metrics}; Ctrl-C ends it"
        )
        watchdog.run()
        log.print("requests in flight finish, then the server ends", style="dim")


def _check_ports(options: ServeOptions) -> None:
    """Check that the server will be able to listen; ports it may choose itself are always good.

    Raises
    ------
    ConfigError
        If the address is none of this machine, or two ports are the same.
    ServiceError
        If something uses a port.
    """
    try:
        free_port(options.address)
    except OSError as error:
        msg = f"--address {options.address}: can't be listened on ({error.strerror}); expected one of this machine"
        raise ConfigError(msg) from error
    options_of_ports: dict[int, str] = {}
    for option in ("--http-port", "--grpc-port", "--metrics-port"):
        port = getattr(options, option.removeprefix("--").replace("-", "_"))
        if port == 0:
            continue
        if port in options_of_ports:
            msg = f"{options_of_ports[port]} and {option} are both {port}; expected different ports"
            raise ConfigError(msg)
        options_of_ports[port] = option
        check_port(options.address, f"{option}:", port)


class _Stopping:
    """Whether SIGTERM or SIGINT came."""

    def __init__(self) -> None:
        self._came = False
        self._action: Any = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def then(self, action: Any) -> None:
        """Call `action` when one comes, or now if one came."""
        self._action = action
        if self._came:
            action()

    def is_set(self) -> bool:
        """Return whether one came."""
        return self._came

    def _stop(self, *_: object) -> None:
        self._came = True
        if self._action is not None:
            self._action()


def _compiled_repository(options: ServeOptions, log: Console) -> ModelRepository:
    """Return the repository, with all settings tried out and the kernels compiled: not by each instance at once.

    Done in a process that ends before the server starts: on a GPU a context keeps some hundred MB.
    """
    settings = _settings(options)
    log.print("trying the settings, compiling kernels if that was not done yet", style="dim")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        name, fingerprint = pool.submit(_try_out, settings, options.device).result()
    return make_repository(options, settings, name, fingerprint)


def _try_out(settings: ModelSettings, device: str) -> tuple[str, str]:
    """Return the name of the device and the fingerprint of the detector, after a first event."""
    service = TrackingService(settings, device)
    compile_missing_kernels(service.chain, consoles()[1])
    service.initialize()
    return str(service.chain.device.name), service.chain.detector.fingerprint


def _settings(options: ServeOptions) -> ModelSettings:
    settings = ModelSettings(
        detector=options.detector,
        config=None if options.config is None else str(options.config),
        threads=options.threads,
        max_cells=options.max_cells,
        gpu_memory_mb=options.gpu_memory_mb,
        athena_map=None if options.athena_map is None else str(options.athena_map),
        log_calls=options.verbose,
    )
    return settings.resolved()


def make_repository(
    options: ServeOptions, settings: ModelSettings, device_name: str, fingerprint: str
) -> ModelRepository:
    """Return the model repository for a device that is known by now.

    Parameters
    ----------
    options : ServeOptions
        What was asked for.
    settings : ModelSettings
        Settings of each instance; without a number of threads the cores are shared out among CPU instances.
    device_name : str
        "cpu" or "cuda:N".
    fingerprint : str
        Of the detector.

    Raises
    ------
    ConfigError
        If GPUs were named and the device is the CPU.
    """
    kind, _, number = device_name.partition(":")
    if kind == "cpu" and settings.threads is None:
        settings = settings.with_threads(max(1, len(os.sched_getaffinity(0)) // options.instances))
    if kind == "cpu" and options.gpus:
        msg = f"--gpus {','.join(map(str, options.gpus))} was given, but no GPU can be used; leave it out or see 'info'"
        raise ConfigError(msg)
    is_one_gpu = kind == "cuda" and options.device.startswith("cuda:")
    return ModelRepository(
        settings=settings,
        device=kind,
        instances=options.instances,
        gpus=(int(number),) if is_one_gpu and not options.gpus else tuple(options.gpus),
        max_batch=options.max_batch,
        queue_delay_us=options.queue_delay_us,
        fingerprint=fingerprint,
        package_folder=package_folder(),
    )


def parse_gpus(text: str | None) -> tuple[int, ...]:
    """Return the numbers in ``0,1,3``.

    Raises
    ------
    ConfigError
        If `text` is no such list.
    """
    if text is None:
        return ()
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        msg = f"--gpus {text!r}; expected numbers with commas between, such as 0,1"
        raise ConfigError(msg) from error
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        msg = f"--gpus {text!r}; expected different numbers from 0"
        raise ConfigError(msg)
    return numbers
