"""Truth of an event: particles, hits, and the measurements that they made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from traccc_py.data.csv_events import (
    find_event_file,
    has_event_file,
    read_cells,
    read_hits,
    read_measurements,
    read_particles,
)
from traccc_py.data.trackml_files import (
    TrackmlHits,
    is_trackml,
    read_trackml_cells,
    read_trackml_hits,
    read_trackml_particles,
    read_trackml_truth,
    sibling,
)
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.errors import InputDataError
from traccc_py.performance.joins import check_rows, read_links
from traccc_py.simulation.digitization.digitization import DigitizedHits
from traccc_py.simulation.events import SimulatedEvent

__all__ = [
    "NO_PARTICLE",
    "EventTruth",
    "MeasurementTruth",
    "csr_expand",
    "link_cells",
    "link_digitization",
    "link_files",
    "link_hits",
    "link_map",
    "particle_kind",
    "read_truth",
    "simulated_truth",
]

NO_PARTICLE = -1
_SAME_POSITION = 1e-3  #: [mm]
_PARTICLE_FILES = ("particles_initial", "particles")
_NEXT_CELLS = ((1, 0), (-1, 1), (0, 1), (1, 1))  # steps in (channel0, channel1) to the neighbours after a cell


class MeasurementTruth(NamedTuple):
    """Particles behind each measurement, those with most cells first."""

    offsets: np.ndarray  # (n_measurements + 1,) int64
    particle_index: np.ndarray  # (offsets[-1],) int64, rows of the particles, each once in a measurement
    n_cells: np.ndarray  # (offsets[-1],) int64, cells the particle contributed to
    hit_index: np.ndarray  # (offsets[-1],) int64, the particle's hit with most cells
    hits: np.ndarray  # (k, 2) int64: every pair of a measurement and a hit behind it, also hits of no particle


@dataclass(slots=True, repr=False)
class EventTruth:
    """Particles and hits of one event."""

    number: int
    particles: Particles
    hits: Hits
    particle_of_hit: np.ndarray  # (n_hits,) int64, row of the particle; -1: not among the particles
    #: finds the particles behind measurements of the event
    link: Callable[[Measurements], MeasurementTruth] | None = None
    hit_weights: np.ndarray | None = None  # (n_hits,) float64, of TrackML's score, where the files have them

    def __repr__(self) -> str:
        """Return the number of the event and its sizes."""
        return f"EventTruth(event {self.number}: {len(self.particles)} particles, {len(self.hits)} hits)"

    def momentum_at_hits(self, *, outgoing: bool) -> np.ndarray:
        """Return the momenta before or after the surface's material, (n_hits, 3) float64 [GeV]."""
        momentum = np.asarray(self.hits.momentum, np.float64)
        return momentum + self.hits.delta_momentum if outgoing else momentum


def simulated_truth(event: SimulatedEvent) -> EventTruth:
    """Return the truth of an event in memory."""
    particle_of_hit = event.simulated.particle_index
    link = partial(link_digitization, made=event.digitization, particle_of_hit=particle_of_hit)
    return EventTruth(event.number, event.particles, event.simulated.hits, particle_of_hit, link)


def particle_kind(directory: Path | str, event: int) -> str:
    """Return the kind of an event's particles file: `particles_initial`, or `particles` if there is only that."""
    kinds = [k for k in _PARTICLE_FILES if has_event_file(directory, event, k)]
    return kinds[0] if kinds else _PARTICLE_FILES[0]


def read_truth(directory: Path | str, event: int) -> EventTruth:
    """Read particles and hits of an event.

    Parameters
    ----------
    directory : path
        Folder with the event's ``hits`` and ``particles_initial`` (or ``particles``) files, or its files of TrackML.
    event : int
        Event number.

    Returns
    -------
    EventTruth
        Hits of particles that are not in the particles file (secondaries) have no particle.

    Raises
    ------
    InputDataError
        If a file is missing or can't be used, or two particles have one id.
    """
    hits_path = find_event_file(directory, event, "hits")
    if is_trackml(hits_path):
        return _read_trackml(hits_path, event)
    path = find_event_file(directory, event, particle_kind(directory, event))
    particles, hits = read_particles(path), read_hits(hits_path)
    order = np.argsort(particles.particle_id, kind="stable")
    ids = particles.particle_id[order]
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        msg = f"{path}: particle_id {repeated[0]} appears more than once; expected each particle once"
        raise InputDataError(msg)
    particle_of_hit = _look_up(ids, order, hits.particle_id)
    if len(hits) and len(particles) and (particle_of_hit == NO_PARTICLE).all():
        msg = f"{path}: has none of the particles of the {len(hits)} hits; are the two files of one event?"
        raise InputDataError(msg)
    found = EventTruth(event, particles, hits, particle_of_hit)
    found.link = partial(link_files, directory=directory, event=found, name="the result")
    return found


def _read_trackml(path: Path, event: int) -> EventTruth:
    """Return the truth of an event of TrackML; the kinds of its particles are not known."""
    hits = read_trackml_hits(path)
    particles_path = sibling(path, "particles")
    if particles_path is None:
        msg = f"{path}: has no file of particles beside it; it is needed for the truth"
        raise InputDataError(msg)
    particles, truth = read_trackml_particles(particles_path), read_trackml_truth(path, hits)
    order = np.argsort(particles.particle_id, kind="stable")
    particle_of_hit = _look_up(particles.particle_id[order], order, truth.hits.particle_id)
    weights = None if np.isnan(truth.weight).any() else truth.weight
    found = EventTruth(event, particles, truth.hits, particle_of_hit, hit_weights=weights)
    found.link = partial(_link_trackml, path=path, ids=hits, event=found, name="the result")
    return found


def _link_trackml(
    measurements: Measurements, path: Path, ids: TrackmlHits, event: EventTruth, name: str
) -> MeasurementTruth:
    """Return the particles behind measurements of an event of TrackML: they are its hits, or made of its cells."""
    n, known = len(measurements), np.sort(ids.hit_id)
    is_of_cells = np.array_equal(np.sort(measurements.measurement_id), np.arange(n))  # hits are counted from 1
    if not is_of_cells or n == 0:
        order = np.argsort(ids.hit_id, kind="stable")
        row = _look_up(known, order, measurements.measurement_id)
        if (row >= 0).all() and np.array_equal(ids.geometry_id[row], measurements.geometry_id):
            return link_hits(row, event.particle_of_hit)
    else:
        links = MeasurementHitMap(np.arange(len(ids.hit_id)), np.arange(len(ids.hit_id)))
        cells = read_trackml_cells(path)[0]
        found = link_cells(measurements.geometry_id, cells, links, event.particle_of_hit)
        if found is not None:
            return found
    msg = f"{name}: is neither the hits of {path} nor made of their cells; give the truth of the same events"
    raise InputDataError(msg)


def _look_up(sorted_ids: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return `rows` of the sorted ids that equal `wanted`, or -1."""
    if len(sorted_ids) == 0:
        return np.full(len(wanted), NO_PARTICLE)
    place = np.minimum(np.searchsorted(sorted_ids, wanted), len(sorted_ids) - 1)
    return np.where(sorted_ids[place] == wanted, rows[place], NO_PARTICLE)


def csr_expand(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each value in the lists `rows`, its place among all values and the place of its list in `rows`."""
    sizes = np.diff(offsets)[rows]
    owner = np.repeat(np.arange(len(rows)), sizes)
    start = np.repeat(offsets[rows] - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes) if len(rows) else owner
    return start + np.arange(len(owner)), owner


def link_digitization(measurements: Measurements, made: DigitizedHits, particle_of_hit: np.ndarray) -> MeasurementTruth:
    """Return the particles behind measurements that were formed from simulated cells.

    Parameters
    ----------
    measurements : Measurements
        With `cell_offsets` and `cell_indices`, rows of the cells.
    made : DigitizedHits
        The cells and all hits behind each.
    particle_of_hit : ndarray of shape (n_hits,)
        Rows of the particles.

    Returns
    -------
    MeasurementTruth
        One list per measurement.
    """
    n = len(measurements)
    cells, measurement_of_cell = csr_expand(measurements.cell_offsets, np.arange(n))
    links, position = csr_expand(made.hit_offsets, measurements.cell_indices[cells])
    return _count_links(n, measurement_of_cell[position], made.hit_indices[links], particle_of_hit)


def link_hits(hit_of_measurement: np.ndarray, particle_of_hit: np.ndarray) -> MeasurementTruth:
    """Return the particles behind measurements that were made straight from hits, one each."""
    n = len(hit_of_measurement)
    return _count_links(n, np.arange(n), np.asarray(hit_of_measurement), particle_of_hit)


def link_map(links: MeasurementHitMap, n_measurements: int, particle_of_hit: np.ndarray) -> MeasurementTruth:
    """Return the particles behind the measurements of a measurement-hit map (many to many); each hit counts once.

    Raises
    ------
    InputDataError
        If the map names a measurement or hit that does not exist.
    """
    for name, values, n in (
        ("measurement_id", links.measurement_id, n_measurements),
        ("hit_id", links.hit_id, len(particle_of_hit)),
    ):
        if len(values) and values.max() >= n:
            row = int(np.argmax(values >= n))
            msg = f"measurement-simhit-map, row {row}: {name} is {values[row]}; there are {n}"
            raise InputDataError(msg)
    return _count_links(n_measurements, links.measurement_id, links.hit_id, particle_of_hit)


def link_files(measurements: Measurements, directory: Path | str, event: EventTruth, name: str) -> MeasurementTruth:
    """Return the particles behind measurements of an event from files: they are its measurements, or of its cells.

    Parameters
    ----------
    measurements : Measurements
        What was reconstructed, in the order of the reconstruction.
    directory : path
        Folder of the truth: the measurement-hit map, measurements and cells.
    event : EventTruth
        The event's truth.
    name : str
        What the measurements are, for the error.

    Raises
    ------
    InputDataError
        If a file is missing or can't be used, or the measurements are of another event.
    """
    if event.hit_weights is not None or is_trackml(find_event_file(directory, event.number, "hits")):
        assert event.link is not None
        return event.link(measurements)
    links_path, links = read_links(directory, event.number, len(event.hits))
    true = read_measurements(find_event_file(directory, event.number, "measurements"))
    check_rows(links_path, "measurement_id", links.measurement_id, len(true), "the measurements file")
    ids = measurements.measurement_id
    if len(ids) == 0 or (
        ids.max() < len(true)
        and np.array_equal(true.geometry_id[ids], measurements.geometry_id)
        and np.abs(true.local_position[ids] - measurements.local_position).max() < _SAME_POSITION
    ):
        row_of_id = np.full(len(true), -1)
        row_of_id[ids] = np.arange(len(ids))
        row = row_of_id[links.measurement_id]
        used = row >= 0
        return link_map(MeasurementHitMap(row[used], links.hit_id[used]), len(ids), event.particle_of_hit)
    cells = read_cells(find_event_file(directory, event.number, "cells"))
    found = link_cells(measurements.geometry_id, cells, links, event.particle_of_hit)
    if found is None:
        msg = (
            f"{name}: is neither the measurements of {directory} nor made of its cells; give the truth of the events "
            "that were reconstructed, without cells of channels that the run left out as dead"
        )
        raise InputDataError(msg)
    return found


def link_cells(
    geometry_id: np.ndarray, cells: Cells, links: MeasurementHitMap, particle_of_hit: np.ndarray
) -> MeasurementTruth | None:
    """Return the particles behind measurements that were formed from cells with truth, without knowing which cells.

    Parameters
    ----------
    geometry_id : ndarray of shape (n,), uint64
        Surfaces of the measurements, in the order in which the reconstruction makes them: by module, then by the first
        cell in (channel1, channel0).
    cells : Cells
        Input of the reconstruction, with `measurement_id`, rows of the truth measurements.
    links : MeasurementHitMap
        Hits of the truth measurements.
    particle_of_hit : ndarray of shape (n_hits,)
        Rows of the particles.

    Returns
    -------
    MeasurementTruth or None
        None if the clusters of the cells don't correspond to the measurements.
    """
    order, cluster = _clusters(cells)
    first = np.unique(cluster, return_index=True)[1]
    if not np.array_equal(cells.geometry_id[order][first], geometry_id):
        return None
    truth_measurement = cells.measurement_id[order]
    by_measurement = np.argsort(links.measurement_id, kind="stable")
    linked, counts = np.unique(links.measurement_id, return_counts=True)  # ids in files may be arbitrarily large
    row = _look_up(linked, np.arange(len(linked)), truth_measurement)
    known = np.flatnonzero(row >= 0)
    place, owner = csr_expand(np.concatenate(([0], np.cumsum(counts))), row[known])
    hit = links.hit_id[by_measurement][place]
    return _count_links(len(geometry_id), cluster[known][owner], hit, particle_of_hit)


def _clusters(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the cells by (module, channel1, channel0), and the cluster of each in that order.

    Clusters are numbered by their first cell. Labels spread over edges between neighbours until nothing changes.
    """
    module = np.unique(cells.geometry_id, return_inverse=True)[1]
    width = 2 + int(cells.channel0.max(initial=0))
    height = 2 + int(cells.channel1.max(initial=0))
    if (1 + int(module.max(initial=0))) * height * width > np.iinfo(np.int64).max:
        msg = f"cells have channels up to {width - 2} and {height - 2}: more than in any detector"
        raise InputDataError(msg)
    key = (module.astype(np.int64) * height + cells.channel1) * width + cells.channel0 + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    n = len(key)
    label = np.searchsorted(key, key)  # cells of one channel are one
    low, high = [], []
    for step0, step1 in _NEXT_CELLS:
        wanted = key + step1 * width + step0
        place = np.minimum(np.searchsorted(key, wanted), max(n - 1, 0))
        found = np.flatnonzero(key[place] == wanted) if n else place
        low.append(found)
        high.append(place[found])
    a, b = np.concatenate(low), np.concatenate(high)
    while n:
        least = np.minimum(label[a], label[b])
        before = label.copy()
        np.minimum.at(label, before[a], least)
        np.minimum.at(label, before[b], least)
        np.minimum.at(label, a, least)
        np.minimum.at(label, b, least)
        label = label[label]
        if np.array_equal(label, before):
            break
    return order, np.unique(label, return_inverse=True)[1]


def _count_links(n: int, measurement: np.ndarray, hit: np.ndarray, particle_of_hit: np.ndarray) -> MeasurementTruth:
    """Count equal (measurement, hit) pairs and group them by particle; hits of unknown particles are in none."""
    pairs, n_cells = np.unique(np.stack([measurement, hit], axis=1), axis=0, return_counts=True)
    known = particle_of_hit[pairs[:, 1]] != NO_PARTICLE
    grouped = _group_by_particle(n, pairs[known, 0], pairs[known, 1], n_cells[known], particle_of_hit)
    return MeasurementTruth(*grouped, hits=pairs)


def _group_by_particle(
    n: int, measurement: np.ndarray, hit: np.ndarray, n_cells: np.ndarray, particle_of_hit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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
    return offsets, particle[first][order], total[order], hit[first][order]
