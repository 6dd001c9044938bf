"""Settings of the simulation: particle gun, collisions, transport, samples, calibration. Loads no NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated

from traccc_py.errors import ConfigError
from traccc_py.settings import (
    Bounds,
    Choice,
    Count,
    NonNegative,
    Positive,
    PositiveCount,
    Range,
    Settings,
)

__all__ = [
    "ALL_MODULES",
    "EVENTS_VERSION",
    "GUN",
    "INTERACTIONS",
    "PARTICLES",
    "PROCESSES",
    "CalibrationConfig",
    "CollisionConfig",
    "KindFractions",
    "ParticleFilesConfig",
    "ParticleGunConfig",
    "SampleConfig",
    "TransportConfig",
]

GUN = "gun"  #: process of a hard collision that is a particle gun
PROCESSES = ("minbias", "softqcd", "ttbar", "jets", "zmumu")  #: of Pythia
PARTICLES = ("electron", "muon", "pion", "kaon", "proton")  #: of the gun
#: Fields of `TransportConfig` that switch interactions on and off.
INTERACTIONS = (
    "scattering",
    "scattering_tails",
    "energy_loss",
    "straggling",
    "nuclear_interactions",
    "nuclear_scattering",
    "nuclear_products",
    "decays",
    "bremsstrahlung",
    "conversions",
    "charge_fluctuations",
    "delta_rays",
)
#: Version of the events: 2 has secondary particles of all interactions, tails and fluctuations. Raise it when the same
#: seed makes other events.
EVENTS_VERSION = 2
ALL_MODULES = "all"  #: the kind that every module is of
#: Kinds of modules, by the beginning of the names of their volumes, each with a fraction.
KindFractions = tuple[tuple[str, float], ...]
_READOUT_TIME = 25.0  # [ns]

_Widths = Annotated[tuple[float, float, float], Range(0)]


@dataclass(frozen=True, slots=True)
class ParticleGunConfig(Settings):
    """What a particle gun shoots."""

    n_particles: Count = 1  #: particles per event
    particle: Annotated[str, Choice(PARTICLES)] = "muon"  #: kind of particle
    charge: Annotated[str, Choice(("negative", "positive", "random"))] = "random"  #: sign of the charge
    momentum: Annotated[tuple[float, float], Bounds(0)] = (1.0, 1.0)  #: range of pT (or of p) [GeV]
    momentum_is_transverse: bool = True  #: the range is one of pT, else of p
    momentum_distribution: Annotated[str, Choice(("uniform", "log"))] = "uniform"  #: in it, or in its logarithm
    eta: Annotated[tuple[float, float], Bounds()] = (-2.5, 2.5)  #: range of eta
    phi: Annotated[tuple[float, float], Bounds()] = (-math.pi, math.pi)  #: range of phi [rad]
    vertex_mean: Annotated[tuple[float, float, float], Range()] = (0.0, 0.0, 0.0)  #: mean of vertices [mm]
    vertex_sigma: _Widths = (0.0, 0.0, 0.0)  #: Gaussian spread of vertices in x, y and z [mm]


@dataclass(frozen=True, slots=True)
class CollisionConfig(Settings):
    """Hard process and pile-up of proton-proton collisions."""

    process: Annotated[str, Choice((*PROCESSES, GUN))] = "ttbar"  #: what the hard collision is
    pileup: NonNegative = 0.0  #: mean number of collisions besides the hard one
    pileup_process: Annotated[str, Choice(PROCESSES)] = "minbias"  #: process of the collisions besides
    energy: Positive = 14_000.0  #: centre-of-mass energy [GeV]
    pt_hat_min: NonNegative = 0.0  #: smallest pT of the hard scattering [GeV]
    max_eta: Positive = 4.0  #: particles within this |eta| are kept
    min_pt: NonNegative = 0.1  #: particles from this pT on are kept [GeV]
    vertex_sigma: _Widths = (0.01, 0.01, 55.0)  #: Gaussian spread of collisions in x, y and z [mm]
    gun: ParticleGunConfig | None = None  #: what a gun shoots in the place of a hard collision

    def _check_together(self) -> None:
        if (self.process == GUN) != (self.gun is not None):
            self._reject("process", f"{GUN!r} and settings of a gun, both or neither")


@dataclass(frozen=True, slots=True)
class ParticleFilesConfig(Settings):
    """Particles of files: in TrackML's format, an event a file, or HepMC3 with several."""

    files: tuple[str, ...]  #: paths, in the order of their event numbers

    def _check_together(self) -> None:
        if not self.files:
            self._reject("files", "one file at least")


@dataclass(frozen=True, slots=True)
class TransportConfig(Settings):
    """Physics of the transport."""

    scattering: bool = True  #: multiple scattering: a Gaussian of Highland's width
    scattering_tails: bool = False  #: its tail, of single Coulomb scatters
    energy_loss: bool = True  #: mean energy loss
    straggling: bool = True  #: fluctuations of the loss around its mean, as of Landau and Vavilov
    nuclear_interactions: bool = False  #: hadrons break up on nuclei
    nuclear_scattering: bool = False  #: and scatter off them, where they interact at all
    nuclear_products: bool = False  #: what a hadron that breaks up makes is followed, else it is only lost
    decays: bool = False  #: charged pions and kaons decay in flight
    bremsstrahlung: bool = False  #: electrons lose energy to photons
    conversions: bool = False  #: photons, of collisions and of secondary particles, convert into pairs of electrons
    charge_fluctuations: bool = False  #: charges in sensors fluctuate as energy losses do, else they are path lengths
    delta_rays: bool = False  #: and electrons of more than 50 keV take charge to other channels
    max_turns: Positive = 2.0  #: a particle is dropped after this many turns
    max_time: Positive = 1000.0  #: a particle is dropped after this time [ns]
    min_momentum: Positive = 0.01  #: below it a particle has stopped [GeV]
    r_max: Positive = 1150.0  #: the world ends here [mm]
    z_max: Positive = 3100.0  #: the world ends here [mm]

    def without(self, *interactions: str) -> TransportConfig:
        """Return the configuration with some interactions switched off; `having` switches them on.

        Raises
        ------
        ConfigError
            If one is not among `INTERACTIONS`.
        """
        return self._switched(interactions, is_on=False)

    def having(self, *interactions: str) -> TransportConfig:
        """Return the configuration with some interactions switched on; raises as `without`."""
        return self._switched(interactions, is_on=True)

    def _switched(self, interactions: tuple[str, ...], *, is_on: bool) -> TransportConfig:
        unknown = [name for name in interactions if name not in INTERACTIONS]
        if unknown:
            msg = f"{unknown[0]!r}: expected one of {', '.join(INTERACTIONS)}"
            raise ConfigError(msg, field="interaction", value=unknown[0])
        return replace(self, **dict.fromkeys(interactions, is_on))

    @classmethod
    def without_material(cls) -> TransportConfig:
        """Return a configuration without any interaction."""
        return cls().without(*INTERACTIONS)

    @classmethod
    def of_particle_files(cls) -> TransportConfig:
        """Return the configuration of collisions without secondary particles, which the files have already.

        Particles are followed outwards only, for half a turn, as in the simulation that the files are of: those of 0.15
        to 0.3 GeV have 8 hits there, and 14 where they are followed for ten turns.
        """
        found = cls.of_collisions().without("nuclear_products", "decays", "bremsstrahlung", "conversions")
        return replace(found, max_turns=0.5)

    @classmethod
    def of_collisions(cls) -> TransportConfig:
        """Return the configuration for whole collisions: all interactions; up to 25 ns, as in Acts' ODD examples.

        Charges do not fluctuate: the digitisation files of the Open Data Detector and the calibrated variances are made
        for path lengths with a Gaussian noise.
        """
        config = cls(max_turns=10.0, max_time=_READOUT_TIME)
        return config.having(*INTERACTIONS).without("charge_fluctuations")


@dataclass(frozen=True, slots=True)
class SampleConfig(Settings):
    """What is simulated; equal configurations give equal files."""

    source: ParticleGunConfig | CollisionConfig | ParticleFilesConfig
    seed: Count = 1  #: seed of the random numbers
    transport: TransportConfig = field(default_factory=TransportConfig)
    smearing: bool = True  #: noise of charges, in analogue channels
    #: chance of a channel to fire by itself, of 2D and of 1D designs
    noise: Annotated[tuple[float, float], Range(0, 1)] = (0.0, 0.0)
    dead_modules: KindFractions = ()  #: fraction of the modules of a kind that are dead, drawn by the seed
    inefficiency: KindFractions = ()  #: fraction of the hits on modules of a kind that leave no cells
    compress: bool = False  #: write .csv.gz
    particle_id_fields: bool = False  #: write ids of particles as the five columns of newer Acts files
    format: Annotated[str, Choice(("traccc", "trackml"))] = "traccc"  #: whose files are written

    def _check_together(self) -> None:
        for name in ("dead_modules", "inefficiency"):
            if not all(0 <= fraction <= 1 for _, fraction in getattr(self, name)):  # False for NaN
                self._reject(name, "fractions from 0 to 1")
        if self.particle_id_fields and self.format != "traccc":
            self._reject("particle_id_fields", "the format traccc; TrackML has one column")

    @classmethod
    def of_collisions(cls, source: CollisionConfig, seed: int = 1, *, compress: bool = False) -> SampleConfig:
        """Return the configuration of collisions with all interactions."""
        return cls(source, seed, TransportConfig.of_collisions(), compress=compress)


def _calibration_gun() -> ParticleGunConfig:
    # As far as tracks can be asked for: muons that turn back cross strips at any angle, and those at |eta| > 2.5 make
    # clusters of up to 45 channels in the pixel barrel.
    return ParticleGunConfig(
        momentum=(0.15, 100.0), momentum_distribution="log", eta=(-3.5, 3.5), vertex_sigma=(0.0125, 0.0125, 55.0)
    )


@dataclass(frozen=True, slots=True)
class CalibrationConfig(Settings):
    """Sample and estimator of the calibration of measurement variances."""

    n_particles: PositiveCount = 100_000  #: simulated muons
    seed: Count = 20_240_501  #: seed of the random numbers
    gun: ParticleGunConfig = field(default_factory=_calibration_gun)
    min_clusters: PositiveCount = 200  #: cluster sizes with fewer clusters get no entry
    min_clusters_of_path: PositiveCount = 30  #: end paths with fewer clusters take the sigma of their neighbours
    min_sigma: Positive = 0.0005  #: smallest sigma of an end path [mm]
    #: the variance is that of this central part of the residuals
    central_fraction: Annotated[float, Range(0.5, 1, is_open=True)] = 0.995
