"""Particles of HepMC3 events, as a simulation takes them.

Needs pyhepmc (extra ``hepmc``) and particle (extra ``simulation``). Read are final particles (status 1) that are
charged, and photons, which may convert, each at its vertex.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.particle_ids import pack_particle_id
from traccc_py.data.truth import Particles
from traccc_py.errors import InputDataError
from traccc_py.extras import optional_module
from traccc_py.units import speed_of_light

__all__ = ["is_hepmc", "read_hepmc"]

_FINAL, _PHOTON = 1, 22
_MOST_NUMBERS = 65_535  #: of particles of a collision in their ids


def is_hepmc(path: Path | str) -> bool:
    """Return whether a file is one of HepMC3 by its name."""
    return any(suffix.startswith(".hepmc") for suffix in Path(path).suffixes)


def read_hepmc(path: Path | str) -> Iterator[tuple[int, Particles]]:
    """Yield the events of a file: their numbers and particles [GeV, mm, ns], in the file's order.

    Parameters
    ----------
    path : path
        File of any form that pyhepmc knows, plain or gzipped.

    Raises
    ------
    InputDataError
        If it can't be read, has no event, or a momentum or place that is no number.
    ConfigError
        If pyhepmc or particle is not installed.
    """
    hepmc = optional_module("pyhepmc", "hepmc", f"reading {path}")
    charge_of = cache(optional_module("particle.pdgid", "simulation", f"reading {path}").charge)
    n_read = 0
    try:
        with hepmc.open(str(path)) as file:
            for event in file:
                n_read += 1
                event.set_units(hepmc.Units.GEV, hepmc.Units.MM)
                yield int(event.event_number), _particles(path, event, charge_of)
    except (OSError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        msg = f"{path}: can't be read ({reason}); expected a file of HepMC3 events"
        raise InputDataError(msg) from error
    n_there = _count(Path(path))
    if n_read < n_there:
        msg = f"{path}: pyhepmc reads {n_read} of {n_there} events; expected none without vertices, at which it stops"
        raise InputDataError(msg)
    if n_read == 0:
        msg = f"{path}: has no event; expected a file of HepMC3 events"
        raise InputDataError(msg)


def _count(path: Path) -> int:
    """Return the number of events of a text file, plain or gzipped."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(line.startswith(b"E ") for line in file)


def _particles(path: Path | str, event: Any, charge_of: Any) -> Particles:
    rows, codes, charges = [], [], []
    for particle in event.particles:
        if particle.status != _FINAL:
            continue
        charge = charge_of(particle.pid)
        if not charge and particle.pid != _PHOTON:  # None: of unknown kind
            continue
        place, p = particle.production_vertex.position, particle.momentum
        rows.append((place.x, place.y, place.z, place.t / speed_of_light, p.px, p.py, p.pz, particle.generated_mass))
        codes.append(particle.pid)
        charges.append(charge)
    found = np.array(rows, np.float64).reshape(-1, 8)
    if not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found).all(axis=1)))
        msg = f"{path}, event {event.event_number}: particle {row} has {found[row].tolist()}; expected finite numbers"
        raise InputDataError(msg)
    n = len(rows)
    k, zero = np.arange(n), np.zeros(n, np.int64)
    return Particles(
        particle_id=pack_particle_id(1 + k // _MOST_NUMBERS, zero, 1 + k % _MOST_NUMBERS, zero, zero),
        particle_type=np.array(codes, np.int32),
        process=np.zeros(n, np.int32),
        vertex=found[:, :3].astype(np.float32),
        time=found[:, 3].astype(np.float32),
        momentum=found[:, 4:7].astype(np.float32),
        mass=found[:, 7].astype(np.float32),
        charge=np.array(charges, np.float32),
    )
