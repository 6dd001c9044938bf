"""Events of a hard collision and pile-up: the collisions, their vertices, and the particles that are kept."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from traccc_py.data.particle_ids import pack_particle_id
from traccc_py.data.truth import Particles
from traccc_py.errors import ConfigError
from traccc_py.simulation.generators.gun import generate_particles
from traccc_py.simulation.generators.pythia import Collision, PythiaGenerator
from traccc_py.simulation.settings import GUN, CollisionConfig

__all__ = ["DECAY_PROCESS", "GUN", "CollisionConfig", "CollisionGenerator", "GeneratedEvent"]

DECAY_PROCESS = 1  #: process of particles from decays, as ActsFatras numbers processes
_STREAM_VERTICES = 1
_STREAM_SEEDS = 2
_MAX_SEED = 900_000_000  # of Pythia
_MAX_COLLISIONS = 4095  # 12 bits of the particle ids


class GeneratedEvent(NamedTuple):
    """Particles of an event before the transport."""

    particles: Particles  # with photons
    path_limit: np.ndarray  # (n,) path to the decay [mm], inf if there is none


class CollisionGenerator:
    """Make events of collisions; each depends on (seed, event) only.

    Parameters
    ----------
    config : CollisionConfig
        What collides.
    b_z : float
        Field along z [GeV / (e mm)].
    """

    def __init__(self, config: CollisionConfig, b_z: float) -> None:
        self.config = config
        self._b_z = b_z
        self._generators: dict[tuple[str, float], PythiaGenerator] = {}  # shared between values of pile-up
        if config.process != GUN:
            self._generator(config.process, config.pt_hat_min)
        if config.pileup > 0:
            self._generator(config.pileup_process)

    def _generator(self, process: str, pt_hat_min: float = 0.0) -> PythiaGenerator:
        """Return the generator of a process; making one takes seconds."""
        key = (process, pt_hat_min)
        if key not in self._generators:
            self._generators[key] = PythiaGenerator(process, self.config.energy, pt_hat_min, self._b_z)
        return self._generators[key]

    def with_pileup(self, pileup: float) -> CollisionGenerator:
        """Return the generator of the same collisions with another mean number of pile-up collisions."""
        other = copy.copy(self)
        other.config = replace(self.config, pileup=pileup)
        return other

    def generate(self, seed: int, event: int) -> GeneratedEvent:
        """Return the particles of one event, those of the hard collision first. A gun has its own vertices.

        Raises
        ------
        ConfigError
            If there are more collisions than particle ids can distinguish.
        """
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, event, _STREAM_VERTICES))))
        n = 1 + int(random.poisson(self.config.pileup))
        if n > _MAX_COLLISIONS:
            msg = f"event {event} has {n} collisions; at most {_MAX_COLLISIONS} are possible: lower pileup"
            raise ConfigError(msg)
        vertices = np.array(self.config.vertex_sigma) * random.standard_normal((n, 3))
        words = np.random.SeedSequence((seed, event, _STREAM_SEEDS)).generate_state(n)
        parts = [self._hard_collision(seed, event, int(words[0]), vertices[0])]
        for k, word in enumerate(words[1:].tolist(), start=1):
            collision = self._generator(self.config.pileup_process).collide(1 + word % _MAX_SEED)
            parts.append(self._select(collision, k + 1, vertices[k]))
        particles = Particles(
            *(np.concatenate([getattr(p.particles, name) for p in parts]) for name in Particles.__dataclass_fields__)
        )
        return GeneratedEvent(particles, np.concatenate([p.path_limit for p in parts]))

    def _hard_collision(self, seed: int, event: int, word: int, vertex: np.ndarray) -> GeneratedEvent:
        config = self.config
        if config.gun is None:
            collision = self._generator(config.process, config.pt_hat_min).collide(1 + word % _MAX_SEED)
            return self._select(collision, 1, vertex)
        shot = generate_particles(config.gun, seed, event)
        zero = np.array(0)
        shot.particle_id = pack_particle_id(np.array(1), zero, np.arange(1, len(shot) + 1), zero, zero)
        return GeneratedEvent(shot, np.full(len(shot), np.inf))

    def _select(self, collision: Collision, number: int, vertex: np.ndarray) -> GeneratedEvent:
        """Return the particles of a collision that are kept, moved to its vertex."""
        pt = np.hypot(collision.momentum[:, 0], collision.momentum[:, 1])
        is_kept = (pt >= self.config.min_pt) & (pt > 0)
        is_kept[is_kept] &= np.abs(np.arcsinh(collision.momentum[is_kept, 2] / pt[is_kept])) <= self.config.max_eta
        kept = Collision(*(column[is_kept] for column in collision))
        mothers, secondary = np.unique(kept.mother, return_inverse=True)
        secondary = secondary + (0 if len(mothers) and mothers[0] == 0 else 1)
        n = len(kept.code)
        particles = Particles(
            particle_id=pack_particle_id(np.full(n, number), secondary, np.arange(1, n + 1), np.array(0), np.array(0)),
            particle_type=kept.code,
            process=np.where(kept.mother > 0, DECAY_PROCESS, 0).astype(np.int32),
            vertex=kept.vertex + vertex,
            time=kept.time,
            momentum=kept.momentum,
            mass=kept.mass,
            charge=kept.charge,
        )
        return GeneratedEvent(particles, kept.path_limit)
