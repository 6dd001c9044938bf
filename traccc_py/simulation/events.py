"""Whole simulated events: particles, hits, cells, their links, and the truth files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.csv_events import (
    event_file_name,
    find_event_file,
    read_cells,
    read_hits,
    read_measurement_hit_map,
    read_particles,
    write_cells,
    write_hits,
    write_measurement_hit_map,
    write_measurements,
    write_particles,
)
from traccc_py.data.truth import MeasurementHitMap, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.simulation.digitization.digitization import ChargeOptions, DigitizedHits, digitization_geometry, digitize
from traccc_py.simulation.digitization.failures import chance_of_modules
from traccc_py.simulation.digitization.noise import NoiseOccupancy
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.generators.particle_files import FileParticles
from traccc_py.simulation.generators.pileup import CollisionGenerator, GeneratedEvent
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.settings import KindFractions
from traccc_py.simulation.transport.secondaries import transport_all
from traccc_py.simulation.transport.transport import SimulatedHits, TransportConfig
from traccc_py.simulation.transport.truth_geometry import local_vectors, truth_geometry

__all__ = [
    "EVENT_KINDS",
    "SimulatedEvent",
    "event_file_names",
    "read_event",
    "simulate_event",
    "simulate_events",
    "truth_measurements",
    "write_event",
]

#: What gives particles.
ParticleSource = ParticleGunConfig | CollisionGenerator | FileParticles

#: Files of an event, by the kind in their names.
EVENT_KINDS = ("cells", "hits", "particles_initial", "measurements", "measurement-simhit-map")


@dataclass(slots=True)
class SimulatedEvent:
    """One simulated event."""

    number: int
    particles: Particles
    simulated: SimulatedHits  # hits and their links to particles and modules
    digitization: DigitizedHits  # cells and their links to hits

    @property
    def cells(self) -> Cells:
        """The event's cells."""
        return self.digitization.cells


def _generate(source: ParticleSource, seed: int, number: int) -> GeneratedEvent:
    if not isinstance(source, ParticleGunConfig):
        return source.generate(seed, number)
    particles = generate_particles(source, seed, number)
    return GeneratedEvent(particles, np.full(len(particles), np.inf))


def _usual_transport(source: ParticleSource) -> TransportConfig:
    if isinstance(source, FileParticles):
        return TransportConfig.of_particle_files()
    return TransportConfig.of_collisions() if isinstance(source, CollisionGenerator) else TransportConfig()


def simulate_events(
    detector: Any,
    source: ParticleSource,
    seed: int,
    n_events: int,
    *,
    first_event: int = 0,
    config: TransportConfig | None = None,
    smearing: bool = True,
    noise: NoiseOccupancy = (0.0, 0.0),
    inefficiency: KindFractions = (),
    threads: int = 1,
) -> Iterator[SimulatedEvent]:
    """Simulate events one after another.

    Parameters
    ----------
    detector : Detector
        Through which the particles fly. Its dead channels make no cells; hits are there all the same.
    source : ParticleGunConfig, CollisionGenerator or FileParticles
        The particles.
    seed : int
        Seed of the sample, >= 0. Event k does not depend on which others are simulated.
    n_events : int
        Number of events.
    first_event : int, optional
        Number of the first event.
    config : TransportConfig, optional
        Physics of the transport; by default scattering and energy loss for a gun, all interactions for collisions, all
        but those that make secondary particles for files of particles.
    smearing : bool, optional
        Charge noise of analogue channels.
    noise : tuple of float, optional
        Chance of a channel of 2D and of 1D designs to fire without a hit.
    inefficiency : sequence of (str, float), optional
        Kinds of modules (`digitization.failures`), and the chance of a hit on them to leave no cells.
    threads : int, optional
        Number of threads; results don't depend on it.

    Yields
    ------
    SimulatedEvent
        Events first_event ... first_event + n_events - 1.
    """
    geometry = (truth_geometry(detector), digitization_geometry(detector, smearing=smearing))
    loss = chance_of_modules(detector, inefficiency) if inefficiency else None
    if config is None:
        config = _usual_transport(source)
    for number in range(first_event, first_event + n_events):
        generated = _generate(source, seed, number)
        key = event_key(seed, number)
        particles, simulated = transport_all(
            detector,
            generated.particles,
            key,
            config,
            geometry=geometry[0],
            path_limit=generated.path_limit,
            threads=threads,
        )
        charges = ChargeOptions(config.charge_fluctuations, config.delta_rays)
        made = digitize(detector, simulated, key, charges=charges, noise=noise, loss=loss, geometry=geometry)
        yield SimulatedEvent(number, particles, simulated, made)


def simulate_event(detector: Any, source: ParticleSource, seed: int, event: int = 0, **options: Any) -> SimulatedEvent:
    """Simulate event number `event`; options as in `simulate_events`.

    Examples
    --------
    >>> from traccc_py.geometry import build_detector
    >>> from traccc_py.simulation.generators.gun import ParticleGunConfig
    >>> event = simulate_event(build_detector("telescope"), ParticleGunConfig(eta=(0, 0), phi=(0, 0)), seed=1)
    >>> len(event.particles)
    1
    """
    return next(simulate_events(detector, source, seed, 1, first_event=event, **options))


def truth_measurements(detector: Any, event: SimulatedEvent) -> Measurements:
    """Return the measurement of each hit that made cells: the weighted mean of all cells it contributed to.

    Parameters
    ----------
    detector : Detector
        The event's detector.
    event : SimulatedEvent
        Event.

    Returns
    -------
    Measurements
        Ordered by hit, as `measurement_id` of the cells counts them; variances pitch^2 / 12 [mm^2].
    """
    arrays, made = detector.arrays(), event.digitization
    cell_of_link = np.repeat(np.arange(len(made.cells)), np.diff(made.hit_offsets))
    row_of_hit = np.zeros(len(event.simulated), np.int64)
    row_of_hit[made.measurement_hit] = np.arange(len(made.measurement_hit))
    row = row_of_hit[made.hit_indices]
    module = event.simulated.module_index[made.measurement_hit]
    design = arrays.designs[arrays.surfaces["design"][module]]
    n = len(module)
    weight = made.cells.activation[cell_of_link].astype(np.float64)
    total = np.bincount(row, weight, n)
    position, variance = np.empty((n, 2)), np.empty((n, 2))
    for axis, channel in enumerate((made.cells.channel0, made.cells.channel1)):
        mean = np.bincount(row, weight * (channel[cell_of_link] + 0.5), n) / total
        position[:, axis] = design[f"min{axis}"] + mean * design[f"pitch{axis}"] + arrays.translations[module, axis]
        variance[:, axis] = design[f"pitch{axis}"].astype(np.float64) ** 2 / 12.0
    on_polar = design["is_polar"] == 1
    surfaces = arrays.surfaces[module[on_polar]]
    position[on_polar], variance[on_polar] = _from_polar(
        surfaces, position[on_polar], variance[on_polar], design["dimensions"][on_polar]
    )
    return Measurements(
        geometry_id=np.asarray(detector.geometry_ids)[module].astype(np.uint64),
        local_position=position.astype(np.float32),
        local_variance=variance.astype(np.float32),
        dimensions=design["dimensions"].astype(np.int32),
        time=event.simulated.hits.time[made.measurement_hit].astype(np.float32),
        module_index=module.astype(np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.bincount(row, minlength=n).astype(np.int32),
        measurement_id=np.arange(n, dtype=np.int64),
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def _from_polar(
    surfaces: np.ndarray, position: np.ndarray, variance: np.ndarray, dimensions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return local positions for r, phi (the middle of strips), and variances across and along the strips."""
    angle = surfaces["phi_middle"] - position[:, 1]
    is_strip = (dimensions == 1) & (surfaces["focal"] > 0)
    r = np.where(is_strip, surfaces["focal"] / np.cos(angle), position[:, 0])
    local = np.stack([r * np.sin(angle), r * np.cos(angle) - surfaces["focal"]], axis=1)
    return local, np.stack([variance[:, 1] * r**2, variance[:, 0]], axis=1)


def event_file_names(number: int, *, compress: bool = False) -> list[str]:
    """Return the names of the files of an event."""
    return [event_file_name(number, kind, compress=compress) for kind in EVENT_KINDS]


def write_event(
    directory: Path | str,
    detector: Any,
    event: SimulatedEvent,
    *,
    compress: bool = False,
    particle_id_fields: bool = False,
) -> list[Path]:
    """Write an event's cells, hits, particles, measurements and measurement-hit map.

    Parameters
    ----------
    directory : str or Path
        Folder, made if it is not there.
    detector : Detector
        The event's detector.
    event : SimulatedEvent
        Event.
    compress : bool, optional
        Write ``.csv.gz``.
    particle_id_fields : bool, optional
        Write ids of particles as the five columns of newer Acts files.

    Returns
    -------
    list of Path
        Files written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    measurement_hit = event.digitization.measurement_hit
    links = MeasurementHitMap(np.arange(len(measurement_hit), dtype=np.int64), measurement_hit)
    paths = {
        kind: folder / name
        for kind, name in zip(EVENT_KINDS, event_file_names(event.number, compress=compress), strict=True)
    }
    write_hits(paths["hits"], event.simulated.hits, ids_in_fields=particle_id_fields)
    write_particles(paths["particles_initial"], event.particles, ids_in_fields=particle_id_fields)
    write_measurements(paths["measurements"], truth_measurements(detector, event))
    write_measurement_hit_map(paths["measurement-simhit-map"], links)
    write_cells(paths["cells"], event.cells)
    return list(paths.values())


def read_event(directory: Path | str, detector: Any, number: int) -> SimulatedEvent:
    """Read an event that `write_event` wrote.

    Parameters
    ----------
    directory : str or Path
        Folder of the files, plain or gzipped.
    detector : Detector
        The event's detector.
    number : int
        Event number.

    Returns
    -------
    SimulatedEvent
        The event. A cell from several hits is linked to the first of them only: the files contain no more.

    Raises
    ------
    InputDataError
        If a file can't be used.
    """
    paths = {kind: find_event_file(directory, number, kind) for kind in EVENT_KINDS}
    cells, hits, particles = (
        read_cells(paths["cells"]),
        read_hits(paths["hits"]),
        read_particles(paths["particles_initial"]),
    )
    links = read_measurement_hit_map(paths["measurement-simhit-map"])
    order = np.argsort(particles.particle_id)
    particle_index = order[np.searchsorted(particles.particle_id, hits.particle_id, sorter=order)]
    module_index = detector.module_index(hits.geometry_id)
    geometry = truth_geometry(detector)
    centre = np.stack([geometry.modules[f"c{axis}"][module_index] for axis in "xyz"], axis=1)
    local = local_vectors(geometry, module_index, hits.position - centre)[:, :2]
    has_hit = cells.measurement_id >= 0  # other cells are noise
    offsets = np.concatenate(([0], np.cumsum(has_hit)))
    made = DigitizedHits(cells, offsets, links.hit_id[cells.measurement_id[has_hit]], links.hit_id)
    return SimulatedEvent(number, particles, SimulatedHits(hits, particle_index, module_index, local), made)
