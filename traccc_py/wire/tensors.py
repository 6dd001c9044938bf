"""The tensors that travel between client and server, made of the columns of `edm`.

The standard tensors are those of traccc-aaS (model `traccc-gpu`), so that its clients work unchanged; the compact one
carries the same cells in a fifth to a third of the bytes. `docs/protocol.md` explains them to those who write a client
in another language. Units: mm, GeV, e, rad, ns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from traccc_py import edm
from traccc_py.edm import Component, columns_of
from traccc_py.errors import WireError

__all__ = [
    "Allocate",
    "CELL_POSITIONS",
    "CELL_PROPERTIES",
    "CELLS",
    "COMPACT_INPUTS",
    "COMPACT_MODEL",
    "COVARIANCES",
    "EXATRKX_MODEL",
    "FEATURES",
    "FINGERPRINT_PARAMETER",
    "GEOMETRY_IDS",
    "MEASUREMENTS",
    "INPUT_VERSION",
    "LABELS",
    "MODEL",
    "OUTPUTS",
    "OUTPUTS_PARAMETER",
    "OUTPUT_VERSION",
    "OUTPUT_VERSION_PARAMETER",
    "SEPARATOR",
    "STAGE_TIMES",
    "STANDARD_INPUTS",
    "STANDARD_OUTPUTS",
    "TRACK_TENSORS",
    "TRK_COVARIANCES",
    "TRK_PARAMS",
    "TRK_PERIGEE",
    "TRK_SUMMARY",
    "TensorSpec",
    "check_rows",
    "new_tensors",
    "received",
    "track_columns",
    "wanted_outputs",
]

INPUT_VERSION = 2  #: of requests; rises with every change that an older server would misread
MODEL = "traccc-gpu"  #: standard tensors
COMPACT_MODEL = "traccc-gpu-compact"  #: the compact tensor
EXATRKX_MODEL = "exatrkx"  #: labels of spacepoints, as exatrkx-service has it
FINGERPRINT_PARAMETER = "detector_fingerprint"  #: of a request: the detector its sender has in mind
OUTPUT_VERSION_PARAMETER = "output_version"  #: of a model's configuration
OUTPUTS_PARAMETER = "outputs"  #: of a request: names of the tensors to make, with commas between
SEPARATOR = 0  #: between the tracks of GEOMETRY_IDS; no module has this id


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
    columns : tuple of Component
        Its columns.
    is_flat : bool, optional
        Whether its rank is one; then it has one column.
    meaning : str, optional
        What the columns are together.
    since : int, optional
        Version of the outputs that it came with [1].
    """

    name: str
    dtype: str
    rows: str
    columns: tuple[Component, ...]
    is_flat: bool = False
    meaning: str = ""
    since: int = 1

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

    def n_bytes(self, n: int) -> int:
        """Return the size of a tensor of `n` rows."""
        return n * max(1, *self.dims) * np.dtype(self.dtype).itemsize

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


def _of_cells(name: str, dtype: str, *columns: str) -> TensorSpec:
    numbers = tuple(number for column in columns for number in _CELLS[column].numbers)
    return TensorSpec(name, dtype, "cell", numbers)


def _of_tracks() -> dict[str, TensorSpec]:
    """Return the tensors that columns of tracks name."""
    names = dict.fromkeys((*_FIRST_OF_TRACKS, *(c.tensor for c in _TRACKS.values() if c.tensor is not None)))
    specs = {}
    for name in names:
        columns = track_columns(name)
        numbers = tuple(number for column in columns for number in column.numbers)
        meaning = columns[0].meaning if len(columns) == 1 else ""
        specs[name] = TensorSpec(name, columns[0].dtype, "track", numbers, meaning=meaning, since=columns[0].since)
    return specs


def track_columns(tensor: str) -> list[edm.Column]:
    """Return the columns of `edm.Tracks` that a tensor is made of, in its order."""
    columns = [column for column in _TRACKS.values() if column.tensor == tensor]
    return sorted(columns, key=lambda c: _TRACCC_AAS_ORDER.index(c.name)) if tensor == "TRK_PARAMS" else columns


_CELLS, _TRACKS, _STATES = map(columns_of, (edm.Cells, edm.Tracks, edm.TrackStates))
_MEASURED = columns_of(edm.Measurements)
_FIRST_OF_TRACKS = ("TRK_PARAMS", "TRK_PERIGEE", "TRK_COVARIANCES", "TRK_SUMMARY")  # the others come behind them
_TRACCC_AAS_ORDER = ("chi2", "ndf", "params", "time")  # of TRK_PARAMS
_PARAMETERS = _STATES["params"].components

CELL_POSITIONS = _of_cells("CELL_POSITIONS", "int64", "geometry_id", "measurement_id", "channel0", "channel1")
CELL_PROPERTIES = _of_cells("CELL_PROPERTIES", "float32", "time", "activation")
CELLS = TensorSpec("CELLS", "uint8", "byte", (Component("cells", "1", "all of an event, see below"),), is_flat=True)

TRACK_TENSORS = _of_tracks()
TRK_PARAMS = TRACK_TENSORS["TRK_PARAMS"]
TRK_PERIGEE = TRACK_TENSORS["TRK_PERIGEE"]
TRK_COVARIANCES = TRACK_TENSORS["TRK_COVARIANCES"]
TRK_SUMMARY = TRACK_TENSORS["TRK_SUMMARY"]
MEASUREMENTS = TensorSpec(
    "MEASUREMENTS",
    "float32",
    "state",
    (*_MEASURED["local_position"].numbers, *_PARAMETERS[2:], *_TRACKS["time"].numbers),
    meaning="measured position; smoothed angles and momentum, and the track's time, which is not fitted",
)
COVARIANCES = TensorSpec(
    "COVARIANCES",
    "float32",
    "state",
    tuple(
        Component(f"{a.name}_{b.name}", "product of both", "smoothed covariance")
        for a in _PARAMETERS
        for b in _PARAMETERS
    ),
    meaning="covariance matrix of the smoothed parameters, 5 x 5, row by row",
)
GEOMETRY_IDS = TensorSpec(
    "GEOMETRY_IDS", "int64", "state, and a 0 between two tracks", _STATES["geometry_id"].numbers, is_flat=True
)
STAGE_TIMES = TensorSpec(
    "STAGE_TIMES", "float32", "stage", (Component("milliseconds", "ms", "of the batch, per event"),), is_flat=True
)

#: Tensors of exatrkx-service.
FEATURES = TensorSpec(
    "FEATURES",
    "float32",
    "spacepoint",
    (Component("r", "m", "radius"), Component("phi", "pi", "azimuth"), Component("z", "m", "along the beam")),
)
LABELS = TensorSpec(
    "LABELS", "int64", "spacepoint", (Component("label", "1", "the same for those of one candidate"),), is_flat=True
)

STANDARD_INPUTS = (CELL_POSITIONS, CELL_PROPERTIES)
STANDARD_OUTPUTS = (TRK_PARAMS, MEASUREMENTS, COVARIANCES, GEOMETRY_IDS)  #: those of traccc-aaS
COMPACT_INPUTS = (CELLS,)
OUTPUTS = tuple(dict.fromkeys((*STANDARD_OUTPUTS, STAGE_TIMES, *TRACK_TENSORS.values())))  #: all there are
OUTPUT_VERSION = max(spec.since for spec in OUTPUTS)  #: rises with each further tensor; those there are never change


#: Gives arrays by name for tensors of so many rows; their content is undefined.
Allocate: TypeAlias = Callable[[Mapping[TensorSpec, int]], dict[str, np.ndarray]]


def new_tensors(rows: Mapping[TensorSpec, int]) -> dict[str, np.ndarray]:
    """Return new arrays for tensors of so many rows, by name."""
    return {spec.name: np.empty((n, *spec.dims[1:]), spec.dtype) for spec, n in rows.items()}


def wanted_outputs(requested: Iterable[str], parameter: str | None) -> set[str]:
    """Return the names of the tensors that a request is answered with.

    Parameters
    ----------
    requested : iterable of str
        Outputs that the request names; one that came through an ensemble names all.
    parameter : str or None
        Its parameter `OUTPUTS_PARAMETER`: names with commas between; None if it has none.

    Raises
    ------
    WireError
        If the parameter names a tensor that does not exist: without an error its sender would get an answer that lacks
        it, and no reason.
    """
    if parameter is None:
        return set(requested)
    names = {name.strip() for name in parameter.split(",")}
    known = [spec.name for spec in OUTPUTS]
    unknown = sorted(names.difference(known))
    if unknown:
        msg = (
            f"the request parameter {OUTPUTS_PARAMETER!r} names {unknown[0]!r}; expected some of {', '.join(known)}, "
            "with commas between"
        )
        raise WireError(msg)
    return names.intersection(requested)


def check_rows(*tensors: tuple[TensorSpec, np.ndarray]) -> None:
    """Raise if tensors differ in their number of rows.

    Raises
    ------
    WireError
        If so; the message names both.
    """
    (first, array), *others = tensors
    for spec, other in others:
        if len(other) != len(array):
            rows = f"{spec.name} has {len(other)} rows, {first.name} has {len(array)}"
            msg = f"{rows}; expected one row per {first.rows} in both"
            raise WireError(msg)


def received(tensors: Mapping[str, np.ndarray], spec: TensorSpec) -> np.ndarray:
    """Return one of the tensors that came.

    Raises
    ------
    WireError
        If it is missing, or has the wrong type or shape.
    """
    if spec.name not in tensors:
        msg = f"{spec.name} is missing; got {', '.join(sorted(tensors)) or 'nothing'}"
        raise WireError(msg)
    return spec.check(tensors[spec.name])
