"""Simulated events for training and evaluation: measurements, spacepoints and what made them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.edm import Measurements, Spacepoints
from traccc_py.geometry import Detector
from traccc_py.performance.truth import link_digitization, simulated_truth
from traccc_py.simulation.events import read_event

__all__ = ["LabelledEvent", "read_labelled"]


class LabelledEvent(NamedTuple):
    """An event with truth."""

    measurements: Measurements
    spacepoints: Spacepoints
    link_spacepoint: np.ndarray  # (n_links,) int64, of each pair of a spacepoint and a particle behind it
    link_particle: np.ndarray  # (n_links,) int64
    link_time: np.ndarray  # (n_links,) float64, when the particle was there [ns]
    pt: np.ndarray  # (n_particles,) float64 [GeV]
    eta: np.ndarray  # (n_particles,) float64
    radius: np.ndarray  # (n_particles,) float64, of production [mm]


def read_labelled(folder: Path | str, chain: TrackingChain, number: int) -> LabelledEvent:
    """Read a simulated event and reconstruct its spacepoints.

    Parameters
    ----------
    folder : path
        Where `traccc-py simulate` wrote it.
    chain : TrackingChain
        Makes measurements and spacepoints.
    number : int
        Of the event.

    Returns
    -------
    LabelledEvent
        The event and its truth.
    """
    detector: Detector = chain.detector
    event = read_event(folder, detector, number)
    result = chain.run(event.cells)
    truth = simulated_truth(event)
    links = link_digitization(result.measurements, event.digitization, truth.particle_of_hit)
    measurement = result.spacepoints.measurement_index
    n_links = np.diff(links.offsets)[measurement]
    spacepoint = np.repeat(np.arange(len(measurement)), n_links)
    start = np.repeat(links.offsets[measurement] - np.cumsum(n_links) + n_links, n_links)
    place = start + np.arange(len(spacepoint))
    momentum, vertex = (np.asarray(a, np.float64) for a in (event.particles.momentum, event.particles.vertex))
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    return LabelledEvent(
        measurements=result.measurements,
        spacepoints=result.spacepoints,
        link_spacepoint=spacepoint,
        link_particle=links.particle_index[place],
        link_time=np.asarray(event.simulated.hits.time, np.float64)[links.hit_index[place]],
        pt=pt,
        eta=np.arcsinh(momentum[:, 2] / np.maximum(pt, 1e-9)),
        radius=np.hypot(vertex[:, 0], vertex[:, 1]),
    )
