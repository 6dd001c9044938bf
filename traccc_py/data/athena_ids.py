"""The map between Athena's identifiers of modules and detray's, as traccc-aaS reads it.

A text file with one pair per line: ``hexadecimal Athena identifier,decimal detray identifier``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.source import Source, bad_row
from traccc_py.edm import Cells
from traccc_py.errors import GeometryError, InputDataError

if TYPE_CHECKING:
    from traccc_py.geometry import Detector

__all__ = ["AthenaIds", "read_athena_ids", "translate_cells"]

_log = logging.getLogger(__name__)

_HEXADECIMAL, _DECIMAL = 16, 10
_LARGEST = 2**64 - 1


@dataclass(frozen=True)
class AthenaIds:
    """Pairs of identifiers; each occurs once, none is 0."""

    athena: np.ndarray  # (n,) uint64
    detray: np.ndarray  # (n,) uint64
    name: str = "the map"  #: file, for errors

    def to_detray(self, ids: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the detray identifiers for Athena identifiers, (n,) uint64.

        Parameters
        ----------
        ids : ndarray of shape (n,), integers
            Athena identifiers.
        rows : ndarray of shape (n,), integers, optional
            Their rows, for the error; None: id i is in row i.

        Raises
        ------
        InputDataError
            If an id is not in the map; the message names the first row.
        """
        row, is_known = self.find(ids)
        self._check_known(ids, is_known, "Athena", rows)
        return self.detray[row]

    def to_athena(self, ids: np.ndarray) -> np.ndarray:
        """Return the Athena identifiers for detray identifiers, (n,) uint64.

        Raises
        ------
        InputDataError
            If an id is not in the map; the message names the first row.
        """
        row, is_known = _find(self.detray, self._by_detray, ids)
        self._check_known(ids, is_known, "detray")
        return self.athena[row]

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of Athena identifiers in the map, (n,) int64, and whether they are in it."""
        return _find(self.athena, self._by_athena, ids)

    def for_detector(self, detector: Detector) -> AthenaIds:
        """Return the pairs of a detector's sensors, with its primary ids instead of detray's.

        Parameters
        ----------
        detector : Detector
            The map has the detray identifiers of its sensors, or their primary ids.

        Raises
        ------
        GeometryError
            If a sensor has no Athena identifier.
        """
        is_sensor = detector.surfaces.is_sensitive
        primary, second = detector.geometry_ids[is_sensor], detector.detray_ids[is_sensor]
        row, is_known = _find(self.detray, self._by_detray, second)
        other, has_primary = _find(self.detray, self._by_detray, primary)
        row = np.where(is_known, row, other)
        is_known |= has_primary
        if not is_known.all():
            n_missing = np.count_nonzero(~is_known)
            first = primary[np.argmin(is_known)]
            msg = f"{self.name}: {n_missing} of {len(primary)} sensors have no Athena identifier, the first is {first}"
            raise GeometryError(msg)
        return AthenaIds(self.athena[row], primary, self.name)

    @cached_property
    def _by_athena(self) -> np.ndarray:
        return np.argsort(self.athena, kind="stable")

    @cached_property
    def _by_detray(self) -> np.ndarray:
        return np.argsort(self.detray, kind="stable")

    def _check_known(self, ids: np.ndarray, is_known: np.ndarray, kind: str, rows: np.ndarray | None = None) -> None:
        if not is_known.all():
            first = int(np.argmin(is_known))
            value = _shown(np.asarray(ids).astype(np.uint64, copy=False)[first], kind)
            row = first if rows is None else rows[first]
            msg = f"row {row} (counted from 0): {kind} identifier {value} is not in {self.name}"
            raise InputDataError(msg)


def _find(keys: np.ndarray, order: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of ids in `keys`, given their sort order, and whether they are among them."""
    wanted = np.asarray(ids).astype(np.uint64, copy=False)
    if len(keys) == 0:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.searchsorted(keys, wanted, sorter=order)
    row = order[np.minimum(place, len(keys) - 1)]
    return row, keys[row] == wanted


def _shown(value: int, kind: str) -> str:
    return f"{int(value):#x}" if kind == "Athena" else str(value)


def read_athena_ids(path: Path | str) -> AthenaIds:
    """Read a map of identifiers.

    Parameters
    ----------
    path : path
        Text file, as ``athenaIdentifierToDetrayMap.txt``.

    Returns
    -------
    AthenaIds
        Both directions.

    Raises
    ------
    InputDataError
        If the file can't be read, a line is not a pair of identifiers, or an identifier occurs twice; the message names
        file, line and value.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror})"
        raise InputDataError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: is not text; expected lines of 'hexadecimal Athena identifier,decimal detray identifier'"
        raise InputDataError(msg) from error
    pairs, numbers = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            pairs.append(_pair(path, number, line))
            numbers.append(number)
    athena, detray = np.array(pairs, np.uint64).reshape(-1, 2).T
    _check_unique(path, "Athena", athena, numbers)
    _check_unique(path, "detray", detray, numbers)
    return AthenaIds(athena.copy(), detray.copy(), str(path))


def _pair(path: Path | str, number: int, line: str) -> tuple[int, int]:
    fields = line.split(",")
    try:
        athena, detray = (int(text, base) for text, base in zip(fields, (_HEXADECIMAL, _DECIMAL), strict=True))
    except ValueError as error:
        expected = "a hexadecimal Athena identifier, a comma and a decimal detray identifier"
        msg = f"{path}, line {number}: {line[:60]!r}; expected {expected}"
        raise InputDataError(msg) from error
    for value in (athena, detray):
        if not 0 < value <= _LARGEST:
            msg = f"{path}, line {number}: {value} is not an identifier; expected a number from 1 to {_LARGEST}"
            raise InputDataError(msg)
    return athena, detray


def _check_unique(path: Path | str, kind: str, ids: np.ndarray, numbers: list[int]) -> None:
    order = np.argsort(ids, kind="stable")
    repeats = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(repeats):
        first, second = sorted(numbers[k] for k in order[repeats[0] : repeats[0] + 2])
        value = _shown(ids[order[repeats[0]]], kind)
        msg = f"{path}, line {second}: {kind} identifier {value} is already in line {first}; expected each once"
        raise InputDataError(msg)


def translate_cells(cells: Cells, ids: AthenaIds, source: str) -> tuple[Cells, Source]:
    """Replace Athena identifiers of cells by detray's; cells with identifier 0 are dropped, with a warning.

    Parameters
    ----------
    cells : Cells
        Cells of one event, `geometry_id` as Athena numbers modules.
    ids : AthenaIds
        The map.
    source : str
        File they are from.

    Returns
    -------
    tuple of Cells, Source
        The remaining cells, and their lines in the file.

    Raises
    ------
    InputDataError
        If an identifier is not in the map; the message names file and line.
    """
    is_there = np.asarray(cells.geometry_id) != 0
    n_missing = int(np.count_nonzero(~is_there))
    if n_missing:
        _log.warning("%s: %d of %d cells have geometry_id 0; left out", source, n_missing, len(is_there))
    kept = Cells(*(np.asarray(getattr(cells, f.name))[is_there] for f in fields(cells)))
    lines = np.flatnonzero(is_there) + FIRST_DATA_LINE
    wanted = kept.geometry_id.astype(np.uint64, copy=False)
    found, is_known = ids.find(wanted)
    if not is_known.all():
        row = int(np.argmin(is_known))
        problem = f"geometry_id is {wanted[row]}, which is not in {ids.name}: is it the right map?"
        raise bad_row(Source(source, lines), "cells", row, problem)
    return replace(kept, geometry_id=ids.detray[found]), Source(source, lines)
