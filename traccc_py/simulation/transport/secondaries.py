"""From generated particles to hits: photons convert, then all charged particles are transported."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.data.truth import Particles
from traccc_py.simulation.transport.radiation import electron_fractions
from traccc_py.simulation.transport.transport import SimulatedHits, TransportConfig, find_conversions, transport
from traccc_py.simulation.transport.truth_geometry import TruthGeometry
from traccc_py.units import electron_mass

__all__ = ["CONVERSION_PROCESS", "transport_all"]

CONVERSION_PROCESS = 2  #: process of electrons from photons, as ActsFatras numbers processes
_PHOTON = 22
_ELECTRON = 11
_GENERATION = np.uint64(1 << 16)  # one in the generation field of a particle id
_MIN_SECONDARY = 0.02  # [GeV] softer electrons are not followed
_STEP_OFF = 0.01  # [mm] distance of a secondary's start behind the surface where it was made


def _rows(particles: Particles, rows: np.ndarray) -> Particles:
    return Particles(*(getattr(particles, name)[rows] for name in Particles.__dataclass_fields__))


def _concatenate(first: Particles, second: Particles) -> Particles:
    columns = [np.concatenate([getattr(p, n) for p in (first, second)]) for n in Particles.__dataclass_fields__]
    return Particles(*columns)


def _pairs(photons: Particles, place: np.ndarray, key: np.uint64) -> Particles:
    """Return the electron and the positron of each converted photon, along its direction."""
    share = electron_fractions(np.uint64(key), photons.particle_id.astype(np.uint64))
    energy = np.linalg.norm(photons.momentum, axis=1)
    direction = photons.momentum / energy[:, None]
    both = np.concatenate([share, 1.0 - share]) * np.tile(energy, 2)
    momentum = np.sqrt(np.maximum(both**2 - electron_mass**2, 0.0))
    ids = photons.particle_id + _GENERATION
    n = len(photons)
    pairs = Particles(
        particle_id=np.concatenate([ids + np.uint64(1), ids + np.uint64(2)]),
        particle_type=np.repeat(np.array([_ELECTRON, -_ELECTRON], np.int32), n),
        process=np.full(2 * n, CONVERSION_PROCESS, np.int32),
        vertex=np.tile(place[:, :3] + _STEP_OFF * direction, (2, 1)),
        time=np.tile(place[:, 3], 2),
        momentum=np.tile(direction, (2, 1)) * momentum[:, None],
        mass=np.full(2 * n, electron_mass),
        charge=np.repeat([-1.0, 1.0], n),
    )
    return _rows(pairs, np.argsort(pairs.particle_id)[momentum[np.argsort(pairs.particle_id)] > _MIN_SECONDARY])


def transport_all(
    detector: Any,
    particles: Particles,
    key: np.uint64,
    config: TransportConfig,
    *,
    geometry: TruthGeometry,
    path_limit: np.ndarray | None = None,
    threads: int = 1,
) -> tuple[Particles, SimulatedHits]:
    """Transport particles and the electrons that photons convert into.

    Parameters
    ----------
    detector : Detector
        With `arrays()` and `geometry_ids`.
    particles : Particles
        Charged particles and photons.
    key : uint64
        Key of the event's random numbers.
    config : TransportConfig
        Physics.
    geometry : TruthGeometry
        Of the detector.
    path_limit : ndarray of shape (n_particles,), optional
        Path after which a particle decays [mm].
    threads : int, optional
        Number of threads; the result does not depend on it.

    Returns
    -------
    particles : Particles
        The charged ones, then the electrons made in the material.
    simulated : SimulatedHits
        Their hits.
    """
    is_charged = particles.charge != 0
    charged = particles if is_charged.all() else _rows(particles, is_charged)
    limit = np.full(len(particles), np.inf) if path_limit is None else path_limit
    limit = limit[is_charged]
    if config.conversions:
        photons = _rows(particles, particles.particle_type == _PHOTON)
        converted, place = find_conversions(photons, key, config, geometry, threads=threads)
        pairs = _pairs(_rows(photons, converted), place, key)
        charged = _concatenate(charged, pairs)
        limit = np.concatenate([limit, np.full(len(pairs), np.inf)])
    simulated = transport(detector, charged, key, config, threads=threads, geometry=geometry, path_limit=limit)
    return charged, simulated
