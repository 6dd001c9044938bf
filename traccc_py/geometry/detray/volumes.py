"""Divide the inside of a cylinder into volumes, each around one layer, for detray's geometry files.

Layers are boxes in r and z. The world is cut in two at the widest gap where a plane or cylinder passes between boxes,
and each part again, until it holds one box. So volumes tile the world, and each side of a volume borders on others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Border", "Box", "TubeVolume", "borders", "divide_world"]

_MIN_GAP = 1e-2  #: smallest gap between boxes for a cut [mm]
_WORLD_MARGIN = 5.0  #: [mm]
_SAME = 1e-6  #: [mm]


class Box(NamedTuple):
    """The content of one volume."""

    name: str
    layer: int  # index of the detector's layer
    low: tuple[float, float]  # r, z [mm]
    high: tuple[float, float]


class TubeVolume(NamedTuple):
    """A tube around the z axis."""

    boxes: list[Box]
    low: tuple[float, float]  # r, z [mm]
    high: tuple[float, float]


class Border(NamedTuple):
    """Part of a side of a volume."""

    neighbour: int | None  # None: the end of the world
    low: float  # range across the side, in z on cylinders and in r on discs [mm]
    high: float


def divide_world(boxes: list[Box]) -> list[TubeVolume]:
    """Return volumes that tile a cylinder around all boxes; boxes that no cut can separate share a volume."""
    r_max = max(b.high[0] for b in boxes) + _WORLD_MARGIN
    z_min, z_max = min(b.low[1] for b in boxes) - _WORLD_MARGIN, max(b.high[1] for b in boxes) + _WORLD_MARGIN
    todo, done = [TubeVolume(boxes, (0.0, z_min), (r_max, z_max))], []
    while todo:
        volume = todo.pop()
        cut = _widest_cut(volume.boxes)
        if cut is None:
            done.append(volume)
            continue
        axis, place = cut
        below = [b for b in volume.boxes if b.high[axis] < place]
        above = [b for b in volume.boxes if b.high[axis] >= place]
        todo.append(TubeVolume(above, _with(volume.low, axis, place), volume.high))
        todo.append(TubeVolume(below, volume.low, _with(volume.high, axis, place)))
    return done


def _with(corner: tuple[float, float], axis: int, value: float) -> tuple[float, float]:
    return (value, corner[1]) if axis == 0 else (corner[0], value)


def _widest_cut(boxes: list[Box]) -> tuple[int, float] | None:
    """Return axis (0: r, 1: z) and position of the cut through the widest gap between boxes."""
    best, widest = None, _MIN_GAP
    for axis in (0, 1):
        low, high = np.array([b.low[axis] for b in boxes]), np.array([b.high[axis] for b in boxes])
        order = np.argsort(low)
        reached = np.maximum.accumulate(high[order])[:-1]
        gaps = low[order][1:] - reached
        if len(gaps) and gaps.max() > widest:
            k = int(np.argmax(gaps))
            widest, best = float(gaps[k]), (axis, float(reached[k] + gaps[k] / 2))
    return best


def borders(volumes: list[TubeVolume], index: int, axis: int, *, is_upper: bool) -> list[Border]:
    """Return the parts of one side of a volume.

    Parameters
    ----------
    volumes : list of TubeVolume
        All volumes.
    index : int
        Which of them.
    axis : int
        0: an inner or outer cylinder; 1: a disc at an end.
    is_upper : bool
        The side at the larger r or z.

    Returns
    -------
    list of Border
        In ascending order; together they cover the side.
    """
    own, across = volumes[index], 1 - axis
    place = (own.high if is_upper else own.low)[axis]
    found = []
    for i, other in enumerate(volumes):
        touches = abs((other.low if is_upper else other.high)[axis] - place) < _SAME
        low, high = max(own.low[across], other.low[across]), min(own.high[across], other.high[across])
        if touches and high - low > _SAME:
            found.append(Border(i, low, high))
    return sorted(found, key=lambda b: b.low) or [Border(None, own.low[across], own.high[across])]
