"""The event data model: collections of columns, NumPy or CuPy arrays of one length.

Field names follow traccc's event data model (v1.6.0). Units: mm, GeV, e, rad, ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

__all__ = [
    "LOC0",
    "LOC1",
    "N_COVARIANCE",
    "N_PARAMETERS",
    "PHI",
    "QOP",
    "THETA",
    "Cells",
    "EventResult",
    "FitOutcome",
    "Measurements",
    "ModuleCells",
    "Seeds",
    "Spacepoints",
    "TrackStates",
    "Tracks",
    "packed_index",
    "unpack_covariance",
]

# Components of bound track parameters.
LOC0, LOC1, PHI, THETA, QOP = range(5)
N_PARAMETERS = 5
N_COVARIANCE = 15  #: stored elements of a symmetric 5 x 5 matrix: the lower triangle, row by row


def packed_index(row: int, column: int) -> int:
    """Return where element (row, column) of a symmetric matrix stands among its stored elements."""
    low, high = sorted((row, column))
    return high * (high + 1) // 2 + low


def unpack_covariance(packed: np.ndarray) -> np.ndarray:
    """Return full covariance matrices.

    Parameters
    ----------
    packed : ndarray of shape (n, 15)
        Lower triangles, row by row.

    Returns
    -------
    ndarray of shape (n, 5, 5)
        Symmetric matrices.
    """
    index = [[packed_index(r, c) for c in range(N_PARAMETERS)] for r in range(N_PARAMETERS)]
    return packed[:, np.array(index)]


class FitOutcome(IntEnum):
    """How a track fit ended (numbers as in traccc)."""

    UNKNOWN = 0
    SUCCESS = 1
    NON_POSITIVE_NDF = 2
    NOT_ALL_FITTED = 3
    NOT_ALL_SMOOTHED = 4
    FITTER = 5
    SMOOTHER = 6
    FORWARD_PROPAGATION = 7
    BACKWARD_PROPAGATION = 8


class _Collection:
    """Columns of one length."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """Return name, number of rows and columns; the columns themselves would fill screens."""
        columns = ", ".join(f.name for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({len(self)} rows of {columns})"


@dataclass(slots=True, repr=False)
class Cells(_Collection):
    """Fired channels of one event, rows in any order."""

    geometry_id: np.ndarray  # (n,) uint64, Acts geometry identifier of the module
    channel0: np.ndarray  # (n,) integers, best int32 as from files
    channel1: np.ndarray  # (n,)
    activation: np.ndarray  # (n,) float32
    time: np.ndarray  # (n,) float32 [ns]
    measurement_id: np.ndarray  # (n,) int64, truth link, not used by the reconstruction


@dataclass(slots=True, repr=False)
class ModuleCells(_Collection):
    """Fired channels of one event, module by module: what readouts and the compact tensor of the service give.

    Results are those of the same rows as `Cells`; it takes less memory and less time to prepare.
    """

    geometry_id: np.ndarray  # (n_modules,) uint64, Acts geometry identifiers; a module may stand there several times
    n_cells: np.ndarray  # (n_modules,) integers, how many of the next rows below are on this module
    channel0: np.ndarray  # (n,) integers
    channel1: np.ndarray  # (n,) integers
    activation: np.ndarray  # (n,) float32
    time: np.ndarray  # (n,) float32 [ns]

    def __len__(self) -> int:
        return len(self.channel0)


@dataclass(slots=True, repr=False)
class Measurements(_Collection):
    """Positions on surfaces, ordered by module."""

    geometry_id: np.ndarray  # (n,) uint64
    local_position: np.ndarray  # (n, 2) float32 [mm]
    local_variance: np.ndarray  # (n, 2) float32 [mm^2]
    dimensions: np.ndarray  # (n,) int32, 1 (loc0 only) or 2
    time: np.ndarray  # (n,) float32 [ns]
    module_index: np.ndarray  # (n,) int32, index of the surface
    cluster_size: np.ndarray  # (n, 2) int32, channels along each axis; 0 where there was no cluster
    n_cells: np.ndarray  # (n,) int32
    measurement_id: np.ndarray  # (n,) int64: the input's id, or the row
    cell_offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # (n + 1,) into cell_indices
    cell_indices: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # rows of the input cells


@dataclass(slots=True, repr=False)
class Spacepoints(_Collection):
    """Global positions of two-dimensional measurements."""

    global_position: np.ndarray  # (n, 3) float32 [mm]
    measurement_index: np.ndarray  # (n,) int32


@dataclass(slots=True, repr=False)
class Seeds(_Collection):
    """Accepted triplets."""

    bottom_index: np.ndarray  # (n,) int32, spacepoint
    middle_index: np.ndarray  # (n,) int32
    top_index: np.ndarray  # (n,) int32
    quality: np.ndarray  # (n,) float32, final triplet weight


@dataclass(slots=True, repr=False)
class Tracks(_Collection):
    """Fitted tracks. Parameters are those of the first state: after that surface's material, seen outgoing."""

    fit_outcome: np.ndarray  # (n,) int32, FitOutcome
    geometry_id: np.ndarray  # (n,) uint64, surface of the first state
    params: np.ndarray  # (n, 5) float32: loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV]
    covariance: np.ndarray  # (n, 15) float32, packed
    time: np.ndarray  # (n,) float32 [ns]
    chi2: np.ndarray  # (n,) float32
    ndf: np.ndarray  # (n,) float32
    pval: np.ndarray  # (n,) float32
    n_measurements: np.ndarray  # (n,) int32
    n_holes: np.ndarray  # (n,) int32
    perigee: np.ndarray  # (n, 5) float32: d0, z0 [mm], phi, theta [rad], q/p [e/GeV] at the beam line
    perigee_covariance: np.ndarray  # (n, 15) float32, packed
    state_offsets: np.ndarray  # (n + 1,) int64, first state of each track


@dataclass(slots=True, repr=False)
class TrackStates(_Collection):
    """Smoothed parameters on the surfaces of tracks, in order along each track."""

    measurement_index: np.ndarray  # (n,) int32
    geometry_id: np.ndarray  # (n,) uint64
    params: np.ndarray  # (n, 5) float32, smoothed
    covariance: np.ndarray  # (n, 15) float32, smoothed, packed
    chi2: np.ndarray  # (n,) float32, of the smoothed state against its measurement


@dataclass(slots=True, repr=False)
class EventResult:
    """What the chain makes of one event."""

    measurements: Measurements
    spacepoints: Spacepoints
    seeds: Seeds
    tracks: Tracks
    track_states: TrackStates
    n_cells: int
    n_candidates: int  # track candidates before ambiguity resolution
    stage_milliseconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the counts and the time; the arrays would fill screens."""
        counts = ", ".join(f"{name}={n}" for name, n in self.counts().items())
        return f"EventResult({counts}, {sum(self.stage_milliseconds.values()):.1f} ms)"

    def counts(self) -> dict[str, Any]:
        """Return the number of objects after each stage."""
        return {
            "n_cells": self.n_cells,
            "n_measurements": len(self.measurements),
            "n_spacepoints": len(self.spacepoints),
            "n_seeds": len(self.seeds),
            "n_candidates": self.n_candidates,
            "n_tracks": len(self.tracks),
        }
