"""Which particles count in an efficiency."""

from __future__ import annotations

import numpy as np

from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.truth import EventTruth, MeasurementTruth

__all__ = ["select_particles"]

_LAYER_SHIFT = np.uint64(36)  # geometry ids above this bit: volume, boundary, layer
_VOLUME_SHIFT = np.uint64(56)


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
        Particles behind the measurements: they give each particle's numbers of measurements, modules and pixel layers.
    selection : TruthSelection
        Cuts.
    """
    particles, n = event.particles, len(event.particles)
    pt = np.hypot(particles.momentum[:, 0], particles.momentum[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(particles.momentum[:, 2] / pt)
    radius = np.hypot(particles.vertex[:, 0], particles.vertex[:, 1])
    ids = event.hits.geometry_id[links.hit_index].astype(np.uint64)
    in_pixels = np.isin(ids >> _VOLUME_SHIFT, np.array(selection.pixel_volumes, np.uint64))
    layers = _count_distinct(links.particle_index[in_pixels], ids[in_pixels] >> _LAYER_SHIFT, n)
    modules = _count_distinct(links.particle_index, ids, n)
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
