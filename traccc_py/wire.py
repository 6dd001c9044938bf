"""What travels between client and server: the one table of tensors, and packing and unpacking of both sides.

The standard tensors are those of traccc-aaS (model `traccc-gpu`), so that its clients work unchanged; the compact ones
carry the same cells in a fifth to a third of the bytes. `docs/protocol.md` explains them to those who write a client
in another language. Units: mm, GeV, e, rad, ns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from traccc_py.edm import Cells, EventResult, FitOutcome, unpack_covariance
from traccc_py.errors import WireError

__all__ = [
    "CELL_ACTIVATIONS",
    "CELL_CHANNELS",
    "CELL_POSITIONS",
    "CELL_PROPERTIES",
    "CELL_TIMES",
    "COMPACT_INPUTS",
    "COMPACT_MODEL",
    "CORE_MODEL",
    "COVARIANCES",
    "FINGERPRINT_PARAMETER",
    "GEOMETRY_IDS",
    "MEASUREMENTS",
    "MODEL",
    "MODULES",
    "OUTPUTS",
    "PROTOCOL_VERSION",
    "SEPARATOR",
    "STAGE_NAMES",
    "STAGE_TIMES",
    "STANDARD_INPUTS",
    "STANDARD_OUTPUTS",
    "ServedTracks",
    "TRK_COVARIANCES",
    "TRK_PARAMS",
    "TRK_PERIGEE",
    "TRK_SUMMARY",
    "TensorSpec",
    "kept_tracks",
    "pack_cells",
    "pack_compact_cells",
    "pack_result",
    "unpack_cells",
    "unpack_compact_cells",
    "unpack_tracks",
]

PROTOCOL_VERSION = 1  #: rises with every change that an older client or server would misread
MODEL = "traccc-gpu"  #: standard tensors
COMPACT_MODEL = "traccc-gpu-compact"  #: compact tensors
CORE_MODEL = "traccc-gpu-core"  #: what both are made of; not for clients
FINGERPRINT_PARAMETER = "detector_fingerprint"  #: of a request: the detector its sender has in mind
SEPARATOR = 0  #: between the tracks of GEOMETRY_IDS; no module has this id

MIN_STATES = 3  #: shorter tracks are not sent
LARGEST_COVARIANCE = 1e8  #: elements beyond it, and NaN, are sent as 0
_MAX_COMPACT_CHANNEL = int(np.iinfo(np.uint16).max)

#: Stages of STAGE_TIMES, in order.
STAGE_NAMES = (
    "preparation",
    "clusterization",
    "spacepoint_formation",
    "seeding",
    "parameter_estimation",
    "finding",
    "ambiguity_resolution",
    "fitting",
    "output",
)


class Column(NamedTuple):
    """One column of a tensor."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: ``(n, columns)``, or ``(n,)`` if it is flat.

    Parameters
    ----------
    name : str
        Name on the wire.
    dtype : str
        NumPy type.
    rows : str
        What a row is.
    columns : tuple of Column
        Its columns.
    is_flat : bool, optional
        Whether its rank is one; then it has one column.
    """

    name: str
    dtype: str
    rows: str
    columns: tuple[Column, ...]
    is_flat: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape, with -1 for the number of rows."""
        return (-1,) if self.is_flat else (-1, len(self.columns))

    @property
    def triton_dtype(self) -> str:
        """Name of the type in Triton's protocol, such as FP32."""
        kind = np.dtype(self.dtype)
        word = {"f": "FP", "i": "INT", "u": "UINT"}[kind.kind]
        return f"{word}{8 * kind.itemsize}"

    def empty(self) -> np.ndarray:
        """Return the tensor without rows."""
        return np.zeros((0, *self.dims[1:]), self.dtype)

    def check(self, array: np.ndarray) -> np.ndarray:
        """Return `array` if it has this tensor's type and shape.

        Raises
        ------
        WireError
            If it has not.
        """
        if array.ndim != len(self.dims) or array.shape[1:] != self.dims[1:]:
            expected = "(n,)" if self.is_flat else f"(n, {len(self.columns)})"
            msg = f"{self.name} has shape {array.shape}; expected {expected}: {self._column_names()}"
            raise WireError(msg)
        if array.dtype != np.dtype(self.dtype):
            msg = f"{self.name} has type {array.dtype}; expected {np.dtype(self.dtype)} ({self.triton_dtype})"
            raise WireError(msg)
        return array

    def _column_names(self) -> str:
        return ", ".join(c.name for c in self.columns)


def _columns(*rows: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


_PARAMETERS = (
    ("loc0", "mm", "first local coordinate"),
    ("loc1", "mm", "second local coordinate"),
    ("phi", "rad", "azimuth"),
    ("theta", "rad", "polar angle"),
    ("qop", "e/GeV", "charge over momentum"),
)
_PARAMETER_NAMES = tuple(name for name, _, _ in _PARAMETERS)

CELL_POSITIONS = TensorSpec(
    "CELL_POSITIONS",
    "int64",
    "cell",
    _columns(
        ("geometry_id", "1", "module, bits of an unsigned id; an Athena identifier where the server has a map"),
        ("measurement_id", "1", "not used; any number"),
        ("channel0", "1", "readout channel along local axis 0"),
        ("channel1", "1", "readout channel along local axis 1; 0 for strips"),
    ),
)
CELL_PROPERTIES = TensorSpec(
    "CELL_PROPERTIES",
    "float32",
    "cell",
    _columns(("timestamp", "ns", "time"), ("value", "1", "activation, not negative")),
)
MODULES = TensorSpec(
    "MODULES",
    "int64",
    "module",
    _columns(("geometry_id", "1", "module, as in CELL_POSITIONS"), ("n_cells", "1", "number of its cells in a row")),
)
CELL_CHANNELS = TensorSpec(
    "CELL_CHANNELS",
    "uint16",
    "cell",
    _columns(("channel0", "1", "as in CELL_POSITIONS"), ("channel1", "1", "as in CELL_POSITIONS")),
)
CELL_ACTIVATIONS = TensorSpec(
    "CELL_ACTIVATIONS", "float32", "cell", _columns(("value", "1", "activation, not negative")), is_flat=True
)
CELL_TIMES = TensorSpec(
    "CELL_TIMES", "float32", "cell", _columns(("timestamp", "ns", "time; without rows all are 0")), is_flat=True
)

TRK_PARAMS = TensorSpec(
    "TRK_PARAMS",
    "float32",
    "track",
    _columns(
        ("chi2", "1", "of the fit"),
        ("ndf", "1", "degrees of freedom"),
        *((name, unit, f"{meaning}, at the first state") for name, unit, meaning in _PARAMETERS),
        ("time", "ns", "of the first state"),
    ),
)
MEASUREMENTS = TensorSpec(
    "MEASUREMENTS",
    "float32",
    "state",
    _columns(
        ("local0", "mm", "measured, first local coordinate"),
        ("local1", "mm", "measured, second local coordinate"),
        ("phi", "rad", "smoothed azimuth"),
        ("theta", "rad", "smoothed polar angle"),
        ("qop", "e/GeV", "smoothed charge over momentum"),
        ("time", "ns", "measured"),
    ),
)
COVARIANCES = TensorSpec(
    "COVARIANCES",
    "float32",
    "state",
    _columns(
        *(
            (f"{a}_{b}", "product of both", "smoothed covariance; 0 for NaN, Inf and beyond 1e8")
            for a in _PARAMETER_NAMES
            for b in _PARAMETER_NAMES
        )
    ),
)
GEOMETRY_IDS = TensorSpec(
    "GEOMETRY_IDS",
    "int64",
    "state, and a 0 between two tracks",
    _columns(("geometry_id", "1", "module of each state, as in CELL_POSITIONS")),
    is_flat=True,
)
STAGE_TIMES = TensorSpec(
    "STAGE_TIMES",
    "float32",
    f"stage ({', '.join(STAGE_NAMES)})",
    _columns(("milliseconds", "ms", "of the batch this event was in, divided by its number of events")),
    is_flat=True,
)
TRK_PERIGEE = TensorSpec(
    "TRK_PERIGEE",
    "float32",
    "track",
    _columns(
        ("d0", "mm", "transverse impact parameter at the beam line"),
        ("z0", "mm", "z of the perigee"),
        ("phi", "rad", "azimuth there"),
        ("theta", "rad", "polar angle there"),
        ("qop", "e/GeV", "charge over momentum there"),
    ),
)
TRK_COVARIANCES = TensorSpec(
    "TRK_COVARIANCES",
    "float32",
    "track",
    _columns(
        *(
            (f"{a}_{b}", "product of both", "of the parameters in TRK_PARAMS, lower triangle; 0 as in COVARIANCES")
            for i, a in enumerate(_PARAMETER_NAMES)
            for b in _PARAMETER_NAMES[: i + 1]
        )
    ),
)
TRK_SUMMARY = TensorSpec(
    "TRK_SUMMARY",
    "int32",
    "track",
    _columns(("n_measurements", "1", "states of the track"), ("n_holes", "1", "surfaces crossed without a hit")),
)

STANDARD_INPUTS = (CELL_POSITIONS, CELL_PROPERTIES)
STANDARD_OUTPUTS = (TRK_PARAMS, MEASUREMENTS, COVARIANCES, GEOMETRY_IDS)  #: those of traccc-aaS
COMPACT_INPUTS = (MODULES, CELL_CHANNELS, CELL_ACTIVATIONS, CELL_TIMES)
OUTPUTS = (*STANDARD_OUTPUTS, STAGE_TIMES, TRK_PERIGEE, TRK_COVARIANCES, TRK_SUMMARY)  #: all there are


def _check_rows(*tensors: tuple[TensorSpec, np.ndarray]) -> None:
    (first, array), *others = tensors
    for spec, other in others:
        if len(other) != len(array):
            msg = f"{spec.name} has {len(other)} rows, {first.name} has {len(array)}; expected one row per cell in both"
            raise WireError(msg)


def _received(tensors: Mapping[str, np.ndarray], spec: TensorSpec) -> np.ndarray:
    if spec.name not in tensors:
        msg = f"{spec.name} is missing; got {', '.join(sorted(tensors)) or 'nothing'}"
        raise WireError(msg)
    return spec.check(tensors[spec.name])


def pack_cells(cells: Cells) -> dict[str, np.ndarray]:
    """Return the standard input tensors of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event, in any order.

    Returns
    -------
    dict of str to ndarray
        CELL_POSITIONS and CELL_PROPERTIES by name; 40 bytes a cell.
    """
    positions = np.empty((len(cells), 4), np.int64)
    positions[:, 0] = np.asarray(cells.geometry_id).astype(np.uint64, copy=False).view(np.int64)
    positions[:, 1] = cells.measurement_id
    positions[:, 2] = cells.channel0
    positions[:, 3] = cells.channel1
    properties = np.empty((len(cells), 2), np.float32)
    properties[:, 0] = cells.time
    properties[:, 1] = cells.activation
    return {CELL_POSITIONS.name: positions, CELL_PROPERTIES.name: properties}


def unpack_cells(tensors: Mapping[str, np.ndarray]) -> Cells:
    """Return the cells in standard input tensors.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        CELL_POSITIONS and CELL_PROPERTIES by name.

    Returns
    -------
    Cells
        Views into the tensors.

    Raises
    ------
    WireError
        If a tensor is missing, has the wrong type or shape, or both differ in the number of rows.
    """
    positions, properties = (_received(tensors, spec) for spec in STANDARD_INPUTS)
    _check_rows((CELL_POSITIONS, positions), (CELL_PROPERTIES, properties))
    return Cells(
        geometry_id=np.ascontiguousarray(positions[:, 0]).view(np.uint64),
        channel0=positions[:, 2],
        channel1=positions[:, 3],
        activation=properties[:, 1],
        time=properties[:, 0],
        measurement_id=positions[:, 1],
    )


def pack_compact_cells(cells: Cells) -> dict[str, np.ndarray]:
    """Return the compact input tensors of an event.

    Parameters
    ----------
    cells : Cells
        Cells of one event; those of a module should stand together, as in most files.

    Returns
    -------
    dict of str to ndarray
        The tensors of `COMPACT_INPUTS` by name: 16 bytes a run of cells of one module, 8 bytes a cell, and 4 more if
        any time is not 0.

    Raises
    ------
    WireError
        If a channel does not fit in 16 bits: use the standard tensors then.
    """
    n = len(cells)
    ids = np.asarray(cells.geometry_id).astype(np.uint64, copy=False)
    starts = np.flatnonzero(np.concatenate(([n > 0], ids[1:] != ids[:-1])))
    modules = np.empty((len(starts), 2), np.int64)
    modules[:, 0] = ids[starts].view(np.int64)
    modules[:, 1] = np.diff(starts, append=n)
    channels = np.empty((n, 2), np.uint16)
    for column, name in enumerate(("channel0", "channel1")):
        values = np.asarray(getattr(cells, name))
        if n and (int(values.min()) < 0 or int(values.max()) > _MAX_COMPACT_CHANNEL):
            worst = int(values.min()) if int(values.min()) < 0 else int(values.max())
            msg = f"cells.{name} has {worst}; expected 0 to {_MAX_COMPACT_CHANNEL}: use the standard tensors"
            raise WireError(msg)
        channels[:, column] = values
    times = np.asarray(cells.time, np.float32)
    return {
        MODULES.name: modules,
        CELL_CHANNELS.name: channels,
        CELL_ACTIVATIONS.name: np.ascontiguousarray(cells.activation, np.float32),
        CELL_TIMES.name: np.ascontiguousarray(times) if times.any() else CELL_TIMES.empty(),
    }


def unpack_compact_cells(tensors: Mapping[str, np.ndarray]) -> Cells:
    """Return the cells in compact input tensors.

    Raises
    ------
    WireError
        If a tensor is missing, has the wrong type or shape, or the numbers of rows contradict each other.
    """
    modules, channels, activation, times = (_received(tensors, spec) for spec in COMPACT_INPUTS)
    n = len(channels)
    _check_rows((CELL_CHANNELS, channels), (CELL_ACTIVATIONS, activation))
    if len(times):
        _check_rows((CELL_CHANNELS, channels), (CELL_TIMES, times))
    counts = modules[:, 1]
    is_impossible = (counts < 0) | (counts > n)
    if is_impossible.any():
        row = int(np.argmax(is_impossible))
        msg = f"MODULES row {row} (counted from 0): n_cells is {counts[row]}; expected 0 to {n}"
        raise WireError(msg)
    if int(counts.sum()) != n:
        msg = f"MODULES.n_cells sum up to {int(counts.sum())}; expected {n}, the number of rows of CELL_CHANNELS"
        raise WireError(msg)
    return Cells(
        geometry_id=np.repeat(np.ascontiguousarray(modules[:, 0]).view(np.uint64), counts),
        channel0=channels[:, 0],
        channel1=channels[:, 1],
        activation=activation,
        time=times if len(times) else np.zeros(n, np.float32),
        measurement_id=np.full(n, -1, np.int64),
    )


def kept_tracks(result: EventResult) -> np.ndarray:
    """Return which tracks are sent: fitted with success, ndf >= 0, at least three states.

    Returns
    -------
    ndarray of shape (n_tracks,), bool
        True for those sent.
    """
    tracks = result.tracks
    n_states = np.diff(tracks.state_offsets)
    return (tracks.fit_outcome == FitOutcome.SUCCESS) & (tracks.ndf >= 0) & (n_states >= MIN_STATES)


class _Packer:
    """Makes output tensors of one event; what is not asked for costs nothing."""

    def __init__(self, result: EventResult) -> None:
        self._result = result
        self._is_kept = kept_tracks(result)
        lengths = np.diff(result.tracks.state_offsets)
        self._lengths = lengths[self._is_kept]
        self._state_is_kept = np.repeat(self._is_kept, lengths)

    def trk_params(self) -> np.ndarray:
        tracks, kept = self._result.tracks, self._is_kept
        columns = (tracks.chi2[kept], tracks.ndf[kept], tracks.params[kept], tracks.time[kept])
        return np.column_stack(columns).astype(np.float32, copy=False)

    def measurements(self) -> np.ndarray:
        states, source = self._result.track_states, self._result.measurements
        link = states.measurement_index[self._state_is_kept]
        params = states.params[self._state_is_kept]
        return np.column_stack((source.local_position[link], params[:, 2:], source.time[link])).astype(np.float32)

    def covariances(self) -> np.ndarray:
        packed = _without_impossible(self._result.track_states.covariance[self._state_is_kept])
        return unpack_covariance(packed).reshape(len(packed), len(COVARIANCES.columns)).astype(np.float32, copy=False)

    def geometry_ids(self) -> np.ndarray:
        ids = self._result.track_states.geometry_id[self._state_is_kept]
        n_tracks = len(self._lengths)
        out = np.full(len(ids) + max(0, n_tracks - 1), SEPARATOR, np.int64)
        out[np.arange(len(ids)) + np.repeat(np.arange(n_tracks), self._lengths)] = ids.astype(np.uint64).view(np.int64)
        return out

    def stage_times(self) -> np.ndarray:
        times = self._result.stage_milliseconds
        return np.array([times.get(name, 0.0) for name in STAGE_NAMES], np.float32)

    def trk_perigee(self) -> np.ndarray:
        return np.ascontiguousarray(self._result.tracks.perigee[self._is_kept], np.float32)

    def trk_covariances(self) -> np.ndarray:
        return _without_impossible(self._result.tracks.covariance[self._is_kept])

    def trk_summary(self) -> np.ndarray:
        tracks, kept = self._result.tracks, self._is_kept
        return np.column_stack((tracks.n_measurements[kept], tracks.n_holes[kept])).astype(np.int32, copy=False)


def _without_impossible(covariance: np.ndarray) -> np.ndarray:
    # NaN compares False, so it becomes 0 as well.
    return np.where(np.abs(covariance) <= LARGEST_COVARIANCE, covariance, np.float32(0)).astype(np.float32, copy=False)


def pack_result(result: EventResult, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the output tensors of an event.

    Parameters
    ----------
    result : EventResult
        What the chain made of it.
    names : collection of str, optional
        Tensors wanted; by default all of `OUTPUTS`.

    Returns
    -------
    dict of str to ndarray
        Contiguous arrays by name. Tracks that `kept_tracks` leaves out appear in none of them.
    """
    packer = _Packer(result)
    wanted = [spec for spec in OUTPUTS if names is None or spec.name in names]
    return {spec.name: np.ascontiguousarray(getattr(packer, spec.name.lower())()) for spec in wanted}


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
    params = _received(tensors, TRK_PARAMS)
    tracks = ServedTracks(params=params[:, 2:7], time=params[:, 7], chi2=params[:, 0], ndf=params[:, 1])
    if GEOMETRY_IDS.name in tensors:
        _unpack_ids(tracks, _received(tensors, GEOMETRY_IDS))
    if MEASUREMENTS.name in tensors:
        rows = _received(tensors, MEASUREMENTS)
        tracks.state_local_position, tracks.state_direction, tracks.state_time = rows[:, :2], rows[:, 2:5], rows[:, 5]
    if COVARIANCES.name in tensors:
        tracks.state_covariance = _received(tensors, COVARIANCES).reshape(-1, 5, 5)
    if TRK_PERIGEE.name in tensors:
        tracks.perigee = _received(tensors, TRK_PERIGEE)
    if TRK_COVARIANCES.name in tensors:
        tracks.covariance = _received(tensors, TRK_COVARIANCES)
    if TRK_SUMMARY.name in tensors:
        tracks.n_measurements, tracks.n_holes = _received(tensors, TRK_SUMMARY).T
    if STAGE_TIMES.name in tensors:
        times = _received(tensors, STAGE_TIMES)
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
