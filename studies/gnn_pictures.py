"""Draw the pictures of docs/gnn.md: efficiencies of both finders, the training, and the graph after each step.

Usage: python -m studies.gnn_pictures --evaluation out/gnn30.json --sample DIR [--weights odd] [--output docs/pictures]

The evaluation is what `traccc-py gnn evaluate --json` wrote; the sample is a folder of simulated events, such as that
which the same command leaves in its `--samples`. The graph is that of the sample's first event.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from traccc_py import TrackingChain
from traccc_py.config import GraphConfig
from traccc_py.files import write_files
from traccc_py.gnn.weights import Weights, read_weights
from traccc_py.kernels.gnn.segmentation import find_paths
from traccc_py.performance.statistics import wilson_interval
from traccc_py.training.evaluation import score_graph
from traccc_py.training.graphs import EventGraph
from traccc_py.training.samples import read_labelled

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
_COLOURS = {"seeds": "#4477aa", "gnn": "#ee6677"}
_TRUE, _FALSE = "#228833", "#bbbbbb"
_SECTOR = (0.2, 0.6)  # of phi, that is drawn [rad]
_LABELS = {"pt": "pT [GeV]", "eta": "eta"}


def _figure(n_panels: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, n_panels, squeeze=False)[0]


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    write_files({path: buffer.getvalue()})
    print(path)


def draw_efficiencies(evaluation: dict[str, Any], path: Path) -> None:
    """Draw the efficiencies of both finders versus pT and eta."""
    figure, panels = _figure(2, 11, 4)
    for panel, variable in zip(panels, ("pt", "eta"), strict=True):
        for shift, row in zip((0.42, 0.58), evaluation["tracks"], strict=True):
            table = row["versus"][variable]
            edges, n, found = (np.array(table[name], float) for name in ("edges", "particles", "found"))
            used = n > 0
            low, high = wilson_interval(found[used], n[used])
            rate = found[used] / n[used]
            place = (edges[:-1] + shift * np.diff(edges))[used]
            bars = 100 * np.maximum([rate - low, high - rate], 0)
            colour = _COLOURS[row["finder"]]
            panel.errorbar(place, 100 * rate, bars, fmt="o", markersize=4, color=colour, label=row["finder"])
        panel.set(xlabel=_LABELS[variable], ylabel="particles found [%]", ylim=(None, 101))
        panel.legend(loc="lower center", ncols=2)
    panels[0].set_xscale("log")
    panels[0].set_xticks([1, 2, 5, 10, 30], ["1", "2", "5", "10", "30"], minor=False)
    panels[0].minorticks_off()
    figure.suptitle(f"top quark pairs, {evaluation['pileup']} interactions, {evaluation['events']} events")
    _save(figure, path)


def _curve(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points of a training's curve, behind those of the one that it goes on from."""
    before = _curve(facts["start"]) if "start" in facts else []
    begin = before[-1]["seconds"] if before else 0.0
    return before + [point | {"seconds": begin + point["seconds"]} for point in facts["progress"]["curve"]]


def draw_training(weights: Weights, path: Path) -> None:
    """Draw how edge efficiency and purity grew."""
    curve = _curve(weights.facts)
    figure, panels = _figure(2, 11, 4)
    minutes = [point["seconds"] / 60 for point in curve]
    for panel, name in zip(panels, ("efficiency", "purity"), strict=True):
        for k, cut in enumerate((0.1, 0.3, 0.5)):
            panel.plot(minutes, [100 * point[name][k] for point in curve], "o-", markersize=3, label=f"score > {cut}")
        panel.set(xlabel="processor time of the network's training [min]", ylabel=f"{name} of edges [%]")
        panel.legend(loc="lower right")
    _save(figure, path)


def _steps(
    chain: TrackingChain, weights: Weights, folder: Path
) -> tuple[EventGraph, np.ndarray, dict[str, np.ndarray]]:
    """Return the graph of an event, which of its edges are true, and which are left after each step."""
    config, event = GraphConfig(), read_labelled(folder, chain, 0)
    steps = score_graph(chain.detector, weights, event, config)
    graph, is_true, is_kept, is_link = steps.graph, steps.labelled.is_true, steps.is_kept, steps.is_link
    ws, points = steps.maker.workspace, steps.maker.last[0]
    lists = find_paths(ws, points, steps.kept, steps.scored, config.edge_cut, only_best=False)
    offsets = lists.offsets[: ws.size(ws.extent("point_lists")) + 1]
    follower = np.full(len(event.spacepoints), -1)
    spacepoint = lists.spacepoint[: offsets[-1]]
    has_next = np.ones(len(spacepoint), bool)
    has_next[offsets[1:] - 1] = False
    rows = np.flatnonzero(has_next)
    follower[spacepoint[rows]] = spacepoint[rows + 1]
    in_path = follower[graph.points.spacepoint[graph.inner]] == graph.points.spacepoint[graph.outer]
    return (
        graph,
        is_true,
        {
            "graph": np.ones(len(graph.inner), bool),
            "filter": is_kept,
            "network": is_link,
            "candidates": in_path & is_link,
        },
    )


def draw_graph(chain: TrackingChain, weights: Weights, folder: Path, path: Path) -> None:
    """Draw the edges of a sector of an event after each step, in r and z."""
    from matplotlib.collections import LineCollection

    graph, is_true, steps = _steps(chain, weights, folder)
    p = graph.points
    phi = p.phi[graph.inner]
    is_drawn = (phi > _SECTOR[0]) & (phi < _SECTOR[1])
    figure, panels = _figure(len(steps), 15, 4)
    for panel, (name, chosen) in zip(panels, steps.items(), strict=True):
        for truth, colour in ((False, _FALSE), (True, _TRUE)):
            rows = np.flatnonzero(chosen & is_drawn & (is_true == truth))
            ends = [np.stack([p.z[end[rows]], p.r[end[rows]]], axis=1) for end in (graph.inner, graph.outer)]
            panel.add_collection(LineCollection(list(np.stack(ends, axis=1)), colors=colour, linewidths=0.6))
        n = np.count_nonzero(chosen & is_drawn)
        panel.set(xlim=(-1600, 1600), ylim=(0, 720), xlabel="z [mm]", title=f"{name}: {n} edges")
    panels[0].set_ylabel("r [mm]")
    figure.suptitle(f"phi = {_SECTOR[0]} to {_SECTOR[1]} of one event: true edges green, others grey")
    _save(figure, path)


def main(
    evaluation: Annotated[Path, typer.Option(help="What gnn evaluate --json wrote.")],
    sample: Annotated[Path, typer.Option(help="Folder of simulated events.")],
    weights: Annotated[str, typer.Option(help="Of the network.")] = "odd",
    output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = PICTURES,
) -> None:
    """Draw the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    chain, learned = TrackingChain("odd", device="cpu", threads=1), read_weights(weights)
    draw_efficiencies(json.loads(evaluation.read_text(encoding="utf-8")), output / "gnn_efficiency.png")
    draw_training(learned, output / "gnn_training.png")
    draw_graph(chain, learned, sample, output / "gnn_graph.png")


if __name__ == "__main__":
    typer.run(main)
