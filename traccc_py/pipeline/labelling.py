"""Labels of spacepoints: the finder alone, on positions without modules, as pipelines of ExaTrkX take them."""

from __future__ import annotations

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.device.base import Device
from traccc_py.device.workspace import Workspace
from traccc_py.geometry import Detector
from traccc_py.kernels.gnn.candidate_seeds import PointLists
from traccc_py.kernels.gnn.gnn_finding import find_point_lists
from traccc_py.pipeline.features import FeatureReader, Positions
from traccc_py.pipeline.finder import load_finder
from traccc_py.pipeline.plausibility import warn_of_limit
from traccc_py.pipeline.stages import on_device

__all__ = ["LabelFinder", "SpacepointLabeller", "fetch_lists", "labels_of"]


def fetch_lists(ws: Workspace, found: PointLists) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of candidates, and their offsets, on the host."""
    n_lists, n_points = (ws.size(ws.extent(name)) for name in ("point_lists", "listed_points"))
    lists, offsets = ws.device.fetch(found.spacepoint[:n_points], found.offsets[: n_lists + 1])
    return lists.copy(), offsets.copy() if n_lists else np.zeros(1, np.int32)


def labels_of(lists: np.ndarray, offsets: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return a label for each spacepoint: first those of the candidates, then those of all others.

    Parameters
    ----------
    lists, offsets : ndarray
        Spacepoints of candidates in an order of their own.
    row : ndarray of shape (n,), int64
        The row of each in the table that is labelled.
    """
    label = np.full(len(row), -1, np.int64)
    n_lists = len(offsets) - 1
    label[row[lists]] = np.repeat(np.arange(n_lists), np.diff(offsets))
    alone = np.flatnonzero(label < 0)
    label[alone] = n_lists + np.arange(len(alone))
    return label


class LabelFinder:
    """What labels are found with: the finder of candidates on a device, without a chain around it.

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
        If the weights can't be read, or lack what makes the graph.
    GeometryError
        If they are for another detector.
    """

    def __init__(self, detector: Detector, config: ChainConfig, device: Device) -> None:
        host = detector.arrays()
        self._config, self._reader = config.graph, FeatureReader(host)
        self._finder = on_device(device, load_finder(config, host))
        self._detector = on_device(device, host)
        self._n_modules = len(detector.geometry_ids)
        self._ws = Workspace(device)


class SpacepointLabeller(LabelFinder):
    """Finds track candidates among positions; made as a `LabelFinder`."""

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
        given = self._reader.read(features)
        return labels_of(*self._lists(given), given.row)

    def warm_up(self) -> None:
        """Label an example, so that kernels are compiled and buffers are there."""
        self.label(self._reader.example())

    def _lists(self, given: Positions) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of candidates, and their offsets."""
        if not len(given.row):
            return np.zeros(0, np.int32), np.zeros(1, np.int32)
        ws, finder, config = self._ws, self._finder, self._config
        points, batch = self._reader.upload(ws, given)
        while True:
            found = find_point_lists(
                ws, points, batch, self._detector, finder, config, self._n_modules, 1, lambda _: None
            )
            if not ws.overflowed():
                if config.constructor == "metric":
                    warn_of_limit(ws, config.max_neighbours)
                return fetch_lists(ws, found)
