"""The measurement of a surface that fits a track best."""

from __future__ import annotations

import numpy as np

from traccc_py.device.kernel import device_function
from traccc_py.kernels.tracking.kalman import predicted_chi2
from traccc_py.kernels.tracking.measurement_variance import channel_paths, measurement_variance
from traccc_py.kernels.tracking.polar import is_polar, strip_direction, turned_covariance, turned_place, widening

__all__ = ["best_measurement", "variance_on"]


@device_function(inlined=True)
def variance_on(p, surface, trig, m):
    """Return the variances of measurement m on a surface for a track's direction."""
    return measurement_variance(p, surface, channel_paths(p.surfaces, p.designs, surface, trig), m)


@device_function(inlined=True)
def best_measurement(p, event, surface, track, trig, after_chi2, after):
    """Return (measurement or -1, chi2): the smallest chi2 within the gate that follows (after_chi2, after)."""
    best = np.int32(-1)
    best_chi2 = p.chi2_max
    event_module = event * p.n_modules + surface
    first, end = p.offsets[event_module], p.offsets[event_module + 1]
    if first == end:
        return best, best_chi2
    x, c = track[1], track[2]
    paths = channel_paths(p.surfaces, p.designs, surface, trig)
    for m in range(first, end):
        variance0, variance1 = measurement_variance(p, surface, paths, m)
        residual0, residual1 = p.local_position[m, 0] - x[0], p.local_position[m, 1] - x[1]
        if is_polar(p.surfaces, surface):
            local0, local1 = p.local_position[m, 0], p.local_position[m, 1]
            sine, cosine = strip_direction(p.surfaces, surface, local0, local1)
            residual0, residual1 = turned_place(residual0, residual1, sine, cosine)
            variance0 = variance0 * widening(p.surfaces, surface, local0, local1, x)
            c = turned_covariance(track[2], sine, cosine)
        chi2 = predicted_chi2(residual0, residual1, variance0, variance1, p.dimensions[m], c)
        follows = chi2 > after_chi2 or (chi2 == after_chi2 and m > after)
        if follows and (chi2 < best_chi2 or (chi2 == best_chi2 and best < 0)):
            best = np.int32(m)
            best_chi2 = chi2
    return best, best_chi2
