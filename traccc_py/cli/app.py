"""The commands and their options. Everything that takes time to import is imported by the command that needs it."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.cli.detector_options import takes_detector
from traccc_py.cli.settings import Settings, naming_options, takes_settings
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import TracccError

__all__ = ["app", "main"]

_BAD_INPUT = 2
_FAILURE = 1
_WIDTH_OF_FILES = 120
_LAST_PORT = 65_535
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


def _show_version(is_asked: bool) -> None:
    if is_asked:
        import traccc_py

        typer.echo(f"traccc-py {traccc_py.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _check_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        msg = f"{name!r}; expected auto, cpu, cuda or cuda:N"
        raise typer.BadParameter(msg)
    return name


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

    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    log = Console(stderr=True, **plain)

    class Handler(logging.Handler):  # rich's own breaks lines within paths
        def emit(self, record: logging.LogRecord) -> None:
            log.print(f"traccc-py: {record.levelname.lower()}: {record.getMessage()}")

    logging.getLogger("traccc_py").handlers = [Handler()]
    is_redirected = not sys.stdout.isatty()  # tables in files and pipes need not be narrow
    return Console(width=_WIDTH_OF_FILES if is_redirected else None, **plain), log


@app.command(epilog="traccc's names of cuts, such as --chi2-max, are accepted too: docs/from_traccc.md lists them.")
@_reports_errors
@takes_detector("detector")
@takes_settings("settings")
def run(
    detector: DetectorOptions,
    settings: Settings,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EVENTS...",
            help="Files of cells, measurements or spacepoints (.csv, .csv.gz), directories of them, or quoted globs.",
        ),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the event that comes with the package.")] = False,
    input_directory: Annotated[
        str | None, typer.Option("--input-directory", metavar="DIR", help="A directory, as an argument would be.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--input-kind", help="cells, measurements or spacepoints. (default: by the names of files)"),
    ] = None,
    athena_map: Annotated[
        Path | None,
        typer.Option("--athena-map", metavar="FILE", help="Cells have Athena's identifiers; their map to detray's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--output-directory",
            metavar="DIR",
            help="Write tracks, track states and measurements.",
        ),
    ] = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", "--cpu-threads", min=1, help="CPU threads. (default: all cores)")
    ] = None,
    events: Annotated[
        int | None, typer.Option("--events", "-n", "--input-events", min=1, help="Number of events at most.")
    ] = None,
    skip: Annotated[int, typer.Option("--skip", "--input-skip", min=0, help="Events to leave out at the start.")] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write counts, times, versions and settings.")
    ] = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Reconstruct events: cells, measurements or spacepoints in, fitted tracks out."""
    from traccc_py.cli.run import RunOptions
    from traccc_py.cli.run import run as run_events

    names = [*(inputs or []), *([input_directory] if input_directory else [])]
    if sample:
        from traccc_py.data.sample import sample_event_path

        names.append(str(sample_event_path()))
    if not names:
        msg = "no input: name event files or directories, or use --sample"
        raise typer.BadParameter(msg)
    options = RunOptions(
        inputs=names,
        kind=kind,
        athena_map=athena_map,
        detector=detector,
        settings=settings,
        output=output,
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
@takes_detector("chosen", is_positional=True)
def show(
    chosen: DetectorOptions,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="FILE", help="Draw the r-z and x-y views (.png, .pdf, .svg).")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="DIR", help="Write it as detray JSON and digitisation files.")
    ] = None,
    each: Annotated[bool, typer.Option("--all", help="List each layer.")] = False,
    debug: Debug = False,
) -> None:
    """Show the layers of a detector: radii, sensors, material."""
    from traccc_py.cli.detector import show_detector

    show_detector(chosen, _consoles()[0], draw, write, each=each)


@app.command(name="config")
@_reports_errors
@takes_settings("settings")
def print_config(
    settings: Settings,
    file: Annotated[
        str | None, typer.Argument(metavar="[TOML]", help="Settings to check and complete, or traccc.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Print all settings as TOML, the default ones or those of a file."""
    if file and settings.source:
        msg = f"{file} and --config {settings.source}: expected one of them"
        raise typer.BadParameter(msg)
    typer.echo(dataclasses.replace(settings, source=file or settings.source).load().to_toml(), nl=False)


@app.command()
@_reports_errors
@takes_detector("detector")
def simulate(
    detector: DetectorOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for cells, truth and manifest.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="DIR", help="Only compare a folder with its manifest.")
    ] = None,
    process: Annotated[
        str, typer.Option("--process", help="gun, or collisions by Pythia: minbias, softqcd, ttbar, jets or zmumu.")
    ] = "gun",
    events: Annotated[int, typer.Option("--events", "-n", min=1, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option("--first-event", min=0, help="Number of the first event.")] = 0,
    pileup: Annotated[float, typer.Option("--pileup", metavar="MU", help="Mean number of collisions besides.")] = 0,
    pileup_process: Annotated[
        str, typer.Option("--pileup-process", help="Collisions: process of the others.")
    ] = "minbias",
    pt_hat: Annotated[float, typer.Option("--pt-hat", help="Collisions: smallest pT of the hard one [GeV].")] = 0,
    max_eta: Annotated[float, typer.Option("--max-eta", help="Collisions: |eta| of particles kept.")] = 4,
    min_pt: Annotated[float, typer.Option("--min-pt", help="Collisions: pT of particles kept [GeV].")] = 0.1,
    beam_spot: Annotated[
        tuple[float, float, float], typer.Option("--beam-spot", metavar="X Y Z", help="Collisions: its sigma [mm].")
    ] = (0.01, 0.01, 55),
    particles: Annotated[int, typer.Option("--particles", min=0, help="Gun: particles per event.")] = 10,
    particle: Annotated[str, typer.Option("--particle", help="Gun: electron, muon, pion, kaon or proton.")] = "muon",
    charge: Annotated[str, typer.Option("--charge", help="Gun: negative, positive or random.")] = "random",
    pt: Annotated[tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Gun: range of pT [GeV].")] = (
        1,
        10,
    ),
    log: Annotated[bool, typer.Option("--log", help="Gun: pT uniform in its logarithm.")] = False,
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Gun: range of eta.")] = (
        -2.5,
        2.5,
    ),
    phi: Annotated[
        tuple[float, float], typer.Option("--phi", metavar="MIN MAX", help="Gun: range of phi [degrees].")
    ] = (-180, 180),
    vertex_sigma: Annotated[
        tuple[float, float, float], typer.Option("--vertex-sigma", metavar="X Y Z", help="Gun: its vertices [mm].")
    ] = (0.0125, 0.0125, 55),
    no_material: Annotated[bool, typer.Option("--no-material", help="No interactions with material.")] = False,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="Switch off an interaction with material.")
    ] = None,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="No charge noise.")] = False,
    noise_cells: Annotated[
        tuple[float, float],
        typer.Option("--noise-cells", metavar="P2D P1D", help="Chance of a channel to fire by itself, 2D and 1D."),
    ] = (0, 0),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace events in the folder that were made in another way.")
    ] = False,
    seed: Seed = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; files don't depend on it.")] = 1,
    threads: Threads = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Simulate events, of a particle gun or collisions with pile-up: cells, truth and a manifest."""
    from traccc_py.cli.simulate import OPTIONS_OF_SOURCES, check_sample
    from traccc_py.cli.simulate import simulate as simulate_events
    from traccc_py.simulation.generator import ParticleGunConfig
    from traccc_py.simulation.pileup import CollisionConfig
    from traccc_py.simulation.samples import SampleConfig
    from traccc_py.simulation.transport import TransportConfig
    from traccc_py.units import degree

    console, messages = _consoles()
    if check is not None:
        check_sample(check, console)
        return
    if output is None:
        msg = "no folder: name one with --output DIR, or one to check with --check DIR"
        raise typer.BadParameter(msg)
    source: ParticleGunConfig | CollisionConfig
    with naming_options(OPTIONS_OF_SOURCES):
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
        if process == "gun" and pileup == 0:
            source, transport = gun, TransportConfig()
        else:
            source = CollisionConfig(
                process,
                pileup,
                pileup_process,
                pt_hat_min=pt_hat,
                max_eta=max_eta,
                min_pt=min_pt,
                vertex_sigma=beam_spot,
                gun=gun if process == "gun" else None,
            )
            transport = TransportConfig.of_collisions()
        config = SampleConfig(
            source=source,
            seed=seed,
            transport=TransportConfig.without_material() if no_material else transport.without(*(without or ())),
            smearing=not no_noise,
            noise=noise_cells,
            compress=compress,
        )
    simulate_events(
        output,
        detector,
        config,
        events,
        console,
        messages,
        first_event=first_event,
        workers=workers,
        threads=threads,
        overwrite=overwrite,
    )


@app.command()
@_reports_errors
@takes_detector("chosen", is_positional=True)
def calibrate(
    chosen: DetectorOptions,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Simulated muons.")] = 100_000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write. (default: the package)")
    ] = None,
    seed: Seed = 20_240_501,
    debug: Debug = False,
) -> None:
    """Make the table of measurement variances by cluster size."""
    from traccc_py.cli.outputs import check_file
    from traccc_py.cli.simulate import calibrate as make_table

    check_file(output, "--output")
    make_table(chosen.load(), particles, seed, output, _consoles()[0])


@app.command()
@_reports_errors
@takes_detector("detector")
def performance(
    detector: DetectorOptions,
    sample: Annotated[
        list[Path] | None,
        typer.Option("--sample", metavar="DIR", help="Reconstruct the events of 'simulate'; several: also versus mu."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="DIR", help="Folder with hits, particles and measurement links.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--tracks", metavar="DIR", help="Folder with tracks: of 'run', or traccc's tables.")
    ] = None,
    tracks_kind: Annotated[
        str | None,
        typer.Option("--tracks-kind", help="own, fitted, resolved, found or seeds. (default: the first found)"),
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option("--compare", metavar="LABEL=DIR[:KIND]", help="Tracks to show beside them.")
    ] = None,
    definition: Annotated[str, typer.Option("--definition", help="traccc or acts.")] = "traccc",
    matching_ratio: Annotated[
        float | None, typer.Option("--matching-ratio", help="Smallest purity, and completeness. (default: 0.5)")
    ] = None,
    single_matching: Annotated[bool, typer.Option("--single-matching", help="Do not ask for completeness.")] = False,
    seed_matching_ratio: Annotated[
        float | None, typer.Option("--seed-matching-ratio", help="Purity of seeds. (default: the definition's)")
    ] = None,
    require_fit: Annotated[bool, typer.Option("--require-fit", help="Leave out tracks whose fit failed.")] = False,
    min_pt: Annotated[float | None, typer.Option("--min-pt", help="Particles: pT [GeV]. (default: 0.5)")] = None,
    max_eta: Annotated[float | None, typer.Option("--max-eta", help="Particles: |eta|. (default: 3)")] = None,
    min_z: Annotated[float | None, typer.Option("--min-z", help="Particles: z [mm]. (default: -500)")] = None,
    max_z: Annotated[float | None, typer.Option("--max-z", help="Particles: z [mm]. (default: 500)")] = None,
    max_r: Annotated[float | None, typer.Option("--max-r", help="Particles: radius [mm]. (default: 200)")] = None,
    process: Annotated[
        int | None, typer.Option("--process", help="Particles: process; negative: any. (default: 0)")
    ] = None,
    min_measurements: Annotated[
        int | None, typer.Option("--min-measurements", min=0, help="Particles: measurements. (default: 3)")
    ] = None,
    min_modules: Annotated[
        int | None, typer.Option("--min-modules", min=0, help="Particles: different modules. (default: 0)")
    ] = None,
    min_pixel_layers: Annotated[
        int | None, typer.Option("--min-pixel-layers", min=0, help="Particles: pixel layers of the ODD. (default: 0)")
    ] = None,
    any_charged: Annotated[
        bool, typer.Option("--any-charged", help="Particles: all kinds, not electrons, muons and pions alone.")
    ] = False,
    truth_side: Annotated[
        str, typer.Option("--truth-side", help="Side of the first surface's material: outgoing or incoming.")
    ] = "outgoing",
    events: Annotated[
        int | None, typer.Option("--events", "-n", min=1, help="Number of events. (default: 10, or all there are)")
    ] = None,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Simulation: particles per event.")] = 100,
    particle: Annotated[
        str, typer.Option("--particle", help="Simulation: kind and mass hypothesis: muon, pion, electron.")
    ] = "muon",
    pt: Annotated[
        tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Simulation: range of pT [GeV].")
    ] = (10, 10),
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Simulation: range of eta.")] = (
        -2.5,
        2.5,
    ),
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = None,
    per_bin: Annotated[bool, typer.Option("--per-bin", help="Print tables versus eta, phi and pT.")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Draw plots.")] = None,
    plot_format: Annotated[str, typer.Option("--plot-format", help="png, pdf or svg.")] = "png",
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write tables and plots as one page of HTML.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers.")] = None,
    seed: Seed = 1,
    debug: Debug = False,
) -> None:
    """Compare tracks with the truth: efficiency, duplicates, fakes, pulls; simulated now, or from files."""
    from traccc_py.cli.performance import Evaluation, Gun, run_performance

    cuts: dict[str, Any] = {
        "min_pt": min_pt,
        "max_eta": max_eta,
        "min_z": min_z,
        "max_z": max_z,
        "max_r": max_r,
        "process": process,
        "min_measurements": min_measurements,
        "min_modules": min_modules,
        "min_pixel_layers": min_pixel_layers,
        "particle_types": () if any_charged else None,
    }
    evaluation = Evaluation(
        definition=definition,
        matching_ratio=matching_ratio,
        double_matching=not single_matching,
        seed_matching_ratio=seed_matching_ratio,
        require_fit=require_fit,
        cuts={name: value for name, value in cuts.items() if value is not None},
        truth_side=truth_side,
        detector=detector,
        events=events,
        samples=tuple(sample or ()),
        truth=truth,
        tracks=tracks,
        tracks_kind=tracks_kind,
        compare=tuple(compare or ()),
        per_bin=per_bin,
        plots=plots,
        plot_format=plot_format,
        report=report,
        json=json,
    )
    gun = Gun(particles, particle, pt, eta, seed, config, device, threads)
    run_performance(evaluation, gun, *_consoles())


@app.command(name="compile")
@_reports_errors
@takes_detector("detector")
def compile_kernels(
    detector: DetectorOptions,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Compile all kernels ahead, into the cache on disk."""
    from traccc_py.cli.run import make_chain
    from traccc_py.config import ChainConfig
    from traccc_py.device.cache import cache_root

    _, log = _consoles()
    make_chain(detector.load(), ChainConfig(), device, threads, log)
    typer.echo(f"compiled kernels are in {cache_root()}")


@app.command()
@_reports_errors
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
