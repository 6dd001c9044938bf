"""Particles of files in TrackML's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data.csv_events import event_number
from traccc_py.data.trackml_files import read_trackml_particles
from traccc_py.errors import ConfigError
from traccc_py.simulation.generators.pileup import GeneratedEvent
from traccc_py.simulation.settings import ParticleFilesConfig
from traccc_py.units import pion_mass

__all__ = ["FileParticles", "file_numbers"]

_PION = 211


def file_numbers(config: ParticleFilesConfig) -> range:
    """Return the event numbers of particle files, which their names tell.

    Raises
    ------
    ConfigError
        If a name has no number, or they are not consecutive.
    """
    numbers = [event_number(path) for path in config.files]
    first = numbers[0]
    if first is None or numbers != list(range(first, first + len(numbers))):
        found = ", ".join(Path(path).name for path in config.files)
        msg = f"is {found}; expected names with consecutive event numbers, as in event000001000-particles.csv"
        raise ConfigError(msg, field=config.path_of("files"), value=found)
    return range(first, first + len(numbers))


class FileParticles:
    """Give the charged particles of each file, as pions, since the files have no kinds.

    Parameters
    ----------
    config : ParticleFilesConfig
        Files.
    """

    def __init__(self, config: ParticleFilesConfig) -> None:
        self._files = dict(zip(file_numbers(config), config.files, strict=True))

    def generate(self, seed: int, event: int) -> GeneratedEvent:
        """Return the particles of an event; they don't depend on the seed.

        Raises
        ------
        InputDataError
            If the file can't be used.
        """
        particles = read_trackml_particles(self._files[event], pion_mass, _PION)
        moves = np.abs(particles.momentum).max(axis=1, initial=0) > 0
        charged = particles[(particles.charge != 0) & moves]
        return GeneratedEvent(charged, np.full(len(charged), np.inf))
