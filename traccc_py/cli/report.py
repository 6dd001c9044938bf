"""What the commands tell: tables on the terminal and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import Box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from traccc_py.environment import versions

__all__ = [
    "EventRecord",
    "print_summary",
    "progress_of",
    "run_report",
    "summarise",
    "write_json",
]

_SHORT_NAMES = {  # headings that fit on a terminal
    "preparation": "prepare",
    "clusterization": "cluster",
    "spacepoint_formation": "space points",
    "parameter_estimation": "seed params",
    "seeding": "seed",
    "finding": "find",
    "ambiguity_resolution": "resolve",
    "fitting": "fit",
}
_RULED = Box("    \n    \n ── \n    \n    \n ── \n    \n    \n")  # one space between columns
_MAX_ROWS = 20  #: events listed one by one; the rest are in the JSON file


@dataclass(slots=True)
class EventRecord:
    """Counts and times of one event."""

    event: int
    file: str
    kind: str  # of the file: cells, measurements or spacepoints
    counts: Mapping[str, int]
    stage_milliseconds: Mapping[str, float]
    read_milliseconds: float
    total_milliseconds: float  # of the chain alone, from its input to tracks in host memory
    write_milliseconds: float

    def facts(self) -> dict[str, Any]:
        """Return what does not depend on the time it took."""
        counts = {name: int(n) for name, n in self.counts.items()}
        return {"event": self.event, "file": self.file, "kind": self.kind, **counts}

    def to_dict(self) -> dict[str, Any]:
        """Return the record as it stands in the JSON file."""
        return {
            **self.facts(),
            "stage_milliseconds": {name: float(t) for name, t in self.stage_milliseconds.items()},
            "read_milliseconds": self.read_milliseconds,
            "total_milliseconds": self.total_milliseconds,
            "write_milliseconds": self.write_milliseconds,
        }


def summarise(records: Sequence[EventRecord]) -> dict[str, Any]:
    """Return totals over events; the rate leaves out the first event, which may warm up caches."""
    totals = [r.total_milliseconds for r in records]
    after_first = totals[1:]
    stages = max((list(r.stage_milliseconds) for r in records), key=len)  # events that start later have fewer
    return {
        "n_events": len(records),
        "total_counts": {name: sum(int(r.counts[name]) for r in records) for name in records[0].counts},
        "median_milliseconds": median(totals),
        "median_stage_milliseconds": {
            stage: median(r.stage_milliseconds.get(stage, 0.0) for r in records) for stage in stages
        },
        "events_per_second_after_first": 1000.0 * len(after_first) / sum(after_first) if sum(after_first) else None,
    }


def _heading(name: str) -> str:
    return _SHORT_NAMES.get(name) or name.removeprefix("n_").replace("_", " ")


def _table(title: str, columns: Iterable[str], rows: Sequence[Sequence[str]], footer: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=_RULED, padding=0)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for row in rows[:_MAX_ROWS]:
        table.add_row(*row)
    if len(rows) > _MAX_ROWS:
        table.add_row("...", *[""] * (len(footer) - 1))
    if len(rows) > 1:
        table.add_section()
        table.add_row(*footer, style="bold")
    return table


def _count_table(records: Sequence[EventRecord], summary: Mapping[str, Any]) -> Table:
    """Return the table of counts, one row an event."""
    names = list(records[0].counts)
    rows = [[str(r.event), *(str(r.counts[n]) for n in names)] for r in records]
    footer = ["total", *(str(summary["total_counts"][n]) for n in names)]
    return _table("Counts", ["event", *map(_heading, names)], rows, footer)


def _time_table(records: Sequence[EventRecord], summary: Mapping[str, Any]) -> Table:
    """Return the table of milliseconds per stage, one row an event."""
    stages = list(summary["median_stage_milliseconds"])
    rows = [
        [
            str(r.event),
            *(f"{r.stage_milliseconds.get(s, 0.0):.1f}" for s in stages),
            f"{r.total_milliseconds:.1f}",
        ]
        for r in records
    ]
    footer = ["median", *(f"{summary['median_stage_milliseconds'][s]:.1f}" for s in stages)]
    footer.append(f"{summary['median_milliseconds']:.1f}")
    return _table("Milliseconds", ["event", *map(_heading, stages), "total"], rows, footer)


def print_summary(console: Console, records: Sequence[EventRecord], summary: Mapping[str, Any]) -> None:
    """Print both tables and, with several events, the rate."""
    console.print(_count_table(records, summary))
    console.print(_time_table(records, summary))
    rate = summary["events_per_second_after_first"]
    if rate is not None:
        console.print(f"{rate:.2f} events/s after the first, reading and writing of files not counted")


@contextmanager
def progress_of(n: int, log: Console) -> Iterator[Callable[[int], None]]:
    """Give a function that tells that some more of n events are done; on a terminal they are shown."""
    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task = progress.add_task("", total=n)
        yield lambda more: progress.advance(task, more)


def run_report(
    records: Sequence[EventRecord], summary: Mapping[str, Any], device: Mapping[str, Any], detector: str, config: Any
) -> dict[str, Any]:
    """Return the content of the JSON file of a run."""
    return {
        "versions": versions(),
        "device": dict(device),
        "detector": detector,
        "config": config.to_dict(),
        "events": [r.to_dict() for r in records],
        "summary": dict(summary),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    from traccc_py.files import write_files

    write_files({path: (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()})
