"""Prepare measurements and spacepoints of one event for reconstruction: checked, in canonical order."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data.source import Source, bad_row, check_shapes, find_modules, prefix
from traccc_py.edm import Candidates, Measurements, Spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry import Detector
from traccc_py.pipeline.prepare_candidates import PreparedCandidates, prepare_candidates, renumbered

__all__ = ["PreparedMeasurements", "PreparedSpacepoints", "prepare_measurements", "prepare_spacepoints"]

_log = logging.getLogger(__name__)

_SMALLEST_ERROR = 1e-4  #: that sensors reach, by an order of magnitude [mm]
_MAX_OUTSIDE = 10.0  #: largest distance of a position from its sensor [mm]
_MAX_DISTANCE = 10.0  #: largest distance of a spacepoint from its measurement [mm]
_PIXEL = 2  #: dimensions
_N_COLUMNS = 6  #: of prepared measurements that have a row for each
#: Variances of what is measured [mm^2]: products of two are float32 numbers.
_MIN_VARIANCE, _MAX_VARIANCE = 1e-18, 1e18


class PreparedSpacepoints(NamedTuple):
    """Spacepoints, ordered by measurement, then by position."""

    global_position: np.ndarray  # (n, 3) float32 [mm]
    measurement_index: np.ndarray  # (n,) int32, row of the prepared measurements


class PreparedMeasurements(NamedTuple):
    """Measurements, ordered by (module_index, measurement_id, values)."""

    module_index: np.ndarray  # (n,) int32, index of the surface
    local_position: np.ndarray  # (n, 2) float32 [mm]
    local_variance: np.ndarray  # (n, 2) float32 [mm^2]
    dimensions: np.ndarray  # (n,) int32
    time: np.ndarray  # (n,) float32 [ns]
    measurement_id: np.ndarray  # (n,) int64
    spacepoints: PreparedSpacepoints | None = None
    candidates: PreparedCandidates | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells [1]: there are none."""
        return 0


def prepare_measurements(
    measurements: Measurements, detector: Detector, source: Source | str | None = None
) -> PreparedMeasurements:
    """Check measurements and bring them into canonical order.

    The result does not depend on the order of the rows. All equal rows are kept; those on dead modules are left out,
    with a warning. Cells, cluster sizes and module indices of the input are not used. Errors larger than a sensor or
    below 0.1 um are used, with a warning.

    Parameters
    ----------
    measurements : Measurements
        Measurements of one event.
    detector : Detector
        Knows the modules and their sizes.
    source : Source or str, optional
        File they are from: errors then name its lines, else the rows (counted from 0).

    Returns
    -------
    PreparedMeasurements
        Arrays of equal length, none of them shared with `measurements`.

    Raises
    ------
    InputDataError
        If a module is unknown or not a rectangle or trapezoid, a position is not finite or more than 10 mm outside its
        sensor, a variance is not finite or, on a measured axis, not from 1e-18 to 1e18 mm^2, the dimensions are neither
        1 nor 2, a time is not finite, or the columns differ in length or have the wrong type.
    """
    prepared, _ = _prepare(measurements, detector, source)
    return _without_dead(prepared, detector, source)


def prepare_spacepoints(
    measurements: Measurements,
    spacepoints: Spacepoints,
    detector: Detector,
    source: Source | str | None = None,
    measurement_source: Source | str | None = None,
    candidates: Candidates | None = None,
) -> PreparedMeasurements:
    """Check spacepoints and the measurements they were made of, and bring both into canonical order.

    Those on dead modules are left out, with a warning.

    Parameters
    ----------
    measurements : Measurements
        All measurements of one event.
    spacepoints : Spacepoints
        Its spacepoints; `measurement_index` counts the rows of `measurements`.
    detector : Detector
        Knows the modules and their sizes.
    source, measurement_source : Source or str, optional
        Files of the spacepoints and of the measurements.
    candidates : Candidates, optional
        Track candidates; `spacepoint_index` counts the rows of `spacepoints`.

    Returns
    -------
    PreparedMeasurements
        With spacepoints, and candidates if these are given.

    Raises
    ------
    InputDataError
        As for `prepare_measurements`; if a spacepoint's position is not finite or more than 10 mm from that of its
        measurement, or its measurement does not exist or measures one coordinate only; if a candidate is not possible,
        see `prepare_candidates`.
    """
    prepared, order = _prepare(measurements, detector, measurement_source)
    position = np.asarray(spacepoints.global_position)
    link = np.asarray(spacepoints.measurement_index)
    _check_shape("spacepoints.measurement_index", link, (len(link),), "iu")
    _check_shape("spacepoints.global_position", position, (len(link), 3), "iuf")
    if len(link) == 0:
        made = PreparedSpacepoints(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
        return _without_dead(_with_points(prepared, made, link, candidates, source), detector, source)
    n = len(order)
    good = (link >= 0) & (link < n)
    expected = f"expected 0 to {n - 1}: a row of the measurements" if n else "the event has no measurements"
    _require(good, source, "spacepoints", lambda row: f"its measurement is {link[row]}; {expected}")
    finite = np.isfinite(position).all(axis=1)
    _require(finite, source, "spacepoints", lambda row: f"position is {_shown(position[row])}; expected finite numbers")
    new_row = np.empty(n, np.int32)
    new_row[order] = np.arange(n, dtype=np.int32)
    index = new_row[link.astype(np.int64)]
    is_pixel = prepared.dimensions[index] == _PIXEL
    _require(is_pixel, source, "spacepoints", lambda _: "its measurement has one coordinate; expected one with two")
    with np.errstate(over="ignore"):  # what is too large is far away
        distance = np.linalg.norm(position - _global_position(prepared, detector)[index], axis=1)
    _require(
        distance <= _MAX_DISTANCE,
        source,
        "spacepoints",
        lambda row: (
            f"position {_shown(position[row])} mm is {distance[row]:.4g} mm from that of its measurement; "
            f"expected at most {_MAX_DISTANCE:g} mm: is the link right?"
        ),
    )
    by_content = np.lexsort((*position.T[::-1], index))
    made = PreparedSpacepoints(position[by_content].astype(np.float32), index[by_content])
    return _without_dead(_with_points(prepared, made, by_content, candidates, source), detector, source)


def _with_points(
    prepared: PreparedMeasurements,
    points: PreparedSpacepoints,
    order: np.ndarray,
    candidates: Candidates | None,
    source: Source | str | None,
) -> PreparedMeasurements:
    """Return measurements with their spacepoints, which are the input rows `order`, and candidates of these."""
    if candidates is None:
        return prepared._replace(spacepoints=points)
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    found = prepare_candidates(candidates, row, points.global_position, source)
    return prepared._replace(spacepoints=points, candidates=found)


def _without_dead(
    prepared: PreparedMeasurements, detector: Detector, source: Source | str | None
) -> PreparedMeasurements:
    """Leave out measurements on dead modules, and their spacepoints; which channels others are of is not known."""
    dead = detector.dead_ranges
    if dead is None:
        return prepared
    is_kept = ~dead.is_dead[prepared.module_index]
    n, n_dead = len(is_kept), int(np.count_nonzero(~is_kept))
    if n_dead == 0:
        return prepared
    _log.warning("%s%d of %d measurements are on dead modules; left out", prefix(source), n_dead, n)
    points, candidates = prepared.spacepoints, prepared.candidates
    if points is not None:
        has_measurement = is_kept[points.measurement_index]
        if candidates is not None:
            candidates, n_short = renumbered(candidates, has_measurement)
            if n_short:
                _log.warning("%s%d candidates have too few other spacepoints; left out", prefix(source), n_short)
        new_row = (np.cumsum(is_kept) - 1).astype(np.int32)
        points = PreparedSpacepoints(
            points.global_position[has_measurement], new_row[points.measurement_index[has_measurement]]
        )
    columns = {name: getattr(prepared, name)[is_kept] for name in PreparedMeasurements._fields[:_N_COLUMNS]}
    return prepared._replace(**columns, spacepoints=points, candidates=candidates)


def _prepare(
    measurements: Measurements, detector: Detector, source: Source | str | None
) -> tuple[PreparedMeasurements, np.ndarray]:
    """Return the prepared measurements, and the input row of each."""
    m = measurements
    geometry_id = _check_columns(m)
    rows = np.arange(len(geometry_id))
    module = find_modules(geometry_id, rows, detector, "measurements", source)
    check_shapes(detector.arrays().surfaces["shape"][module], geometry_id, rows, "measurements", source)
    position, variance = (np.asarray(a, np.float64) for a in (m.local_position, m.local_variance))
    _check_values(m, position, variance, source)
    _check_inside(m, position, module, detector, source)
    _warn_of_errors(m, variance, module, detector, source)
    order = _canonical_order(m, position, variance, module)
    prepared = PreparedMeasurements(
        module_index=module[order].astype(np.int32),
        local_position=position[order].astype(np.float32),
        local_variance=variance[order].astype(np.float32),
        dimensions=np.asarray(m.dimensions)[order].astype(np.int32),
        time=np.asarray(m.time)[order].astype(np.float32),
        measurement_id=np.asarray(m.measurement_id)[order].astype(np.int64),
    )
    return prepared, order


def _canonical_order(m: Measurements, position: np.ndarray, variance: np.ndarray, module: np.ndarray) -> np.ndarray:
    """Return the rows by (module, id, values), which keeps the order of measurements in files written by the chain."""
    ids = np.asarray(m.measurement_id)
    order = np.lexsort((ids, module))
    repeats = (module[order[1:]] == module[order[:-1]]) & (ids[order[1:]] == ids[order[:-1]])
    if repeats.any():
        values = (*position.T, *variance.T, np.asarray(m.dimensions), np.asarray(m.time))
        order = np.lexsort((*values[::-1], ids, module))
    return order


def _check_columns(m: Measurements) -> np.ndarray:
    """Check lengths and types; return the geometry ids as uint64."""
    n = len(m.geometry_id)
    for name, kinds, *columns in (
        ("geometry_id", "iu"),
        ("local_position", "iuf", 2),
        ("local_variance", "iuf", 2),
        ("dimensions", "iu"),
        ("time", "iuf"),
        ("measurement_id", "iu"),
    ):
        _check_shape(f"measurements.{name}", np.asarray(getattr(m, name)), (n, *columns), kinds)
    # A negative int64 becomes an id above 2^63: ids may be in signed columns.
    return np.asarray(m.geometry_id).astype(np.uint64, copy=False)


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...], kinds: str) -> None:
    if values.shape != shape:
        msg = f"{name} has shape {values.shape}; expected {shape}"
        raise InputDataError(msg)
    if values.dtype.kind not in kinds and len(values):
        msg = f"{name} has type {values.dtype}; expected {'integers' if kinds == 'iu' else 'numbers'}"
        raise InputDataError(msg)


def _require(good: np.ndarray, source: Source | str | None, kind: str, problem: Any) -> None:
    """Raise for the first row that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise bad_row(source, kind, row, problem(row))


def _shown(position: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in position) + ")"


def _check_values(m: Measurements, position: np.ndarray, variance: np.ndarray, source: Source | str | None) -> None:
    largest = np.finfo(np.float32).max
    dimensions, time = np.asarray(m.dimensions), np.asarray(m.time)
    good = (dimensions == 1) | (dimensions == _PIXEL)
    expected = "expected 1 (loc0 measured) or 2 (loc0 and loc1)"
    _require(good, source, "measurements", lambda row: f"dimensions is {dimensions[row]}; {expected}")
    for axis in range(2):
        x, v = position[:, axis], variance[:, axis]
        good = np.abs(x) <= largest
        _require(
            good, source, "measurements", lambda row, x=x, a=axis: f"local{a} is {x[row]}; expected a finite number"
        )
        is_measured = dimensions > axis
        good = np.where(is_measured, (v >= _MIN_VARIANCE) & (v <= _MAX_VARIANCE), (v >= 0) & (v <= largest))
        _require(
            good,
            source,
            "measurements",
            lambda row, v=v, a=axis, m=is_measured: (
                f"var_local{a} is {v[row]}; expected "
                + (f"a number from {_MIN_VARIANCE:g} to {_MAX_VARIANCE:g} (mm^2)" if m[row] else "a finite number >= 0")
            ),
        )
    good = np.abs(time) <= largest
    _require(good, source, "measurements", lambda row: f"time is {time[row]}; expected a finite number")


def _check_inside(
    m: Measurements, position: np.ndarray, module: np.ndarray, detector: Detector, source: Source | str | None
) -> None:
    """Raise for a position that can't be on its sensor; clusters at an edge and smeared hits may lie a bit outside."""
    surfaces, shifts = detector.arrays().surfaces, detector.arrays().translations
    half_lengths = np.stack([np.maximum(surfaces["hx_min"], surfaces["hx_max"]), surfaces["hy"]], axis=1)
    limit = (half_lengths + np.abs(shifts))[module] + _MAX_OUTSIDE
    good = (np.asarray(m.dimensions)[:, None] <= np.arange(2)) | (np.abs(position) <= limit)

    def problem(row: int) -> str:
        axis = int(np.argmin(good[row]))
        half = half_lengths[module[row], axis]
        return (
            f"local{axis} is {position[row, axis]:.6g} mm on module {m.geometry_id[row]}, which is {2 * half:.6g} mm "
            f"long there; expected at most {_MAX_OUTSIDE:g} mm beyond its edges (lengths are in mm)"
        )

    _require(good.all(axis=1), source, "measurements", problem)


def _warn_of_errors(
    m: Measurements, variance: np.ndarray, module: np.ndarray, detector: Detector, source: Source | str | None
) -> None:
    """Log a warning for errors that no sensor has: cuts and gates are as wide as these."""
    surfaces = detector.arrays().surfaces
    lengths = 2 * np.stack([np.maximum(surfaces["hx_min"], surfaces["hx_max"]), surfaces["hy"]], axis=1)
    is_measured = np.asarray(m.dimensions)[:, None] > np.arange(2)
    for is_bad, what in (
        (variance > lengths[module].astype(float) ** 2, "larger than their sensors"),
        (variance < _SMALLEST_ERROR**2, f"below {_SMALLEST_ERROR:g} mm"),
    ):
        bad = is_bad & is_measured
        if bad.any():
            row, axis = np.argwhere(bad)[0]
            _log.warning(
                "%s%d of %d measurements have errors %s, the first of them var_local%d = %.4g mm^2: are they variances "
                "in mm^2?",
                prefix(source),
                np.count_nonzero(bad.any(axis=1)),
                len(bad),
                what,
                axis,
                variance[row, axis],
            )


def _global_position(prepared: PreparedMeasurements, detector: Detector) -> np.ndarray:
    """Return the positions of measurements, (n, 3) float64 [mm]."""
    surfaces = detector.arrays().surfaces[prepared.module_index]
    centre, u, v = (np.stack([surfaces[a + b] for b in "xyz"], axis=1).astype(np.float64) for a in "cuv")
    return centre + prepared.local_position[:, :1] * u + prepared.local_position[:, 1:] * v
