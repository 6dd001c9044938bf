"""Generated particles as HepMC3 events, for other simulations. Needs pyhepmc (extra ``hepmc``).

Particles of the collision or gun are final (status 1), each at its vertex; what the detector made of them is left out.
Files of particles have no parents, and HepMC3 no vertex without one: each vertex has one incoming pseudo-particle (PDG
90, "a system of particles") with the sum of the momenta. It comes from the vertex of its collision that has most
particles; where it is this vertex, or a gun's, its status is 4.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.particle_ids import unpack_particle_id
from traccc_py.data.shards import kind_file
from traccc_py.extras import optional_module
from traccc_py.units import speed_of_light

__all__ = ["HepmcFiles", "hepmc_event"]

_GENERATED = 0  #: process of particles that the detector has not made
_SYSTEM, _FINAL, _DECAYED, _BEAM = 90, 1, 2, 4  #: PDG number; statuses


def hepmc_event(number: int, particles: Mapping[str, np.ndarray]) -> Any:
    """Return the generated particles of an event as `pyhepmc.GenEvent` [GeV, mm].

    Parameters
    ----------
    number : int
        Event number.
    particles : mapping of str to ndarray of shape (n,)
        Columns of a file of particles: particle_id, particle_type, process, vx, vy, vz [mm], vt [ns], px, py, pz, m
        [GeV].

    Raises
    ------
    ConfigError
        If pyhepmc is not installed.
    """
    hepmc = optional_module("pyhepmc", "hepmc", "writing HepMC3")
    event = hepmc.GenEvent(hepmc.Units.GEV, hepmc.Units.MM)
    event.event_number = number
    is_generated = particles["process"] == _GENERATED
    column = {name: np.asarray(values)[is_generated] for name, values in particles.items()}
    momentum = np.stack([column[name].astype(float) for name in ("px", "py", "pz")], axis=1)
    energy = np.sqrt((momentum**2).sum(axis=1) + column["m"].astype(float) ** 2)
    four = np.column_stack([momentum, energy])
    place = np.stack([column[name].astype(float) for name in ("vx", "vy", "vz", "vt")], axis=1)
    collision = unpack_particle_id(column["particle_id"])["particle_id_pv"].astype(int)  # 0: of a gun
    vertices = _members_by_vertex(collision, place)
    primary: dict[int, Any] = {}
    for members in vertices:
        own, (x, y, z, t) = int(collision[members[0]]), place[members[0]]
        vertex = hepmc.GenVertex(hepmc.FourVector(x, y, z, t * speed_of_light))
        origin = primary.get(own)
        total = hepmc.FourVector(*four[members].sum(axis=0))
        system = hepmc.GenParticle(total, _SYSTEM, _BEAM if origin is None else _DECAYED)
        vertex.add_particle_in(system)
        if origin is not None:
            origin.add_particle_out(system)
        elif own:
            primary[own] = vertex
        for member in members:
            out = hepmc.GenParticle(hepmc.FourVector(*four[member]), int(column["particle_type"][member]), _FINAL)
            out.generated_mass = float(column["m"][member])
            vertex.add_particle_out(out)
        event.add_vertex(vertex)
    return event


def _members_by_vertex(collision: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Return the particles of each vertex, those of a collision with its largest, which is the primary one, first."""
    if not len(place):
        return []
    _, vertex, counts = np.unique(np.column_stack([collision, place]), axis=0, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(vertex.ravel(), kind="stable"), np.cumsum(counts)[:-1])
    return sorted(members, key=lambda rows: (collision[rows[0]], -len(rows)))


class HepmcFiles:
    """Writes events to text files of a range of event numbers; a file appears when it is complete.

    Parameters
    ----------
    folder : Path
        Gets a folder ``particles``.
    events_per_file : int
        Size of a range [1].
    """

    def __init__(self, folder: Path, events_per_file: int) -> None:
        self._hepmc = optional_module("pyhepmc", "hepmc", "writing HepMC3")
        self._folder, self._events_per_file = folder, events_per_file
        self._path: Path | None = None
        self._temporary: Path | None = None
        self._file: Any = None

    def add(self, event: int, particles: Mapping[str, np.ndarray]) -> None:
        """Add an event, as `hepmc_event`. Event numbers must ascend.

        Raises
        ------
        OSError
            If a file can't be written.
        """
        path = kind_file(self._folder, "particles", event, self._events_per_file, ".hepmc3")
        if path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            temporary.touch()  # the library says nothing about a file that can't be written
            self._path, self._temporary = path, temporary
            self._file = self._hepmc.io.WriterAscii(str(temporary))
        self._file.write_event(hepmc_event(event, particles))
        if self._file.failed():
            raise OSError(None, "can't be written: is the disk full?", str(path))

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            assert self._path is not None
            assert self._temporary is not None
            self._file.close()
            self._temporary.replace(self._path)
        self._file = self._path = self._temporary = None

    def abandon(self) -> None:
        """Remove what is not complete."""
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
        self._file = self._path = self._temporary = None
