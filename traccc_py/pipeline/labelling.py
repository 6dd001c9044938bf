"""Labels of spacepoints: the finder alone, on positions without modules, as pipelines of ExaTrkX take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.device.base import Device
from traccc_py.device.workspace import Workspace
from traccc_py.edm.collections import CHANNEL_MAX
from traccc_py.errors import CapacityError, InputDataError
from traccc_py.geometry import Detector
from traccc_py.gnn.weights import finder_arrays, read_weights
from traccc_py.kernels.gnn.gnn_finding import find_point_lists
from traccc_py.kernels.gnn.graph_map import layer_places
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch
from traccc_py.pipeline.stages import on_device

__all__ = ["SpacepointLabeller"]

_MOST_OUTSIDE = 5.0  # from the sensors of a layer [mm]
_RANK, _N_COLUMNS = 2, 3  # of a table of r, phi, z
_MM_PER_UNIT = 1000.0


class SpacepointLabeller:
    """Finds track candidates among positions.

    Parameters
    ----------
    detector : Detector
        Where the positions are.
    config : ChainConfig
        Its sections `finder` and `graph` are used.
    device : Device
        Where the kernels run.

    Raises
    ------
    ConfigError
        If the weights can't be read.
    GeometryError
        If they are for another detector.
    """

    def __init__(self, detector: Detector, config: ChainConfig, device: Device) -> None:
        host = detector.arrays()
        weights = read_weights(config.finder.weights)
        self._config, self._device = config.graph, device
        self._finder = on_device(device, finder_arrays(weights, host))
        self._detector = on_device(device, host)
        self._n_modules = len(detector.geometry_ids)
        self._index, self._places = layer_places(host)
        layer = host.surfaces["layer"]
        # What the finder wants to know of a spacepoint without cluster is its layer: any module of it will do.
        self._module = np.array([np.flatnonzero(layer == k)[0] for k in self._index], np.int32)
        self._ws = Workspace(device)

    def label(self, features: np.ndarray) -> np.ndarray:
        """Label the spacepoints of an event.

        Parameters
        ----------
        features : ndarray of shape (n, 3), float32
            r / 1000 mm, phi / pi and z / 1000 mm.

        Returns
        -------
        ndarray of shape (n,), int64
            Spacepoints of one candidate have the same label, counted from 0; all others have labels of their own behind
            these.

        Raises
        ------
        InputDataError
            If there are not three columns, or a position is no number or on no layer; the message names the row.
        CapacityError
            If there are more than 2^31 - 1.
        """
        position, layer = self._positions(features)
        n = len(position)
        order = np.lexsort((*position.T, layer))
        label = np.full(n, -1, np.int64)
        n_lists = 0
        if n:
            lists, offsets = self._lists(position[order], layer[order])
            n_lists = len(offsets) - 1
            label[order[lists]] = np.repeat(np.arange(n_lists), np.diff(offsets))
        alone = np.flatnonzero(label < 0)
        label[alone] = n_lists + np.arange(len(alone))
        return label

    def _positions(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions [mm] and layers of spacepoints."""
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
        return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1).astype(np.float32), layer

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

    def _lists(self, position: np.ndarray, layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of candidates, and their offsets."""
        ws, n = self._ws, len(position)
        ws.set_sizes(events=1, spacepoints=n, measurements=n)
        spacepoints, extent = ws.extent("spacepoints"), ws.extent("measurements")
        none: dict[str, Any] = dict.fromkeys(MeasurementBatch._fields)
        given = {
            "event_module": self._module[layer],
            "local_position": np.zeros((n, 2), np.float32),
            "cluster_size": np.zeros((n, 2), np.int32),
        }
        columns = {name: ws.put(f"labels.{name}", extent, values) for name, values in given.items()}
        columns["offsets"] = ws.array("labels.offsets", ws.fixed("modules", self._n_modules), np.int32, extra=1)
        ws.clear(columns["offsets"])
        points = SpacepointBatch(
            global_position=ws.put("labels.position", spacepoints, position),
            measurement_index=ws.put("labels.links", spacepoints, np.arange(n, dtype=np.int32)),
            event=ws.put("labels.event", spacepoints, np.zeros(n, np.int32)),
        )
        batch = MeasurementBatch(**(none | columns))
        while True:
            found = find_point_lists(
                ws, points, batch, self._detector, self._finder, self._config, self._n_modules, 1, lambda _: None
            )
            if not ws.overflowed():
                break
        n_lists, n_points = (ws.size(ws.extent(name)) for name in ("point_lists", "listed_points"))
        lists, offsets = ws.device.fetch(found.spacepoint[:n_points], found.offsets[: n_lists + 1])
        return lists.copy(), offsets.copy() if n_lists else np.zeros(1, np.int32)
