"""Work of `traccc-py client` and `perf-data`: events from files to a server or to input of perf_analyzer."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from traccc_py import wire
from traccc_py.cli.files import (
    EventFile,
    check_directory,
    check_event_files,
    check_figure,
    check_file,
    find_event_files,
)
from traccc_py.cli.service import ClientRunOptions, PerfDataOptions
from traccc_py.client import TrackingClient
from traccc_py.client.settings import ConnectionSettings
from traccc_py.data.csv_events import event_file_name, read_cells
from traccc_py.data.csv_table import format_table
from traccc_py.data.words import counted
from traccc_py.edm import PHI, QOP, THETA, Cells, columns_of
from traccc_py.errors import ServiceError, TracccError
from traccc_py.files import write_files
from traccc_py.studies.perf_analyzer import perf_analyzer_data
from traccc_py.wire import TRACK_TENSORS, ServedTracks

__all__ = ["reconstruct_remotely", "write_perf_data"]

_MAX_FAILURES = 3  #: events in a row that the server does not answer; then it is taken for dead
_MAX_ROWS = 20  #: events listed one by one


@dataclass(slots=True)
class _Totals:
    """What was received."""

    rows: list[tuple[EventFile, int, ServedTracks | TracccError]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tracks(self) -> list[ServedTracks]:
        return [answer for _, _, answer in self.rows if isinstance(answer, ServedTracks)]

    @property
    def last_of_each_event(self) -> dict[int, ServedTracks]:
        """Answers by event, the last of those sent several times."""
        return {file.event: answer for file, _, answer in self.rows if isinstance(answer, ServedTracks)}

    @property
    def errors(self) -> list[tuple[EventFile, TracccError]]:
        return [(file, answer) for file, _, answer in self.rows if isinstance(answer, TracccError)]


def reconstruct_remotely(
    options: ClientRunOptions, connection: ConnectionSettings, console: Console, log: Console
) -> None:
    """Have events reconstructed by a server.

    Parameters
    ----------
    options : ClientRunOptions
        Inputs and outputs.
    connection : ConnectionSettings
        Server.
    console : Console
        Where the table goes.
    log : Console
        Where progress goes.

    Raises
    ------
    InputDataError
        If an input can't be used, or the server refused events; results of the others are written.
    OSError
        If an output can't be written; nothing was sent then.
    ServiceError
        If the server can't be reached or fails.
    """
    files = find_event_files(options.inputs, options.skip, options.events, kind="cells")
    _check_outputs(options)
    check_event_files(files)
    arguments = {f.name: getattr(connection, f.name) for f in dataclasses.fields(connection)}
    with TrackingClient(**arguments) as client:
        facts = client.facts()
        if facts:
            log.print(f"{connection.url}: detector {facts.get('detector')}", style="dim")
        totals = _stream(client, files, options, log)
    _print_summary(totals, console)
    if options.output is not None:
        _write(totals, options, log)
    if options.plots is not None:
        _plot(list(totals.last_of_each_event.values()), options.plots, log)
    for _, error in totals.errors[1:]:
        log.print(f"error: {error}", style="red")
    if totals.errors:
        raise totals.errors[0][1]


def _check_outputs(options: ClientRunOptions) -> None:
    """Raise, before anything is sent, for what can't be written."""
    if options.output is not None:
        check_directory(options.output, "--output")
    if options.plots is not None:
        from traccc_py.performance.plot_style import require_plots

        check_figure(options.plots, "--plots")
        require_plots()


def _stream(client: TrackingClient, files: Sequence[EventFile], options: ClientRunOptions, log: Console) -> _Totals:
    """Send all events, each `repeat` times; files are read once."""
    totals, sent = _Totals(), []
    kept: dict[Path, Cells] = {}

    def source() -> Iterator[Cells]:
        for _ in range(options.repeat):
            for file in files:
                cells = kept.get(file.path)
                if cells is None:
                    cells = read_cells(file.path)
                    if options.repeat > 1:
                        kept[file.path] = cells
                sent.append((file, len(cells)))
                yield cells

    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    begin = time.perf_counter()
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task = progress.add_task("", total=len(files) * options.repeat)
        n_failed = 0
        for k, answer in enumerate(client.stream(source(), options.in_flight, return_errors=True)):
            totals.rows.append((*sent[k], answer))
            progress.advance(task)
            n_failed = n_failed + 1 if isinstance(answer, ServiceError) else 0
            if n_failed == _MAX_FAILURES:
                left = len(files) * options.repeat - len(totals.rows)
                log.print(f"given up: {counted(n_failed, 'event')} in a row failed; {left} were not sent", style="red")
                break
    totals.seconds = time.perf_counter() - begin
    return totals


def _print_summary(totals: _Totals, console: Console) -> None:
    table = Table(title="Tracks", title_justify="left", header_style="bold", pad_edge=False, box=SIMPLE_HEAD)
    for heading in ("event", "cells", "tracks", "states", "median pT [GeV]", "chi2/ndf", "server [ms]"):
        table.add_column(heading, justify="right")
    for file, n_cells, answer in totals.rows[:_MAX_ROWS]:
        table.add_row(str(file.event), str(n_cells), *_row(answer))
    if len(totals.rows) > _MAX_ROWS:
        table.add_row("...")
    console.print(table)
    n = len(totals.rows)
    n_tracks = sum(map(len, totals.tracks))
    console.print(
        f"{counted(n, 'event')}, {counted(n_tracks, 'track')}, {counted(len(totals.errors), 'error')} "
        f"in {totals.seconds:.2f} s: "
        f"{n / totals.seconds:.2f} events/s, reading of files included"
    )


def _row(answer: ServedTracks | TracccError) -> tuple[str, ...]:
    if isinstance(answer, TracccError):
        return ("error", "", "", "", "")
    if len(answer) == 0:
        return ("0", "0", "", "", _milliseconds(answer))
    return (
        str(len(answer)),
        str(_n_states(answer)),
        f"{np.median(_pt(answer)):.2f}",
        f"{np.median(answer.chi2 / np.maximum(answer.ndf, 1)):.2f}",
        _milliseconds(answer),
    )


def _n_states(tracks: ServedTracks) -> int:
    columns = tracks.columns()
    if "state_offsets" in columns:
        return int(columns["state_offsets"][-1])
    return int(columns.get("n_measurements", np.zeros(0)).sum())


def _milliseconds(tracks: ServedTracks) -> str:
    return "" if tracks.stage_milliseconds is None else f"{sum(tracks.stage_milliseconds.values()):.1f}"


def _pt(tracks: ServedTracks) -> np.ndarray:
    return np.sin(tracks.params[:, THETA]) / np.maximum(np.abs(tracks.params[:, QOP]), np.finfo(np.float32).tiny)


def _write(totals: _Totals, options: ClientRunOptions, log: Console) -> None:
    """Write tracks and track states of each event."""
    assert options.output is not None
    last = totals.last_of_each_event
    for event, tracks in last.items():
        tables = {"served_tracks": _track_columns(tracks)}
        if "state_offsets" in tracks.columns():
            tables["served_track_states"] = _state_columns(tracks)
        paths = {kind: options.output / event_file_name(event, kind, compress=options.compress) for kind in tables}
        write_files({path: format_table(tables[kind]) for kind, path in paths.items()})
    log.print(f"tracks of {counted(len(last), 'event')} are in {options.output}", style="dim")


def _track_columns(tracks: ServedTracks) -> dict[str, np.ndarray]:
    """Return what came, in the order of the tensors."""
    columns = {"track_id": np.arange(len(tracks))}
    of_tracks = columns_of(ServedTracks)
    for tensor in TRACK_TENSORS:
        for name, column in of_tracks.items():
            if column.tensor == tensor and getattr(tracks, name) is not None:
                columns |= column.to_csv(getattr(tracks, name))
    return columns


def _state_columns(tracks: ServedTracks) -> dict[str, np.ndarray]:
    lengths = np.diff(tracks.state_offsets)
    names = [component.name for component in columns_of(ServedTracks)["params"].components]
    columns = {
        "track_id": np.repeat(np.arange(len(lengths)), lengths),
        "state_index": np.arange(lengths.sum()) - np.repeat(tracks.state_offsets[:-1], lengths),
        "geometry_id": tracks.state_geometry_id,
    }
    if tracks.state_local_position is not None and tracks.state_direction is not None:
        columns |= {f"measured_loc{k}": tracks.state_local_position[:, k] for k in range(2)}
        columns |= {name: tracks.state_direction[:, k] for k, name in enumerate(names[PHI:])}
        columns["time"] = tracks.state_time
    if tracks.state_covariance is not None:
        columns |= {f"var_{name}": tracks.state_covariance[:, k, k] for k, name in enumerate(names)}
    return {name: values for name, values in columns.items() if values is not None}


def _plot(tracks: Sequence[ServedTracks], path: Path, log: Console) -> None:
    """Draw the distributions that traccc-aaS's client draws, and more of the kind."""
    from traccc_py.performance.plots import draw_histograms

    def joined(values: Any) -> np.ndarray:
        return np.concatenate([values(t) for t in tracks]) if tracks else np.zeros(0)

    panels = {
        "tracks per event": np.array([len(t) for t in tracks], float),
        "chi2 / ndf": joined(lambda t: t.chi2 / np.maximum(t.ndf, 1)),
        "ndf": joined(lambda t: t.ndf),
        "pT [GeV]": joined(_pt),
        "eta": joined(lambda t: -np.log(np.tan(t.params[:, THETA] / 2))),
        "phi [rad]": joined(lambda t: t.params[:, PHI]),
    }
    draw_histograms(panels, path)
    log.print(f"histograms are in {path}", style="dim")


def write_perf_data(options: PerfDataOptions, log: Console) -> None:
    """Write events for ``perf_analyzer --input-data``.

    Parameters
    ----------
    options : PerfDataOptions
        Inputs and output.
    log : Console
        Where the summary goes.

    Raises
    ------
    InputDataError
        If an input can't be used; nothing is written then.
    WireError
        If an event does not fit into the compact tensor.
    """
    files = find_event_files(options.inputs, limit=options.events, kind="cells")
    check_file(options.output, "--output")
    check_event_files(files)
    events = [read_cells(file.path) for file in files]
    sizes = list(map(len, events))
    write_files({options.output: json.dumps(perf_analyzer_data(events, compact=options.compact)).encode()})
    model = wire.COMPACT_MODEL if options.compact else wire.MODEL
    count = f"{counted(len(files), 'event')} of {min(sizes)} to {counted(max(sizes), 'cell')}"
    log.print(f"{count}, for -m {model}, written to {options.output}")
