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
from traccc_py.edm.parameters import LOC0, LOC1
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import TWO_DIMENSIONS, X, Y, Z
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["form_spacepoints"]


class _CountPayload(NamedTuple):
    dimensions: Any  # (n_measurements,) int32
    out_is_pixel: Any  # (n_measurements,) int32, 1 where a spacepoint is made


class _FillPayload(NamedTuple):
    measurements: MeasurementBatch
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    offsets: Any  # (n_measurements + 1,) int32
    out: SpacepointBatch


@kernel(grain=8192)
def _count_spacepoints(i, p):
    """One measurement: mark whether it gives a spacepoint."""
    p.out_is_pixel[i] = np.int32(p.dimensions[i] == TWO_DIMENSIONS)


@kernel(grain=1024)
def _fill_spacepoints(i, p):
    """One measurement: write its spacepoint, if it gives one."""
    row = p.offsets[i]
    if p.offsets[i + 1] == row or p.offsets[i + 1] > p.out.event.shape[0]:
        return
    event_module = p.measurements.event_module[i]
    event = event_module // p.n_modules
    s = p.surfaces[event_module - event * p.n_modules]
    loc0, loc1 = p.measurements.local_position[i, LOC0], p.measurements.local_position[i, LOC1]
    p.out.global_position[row, X] = s.cx + (loc0 * s.ux + loc1 * s.vx)
    p.out.global_position[row, Y] = s.cy + (loc0 * s.uy + loc1 * s.vy)
    p.out.global_position[row, Z] = s.cz + (loc0 * s.uz + loc1 * s.vz)
    p.out.measurement_index[row] = i
    p.out.event[row] = event


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
    ws.launch(_count_spacepoints, extent, _CountPayload(dimensions=measurements.dimensions, out_is_pixel=is_pixel))
    ws.scan(is_pixel, extent, offsets, spacepoints)
    out = SpacepointBatch(
        global_position=ws.array("spacepoints.global_position", spacepoints, measurements.local_position.dtype, 3),
        measurement_index=ws.array("spacepoints.measurement_index", spacepoints, np.int32),
        event=ws.array("spacepoints.event", spacepoints, np.int32),
    )
    payload = _FillPayload(
        measurements=measurements,
        surfaces=detector.surfaces,
        n_modules=np.int32(n_modules),
        offsets=offsets,
        out=out,
    )
    ws.launch(_fill_spacepoints, extent, payload)
    return out
