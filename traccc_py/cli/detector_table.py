"""Tables of `traccc-py detector`: what a detector consists of."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from traccc_py.data.words import counted
from traccc_py.geometry.records import LayerKind

__all__ = ["layer_table", "summary_line"]

_PERCENT = 100.0
_AXES = {  # of the position and of the extent
    LayerKind.CYLINDER: ("r", "z"),
    LayerKind.DISC: ("z", "r"),
    LayerKind.PLANE: ("offset", ""),
}
_LAYER_NUMBER = re.compile(r"/\d+")


class _Row(NamedTuple):
    name: str
    position: str
    extent: str
    n_sensors: str
    material: str


def _interval(low: float, high: float, digits: int = 1) -> str:
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return first if first == last else f"{first} to {last}"


def _material(detector: Any) -> np.ndarray:
    """Return the material of each layer in percent of a radiation length, of sensitive ones the mean of its sensors."""
    layers, sensors = detector.layers, detector.arrays().surfaces["thickness_in_x0"]
    n_sensors = np.bincount(detector.layer_of_surface, minlength=len(layers))
    sums = np.bincount(detector.layer_of_surface, sensors, minlength=len(layers))
    own = np.where(layers["is_sensitive"] == 1, 0.0, layers["thickness_in_x0"])
    result: np.ndarray = _PERCENT * (own + sums / np.maximum(n_sensors, 1))
    return result


def _groups(detector: Any, *, each: bool) -> list[list[int]]:
    """Return the layers that share a row: the discs of an endcap's ring, passive ones of one name."""
    groups: dict[Any, list[int]] = {}
    for index, (layer, name) in enumerate(zip(detector.layers, detector.layer_names, strict=True)):
        is_alone = each or (layer["is_sensitive"] and layer["kind"] != LayerKind.DISC)
        key = index if is_alone else (_LAYER_NUMBER.sub("", name), int(layer["kind"]))
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _row(detector: Any, members: list[int], material: np.ndarray) -> _Row:
    layers = detector.layers[members]
    name = detector.layer_names[members[0]]
    digits = 0 if len(members) > 1 else 1
    axis, across = _AXES[LayerKind(layers["kind"][0])]
    if len(members) > 1:
        name = f"{len(members)} x {_LAYER_NUMBER.sub('', name)}"
    is_limited = layers["kind"][0] != LayerKind.PLANE  # planes have no limits
    extent = _interval(layers["extent_min"].min(), layers["extent_max"].max(), 0)
    return _Row(
        name=name,
        position=f"{axis} {_interval(layers['position'].min(), layers['position'].max(), digits)}",
        extent=f"{across} {extent}" if is_limited else "",
        n_sensors=str((np.isin(detector.layer_of_surface, members) & detector.surfaces.is_sensitive).sum() or ""),
        material=_interval(material[members].min(), material[members].max(), 2),
    )


def layer_table(detector: Any, *, each: bool = False) -> Table:
    """Return the table of a detector's layers.

    Parameters
    ----------
    detector : Detector
        What to show.
    each : bool, optional
        List each layer, instead of the discs of an endcap's ring and the supports of one name together.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left", title=f"Detector {detector.name}")
    table.add_column("layer")
    for name in ("position [mm]", "extent [mm]", "sensors", "X/X0 [%]"):
        table.add_column(name, justify="right", no_wrap=True)
    material = _material(detector)
    groups = _groups(detector, each=each)
    is_sensitive = detector.layers["is_sensitive"]
    for members in groups:
        if is_sensitive[members[0]]:
            table.add_row(*_row(detector, members, material))
    table.add_section()
    for members in groups:
        if not is_sensitive[members[0]]:
            table.add_row(*_row(detector, members, material), style="dim")
    return table


def _field(detector: Any) -> str:
    """Say what the field is: its value along z or, of a map, its range, extent and nodes."""
    found = f"field {detector.b_field_z:g} T along z"
    field_map = detector.field_map
    if field_map is None:
        return found
    strength = np.linalg.norm(field_map.values, axis=-1)
    sides = (f"{axis} {n[0]:g} to {n[-1]:g}" for axis, n in zip(field_map.axes, field_map.nodes, strict=True))
    size = " x ".join(str(n) for n in strength.shape)
    return (
        f"{found} at the origin; map of {size} nodes, {', '.join(sides)} mm, "
        f"{strength.min():.3g} to {strength.max():.3g} T"
    )


def summary_line(detector: Any) -> str:
    """Return the numbers of sensors and layers, the readout and the field in one line."""
    n_sensitive = int(np.count_nonzero(detector.layers["is_sensitive"]))
    n_sensors = int(np.count_nonzero(detector.surfaces.is_sensitive))
    layers = f"{counted(n_sensitive, 'layer')}, {counted(len(detector.layers) - n_sensitive, 'passive layer')}"
    readout = f"digitisation {detector.digitization.name}"
    return f"{counted(n_sensors, 'sensor')} in {layers}, {readout}, {_field(detector)}{_dead(detector)}"


def _dead(detector: Any) -> str:
    """Say how much of the detector is dead; nothing if all works."""
    dead = detector.dead_ranges
    if dead is None:
        return ""
    n_sensors = int(np.count_nonzero(dead.is_dead))
    n_ranges = int(np.diff(dead.offsets)[~dead.is_dead].sum())
    return f", dead: {counted(n_sensors, 'sensor')}, and {counted(n_ranges, 'range')} of channels"
