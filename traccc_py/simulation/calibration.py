"""Calibration of measurement variances by readout design, local axis and cluster size, from simulated single muons.

The variance that traccc assigns is far too large for clusters of several cells, so pulls and p-values can't be right.
Here it is the mean square of (position of the cluster - true position) over a sample of tracks, for whose incidence
angles it is valid, and, for tracks of known direction, a sigma for each end path (`variance_table`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.geometry.records import END_PATH_STEP, MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.geometry.variance_table import END_PATHS, VarianceTable, end_path, sigma_of_ends
from traccc_py.simulation.digitization.digitization import DigitizedHits, digitization_geometry, digitize
from traccc_py.simulation.generators.gun import generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.settings import CalibrationConfig, ParticleGunConfig
from traccc_py.simulation.transport.transport import SimulatedHits, transport
from traccc_py.simulation.transport.truth_geometry import TruthGeometry, channel_paths, local_vectors, truth_geometry

__all__ = ["CalibrationConfig", "CalibrationResult", "ClusterResiduals", "calibrate_variances", "cluster_residuals"]

_BATCH = 5000  # particles simulated together
_ITERATIONS = 40
_LONGEST_END_PATH = 2.0  # that geometry allows; beyond, part of the path left no signal
#: Smallest sigma at this end path, in pitches: a box has none, but of the few clusters there many lost a part of their
#: path at the sensor's edge, which the sample leaves out.
_MIN_SIGMA_OF_LONGEST = 0.1


@dataclass(slots=True)
class ClusterResiduals:
    """Residuals of isolated clusters."""

    design: np.ndarray  # (n,) int64
    residual: np.ndarray  # (n, 2) float64, position of the cluster - true position [mm]
    size: np.ndarray  # (n, 2) int64, extent of the cluster along each axis, in channels
    path: np.ndarray  # (n, 2) float64, projected length of the path in the sensor, in channels
    is_whole: np.ndarray  # (n,) bool, the only cluster of its hit


@dataclass(slots=True)
class CalibrationResult:
    """Calibrated variances."""

    table: VarianceTable  # float64; 0: too few clusters
    n_clusters: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) int64
    pull_rms: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) float64, of all clusters; 0 without entry


def _pieces(hit: np.ndarray, channels: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of cells by hit and along its path, and the first cell of each connected piece in this order.

    A straight path is monotonic along both axes, so no cell after a gap is connected to one before it.
    """
    along = np.sum(np.where(direction[hit] < 0, -channels, channels), axis=1)
    order = np.lexsort((along, hit))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(hit[order]) != 0) | (np.abs(np.diff(channels[order], axis=0)) > 1).any(axis=1)
    return order, np.flatnonzero(is_first)


def cluster_residuals(
    detector: Any, simulated: SimulatedHits, made: DigitizedHits, geometry: TruthGeometry | None = None
) -> ClusterResiduals:
    """Return the residuals of clusters made by a single hit.

    Parameters
    ----------
    detector : Detector
        With `arrays()`.
    simulated : SimulatedHits
        Hits.
    made : DigitizedHits
        Cells of these hits.
    geometry : TruthGeometry, optional
        `truth_geometry` of the detector, to avoid making it for each event.

    Returns
    -------
    ClusterResiduals
        One row per cluster: one for most hits, and several if noise took a channel in between below the threshold. Left
        out are hits that share a cell with another one, and clusters at the sensor's edge, which lose a part of their
        path.
    """
    arrays, cells = detector.arrays(), made.cells
    geometry = geometry or truth_geometry(detector)
    n_hits_of_cell = np.diff(made.hit_offsets)
    is_shared = np.zeros(len(simulated), bool)
    is_shared[made.hit_indices[np.repeat(n_hits_of_cell > 1, n_hits_of_cell)]] = True
    hit_of_cell = made.hit_indices[made.hit_offsets[:-1]]
    alone = np.flatnonzero(~is_shared[hit_of_cell])
    hit_of_cell, channels = hit_of_cell[alone], np.stack([cells.channel0, cells.channel1], axis=1)[alone]
    direction = local_vectors(geometry, simulated.module_index, simulated.hits.momentum)
    order, first = _pieces(hit_of_cell, channels, direction[:, :2] * np.sign(direction[:, 2:]))
    hit, channels = hit_of_cell[order[first]], channels[order]
    low, high = np.minimum.reduceat(channels, first), np.maximum.reduceat(channels, first)
    weight = cells.activation[alone][order].astype(np.float64)[:, None]
    centre = np.add.reduceat(weight * (channels + 0.5), first) / np.add.reduceat(weight, first)
    module = simulated.module_index[hit]
    design = arrays.surfaces["design"][module].astype(np.int64)
    last, minimum, pitch = (
        np.stack([arrays.designs[f"{name}{axis}"][design] for axis in (0, 1)], axis=1).astype(np.float64)
        for name in ("n_channels", "min", "pitch")
    )
    last -= 1
    centre = np.where(arrays.designs["is_digital"][design][:, None] == 1, 0.5 * (low + high + 1), centre)
    residual = minimum + centre * pitch + arrays.translations[module] - simulated.local_position[hit]
    inside = ((last == 0) | ((low > 0) & (high < last))).all(axis=1)
    is_whole = np.bincount(hit, minlength=len(simulated))[hit] == 1
    path = channel_paths(detector, module, simulated.hits.momentum[hit], geometry)
    return ClusterResiduals(*(column[inside] for column in (design, residual, high - low + 1, path, is_whole)))


def _simulate_residuals(detector: Any, config: CalibrationConfig) -> ClusterResiduals:
    geometry = (truth_geometry(detector), digitization_geometry(detector))
    pieces = []
    for batch, start in enumerate(range(0, config.n_particles, _BATCH)):
        n = min(_BATCH, config.n_particles - start)
        gun = ParticleGunConfig(**{**_as_dict(config.gun), "n_particles": n})
        key = event_key(config.seed, batch)
        simulated = transport(detector, generate_particles(gun, config.seed, batch), key, geometry=geometry[0])
        made = digitize(detector, simulated, key, geometry=geometry)
        pieces.append(cluster_residuals(detector, simulated, made, geometry[0]))
    names = ClusterResiduals.__dataclass_fields__
    return ClusterResiduals(*(np.concatenate([getattr(p, name) for p in pieces]) for name in names))


def _as_dict(gun: ParticleGunConfig) -> dict[str, Any]:
    return {name: getattr(gun, name) for name in ParticleGunConfig.__dataclass_fields__}


def robust_variance(residual: np.ndarray, central_fraction: float) -> float:
    """Return the mean square of the `central_fraction` smallest |residual|."""
    kept = max(1, int(np.ceil(central_fraction * len(residual))))
    return float(np.mean(np.partition(np.abs(residual), kept - 1)[:kept] ** 2))


def _interpolation(place: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for points between nodes, the lower node's index and the upper node's weight."""
    place = np.clip(place, nodes[0], nodes[-1])
    low = np.clip(np.searchsorted(nodes, place, side="right") - 1, 0, max(len(nodes) - 2, 0))
    high = np.minimum(low + 1, len(nodes) - 1)
    width = np.where(high > low, nodes[high] - nodes[low], 1.0)
    return low, (place - nodes[low]) / width


def end_path_sigmas(residual: np.ndarray, path: np.ndarray, pitch: float, config: CalibrationConfig) -> np.ndarray:
    """Return sigmas at all end paths, interpolated linearly, such that the pulls near each have width one.

    Parameters
    ----------
    residual : ndarray of shape (n,)
        Residuals of one design, axis and cluster size [mm].
    path : ndarray of shape (n,)
        End paths [channels].
    pitch : float
        Width of a channel [mm].
    config : CalibrationConfig
        Estimator.

    Returns
    -------
    ndarray of shape (N_END_PATHS,)
        Sigmas [mm].

    Notes
    -----
    The mean square of the pulls, weighted with each cluster's weight of an end path, is brought to one by iteration. A
    mean square of residuals would be too large where the sigma goes to zero. Outside of the end paths that the sample
    covers, the sigma is that of the nearest one, but not below what the cluster's ends alone allow.
    """
    inside = path <= END_PATHS[-1]
    residual, place = residual[inside], path[inside] / END_PATH_STEP
    low, share = _interpolation(place, np.arange(N_END_PATHS, dtype=np.float64))
    counts = np.bincount(low, 1 - share, N_END_PATHS) + np.bincount(low + 1, share, N_END_PATHS)
    nodes = np.flatnonzero(counts >= min(config.min_clusters_of_path, counts.max())).astype(np.float64)
    low, share = _interpolation(place, nodes)
    high = np.minimum(low + 1, len(nodes) - 1)
    sigma = np.full(len(nodes), np.sqrt(np.mean(residual**2)))
    weight = np.bincount(low, 1 - share, len(nodes)) + np.bincount(high, share, len(nodes))
    for _ in range(_ITERATIONS):
        square = np.square(residual / (sigma[low] + share * (sigma[high] - sigma[low])))
        total = np.bincount(low, (1 - share) * square, len(nodes)) + np.bincount(high, share * square, len(nodes))
        sigma = np.maximum(sigma * np.sqrt(total / weight), config.min_sigma)
    missing = END_PATHS - np.maximum(nodes[-1] * END_PATH_STEP, _LONGEST_END_PATH)
    is_covered = np.abs(END_PATHS / END_PATH_STEP - 0.5 * (nodes[0] + nodes[-1])) <= 0.5 * (nodes[-1] - nodes[0])
    sigma = np.interp(END_PATHS / END_PATH_STEP, nodes, sigma)
    sigma = np.where(is_covered, sigma, np.maximum(sigma, sigma_of_ends(END_PATHS, pitch)))
    sigma += 0.5 * pitch * np.maximum(missing, 0.0)
    return np.where(END_PATHS < _LONGEST_END_PATH, sigma, np.maximum(sigma, _MIN_SIGMA_OF_LONGEST * pitch))


def calibrate_variances(detector: Any, config: CalibrationConfig | None = None) -> CalibrationResult:
    """Calibrate the variances of a detector's readout designs.

    Parameters
    ----------
    detector : Detector
        Detector with the digitisation to calibrate.
    config : CalibrationConfig, optional
        Sample and estimator.

    Returns
    -------
    CalibrationResult
        Variances and sigmas. The last size's variance is that of itself and all larger ones, its sigmas are its own.
        Axes that are not measured have none.

    Raises
    ------
    ConfigError
        If a design is polar: a table holds lengths.
    """
    if detector.arrays().designs["is_polar"].any():
        msg = (
            f"readout {detector.digitization.name!r} of {detector.name!r} has polar axes, for which there are no tables"
        )
        raise ConfigError(msg)
    config = config or CalibrationConfig()
    residuals = _simulate_residuals(detector, config)
    designs = detector.arrays().designs
    shape = (len(designs), 2, MAX_CLUSTER_SIZE + 1)
    table = VarianceTable.zeros(len(designs), np.float64)
    result = CalibrationResult(table, np.zeros(shape, np.int64), np.zeros(shape))
    size = np.minimum(residuals.size, MAX_CLUSTER_SIZE)
    for design in range(len(designs)):
        for axis in range(int(designs["dimensions"][design])):
            for n_channels in range(1, MAX_CLUSTER_SIZE + 1):
                rows = (residuals.design == design) & (size[:, axis] == n_channels)
                sample = residuals.residual[rows & residuals.is_whole, axis]
                result.n_clusters[design, axis, n_channels] = len(sample)
                if len(sample) < config.min_clusters:
                    continue
                variance = robust_variance(sample, config.central_fraction)
                table.variances[design, axis, n_channels] = variance
                result.pull_rms[design, axis, n_channels] = np.sqrt(np.mean(sample**2) / variance)
                rows &= residuals.size[:, axis] == n_channels
                if np.count_nonzero(rows) >= config.min_clusters:
                    path = end_path(residuals.size[rows, axis], residuals.path[rows, axis])
                    pitch = float(designs[f"pitch{axis}"][design])
                    sigmas = end_path_sigmas(residuals.residual[rows, axis], path, pitch, config)
                    table.path_sigmas[design, axis, n_channels] = sigmas
    return result
