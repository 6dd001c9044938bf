"""Graphs with labels: which edges are true, how much each counts, and what training makes of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traccc_py.training.graphs import EventGraph, EventPoints
from traccc_py.training.samples import LabelledEvent
from traccc_py.training.truth_edges import TrueEdges, true_edges

__all__ = [
    "LEARNED_PT",
    "WANTED_ETA",
    "WANTED_PT",
    "WANTED_RADIUS",
    "LabelledGraph",
    "augmented",
    "cropped",
    "filtered",
    "label_graph",
    "point_edges",
    "prompt",
    "thinned",
]

LEARNED_PT = 0.6  # [GeV], of true edges that count
WANTED_PT, WANTED_ETA, WANTED_RADIUS = 1.0, 3.0, 10.0  # of edges that efficiencies are about [GeV, 1, mm]
_COS, _SIN, _Z, _ETA, _EXPECTED0 = 1, 2, 3, 4, 8  # node features
_HALF = 0.5
_OF_CHARGE, _OF_Z = (1, 4), (2, 3, 5)  # edge features that change sign


class LabelledGraph(NamedTuple):
    """A graph to learn from."""

    nodes: np.ndarray  # (n, N_NODE_FEATURES) float32
    phi: np.ndarray  # (n,) float32 [rad]
    ends: np.ndarray  # (2, n_edges) int64, inner and outer node
    features: np.ndarray  # (n_edges, N_EDGE_FEATURES) float32
    is_true: np.ndarray  # (n_edges,) bool
    weight: np.ndarray  # (n_edges,) float32
    is_wanted: np.ndarray  # (n_edges,) bool, true ones of prompt particles with pT > 1 GeV
    n_wanted: int  # of the event, those without an edge included
    n_spacepoints: int


def prompt(event: LabelledEvent, edges: TrueEdges, pt: float) -> np.ndarray:
    """Return which edges are of particles from the collisions above a pT [GeV]."""
    of = edges.particle
    return (event.pt[of] > pt) & (event.radius[of] < WANTED_RADIUS) & (np.abs(event.eta[of]) < WANTED_ETA)


def point_edges(event: LabelledEvent, points: EventPoints) -> TrueEdges:
    """Return the true edges of an event by row of the points."""
    row = np.full(len(event.spacepoints), -1)
    row[points.spacepoint] = np.arange(len(points.spacepoint))
    layer = np.where(row >= 0, points.layer[np.maximum(row, 0)], -1) if len(points.layer) else row
    found = true_edges(event.link_spacepoint, event.link_particle, event.link_time, layer[event.link_spacepoint])
    return TrueEdges(row[found.inner], row[found.outer], found.particle)


def label_graph(event: LabelledEvent, graph: EventGraph, edges: TrueEdges) -> LabelledGraph:
    """Label the edges of a graph.

    True edges of particles below 0.6 GeV and false ones between spacepoints of one particle don't count.

    Parameters
    ----------
    event : LabelledEvent
        The event.
    graph : EventGraph
        Its graph.
    edges : TrueEdges
        From `point_edges`.
    """
    n = len(graph.points.r)
    key = edges.inner * n + edges.outer
    order = np.argsort(key, kind="stable")
    wanted_key = graph.inner.astype(np.int64) * n + graph.outer
    place = np.minimum(np.searchsorted(key[order], wanted_key), max(len(key) - 1, 0))
    is_true = key[order][place] == wanted_key if len(key) else np.zeros(len(wanted_key), bool)
    particle = edges.particle[order][place] if len(key) else np.zeros(len(wanted_key), np.int64)
    is_wanted = prompt(event, edges, WANTED_PT)
    owner = np.full(n, -1, np.int64)
    owner[edges.inner] = edges.particle
    owner[edges.outer] = edges.particle
    weight = np.ones(len(wanted_key), np.float32)
    weight[is_true & (event.pt[particle] < LEARNED_PT)] = 0
    weight[~is_true & (owner[graph.inner] == owner[graph.outer]) & (owner[graph.inner] >= 0)] = 0
    found = np.zeros(len(wanted_key), bool)
    found[is_true] = is_wanted[order][place][is_true]
    return LabelledGraph(
        nodes=graph.points.features,
        phi=graph.points.phi,
        ends=np.stack([graph.inner, graph.outer]).astype(np.int64),
        features=graph.features,
        is_true=is_true,
        weight=weight,
        is_wanted=found,
        n_wanted=int(np.count_nonzero(is_wanted)),
        n_spacepoints=len(event.spacepoints),
    )


def _with_edges(graph: LabelledGraph, kept: np.ndarray) -> LabelledGraph:
    """Return a graph with some of its edges, and the nodes of these."""
    nodes, ends = np.unique(graph.ends[:, kept], return_inverse=True)
    return graph._replace(
        nodes=graph.nodes[nodes],
        phi=graph.phi[nodes],
        ends=ends.reshape(2, -1),
        features=graph.features[kept],
        is_true=graph.is_true[kept],
        weight=graph.weight[kept],
        is_wanted=graph.is_wanted[kept],
    )


def filtered(graph: LabelledGraph, is_kept: np.ndarray) -> LabelledGraph:
    """Return what the filter leaves of a graph."""
    return _with_edges(graph, np.flatnonzero(is_kept))


def cropped(graph: LabelledGraph, most_edges: int, random: np.random.Generator) -> LabelledGraph:
    """Return a sector in phi of a graph that has more edges than `most_edges`."""
    n = graph.ends.shape[1]
    if n <= most_edges:
        return graph
    half = np.pi * most_edges / n
    away = np.abs((graph.phi - random.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
    is_inside = away < half
    return _with_edges(graph, np.flatnonzero(is_inside[graph.ends[0]] & is_inside[graph.ends[1]]))


def thinned(graph: LabelledGraph, most_edges: int, random: np.random.Generator) -> LabelledGraph:
    """Return a graph with at most `most_edges` of its edges, drawn at random: a filter looks at each alone."""
    n = graph.ends.shape[1]
    return graph if n <= most_edges else _with_edges(graph, np.sort(random.permutation(n)[:most_edges]))


def augmented(nodes: np.ndarray, features: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return features turned about the beam by any angle, perhaps mirrored in z, perhaps in charge."""
    nodes, features = nodes.copy(), features.copy()
    angle = random.uniform(0, 2 * np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = nodes[:, _COS].copy(), nodes[:, _SIN].copy()
    nodes[:, _COS], nodes[:, _SIN] = x * c - y * s, x * s + y * c
    is_turned, is_mirrored = random.random(2) < _HALF
    if is_turned:
        nodes[:, [_Z, _ETA]] *= -1
        features[:, _OF_Z] *= -1
    if is_mirrored:
        nodes[:, [_SIN, _EXPECTED0]] *= -1
        features[:, _OF_CHARGE] *= -1
    return nodes, features
