"""Fill the bin grids of layers: the sensors that a track can hit if it crosses the reference surface in a given bin.

A sensor is at a distance d from the reference surface of its layer. Between the two, a track that crosses at an angle
moves sideways by at most d times the largest slope that tracks have there. Each point of a sensor is therefore
widened by this much, and by a margin for the error of predicted crossings; the bins under the result list the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.layers import DISC_COSINE, LayerTable, SurfacePoints
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import Surfaces

__all__ = ["BinGrid", "CrossingLimits", "fill_bins"]

_TWO_PI = 2 * np.pi


@dataclass(frozen=True, slots=True)
class CrossingLimits:
    """The tracks that bins are made for, and the size of bins."""

    vertex_z: float = 250.0  #: largest distance of a vertex from the origin along z [mm]
    impact: float = 30.0  #: transverse impact parameter [mm]
    bending_radius: float = 250.0  #: of the softest track: 0.15 GeV in 2 T [mm]
    sine_max: float = 0.8  #: largest transverse angle (sine) to the normal of a cylinder
    disc_slope: float = 1.0  #: smallest allowance for dr/dz and r dphi/dz at discs
    disc_slope_max: float = 2.0  #: largest
    safety: float = 1.2  #: factor on distances along the reference surface
    prediction_error: float = 3.0  #: added on all sides [mm]
    extent_margin: float = 12.0  #: layers reach at least this far beyond their sensors [mm]
    bin_fraction: float = 0.4  #: size of a bin / typical size of the layer's sensors
    max_bins: int = 2**20  #: of a layer
    max_listed: int = 2**26  #: surfaces in all bins of a detector


@dataclass(frozen=True, slots=True)
class BinGrid:
    """The bins of all layers."""

    layers: np.ndarray  # (n_layers,) LAYER, with bins and margins
    bin_offsets: np.ndarray  # (n_bins + 1,) int32
    bin_surfaces: np.ndarray  # (bin_offsets[-1],) int32, ascending in a bin


@dataclass(frozen=True, slots=True)
class _Windows:
    """The part of its layer's reference surface from which a sensor can be reached."""

    phi_low: np.ndarray  # (n_surfaces,) [rad], may be outside [-pi, pi)
    phi_high: np.ndarray
    other_low: np.ndarray  # z or r [mm]
    other_high: np.ndarray


def fill_bins(
    surfaces: Surfaces,
    points: SurfacePoints,
    table: LayerTable,
    limits: CrossingLimits = CrossingLimits(),
) -> BinGrid:
    """Make the bin grids of layers.

    Parameters
    ----------
    surfaces : Surfaces
        Sensitive surfaces.
    points : SurfacePoints
        Points on them.
    table : LayerTable
        Layers and the layer of each surface.
    limits : CrossingLimits, optional
        Tracks the bins are made for.

    Returns
    -------
    BinGrid
        Layers with their bins, and the lists of surface indices.

    Raises
    ------
    GeometryError
        If the sensors of a layer differ so much in size that the lists are too long.
    """
    windows = _windows(surfaces, points, table, limits)
    layers = _with_extents(table, windows, limits)
    _choose_bins(layers, surfaces, table, limits)
    n_bins = layers["n_phi"] * layers["n_other"]
    layers["first_bin"] = np.cumsum(n_bins) - n_bins
    bins, members = _list_members(layers, table, windows, limits)
    order = np.argsort(bins * len(surfaces) + members)
    offsets = np.zeros(int(n_bins.sum()) + 1, np.int32)
    np.cumsum(np.bincount(bins, minlength=int(n_bins.sum())), out=offsets[1:])
    return BinGrid(layers, offsets, members[order].astype(np.int32))


def _windows(surfaces: Surfaces, points: SurfacePoints, table: LayerTable, limits: CrossingLimits) -> _Windows:
    layer = table.layers[table.layer_of_surface]
    is_cylinder = (layer["kind"] == LayerKind.CYLINDER)[:, None]
    position = layer["position"].astype(np.float64)[:, None]
    distance = np.abs(np.where(is_cylinder, points.r, points.z) - position)
    phi_slope, other_slope = _slopes(points, is_cylinder, position, limits)
    other = np.where(is_cylinder, points.z, points.r)
    d_other = limits.safety * distance * other_slope + limits.prediction_error
    radius = np.where(is_cylinder, position, np.maximum(points.r - d_other, 1.0))
    d_phi = np.minimum((limits.safety * distance * phi_slope + limits.prediction_error) / radius, np.pi)
    middle = points.phi[:, points.phi.shape[1] // 2, None]
    phi = middle + np.mod(points.phi - middle + np.pi, _TWO_PI) - np.pi
    windows = _Windows((phi - d_phi).min(1), (phi + d_phi).max(1), (other - d_other).min(1), (other + d_other).max(1))
    return _around_axis(windows, surfaces)


def _around_axis(windows: _Windows, surfaces: Surfaces) -> _Windows:
    """Open the windows of disc surfaces around the z axis: their points give neither phi range nor smallest r."""
    is_disc = np.abs(surfaces.w[:, 2]) > DISC_COSINE
    w_z = np.where(is_disc, surfaces.w[:, 2], 1.0)
    on_axis = np.sum(surfaces.centre * surfaces.w, axis=1) / w_z
    offset = np.stack([np.zeros_like(on_axis), np.zeros_like(on_axis), on_axis], axis=1) - surfaces.centre
    loc0, loc1 = np.sum(offset * surfaces.u, axis=1), np.sum(offset * surfaces.v, axis=1)
    surrounds = is_disc & (np.abs(loc0) < np.maximum(surfaces.hx_min, surfaces.hx_max)) & (np.abs(loc1) < surfaces.hy)
    return _Windows(
        np.where(surrounds, -np.pi, windows.phi_low),
        np.where(surrounds, np.pi, windows.phi_high),
        np.where(surrounds & (surfaces.shape < Shape.ANNULUS), 0.0, windows.other_low),
        windows.other_high,
    )


def _slopes(
    points: SurfacePoints, is_cylinder: np.ndarray, position: np.ndarray, limits: CrossingLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest r dphi / d(normal) and d(other) / d(normal) at points of the sensors."""
    radius = np.where(is_cylinder, position, 1.0)
    sine = np.minimum(radius / (2 * limits.bending_radius) + limits.impact / radius, limits.sine_max)
    cosine = np.sqrt(1 - sine**2)
    dz_dr = (np.abs(points.z) + limits.vertex_z) / radius / cosine
    lever = np.maximum(np.abs(points.z) - limits.vertex_z, 1.0)
    dr_dz = np.clip(points.r / lever, limits.disc_slope, limits.disc_slope_max)
    return np.where(is_cylinder, sine / cosine, dr_dz), np.where(is_cylinder, dz_dr, dr_dz)


def _with_extents(table: LayerTable, windows: _Windows, limits: CrossingLimits) -> np.ndarray:
    """Return the layers, the sensitive ones extended to all points from which a sensor can be reached."""
    layers = table.layers.copy()
    index = table.layer_of_surface
    low, high = np.full(len(layers), np.inf), np.full(len(layers), -np.inf)
    np.minimum.at(low, index, windows.other_low)
    np.maximum.at(high, index, windows.other_high)
    chosen = (layers["is_sensitive"] == 1) & (layers["kind"] != LayerKind.PLANE)
    low = np.minimum(low, layers["extent_min"] - limits.extent_margin)
    high = np.maximum(high, layers["extent_max"] + limits.extent_margin)
    low = np.where(layers["kind"] == LayerKind.DISC, np.maximum(low, 0.0), low)
    layers["extent_min"][chosen], layers["extent_max"][chosen] = low[chosen], high[chosen]
    layers["other_min"], layers["other_max"] = layers["extent_min"], layers["extent_max"]
    return layers


def _choose_bins(layers: np.ndarray, surfaces: Surfaces, table: LayerTable, limits: CrossingLimits) -> None:
    """Set the numbers of bins so that a bin's sides are a fixed fraction of a sensor's."""
    layers["n_phi"] = layers["n_other"] = 1
    n_members = np.bincount(table.layer_of_surface, minlength=len(layers))
    n_safe = np.maximum(n_members, 1)
    width = np.bincount(table.layer_of_surface, surfaces.hx_min + surfaces.hx_max, len(layers)) / n_safe
    length = np.bincount(table.layer_of_surface, 2 * surfaces.hy, len(layers)) / n_safe
    is_disc = layers["kind"] == LayerKind.DISC
    radius = np.where(is_disc, (layers["extent_min"] + layers["extent_max"]) / 2, layers["position"])
    chosen = (layers["is_sensitive"] == 1) & (layers["kind"] != LayerKind.PLANE)
    n_phi = np.ceil(_TWO_PI * radius[chosen] / (limits.bin_fraction * width[chosen]))
    extent = layers["extent_max"] - layers["extent_min"]
    n_other = np.ceil(extent[chosen] / (limits.bin_fraction * length[chosen]))
    excess = np.maximum(np.sqrt(n_phi * n_other / limits.max_bins), 1.0)
    layers["n_phi"][chosen] = np.clip(n_phi / excess, 1, limits.max_bins)
    layers["n_other"][chosen] = np.clip(n_other / excess, 1, limits.max_bins)


def _list_members(
    layers: np.ndarray, table: LayerTable, windows: _Windows, limits: CrossingLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (bin, surface) in which the surface can be reached from the bin."""
    layer = layers[table.layer_of_surface]
    n_phi, n_other = layer["n_phi"].astype(np.int64), layer["n_other"].astype(np.int64)
    first_phi = np.floor((windows.phi_low + np.pi) / _TWO_PI * n_phi).astype(np.int64)
    last_phi = np.floor((windows.phi_high + np.pi) / _TWO_PI * n_phi).astype(np.int64)
    count_phi = np.minimum(last_phi - first_phi + 1, n_phi)
    pitch = (layer["other_max"] - layer["other_min"]).astype(np.float64) / n_other
    first_other = np.floor((windows.other_low - layer["other_min"]) / pitch).astype(np.int64).clip(0, n_other - 1)
    last_other = np.floor((windows.other_high - layer["other_min"]) / pitch).astype(np.int64).clip(0, n_other - 1)
    count_other = last_other - first_other + 1
    count = count_phi * count_other
    if count.sum() > limits.max_listed:
        worst = int(table.layer_of_surface[np.argmax(count)])
        msg = f"layer {table.names[worst]!r} has sensors that differ too much in size for one grid of bins"
        raise GeometryError(msg)
    member = np.repeat(np.arange(len(layer)), count)
    k = np.arange(len(member)) - np.repeat(np.cumsum(count) - count, count)
    i_phi = (first_phi[member] + k // count_other[member]) % n_phi[member]
    i_other = first_other[member] + k % count_other[member]
    return layer["first_bin"][member] + i_phi * n_other[member] + i_other, member
