"""Cells of one event as the reconstruction wants them: checked, in canonical order, without duplicates."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data.source import Source, bad_row, check_readout, find_modules, prefix
from traccc_py.edm import Cells
from traccc_py.errors import InputDataError

__all__ = ["PreparedCells", "prepare_cells"]

_log = logging.getLogger(__name__)

_KEY_MAX = 2**63


class PreparedCells(NamedTuple):
    """Cells ordered by (module_index, channel1, channel0), each channel once."""

    module_index: np.ndarray  # (n,) int32, index of the surface
    channel0: np.ndarray  # (n,) int32
    channel1: np.ndarray  # (n,) int32
    activation: np.ndarray  # (n,) float32
    time: np.ndarray  # (n,) float32 [ns]
    input_row: np.ndarray  # (n,) int64, row of the input; of merged cells the first

    @property
    def n_cells(self) -> int:
        """Number of cells [1]."""
        return len(self.module_index)


def prepare_cells(cells: Cells, detector: Any, source: Source | str | None = None) -> PreparedCells:
    """Check cells, bring them into canonical order and merge duplicates.

    The result does not depend on the order of the rows. Cells of one channel are merged: their activations are
    summed, the earliest time is kept, and a warning tells their number.

    Parameters
    ----------
    cells : Cells
        Cells of one event.
    detector : Detector
        Knows the modules and their channels.
    source : Source or str, optional
        File the cells are from: errors and the warning then name it and its lines, else the rows (counted from 0).

    Returns
    -------
    PreparedCells
        Arrays of equal length, none of them shared with `cells`.

    Raises
    ------
    InputDataError
        If a module is unknown, a channel is outside its module, an activation is negative or not finite, a time is
        not finite, or the columns differ in length or have the wrong type.
    """
    geometry_id = _check_columns(cells)
    n = len(geometry_id)
    if n == 0:
        none = np.zeros(0, np.int32)
        return PreparedCells(none, none, none, np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    # Cells of one module mostly stand together: each such run is looked up once.
    starts = np.flatnonzero(np.concatenate(([True], geometry_id[1:] != geometry_id[:-1])))
    lengths = np.diff(starts, append=n)
    run_module = find_modules(geometry_id[starts], starts, detector, "cells", source)
    module = np.repeat(run_module.astype(np.int64), lengths)
    arrays = detector.arrays()
    check_readout(detector, run_module, geometry_id[starts], starts, source)
    design = np.repeat(arrays.surfaces["design"][run_module], lengths)
    n_channels0, n_channels1 = arrays.designs["n_channels0"], arrays.designs["n_channels1"]
    _check_channels(cells, "channel0", n_channels0[design], source)
    _check_channels(cells, "channel1", n_channels1[design], source)
    _check_values(cells, source)
    return _order_and_merge(cells, module, int(n_channels0.max()), int(n_channels1.max()), source)


def _check_columns(cells: Cells) -> np.ndarray:
    """Check lengths and types; return the geometry ids as uint64."""
    n = len(cells.geometry_id)
    for name, kinds in (
        ("geometry_id", "iu"),
        ("channel0", "iu"),
        ("channel1", "iu"),
        ("activation", "iuf"),
        ("time", "iuf"),
    ):
        values = np.asarray(getattr(cells, name))
        if values.shape != (n,):
            msg = f"cells.{name} has shape {values.shape}; expected ({n},), as cells.geometry_id"
            raise InputDataError(msg)
        if values.dtype.kind not in kinds and n:
            expected = "integers" if kinds == "iu" else "numbers"
            msg = f"cells.{name} has type {values.dtype}; expected {expected}"
            raise InputDataError(msg)
    # A negative int64 becomes an id beyond 2^63, as when it came in through a signed column.
    return np.asarray(cells.geometry_id).astype(np.uint64, copy=False)


def _check_channels(cells: Cells, name: str, n_channels: np.ndarray, source: Source | str | None) -> None:
    channels = getattr(cells, name)
    good = channels < n_channels
    if channels.dtype.kind == "i":
        good &= channels >= 0
    if not good.all():
        row = int(np.argmin(good))
        problem = (
            f"{name} is {channels[row]}, outside module {cells.geometry_id[row]}; expected 0 to {n_channels[row] - 1}"
        )
        raise bad_row(source, "cells", row, problem)


def _check_values(cells: Cells, source: Source | str | None) -> None:
    largest = np.finfo(np.float32).max
    good = (cells.activation >= 0) & (cells.activation <= largest)
    if not good.all():
        row = int(np.argmin(good))
        problem = f"value (activation) is {cells.activation[row]}; expected a finite number >= 0"
        raise bad_row(source, "cells", row, problem)
    good = np.abs(cells.time) <= largest
    if not good.all():
        row = int(np.argmin(good))
        raise bad_row(source, "cells", row, f"timestamp is {cells.time[row]}; expected a finite number")


def _order_and_merge(cells: Cells, module: np.ndarray, n0: int, n1: int, source: Source | str | None) -> PreparedCells:
    """Sort by (module, channel1, channel0) and merge cells of one channel."""
    channel0 = np.asarray(cells.channel0).astype(np.int64, copy=False)
    channel1 = np.asarray(cells.channel1).astype(np.int64, copy=False)
    if (int(module.max()) + 1) * n0 * n1 < _KEY_MAX:
        key = (module * n1 + channel1) * n0 + channel0
    else:  # sensors with more than 2^24 channels a side
        _, key = np.unique(np.stack([module, channel1, channel0]), axis=1, return_inverse=True)
    order = None if np.all(key[1:] > key[:-1]) else np.argsort(key)
    if order is None:
        order = np.arange(len(key))
    else:
        key = key[order]
        is_repeated = key[1:] == key[:-1]
        if is_repeated.any():
            return _merge(cells, module, order, is_repeated, source)
    activation = cells.activation[order].astype(np.float32)
    return _gather(cells, module, order, activation, cells.time[order].astype(np.float32))


def _merge(
    cells: Cells, module: np.ndarray, order: np.ndarray, is_repeated: np.ndarray, source: Source | str | None
) -> PreparedCells:
    """Merge neighbours in `order` that are of one channel.

    Activations are summed in double precision, smallest first: the sum does not depend on the order of the rows.
    """
    is_first = np.concatenate(([True], ~is_repeated))
    channel = np.cumsum(is_first)  # ordinal of the channel of each cell in `order`
    shared = np.flatnonzero(~is_first | np.concatenate((is_repeated, [False])))
    rows = order[shared]
    canonical = order.copy()
    canonical[shared] = rows[np.lexsort((rows, cells.activation[rows], channel[shared]))]
    starts = np.flatnonzero(is_first)
    activation = np.add.reduceat(cells.activation[canonical].astype(np.float64), starts)
    if activation.max() > np.finfo(np.float32).max:
        sum_up = f"the activations of cells of one channel sum up to {activation.max():.3g}"
        msg = f"{prefix(source)}{sum_up}; expected a float32 number"
        raise InputDataError(msg)
    time = np.minimum.reduceat(cells.time[canonical], starts)
    first_row = np.minimum.reduceat(canonical, starts)
    _log.warning(
        "%s%d of %d cells repeat a channel of their module; merged: activations summed, earliest time kept",
        prefix(source),
        np.count_nonzero(is_repeated),
        len(order),
    )
    return _gather(cells, module, first_row, activation.astype(np.float32), time.astype(np.float32))


def _gather(
    cells: Cells, module: np.ndarray, order: np.ndarray, activation: np.ndarray, time: np.ndarray
) -> PreparedCells:
    return PreparedCells(
        module_index=module[order].astype(np.int32),
        channel0=cells.channel0[order].astype(np.int32),
        channel1=cells.channel1[order].astype(np.int32),
        activation=activation,
        time=time,
        input_row=order.astype(np.int64, copy=False),
    )
