"""`traccc-py performance`: tracks, simulated and reconstructed now or read from files, against the truth."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track

from traccc_py.cli.outputs import check_directory, check_file
from traccc_py.cli.performance_samples import evaluate_events, evaluate_samples, read_manifests
from traccc_py.cli.performance_tables import print_performance
from traccc_py.cli.report import versions, write_json
from traccc_py.cli.run import make_chain
from traccc_py.cli.settings import load_config
from traccc_py.data.csv_events import event_files
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.files import write_files
from traccc_py.performance.cluster_pulls import ClusterPulls
from traccc_py.performance.definitions import DEFINITIONS, Definition, TruthSelection, collision_selections
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.plot_style import require_plots
from traccc_py.performance.plots import draw_performance
from traccc_py.performance.report_page import performance_page
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.track_readers import KINDS, check_event_tracks, read_event_tracks, tracks_kind
from traccc_py.performance.truth import read_truth

__all__ = [
    "Evaluation",
    "Gun",
    "TrackInput",
    "evaluate_files",
    "find_inputs",
    "report_performance",
    "run_performance",
    "simulation_selections",
]

_RECONSTRUCTABLE: dict[str, dict[str, Any]] = {"odd": {"min_modules": 7, "min_pixel_layers": 3}}  #: by detector
_OWN_LABEL = "traccc_py"
_SIDES = ("outgoing", "incoming")
_PLOT_FORMATS = ("png", "pdf", "svg")
_DEFAULT_EVENTS = 10  # simulated
_VERTEX_SIGMA = (0.0125, 0.0125, 55.0)  # [mm]
_BELOW_GUN = 0.99  # the cut on pT stays below what the gun shoots


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `traccc-py performance` was asked to compare, and how; options as in its help."""

    definition: str = "traccc"
    matching_ratio: float | None = None
    double_matching: bool = True
    seed_matching_ratio: float | None = None
    require_fit: bool = False
    cuts: Mapping[str, Any] = field(default_factory=dict)  # of TruthSelection
    truth_side: str = "outgoing"
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    events: int | None = None
    samples: Sequence[Path] = ()
    truth: Path | None = None
    tracks: Path | None = None
    tracks_kind: str | None = None
    compare: Sequence[str] = ()
    per_bin: bool = False
    plots: Path | None = None
    plot_format: str = "png"
    report: Path | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("definition", self.definition, tuple(DEFINITIONS)),
            ("truth-side", self.truth_side, _SIDES),
            ("plot-format", self.plot_format, _PLOT_FORMATS),
            ("tracks-kind", self.tracks_kind or KINDS[0], KINDS),
        ):
            if value not in known:
                msg = f"--{option} {value}: expected {', '.join(known)}"
                raise ConfigError(msg)
        has_tracks = self.tracks is not None or bool(self.compare)
        if (self.truth is not None) != has_tracks:
            msg = "--truth and --tracks (or --compare) belong together: give both, or neither to simulate"
            raise InputDataError(msg)
        if self.samples and has_tracks:
            msg = "--sample reconstructs simulated events, --truth and --tracks compare files: give one of both"
            raise InputDataError(msg)

    def make_definition(self) -> Definition:
        """Return the definition with the ratios asked for."""
        ratios = {"matching_ratio": self.matching_ratio, "seed_matching_ratio": self.seed_matching_ratio}
        changes: dict[str, Any] = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        changes |= {"double_matching": self.double_matching, "require_fit": self.require_fit}
        return replace(DEFINITIONS[self.definition], **changes)


class Gun(NamedTuple):
    """What is simulated and how it is reconstructed."""

    n_particles: int
    particle: str
    pt: tuple[float, float]  # [GeV]
    eta: tuple[float, float]
    seed: int
    config: Path | None
    device: str
    threads: int | None


def run_performance(options: Evaluation, gun: Gun, console: Console, log: Console) -> None:
    """Compare, print, draw and write.

    Raises
    ------
    InputDataError, ConfigError, GeometryError, DeviceUnavailableError
        If an input or an option can't be used.
    """
    if options.plots is not None or options.report is not None:
        require_plots()
    for option, path in (("--report", options.report), ("--json", options.json)):
        check_file(path, option)
    if options.plots is not None:
        check_directory(options.plots, "--plots")
    definition = options.make_definition()
    chosen = options.detector.load()
    cuts = dict(options.cuts)
    if options.samples:
        selections = collision_selections(cuts)
    elif options.truth is None:
        cuts.setdefault("min_pt", min(TruthSelection().min_pt, _BELOW_GUN * gun.pt[0]))
        selections = simulation_selections(options.detector.label, cuts)
    else:
        selections = {"selected": TruthSelection(**cuts)}

    def make_summary() -> PerformanceSummary:
        return PerformanceSummary(
            selections,
            float(chosen.arrays().b_z),
            detector_frames(chosen),
            definition,
            outgoing=options.truth_side == _SIDES[0],
        )

    sample: dict[str, Any]
    if options.samples:
        settings = load_config(gun.config, None, options.detector.name)
        manifests = read_manifests(options.samples, chosen, options.events, log)
        chain = make_chain(chosen, settings, gun.device, gun.threads, log)
        results, facts = evaluate_samples(manifests, chain, make_summary, options.events, log)
        sample = {"samples": facts, "config": settings.to_dict()}
    elif options.truth is None:
        results, sample = _simulate(options, gun, chosen, make_summary(), log)
    else:
        inputs = find_inputs(options.tracks, options.compare, options.tracks_kind)
        results = evaluate_files(options.truth, inputs, make_summary, options.events, log)
        sample = {"truth": str(options.truth), "tracks": {i.label: [str(i.directory), i.kind] for i in inputs}}
    detector = {"digitization": chosen.digitization.name, "field": f"{chosen.b_field_z:g} T"}
    facts = {"detector": options.detector.label, "detector_facts": detector | {"fingerprint": chosen.fingerprint}}
    report_performance(results, console, log, options, facts | sample)


def _simulate(
    options: Evaluation, gun: Gun, detector: Any, summary: PerformanceSummary, log: Console
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Simulate and reconstruct; return the numbers and the facts of the sample."""
    from traccc_py.simulation.events import simulate_events
    from traccc_py.simulation.generators.gun import ParticleGunConfig

    settings = load_config(gun.config, gun.particle, options.detector.name)
    shot = ParticleGunConfig(
        n_particles=gun.n_particles, particle=gun.particle, momentum=gun.pt, eta=gun.eta, vertex_sigma=_VERTEX_SIGMA
    )
    chain = make_chain(detector, settings, gun.device, gun.threads, log)
    n_events = options.events or _DEFAULT_EVENTS
    clusters = ClusterPulls(detector, settings.clusterization)
    events = simulate_events(detector, shot, gun.seed, n_events)
    results = {_OWN_LABEL: evaluate_events(chain, summary, events, n_events, log, clusters)}
    facts = {"gun": repr(shot), "n_events": n_events, "seed": gun.seed, "config": settings.to_dict()}
    return results, facts


class TrackInput(NamedTuple):
    """A folder of tracks."""

    label: str
    directory: Path
    kind: str


def simulation_selections(detector: str, cuts: Mapping[str, Any]) -> dict[str, TruthSelection]:
    """Return which simulated particles count: those that left enough hits to be found, and all; with the cuts given."""
    return {
        "reconstructable": TruthSelection(**{**_RECONSTRUCTABLE.get(detector, {}), **cuts}),
        "all": TruthSelection(**{"max_eta": math.inf, "min_measurements": 0, **cuts}),
    }


def find_inputs(tracks: Path | None, compare: Sequence[str], kind: str | None) -> list[TrackInput]:
    """Return the folders of tracks that options name.

    Parameters
    ----------
    tracks : Path, optional
        --tracks.
    compare : sequence of str
        --compare: ``label=folder``, or ``label=folder:kind``.
    kind : str, optional
        --tracks-kind: of `tracks`.

    Raises
    ------
    InputDataError
        If an argument is no pair, a label appears twice, or a folder has no tracks.
    """
    found = []
    if tracks is not None:
        chosen = tracks_kind(tracks, kind)
        found.append(TrackInput(_OWN_LABEL if chosen == "own" else f"traccc {chosen}", tracks, chosen))
    for text in compare:
        label, separator, folder = text.partition("=")
        if not (label and separator and folder):
            msg = f"--compare {text}: expected label=folder or label=folder:kind, with kind {', '.join(KINDS)}"
            raise InputDataError(msg)
        head, _, tail = folder.rpartition(":")
        path, own_kind = (head, tail) if head and tail in KINDS else (folder, None)
        found.append(TrackInput(label, Path(path), tracks_kind(path, own_kind)))
    labels = [item.label for item in found]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        msg = f"label {', '.join(repeated)} appears more than once; choose others with --compare label=folder"
        raise InputDataError(msg)
    return found


def evaluate_files(
    truth: Path,
    inputs: Sequence[TrackInput],
    make_summary: Callable[[], PerformanceSummary],
    events: int | None,
    log: Console,
) -> dict[str, Any]:
    """Compare tracks in files with the truth in files.

    Parameters
    ----------
    truth : Path
        Folder of the truth.
    inputs : sequence of TrackInput
        Folders of tracks.
    make_summary : callable
        Returns an empty summary.
    events : int, optional
        Number of events at most.
    log : Console
        Where progress goes.

    Returns
    -------
    dict of str to dict
        Numbers by label.

    Raises
    ------
    InputDataError
        If a file is missing or can't be used.
    """
    numbers = list(dict.fromkeys(number for number, _ in event_files(truth, "hits")))
    if not numbers:
        msg = f"{truth}: has no file event*-hits.csv; --truth names the folder with hits, particles and links"
        raise InputDataError(msg)
    summaries = {item.label: make_summary() for item in inputs}
    chosen = numbers[:events]
    for number in chosen:
        for item in inputs:
            check_event_tracks(item.directory, item.kind, truth, number)
    for number in track(chosen, "events", console=log, transient=True, disable=not log.is_terminal):
        event = read_truth(truth, number)
        for item in inputs:
            summaries[item.label].add(event, read_event_tracks(item.directory, item.kind, truth, event))
    return {label: summary.as_dict() for label, summary in summaries.items()}


def _without_nan(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _drawing(what: str, log: Console) -> Iterator[None]:
    """Say what is drawn, and on a terminal for how long already."""
    if not log.is_terminal:
        log.print(f"drawing {what}", style="dim")
    columns = (SpinnerColumn(), TextColumn("drawing {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


def report_performance(
    results: Mapping[str, Any], console: Console, log: Console, options: Evaluation, sample: Mapping[str, Any]
) -> None:
    """Print tables, draw plots, write numbers.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers by label.
    console : Console
        Where the tables go.
    log : Console
        Where progress goes.
    options : Evaluation
        What is wanted.
    sample : mapping
        What the sample was; goes into the file.
    """
    print_performance(results, console, per_bin=options.per_bin)
    if options.json is not None:
        write_json(options.json, _without_nan({"versions": versions(), "sample": sample, "results": results}))
    if options.plots is not None:
        with _drawing("plots", log):
            paths = draw_performance(results, options.plots, options.plot_format)
        console.print(f"{counted(len(paths), 'plot')} written to {options.plots}")
    if options.report is not None:
        with _drawing("the plots of the report", log):
            page = performance_page(results, versions(), sample)
        write_files({options.report: page.encode()})
        console.print(f"the report is {options.report}")
