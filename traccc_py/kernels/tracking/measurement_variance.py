"""Variances of measurements at the direction of a track.

How well a cluster's position is known depends on the path of the particle through the sensor: two strips that fired
say that the path crosses the border between them, so their error is proportional to the path's projection. Sigmas are
tabulated against that projection (`geometry.variance_table`) and interpolated linearly, so they are a continuous
function of the direction. Clusters larger than the table's last size have its sigma and the variance that the noise of
each further channel adds. A measurement without cluster keeps the variance it came with, as does one whose design and
size are not in the table.
"""

from __future__ import annotations

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.geometry.records import END_PATH_STEP, MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.kernels.tracking.helix import direction

__all__ = ["channel_paths", "measurement_variance"]

_ZERO = scalar(0)
_MIN_INCIDENCE = scalar(0.02)
_HALF = scalar(0.5)
_TWELFTH = scalar(1 / 12)
_STEP = scalar(END_PATH_STEP)
_PER_STEP = scalar(1 / END_PATH_STEP)
_LAST = scalar(N_END_PATHS - 1)
_BEFORE_LAST = N_END_PATHS - 2
_MAX_SIZE = MAX_CLUSTER_SIZE


@device_function
def channel_paths(surfaces, designs, i, trig):
    """Return the lengths of a path through surface i, projected to its axes, in channels."""
    t = direction(trig)
    s = surfaces[i]
    found = designs[s.design]
    across = abs(t[0] * s.wx + t[1] * s.wy + t[2] * s.wz)
    scale = found.thickness / max(across, _MIN_INCIDENCE + _ZERO * across)
    path0 = abs(t[0] * s.ux + t[1] * s.uy + t[2] * s.uz) * scale / found.pitch0
    path1 = abs(t[0] * s.vx + t[1] * s.vy + t[2] * s.vz) * scale / found.pitch1
    return path0, path1


@device_function
def _variance_per_channel(design):
    """Return what a further channel adds to the variance [mm^2] of a long cluster (`variance_table`)."""
    if design.is_digital == 1:
        return _ZERO * design.charge_smearing
    return design.charge_smearing * design.charge_smearing * _TWELFTH


@device_function
def _axis_variance(sigmas, design, axis, size, path, pitch, growth, given):
    """Return the variance [mm^2] of a cluster of `size` channels that a path of `path` channels made."""
    row = min(size, _MAX_SIZE)
    if row < 1 or not sigmas[design, axis, row, 0] > _ZERO:
        return given
    end_path = path - scalar(np.int32(size - 2))
    place = _ZERO * given
    if end_path > _ZERO:  # False if it is no number
        place = min(end_path * _PER_STEP, _LAST + place)
    k = min(np.int32(place), np.int32(_BEFORE_LAST))
    low = sigmas[design, axis, row, k]
    sigma = low + (place - scalar(k)) * (sigmas[design, axis, row, k + 1] - low)
    sigma = sigma + _HALF * pitch * abs(end_path - place * _STEP)
    return sigma * sigma + scalar(np.int32(size - row)) * growth


@device_function(inlined=True)
def measurement_variance(p, surface, paths, m):
    """Return the variances [mm^2] of measurement m on a surface for a path (`channel_paths`) through it.

    The payload p has ``surfaces``, ``designs``, ``path_sigmas``, ``local_variance`` and ``cluster_size``.
    """
    i = p.surfaces[surface].design
    found = p.designs[i]
    given, size = p.local_variance, p.cluster_size
    growth = _variance_per_channel(found)
    return (
        _axis_variance(p.path_sigmas, i, 0, size[m, 0], paths[0], found.pitch0, growth, given[m, 0]),
        _axis_variance(p.path_sigmas, i, 1, size[m, 1], paths[1], found.pitch1, growth, given[m, 1]),
    )
