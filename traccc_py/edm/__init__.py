"""The event data model: collections of columns, each declared once for files, tensors and documentation."""

from traccc_py.edm.collections import (
    STAGES,
    Cells,
    EventResult,
    Measurements,
    ModuleCells,
    Seeds,
    Spacepoints,
    Tracks,
    TrackStates,
)
from traccc_py.edm.columns import Column, Component, Csv, column, columns_of
from traccc_py.edm.parameters import (
    LOC0,
    LOC1,
    N_COVARIANCE,
    N_PARAMETERS,
    PHI,
    QOP,
    THETA,
    FitOutcome,
    packed_index,
    unpack_covariance,
)

__all__ = [
    "LOC0",
    "LOC1",
    "N_COVARIANCE",
    "N_PARAMETERS",
    "PHI",
    "QOP",
    "STAGES",
    "THETA",
    "Cells",
    "Column",
    "Component",
    "Csv",
    "EventResult",
    "FitOutcome",
    "Measurements",
    "ModuleCells",
    "Seeds",
    "Spacepoints",
    "TrackStates",
    "Tracks",
    "column",
    "columns_of",
    "packed_index",
    "unpack_covariance",
]
