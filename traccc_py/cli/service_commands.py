"""Commands of the service: its server, its client, input for measurements of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traccc_py.cli.common import Compress, ConfigFile, Debug, Device, consoles, reports_errors
from traccc_py.cli.detector_options import takes_detector
from traccc_py.detector_options import DetectorOptions

__all__ = ["client", "perf_data", "serve"]

_LAST_PORT = 65_535


Inputs = Annotated[
    list[str], typer.Argument(metavar="CELLS...", help="Cells files (.csv, .csv.gz), directories of them, or globs.")
]
EventLimit = Annotated[int | None, typer.Option("--events", "-n", min=1, help="Number of events at most.")]
CompactTensors = Annotated[bool, typer.Option("--compact", help="Compact tensors: fewer bytes, tracks without states.")]


@reports_errors
@takes_detector("detector")
def serve(
    detector: DetectorOptions,
    device: Device = "auto",
    instances: Annotated[int, typer.Option("--instances", min=1, help="Model instances, on each GPU.")] = 1,
    gpus: Annotated[
        str | None, typer.Option("--gpus", metavar="N,N,...", help="Numbers of the GPUs to use. (default: all)")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Address to listen on; the default is reached from this machine alone.")
    ] = "127.0.0.1",
    http_port: Annotated[
        int, typer.Option("--http-port", min=0, max=_LAST_PORT, help="Port for HTTP; 0: any free one.")
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option("--grpc-port", min=0, max=_LAST_PORT, help="Port for gRPC; 0: any free one.")
    ] = 8001,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", min=0, max=_LAST_PORT, help="Port for metrics; 0: any.")
    ] = 8002,
    config: ConfigFile = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of an instance. (default: cores / instances)")
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Events reconstructed together at most.")] = 64,
    max_cells: Annotated[
        int, typer.Option("--max-cells", min=1, help="Cells reconstructed together at most; larger events are refused.")
    ] = 4_000_000,
    queue_delay: Annotated[
        int, typer.Option("--queue-delay", min=0, help="How long a request may wait for others to join [us].")
    ] = 0,
    gpu_memory: Annotated[
        int | None, typer.Option("--gpu-memory", min=1, help="GPU memory an instance may use [MB].")
    ] = None,
    athena_map: Annotated[
        Path | None,
        typer.Option("--athena-map", metavar="FILE", help="Ids on the wire are Athena's; their map to detray's."),
    ] = None,
    server_log: Annotated[
        Path | None, typer.Option("--server-log", metavar="FILE", help="Where Triton's log goes. (default: stderr)")
    ] = None,
    server_option: Annotated[
        list[str] | None, typer.Option("--server-option", metavar="--X=Y", help="Further options of tritonserver.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log each call with its times.")] = False,
    no_watch: Annotated[bool, typer.Option("--no-watch", help="Do not revive dead instances.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="How long instances may take to start [s].")] = 300,
    debug: Debug = False,
) -> None:
    """Run the tracking service: a Triton server, watched, until Ctrl-C or SIGTERM."""
    from traccc_py.cli.serve import ServeOptions, parse_gpus
    from traccc_py.cli.serve import serve as run_service

    options = ServeOptions(
        detector=detector,
        device=device,
        instances=instances,
        gpus=parse_gpus(gpus),
        address=address,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        config=config,
        threads=threads,
        max_batch=max_batch,
        max_cells=max_cells,
        queue_delay_us=queue_delay,
        gpu_memory_mb=gpu_memory,
        athena_map=athena_map,
        server_log=server_log,
        verbose=verbose,
        watch=not no_watch,
        timeout=timeout,
        server_arguments=server_option or (),
    )
    run_service(options, consoles()[1])


@reports_errors
def client(
    inputs: Inputs,
    url: Annotated[str, typer.Option("--url", "-u", metavar="HOST:PORT", help="The server.")] = "127.0.0.1:8001",
    http: Annotated[bool, typer.Option("--http", help="Use HTTP instead of gRPC.")] = False,
    compact: CompactTensors = False,
    shared_memory: Annotated[
        str | None, typer.Option("--shared-memory", metavar="KIND", help="system or cuda; server on this machine.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt.")] = False,
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificates of authorities (PEM).")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Further headers.")] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Events on the way at a time.")] = 4,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Send all events so many times.")] = 1,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="How long an event may take [s].")] = 60,
    events: EventLimit = None,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Events to leave out at the start.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write tracks and track states.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FILE", help="Draw histograms (.png, .pdf, .svg).")
    ] = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Have a server reconstruct events."""
    from traccc_py.cli.client import RemoteOptions, reconstruct_remotely
    from traccc_py.client import Tls

    options = RemoteOptions(
        inputs=inputs,
        url=url,
        protocol="http" if http else "grpc",
        compact=compact,
        shared_memory=shared_memory,
        tls=Tls(ca=ca) if tls or ca is not None else None,
        headers=header or (),
        timeout=timeout,
        in_flight=in_flight,
        repeat=repeat,
        skip=skip,
        events=events,
        output=output,
        plots=plots,
        compress=compress,
    )
    reconstruct_remotely(options, *consoles())


@reports_errors
def perf_data(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSON file to write.")],
    compact: CompactTensors = False,
    events: EventLimit = None,
    debug: Debug = False,
) -> None:
    """Write events as input data of perf_analyzer."""
    from traccc_py.cli.perf_data import write_perf_data

    write_perf_data(inputs, output, consoles()[1], compact=compact, limit=events)
