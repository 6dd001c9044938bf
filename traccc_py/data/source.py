"""Where rows of event data come from, so that errors can name file and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.errors import InputDataError
from traccc_py.geometry.records import Shape

__all__ = ["Source", "bad_row", "check_readout", "check_shapes", "find_modules", "prefix"]

_CARTESIAN = (Shape.RECTANGLE, Shape.TRAPEZOID)  #: outlines in whose local frame loc0 and loc1 are lengths


@dataclass(frozen=True, slots=True)
class Source:
    """The file of an event.

    Parameters
    ----------
    name : str
        Path of the cells, measurements or spacepoints.
    lines : ndarray of shape (n,), int64, optional
        Line of each row, where rows were left out; None: row i is line i + 2.
    measurements : str, optional
        Path of the measurements that spacepoints were made of.
    event : int, optional
        Number of the event in a file of several, whose rows have no lines.
    """

    name: str
    lines: np.ndarray | None = None
    measurements: str | None = None
    event: int | None = None


def prefix(source: Source | str | None) -> str:
    """Return the beginning of a message about a file: its name, if there is one."""
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
    where = Source(source) if isinstance(source, str) else source
    if where.event is not None:
        return InputDataError(f"{where.name}, event {where.event}, {kind} row {row} (counted from 0): {problem}")
    line = row + FIRST_DATA_LINE if where.lines is None else int(where.lines[row])
    return InputDataError(f"{where.name}, line {line}: {problem}")


def find_modules(
    ids: np.ndarray, rows: np.ndarray, detector: Any, kind: str, source: Source | str | None
) -> np.ndarray:
    """Return the module index of each geometry id.

    Parameters
    ----------
    ids : ndarray of shape (n,), uint64
        Geometry ids.
    rows : ndarray of shape (n,), int
        Their rows, for the error.
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
        first = _first_unknown(ids, detector)
        problem = (
            f"geometry_id is {ids[first]}, which is not a sensitive module of this detector; expected one of its "
            f"{len(detector.geometry_ids)} ids ({detector.geometry_ids[0]} ... {detector.geometry_ids[-1]}): "
            "is it the right detector?"
        )
        raise bad_row(source, kind, int(rows[first]), problem) from error


def check_readout(
    detector: Any, modules: np.ndarray, ids: np.ndarray, rows: np.ndarray, source: Source | str | None
) -> None:
    """Raise for cells of annuli and rings whose readout is not in r and phi.

    Parameters
    ----------
    detector : Detector
        Detector.
    modules : ndarray of shape (n,)
        Modules.
    ids : ndarray of shape (n,), uint64
        Their geometry ids.
    rows, source
        As for `find_modules`.

    Raises
    ------
    InputDataError
        If the readout design of an annulus or ring is not polar.
    """
    arrays = detector.arrays()
    is_usable = np.isin(arrays.surfaces["shape"][modules], _CARTESIAN)
    if not is_usable.all():
        is_usable |= arrays.designs["is_polar"][arrays.surfaces["design"][modules]] == 1
    if not is_usable.all():
        first = int(np.argmin(is_usable))
        problem = (
            f"module {ids[first]} is an annulus or ring, whose channels are polar, but its readout design is not; "
            "expected a digitization file with the axes binR, binPhi for it"
        )
        raise bad_row(source, "cells", int(rows[first]), problem)


def check_shapes(shapes: np.ndarray, ids: np.ndarray, rows: np.ndarray, kind: str, source: Source | str | None) -> None:
    """Raise for modules whose local coordinates are not lengths along two axes.

    Parameters
    ----------
    shapes : ndarray of shape (n,), int32
        Shape of each module.
    ids : ndarray of shape (n,), uint64
        Their geometry ids.
    rows, kind, source
        As for `find_modules`.

    Raises
    ------
    InputDataError
        If a module is an annulus or a ring.
    """
    is_usable = np.isin(shapes, _CARTESIAN)
    if not is_usable.all():
        first = int(np.argmin(is_usable))
        problem = (
            f"module {ids[first]} has polar local coordinates; only {kind} of rectangles and trapezoids can be used"
        )
        raise bad_row(source, kind, int(rows[first]), problem)


def _first_unknown(ids: np.ndarray, detector: Any) -> int:
    """Return the position of the first id unknown to the detector, by bisection: it knows ids of several kinds."""
    known, refused = 0, len(ids)
    while refused - known > 1:
        middle = (known + refused) // 2
        try:
            detector.module_index(ids[:middle])
            known = middle
        except InputDataError:
            refused = middle
    return known
