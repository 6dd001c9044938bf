"""From generated particles to hits, and on: secondary particles make others, generation by generation."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.data.truth import Particles
from traccc_py.simulation.transport.decays import decay_products_of
from traccc_py.simulation.transport.kinematics import PHOTON
from traccc_py.simulation.transport.nuclear_products import products_of
from traccc_py.simulation.transport.particle_loop import (
    BREMSSTRAHLUNG_PROCESS,
    CONVERSION_PROCESS,
    DECAY_PROCESS,
    NUCLEAR_PROCESS,
)
from traccc_py.simulation.transport.radiation import electron_fractions
from traccc_py.simulation.transport.transport import (
    SimulatedHits,
    TransportConfig,
    Vertices,
    find_conversions,
    transport_with_vertices,
)
from traccc_py.simulation.transport.truth_geometry import TruthGeometry
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = ["CONVERSION_PROCESS", "secondary_ids", "transport_all"]

_ELECTRON = 11
_GENERATION_SHIFT, _MAX_GENERATION = np.uint64(16), 255  # of a barcode
_PLAIN_IDS = np.uint64(1 << 24)  # below it ids are numbers, as a gun gives them, no barcodes
_ROOT_SHIFT = np.uint64(24)
_MIN_ELECTRON = 0.02  # [GeV] softer electrons are not followed
_MIN_HADRON = 0.1  # [GeV] nor are softer hadrons and muons
_STEP_OFF = 0.01  # [mm] distance of a secondary's start behind the surface where it was made
#: Mass [GeV] and charge of secondary particles by PDG number; the charge is that of the positive number.
_SPECIES = {
    11: (electron_mass, -1.0),
    13: (muon_mass, -1.0),
    22: (0.0, 0.0),
    211: (pion_mass, 1.0),
    321: (0.493677, 1.0),
    2212: (0.93827209, 1.0),
}


def _rows(particles: Particles, rows: np.ndarray) -> Particles:
    return Particles(*(getattr(particles, name)[rows] for name in Particles.__dataclass_fields__))


def _concatenate(parts: list[Particles]) -> Particles:
    return Particles(*(np.concatenate([getattr(p, n) for p in parts]) for n in Particles.__dataclass_fields__))


def secondary_ids(parents: np.ndarray) -> np.ndarray:
    """Return the ids of particles that others made.

    Parameters
    ----------
    parents : ndarray of shape (n,), uint64
        Ids of the particles that made them, all of one generation.

    Returns
    -------
    ndarray of shape (n,), uint64
        Acts barcodes: of the next generation and numbered, in the given order, among the descendants of the same
        particle of the collision or gun. Plain numbers, of a gun, become the barcode's number of the particle first.
    """
    ids = np.where(parents < _PLAIN_IDS, parents << _ROOT_SHIFT, parents)
    root = ids >> _ROOT_SHIFT
    order = np.argsort(root, kind="stable")
    first = np.searchsorted(root[order], root[order])
    number = np.empty(len(ids), np.uint64)
    number[order] = np.arange(1, len(ids) + 1) - first
    generation = ((ids >> _GENERATION_SHIFT) & np.uint64(_MAX_GENERATION)) + np.uint64(1)
    return (root << _ROOT_SHIFT) + (generation << _GENERATION_SHIFT) + number


def _secondaries(
    parents: Particles, vertices: Vertices, rows: np.ndarray, codes: np.ndarray, momentum: np.ndarray
) -> Particles:
    """Return particles of given numbers and momenta, made at the vertices in `rows`, with the ids of their parents."""
    n = len(codes)
    species = {code: _SPECIES.get(code) for code in np.unique(np.abs(codes)).tolist()}
    mass, charge = np.zeros(n), np.zeros(n)
    for code, found in species.items():
        is_code = np.abs(codes) == code
        if found is None:  # a strange or charmed hadron goes on with its parent's mass and charge
            source = vertices.particle_index[rows[is_code]]
            mass[is_code], charge[is_code] = parents.mass[source], parents.charge[source]
        else:
            mass[is_code], charge[is_code] = found[0], found[1] * np.sign(codes[is_code])
    size = np.linalg.norm(momentum, axis=1, keepdims=True)
    return Particles(
        particle_id=parents.particle_id[vertices.particle_index[rows]].astype(np.uint64),
        particle_type=codes.astype(np.int32),
        process=vertices.process[rows],
        vertex=vertices.position[rows] + _STEP_OFF * momentum / np.maximum(size, 1e-12),
        time=vertices.time[rows],
        momentum=momentum,
        mass=mass,
        charge=charge,
    )


def _of_process(vertices: Vertices, process: int) -> tuple[np.ndarray, Vertices]:
    """Return the rows of the vertices of a process, and these vertices."""
    rows = np.flatnonzero(vertices.process == process)
    return rows, Vertices(*(getattr(vertices, name)[rows] for name in Vertices.__dataclass_fields__))


def _made_by_charged(parents: Particles, vertices: Vertices, key: np.uint64, config: TransportConfig) -> Particles:
    """Return what particles made by interactions, decays and radiation, ordered by vertex."""
    identity = parents.particle_id.astype(np.uint64)
    rows, codes, momenta = [], [], []
    found, some = _of_process(vertices, DECAY_PROCESS)
    index = some.particle_index
    table = decay_products_of(parents.particle_type[index].astype(np.int64), some.momentum, key, identity[index])
    rows.append(found[table[:, 0].astype(np.int64)])
    codes.append(table[:, 1].astype(np.int64))
    momenta.append(table[:, 2:])
    if config.nuclear_products:
        found, some = _of_process(vertices, NUCLEAR_PROCESS)
        index = some.particle_index
        hadrons = parents.particle_type[index].astype(np.int64), parents.mass[index].astype(np.float64)
        table = products_of(*hadrons, some.momentum, some.number, key, identity[index])
        rows.append(found[table[:, 0].astype(np.int64)])
        codes.append(table[:, 1].astype(np.int64))
        momenta.append(table[:, 2:])
    found, some = _of_process(vertices, BREMSSTRAHLUNG_PROCESS)
    rows.append(found)
    codes.append(np.full(len(found), PHOTON))
    size = np.linalg.norm(some.momentum, axis=1, keepdims=True)
    momenta.append(some.momentum * some.number[:, None] / np.maximum(size, 1e-12))
    row, code, momentum = np.concatenate(rows), np.concatenate(codes), np.concatenate(momenta)
    order = np.argsort(row, kind="stable")
    return _secondaries(parents, vertices, row[order], code[order], momentum[order])


def _pairs(photons: Particles, index: np.ndarray, place: np.ndarray, key: np.uint64) -> Particles:
    """Return the electron and the positron of each converted photon, along its direction."""
    n = len(index)
    share = electron_fractions(np.uint64(key), photons.particle_id[index].astype(np.uint64))
    vector = photons.momentum[index].astype(np.float64)
    energy = np.linalg.norm(vector, axis=1)
    both = np.stack([share, 1.0 - share], axis=1) * energy[:, None]
    momentum = np.sqrt(np.maximum(both**2 - electron_mass**2, 0.0))[:, :, None] * (vector / energy[:, None])[:, None, :]
    process = np.full(n, CONVERSION_PROCESS, np.int32)
    vertices = Vertices(index, process, place[:, :3], place[:, 3], vector, np.zeros(n))
    codes = np.tile([_ELECTRON, -_ELECTRON], n)
    return _secondaries(photons, vertices, np.repeat(np.arange(n), 2), codes, momentum.reshape(2 * n, 3))


def _followed(particles: Particles, config: TransportConfig) -> Particles:
    """Return the particles that are worth following, with ids of their own."""
    size = np.linalg.norm(particles.momentum, axis=1)
    is_photon = particles.particle_type == PHOTON
    least = np.where(np.abs(particles.particle_type) == _ELECTRON, _MIN_ELECTRON, _MIN_HADRON)
    least = np.where(is_photon, 2.0 * _MIN_ELECTRON if config.conversions else np.inf, least)
    kept = _rows(particles, np.flatnonzero(size > least))
    kept.particle_id = secondary_ids(kept.particle_id)
    return _rows(kept, np.argsort(kept.particle_id))


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
    """Transport particles, those that they make, and so on.

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
        Path after which the generator makes a particle decay [mm].
    threads : int, optional
        Number of threads; the result does not depend on it.

    Returns
    -------
    particles : Particles
        The charged ones, then those made in the detector, generation by generation.
    simulated : SimulatedHits
        Their hits.
    """
    key = np.uint64(key)
    limit = None if path_limit is None else path_limit[particles.charge != 0]
    charged: list[Particles] = []
    hits: list[SimulatedHits] = []
    generation = particles
    for _ in range(_MAX_GENERATION):
        flying = _rows(generation, np.flatnonzero(generation.charge != 0))
        simulated, vertices = transport_with_vertices(
            detector, flying, key, config, threads=threads, geometry=geometry, path_limit=limit
        )
        made = [_made_by_charged(flying, vertices, key, config)]
        if config.conversions:
            photons = _rows(generation, np.flatnonzero(generation.particle_type == PHOTON))
            converted, place = find_conversions(photons, key, config, geometry, threads=threads)
            made.append(_pairs(photons, converted, place, key))
        simulated.particle_index += sum([len(part) for part in charged])
        charged.append(flying)
        hits.append(simulated)
        generation, limit = _followed(_concatenate(made), config), None
        if len(generation) == 0:
            break
    return _concatenate(charged), SimulatedHits.concatenated(hits)
