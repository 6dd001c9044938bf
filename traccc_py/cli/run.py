"""`traccc-py run`: events from files through the chain, results to files, a table and JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from traccc_py.cli.compilation import compile_missing_kernels
from traccc_py.cli.inputs import (
    EventFile,
    check_event_files,
    check_output_directory,
    find_event_files,
    read_event,
)
from traccc_py.cli.outputs import check_directory, check_file
from traccc_py.cli.report import EventRecord, print_summary, run_report, summarise, write_json
from traccc_py.cli.settings import Settings
from traccc_py.config import ChainConfig
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions

__all__ = ["RunOptions", "make_chain", "run"]

_MILLISECONDS = 1000.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `traccc-py run` was asked for."""

    inputs: Sequence[str]
    kind: str | None = None
    athena_map: Path | None = None
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    settings: Settings = field(default_factory=Settings)
    output: Path | None = None
    device: str = "auto"
    threads: int | None = None
    skip: int = 0
    events: int | None = None
    json: Path | None = None
    compress: bool = False


def make_chain(detector: Any, config: ChainConfig, device: str, threads: int | None, console: Console) -> Any:
    """Return an initialised chain; say what takes long."""
    from traccc_py.chain import TrackingChain

    chain = TrackingChain(detector, config, device=device, threads=threads)
    start = time.perf_counter()
    compile_missing_kernels(chain, console)
    chain.initialize()
    seconds = time.perf_counter() - start
    console.print(f"{describe_device(chain)} ready in {seconds:.1f} s", style="dim")
    return chain


def describe_device(chain: Any) -> str:
    """Return the name of a chain's device and its number of threads, if it has any."""
    threads = getattr(chain.device, "threads", None)
    return f"{chain.device.name} ({counted(threads, 'thread')})" if threads else str(chain.device.name)


def device_facts(chain: Any) -> dict[str, Any]:
    """Return name and number of threads of a chain's device, for the JSON file."""
    return {"name": str(chain.device.name), "threads": getattr(chain.device, "threads", None)}


def run(options: RunOptions, console: Console, log: Console) -> None:
    """Reconstruct events and write what was asked for.

    Parameters
    ----------
    options : RunOptions
        Inputs and settings.
    console : Console
        Where the tables go.
    log : Console
        Where progress goes.

    Raises
    ------
    InputDataError
        If an input can't be used: nothing is written where a file is missing or its header is wrong, else the results
        of the events before it, none of its own.
    ConfigError, GeometryError, DeviceUnavailableError, OSError
        If a setting can't be used, or an output can't be written; nothing is written.
    """
    from traccc_py.data.athena_ids import read_athena_ids

    files = find_event_files(options.inputs, options.skip, options.events, options.kind, log.print)
    _check_outputs(options, files)
    check_event_files(files, has_athena_ids=options.athena_map is not None)
    config = options.settings.load(options.detector.name)
    athena_ids = None if options.athena_map is None else read_athena_ids(options.athena_map)
    detector = options.detector.load()
    chain = make_chain(detector, config, options.device, options.threads, log)
    records = [_run_event(chain, file, options, athena_ids) for file in _with_progress(files, log)]
    summary = summarise(records)
    print_summary(console, records, summary)
    if options.output is not None:
        log.print(f"results of {counted(len(records), 'event')} are in {options.output}", style="dim")
    if options.json is not None:
        write_json(options.json, run_report(records, summary, device_facts(chain), options.detector.label, config))


def _check_outputs(options: RunOptions, files: Sequence[EventFile]) -> None:
    """Raise, before anything is done, for what can't be written."""
    if options.output is not None:
        check_output_directory(options.output, files)
        check_directory(options.output, "--output")
    check_file(options.json, "--json")


def _with_progress(files: Sequence[EventFile], log: Console) -> Iterator[EventFile]:
    columns = (
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task = progress.add_task("", total=len(files))
        for file in files:
            progress.update(task, description=file.path.name)
            yield file
            progress.advance(task)


def _run_event(chain: Any, file: EventFile, options: RunOptions, athena_ids: Any) -> EventRecord:
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
