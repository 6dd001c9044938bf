"""The one table of tensors that travel between client and server.

The standard tensors are those of traccc-aaS (model `traccc-gpu`), so that its clients work unchanged; the compact one
carries the same cells in a fifth to a third of the bytes. `docs/protocol.md` explains them to those who write a client
in another language. Units: mm, GeV, e, rad, ns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from traccc_py.errors import WireError

__all__ = [
    "Allocate",
    "CELL_POSITIONS",
    "CELL_PROPERTIES",
    "CELLS",
    "COMPACT_INPUTS",
    "COMPACT_MODEL",
    "CORE_MODEL",
    "COVARIANCES",
    "FINGERPRINT_PARAMETER",
    "GEOMETRY_IDS",
    "MEASUREMENTS",
    "MODEL",
    "OUTPUTS",
    "OUTPUTS_PARAMETER",
    "PROTOCOL_VERSION",
    "SEPARATOR",
    "STAGE_NAMES",
    "STAGE_TIMES",
    "STANDARD_INPUTS",
    "STANDARD_OUTPUTS",
    "TRK_COVARIANCES",
    "TRK_PARAMS",
    "TRK_PERIGEE",
    "TRK_SUMMARY",
    "TensorSpec",
    "check_rows",
    "new_tensors",
    "received",
]

PROTOCOL_VERSION = 2  #: rises with every change that an older client or server would misread
MODEL = "traccc-gpu"  #: standard tensors
COMPACT_MODEL = "traccc-gpu-compact"  #: the compact tensor
CORE_MODEL = "traccc-gpu-core"  #: what both are made of; not for clients
FINGERPRINT_PARAMETER = "detector_fingerprint"  #: of a request: the detector its sender has in mind
OUTPUTS_PARAMETER = "outputs"  #: of a request: names of the tensors to make, with commas between
SEPARATOR = 0  #: between the tracks of GEOMETRY_IDS; no module has this id

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
CELLS = TensorSpec(
    "CELLS", "uint8", "byte", _columns(("cells", "1", "all cells of an event: traccc_py.wire.compact")), is_flat=True
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
COMPACT_INPUTS = (CELLS,)
OUTPUTS = (*STANDARD_OUTPUTS, STAGE_TIMES, TRK_PERIGEE, TRK_COVARIANCES, TRK_SUMMARY)  #: all there are


#: Gives arrays by name for tensors of so many rows; their content is undefined.
Allocate: TypeAlias = Callable[[Mapping[TensorSpec, int]], dict[str, np.ndarray]]


def new_tensors(rows: Mapping[TensorSpec, int]) -> dict[str, np.ndarray]:
    """Return new arrays for tensors of so many rows, by name."""
    return {spec.name: np.empty((n, *spec.dims[1:]), spec.dtype) for spec, n in rows.items()}


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
