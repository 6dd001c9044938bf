"""The commands and their options. Everything that takes time to import is imported by the command that needs it."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.errors import TracccError

__all__ = ["app", "main"]

_BAD_INPUT = 2
_FAILURE = 1
_WIDTH_OF_FILES = 120
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")

app = typer.Typer(
    name="traccc-py",
    help="Charged-particle track reconstruction for silicon trackers, from cells to fitted tracks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup would swallow units such as [mm]
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _check_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        msg = f"{name!r}; expected auto, cpu, cuda or cuda:N"
        raise typer.BadParameter(msg)
    return name


Detector = Annotated[str, typer.Option("--detector", help="odd, toy or telescope.")]
Digitization = Annotated[
    str | None,
    typer.Option("--digitization", help="Readout designs: a name or an Acts JSON file. (default: the detector's)"),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="TOML", help="Settings; see 'traccc-py config'.")]
ParticleName = Annotated[str | None, typer.Option("--particle", help="Mass hypothesis: muon, pion or electron.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", callback=_check_device)]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. (default: all cores)")]
Compress = Annotated[bool, typer.Option("--compress", help="Write .csv.gz.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")]


def _reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors made on purpose into one paragraph on stderr and exit code 2, those of the system into 1."""

    @functools.wraps(command)
    def wrapper(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (TracccError, OSError) as error:
            if debug:
                raise
            typer.echo(f"traccc-py: error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(_BAD_INPUT if isinstance(error, TracccError) else _FAILURE) from error

    return wrapper


def _consoles() -> tuple[Any, Any]:
    """Return the consoles for results (stdout) and for progress and warnings (stderr)."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    log = Console(stderr=True, **plain)
    logger = logging.getLogger("traccc_py")
    logger.handlers = [RichHandler(console=log, show_time=False, show_path=False)]
    is_redirected = not sys.stdout.isatty()  # tables in files and pipes need not be narrow
    return Console(width=_WIDTH_OF_FILES if is_redirected else None, **plain), log


@app.command()
@_reports_errors
def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="CELLS...", help="Cells files (.csv, .csv.gz), directories of them, or quoted globs."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the event that comes with the package.")] = False,
    detector: Detector = "odd",
    digitization: Digitization = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write tracks, track states and measurements.")
    ] = None,
    config: ConfigFile = None,
    particle: ParticleName = None,
    device: Device = "auto",
    threads: Threads = None,
    events: Annotated[int | None, typer.Option("--events", "-n", min=1, help="Number of events at most.")] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Events to leave out at the start.")] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write counts, times, versions and settings.")
    ] = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Reconstruct events: cells in, fitted tracks out."""
    from traccc_py.cli.run import RunOptions
    from traccc_py.cli.run import run as run_events

    names = list(inputs or [])
    if sample:
        from traccc_py.data.sample import sample_event_path

        names.append(str(sample_event_path()))
    if not names:
        msg = "no input: name cells files or directories, or use --sample"
        raise typer.BadParameter(msg)
    options = RunOptions(
        inputs=names,
        detector=detector,
        digitization=digitization,
        output=output,
        config=config,
        particle=particle,
        device=device,
        threads=threads,
        skip=skip,
        events=events,
        json=json,
        compress=compress,
    )
    run_events(options, *_consoles())


@app.command(name="detector")
@_reports_errors
def show(
    name: Annotated[str, typer.Argument(help="odd, toy or telescope.")] = "odd",
    digitization: Digitization = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="FILE", help="Draw the r-z and x-y views (.png, .pdf, .svg).")
    ] = None,
    each: Annotated[bool, typer.Option("--all", help="List each layer.")] = False,
    debug: Debug = False,
) -> None:
    """Show the layers of a detector: radii, sensors, material."""
    from traccc_py.cli.detector import show_detector
    from traccc_py.cli.run import load_detector

    show_detector(load_detector(name, digitization), _consoles()[0], draw, each=each)


@app.command(name="config")
@_reports_errors
def print_config(
    file: Annotated[Path | None, typer.Argument(metavar="[TOML]", help="Settings to check and complete.")] = None,
    particle: ParticleName = None,
    debug: Debug = False,
) -> None:
    """Print all settings as TOML, the default ones or those of a file."""
    from traccc_py.cli.run import load_config

    typer.echo(load_config(file, particle).to_toml(), nl=False)


@app.command()
@_reports_errors
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for cells and truth.")],
    detector: Detector = "odd",
    digitization: Digitization = None,
    events: Annotated[int, typer.Option("--events", "-n", min=1, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option("--first-event", min=0, help="Number of the first event.")] = 0,
    particles: Annotated[int, typer.Option("--particles", min=0, help="Particles per event.")] = 10,
    particle: Annotated[str, typer.Option("--particle", help="Kind: electron, muon, pion, kaon or proton.")] = "muon",
    charge: Annotated[str, typer.Option("--charge", help="negative, positive or random.")] = "random",
    pt: Annotated[tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Range of pT [GeV].")] = (1, 10),
    log: Annotated[bool, typer.Option("--log", help="pT uniform in its logarithm.")] = False,
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Range of eta.")] = (-2.5, 2.5),
    phi: Annotated[tuple[float, float], typer.Option("--phi", metavar="MIN MAX", help="Range of phi [degrees].")] = (
        -180,
        180,
    ),
    vertex_sigma: Annotated[
        tuple[float, float, float], typer.Option("--vertex-sigma", metavar="X Y Z", help="Spread of vertices [mm].")
    ] = (0.0125, 0.0125, 55),
    no_material: Annotated[bool, typer.Option("--no-material", help="No scattering, no energy loss.")] = False,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="No charge noise.")] = False,
    seed: Seed = 1,
    threads: Threads = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Simulate events: a particle gun, the detector's material, cells and truth."""
    from traccc_py.cli.run import load_detector
    from traccc_py.cli.simulate import simulate as simulate_events
    from traccc_py.simulation.generator import ParticleGunConfig
    from traccc_py.units import degree

    gun = ParticleGunConfig(
        n_particles=particles,
        particle=particle,
        charge=charge,
        momentum=pt,
        momentum_distribution="log" if log else "uniform",
        eta=eta,
        phi=(phi[0] * degree, phi[1] * degree),
        vertex_sigma=vertex_sigma,
    )
    simulate_events(
        output,
        load_detector(detector, digitization),
        gun,
        seed,
        events,
        _consoles()[0],
        first_event=first_event,
        material=not no_material,
        smearing=not no_noise,
        threads=threads,
        compress=compress,
    )


@app.command()
@_reports_errors
def calibrate(
    name: Annotated[str, typer.Argument(help="odd, toy or telescope.")] = "odd",
    digitization: Digitization = None,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Simulated muons.")] = 100_000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write. (default: the package)")
    ] = None,
    seed: Seed = 20_240_501,
    debug: Debug = False,
) -> None:
    """Make the table of measurement variances by cluster size."""
    from traccc_py.cli.run import load_detector
    from traccc_py.cli.simulate import calibrate as make_table

    make_table(load_detector(name, digitization), particles, seed, output, _consoles()[0])


@app.command()
@_reports_errors
def performance(
    detector: Detector = "odd",
    digitization: Digitization = None,
    events: Annotated[int, typer.Option("--events", "-n", min=1, help="Number of events.")] = 10,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Particles per event.")] = 100,
    particle: Annotated[
        str, typer.Option("--particle", help="Kind and mass hypothesis: muon, pion, electron.")
    ] = "muon",
    pt: Annotated[tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Range of pT [GeV].")] = (10, 10),
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Range of eta.")] = (-2.5, 2.5),
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers.")] = None,
    seed: Seed = 1,
    debug: Debug = False,
) -> None:
    """Simulate, reconstruct and compare: efficiency, duplicates, fakes, pulls."""
    from traccc_py.cli.performance import evaluate, selections, show_performance
    from traccc_py.cli.run import load_config, load_detector, make_chain
    from traccc_py.performance.summary import PerformanceSummary
    from traccc_py.simulation.events import simulate_events
    from traccc_py.simulation.generator import ParticleGunConfig

    console, log = _consoles()
    settings = load_config(config, particle)
    gun = ParticleGunConfig(
        n_particles=particles, particle=particle, momentum=pt, eta=eta, vertex_sigma=(0.0125, 0.0125, 55.0)
    )
    chosen = load_detector(detector, digitization)
    chain = make_chain(chosen, settings, device, threads, log)
    sample = simulate_events(chosen, gun, seed, events)
    summary = PerformanceSummary(chosen, selections(detector, min(0.5, 0.99 * pt[0])))
    numbers = evaluate(chain, summary, sample, events, log)
    facts = {"detector": detector, "gun": repr(gun), "n_events": events, "seed": seed, "config": settings.to_dict()}
    show_performance(numbers, console, json, facts)


@app.command(name="compile")
@_reports_errors
def compile_kernels(
    detector: Detector = "odd",
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Compile all kernels ahead, into the cache on disk."""
    from traccc_py.cli.run import load_config, load_detector, make_chain
    from traccc_py.device.cache import cache_root

    _, log = _consoles()
    make_chain(load_detector(detector, None), load_config(None, None), device, threads, log)
    typer.echo(f"compiled kernels are in {cache_root()}")


@app.command()
@_reports_errors
def serve(
    detector: Detector = "odd",
    digitization: Digitization = None,
    device: Device = "auto",
    instances: Annotated[int, typer.Option("--instances", min=1, help="Model instances, on each GPU.")] = 1,
    gpus: Annotated[
        str | None, typer.Option("--gpus", metavar="N,N,...", help="Numbers of the GPUs to use. (default: all)")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Address to listen on; the default is reached from this machine alone.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", min=0, help="Port for HTTP; 0: any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", min=0, help="Port for gRPC; 0: any free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option("--metrics-port", min=0, help="Port for metrics; 0: any.")] = 8002,
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
        Path | None, typer.Option("--athena-map", metavar="FILE", help="Ids on the wire are Athena's: the map to Acts.")
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
        detector_options={} if digitization is None else {"digitization": digitization},
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
    run_service(options, _consoles()[1])


Inputs = Annotated[
    list[str], typer.Argument(metavar="CELLS...", help="Cells files (.csv, .csv.gz), directories of them, or globs.")
]
CompactTensors = Annotated[bool, typer.Option("--compact", help="Compact tensors: fewer bytes, tracks without states.")]


@app.command()
@_reports_errors
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
    events: Annotated[int | None, typer.Option("--events", "-n", min=1, help="Number of events at most.")] = None,
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
    reconstruct_remotely(options, *_consoles())


@app.command(name="perf-data")
@_reports_errors
def perf_data(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSON file to write.")],
    compact: CompactTensors = False,
    events: Annotated[int | None, typer.Option("--events", "-n", min=1, help="Number of events at most.")] = None,
    debug: Debug = False,
) -> None:
    """Write events as input data of perf_analyzer."""
    from traccc_py.cli.perf_data import write_perf_data

    write_perf_data(inputs, output, _consoles()[1], compact=compact, limit=events)


@app.command()
@_reports_errors
def info(debug: Debug = False) -> None:
    """Show versions, devices, detectors and caches."""
    from traccc_py.cli.system import show_info

    show_info(_consoles()[0])


def main() -> None:
    """Run the command line."""
    app()
