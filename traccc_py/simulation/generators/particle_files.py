"""Particles of files in TrackML's format, or of HepMC3 events of other generators."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data.csv_events import event_number
from traccc_py.data.hepmc_input import is_hepmc, read_hepmc
from traccc_py.data.trackml_files import read_trackml_particles
from traccc_py.data.truth import Particles
from traccc_py.errors import ConfigError
from traccc_py.simulation.generators.pileup import GeneratedEvent
from traccc_py.simulation.settings import ParticleFilesConfig
from traccc_py.units import pion_mass

__all__ = ["FileParticles", "file_numbers"]

_PION = 211


def file_numbers(config: ParticleFilesConfig) -> range:
    """Return the event numbers of particle files: of TrackML's their names tell, HepMC3's have them inside.

    Raises
    ------
    ConfigError
        If a name has no number, or they are not consecutive.
    InputDataError
        If a HepMC3 file can't be read.
    """
    numbers: list[int | None] = []
    for path in config.files:
        numbers += [number for number, _ in read_hepmc(path)] if is_hepmc(path) else [event_number(path)]
    first = numbers[0]
    if first is None or numbers != list(range(first, first + len(numbers))):
        found = ", ".join(Path(path).name for path in config.files)
        expected = "consecutive event numbers, in names as event000001000-particles.csv or in HepMC3 files"
        msg = f"is {found}, of the events {', '.join(map(str, numbers))}; expected {expected}"
        raise ConfigError(msg, field=config.path_of("files"), value=found)
    return range(first, first + len(numbers))


class FileParticles:
    """Give the charged particles of each event; those of TrackML as pions, since its files have no kinds.

    Parameters
    ----------
    config : ParticleFilesConfig
        Files.
    """

    def __init__(self, config: ParticleFilesConfig) -> None:
        self._events: dict[int, str | Particles] = {}
        for path in config.files:
            if is_hepmc(path):
                self._events |= dict(read_hepmc(path))
            else:
                self._events[event_number(path) or 0] = path

    def generate(self, seed: int, event: int) -> GeneratedEvent:
        """Return the particles of an event; they don't depend on the seed.

        Raises
        ------
        InputDataError
            If the file can't be used.
        """
        found = self._events[event]
        if isinstance(found, str):
            found = read_trackml_particles(found, pion_mass, _PION)
            found = found[found.charge != 0]
        moving = found[np.abs(found.momentum).max(axis=1, initial=0) > 0]
        return GeneratedEvent(moving, np.full(len(moving), np.inf))
