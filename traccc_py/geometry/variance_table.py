"""Calibrated measurement variances: by readout design, local axis and cluster size, kept with the detector as JSON.

A file belongs to one detector and one digitisation, since both shape clusters. It is made by simulation
(`traccc-py calibrate`); where there is none, the table is zero, which stands for "not known".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.records import MAX_CLUSTER_SIZE

__all__ = ["load_variances", "save_variances", "variance_file"]

_TABLES = Path(__file__).resolve().parent / "tables"
_AXES = ("loc0", "loc1")


def variance_file(detector: str, digitization: str) -> Path:
    """Return where the table of a detector and digitization lies, whether it exists or not."""
    return _TABLES / f"{detector}-{digitization}-variances.json"


def load_variances(path: str | Path, design_names: Sequence[str]) -> np.ndarray:
    """Read a variance table.

    Parameters
    ----------
    path : str or Path
        JSON file; it need not exist.
    design_names : sequence of str
        Designs, in the order of the result's rows.

    Returns
    -------
    ndarray of shape (n_designs, 2, MAX_CLUSTER_SIZE + 1), float32
        Variances [mm^2] by design, axis and cluster size; 0 where none is known.

    Raises
    ------
    GeometryError
        If the file is broken or names unknown designs, axes or sizes.
    """
    table = np.zeros((len(design_names), len(_AXES), MAX_CLUSTER_SIZE + 1), np.float32)
    file = Path(path)
    if not file.exists():
        return table
    try:
        designs = json.loads(file.read_bytes())["designs"]
        entries = [(d, a, s, v) for d, axes in designs.items() for a, row in axes.items() for s, v in row.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "{'designs': {name: {'loc0': {size: variance}}}}"
        msg = f"{file}: is no variance table ({error!r}); expected {expected}"
        raise GeometryError(msg) from error
    for design, axis, size, variance in entries:
        where = f"{file}: designs.{design}.{axis}.{size}"
        if design not in design_names or axis not in _AXES:
            msg = f"{where}: unknown; designs are {list(design_names)}, axes {list(_AXES)}"
            raise GeometryError(msg)
        if not (size.isdecimal() and 1 <= int(size) <= MAX_CLUSTER_SIZE):
            msg = f"{where}: {size!r} is no cluster size; expected 1 to {MAX_CLUSTER_SIZE}"
            raise GeometryError(msg)
        if not isinstance(variance, int | float) or not math.isfinite(variance) or variance <= 0:
            msg = f"{where}: is {variance!r}; expected a variance > 0 mm^2"
            raise GeometryError(msg)
        table[design_names.index(design), _AXES.index(axis), int(size)] = variance
    return table


def save_variances(
    path: str | Path, design_names: Sequence[str], table: np.ndarray, comment: Mapping[str, Any]
) -> None:
    """Write a variance table.

    Parameters
    ----------
    path : str or Path
        JSON file; its folder is made.
    design_names : sequence of str
        Designs, in the order of the table's rows.
    table : ndarray of shape (n_designs, 2, MAX_CLUSTER_SIZE + 1)
        Variances [mm^2]; entries of 0 are left out.
    comment : mapping
        How the table was made (command, sample, number of clusters, ...).

    Raises
    ------
    ValueError
        If the table has another shape.
    """
    expected = (len(design_names), len(_AXES), MAX_CLUSTER_SIZE + 1)
    if np.shape(table) != expected:
        msg = f"table has shape {np.shape(table)}; expected {expected}"
        raise ValueError(msg)
    designs = {
        name: {
            axis: {str(size): float(f"{row[size]:.4g}") for size in range(1, MAX_CLUSTER_SIZE + 1) if row[size] > 0}
            for axis, row in zip(_AXES, rows, strict=True)
        }
        for name, rows in zip(design_names, np.asarray(table, np.float64), strict=True)
    }
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"comment": dict(comment), "unit": "mm^2", "designs": designs}
    file.write_text(json.dumps(content, indent=1) + "\n")
