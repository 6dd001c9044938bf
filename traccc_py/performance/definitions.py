"""Definitions of efficiency, duplicates and fakes, and the particles that count.

`docs/performance.md` explains them.

References
----------
traccc v1.6.0, performance/ (finding_performance_writer, seeding_performance_writer). Acts, Examples: TrackTruthMatcher,
TrackFinderPerformanceCollector; seeds as in the full-chain scripts (matching ratio 1, no double matching).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.performance.truth import EventTruth, MeasurementTruth

__all__ = [
    "ACTS",
    "DEFINITIONS",
    "TRACCC",
    "Definition",
    "TruthSelection",
    "collision_selections",
    "select_particles",
]

_LAYER_SHIFT = np.uint64(36)  # geometry ids above this bit: volume, boundary, layer
_VOLUME_SHIFT = np.uint64(56)


@dataclass(frozen=True, slots=True)
class Definition:
    """When a track is matched to a particle, and the denominators of fakes and duplicates."""

    name: str = "traccc"
    matching_ratio: float = 0.5  #: smallest purity, and completeness with double matching
    double_matching: bool = True
    seed_matching_ratio: float = 0.5
    is_seed_ratio_strict: bool = True  #: a seed's purity must be above the ratio, not equal to it
    per_track: bool = False  #: fakes and duplicates are divided by the tracks, else by particles
    fakes_of_selected_only: bool = False  #: unmatched tracks of particles that don't count are not fakes
    require_fit: bool = False  #: tracks whose fit failed don't count

    def __post_init__(self) -> None:
        for name in ("matching_ratio", "seed_matching_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}; expected 0 to 1"
                raise ConfigError(msg)

    def describe(self) -> list[str]:
        """Return the definition in sentences."""
        ratio = f">= {self.matching_ratio:g}"
        completeness = f", and that / the particle's measurements {ratio}" if self.double_matching else ""
        seed = f"{'>' if self.is_seed_ratio_strict else '>='} {self.seed_matching_ratio:g}"
        if self.per_track:
            rates = (
                "fakes: unmatched tracks of selected particles / tracks; duplicates: further matched tracks / tracks"
            )
        else:
            rates = "fakes: unmatched tracks / selected particles; duplicates: further matched tracks / found particles"
        return [
            f"matched: measurements of the major particle / measurements of the track {ratio}{completeness}",
            f"seed matched: measurements of the major particle / measurements of the seed {seed}",
            rates,
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings and the sentences, for JSON."""
        return {**asdict(self), "text": self.describe()}


TRACCC = Definition()
ACTS = replace(
    TRACCC,
    name="acts",
    seed_matching_ratio=1.0,
    is_seed_ratio_strict=False,
    per_track=True,
    fakes_of_selected_only=True,
)
DEFINITIONS = {definition.name: definition for definition in (TRACCC, ACTS)}


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
    particle_types: tuple[int, ...] = (11, 13, 211)  #: |PDG number|, default as in traccc; empty: any charged
    min_modules: int = 0  #: different modules hit
    min_pixel_layers: int = 0  #: different layers hit in `pixel_volumes`
    pixel_volumes: tuple[int, ...] = (16, 17, 18)  #: volumes of the Open Data Detector's pixels

    def __post_init__(self) -> None:
        if self.min_pt < 0 or self.max_eta <= 0 or self.min_z > self.max_z:
            msg = f"{self}: expected min_pt >= 0, max_eta > 0, min_z <= max_z"
            raise ConfigError(msg)


_MUON = 13
#: Charged particles of any type and origin, from near the beam, with enough measurements to be found.
_OF_COLLISIONS: dict[str, Any] = {
    "min_pt": 1.0,
    "max_eta": 2.5,
    "min_z": -math.inf,
    "max_z": math.inf,
    "max_r": 10.0,
    "process": -1,
    "min_measurements": 7,
    "particle_types": (),
}
_WIDE_ETA = 3.0


def collision_selections(cuts: Mapping[str, Any] | None = None) -> dict[str, TruthSelection]:
    """Return which particles of collisions count: |eta| < 2.5, the same to 3, and muons.

    Parameters
    ----------
    cuts : mapping, optional
        Values of `TruthSelection` for all of them.
    """
    given = cuts or {}
    chosen = {**_OF_COLLISIONS, **given}
    return {
        "central": TruthSelection(**chosen),
        "wide": TruthSelection(**{**chosen, "max_eta": given.get("max_eta", _WIDE_ETA)}),
        "muons": TruthSelection(**{**chosen, "particle_types": (_MUON,)}),
    }


def _count_distinct(particle: np.ndarray, key: np.ndarray, n: int) -> np.ndarray:
    pairs = np.unique(np.stack([particle.astype(np.uint64), key.astype(np.uint64)], axis=1), axis=0)
    return np.bincount(pairs[:, 0].astype(np.int64), minlength=n)


def select_particles(event: EventTruth, links: MeasurementTruth, selection: TruthSelection) -> np.ndarray:
    """Return which particles count in an efficiency, (n_particles,) bool.

    Parameters
    ----------
    event : EventTruth
        Particles and hits.
    links : MeasurementTruth
        Particles behind the measurements: they give each particle's number of measurements.
    selection : TruthSelection
        Cuts.
    """
    particles, n = event.particles, len(event.particles)
    pt = np.hypot(particles.momentum[:, 0], particles.momentum[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(particles.momentum[:, 2] / pt)
    radius = np.hypot(particles.vertex[:, 0], particles.vertex[:, 1])
    known = event.particle_of_hit >= 0
    particle_of_hit, ids = event.particle_of_hit[known], event.hits.geometry_id[known].astype(np.uint64)
    in_pixels = np.isin(ids >> _VOLUME_SHIFT, np.array(selection.pixel_volumes, np.uint64))
    layers = _count_distinct(particle_of_hit[in_pixels], ids[in_pixels] >> _LAYER_SHIFT, n)
    modules = _count_distinct(particle_of_hit, ids, n)
    is_of_type = np.isin(np.abs(particles.particle_type), selection.particle_types) | (not selection.particle_types)
    return (
        is_of_type
        & (particles.charge != 0)
        & (pt >= selection.min_pt)
        & (np.abs(eta) <= selection.max_eta)
        & (particles.vertex[:, 2] >= selection.min_z)
        & (particles.vertex[:, 2] <= selection.max_z)
        & (radius <= selection.max_r)
        & ((selection.process < 0) | (particles.process == selection.process))
        & (np.bincount(links.particle_index, minlength=n) >= selection.min_measurements)
        & (modules >= selection.min_modules)
        & (layers >= selection.min_pixel_layers)
    )
