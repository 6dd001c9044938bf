"""Which slopes fit a cluster: the range of cot(theta) of the particles that may have left a spacepoint.

A straight path through a sensor of thickness t crosses L = t |tan(angle)| / pitch channels along loc1; the cluster it
leaves spans L to L + 2 of them. So the number of channels says how steep the path was, and a doublet whose direction
does not fit both of its clusters is no particle's. In the barrel of the Open Data Detector that leaves one doublet of
four. Noise splits long clusters: where another cluster begins behind a gap of one channel, the path may have crossed
both. A cluster at the sensor's edge may have lost a part of its path: nothing is too steep for it.

A module with far more measurements than particles leave is noisy: no slope fits any of them, so none is in a seed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import HALF, ONE, TWO, ZERO, X, Y
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["ANY_SLOPE", "LEAST_DOWN", "LEAST_UP", "MOST_DOWN", "MOST_UP", "find_cluster_slopes", "fits_no_slope"]

#: Columns of the slopes: bounds of |cot(theta)| where z grows outwards, then where it falls.
LEAST_UP, MOST_UP, LEAST_DOWN, MOST_DOWN, _N_SLOPES = range(5)
_N_WAYS, _PER_WAY = 2, 2  # ways of z, and the columns of each
_NO_LIMIT = 1e6  # a slope, and a number of channels, beyond all others
ANY_SLOPE = (0.0, _NO_LIMIT, 0.0, _NO_LIMIT)  #: the row of a spacepoint that any direction fits
_UP, _DOWN = 1, -1  # along the rows of measurements

_NO_NUMBER = 2**31 - 1  # larger than any number of measurements

_LARGE = scalar(_NO_LIMIT)
_SHORTER = scalar(1 / 0.9)  # the path's projection is known to a tenth: the direction is taken as radial, as if from
_LONGER = scalar(1 / 1.1)  # the beam line without curvature
_GAP = scalar(3)  # channels between the pieces of a split cluster: one, and the error of both middles
_ASIDE = scalar(1)  # ... and across
_REACH = scalar(100)  # ... between the middles of two pieces, each of at most 64 channels
_EDGE = scalar(1)  # channels from the sensor's edge: activations may draw the middle of a cluster off its ends


class _Payload(NamedTuple):
    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    surfaces: Any  # (n_modules,) SURFACE
    designs: Any  # (n_designs,) DESIGN
    n_modules: Any  # int32
    tolerance: Any  # scalar, channels
    r_max: Any  # scalar [mm]
    most_in_module: Any  # int32, measurements
    out_slopes: Any  # (n_spacepoints, 4) scalar


class _Path(NamedTuple):
    """The path through a sensor of a direction with slope m, projected on loc1, and what the cluster allows.

    It is |along + m along_rise| / |through + m through_rise| channels long: the direction's component along loc1, where
    the sensor is as many channels thick, over that through the sensor.
    """

    along: Any  # [channels]
    along_rise: Any  # [channels]
    through: Any
    through_rise: Any
    least: Any  # [channels]
    most: Any  # [channels]


@device_function(inlined=True)
def _fits(path, m):
    """Return whether the cluster fits a path of slope m."""
    crossed, through = abs(path.along + m * path.along_rise), abs(path.through + m * path.through_rise)
    return path.least * through <= crossed <= path.most * through


@device_function(inlined=True)
def _widened(path, low, high, n_channels):
    """Extend the bounds low and high to the slopes (two at most, if positive) whose path is n_channels long."""
    for side in range(2):
        n = n_channels if side == 0 else -n_channels
        m = (n * path.through - path.along) / (path.along_rise - n * path.through_rise)
        if ZERO < m < _LARGE:  # False if it is no number
            low, high = min(low, m), max(high, m)
    return low, high


@device_function(inlined=True)
def _slope_range(path):
    """Return the least and the largest slope that fit; the least is the larger one if none does."""
    low, high = _widened(path, _LARGE, ZERO * path.along, path.least)
    low, high = _widened(path, low, high, path.most)
    if _fits(path, ZERO):
        low = ZERO * path.along
    if _fits(path, _LARGE):
        high = _LARGE
    return low, high


@device_function(inlined=True)
def _is_cut_off(measurements, m, design):
    """Return whether the cluster of measurement m ends at the sensor's edge along loc1."""
    first = measurements.local_position[m, LOC1] - design.min1
    half = HALF * scalar(measurements.cluster_size[m, LOC1]) + _EDGE
    return first < half * design.pitch1 or first > (scalar(design.n_channels1) - half) * design.pitch1


@device_function(inlined=True)
def _rows_of_module(measurements, m):
    """Return (first, end) of the measurements on the module of measurement m."""
    event_module = measurements.event_module[m]
    return measurements.offsets[event_module], measurements.offsets[event_module + 1]


@device_function(inlined=True)
def _longest_beside(measurements, m, design, longest, n, way):
    """Return the longest path, with the pieces among the n measurements after (before) measurement m.

    They are ordered by their first channel along loc1, so that the search ends where they are too far away. Distances
    are compared in millimetres: a division for each piece would take most of the time.
    """
    position, size = measurements.local_position, measurements.cluster_size
    x0, x1 = position[m, LOC0], position[m, LOC1]
    n0, n1 = scalar(size[m, LOC0]), scalar(size[m, LOC1])
    reach = (HALF * n1 + _REACH) * design.pitch1
    for step in range(1, n + 1):
        k = m + way * step
        along = abs(position[k, LOC1] - x1)
        if along > reach:
            break
        half1 = HALF * (n1 + scalar(size[k, LOC1]))
        if along <= (half1 + _GAP) * design.pitch1:
            half0 = HALF * (n0 + scalar(size[k, LOC0]))
            if abs(position[k, LOC0] - x0) <= (half0 + _ASIDE) * design.pitch0:
                is_open = _is_cut_off(measurements, k, design)
                longest = max(longest, _LARGE if is_open else along / design.pitch1 + half1)
    return longest


@device_function(inlined=True)
def _longest_path(measurements, m, design):
    """Return the channels along loc1 that the path of measurement m may have crossed, at most.

    Those of its cluster, or of two if another piece may belong to it; no limit for what ends at the sensor's edge.
    """
    if _is_cut_off(measurements, m, design):
        return _LARGE
    first, end = _rows_of_module(measurements, m)
    longest = scalar(measurements.cluster_size[m, LOC1])
    longest = _longest_beside(measurements, m, design, longest, end - m - 1, _UP)
    return _longest_beside(measurements, m, design, longest, m - first, _DOWN)


@device_function(inlined=True)
def fits_no_slope(slopes, i):
    """Return whether there is no direction that fits spacepoint i."""
    return slopes[i, LEAST_UP] > slopes[i, MOST_UP] and slopes[i, LEAST_DOWN] > slopes[i, MOST_DOWN]


@kernel(grain=512)
def _fill_slopes(i, p):
    """One spacepoint: the slopes that fit its cluster, forwards and backwards."""
    m = p.spacepoints.measurement_index[i]
    surface = p.surfaces[p.measurements.event_module[m] % p.n_modules]
    design = p.designs[surface.design]
    x, y = p.spacepoints.global_position[i, X], p.spacepoints.global_position[i, Y]
    r = math.sqrt(x * x + y * y)
    size = p.measurements.cluster_size[m, LOC1]
    first, end = _rows_of_module(p.measurements, m)
    is_noisy = end - first > p.most_in_module
    if is_noisy or size < 1 or not (ZERO < r <= p.r_max and design.thickness > ZERO):
        for way in range(_N_WAYS):
            p.out_slopes[i, LEAST_UP + _PER_WAY * way] = _LARGE if is_noisy else ZERO
            p.out_slopes[i, MOST_UP + _PER_WAY * way] = ZERO if is_noisy else _LARGE
        return
    most = (_longest_path(p.measurements, m, design) + p.tolerance) * _SHORTER
    least = max((scalar(size) - TWO - p.tolerance) * _LONGER, ZERO)
    channels = design.thickness / design.pitch1
    along, along_rise = (x * surface.vx + y * surface.vy) / r * channels, surface.vz * channels
    through, through_rise = (x * surface.wx + y * surface.wy) / r, surface.wz
    for way in range(_N_WAYS):
        sign = ONE if way == 0 else -ONE
        low, high = _slope_range(_Path(along, sign * along_rise, through, sign * through_rise, least, most))
        p.out_slopes[i, LEAST_UP + _PER_WAY * way] = low
        p.out_slopes[i, MOST_UP + _PER_WAY * way] = high


def find_cluster_slopes(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    n_modules: int,
    tolerance: float | None,
    r_max: float = _NO_LIMIT,
    most_in_module: int = _NO_NUMBER,
) -> Any:
    """Find the slopes of the particles that may have left each spacepoint.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Sizes of the clusters. One of size 0 (it came without cells) fits any direction, as do all of a design of
        thickness 0.
    detector : DetectorArrays
        Surfaces and designs.
    n_modules : int
        Number of surfaces [1].
    tolerance : float or None
        Channels that a cluster may have too many or too few; a tenth of the path's channels comes on top [1]. None:
        any number.
    r_max : float, optional
        Spacepoints farther out fit any direction: they are not used [mm].
    most_in_module : int, optional
        On a module with more measurements no spacepoint fits any direction [1].

    Returns
    -------
    array of shape (n_spacepoints, 4), scalar
        Least and largest |cot(theta)| where z grows outwards, then where it falls [1].
    """
    extent = ws.extent("spacepoints")
    dtype = spacepoints.global_position.dtype
    out = ws.array("spacepoints.slopes", extent, dtype, _N_SLOPES)
    payload = _Payload(
        spacepoints=spacepoints,
        measurements=measurements,
        surfaces=detector.surfaces,
        designs=detector.designs,
        n_modules=np.int32(n_modules),
        tolerance=dtype.type(_NO_LIMIT if tolerance is None else tolerance),
        r_max=dtype.type(r_max),
        most_in_module=np.int32(most_in_module),
        out_slopes=out,
    )
    ws.launch(_fill_slopes, extent, payload)
    return out
