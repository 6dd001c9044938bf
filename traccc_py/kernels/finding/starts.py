"""Where seeds start: on the first sensor of their layer that has a measurement for them.

Sensors overlap. A seed whose bottom spacepoint is on the outer one of two that the particle crossed would miss the
measurement on the inner one, because track finding goes outwards only: 15 % of the tracks of an event of mu = 200 did.
Such a seed is moved back to the inner sensor before it is followed, and meets the outer one again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import LOC0, LOC1, PHI, THETA
from traccc_py.kernels.constants import ONE, TWO_DIMENSIONS, ZERO
from traccc_py.kernels.finding.measurement_search import best_measurement, variance_on
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedParameters
from traccc_py.kernels.tracking.detector import DetectorPayload
from traccc_py.kernels.tracking.helix import unit_vector
from traccc_py.kernels.tracking.linalg import dot
from traccc_py.kernels.tracking.navigation import (
    UNREACHABLE,
    grid_bin,
    inside_margin,
    intersect_surface,
    surface_axes,
    surface_distance,
)
from traccc_py.kernels.tracking.propagation import (
    local_position,
    seed_track,
    track_curvature,
    track_direction,
    transport_to_surface,
    updated,
)
from traccc_py.kernels.tracking.state import Vector

__all__ = ["move_starts"]

_BEHIND = scalar(-0.01)  # [mm]; a sensor nearer than that is in one plane with the seed's, and tried later (`layers`)


class _Cuts(NamedTuple):
    chi2_max: Any
    mask_max: Any  # [mm]


class _Payload(NamedTuple):
    detector: DetectorPayload
    measurements: MeasurementBatch
    seeds: SeedParameters  # read and written
    listed: Any  # (n_listed,) int32, seeds
    cuts: _Cuts


@device_function(inlined=True)
def _is_behind(p, surface, position, direction, curvature, path):
    """Return whether the straight line may cross a surface inside its edges, farther behind than `path` (negative)."""
    surfaces = p.detector.surfaces
    there = surfaces[surface]
    t = unit_vector(direction)
    u, v = surface_axes(surfaces, surface)
    s = -surface_distance(surfaces, surface, position) / (t.x * there.wx + t.y * there.wy + t.z * there.wz)
    if not s < path:
        return False
    offset = Vector(position.x + s * t.x - there.cx, position.y + s * t.y - there.cy, position.z + s * t.z - there.cz)
    margin0, margin1 = inside_margin(surfaces, surface, dot(offset, u), dot(offset, v))
    band = p.cuts.mask_max + abs(curvature) * s * s
    return margin0 > -band and margin1 > -band


@device_function(inlined=True)
def _first_sensor(i, p, track, module):
    """Return (surface or -1, measurement, track there): the sensor of the layer farthest behind with a measurement."""
    surfaces, field = p.detector.surfaces, p.detector.field
    found, measurement, start = np.int32(-1), p.seeds.measurement[i], track
    direction = track_direction(track)
    curvature = track_curvature(field, track, direction)
    path = _BEHIND + ZERO * curvature
    variance = variance_on(p, module, direction, p.seeds.measurement[i])
    grid = grid_bin(p.detector.layers, surfaces[module].layer, track.position)
    for entry in range(p.detector.bin_offsets[grid], p.detector.bin_offsets[grid + 1]):
        surface = p.detector.bin_surfaces[entry]
        if _is_behind(p, surface, track.position, direction, curvature, path):
            # The parameters are at the measurement already. The update gives their covariance, which few seeds need.
            near, _ = updated(track, p, module, p.seeds.measurement[i], variance)
            s, loc0, _ = intersect_surface(surfaces, surface, track.position, direction, curvature, ZERO * curvature)
            there, end = transport_to_surface(near, direction, curvature, s, field, surfaces, surface)
            m, _ = best_measurement(p, p.seeds.event[i], surface, there, end, -ONE + ZERO * s, np.int32(-1))
            # Parameters start with both coordinates of a measurement: one of a strip is no place to start at.
            if m >= 0 and p.measurements.dimensions[m] == TWO_DIMENSIONS and loc0 < UNREACHABLE and s < path:
                found, measurement, start, path = surface, m, there, s
    return found, measurement, start


@kernel(grain=128)
def _move_start(k, p):
    """Move listed seed k; writes its rows alone."""
    i = p.listed[k]
    module = p.seeds.module[i]
    track = seed_track(p.detector.surfaces, module, p.seeds, i, ONE)
    surface, m, track = _first_sensor(i, p, track, module)
    if surface < 0:
        return
    p.seeds.module[i] = surface
    p.seeds.measurement[i] = m
    local = local_position(p.measurements, m)
    p.seeds.params[i, LOC0] = local.loc0
    p.seeds.params[i, LOC1] = local.loc1
    p.seeds.params[i, PHI] = track.params.phi
    p.seeds.params[i, THETA] = track.params.theta


def move_starts(
    ws: Workspace,
    listed: Any,
    extent: str,
    parameters: SeedParameters,
    measurements: MeasurementBatch,
    detector: DetectorPayload,
    config: FindingConfig,
) -> None:
    """Move seeds to the first sensor of their layer that has a measurement for them.

    Parameters
    ----------
    ws : Workspace
        Buffers.
    listed : array of shape (n_listed,), int32
        Seeds.
    extent : str
        Where their number is kept.
    parameters : SeedParameters
        Track parameters of all seeds; module, measurement, position and direction are those of the new start after it.
    measurements : MeasurementBatch
        Measurements of the batch.
    detector : DetectorPayload
        The detector on the device.
    config : FindingConfig
        The gate.
    """
    real = parameters.params.dtype.type
    payload = _Payload(
        detector=detector,
        measurements=measurements,
        seeds=parameters,
        listed=listed,
        cuts=_Cuts(chi2_max=real(config.chi2_max), mask_max=real(config.mask_max)),
    )
    ws.launch(_move_start, ws.extent(extent), payload)
