"""`traccc-py performance`: tracks, simulated and reconstructed now or read from files, against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import check_directory, check_file
from traccc_py.cli.options import Device, Group, Option, Threads, command, consoles, naming_options, options_of
from traccc_py.cli.settings import ChosenSettings, assigned
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError
from traccc_py.performance.definitions import (
    DEFINITIONS,
    TRACK_KINDS,
    Definition,
    TruthSelection,
    collision_selections,
    simulation_selections,
)
from traccc_py.settings import Choice, Count, PositiveCount, Settings
from traccc_py.simulation.settings import ParticleGunConfig

if TYPE_CHECKING:
    from traccc_py.performance.summary import PerformanceSummary

__all__ = ["VERTEX_SIGMA", "Evaluation", "performance", "run_performance"]

_SIDES = ("outgoing", "incoming")
_DEFAULT_EVENTS = 10  # simulated
VERTEX_SIGMA = (0.0125, 0.0125, 55.0)  #: of simulated events [mm]
_BELOW_GUN = 0.99  # the cut on pT stays below what the gun shoots

#: What the events are, by mode.
_MODES = {
    "gun": "events that are simulated now",
    "samples": "events of --sample, which are reconstructed now",
    "files": "files of --truth and --tracks",
}


@dataclass(frozen=True, slots=True)
class Evaluation(Settings):
    """What is compared, and what is made of it."""

    #: reconstruct the events of 'simulate'; several: also versus mu
    samples: Annotated[tuple[Path, ...], Option("--sample", metavar="DIR")] = ()
    #: folder with hits, particles and measurement links
    truth: Annotated[Path | None, Option(metavar="DIR")] = None
    tracks: Annotated[Path | None, Option(metavar="DIR")] = None  #: folder with tracks: of 'run', or traccc's tables
    #: what --tracks holds; by default the first of these that it has
    tracks_kind: Annotated[str, Choice(TRACK_KINDS)] | None = None
    #: tracks to show beside them; may be repeated
    compare: Annotated[tuple[str, ...], Option(metavar="LABEL=DIR[:KIND]")] = ()
    definition: Annotated[str, Choice(tuple(DEFINITIONS))] = "traccc"  #: definition of rates
    any_charged: bool = False  #: particles of all kinds, not electrons, muons and pions alone
    truth_side: Annotated[str, Choice(_SIDES)] = "outgoing"  #: side of the first surface's material
    #: number of events; by default 10 simulated ones, or all there are
    events: Annotated[PositiveCount | None, Option("-n")] = None
    config: Annotated[Path | None, Option(metavar="TOML")] = None  #: settings; see 'traccc-py config'
    #: one setting, as finding.chi2_max=20; may be repeated
    assignments: Annotated[tuple[str, ...], Option("--set", metavar="KEY=VALUE")] = ()
    device: Device = "auto"
    threads: Threads = None
    seed: Annotated[Count, Option(of="Simulation")] = 1  #: seed of the random numbers
    per_bin: bool = False  #: print tables versus eta, phi and pT
    plots: Annotated[Path | None, Option(metavar="DIR")] = None  #: draw plots
    plot_format: Annotated[str, Choice(("png", "pdf", "svg"))] = "png"  #: format of --plots
    #: write tables and plots as one page of HTML
    report: Annotated[Path | None, Option(metavar="FILE")] = None
    json: Annotated[Path | None, Option(metavar="FILE")] = None  #: write the numbers

    def _check_together(self) -> None:
        has_tracks = self.tracks is not None or bool(self.compare)
        if (self.truth is not None) != has_tracks:
            msg = "--truth and --tracks (or --compare) belong together: give both, or neither to simulate"
            raise ConfigError(msg)
        if self.samples and has_tracks:
            msg = "--sample reconstructs simulated events, --truth and --tracks compare files: give one of both"
            raise ConfigError(msg)

    @property
    def mode(self) -> str:
        """What the events are, one of `_MODES`."""
        return "samples" if self.samples else "files" if self.truth is not None else "gun"


_EVALUATION = options_of(Evaluation)
_MATCHING = options_of(
    Definition,
    dict,
    leave_out=("name", "is_seed_ratio_strict", "per_track", "fakes_of_selected_only"),
    matching_ratio=Option(default=None),
    double_matching=Option("--single-matching", is_negated=True, meaning="do not ask for completeness"),
    seed_matching_ratio=Option(default=None),
)
_CUTS = options_of(
    TruthSelection,
    dict,
    leave_out=("particle_types", "pixel_volumes"),
    otherwise=Option(default=None, of="Particles"),
)
_GUN = options_of(
    ParticleGunConfig,
    partial(ParticleGunConfig, vertex_sigma=VERTEX_SIGMA),
    leave_out=("charge", "momentum_is_transverse", "momentum_distribution", "phi", "vertex_mean", "vertex_sigma"),
    n_particles=Option("--particles", of="Simulation", default=100),
    particle=Option(of="Simulation", meaning="kind of particle, and mass hypothesis"),
    momentum=Option("--pt", of="Simulation", metavar="MIN MAX", default=(10.0, 10.0), meaning="range of pT [GeV]"),
    eta=Option(of="Simulation", metavar="MIN MAX"),
)

#: Modes in which an option means something, where it is not all; by name of the parameter.
_ONLY = {
    **{f"gun_{name}": ("gun",) for name in _GUN.names},
    "evaluation_seed": ("gun",),
    **{f"evaluation_{name}": ("gun", "samples") for name in ("config", "assignments", "device", "threads")},
}
#: Options that need another one.
_NEEDED = {"plot_format": "plots", "tracks_kind": "tracks"}


@command(detector=DETECTOR, evaluation=_EVALUATION, matching=_MATCHING, cuts=_CUTS, gun=_GUN)
def performance(
    ctx: typer.Context,
    detector: DetectorOptions,
    evaluation: Evaluation,
    matching: dict[str, Any],
    cuts: dict[str, Any],
    gun: ParticleGunConfig,
) -> None:
    """Compare tracks with the truth: efficiency, duplicates, fakes, pulls; simulated now, or from files."""
    _refuse_options_without_effect(ctx, evaluation)
    run_performance(evaluation, detector, gun, *consoles(), matching=matching, cuts=cuts)


def run_performance(
    evaluation: Evaluation,
    detector: DetectorOptions,
    gun: ParticleGunConfig,
    console: Any,
    log: Any,
    *,
    matching: Mapping[str, Any] | None = None,
    cuts: Mapping[str, Any] | None = None,
) -> None:
    """Compare, print, draw and write.

    Parameters
    ----------
    evaluation : Evaluation
        What is compared, and what is made of it.
    detector : DetectorOptions
        Of the events.
    gun : ParticleGunConfig
        What is shot, where no samples and files are named.
    console, log : Console
        Where results and progress go.
    matching, cuts : mapping, optional
        Values of `Definition` and `TruthSelection` in the place of others.

    Raises
    ------
    InputDataError, ConfigError, GeometryError, DeviceUnavailableError
        If an input or a setting can't be used.
    """
    from traccc_py.cli.performance_report import report_performance
    from traccc_py.performance.plot_style import require_plots

    if evaluation.plots is not None or evaluation.report is not None:
        require_plots()
    for option, path in (("--report", evaluation.report), ("--json", evaluation.json)):
        check_file(path, option)
    if evaluation.plots is not None:
        check_directory(evaluation.plots, "--plots")
    with naming_options(_MATCHING.paths):
        definition = replace(DEFINITIONS[evaluation.definition], **(matching or {}))
    chosen_cuts = {**(cuts or {}), **({"particle_types": ()} if evaluation.any_charged else {})}
    if evaluation.mode == "files" and _has_no_kinds(evaluation):
        log.print(f"{evaluation.truth}: TrackML does not say what its particles are; all kinds count")
        chosen_cuts["particle_types"] = ()
    if evaluation.mode == "files" and detector == DetectorOptions():
        detector = _detector_of_tracks(evaluation) or detector
    chosen = detector.load()
    if evaluation.mode == "files":
        _compare_detectors(evaluation, chosen, log)
    with naming_options(_CUTS.paths):
        selections = _selections(evaluation, detector.label, chosen_cuts, gun)
    make_summary = _summaries(chosen, selections, definition, evaluation)
    if evaluation.mode == "files":
        results, sample = _of_files(evaluation, make_summary, log)
    elif evaluation.mode == "samples":
        results, sample = _of_samples(evaluation, chosen, make_summary, log)
    else:
        results, sample = _of_gun(evaluation, chosen, gun, make_summary, log)
    facts: dict[str, Any] = {"digitization": chosen.digitization.name, "field": f"{chosen.b_field_z:g} T"}
    facts = {"detector": detector.label, "detector_facts": {**facts, "fingerprint": chosen.fingerprint}}
    report_performance(results, console, log, evaluation, facts | sample)


def _has_no_kinds(evaluation: Evaluation) -> bool:
    """Return whether the truth is TrackML's, which has no kinds of particles."""
    from traccc_py.data.csv_events import event_files
    from traccc_py.data.trackml_files import is_trackml

    assert evaluation.truth is not None
    files = event_files(evaluation.truth, "hits")
    return bool(files) and is_trackml(files[0][1])


def _records(evaluation: Evaluation) -> list[tuple[Path, dict[str, Any]]]:
    """Return the manifests of the folders of tracks that have one."""
    from traccc_py.cli.run_record import read_record

    named = [Path(text.partition("=")[2].partition(":")[0]) for text in evaluation.compare]
    folders = [*([] if evaluation.tracks is None else [evaluation.tracks]), *named]
    found = [(folder, read_record(folder)) for folder in folders]
    return [(folder, record) for folder, record in found if record is not None]


def _detector_of_tracks(evaluation: Evaluation) -> DetectorOptions | None:
    """Return the detector of the tracks, if it is a built-in one."""
    from traccc_py.geometry import detector_names
    from traccc_py.geometry.digitization import builtin_digitizations

    for _, record in _records(evaluation):
        about = record["recipe"]["detector"]
        if about["name"] in detector_names():
            readout = about["digitization"] if about["digitization"] in builtin_digitizations() else None
            return DetectorOptions(name=about["name"], digitization=readout, bfield_value=about["field"])
    return None


def _compare_detectors(evaluation: Evaluation, detector: Any, log: Any) -> None:
    """Warn where tracks were made with another detector."""
    for folder, record in _records(evaluation):
        about = record["recipe"]["detector"]
        if about["fingerprint"] != detector.fingerprint:
            log.print(
                f"{folder}: its tracks were made with detector {about['name']}, {about['digitization']}, "
                f"{about['field']:g} T, which is not this one ({detector.name}, {detector.digitization.name}, "
                f"{detector.b_field_z:g} T); choose it with the options of the detector"
            )


def _refuse_options_without_effect(ctx: typer.Context, evaluation: Evaluation) -> None:
    """Raise if an option was given that means nothing for these events.

    Raises
    ------
    ConfigError
        If so; the message names it.
    """
    groups: dict[str, Group] = {"evaluation": _EVALUATION, "gun": _GUN}
    names = {f"{key}_{field}": name for key, group in groups.items() for field, name in group.names.items()}
    given = {p for p in names if getattr(ctx.get_parameter_source(p), "name", "") == "COMMANDLINE"}
    for parameter, modes in _ONLY.items():
        if parameter in given and evaluation.mode not in modes:
            meant = " or ".join(_MODES[mode] for mode in modes)
            msg = f"{names[parameter]} is for {meant}, not for {_MODES[evaluation.mode]}; leave it out"
            raise ConfigError(msg)
    for field, needed in _NEEDED.items():
        if f"evaluation_{field}" in given and getattr(evaluation, needed) is None:
            msg = f"{_EVALUATION.names[field]} belongs to {_EVALUATION.names[needed]}, which is not given"
            raise ConfigError(msg)


def _selections(
    evaluation: Evaluation, detector: str, cuts: Mapping[str, Any], gun: ParticleGunConfig
) -> dict[str, TruthSelection]:
    """Return which particles count."""
    if evaluation.mode == "samples":
        return collision_selections(cuts)
    if evaluation.mode == "files":
        return {"selected": TruthSelection(**cuts)}
    lowest = min(TruthSelection().min_pt, _BELOW_GUN * gun.momentum[0])
    return simulation_selections(detector, {"min_pt": lowest, **cuts})


def _summaries(
    detector: Any, selections: Mapping[str, TruthSelection], definition: Definition, evaluation: Evaluation
) -> Callable[[], PerformanceSummary]:
    """Return what makes an empty summary."""
    from traccc_py.performance.frames import detector_frames
    from traccc_py.performance.summary import PerformanceSummary

    def make() -> PerformanceSummary:
        return PerformanceSummary(
            selections,
            float(detector.arrays().b_z),
            detector_frames(detector),
            definition,
            outgoing=evaluation.truth_side == _SIDES[0],
        )

    return make


_Found = tuple[dict[str, Any], dict[str, Any]]  # numbers by label, facts of the sample


def _of_files(evaluation: Evaluation, make_summary: Callable[[], PerformanceSummary], log: Any) -> _Found:
    from traccc_py.cli.performance_files import evaluate_files, find_inputs

    assert evaluation.truth is not None
    inputs = find_inputs(evaluation.tracks, evaluation.compare, evaluation.tracks_kind)
    results = evaluate_files(evaluation.truth, inputs, make_summary, evaluation.events, log)
    tracks = {i.label: [str(i.directory), i.kind] for i in inputs}
    return results, {"truth": str(evaluation.truth), "tracks": tracks}


def _settings(evaluation: Evaluation, particle: str | None) -> Any:
    """Return the settings of the chain."""
    source = None if evaluation.config is None else str(evaluation.config)
    return ChosenSettings(source, particle, assigned(evaluation.assignments)).load()


def _of_samples(
    evaluation: Evaluation, detector: Any, make_summary: Callable[[], PerformanceSummary], log: Any
) -> _Found:
    from traccc_py.cli.compilation import make_chain
    from traccc_py.cli.performance_samples import evaluate_samples, read_manifests

    settings = _settings(evaluation, None)
    manifests = read_manifests(evaluation.samples, detector, evaluation.events, log)
    chain = make_chain(detector, settings, evaluation.device, evaluation.threads, log)
    results, facts = evaluate_samples(manifests, chain, make_summary, evaluation.events, log)
    return results, {"samples": facts, "config": chain.config.to_dict()}


def _of_gun(
    evaluation: Evaluation,
    detector: Any,
    gun: ParticleGunConfig,
    make_summary: Callable[[], PerformanceSummary],
    log: Any,
) -> _Found:
    from traccc_py.cli.compilation import make_chain
    from traccc_py.cli.performance_samples import evaluate_gun

    settings = _settings(evaluation, gun.particle)
    chain = make_chain(detector, settings, evaluation.device, evaluation.threads, log)
    n_events = evaluation.events or _DEFAULT_EVENTS
    results = evaluate_gun(chain, make_summary(), gun, evaluation.seed, n_events, log)
    return results, {"gun": repr(gun), "n_events": n_events, "seed": evaluation.seed, "config": chain.config.to_dict()}
