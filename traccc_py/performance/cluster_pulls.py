"""Pulls of measurements by readout design, axis and cluster size: they check the calibrated variances."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.edm import EventResult
from traccc_py.geometry.records import MAX_CLUSTER_SIZE
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.residuals import measurement_pulls
from traccc_py.performance.statistics import fit_gaussian
from traccc_py.performance.truth import link_digitization, simulated_truth
from traccc_py.simulation.events import SimulatedEvent

__all__ = ["ClusterPulls"]

_MIN_CLUSTERS = 100  # cluster sizes with fewer are not quoted


class ClusterPulls:
    """Gathers simulated events (`add`) and fits the pulls of their measurements (`as_dict`).

    Parameters
    ----------
    detector : Detector
        The sample's detector.
    """

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self._frames = detector_frames(detector)
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # design, size, pull

    def add(self, event: SimulatedEvent, result: EventResult) -> None:
        """Add one event and what the chain made of it."""
        truth, measurements = simulated_truth(event), result.measurements
        links = link_digitization(measurements, event.digitization, truth.particle_of_hit)
        found = measurement_pulls(measurements, links, truth, self._frames)
        rows = found.measurement_index
        design = self._detector.arrays().surfaces["design"][measurements.module_index[rows]]
        self._pieces.append((design, measurements.cluster_size[rows], found.pull))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the fits by "design axis size"; the last size includes all larger ones."""
        if not self._pieces:
            return {}
        design, size, pull = (np.concatenate(column) for column in zip(*self._pieces, strict=True))
        size = np.minimum(size, MAX_CLUSTER_SIZE)
        dimensions = self._detector.arrays().designs["dimensions"]
        found = {}
        for i, name in enumerate(self._detector.design_names):
            for axis in range(int(dimensions[i])):
                for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
                    rows = (design == i) & (size[:, axis] == n_channels)
                    if np.count_nonzero(rows) >= _MIN_CLUSTERS:
                        found[f"{name} loc{axis} {n_channels}"] = fit_gaussian(pull[rows, axis]).as_dict()
        return found
