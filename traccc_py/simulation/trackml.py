"""Simulated events in TrackML's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.csv_events import event_file_name
from traccc_py.data.trackml_files import TrackmlEvent, TrackmlHits, TrackmlTruth, write_trackml_event
from traccc_py.data.trackml_weights import hit_weights
from traccc_py.data.truth import Hits
from traccc_py.edm import Cells
from traccc_py.simulation.events import SimulatedEvent

__all__ = ["TRACKML_FILES", "trackml_event", "trackml_file_names", "write_trackml"]

TRACKML_FILES = ("hits", "cells", "truth", "particles")


def trackml_file_names(number: int, *, compress: bool = False) -> list[str]:
    """Return the names of the files of an event."""
    return [event_file_name(number, kind, compress=compress) for kind in TRACKML_FILES]


def trackml_event(detector: Any, event: SimulatedEvent) -> TrackmlEvent:
    """Return a simulated event as hits, cells, truth and particles of TrackML.

    Parameters
    ----------
    detector : Detector
        The event's detector; its ids need volume, layer and module numbers.
    event : SimulatedEvent
        Event.

    Returns
    -------
    TrackmlEvent
        A hit is what one particle left on a module, at the mean of its cells weighted by their charges; a cell of two
        particles is of the first. Each cell of noise is a hit of its own, of no particle. Hits are in the order of
        modules, and count from 1.
    """
    cells, made = event.cells, event.digitization
    n_true = len(made.measurement_hit)
    is_noise = cells.measurement_id < 0
    source = np.where(is_noise, n_true + np.cumsum(is_noise) - 1, cells.measurement_id)  # true measurement, or noise
    used, row = np.unique(source, return_inverse=True)
    first = np.zeros(len(used), np.int64)
    first[row[::-1]] = np.arange(len(row))[::-1]
    geometry_id = cells.geometry_id[first]
    order = np.lexsort((used, geometry_id))
    new_row = np.empty(len(used), np.int64)
    new_row[order] = np.arange(len(used))
    used, geometry_id, row = used[order], geometry_id[order], new_row[row]
    module = detector.module_index(geometry_id)
    position = _positions(detector, cells, row, module)
    is_true = used < n_true
    hit = made.measurement_hit[used[is_true]]
    n = len(used)
    hits = _truth(n, is_true, event.simulated.hits[hit], geometry_id, position)
    particle = np.full(n, -1)
    particle[is_true] = event.simulated.particle_index[hit]
    return TrackmlEvent(
        TrackmlHits(np.arange(1, n + 1), position, geometry_id),
        Cells(cells.geometry_id, cells.channel0, cells.channel1, cells.activation, cells.time, row),
        TrackmlTruth(hits, hit_weights(hits, event.particles, particle)),
        event.particles,
    )


def write_trackml(directory: Path | str, detector: Any, event: SimulatedEvent, *, compress: bool = False) -> list[Path]:
    """Write a simulated event in TrackML's format; return the files."""
    write_trackml_event(directory, event.number, trackml_event(detector, event), compress=compress)
    return [Path(directory) / name for name in trackml_file_names(event.number, compress=compress)]


def _positions(detector: Any, cells: Cells, row: np.ndarray, module: np.ndarray) -> np.ndarray:
    """Return the weighted means of cells, (n, 3) float64 [mm]."""
    n, design = len(module), detector.designs[detector.design_of_surface[module]]
    weight = cells.activation.astype(np.float64)
    total = np.bincount(row, weight, n)
    local = np.empty((n, 2))
    for axis, channel in enumerate((cells.channel0, cells.channel1)):
        mean = np.bincount(row, weight * (channel + 0.5), n) / total
        local[:, axis] = design[f"min{axis}"] + mean * design[f"pitch{axis}"] + detector.translations[module, axis]
    return np.asarray(detector.surfaces.global_positions(module, local))


def _truth(n: int, is_true: np.ndarray, true: Hits, geometry_id: np.ndarray, position: np.ndarray) -> Hits:
    """Return the truth of all hits; those of noise are of particle 0, where they are."""
    columns: dict[str, Any] = {
        "particle_id": np.zeros(n, np.uint64),
        "position": position.astype(np.float32),
        "momentum": np.zeros((n, 3), np.float32),
    }
    for name, values in columns.items():
        values[is_true] = getattr(true, name)
    zero = np.zeros(n, np.float32)
    return Hits(
        geometry_id=geometry_id,
        time=zero,
        energy=zero,
        delta_momentum=np.zeros((n, 3), np.float32),
        delta_energy=zero,
        index=np.full(n, -1),
        **columns,
    )
