"""Physics performance of a sample: efficiencies, fit outcomes, residuals, pulls and p-values, event by event."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from traccc_py.edm import EventResult, FitOutcome
from traccc_py.performance.binned import (
    EDGES,
    PARTICLE_EDGES,
    fractions,
    means,
    pull_profile,
    rates,
    resolution_profile,
)
from traccc_py.performance.definitions import TRACCC, Definition, TruthSelection
from traccc_py.performance.frames import SurfaceFrames
from traccc_py.performance.matching import (
    Counts,
    Matches,
    count_matches,
    find_duplicates,
    find_fakes,
    match_seeds,
    match_tracks,
)
from traccc_py.performance.residuals import (
    FIRST_STATE_NAMES,
    PERIGEE_NAMES,
    Residuals,
    concatenate_residuals,
    first_state_residuals,
    kinematics,
    perigee_residuals,
)
from traccc_py.performance.selection import select_particles
from traccc_py.performance.statistics import fit_gaussian, histogram, robust_width, summarise_p_values
from traccc_py.performance.trackml_score import event_score
from traccc_py.performance.tracks import EventTracks, TrackSet, seeds_of_result, tracks_of_result
from traccc_py.performance.truth import EventTruth, link_digitization, simulated_truth
from traccc_py.simulation.events import SimulatedEvent

__all__ = ["PerformanceSummary", "Sample"]

_TYPES_OF_TRACCC = TruthSelection().particle_types
_PION = 211  # |PDG number|
_WITHOUT_MOMENTS = ("qop_z",)  # 1 / cos(theta) has neither mean nor variance near 90 degrees
_PULL_EDGES = np.linspace(-5.0, 5.0, 51)
_N_RESIDUAL_BINS = 60
_SMALLEST_RANGE = 1e-12  # of a histogram
_RESIDUAL_QUANTILE = 0.99  # the part of the residuals that a histogram shows
_TRACK_EDGES = {
    "n_measurements": np.arange(-0.5, 30.5),
    "n_holes": np.arange(-0.5, 10.5),
    "purity": np.linspace(0.0, 1.0, 21),
    "completeness": np.linspace(0.0, 1.0, 21),
    "ndf": np.arange(-5.5, 50.5),
    "chi2": np.linspace(0.0, 50.0, 51),
    "chi2_per_ndf": np.linspace(0.0, 10.0, 51),
}


class _Columns:
    """Columns that grow event by event."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[np.ndarray]] = {}

    def append(self, **columns: np.ndarray) -> None:
        """Add rows."""
        for name, values in columns.items():
            self._pieces.setdefault(name, []).append(np.asarray(values, np.float64))

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a whole column as float64; empty if nothing was added."""
        return np.concatenate([*self._pieces.get(name, ()), np.zeros(0)])


@dataclass(slots=True)
class Sample:
    """The numbers for one selection of particles."""

    tracks: Counts = field(default_factory=Counts)
    seeds: Counts = field(default_factory=Counts)
    particles: _Columns = field(default_factory=_Columns)
    at_any_radius: _Columns = field(default_factory=_Columns)  # the same without the cut in the production radius
    track_rows: _Columns = field(default_factory=_Columns)


@dataclass(slots=True)
class PerformanceSummary:
    """Collects events (`add`, `add_result`) and summarises them (`as_dict`).

    Parameters
    ----------
    selections : dict of str to TruthSelection
        Particles that count, by name.
    b_z : float
        Field along z [GeV / (e mm)], for the true perigee.
    frames : SurfaceFrames, optional
        Frames of the surfaces, for the residuals of loc0 and loc1.
    definition : Definition, optional
        Of efficiency, duplicates and fakes.
    outgoing : bool, optional
        Truth at the first state is taken after the surface's material, else before it.
    """

    selections: Mapping[str, TruthSelection]
    b_z: float
    frames: SurfaceFrames | None = None
    definition: Definition = TRACCC
    outgoing: bool = True
    n_events: int = 0
    samples: dict[str, Sample] = field(init=False)
    has_tracks: bool = False
    has_seeds: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    first_state: list[Residuals] = field(default_factory=list)
    perigee: list[Residuals] = field(default_factory=list)
    track_rows: _Columns = field(default_factory=_Columns)
    trackml_scores: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = {name: Sample() for name in self.selections}

    def add_result(self, event: SimulatedEvent, result: EventResult) -> None:
        """Add one simulated event and its reconstruction."""
        truth = simulated_truth(event)
        links = link_digitization(result.measurements, event.digitization, truth.particle_of_hit)
        self.add(truth, EventTracks(links, tracks_of_result(result), seeds_of_result(result)))

    def add(self, event: EventTruth, found: EventTracks) -> None:
        """Add one event.

        Parameters
        ----------
        event : EventTruth
            Particles and hits.
        found : EventTracks
            What was reconstructed, and the truth of its measurements.
        """
        n, links, definition = len(event.particles), found.links, self.definition
        tracks, matches = found.tracks, None
        if tracks is not None:
            if definition.require_fit:
                tracks = tracks.select(tracks.is_fitted)
            matches = match_tracks(tracks, links, n, definition)
            self._add_fits(tracks, matches, event, found)
            self.trackml_scores.append(event_score(event, tracks, links))
        seeds = None if found.seeds is None else match_seeds(found.seeds, links, n, definition)
        self.n_events += 1
        self.has_tracks |= tracks is not None
        self.has_seeds |= seeds is not None
        for name, selection in self.selections.items():
            at_any_radius = select_particles(event, links, replace(selection, max_r=math.inf))
            radius = np.hypot(event.particles.vertex[:, 0], event.particles.vertex[:, 1])
            is_selected = at_any_radius & (radius <= selection.max_r)
            for_seeds = is_selected
            if selection.particle_types == _TYPES_OF_TRACCC:  # which it does not ask for where seeds are concerned
                for_seeds = select_particles(event, links, replace(selection, particle_types=()))
            sample = self.samples[name]
            if seeds is not None:
                sample.seeds += count_matches(seeds, for_seeds, definition)
            if tracks is not None and matches is not None:
                sample.tracks += count_matches(matches, is_selected, definition)
                self._add_track_rows(sample, tracks, matches, is_selected)
            for target, chosen in ((sample.particles, is_selected), (sample.at_any_radius, at_any_radius)):
                self._add_particles(target, event, matches, seeds, chosen, radius)

    def _add_particles(
        self,
        target: _Columns,
        event: EventTruth,
        matches: Matches | None,
        seeds: Matches | None,
        is_selected: np.ndarray,
        radius: np.ndarray,
    ) -> None:
        n = len(is_selected)
        eta, phi, pt = kinematics(event.particles.momentum)
        columns = {"eta": eta, "phi": phi, "pt": pt, "radius": radius}
        for name, found in (("n_matches", matches), ("n_seeds", seeds)):
            if found is not None:
                columns[name] = np.bincount(found.particle_index[found.is_matched], minlength=n)
        if matches is not None:
            is_fake = find_fakes(matches, is_selected, self.definition)
            of_fakes = matches.contributions[is_fake[matches.contributions[:, 0]], 1]
            columns["n_fakes"] = np.bincount(of_fakes, minlength=n)
        target.append(**{name: column[is_selected] for name, column in columns.items()})

    def _add_track_rows(self, sample: Sample, tracks: TrackSet, matches: Matches, is_selected: np.ndarray) -> None:
        sample.track_rows.append(
            is_fake=find_fakes(matches, is_selected, self.definition),
            is_duplicate=find_duplicates(matches, is_selected, tracks),
        )

    def _add_fits(self, tracks: TrackSet, matches: Matches, event: EventTruth, found: EventTracks) -> None:
        self.outcomes.update(FitOutcome(outcome).name for outcome in tracks.fit_outcome.tolist())
        self.first_state.append(
            first_state_residuals(tracks, matches, found.links, event, self.frames, outgoing=self.outgoing)
        )
        self.perigee.append(perigee_residuals(tracks, matches, event, self.b_z))
        eta, phi, pt = tracks.kinematics()
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2_per_ndf = tracks.chi2 / tracks.ndf
        self.track_rows.append(
            eta=eta,
            phi=phi,
            pt=pt,
            n_measurements=tracks.n_measurements,
            n_holes=tracks.n_holes,
            purity=matches.purity,
            completeness=matches.completeness,
            chi2=tracks.chi2,
            ndf=tracks.ndf,
            chi2_per_ndf=chi2_per_ndf,
            pval=tracks.pval,
            is_good=matches.is_matched & tracks.is_fitted,
            is_pion=_is_of_pion(matches, event),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers for JSON; those that don't exist are NaN."""
        is_good = self.track_rows["is_good"].astype(bool)
        numbers: dict[str, Any] = {
            "n_events": self.n_events,
            "definition": self.definition.as_dict(),
            "selections": {name: asdict(selection) for name, selection in self.selections.items()},
            "truth_side": "outgoing" if self.outgoing else "incoming",
        }
        if self.has_tracks:
            numbers["tracks"] = {name: sample.tracks.as_dict() for name, sample in self.samples.items()}
        if self.has_seeds:
            numbers["seeds"] = {name: sample.seeds.as_dict() for name, sample in self.samples.items()}
        if self.has_tracks and self.has_seeds:
            numbers["finding"] = {name: _finding(sample.particles) for name, sample in self.samples.items()}
        numbers["versus"] = {name: self._versus(sample) for name, sample in self.samples.items()}
        if self.has_tracks:
            numbers["fit_outcomes"] = dict(self.outcomes)
            numbers["trackml_score"] = _mean(self.trackml_scores)
            numbers["distributions"] = {
                name: histogram(self.track_rows[name], edges) for name, edges in _TRACK_EDGES.items()
            }
            pval, is_pion = self.track_rows["pval"], self.track_rows["is_pion"].astype(bool)
            numbers["p_values"] = summarise_p_values(pval[is_good])
            numbers["p_values_of_pions"] = summarise_p_values(pval[is_good & is_pion])
            for where, pieces, names in (
                ("first_state", self.first_state, FIRST_STATE_NAMES),
                ("perigee", self.perigee, PERIGEE_NAMES),
            ):
                together = concatenate_residuals(pieces)
                numbers[f"{where}_pulls"] = _pulls(together, names)
                numbers[f"{where}_residuals"] = _resolutions(together, names)
        return numbers

    def _versus(self, sample: Sample) -> dict[str, Any]:
        """Return efficiency, duplicates, fakes, measurements and holes in bins of each variable.

        The cut in the production radius does not apply to its bins.
        """
        table: dict[str, Any] = {}
        for variable, edges in PARTICLE_EDGES.items():
            columns: dict[str, Any] = {"edges": edges.tolist()}
            columns |= self._of_particles(sample.particles if variable in EDGES else sample.at_any_radius, variable)
            if self.has_tracks and variable in EDGES:
                x, own = self.track_rows[variable], sample.track_rows
                columns["duplicates_per_track"] = fractions(x, own["is_duplicate"] > 0, edges)
                columns["fakes_per_track"] = fractions(x, own["is_fake"] > 0, edges)
                for name in ("n_measurements", "n_holes"):
                    columns[name] = means(x, self.track_rows[name], edges)
            table[variable] = columns
        return table

    def _of_particles(self, particles: _Columns, variable: str) -> dict[str, Any]:
        """Return the rates that are binned by particle."""
        x, edges = particles[variable], PARTICLE_EDGES[variable]
        columns: dict[str, Any] = {}
        if self.has_seeds:
            columns["seed_efficiency"] = fractions(x, particles["n_seeds"] > 0, edges)
        if self.has_tracks:
            n_matches = particles["n_matches"]
            further = np.maximum(n_matches - 1, 0)
            columns["efficiency"] = fractions(x, n_matches > 0, edges)
            columns["duplicates_per_found"] = rates(x, further, edges, n_matches > 0)
            columns["fakes_per_particle"] = rates(x, particles["n_fakes"], edges)
        if self.has_seeds and self.has_tracks:
            is_seeded = particles["n_seeds"] > 0
            columns["finding_efficiency"] = fractions(x[is_seeded], n_matches[is_seeded] > 0, edges)
        return columns


def _mean(values: list[float]) -> float:
    """Return the mean of those that exist, NaN without one."""
    there = [value for value in values if math.isfinite(value)]
    return sum(there) / len(there) if there else math.nan


def _is_of_pion(matches: Matches, event: EventTruth) -> np.ndarray:
    """Return which tracks are matched to a charged pion."""
    pions = np.flatnonzero(np.abs(event.particles.particle_type) == _PION)
    return matches.is_matched & np.isin(matches.particle_index, pions)


def _finding(particles: _Columns) -> dict[str, Any]:
    """Return the efficiency of track finding and later stages: of particles with a seed."""
    is_seeded = particles["n_seeds"] > 0
    n_found = int(np.count_nonzero(particles["n_matches"][is_seeded] > 0))
    return Counts(n_particles=int(np.count_nonzero(is_seeded)), n_found=n_found).as_dict()


def _pulls(found: Residuals, names: tuple[str, ...]) -> dict[str, Any]:
    """Return fit, histogram and profiles of the pulls of each parameter."""
    table = {}
    for k, name in enumerate(names):
        pull = found.pull[np.isfinite(found.pull[:, k]), k]
        if len(pull) == 0:
            continue
        profiles = {v: pull_profile(getattr(found, v), found.pull[:, k], edges) for v, edges in EDGES.items()}
        table[name] = fit_gaussian(pull).as_dict() | {"histogram": histogram(pull, _PULL_EDGES), "versus": profiles}
    return table


def _resolutions(found: Residuals, names: tuple[str, ...]) -> dict[str, Any]:
    """Return robust width, rms, histogram and profiles of the residuals of each parameter, and of pT."""
    columns = {name: found.residual[:, k] for k, name in enumerate(names)}
    # relative: delta(q/pT) / |q/pT| is that of pT to first order, and is Gaussian where that of pT is not
    columns["pt_relative"] = columns["qop_t"] * found.pt
    table = {}
    for name, column in columns.items():
        values = column[np.isfinite(column)]
        if len(values) == 0:
            continue
        limit = max(float(np.quantile(np.abs(values), _RESIDUAL_QUANTILE)), _SMALLEST_RANGE)
        edges = np.linspace(-limit, limit, _N_RESIDUAL_BINS + 1)
        profiles = {v: resolution_profile(getattr(found, v), column, e) for v, e in EDGES.items()}
        spread = {"mean": float(values.mean()), "rms": float(values.std())}
        if name in _WITHOUT_MOMENTS:
            spread = dict.fromkeys(spread, math.nan)
        table[name] = robust_width(values).as_dict() | spread
        table[name] |= {"histogram": histogram(values, edges), "versus": profiles}
    return table
