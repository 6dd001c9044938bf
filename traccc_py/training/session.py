"""A training from nothing to weights: events are simulated where they are missing, made graphs, and learned from."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from traccc_py.training.train import Trainer, TrainingOptions
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
    arrays = detector.arrays()
    _, places = layer_places(arrays)
    chain = TrackingChain(detector, device="cpu", threads=1)
    numbers = {pileup: max(1, round(part * n_events)) for pileup, part in MIXTURE.items()}
    if options.seed * 2 * _SEEDS_APART >= HELD_OUT_SEED - 2 * _SEEDS_APART:
        msg = f"--seed is {options.seed}; expected less than {HELD_OUT_SEED // (2 * _SEEDS_APART) - 1}"
        raise ConfigError(msg)
    seed = 2 * options.seed * _SEEDS_APART
    events = list(_events(samples, chain, numbers, seed, report))
    n_wide = max(1, round(WIDE.part * n_events))
    wide = list(_events(samples, chain, {WIDE.pileup: n_wide}, seed + _WIDE_SEED, report, WIDE.sigma_z))
    held_out = list(_events(samples, chain, _VALIDATION, seed + _SEEDS_APART, report))
    if start is None:
        pairs, windows = _learned_map(detector, places, events, wide)
        graph_map, edge_filter = make_graph_map(arrays, places, pairs, windows), None
    else:
        places, pairs, windows = start.places, start.pairs, start.windows
        graph_map, edge_filter, *_ = finder_arrays(start, arrays)
    events += wide
    report(f"layer map: {len(pairs)} pairs of layers; {len(events)} events to learn from")
    of_embedding = dataclasses.replace(options, minutes=options.minutes * options.embedding_part)
    if options.learn == "embedding":
        if start is None:
            msg = "--learn embedding needs weights with a network: name them with --start, as in --start odd"
            raise ConfigError(msg)
        of_embedding = options
        found, about = train_embedding(detector, graph_map, events, held_out, of_embedding, checkpoint, report)
        about |= {"numbers": {str(pileup): n for pileup, n in numbers.items()}, "seeds": [seed, seed + _SEEDS_APART]}
        return start._replace(arrays=start.arrays | found, facts=start.facts | {"embedding": about})
    kept = {} if start is None else {name: start.arrays[name] for name in embedding_shapes() if has_embedding(start)}
    share = 0 if kept else options.embedding_part
    maker = GraphMaker(detector, graph_map)
    graphs = _graphs(maker, events, edge_filter)
    validation = _graphs(maker, held_out, edge_filter, with_few=False)
    of_network = dataclasses.replace(options, minutes=options.minutes * (1 - share))
    trainer = Trainer(graphs, validation, of_network, checkpoint, report, None if start is None else start.arrays)
    weights = trainer.run()
    before = {} if start is None else start.facts
    about = before.get("embedding", {})
    if not kept:
        kept, about = train_embedding(detector, graph_map, events, held_out, of_embedding, checkpoint, report)
    weights |= kept
    most = max(len(event.spacepoints) for event in events)
    facts = {
        "detector": detector.name,
        "mu": [min(numbers), max(numbers)],
        "wide_events": n_wide,
        "events": {str(pileup): n for pileup, n in numbers.items()},
        "most_spacepoints": max(most, before.get("most_spacepoints", 0)),
        "seeds": [seed, seed + _SEEDS_APART],
        "options": dataclasses.asdict(options),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "embedding": about,
        "progress": json.loads(json.dumps(dataclasses.asdict(trainer.progress))),
    }
    if start is not None:
        facts["start"] = before
    return Weights(places, pairs, windows, weights, facts)


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
