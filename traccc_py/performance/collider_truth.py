"""Truth of ColliderML's events: particles, and hits that are the measurements."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from traccc_py.data.colliderml import HIT_RULES, collider_hits, hit_measurements, read_collider_particles
from traccc_py.data.parquet_files import ParquetEvents
from traccc_py.data.source import Source
from traccc_py.edm import Measurements
from traccc_py.errors import InputDataError
from traccc_py.geometry.detector import Detector
from traccc_py.performance.truth import NO_PARTICLE, EventTruth, MeasurementTruth, link_hits

__all__ = ["has_collider_truth", "read_collider_truth"]

_FOLDERS = ("tracker_hits", "particles")


def has_collider_truth(folder: Path | str) -> bool:
    """Return whether a folder has tables of hits and of particles."""
    return all(any((Path(folder) / name).glob("*.parquet")) for name in _FOLDERS)


def read_collider_truth(folder: Path | str, event: int, detector: Detector) -> EventTruth:
    """Read particles and hits of an event, for `match` with the tracks of these hits.

    Parameters
    ----------
    folder : path
        Folder with ``tracker_hits`` and ``particles``, folders of Parquet files.
    event : int
        Event number.
    detector : Detector
        The detector of the hits, `build_detector("colliderml")`.

    Returns
    -------
    EventTruth
        Momenta of hits are not known; hits of particles that are not in the table have no particle.

    Raises
    ------
    InputDataError
        If the event is not there, or a file can't be used.
    """
    of_hits, of_particles = (_table_with(Path(folder) / name, event) for name in _FOLDERS)
    of_hits[0].check_columns(HIT_RULES)
    table = of_hits[0].read(of_hits[1], HIT_RULES)
    measurements = hit_measurements(table, detector, Source(str(of_hits[0].path), event=event))
    particles = read_collider_particles(*of_particles)
    order = np.argsort(particles.particle_id, kind="stable")
    ids = particles.particle_id[order]
    place = np.minimum(np.searchsorted(ids, table["particle_id"]), max(len(ids) - 1, 0))
    is_known = ids[place] == table["particle_id"] if len(ids) else np.zeros(len(measurements), bool)
    particle_of_hit = np.where(is_known, order[place] if len(ids) else 0, NO_PARTICLE)
    link = partial(_link, particle_of_hit=particle_of_hit)
    return EventTruth(event, particles, collider_hits(table, measurements), particle_of_hit, link)


def _link(measurements: Measurements, particle_of_hit: np.ndarray) -> MeasurementTruth:
    if len(measurements) != len(particle_of_hit):
        msg = (
            f"the result has {len(measurements)} measurements, the truth {len(particle_of_hit)} hits: is it one event?"
        )
        raise InputDataError(msg)
    return link_hits(measurements.measurement_id, particle_of_hit)


def _table_with(folder: Path, event: int) -> tuple[ParquetEvents, int]:
    """Return the file that has an event, and its row."""
    for path in sorted(folder.glob("*.parquet")):
        events = ParquetEvents(path)
        rows = np.flatnonzero(events.numbers == event)
        if len(rows):
            return events, int(rows[0])
    msg = f"{folder}: no Parquet file has event {event}"
    raise InputDataError(msg)
