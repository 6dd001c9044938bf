"""Tracks beside the truth, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.edm import EventResult, Tracks
from traccc_py.edm.collection import data_frame
from traccc_py.edm.html import fact_table
from traccc_py.errors import InputDataError
from traccc_py.performance.definitions import TRACCC, Definition, TruthSelection
from traccc_py.performance.matching import Counts, Matches, count_matches, match_tracks
from traccc_py.performance.residuals import Residuals, perigee_residuals
from traccc_py.performance.selection import select_particles
from traccc_py.performance.tracks import tracks_of_result
from traccc_py.performance.truth import NO_PARTICLE, EventTruth, MeasurementTruth, simulated_truth
from traccc_py.simulation.events import SimulatedEvent
from traccc_py.units import T

__all__ = ["TruthMatch", "match"]


@dataclass(slots=True, repr=False)
class TruthMatch:
    """Tracks of an event and the particles they belong to."""

    result: EventResult
    truth: EventTruth
    links: MeasurementTruth  # particles behind the measurements
    matches: Matches  # a row a track
    definition: Definition

    def __repr__(self) -> str:
        """Return the numbers of tracks."""
        return f"TruthMatch({len(self.tracks)} tracks, {np.count_nonzero(self.is_matched)} matched; {self.truth!r})"

    def _repr_html_(self) -> str:
        """Return counts, for notebooks."""
        return fact_table("TruthMatch", {**self.counts().as_dict(), "definition": self.definition.name})

    @property
    def tracks(self) -> Tracks:
        """The tracks."""
        return self.result.tracks

    @property
    def particle_index(self) -> np.ndarray:
        """Row of each track's particle, the one with most of its measurements, (n,) int64; -1: none."""
        return self.matches.particle_index

    @property
    def is_matched(self) -> np.ndarray:
        """Whether each track is matched to its particle, by the definition, (n,) bool."""
        return self.matches.is_matched

    @property
    def purity(self) -> np.ndarray:
        """Measurements of the particle / measurements of the track, (n,) float64."""
        return self.matches.purity

    @property
    def completeness(self) -> np.ndarray:
        """Measurements of the particle on the track / all measurements of the particle, (n,) float64."""
        return self.matches.completeness

    def counts(self, selection: TruthSelection | None = None, **cuts: Any) -> Counts:
        """Return efficiency, duplicates and fakes.

        Parameters
        ----------
        selection : TruthSelection, optional
            Particles that count.
        **cuts
            Its fields in the place of a selection: `min_pt` [GeV], `max_eta`, `max_r` [mm], `min_measurements` ...
        """
        chosen = TruthSelection(**cuts) if selection is None else selection
        return count_matches(self.matches, select_particles(self.truth, self.links, chosen), self.definition)

    def perigee_residuals(self, b_field_z: float) -> Residuals:
        """Return residuals and pulls of the matched, successfully fitted tracks at the beam line.

        Parameters
        ----------
        b_field_z : float
            Field along z, which brings particles to the beam line [T].
        """
        return perigee_residuals(tracks_of_result(self.result), self.matches, self.truth, b_field_z * T)

    def table(self) -> dict[str, np.ndarray]:
        """Return the columns of the tracks, and those of their particles as `true_pt` ..., by name; NaN without one."""
        has_particle = self.particle_index != NO_PARTICLE
        row = np.where(has_particle, self.particle_index, 0)
        particles = self.truth.particles
        found = {"is_matched": self.is_matched, "purity": self.purity, "completeness": self.completeness}
        found["particle_index"] = self.particle_index
        for name in ("pt", "eta", "phi", "charge"):
            values = getattr(particles, name)
            found[f"true_{name}"] = np.where(has_particle, values[row] if len(values) else np.nan, np.nan)
        ids = particles.particle_id
        found["particle_id"] = np.where(has_particle, ids[row] if len(ids) else 0, 0).astype(np.uint64)
        return self.tracks.table() | found

    def to_pandas(self) -> Any:
        """Return `table` as a pandas.DataFrame, a row a track."""
        return data_frame(self.table())

    def particles_to_pandas(self) -> Any:
        """Return the particles as a pandas.DataFrame.

        Beside their columns it has `n_measurements`, `n_tracks` (matched ones) and `track_index`, the matched track
        with most of the particle's measurements, -1 if there is none.
        """
        particles, n = self.truth.particles, len(self.truth.particles)
        rows = np.flatnonzero(self.is_matched)
        rows = rows[np.lexsort((-rows, self.matches.n_major[rows]))]  # of several values for a particle the last stays
        track_index = np.full(n, -1)
        track_index[self.particle_index[rows]] = rows
        counts = {
            "n_measurements": np.bincount(self.links.particle_index, minlength=n),
            "n_tracks": np.bincount(self.particle_index[rows], minlength=n),
            "track_index": track_index,
        }
        return data_frame(particles.table() | counts)


def match(result: EventResult, truth: EventTruth | SimulatedEvent, definition: Definition = TRACCC) -> TruthMatch:
    """Match the tracks of an event to the particles that made them.

    Parameters
    ----------
    result : EventResult
        What the chain returned, perhaps with selected tracks (`EventResult.with_tracks`).
    truth : EventTruth or SimulatedEvent
        The event's truth: of `read_truth`, or the simulated event itself.
    definition : Definition, optional
        When a track is matched; by default as in traccc.

    Returns
    -------
    TruthMatch
        A row a track.

    Raises
    ------
    InputDataError
        If the truth is that of another event, or does not say which particles made the measurements.

    Examples
    --------
    >>> from traccc_py import TrackingChain, match
    >>> from traccc_py.simulation.events import simulate_event
    >>> from traccc_py.simulation.generators.gun import ParticleGunConfig
    >>> chain = TrackingChain("odd", threads=1)
    >>> event = simulate_event(chain.detector, ParticleGunConfig(n_particles=10, momentum=(1.0, 10.0)), seed=1)
    >>> found = match(chain.run(event.cells), event)
    >>> found.counts(min_pt=1.0, max_eta=2.0).n_fakes
    0
    """
    event = simulated_truth(truth) if isinstance(truth, SimulatedEvent) else truth
    if event.link is None:
        msg = f"{event!r} does not say which particles made the measurements; take it from read_truth"
        raise InputDataError(msg)
    links = event.link(result.measurements)
    tracks = tracks_of_result(result)
    matches = match_tracks(tracks, links, len(event.particles), definition)
    if definition.require_fit:
        matches = matches._replace(is_matched=matches.is_matched & tracks.is_fitted)
    return TruthMatch(result, event, links, matches, definition)
