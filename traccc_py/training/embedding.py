"""The training of the embedding: points of a particle on layers in a row are drawn together, near others pushed away.

Each step takes a sector of an event, embeds it, and looks for the points that are nearest to some of it now: those that
are no neighbours of theirs are what there is to learn.

References
----------
arXiv:2103.06995, metric learning with the hardest pairs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional

from traccc_py.kernels.gnn.embedding import EMBEDDING_WIDTH, N_DIMENSIONS
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES
from traccc_py.kernels.gnn.graph_points import CLUSTER_FEATURES, N_NODE_FEATURES
from traccc_py.training.graphs import EventPoints
from traccc_py.training.samples import LabelledEvent
from traccc_py.training.training_graphs import LEARNED_PT, WANTED_PT, augmented, prompt
from traccc_py.training.truth_edges import TrueEdges

__all__ = ["EmbeddingExample", "EmbeddingOptions", "EmbeddingTrainer", "embedding_example"]

_CHECKPOINT_EVERY = 60.0  # [s] of processor time
_WARM_UP = 50  # steps
_LEAST_RATE = 0.01  # of the largest one
_WITHOUT_CLUSTERS = 0.5  # of the steps
_MARGIN = 1.0  # distance beyond which a pair that is none is left alone
_HALF = 0.5
_TREE_LEAF = 32
_MOST_MEASURED = 20_000  # points of an event from which neighbours are counted


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """How long and how the embedding learns."""

    seconds: float  # of processor time
    seed: int = 1
    rate: float = 4e-3  # largest learning rate
    points: int = 12_000  # of a sector, about
    anchors: int = 3_000  # true edges in a step
    neighbours: int = 16  # nearest points that are looked at for each
    true_weight: float = 2.0  # of distances of true edges
    efficiency: float = 0.985  # of wanted edges within the radius of one


class EmbeddingExample(NamedTuple):
    """An event to learn from."""

    nodes: np.ndarray  # (n, N_NODE_FEATURES) float32
    phi: np.ndarray  # (n,) float32 [rad]
    layer: np.ndarray  # (n,) int32
    owner: np.ndarray  # (n,) int64, a particle; -1: none
    inner: np.ndarray  # (n_edges,) int64, true edges to learn
    outer: np.ndarray  # (n_edges,) int64
    is_wanted: np.ndarray  # (n_edges,) bool, of prompt particles with pT > 1 GeV


def embedding_example(event: LabelledEvent, points: EventPoints, edges: TrueEdges) -> EmbeddingExample:
    """Return an event as the embedding learns from it.

    Parameters
    ----------
    event : LabelledEvent
        The event.
    points : EventPoints
        Its nodes.
    edges : TrueEdges
        By row of these, from `point_edges`.
    """
    owner = np.full(len(points.r), -1, np.int64)
    owner[edges.inner] = edges.particle
    owner[edges.outer] = edges.particle
    rows = np.flatnonzero(event.pt[edges.particle] > LEARNED_PT)
    is_wanted = prompt(event, edges, WANTED_PT)[rows]
    return EmbeddingExample(
        points.features, points.phi, points.layer, owner, edges.inner[rows], edges.outer[rows], is_wanted
    )


def _sector(example: EmbeddingExample, n_points: int, random: np.random.Generator) -> EmbeddingExample:
    """Return about so many points of an event, of a sector in phi."""
    n = len(example.phi)
    if n <= n_points:
        return example
    away = np.abs((example.phi - random.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
    is_inside = away < np.pi * n_points / n
    rows = np.flatnonzero(is_inside)
    row = np.cumsum(is_inside) - 1
    kept = is_inside[example.inner] & is_inside[example.outer]
    of_points = {name: getattr(example, name)[rows] for name in ("nodes", "phi", "layer", "owner")}
    ends = {name: row[getattr(example, name)[kept]] for name in ("inner", "outer")}
    return EmbeddingExample(**of_points, **ends, is_wanted=example.is_wanted[kept])


class EmbeddingTrainer:
    """Trains the embedding.

    Parameters
    ----------
    examples : sequence of EmbeddingExample
        To learn from.
    validation : sequence of EmbeddingExample
        To measure with.
    options : EmbeddingOptions
        How.
    checkpoint : path
        Where the state is kept; if the file is there, training goes on from it.
    report : callable
        Called with lines for the user.
    """

    def __init__(
        self,
        examples: Sequence[EmbeddingExample],
        validation: Sequence[EmbeddingExample],
        options: EmbeddingOptions,
        checkpoint: Path,
        report: Callable[[str], None],
    ) -> None:
        torch.manual_seed(options.seed)
        self._examples, self._validation = examples, validation
        self._options, self._checkpoint, self._report = options, checkpoint, report
        sizes = (N_NODE_FEATURES, EMBEDDING_WIDTH, EMBEDDING_WIDTH, EMBEDDING_WIDTH, N_DIMENSIONS)
        self._layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self._optimizer = torch.optim.Adam(self._layers.parameters(), options.rate)
        self._random = np.random.default_rng(options.seed)
        self.seconds, self.steps = 0.0, 0
        self.curve: list[dict[str, float]] = []
        if checkpoint.exists():
            self._resume()

    def run(self) -> dict[str, np.ndarray]:
        """Train to the end of the time; return the weights by name, turned and scaled so that the radius is one."""
        seconds = self._options.seconds
        begin, saved = time.process_time() - self.seconds, time.process_time()
        while (used := time.process_time() - begin) < seconds:
            self.seconds = used
            wave = 0.5 * (1 + math.cos(math.pi * used / seconds)) + _LEAST_RATE
            self._step(self._options.rate * wave * min(1.0, (self.steps + 1) / _WARM_UP))
            self.steps += 1
            if time.process_time() - saved > _CHECKPOINT_EVERY:
                self._measure()
                self._save()
                begin += time.process_time() - begin - self.seconds  # measuring does not count
                saved = time.process_time()
        self.seconds = max(self.seconds, seconds)
        self._measure()
        self._save()
        return self._arrays()

    def _embed(self, nodes: Any) -> Any:
        for layer in self._layers[:-1]:
            nodes = functional.relu(layer(nodes))
        return self._layers[-1](nodes)

    def _step(self, rate: float) -> None:
        random, options = self._random, self._options
        sizes = np.sqrt([len(e.phi) for e in self._examples])
        example = self._examples[random.choice(len(sizes), p=sizes / sizes.sum())]
        example = _sector(example, options.points, random)
        if not len(example.inner):
            return
        nodes, _ = augmented(example.nodes, np.zeros((0, N_EDGE_FEATURES), np.float32), random)
        if random.random() < _WITHOUT_CLUSTERS:
            nodes[:, CLUSTER_FEATURES] = 0
        place = self._embed(torch.from_numpy(nodes))
        chosen = random.permutation(len(example.inner))[: options.anchors]
        inner, outer = example.inner[chosen], example.outer[chosen]
        anchors = np.where(random.random(len(chosen)) < _HALF, inner, outer)
        near, far = _hard_pairs(place.detach().numpy(), example, anchors, options.neighbours)
        loss = options.true_weight * (place[inner] - place[outer]).square().sum(1).mean()
        if len(near):
            away = ((place[near] - place[far]).square().sum(1) + 1e-12).sqrt()
            loss = loss + functional.relu(_MARGIN - away).square().mean()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def _places(self, example: EmbeddingExample, *, has_clusters: bool) -> np.ndarray:
        nodes = example.nodes.copy()
        if not has_clusters:
            nodes[:, CLUSTER_FEATURES] = 0
        with torch.no_grad():
            return self._embed(torch.from_numpy(nodes)).numpy().astype(np.float64)

    def _distances(self, *, has_clusters: bool = True) -> np.ndarray:
        """Return the distances of wanted edges in validation."""
        found = []
        for example in self._validation:
            place = self._places(example, has_clusters=has_clusters)
            inner, outer = example.inner[example.is_wanted], example.outer[example.is_wanted]
            found.append(np.linalg.norm(place[inner] - place[outer], axis=1))
        return np.concatenate(found)

    def _radius(self) -> float:
        """Return the radius that keeps enough of the wanted edges, with clusters and without."""
        found = [self._distances(has_clusters=has_clusters) for has_clusters in (True, False)]
        return max(float(np.quantile(x, self._options.efficiency)) for x in found)

    def _measure(self) -> None:
        """Add a point to the curve: pairs of a spacepoint within the radius."""
        radius = self._radius()
        point = {"seconds": round(self.seconds, 1), "steps": float(self.steps)}
        for name, has_clusters in (("edges", True), ("edges_without_clusters", False)):
            n_pairs = n_points = 0.0
            for example in self._validation:
                place = self._places(example, has_clusters=has_clusters)
                rows = self._random.permutation(len(place))[:_MOST_MEASURED]
                near = cKDTree(place, _TREE_LEAF).query_ball_point(place[rows], radius, return_length=True)
                n_pairs += 0.5 * float(np.sum(near - 1)) * len(place) / max(len(rows), 1)
                n_points += len(place)
            point[name] = n_pairs / max(n_points, 1)
        self.curve.append(point)
        kept, n, n_without = self._options.efficiency, point["edges"], point["edges_without_clusters"]
        self._report(
            f"embedding: {point['seconds']:.0f} s, {self.steps} steps; pairs of a spacepoint for {kept:.1%} of the "
            f"wanted edges: {n:.2f}, without clusters {n_without:.2f}"
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("first", "second", "third")
        found: dict[str, np.ndarray] = {}
        for name, layer in zip(names, self._layers, strict=False):
            found[f"embedding.{name}"] = layer.weight.detach().numpy().T.copy()
            found[f"embedding.{name}_bias"] = layer.bias.detach().numpy().copy()
        # Distances stay as they are when the space is turned; the search is over the first dimensions.
        place = np.concatenate([self._places(e, has_clusters=True) for e in self._validation])
        centre, scale = place.mean(axis=0), 1 / self._radius()
        _, _, axes = np.linalg.svd(np.cov((place - centre).T))
        last = self._layers[-1]
        weight, bias = last.weight.detach().numpy().T.astype(np.float64), last.bias.detach().numpy()
        found["embedding.out"] = (weight @ axes.T * scale).astype(np.float32)
        found["embedding.out_bias"] = ((bias - centre) @ axes.T * scale).astype(np.float32)
        return found

    def _save(self) -> None:
        state = {
            "layers": self._layers.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._random.bit_generator.state,
            "seconds": self.seconds,
            "steps": self.steps,
            "curve": self.curve,
        }
        beside = self._checkpoint.with_name(self._checkpoint.name + ".new")
        torch.save(state, beside)
        beside.replace(self._checkpoint)

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self._layers.load_state_dict(state["layers"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._random.bit_generator.state = state["random"]
        self.seconds, self.steps, self.curve = state["seconds"], state["steps"], state["curve"]
        self._report(f"goes on from {self._checkpoint}: {self.steps} steps of the embedding")


def _hard_pairs(
    place: np.ndarray, example: EmbeddingExample, anchors: np.ndarray, n_neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of points that are nearer than those of two particles should be.

    Those of one layer count, too: they would be no edges, but are in the way where neighbours are limited.
    """
    _, found = cKDTree(place, _TREE_LEAF).query(place[anchors], k=n_neighbours, distance_upper_bound=_MARGIN)
    near, far = np.repeat(anchors, n_neighbours), found.ravel()
    is_found = far < len(place)
    near, far = near[is_found], far[is_found]
    is_same = (example.owner[near] == example.owner[far]) & (example.owner[near] >= 0)
    is_pair = ~is_same & (near != far)
    return near[is_pair], far[is_pair]
