"""Local frames of surfaces, by geometry id: global positions to loc0 and loc1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traccc_py.errors import InputDataError
from traccc_py.geometry.detector import Detector

__all__ = ["SurfaceFrames", "detector_frames"]

_OFF_PLANE = 1.0  #: largest distance of a true hit from its surface [mm]


class SurfaceFrames(NamedTuple):
    """Centres and axes of planes."""

    geometry_id: np.ndarray  # (n,) uint64, ascending
    centre: np.ndarray  # (n, 3) float64 [mm]
    u: np.ndarray  # (n, 3) float64, direction of loc0
    v: np.ndarray  # (n, 3) float64, direction of loc1

    def local_positions(self, geometry_id: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return loc0 and loc1 of global positions on surfaces.

        Parameters
        ----------
        geometry_id : ndarray of shape (k,), uint64
            Surfaces.
        position : ndarray of shape (k, 3)
            Global positions [mm].

        Returns
        -------
        ndarray of shape (k, 2), float64
            Local positions [mm]; NaN on surfaces that are not known.

        Raises
        ------
        InputDataError
            If a position is not on its surface: the ids belong to other surfaces.
        """
        ids = np.asarray(geometry_id, np.uint64)
        if len(self.geometry_id) == 0:
            return np.full((len(ids), 2), np.nan)
        row = np.minimum(np.searchsorted(self.geometry_id, ids), len(self.geometry_id) - 1)
        relative = np.asarray(position, np.float64) - self.centre[row]
        local = np.stack([np.sum(axis[row] * relative, axis=1) for axis in (self.u, self.v)], axis=1)
        is_known = self.geometry_id[row] == ids
        distance = np.abs(np.sum(np.cross(self.u[row], self.v[row]) * relative, axis=1))
        if (distance[is_known] > _OFF_PLANE).any():
            worst = int(np.argmax(np.where(is_known, distance, 0.0)))
            msg = (
                f"a true hit on surface {ids[worst]} is {distance[worst]:.3g} mm off the surface of this id; "
                "is it the right detector?"
            )
            raise InputDataError(msg)
        local[~is_known] = np.nan
        return local


def detector_frames(detector: Detector) -> SurfaceFrames:
    """Return the frames of a detector's surfaces, by its geometry ids and, if it has them, by detray's."""
    surfaces = detector.surfaces
    known = np.flatnonzero(detector.detray_ids)  # 0: none
    ids, first = np.unique(np.concatenate([detector.geometry_ids, detector.detray_ids[known]]), return_index=True)
    row = np.concatenate([np.arange(len(surfaces.centre)), known])[first]
    return SurfaceFrames(ids, *(axis[row] for axis in (surfaces.centre, surfaces.u, surfaces.v)))
