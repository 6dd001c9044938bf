"""Dead modules and channels: what a list of them says of a detector, for its cells and for kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import InputDataError
from traccc_py.geometry.records import DEAD_RANGE, DetectorArrays

__all__ = ["ALL", "DeadChannels", "DeadRanges", "find_dead_ranges"]

ALL = -1  #: first and last channel of a range over all channels of an axis
_MAX_LISTED = 5  # ids named in an error


@dataclass(frozen=True, slots=True)
class DeadChannels:
    """A list of dead channels; a row is a rectangle of channels of one module. Rows may repeat or overlap."""

    geometry_id: np.ndarray  # (n,) uint64
    channel0: np.ndarray  # (n, 2) int64, first and last channel along axis 0; ALL, ALL: every one
    channel1: np.ndarray  # (n, 2) int64, the same along axis 1
    places: tuple[str, str] = ("dead channels, row ", "0")  #: name of a row in errors, number of the first

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.geometry_id)

    @classmethod
    def of_modules(cls, geometry_id: Any) -> DeadChannels:
        """Return a list of modules whose channels are all dead."""
        ids = np.asarray(geometry_id, np.uint64)
        every = np.full((len(ids), 2), ALL, np.int64)
        return cls(ids, every, every)

    def and_also(self, other: DeadChannels) -> DeadChannels:
        """Return the rows of both lists."""
        return DeadChannels(
            np.concatenate([self.geometry_id, other.geometry_id]),
            np.concatenate([self.channel0, other.channel0]),
            np.concatenate([self.channel1, other.channel1]),
        )

    def place(self, row: int) -> str:
        """Return where a row stands, for errors."""
        name, first = self.places
        return f"{name}{row + int(first)}"


class DeadRanges(NamedTuple):
    """The dead channels of each surface of a detector."""

    offsets: np.ndarray  # (n_surfaces + 1,) int32, first range of each surface
    ranges: np.ndarray  # (offsets[-1],) DEAD_RANGE
    is_dead: np.ndarray  # (n_surfaces,) bool, no channel is left

    def contain(self, module: np.ndarray, channel0: np.ndarray, channel1: np.ndarray) -> np.ndarray:
        """Return which channels are dead.

        Parameters
        ----------
        module, channel0, channel1 : ndarray of shape (n,), int
            Surfaces and channels.

        Returns
        -------
        ndarray of shape (n,), bool
            Whether each is dead.
        """
        found = self.is_dead[module]
        sizes = np.diff(self.offsets)[module]
        rows = np.flatnonzero((sizes > 0) & ~found)
        step = 0
        while len(rows):  # range number `step` of those that have so many
            r = self.ranges[self.offsets[module[rows]] + step]
            c0, c1 = channel0[rows], channel1[rows]
            found[rows] |= (r["first0"] <= c0) & (c0 <= r["last0"]) & (r["first1"] <= c1) & (c1 <= r["last1"])
            step += 1
            rows = rows[(sizes[rows] > step) & ~found[rows]]
        return found


def find_dead_ranges(dead: DeadChannels, module: np.ndarray, arrays: DetectorArrays) -> DeadRanges:
    """Return the dead channels by surface, in a form that does not depend on how they were listed.

    Parameters
    ----------
    dead : DeadChannels
        The list.
    module : ndarray of shape (n,), int
        Surface of each row.
    arrays : DetectorArrays
        Surfaces, designs and translations.

    Raises
    ------
    InputDataError
        If a channel is not on its module.
    """
    design = arrays.designs[arrays.surfaces["design"][module]]
    limits = np.stack([design["n_channels0"], design["n_channels1"]], axis=1).astype(np.int64)
    bounds = np.stack([dead.channel0, dead.channel1], axis=1)  # (n, 2 axes, 2)
    is_all = (bounds == ALL).all(axis=2)
    is_good = is_all | ((bounds[..., 0] >= 0) & (bounds[..., 0] <= bounds[..., 1]) & (bounds[..., 1] < limits))
    if not is_good.all():
        _refuse(dead, is_good, limits)
    bounds = np.where(is_all[..., None], np.stack([np.zeros_like(limits), limits - 1], axis=2), bounds)
    rows = np.column_stack([module, bounds.reshape(len(module), 4)]).astype(np.int64)
    rows = _joined(_joined(rows, 0), 1)
    return _by_surface(rows, arrays)


def _refuse(dead: DeadChannels, is_good: np.ndarray, limits: np.ndarray) -> None:
    """Raise for the first row whose channels are not on its module."""
    row = int(np.argmin(is_good.all(axis=1)))
    axis = int(np.argmin(is_good[row]))
    first, last = (dead.channel0, dead.channel1)[axis][row].tolist()
    msg = (
        f"{dead.place(row)}: channels {first} to {last} along axis {axis} of module {dead.geometry_id[row]}; expected "
        f"0 <= first <= last <= {limits[row, axis] - 1}, or {ALL} for both: all channels"
    )
    raise InputDataError(msg)


def _joined(rows: np.ndarray, axis: int) -> np.ndarray:
    """Join ranges of one module that touch or overlap along an axis and agree in the other."""
    first, last = 1 + 2 * axis, 2 + 2 * axis
    other_first, other_last = 3 - 2 * axis, 4 - 2 * axis
    order = np.lexsort((rows[:, last], rows[:, first], rows[:, other_last], rows[:, other_first], rows[:, 0]))
    joined: list[list[int]] = []
    for row in rows[order].tolist():
        before = joined[-1] if joined else None
        same = before is not None and all(before[k] == row[k] for k in (0, other_first, other_last))
        if before is not None and same and row[first] <= before[last] + 1:
            before[last] = max(before[last], row[last])
        else:
            joined.append(row)
    return np.array(joined, np.int64).reshape(-1, rows.shape[1])


def _by_surface(rows: np.ndarray, arrays: DetectorArrays) -> DeadRanges:
    """Return the records of ranges (module, first0, last0, first1, last1), by module, then channels."""
    rows = rows[np.lexsort(rows.T[::-1])]
    module, n = rows[:, 0], len(arrays.surfaces)
    design = arrays.designs[arrays.surfaces["design"][module]]
    ranges = np.zeros(len(rows), DEAD_RANGE)
    is_whole = np.ones(len(rows), bool)
    for axis in (0, 1):
        first, last = rows[:, 1 + 2 * axis], rows[:, 2 + 2 * axis]
        low, pitch = design[f"min{axis}"].astype(np.float64), design[f"pitch{axis}"].astype(np.float64)
        low += arrays.translations[module, axis]
        is_first, is_last = first == 0, last == design[f"n_channels{axis}"] - 1
        ranges[f"first{axis}"], ranges[f"last{axis}"] = first, last
        ranges[f"min{axis}"] = np.where(is_first, -np.inf, low + first * pitch)
        ranges[f"max{axis}"] = np.where(is_last, np.inf, low + (last + 1) * pitch)
        is_whole &= is_first & is_last
    offsets = np.concatenate(([0], np.cumsum(np.bincount(module, minlength=n)))).astype(np.int32)
    is_dead = np.zeros(n, bool)
    is_dead[module[is_whole]] = True
    return DeadRanges(offsets, ranges, is_dead)
