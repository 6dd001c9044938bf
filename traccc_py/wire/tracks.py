"""Tracks from tensors: unpacking on the side of the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from traccc_py.errors import WireError
from traccc_py.wire.tensors import (
    COVARIANCES,
    GEOMETRY_IDS,
    MEASUREMENTS,
    SEPARATOR,
    STAGE_NAMES,
    STAGE_TIMES,
    TRK_COVARIANCES,
    TRK_PARAMS,
    TRK_PERIGEE,
    TRK_SUMMARY,
    received,
)

__all__ = ["ServedTracks", "unpack_tracks"]


@dataclass(slots=True)
class ServedTracks:
    """The tracks of one event as the service sends them; None for what was not asked for.

    The library's `Tracks` and `TrackStates` hold more than the wire carries: the smoothed local position of states,
    p-values and all tracks whose fit failed stay on the server.
    """

    params: np.ndarray  # (n, 5) float32: loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV] at the first state
    time: np.ndarray  # (n,) float32 [ns]
    chi2: np.ndarray  # (n,) float32
    ndf: np.ndarray  # (n,) float32
    state_offsets: np.ndarray | None = None  # (n + 1,) int64, first state of each track
    state_geometry_id: np.ndarray | None = None  # (n_states,) uint64
    state_local_position: np.ndarray | None = None  # (n_states, 2) float32, measured [mm]
    state_direction: np.ndarray | None = None  # (n_states, 3) float32, smoothed phi, theta [rad], q/p [e/GeV]
    state_time: np.ndarray | None = None  # (n_states,) float32, measured [ns]
    state_covariance: np.ndarray | None = None  # (n_states, 5, 5) float32, smoothed
    perigee: np.ndarray | None = None  # (n, 5) float32: d0, z0 [mm], phi, theta [rad], q/p [e/GeV]
    covariance: np.ndarray | None = None  # (n, 15) float32, of `params`, packed
    n_measurements: np.ndarray | None = None  # (n,) int32
    n_holes: np.ndarray | None = None  # (n,) int32
    stage_milliseconds: dict[str, float] | None = None  # of the batch, divided by its number of events

    def __len__(self) -> int:
        return len(self.chi2)

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays that are there, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: values for name, values in found.items() if isinstance(values, np.ndarray)}


def unpack_tracks(tensors: Mapping[str, np.ndarray]) -> ServedTracks:
    """Return the tracks in output tensors.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Tensors by name: TRK_PARAMS, and any others of `OUTPUTS`.

    Returns
    -------
    ServedTracks
        What came.

    Raises
    ------
    WireError
        If TRK_PARAMS is missing, a tensor has the wrong type or shape, or they contradict each other.
    """
    params = received(tensors, TRK_PARAMS)
    tracks = ServedTracks(params=params[:, 2:7], time=params[:, 7], chi2=params[:, 0], ndf=params[:, 1])
    if GEOMETRY_IDS.name in tensors:
        _unpack_ids(tracks, received(tensors, GEOMETRY_IDS))
    if MEASUREMENTS.name in tensors:
        rows = received(tensors, MEASUREMENTS)
        tracks.state_local_position, tracks.state_direction, tracks.state_time = rows[:, :2], rows[:, 2:5], rows[:, 5]
    if COVARIANCES.name in tensors:
        tracks.state_covariance = received(tensors, COVARIANCES).reshape(-1, 5, 5)
    if TRK_PERIGEE.name in tensors:
        tracks.perigee = received(tensors, TRK_PERIGEE)
    if TRK_COVARIANCES.name in tensors:
        tracks.covariance = received(tensors, TRK_COVARIANCES)
    if TRK_SUMMARY.name in tensors:
        tracks.n_measurements, tracks.n_holes = received(tensors, TRK_SUMMARY).T
    if STAGE_TIMES.name in tensors:
        times = received(tensors, STAGE_TIMES)
        tracks.stage_milliseconds = {name: float(t) for name, t in zip(STAGE_NAMES, times, strict=False)}
    _check_lengths(tracks)
    return tracks


def _unpack_ids(tracks: ServedTracks, ids: np.ndarray) -> None:
    is_state = ids != SEPARATOR
    ends = np.concatenate((np.cumsum(is_state)[~is_state], [np.count_nonzero(is_state)]))
    n_found = len(ends) if len(ids) else 0
    if n_found != len(tracks):
        msg = f"GEOMETRY_IDS has {n_found} tracks, TRK_PARAMS has {len(tracks)} rows; expected the same number"
        raise WireError(msg)
    tracks.state_offsets = np.concatenate(([0], ends[:n_found])).astype(np.int64)
    tracks.state_geometry_id = ids[is_state].view(np.uint64)


def _check_lengths(tracks: ServedTracks) -> None:
    columns = tracks.columns()
    of_states = {name: len(a) for name, a in columns.items() if name.startswith("state_") and name != "state_offsets"}
    if len(set(of_states.values())) > 1:
        msg = f"the tensors of track states differ in length: {of_states}"
        raise WireError(msg)
    of_tracks = {name: len(a) for name, a in columns.items() if not name.startswith("state_")}
    if len(set(of_tracks.values())) > 1:
        msg = f"the tensors of tracks differ in length: {of_tracks}"
        raise WireError(msg)
