"""Points on surfaces: whether they are inside the outline, and the material there."""

from __future__ import annotations

import math

from traccc_py.geometry.records import LayerKind, MapKind, Shape
from traccc_py.simulation.compiled import compiled

__all__ = ["is_inside", "module_slab", "passive_slab"]

_ANNULUS = int(Shape.ANNULUS)  # and, beyond it, rings
_CARTESIAN = int(MapKind.CARTESIAN)
_CYLINDER = int(LayerKind.CYLINDER)
_TWO_PI = 2.0 * math.pi


@compiled
def is_inside(module, local0, local1):
    """Return whether a local position is inside the outline of a module."""
    if module.shape >= _ANNULUS:
        radius = math.hypot(local0 - module.beam_x, local1 - module.beam_y)
        angle = math.atan2(local0, local1 + module.focal)
        return module.r_min <= radius <= module.r_max and abs(angle) <= module.half_opening
    half_width = module.hx_min + (module.hx_max - module.hx_min) * (local1 + module.hy) / (2.0 * module.hy)
    return abs(local1) <= module.hy and abs(local0) <= half_width


@compiled
def _slab_of(record):
    return record.thickness_in_x0, record.bethe_xi, record.excitation_energy, record.plasma_energy


@compiled
def _bin(coordinate, low, scale, n):
    return min(max(math.floor((coordinate - low) * scale), 0), n - 1)


@compiled
def _near(angle, middle):
    """Return the angle within pi of `middle`."""
    return angle - _TWO_PI * math.floor((angle - middle + math.pi) / _TWO_PI)


@compiled
def _map_slab(geometry, found, a, b):
    """Return the slab of a map at the coordinates a, b."""
    i0, i1 = _bin(a, found.low0, found.scale0, found.n0), _bin(b, found.low1, found.scale1, found.n1)
    slab = geometry.slabs[found.first_slab + i0 + found.n0 * i1]
    return slab[0], slab[1], slab[2], slab[3]


@compiled
def module_slab(geometry, module, local0, local1):
    """Return the slab of a module at a local position."""
    if module.material_map == 0:
        return _slab_of(module)
    found = geometry.maps[module.material_map]
    if found.kind == _CARTESIAN:
        return _map_slab(geometry, found, local0, local1)
    angle = _near(math.atan2(local0, local1 + module.focal), found.middle)
    return _map_slab(geometry, found, math.hypot(local0, local1 + module.focal), angle)


@compiled
def passive_slab(geometry, passive, position):
    """Return the slab of a passive surface at a global position."""
    if passive.material_map == 0:
        return _slab_of(passive)
    found = geometry.maps[passive.material_map]
    phi = _near(math.atan2(position[1], position[0]), found.middle)
    if passive.kind == _CYLINDER:
        return _map_slab(geometry, found, phi, position[2])
    return _map_slab(geometry, found, math.hypot(position[0], position[1]), phi)
