"""`traccc-py run`, `config`, `compile` and `info`: the chain, its settings, its kernels, what it runs on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import (
    KINDS,
    EventFile,
    check_directory,
    check_event_files,
    check_file,
    check_output_directory,
    find_event_files,
    read_event,
)
from traccc_py.cli.options import Compress, Device, Option, Threads, command, consoles, options_of
from traccc_py.cli.settings import SETTINGS, ChosenSettings
from traccc_py.config import ChainConfig
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.settings import Choice, Count, PositiveCount, Settings

if TYPE_CHECKING:
    from traccc_py.cli.report import EventRecord

__all__ = ["RunOptions", "compile_kernels", "config", "info", "run"]

_MILLISECONDS = 1000.0
_BYTES_PER_MB = 1e6


@dataclass(frozen=True, slots=True)
class RunOptions(Settings):
    """What `traccc-py run` is asked for."""

    #: files of cells, measurements or spacepoints (.csv, .csv.gz), directories of them, or quoted globs
    inputs: Annotated[tuple[str, ...], Option(metavar="EVENTS...", is_argument=True)] = ()
    sample: bool = False  #: use the event that comes with the package
    input_directory: Annotated[str | None, Option(metavar="DIR")] = None  #: a directory, as an argument would be
    input_kind: Annotated[str, Choice(tuple(KINDS))] | None = None  #: what files hold; by default by their names
    #: cells have Athena's identifiers: the file that maps them to detray's
    athena_map: Annotated[Path | None, Option(metavar="FILE")] = None
    #: write tracks, track states and measurements to a folder, not that of the input
    output: Annotated[Path | None, Option("--output", "-o", "--output-directory", metavar="DIR")] = None
    device: Device = "auto"
    #: CPU threads; by default all cores
    threads: Annotated[PositiveCount | None, Option("--threads", "--cpu-threads")] = None
    #: number of events at most
    events: Annotated[PositiveCount | None, Option("--events", "-n", "--input-events")] = None
    skip: Annotated[Count, Option("--skip", "--input-skip")] = 0  #: events to leave out at the start
    #: write counts, times, versions, device and settings
    json: Annotated[Path | None, Option(metavar="FILE")] = None
    compress: Compress = False

    def all_inputs(self) -> list[str]:
        """Return the names of files and directories.

        Raises
        ------
        InputDataError
            If there is none.
        """
        names = [*self.inputs, *([self.input_directory] if self.input_directory else [])]
        if self.sample:
            from traccc_py.data.sample import sample_event_path

            names.append(str(sample_event_path()))
        if not names:
            msg = "no input: name event files or directories, or use --sample"
            raise InputDataError(msg)
        return names


@command(detector=DETECTOR, settings=SETTINGS, options=options_of(RunOptions))
def run(detector: DetectorOptions, settings: ChosenSettings, options: RunOptions) -> None:
    """Reconstruct events: cells, measurements or spacepoints in, fitted tracks out.

    traccc's names of cuts, such as --chi2-max, are accepted too: docs/from_traccc.md lists them.
    """
    from traccc_py.cli.compilation import device_facts, make_chain
    from traccc_py.cli.report import print_summary, run_report, summarise, with_progress, write_json
    from traccc_py.data.athena_ids import read_athena_ids

    console, log = consoles()
    files = find_event_files(options.all_inputs(), options.skip, options.events, options.input_kind, log.print)
    _check_outputs(options, files)
    check_event_files(files, has_athena_ids=options.athena_map is not None)
    chosen = settings.load()
    athena_ids = None if options.athena_map is None else read_athena_ids(options.athena_map)
    chain = make_chain(detector.load(), chosen, options.device, options.threads, log)
    records = [_run_event(chain, file, options, athena_ids) for file in with_progress(files, log)]
    summary = summarise(records)
    print_summary(console, records, summary)
    if options.output is not None:
        log.print(f"results of {counted(len(records), 'event')} are in {options.output}", style="dim")
    if options.json is not None:
        write_json(options.json, run_report(records, summary, device_facts(chain), detector.label, chain.config))


def _check_outputs(options: RunOptions, files: Sequence[EventFile]) -> None:
    """Raise, before anything is done, for what can't be written."""
    if options.output is not None:
        check_output_directory(options.output, files)
        check_directory(options.output, "--output")
    check_file(options.json, "--json")


def _run_event(chain: Any, file: EventFile, options: RunOptions, athena_ids: Any) -> EventRecord:
    from traccc_py.cli.report import EventRecord
    from traccc_py.data.track_files import write_event_result

    begin = time.perf_counter()
    event, source = read_event(file, athena_ids)
    read = time.perf_counter()
    result = chain.run(event, source)
    done = time.perf_counter()
    if options.output is not None:
        write_event_result(options.output, file.event, result, compress=options.compress)
    return EventRecord(
        event=file.event,
        file=str(file.path),
        kind=file.kind,
        counts=result.counts(),
        stage_milliseconds=dict(result.stage_milliseconds),
        read_milliseconds=_MILLISECONDS * (read - begin),
        total_milliseconds=_MILLISECONDS * (done - read),
        write_milliseconds=_MILLISECONDS * (time.perf_counter() - done),
    )


@dataclass(frozen=True, slots=True)
class _ConfigOptions:
    #: settings to check and complete, or traccc
    file: Annotated[str | None, Option(metavar="[TOML]", is_argument=True)] = None


@command(detector=DETECTOR, settings=SETTINGS, options=options_of(_ConfigOptions))
def config(detector: DetectorOptions, settings: ChosenSettings, options: _ConfigOptions) -> None:
    """Print all settings as TOML, the default ones or those of a file; for a detector also what follows from it.

    What is printed can be given back as --config.
    """
    if options.file and settings.source:
        msg = f"{options.file} and --config {settings.source}: expected one of them"
        raise ConfigError(msg)
    chosen = dataclasses.replace(settings, source=options.file or settings.source).load()
    reasons: dict[str, str] = {}
    if detector != DetectorOptions():
        from traccc_py.derivation import derive

        found = detector.load()
        chosen, derived = derive(chosen, found)
        reasons = {setting: f"of {found.name}: {why}" for setting, _, why in derived}
    typer.echo(chosen.to_toml(reasons), nl=False)


@dataclass(frozen=True, slots=True)
class _CompileOptions(Settings):
    device: Device = "auto"
    #: architecture of GPUs that need not be here, such as sm_90; may be repeated
    arch: Annotated[tuple[str, ...], Option(metavar="SM")] = ()
    threads: Threads = None

    def _check_together(self) -> None:
        if self.arch and self.device not in ("auto", "cuda"):
            self._reject("device", "cuda, since --arch names GPUs that need not be here")


@command(detector=DETECTOR, options=options_of(_CompileOptions))
def compile_kernels(detector: DetectorOptions, options: _CompileOptions) -> None:
    """Compile all kernels ahead, into the cache on disk."""
    from traccc_py.cli.compilation import compile_for_gpus, make_chain, parse_architecture
    from traccc_py.device.cache import cache_root, unkept

    console, log = consoles()
    capabilities = list(dict.fromkeys(map(parse_architecture, options.arch)))
    chosen = ChainConfig()
    if capabilities:
        from traccc_py.device.cpu.executor import CpuDevice

        compile_for_gpus(detector.load(), chosen, capabilities, CpuDevice(options.threads).threads, log)
    else:
        make_chain(detector.load(), chosen, options.device, options.threads, log)
    if unkept():
        msg = f"{cache_root()}: {counted(len(unkept()), 'file')} could not be written; the kernels are not kept"
        raise OSError(msg)
    console.print(f"compiled kernels are in {cache_root()}")


@command()
def info() -> None:
    """Show versions, devices, detectors and caches."""
    from rich.table import Table

    from traccc_py.cli.report import versions
    from traccc_py.device.cache import cache_root
    from traccc_py.geometry import detector_names

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    for name, found in _devices():
        table.add_row(name, found)
    table.add_row("detectors", ", ".join(detector_names()))
    root = cache_root()
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    table.add_row("cache", f"{root} ({size / _BYTES_PER_MB:.1f} MB)")
    consoles()[0].print(table)


def _devices() -> list[tuple[str, str]]:
    """Return what can be used, and why the rest can't."""
    from traccc_py.device import get_device
    from traccc_py.errors import DeviceUnavailableError

    devices: list[tuple[str, str]] = [("cpu", counted(getattr(get_device("cpu"), "threads", 1), "thread"))]
    try:
        gpu = get_device("cuda")
        devices.append(("cuda", str(getattr(gpu, "description", gpu.name))))
    except DeviceUnavailableError as error:
        devices.append(("cuda", f"not available: {error}"))
    return devices
