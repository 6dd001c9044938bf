"""The labels of spacepoints in the six steps of exatrkx-service: what each takes and gives are plain arrays.

Edges are pairs of rows of FEATURES. Each step puts spacepoints and edges into the order that the finder has them in, so
the labels have the bits of `SpacepointLabeller` with the same settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.device.base import Device
from traccc_py.errors import CapacityError, InputDataError
from traccc_py.geometry import Detector
from traccc_py.kernels.gnn.embedding import N_DIMENSIONS, embed_points
from traccc_py.kernels.gnn.graph_construction import Edges
from traccc_py.kernels.gnn.graph_points import GraphPoints, sort_points
from traccc_py.kernels.gnn.metric_graph import EmbeddedPoints, describe_pairs, find_outward, find_pairs
from traccc_py.kernels.gnn.networks import (
    FilteredGraph,
    JudgedEdges,
    ScoredEdges,
    edges_of_nodes,
    judge_edges,
    kept_graph,
    logit_cut,
    score_edges,
)
from traccc_py.kernels.gnn.segmentation import find_paths
from traccc_py.pipeline.features import Positions
from traccc_py.pipeline.labelling import LabelFinder, fetch_lists, labels_of

__all__ = ["LabelSteps"]

_MOST_PLACES = 1 << 24  # whose numbers single precision tells apart
_NO_EDGE = np.float32(-np.inf)  # logit of a pair that can't be one
_EDGE_RANK = 2
_ENDS = ("inner", "outer")
_Found = TypeVar("_Found")


class _Nodes(NamedTuple):
    """The spacepoints of a table as the nodes of a graph."""

    given: Positions
    points: GraphPoints  # on the device
    spacepoint: np.ndarray  # (n_points,) int32, row of `given`
    layer: np.ndarray  # (n_points,) int32
    outward: np.ndarray  # (n_points,)
    point: np.ndarray  # (n,) int64, of each row of the table; -1: on no layer of the map


class _Ends(NamedTuple):
    """The pairs of a list that may be edges, in the order of the finder."""

    pair: np.ndarray  # (n_edges,) int64, place in the list
    inner: np.ndarray  # (n_edges,) int32, point
    outer: np.ndarray  # (n_edges,) int32


class LabelSteps(LabelFinder):
    """The finder in steps.

    Parameters
    ----------
    detector : Detector
        Where the positions are.
    config : ChainConfig
        Its sections `finder` and `graph` are used; the graph is made by the embedding.
    device : Device
        Where the kernels run.

    Raises
    ------
    ConfigError
        If the weights can't be read, or have no embedding.
    GeometryError
        If they are for another detector.
    """

    def __init__(self, detector: Detector, config: ChainConfig, device: Device) -> None:
        super().__init__(detector, config.with_settings({"graph.constructor": "metric"}), device)

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Return the places of spacepoints in the embedding.

        Parameters
        ----------
        features : ndarray of shape (n, 3), float32
            r / 1000 mm, phi / pi and z / 1000 mm.

        Returns
        -------
        ndarray of shape (n, 8), float32
            Not a number for spacepoints on layers that the weights don't know.

        Raises
        ------
        InputDataError
            If a position can't be used; the message names the row.
        """
        nodes = self._nodes(features)
        out = np.full((len(nodes.point), N_DIMENSIONS), np.nan, np.float32)
        if len(nodes.spacepoint):
            ws = self._ws
            place = embed_points(ws, nodes.points.features, ws.extent("graph_points"), self._finder.embedding)
            (found,) = ws.device.fetch(place[: len(nodes.spacepoint)])
            out[nodes.given.row[nodes.spacepoint]] = found
        return out

    def neighbours(self, places: np.ndarray) -> np.ndarray:
        """Return the pairs of spacepoints that are close together.

        Parameters
        ----------
        places : ndarray of shape (n, 8), float32
            From `embed`.

        Returns
        -------
        ndarray of shape (2, m), int64
            The rows of both.

        Raises
        ------
        InputDataError
            If there are not eight columns.
        CapacityError
            If there are more than 2^24 rows.
        """
        if places.ndim != _EDGE_RANK or places.shape[1] != N_DIMENSIONS:
            msg = f"the embedding has shape {places.shape}; expected (n, {N_DIMENSIONS})"
            raise InputDataError(msg)
        n = len(places)
        if n > _MOST_PLACES:
            msg = f"the embedding has {n} rows; expected at most {_MOST_PLACES}"
            raise CapacityError(msg)
        if not n:
            return np.zeros((len(_ENDS), 0), np.int64)
        ws, config = self._ws, self._config
        ws.set_sizes(graph_points=n)
        extent = ws.extent("graph_points")
        columns = {"event": np.zeros(n, np.int32), "layer": np.arange(n, dtype=np.int32)}
        columns |= {"place": np.ascontiguousarray(places, np.float32), "outward": np.arange(n, dtype=np.float32)}
        points = EmbeddedPoints(**{name: ws.put(f"steps.{name}", extent, x) for name, x in columns.items()})
        found = self._until_it_fits(lambda: find_pairs(ws, points, extent, 1, config.radius, config.max_neighbours))
        m = ws.size(ws.extent("graph_edges"))
        return np.stack(ws.device.fetch(found.inner[:m], found.outer[:m])).astype(np.int64)

    def filter_scores(self, features: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return what the filter says of edges.

        Parameters
        ----------
        features : ndarray of shape (n, 3), float32
            As in `embed`.
        edges : ndarray of shape (2, m), int64
            Pairs of rows.

        Returns
        -------
        ndarray of shape (m, 1), float32
            Logits; minus infinity for pairs of one layer, which are no edges.

        Raises
        ------
        InputDataError
            If a position can't be used, or a pair is of rows that are not there.
        """
        nodes = self._nodes(features)
        ends = _ends_of(nodes, edges)
        out = np.full((np.shape(edges)[1], 1), _NO_EDGE, np.float32)
        if len(ends.pair):
            ws, weights = self._ws, self._finder.embedding_filter
            judged = judge_edges(ws, nodes.points, self._upload_edges(nodes, ends), weights, 0.0)
            (out[ends.pair, 0],) = ws.device.fetch(judged.logit[: len(ends.pair)])
        return out

    def kept_edges(self, scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return the edges that the filter keeps.

        Parameters
        ----------
        scores : ndarray of shape (m, 1), float32
            From `filter_scores`.
        edges : ndarray of shape (2, m), int64
            Their edges.

        Raises
        ------
        InputDataError
            If there are not as many scores as edges, or one is no number.
        """
        _check_edges(edges)
        logit = _checked_scores(scores, edges)
        return np.ascontiguousarray(edges[:, logit > np.float32(logit_cut(self._config.filter_cut))])

    def edge_scores(self, features: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return what the interaction network says of edges.

        Parameters
        ----------
        features, edges : ndarray
            As in `filter_scores`.

        Returns
        -------
        ndarray of shape (m,), float32
            Logits; minus infinity for pairs of one layer.

        Raises
        ------
        InputDataError
            As `filter_scores`.
        """
        nodes = self._nodes(features)
        ends = _ends_of(nodes, edges)
        out = np.full(np.shape(edges)[1], _NO_EDGE, np.float32)
        if len(ends.pair):
            scored = score_edges(self._ws, self._whole_graph(nodes, ends), self._finder.network)
            (out[ends.pair],) = self._ws.device.fetch(scored.logit[: len(ends.pair)])
        return out

    def labels(self, edges: np.ndarray, scores: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return a label for each spacepoint.

        Parameters
        ----------
        edges : ndarray
            As in `filter_scores`.
        scores : ndarray of shape (m,), float32
            From `edge_scores`.
        features : ndarray
            As in `embed`.

        Returns
        -------
        ndarray of shape (n,), int64
            As of `SpacepointLabeller.label`.

        Raises
        ------
        InputDataError
            As `filter_scores`; or if there are not as many scores as edges, or one is no number.
        """
        nodes = self._nodes(features)
        ends = _ends_of(nodes, edges)
        logit = _checked_scores(scores, edges)[ends.pair]
        if not len(ends.pair):
            return labels_of(np.zeros(0, np.int32), np.zeros(1, np.int32), nodes.given.row)
        ws, config = self._ws, self._config
        graph = self._whole_graph(nodes, ends)
        scored = ScoredEdges(ws.put("steps.logit", ws.extent("kept_edges"), logit), *edges_of_nodes(ws, graph))
        only_best = config.segmentation == "junction_removal"
        found = self._until_it_fits(
            lambda: find_paths(ws, nodes.points, graph, scored, config.edge_cut, only_best=only_best)
        )
        return labels_of(*fetch_lists(ws, found), nodes.given.row)

    def warm_up(self, only: Callable[..., np.ndarray] | None = None) -> None:
        """Let the steps, or one of them, work on an example, so that kernels are compiled and buffers are there."""
        table = self._reader.example()
        n = len(table)
        edges = np.stack([np.arange(n - 1), np.arange(1, n)])
        scores = np.zeros(n - 1, np.float32)
        given: list[tuple[Callable[..., np.ndarray], tuple[np.ndarray, ...]]] = [
            (self.embed, (table,)),
            (self.neighbours, (np.zeros((n, N_DIMENSIONS), np.float32),)),
            (self.filter_scores, (table, edges)),
            (self.kept_edges, (scores[:, None], edges)),
            (self.edge_scores, (table, edges)),
            (self.labels, (edges, scores, table)),
        ]
        for work, arrays in given:
            if only in (None, work):
                work(*arrays)

    def _until_it_fits(self, work: Callable[[], _Found]) -> _Found:
        """Do what may outgrow its buffers on a GPU until it does not."""
        while True:
            found = work()
            if not self._ws.overflowed():
                return found

    def _nodes(self, features: np.ndarray) -> _Nodes:
        ws, given = self._ws, self._reader.read(features)
        n = len(given.row)
        spacepoints, batch = self._reader.upload(ws, given)
        graph_map, n_modules = self._finder.graph_map, self._n_modules

        def work() -> tuple[GraphPoints, Any]:
            points = sort_points(ws, spacepoints, batch, self._detector, graph_map, n_modules, 1)
            return points, find_outward(ws, points)

        points, outward = self._until_it_fits(work)
        m = ws.size(ws.extent("graph_points"))
        columns = [column[:m] for column in (points.spacepoint, points.layer, outward)]
        spacepoint, layer, away = (column.copy() for column in ws.device.fetch(*columns))
        point = np.full(n, -1, np.int64)
        point[given.row[spacepoint]] = np.arange(m)
        return _Nodes(given, points, spacepoint, layer, away, point)

    def _upload_edges(self, nodes: _Nodes, ends: _Ends) -> Edges:
        ws = self._ws
        ws.set_size(ws.extent("graph_edges"), len(ends.pair))
        inner, outer = (ws.put(f"graph.edge_{name}", ws.extent("graph_edges"), getattr(ends, name)) for name in _ENDS)
        return describe_pairs(ws, nodes.points, inner, outer)

    def _whole_graph(self, nodes: _Nodes, ends: _Ends) -> FilteredGraph:
        """Return the graph of all of some edges."""
        ws = self._ws
        edges = self._upload_edges(nodes, ends)
        is_node = np.zeros(len(nodes.spacepoint), np.int32)
        is_node[ends.inner] = is_node[ends.outer] = 1
        all_edges = ws.put("network.is_kept", ws.extent("graph_edges"), np.ones(len(ends.pair), np.int32))
        judged = JudgedEdges(None, all_edges, ws.put("network.is_node", ws.extent("graph_points"), is_node))
        return self._until_it_fits(lambda: kept_graph(ws, nodes.points, edges, judged))


def _check_edges(edges: np.ndarray) -> None:
    if np.ndim(edges) != _EDGE_RANK or len(edges) != len(_ENDS) or np.asarray(edges).dtype.kind not in "iu":
        msg = f"the edges are {np.asarray(edges).dtype} of shape {np.shape(edges)}; expected whole numbers (2, n)"
        raise InputDataError(msg)


def _checked_scores(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return scores of edges as one column."""
    flat = np.asarray(scores, np.float32).reshape(-1)
    n = np.shape(edges)[1]
    if len(flat) != n:
        msg = f"there are {len(flat)} scores of {n} edges; expected one for each"
        raise InputDataError(msg)
    if np.isnan(flat).any():
        msg = f"the score of edge {int(np.argmax(np.isnan(flat)))} (counted from 0) is not a number; expected a logit"
        raise InputDataError(msg)
    return flat


def _ends_of(nodes: _Nodes, edges: np.ndarray) -> _Ends:
    """Return the pairs that may be edges, ordered by their outer, then by their inner point."""
    _check_edges(edges)
    n = len(nodes.point)
    outside = ((edges < 0) | (edges >= n)).any(axis=0)
    if outside.any():
        place = int(np.argmax(outside))
        msg = f"edge {place} (counted from 0) joins rows {edges[:, place].tolist()}; expected rows below {n}"
        raise InputDataError(msg)
    a, b = nodes.point[edges]
    used = np.flatnonzero((a >= 0) & (b >= 0))
    a, b = a[used], b[used]
    is_edge = (nodes.layer[a] != nodes.layer[b]) & (nodes.outward[a] != nodes.outward[b])
    used, a, b = used[is_edge], a[is_edge], b[is_edge]
    is_turned = nodes.outward[a] > nodes.outward[b]
    inner, outer = np.where(is_turned, b, a), np.where(is_turned, a, b)
    order = np.lexsort((inner, outer))
    return _Ends(used[order], inner[order].astype(np.int32), outer[order].astype(np.int32))
