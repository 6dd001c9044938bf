"""Tracks and seeds for the performance code, from any source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from traccc_py.edm import N_COVARIANCE, N_PARAMETERS, PHI, QOP, THETA, EventResult, FitOutcome, Tracks, columns_of
from traccc_py.performance.truth import MeasurementTruth

__all__ = ["EventTracks", "TrackSet", "seeds_of_result", "tracks_of_result"]

SEED_SIZE = 3


@dataclass(slots=True)
class TrackSet:
    """Tracks or seeds: lists of measurements, and fitted parameters where there are any (else NaN)."""

    offsets: np.ndarray  # (n + 1,) int64, first measurement of each track
    measurement_index: np.ndarray  # (offsets[-1],) int64, rows of the measurements; negative: hole
    geometry_id: np.ndarray  # (n,) uint64, surface of the first state
    params: np.ndarray  # (n, 5) float64 at the first state: loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV]
    covariance: np.ndarray  # (n, 15) float64, packed
    perigee: np.ndarray  # (n, 5) float64: d0, z0 [mm], phi, theta [rad], q/p [e/GeV]
    perigee_covariance: np.ndarray  # (n, 15) float64, packed
    fit_outcome: np.ndarray  # (n,) int64, FitOutcome; UNKNOWN: not fitted
    chi2: np.ndarray  # (n,) float64
    ndf: np.ndarray  # (n,) float64
    pval: np.ndarray  # (n,) float64
    n_holes: np.ndarray  # (n,) float64

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.offsets) - 1

    @classmethod
    def without_fit(cls, offsets: np.ndarray, measurement_index: np.ndarray) -> TrackSet:
        """Return tracks with measurements only."""
        n = len(offsets) - 1

        def unknown(*shape: int) -> np.ndarray:
            return np.full((n, *shape), np.nan)

        return cls(
            offsets=np.asarray(offsets, np.int64),
            measurement_index=np.asarray(measurement_index, np.int64),
            geometry_id=np.zeros(n, np.uint64),
            params=unknown(N_PARAMETERS),
            covariance=unknown(N_COVARIANCE),
            perigee=unknown(N_PARAMETERS),
            perigee_covariance=unknown(N_COVARIANCE),
            fit_outcome=np.full(n, FitOutcome.UNKNOWN, np.int64),
            chi2=unknown(),
            ndf=unknown(),
            pval=unknown(),
            n_holes=unknown(),
        )

    def fill(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take those of the columns of `edm.Tracks` that are kept here, in their types here."""
        for name in _FITTED & columns.keys():
            setattr(self, name, np.asarray(columns[name], getattr(self, name).dtype))

    @property
    def is_fitted(self) -> np.ndarray:
        """Whether the fit of each track succeeded, (n,) bool."""
        return self.fit_outcome == FitOutcome.SUCCESS

    @property
    def n_measurements(self) -> np.ndarray:
        """Measurements on each track, (n,) int64; holes don't count."""
        used = np.concatenate(([0], np.cumsum(self.measurement_index >= 0)))
        return np.diff(used[self.offsets])

    def kinematics(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return eta, phi [rad] and pT [GeV] of the tracks, NaN where not known."""
        params = np.where(np.isfinite(self.perigee[:, [QOP]]), self.perigee, self.params)
        with np.errstate(divide="ignore", invalid="ignore"):
            eta = -np.log(np.tan(0.5 * params[:, THETA]))
            return eta, params[:, PHI], np.abs(np.sin(params[:, THETA]) / params[:, QOP])

    def select(self, rows: np.ndarray) -> TrackSet:
        """Return the tracks where `rows`, (n,) bool, is true."""
        member = np.repeat(rows, np.diff(self.offsets))
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[rows])))
        columns = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name not in _LISTS}
        return TrackSet(offsets=offsets, measurement_index=self.measurement_index[member], **columns)


_LISTS = ("offsets", "measurement_index")
_FITTED = {f.name for f in fields(TrackSet)} - {*_LISTS}


class EventTracks(NamedTuple):
    """Tracks and seeds of one event, with the truth of its measurements."""

    links: MeasurementTruth
    tracks: TrackSet | None
    seeds: TrackSet | None


def tracks_of_result(result: EventResult) -> TrackSet:
    """Return the fitted tracks of an event in memory."""
    tracks = result.tracks
    made = TrackSet.without_fit(tracks.state_offsets, result.track_states.measurement_index)
    made.fill({name: getattr(tracks, name) for name in columns_of(Tracks)})
    return made


def seeds_of_result(result: EventResult) -> TrackSet:
    """Return the seeds of an event in memory."""
    seeds, spacepoints = result.seeds, result.spacepoints
    triplets = np.stack([seeds.bottom_index, seeds.middle_index, seeds.top_index], axis=1)
    measurement = spacepoints.measurement_index[triplets].ravel()
    return TrackSet.without_fit(np.arange(0, len(measurement) + 1, SEED_SIZE), measurement)
