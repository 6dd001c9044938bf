"""Commands of the chain, its settings and its detector; options only, what they do is in the files of their names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from traccc_py.cli.common import Compress, Debug, Device, Threads, consoles, reports_errors
from traccc_py.cli.detector_options import takes_detector
from traccc_py.cli.settings import Settings, takes_settings
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions

__all__ = ["compile_kernels", "info", "print_config", "run", "show"]


@reports_errors
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
    run_events(options, *consoles())


@reports_errors
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

    show_detector(chosen, consoles()[0], draw, write, each=each)


@reports_errors
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


@reports_errors
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
    from traccc_py.device.cache import cache_root, unkept

    _, log = consoles()
    make_chain(detector.load(), ChainConfig(), device, threads, log)
    if unkept():
        msg = f"{cache_root()}: {counted(len(unkept()), 'file')} could not be written; the kernels are not kept"
        raise OSError(msg)
    typer.echo(f"compiled kernels are in {cache_root()}")


@reports_errors
def info(debug: Debug = False) -> None:
    """Show versions, devices, detectors and caches."""
    from traccc_py.cli.system import show_info

    show_info(consoles()[0])
