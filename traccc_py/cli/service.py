"""`traccc-py serve`, `client` and `perf-data`: the tracking service started, watched and stopped; its clients."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from traccc_py.backend.installation import check_shell, find_installation, package_folder, version_warning
from traccc_py.backend.ports import check_port, free_port
from traccc_py.backend.settings import ModelSettings, QueueSettings, SchedulingSettings, ServerSettings
from traccc_py.backend.watch import Watchdog, WatchOptions
from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.options import Compress, Device, Events, Option, Skip, command, consoles, naming_options, options_of
from traccc_py.client.settings import ConnectionSettings, Tls
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError
from traccc_py.settings import PositiveCount, Settings, shown
from traccc_py.workers import worker_pool

if TYPE_CHECKING:
    from traccc_py.backend.repository import ModelRepository

__all__ = ["ClientRunOptions", "PerfDataOptions", "client", "perf_data", "serve"]


def _gpus(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        msg = f"--gpus is {shown(text)}; expected numbers with commas between, such as 0,1"
        raise ConfigError(msg) from error


@dataclass(frozen=True, slots=True)
class _ServeOptions(Settings):
    device: Device = "auto"
    #: do not revive dead instances
    watch: Annotated[bool, Option("--no-watch", is_negated=True)] = True


_SCHEDULING = options_of(
    SchedulingSettings,
    gpus=Option(metavar="N,N,...", kind=str, convert=_gpus),
)
_QUEUE = options_of(QueueSettings, leave_out=("queue_events",), queue_delay_us=Option("--queue-delay"))
_SERVER = options_of(
    ServerSettings,
    leave_out=("exit_timeout", "shm_mb"),
    extra_arguments=Option("--server-option", metavar="--X=Y"),
    log_file=Option("--server-log", metavar="FILE"),
)
_MODEL = options_of(
    ModelSettings,
    leave_out=("detector", "cache_dir", "hide_values"),
    config=Option(metavar="TOML"),
    gpu_memory_mb=Option("--gpu-memory"),
    memory_mb=Option("--memory"),
    event_seconds=Option("--event-seconds"),
    athena_map=Option(metavar="FILE"),
    log_calls=Option("--verbose"),
)

_WATCH = options_of(
    WatchOptions,
    leave_out=(
        *("period", "probe_period", "hang_timeout", "error_timeout", "cleaning_period"),
        *("first_backoff", "last_backoff"),
    ),
    load_timeout=Option("--timeout"),
)


@command(
    detector=DETECTOR,
    options=options_of(_ServeOptions),
    scheduling=_SCHEDULING,
    queue=_QUEUE,
    server=_SERVER,
    model=_MODEL,
    watch=_WATCH,
)
def serve(
    detector: DetectorOptions,
    options: _ServeOptions,
    scheduling: SchedulingSettings,
    queue: QueueSettings,
    server: ServerSettings,
    model: ModelSettings,
    watch: WatchOptions,
) -> None:
    """Run the tracking service: a Triton server, watched, until Ctrl-C or SIGTERM."""
    from traccc_py.backend.server import TritonServer

    begin, log = time.perf_counter(), consoles()[1]
    installation = find_installation()
    check_shell()
    _check_ports(server)
    _check_log(server)
    settings = replace(model, detector=detector).resolved()
    repository = replace(_compiled_repository(settings, scheduling, options.device, log), queue=queue)
    with TritonServer(repository, server, installation) as running:
        stopping = _Stopping()
        running.start_until_ready(watch.load_timeout, stopping.is_set)
        if stopping.is_set():
            return
        watchdog = Watchdog(running, watch, is_active=options.watch)
        stopping.then(watchdog.stop)
        ports = running.ports
        log.print(
            f"ready in {time.perf_counter() - begin:.1f} s: gRPC {server.address}:{ports.grpc}, "
            f"HTTP {server.address}:{ports.http}, metrics {server.address}:{ports.metrics}; Ctrl-C ends it"
        )
        warning = version_warning(running.version())
        if warning is not None:
            log.print(warning, style="yellow")
        watchdog.run()
        log.print("requests in flight finish, then the server ends", style="dim")


def _check_ports(server: ServerSettings) -> None:
    """Check that the server will be able to listen; ports it may choose itself are always good.

    Raises
    ------
    ConfigError
        If the address is none of this machine.
    ServiceError
        If something uses a port.
    """
    try:
        free_port(server.address)
    except OSError as error:
        msg = f"--address {server.address}: can't be listened on ({error.strerror}); expected one of this machine"
        raise ConfigError(msg) from error
    for name in ("http_port", "grpc_port", "metrics_port"):
        port = getattr(server, name)
        if port:
            check_port(server.address, f"{_SERVER.names[name]}:", port)


def _check_log(server: ServerSettings) -> None:
    """Raise `ConfigError` if Triton's log can't be written."""
    with naming_options(_SERVER.paths):
        file = server.open_log()
    if file is not None:
        file.close()


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


def _compiled_repository(
    settings: ModelSettings, scheduling: SchedulingSettings, device: str, log: Any
) -> ModelRepository:
    """Return the repository, with all settings tried out and the kernels compiled: not by each instance at once.

    Done in a process that ends before the server starts: on a GPU a context keeps some hundred MB.
    """
    log.print("trying the settings, compiling kernels if that was not done yet", style="dim")
    with worker_pool(1) as pool:
        name, fingerprint = pool.submit(_try_out, settings, device).result()
    with naming_options({SchedulingSettings.path_of("gpus"): _SCHEDULING.names["gpus"]}):
        return _make_repository(settings, scheduling, device, name, fingerprint)


def _try_out(settings: ModelSettings, device: str) -> tuple[str, str]:
    """Return the name of the device and the fingerprint of the detector, after a first event."""
    from traccc_py.backend.label_settings import try_labels
    from traccc_py.backend.service import TrackingService
    from traccc_py.cli.compilation import compile_missing_kernels

    service = TrackingService(settings, device)
    compile_missing_kernels(service.chain, consoles()[1])
    service.initialize()
    if settings.has_labels:
        try_labels(settings, service.chain.device)
    return str(service.chain.device.name), service.chain.detector.fingerprint


def _make_repository(
    settings: ModelSettings, scheduling: SchedulingSettings, device: str, device_name: str, fingerprint: str
) -> ModelRepository:
    """Return the model repository for a device that is known by now: "cpu" or "cuda:N".

    Without a number of threads the cores are shared out among CPU instances.
    """
    from traccc_py.backend.repository import ModelRepository

    kind, _, number = device_name.partition(":")
    if kind == "cpu" and settings.threads is None:
        settings = settings.with_threads(max(1, len(os.sched_getaffinity(0)) // scheduling.instances))
    if kind == "cuda" and device.startswith("cuda:") and not scheduling.gpus:
        scheduling = replace(scheduling, gpus=(int(number),))
    return ModelRepository(
        settings=settings,
        scheduling=scheduling,
        device=kind,
        fingerprint=fingerprint,
        package_folder=package_folder(),
    )


_INPUTS = Option(metavar="CELLS...", is_argument=True)


@dataclass(frozen=True, slots=True)
class ClientRunOptions(Settings):
    """What `traccc-py client` is asked for, besides the server."""

    inputs: Annotated[tuple[str, ...], _INPUTS]  #: cells files (.csv, .csv.gz), directories of them, or globs
    tls: bool = False  #: encrypt
    ca: Annotated[Path | None, Option(metavar="FILE")] = None  #: certificates of authorities (PEM); implies --tls
    in_flight: PositiveCount = 4  #: events on the way at a time
    repeat: PositiveCount = 1  #: send all events so many times
    events: Events = None
    skip: Skip = 0
    output: Annotated[Path | None, Option("-o", metavar="DIR")] = None  #: write tracks and track states
    plots: Annotated[Path | None, Option(metavar="FILE")] = None  #: draw histograms (.png, .pdf, .svg)
    compress: Compress = False


def _headers(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            msg = f"--header is {shown(pair)}; expected NAME=VALUE"
            raise ConfigError(msg)
    parts = [pair.partition("=") for pair in pairs]
    return {name.strip().lower(): value.strip() for name, _, value in parts}


_CONNECTION = options_of(
    ConnectionSettings,
    leave_out=("retries", "cuda_device", "tls"),
    url=Option("-u", metavar="HOST:PORT"),
    protocol=Option(
        "--http",
        default=False,
        meaning="use HTTP instead of gRPC",
        kind=bool,
        convert=lambda is_http: "http" if is_http else "grpc",
    ),
    shared_memory=Option(metavar="KIND"),
    headers=Option("--header", metavar="NAME=VALUE", kind=list[str], convert=_headers),
)


@command(options=options_of(ClientRunOptions), connection=_CONNECTION)
def client(options: ClientRunOptions, connection: ConnectionSettings) -> None:
    """Have a server reconstruct events."""
    from traccc_py.cli.client import reconstruct_remotely

    if options.tls or options.ca is not None:
        connection = replace(connection, tls=Tls(ca=options.ca))
    reconstruct_remotely(options, connection, *consoles())


@dataclass(frozen=True, slots=True)
class PerfDataOptions(Settings):
    """What `traccc-py perf-data` is asked for."""

    inputs: Annotated[tuple[str, ...], _INPUTS]  #: cells files (.csv, .csv.gz), directories of them, or globs
    output: Annotated[Path, Option("-o", metavar="FILE")]  #: JSON file to write
    compact: bool = False  #: compact tensors, for the model of that name
    events: Events = None


@command(options=options_of(PerfDataOptions))
def perf_data(options: PerfDataOptions) -> None:
    """Write events as input data of perf_analyzer."""
    from traccc_py.cli.client import write_perf_data

    write_perf_data(options, consoles()[1])
