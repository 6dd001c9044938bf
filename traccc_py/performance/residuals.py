"""Residuals (fit - truth) and pulls (residual / fitted sigma) of tracks, at the first state and at the perigee."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from traccc_py.data.truth import Particles
from traccc_py.edm import N_PARAMETERS, PHI, QOP, THETA, Measurements, unpack_covariance
from traccc_py.performance.frames import SurfaceFrames
from traccc_py.performance.matching import Matches
from traccc_py.performance.tracks import TrackSet
from traccc_py.performance.truth import EventTruth, MeasurementTruth, csr_expand

__all__ = [
    "FIRST_STATE_NAMES",
    "PERIGEE_NAMES",
    "MeasurementResiduals",
    "Residuals",
    "concatenate_residuals",
    "first_state_residuals",
    "kinematics",
    "measurement_residuals",
    "perigee_residuals",
    "true_perigee",
]

FIRST_STATE_NAMES = ("loc0", "loc1", "phi", "theta", "qop", "qop_t", "qop_z")
PERIGEE_NAMES = ("d0", "z0", "phi", "theta", "qop", "qop_t", "qop_z")
_N_NAMES = len(FIRST_STATE_NAMES)
_N_DERIVED = _N_NAMES - N_PARAMETERS
_TWO_PI = 2.0 * math.pi


class Residuals(NamedTuple):
    """Residuals and pulls, one row a track; NaN where truth or variance is not known."""

    residual: np.ndarray  # (n, 7)
    pull: np.ndarray  # (n, 7)
    track_index: np.ndarray  # (n,) int64, row of the track in its event
    particle_index: np.ndarray  # (n,) int64, row of the particle in its event
    eta: np.ndarray  # (n,) of the particle at its vertex
    phi: np.ndarray  # (n,) [rad]
    pt: np.ndarray  # (n,) [GeV]


def concatenate_residuals(pieces: list[Residuals]) -> Residuals:
    """Return the residuals of several events in one collection; indices remain those of their events."""
    if not pieces:
        none, table = np.zeros(0), np.zeros((0, _N_NAMES))
        return Residuals(table, table, none.astype(np.int64), none.astype(np.int64), none, none, none)
    return Residuals(*(np.concatenate([getattr(p, name) for p in pieces]) for name in Residuals._fields))


def _directions(momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phi, theta [rad] and the momentum's magnitude [GeV]."""
    transverse = np.hypot(momentum[:, 0], momentum[:, 1])
    phi = np.arctan2(momentum[:, 1], momentum[:, 0])
    return phi, np.arctan2(transverse, momentum[:, 2]), np.hypot(transverse, momentum[:, 2])


def kinematics(momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eta, phi [rad] and pT [GeV] of momenta, (n, 3) [GeV]."""
    momentum = np.asarray(momentum, np.float64)
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arcsinh(momentum[:, 2] / pt), np.arctan2(momentum[:, 1], momentum[:, 0]), pt


def _with_derived(values: np.ndarray) -> np.ndarray:
    """Return parameters, (n, 5), with q/pT = q/p / sin(theta) and q/pz = q/p / cos(theta) added."""
    with np.errstate(divide="ignore", invalid="ignore"):
        qop, theta = values[:, QOP], values[:, THETA]
        return np.column_stack([values, qop / np.sin(theta), qop / np.cos(theta)])


def _derived_variances(values: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the variances of q/pT and q/pz, (n, 2), of full covariances (n, 5, 5)."""
    theta, qop = values[:, THETA], values[:, QOP]
    sin, cos = np.sin(theta), np.cos(theta)
    variance = np.empty((len(values), _N_DERIVED))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, (by_theta, by_qop) in enumerate(((-qop * cos / sin**2, 1 / sin), (qop * sin / cos**2, 1 / cos))):
            variance[:, k] = (
                by_theta**2 * covariance[:, THETA, THETA]
                + 2 * by_theta * by_qop * covariance[:, THETA, QOP]
                + by_qop**2 * covariance[:, QOP, QOP]
            )
    return variance


def _compare(fitted: np.ndarray, packed: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fitted, covariance = fitted.astype(np.float64), unpack_covariance(packed.astype(np.float64))
    residual = _with_derived(fitted) - _with_derived(truth)
    residual[:, PHI] = np.remainder(residual[:, PHI] + math.pi, _TWO_PI) - math.pi
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return residual, residual / np.sqrt(np.column_stack([variances, _derived_variances(fitted, covariance)]))


def _residuals(
    tracks: TrackSet, rows: np.ndarray, particle: np.ndarray, truth: np.ndarray, event: EventTruth, *, at_perigee: bool
) -> Residuals:
    fitted = tracks.perigee if at_perigee else tracks.params
    packed = tracks.perigee_covariance if at_perigee else tracks.covariance
    residual, pull = _compare(fitted[rows], packed[rows], truth)
    return Residuals(residual, pull, rows, particle, *kinematics(event.particles.momentum[particle]))


def _hit_in_measurement(links: MeasurementTruth, measurement: np.ndarray, particle: np.ndarray) -> np.ndarray:
    """Return the hit of each row's particle in its measurement, or -1."""
    hit = np.full(len(measurement), -1)
    rows = np.flatnonzero(measurement >= 0)
    places, owner = csr_expand(links.offsets, measurement[rows])
    is_own = links.particle_index[places] == particle[rows[owner]]
    hit[rows[owner[is_own]]] = links.hit_index[places[is_own]]
    return hit


def first_state_residuals(
    tracks: TrackSet,
    matches: Matches,
    links: MeasurementTruth,
    event: EventTruth,
    frames: SurfaceFrames | None,
    *,
    outgoing: bool = True,
) -> Residuals:
    """Compare the first states of matched, successfully fitted tracks with their particles' hits on that surface.

    Parameters
    ----------
    tracks : TrackSet
        Tracks.
    matches : Matches
        Their particles (`match_tracks`).
    links : MeasurementTruth
        Particles and hits behind the measurements.
    event : EventTruth
        Particles and hits.
    frames : SurfaceFrames or None
        Frames of the surfaces; loc0 and loc1 have no residuals on surfaces that are not known.
    outgoing : bool, optional
        Compare with the momentum after the surface's material, else before it.

    Returns
    -------
    Residuals
        In the order of FIRST_STATE_NAMES [mm, rad, e/GeV]; tracks whose first measurement is not their particle's, or
        whose particle stopped there, are excluded.
    """
    rows = np.flatnonzero(matches.is_matched & tracks.is_fitted & (np.diff(tracks.offsets) > 0))
    particle = matches.particle_index[rows]
    hit = _hit_in_measurement(links, tracks.measurement_index[tracks.offsets[rows]], particle)
    rows, particle, hit = (column[hit >= 0] for column in (rows, particle, hit))
    phi, theta, p = _directions(event.momentum_at_hits(outgoing=outgoing)[hit])
    moves = p > 0
    rows, particle, hit = rows[moves], particle[moves], hit[moves]
    local = np.full((len(rows), 2), np.nan)
    if frames is not None:
        local = frames.local_positions(tracks.geometry_id[rows], event.hits.position[hit])
    charge = event.particles.charge[particle]
    truth = np.column_stack([local, phi[moves], theta[moves], charge / p[moves]])
    return _residuals(tracks, rows, particle, truth, event, at_perigee=False)


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


def perigee_residuals(tracks: TrackSet, matches: Matches, event: EventTruth, b_z: float) -> Residuals:
    """Compare the perigees of matched, successfully fitted tracks with the generated particles.

    Parameters
    ----------
    tracks : TrackSet
        Tracks; those without perigee are left out.
    matches : Matches
        Their particles.
    event : EventTruth
        Particles.
    b_z : float
        Field along z [GeV / (e mm)].

    Returns
    -------
    Residuals
        In the order of PERIGEE_NAMES [mm, rad, e/GeV].
    """
    rows = np.flatnonzero(matches.is_matched & tracks.is_fitted & np.isfinite(tracks.perigee).all(axis=1))
    particle = matches.particle_index[rows]
    truth = true_perigee(event.particles, b_z)[particle]
    return _residuals(tracks, rows, particle, truth, event, at_perigee=True)


class MeasurementResiduals(NamedTuple):
    """Residuals of measurements that come from one particle."""

    residual: np.ndarray  # (n, 2) [mm]
    measurement_index: np.ndarray  # (n,) int64
    hit_index: np.ndarray  # (n,) int64


def measurement_residuals(
    measurements: Measurements, links: MeasurementTruth, event: EventTruth, frames: SurfaceFrames
) -> MeasurementResiduals:
    """Compare measurements that come from a single particle with the true positions of its hit."""
    single = np.flatnonzero(np.diff(links.offsets) == 1)
    hit = links.hit_index[links.offsets[single]]
    truth = frames.local_positions(measurements.geometry_id[single], event.hits.position[hit])
    return MeasurementResiduals(measurements.local_position[single].astype(np.float64) - truth, single, hit)
