"""`traccc-py tune`: settings that suit a detector."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from traccc_py.cli.detector import DETECTOR_BY_POSITION
from traccc_py.cli.files import check_directory
from traccc_py.cli.options import Option, Threads, command, consoles, options_of
from traccc_py.cli.settings import ChosenSettings, assigned
from traccc_py.detector_options import DetectorOptions
from traccc_py.settings import Positive, PositiveCount, Settings
from traccc_py.tuning.settings import TuningSamples
from traccc_py.units import degree

if TYPE_CHECKING:
    from traccc_py.tuning.judge import Judgement
    from traccc_py.tuning.search import Search

__all__ = ["tune"]

SETTINGS_NAME, VARIANCES_NAME, TABLE_NAME, REPORT_NAME = "settings.toml", "variances.json", "trials.csv", "report.html"
_SECONDS = 60.0
_OTHER_SEED = 1000  #: of the events that settings are compared on in the end


@dataclass(frozen=True, slots=True)
class _TuneOptions(Settings):
    #: folder for settings, variances, trials and report; a search that was interrupted there goes on
    output: Annotated[Path, Option("--output", "-o", metavar="DIR")]
    trials: PositiveCount = 40  #: settings that are tried, those of an interrupted search included
    minutes: Positive = 10.0  #: time of the search after which no further settings are tried
    #: a setting that is varied, and its range, in the place of the usual ones; may be repeated
    vary: Annotated[tuple[str, ...], Option(metavar="KEY=LOW:HIGH")] = ()
    #: muons that the variances are calibrated with, where the detector has no table
    calibration_particles: PositiveCount = 20_000
    config: Annotated[Path | None, Option(metavar="TOML")] = None  #: settings to begin with
    #: one of them, as finding.chi2_max=20; may be repeated
    assignments: Annotated[tuple[str, ...], Option("--set", metavar="KEY=VALUE")] = ()
    threads: Threads = None


def _radians(pair: tuple[float, float]) -> tuple[float, float]:
    return pair[0] * degree, pair[1] * degree


_SAMPLES = options_of(
    TuningSamples,
    pt=Option(metavar="MIN MAX"),
    eta=Option(metavar="MIN MAX"),
    phi=Option(metavar="MIN MAX", default=(-180.0, 180.0), meaning="range of phi [degrees]", convert=_radians),
    pileup=Option(metavar="MU"),
)


@command(chosen=DETECTOR_BY_POSITION, options=options_of(_TuneOptions), samples=_SAMPLES)
def tune(chosen: DetectorOptions, options: _TuneOptions, samples: TuningSamples) -> None:
    """Search settings that suit a detector: simulated events, calibrated variances, a report."""
    from traccc_py.cli.compilation import make_chain
    from traccc_py.extras import optional_module
    from traccc_py.performance.plot_style import require_plots
    from traccc_py.tuning.samples import load_samples
    from traccc_py.tuning.search import Search
    from traccc_py.tuning.space import SPACE, parse_parameter

    optional_module("optuna", "tune", "tune")
    require_plots()
    space = tuple(map(parse_parameter, options.vary)) or SPACE
    check_directory(options.output, "--output")
    console, log = consoles()
    config = ChosenSettings(
        None if options.config is None else str(options.config), None, assigned(options.assignments)
    ).load()
    detector = _calibrated(chosen, options, log)
    log.print("simulating events, or reading those of an interrupted search")
    events = load_samples(options.output / "samples", detector, samples, options.threads or 1)
    chains: dict[str, Any] = {}

    def chain_of(of: Any, settings: Any) -> Any:
        if not chains:  # kernels are compiled once
            chains["first"] = make_chain(of, settings, "cpu", options.threads, log)
            return chains["first"]
        from traccc_py.chain import TrackingChain

        chain = TrackingChain(of, settings, device="cpu", threads=options.threads)
        chain.initialize()
        return chain

    search = Search(options.output, detector, config, events, space, chain_of, samples.seed)
    _run(search, options, log)
    other = replace(samples, seed=samples.seed + _OTHER_SEED)
    checked = load_samples(options.output / "other_samples", detector, other, options.threads or 1)
    best = search.best
    before = search.judge({}, checked)
    after = before if best is None else search.judge(best.values, checked)
    _write(search, options, chosen, before, after)
    console.print(_table(before, after))
    if best is None:
        console.print("no settings are better than those the search began with; settings.toml has these")
    console.print(
        f"{len(search.trials)} settings tried; settings, variances, trials and report are in {options.output}"
    )


def _calibrated(chosen: DetectorOptions, options: _TuneOptions, log: Any) -> Any:
    """Return the detector with variances: its own, those of an interrupted search, or calibrated now."""
    from traccc_py.geometry.variance_table import load_variances, save_variances
    from traccc_py.simulation.calibration import calibrate_variances
    from traccc_py.simulation.settings import CalibrationConfig

    detector: Any = chosen.load()
    path = options.output / VARIANCES_NAME
    if detector.variance_table.variances.any():
        log.print(f"variances: the table of detector {detector.name}")
        return detector
    if not path.exists():
        log.print(f"calibrating variances with {options.calibration_particles} muons")
        made = calibrate_variances(detector, CalibrationConfig(n_particles=options.calibration_particles))
        comment = {"made_by": f"traccc-py tune {detector.name}", "particles": options.calibration_particles}
        save_variances(path, detector.design_names, made.table, comment)
    return detector.with_variances(load_variances(path, detector.design_names))


def _run(search: Search, options: _TuneOptions, log: Any) -> None:
    """Search, and tell of each trial."""
    if search.trials:
        log.print(f"{len(search.trials)} trials of an interrupted search are there")
    begin = time.monotonic()

    def tell(trial: Any) -> None:
        found = ", ".join(f"{name} {value:.2f}" for name, value in trial.efficiency.items())
        log.print(
            f"trial {trial.number}, {time.monotonic() - begin:.0f} s: loss {trial.loss:.3f}, efficiency [%] {found}"
        )

    search.run(options.trials, _SECONDS * options.minutes, tell)


def _write(search: Search, options: _TuneOptions, chosen: DetectorOptions, before: Judgement, after: Judgement) -> None:
    """Write settings, trials and report."""
    from traccc_py.data.csv_table import format_table
    from traccc_py.environment import versions
    from traccc_py.files import write_files
    from traccc_py.performance.report_page import performance_page
    from traccc_py.tuning.report import settings_toml, trial_table

    results = {}
    for name, found in (("before", before), ("after", after)):
        for sample, summary in found.summaries.items():
            results[f"{sample}, {name}"] = summary.as_dict()
    facts = {
        "detector": chosen.label,
        "command": "traccc-py tune",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "inputs": f"{len(search.trials)} settings tried; processor time of the events {before.milliseconds:.0f} ms "
        f"before, {after.milliseconds:.0f} ms after",
        "config": search.settings.to_dict(),
    }
    write_files(
        {
            options.output / SETTINGS_NAME: settings_toml(search).encode(),
            options.output / TABLE_NAME: format_table(trial_table(search.trials)),
            options.output / REPORT_NAME: performance_page(results, versions(), facts).encode(),
        }
    )


def _table(before: Judgement, after: Judgement) -> Any:
    from rich.table import Table

    table = Table(title="on other events than those of the search", title_justify="left", pad_edge=False)
    for column in ("sample", "efficiency % before", "after", "fakes % before", "after"):
        table.add_column(column, justify="right" if column != "sample" else "left")
    for name in before.efficiency:
        pairs = ((before.efficiency, after.efficiency), (before.fakes, after.fakes))
        table.add_row(name, *(f"{of[name]:.2f}" for pair in pairs for of in pair))
    times = (f"{found.milliseconds:.0f}" for found in (before, after))
    means = (f"p {found.p_value:.3f}" for found in (before, after))
    table.add_row("time [ms], mean p-value", *times, *means)
    return table
