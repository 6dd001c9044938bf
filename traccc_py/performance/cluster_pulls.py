"""Pulls of measurements by readout design, axis and cluster size, to check the calibrated variances."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.config import ClusterizationConfig
from traccc_py.edm import EventResult, Measurements
from traccc_py.geometry.records import MAX_CLUSTER_SIZE
from traccc_py.geometry.variance_table import path_sigmas, sigma_of_path
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.residuals import measurement_residuals
from traccc_py.performance.statistics import fit_gaussian
from traccc_py.performance.truth import link_digitization, simulated_truth
from traccc_py.simulation.events import SimulatedEvent
from traccc_py.simulation.transport.truth_geometry import channel_paths

__all__ = ["ClusterPulls"]

_MIN_CLUSTERS = 100  # cluster sizes with fewer are not reported


class ClusterPulls:
    """Collects simulated events (`add`) and fits the pulls of their measurements (`as_dict`).

    Parameters
    ----------
    detector : Detector
        The sample's detector.
    clusterization : ClusterizationConfig
        Where the chain took variances from, nothing left to the detector. Calibrated ones are those for the true
        direction, as finding and fit take them up to the error of their prediction.
    """

    def __init__(self, detector: Any, clusterization: ClusterizationConfig) -> None:
        self._detector = detector
        self._path_sigmas = path_sigmas(detector.arrays(), clusterization)
        self._frames = detector_frames(detector)
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # design, size, pull

    def add(self, event: SimulatedEvent, result: EventResult) -> None:
        """Add one event and its reconstruction."""
        truth, measurements = simulated_truth(event), result.measurements
        links = link_digitization(measurements, event.digitization, truth.particle_of_hit)
        found = measurement_residuals(measurements, links, truth, self._frames)
        rows = found.measurement_index
        sigma = self._sigma_for_direction(measurements, rows, truth.hits.momentum[found.hit_index])
        design = self._detector.arrays().surfaces["design"][measurements.module_index[rows]]
        self._pieces.append((design, measurements.cluster_size[rows], found.residual / sigma))

    def __iadd__(self, other: ClusterPulls) -> ClusterPulls:
        """Add the events of another one, for the same detector."""
        self._pieces += other._pieces
        return self

    def _sigma_for_direction(self, measurements: Measurements, rows: np.ndarray, momentum: np.ndarray) -> np.ndarray:
        """Return the sigmas (n, 2) of measurements for the directions of their particles."""
        module, size = measurements.module_index[rows], measurements.cluster_size[rows]
        design, designs = self._detector.design_of_surface[module], self._detector.designs
        path = channel_paths(self._detector, module, momentum)
        found = [
            sigma_of_path(self._path_sigmas, designs, design, axis, size[:, axis], path[:, axis]) for axis in (0, 1)
        ]
        sigma = np.stack(found, axis=1)
        return np.where(sigma > 0, sigma, np.sqrt(measurements.local_variance[rows]))

    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return design, size and pull of all measurements."""
        design, size, pull = (np.concatenate(column) for column in zip(*self._pieces, strict=True))
        return design, np.minimum(size, MAX_CLUSTER_SIZE), pull

    def by_size(self) -> dict[str, dict[str, Any]]:
        """Return the fits by size, all designs and axes together; the last size includes all larger ones."""
        if not self._pieces:
            return {}
        design, size, pull = self._all()
        is_measured = np.arange(2) < self._detector.arrays().designs["dimensions"][design][:, None]
        found = {}
        for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
            values = pull[is_measured & (size == n_channels)]
            if len(values) >= _MIN_CLUSTERS:
                found[str(n_channels)] = fit_gaussian(values).as_dict()
        return found

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the fits by "design axis size"; the last size includes all larger ones."""
        if not self._pieces:
            return {}
        design, size, pull = self._all()
        dimensions = self._detector.arrays().designs["dimensions"]
        found = {}
        for i, name in enumerate(self._detector.design_names):
            for axis in range(int(dimensions[i])):
                for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
                    rows = (design == i) & (size[:, axis] == n_channels)
                    if np.count_nonzero(rows) >= _MIN_CLUSTERS:
                        found[f"{name} loc{axis} {n_channels}"] = fit_gaussian(pull[rows, axis]).as_dict()
        return found

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return both tables for JSON."""
        return {"measurement_pulls": self.as_dict(), "measurement_pulls_by_size": self.by_size()}
