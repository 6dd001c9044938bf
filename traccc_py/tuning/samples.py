"""Events that settings are judged by: muons, pions, and collisions, made once and kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from traccc_py.data.manifest import read_manifest
from traccc_py.performance.definitions import TruthSelection
from traccc_py.simulation.events import SimulatedEvent
from traccc_py.simulation.samples import Sample, make_sample
from traccc_py.simulation.settings import CollisionConfig, ParticleGunConfig, SampleConfig, TransportConfig
from traccc_py.tuning.settings import TuningSamples

__all__ = ["JudgedSample", "load_samples"]

_PER_EVENT = 50  #: particles of a gun in an event
_OF_PIONS = 2  #: of so many muons there is one pion
_NUCLEAR = ("nuclear_interactions", "nuclear_scattering")  #: what pions do besides


class JudgedSample(NamedTuple):
    """Events of a kind."""

    name: str
    events: list[SimulatedEvent]
    selection: TruthSelection


def _gun(config: TuningSamples, particle: str) -> ParticleGunConfig:
    return ParticleGunConfig(
        n_particles=_PER_EVENT,
        particle=particle,
        momentum=config.pt,
        momentum_distribution="log",
        eta=config.eta,
        phi=config.phi,
        vertex_sigma=(0.01, 0.01, config.vertex_sigma),
    )


def _recipes(config: TuningSamples) -> dict[str, tuple[SampleConfig, int]]:
    """Return settings and number of events by name."""
    n = max(1, round(config.particles / _PER_EVENT))
    seed = config.seed
    made = {
        "muons": (SampleConfig(_gun(config, "muon"), seed, compress=True), n),
        "pions": (
            SampleConfig(_gun(config, "pion"), seed + 1, TransportConfig().having(*_NUCLEAR), compress=True),
            max(1, n // _OF_PIONS),
        ),
    }
    if config.pileup > 0:
        source = CollisionConfig("ttbar", pileup=config.pileup)
        made["collisions"] = (SampleConfig.of_collisions(source, seed + 2, compress=True), config.collisions)
    return made


def load_samples(folder: Path, detector: Any, config: TuningSamples, threads: int) -> list[JudgedSample]:
    """Return the samples; those that are in the folder already, made for the same detector, are read.

    Parameters
    ----------
    folder : Path
        Folder, which gets one for each sample.
    detector : Detector
        Detector.
    config : TuningSamples
        What is made.
    threads : int
        CPU threads of the simulation.

    Raises
    ------
    InputDataError
        If the folder has other samples.
    """
    selection = TruthSelection(
        min_pt=config.pt[0] if config.pileup == 0 else max(1.0, config.pt[0]),
        max_eta=max(abs(edge) for edge in config.eta),
        max_r=10.0,
        process=-1,
        min_measurements=config.min_measurements,
        particle_types=(),
    )
    found = []
    for name, (recipe, n) in _recipes(config).items():
        for _ in make_sample(folder / name, detector, recipe, n, threads=threads):
            pass
        sample = Sample(folder / name, detector, read_manifest(folder / name))
        found.append(JudgedSample(name, list(sample), selection))
    return found
