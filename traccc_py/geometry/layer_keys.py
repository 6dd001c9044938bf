"""Group surfaces into layers without geometry ids: by volume, orientation, and gaps in r or z.

Surfaces of one volume whose normals point along z (within 45 degrees) are sorted by z, those whose normals point away
from the z axis by r. A layer ends where the next surface begins more than 15 mm farther on. Layers that overlap both
along their order and across it are then merged, so that a track crosses them one after another.
"""

from __future__ import annotations

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.layers import (
    DISC_COSINE,
    SurfacePoints,
    are_nearly_parallel,
    spans_along,
    split_by_ring,
    stack_normal,
)
from traccc_py.geometry.surfaces import Surfaces, decode_geometry_id

__all__ = ["acts_layer_keys", "are_parallel_planes", "layer_keys", "plane_keys"]

_LAYER_GAP = 15.0  #: between surfaces of one layer, at most [mm]; 11 mm in the rings of the ODD's long strips
_RADIAL_COSINE = 0.5  #: smallest cosine between a barrel surface's normal and the radial direction
_MAX_IN_PLANE = 63  #: surfaces of one plane of a telescope: as many as a bin holds
_PLANE_GAP = 1e-3  #: surfaces of one plane of a telescope are at most this far apart [mm]


def are_parallel_planes(surfaces: Surfaces) -> bool:
    """Return whether surfaces are planes one after another, as in a telescope, and not the discs of an endcap."""
    if not are_nearly_parallel(surfaces):
        return False
    sizes = np.bincount(plane_keys(surfaces)[:, 1])
    is_along_z = abs(surfaces.w[0, 2]) > DISC_COSINE
    return bool(sizes.max() <= (1 if is_along_z else _MAX_IN_PLANE))


def plane_keys(surfaces: Surfaces) -> np.ndarray:
    """Return layer keys (n, 2) of parallel planes: (0, number of the plane)."""
    place = _clusters(*spans_along(surfaces, stack_normal(surfaces)), _PLANE_GAP)
    return np.stack([np.zeros_like(place), place], axis=1)


def _clusters(low: np.ndarray, high: np.ndarray, gap: float) -> np.ndarray:
    """Return the number of the cluster of each interval; clusters are more than `gap` apart."""
    order = np.argsort(low, kind="stable")
    reached = np.maximum.accumulate(high[order])
    found = np.empty(len(low), np.int64)
    found[order] = np.concatenate([[0], np.cumsum(low[order][1:] > reached[:-1] + gap)])
    return found


def acts_layer_keys(surfaces: Surfaces, points: SurfacePoints, acts_ids: np.ndarray) -> np.ndarray | None:
    """Return (volume, layer) of Acts geometry ids if a track can cross these layers one after another, else None.

    That is where the surfaces of each have one orientation and no large gap, and layers don't interleave.
    """
    ids = decode_geometry_id(acts_ids)
    keys = np.stack([ids.volume, ids.layer], axis=1)
    _, label = np.unique(keys, axis=0, return_inverse=True)
    label = label.ravel()
    is_disc = _is_disc(surfaces)
    n = int(label.max()) + 1
    if (np.bincount(label, is_disc, n) % np.bincount(label, minlength=n) != 0).any():
        return None
    boxes = _boxes(surfaces, points, label, is_disc)
    if boxes is None or len(_clashes(boxes)):
        return None
    return keys


def layer_keys(surfaces: Surfaces, points: SurfacePoints, volume: np.ndarray) -> np.ndarray:
    """Group surfaces into layers.

    Parameters
    ----------
    surfaces : Surfaces
        n surfaces.
    points : SurfacePoints
        Points on them.
    volume : ndarray of shape (n,), int64
        Volume of each.

    Returns
    -------
    ndarray of shape (n, 2), int64
        Volume of the layer's first surface, and the number of the layer in it, from 0.

    Raises
    ------
    GeometryError
        If a normal points neither along z nor away from the z axis.
    """
    is_disc = _is_disc(surfaces)
    _check_orientation(surfaces, is_disc)
    label = np.empty(len(surfaces), np.int64)
    n_layers = 0
    for key in np.unique(volume * 2 + is_disc):
        members = np.flatnonzero(volume * 2 + is_disc == key)
        along = points.z[members] if key % 2 else points.r[members]
        of_members = _clusters(along.min(1), along.max(1), _LAYER_GAP)
        label[members] = n_layers + of_members
        n_layers += int(of_members.max()) + 1
    while True:
        boxes = _boxes(surfaces, points, label, is_disc, splits_gaps=False)
        pairs = _clashes(boxes) if boxes is not None else np.zeros((0, 2), np.int64)
        if not len(pairs):
            break
        for a, b in pairs:  # a < b: layers that were joined to another are found in the next round
            label[label == b] = a
    return _numbered(label, volume)


def _numbered(label: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Return (volume, number in the volume) of labels."""
    labels, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    of_label = volume[first]
    place = np.zeros(len(labels), np.int64)
    for v in np.unique(of_label):
        place[of_label == v] = np.arange(np.count_nonzero(of_label == v))
    return np.stack([of_label, place], axis=1)[inverse.ravel()]


def _is_disc(surfaces: Surfaces) -> np.ndarray:
    return np.abs(surfaces.w[:, 2]) > DISC_COSINE


def _check_orientation(surfaces: Surfaces, is_disc: np.ndarray) -> None:
    radius = np.hypot(surfaces.centre[:, 0], surfaces.centre[:, 1])
    along_r = np.abs(np.sum(surfaces.centre[:, :2] * surfaces.w[:, :2], axis=1))
    bad = np.flatnonzero(~is_disc & ~(along_r > _RADIAL_COSINE * radius))
    if len(bad):
        i = bad[0]
        msg = (
            f"surface {surfaces.geometry_id[i]} at {np.round(surfaces.centre[i], 3).tolist()} mm has the normal "
            f"{(np.round(surfaces.w[i], 3) + 0.0).tolist()}, which points neither along z nor away from the z axis: it "
            f"belongs to no cylinder and no disc ({len(bad)} such surfaces)"
        )
        raise GeometryError(msg)


def _boxes(
    surfaces: Surfaces, points: SurfacePoints, label: np.ndarray, is_disc: np.ndarray, *, splits_gaps: bool = True
) -> np.ndarray | None:
    """Return rows (label, is_disc, low, high, transverse low, high), one per cylinder or ring of a disc.

    None if `splits_gaps` and one of them has a gap.
    """
    rows = []
    for one in np.unique(label):
        members = np.flatnonzero(label == one)
        disc = bool(is_disc[members[0]])
        for part in split_by_ring(surfaces, points, members) if disc else [members]:
            along, across = (points.z, points.r) if disc else (points.r, points.z)
            low, high = along[part].min(1), along[part].max(1)
            if splits_gaps and _clusters(low, high, _LAYER_GAP).max() > 0:
                return None
            rows.append((one, disc, low.min(), high.max(), across[part].min(), across[part].max()))
    return np.array(rows, np.float64)


def _clashes(boxes: np.ndarray) -> np.ndarray:
    """Return pairs of labels whose boxes overlap in both directions."""
    label, disc, low, high, t_low, t_high = boxes.T
    clash = (disc[:, None] == disc) & (low[:, None] <= high) & (low <= high[:, None])
    clash &= (t_low[:, None] < t_high) & (t_low < t_high[:, None]) & (label[:, None] < label)
    first, second = np.nonzero(clash)
    return np.stack([label[first], label[second]], axis=1).astype(np.int64)
