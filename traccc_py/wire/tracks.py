"""Tracks from tensors: unpacking on the side of the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from traccc_py.edm import STAGES, Tracks, columns_of
from traccc_py.errors import WireError
from traccc_py.wire.tensors import (
    COVARIANCES,
    GEOMETRY_IDS,
    MEASUREMENTS,
    SEPARATOR,
    STAGE_TIMES,
    TRACK_TENSORS,
    TRK_PARAMS,
    received,
    track_columns,
)

__all__ = ["ServedTracks", "unpack_tracks"]


@dataclass(slots=True, repr=False)
class ServedTracks(Tracks):
    """The tracks of one event as the service sends them; None for what was not asked for, and for what it never sends.

    It has the columns of `Tracks`, and of the states those that are sent. The library's `Tracks` and `TrackStates` hold
    more than the wire carries: the smoothed local position of states, p-values and all tracks whose fit failed stay on
    the server.
    """

    _LISTS: ClassVar = {
        "state_offsets": (
            "state_geometry_id",
            "state_local_position",
            "state_direction",
            "state_time",
            "state_covariance",
        )
    }

    state_geometry_id: np.ndarray | None = None  # (n_states,) uint64
    state_local_position: np.ndarray | None = None  # (n_states, 2) float32, measured [mm]
    state_direction: np.ndarray | None = None  # (n_states, 3) float32, smoothed phi, theta [rad], q/p [e/GeV]
    state_time: np.ndarray | None = None  # (n_states,) float32, that of the track [ns]
    state_covariance: np.ndarray | None = None  # (n_states, 5, 5) float32, smoothed
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
    received(tensors, TRK_PARAMS)
    tracks = ServedTracks(**_track_columns(tensors))
    if GEOMETRY_IDS.name in tensors:
        _unpack_ids(tracks, received(tensors, GEOMETRY_IDS))
    if MEASUREMENTS.name in tensors:
        rows = received(tensors, MEASUREMENTS)
        tracks.state_local_position, tracks.state_direction, tracks.state_time = rows[:, :2], rows[:, 2:5], rows[:, 5]
    if COVARIANCES.name in tensors:
        tracks.state_covariance = received(tensors, COVARIANCES).reshape(-1, 5, 5)
    if STAGE_TIMES.name in tensors:
        times = received(tensors, STAGE_TIMES)
        tracks.stage_milliseconds = {name: float(t) for name, t in zip(STAGES, times, strict=False)}
    _check_lengths(tracks)
    return tracks


def _track_columns(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the columns of tracks by name, None for those that did not come."""
    found: dict[str, Any] = dict.fromkeys(columns_of(Tracks))
    for spec in TRACK_TENSORS.values():
        if spec.name in tensors:
            values, first = received(tensors, spec), 0
            for column in track_columns(spec.name):
                end = first + len(column.numbers)
                found[column.name] = values[:, first:end] if column.components else values[:, first]
                first = end
    return found


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
