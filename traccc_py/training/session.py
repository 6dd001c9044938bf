"""A training from nothing to weights: events are simulated where they are missing, made graphs, and learned from."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from traccc_py.chain import TrackingChain
from traccc_py.errors import ConfigError
from traccc_py.geometry import Detector
from traccc_py.gnn.weights import Weights, embedding_shapes, finder_arrays, has_embedding
from traccc_py.kernels.gnn.graph_map import N_VALUES, layer_places, make_graph_map
from traccc_py.kernels.gnn.networks import FilterWeights
from traccc_py.training.graphs import GraphMaker
from traccc_py.training.metric import train_embedding
from traccc_py.training.samples import LabelledEvent, read_labelled
from traccc_py.training.sampling import HELD_OUT_SEED, MIXTURE, WIDE, ensure_sample
from traccc_py.training.train import Progress, Trainer, TrainingOptions
from traccc_py.training.training_graphs import LabelledGraph, label_graph, point_edges, prompt
from traccc_py.training.windows import WindowExample, learn_windows

__all__ = ["train_weights"]

_VALIDATION = {30: 4, 100: 1}  # events
_SEEDS_APART = 1000  # of samples
_WIDE_SEED = 500  # of events with collisions farther apart, behind that of the others
_LEARNED_PT = 0.9  # [GeV], of particles whose doublets make the windows
_WITHOUT_CLUSTERS = 4  # of so many events one is seen as spacepoints alone, too
_MOST_WITHOUT_CLUSTERS = 90_000  # spacepoints of these


def _events(
    folder: Path,
    chain: TrackingChain,
    numbers: dict[int, int],
    seed: int,
    report: Callable[[str], None],
    sigma_z: float | None = None,
) -> Iterator[LabelledEvent]:
    for pileup, n in numbers.items():
        place = ensure_sample(folder, chain.detector, pileup, n, seed + pileup, report, sigma_z)
        for number in range(n):
            yield read_labelled(place, chain, number)


def train_weights(
    detector: Detector,
    samples: Path,
    n_events: int,
    options: TrainingOptions,
    checkpoint: Path,
    report: Callable[[str], None],
    start: Weights | None = None,
) -> Weights:
    """Train the finder for a detector.

    Parameters
    ----------
    detector : Detector
        The detector.
    samples : Path
        Folder where simulated events are, or are put.
    n_events : int
        Number of events to learn from; `MIXTURE` says of which density [1].
    options : TrainingOptions
        How.
    checkpoint : Path
        Where the state is kept, to go on from.
    report : callable
        Called with lines for the user.
    start : Weights, optional
        What to go on from: its map and its filter stay, its network learns from these events.

    Returns
    -------
    Weights
        With the facts of the training.

    Raises
    ------
    ConfigError
        If the seed is so large that evaluation may use it.
    """
    torch.set_num_threads(1)
    if options.learn == "embedding" and start is None:
        msg = "--learn embedding needs weights with a network: name them with --start, as in --start odd"
        raise ConfigError(msg)
    arrays = detector.arrays()
    sample = _read_sample(detector, samples, n_events, options.seed, report)
    if start is None:
        _, places = layer_places(arrays)
        pairs, windows = _learned_map(detector, places, sample.events, sample.wide)
        graph_map, edge_filter = make_graph_map(arrays, places, pairs, windows), None
    else:
        places, pairs, windows = start.places, start.pairs, start.windows
        graph_map, edge_filter, *_ = finder_arrays(start, arrays)
    events, held_out = sample.events + sample.wide, sample.held_out
    report(f"layer map: {len(pairs)} pairs of layers; {len(events)} events to learn from")

    def embed(minutes: float) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        how = dataclasses.replace(options, minutes=minutes)
        found, about = train_embedding(detector, graph_map, events, held_out, how, checkpoint, report)
        return found, about | sample.facts()

    if options.learn == "embedding" and start is not None:
        found, about = embed(options.minutes)
        return start._replace(arrays=start.arrays | found, facts=start.facts | {"embedding": about})
    before = {} if start is None else start.facts
    kept = {} if start is None or not has_embedding(start) else {n: start.arrays[n] for n in embedding_shapes()}
    of_embedding = 0.0 if kept else options.minutes * options.embedding_part
    # In a function of its own, whose graphs are gone when those of the embedding are made.
    weights, progress = _trained_networks(
        GraphMaker(detector, graph_map),
        sample,
        edge_filter,
        dataclasses.replace(options, minutes=options.minutes - of_embedding),
        checkpoint,
        report,
        None if start is None else start.arrays,
    )
    found, about = (kept, before["embedding"]) if kept else embed(of_embedding)
    most = max(len(event.spacepoints) for event in events)
    facts = {
        "detector": detector.name,
        **sample.facts(),
        "most_spacepoints": max(most, before.get("most_spacepoints", 0)),
        "options": dataclasses.asdict(options),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "embedding": about,
        "progress": json.loads(json.dumps(dataclasses.asdict(progress))),
    }
    if start is not None:
        facts["start"] = before
    return Weights(places, pairs, windows, weights | found, facts)


def _trained_networks(
    maker: GraphMaker,
    sample: _Sample,
    edge_filter: FilterWeights | None,
    options: TrainingOptions,
    checkpoint: Path,
    report: Callable[[str], None],
    start: dict[str, np.ndarray] | None,
) -> tuple[dict[str, np.ndarray], Progress]:
    """Return the weights of filter and network by name, and what their training did."""
    graphs = _graphs(maker, sample.events + sample.wide, edge_filter)
    validation = _graphs(maker, sample.held_out, edge_filter, with_few=False)
    trainer = Trainer(graphs, validation, options, checkpoint, report, start)
    return trainer.run(), trainer.progress


class _Sample(NamedTuple):
    """The events of a training."""

    events: list[LabelledEvent]
    wide: list[LabelledEvent]  # with collisions farther apart
    held_out: list[LabelledEvent]
    numbers: dict[int, int]  # of the first, by pile-up
    seed: int

    def facts(self) -> dict[str, Any]:
        """Return what weights tell of them."""
        return {
            "mu": [min(self.numbers), max(self.numbers)],
            "wide_events": len(self.wide),
            "events": {str(pileup): n for pileup, n in self.numbers.items()},
            "seeds": [self.seed, self.seed + _SEEDS_APART],
        }


def _read_sample(detector: Detector, samples: Path, n_events: int, seed: int, report: Callable[[str], None]) -> _Sample:
    """Return the events of a training; they are simulated where they are missing."""
    if seed * 2 * _SEEDS_APART >= HELD_OUT_SEED - 2 * _SEEDS_APART:
        msg = f"--seed is {seed}; expected less than {HELD_OUT_SEED // (2 * _SEEDS_APART) - 1}"
        raise ConfigError(msg)
    chain = TrackingChain(detector, device="cpu", threads=1)
    first = 2 * seed * _SEEDS_APART
    numbers = {pileup: max(1, round(part * n_events)) for pileup, part in MIXTURE.items()}
    n_wide = {WIDE.pileup: max(1, round(WIDE.part * n_events))}
    return _Sample(
        list(_events(samples, chain, numbers, first, report)),
        list(_events(samples, chain, n_wide, first + _WIDE_SEED, report, WIDE.sigma_z)),
        list(_events(samples, chain, _VALIDATION, first + _SEEDS_APART, report)),
        numbers,
        first,
    )


def _learned_map(
    detector: Detector, places: np.ndarray, events: Sequence[LabelledEvent], wide: Sequence[LabelledEvent]
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of layers and their windows."""
    no_pairs = np.zeros((0, 2), np.int32), np.zeros((0, N_VALUES, 2), np.float32)
    maker = GraphMaker(detector, make_graph_map(detector.arrays(), places, *no_pairs))
    examples = [_example(maker, event, is_wide=False) for event in events]
    learned = learn_windows([*examples, *(_example(maker, event, is_wide=True) for event in wide)])
    return learned.pairs, learned.windows


def _example(maker: GraphMaker, event: LabelledEvent, *, is_wide: bool) -> WindowExample:
    points = maker.points(event.measurements, event.spacepoints)
    edges = point_edges(event, points)
    return WindowExample(points, edges, prompt(event, edges, _LEARNED_PT), is_wide)


def _graphs(
    maker: GraphMaker, events: Sequence[LabelledEvent], edge_filter: FilterWeights | None, *, with_few: bool = True
) -> list[LabelledGraph]:
    """Return the graphs of events, and some of them again without clusters."""
    made = []
    for number, event in enumerate(events):
        again = with_few and number % _WITHOUT_CLUSTERS == 0 and len(event.spacepoints) < _MOST_WITHOUT_CLUSTERS
        for has_clusters in (True, False)[: 1 + again]:
            graph = maker.graph(
                event.measurements, event.spacepoints, has_clusters=has_clusters, edge_filter=edge_filter
            )
            made.append(label_graph(event, graph, point_edges(event, graph.points)))
    return made
