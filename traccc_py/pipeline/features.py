"""Spacepoints as pipelines of ExaTrkX have them: tables of r, phi and z, without modules."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.workspace import Workspace
from traccc_py.edm.collections import CHANNEL_MAX
from traccc_py.errors import CapacityError, InputDataError
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.gnn.graph_map import layer_places
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["FeatureReader", "Positions", "features_of"]

_MOST_OUTSIDE = 5.0  # from the sensors of a layer [mm]
_RANK, _N_COLUMNS = 2, 3  # of a table of r, phi, z
_MM_PER_UNIT = 1000.0


class Positions(NamedTuple):
    """Spacepoints in an order of their own, by layer, then by position."""

    position: np.ndarray  # (n, 3) float32 [mm]
    layer: np.ndarray  # (n,) int64, of those that measure two coordinates
    row: np.ndarray  # (n,) int64, of the table


def features_of(position: np.ndarray) -> np.ndarray:
    """Return positions [mm], (n, 3), as features: r / 1000 mm, phi / pi, z / 1000 mm."""
    x, y, z = np.asarray(position, np.float64).T
    scaled = np.hypot(x, y) / _MM_PER_UNIT, np.arctan2(y, x) / np.pi, z / _MM_PER_UNIT
    return np.stack(scaled, axis=1).astype(np.float32)


class FeatureReader:
    """Reads tables of features for a detector.

    Parameters
    ----------
    detector : DetectorArrays
        On the host.
    """

    def __init__(self, detector: DetectorArrays) -> None:
        index, self._places = layer_places(detector)
        layer = detector.surfaces["layer"]
        self._n_modules = len(layer)
        # What the finder wants to know of a spacepoint without cluster is its layer: any module of it will do.
        self._module = np.array([np.flatnonzero(layer == k)[0] for k in index], np.int32)

    def example(self) -> np.ndarray:
        """Return the features of one spacepoint on each layer."""
        middle = [(self._places[f"{x}_low"] + self._places[f"{x}_high"]) / 2 for x in "rz"]
        table = np.stack([middle[0] / _MM_PER_UNIT, np.zeros(len(self._places)), middle[1] / _MM_PER_UNIT], axis=1)
        return table.astype(np.float32)

    def read(self, features: np.ndarray) -> Positions:
        """Return the spacepoints of a table.

        Parameters
        ----------
        features : ndarray of shape (n, 3), float32
            r / 1000 mm, phi / pi and z / 1000 mm.

        Raises
        ------
        InputDataError
            If there are not three columns, or a position is no number or on no layer; the message names the row.
        CapacityError
            If there are more than 2^31 - 1.
        """
        features = np.asarray(features)
        if features.ndim != _RANK or features.shape[1] != _N_COLUMNS or features.dtype.kind != "f":
            expected = "numbers of shape (n, 3): r / 1000 mm, phi / pi, z / 1000 mm"
            msg = f"FEATURES is {features.dtype} of shape {features.shape}; expected {expected}"
            raise InputDataError(msg)
        if len(features) > CHANNEL_MAX:
            msg = f"FEATURES has {len(features)} rows; expected at most {CHANNEL_MAX}"
            raise CapacityError(msg)
        values = features.astype(np.float64)
        r, phi, z = values[:, 0] * _MM_PER_UNIT, values[:, 1] * np.pi, values[:, 2] * _MM_PER_UNIT
        good = np.isfinite(values).all(axis=1) & (r > 0) & (np.abs(values[:, 1]) <= 1)
        if not good.all():
            row = int(np.argmin(good))
            msg = (
                f"FEATURES row {row} (counted from 0) is {tuple(features[row].tolist())}; expected r / 1000 mm above "
                "0, phi / pi from -1 to 1, and z / 1000 mm"
            )
            raise InputDataError(msg)
        layer, outside = self._nearest(r, z)
        if (outside > _MOST_OUTSIDE).any():
            row = int(np.argmax(outside > _MOST_OUTSIDE))
            where = f"r = {r[row]:.4g} mm, z = {z[row]:.4g} mm, {outside[row]:.3g} mm from the nearest layer"
            msg = (
                f"FEATURES row {row} (counted from 0) is at {where}; expected at most {_MOST_OUTSIDE:g} mm: are units "
                "and the detector right?"
            )
            raise InputDataError(msg)
        position = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1).astype(np.float32)
        order = np.lexsort((*position.T, layer))
        return Positions(position[order], layer[order], order)

    def _nearest(self, r: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest layer of each position, and how far it is [mm]."""
        nearest, least = np.zeros(len(r), np.int64), np.full(len(r), np.inf)
        for k, place in enumerate(self._places):
            across = np.maximum(np.maximum(place["r_low"] - r, r - place["r_high"]), 0)
            along = np.maximum(np.maximum(place["z_low"] - z, z - place["z_high"]), 0)
            far = np.hypot(across, along)
            closer = far < least
            nearest[closer], least[closer] = k, far[closer]
        return nearest, least

    def upload(self, ws: Workspace, given: Positions) -> tuple[SpacepointBatch, MeasurementBatch]:
        """Copy spacepoints to a device, each with a measurement that has no cluster.

        Parameters
        ----------
        ws : Workspace
            Buffers; the sizes of "events", "spacepoints" and "measurements" are set.
        given : Positions
            One event.
        """
        n = len(given.row)
        ws.set_sizes(events=1, spacepoints=n, measurements=n)
        spacepoints, extent = ws.extent("spacepoints"), ws.extent("measurements")
        none: dict[str, Any] = dict.fromkeys(MeasurementBatch._fields)
        values = {
            "event_module": self._module[given.layer],
            "local_position": np.zeros((n, 2), np.float32),
            "cluster_size": np.zeros((n, 2), np.int32),
        }
        columns = {name: ws.put(f"labels.{name}", extent, column) for name, column in values.items()}
        columns["offsets"] = ws.array("labels.offsets", ws.fixed("modules", self._n_modules), np.int32, extra=1)
        ws.clear(columns["offsets"])
        points = SpacepointBatch(
            global_position=ws.put("labels.position", spacepoints, given.position),
            measurement_index=ws.put("labels.links", spacepoints, np.arange(n, dtype=np.int32)),
            event=ws.put("labels.event", spacepoints, np.zeros(n, np.int32)),
        )
        return points, MeasurementBatch(**(none | columns))
