"""Variances of measurements at the direction of a track.

How well a cluster's position is known depends on the path of the particle through the sensor: two strips that fired
say that the path crosses the border between them, so their error is proportional to the path's projection. Sigmas are
tabulated against that projection (`geometry.variance_table`) and interpolated linearly, so they are a continuous
function of the direction. Clusters larger than the table's last size have its sigma and the variance that the noise of
each further channel adds. A measurement without cluster keeps the variance it came with, as does one whose design and
size are not in the table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import END_PATH_STEP, LARGEST, MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.kernels.constants import HALF, ONE, QUARTER, TWELFTH, ZERO
from traccc_py.kernels.tracking.helix import unit_vector
from traccc_py.kernels.tracking.navigation import MIN_INCIDENCE
from traccc_py.kernels.tracking.state import AXIS0, AXIS1, Local

__all__ = [
    "channel_paths",
    "loc0_bound",
    "loc0_variance",
    "loc1_variance",
    "measurement_variance",
    "most_loc0_variance",
]

_STEP = scalar(END_PATH_STEP)
_PER_STEP = scalar(1 / END_PATH_STEP)
_LAST = scalar(N_END_PATHS - 1)
_BEFORE_LAST = N_END_PATHS - 2
_SHORTEST = 0  # column of the smallest end path: 0 where the table has no entry


class Bound(NamedTuple):
    """What a bound of the variances of a surface's measurements is made of, for a path through it."""

    sigma: Any  # [mm], without channels
    per_channel: Any  # what each channel adds to it [mm]
    growth: Any  # ... and to the variance [mm^2]


@device_function
def channel_paths(detector, surface, direction):
    """Return the lengths of a path through a surface, projected to its axes, in channels."""
    t = unit_vector(direction)
    s = detector.surfaces[surface]
    design = detector.designs[s.design]
    across = abs(t.x * s.wx + t.y * s.wy + t.z * s.wz)
    scale = design.thickness / max(across, MIN_INCIDENCE + ZERO * across)
    return Local(
        loc0=abs(t.x * s.ux + t.y * s.uy + t.z * s.uz) * scale / design.pitch0,
        loc1=abs(t.x * s.vx + t.y * s.vy + t.z * s.vz) * scale / design.pitch1,
    )


@device_function
def _variance_per_channel(design):
    """Return what a further channel adds to the variance [mm^2] of a long cluster (`variance_table`)."""
    if design.is_digital == 1:
        return ZERO * design.charge_smearing
    return design.charge_smearing * design.charge_smearing * TWELFTH


@device_function
def _axis_variance(sigmas, design, axis, size, path, pitch, growth, given):
    """Return the variance [mm^2] of a cluster of `size` channels that a path of `path` channels made.

    Negative sizes are of clusters that dead channels cut off: half of what is missing of the path is added in square.
    """
    if size < 0:
        hidden = path + HALF + scalar(size)
        return given + QUARTER * pitch * pitch * hidden * hidden if hidden > ZERO else given
    row = min(size, MAX_CLUSTER_SIZE)
    if row < 1 or not sigmas[design, axis, row, _SHORTEST] > ZERO:
        return given
    end_path = path - scalar(np.int32(size - 2))
    place = ZERO * given
    if end_path > ZERO:  # False if it is no number
        place = min(end_path * _PER_STEP, _LAST + place)
    k = min(np.int32(place), np.int32(_BEFORE_LAST))
    low = sigmas[design, axis, row, k]
    sigma = low + (place - scalar(k)) * (sigmas[design, axis, row, k + 1] - low)
    sigma = sigma + HALF * pitch * abs(end_path - place * _STEP)
    return sigma * sigma + scalar(np.int32(size - row)) * growth


@device_function(inlined=True)
def loc0_variance(p, surface, paths, m):
    """Return the variance [mm^2] of `measurement_variance` along the first axis alone."""
    i = p.detector.surfaces[surface].design
    design = p.detector.designs[i]
    size, given = p.measurements.cluster_size[m, AXIS0], p.measurements.local_variance[m, AXIS0]
    growth = _variance_per_channel(design)
    return _axis_variance(p.detector.path_sigmas, i, AXIS0, size, paths.loc0, design.pitch0, growth, given)


@device_function(inlined=True)
def loc1_variance(p, surface, paths, m):
    """Return the variance [mm^2] of `measurement_variance` along the second axis alone."""
    i = p.detector.surfaces[surface].design
    design = p.detector.designs[i]
    size, given = p.measurements.cluster_size[m, AXIS1], p.measurements.local_variance[m, AXIS1]
    growth = _variance_per_channel(design)
    return _axis_variance(p.detector.path_sigmas, i, AXIS1, size, paths.loc1, design.pitch1, growth, given)


@device_function(inlined=True)
def loc0_bound(p, surface, paths):
    """Return what `most_loc0_variance` needs to know of a surface."""
    i = p.detector.surfaces[surface].design
    design = p.detector.designs[i]
    half_pitch = HALF * design.pitch0
    sigma = p.detector.path_sigmas[i, AXIS0, LARGEST, _SHORTEST] + half_pitch * (paths.loc0 + ONE)
    return Bound(sigma=sigma, per_channel=half_pitch, growth=_variance_per_channel(design))


@device_function(inlined=True)
def most_loc0_variance(bound, given, size):
    """Return a variance [mm^2] that `loc0_variance` is not above, without a row of the table.

    `given` and `size` are those of the measurement along the first axis.
    """
    channels = scalar(abs(size))
    sigma = bound.sigma + bound.per_channel * channels
    return given + sigma * sigma + bound.growth * channels


@device_function(inlined=True)
def measurement_variance(p, surface, paths, m):
    """Return the variances [mm^2] of measurement m on a surface for a path (`channel_paths`) through it."""
    return Local(loc0=loc0_variance(p, surface, paths, m), loc1=loc1_variance(p, surface, paths, m))
