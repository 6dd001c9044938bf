"""Graphs of events as arrays on the host, made by the kernels that make them in the chain."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import GraphConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.workspace import Workspace
from traccc_py.edm import Measurements, Spacepoints
from traccc_py.geometry import Detector
from traccc_py.kernels.gnn.embedding import EmbeddingWeights
from traccc_py.kernels.gnn.graph_construction import find_edges
from traccc_py.kernels.gnn.graph_map import GraphMap
from traccc_py.kernels.gnn.graph_points import sort_points
from traccc_py.kernels.gnn.metric_graph import find_metric_edges
from traccc_py.kernels.gnn.networks import FilterWeights, filter_edges
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["EventGraph", "EventPoints", "GraphMaker", "doublet_values"]

_FEWEST = 1e-3
_FILTER_CUT = 0.5  # of the filter's score


class EventPoints(NamedTuple):
    """The nodes of an event's graph; columns as in `GraphPoints`."""

    r: np.ndarray
    phi: np.ndarray
    z: np.ndarray
    size1: np.ndarray
    longest1: np.ndarray
    channels: np.ndarray
    along: np.ndarray
    along_z: np.ndarray
    through: np.ndarray
    through_z: np.ndarray
    layer: np.ndarray
    spacepoint: np.ndarray
    features: np.ndarray


class EventGraph(NamedTuple):
    """The graph of an event."""

    points: EventPoints
    inner: np.ndarray  # (n_edges,) int32, row of the points
    outer: np.ndarray  # (n_edges,) int32
    features: np.ndarray  # (n_edges, N_EDGE_FEATURES) float32


class GraphMaker:
    """Makes graphs of events of a detector.

    Parameters
    ----------
    detector : Detector
        What the events are on.
    graph_map : GraphMap
        Layers and pairs.
    embedding : EmbeddingWeights, optional
        What edges are found by, in the place of the pairs.
    config : GraphConfig, optional
        The search in the embedding.
    """

    def __init__(
        self,
        detector: Detector,
        graph_map: GraphMap,
        embedding: EmbeddingWeights | None = None,
        config: GraphConfig | None = None,
    ) -> None:
        self._arrays, self._map, self._embedding = detector.arrays(), graph_map, embedding
        self._config = GraphConfig() if config is None else config
        self._n_modules = len(detector.geometry_ids)
        self.workspace = self._ws = Workspace(CpuDevice(1))
        self.last: Any = None  #: points and edges of the last graph, in the workspace

    def points(self, measurements: Measurements, spacepoints: Spacepoints, *, has_clusters: bool = True) -> EventPoints:
        """Return the nodes of an event; without clusters as of one that came as spacepoints."""
        return self._host(self._sorted(measurements, spacepoints, has_clusters))

    def graph(
        self,
        measurements: Measurements,
        spacepoints: Spacepoints,
        *,
        has_clusters: bool = True,
        edge_filter: FilterWeights | None = None,
    ) -> EventGraph:
        """Return the graph of an event, or what a filter leaves of it."""
        points = self._sorted(measurements, spacepoints, has_clusters)
        if self._embedding is None:
            edges, _ = find_edges(self._ws, points, self._map)
        else:
            search = self._config.radius, self._config.max_neighbours
            edges = find_metric_edges(self._ws, points, self._embedding, 1, *search)
        self.last = points, edges
        all_edges = self._ws.extent("graph_edges")
        n = self._ws.size(all_edges)
        kept: Any = slice(None)
        if edge_filter is not None:
            filter_edges(self._ws, points, edges, edge_filter, _FILTER_CUT)
            kept = self._ws.array("network.is_kept", all_edges, np.int32)[:n] == 1
        return EventGraph(self._host(points), *(column[:n][kept].copy() for column in edges))

    def _sorted(self, measurements: Measurements, spacepoints: Spacepoints, has_clusters: bool) -> Any:
        ws = self._ws
        n = len(spacepoints)
        ws.set_sizes(events=1, spacepoints=n)
        size = measurements.cluster_size if has_clusters else np.zeros_like(measurements.cluster_size)
        module = np.asarray(measurements.module_index, np.int32)
        of_measurements: dict[str, Any] = dict.fromkeys(MeasurementBatch._fields)
        offsets = np.searchsorted(module, np.arange(self._n_modules + 1)).astype(np.int32)
        of_measurements |= {
            "event_module": module,
            "cluster_size": np.ascontiguousarray(size, np.int32),
            "local_position": np.ascontiguousarray(measurements.local_position, np.float32),
            "offsets": offsets,
        }
        batch = SpacepointBatch(
            np.ascontiguousarray(spacepoints.global_position, np.float32),
            np.ascontiguousarray(spacepoints.measurement_index, np.int32),
            np.zeros(n, np.int32),
        )
        return sort_points(ws, batch, MeasurementBatch(**of_measurements), self._arrays, self._map, self._n_modules, 1)

    def _host(self, points: Any) -> EventPoints:
        n = self._ws.size(self._ws.extent("graph_points"))
        return EventPoints(*(getattr(points, name)[:n].copy() for name in EventPoints._fields))


def doublet_values(points: EventPoints, inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return what doublets measure, in the order of `graph_construction`.

    Parameters
    ----------
    points : EventPoints
        Nodes.
    inner, outer : ndarray of shape (n,), int
        Rows of the points.

    Returns
    -------
    ndarray of shape (n, N_VALUES), float64
        dr [mm], dphi [rad], dz [mm], z0 [mm], dphi / dr [1/mm], cot(theta), channels too many of both clusters; not a
        number where these are not known.
    """
    p = points._replace(**{name: np.asarray(getattr(points, name), np.float64) for name in EventPoints._fields[:10]})
    dr, dz = p.r[outer] - p.r[inner], p.z[outer] - p.z[inner]
    dphi = (p.phi[outer] - p.phi[inner] + np.pi) % (2 * np.pi) - np.pi
    middle = 0.5 * (p.r[inner] + p.r[outer]) * dphi
    cot = dz / np.maximum(np.hypot(dr, middle), _FEWEST)
    extra = []
    for i in (inner, outer):
        through = np.maximum(np.abs(p.through[i] + p.through_z[i] * cot), _FEWEST)
        crossed = p.channels[i] * np.abs(cot * p.along_z[i] + p.along[i]) / through
        found = np.maximum(p.size1[i] - crossed, np.minimum(p.longest1[i] - crossed, 0))
        extra.append(np.where(p.size1[i] > 0, found, np.nan))
    bend = dphi / np.maximum(np.abs(dr), 1.0)
    return np.stack([dr, dphi, dz, p.z[inner] - p.r[inner] * cot, bend, cot, *extra], axis=1)
