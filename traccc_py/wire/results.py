"""The result of an event as tensors: packing on the side of the server."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np

from traccc_py.edm import N_COVARIANCE, STAGES, Column, EventResult, FitOutcome, unpack_covariance
from traccc_py.wire.tensors import MEASUREMENTS, OUTPUTS, SEPARATOR, TRACK_TENSORS, TensorSpec, track_columns

__all__ = ["kept_tracks", "pack_result"]

_MIN_STATES = 3  # shorter tracks are not sent
_LARGEST_COVARIANCE = 1e8  # elements beyond it, and NaN, are sent as 0
_ELEMENTS = unpack_covariance(np.arange(N_COVARIANCE)[np.newaxis]).ravel()  # packed, of a full matrix


def kept_tracks(result: EventResult) -> np.ndarray:
    """Return which tracks are sent: fitted with success, ndf >= 0, at least three states.

    Returns
    -------
    ndarray of shape (n_tracks,), bool
        True for those sent.
    """
    tracks = result.tracks
    n_states = np.diff(tracks.state_offsets)
    return (tracks.fit_outcome == FitOutcome.SUCCESS) & (tracks.ndf >= 0) & (n_states >= _MIN_STATES)


class _Packer:
    """Makes output tensors of one event; what is not asked for costs nothing."""

    def __init__(self, result: EventResult, is_kept: np.ndarray) -> None:
        self._result, self._is_kept = result, is_kept
        # Mostly all are kept, and nothing need be copied. Else rows, not masks: taking rows is several times as fast.
        self._tracks = slice(None) if is_kept.all() else np.flatnonzero(is_kept)

    @cached_property
    def _states(self) -> slice | np.ndarray:
        if isinstance(self._tracks, slice):
            return self._tracks
        lengths = np.diff(self._result.tracks.state_offsets)
        return np.flatnonzero(np.repeat(self._is_kept, lengths))

    def tensor(self, spec: TensorSpec) -> np.ndarray:
        """Return a tensor of `OUTPUTS`."""
        if spec.name not in TRACK_TENSORS:
            return getattr(self, spec.name.lower())()
        columns = [self._track_column(column) for column in track_columns(spec.name)]
        if len(columns) == 1:
            return columns[0].reshape(-1, len(spec.columns)).astype(spec.dtype, copy=False)
        return np.column_stack(columns).astype(spec.dtype, copy=False)

    def _track_column(self, column: Column) -> np.ndarray:
        values = _rows(getattr(self._result.tracks, column.name), self._tracks)
        return _without_impossible(values) if "covariance" in column.name else values

    def measurements(self) -> np.ndarray:
        states, source = self._result.track_states, self._result.measurements
        link = states.measurement_index[self._states]
        out = np.empty((len(link), len(MEASUREMENTS.columns)), np.float32)
        out[:, :2] = np.take(source.local_position, link, axis=0)
        out[:, 2:5] = _rows(states.params, self._states)[:, 2:]
        tracks = self._result.tracks
        out[:, 5] = np.repeat(tracks.time, np.diff(tracks.state_offsets))[self._states]  # nothing fits or moves it
        return out

    def covariances(self) -> np.ndarray:
        packed = _without_impossible(_rows(self._result.track_states.covariance, self._states))
        return np.take(packed, _ELEMENTS, axis=1)

    def geometry_ids(self) -> np.ndarray:
        ids = self._result.track_states.geometry_id[self._states]
        lengths = np.diff(self._result.tracks.state_offsets)[self._tracks]
        n_tracks = len(lengths)
        out = np.full(len(ids) + max(0, n_tracks - 1), SEPARATOR, np.int64)
        out[np.arange(len(ids)) + np.repeat(np.arange(n_tracks), lengths)] = ids.astype(np.uint64).view(np.int64)
        return out

    def stage_times(self) -> np.ndarray:
        times = self._result.stage_milliseconds
        return np.array([times.get(name, 0.0) for name in STAGES], np.float32)


def _rows(values: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
    return values[rows] if isinstance(rows, slice) else np.take(values, rows, axis=0)


def _without_impossible(covariance: np.ndarray) -> np.ndarray:
    # NaN compares False, so it becomes 0 as well. Two numbers tell that there is nothing to do, as nearly always.
    if covariance.size and not -_LARGEST_COVARIANCE <= covariance.min() <= covariance.max() <= _LARGEST_COVARIANCE:
        covariance = np.where(np.abs(covariance) <= _LARGEST_COVARIANCE, covariance, np.float32(0))
    return covariance.astype(np.float32, copy=False)


def pack_result(
    result: EventResult, names: Collection[str] | None = None, is_kept: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the output tensors of an event.

    Parameters
    ----------
    result : EventResult
        What the chain made of it.
    names : collection of str, optional
        Tensors wanted; by default all of `OUTPUTS`.
    is_kept : ndarray of shape (n_tracks,), bool, optional
        What `kept_tracks` returned, where it was called already.

    Returns
    -------
    dict of str to ndarray
        Contiguous arrays by name, some of them views of the result. Tracks that `kept_tracks` leaves out appear in
        none of them.
    """
    packer = _Packer(result, kept_tracks(result) if is_kept is None else is_kept)
    wanted = [spec for spec in OUTPUTS if names is None or spec.name in names]
    return {spec.name: np.ascontiguousarray(packer.tensor(spec)) for spec in wanted}
