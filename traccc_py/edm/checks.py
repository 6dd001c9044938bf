"""Checks of collections that come from outside."""

from __future__ import annotations

import numpy as np

from traccc_py.edm.collections import Cells, ModuleCells
from traccc_py.errors import InputDataError

__all__ = ["check_cell_columns"]

_PER_CELL = (("channel0", "iu"), ("channel1", "iu"), ("activation", "iuf"), ("time", "iuf"))


def check_cell_columns(cells: Cells | ModuleCells) -> None:
    """Check lengths and types of the columns that the reconstruction uses.

    Raises
    ------
    InputDataError
        If columns differ in length or have the wrong type.
    """
    n = len(cells)
    if isinstance(cells, ModuleCells):
        n_modules = len(cells.geometry_id)
        expected = [("geometry_id", "iu", n_modules), ("n_cells", "iu", n_modules), *((*c, n) for c in _PER_CELL)]
    else:
        expected = [("geometry_id", "iu", n), *((*c, n) for c in _PER_CELL)]
    for name, kinds, length in expected:
        values = np.asarray(getattr(cells, name))
        if values.shape != (length,):
            like = "geometry_id" if length == len(cells.geometry_id) else "channel0"
            msg = f"cells.{name} has shape {values.shape}; expected ({length},), as cells.{like}"
            raise InputDataError(msg)
        if values.dtype.kind not in kinds and length:
            wanted = "integers" if kinds == "iu" else "numbers"
            msg = f"cells.{name} has type {values.dtype}; expected {wanted}"
            raise InputDataError(msg)
