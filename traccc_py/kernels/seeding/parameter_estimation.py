"""Seed parameter estimation: the helix through three spacepoints, as bound parameters on the bottom one's surface.

Everything is computed relative to the bottom spacepoint, and the curvature from the sagitta itself (not as a difference
of larger numbers), so float32 keeps it to a part in a thousand at 100 GeV.

References
----------
traccc v1.6.0, `core/include/traccc/seeding/track_params_estimation_helper.hpp`: conformal map and covariance.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import ParameterEstimationConfig
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1, PHI, QOP, THETA
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import FOUR, HALF, ONE, TWO, X, Y, Z
from traccc_py.kernels.tracking.batch import (
    MeasurementBatch,
    SeedBatch,
    SeedParameters,
    SpacepointBatch,
    make_seed_parameters,
)
from traccc_py.kernels.tracking.helix import direction_of
from traccc_py.kernels.tracking.magnetic_field import HOMOGENEOUS, bending_field, field_in_precision
from traccc_py.kernels.tracking.state import Vector

__all__ = ["estimate_parameters", "helix_through_points"]

_SMALL_ANGLE = scalar(0.1)  # below, the series of asin(x)/x is exact to float32
_A2, _A4, _A6 = scalar(1 / 6), scalar(3 / 40), scalar(15 / 336)
_SMALLEST_QOPT = scalar(1e-6)  # a straight seed is given this q/pT [e/GeV]: a momentum must stay finite


class _Squares(NamedTuple):
    """Squares of the settings."""

    loc0: Any  # scalar [mm^2]
    loc1: Any  # scalar [mm^2]
    inflation: Any  # scalar [1]
    scattering: Any  # scalar [rad^2 GeV^2]
    pt_scattering: Any  # scalar [1]


class _Payload(NamedTuple):
    seeds: SeedBatch
    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    n_modules: Any  # int32
    field: Any  # see `geometry.records`
    squares: _Squares
    out: SeedParameters


@device_function
def _arc_over_chord(ratio):
    """Return asin(x)/x."""
    x2 = ratio * ratio
    if abs(ratio) < _SMALL_ANGLE:
        return ONE + x2 * (_A2 + x2 * (_A4 + x2 * _A6))
    return math.asin(min(abs(ratio), ONE)) / abs(ratio)


@device_function
def helix_through_points(x1, y1, x2, y2, z2):
    """Return (phi, cot theta, curvature) at the origin of the helix through the origin, point 1 and point 2.

    Positions relative to the first point [mm]; z of point 1 is not used, as in traccc. The curvature [1/mm] is 1/R,
    positive for clockwise tracks: for positive charges in a field along +z.
    """
    chord1 = math.sqrt(x1 * x1 + y1 * y1)
    ex, ey = x1 / chord1, y1 / chord1
    along, across = x2 * ex + y2 * ey, y2 * ex - x2 * ey
    chord2_squared = x2 * x2 + y2 * y2
    # On the conformal plane v = slope * u + intercept goes through (u1, 0) and (u2, v2).
    u1 = ONE / chord1
    v2 = across / chord2_squared
    u_difference = along / chord2_squared - u1
    slope = v2 / u_difference
    intercept = -v2 * u1 / u_difference
    curvature = -TWO * intercept / math.sqrt(ONE + slope * slope)
    chord2 = math.sqrt(chord2_squared)
    arc = chord2 * _arc_over_chord(HALF * chord2 * curvature)
    phi = math.atan2(ey + slope * ex, ex - slope * ey)
    return phi, z2 / arc, curvature


@device_function
def _bending_field(field, position, phi, theta):
    """Return the field along z that bends a track of this direction as that at its position does."""
    if len(field) == HOMOGENEOUS:
        return field.b_z
    return bending_field(field, position, direction_of(phi, theta))


@device_function
def _point_variance(p, spacepoint):
    """Return the larger variance [mm^2] of a spacepoint's measurement."""
    measurement = p.spacepoints.measurement_index[spacepoint]
    return max(p.measurements.local_variance[measurement, LOC0], p.measurements.local_variance[measurement, LOC1])


@device_function
def variance_factors(a, b):
    """Return what the variance of the points' positions is multiplied by in those of slope and curvature at the first.

    For a parabola through three points at distances 0, a and b [mm]: [1/mm^2] and [1/mm^4].
    """
    c = b - a
    first, second, third = (a + b) / (a * b), b / (a * c), a / (b * c)
    slope = first * first + second * second + third * third
    first, second, third = ONE / (a * b), ONE / (a * c), ONE / (b * c)
    return slope, FOUR * (first * first + second * second + third * third)


@kernel(grain=512)
def _estimate_parameters(i, p):
    """One seed: parameters and diagonal covariance."""
    bottom, middle, top = p.seeds.bottom_index[i], p.seeds.middle_index[i], p.seeds.top_index[i]
    position = p.spacepoints.global_position
    x0, y0, z0 = position[bottom, X], position[bottom, Y], position[bottom, Z]
    x1, y1 = position[middle, X] - x0, position[middle, Y] - y0
    x2, y2 = position[top, X] - x0, position[top, Y] - y0
    phi, cot_theta, curvature = helix_through_points(x1, y1, x2, y2, position[top, Z] - z0)
    theta = math.atan2(ONE, cot_theta)
    place = Vector(x1 + x0, y1 + y0, position[middle, Z])
    b_z = _bending_field(p.field, place, phi, theta)
    qopt = curvature / b_z
    if not abs(qopt) >= _SMALLEST_QOPT:
        qopt = _SMALLEST_QOPT
    sin2 = ONE / (ONE + cot_theta * cot_theta)
    qop = qopt * math.sqrt(sin2)
    measurement = p.spacepoints.measurement_index[bottom]
    p.out.module[i] = p.measurements.event_module[measurement] % p.n_modules
    p.out.measurement[i] = measurement
    p.out.event[i] = p.seeds.event[i]
    p.out.params[i, LOC0] = p.measurements.local_position[measurement, LOC0]
    p.out.params[i, LOC1] = p.measurements.local_position[measurement, LOC1]
    p.out.params[i, PHI] = phi
    p.out.params[i, THETA] = theta
    p.out.params[i, QOP] = qop
    var_point = max(_point_variance(p, bottom), max(_point_variance(p, middle), _point_variance(p, top)))
    chord2 = x2 * x2 + y2 * y2
    by_slope, by_curvature = variance_factors(math.sqrt(x1 * x1 + y1 * y1), math.sqrt(chord2))
    inflation2 = p.squares.inflation
    scattering = p.squares.scattering * qopt * qopt
    var_theta = inflation2 * (scattering + TWO * var_point * sin2 / chord2)
    var_qopt = inflation2 * (p.squares.pt_scattering * qopt * qopt + var_point * by_curvature / (b_z * b_z))
    p.out.variance[i, LOC0] = p.squares.loc0
    p.out.variance[i, LOC1] = p.squares.loc1
    p.out.variance[i, PHI] = inflation2 * (scattering + var_point * by_slope)
    p.out.variance[i, THETA] = var_theta
    p.out.variance[i, QOP] = var_qopt * sin2 + var_theta * qop * qop * cot_theta * cot_theta


def estimate_parameters(
    ws: Workspace,
    seeds: SeedBatch,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    config: ParameterEstimationConfig,
    n_modules: int,
) -> SeedParameters:
    """Estimate the track parameters of seeds.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "seeds" must be set.
    seeds : SeedBatch
        Three spacepoints each.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Local positions [mm] of the bottom spacepoints, variances [mm^2] of all.
    detector : DetectorArrays
        Its field.
    config : ParameterEstimationConfig
        Standard deviations, and what they are multiplied by.
    n_modules : int
        Number of surfaces [1].

    Returns
    -------
    SeedParameters
        loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV] on the surface of the bottom measurement, and their variances.
    """
    extent = ws.extent("seeds")
    dtype = spacepoints.global_position.dtype
    out = make_seed_parameters(ws, extent, dtype, "seed_parameters")
    squares = _Squares(
        loc0=scalar(config.sigma_loc0**2),
        loc1=scalar(config.sigma_loc1**2),
        inflation=scalar(config.inflation**2),
        scattering=scalar(config.sigma_scattering**2),
        pt_scattering=scalar(config.sigma_pt_scattering**2),
    )
    payload = _Payload(
        seeds=seeds,
        spacepoints=spacepoints,
        measurements=measurements,
        n_modules=np.int32(n_modules),
        field=field_in_precision(detector.field, dtype.type),
        squares=squares,
        out=out,
    )
    ws.launch(_estimate_parameters, extent, payload)
    return out
