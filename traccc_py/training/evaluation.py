"""How good the finder is: edges after each step, and tracks of both finders, in events it has not learned from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, GraphConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.edm import N_PARAMETERS, EventResult
from traccc_py.edm.parameters import FEWEST_SPACEPOINTS
from traccc_py.geometry import Detector
from traccc_py.gnn.weights import Weights, finder_arrays
from traccc_py.kernels.gnn.metric_graph import LIMITED_POINTS
from traccc_py.kernels.gnn.networks import filter_edges, score_edges
from traccc_py.performance.definitions import TRACCC, collision_selections
from traccc_py.performance.match import match
from traccc_py.performance.matching import Counts, count_matches
from traccc_py.performance.residuals import PERIGEE_NAMES
from traccc_py.performance.selection import select_particles
from traccc_py.performance.statistics import fit_gaussian
from traccc_py.performance.truth import simulated_truth
from traccc_py.pipeline.features import features_of
from traccc_py.pipeline.labelling import SpacepointLabeller
from traccc_py.simulation.events import read_event
from traccc_py.training.graphs import EventGraph, GraphMaker
from traccc_py.training.samples import LabelledEvent, read_labelled
from traccc_py.training.training_graphs import WANTED_ETA, WANTED_PT, WANTED_RADIUS, label_graph, point_edges

__all__ = [
    "EdgeCounts",
    "LabelCounts",
    "ScoredGraph",
    "evaluate_edges",
    "evaluate_labels",
    "evaluate_tracks",
    "score_graph",
]

_RULER = "central"  # of the selections of particles
#: Bins in which efficiencies are given: pT [GeV] and eta.
_BINS = {"pt": np.array([1, 1.25, 1.5, 2, 3, 5, 10, 30], float), "eta": np.linspace(-2.5, 2.5, 11)}


@dataclasses.dataclass(slots=True)
class EdgeCounts:
    """Edges after each step, summed over events."""

    n_spacepoints: int = 0
    n_limited: int = 0  # spacepoints with more neighbours in an embedding than count
    n_wanted: int = 0  # true edges of prompt particles with pT > 1 GeV
    n_edges: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])  # graph, filter, network
    n_true: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])
    n_found: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])  # of the wanted ones
    n_false: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])  # those that don't count are left out

    def rows(self) -> list[dict[str, float | str]]:
        """Return a row for each step."""
        return [
            {
                "step": step,
                "edges_per_spacepoint": self.n_edges[k] / max(self.n_spacepoints, 1),
                "efficiency": self.n_found[k] / max(self.n_wanted, 1),
                "purity": self.n_true[k] / max(self.n_true[k] + self.n_false[k], 1),
            }
            for k, step in enumerate(("graph", "filter", "network"))
        ]


class ScoredGraph(NamedTuple):
    """The graph of an event, and what its networks say."""

    graph: EventGraph
    labelled: Any  # what is true, see `label_graph`
    is_kept: np.ndarray  # (n_edges,) bool, left by the filter
    is_link: np.ndarray  # (n_edges,) bool, left by both networks
    maker: GraphMaker  # holds what follows, on the device, until its next graph
    kept: Any
    scored: Any


def score_graph(detector: Detector, weights: Weights, event: LabelledEvent, config: GraphConfig) -> ScoredGraph:
    """Make the graph of an event and let both networks score its edges.

    Parameters
    ----------
    detector : Detector
        The weights' detector.
    weights : Weights
        Map and networks.
    event : LabelledEvent
        An event.
    config : GraphConfig
        Cuts.
    """
    arrays = finder_arrays(weights, detector.arrays())
    is_metric = config.constructor == "metric"
    maker = GraphMaker(detector, arrays.graph_map, arrays.embedding if is_metric else None, config)
    edge_filter = arrays.embedding_filter if is_metric else arrays.edge_filter
    assert edge_filter is not None
    graph = maker.graph(event.measurements, event.spacepoints)
    labelled = label_graph(event, graph, point_edges(event, graph.points))
    ws = maker.workspace
    points, edges = maker.last
    kept = filter_edges(ws, points, edges, edge_filter, config.filter_cut)
    scored = score_edges(ws, kept, arrays.network)
    n = ws.size(ws.extent("kept_edges"))
    is_kept = ws.array("network.is_kept", ws.extent("graph_edges"), np.int32)[: len(graph.inner)] == 1
    is_link = is_kept.copy()
    is_link[is_kept] = scored.logit[:n] >= math.log(config.edge_cut / (1 - config.edge_cut))
    return ScoredGraph(graph, labelled, is_kept, is_link, maker, kept, scored)


def evaluate_edges(detector: Detector, weights: Weights, event: LabelledEvent, config: Any, counts: EdgeCounts) -> None:
    """Count the edges of an event after each step.

    Parameters
    ----------
    detector : Detector
        The detector.
    weights : Weights
        The finder.
    event : LabelledEvent
        An event.
    config : GraphConfig
        Cuts.
    counts : EdgeCounts
        Added to.
    """
    steps = score_graph(detector, weights, event, config)
    graph, labelled, is_kept, is_link = steps.graph, steps.labelled, steps.is_kept, steps.is_link
    counts.n_spacepoints += labelled.n_spacepoints
    ws = steps.maker.workspace
    counts.n_limited += ws.size(ws.extent(LIMITED_POINTS))
    counts.n_wanted += labelled.n_wanted
    for k, chosen in enumerate((np.ones(len(graph.inner), bool), is_kept, is_link)):
        counts.n_edges[k] += int(np.count_nonzero(chosen))
        counts.n_true[k] += int(np.count_nonzero(chosen & labelled.is_true))
        counts.n_found[k] += int(np.count_nonzero(chosen & labelled.is_wanted))
        counts.n_false[k] += int(np.count_nonzero(chosen & ~labelled.is_true & (labelled.weight > 0)))


class LabelCounts(NamedTuple):
    """Labels of events whose spacepoints came as positions alone."""

    n_particles: int = 0  # prompt, pT > 1 GeV, abs(eta) < 3, with three spacepoints
    n_found: int = 0  # with half of their spacepoints in a candidate that has half of its own from them
    n_candidates: int = 0
    n_impure: int = 0  # candidates without a particle that has half of their spacepoints

    def __add__(self, other: LabelCounts) -> LabelCounts:  # type: ignore[override]
        return LabelCounts(*(a + b for a, b in zip(self, other, strict=True)))


def evaluate_labels(labeller: SpacepointLabeller, event: LabelledEvent) -> LabelCounts:
    """Count the particles that labels of an event's spacepoints find.

    Parameters
    ----------
    labeller : SpacepointLabeller
        The finder.
    event : LabelledEvent
        An event.
    """
    position = np.asarray(event.spacepoints.global_position, np.float64)
    labels = labeller.label(features_of(position))
    size = np.bincount(labels)
    n_candidates, n_particles = int(np.count_nonzero(size > 1)), len(event.pt)
    pairs, n_shared = np.unique(labels[event.link_spacepoint] * n_particles + event.link_particle, return_counts=True)
    label, particle = pairs // max(n_particles, 1), pairs % max(n_particles, 1)
    hits = np.bincount(event.link_particle, minlength=n_particles)
    is_pure = (label < n_candidates) & (2 * n_shared >= size[label])
    found = np.unique(particle[is_pure & (2 * n_shared >= hits[particle])])
    is_wanted = (event.pt > WANTED_PT) & (event.radius < WANTED_RADIUS) & (np.abs(event.eta) < WANTED_ETA)
    is_wanted &= hits >= FEWEST_SPACEPOINTS
    n_impure = n_candidates - len(np.unique(label[is_pure]))
    return LabelCounts(int(is_wanted.sum()), int(is_wanted[found].sum()), n_candidates, n_impure)


def evaluate_tracks(
    detector: Detector, folder: Path, n_events: int, config: ChainConfig, report: Callable[[str], None]
) -> dict[str, Any]:
    """Count found particles and fakes of a chain by the product's ruler.

    Parameters
    ----------
    detector : Detector
        The detector.
    folder : Path
        Simulated events.
    n_events : int
        Number of events [1].
    config : ChainConfig
        With the finder.
    report : callable
        Called with a line for each event.

    Returns
    -------
    dict
        Efficiency, also in bins of pT and eta, fakes and duplicates a track, fits that succeed, pulls at the beam line,
        tracks an event, and milliseconds a stage.
    """
    chain = TrackingChain(detector, config, CpuDevice(1))
    chain.initialize()
    selection = collision_selections()[_RULER]
    counts, n_tracks, n_fitted = Counts(), 0, 0
    times: dict[str, float] = {}
    particles: dict[str, list[np.ndarray]] = {"pt": [], "eta": [], "is_found": []}
    pulls: list[np.ndarray] = []
    for number in range(n_events):
        event = read_event(folder, detector, number)
        result: EventResult = chain.run(event.cells)
        truth = simulated_truth(event)
        found = match(result, truth)
        selected = select_particles(truth, found.links, selection)
        counts += count_matches(found.matches, selected, TRACCC)
        rows = np.flatnonzero(selected)
        particles["pt"].append(truth.particles.pt[rows])
        particles["eta"].append(truth.particles.eta[rows])
        particles["is_found"].append(np.isin(rows, found.particle_index[found.is_matched]))
        residuals = found.perigee_residuals(detector.b_field_z)
        pulls.append(residuals.pull[selected[residuals.particle_index]])
        n_tracks += len(result.tracks)
        n_fitted += int(np.count_nonzero(result.tracks.fit_outcome == 1))
        for stage, milliseconds in result.stage_milliseconds.items():
            times[stage] = times.get(stage, 0.0) + milliseconds / n_events
        report(f"event {number}: {len(result.tracks)} tracks")
    return {
        "finder": config.finder.method,
        "particles": counts.n_particles,
        "found": counts.n_found,
        "efficiency": counts.efficiency,
        "fakes_per_track": counts.fakes_per_group,
        "duplicates_per_track": counts.duplicates_per_group,
        "fits_that_succeed": n_fitted / max(n_tracks, 1),
        "pulls": _pulls(np.concatenate(pulls)),
        "tracks_per_event": n_tracks / n_events,
        "versus": {name: _in_bins(particles, name) for name in _BINS},
        "milliseconds": times,
    }


def _pulls(pull: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the Gaussian of the pulls of each parameter of particles that the ruler selects."""
    known = {name: pull[np.isfinite(pull[:, k]), k] for k, name in enumerate(PERIGEE_NAMES[:N_PARAMETERS])}
    return {name: fit_gaussian(values).as_dict() for name, values in known.items() if len(values)}


def _in_bins(particles: dict[str, list[np.ndarray]], name: str) -> dict[str, list[float]]:
    """Return how many particles there are in bins of a variable, and how many of them are found."""
    values, is_found = (np.concatenate(particles[column]) for column in (name, "is_found"))
    edges = _BINS[name]
    n, n_found = np.histogram(values, edges)[0], np.histogram(values[is_found], edges)[0]
    return {"edges": edges.tolist(), "particles": n.tolist(), "found": n_found.tolist()}


def read_events(folder: Path, detector: Detector, n_events: int) -> list[LabelledEvent]:
    """Return simulated events with truth."""
    chain = TrackingChain(detector, device="cpu", threads=1)
    return [read_labelled(folder, chain, number) for number in range(n_events)]
