"""`traccc-py performance`: simulate, reconstruct, compare with the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from traccc_py.cli.report import versions, write_json
from traccc_py.performance.matching import TruthSelection
from traccc_py.performance.summary import PerformanceSummary

__all__ = ["evaluate", "selections", "show_performance"]

_PERCENT = 100.0
_RECONSTRUCTABLE: dict[str, dict[str, Any]] = {"odd": {"min_modules": 7, "min_pixel_layers": 3}}  #: by detector


def selections(detector: str, min_pt: float) -> dict[str, TruthSelection]:
    """Return which particles count: those that left enough hits to be found, and all."""
    return {
        "reconstructable": TruthSelection(min_pt=min_pt, **_RECONSTRUCTABLE.get(detector, {})),
        "all": TruthSelection(min_pt=min_pt, max_eta=math.inf, min_measurements=0),
    }


def evaluate(
    chain: Any, summary: PerformanceSummary, events: Iterator[Any], n_events: int, log: Console
) -> dict[str, Any]:
    """Reconstruct simulated events and compare with the truth.

    Parameters
    ----------
    chain : TrackingChain
        Reconstruction.
    summary : PerformanceSummary
        Gathers the comparison.
    events : iterator of SimulatedEvent
        Events.
    n_events : int
        Their number.
    log : Console
        Where progress goes.

    Returns
    -------
    dict
        Numbers for tables and JSON; what does not exist is NaN.
    """
    for event in track(events, "events", n_events, console=log, transient=True, disable=not log.is_terminal):
        summary.add(event, chain.run(event.cells))
    return summary.as_dict()


def _percent(fraction: float) -> str:
    return f"{_PERCENT * fraction:.2f} %" if math.isfinite(fraction) else "-"


def _rates(numbers: Mapping[str, Any]) -> Table:
    tracks, seeds = numbers["tracks"], numbers["seeds"]
    names = list(tracks)
    outcomes = numbers["fit_outcomes"]
    n_fits = sum(outcomes.values())
    table = Table("particles", *names, box=SIMPLE_HEAD, pad_edge=False)
    table.add_row("number", *(str(tracks[name]["n_particles"]) for name in names))
    table.add_row("found", *(str(tracks[name]["n_found"]) for name in names))
    table.add_row("efficiency", *(_percent(tracks[name]["efficiency"]) for name in names))
    table.add_row("seed efficiency", *(_percent(seeds[name]["efficiency"]) for name in names))
    table.add_row("duplicates / found", *(_percent(tracks[name]["duplicate_rate"]) for name in names))
    table.add_row("fakes / tracks", _percent(tracks[names[0]]["fakes_per_group"]))
    table.add_row("successful fits", _percent(outcomes.get("SUCCESS", 0) / n_fits if n_fits else math.nan))
    return table


def _pulls(title: str, fits: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("parameter", "mean", "sigma", "rms", box=SIMPLE_HEAD, pad_edge=False, title=title)
    table.title_justify = "left"
    for name, fit in fits.items():
        mean = f"{fit['mean']:+.3f} +- {fit['mean_error']:.3f}"
        table.add_row(name, mean, f"{fit['sigma']:.3f} +- {fit['sigma_error']:.3f}", f"{fit['rms']:.3f}")
    return table


def _without_nan(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {name: _without_nan(v) for name, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_performance(
    numbers: Mapping[str, Any], console: Console, json: Path | None = None, settings: Mapping[str, Any] | None = None
) -> None:
    """Print rates and pulls, and write them to a JSON file.

    Parameters
    ----------
    numbers : mapping
        What `evaluate` returned.
    console : Console
        Where the tables go.
    json : Path, optional
        File.
    settings : mapping, optional
        What the sample was; goes into the file.
    """
    console.print(_rates(numbers))
    console.print(
        "found: at least half of a track's measurements are the particle's, and half of the particle's are on it\n"
    )
    console.print(_pulls("Pulls at the first state, Gaussian fit to |pull| < 3", numbers["first_state_pulls"]))
    console.print(_pulls("Pulls at the perigee", numbers["perigee_pulls"]))
    p_values = numbers["p_values"]
    console.print(f"mean p-value {p_values['mean']:.3f} +- {p_values['mean_error']:.3f}")
    if json is not None:
        write_json(json, _without_nan({"versions": versions(), "sample": settings or {}, **numbers}))
