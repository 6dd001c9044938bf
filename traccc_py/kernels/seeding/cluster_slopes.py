"""Which slopes fit a cluster: the range of cot(theta) of the particles that may have left a spacepoint.

A straight path through a sensor of thickness t crosses L = t |tan(angle)| / pitch channels along loc1; the cluster it
leaves spans L to L + 2 of them. So the number of channels says how steep the path was, and a doublet whose direction
does not fit both of its clusters is no particle's. In the barrel of the Open Data Detector that leaves one doublet of
four. Noise splits long clusters: where another cluster begins behind a gap of one channel, the path may have crossed
both. A cluster at the sensor's edge may have lost a part of its path: nothing is too steep for it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["ANY_SLOPE", "find_cluster_slopes"]

_LARGEST_SLOPE = 1e6
ANY_SLOPE = (0.0, _LARGEST_SLOPE, 0.0, _LARGEST_SLOPE)  #: the row of a spacepoint that any direction fits

_ZERO = scalar(0)
_ONE = scalar(1)
_HALF = scalar(0.5)
_TWO = scalar(2)
_LARGE = scalar(_LARGEST_SLOPE)
_SHORTER = scalar(1 / 0.9)  # the path's projection is known to a tenth: the direction is taken as radial, as if from
_LONGER = scalar(1 / 1.1)  # the beam line without curvature
_GAP = scalar(3)  # channels between the pieces of a split cluster: one, and the error of both middles
_ASIDE = scalar(1)  # ... and across
_EDGE = scalar(1)  # channels from the sensor's edge: activations may draw the middle of a cluster off its ends
_X, _Y = 0, 1


class _Payload(NamedTuple):
    global_position: Any  # (n_spacepoints, 3) scalar [mm]
    measurement_index: Any  # (n_spacepoints,) int32
    event_module: Any  # (n_measurements,) int32
    local_position: Any  # (n_measurements, 2) scalar [mm]
    cluster_size: Any  # (n_measurements, 2) int32
    offsets: Any  # (n_events * n_modules + 1,) int32, first measurement of each event_module
    surfaces: Any  # (n_modules,) SURFACE
    designs: Any  # (n_designs,) DESIGN
    n_modules: Any  # int32
    tolerance: Any  # scalar, channels
    out_slopes: Any  # (n_spacepoints, 4) scalar


class _Path(NamedTuple):
    """Projected path |a + m b| / |e + m f| of a direction with slope m, and what the cluster allows [channels]."""

    a: Any
    b: Any
    e: Any
    f: Any
    least: Any
    most: Any


@device_function(inlined=True)
def _fits(path, m):
    """Return whether the cluster fits a path of slope m."""
    crossed, through = abs(path.a + m * path.b), abs(path.e + m * path.f)
    return path.least * through <= crossed <= path.most * through


@device_function(inlined=True)
def _widened(path, bounds, n_channels):
    """Extend the bounds to the slopes (two at most, if positive) whose path is n_channels long."""
    low, high = bounds
    for side in range(2):
        n = n_channels if side == 0 else -n_channels
        m = (n * path.e - path.a) / (path.b - n * path.f)
        if _ZERO < m < _LARGE:  # False if it is no number
            low, high = min(low, m), max(high, m)
    return low, high


@device_function(inlined=True)
def _slope_range(path):
    """Return the least and the largest slope that fit; the least is the larger one if none does."""
    low, high = _widened(path, (_LARGE, _ZERO * path.a), path.least)
    low, high = _widened(path, (low, high), path.most)
    if _fits(path, _ZERO):
        low = _ZERO * path.a
    if _fits(path, _LARGE):
        high = _LARGE
    return low, high


@device_function(inlined=True)
def _is_cut_off(p, m, d):
    """Return whether the cluster of measurement m ends at the sensor's edge along loc1."""
    middle = (p.local_position[m, 1] - d.min1) / d.pitch1
    half = _HALF * scalar(p.cluster_size[m, 1])
    return middle - half < _EDGE or middle + half > scalar(d.n_channels1) - _EDGE


@device_function(inlined=True)
def _longest_path(p, m, d):
    """Return the channels along loc1 that the path of measurement m may have crossed, at most.

    Those of its cluster, or of two if another piece may belong to it; no limit for what ends at the sensor's edge.
    """
    n0, n1 = scalar(p.cluster_size[m, 0]), scalar(p.cluster_size[m, 1])
    longest = _LARGE if _is_cut_off(p, m, d) else n1
    for k in range(p.offsets[p.event_module[m]], p.offsets[p.event_module[m] + 1]):
        aside = abs(p.local_position[k, 0] - p.local_position[m, 0]) / d.pitch0
        along = abs(p.local_position[k, 1] - p.local_position[m, 1]) / d.pitch1
        half0 = _HALF * (n0 + scalar(p.cluster_size[k, 0]))
        half1 = _HALF * (n1 + scalar(p.cluster_size[k, 1]))
        if k != m and aside <= half0 + _ASIDE and along <= half1 + _GAP:
            longest = max(longest, _LARGE if _is_cut_off(p, k, d) else along + half1)
    return longest


@kernel(grain=512)
def _fill_slopes(i, p):
    """One spacepoint: the slopes that fit its cluster, forwards and backwards."""
    m = p.measurement_index[i]
    s = p.surfaces[p.event_module[m] % p.n_modules]
    d = p.designs[s.design]
    x, y = p.global_position[i, _X], p.global_position[i, _Y]
    r = math.sqrt(x * x + y * y)
    if p.cluster_size[m, 1] < 1 or not (r > _ZERO and d.thickness > _ZERO):
        for side in range(2):
            p.out_slopes[i, 2 * side] = _ZERO
            p.out_slopes[i, 2 * side + 1] = _LARGE
        return
    most = (_longest_path(p, m, d) + p.tolerance) * _SHORTER
    least = max((scalar(p.cluster_size[m, 1]) - _TWO - p.tolerance) * _LONGER, _ZERO)
    channels = d.thickness / d.pitch1
    a, b = (x * s.vx + y * s.vy) / r * channels, s.vz * channels
    e, f = (x * s.wx + y * s.wy) / r, s.wz
    for side in range(2):
        sign = _ONE if side == 0 else -_ONE
        low, high = _slope_range(_Path(a, sign * b, e, sign * f, least, most))
        p.out_slopes[i, 2 * side] = low
        p.out_slopes[i, 2 * side + 1] = high


def find_cluster_slopes(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    n_modules: int,
    tolerance: float,
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
    tolerance : float
        Channels that a cluster may have too many or too few; a tenth of the path's channels comes on top [1].

    Returns
    -------
    array of shape (n_spacepoints, 4), scalar
        Least and largest |cot(theta)| where z grows outwards, then where it falls [1].
    """
    extent = ws.extent("spacepoints")
    dtype = spacepoints.global_position.dtype
    out = ws.array("spacepoints.slopes", extent, dtype, 4)
    payload = _Payload(
        spacepoints.global_position,
        spacepoints.measurement_index,
        measurements.event_module,
        measurements.local_position,
        measurements.cluster_size,
        measurements.offsets,
        detector.surfaces,
        detector.designs,
        np.int32(n_modules),
        dtype.type(tolerance),
        out,
    )
    ws.launch(_fill_slopes, extent, payload)
    return out
