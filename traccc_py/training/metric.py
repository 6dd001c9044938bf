"""Embedding and its filter, learned from labelled events: what graphs by metric learning need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.config import GraphConfig
from traccc_py.geometry import Detector
from traccc_py.gnn.weights import embedding_weights
from traccc_py.kernels.gnn.graph_map import GraphMap
from traccc_py.training.embedding import EmbeddingExample, EmbeddingOptions, EmbeddingTrainer, embedding_example
from traccc_py.training.graphs import GraphMaker
from traccc_py.training.samples import LabelledEvent
from traccc_py.training.train import Trainer, TrainingOptions
from traccc_py.training.training_graphs import LabelledGraph, label_graph, point_edges, thinned

__all__ = ["embedding_checkpoints", "train_embedding"]

_EMBEDDING_PART = 0.6  # of the time; the rest is for its filter
_SECONDS_PER_MINUTE = 60
_MOST_EDGES = 500_000  # of an event that the filter learns from: one of mu = 200 has ten times as many
_MOST_WITHOUT_CLUSTERS = 90_000  # spacepoints of events that are seen once more as spacepoints alone


def embedding_checkpoints(checkpoint: Path) -> tuple[Path, Path]:
    """Return where the states of the embedding and of its filter are kept, beside that of the network."""
    return tuple(checkpoint.with_name(f"{checkpoint.name}-{part}") for part in ("embedding", "filter"))  # type: ignore[return-value]


def train_embedding(
    detector: Detector,
    graph_map: GraphMap,
    events: Sequence[LabelledEvent],
    held_out: Sequence[LabelledEvent],
    options: TrainingOptions,
    checkpoint: Path,
    report: Callable[[str], None],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the embedding, then a filter for its edges.

    Parameters
    ----------
    detector : Detector
        The detector.
    graph_map : GraphMap
        Its layers.
    events, held_out : sequence of LabelledEvent
        To learn from, and to measure with.
    options : TrainingOptions
        How; `minutes` are those of both.
    checkpoint : Path
        Beside which the states are kept.
    report : callable
        Called with lines for the user.

    Returns
    -------
    arrays : dict
        Weights by the names of `gnn.weights`.
    facts : dict
        Of this training.
    """
    of_embedding, of_filter = embedding_checkpoints(checkpoint)
    maker = GraphMaker(detector, graph_map)
    seconds = _SECONDS_PER_MINUTE * options.minutes * _EMBEDDING_PART
    how = EmbeddingOptions(seconds, options.seed)
    learned, measured = ([_example(maker, event) for event in part] for part in (events, held_out))
    trainer = EmbeddingTrainer(learned, measured, how, of_embedding, report)
    arrays = trainer.run()
    maker = GraphMaker(detector, graph_map, embedding_weights(arrays))
    limits = GraphConfig()
    left = dataclasses.replace(options, minutes=options.minutes * (1 - _EMBEDDING_PART))
    random = np.random.default_rng(options.seed)
    graphs = [thinned(graph, _MOST_EDGES, random) for event in events for graph in _graphs(maker, event)]
    edge_filter = Trainer(graphs, [_graphs(maker, e)[0] for e in held_out], left, of_filter, report)
    arrays |= {f"metric_{name}": values for name, values in edge_filter.run_filter().items()}
    progress = edge_filter.progress
    facts = {
        "options": dataclasses.asdict(how),
        "curve": trainer.curve,
        "radius": limits.radius,
        "max_neighbours": limits.max_neighbours,
        "filter_steps": progress.filter_steps,
        **progress.filter_facts,
    }
    return arrays, facts


def _example(maker: GraphMaker, event: LabelledEvent) -> EmbeddingExample:
    points = maker.points(event.measurements, event.spacepoints)
    return embedding_example(event, points, point_edges(event, points))


def _graphs(maker: GraphMaker, event: LabelledEvent) -> list[LabelledGraph]:
    """Return the graph of an event with clusters, and the one without if it is not too dense."""
    made = []
    for has_clusters in (True, False)[: 1 + (len(event.spacepoints) < _MOST_WITHOUT_CLUSTERS)]:
        graph = maker.graph(event.measurements, event.spacepoints, has_clusters=has_clusters)
        made.append(label_graph(event, graph, point_edges(event, graph.points)))
    return made
