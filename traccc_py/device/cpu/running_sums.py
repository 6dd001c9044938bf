"""Running sums of a column, and their total without overflow, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.device.cpu.host_loop import host_loop

__all__ = ["running_sums"]

_COLUMN = np.empty(0, np.int32)


@host_loop([(_COLUMN, _COLUMN)])
def running_sums(values: Any, offsets: Any) -> Any:
    """Write the exclusive running sums of values, and their total behind them.

    Parameters
    ----------
    values : ndarray of shape (n,), int32
        Counts.
    offsets : ndarray of at least n + 1 rows, int32
        Output; wrong where the sum does not fit.

    Returns
    -------
    int
        The total.
    """
    total = np.int64(0)
    for i in range(len(values)):
        offsets[i] = np.int32(total)
        total += values[i]
    offsets[len(values)] = np.int32(total)
    return total
