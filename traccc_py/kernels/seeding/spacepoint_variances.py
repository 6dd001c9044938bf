"""Radius, phi and errors of the spacepoints: variances along the radius, z and phi, from those of the measurements."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import kernel
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import ONE, ZERO, X, Y
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["PHI", "PHI_VARIANCE", "R", "R_VARIANCE", "Z_VARIANCE", "find_spacepoint_variances"]

R, PHI, _N_POLAR = range(3)  #: columns
R_VARIANCE, Z_VARIANCE, PHI_VARIANCE, _N_VARIANCES = range(4)  #: columns


class _Payload(NamedTuple):
    spacepoints: SpacepointBatch
    measurements: MeasurementBatch
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    out_polar: Any  # (n_spacepoints, 2) scalar [mm, rad]
    out_variances: Any  # (n_spacepoints, 3) scalar [mm^2]


@kernel(grain=2048)
def _fill_variances(i, p):
    """One spacepoint: its radius and phi, and the variances of its radius, of z, and of the arc r phi."""
    m = p.spacepoints.measurement_index[i]
    s = p.surfaces[p.measurements.event_module[m] % p.n_modules]
    x, y = p.spacepoints.global_position[i, X], p.spacepoints.global_position[i, Y]
    r = math.sqrt(x * x + y * y)
    p.out_polar[i, R] = r
    p.out_polar[i, PHI] = math.atan2(y, x)
    per_mm = ONE / r if r > ZERO else ZERO * r
    u_r, v_r = (x * s.ux + y * s.uy) * per_mm, (x * s.vx + y * s.vy) * per_mm
    u_phi, v_phi = (x * s.uy - y * s.ux) * per_mm, (x * s.vy - y * s.vx) * per_mm
    variance0, variance1 = p.measurements.local_variance[m, LOC0], p.measurements.local_variance[m, LOC1]
    p.out_variances[i, R_VARIANCE] = variance0 * u_r * u_r + variance1 * v_r * v_r
    p.out_variances[i, Z_VARIANCE] = variance0 * s.uz * s.uz + variance1 * s.vz * s.vz
    p.out_variances[i, PHI_VARIANCE] = variance0 * u_phi * u_phi + variance1 * v_phi * v_phi


def find_spacepoint_variances(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    n_modules: int,
) -> tuple[Any, Any]:
    """Find the polar coordinates of the spacepoints, and their variances.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Variances [mm^2].
    detector : DetectorArrays
        Surfaces.
    n_modules : int
        Number of surfaces [1].

    Returns
    -------
    polar : array of shape (n_spacepoints, 2), scalar
        Radius [mm] and phi [rad].
    variances : array of shape (n_spacepoints, 3), scalar
        Variances of radius, z and the arc r phi [mm^2].
    """
    extent, dtype = ws.extent("spacepoints"), spacepoints.global_position.dtype
    payload = _Payload(
        spacepoints=spacepoints,
        measurements=measurements,
        surfaces=detector.surfaces,
        n_modules=np.int32(n_modules),
        out_polar=ws.array("spacepoints.polar", extent, dtype, _N_POLAR),
        out_variances=ws.array("spacepoints.variances", extent, dtype, _N_VARIANCES),
    )
    ws.launch(_fill_variances, extent, payload)
    return payload.out_polar, payload.out_variances
