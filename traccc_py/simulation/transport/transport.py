"""Transport of particles through the detector: helices between surfaces, scattering and energy loss on them.

Independent of the reconstruction's transport and navigation, so that it can check both: every crossing of every
module's plane is searched for. A prefilter with bounding spheres only skips modules that the helix can't reach; it is
repeated when scattering has taken the track away from its helix.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data.truth import Hits, Particles
from traccc_py.simulation.settings import TransportConfig
from traccc_py.simulation.transport.decays import mean_paths
from traccc_py.simulation.transport.field_loop import transport_particles_in_map
from traccc_py.simulation.transport.nuclear import hadron_kinds
from traccc_py.simulation.transport.particle_loop import (
    ELECTRON_CODE,
    HIT_COLUMNS,
    N_COLUMNS,
    convert_photons,
    transport_particles,
)
from traccc_py.simulation.transport.truth_geometry import TruthGeometry, truth_geometry

__all__ = [
    "SimulatedHits",
    "TransportConfig",
    "TransportOptions",
    "Vertices",
    "find_conversions",
    "transport",
    "transport_with_vertices",
]

_PIECE = 64  # particles that a thread takes at a time


class TransportOptions(NamedTuple):
    """`TransportConfig` for the compiled loop."""

    scattering: bool
    scattering_tails: bool
    energy_loss: bool
    straggling: bool
    nuclear_interactions: bool
    nuclear_scattering: bool
    decays: bool
    bremsstrahlung: bool
    max_turns: float
    max_time: float
    min_momentum: float
    r_max: float
    z_max: float


@dataclass(slots=True)
class SimulatedHits:
    """Hits ordered by particle, then along the path, and their links."""

    hits: Hits
    particle_index: np.ndarray  # (n,) int64, row of the particle
    module_index: np.ndarray  # (n,) int32, index of the surface
    local_position: np.ndarray  # (n, 2) float64, loc0, loc1 [mm]

    def __len__(self) -> int:
        return len(self.module_index)

    def select(self, rows: np.ndarray) -> SimulatedHits:
        """Return the hits of `rows` (indices or mask)."""
        columns = {name: getattr(self.hits, name)[rows] for name in Hits.__dataclass_fields__}
        return SimulatedHits(
            Hits(**columns), self.particle_index[rows], self.module_index[rows], self.local_position[rows]
        )

    @staticmethod
    def concatenated(parts: Sequence[SimulatedHits]) -> SimulatedHits:
        """Return the hits of all parts."""
        hits = {n: np.concatenate([getattr(p.hits, n) for p in parts]) for n in Hits.__dataclass_fields__}
        links = ("particle_index", "module_index", "local_position")
        return SimulatedHits(Hits(**hits), *(np.concatenate([getattr(p, n) for p in parts]) for n in links))

    @property
    def outgoing_momentum(self) -> np.ndarray:
        """Momenta after the surface's material, (n, 3) [GeV]."""
        return self.hits.momentum + self.hits.delta_momentum


@dataclass(slots=True)
class Vertices:
    """Where particles made others, ordered by particle, then along the path."""

    particle_index: np.ndarray  # (n,) int64, row of the particle
    process: np.ndarray  # (n,) int32, as ActsFatras numbers processes
    position: np.ndarray  # (n, 3) float64 [mm]
    time: np.ndarray  # (n,) float64 [ns]
    momentum: np.ndarray  # (n, 3) float64, of the particle there [GeV]
    number: np.ndarray  # (n,) float64: energy of the photon [GeV], or mass number of the nucleus


class _ParticleArrays(NamedTuple):
    identity: Any  # (n,) uint64
    state: Any  # (n, 7) float64: position, time, momentum
    mass: Any  # (n,) float64
    charge: Any  # (n,) float64
    is_electron: Any  # (n,) bool
    hadron_kind: Any  # (n,) int64, `nuclear.hadron_kinds`
    path_limit: Any  # (n,) float64, path after which the particle ends [mm]
    mean_path: Any  # (n,) float64, to the decay, per momentum: `decays.mean_paths`


def _particle_arrays(particles: Particles, path_limit: np.ndarray | None) -> _ParticleArrays:
    state = np.empty((len(particles), 7))
    state[:, 0:3] = particles.vertex
    state[:, 3] = particles.time
    state[:, 4:7] = particles.momentum
    return _ParticleArrays(
        particles.particle_id.astype(np.uint64),
        state,
        particles.mass.astype(np.float64),
        particles.charge.astype(np.float64),
        np.abs(particles.particle_type) == ELECTRON_CODE,
        hadron_kinds(particles.particle_type),
        np.full(len(particles), np.inf) if path_limit is None else path_limit.astype(np.float64),
        mean_paths(particles.particle_type, particles.mass.astype(np.float64)),
    )


def _columns(rows: np.ndarray, name: str, width: int = 1) -> np.ndarray:
    first = HIT_COLUMNS.index(name)
    return rows[:, first : first + width].copy() if width > 1 else rows[:, first].copy()


def _to_hits(rows: np.ndarray, particles: Particles, geometry_ids: np.ndarray) -> SimulatedHits:
    particle_index = _columns(rows, "particle").astype(np.int64)
    module_index = _columns(rows, "module").astype(np.int32)
    first_of_particle = np.searchsorted(particle_index, particle_index)
    hits = Hits(
        particle_id=particles.particle_id[particle_index].astype(np.uint64),
        geometry_id=geometry_ids[module_index].astype(np.uint64),
        position=_columns(rows, "x", 3),
        time=_columns(rows, "time"),
        momentum=_columns(rows, "px", 3),
        energy=_columns(rows, "energy"),
        delta_momentum=_columns(rows, "delta_px", 3),
        delta_energy=_columns(rows, "delta_energy"),
        index=np.arange(len(rows)) - first_of_particle,
    )
    return SimulatedHits(hits, particle_index, module_index, _columns(rows, "local0", 2))


def _to_vertices(rows: np.ndarray) -> Vertices:
    return Vertices(
        particle_index=_columns(rows, "particle").astype(np.int64),
        process=-_columns(rows, "module").astype(np.int32),
        position=_columns(rows, "x", 3),
        time=_columns(rows, "time"),
        momentum=_columns(rows, "px", 3),
        number=_columns(rows, "local0"),
    )


def _options(config: TransportConfig) -> TransportOptions:
    return TransportOptions(**{name: getattr(config, name) for name in TransportOptions._fields})


def _in_pieces(loop: Any, n: int, threads: int) -> list[np.ndarray]:
    """Return the rows of `loop(start, stop)` for pieces of n particles, in order."""
    pieces = [(start, min(start + _PIECE, n)) for start in range(0, n, _PIECE)]
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda piece: loop(*piece), pieces))
    return [loop(*piece) for piece in pieces]


def transport_with_vertices(
    detector: Any,
    particles: Particles,
    key: np.uint64,
    config: TransportConfig | None = None,
    *,
    threads: int = 1,
    geometry: TruthGeometry | None = None,
    path_limit: np.ndarray | None = None,
) -> tuple[SimulatedHits, Vertices]:
    """Transport particles through a detector.

    Parameters
    ----------
    detector : Detector
        With `arrays()` and `geometry_ids`.
    particles : Particles
        What to transport; neutral particles make no hits.
    key : uint64
        Key of the event's random numbers (`random_numbers.event_key`).
    config : TransportConfig, optional
        Physics.
    threads : int, optional
        Number of threads; the result does not depend on it.
    geometry : TruthGeometry, optional
        `truth_geometry(detector)`, to avoid making it for each event.
    path_limit : ndarray of shape (n_particles,), optional
        Path after which a particle ends, because the generator has made it decay there [mm].

    Returns
    -------
    simulated : SimulatedHits
        Crossings of sensitive surfaces inside their bounds, ordered by particle, then path.
    vertices : Vertices
        Where they broke up, decayed or emitted a photon.

    Notes
    -----
    The random numbers of a particle depend on `key` and its `particle_id` only. Highland's formula gives the width of
    two independent Gaussian angles, with a tail of single scatters; Bethe's formula gives the mean loss. All
    interactions act at the surface, with the momentum before it; a hadron that breaks up in a module has a hit there.
    """
    config = config or TransportConfig()
    geometry = geometry if geometry is not None else truth_geometry(detector)
    options, arrays = _options(config), _particle_arrays(particles, path_limit)

    loop = transport_particles if geometry.field is None else transport_particles_in_map

    def run(start: int, stop: int) -> np.ndarray:
        return loop(geometry, arrays, options, np.uint64(key), start, stop)

    pieces = _in_pieces(run, len(particles), threads)
    rows = np.concatenate(pieces) if pieces else np.zeros((0, N_COLUMNS))
    is_hit = _columns(rows, "module") >= 0
    return _to_hits(rows[is_hit], particles, np.asarray(detector.geometry_ids)), _to_vertices(rows[~is_hit])


def transport(
    detector: Any, particles: Particles, key: np.uint64, config: TransportConfig | None = None, **options: Any
) -> SimulatedHits:
    """Return the hits of `transport_with_vertices`, which has the same parameters: no particles that these make."""
    return transport_with_vertices(detector, particles, key, config, **options)[0]


def find_conversions(
    particles: Particles, key: np.uint64, config: TransportConfig, geometry: TruthGeometry, *, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Find the points where photons convert in the detector's material.

    Parameters
    ----------
    particles : Particles
        Particles; neutral ones are taken as photons.
    key : uint64
        Key of the event's random numbers.
    config : TransportConfig
        Size of the world.
    geometry : TruthGeometry
        The detector.
    threads : int, optional
        Number of threads; the result does not depend on it.

    Returns
    -------
    particle_index : ndarray of shape (n,), int64
        Rows of the photons that convert, ascending.
    place : ndarray of shape (n, 4), float64
        x, y, z [mm] and time [ns].
    """
    options, arrays = _options(config), _particle_arrays(particles, None)

    def run(start: int, stop: int) -> np.ndarray:
        return convert_photons(geometry, arrays, options, np.uint64(key), start, stop)

    pieces = _in_pieces(run, len(particles), threads)
    rows = np.concatenate(pieces) if pieces else np.zeros((0, 5))
    return rows[:, 0].astype(np.int64), rows[:, 1:]
