"""Calibrated measurement variances by readout design, local axis and cluster size, stored with the detector as JSON.

A file belongs to one detector and one digitisation, since both shape clusters. It is made by simulation
(`traccc-py calibrate`); without a file, the tables are zero, which means "unknown".

Each entry is a variance over all tracks of a sample and, for tracks of known direction, sigmas as a function of
the *end path*: the projected length of the path in the sensor, in channels, less the channels between the cluster's
first and last one (size - 2). A path of L channels makes clusters of L to L + 2 channels, so it runs from 0 to 2, and
more if a part of the path stayed below the threshold.

Sizes without entry have the sigmas of the next smaller one. Their ends are known equally well, but the mean of their
charges is not: n channels of pitch p that a steep path crosses have activations near p, each with a Gaussian error s
(charge_smearing), so the variance of the mean is s^2 (n^2 - 1) / (12 n), and each further channel adds s^2 / 12.
Digital readout has no such error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.files import write_files
from traccc_py.geometry.records import END_PATH_STEP, LARGEST, MAX_CLUSTER_SIZE, N_END_PATHS

__all__ = [
    "END_PATHS",
    "VarianceTable",
    "end_path",
    "load_variances",
    "save_variances",
    "sigma_of_path",
    "sigma_of_ends",
    "variance_file",
    "variance_per_channel",
    "path_sigmas",
    "read_variances",
    "with_all_sizes",
    "with_largest",
    "with_pixel_floor",
]

_TABLES = Path(__file__).resolve().parent / "tables"
_AXES = ("loc0", "loc1")
_TWO_DIMENSIONS = 2
END_PATHS = END_PATH_STEP * np.arange(N_END_PATHS)  #: end paths of the sigmas, in channels


class VarianceTable(NamedTuple):
    """Variances of measurements; 0 where none is known."""

    variances: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) [mm^2], by axis and cluster size
    path_sigmas: np.ndarray  # (n_designs, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS) [mm], by end path

    @classmethod
    def zeros(cls, n_designs: int, dtype: Any = np.float32) -> VarianceTable:
        """Return a table without entries."""
        shape = (n_designs, len(_AXES), MAX_CLUSTER_SIZE + 1)
        return cls(np.zeros(shape, dtype), np.zeros((*shape, N_END_PATHS), dtype))


def variance_file(detector: str, digitization: str) -> Path:
    """Return the path of the table of a detector and digitization, whether it exists or not."""
    return _TABLES / f"{detector}-{digitization}-variances.json"


def end_path(size: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return the end paths of clusters of `size` channels that paths of projected length `path` [channels] made."""
    return np.asarray(path) - (np.asarray(size) - 2)


def sigma_of_ends(ends: np.ndarray, pitch: float) -> np.ndarray:
    """Return the sigmas [mm] if only a cluster's first and last channel are known, as in digital readout.

    The path's first end is then anywhere in a range of `ends` channels (end path up to 1) or 2 - `ends` channels.
    """
    return pitch * np.maximum(1.0 - np.abs(np.asarray(ends) - 1.0), 0.0) / math.sqrt(12.0)


def variance_per_channel(designs: np.ndarray) -> np.ndarray:
    """Return the variance that each further channel adds to a long cluster [mm^2], by design."""
    return np.where(designs["is_digital"] == 1, 0.0, designs["charge_smearing"].astype(np.float64) ** 2 / 12.0)


def sigma_of_path(
    path_sigmas: np.ndarray, designs: np.ndarray, design: np.ndarray, axis: int, size: np.ndarray, path: np.ndarray
) -> np.ndarray:
    """Look up sigmas of measurements along one axis.

    They are interpolated linearly. Outside the table either a part of the path left no signal or the cluster is longer
    than the path explains; half the length in question is added. Clusters above MAX_CLUSTER_SIZE gain the noise of
    their further channels.

    Parameters
    ----------
    path_sigmas : ndarray of shape (n_designs, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS)
        Table [mm].
    designs : ndarray of shape (n_designs,)
        DESIGN records.
    design, size : ndarray of shape (n,), integer
        Design and cluster size of each measurement.
    axis : int
        0 or 1.
    path : ndarray of shape (n,)
        Projected length of the path in the sensor, in channels.

    Returns
    -------
    ndarray of shape (n,), float64
        Sigmas [mm]; 0 where none is known.
    """
    row = np.minimum(size, MAX_CLUSTER_SIZE)
    rows = path_sigmas[design, axis, row].astype(np.float64)
    ends = end_path(size, path)
    place = np.clip(ends / END_PATH_STEP, 0, N_END_PATHS - 1)
    k = np.minimum(place.astype(np.int64), N_END_PATHS - 2)[:, None]
    low, high = (np.take_along_axis(rows, k + j, axis=1)[:, 0] for j in (0, 1))
    sigma = low + (place - k[:, 0]) * (high - low)
    beyond = 0.5 * designs[f"pitch{axis}"][design] * np.abs(ends - END_PATH_STEP * place)
    noise = (size - row) * variance_per_channel(designs)[design]
    return np.where(sigma > 0, np.sqrt((sigma + beyond) ** 2 + noise), 0.0)


def with_all_sizes(path_sigmas: np.ndarray, designs: np.ndarray) -> np.ndarray:
    """Return the sigmas; sizes without entry have those of the next smaller size of the axis."""
    found = np.array(path_sigmas)
    growth = variance_per_channel(designs)[:, None, None]
    for size in range(2, MAX_CLUSTER_SIZE + 1):
        row, smaller = found[:, :, size], found[:, :, size - 1].astype(np.float64)
        found[:, :, size] = np.where((row == 0) & (smaller > 0), np.sqrt(smaller**2 + growth), row)
    return found


def with_pixel_floor(path_sigmas: np.ndarray, designs: np.ndarray, floor: float) -> np.ndarray:
    """Return the sigmas with a smallest value [mm] for pixels: designs of two dimensions that are not digital."""
    is_pixel = (designs["dimensions"] == _TWO_DIMENSIONS) & (designs["is_digital"] == 0)
    floors = np.where(is_pixel, floor, 0.0).astype(path_sigmas.dtype)[:, None, None, None]
    return np.where(path_sigmas > 0, np.maximum(path_sigmas, floors), path_sigmas)


def with_largest(path_sigmas: np.ndarray) -> np.ndarray:
    """Return the sigmas with the largest of each design and axis where size 0 would be (`records.LARGEST`)."""
    found = np.array(path_sigmas)
    found[:, :, LARGEST, 0] = found[:, :, LARGEST + 1 :].max(axis=(2, 3))
    return found


def path_sigmas(detector: Any, config: Any) -> np.ndarray:
    """Return the table for a configuration: all sizes, the floor of pixels; empty if variances do not come from it.

    Parameters
    ----------
    detector : DetectorArrays
        Host arrays.
    config : ClusterizationConfig
        Where variances come from.

    Returns
    -------
    ndarray of shape (n_designs, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS), float32
        Sigmas [mm]; 0 where a measurement keeps its variance.
    """
    if config.variance != "calibrated":
        return np.zeros_like(detector.path_sigmas)
    sigmas = with_all_sizes(detector.path_sigmas, detector.designs)
    return with_largest(with_pixel_floor(sigmas, detector.designs, config.pixel_sigma_floor))


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _check_entry(where: str, entry: Any) -> None:
    variance = entry.get("variance")
    if not _is_positive(variance):
        msg = f"{where}.variance: is {variance!r}; expected a variance > 0 mm^2"
        raise GeometryError(msg)
    sigmas = entry.get("sigmas", [])
    if sigmas != [] and (
        not isinstance(sigmas, list) or len(sigmas) != N_END_PATHS or not all(_is_positive(s) for s in sigmas)
    ):
        msg = f"{where}.sigmas: is {sigmas!r}; expected {N_END_PATHS} numbers > 0 mm, one for each of end_paths"
        raise GeometryError(msg)


def _entries(file: Path) -> Iterator[tuple[str, str, str, Any]]:
    """Yield (design, axis, size, entry) of a file."""
    try:
        content = json.loads(file.read_bytes())
        if "end_paths" in content and content["end_paths"] != END_PATHS.tolist():
            msg = f"{file}: end_paths: is {content['end_paths']}; expected {END_PATHS.tolist()}"
            raise GeometryError(msg)
        for design, axes in content["designs"].items():
            for axis, row in axes.items():
                for size, entry in row.items():
                    entry.keys()
                    yield design, axis, size, entry
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "{'designs': {name: {'loc0': {size: {'variance': variance, 'sigmas': [...]}}}}}"
        msg = f"{file}: is not a variance table ({error!r}); expected {expected}"
        raise GeometryError(msg) from error


def load_variances(path: str | Path, design_names: Sequence[str]) -> VarianceTable:
    """Read a variance table.

    Parameters
    ----------
    path : str or Path
        JSON file; it need not exist.
    design_names : sequence of str
        Designs, in the order of the result's rows.

    Returns
    -------
    VarianceTable
        Variances and sigmas, float32.

    Raises
    ------
    GeometryError
        If the file is broken or names unknown designs, axes or sizes.
    """
    table = VarianceTable.zeros(len(design_names))
    file = Path(path)
    if not file.exists():
        return table
    for design, axis, size, entry in list(_entries(file)):
        where = f"{file}: designs.{design}.{axis}.{size}"
        if design not in design_names or axis not in _AXES:
            msg = f"{where}: unknown; designs are {list(design_names)}, axes {list(_AXES)}"
            raise GeometryError(msg)
        if not (size.isdecimal() and 1 <= int(size) <= MAX_CLUSTER_SIZE):
            msg = f"{where}: {size!r} is not a cluster size; expected 1 to {MAX_CLUSTER_SIZE}"
            raise GeometryError(msg)
        _check_entry(where, entry)
        at = design_names.index(design), _AXES.index(axis), int(size)
        table.variances[at] = entry["variance"]
        table.path_sigmas[at] = entry.get("sigmas") or 0.0
    return table


def read_variances(path: str | Path, design_names: Sequence[str]) -> VarianceTable:
    """Read a variance table as `load_variances`, which must exist.

    Raises
    ------
    GeometryError
        If there is no such file, or it is broken or names unknown designs, axes or sizes.
    """
    if not Path(path).is_file():
        msg = f"{path}: there is no such file; expected a table made by 'traccc-py calibrate' or 'traccc-py tune'"
        raise GeometryError(msg)
    return load_variances(path, design_names)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def save_variances(
    path: str | Path, design_names: Sequence[str], table: VarianceTable, comment: Mapping[str, Any]
) -> None:
    """Write a variance table.

    Parameters
    ----------
    path : str or Path
        JSON file; its folder is made.
    design_names : sequence of str
        Designs, in the order of the table's rows.
    table : VarianceTable
        Variances and sigmas; sizes whose variance is 0 are left out.
    comment : mapping
        How the table was made (command, sample, number of clusters, ...).

    Raises
    ------
    ValueError
        If the table has another shape.
    """
    for found, expected in zip(table, VarianceTable.zeros(len(design_names)), strict=True):
        if np.shape(found) != expected.shape:
            msg = f"table has shape {np.shape(found)}; expected {expected.shape}"
            raise ValueError(msg)
    designs: dict[str, Any] = {}
    for i, name in enumerate(design_names):
        designs[name] = {axis: {} for axis in _AXES}
        for k, axis in enumerate(_AXES):
            for size in np.flatnonzero(table.variances[i, k] > 0).tolist():
                entry: dict[str, Any] = {"variance": _rounded(table.variances[i, k, size])}
                if table.path_sigmas[i, k, size].all():
                    entry["sigmas"] = [_rounded(sigma) for sigma in table.path_sigmas[i, k, size]]
                designs[name][axis][str(size)] = entry
    content = {
        "comment": dict(comment),
        "units": {"variance": "mm^2", "sigmas": "mm"},
        "end_paths": END_PATHS.tolist(),
        "designs": designs,
    }
    write_files({Path(path): (_compact(json.dumps(content, indent=1)) + "\n").encode()})


def _compact(text: str) -> str:
    """Put each list of numbers, which `json` breaks after each number, on one line."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if inside:
            lines[-1] += line.strip() if line.strip().startswith("]") else line.strip().replace(",", ", ")
            inside = not line.strip().startswith("]")
        else:
            lines.append(line)
            inside = line.endswith("[")
    return "\n".join(lines)
