"""The collections: columns of one length, NumPy or CuPy arrays, and what an event consists of.

Field names follow traccc's event data model (v1.6.0). Units: mm, GeV, e, rad, ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from traccc_py.edm.collection import Collection, collection
from traccc_py.edm.columns import Component, Csv, column, covariances, packed, variances
from traccc_py.edm.html import fact_table
from traccc_py.edm.kinematics import PerigeeProperties
from traccc_py.edm.parameters import FEWEST_SPACEPOINTS, packed_index

__all__ = [
    "STAGES",
    "Candidates",
    "Cells",
    "EventResult",
    "Measurements",
    "ModuleCells",
    "Seeds",
    "Spacepoints",
    "TrackStates",
    "Tracks",
]

#: Stages of the chain whose times are reported, in order; those of the graph neural network stand last, as clients that
#: are older than it know the others by their places.
STAGES = (
    "preparation",
    "clusterization",
    "spacepoint_formation",
    "seeding",
    "parameter_estimation",
    "finding",
    "ambiguity_resolution",
    "fitting",
    "output",
    "graph",
    "edge_filter",
    "edge_scores",
    "segmentation",
)

CHANNEL_MAX = 2**31 - 1

_PARAMETERS = (
    Component("loc0", "mm", "first local coordinate"),
    Component("loc1", "mm", "second local coordinate"),
    Component("phi", "rad", "azimuth"),
    Component("theta", "rad", "polar angle"),
    Component("qop", "e/GeV", "charge over momentum"),
)
_PERIGEE = (
    Component("d0", "mm", "transverse impact parameter at the beam line"),
    Component("z0", "mm", "z of the perigee"),
    *_PARAMETERS[2:],
)
_LOCAL = (
    Component("local0", "mm", "first local coordinate"),
    Component("local1", "mm", "second local coordinate"),
)


@collection
class Cells(Collection):
    """Fired channels of one event, rows in any order."""

    geometry_id: np.ndarray = column("uint64", "module", csv=Csv())
    channel0: np.ndarray = column(
        "int32", "channel along local axis 0 of the sensor", csv=Csv(minimum=0, maximum=CHANNEL_MAX)
    )
    channel1: np.ndarray = column(
        "int32", "channel along local axis 1; 0 for strips", csv=Csv(minimum=0, maximum=CHANNEL_MAX)
    )
    activation: np.ndarray = column(
        "float32", "activation: charge, or path length in mm, or 1", csv=Csv({"value": 0}, minimum=0)
    )
    time: np.ndarray = column("float32", "time", unit="ns", csv=Csv({"timestamp": 0}, default=0))
    measurement_id: np.ndarray = column(
        "int64",
        "truth: row of the measurement the cell belongs to, -1 for noise; not used by the reconstruction",
        csv=Csv(default=-1),
    )


@collection
class ModuleCells(Collection):
    """Fired channels of one event, module by module: what readouts and the compact tensor of the service give.

    Results are those of the same rows as `Cells`; it takes less memory and less time to prepare.
    """

    geometry_id: np.ndarray = column("uint64", "module; one may stand there several times", rows="n_modules")
    n_cells: np.ndarray = column("int64", "how many of the next cells are on this module", rows="n_modules")
    channel0: np.ndarray = column("int32", "channel along local axis 0")
    channel1: np.ndarray = column("int32", "channel along local axis 1")
    activation: np.ndarray = column("float32", "activation")
    time: np.ndarray = column("float32", "time", unit="ns")

    def __len__(self) -> int:
        return len(self.channel0)


@collection
class Measurements(Collection):
    """Positions on surfaces, ordered by module."""

    _LISTS: ClassVar = {"cell_offsets": ("cell_indices",)}

    geometry_id: np.ndarray = column("uint64", "surface", csv=Csv())
    local_position: np.ndarray = column("float32", "position", components=_LOCAL, csv=Csv())
    local_variance: np.ndarray = column(
        "float32",
        "variances",
        components=tuple(Component(f"var_{c.name}", "mm^2", f"variance of the {c.meaning}") for c in _LOCAL),
        csv=Csv(minimum=0),
    )
    dimensions: np.ndarray = column(
        "int32",
        "measured coordinates: 1 (loc0 only) or 2",
        csv=Csv({"local_key": 0}, is_text=True, meaning="bit mask of what is measured: 6 = loc0 and loc1, 2 = loc0"),
    )
    time: np.ndarray = column("float32", "time", unit="ns", csv=Csv(default=0))
    module_index: np.ndarray = column("int32", "index of the surface in the detector")
    cluster_size: np.ndarray = column(
        "int32",
        "channels along each axis; 0 where there was no cluster",
        components=(Component("size0", "1", "along axis 0"), Component("size1", "1", "along axis 1")),
    )
    n_cells: np.ndarray = column("int32", "cells of the cluster")
    measurement_id: np.ndarray = column(
        "int64", "the input's id where measurements came in, else the row", csv=Csv(minimum=0)
    )
    cell_offsets: np.ndarray = column(
        "int64",
        "first cell of each measurement in cell_indices",
        rows="n + 1",
        default_factory=lambda: np.zeros(1, np.int64),
    )
    cell_indices: np.ndarray = column(
        "int64", "rows of the input cells", rows="n_cells", default_factory=lambda: np.zeros(0, np.int64)
    )


@collection
class Spacepoints(Collection):
    """Global positions of two-dimensional measurements, in their order."""

    global_position: np.ndarray = column(
        "float32",
        "global position",
        components=tuple(Component(axis, "mm", f"global {axis}") for axis in "xyz"),
        csv=Csv(aliases={axis: f"sp_{axis}" for axis in "xyz"}),
    )
    measurement_index: np.ndarray = column("int32", "row of the measurement")


@collection
class Candidates(Collection):
    """Track candidates of any finder: lists of spacepoints of one event, none of them in two lists."""

    _LISTS: ClassVar = {"offsets": ("spacepoint_index",)}

    offsets: np.ndarray = column("int64", "first row of each candidate in spacepoint_index", rows="n + 1")
    spacepoint_index: np.ndarray = column("int64", "rows of the spacepoints, in any order", rows="n_points")

    def __len__(self) -> int:
        return max(len(self.offsets) - 1, 0)

    @classmethod
    def of_labels(cls, labels: np.ndarray) -> Candidates:
        """Return the candidates that labels of spacepoints make.

        Parameters
        ----------
        labels : ndarray of shape (n_spacepoints,), int
            Spacepoints with the same label are one candidate; a negative one is none.

        Returns
        -------
        Candidates
            In the order of the labels. Labels of fewer than three spacepoints make none.
        """
        labels = np.asarray(labels)
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] >= 0]
        first = np.flatnonzero(np.diff(labels[order], prepend=-1))
        size = np.diff(np.append(first, len(order)))
        kept = size >= FEWEST_SPACEPOINTS
        offsets = np.concatenate(([0], np.cumsum(size[kept])))
        return cls(offsets.astype(np.int64), order[np.repeat(kept, size)].astype(np.int64))


@collection
class Seeds(Collection):
    """Accepted triplets, in an order that the event's content fixes."""

    bottom_index: np.ndarray = column("int32", "row of the inner spacepoint")
    middle_index: np.ndarray = column("int32", "row of the middle spacepoint")
    top_index: np.ndarray = column("int32", "row of the outer spacepoint")
    quality: np.ndarray = column("float32", "final triplet weight", csv=Csv())


_FIRST_STATE = tuple(component.name for component in _PARAMETERS)
_AT_PERIGEE = ("d0", "z0", "perigee_phi", "perigee_theta", "perigee_qop")  # in files


@collection
class Tracks(PerigeeProperties, Collection):
    """Fitted tracks, in the order of their seeds; those with the name of a tensor are sent by the service.

    `tracks.csv` has the columns in this order, and so has the client. A column that is added becomes the last, gets a
    tensor of its own and the next version of the outputs (`since`): tensors that clients know never change.

    `tracks[tracks.pt > 1]` are the selected tracks with their states. `pt`, `eta`, `phi`, `charge`, `d0`, `z0` and
    their errors (`pt_error` ...) are those at the perigee, the point closest to the beam line; tables (`to_pandas`)
    begin with them and have the parameters at the first state as `first_loc0` ... `first_qop`.
    """

    _LISTS: ClassVar = {"state_offsets": ("states",)}

    fit_outcome: np.ndarray = column(
        "int32", "1: success; else the reason of the failure (`FitOutcome`)", csv=Csv(minimum=0)
    )
    geometry_id: np.ndarray = column("uint64", "surface of the first state", csv=Csv())
    params: np.ndarray = column(
        "float32",
        "parameters at the first state, after that surface's material, seen outgoing",
        components=_PARAMETERS,
        csv=Csv(allow_nan=True),
        tensor="TRK_PARAMS",
        prefix="first_",
    )
    time: np.ndarray = column(
        "float32", "time of the first measurement", unit="ns", csv=Csv(allow_nan=True), tensor="TRK_PARAMS"
    )
    covariance: np.ndarray = column(
        "float32",
        "covariance matrix of params: its lower triangle, row by row",
        components=packed(_PARAMETERS),
        csv=Csv(variances(_FIRST_STATE), allow_nan=True, meaning="variances of the parameters at the first state"),
        tensor="TRK_COVARIANCES",
        in_tables=False,
    )
    chi2: np.ndarray = column("float32", "chi2 of the fit", csv=Csv(allow_nan=True), tensor="TRK_PARAMS")
    ndf: np.ndarray = column("float32", "degrees of freedom", csv=Csv(), tensor="TRK_PARAMS")
    pval: np.ndarray = column("float32", "p-value of the fit", csv=Csv(allow_nan=True))
    n_measurements: np.ndarray = column(
        "int32", "measurements, which are the states, of the track", csv=Csv(minimum=0), tensor="TRK_SUMMARY"
    )
    n_holes: np.ndarray = column(
        "int32", "surfaces crossed without a measurement", csv=Csv(minimum=0), tensor="TRK_SUMMARY"
    )
    perigee: np.ndarray = column(
        "float32",
        "parameters at the point closest to the beam line (x = y = 0)",
        components=_PERIGEE,
        csv=Csv({name: k for k, name in enumerate(_AT_PERIGEE)}, allow_nan=True),
        tensor="TRK_PERIGEE",
        in_tables=False,
    )
    perigee_covariance: np.ndarray = column(
        "float32",
        "covariance matrix of perigee: its lower triangle, row by row",
        components=packed(_PERIGEE),
        csv=Csv(
            variances(_AT_PERIGEE) | covariances(_AT_PERIGEE),
            allow_nan=True,
            meaning="variances of the parameters at the beam line, then their covariances, which vertex fits need",
        ),
        in_tables=False,
    )
    state_offsets: np.ndarray = column("int64", "first state of each track", rows="n + 1")
    n_shared_measurements: np.ndarray = column(
        "int32",
        "measurements that other tracks of the event hold, too",
        csv=Csv(minimum=0, default=-1),
        tensor="TRK_SHARED",
        since=2,
    )
    n_outliers: np.ndarray = column(
        "int32",
        "measurements that the fit left out, because they are too far from all others",
        csv=Csv(minimum=0, default=-1),
        tensor="TRK_OUTLIERS",
        since=3,
    )
    n_kinks: np.ndarray = column(
        "int32",
        "places where the track changes its direction as by a nuclear interaction",
        csv=Csv(minimum=0, default=-1),
        tensor="TRK_OUTLIERS",
        since=3,
    )
    states: TrackStates | None = field(default=None, compare=False)  # those of the tracks, cut with them

    def table(self) -> dict[str, np.ndarray]:
        """Return the properties at the perigee and the other columns as those of a flat table, by name."""
        perigee: np.ndarray | None = self.perigee  # the service may not have sent it
        at_perigee = {} if perigee is None else self._perigee_table()
        return at_perigee | Collection.table(self)

    def __getitem__(self, rows: Any) -> Self:
        """Return selected tracks with their states, as `Collection.__getitem__`."""
        chosen = Collection.__getitem__(self, rows)
        if chosen.states is not None:
            track = np.repeat(np.arange(len(chosen), dtype=np.int32), np.diff(chosen.state_offsets))
            chosen.states = replace(chosen.states, track_index=track)
        return chosen


_STATE_ERRORS = tuple(f"{component.name}_error" for component in _PARAMETERS)


@collection
class TrackStates(Collection):
    """Smoothed parameters on the surfaces of tracks, in order along each track.

    Tables (`to_pandas`) have the errors of the parameters (`loc0_error` ...), in the place of the covariance matrices.
    """

    track_index: np.ndarray = column("int32", "row of the track")
    measurement_index: np.ndarray = column("int32", "row of the measurement")
    geometry_id: np.ndarray = column("uint64", "surface", csv=Csv())
    params: np.ndarray = column(
        "float32",
        "parameters from all measurements of the track",
        components=_PARAMETERS,
        csv=Csv(
            {"smoothed_loc0": 0, "smoothed_loc1": 1},
            allow_nan=True,
            meaning="position of the track, from all its measurements",
        ),
    )
    covariance: np.ndarray = column(
        "float32", "covariance of params, as in `Tracks`", components=packed(_PARAMETERS), in_tables=False
    )
    chi2: np.ndarray = column("float32", "chi2 of the smoothed state against its measurement", csv=Csv(allow_nan=True))
    is_outlier: np.ndarray = column("int32", "1: the fit left out the measurement", csv=Csv(minimum=0, default=-1))
    global_position: np.ndarray = column(
        "float32",
        "global position of params",
        components=tuple(Component(axis, "mm", f"global {axis}") for axis in "xyz"),
    )

    def table(self) -> dict[str, np.ndarray]:
        """Return the columns as those of a flat table, and the errors of the parameters, by name."""
        with np.errstate(invalid="ignore"):
            errors = {name: np.sqrt(self.covariance[:, packed_index(k, k)]) for k, name in enumerate(_STATE_ERRORS)}
        return Collection.table(self) | errors


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

    def __post_init__(self) -> None:
        self.tracks.states = self.track_states

    def with_tracks(self, rows: Any) -> EventResult:
        """Return the result with selected tracks and their states; the rest is shared.

        Parameters
        ----------
        rows : slice, ndarray of bool or int, or int
            As for `Collection.__getitem__`: `result.with_tracks(result.tracks.pt > 1)`.
        """
        tracks = self.tracks[rows]
        assert tracks.states is not None
        return replace(self, tracks=tracks, track_states=tracks.states)

    def plot(self, axes: Any = None) -> Any:
        """Draw spacepoints and tracks in r-z and x-y, for a quick look; `draw_event` adds the detector.

        Parameters
        ----------
        axes : sequence of two matplotlib axes, optional
            Where to draw; by default in a figure of pyplot, which a notebook shows.

        Returns
        -------
        sequence of two matplotlib axes
            Of r-z and of x-y.

        Raises
        ------
        ConfigError
            If matplotlib is not installed (``pip install "traccc-py[plots]"``).
        """
        from traccc_py.edm.picture import plot_event

        return plot_event(self, axes)

    def _repr_html_(self) -> str:
        """Return the counts and times, for notebooks."""
        times = {f"{name} [ms]": round(t, 2) for name, t in self.stage_milliseconds.items()}
        return fact_table("EventResult", self.counts() | times)

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
