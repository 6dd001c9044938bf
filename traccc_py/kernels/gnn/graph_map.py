"""The layer map of a graph: pairs of layers that particles cross one after another, and windows of their doublets.

The windows come with the weights of a network, learned from simulated particles; which layers of a detector they are
for is found by the places of these.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.layer_map import sensor_points
from traccc_py.geometry.records import DetectorArrays, LayerKind
from traccc_py.kernels.constants import TWO_DIMENSIONS

__all__ = ["GRAPH_LAYER", "LAYER_PLACE", "N_PHI", "N_VALUES", "GraphMap", "layer_places", "make_graph_map"]

N_PHI = 64  #: phi bins of all layers
N_VALUES = 8  #: of a doublet that have windows, see `graph_construction`
_CELL_WIDTH = 20.0  # along z (barrel) or r (disc) [mm]
_FINE_PITCH = 0.1  # of pixels, along loc1, at most [mm]
_SAME_PLACE = 5.0  # edges of a layer may be so far from where the network learned them [mm]

#: Where the sensors of a layer are.
LAYER_PLACE = np.dtype(
    [("is_disc", "i4"), ("r_low", "f4"), ("r_high", "f4"), ("z_low", "f4"), ("z_high", "f4")]  # [mm]
)

#: A layer of the map; fields are four bytes wide.
GRAPH_LAYER = np.dtype(
    [
        ("is_disc", "i4"),
        ("is_fine", "i4"),  # it has pixels
        ("low", "f4"),  # range of r (barrel) or z (disc) of its sensors [mm]
        ("high", "f4"),
        ("other_min", "f4"),  # smallest z (barrel) or r (disc) [mm]
        ("bins_per_mm", "f4"),
        ("n_other", "i4"),  # bins along that
        ("first_cell", "i4"),  # cell = first_cell + phi bin * n_other + bin
        ("first_pair", "i4"),  # pairs whose outer layer it is
        ("n_pairs", "i4"),
    ]
)


class GraphMap(NamedTuple):
    """Layers and pairs of them."""

    layer_of: Any  # (n_detector_layers,) int32, -1: not in the map
    layers: Any  # (n_layers,) GRAPH_LAYER
    inner: Any  # (n_pairs,) int32, layer, ordered by the outer layer
    windows: Any  # (n_pairs, N_VALUES, 2) float32, least and largest value
    n_cells: Any  # int32, of one event


def layer_places(detector: DetectorArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the layers of a detector that measure two coordinates, cylinders and discs.

    Parameters
    ----------
    detector : DetectorArrays
        On the host.

    Returns
    -------
    index : ndarray of shape (n_layers,), int64
        Rows of the detector's layers.
    places : ndarray of shape (n_layers,), LAYER_PLACE
        Where their sensors are [mm].
    """
    layers, surfaces = detector.layers, detector.surfaces
    design = surfaces["design"]
    is_used = (layers["is_sensitive"] == 1) & (layers["kind"] != LayerKind.PLANE)
    is_measured = (design >= 0) & (detector.designs["dimensions"][design] == TWO_DIMENSIONS)
    is_used[surfaces["layer"][~is_measured]] = False
    has_sensors = np.zeros(len(layers), bool)
    has_sensors[surfaces["layer"]] = True
    index = np.flatnonzero(is_used & has_sensors)
    r, z = sensor_points(surfaces)
    places = np.zeros(len(index), LAYER_PLACE)
    places["is_disc"] = layers["kind"][index] == LayerKind.DISC
    for k, layer in enumerate(index):
        members = surfaces["layer"] == layer
        places[k] = (places["is_disc"][k], r[members].min(), r[members].max(), z[members].min(), z[members].max())
    return index, places


def make_graph_map(detector: DetectorArrays, places: np.ndarray, pairs: np.ndarray, windows: np.ndarray) -> GraphMap:
    """Find the layers of a map in a detector.

    Parameters
    ----------
    detector : DetectorArrays
        On the host.
    places : ndarray of shape (n_layers,), LAYER_PLACE
        Layers of the detector that the windows were learned in.
    pairs : ndarray of shape (n_pairs, 2), int
        Inner and outer layer, rows of `places`.
    windows : ndarray of shape (n_pairs, N_VALUES, 2), float32
        Least and largest value of each pair's doublets.

    Returns
    -------
    GraphMap
        On the host.

    Raises
    ------
    GeometryError
        If a layer is not where it was; the message names it.
    """
    index, here = layer_places(detector)
    row = _matched(places, here)
    layer_of = np.full(len(detector.layers), -1, np.int32)
    layer_of[index[row]] = np.arange(len(places), dtype=np.int32)
    layers = _layer_records(here[row])
    layers["is_fine"] = _is_fine(detector, index[row])
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    inner, outer = pairs[order].T
    layers["first_pair"] = np.searchsorted(outer, np.arange(len(layers)))
    layers["n_pairs"] = np.bincount(outer, minlength=len(layers))
    n_cells = np.int32(N_PHI * layers["n_other"].sum())
    return GraphMap(layer_of, layers, inner.astype(np.int32), windows[order].astype(np.float32), n_cells)


def _matched(wanted: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Return the layer of `here` that each of `wanted` is."""
    edges = (LAYER_PLACE.names or ())[1:]
    rows = np.empty(len(wanted), np.int64)
    for k, place in enumerate(wanted):
        off = np.max([np.abs(here[name] - place[name]) for name in edges], axis=0, initial=0)
        off[here["is_disc"] != place["is_disc"]] = math.inf
        rows[k] = np.argmin(off) if len(off) else 0
        if not len(off) or off[rows[k]] > _SAME_PLACE:
            kind = "disc" if place["is_disc"] else "cylinder"
            r, z = ([f"{place[f'{x}_{end}']:.0f}" for end in ("low", "high")] for x in "rz")
            msg = (
                f"the network was trained for a detector with a {kind} of two-dimensional sensors at r = {r[0]} to "
                f"{r[1]} mm, z = {z[0]} to {z[1]} mm, which this one does not have: train weights for it with "
                "traccc-py gnn train"
            )
            raise GeometryError(msg)
    return rows


def _is_fine(detector: DetectorArrays, index: np.ndarray) -> np.ndarray:
    """Return whether the layers have pixels."""
    pitch = detector.designs["pitch1"][detector.surfaces["design"]]
    layer = detector.surfaces["layer"]
    return np.array([pitch[layer == k].min(initial=math.inf) < _FINE_PITCH for k in index], bool)


def _layer_records(places: np.ndarray) -> np.ndarray:
    """Return the layers with their cells, without pairs."""
    layers = np.zeros(len(places), GRAPH_LAYER)
    disc = places["is_disc"] == 1
    layers["is_disc"] = disc
    layers["low"], layers["high"] = (np.where(disc, places[f"z_{end}"], places[f"r_{end}"]) for end in ("low", "high"))
    low, high = (np.where(disc, places[f"r_{end}"], places[f"z_{end}"]) for end in ("low", "high"))
    layers["other_min"] = low
    layers["n_other"] = np.maximum(np.ceil((high - low) / _CELL_WIDTH), 1)
    layers["bins_per_mm"] = layers["n_other"] / np.maximum(high - low, 1e-3)
    layers["first_cell"] = N_PHI * np.concatenate([[0], np.cumsum(layers["n_other"])[:-1]])
    return layers
