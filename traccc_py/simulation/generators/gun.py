"""Particle gun."""

from __future__ import annotations

import numpy as np

from traccc_py.data.truth import Particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.settings import ParticleGunConfig
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = ["ParticleGunConfig", "generate_particles"]

# PDG code of the negative or positive state as the PDG numbers it, mass [GeV], charge of the positive code [e].
_SPECIES = {
    "electron": (11, electron_mass, -1),
    "muon": (13, muon_mass, -1),
    "pion": (211, pion_mass, 1),
    "kaon": (321, 0.493677, 1),
    "proton": (2212, 0.93827209, 1),
}
_FIRST_PARTICLE_ID = 1  # 0 means "no particle" in some readers


def _momenta(config: ParticleGunConfig, generator: np.random.Generator) -> np.ndarray:
    low, high = config.momentum
    fraction = generator.random(config.n_particles)
    if config.momentum_distribution == "log":
        return low * (high / low) ** fraction
    return low + (high - low) * fraction


def _charges(config: ParticleGunConfig, generator: np.random.Generator) -> np.ndarray:
    random = np.where(generator.random(config.n_particles) < 0.5, -1.0, 1.0)  # noqa: PLR2004 (a fair coin)
    return {"negative": -np.ones_like(random), "positive": np.ones_like(random), "random": random}[config.charge]


def generate_particles(config: ParticleGunConfig, seed: int, event: int = 0) -> Particles:
    """Shoot the particles of one event.

    Parameters
    ----------
    config : ParticleGunConfig
        Ranges.
    seed : int
        Seed of the sample, >= 0.
    event : int, optional
        Event number; each (seed, event) is a fixed set of particles.

    Returns
    -------
    Particles
        `config.n_particles` rows.
    """
    generator = np.random.Generator(np.random.Philox(event_key(seed, event)))
    n = config.n_particles
    code, mass, charge_of_code = _SPECIES[config.particle]
    momentum = _momenta(config, generator)
    eta = generator.uniform(*config.eta, n)
    phi = generator.uniform(*config.phi, n)
    charge = _charges(config, generator)
    vertex = np.array(config.vertex_mean) + np.array(config.vertex_sigma) * generator.standard_normal((n, 3))
    pt = momentum if config.momentum_is_transverse else momentum / np.cosh(eta)
    return Particles(
        particle_id=np.arange(_FIRST_PARTICLE_ID, n + _FIRST_PARTICLE_ID, dtype=np.uint64),
        particle_type=np.where(charge == charge_of_code, code, -code).astype(np.int32),
        process=np.zeros(n, np.int32),
        vertex=vertex,
        time=np.zeros(n),
        momentum=np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1),
        mass=np.full(n, mass),
        charge=charge,
    )
