"""Residuals and pulls of fitted tracks against truth, and what one quotes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import ClusterizationConfig
from traccc_py.data.truth import Particles
from traccc_py.edm import LOC0, LOC1, N_PARAMETERS, PHI, QOP, THETA, EventResult, FitOutcome, Measurements, packed_index
from traccc_py.geometry import Detector
from traccc_py.geometry.variance_table import sigma_of_path, with_pixel_floor
from traccc_py.performance.matching import GroupMatches, MeasurementTruth
from traccc_py.simulation.transport import SimulatedHits
from traccc_py.simulation.truth_geometry import channel_paths

__all__ = [
    "FIRST_STATE_NAMES",
    "GaussianFit",
    "MeasurementPulls",
    "PERIGEE_NAMES",
    "Pulls",
    "concatenate_pulls",
    "first_state_pulls",
    "fit_gaussian",
    "measurement_pulls",
    "perigee_pulls",
    "summarise_p_values",
    "summarise_pulls",
    "true_perigee",
]

FIRST_STATE_NAMES = ("loc0", "loc1", "phi", "theta", "qop")
PERIGEE_NAMES = ("d0", "z0", "phi", "theta", "qop")
_TRUNCATION = 3.0  # |pull| below which the Gaussian is fitted
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-9
_MIN_SAMPLE = 10
_TWO_PI = 2.0 * math.pi
_VARIANCES = [packed_index(k, k) for k in range(N_PARAMETERS)]


class Pulls(NamedTuple):
    """Residuals (fit - truth) and pulls (residual / fitted sigma) of tracks."""

    residual: np.ndarray  # (n, 5)
    pull: np.ndarray  # (n, 5)
    track_index: np.ndarray  # (n,) int64, row of the track
    particle_index: np.ndarray  # (n,) int64


def concatenate_pulls(pieces: list[Pulls]) -> Pulls:
    """Return the pulls of several events in one collection; indices stay those of their events."""
    return Pulls(*(np.concatenate([getattr(p, name) for p in pieces]) for name in Pulls._fields))


def _directions(momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phi, theta [rad] and the momentum's magnitude [GeV]."""
    transverse = np.hypot(momentum[:, 0], momentum[:, 1])
    phi = np.arctan2(momentum[:, 1], momentum[:, 0])
    return phi, np.arctan2(transverse, momentum[:, 2]), np.hypot(transverse, momentum[:, 2])


def _compare(fitted: np.ndarray, covariance: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    residual = fitted.astype(np.float64) - truth
    residual[:, PHI] = np.remainder(residual[:, PHI] + math.pi, _TWO_PI) - math.pi
    with np.errstate(divide="ignore", invalid="ignore"):
        return residual, residual / np.sqrt(covariance[:, _VARIANCES].astype(np.float64))


def _good_tracks(result: EventResult, matches: GroupMatches) -> np.ndarray:
    return np.flatnonzero(matches.is_matched & (result.tracks.fit_outcome == FitOutcome.SUCCESS))


def _hit_in_measurement(truth: MeasurementTruth, measurement: np.ndarray, particle: np.ndarray) -> np.ndarray:
    """Return the hit of each row's particle in its measurement, or -1."""
    hit = np.full(len(measurement), -1)
    for row, (m, p) in enumerate(zip(measurement, particle, strict=True)):
        if m >= 0:
            links = slice(truth.offsets[m], truth.offsets[m + 1])
            found = np.flatnonzero(truth.particle_index[links] == p)
            if len(found):
                hit[row] = truth.hit_index[links][found[0]]
    return hit


def first_state_pulls(
    result: EventResult,
    matches: GroupMatches,
    truth: MeasurementTruth,
    simulated: SimulatedHits,
    particles: Particles,
) -> Pulls:
    """Compare the first states of matched, successfully fitted tracks with the truth after that surface's material.

    Parameters
    ----------
    result : EventResult
        Tracks.
    matches : GroupMatches
        Their particles (`match_tracks`).
    truth : MeasurementTruth
        Particles and hits behind the measurements.
    simulated : SimulatedHits
        Hits.
    particles : Particles
        Particles.

    Returns
    -------
    Pulls
        In the order loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV]; tracks whose first measurement is not their
        particle's, or whose particle stopped there, are left out.
    """
    tracks = _good_tracks(result, matches)
    particle = matches.particle_index[tracks]
    measurement = result.track_states.measurement_index[result.tracks.state_offsets[tracks]]
    hit = _hit_in_measurement(truth, measurement, particle)
    outgoing = simulated.outgoing_momentum[np.maximum(hit, 0)] if len(simulated) else np.zeros((len(hit), 3))
    phi, theta, p = _directions(outgoing)
    used = (hit >= 0) & (p > 0)
    tracks, particle, hit = tracks[used], particle[used], hit[used]
    values = np.empty((len(tracks), N_PARAMETERS))
    values[:, [LOC0, LOC1]] = simulated.local_position[hit]
    values[:, PHI], values[:, THETA] = phi[used], theta[used]
    values[:, QOP] = particles.charge[particle] / p[used]
    residual, pull = _compare(result.tracks.params[tracks], result.tracks.covariance[tracks], values)
    return Pulls(residual, pull, tracks, particle)


def true_perigee(particles: Particles, b_z: float) -> np.ndarray:
    """Return d0, z0 [mm], phi, theta [rad], q/p [e/GeV] of particles at the beam line, (n, 5) float64.

    Parameters
    ----------
    particles : Particles
        Particles; their helices are followed, without material, from the vertex to the point nearest the z axis.
    b_z : float
        Field along z [GeV / (e mm)].

    Returns
    -------
    ndarray of shape (n, 5), float64
        Perigee parameters; d0 = -x sin(phi) + y cos(phi), with phi the direction there.
    """
    phi, theta, p = _directions(np.asarray(particles.momentum, np.float64))
    x, y, z = np.asarray(particles.vertex, np.float64).T
    kappa = -np.asarray(particles.charge, np.float64) * b_z / (p * np.sin(theta))  # [rad / mm of transverse path]
    along, across = x * np.cos(phi) + y * np.sin(phi), y * np.cos(phi) - x * np.sin(phi)
    # r . d is proportional to along cos(turn) + (across + 1 / kappa) sin(turn)
    turn = np.arctan2(-kappa * along, 1.0 + kappa * across)
    is_curved = np.abs(kappa) > np.finfo(np.float64).tiny
    s = np.where(is_curved, turn / np.where(is_curved, kappa, 1.0), -along)
    chord = s * np.sinc(0.5 * turn / math.pi)
    x, y = x + chord * np.cos(phi + 0.5 * turn), y + chord * np.sin(phi + 0.5 * turn)
    phi = np.remainder(phi + turn + math.pi, _TWO_PI) - math.pi
    d0 = -x * np.sin(phi) + y * np.cos(phi)
    return np.stack([d0, z + s / np.tan(theta), phi, theta, particles.charge / p], axis=1)


def perigee_pulls(result: EventResult, matches: GroupMatches, particles: Particles, b_z: float) -> Pulls:
    """Compare the perigees of matched, successfully fitted tracks with the generated particles.

    Returns
    -------
    Pulls
        In the order d0, z0 [mm], phi, theta [rad], q/p [e/GeV].
    """
    tracks = _good_tracks(result, matches)
    particle = matches.particle_index[tracks]
    values = true_perigee(particles, b_z)[particle]
    residual, pull = _compare(result.tracks.perigee[tracks], result.tracks.perigee_covariance[tracks], values)
    return Pulls(residual, pull, tracks, particle)


class MeasurementPulls(NamedTuple):
    """Residuals and pulls of measurements that come from one particle."""

    residual: np.ndarray  # (n, 2) [mm]
    pull: np.ndarray  # (n, 2)
    measurement_index: np.ndarray  # (n,) int64


def _sigma_for_direction(
    measurements: Measurements, rows: np.ndarray, momentum: np.ndarray, detector: Detector, path_sigmas: np.ndarray
) -> np.ndarray:
    """Return the sigmas (n, 2) of measurements for the direction of their particles, as finding and fit take them."""
    module, size = measurements.module_index[rows], measurements.cluster_size[rows]
    design = detector.design_of_surface[module]
    path = channel_paths(detector, module, momentum)
    found = [
        sigma_of_path(path_sigmas, detector.designs, design, axis, size[:, axis], path[:, axis]) for axis in (0, 1)
    ]
    sigma = np.stack(found, axis=1)
    return np.where(sigma > 0, sigma, np.sqrt(measurements.local_variance[rows]))


def measurement_pulls(
    result: EventResult,
    truth: MeasurementTruth,
    simulated: SimulatedHits,
    detector: Detector,
    clusterization: ClusterizationConfig,
) -> MeasurementPulls:
    """Compare measurements that come from a single particle with the true positions of its hit.

    Parameters
    ----------
    result : EventResult
        Measurements.
    truth : MeasurementTruth
        Particles and hits behind them.
    simulated : SimulatedHits
        Hits.
    detector : Detector
        The detector.
    clusterization : ClusterizationConfig
        Where the chain took variances from.

    Returns
    -------
    MeasurementPulls
        Residuals [mm] and pulls; their sigmas are those for the true direction where variances are calibrated.
    """
    single = np.flatnonzero(np.diff(truth.offsets) == 1)
    hit = truth.hit_index[truth.offsets[single]]
    residual = result.measurements.local_position[single].astype(np.float64) - simulated.local_position[hit]
    sigma = np.sqrt(result.measurements.local_variance[single])
    if clusterization.variance == "calibrated":
        arrays = detector.arrays()
        table = with_pixel_floor(arrays.path_sigmas, arrays.designs, clusterization.pixel_sigma_floor)
        sigma = _sigma_for_direction(result.measurements, single, simulated.hits.momentum[hit], detector, table)
    return MeasurementPulls(residual, residual / sigma, single)


@dataclass(frozen=True, slots=True)
class GaussianFit:
    """A Gaussian fitted to the core of a sample, and the sample's moments beside it."""

    n: int
    mean: float
    sigma: float
    mean_error: float
    sigma_error: float
    sample_mean: float
    rms: float  # about the sample mean, of all values
    outside: float  # fraction of values that were not fitted

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Return mean and variance of a standard Gaussian cut to [low, high]."""

    def density(x: float) -> float:
        return math.exp(-0.5 * x * x) / math.sqrt(_TWO_PI)

    mass = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0)))
    mean = (density(low) - density(high)) / mass
    return mean, 1.0 + (low * density(low) - high * density(high)) / mass - mean * mean


def fit_gaussian(values: np.ndarray, limit: float = _TRUNCATION) -> GaussianFit:
    """Fit a Gaussian to the values within +-`limit`, by maximum likelihood with the truncation taken into account.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Sample; values that are not finite count as outside.
    limit : float, optional
        Truncation.

    Returns
    -------
    GaussianFit
        Mean and sigma; NaN if fewer than ten values are within the limit.

    Notes
    -----
    For a truncated Gaussian the likelihood is largest where its mean and variance equal those of the sample; they are
    found by fixed-point iteration.
    """
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    core = finite[np.abs(finite) < limit]
    n = len(values)
    sample_mean, rms = (float(finite.mean()), float(finite.std())) if len(finite) else (math.nan, math.nan)
    outside = 1.0 - len(core) / n if n else math.nan
    if len(core) < _MIN_SAMPLE:
        return GaussianFit(n, math.nan, math.nan, math.nan, math.nan, sample_mean, rms, outside)
    core_mean, core_variance = float(core.mean()), float(core.var())
    mean, sigma = core_mean, math.sqrt(core_variance)
    for _ in range(_MAX_ITERATIONS):
        shift, shrink = _truncated_moments((-limit - mean) / sigma, (limit - mean) / sigma)
        new_sigma = min(math.sqrt(core_variance / shrink), limit)  # a flat sample has no finite sigma
        new_mean = core_mean - new_sigma * shift
        is_done = abs(new_mean - mean) + abs(new_sigma - sigma) < _TOLERANCE
        mean, sigma = new_mean, new_sigma
        if is_done:
            break
    root = math.sqrt(len(core))
    return GaussianFit(n, mean, sigma, sigma / root, sigma / root / math.sqrt(2.0), sample_mean, rms, outside)


def summarise_p_values(pval: np.ndarray, n_bins: int = 20) -> dict[str, Any]:
    """Return number, mean, its error and the histogram of p-values over [0, 1]."""
    values = np.asarray(pval, np.float64)
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, bins=n_bins, range=(0.0, 1.0))
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    error = float(values.std() / math.sqrt(n)) if n else math.nan
    return {"n": n, "mean": mean, "mean_error": error, "counts": counts.tolist(), "edges": edges.tolist()}


def summarise_pulls(pulls: Pulls, names: tuple[str, ...]) -> dict[str, GaussianFit]:
    """Return the Gaussian fit of each parameter's pulls by name."""
    return {name: fit_gaussian(pulls.pull[:, k]) for k, name in enumerate(names)}
