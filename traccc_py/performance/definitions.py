"""Definitions of efficiency, duplicates and fakes, and cuts on the particles that count. Loads no NumPy.

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

from traccc_py.settings import Count, Fraction, NonNegative, Settings

__all__ = [
    "ACTS",
    "DEFINITIONS",
    "TRACCC",
    "TRACK_KINDS",
    "Definition",
    "TruthSelection",
    "collision_selections",
    "simulation_selections",
]


#: Kinds of track files: our own, and tables of traccc's tracks after a stage.
TRACK_KINDS = ("own", "fitted", "resolved", "found", "seeds")


@dataclass(frozen=True, slots=True)
class Definition(Settings):
    """When a track is matched to a particle, and the denominators of fakes and duplicates."""

    name: str = "traccc"
    matching_ratio: Fraction = 0.5  #: smallest purity, and with double matching smallest completeness
    double_matching: bool = True  #: ask for completeness too
    seed_matching_ratio: Fraction = 0.5  #: purity of seeds
    is_seed_ratio_strict: bool = True  #: a seed's purity must be above the ratio, not equal to it
    per_track: bool = False  #: fakes and duplicates are divided by the tracks, else by particles
    fakes_of_selected_only: bool = False  #: unmatched tracks of particles that don't count are not fakes
    require_fit: bool = False  #: leave out tracks whose fit failed

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
class TruthSelection(Settings):
    """Particles that count in an efficiency."""

    min_pt: NonNegative = 0.5  #: smallest pT [GeV]
    max_eta: float = 3.0  #: largest |eta|
    min_z: float = -500.0  #: smallest z of the vertex [mm]
    max_z: float = 500.0  #: largest z of the vertex [mm]
    max_r: float = 200.0  #: largest radius of the vertex [mm]
    process: int = 0  #: production process; negative: any
    min_measurements: Count = 3  #: smallest number of measurements
    particle_types: tuple[int, ...] = (
        11,
        13,
        211,
    )  #: |PDG number|, by default as in traccc; empty: any charged particle
    min_modules: Count = 0  #: smallest number of different modules with a measurement
    min_pixel_layers: Count = 0  #: smallest number of pixel layers with a measurement, in the ODD
    pixel_volumes: tuple[int, ...] = (16, 17, 18)  #: volumes of the Open Data Detector's pixels

    def _check_together(self) -> None:
        if not self.max_eta > 0:  # may be infinite
            self._reject("max_eta", "a number > 0")
        if self.min_z > self.max_z:
            self._reject("min_z", f"at most max_z, which is {self.max_z}")


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


_RECONSTRUCTABLE: dict[str, dict[str, Any]] = {"odd": {"min_modules": 7, "min_pixel_layers": 3}}  #: by detector


def simulation_selections(detector: str, cuts: Mapping[str, Any]) -> dict[str, TruthSelection]:
    """Return which simulated particles count: those that left enough hits to be found, and all; with the cuts given."""
    return {
        "reconstructable": TruthSelection(**{**_RECONSTRUCTABLE.get(detector, {}), **cuts}),
        "all": TruthSelection(**{"max_eta": math.inf, "min_measurements": 0, **cuts}),
    }
