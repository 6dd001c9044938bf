"""`traccc-py gnn train`, `evaluate` and `export`: the finder's weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import check_directory, check_file
from traccc_py.cli.options import Option, command, consoles, options_of
from traccc_py.config import ChainConfig, FinderConfig, GraphConfig
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError
from traccc_py.extras import optional_module
from traccc_py.settings import Choice, Count, Positive, PositiveCount, Settings

__all__ = ["evaluate", "export", "train"]

_PER_CENT = 100


@dataclass(frozen=True, slots=True)
class _TrainOptions(Settings):
    #: file for the weights
    output: Annotated[Path | None, Option("--output", "-o", metavar="FILE")] = None
    #: folder where simulated events are, or are put; by default beside the weights
    samples: Annotated[Path | None, Option(metavar="DIR")] = None
    events: PositiveCount = 60  #: simulated events to learn from, of 20 to 200 interactions
    minutes: Positive = 20.0  #: processor time of the training, the simulation not included
    seed: PositiveCount = 1  #: of events and networks
    #: weights to go on from: a file, or odd; their layer map and filter stay
    start: Annotated[str | None, Option(metavar="WEIGHTS")] = None
    #: "embedding": the embedding and its filter alone, for the weights of --start
    learn: Annotated[str, Choice(("all", "embedding"))] = "all"


@command(detector=DETECTOR, options=options_of(_TrainOptions))
def train(detector: DetectorOptions, options: _TrainOptions) -> None:
    """Train the graph neural network for a detector; go on where an interrupted training stopped.

    Events of top quark pairs with pile-up are simulated where they are missing.
    """
    if options.output is None:
        msg = "no file for the weights: name one with --output FILE"
        raise ConfigError(msg)
    if options.output.exists():
        msg = f"--output {options.output}: is there already; choose another name, or remove it"
        raise ConfigError(msg)
    check_file(options.output, "--output")
    samples = options.samples or options.output.with_name(options.output.name + ".samples")
    check_directory(samples, "--samples")
    optional_module("torch", "training", "the training")
    from traccc_py.gnn.weights import read_weights, write_weights
    from traccc_py.training.metric import embedding_checkpoints
    from traccc_py.training.session import train_weights
    from traccc_py.training.train import TrainingOptions

    console, log = consoles()
    checkpoint = options.output.with_name(options.output.name + ".checkpoint")
    chosen = TrainingOptions(options.minutes, options.seed, learn=options.learn)
    start = None if options.start is None else read_weights(options.start)
    weights = train_weights(detector.load(), samples, options.events, chosen, checkpoint, log.print, start)
    write_weights(options.output, weights)
    for path in (checkpoint, *embedding_checkpoints(checkpoint)):
        path.unlink(missing_ok=True)
    console.print(f"weights: {options.output}; traccc-py run EVENTS --finder gnn --set finder.weights={options.output}")


@dataclass(frozen=True, slots=True)
class _EvaluateOptions(Settings):
    weights: Annotated[str, Option(metavar="[WEIGHTS]", is_argument=True)] = "odd"  #: a file, or odd
    pileup: Count = 30  #: mean number of interactions besides the hard one
    events: PositiveCount = 10  #: simulated events
    #: folder where simulated events are, or are put
    samples: Annotated[Path, Option(metavar="DIR")] = Path("gnn-samples")
    seed: Count = 1  #: of the events; no training learns from them, whatever it is
    graph: Annotated[str, Choice(("layer_map", "metric"))] = "layer_map"  #: what makes the graph
    #: write all numbers
    json: Annotated[Path | None, Option(metavar="FILE")] = None


@command(detector=DETECTOR, options=options_of(_EvaluateOptions))
def evaluate(detector: DetectorOptions, options: _EvaluateOptions) -> None:
    """Count the edges that each step leaves, particles that labels find, and those and fakes of both finders."""
    check_file(options.json, "--json")
    check_directory(options.samples, "--samples")
    from traccc_py.device.cpu.executor import CpuDevice
    from traccc_py.gnn.weights import check_constructor, read_weights
    from traccc_py.pipeline.labelling import SpacepointLabeller
    from traccc_py.training import evaluation
    from traccc_py.training.sampling import HELD_OUT_SEED, ensure_sample

    console, log = consoles()
    weights, made = read_weights(options.weights), detector.load()
    seed = HELD_OUT_SEED + options.seed
    folder = ensure_sample(options.samples, made, options.pileup, options.events, seed, log.print)
    check_constructor(weights, options.graph, options.weights)
    finder = FinderConfig(method="gnn", weights=options.weights)
    config = ChainConfig(finder=finder, graph=GraphConfig(constructor=options.graph))
    counts, labels = evaluation.EdgeCounts(), evaluation.LabelCounts()
    labeller = SpacepointLabeller(made, config, CpuDevice(1))
    for event in evaluation.read_events(folder, made, options.events):
        evaluation.evaluate_edges(made, weights, event, config.graph, counts)
        labels += evaluation.evaluate_labels(labeller, event)
    chains = (ChainConfig(), config)
    tracks = [evaluation.evaluate_tracks(made, folder, options.events, chosen, log.print) for chosen in chains]
    if counts.n_limited:
        log.print(
            f"{counts.n_limited} of {counts.n_spacepoints} spacepoints have more than graph.max_neighbours = "
            f"{config.graph.max_neighbours} neighbours: the nearest count"
        )
    for table in (_edge_table(counts.rows()), _label_table(labels), _track_table(tracks), _pull_table(tracks)):
        console.print(table)
    if options.json is not None:
        numbers = {"weights": options.weights, "pileup": options.pileup, "seed": seed, "events": options.events}
        numbers |= {"graph": options.graph, "limited_spacepoints": counts.n_limited}
        numbers |= {"edges": counts.rows(), "labels": labels._asdict(), "tracks": tracks}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table


def _edge_table(rows: list[dict[str, Any]]) -> Any:
    table = _table("edges", "after", "of a spacepoint", "efficiency", "purity")
    for row in rows:
        parts = (f"{_PER_CENT * row[name]:.2f} %" for name in ("efficiency", "purity"))
        table.add_row(row["step"], f"{row['edges_per_spacepoint']:.2f}", *parts)
    return table


def _label_table(counts: Any) -> Any:
    table = _table("labels of positions alone", "particles with a candidate", "candidates", "impure")
    found = _PER_CENT * counts.n_found / max(counts.n_particles, 1)
    impure = _PER_CENT * counts.n_impure / max(counts.n_candidates, 1)
    particles = f"{found:.2f} % ({counts.n_found} of {counts.n_particles})"
    table.add_row(particles, str(counts.n_candidates), f"{impure:.2f} %")
    return table


def _track_table(rows: list[dict[str, Any]]) -> Any:
    table = _table(
        "tracks", "finder", "particles found", "fakes a track", "duplicates", "fits", "tracks an event", "ms an event"
    )
    for row in rows:
        found = f"{_PER_CENT * row['efficiency']:.2f} % ({row['found']} of {row['particles']})"
        names = ("fakes_per_track", "duplicates_per_track", "fits_that_succeed")
        parts = (f"{_PER_CENT * row[n]:.2f} %" for n in names)
        milliseconds = sum(row["milliseconds"].values())
        table.add_row(row["finder"], found, *parts, f"{row['tracks_per_event']:.0f}", f"{milliseconds:.0f}")
    return table


def _pull_table(rows: list[dict[str, Any]]) -> Any:
    names = tuple(dict.fromkeys(name for row in rows for name in row["pulls"]))
    table = _table("widths of pulls at the beam line", "finder", *names)
    for row in rows:
        fits = (row["pulls"].get(name) for name in names)
        table.add_row(row["finder"], *(f"{f['sigma']:.3f} +- {f['sigma_error']:.3f}" if f else "" for f in fits))
    return table


@dataclass(frozen=True, slots=True)
class _ExportOptions(Settings):
    weights: Annotated[str, Option(metavar="[WEIGHTS]", is_argument=True)] = "odd"  #: a file, or odd
    #: folder for filter.onnx and gnn.onnx
    onnx: Annotated[Path, Option(metavar="DIR")] = Path("onnx")


@command(options=options_of(_ExportOptions))
def export(options: _ExportOptions) -> None:
    """Write both networks as ONNX files."""
    check_directory(options.onnx, "--onnx")
    from traccc_py.gnn.onnx_export import export_onnx
    from traccc_py.gnn.weights import read_weights

    for path in export_onnx(read_weights(options.weights), options.onnx):
        typer.echo(str(path))
