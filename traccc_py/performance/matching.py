"""Truth matching of tracks and seeds, efficiency, duplicates and fakes (definitions of traccc v1.6.0, performance/)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data.truth import Particles
from traccc_py.edm import EventResult, Measurements
from traccc_py.errors import ConfigError
from traccc_py.simulation.digitization import Digitization
from traccc_py.simulation.transport import SimulatedHits

__all__ = [
    "Counts",
    "GroupMatches",
    "MeasurementTruth",
    "TruthSelection",
    "count_matches",
    "match_groups",
    "match_seeds",
    "match_tracks",
    "measurement_truth",
    "measurement_truth_of_hits",
    "select_particles",
]

NO_PARTICLE = -1
_CHARGED_CODES = (11, 13, 211)  # PDG codes that traccc counts
_LAYER_SHIFT = np.uint64(36)  # geometry ids above this bit: volume, boundary, layer
_VOLUME_SHIFT = np.uint64(56)


class MeasurementTruth(NamedTuple):
    """Particles behind each measurement, those with most cells first."""

    offsets: np.ndarray  # (n_measurements + 1,) int64
    particle_index: np.ndarray  # (offsets[-1],) int64, rows of the particles, each once in a measurement
    n_cells: np.ndarray  # (offsets[-1],) int64, cells the particle contributed to
    hit_index: np.ndarray  # (offsets[-1],) int64, the particle's hit with most cells


def _csr_expand(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each value in the lists `rows`, its place among all values and the place of its list in `rows`."""
    sizes = np.diff(offsets)[rows]
    owner = np.repeat(np.arange(len(rows)), sizes)
    start = np.repeat(offsets[rows] - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes) if len(rows) else owner
    return start + np.arange(len(owner)), owner


def measurement_truth(measurements: Measurements, made: Digitization, simulated: SimulatedHits) -> MeasurementTruth:
    """Return the particles behind measurements that were formed from cells.

    Parameters
    ----------
    measurements : Measurements
        With `cell_offsets` and `cell_indices`, rows of the cells.
    made : Digitization
        The cells and the hits behind them.
    simulated : SimulatedHits
        The hits and the particles behind them.

    Returns
    -------
    MeasurementTruth
        One list per measurement.
    """
    n = len(measurements)
    cells, measurement_of_cell = _csr_expand(measurements.cell_offsets, np.arange(n))
    links, position = _csr_expand(made.hit_offsets, measurements.cell_indices[cells])
    hit, measurement = made.hit_indices[links], measurement_of_cell[position]
    pairs, n_cells = np.unique(np.stack([measurement, hit], axis=1), axis=0, return_counts=True)
    return _group_by_particle(n, pairs[:, 0], pairs[:, 1], n_cells, simulated.particle_index)


def measurement_truth_of_hits(hit_of_measurement: np.ndarray, simulated: SimulatedHits) -> MeasurementTruth:
    """Return the particles behind measurements that were made straight from hits, one each."""
    n = len(hit_of_measurement)
    particle = simulated.particle_index[hit_of_measurement]
    return MeasurementTruth(np.arange(n + 1), particle, np.ones(n, np.int64), np.asarray(hit_of_measurement))


def _group_by_particle(
    n: int, measurement: np.ndarray, hit: np.ndarray, n_cells: np.ndarray, particle_of_hit: np.ndarray
) -> MeasurementTruth:
    """Join the hits of one particle in a measurement; order each measurement's particles by cells, then row."""
    particle = particle_of_hit[hit]
    order = np.lexsort((hit, -n_cells, particle, measurement))
    measurement, hit, n_cells, particle = measurement[order], hit[order], n_cells[order], particle[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(measurement) != 0) | (np.diff(particle) != 0)
    first = np.flatnonzero(is_first)
    total = np.add.reduceat(n_cells, first) if len(first) else n_cells
    order = np.lexsort((particle[first], -total, measurement[first]))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(measurement[first], minlength=n))))
    return MeasurementTruth(offsets, particle[first][order], total[order], hit[first][order])


@dataclass(frozen=True, slots=True)
class TruthSelection:
    """Particles that count in an efficiency."""

    min_pt: float = 0.5  #: [GeV]
    max_eta: float = 3.0
    min_z: float = -500.0  #: vertex [mm]
    max_z: float = 500.0
    max_r: float = 200.0  #: vertex [mm]
    process: int = 0  #: production process; negative: any
    min_measurements: int = 3
    min_modules: int = 0  #: different modules hit
    min_pixel_layers: int = 0  #: different layers hit in `pixel_volumes`
    pixel_volumes: tuple[int, ...] = (16, 17, 18)  #: volumes of the Open Data Detector's pixels

    def __post_init__(self) -> None:
        if self.min_pt < 0 or self.max_eta <= 0 or self.min_z > self.max_z:
            msg = f"{self}: expected min_pt >= 0, max_eta > 0, min_z <= max_z"
            raise ConfigError(msg)


def _count_distinct(particle: np.ndarray, key: np.ndarray, n: int) -> np.ndarray:
    pairs = np.unique(np.stack([particle.astype(np.uint64), key.astype(np.uint64)], axis=1), axis=0)
    return np.bincount(pairs[:, 0].astype(np.int64), minlength=n)


def select_particles(
    particles: Particles, simulated: SimulatedHits, truth: MeasurementTruth, selection: TruthSelection
) -> np.ndarray:
    """Return which particles count in an efficiency, (n_particles,) bool."""
    n = len(particles)
    pt = np.hypot(particles.momentum[:, 0], particles.momentum[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(particles.momentum[:, 2] / pt)
    radius = np.hypot(particles.vertex[:, 0], particles.vertex[:, 1])
    ids = simulated.hits.geometry_id.astype(np.uint64)
    in_pixels = np.isin(ids >> _VOLUME_SHIFT, np.array(selection.pixel_volumes, np.uint64))
    layers = _count_distinct(simulated.particle_index[in_pixels], ids[in_pixels] >> _LAYER_SHIFT, n)
    modules = _count_distinct(simulated.particle_index, ids, n)
    return (
        np.isin(np.abs(particles.particle_type), _CHARGED_CODES)
        & (particles.charge != 0)
        & (pt >= selection.min_pt)
        & (np.abs(eta) <= selection.max_eta)
        & (particles.vertex[:, 2] >= selection.min_z)
        & (particles.vertex[:, 2] <= selection.max_z)
        & (radius <= selection.max_r)
        & ((selection.process < 0) | (particles.process == selection.process))
        & (np.bincount(truth.particle_index, minlength=n) >= selection.min_measurements)
        & (modules >= selection.min_modules)
        & (layers >= selection.min_pixel_layers)
    )


class GroupMatches(NamedTuple):
    """Groups of measurements (tracks or seeds) and the particles they belong to."""

    particle_index: np.ndarray  # (n_groups,) int64, the major particle: the one with most measurements; -1: none
    n_major: np.ndarray  # (n_groups,) int64, measurements of the major particle
    purity: np.ndarray  # (n_groups,) n_major / measurements of the group
    completeness: np.ndarray  # (n_groups,) n_major / measurements of the particle
    is_matched: np.ndarray  # (n_groups,) bool


def match_groups(
    offsets: np.ndarray, measurement_index: np.ndarray, truth: MeasurementTruth, n_particles: int, ratio: float = 0.5
) -> GroupMatches:
    """Match groups of measurements to particles; every particle of a measurement counts.

    Parameters
    ----------
    offsets : ndarray of shape (n_groups + 1,)
        First measurement of each group.
    measurement_index : ndarray of shape (offsets[-1],)
        Measurements; negative ones (holes) don't count.
    truth : MeasurementTruth
        Particles behind the measurements.
    n_particles : int
        Number of particles.
    ratio : float, optional
        A group is matched if purity and completeness are both at least this.

    Returns
    -------
    GroupMatches
        One row per group.
    """
    n_groups = len(offsets) - 1
    group = np.repeat(np.arange(n_groups), np.diff(offsets))
    used = measurement_index >= 0
    group, measurement = group[used], measurement_index[used]
    links, position = _csr_expand(truth.offsets, measurement)
    pairs, n_shared = np.unique(
        np.stack([group[position], truth.particle_index[links]], axis=1), axis=0, return_counts=True
    )
    order = np.lexsort((pairs[:, 1], -n_shared, pairs[:, 0]))  # most measurements first, then the lower row
    pairs, n_shared = pairs[order], n_shared[order]
    with_truth, first = np.unique(pairs[:, 0], return_index=True)
    particle, n_major = np.full(n_groups, NO_PARTICLE), np.zeros(n_groups, np.int64)
    particle[with_truth], n_major[with_truth] = pairs[first, 1], n_shared[first]
    n_in_group = np.bincount(group, minlength=n_groups)
    n_of_particle = np.bincount(truth.particle_index, minlength=n_particles + 1)  # one more, for "none"
    purity = n_major / np.maximum(n_in_group, 1)
    completeness = n_major / np.maximum(n_of_particle[particle], 1)
    is_matched = (particle != NO_PARTICLE) & (purity >= ratio) & (completeness >= ratio)
    return GroupMatches(particle, n_major, purity, completeness, is_matched)


def match_tracks(result: EventResult, truth: MeasurementTruth, n_particles: int, ratio: float = 0.5) -> GroupMatches:
    """Match the fitted tracks of an event: `match_groups` with their track states."""
    return match_groups(result.tracks.state_offsets, result.track_states.measurement_index, truth, n_particles, ratio)


def match_seeds(result: EventResult, truth: MeasurementTruth, n_particles: int) -> GroupMatches:
    """Match the seeds of an event: at least two of the three measurements are the particle's."""
    seeds, spacepoints = result.seeds, result.spacepoints
    triplets = np.stack([seeds.bottom_index, seeds.middle_index, seeds.top_index], axis=1)
    measurement = spacepoints.measurement_index[triplets].ravel()
    matches = match_groups(np.arange(0, len(measurement) + 1, 3), measurement, truth, n_particles, ratio=0.0)
    return matches._replace(is_matched=(matches.particle_index != NO_PARTICLE) & (matches.purity > 0.5))  # noqa: PLR2004


@dataclass(slots=True)
class Counts:
    """Numbers of one or more events; add them up with ``+``."""

    n_particles: int = 0  # selected
    n_groups: int = 0  # tracks or seeds
    n_found: int = 0  # selected particles with at least one match
    n_duplicates: int = 0  # further matches of them
    n_fakes: int = 0  # groups that have truth and match no particle
    n_without_truth: int = 0  # groups without truth

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def efficiency(self) -> float:
        """Found particles / selected particles; NaN without particles."""
        return self.n_found / self.n_particles if self.n_particles else float("nan")

    @property
    def duplicate_rate(self) -> float:
        """Duplicates / found particles; NaN if none is found."""
        return self.n_duplicates / self.n_found if self.n_found else float("nan")

    @property
    def fake_rate(self) -> float:
        """Fakes / selected particles, as traccc counts (it may exceed 1); NaN without particles."""
        return self.n_fakes / self.n_particles if self.n_particles else float("nan")

    @property
    def fakes_per_group(self) -> float:
        """Fakes / groups; NaN without groups."""
        return self.n_fakes / self.n_groups if self.n_groups else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return numbers and rates."""
        rates = ("efficiency", "duplicate_rate", "fake_rate", "fakes_per_group")
        names = [f.name for f in fields(self)]
        return {name: getattr(self, name) for name in (*names, *rates)}


def count_matches(matches: GroupMatches, is_selected: np.ndarray) -> Counts:
    """Count the matches of one event.

    Parameters
    ----------
    matches : GroupMatches
        Tracks or seeds.
    is_selected : ndarray of shape (n_particles,), bool
        Particles that count (`select_particles`).

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
        n_fakes=int(np.count_nonzero(~matches.is_matched & (matches.particle_index != NO_PARTICLE))),
        n_without_truth=int(np.count_nonzero(matches.particle_index == NO_PARTICLE)),
    )
