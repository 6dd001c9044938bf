"""Tables of `traccc-py performance`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["print_performance"]

_PERCENT = 100.0
_VARIABLES = {"eta": "eta", "phi": "phi [rad]", "pt": "pT [GeV]"}


def _percent(fraction: float) -> str:
    return f"{_PERCENT * fraction:.2f} %" if math.isfinite(fraction) else "-"


def _with_interval(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "-"
    up, down = _PERCENT * (high - value), _PERCENT * (value - low)
    return f"{_PERCENT * value:.2f} +{up:.2f} -{down:.2f} %"


def _with_error(value: float | None, error: float | None, digits: str, error_digits: str) -> str:
    if value is None or error is None or not math.isfinite(value):
        return "-"
    return f"{value:{digits}} +- {error:{error_digits}}"


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


def _efficiency(counts: Mapping[str, Any]) -> str:
    return _with_interval(counts["efficiency"], counts["efficiency_low"], counts["efficiency_high"])


#: Rows of the totals: heading, what it is made from, how.
_ROWS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("selected particles", "tracks", lambda c: str(c["n_particles"])),
    ("found particles", "tracks", lambda c: str(c["n_found"])),
    ("tracks", "tracks", lambda c: str(c["n_groups"])),
    ("efficiency", "tracks", _efficiency),
    ("duplicates / found particles", "tracks", lambda c: _percent(c["duplicate_rate"])),
    ("fakes / selected particles", "tracks", lambda c: _percent(c["fake_rate"])),
    ("duplicates / tracks", "tracks", lambda c: _percent(c["duplicates_per_group"])),
    ("fakes / tracks", "tracks", lambda c: _percent(c["fakes_per_group"])),
    ("seeds", "seeds", lambda c: str(c["n_groups"])),
    ("seed efficiency", "seeds", _efficiency),
    ("seed duplicates / found particles", "seeds", lambda c: _percent(c["duplicate_rate"])),
    ("seed fakes / selected particles", "seeds", lambda c: _percent(c["fake_rate"])),
    ("seed fakes / seeds", "seeds", lambda c: _percent(c["fakes_per_group"])),
)


def _totals(results: Mapping[str, Any]) -> Table:
    columns = [(label, name) for label, numbers in results.items() for name in numbers["versus"]]
    is_one = len(results) == 1
    headings = [name if is_one else f"{label}: {name}" for label, name in columns]
    table = _table(f"Totals, definition {next(iter(results.values()))['definition']['name']}", "", *headings)
    for heading, source, show in _ROWS:
        cells = [show(results[label][source][name]) if source in results[label] else "-" for label, name in columns]
        if set(cells) != {"-"} or heading == "efficiency":
            table.add_row(heading, *cells)
    outcomes = [results[label].get("fit_outcomes", {}) for label, _ in columns]
    fits = [sum(n for name, n in found.items() if name != "UNKNOWN") for found in outcomes]
    table.add_row(
        "successful fits",
        *(_percent(o.get("SUCCESS", 0) / n if n else math.nan) for o, n in zip(outcomes, fits, strict=True)),
    )
    return table


def _describe(numbers: Mapping[str, Any], console: Console) -> None:
    for sentence in numbers["definition"]["text"]:
        console.print(sentence)
    for name, cuts in numbers["selections"].items():
        shown = {cut: value for cut, value in cuts.items() if cut != "pixel_volumes" or cuts["min_pixel_layers"]}
        text = ", ".join(f"{cut} {value}" for cut, value in shown.items())
        console.print(f"{name}: {text}")


def _fits(label: str, where: str, numbers: Mapping[str, Any]) -> Table:
    pulls, residuals = numbers[f"{where}_pulls"], numbers[f"{where}_residuals"]
    place = "first state" if where == "first_state" else "perigee"
    title = f"{label}: {place}; pulls by a Gaussian fitted to |pull| < 3, residuals by half the central 68.3 %"
    table = _table(title, "parameter", "tracks", "pull mean", "pull sigma", "pull rms", "resolution", "residual rms")
    for name, residual in residuals.items():
        pull = pulls.get(name, {})
        cells = [
            _with_error(pull.get("mean"), pull.get("mean_error"), "+.3f", ".3f"),
            _with_error(pull.get("sigma"), pull.get("sigma_error"), ".3f", ".3f"),
            f"{pull['rms']:.3f}" if pull else "-",
            _with_error(residual["width"], residual["width_error"], ".3g", ".1g"),
            f"{residual['rms']:.3g}",
        ]
        table.add_row(name, str(residual["n"]), *cells)
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
            for cell in (_with_interval(c["value"][k], c["low"][k], c["high"][k]), str(c["total"][k]))
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
    for name in ("efficiency", "seed_efficiency", *others):
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
        p_values = numbers.get("p_values")
        if p_values and p_values["n"]:
            console.print(f"{label}: mean p-value {p_values['mean']:.3f} +- {p_values['mean_error']:.3f}\n")
    if per_bin:
        _print_per_bin(results, console)
