"""Physics performance of a sample: efficiencies, fit outcomes, pulls and p-values, gathered event by event."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traccc_py.config import ClusterizationConfig
from traccc_py.edm import EventResult, FitOutcome
from traccc_py.geometry.records import MAX_CLUSTER_SIZE
from traccc_py.performance.matching import (
    Counts,
    MeasurementTruth,
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
    Pulls,
    concatenate_pulls,
    first_state_pulls,
    fit_gaussian,
    measurement_pulls,
    perigee_pulls,
    summarise_p_values,
    summarise_pulls,
)
from traccc_py.simulation.events import SimulatedEvent

__all__ = ["PerformanceSummary"]

_MIN_CLUSTERS = 100  # cluster sizes with fewer are not quoted


@dataclass(slots=True)
class PerformanceSummary:
    """Gathers events (`add`) and sums them up (`as_dict`).

    Parameters
    ----------
    detector : Detector
        The sample's detector.
    selections : dict of str to TruthSelection
        Definitions of the efficiency's denominator, by name.
    clusterization : ClusterizationConfig, optional
        Where the chain took variances from, for the pulls of measurements.
    """

    detector: Any
    selections: dict[str, TruthSelection]
    clusterization: ClusterizationConfig = field(default_factory=ClusterizationConfig)
    tracks: dict[str, Counts] = field(default_factory=dict)
    seeds: dict[str, Counts] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    first_state: list[Pulls] = field(default_factory=list)
    perigee: list[Pulls] = field(default_factory=list)
    pval: list[np.ndarray] = field(default_factory=list)
    clusters: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)  # design, size, pull

    def add(self, event: SimulatedEvent, result: EventResult) -> None:
        """Add one event and what the chain made of it."""
        particles, simulated = event.particles, event.simulated
        truth = measurement_truth(result.measurements, event.digitization, simulated)
        matches = match_tracks(result, truth, len(particles))
        seed_matches = match_seeds(result, truth, len(particles))
        for name, selection in self.selections.items():
            is_selected = select_particles(particles, simulated, truth, selection)
            self.tracks[name] = self.tracks.get(name, Counts()) + count_matches(matches, is_selected)
            self.seeds[name] = self.seeds.get(name, Counts()) + count_matches(seed_matches, is_selected)
        self.outcomes.update(FitOutcome(outcome).name for outcome in result.tracks.fit_outcome.tolist())
        self.first_state.append(first_state_pulls(result, matches, truth, simulated, particles))
        self.perigee.append(perigee_pulls(result, matches, particles, float(self.detector.arrays().b_z)))
        is_good = matches.is_matched & (result.tracks.fit_outcome == FitOutcome.SUCCESS)
        self.pval.append(result.tracks.pval[is_good])
        self._add_clusters(result, truth, event)

    def _add_clusters(self, result: EventResult, truth: MeasurementTruth, event: SimulatedEvent) -> None:
        pulls = measurement_pulls(result, truth, event.simulated, self.detector, self.clusterization)
        measurements, rows = result.measurements, pulls.measurement_index
        design = self.detector.arrays().surfaces["design"][measurements.module_index[rows]]
        self.clusters.append((design, measurements.cluster_size[rows], pulls.pull))

    def _all_clusters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return design, size and pull of all measurements."""
        design, size, pull = (np.concatenate(column) for column in zip(*self.clusters, strict=True))
        return design, np.minimum(size, MAX_CLUSTER_SIZE), pull

    def pulls_by_size(self) -> dict[str, dict[str, Any]]:
        """Return the pulls of measurements by size, all designs and axes together."""
        if not self.clusters:
            return {}
        design, size, pull = self._all_clusters()
        is_measured = np.arange(2) < self.detector.arrays().designs["dimensions"][design][:, None]
        found = {}
        for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
            values = pull[is_measured & (size == n_channels)]
            if len(values) >= _MIN_CLUSTERS:
                found[str(n_channels)] = fit_gaussian(values).as_dict()
        return found

    def measurement_pulls(self) -> dict[str, dict[str, Any]]:
        """Return the pulls of measurements by "design axis size"; the last size includes all larger ones."""
        if not self.clusters:
            return {}
        design, size, pull = self._all_clusters()
        dimensions = self.detector.arrays().designs["dimensions"]
        found = {}
        for i, name in enumerate(self.detector.design_names):
            for axis in range(int(dimensions[i])):
                for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
                    rows = (design == i) & (size[:, axis] == n_channels)
                    if np.count_nonzero(rows) >= _MIN_CLUSTERS:
                        found[f"{name} loc{axis} {n_channels}"] = fit_gaussian(pull[rows, axis]).as_dict()
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return everything as numbers, for JSON."""
        return {
            "tracks": {name: counts.as_dict() for name, counts in self.tracks.items()},
            "seeds": {name: counts.as_dict() for name, counts in self.seeds.items()},
            "fit_outcomes": dict(self.outcomes),
            "first_state_pulls": self._fits(self.first_state, FIRST_STATE_NAMES),
            "perigee_pulls": self._fits(self.perigee, PERIGEE_NAMES),
            "p_values": summarise_p_values(np.concatenate([*self.pval, np.zeros(0)])),
            "measurement_pulls": self.measurement_pulls(),
            "measurement_pulls_by_size": self.pulls_by_size(),
        }

    @staticmethod
    def _fits(pieces: list[Pulls], names: tuple[str, ...]) -> dict[str, Any]:
        if not pieces:
            return {}
        return {name: fit.as_dict() for name, fit in summarise_pulls(concatenate_pulls(pieces), names).items()}
