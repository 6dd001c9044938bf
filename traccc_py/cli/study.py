"""`traccc-py study`: the service measured as papers show it, by one command a figure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traccc_py.cli.files import check_directory, find_event_files
from traccc_py.cli.options import Option, command, consoles, options_of
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.settings import Choice, Positive, PositiveCount, Settings

if TYPE_CHECKING:
    from traccc_py.studies.study import StudyPlan

__all__ = ["study"]

_KINDS = ("instances", "concurrency", "pileup", "gpus", "batch", "remote", "region", "exatrkx")
_SIZES = ("tiny", "small", "full")
_SECONDS = {"tiny": 1.0, "small": 5.0, "full": 20.0}
_REPEATS = {"tiny": 1, "small": 2, "full": 5}
_PILEUP = {"tiny": (), "small": (20.0, 100.0), "full": (20.0, 60.0, 100.0, 200.0, 300.0)}
_EVENTS = {"tiny": 1, "small": 2, "full": 4}
_VALUES: dict[str, dict[str, tuple[float, ...]]] = {  # of the variables; instances and gpus: up to the cores or GPUs
    "concurrency": {"tiny": (1, 2), "small": (1, 2, 4, 8), "full": (1, 2, 4, 8, 16, 32)},
    "exatrkx": {"tiny": (1, 2), "small": (1, 2, 4), "full": (1, 2, 4, 8, 16)},
    "batch": {"tiny": (1, 4), "small": (1, 2, 4, 8), "full": (1, 2, 4, 8, 16, 32)},
    "remote": {"tiny": (0, 20), "small": (0, 5, 20), "full": (0, 1, 5, 20, 50)},
    "region": {"tiny": (0.2, 0.4), "small": (0.1, 0.2, 0.4), "full": (0.05, 0.1, 0.2, 0.4, 0.8)},
}
_CONCURRENCY = {"batch": 2, "region": 32}  #: of the largest batch; of regions
_INTERRUPTED = 130


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or any(not value >= 0 for value in values):
        msg = f"--values is {text!r}; expected numbers from 0 with commas between, such as 1,2,4"
        raise ConfigError(msg)
    return values


@dataclass(frozen=True, slots=True)
class _StudyOptions(Settings):
    #: what is varied
    kind: Annotated[str, Choice(_KINDS), Option(metavar="KIND", is_argument=True)]
    #: size of the study: values, repeats, seconds and pile-up as these say it
    size: Annotated[str, Choice(_SIZES)] = "small"
    #: pile-up and a folder of `simulate`, as 200=mu200; may be repeated; by default samples of ttbar are made
    sample: Annotated[tuple[str, ...], Option(metavar="MU=DIR")] = ()
    #: values of what is varied, with commas between; by default those of the size
    values: Annotated[tuple[float, ...], Option(kind=str, metavar="X,X,...", convert=_numbers, default=None)] = ()
    seconds: Positive | None = None  #: measured time of a point [s]; by default that of the size
    repeats: PositiveCount | None = None  #: times each point is measured; by default that of the size
    #: requests on the way, in studies that do not vary it; by default enough to keep all cores busy
    concurrency: PositiveCount | None = None
    device: Annotated[str, Choice(("cpu", "cuda"))] = "cpu"  #: device of the services
    detector: str = "odd"  #: name of the detector
    digitization: str | None = None  #: name of its readout
    compact: bool = False  #: send compact tensors
    #: program to measure with, besides our own generator; by default the one in PATH, if any
    perf_analyzer: Annotated[Path | None, Option(metavar="FILE")] = None
    output: Annotated[Path, Option("-o", metavar="DIR")] = Path("out") / "studies"  #: folder of the results
    timeout: Positive = 600.0  #: how long a service may take to start [s]


@command(options=options_of(_StudyOptions))
def study(options: _StudyOptions) -> None:
    """Measure the service, which it starts: a table, what it depends on, and a figure."""
    from traccc_py.backend.installation import find_installation
    from traccc_py.performance.plot_style import require_plots
    from traccc_py.studies.kinds import STUDIES
    from traccc_py.studies.study import Study

    console, log = consoles()
    signal.signal(signal.SIGTERM, _interrupt)  # services that it has started end, too
    require_plots()
    find_installation()
    check_directory(options.output, "--output")
    work = Study(_plan(options, lambda text: log.print(text, style="dim")), options.output, log.print)
    try:
        STUDIES[options.kind](work)
    except BaseException as error:
        reason = "Ctrl-C or SIGTERM" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        if work.points:
            work.write(is_complete=False, stopped=reason)
            log.print(f"stopped; {len(work.points)} points are in {work.path('.csv')}, marked as not complete")
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(_INTERRUPTED) from None
        raise
    work.write(is_complete=True)
    _draw(work)
    console.print(f"{len(work.points)} points and a figure: {work.path('.csv')}, .json, .png")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _draw(work: Any) -> None:
    from traccc_py.files import write_files
    from traccc_py.studies.figures import draw_study

    content = draw_study(work.plan.kind, work.points, len(work.plan.cores))
    write_files({work.path(".png"): content})


def _plan(options: _StudyOptions, tell: Callable[[str], None]) -> StudyPlan:
    from traccc_py.environment import usable_cores
    from traccc_py.studies.perf_analyzer import find_perf_analyzer
    from traccc_py.studies.study import StudyPlan

    cores, size = usable_cores(), options.size
    seconds = options.seconds or _SECONDS[size]
    values = options.values or _values_of(options, len(cores))
    most = max(values, default=1)
    n_places = {"batch": round(_CONCURRENCY["batch"] * most), "region": _CONCURRENCY["region"]}
    program = str(options.perf_analyzer) if options.perf_analyzer else find_perf_analyzer()
    if program is None:
        tell("perf_analyzer is not in PATH: only our own generator measures (docs/operations.md says where it is)")
    return StudyPlan(
        kind=options.kind,
        values=values,
        events=_events(options, tell),
        seconds=seconds,
        warm_up=max(0.5, seconds / 4),
        repeats=options.repeats or _REPEATS[size],
        concurrency=options.concurrency or n_places.get(options.kind, 4 * max(len(cores), 1)),
        cores=cores,
        device=options.device,
        detector=options.detector,
        digitization=options.digitization,
        perf_analyzer=program,
        compact=options.compact,
        start_seconds=options.timeout,
    )


def _values_of(options: _StudyOptions, n_cores: int) -> tuple[float, ...]:
    """Return what the variable is set to."""
    if options.kind in _VALUES:
        return _VALUES[options.kind][options.size]
    most = n_cores if options.device == "cpu" else _number_of_gpus()
    powers = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return tuple(sorted({1, *powers, most})) if options.kind in ("instances", "gpus") else ()


def _number_of_gpus() -> int:
    from traccc_py.studies.monitor import number_of_gpus

    return max(1, number_of_gpus())


def _events(options: _StudyOptions, tell: Callable[[str], None]) -> dict[float, Sequence[Any]]:
    """Return the events of the study by pile-up."""
    from traccc_py.data.csv_events import read_cells

    folders = dict(map(_sample, options.sample))
    if not folders and options.size == "tiny":
        from traccc_py.data.sample import sample_event_path

        return {0.0: [read_cells(sample_event_path())]}
    wanted = _PILEUP[options.size] if options.kind == "pileup" else _PILEUP[options.size][:1]
    for mu in wanted if not folders else ():
        from traccc_py.simulation.samples import load_sample

        tell(f"simulating ttbar with pile-up {mu:g}, unless that was done before")
        folders[mu] = str(load_sample("ttbar", mu, _EVENTS[options.size], detector=options.detector).folder)
    found: dict[float, Sequence[Any]] = {}
    for mu, folder in folders.items():
        files = find_event_files([folder], limit=_EVENTS[options.size], kind="cells")
        found[mu] = [read_cells(file.path) for file in files]
    if options.kind != "pileup" and len(found) > 1:
        msg = f"--sample is given {len(found)} times; expected one in a study of {options.kind}"
        raise ConfigError(msg)
    return found


def _sample(text: str) -> tuple[float, str]:
    mu, sign, folder = text.partition("=")
    try:
        value = float(mu)
    except ValueError:
        sign = ""
    if not (sign and folder):
        msg = f"--sample {text}: expected MU=DIR, such as 200=mu200"
        raise ConfigError(msg)
    if not Path(folder).is_dir():
        msg = f"--sample {text}: {folder} is no folder"
        raise InputDataError(msg)
    return value, folder
