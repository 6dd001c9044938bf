"""Truth matching of tracks and seeds, and the counts of an event."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from traccc_py.performance.definitions import Definition
from traccc_py.performance.statistics import wilson_interval
from traccc_py.performance.tracks import TrackSet
from traccc_py.performance.truth import NO_PARTICLE, MeasurementTruth, csr_expand

__all__ = [
    "Counts",
    "Matches",
    "count_matches",
    "find_duplicates",
    "find_fakes",
    "match_seeds",
    "match_tracks",
]


class Matches(NamedTuple):
    """Tracks or seeds and the particles they belong to."""

    particle_index: np.ndarray  # (n,) int64, the major particle: the one with most measurements; -1: none
    n_major: np.ndarray  # (n,) int64, measurements of the major particle
    purity: np.ndarray  # (n,) n_major / measurements of the track
    completeness: np.ndarray  # (n,) n_major / measurements of the particle
    is_matched: np.ndarray  # (n,) bool
    contributions: np.ndarray  # (k, 2) int64: every pair of a track and a particle with measurements on it


def _match(tracks: TrackSet, links: MeasurementTruth, n_particles: int) -> Matches:
    """Find the major particles; every particle of a measurement counts. `is_matched` is not set yet."""
    n = len(tracks)
    group = np.repeat(np.arange(n), np.diff(tracks.offsets))
    used = tracks.measurement_index >= 0
    group, measurement = group[used], tracks.measurement_index[used]
    places, position = csr_expand(links.offsets, measurement)
    pairs, n_shared = np.unique(
        np.stack([group[position], links.particle_index[places]], axis=1), axis=0, return_counts=True
    )
    order = np.lexsort((pairs[:, 1], -n_shared, pairs[:, 0]))  # most measurements first, then the lower row
    pairs, n_shared = pairs[order], n_shared[order]
    with_truth, first = np.unique(pairs[:, 0], return_index=True)
    particle, n_major = np.full(n, NO_PARTICLE), np.zeros(n, np.int64)
    particle[with_truth], n_major[with_truth] = pairs[first, 1], n_shared[first]
    n_of_particle = np.bincount(links.particle_index, minlength=n_particles + 1)  # one more, for "none"
    purity = n_major / np.maximum(np.bincount(group, minlength=n), 1)
    completeness = n_major / np.maximum(n_of_particle[particle], 1)
    return Matches(particle, n_major, purity, completeness, np.zeros(n, bool), pairs)


def match_tracks(tracks: TrackSet, links: MeasurementTruth, n_particles: int, definition: Definition) -> Matches:
    """Match tracks to particles.

    Parameters
    ----------
    tracks : TrackSet
        Tracks; holes don't count.
    links : MeasurementTruth
        Particles behind the measurements; every one of a merged measurement counts.
    n_particles : int
        Number of particles.
    definition : Definition
        Ratios.

    Returns
    -------
    Matches
        One row per track. Of particles with equal numbers of measurements, that in the lowest row is the major one.
    """
    found = _match(tracks, links, n_particles)
    ratio = definition.matching_ratio
    is_complete = (found.completeness >= ratio) | (not definition.double_matching)
    return found._replace(is_matched=(found.particle_index != NO_PARTICLE) & (found.purity >= ratio) & is_complete)


def match_seeds(seeds: TrackSet, links: MeasurementTruth, n_particles: int, definition: Definition) -> Matches:
    """Match seeds to particles, by purity only; arguments as for `match_tracks`."""
    found = _match(seeds, links, n_particles)
    compare = np.greater if definition.is_seed_ratio_strict else np.greater_equal
    is_pure = compare(found.purity, definition.seed_matching_ratio)
    return found._replace(is_matched=(found.particle_index != NO_PARTICLE) & is_pure)


def find_fakes(matches: Matches, is_selected: np.ndarray, definition: Definition) -> np.ndarray:
    """Return which tracks are fakes, (n,) bool: they have truth and match no particle."""
    has_truth = matches.particle_index != NO_PARTICLE
    if definition.fakes_of_selected_only:
        has_truth = has_truth & np.append(is_selected, False)[matches.particle_index]
    return has_truth & ~matches.is_matched


def find_duplicates(matches: Matches, is_selected: np.ndarray, tracks: TrackSet) -> np.ndarray:
    """Return which tracks are duplicates, (n,) bool: all matched tracks of a selected particle but the best.

    The best has most measurements, then the smallest chi2, then the lower row.
    """
    rows = np.flatnonzero(matches.is_matched & np.append(is_selected, False)[matches.particle_index])
    chi2 = np.nan_to_num(tracks.chi2[rows], nan=np.inf)
    order = rows[np.lexsort((rows, chi2, -tracks.n_measurements[rows], matches.particle_index[rows]))]
    is_duplicate = np.zeros(len(matches.is_matched), bool)
    particle = matches.particle_index[order]
    is_duplicate[order[1:][particle[1:] == particle[:-1]]] = True
    return is_duplicate


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


@dataclass(slots=True)
class Counts:
    """Counts of one or more events, which ``+`` adds up. Ratios without denominator are NaN."""

    n_particles: int = 0  # selected
    n_groups: int = 0  # tracks or seeds
    n_found: int = 0  # selected particles with at least one match
    n_duplicates: int = 0  # further matches of them
    n_fakes: int = 0  # tracks or seeds that match no particle, by the definition
    n_without_truth: int = 0  # tracks or seeds without truth: neither matched nor fake

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def efficiency(self) -> float:
        """Found particles / selected particles."""
        return _ratio(self.n_found, self.n_particles)

    @property
    def duplicate_rate(self) -> float:
        """Duplicates / found particles."""
        return _ratio(self.n_duplicates, self.n_found)

    @property
    def fake_rate(self) -> float:
        """Fakes / selected particles; it may exceed 1."""
        return _ratio(self.n_fakes, self.n_particles)

    @property
    def duplicates_per_group(self) -> float:
        """Duplicates / tracks."""
        return _ratio(self.n_duplicates, self.n_groups)

    @property
    def fakes_per_group(self) -> float:
        """Fakes / tracks."""
        return _ratio(self.n_fakes, self.n_groups)

    def as_dict(self) -> dict[str, Any]:
        """Return numbers, rates and Wilson's interval of the efficiency (one sigma)."""
        rates = ("efficiency", "duplicate_rate", "fake_rate", "duplicates_per_group", "fakes_per_group")
        names = [f.name for f in fields(self)]
        low, high = wilson_interval(np.array([self.n_found]), np.array([self.n_particles]))
        interval = {"efficiency_low": float(low[0]), "efficiency_high": float(high[0])}
        return {name: getattr(self, name) for name in (*names, *rates)} | interval


def count_matches(matches: Matches, is_selected: np.ndarray, definition: Definition) -> Counts:
    """Count the matches of one event.

    Parameters
    ----------
    matches : Matches
        Tracks or seeds.
    is_selected : ndarray of shape (n_particles,), bool
        Particles that count (`select_particles`).
    definition : Definition
        Which tracks are fakes.

    Returns
    -------
    Counts
        Numbers of the event.
    """
    n_matches = np.bincount(matches.particle_index[matches.is_matched], minlength=len(is_selected))[is_selected]
    n_found = int(np.count_nonzero(n_matches))
    return Counts(
        n_particles=int(np.count_nonzero(is_selected)),
        n_groups=len(matches.particle_index),
        n_found=n_found,
        n_duplicates=int(n_matches.sum()) - n_found,
        n_fakes=int(np.count_nonzero(find_fakes(matches, is_selected, definition))),
        n_without_truth=int(np.count_nonzero(matches.particle_index == NO_PARTICLE)),
    )
