"""The finder: spacepoints to track candidates by a graph, a filter of its edges, a network and the best paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from traccc_py.config import GraphConfig
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.gnn.candidate_seeds import PointLists
from traccc_py.kernels.gnn.embedding import EmbeddingWeights
from traccc_py.kernels.gnn.graph_construction import Edges, find_edges
from traccc_py.kernels.gnn.graph_map import GraphMap
from traccc_py.kernels.gnn.graph_points import GraphPoints, sort_points
from traccc_py.kernels.gnn.metric_graph import find_metric_edges
from traccc_py.kernels.gnn.networks import FilterWeights, NetworkWeights, filter_edges, score_edges
from traccc_py.kernels.gnn.segmentation import find_paths
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

__all__ = ["FinderArrays", "find_graph_edges", "find_point_lists"]


class FinderArrays(NamedTuple):
    """What the finder has learned, in device memory."""

    graph_map: GraphMap
    edge_filter: FilterWeights
    network: NetworkWeights
    embedding: EmbeddingWeights | None = None  # for graph.constructor = "metric"
    embedding_filter: FilterWeights | None = None


def find_graph_edges(
    ws: Workspace, points: GraphPoints, arrays: FinderArrays, config: GraphConfig, n_events: int
) -> tuple[Edges, FilterWeights]:
    """Find the edges of a graph by the method of the configuration.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "graph_points" must be set; that of "graph_edges" is set here.
    points : GraphPoints
        Nodes.
    arrays : FinderArrays
        Layer map and weights.
    config : GraphConfig
        The method.
    n_events : int
        Number of events in the batch [1].

    Returns
    -------
    edges : Edges
        Doublets.
    edge_filter : FilterWeights
        The filter that has learned from such edges.
    """
    if config.constructor == "metric":
        assert arrays.embedding is not None
        assert arrays.embedding_filter is not None
        edges = find_metric_edges(ws, points, arrays.embedding, n_events, config.radius, config.max_neighbours)
        return edges, arrays.embedding_filter
    edges, _ = find_edges(ws, points, arrays.graph_map)
    return edges, arrays.edge_filter


def find_point_lists(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    arrays: FinderArrays,
    config: GraphConfig,
    n_modules: int,
    n_events: int,
    lap: Callable[[str], None],
) -> PointLists:
    """Find track candidates.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "events" and "spacepoints" must be set; those of "point_lists" and "listed_points" are set
        here.
    spacepoints : SpacepointBatch
        Global positions [mm].
    measurements : MeasurementBatch
        Their modules and clusters.
    detector : DetectorArrays
        Surfaces and designs.
    arrays : FinderArrays
        Layer map and weights.
    config : GraphConfig
        Cuts.
    n_modules : int
        Number of surfaces [1].
    n_events : int
        Number of events in the batch [1].
    lap : callable
        Called with the name of each stage at its end.

    Returns
    -------
    PointLists
        Candidates, by event.
    """
    points = sort_points(ws, spacepoints, measurements, detector, arrays.graph_map, n_modules, n_events)
    edges, edge_filter = find_graph_edges(ws, points, arrays, config, n_events)
    lap("graph")
    graph = filter_edges(ws, points, edges, edge_filter, config.filter_cut)
    lap("edge_filter")
    scored = score_edges(ws, graph, arrays.network)
    lap("edge_scores")
    only_best = config.segmentation == "junction_removal"
    found = find_paths(ws, points, graph, scored, config.edge_cut, only_best=only_best)
    lap("segmentation")
    return found
