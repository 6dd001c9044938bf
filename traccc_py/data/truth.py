"""What the simulation knows of an event: particles, their hits, and which hits made which measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Hits", "MeasurementHitMap", "Particles"]


@dataclass(slots=True)
class Particles:
    """Generated particles, as they leave their vertex."""

    particle_id: np.ndarray  # (n,) uint64
    particle_type: np.ndarray  # (n,) int32, PDG number
    process: np.ndarray  # (n,) int32
    vertex: np.ndarray  # (n, 3) float32, global position [mm]
    time: np.ndarray  # (n,) float32 [ns]
    momentum: np.ndarray  # (n, 3) float32, global [GeV]
    mass: np.ndarray  # (n,) float32 [GeV]
    charge: np.ndarray  # (n,) float32 [e]

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.particle_id)


@dataclass(slots=True)
class Hits:
    """Passages of particles through sensitive surfaces; the row is the hit's id."""

    particle_id: np.ndarray  # (n,) uint64
    geometry_id: np.ndarray  # (n,) uint64, surface
    position: np.ndarray  # (n, 3) float32, global [mm]
    time: np.ndarray  # (n,) float32 [ns]
    momentum: np.ndarray  # (n, 3) float32, global, before the surface's material [GeV]
    energy: np.ndarray  # (n,) float32, before the surface's material [GeV]
    delta_momentum: np.ndarray  # (n, 3) float32, change in the surface's material [GeV]
    delta_energy: np.ndarray  # (n,) float32, change in the surface's material [GeV]
    index: np.ndarray  # (n,) int64, ordinal of the hit on its particle

    def __len__(self) -> int:
        """Return the number of hits."""
        return len(self.particle_id)


@dataclass(slots=True)
class MeasurementHitMap:
    """Pairs of a measurement and a hit that contributed to it: many to many."""

    measurement_id: np.ndarray  # (n,) int64, row of the measurements file
    hit_id: np.ndarray  # (n,) int64, row of the hits file

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.measurement_id)
