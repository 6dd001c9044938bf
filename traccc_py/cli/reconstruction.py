"""`traccc-py run`, `config`, `compile` and `info`: the chain, its settings, its kernels, what it runs on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import (
    KINDS,
    TRACKML_KINDS,
    EventFile,
    check_directory,
    check_event_files,
    check_file,
    check_output_directory,
    find_event_files,
)
from traccc_py.cli.options import Compress, Device, Option, Threads, command, consoles, options_of
from traccc_py.cli.run_record import RunRecord, Shard
from traccc_py.cli.settings import SETTINGS, ChosenSettings
from traccc_py.config import ChainConfig
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.settings import Choice, Count, PositiveCount, Settings

if TYPE_CHECKING:
    from traccc_py.cli.report import EventRecord
    from traccc_py.cli.run_events import EventRunner
    from traccc_py.data.event_output import EventOutput

__all__ = ["RunOptions", "compile_kernels", "config", "groups_of", "info", "output_of", "record_of", "run"]

_BYTES_PER_MB = 1e6
#: Modules and purpose of each optional part.
_EXTRAS = {
    "simulation": (("particle", "pythia8mc"), "collisions"),
    "plots": (("matplotlib", "mplhep"), "plots and reports"),
    "tune": (("optuna",), "search of settings"),
    "display": (("plotly",), "event display"),
    "parquet": (("pyarrow",), "Parquet files, to_arrow"),
    "root": (("uproot", "awkward"), "ROOT files"),
    "hepmc": (("pyhepmc",), "HepMC3"),
    "awkward": (("awkward", "pyarrow"), "to_awkward"),
    "client": (("tritonclient",), "client of the service"),
    "dask": (("distributed",), "events by a cluster of Dask"),
}
_INTERRUPTED = 130  #: exit code after Ctrl-C
_KINDS = ("tracks", "track_states", "measurements", "seeds", "submission")
#: Kinds of results by the form of their files.
_FORMS = {"csv": _KINDS, "parquet": _KINDS[:4], "root": _KINDS[:2]}
_OPTIONAL = ("seeds", "submission")  #: kinds that are written only if they are named


def _shard(text: str) -> Shard:
    """Return the shard that a text names."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        msg = f"--shard is {text!r}; expected I/N with I from 0 to N - 1, such as 0/4"
        raise ConfigError(msg)
    return Shard(int(found[1]), int(found[2]))


def _kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of results that a text names."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in _KINDS]
    if unknown:
        msg = f"--outputs has {unknown[0]!r}; expected some of {', '.join(_KINDS)}, with commas between"
        raise ConfigError(msg)
    return names


@dataclass(frozen=True, slots=True)
class RunOptions(Settings):
    """What `traccc-py run` is asked for."""

    #: files of cells, measurements, spacepoints, prototracks (.csv, .csv.gz) or hits (.parquet), directories, or globs
    inputs: Annotated[tuple[str, ...], Option(metavar="EVENTS...", is_argument=True)] = ()
    sample: bool = False  #: use the event that comes with the package
    input_directory: Annotated[str | None, Option(metavar="DIR")] = None  #: a directory, as an argument would be
    #: what files hold; by default by their names, or columns
    input_kind: Annotated[str, Choice((*KINDS, *TRACKML_KINDS, "tracker_hits"))] | None = None
    #: cells have Athena's identifiers: the file that maps them to detray's
    athena_map: Annotated[Path | None, Option(metavar="FILE")] = None
    #: write results to a folder, not that of the input
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
    #: form of the results; other than csv, which has a file for each event, in files of many
    format: Annotated[str, Choice(tuple(_FORMS))] = "csv"
    #: which results, with commas: tracks, track_states, measurements; by default these; seeds, submission (TrackML)
    outputs: Annotated[tuple[str, ...], Option(kind=str, metavar="KINDS", convert=_kinds, default=None)] = ()
    events_per_file: PositiveCount = 100  #: range of event numbers of a file, except of csv
    resume: bool = False  #: leave out events that a run like this one has completed in the folder of results
    #: which part of the events: I/N with I from 0 to N - 1; all have one folder, and the last writes its manifest
    shard: Annotated[Shard | None, Option(kind=str, metavar="I/N", convert=_shard)] = None
    workers: PositiveCount = 1  #: processes that reconstruct events, with a thread each; results don't depend on it

    def _check_together(self) -> None:
        if self.resume and self.output is None:
            self._reject("resume", "an --output, whose events it leaves out")
        if self.shard is not None and self.output is None:
            self._reject("shard", "an --output, which all shards have in common")
        if self.compress and self.format != "csv":
            self._reject("compress", "--format csv; others are compressed by themselves")
        missing = [kind for kind in self.outputs if kind not in _FORMS[self.format]]
        if missing:
            self._reject("outputs", f"some of {', '.join(_FORMS[self.format])}, which --format {self.format} has")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of results."""
        return self.outputs or tuple(kind for kind in _FORMS[self.format] if kind not in _OPTIONAL)

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
    from traccc_py.cli.event_reader import EventReader
    from traccc_py.cli.report import print_summary, run_report, summarise, write_json
    from traccc_py.cli.run_events import EventRunner
    from traccc_py.data.athena_ids import read_athena_ids

    console, log = consoles()
    files = find_event_files(
        options.all_inputs(), options.skip, options.events, options.input_kind, log.print, with_tables=True
    )
    files = _files_of_shard(files, options)
    _check_outputs(options, files)
    check_event_files(files, has_athena_ids=options.athena_map is not None)
    chosen = settings.load()
    athena_ids = None if options.athena_map is None else read_athena_ids(options.athena_map)
    threads = options.threads if options.workers == 1 else options.threads or 1
    chain = make_chain(detector.load(), chosen, options.device, threads, log)
    if options.workers > 1 and chain.device.name != "cpu":
        msg = f"--workers is {options.workers}, but the device is {chain.device.name}; expected --device cpu"
        raise ConfigError(msg)
    if options.format == "parquet" or any(file.row is not None for file in files):
        from traccc_py.data.parquet_files import use_plain_memory

        use_plain_memory()
    runner = EventRunner(chain, EventReader(chain.detector, athena_ids), output_of(options))
    records = _run_all(runner, files, options, record_of(options, chain, detector), log)
    if not records:
        return
    summary = summarise(records)
    print_summary(console, records, summary)
    if options.output is not None:
        log.print(f"results of {counted(len(records), 'event')} are in {options.output}", style="dim")
    if options.json is not None:
        write_json(options.json, run_report(records, summary, device_facts(chain), detector.label, chain.config))


def _check_outputs(options: RunOptions, files: Sequence[EventFile]) -> None:
    """Raise, before anything is done, for what can't be written."""
    of_others = next((file.path for file in files if file.kind not in TRACKML_KINDS), None)
    if "submission" in options.outputs and of_others is not None:
        msg = f"--outputs has submission, which is for hits of TrackML; {of_others} has none"
        raise ConfigError(msg)
    if options.output is not None:
        check_output_directory(options.output, files)
        check_directory(options.output, "--output")
    check_file(options.json, "--json")


def groups_of(files: Sequence[EventFile], options: RunOptions) -> list[list[EventFile]]:
    """Return events whose files become complete together: each alone, or those of a range of numbers."""
    if options.output is None or options.format == "csv":
        return [[file] for file in files]
    by_range: dict[int, list[EventFile]] = {}
    for file in sorted(files, key=lambda file: file.event):
        by_range.setdefault(file.event // options.events_per_file, []).append(file)
    return list(by_range.values())


def _files_of_shard(files: list[EventFile], options: RunOptions) -> list[EventFile]:
    """Return the events of a shard: whole groups, so that no two shards write a file."""
    if options.shard is None:
        return files
    number, n_shards = options.shard
    return [file for group in groups_of(files, options)[number::n_shards] for file in group]


def output_of(options: RunOptions) -> EventOutput | None:
    """Return what writes the results."""
    from traccc_py.data.event_output import CsvOutput, ParquetOutput

    if options.output is None:
        return None
    if options.format == "csv":
        return CsvOutput(options.output, options.kinds, compress=options.compress)
    if options.format == "root":
        from traccc_py.data.root_output import RootOutput

        return RootOutput(options.output, options.kinds, options.events_per_file)
    return ParquetOutput(options.output, options.kinds, options.events_per_file)


def record_of(options: RunOptions, chain: Any, detector: DetectorOptions) -> RunRecord | None:
    """Return the record of the results' folder."""
    from traccc_py.environment import versions

    if options.output is None:
        return None
    form = {name: getattr(options, name) for name in ("format", "kinds", "compress", "events_per_file")}
    if options.format == "csv":
        del form["events_per_file"]
    found = chain.detector
    about = {
        "name": detector.label,
        "fingerprint": found.fingerprint,
        "digitization": found.digitization.name,
        "field": found.b_field_z,
    }
    recipe = {"detector": about, "config": chain.config.to_dict(), "output": form, "versions": versions()}
    return RunRecord(options.output, recipe, options.shard)


def _run_all(
    runner: EventRunner, files: Sequence[EventFile], options: RunOptions, record: RunRecord | None, log: Any
) -> list[EventRecord]:
    """Run all events; tell, if they are stopped, which are complete."""
    from traccc_py.cli.report import progress_of
    from traccc_py.cli.run_events import run_groups

    done = set() if record is None else set(record.begin(resume=options.resume))
    if runner.output is not None:
        done = {event for event in done if all(path.exists() for path in runner.output.files_of(event))}
    left = [file for file in files if file.event not in done]
    if len(left) < len(files):
        log.print(f"{counted(len(files) - len(left), 'event')} of {len(files)} are complete, and left out")
    records: list[EventRecord] = []
    try:
        with progress_of(len(left), log) as advance:
            for group in run_groups(runner, groups_of(left, options), options.workers):
                records += group
                if record is not None:
                    record.add([of_event.facts() for of_event in group])
                advance(len(group))
    except KeyboardInterrupt:
        where = f" in {options.output}; --resume goes on" if options.output is not None else ""
        log.print(f"\nstopped: {len(records)} of {counted(len(left), 'event')} complete{where}")
        raise typer.Exit(_INTERRUPTED) from None
    if record is not None:
        record.finish()
    place = {file.event: k for k, file in enumerate(files)}
    return sorted(records, key=lambda of_event: place[of_event.event])


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

    from traccc_py.device.cache import cache_root
    from traccc_py.environment import versions
    from traccc_py.geometry import detector_names

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for package, version in versions().items():
        table.add_row(package, version)
    for name, found in _devices():
        table.add_row(name, found)
    table.add_row("detectors", ", ".join(detector_names()))
    for extra, (modules, purpose) in _EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        found = "installed" if not missing else f'not installed: pip install "traccc-py[{extra}]"'
        table.add_row(extra, f"{purpose}: {found}")
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
