"""Tables of a detector's layers, for people."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traccc_py.geometry.detector import Detector
from traccc_py.geometry.layers import UNLIMITED
from traccc_py.geometry.records import LayerKind

__all__ = ["LayerSummary", "bin_occupancy", "summarize_layers"]


class LayerSummary(NamedTuple):
    """One row of the table of layers."""

    name: str
    kind: str  # "cylinder", "disc" or "plane"
    position: float  # radius, z, or offset along the normal [mm]
    extent_min: float  # of sensors or support, in z (cylinder) or r (disc) [mm]
    extent_max: float
    n_sensors: int  # 0: passive
    thickness_in_x0: float  # of one module, or of the support, at perpendicular passage [1]


def summarize_layers(detector: Detector) -> list[LayerSummary]:
    """Return one row per layer, in the order of the detector's layers.

    Parameters
    ----------
    detector : Detector
        Detector.

    Returns
    -------
    list of LayerSummary
        Extents are physical, without the margins of navigation.
    """
    points = detector.surfaces.points(3, 3)
    radius, z = np.hypot(points[..., 0], points[..., 1]), points[..., 2]
    rows = []
    for i, (layer, name) in enumerate(zip(detector.layers, detector.layer_names, strict=True)):
        members = np.flatnonzero((detector.layer_of_surface == i) & detector.surfaces.is_sensitive)
        low, high = float(layer["extent_min"]), float(layer["extent_max"])
        thickness = float(layer["thickness_in_x0"])
        kind = LayerKind(int(layer["kind"]))
        if len(members):
            thickness = float(detector.surfaces.slab[members, 0].mean())
            across = z[members] if kind == LayerKind.CYLINDER else radius[members]
            low, high = float(across.min()), float(across.max())
        if kind == LayerKind.PLANE:
            low, high = -UNLIMITED, UNLIMITED
        rows.append(LayerSummary(name, kind.name.lower(), float(layer["position"]), low, high, len(members), thickness))
    return rows


def bin_occupancy(detector: Detector) -> dict[str, tuple[float, int]]:
    """Return mean and largest number of surfaces listed in a bin, for each layer with sensors, by its name."""
    counts = np.diff(detector.navigation.bin_offsets)
    found = {}
    for layer, name in zip(detector.layers, detector.layer_names, strict=True):
        if layer["is_sensitive"]:
            of_layer = counts[layer["first_bin"] :][: layer["n_phi"] * layer["n_other"]]
            found[name] = (float(of_layer.mean()), int(of_layer.max()))
    return found
