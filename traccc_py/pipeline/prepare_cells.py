"""Prepare the cells of one event for reconstruction: checked, in canonical order, without duplicates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from traccc_py.data.source import Source, bad_row, check_readout, find_modules, prefix
from traccc_py.edm import Cells, ModuleCells
from traccc_py.edm.checks import check_cell_columns
from traccc_py.errors import InputDataError
from traccc_py.geometry import Detector
from traccc_py.geometry.dead_channels import DeadRanges
from traccc_py.pipeline.cell_loop import (
    CHANNEL_TYPES,
    MAX_ACTIVATION,
    STRIDED_CHANNEL_TYPE,
    check_and_convert,
    order_cells,
)

__all__ = ["COLUMN_TYPES", "PreparedCells", "prepare_cells"]

_log = logging.getLogger(__name__)

#: Types of the columns of prepared cells, except input_row.
COLUMN_TYPES = (*[np.int32] * 3, *[np.float32] * 2)


class PreparedCells(NamedTuple):
    """Cells ordered by (module_index, channel1, channel0), each channel once."""

    module_index: np.ndarray  # (n,) int32, index of the surface
    channel0: np.ndarray  # (n,) int32
    channel1: np.ndarray  # (n,) int32
    activation: np.ndarray  # (n,) float32
    time: np.ndarray  # (n,) float32 [ns]
    input_row: (
        np.ndarray | None
    )  # (n,) int64, row of the input; of merged cells the first. None: i, all are as they came

    @property
    def n_cells(self) -> int:
        """Number of cells [1]."""
        return len(self.module_index)


class _Runs(NamedTuple):
    """Consecutive cells of one module, so that each module is looked up once."""

    geometry_id: np.ndarray  # (n_runs,) uint64
    starts: np.ndarray  # (n_runs + 1,) int64, first cell; the last is the number of cells


def prepare_cells(
    cells: Cells | ModuleCells,
    detector: Detector,
    source: Source | str | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> PreparedCells:
    """Check cells, bring them into canonical order and merge duplicates.

    The result does not depend on the order of the rows. Cells of one channel are merged: their activations are
    summed, the earliest time is kept, and a warning gives their number. Cells of dead channels are left out, with a
    warning.

    Parameters
    ----------
    cells : Cells or ModuleCells
        Cells of one event.
    detector : Detector
        Knows the modules and their channels.
    source : Source or str, optional
        File the cells are from: errors and the warning then name it and its lines, else the rows (counted from 0).
    out : sequence of ndarray, optional
        Memory for the first five columns, each with room for all cells.

    Returns
    -------
    PreparedCells
        Arrays of equal length, in `out` if that was given; none shares memory with `cells`.

    Raises
    ------
    InputDataError
        If a module is unknown, a channel is outside its module, an activation, or the sum of those of one channel, is
        not from 0 to 1e29, a time is not finite, or the columns differ in length or have the wrong type.
    """
    check_cell_columns(cells)
    runs = _module_runs(cells)
    rows = runs.starts[:-1]
    modules = find_modules(runs.geometry_id, rows, detector, "cells", source)
    check_readout(detector, modules, runs.geometry_id, rows, source)
    arrays = detector.arrays()
    design = arrays.surfaces["design"][modules]
    limits = arrays.designs["n_channels0"][design], arrays.designs["n_channels1"][design]
    n = len(cells)
    made = tuple(np.empty(n, dtype) for dtype in COLUMN_TYPES) if out is None else tuple(column[:n] for column in out)
    is_good, is_ordered = check_and_convert(runs.starts, modules, limits, _columns(cells), made)
    if not is_good:
        raise _first_problem(cells, runs, limits, source)
    prepared = PreparedCells._make([*made, None])
    if is_ordered and detector.dead_ranges is None:
        return prepared
    ordered = prepared if is_ordered else _order_and_merge(prepared, len(arrays.surfaces), source)
    live = ordered if detector.dead_ranges is None else _without_dead(ordered, detector.dead_ranges, source)
    for column, values in zip(made, live, strict=False):  # all but input_row
        column[: live.n_cells] = values
    return PreparedCells._make([*(column[: live.n_cells] for column in made), live.input_row])


def _without_dead(cells: PreparedCells, dead: DeadRanges, source: Source | str | None) -> PreparedCells:
    """Leave out cells of dead channels: whatever they say is not known to be true."""
    kept = np.flatnonzero(~dead.contain(*cells[:3]))
    n = cells.n_cells - len(kept)
    if n == 0:
        return cells
    _log.warning("%s%d of %d cells are of dead channels; left out", prefix(source), n, cells.n_cells)
    rows = kept if cells.input_row is None else cells.input_row[kept]
    return PreparedCells._make([*(column[kept] for column in cells[:-1]), rows])


def _module_runs(cells: Cells | ModuleCells) -> _Runs:
    # A negative int64 becomes an id above 2^63: ids may be in signed columns.
    ids = np.asarray(cells.geometry_id).astype(np.uint64, copy=False)
    n = len(cells)
    if isinstance(cells, Cells):
        is_first = np.ones(n, bool)
        np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
        first = np.flatnonzero(is_first)
        return _Runs(ids[first], np.append(first, n))
    lengths = np.asarray(cells.n_cells).astype(np.int64, copy=False)
    least, most = lengths.min(initial=0), lengths.max(initial=0)
    if least < 0 or most > n or lengths.sum() != n:  # the sum may overflow
        msg = f"cells.n_cells has numbers from {least} to {most} with the sum {lengths.sum()}; expected the sum {n}"
        raise InputDataError(msg)
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return _Runs(ids, starts)


def _columns(cells: Cells | ModuleCells) -> tuple[np.ndarray, ...]:
    """Return channels, activations and times in types that `check_and_convert` takes."""
    channels = np.asarray(cells.channel0), np.asarray(cells.channel1)
    rest = np.asarray(cells.activation), np.asarray(cells.time)
    if _are_strided(channels, STRIDED_CHANNEL_TYPE) and _are_strided(rest, np.float32):
        return _read_only(*channels, *rest)
    is_known = channels[0].dtype == channels[1].dtype and channels[0].dtype in CHANNEL_TYPES
    kind = channels[0].dtype if is_known else np.int64
    with np.errstate(over="ignore"):  # values that are too large become inf, which is refused
        values = [np.ascontiguousarray(column, np.float32) for column in rest]
    return _read_only(*(np.ascontiguousarray(channel, kind) for channel in channels), *values)


def _read_only(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return views that can't be written: of others Numba could not tell which of the compiled loops is meant."""
    views = tuple(column.view() for column in columns)
    for view in views:
        view.flags.writeable = False
    return views


def _are_strided(columns: Sequence[np.ndarray], dtype: type) -> bool:
    """Return whether these are columns of rows, of a type."""
    return all(column.dtype == dtype and not column.flags.c_contiguous for column in columns)


def _first_problem(
    cells: Cells | ModuleCells, runs: _Runs, limits: tuple[np.ndarray, np.ndarray], source: Source | str | None
) -> InputDataError:
    """Return the error that names the first row of the first column with a value out of range."""
    lengths = np.diff(runs.starts)
    for name, limit in zip(("channel0", "channel1"), limits, strict=True):
        channels, n_channels = getattr(cells, name), np.repeat(limit, lengths)
        good = (channels < n_channels) & (channels >= 0)
        if not good.all():
            row = int(np.argmin(good))
            module = runs.geometry_id[np.searchsorted(runs.starts, row, side="right") - 1]
            problem = f"{name} is {channels[row]}, outside module {module}; expected 0 to {n_channels[row] - 1}"
            return bad_row(source, "cells", row, problem)
    *_, activation, time = _columns(cells)
    good = (activation >= 0) & (activation <= MAX_ACTIVATION)
    if not good.all():
        row = int(np.argmin(good))
        problem = f"value (activation) is {cells.activation[row]}; expected a number from 0 to {MAX_ACTIVATION:.0e}"
        return bad_row(source, "cells", row, problem)
    row = int(np.argmin(np.isfinite(time)))
    return bad_row(source, "cells", row, f"timestamp is {cells.time[row]}; expected a finite number")


def _order_and_merge(cells: PreparedCells, n_modules: int, source: Source | str | None) -> PreparedCells:
    """Sort by (module, channel1, channel0) and merge cells of one channel."""
    order = np.empty(cells.n_cells, np.int64)
    order_cells(*cells[:3], np.zeros(n_modules, np.int64), np.empty_like(order), order)
    ordered = PreparedCells._make([*(column[order] for column in cells[:-1]), order])
    is_repeated = np.logical_and.reduce([column[1:] == column[:-1] for column in ordered[:3]])
    return _merge(cells, order, is_repeated, source) if is_repeated.any() else ordered


def _merge(
    cells: PreparedCells, order: np.ndarray, is_repeated: np.ndarray, source: Source | str | None
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
    if activation.max() > MAX_ACTIVATION:
        largest = int(np.argmax(activation))
        rows = canonical[starts[largest] : np.append(starts, len(order))[largest + 1]]
        sum_up = f"activations of {len(rows)} cells of this channel sum up to {activation[largest]:.3g}"
        problem = f"the {sum_up}; expected at most {MAX_ACTIVATION:.0e}"
        raise bad_row(source, "cells", int(rows.min()), problem)
    time = np.minimum.reduceat(cells.time[canonical], starts)
    first_row = np.minimum.reduceat(canonical, starts)
    _log.warning(
        "%s%d of %d cells repeat a channel of their module; merged: activations summed, earliest time kept",
        prefix(source),
        np.count_nonzero(is_repeated),
        len(order),
    )
    channels = (column[first_row] for column in cells[:3])
    return PreparedCells._make([*channels, activation.astype(np.float32), time, first_row])
