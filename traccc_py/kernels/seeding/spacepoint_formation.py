"""Spacepoint formation: global positions of the measurements that have two dimensions.

References
----------
traccc v1.6.0, `core/include/traccc/seeding/silicon_pixel_spacepoint_formation_algorithm.hpp`; here the order is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import kernel
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["form_spacepoints"]

_PIXEL = 2


class _CountPayload(NamedTuple):
    dimensions: Any  # (n_measurements,) int32
    out_is_pixel: Any  # (n_measurements,) int32, 1 where a spacepoint is made


class _FillPayload(NamedTuple):
    event_module: Any  # (n_measurements,) int32
    local_position: Any  # (n_measurements, 2) scalar [mm]
    dimensions: Any  # (n_measurements,) int32
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    offsets: Any  # (n_measurements + 1,) int32
    out_global_position: Any  # (n_spacepoints, 3) scalar [mm]
    out_measurement_index: Any  # (n_spacepoints,) int32
    out_event: Any  # (n_spacepoints,) int32


@kernel(grain=8192)
def _count_spacepoints(i, p):
    """One measurement: mark whether it gives a spacepoint."""
    p.out_is_pixel[i] = np.int32(p.dimensions[i] == _PIXEL)


@kernel(grain=1024)
def _fill_spacepoints(i, p):
    """One measurement: write its spacepoint, if it gives one."""
    row = p.offsets[i]
    if p.offsets[i + 1] == row or p.offsets[i + 1] > p.out_event.shape[0]:
        return
    event_module = p.event_module[i]
    event = event_module // p.n_modules
    s = p.surfaces[event_module - event * p.n_modules]
    loc0, loc1 = p.local_position[i, 0], p.local_position[i, 1]
    p.out_global_position[row, 0] = s.cx + (loc0 * s.ux + loc1 * s.vx)
    p.out_global_position[row, 1] = s.cy + (loc0 * s.uy + loc1 * s.vy)
    p.out_global_position[row, 2] = s.cz + (loc0 * s.uz + loc1 * s.vz)
    p.out_measurement_index[row] = i
    p.out_event[row] = event


def form_spacepoints(
    ws: Workspace, measurements: MeasurementBatch, detector: DetectorArrays, n_modules: int
) -> SpacepointBatch:
    """Turn the two-dimensional measurements of a batch into spacepoints.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "measurements" must be set; that of "spacepoints" is set here.
    measurements : MeasurementBatch
        Local positions [mm].
    detector : DetectorArrays
        Surfaces.
    n_modules : int
        Number of surfaces [1].

    Returns
    -------
    SpacepointBatch
        Global positions [mm], in the order of the measurements.
    """
    extent, spacepoints = ws.extent("measurements"), ws.extent("spacepoints")
    is_pixel = ws.array("spacepoint_formation.is_pixel", extent, np.int32)
    offsets = ws.array("spacepoint_formation.offsets", extent, np.int32, extra=1)
    ws.launch(_count_spacepoints, extent, _CountPayload(measurements.dimensions, is_pixel))
    ws.scan(is_pixel, extent, offsets, spacepoints)
    out = SpacepointBatch(
        global_position=ws.array("spacepoints.global_position", spacepoints, measurements.local_position.dtype, 3),
        measurement_index=ws.array("spacepoints.measurement_index", spacepoints, np.int32),
        event=ws.array("spacepoints.event", spacepoints, np.int32),
    )
    payload = _FillPayload(
        measurements.event_module,
        measurements.local_position,
        measurements.dimensions,
        detector.surfaces,
        np.int32(n_modules),
        offsets,
        *out,
    )
    ws.launch(_fill_spacepoints, extent, payload)
    return out
