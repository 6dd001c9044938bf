"""Dead channels: where no measurement is expected of a track, and which clusters may go on in them.

A surface has none, or a few rectangles of channels (`geometry.records.DEAD_RANGE`). Their edges are treated as those of
the surface are: a track that may have crossed them, within the uncertainty of its prediction, has no hole.
"""

from __future__ import annotations

import math

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import HALF, ZERO
from traccc_py.kernels.tracking.linalg import wrap_angle
from traccc_py.kernels.tracking.polar import is_polar

__all__ = ["is_cut_off", "may_cross_dead_channels"]

_NEAREST = scalar(1e-3)  # [mm], to the focal point


@device_function
def _has_dead_channels(detector, surface):
    """Return whether a surface has dead channels; without any in the detector there are no offsets."""
    if surface + 1 >= detector.dead_offsets.shape[0]:
        return False
    return detector.dead_offsets[surface] < detector.dead_offsets[surface + 1]


@device_function
def may_cross_dead_channels(detector, surface, local, bands):
    """Return whether a place on a surface is in dead channels, or within `bands` [mm] of them."""
    if not _has_dead_channels(detector, surface):
        return False
    x, y, band0, band1 = local.loc0, local.loc1, bands.loc0, bands.loc1
    if is_polar(detector.surfaces, surface):
        s = detector.surfaces[surface]
        design = detector.designs[s.design]
        ahead = local.loc1 + s.focal
        middle = design.min1 + HALF * scalar(design.n_channels1) * design.pitch1
        x = math.sqrt(local.loc0 * local.loc0 + ahead * ahead)
        y = middle + wrap_angle(s.phi_middle - math.atan2(local.loc0, ahead) - middle)
        band0 = max(bands.loc0, bands.loc1)
        band1 = band0 / max(x, _NEAREST + ZERO * x)
    for k in range(detector.dead_offsets[surface], detector.dead_offsets[surface + 1]):
        dead = detector.dead_ranges[k]
        if dead.min0 - band0 < x < dead.max0 + band0 and dead.min1 - band1 < y < dead.max1 + band1:
            return True
    return False


@device_function
def _begins_beside(first, last, low, high):
    """Return whether one of the channels first ... last is next to an end of low ... high."""
    return first <= high + 1 <= last or first <= low - 1 <= last


@device_function(inlined=True)
def is_cut_off(readout, module, low0, size0, low1, size1):
    """Return whether a cluster ends at dead channels, in which it may go on, along each axis."""
    along0, along1 = False, False
    if not _has_dead_channels(readout, module):
        return along0, along1
    high0, high1 = low0 + size0 - 1, low1 + size1 - 1
    for k in range(readout.dead_offsets[module], readout.dead_offsets[module + 1]):
        dead = readout.dead_ranges[k]
        if dead.first1 <= high1 and dead.last1 >= low1:
            along0 = along0 or _begins_beside(dead.first0, dead.last0, low0, high0)
        if dead.first0 <= high0 and dead.last0 >= low0:
            along1 = along1 or _begins_beside(dead.first1, dead.last1, low1, high1)
    return along0, along1
