"""Where the layers of a detector are, and which of them particles cross one after another.

Straight lines from the beam line stand for particles: what follows from them are the distances between the layers of a
track, not whether a soft one reaches the next layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from traccc_py.geometry.layers import DISC_COSINE
from traccc_py.geometry.records import LayerKind

if TYPE_CHECKING:
    from traccc_py.geometry.detector import Detector

__all__ = ["Crossing", "LayerPlace", "Line", "apart", "crossings", "layer_places"]

_SAME_LAYER = 0.25  #: crossings closer than this part of a line's median step are of one layer: overlapping rings
_N_POINTS = 3  # along each axis of a sensor: middle, edges and corners


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """A layer with sensors, or with material alone. Discs split by ring are several."""

    name: str
    kind: LayerKind  #: cylinder or disc; planes along the beam line are discs, others planes
    position: float  # radius or z; of planes the distance from the beam line [mm]
    r_low: float  # range of its sensors [mm]
    r_high: float
    z_low: float
    z_high: float
    material: float  # mean thickness in radiation lengths, for perpendicular passage [1]
    dimensions: int = 0  # coordinates that all its sensors measure; 0: there are none
    pitch: float = 0.0  # its widest channel, across the strips where it has strips [mm]; infinite for angles


class Line(NamedTuple):
    """A straight line from the beam line."""

    cot_theta: float
    z: float = 0.0  # where it starts [mm]


class Crossing(NamedTuple):
    """Where a line meets a layer."""

    layer: LayerPlace
    r: float  # [mm]
    z: float  # [mm]

    @property
    def r_range(self) -> tuple[float, float]:
        """Radii at which it may have a sensor there [mm]: a cylinder is as thick as its sensors are staggered."""
        is_cylinder = self.layer.kind == LayerKind.CYLINDER
        return (self.layer.r_low, self.layer.r_high) if is_cylinder else (self.r, self.r)


def layer_places(detector: Detector) -> tuple[LayerPlace, ...]:
    """Return the layers of a detector, in the order of `Detector.layers`."""
    return tuple(_places(detector))


def _places(detector: Detector) -> Iterator[LayerPlace]:
    surfaces = detector.surfaces
    x, y, z = np.moveaxis(surfaces.points(_N_POINTS, _N_POINTS), 2, 0)
    r = np.hypot(x, y)
    for layer, name, members in zip(detector.layers, detector.layer_names, _sensors_of_layers(detector), strict=True):
        kind, position = LayerKind(layer["kind"]), float(layer["position"])
        if len(members) == 0:
            along, across = (position, position), (float(layer["extent_min"]), float(layer["extent_max"]))
            ranges = (*along, *across) if kind == LayerKind.CYLINDER else (*across, *along)
            yield LayerPlace(name, kind, position, *ranges, material=float(layer["thickness_in_x0"]))
            continue
        if kind == LayerKind.PLANE:
            is_along_z = abs(layer["normal_z"]) > DISC_COSINE
            kind = LayerKind.DISC if is_along_z else kind
            position = float(np.sign(layer["normal_z"])) * position if is_along_z else abs(position)
        designs = detector.designs[np.unique(detector.design_of_surface[members])]
        yield LayerPlace(
            name,
            kind,
            position,
            r_low=float(r[members].min()),
            r_high=float(r[members].max()),
            z_low=float(z[members].min()),
            z_high=float(z[members].max()),
            material=float(surfaces.slab[members, 0].mean()),
            dimensions=int(designs["dimensions"].min()),
            pitch=_widest(designs),
        )


def _sensors_of_layers(detector: Detector) -> list[np.ndarray]:
    sensors = np.flatnonzero(detector.surfaces.is_sensitive)
    layers = detector.layer_of_surface[sensors]
    order = np.argsort(layers, kind="stable")
    return np.split(sensors[order], np.searchsorted(layers[order], np.arange(1, len(detector.layers))))


def _widest(designs: np.ndarray) -> float:
    """Return the widest channel of designs that measure both coordinates, the widest strip of others."""
    pitch = np.stack([designs["pitch0"], designs["pitch1"]], axis=1).astype(float)
    widest = np.where(designs["dimensions"] > 1, pitch.max(axis=1), pitch.min(axis=1))
    return float("inf") if designs["is_polar"].any() else float(widest.max())


def crossings(layers: Sequence[LayerPlace], line: Line) -> list[Crossing]:
    """Return where a line crosses layers, from the inside out."""
    return sorted(_meetings(layers, line), key=lambda crossing: (crossing.r, abs(crossing.z - line.z)))


def apart(found: Sequence[Crossing]) -> list[Crossing]:
    """Return crossings without those much closer to the one before than others are: where rings of a disc overlap."""
    steps = [math.hypot(b.r - a.r, b.z - a.z) for a, b in pairwise(found)]
    shortest = _SAME_LAYER * median(steps) if steps else 0.0
    kept = list(found[:1])
    for crossing in found[1:]:
        if math.hypot(crossing.r - kept[-1].r, crossing.z - kept[-1].z) >= shortest:
            kept.append(crossing)
    return kept


def _meetings(layers: Sequence[LayerPlace], line: Line) -> Iterator[Crossing]:
    for layer in layers:
        if layer.kind == LayerKind.DISC:
            if (layer.position - line.z) * line.cot_theta <= 0:
                continue
            r, z = (layer.position - line.z) / line.cot_theta, layer.position
            is_inside = layer.r_low <= r <= layer.r_high
        else:
            r, z = layer.position, line.z + line.cot_theta * layer.position
            is_inside = layer.z_low <= z <= layer.z_high
        if is_inside:
            yield Crossing(layer, r, z)
