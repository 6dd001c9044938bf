"""The prefilter of the transport: the modules that a track near a helix may cross, and where on its path."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.transport.truth_helix import helix_direction, helix_position

__all__ = ["MAX_DEVIATION", "ReachableModules", "empty_list", "find_reachable_modules"]

_MARGIN = 12.0  # a module is checked if its bounding sphere is this close [mm]
MAX_DEVIATION = 6.0  #: the list is valid for tracks that are no farther from its helix at equal path [mm]
_MIN_INCIDENCE = 0.2  # crossings at smaller angles are always listed
_MAX_TURN = 0.3  # and so are those of strongly curved tracks [rad over the reach of a module]
_MIN_KAPPA = 1e-10  # straighter tracks are treated as a circle of this curvature: 1 um of sagitta over 100 m [1/mm]
_TWO_PI = 2.0 * math.pi


class ReachableModules(NamedTuple):
    """Modules ordered by `s_low`; one entry for each turn."""

    module: Any  # (capacity,) int64
    s_low: Any  # (capacity,) path range along the helix in which the module may be crossed [mm]
    s_high: Any  # (capacity,)


@compiled
def empty_list(capacity):
    """Return a list with room for `capacity` entries."""
    return ReachableModules(np.empty(capacity, np.int64), np.empty(capacity), np.empty(capacity))


@compiled
def _append(found, n, module, s_low, s_high):
    if n == len(found.module):
        grown = empty_list(2 * n)
        grown.module[:n] = found.module
        grown.s_low[:n] = found.s_low
        grown.s_high[:n] = found.s_high
        found = grown
    found.module[n], found.s_low[n], found.s_high[n] = module, s_low, s_high
    return found, n + 1


@compiled
def _longitudinal_range(z, dz, module_z, reach, s_end):
    """Return the path range in which |z - module_z| <= reach, cut to [0, s_end]."""
    if dz == 0.0:
        return (0.0, s_end) if abs(module_z - z) <= reach else (1.0, 0.0)
    first, second = (module_z - reach - z) / dz, (module_z + reach - z) / dz
    return max(0.0, min(first, second)), min(s_end, max(first, second))


@compiled
def _may_be_crossed(module, helix, s, reach):
    """Return whether a track within `MAX_DEVIATION` of the helix may cross a module near path `s`."""
    kappa = abs(helix[6])
    if kappa * reach > _MAX_TURN:
        return True
    dx, dy, dz = helix_direction(helix, s)
    slope = module.wx * dx + module.wy * dy + module.wz * dz
    if abs(slope) < _MIN_INCIDENCE:
        return True
    x, y, z = helix_position(helix, s)
    x, y, z = x - module.cx, y - module.cy, z - module.cz
    step = -(module.wx * x + module.wy * y + module.wz * z) / slope
    if abs(step) > reach / _MIN_INCIDENCE:
        return False
    x, y, z = x + step * dx, y + step * dy, z + step * dz
    # the track's crossing differs by its deviation, and by the shift along the track that this causes
    tolerance = MAX_DEVIATION * (1.0 + 1.0 / abs(slope)) + kappa * step * step / abs(slope)
    inside0 = abs(module.ux * x + module.uy * y + module.uz * z) <= max(module.hx_min, module.hx_max) + tolerance
    return inside0 and abs(module.vx * x + module.vy * y + module.vz * z) <= module.hy + tolerance


@compiled
def find_reachable_modules(geometry, helix, s_end, found):
    """List the modules that a track near the helix may cross up to path `s_end`, written over `found`.

    Returns the number of entries and the list, which may be a larger one.
    """
    x, y, z, dx, dy, dz, kappa = helix
    if abs(kappa) < _MIN_KAPPA:
        kappa = math.copysign(_MIN_KAPPA, kappa)
    turn = math.copysign(1.0, kappa)
    centre_x, centre_y = x - dy / kappa, y + dx / kappa
    circle = math.hypot(dx, dy) / abs(kappa)
    n = 0
    spheres, modules = geometry.spheres, geometry.modules
    for module in range(len(spheres)):
        reach = spheres[module, 3] + _MARGIN
        mx, my = spheres[module, 0] - centre_x, spheres[module, 1] - centre_y
        distance2 = mx * mx + my * my
        if distance2 > (circle + reach) ** 2 or (circle > reach and distance2 < (circle - reach) ** 2):
            continue
        s_low, s_high = _longitudinal_range(z, dz, spheres[module, 2], reach, s_end)
        if s_low > s_high:
            continue
        # angle along the circle from the helix' start to the module, and half the arc inside the sphere
        distance = math.sqrt(distance2)
        ax, ay = x - centre_x, y - centre_y
        angle = turn * math.atan2(ax * my - ay * mx, ax * mx + ay * my)
        quarter = (reach * reach - (circle - distance) ** 2) / (4.0 * circle * max(distance, 1e-300))
        opening = 2.0 * math.asin(math.sqrt(min(1.0, max(0.0, quarter))))
        scale = 1.0 / abs(kappa)
        k = math.floor((s_low / scale - angle - opening) / _TWO_PI)
        while (angle - opening + k * _TWO_PI) * scale <= s_high:
            low = max(s_low, (angle - opening + k * _TWO_PI) * scale)
            high = min(s_high, (angle + opening + k * _TWO_PI) * scale)
            if low <= high and _may_be_crossed(modules[module], helix, 0.5 * (low + high), reach):
                found, n = _append(found, n, module, low, high)
            k += 1.0
    order = np.argsort(found.s_low[:n])
    found.module[:n] = found.module[:n][order]
    found.s_high[:n] = found.s_high[:n][order]
    found.s_low[:n] = found.s_low[:n][order]
    return n, found
