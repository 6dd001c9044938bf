"""The training: windows of the layer map, then the filter of edges, then the interaction network.

It can be stopped at any time and goes on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from traccc_py.training.networks import EdgeFilter, InteractionNetwork, arrays_of, load_arrays
from traccc_py.training.training_graphs import LabelledGraph, augmented, cropped, filtered

__all__ = ["CurvePoint", "Progress", "Trainer", "TrainingOptions"]

_CHECKPOINT_EVERY = 120.0  # [s] of processor time
_WARM_UP = 50  # steps
_LEAST_RATE = 0.005  # of the largest one
_CUTS = (0.1, 0.3, 0.5)  # of scores that the curve is about
_CHUNK = 200_000  # edges whose logits are computed at a time
_MOST_GRADIENT = 1.0
_DENSE_POWER = 0.5
_START_RATE = 0.5  # of the largest one, for a network that has learned before


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How long and how the networks learn."""

    minutes: float  # of processor time, for both networks
    seed: int = 1
    filter_part: float = 0.15  # of the time, for the filter
    filter_rate: float = 3e-3  # largest learning rate
    filter_batch: int = 12_288  # edges
    filter_efficiency: float = 0.996  # of wanted edges that the filter must keep
    network_rate: float = 2e-3
    most_edges: int = 80_000  # of a graph in a step: those with more are cropped to a sector
    true_weight: float = 1.0  # that true edges count more than others, in the network
    filter_true_weight: float = 4.0
    embedding_part: float = 0.2  # of the time, for the embedding and its filter
    learn: str = "all"  # or "embedding": it and its filter alone


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good the network was at a time."""

    seconds: float  # of processor time
    steps: int
    efficiency: tuple[float, ...]  # of wanted edges, at the cuts 0.1, 0.3, 0.5
    purity: tuple[float, ...]


@dataclass(slots=True)
class Progress:
    """What a training has done so far."""

    filter_seconds: float = 0.0
    filter_steps: int = 0
    filter_logit: float | None = None
    filter_facts: dict[str, float] = field(default_factory=dict)
    network_seconds: float = 0.0
    network_steps: int = 0
    curve: list[CurvePoint] = field(default_factory=list)


class Trainer:
    """Trains both networks.

    Parameters
    ----------
    graphs : sequence of LabelledGraph
        To learn from.
    validation : sequence of LabelledGraph
        To measure with.
    options : TrainingOptions
        How.
    checkpoint : path
        Where the state is kept; if the file is there, training goes on from it.
    report : callable
        Called with lines for the user.
    start : dict, optional
        Weights by name to go on from: the filter stays, the network learns.
    """

    def __init__(
        self,
        graphs: Sequence[LabelledGraph],
        validation: Sequence[LabelledGraph],
        options: TrainingOptions,
        checkpoint: Path,
        report: Callable[[str], None],
        start: dict[str, np.ndarray] | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        self._graphs, self._validation = graphs, validation
        self._options, self._checkpoint, self._report = options, checkpoint, report
        self._filter, self._network = (EdgeFilter(), InteractionNetwork()) if start is None else load_arrays(start)
        self._rate = 1.0 if start is None else _START_RATE
        self._filter_steps = torch.optim.Adam(self._filter.parameters(), options.filter_rate)
        self._network_steps = torch.optim.Adam(self._network.parameters(), options.network_rate)
        self._random = np.random.default_rng(options.seed)
        self.progress = Progress(filter_logit=None if start is None else 0.0)  # where its score is 0.5
        if checkpoint.exists():
            self._resume()

    def run_filter(self) -> dict[str, np.ndarray]:
        """Train the filter alone, all of the time; return its weights by name."""
        if self.progress.filter_logit is None:
            self._train_filter(60 * self._options.minutes)
        assert self.progress.filter_logit is not None
        found = arrays_of(self._filter, self._network, self.progress.filter_logit)
        return {name: values for name, values in found.items() if name.startswith("filter.")}

    def run(self) -> dict[str, np.ndarray]:
        """Train to the end of the time; return the weights by name."""
        options, done = self._options, self.progress
        if done.filter_logit is None:
            self._train_filter(60 * options.minutes * options.filter_part)
        kept = [filtered(g, self._passes(g)) for g in self._graphs]
        self._train_network(kept, 60 * options.minutes - done.filter_seconds)
        assert done.filter_logit is not None
        return arrays_of(self._filter, self._network, done.filter_logit)

    def _passes(self, graph: LabelledGraph) -> np.ndarray:
        assert self.progress.filter_logit is not None
        return self._filter_logits(graph) > self.progress.filter_logit

    def _filter_logits(self, graph: LabelledGraph) -> np.ndarray:
        parts = []
        with torch.no_grad():
            x = torch.from_numpy(graph.nodes)
            for k in range(0, graph.ends.shape[1], _CHUNK):
                ends, e = (torch.from_numpy(a) for a in (graph.ends[:, k : k + _CHUNK], graph.features[k : k + _CHUNK]))
                parts.append(self._filter(x, ends, e).numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _train_filter(self, seconds: float) -> None:
        done, options = self.progress, self._options
        begin, saved = time.process_time() - done.filter_seconds, time.process_time()
        while (used := time.process_time() - begin) < seconds:
            done.filter_seconds = used
            graph = self._graphs[int(self._random.integers(len(self._graphs)))]
            n = graph.ends.shape[1]
            rows = self._random.integers(n, size=min(options.filter_batch, n))
            nodes, ends = np.unique(graph.ends[:, rows], return_inverse=True)
            of_edges = {name: getattr(graph, name)[rows] for name in LabelledGraph._fields[3:7]}
            graph = graph._replace(nodes=graph.nodes[nodes], ends=ends.reshape(2, -1), **of_edges)
            rate = options.filter_rate * max(0.02, 1 - used / seconds)
            self._step(self._filter, self._filter_steps, graph, rate, options.filter_true_weight)
            done.filter_steps += 1
            if time.process_time() - saved > _CHECKPOINT_EVERY:
                self._save()
                saved = time.process_time()
        self._choose_filter_cut()
        self._save()

    def _choose_filter_cut(self) -> None:
        done = self.progress
        logits = [self._filter_logits(g) for g in self._validation]
        wanted = np.concatenate([x[g.is_wanted] for x, g in zip(logits, self._validation, strict=True)])
        done.filter_logit = float(np.quantile(wanted, 1 - self._options.filter_efficiency))
        n = sum(g.n_wanted for g in self._validation)
        done.filter_facts = {
            "graph_efficiency": len(wanted) / max(n, 1),
            "filter_efficiency": float(np.count_nonzero(wanted > done.filter_logit)) / max(n, 1),
        }
        self._report(f"filter: {done.filter_steps} steps, {done.filter_facts}")
        for g, x in zip(self._validation, logits, strict=True):
            kept = np.count_nonzero(x > done.filter_logit)
            self._report(
                f"  {g.n_spacepoints} spacepoints: edges of a spacepoint {len(x) / g.n_spacepoints:.2f} -> "
                f"{kept / g.n_spacepoints:.2f}; of wanted {np.mean(x[g.is_wanted] > done.filter_logit):.4f}"
            )

    def _train_network(self, kept: Sequence[LabelledGraph], seconds: float) -> None:
        done, options = self.progress, self._options
        begin, saved = time.process_time() - done.network_seconds, time.process_time()
        # A dense event has many sectors, and is drawn more often; but most of the steps are for others.
        draws = np.array([max(1.0, g.ends.shape[1] / options.most_edges) for g in kept]) ** _DENSE_POWER
        draws /= draws.sum()
        while (used := time.process_time() - begin) < seconds:
            done.network_seconds = used
            graph = cropped(kept[self._random.choice(len(kept), p=draws)], options.most_edges, self._random)
            wave = 0.5 * (1 + math.cos(math.pi * used / seconds)) + _LEAST_RATE
            rate = self._rate * options.network_rate * min(1.0, (done.network_steps + 1) / _WARM_UP) * wave
            self._step(self._network, self._network_steps, graph, rate, options.true_weight)
            done.network_steps += 1
            if time.process_time() - saved > _CHECKPOINT_EVERY:
                self._measure()
                self._save()
                begin += time.process_time() - begin - done.network_seconds  # measuring does not count
                saved = time.process_time()
        done.network_seconds = max(done.network_seconds, seconds)
        self._measure()
        self._save()

    def _step(self, network: Any, optimizer: Any, graph: LabelledGraph, rate: float, true_weight: float) -> None:
        if not graph.ends.shape[1]:
            return
        for group in optimizer.param_groups:
            group["lr"] = rate
        nodes, features = augmented(graph.nodes, graph.features, self._random)
        logits = network(*(torch.from_numpy(a) for a in (nodes, graph.ends, features)))
        labels = torch.from_numpy(graph.is_true.astype(np.float32))
        weight = torch.from_numpy(graph.weight * (1 + np.float32(true_weight) * graph.is_true))
        loss = binary_cross_entropy_with_logits(logits, labels, weight=weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MOST_GRADIENT)
        optimizer.step()

    def _measure(self) -> None:
        """Add a point to the curve."""
        n_kept, n_true, n_false = np.zeros(len(_CUTS)), np.zeros(len(_CUTS)), np.zeros(len(_CUTS))
        self._network.eval()
        for graph in self._validation:
            g = filtered(graph, self._passes(graph))
            with torch.no_grad():
                logits = self._network(*(torch.from_numpy(a) for a in (g.nodes, g.ends, g.features))).numpy()
            for k, cut in enumerate(_CUTS):
                passes = logits > math.log(cut / (1 - cut))
                n_kept[k] += np.count_nonzero(passes & g.is_wanted)
                n_true[k] += np.count_nonzero(passes & g.is_true)
                n_false[k] += np.count_nonzero(passes & ~g.is_true & (g.weight > 0))
        self._network.train()
        n = max(sum(g.n_wanted for g in self._validation), 1)
        done = self.progress
        efficiency, purity = n_kept / n, n_true / np.maximum(n_true + n_false, 1)
        point = CurvePoint(
            round(done.network_seconds, 1), done.network_steps, tuple(efficiency.tolist()), tuple(purity.tolist())
        )
        done.curve.append(point)
        shown = " | ".join(f"{c}: {e:.4f} / {p:.4f}" for c, e, p in zip(_CUTS, efficiency, purity, strict=True))
        self._report(f"network: {point.seconds:.0f} s, {point.steps} steps; efficiency / purity at cuts {shown}")

    def _save(self) -> None:
        state = {
            "filter": self._filter.state_dict(),
            "network": self._network.state_dict(),
            "filter_steps": self._filter_steps.state_dict(),
            "network_steps": self._network_steps.state_dict(),
            "random": self._random.bit_generator.state,
            "progress": dataclasses.asdict(self.progress),
        }
        beside = self._checkpoint.with_name(self._checkpoint.name + ".new")
        torch.save(state, beside)
        beside.replace(self._checkpoint)

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self._filter.load_state_dict(state["filter"])
        self._network.load_state_dict(state["network"])
        self._filter_steps.load_state_dict(state["filter_steps"])
        self._network_steps.load_state_dict(state["network_steps"])
        self._random.bit_generator.state = state["random"]
        saved = dict(state["progress"])
        saved["curve"] = [
            CurvePoint(p["seconds"], p["steps"], tuple(p["efficiency"]), tuple(p["purity"])) for p in saved["curve"]
        ]
        self.progress = Progress(**saved)
        self._report(
            f"goes on from {self._checkpoint}: {self.progress.filter_steps} and {self.progress.network_steps} steps"
        )
