"""`traccc-py display`: an event as an interactive page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from traccc_py.cli.detector import DETECTOR
from traccc_py.cli.files import check_file, find_event_files
from traccc_py.cli.options import Device, Option, Threads, command, consoles, options_of
from traccc_py.cli.settings import SETTINGS, ChosenSettings
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import InputDataError
from traccc_py.settings import Count, NonNegative, Positive, PositiveCount, Settings

if TYPE_CHECKING:
    from traccc_py.cli.files import EventFile

__all__ = ["display"]


@dataclass(frozen=True, slots=True)
class _DisplayOptions(Settings):
    #: an event file, or a folder of them; cells, measurements, spacepoints (.csv) or hits (.parquet)
    input: Annotated[str | None, Option(metavar="[EVENT]", is_argument=True)] = None
    sample: bool = False  #: show the event that comes with the package
    event: Annotated[Count | None, Option(metavar="N")] = None  #: number of the event; by default the first
    output: Annotated[Path, Option("--output", "-o", metavar="FILE")] = Path("display.html")  #: the page
    #: folder of the truth; by default that of the event, if it has hits
    truth: Annotated[Path | None, Option(metavar="DIR")] = None
    #: smallest pT of the tracks shown at first [GeV]; by default such that a few hundred are
    min_pt: NonNegative | None = None
    max_eta: Positive = 4.0  #: largest |eta| of the tracks shown at first
    max_tracks: PositiveCount = 3000  #: tracks in the page, those of highest pT
    max_spacepoints: PositiveCount = 20_000  #: spacepoints in the page
    #: write the event in Phoenix's JSON, too
    phoenix: Annotated[Path | None, Option(metavar="FILE")] = None
    device: Device = "auto"
    threads: Threads = None


@command(detector=DETECTOR, settings=SETTINGS, options=options_of(_DisplayOptions))
def display(detector: DetectorOptions, settings: ChosenSettings, options: _DisplayOptions) -> None:
    """Reconstruct an event and draw it: one interactive page, which works offline."""
    from traccc_py.cli.compilation import make_chain
    from traccc_py.cli.event_reader import EventReader
    from traccc_py.extras import optional_module
    from traccc_py.performance.event_display import EventDisplay
    from traccc_py.performance.scene import Limits

    console, log = consoles()
    file = _event_file(options)
    check_file(options.output, "--output")
    check_file(options.phoenix, "--phoenix")
    optional_module("plotly", "display", "the event display")
    chain = make_chain(detector.load(), settings.load(), options.device, options.threads, log)
    given = EventReader(chain.detector).read(file)
    result = chain.run(given.event, given.source)
    found = _matched(options, file, result, chain.detector)
    made = EventDisplay(
        result,
        chain.detector,
        found,
        title=f"Event {file.event} of {file.path.name}",
        min_pt=options.min_pt,
        max_eta=options.max_eta,
        limits=Limits(tracks=options.max_tracks, spacepoints=options.max_spacepoints),
    )
    made.save(options.output)
    for note in made.scene["notes"]:
        log.print(note)
    console.print(f"event {file.event} drawn to {options.output}")
    if options.phoenix is not None:
        _write_phoenix(options.phoenix, file.event, result, found)
        console.print(f"for Phoenix: {options.phoenix}")


def _event_file(options: _DisplayOptions) -> EventFile:
    """Return the event that is asked for."""
    names = [options.input] if options.input is not None else []
    if options.sample:
        from traccc_py.data.sample import sample_event_path

        names.append(str(sample_event_path()))
    if len(names) != 1:
        msg = "name one event file or folder, or use --sample" if not names else f"{names[0]} and --sample: choose one"
        raise InputDataError(msg)
    files = find_event_files(names, with_tables=True)
    if options.event is None:
        return files[0]
    found = [file for file in files if file.event == options.event]
    if not found:
        msg = f"{names[0]}: has no event {options.event}; its numbers are {files[0].event} to {files[-1].event}"
        raise InputDataError(msg)
    return found[0]


def _matched(options: _DisplayOptions, file: EventFile, result: Any, detector: Any) -> Any:
    """Return the tracks beside the truth, if there is one."""
    from traccc_py.data.csv_events import has_event_file
    from traccc_py.performance.collider_truth import has_collider_truth, read_collider_truth
    from traccc_py.performance.match import match
    from traccc_py.performance.truth import read_truth

    if file.kind == "tracker_hits":
        tables = options.truth or file.path.parent.parent
        if options.truth is None and not has_collider_truth(tables):
            return None
        return match(result, read_collider_truth(tables, file.event, detector))
    folder = options.truth or file.path.parent
    if options.truth is None and not has_event_file(folder, file.event, "hits"):
        return None
    return match(result, read_truth(folder, file.event))


def _write_phoenix(path: Path, event: int, result: Any, found: Any) -> None:
    import json

    from traccc_py.files import write_files
    from traccc_py.performance.event_display import phoenix_event

    write_files({path: json.dumps(phoenix_event(event, result, found), allow_nan=False).encode()})
