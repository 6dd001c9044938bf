"""The lines of a detector's r-z and x-y views; `plots.py` draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.records import LayerKind

__all__ = ["DetectorViews", "detector_views"]


class DetectorViews(NamedTuple):
    """Segments in the plane; each row is (x, y) of its two ends, in mm."""

    sensors_rz: np.ndarray  # (n, 2, 2) z and r of the sensors' middle lines
    passive_rz: np.ndarray  # (k, 2, 2) z and r of passive cylinders and discs
    sensors_xy: np.ndarray  # (m, 2, 2) x and y of sensors in cylinders, or of the outlines of planes
    passive_radii: np.ndarray  # (j,) of passive cylinders


def detector_views(detector: Any) -> DetectorViews:
    """Return the segments of both views of a detector.

    Parameters
    ----------
    detector : Detector
        What to draw.

    Returns
    -------
    DetectorViews
        Segments [mm].
    """
    arrays = detector.arrays()
    surfaces, layers = arrays.surfaces, arrays.layers
    centre, u, v = (_vectors(surfaces, name) for name in "cuv")
    along_v = np.stack([centre - v * surfaces["hy"][:, None], centre + v * surfaces["hy"][:, None]], axis=1)
    width = 0.5 * (surfaces["hx_min"] + surfaces["hx_max"])[:, None]
    along_u = np.stack([centre - u * width, centre + u * width], axis=1)
    kind = layers["kind"][surfaces["layer"]]
    xy = along_u[kind == LayerKind.CYLINDER][..., :2]
    if len(xy) == 0:  # no barrel: the outlines of all sensors
        xy = _outlines(surfaces, centre, u, v)[..., :2]
    passive = layers[layers["is_sensitive"] == 0]
    is_cylinder = passive["kind"] == LayerKind.CYLINDER
    is_disc = passive["kind"] == LayerKind.DISC
    return DetectorViews(
        sensors_rz=np.stack([along_v[..., 2], np.hypot(along_v[..., 0], along_v[..., 1])], axis=-1),
        passive_rz=np.concatenate([_cylinders(passive[is_cylinder]), _discs(passive[is_disc])]),
        sensors_xy=xy,
        passive_radii=passive["position"][is_cylinder],
    )


def _vectors(records: np.ndarray, name: str) -> np.ndarray:
    return np.stack([records[name + axis] for axis in "xyz"], axis=1).astype(np.float64)


def _outlines(surfaces: np.ndarray, centre: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the four edges of each surface, (4 n, 2, 3)."""
    low, high, hy = (surfaces[name][:, None] for name in ("hx_min", "hx_max", "hy"))
    corners = [
        centre + sx * u * hx + sy * v * hy for sx, sy, hx in ((-1, -1, low), (1, -1, low), (1, 1, high), (-1, 1, high))
    ]
    edges = [np.stack([corners[k], corners[(k + 1) % 4]], axis=1) for k in range(4)]
    return np.concatenate(edges)


def _cylinders(layers: np.ndarray) -> np.ndarray:
    """Return (z, r) of the two ends of cylinders."""
    ends = np.stack([layers["extent_min"], layers["extent_max"]], axis=1)
    return np.stack([ends, np.broadcast_to(layers["position"][:, None], ends.shape)], axis=-1)


def _discs(layers: np.ndarray) -> np.ndarray:
    """Return (z, r) of the inner and outer edge of discs."""
    ends = np.stack([layers["extent_min"], layers["extent_max"]], axis=1)
    return np.stack([np.broadcast_to(layers["position"][:, None], ends.shape), ends], axis=-1)
