"""`traccc-py performance`: simulate, reconstruct, compare with the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from traccc_py.cli.report import versions, write_json
from traccc_py.edm import FitOutcome
from traccc_py.performance.matching import (
    Counts,
    TruthSelection,
    count_matches,
    match_seeds,
    match_tracks,
    measurement_truth,
    select_particles,
)
from traccc_py.performance.pulls import (
    FIRST_STATE_NAMES,
    PERIGEE_NAMES,
    GaussianFit,
    Pulls,
    concatenate_pulls,
    first_state_pulls,
    perigee_pulls,
    summarise_p_values,
    summarise_pulls,
)

__all__ = ["Evaluation", "evaluate", "show_evaluation"]

_PERCENT = 100.0
_RECONSTRUCTABLE: dict[str, dict[str, Any]] = {"odd": {"min_modules": 7, "min_pixel_layers": 3}}  #: by detector


@dataclass(slots=True)
class Evaluation:
    """Performance over events."""

    tracks: Counts = field(default_factory=Counts)  # of reconstructable particles
    tracks_of_all: Counts = field(default_factory=Counts)  # of all generated particles
    seeds: Counts = field(default_factory=Counts)
    n_good_fits: int = 0
    n_fits: int = 0
    p_values: dict[str, Any] = field(default_factory=dict)
    first_state: dict[str, GaussianFit] = field(default_factory=dict)
    perigee: dict[str, GaussianFit] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as they stand in the JSON file; what does not exist is None."""
        content = {
            "tracks": self.tracks.as_dict(),
            "tracks_of_all": self.tracks_of_all.as_dict(),
            "seeds": self.seeds.as_dict(),
            "n_good_fits": self.n_good_fits,
            "n_fits": self.n_fits,
            "p_values": self.p_values,
            "first_state_pulls": {name: fit.as_dict() for name, fit in self.first_state.items()},
            "perigee_pulls": {name: fit.as_dict() for name, fit in self.perigee.items()},
        }
        return {name: _without_nan(value) for name, value in content.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def evaluate(
    chain: Any, detector: Any, events: Iterator[Any], n_events: int, min_pt: float, log: Console
) -> Evaluation:
    """Reconstruct simulated events and compare with the truth.

    Parameters
    ----------
    chain : TrackingChain
        Reconstruction.
    detector : Detector
        Detector of the events.
    events : iterator of SimulatedEvent
        Events.
    n_events : int
        Their number.
    min_pt : float
        Particles below do not count [GeV].
    log : Console
        Where progress goes.

    Returns
    -------
    Evaluation
        Counts, rates and pulls.
    """
    conditions = TruthSelection(min_pt=min_pt, **_RECONSTRUCTABLE.get(detector.name, {}))
    everyone = TruthSelection(min_pt=min_pt, max_eta=np.inf, min_measurements=0)
    b_z = float(detector.arrays().b_z)
    total = Evaluation()
    first_state: list[Pulls] = []
    perigee: list[Pulls] = []
    p_values: list[np.ndarray] = []
    for event in track(events, "events", n_events, console=log, transient=True, disable=not log.is_terminal):
        result = chain.run(event.cells)
        truth = measurement_truth(result.measurements, event.digitization, event.simulated)
        selected, all_of_them = (
            select_particles(event.particles, event.simulated, truth, selection) for selection in (conditions, everyone)
        )
        n = len(event.particles)
        matches = match_tracks(result, truth, n)
        total.tracks += count_matches(matches, selected)
        total.tracks_of_all += count_matches(matches, all_of_them)
        total.seeds += count_matches(match_seeds(result, truth, n), selected)
        is_good = result.tracks.fit_outcome == FitOutcome.SUCCESS
        total.n_good_fits += int(np.count_nonzero(is_good))
        total.n_fits += len(result.tracks)
        first_state.append(first_state_pulls(result, matches, truth, event.simulated, event.particles))
        perigee.append(perigee_pulls(result, matches, event.particles, b_z))
        p_values.append(result.tracks.pval[is_good & matches.is_matched])
    total.p_values = summarise_p_values(np.concatenate(p_values))
    total.first_state = summarise_pulls(concatenate_pulls(first_state), FIRST_STATE_NAMES)
    total.perigee = summarise_pulls(concatenate_pulls(perigee), PERIGEE_NAMES)
    return total


def _rates(total: Evaluation) -> Table:
    table = Table("", "of reconstructable", "of all particles", box=SIMPLE_HEAD, pad_edge=False)
    columns = (total.tracks, total.tracks_of_all)
    table.add_row("particles", *(str(c.n_particles) for c in columns))
    table.add_row("found", *(str(c.n_found) for c in columns))
    table.add_row("efficiency", *(_percent(c.efficiency) for c in columns))
    table.add_row("seed efficiency", _percent(total.seeds.efficiency), "")
    table.add_row("duplicates / found", *(_percent(c.duplicate_rate) for c in columns))
    table.add_row("fakes / tracks", _percent(total.tracks.fakes_per_group), "")
    table.add_row("successful fits", _percent(total.n_good_fits / total.n_fits if total.n_fits else np.nan), "")
    return table


def _percent(fraction: float) -> str:
    return f"{_PERCENT * fraction:.2f} %" if np.isfinite(fraction) else "-"


def _pulls(title: str, fits: dict[str, GaussianFit]) -> Table:
    table = Table("parameter", "mean", "sigma", "rms", box=SIMPLE_HEAD, pad_edge=False, title=title)
    table.title_justify = "left"
    for name, fit in fits.items():
        mean = f"{fit.mean:+.3f} +- {fit.mean_error:.3f}"
        table.add_row(name, mean, f"{fit.sigma:.3f} +- {fit.sigma_error:.3f}", f"{fit.rms:.3f}")
    return table


def show_evaluation(
    total: Evaluation, console: Console, json: Path | None = None, settings: dict[str, Any] | None = None
) -> None:
    """Print rates and pulls, and write them to a JSON file.

    Parameters
    ----------
    total : Evaluation
        What to show.
    console : Console
        Where the tables go.
    json : Path, optional
        File.
    settings : dict, optional
        What the sample was; goes into the file.
    """
    console.print(_rates(total))
    console.print(
        "found: at least half of a track's measurements are the particle's, and half of the particle's are on it\n"
    )
    console.print(_pulls("Pulls at the first state, Gaussian fit to |pull| < 3", total.first_state))
    console.print(_pulls("Pulls at the perigee", total.perigee))
    console.print(f"mean p-value {total.p_values['mean']:.3f} +- {total.p_values['mean_error']:.3f}")
    if json is not None:
        write_json(json, {"versions": versions(), "sample": settings or {}, **total.to_dict()})
