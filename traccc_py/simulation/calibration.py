"""Calibration of measurement variances: by readout design, local axis and cluster size, from simulated single muons.

The variance that traccc assigns is far too wide for clusters of several cells, so pulls and p-values can't come out
right with it. Here it is the mean square of (position of the cluster - true position) over a sample of tracks, whose
incidence angles it belongs to, and, for tracks of known direction, a sigma for each end path (`variance_table`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.geometry.records import END_PATH_STEP, MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.geometry.variance_table import END_PATHS, VarianceTable, end_path
from traccc_py.simulation.digitization import Digitization, digitization_geometry, digitize
from traccc_py.simulation.generator import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport import SimulatedHits, transport
from traccc_py.simulation.truth_geometry import TruthGeometry, channel_paths, truth_geometry

__all__ = ["CalibrationConfig", "CalibrationResult", "ClusterResiduals", "calibrate_variances", "cluster_residuals"]

_BATCH = 5000  # particles simulated at a time
_ITERATIONS = 40


def _default_gun() -> ParticleGunConfig:
    # Two-strip clusters are wider at low pT, where tracks cross barrel strips at larger angles (long strips: 12 um at
    # 10 GeV, 30 um at 1 GeV). This spectrum gives pulls near 1 for equal numbers of muons of 1, 10 and 100 GeV.
    return ParticleGunConfig(
        momentum=(0.6, 100.0), momentum_distribution="log", eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0)
    )


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Sample and estimator of the calibration."""

    n_particles: int = 100_000
    seed: int = 20_240_501
    gun: ParticleGunConfig = field(default_factory=_default_gun)
    min_clusters: int = 200  #: cluster sizes with fewer clusters get no entry
    min_clusters_of_path: int = 30  #: end paths with fewer clusters take the sigma of their neighbours
    min_sigma: float = 0.0005  #: smallest sigma of an end path [mm]
    central_fraction: float = 0.995  #: the variance is that of this central part of the residuals

    def __post_init__(self) -> None:
        numbers = (self.n_particles, self.min_clusters, self.min_clusters_of_path)
        if min(numbers) < 1 or self.min_sigma <= 0 or not 0.5 < self.central_fraction <= 1.0:  # noqa: PLR2004
            msg = (
                f"{self}: expected n_particles, min_clusters, min_clusters_of_path >= 1, min_sigma > 0 and "
                "central_fraction in (0.5, 1]"
            )
            raise ConfigError(msg)


@dataclass(slots=True)
class ClusterResiduals:
    """Residuals of isolated clusters."""

    design: np.ndarray  # (n,) int64
    residual: np.ndarray  # (n, 2) float64, position of the cluster - true position [mm]
    size: np.ndarray  # (n, 2) int64, extent of the cluster along each axis, in channels
    path: np.ndarray  # (n, 2) float64, projected length of the path in the sensor, in channels


@dataclass(slots=True)
class CalibrationResult:
    """Calibrated variances."""

    table: VarianceTable  # float64; 0: too few clusters
    n_clusters: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) int64
    pull_rms: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) float64, of all clusters; 0 without entry


def _spans(hit: np.ndarray, channel: np.ndarray, n_hits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first and last channel of each hit, and the number of different ones; fewer than the span means a gap."""
    low, high = np.full(n_hits, np.iinfo(np.int64).max), np.full(n_hits, -1)
    np.minimum.at(low, hit, channel)
    np.maximum.at(high, hit, channel)
    pairs = np.unique(np.stack([hit, channel], axis=1), axis=0)
    return low, high, np.bincount(pairs[:, 0], minlength=n_hits)


def cluster_residuals(
    detector: Any, simulated: SimulatedHits, made: Digitization, geometry: TruthGeometry | None = None
) -> ClusterResiduals:
    """Return the residuals of the clusters that single hits made.

    Parameters
    ----------
    detector : Detector
        With `arrays()`.
    simulated : SimulatedHits
        Hits.
    made : Digitization
        Cells of these hits.
    geometry : TruthGeometry, optional
        `truth_geometry` of the detector, to spare its making for each event.

    Returns
    -------
    ClusterResiduals
        One row per hit that made a cluster of its own. Left out: hits that share a cell with another one, hits whose
        cells fall apart because noise took one below the threshold, and hits at the sensor's edge, which lose a part
        of their path.

    Notes
    -----
    A straight path is monotone along both axes, so its cells are one cluster exactly if no row and no column between
    the first and the last is missing.
    """
    arrays, cells, n = detector.arrays(), made.cells, len(simulated)
    n_hits_of_cell = np.diff(made.hit_offsets)
    hit = made.hit_indices[made.hit_offsets[:-1]]
    is_whole = np.ones(n, bool)
    is_whole[made.hit_indices[np.repeat(n_hits_of_cell > 1, n_hits_of_cell)]] = False
    weight = cells.activation.astype(np.float64)
    total = np.bincount(hit, weight, n)
    is_whole &= total > 0
    n_channels = arrays.designs[["n_channels0", "n_channels1"]][arrays.surfaces["design"][simulated.module_index]]
    is_digital = arrays.designs["is_digital"][arrays.surfaces["design"][simulated.module_index]] == 1
    sizes, means = [], []
    for axis, channel in enumerate((cells.channel0, cells.channel1)):
        low, high, n_different = _spans(hit, channel, n)
        last = n_channels[f"n_channels{axis}"].astype(np.int64) - 1
        is_whole &= (high - low + 1 == n_different) & ((last == 0) | ((low > 0) & (high < last)))
        sizes.append(high - low + 1)
        mean = np.bincount(hit, weight * (channel + 0.5), n) / np.where(total > 0, total, 1.0)
        means.append(np.where(is_digital, 0.5 * (low + high + 1), mean))
    used = np.flatnonzero(is_whole)
    module = simulated.module_index[used]
    design = arrays.surfaces["design"][module].astype(np.int64)
    residual = np.empty((len(used), 2))
    for axis, mean in enumerate(means):
        low, pitch = (arrays.designs[f"{name}{axis}"][design].astype(np.float64) for name in ("min", "pitch"))
        position = low + mean[used] * pitch + arrays.translations[module, axis]
        residual[:, axis] = position - simulated.local_position[used, axis]
    path = channel_paths(detector, module, simulated.hits.momentum[used], geometry)
    return ClusterResiduals(design, residual, np.stack(sizes, axis=1)[used], path)


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
    """Return, for places between nodes, the lower node's index and the upper node's share."""
    place = np.clip(place, nodes[0], nodes[-1])
    low = np.clip(np.searchsorted(nodes, place, side="right") - 1, 0, max(len(nodes) - 2, 0))
    high = np.minimum(low + 1, len(nodes) - 1)
    width = np.where(high > low, nodes[high] - nodes[low], 1.0)
    return low, (place - nodes[low]) / width


def path_sigmas(residual: np.ndarray, path: np.ndarray, config: CalibrationConfig) -> np.ndarray:
    """Return the sigmas at all end paths, interpolated linearly, for which pulls are one near each of them.

    Parameters
    ----------
    residual : ndarray of shape (n,)
        Residuals of one design, axis and cluster size [mm].
    path : ndarray of shape (n,)
        End paths [channels].
    config : CalibrationConfig
        Estimator.

    Returns
    -------
    ndarray of shape (N_END_PATHS,)
        Sigmas [mm].

    Notes
    -----
    The mean square of the pulls, weighted with each cluster's share of an end path, is brought to one by iteration; the
    largest pulls are left out as in `robust_variance`. A mean square of residuals would be too wide where the sigma
    goes to zero.
    """
    shares = _interpolation(path / END_PATH_STEP, np.arange(N_END_PATHS, dtype=np.float64))
    counts = np.bincount(shares[0], 1 - shares[1], N_END_PATHS) + np.bincount(shares[0] + 1, shares[1], N_END_PATHS)
    nodes = np.flatnonzero(counts >= config.min_clusters_of_path).astype(np.float64)
    if not len(nodes):
        nodes = np.array([float(np.argmax(counts))])
    low, share = _interpolation(path / END_PATH_STEP, nodes)
    high = np.minimum(low + 1, len(nodes) - 1)
    sigma = np.full(len(nodes), math.sqrt(robust_variance(residual, config.central_fraction)))
    kept = max(1, math.ceil(config.central_fraction * len(residual)))
    for _ in range(_ITERATIONS):
        square = np.square(residual / (sigma[low] + share * (sigma[high] - sigma[low])))
        central = np.where(square <= np.partition(square, kept - 1)[kept - 1], 1.0, 0.0)
        weight, total = (
            np.bincount(low, (1 - share) * w, len(nodes)) + np.bincount(high, share * w, len(nodes))
            for w in (central, central * square)
        )
        sigma = np.maximum(sigma * np.sqrt(total / np.maximum(weight, 1.0)), config.min_sigma)
    return np.interp(END_PATHS / END_PATH_STEP, nodes, sigma)


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
        Variances and sigmas; the last size stands for itself and all larger ones. Axes that are not measured have none.
    """
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
                sample = residuals.residual[rows, axis]
                result.n_clusters[design, axis, n_channels] = len(sample)
                if len(sample) >= config.min_clusters:
                    variance = robust_variance(sample, config.central_fraction)
                    table.variances[design, axis, n_channels] = variance
                    path = end_path(residuals.size[rows, axis], residuals.path[rows, axis])
                    table.path_sigmas[design, axis, n_channels] = path_sigmas(sample, path, config)
                    result.pull_rms[design, axis, n_channels] = np.sqrt(np.mean(sample**2) / variance)
    return result
