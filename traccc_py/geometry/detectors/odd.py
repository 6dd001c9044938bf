"""The Open Data Detector (ODD) tracker: 18,824 sensors with Acts ids, supports and beam pipe.

Facts (positions, counts, material) from OpenDataDetector, commit b2e95fc (2025-10-31), xml/OpenDataPixels.xml,
OpenDataShortStrips.xml, OpenDataLongStrips.xml, OpenDataBeamPipe.xml and factory/tracker. Ids as in the
Gen1 geometry of Acts (Python/Examples/python/odd.py). The placement of the 2024 traccc events is the same.

Left out of the material: cables, cooling rings, support rails, and the support rings of the long strips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from traccc_py.geometry.material.material import (
    ALUMINIUM,
    BERYLLIUM,
    CARBON_FIBRE,
    CARBON_FOAM,
    KAPTON,
    SILICON,
    TITANIUM,
    Slab,
    combine_slabs,
)
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, encode_geometry_id

__all__ = ["COLLIDERML_FIELD", "DEFAULT_FIELD", "VOLUME_NAMES", "odd_passive_surfaces", "odd_surfaces"]

DEFAULT_FIELD = 2.0  #: of the stored traccc events; the ODD itself went from 2 T to 3 T in October 2025 [T]
COLLIDERML_FIELD = 3.0  #: of ColliderML's release 1: median of pT / radius of its particles [T]

VOLUME_NAMES = {
    16: "pixel endcap -",
    17: "pixel barrel",
    18: "pixel endcap +",
    23: "short strip endcap -",
    24: "short strip barrel",
    25: "short strip endcap +",
    28: "long strip endcap -",
    29: "long strip barrel",
    30: "long strip endcap +",
}


@dataclass(frozen=True, slots=True)
class _Sensor:
    """A sensor in its module."""

    hx_min: float
    hx_max: float
    hy: float
    thickness: float
    slab: Slab
    w_offset: float = 0.0  # along the module's normal
    stereo: float = 0.0  # rotation about the normal


@dataclass(frozen=True, slots=True)
class _Barrel:
    """A volume of barrel layers; staves are at phi = 2 pi k / n_phi."""

    volume: int
    layers: tuple[tuple[float, int], ...]  # radius, n_phi
    tilt: float  # of the normal against the radial direction
    n_z: int
    z_pitch: float
    sensors: tuple[_Sensor, ...]


@dataclass(frozen=True, slots=True)
class _Ring:
    """A ring of modules on a disc. Offsets in z for the endcap at z > 0."""

    radius: float
    n_phi: int
    phi_0: float
    z_offset: float
    gap: float  # even modules are moved by +gap in z, odd ones by -gap, on both sides
    sensors: tuple[_Sensor, ...]


@dataclass(frozen=True, slots=True)
class _Endcaps:
    """A pair of endcaps."""

    volumes: tuple[int, int]  # z < 0, z > 0
    z: tuple[float, ...]  # of the discs with sensors
    z_without_sensors: tuple[float, ...]  # discs without sensors that still count in the layer numbers
    z_shift: float  # of all sensors, towards the interaction point
    flips_even: bool  # the normals of even modules are -z
    rings: tuple[_Ring, ...]


# Cross sections of a stave's parts, spread over the width of its sensors [mm^2].
_PIXEL_FOAM = (12 + 2) / 2 * 4 - math.pi * 1.2**2  # trapezoid, less the hole for the pipe
_PIXEL_PIPE = math.pi * (1.1**2 - 1.0**2)
_SHORT_STRIP_FOAM = 45 * 4 - math.pi * 1.8**2
_SHORT_STRIP_PIPE = math.pi * (1.7**2 - 1.5**2)
_LONG_STRIP_FIBRE = 2 * 16 * 5 + 2 * (30 * 5 - math.pi * 2.0**2)  # two rails, two blocks
_LONG_STRIP_PIPES = 2 * math.pi * (1.9**2 - 1.8**2)
_LONG_STRIP_DISC_PIPE = math.pi * (1.5**2 - 1.4**2)


def _pixel_barrel_slab() -> Slab:
    width, length = 16.8, 72.0
    return combine_slabs(
        [
            SILICON.slab(0.125),
            KAPTON.slab(0.25 * (16 * 70) / (width * length)),
            ALUMINIUM.slab(0.15 * (3 * 60) / (width * length)),
            CARBON_FOAM.slab(_PIXEL_FOAM / width),
            TITANIUM.slab(_PIXEL_PIPE / width),
        ]
    )


def _pixel_disc_slab(mean_width: float) -> Slab:
    return combine_slabs([SILICON.slab(0.125), KAPTON.slab(0.25), ALUMINIUM.slab(0.15 * 3.2 / mean_width)])


def _short_strip_barrel_slab() -> Slab:
    width = 48.0
    return combine_slabs(
        [
            SILICON.slab(0.2),
            KAPTON.slab(0.25),
            ALUMINIUM.slab(0.25 * 10 / width),
            CARBON_FOAM.slab(_SHORT_STRIP_FOAM / width),
            TITANIUM.slab(_SHORT_STRIP_PIPE / width),
        ]
    )


def _short_strip_disc_slab(connector_half_width: float, sensor_half_width: float) -> Slab:
    covered = (connector_half_width * 44.8) / (sensor_half_width * 78)
    return combine_slabs([SILICON.slab(0.25), KAPTON.slab(0.25), ALUMINIUM.slab(0.2 * covered)])


def _long_strip_barrel_slab() -> Slab:
    """Half of a double module: one sensor with its board and connector, half of the structure between them."""
    width = 96.0
    return combine_slabs(
        [
            SILICON.slab(0.25),
            KAPTON.slab(0.25),
            ALUMINIUM.slab(0.25 * 20 / width),
            CARBON_FIBRE.slab(_LONG_STRIP_FIBRE / width / 2),
            TITANIUM.slab(_LONG_STRIP_PIPES / width / 2),
        ]
    )


def _long_strip_disc_slab(mean_width: float) -> Slab:
    """Half of a double module."""
    core = 4.0 - math.pi * 1.6**2 / mean_width
    return combine_slabs(
        [
            SILICON.slab(0.25),
            KAPTON.slab(0.25),
            CARBON_FIBRE.slab(core / 2),
            TITANIUM.slab(_LONG_STRIP_DISC_PIPE / mean_width / 2),
        ]
    )


def _barrels() -> list[_Barrel]:
    pixel = _Sensor(8.4, 8.4, 36.0, 0.125, _pixel_barrel_slab(), w_offset=-1.8)
    short = _Sensor(24.0, 24.0, 54.0, 0.2, _short_strip_barrel_slab())
    slab = _long_strip_barrel_slab()
    long = (
        _Sensor(48.0, 48.0, 54.0, 0.25, slab, w_offset=-3.31, stereo=0.04),
        _Sensor(48.0, 48.0, 54.0, 0.25, slab, w_offset=3.30),
    )
    return [
        _Barrel(17, ((34.0, 16), (70.0, 32), (116.0, 52), (172.0, 78)), 0.12, 14, 72.5, (pixel,)),
        _Barrel(24, ((260.0, 40), (360.0, 56), (500.0, 78), (660.0, 102)), -0.15, 21, 108.5, (short,)),
        _Barrel(29, ((820.0, 60), (1020.0, 80)), -0.15, 21, 108.5, long),
    ]


def _pixel_ring(radius: float, n_phi: int, dz: float, hx_min: float, hx_max: float) -> _Ring:
    sensor = _Sensor(hx_min, hx_max, 34.0, 0.125, _pixel_disc_slab(hx_min + hx_max))
    return _Ring(radius, n_phi, 0.0, dz, 0.6, (sensor,))


def _short_strip_ring(radius: float, phi_0: float, dz: float, hx: tuple[float, float], connector: float) -> _Ring:
    slab = _short_strip_disc_slab(connector, (hx[0] + hx[1]) / 2)
    return _Ring(radius, 42, phi_0, dz, 2.5, (_Sensor(hx[0], hx[1], 78.0, 0.25, slab),))


def _long_strip_ring(radius: float, dz: float, hx_min: float, hx_max: float) -> _Ring:
    slab = _long_strip_disc_slab(hx_min + hx_max)
    pair = [_Sensor(hx_min, hx_max, 78.0, 0.25, slab, w, s) for w, s in ((-2.5, -0.02), (2.5, 0.02))]
    return _Ring(radius, 48, 0.0, dz, 8.0, tuple(pair))


def _endcaps() -> list[_Endcaps]:
    # Pixel ring 1: ring radius 144, sensors 5 farther in. The XML has the z shift as 0.03 without a unit: cm.
    pixel = (_pixel_ring(76.0, 24, -3.5, 8.5, 14.5), _pixel_ring(139.0, 36, 3.5, 10.5, 16.5))
    short = (
        _short_strip_ring(318.0, 0.0, -5.0, (18.4, 32.2), 12.6),
        _short_strip_ring(470.0, 0.0748, 5.0, (30.2, 44.0), 18.6),
        _short_strip_ring(622.0, 0.0, -5.0, (40.8, 56.4), 25.1),
    )
    long = (_long_strip_ring(820.0, -15.0, 53.2, 58.6), _long_strip_ring(990.0, 15.0, 64.6, 70.0))
    pixel_z = (620.0, 720.0, 840.0, 980.0, 1120.0, 1320.0, 1520.0)
    return [
        _Endcaps((16, 18), pixel_z, (1950.0,), 0.3, False, pixel),
        _Endcaps((23, 25), (1300.0, 1550.0, 1850.0, 2200.0, 2550.0, 2950.0), (), 0.0, True, short),
        _Endcaps((28, 30), (1300.0, 1600.0, 1900.0, 2250.0, 2600.0, 3000.0), (), 0.0, True, long),
    ]


def _name_ranks(n: int) -> np.ndarray:
    """Return the position of child 0, 1, ... n - 1 among its siblings, which DD4hep sorts by *name*.

    stave10 comes before stave2, so numbering by position would give wrong sensors for nearly all ids.
    """
    ranks = np.empty(n, np.int64)
    ranks[sorted(range(n), key=str)] = np.arange(n)
    return ranks


def _rotated(u: np.ndarray, v: np.ndarray, angle: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both axes rotated by `angle` about their normal."""
    c, s = np.cos(angle), np.sin(angle)
    return c * u + s * v, c * v - s * u


def _barrel_surfaces(barrel: _Barrel) -> list[Surfaces]:
    parts = []
    n_sensors = len(barrel.sensors)
    for i_layer, (radius, n_phi) in enumerate(barrel.layers):
        stave, module = (a.ravel() for a in np.meshgrid(np.arange(n_phi), np.arange(barrel.n_z), indexing="ij"))
        phi = 2 * np.pi * stave / n_phi
        z = (module - (barrel.n_z - 1) / 2) * barrel.z_pitch
        zero = np.zeros_like(phi)
        w = np.stack([np.cos(phi + barrel.tilt), np.sin(phi + barrel.tilt), zero], axis=1)
        v = np.stack([zero, zero, zero + 1], axis=1)
        position = np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)
        place = (_name_ranks(n_phi)[stave] * barrel.n_z + _name_ranks(barrel.n_z)[module]) * n_sensors
        for i_sensor, sensor in enumerate(barrel.sensors):
            ids = encode_geometry_id(barrel.volume, 2 * (i_layer + 1), 1 + place + i_sensor)
            axes = _rotated(np.cross(v, w), v, sensor.stereo)
            parts.append(_planes(Shape.RECTANGLE, sensor, ids, position + sensor.w_offset * w, *axes))
    return parts


def _planes(shape: Shape, s: _Sensor, ids: np.ndarray, centre: np.ndarray, u: np.ndarray, v: np.ndarray) -> Surfaces:
    return Surfaces.planes(
        ids, centre, u, v, shape=shape, hx_min=s.hx_min, hx_max=s.hx_max, hy=s.hy, thickness=s.thickness, slab=s.slab
    )


def _endcap_surfaces(endcaps: _Endcaps) -> list[Surfaces]:
    parts = []
    for side, volume in zip((-1, 1), endcaps.volumes, strict=True):
        z_of_layers = sorted(side * z for z in endcaps.z + endcaps.z_without_sensors)
        for z in endcaps.z:
            layer = 2 * (z_of_layers.index(side * z) + 1)
            first = 1
            for i_ring, ring in enumerate(endcaps.rings):
                z_ring = side * (z + ring.z_offset - endcaps.z_shift)
                parts += _ring_surfaces(endcaps, ring, side, z_ring, (volume, layer, first, i_ring + 1))
                first += ring.n_phi * len(ring.sensors)
    return parts


def _ring_surfaces(
    endcaps: _Endcaps, ring: _Ring, side: int, z_ring: float, numbers: tuple[int, int, int, int]
) -> list[Surfaces]:
    volume, layer, first, extra = numbers
    module = np.arange(ring.n_phi)
    phi = ring.phi_0 + 2 * np.pi * module / ring.n_phi
    is_even = module % 2 == 0
    direction = np.where(is_even & endcaps.flips_even, -1.0, 1.0)  # of the normal
    zero = np.zeros_like(phi)
    v = np.stack([np.cos(phi), np.sin(phi), zero], axis=1)
    w = np.stack([zero, zero, direction], axis=1)
    z = z_ring + np.where(is_even, ring.gap, -ring.gap)
    position = np.stack([ring.radius * np.cos(phi), ring.radius * np.sin(phi), z], axis=1)
    parts = []
    for i_sensor, sensor in enumerate(ring.sensors):
        ids = encode_geometry_id(volume, layer, first + _name_ranks(ring.n_phi) * len(ring.sensors) + i_sensor, extra)
        axes = _rotated(np.cross(v, w), v, side * sensor.stereo)
        parts.append(_planes(Shape.TRAPEZOID, sensor, ids, position + sensor.w_offset * w, *axes))
    return parts


def odd_surfaces() -> Surfaces:
    """Return the sensors of the ODD with the material of their modules.

    Returns
    -------
    Surfaces
        18,824 rows. The material of a module is on its sensor; that of a double module is split between its two.
    """
    parts = [s for barrel in _barrels() for s in _barrel_surfaces(barrel)]
    parts += [s for endcaps in _endcaps() for s in _endcap_surfaces(endcaps)]
    return Surfaces.concatenate(parts)


def _tube(name: str, r_min: float, r_max: float, half_z: float) -> PassiveSurface:
    middle, thickness = (r_min + r_max) / 2, r_max - r_min
    material = BERYLLIUM if name == "beam pipe" else CARBON_FIBRE
    return PassiveSurface(name, LayerKind.CYLINDER, middle, -half_z, half_z, thickness, material.slab(thickness))


def odd_passive_surfaces() -> list[PassiveSurface]:
    """Return beam pipe, support cylinders, support discs and endplates of the ODD."""
    found = [_tube("beam pipe", 23.6, 24.4, 4000.0), _tube("pixel support tube", 202.0, 204.0, 2000.0)]
    found += [_tube("pixel support", r, r + 2, 500.0) for r in (37.0, 75.0, 120.0, 176.0)]
    found += [_tube("short strip support", r, r + 2, 1000.0) for r in (228.0, 334.0, 474.0, 634.0)]
    pixel, short, _ = _endcaps()
    discs = [("pixel disc support", z, 36.0, 176.0, 4.0) for z in pixel.z]
    discs += [("pixel endplate", z, 40.0, 189.0, 10.0) for z in pixel.z_without_sensors]
    rings = ((220.0, 270.0), (370.0, 430.0), (510.0, 570.0), (670.0, 710.0))
    discs += [("short strip disc support", z, r_min, r_max, 4.0) for z in short.z for r_min, r_max in rings]
    for side in (-1, 1):
        for name, z, r_min, r_max, thickness in discs:
            slab = CARBON_FIBRE.slab(thickness)
            found.append(PassiveSurface(name, LayerKind.DISC, side * z, r_min, r_max, thickness, slab))
    return found
