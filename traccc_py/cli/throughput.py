"""`traccc-py throughput`: events per second of the chain, as traccc's throughput programs measure them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import KINDS, EventFile, check_event_files, check_file, find_event_files
from traccc_py.cli.options import Device, Option, command, consoles, options_of
from traccc_py.cli.settings import SETTINGS, ChosenSettings
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.settings import Choice, Count, PositiveCount, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from traccc_py.studies.throughput import ThroughputPlan, ThroughputRound

__all__ = ["throughput"]

_WAYS = ("chains", "threads", "batches")
_MEANINGS = {"chains": "a chain per thread", "threads": "one chain, all threads", "batches": "batches, all threads"}


def _ways(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in _WAYS]
    if unknown:
        msg = f"--ways has {unknown[0]!r}; expected some of {', '.join(_WAYS)}, with commas between"
        raise ConfigError(msg)
    return names


@dataclass(frozen=True, slots=True)
class _ThroughputOptions(Settings):
    #: files of cells, measurements, spacepoints (.csv, .csv.gz) or hits (.parquet), directories of them, or globs
    inputs: Annotated[tuple[str, ...], Option(metavar="EVENTS...", is_argument=True)] = ()
    sample: bool = False  #: use the event that comes with the package
    input_directory: Annotated[str | None, Option(metavar="DIR")] = None  #: a directory, as an argument would be
    #: what files hold; by default by their names, or columns
    input_kind: Annotated[str, Choice((*KINDS, "tracker_hits"))] | None = None
    device: Device = "auto"
    #: CPU threads, and chains of the way `chains`; by default all cores
    threads: Annotated[PositiveCount | None, Option("--threads", "--cpu-threads")] = None
    #: number of events at most, all kept in memory
    events: Annotated[PositiveCount | None, Option("--events", "-n", "--input-events")] = None
    skip: Annotated[Count, Option("--skip", "--input-skip")] = 0  #: events to leave out at the start
    cold_run_events: Count = 10  #: events before the timed loop; each chain has at least one
    processed_events: PositiveCount = 100  #: events of the timed loop
    #: seed of a random order of the events; by default they come in turn
    seed: Annotated[Count | None, Option("--seed", "--random-seed")] = None
    #: some of chains (one per thread), threads (one chain with all), batches (one chain, several events at a time)
    ways: Annotated[tuple[str, ...], Option(kind=str, metavar="WAYS", convert=_ways, default=None)] = _WAYS
    batch_events: PositiveCount = 8  #: events of a batch
    repeats: PositiveCount = 3  #: times each way is measured, in turn
    with_reading: bool = False  #: measure each way again with the files read in the loop
    json: Annotated[Path | None, Option(metavar="FILE")] = None  #: write all loops, and what they depend on
    #: add a line for each loop, in the form of traccc's log file
    log_file: Annotated[Path | None, Option(metavar="FILE")] = None

    def names(self) -> list[str]:
        """Return the names of files and directories."""
        names = [*self.inputs, *([self.input_directory] if self.input_directory else [])]
        if self.sample:
            from traccc_py.data.sample import sample_event_path

            names.append(str(sample_event_path()))
        if not names:
            msg = "no input: name event files or directories, or use --sample"
            raise InputDataError(msg)
        return names


@command(detector=DETECTOR, settings=SETTINGS, options=options_of(_ThroughputOptions))
def throughput(detector: DetectorOptions, settings: ChosenSettings, options: _ThroughputOptions) -> None:
    """Measure events per second of the chain: a chain per thread, one with all threads, batches."""
    from traccc_py.cli.compilation import make_chain
    from traccc_py.studies.throughput import ThroughputPlan, measure_throughput

    console, log = consoles()
    names = options.names()
    files = find_event_files(names, options.skip, options.events, options.input_kind, log.print, with_tables=True)
    check_event_files(files)
    check_file(options.json, "--json")
    check_file(options.log_file, "--log-file")
    chain = make_chain(detector.load(), settings.load(), options.device, options.threads, log)
    plan = ThroughputPlan(
        threads=options.threads or int(getattr(chain.device, "threads", 1)),
        **{name: getattr(options, name) for name in _PLANNED},
    )
    log.print(f"{counted(len(files), 'event')}, loops of {plan.processed_events}", style="dim")
    reading_seconds, rounds = measure_throughput(
        chain,
        _reader_maker(chain.detector, files),
        len(files),
        plan,
        with_reading=options.with_reading,
        on_round=lambda done: log.print(f"{_label(done)}: {done.events_per_second:.2f} events/s", style="dim"),
    )
    _print(console, reading_seconds, rounds)
    if options.log_file is not None:
        _append_log(options.log_file, names, len(files), plan, rounds)
    if options.json is not None:
        _write_json(options.json, chain, detector.label, files, plan, reading_seconds, rounds)


_PLANNED = ("cold_run_events", "processed_events", "batch_events", "repeats", "seed", "ways")


def _reader_maker(detector: Any, files: Sequence[EventFile]) -> Callable[[], Callable[[int], Any]]:
    """Return what makes readers of events by their place."""
    from traccc_py.cli.event_reader import EventReader

    def make() -> Callable[[int], Any]:
        reader = EventReader(detector)
        return lambda number: reader.read(files[number]).event

    return make


def _label(done: ThroughputRound) -> str:
    return _MEANINGS[done.way] + (", with reading" if done.with_reading else "")


def _by_label(rounds: Sequence[ThroughputRound]) -> dict[str, list[ThroughputRound]]:
    found: dict[str, list[ThroughputRound]] = {}
    for done in rounds:
        found.setdefault(_label(done), []).append(done)
    return found


def _print(console: Console, reading_seconds: float, rounds: Sequence[ThroughputRound]) -> None:
    """Print what traccc's programs print, for each way with its spread."""
    from rich.table import Table

    from traccc_py.studies.throughput import spread_of

    console.print(f"Reconstructed track parameters: {rounds[0].n_tracks} in {counted(rounds[0].n_events, 'event')}")
    console.print(f"File reading: {1e3 * reading_seconds:.0f} ms")
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("", "events/s", "least", "most", "ms/event", "cores busy", "warm-up ms"):
        table.add_column(name, justify="right" if name else "left")
    for label, found in _by_label(rounds).items():
        rate = spread_of([done.events_per_second for done in found])
        cores = spread_of([done.processor_seconds / done.wall_seconds for done in found])["median"]
        warm_up = spread_of([1e3 * done.warm_up_seconds for done in found])["median"]
        rates = [f"{rate[name]:.2f}" for name in ("median", "least", "most")]
        table.add_row(label, *rates, f"{1e3 / rate['median']:.2f}", f"{cores:.2f}", f"{warm_up:.0f}")
    console.print(table)


def _append_log(
    path: Path, names: Sequence[str], n_events: int, plan: ThroughputPlan, rounds: Sequence[ThroughputRound]
) -> None:
    """Add lines of traccc's log: folder, threads, events, cold and timed ones, nanoseconds of warm-up and loop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for done in rounds:
            numbers = (plan.threads, n_events, plan.cold_run_events, plan.processed_events)
            times = (round(1e9 * done.warm_up_seconds), round(1e9 * done.wall_seconds))
            file.write(f'"{names[0]}",{",".join(map(str, (*numbers, *times)))}\n')


def _write_json(
    path: Path,
    chain: Any,
    label: str,
    files: Sequence[EventFile],
    plan: ThroughputPlan,
    reading_seconds: float,
    rounds: Sequence[ThroughputRound],
) -> None:
    from dataclasses import asdict

    from traccc_py.cli.compilation import device_facts
    from traccc_py.cli.report import write_json
    from traccc_py.environment import environment
    from traccc_py.studies.throughput import spread_of

    rates = {label: spread_of([done.events_per_second for done in found]) for label, found in _by_label(rounds).items()}
    content = {
        **environment(),
        "device": device_facts(chain),
        "detector": label,
        "config": chain.config.to_dict(),
        "files": [str(file.path) for file in files],
        "plan": {**asdict(plan), "ways": list(plan.ways)},
        "reading_seconds": reading_seconds,
        "events_per_second": rates,
        "rounds": [done.to_dict() for done in rounds],
    }
    write_json(path, content)
