"""Where rows of event data come from, so that errors can say which value of which line can't be used."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.errors import InputDataError

__all__ = ["Source", "bad_row", "find_modules", "prefix"]


class Source(NamedTuple):
    """A file, and the line of each row where rows were left out."""

    name: str
    lines: np.ndarray | None = None  # (n,) int64; None: row i is line i + 2


def prefix(source: Source | str | None) -> str:
    """Return the beginning of a message about a whole file: its name, if there is one."""
    if source is None:
        return ""
    return f"{source if isinstance(source, str) else source.name}: "


def bad_row(source: Source | str | None, kind: str, row: int, problem: str) -> InputDataError:
    """Return the error for a row.

    Parameters
    ----------
    source : Source or str or None
        File, if the rows are from one.
    kind : str
        What the rows are: "cells", "measurements" ...
    row : int
        Row, counted from 0.
    problem : str
        What is wrong and what was expected.
    """
    if source is None:
        return InputDataError(f"{kind} row {row} (counted from 0): {problem}")
    name, lines = (source, None) if isinstance(source, str) else source
    line = row + FIRST_DATA_LINE if lines is None else int(lines[row])
    return InputDataError(f"{name}, line {line}: {problem}")


def find_modules(
    ids: np.ndarray, rows: np.ndarray, detector: Any, kind: str, source: Source | str | None
) -> np.ndarray:
    """Return the module index of each geometry id.

    Parameters
    ----------
    ids : ndarray of shape (n,), uint64
        Geometry ids.
    rows : ndarray of shape (n,), int
        Where they stand, for the error.
    detector : Detector
        Knows the modules.
    kind : str
        What the rows are.
    source : Source or str or None
        File, if the rows are from one.

    Raises
    ------
    InputDataError
        If an id is unknown.
    """
    try:
        return np.asarray(detector.module_index(ids))
    except InputDataError as error:
        unknown = ~np.isin(ids, detector.geometry_ids)
        if not unknown.any():
            raise
        first = int(np.argmax(unknown))
        problem = (
            f"geometry_id is {ids[first]}, which is no sensitive module of this detector; expected one of its "
            f"{len(detector.geometry_ids)} ids ({detector.geometry_ids[0]} ... {detector.geometry_ids[-1]}): "
            "is it the right detector?"
        )
        raise bad_row(source, kind, int(rows[first]), problem) from error
