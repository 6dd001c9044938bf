"""Athena identifiers on the wire, Acts geometry ids inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.errors import GeometryError, InputDataError
from traccc_py.wire import SEPARATOR

__all__ = ["IdentifierMap"]

_HEXADECIMAL = 16


class IdentifierMap:
    """A one-to-one map between the identifiers clients use and the detector's.

    Parameters
    ----------
    athena, acts : ndarray of shape (n,), uint64
        Pairs, in any order.

    Raises
    ------
    GeometryError
        If an identifier appears twice, or is the separator 0.
    """

    def __init__(self, athena: np.ndarray, acts: np.ndarray) -> None:
        for name, ids in (("Athena identifier", athena), ("geometry id", acts)):
            unique, counts = np.unique(ids, return_counts=True)
            if len(unique) < len(ids):
                msg = f"{name} {unique[np.argmax(counts)]} appears {counts.max()} times in the map; expected once"
                raise GeometryError(msg)
        if np.any(athena == SEPARATOR):
            msg = f"Athena identifier {SEPARATOR} is in the map; expected others: it separates tracks in the output"
            raise GeometryError(msg)
        by_athena, by_acts = np.argsort(athena), np.argsort(acts)
        self._athena, self._acts_of = athena[by_athena], acts[by_athena]
        self._acts, self._athena_of = acts[by_acts], athena[by_acts]

    @classmethod
    def from_file(cls, path: Path | str) -> IdentifierMap:
        """Read ``hexadecimal Athena identifier,decimal Acts geometry id``, one pair per line.

        Raises
        ------
        GeometryError
            If the file can't be read, or a line is not such a pair; the message names it.
        """
        try:
            lines = Path(path).read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: can't be read: {error}"
            raise GeometryError(msg) from error
        pairs = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        table = np.array(pairs, np.uint64).reshape(-1, 2)
        try:
            return cls(table[:, 0], table[:, 1])
        except GeometryError as error:
            msg = f"{path}: {error}"
            raise GeometryError(msg) from error

    def check_covers(self, geometry_ids: np.ndarray) -> None:
        """Raise unless every module has an identifier.

        Raises
        ------
        GeometryError
            If one has none.
        """
        missing = geometry_ids[~np.isin(geometry_ids, self._acts)]
        if len(missing):
            msg = f"{len(missing)} of {len(geometry_ids)} modules have no Athena identifier, the first is {missing[0]}"
            raise GeometryError(msg)

    def to_acts(self, athena: np.ndarray) -> np.ndarray:
        """Return the geometry ids of Athena identifiers.

        Raises
        ------
        InputDataError
            If one is unknown.
        """
        row, is_known = _find(self._athena, athena)
        if not is_known.all():
            first = int(np.argmin(is_known))
            msg = f"cells row {first} (counted from 0): Athena identifier {athena[first]} is not in the server's map"
            raise InputDataError(msg)
        return self._acts_of[row]

    def to_athena(self, acts: np.ndarray) -> np.ndarray:
        """Return the Athena identifiers of geometry ids, all of which are in the map; the separator stays."""
        row, is_known = _find(self._acts, acts)
        return np.where(is_known, self._athena_of[row], np.uint64(SEPARATOR))


def _pair(path: Path | str, number: int, line: str) -> tuple[int, int]:
    try:
        athena, acts = line.split(",")
        pair = int(athena, _HEXADECIMAL), int(acts)
    except ValueError as error:
        msg = f"{path}, line {number}: is {line!r}; expected a hexadecimal and a decimal number with a comma between"
        raise GeometryError(msg) from error
    if not all(0 <= value <= np.iinfo(np.uint64).max for value in pair):
        msg = f"{path}, line {number}: is {line!r}; expected numbers of 64 bits"
        raise GeometryError(msg)
    return pair


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(known) == 0:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    row = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return row, known[row] == wanted
