"""The measurement of a surface that fits a track best."""

from __future__ import annotations

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.edm.parameters import LOC0
from traccc_py.kernels.seeding.doublets import MAX_BITS, lowest_bit, without_lowest
from traccc_py.kernels.tracking.kalman import predicted_chi2
from traccc_py.kernels.tracking.measurement_variance import (
    channel_paths,
    loc0_bound,
    loc0_variance,
    loc1_variance,
    measurement_variance,
    most_loc0_variance,
)
from traccc_py.kernels.tracking.polar import is_polar, rotated, rotated_covariance, strip_direction, widening
from traccc_py.kernels.tracking.propagation import local_position
from traccc_py.kernels.tracking.state import AXIS0, Local

__all__ = ["best_measurement", "variance_on"]

_SLACK = scalar(1.001)  # for rounding: what is out of reach along one axis must not have a better chi2 along both
_ALL = np.uint32(0xFFFFFFFF)


@device_function(inlined=True)
def variance_on(p, surface, direction, m):
    """Return the variances of measurement m on a surface for a track's direction."""
    return measurement_variance(p, surface, channel_paths(p.detector, surface, direction), m)


@device_function(inlined=True)
def _reachable(p, bound, most_chi2, track, first, n):
    """Return which of the measurements first ... first + n - 1 a track may reach along loc0, a bit for each.

    Most of a module's are out of reach, which takes neither the table of variances to tell nor a branch.
    """
    predicted, spread = track.params.loc0, track.covariance.loc0_loc0
    bits = np.uint32(0)
    k = np.uint64(0)
    while k < np.uint64(n):
        m = np.uint64(first) + k
        residual = p.measurements.local_position[m, LOC0] - predicted
        given, size = p.measurements.local_variance[m, AXIS0], p.measurements.cluster_size[m, AXIS0]
        is_far = residual * residual > most_chi2 * (spread + most_loc0_variance(bound, given, size))
        bits = np.uint32(bits | (np.uint32(not is_far) << np.uint32(k)))  # no number is not far
        k += np.uint64(1)
    return bits


@device_function(inlined=True)
def best_measurement(p, event, surface, track, direction, after_chi2, after):
    """Return (measurement or -1, chi2): the next in the order of (chi2, index) after (after_chi2, after)."""
    best = np.int32(-1)
    best_chi2 = p.cuts.chi2_max
    event_module = event * p.detector.n_modules + surface
    start, end = p.measurements.offsets[event_module], p.measurements.offsets[event_module + 1]
    if start == end:
        return best, best_chi2
    x, c = track.params, track.covariance
    paths = channel_paths(p.detector, surface, direction)
    on_polar = is_polar(p.detector.surfaces, surface)
    bound = loc0_bound(p, surface, paths)
    first = start
    while first < end:
        n = min(np.int32(end - first), np.int32(MAX_BITS))
        bits = _ALL if on_polar else _reachable(p, bound, _SLACK * best_chi2, track, first, n)
        if on_polar and n < MAX_BITS:
            bits = np.uint32((np.uint32(1) << np.uint32(n)) - np.uint32(1))
        while bits != np.uint32(0):
            m = np.int32(first + lowest_bit(bits))
            bits = without_lowest(bits)
            local = local_position(p.measurements, m)
            residual = Local(loc0=local.loc0 - x.loc0, loc1=local.loc1 - x.loc1)
            variance0 = loc0_variance(p, surface, paths, m)
            square = residual.loc0 * residual.loc0
            if not on_polar and square > _SLACK * best_chi2 * (track.covariance.loc0_loc0 + variance0):
                continue
            variance = Local(loc0=variance0, loc1=loc1_variance(p, surface, paths, m))
            if on_polar:
                sine, cosine = strip_direction(p.detector.surfaces, surface, local)
                residual = rotated(residual.loc0, residual.loc1, sine, cosine)
                across = variance.loc0 * widening(p.detector.surfaces, surface, local, x)
                variance = Local(loc0=across, loc1=variance.loc1)
                c = rotated_covariance(track.covariance, sine, cosine)
            chi2 = predicted_chi2(residual, variance, p.measurements.dimensions[m], c)
            follows = chi2 > after_chi2 or (chi2 == after_chi2 and m > after)
            if follows and (chi2 < best_chi2 or (chi2 == best_chi2 and best < 0)):
                best = m
                best_chi2 = chi2
        first = np.int32(first + MAX_BITS)
    return best, best_chi2
