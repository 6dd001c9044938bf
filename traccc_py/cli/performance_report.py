"""What `traccc-py performance` tells: tables on the terminal, plots, a page of HTML, a JSON file."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from traccc_py.cli.performance import Evaluation
from traccc_py.cli.report import write_json
from traccc_py.data.words import counted
from traccc_py.environment import versions
from traccc_py.files import write_files
from traccc_py.performance.plots import draw_performance
from traccc_py.performance.report_page import performance_page
from traccc_py.performance.rows import fit_table, mean_p_values, total_table, with_interval

__all__ = ["print_performance", "report_performance"]

_VARIABLES = {"eta": "eta", "phi": "phi [rad]", "pt": "pT [GeV]", "radius": "production radius [mm]"}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table


def _show(console: Console, table: Table) -> None:
    """Print a table under its title, which Rich would fold to the width of the table."""
    title, table.title = table.title, None
    console.print(title)
    console.print(table)


def _totals(results: Mapping[str, Any]) -> Table:
    found = total_table(results)
    table = _table(f"Totals, definition {next(iter(results.values()))['definition']['name']}", *found.columns)
    for row in found.rows:
        table.add_row(*row)
    return table


def _describe(numbers: Mapping[str, Any], console: Console) -> None:
    for sentence in numbers["definition"]["text"]:
        console.print(sentence)
    for name, cuts in numbers["selections"].items():
        shown = {cut: value for cut, value in cuts.items() if cut != "pixel_volumes" or cuts["min_pixel_layers"]}
        text = ", ".join(f"{cut} {value}" for cut, value in shown.items())
        console.print(f"{name}: {text}")


def _fits(label: str, where: str, numbers: Mapping[str, Any]) -> Table:
    place = "first state" if where == "first_state" else "perigee"
    title = f"{label}: {place}; pulls by a Gaussian fitted to |pull| < 3, residuals by half the central 68.3 %"
    found = fit_table(numbers, where)
    table = _table(title, *found.columns)
    for row in found.rows:
        table.add_row(*row)
    return table


def _per_bin(results: Mapping[str, Any], selection: str, variable: str, name: str) -> Table | None:
    """Return a rate in bins of a variable; None if nothing is there."""
    edges = next(iter(results.values()))["versus"][selection][variable]["edges"]
    tables = {label: numbers["versus"][selection][variable].get(name) for label, numbers in results.items()}
    columns = {label: found for label, found in tables.items() if found is not None}
    used = [k for k in range(len(edges) - 1) if any(column["total"][k] for column in columns.values())]
    if not used:
        return None
    title = f"{name.replace('_', ' ').capitalize()} versus {_VARIABLES[variable]}, {selection}"
    table = _table(title, _VARIABLES[variable], *(heading for label in columns for heading in (label, "of")))
    for k in used:
        cells = (
            cell
            for c in columns.values()
            for cell in (with_interval(c["value"][k], c["low"][k], c["high"][k]), str(c["total"][k]))
        )
        table.add_row(f"{edges[k]:.2f} to {edges[k + 1]:.2f}", *cells)
    return table


def _print_per_bin(results: Mapping[str, Any], console: Console) -> None:
    first = next(iter(results.values()))
    selection = next(iter(first["versus"]))
    per_track = first["definition"]["per_track"]
    others = (
        ("duplicates_per_track", "fakes_per_track") if per_track else ("duplicates_per_found", "fakes_per_particle")
    )
    for name in ("efficiency", "seed_efficiency", "finding_efficiency", *others):
        for variable in _VARIABLES:
            table = _per_bin(results, selection, variable, name)
            if table is not None:
                _show(console, table)


def print_performance(results: Mapping[str, Any], console: Console, *, per_bin: bool = False) -> None:
    """Print rates with their definition, pulls and resolutions, and mean p-values.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers of `PerformanceSummary.as_dict`, by label.
    console : Console
        Where the tables go.
    per_bin : bool, optional
        Print tables in bins of eta, phi and pT, for the first selection.
    """
    first = next(iter(results.values()))
    _show(console, _totals(results))
    _describe(first, console)
    console.print()
    for label, numbers in results.items():
        for where in ("first_state", "perigee"):
            if numbers.get(f"{where}_residuals"):
                _show(console, _fits(label, where, numbers))
        residuals = numbers.get("first_state_residuals")
        if residuals:
            n, n_local = residuals["phi"]["n"], residuals.get("loc0", {"n": 0})["n"]
            if n_local < n:
                console.print(f"{label}: --detector has the surfaces of {n_local} of the {n} first states\n")
        means = [f"{what} {f['mean']:.3f} +- {f['mean_error']:.3f}" for what, f in mean_p_values(numbers)]
        if means:
            console.print(f"{label}: {', '.join(means)}\n")
        if math.isfinite(score := numbers.get("trackml_score", math.nan)):
            console.print(f"{label}: score of the TrackML challenge {score:.4f}\n")
    if per_bin:
        _print_per_bin(results, console)


def _without_nan(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _command() -> str:
    """Return the command line, as it can be given again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _inputs(sample: Mapping[str, Any]) -> str:
    """Return what was compared, in one line."""
    if "samples" in sample:
        return "samples: " + ", ".join(
            f"{counted(facts['n_events'], 'event')} of {facts['folder']}" for facts in sample["samples"].values()
        )
    if "truth" in sample:
        tracks = ", ".join(f"{label} in {folder}" for label, (folder, _) in sample["tracks"].items())
        return f"truth in {sample['truth']}; {tracks}"
    return f"{counted(sample['n_events'], 'event')} of the particle gun, seed {sample['seed']}"


@contextlib.contextmanager
def _drawing(what: str, log: Console) -> Iterator[None]:
    """Say what is drawn, and on a terminal for how long already."""
    if not log.is_terminal:
        log.print(f"drawing {what}", style="dim")
    columns = (SpinnerColumn(), TextColumn("drawing {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


def report_performance(
    results: Mapping[str, Any], console: Console, log: Console, options: Evaluation, sample: Mapping[str, Any]
) -> None:
    """Print tables, draw plots, write numbers.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers by label.
    console : Console
        Where the tables go.
    log : Console
        Where progress goes.
    options : Evaluation
        What is wanted.
    sample : mapping
        What the sample was; goes into the file.
    """
    print_performance(results, console, per_bin=options.per_bin)
    if options.json is not None:
        write_json(options.json, _without_nan({"versions": versions(), "sample": sample, "results": results}))
    if options.plots is not None:
        with _drawing("plots", log):
            paths = draw_performance(results, options.plots, options.plot_format)
        console.print(f"{counted(len(paths), 'plot')} written to {options.plots}")
    if options.report is not None:
        with _drawing("the plots of the report", log):
            about = {
                "command": _command(),
                "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                "inputs": _inputs(sample),
            }
            page = performance_page(results, versions(), {**sample, **about})
        write_files({options.report: page.encode()})
        console.print(f"the report is {options.report}")
