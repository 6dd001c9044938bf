"""Where seeds start: on the first sensor of their layer that has a measurement for them.

Sensors overlap. A seed whose bottom spacepoint is on the outer one of two that the particle crossed would leave the
measurement on the inner one out, for track finding goes outwards only: so it was with 15 % of the tracks of a dense
event. Such a seed is moved back to the inner sensor before it is followed, and meets the outer one again on its way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.edm.parameters import LOC0, LOC1, PHI, QOP, THETA
from traccc_py.kernels.finding.measurement_search import best_measurement, variance_on
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedParameters
from traccc_py.kernels.tracking.helix import direction, trigonometry
from traccc_py.kernels.tracking.magnetic_field import field_in_precision, local_turn
from traccc_py.kernels.tracking.navigation import (
    UNREACHABLE,
    grid_bin,
    inside_margin,
    intersect_surface,
    surface_axes,
    surface_distance,
)
from traccc_py.kernels.tracking.propagation import seed_track, transport_to_surface, updated

__all__ = ["move_starts"]

_ZERO = scalar(0)
_ONE = scalar(1)
_TWO_DIMENSIONS = 2
_BEHIND = scalar(-0.01)  # [mm]; what is nearer lies in one plane with the bottom and is met on the way


class _Payload(NamedTuple):
    listed: Any  # (n_listed,) int32, seeds
    surfaces: Any
    layers: Any
    bin_offsets: Any
    bin_surfaces: Any
    designs: Any
    path_sigmas: Any
    n_modules: Any
    field: Any  # see `geometry.records`
    local_position: Any  # (n_measurements, 2)
    local_variance: Any
    cluster_size: Any
    dimensions: Any
    offsets: Any  # (n_events * n_modules + 1,)
    chi2_max: Any
    mask_max: Any
    event: Any  # (n_seeds,) int32
    out_module: Any  # (n_seeds,) int32; read, too, as those below
    out_measurement: Any  # (n_seeds,) int32
    out_params: Any  # (n_seeds, 5)
    variance: Any  # (n_seeds, 5)


@device_function(inlined=True)
def _is_behind(p, surface, position, trig, turn, path):
    """Return whether the straight line may cross a surface before `path`, inside its edges."""
    there = p.surfaces[surface]
    t = direction(trig)
    u, v = surface_axes(p.surfaces, surface)
    s = -surface_distance(p.surfaces, surface, position) / (t[0] * there.wx + t[1] * there.wy + t[2] * there.wz)
    if not s < path:
        return False
    dx = position[0] + s * t[0] - there.cx
    dy = position[1] + s * t[1] - there.cy
    dz = position[2] + s * t[2] - there.cz
    loc0, loc1 = dx * u[0] + dy * u[1] + dz * u[2], dx * v[0] + dy * v[1] + dz * v[2]
    margin0, margin1 = inside_margin(p.surfaces, surface, loc0, loc1)
    band = p.mask_max + abs(turn) * s * s
    return margin0 > -band and margin1 > -band


@device_function(inlined=True)
def _first_sensor(i, p, track, module):
    """Return (surface or -1, measurement, track there): the sensor of the layer farthest behind with a measurement."""
    found, measurement, start = np.int32(-1), p.out_measurement[i], track
    trig = trigonometry(track[1][PHI], track[1][THETA])
    turn = local_turn(p.field, track[0], trig, track[1][QOP])
    path = _BEHIND + _ZERO * turn
    variance = variance_on(p, module, trig, p.out_measurement[i])
    grid = grid_bin(p.layers, p.surfaces[module].layer, track[0])
    for entry in range(p.bin_offsets[grid], p.bin_offsets[grid + 1]):
        surface = p.bin_surfaces[entry]
        if _is_behind(p, surface, track[0], trig, turn, path):
            # The parameters stand on the measurement already; only few seeds need the covariance after it.
            near, _ = updated(track, p.surfaces, module, p, p.out_measurement[i], variance)
            s, loc0, _ = intersect_surface(p.surfaces, surface, track[0], trig, turn, _ZERO * turn)
            there, trig_there = transport_to_surface(near, trig, turn, s, p.field, p.surfaces, surface)
            m, _ = best_measurement(p, p.event[i], surface, there, trig_there, -_ONE + _ZERO * s, np.int32(-1))
            # Parameters start with both coordinates of a measurement: one of a strip is no place to start at.
            if m >= 0 and p.dimensions[m] == _TWO_DIMENSIONS and loc0 < UNREACHABLE and s < path:
                found, measurement, start, path = surface, m, there, s
    return found, measurement, start


@kernel(grain=128)
def _move_start(k, p):
    """Move listed seed k; writes its rows alone."""
    i = p.listed[k]
    module = p.out_module[i]
    track = seed_track(p.surfaces, module, p.out_params, p.variance, i, _ONE)
    surface, m, track = _first_sensor(i, p, track, module)
    if surface < 0:
        return
    p.out_module[i] = surface
    p.out_measurement[i] = m
    p.out_params[i, LOC0] = p.local_position[m, 0]
    p.out_params[i, LOC1] = p.local_position[m, 1]
    p.out_params[i, PHI] = track[1][PHI]
    p.out_params[i, THETA] = track[1][THETA]


def move_starts(
    ws: Any,
    listed: Any,
    extent: str,
    parameters: SeedParameters,
    measurements: MeasurementBatch,
    detector: Any,
    config: Any,
) -> None:
    """Move seeds to the first sensor of their layer that has a measurement for them.

    Parameters
    ----------
    ws : Workspace
        Buffers.
    listed : array of shape (n_listed,), int32
        Seeds.
    extent : str
        Where their number stands.
    parameters : SeedParameters
        Track parameters of all seeds; module, measurement, position and direction are those of the new start after it.
    measurements : MeasurementBatch
        Measurements of the batch.
    detector : DetectorArrays
        The detector on the device.
    config : FindingConfig
        The gate.
    """
    real = parameters.params.dtype.type
    payload = _Payload(
        listed,
        detector.surfaces,
        detector.layers,
        detector.bin_offsets,
        detector.bin_surfaces,
        detector.designs,
        detector.path_sigmas,
        np.int32(detector.surfaces.shape[0]),
        field_in_precision(detector.field, real),
        measurements.local_position,
        measurements.local_variance,
        measurements.cluster_size,
        measurements.dimensions,
        measurements.offsets,
        real(config.chi2_max),
        real(config.mask_max),
        parameters.event,
        parameters.module,
        parameters.measurement,
        parameters.params,
        parameters.variance,
    )
    ws.launch(_move_start, ws.extent(extent), payload)
