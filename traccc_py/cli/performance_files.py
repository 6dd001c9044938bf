"""Tracks in files, ours or traccc's, compared with the truth in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from traccc_py.data.csv_events import event_files
from traccc_py.errors import InputDataError
from traccc_py.performance.definitions import TRACK_KINDS
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.track_readers import check_event_tracks, read_event_tracks, tracks_kind
from traccc_py.performance.truth import read_truth

__all__ = ["TrackInput", "evaluate_files", "find_inputs"]

_OWN_LABEL = "traccc_py"


class TrackInput(NamedTuple):
    """A folder of tracks."""

    label: str
    directory: Path
    kind: str


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
            msg = f"--compare {text}: expected label=folder or label=folder:kind, with kind {', '.join(TRACK_KINDS)}"
            raise InputDataError(msg)
        head, _, tail = folder.rpartition(":")
        path, own_kind = (head, tail) if head and tail in TRACK_KINDS else (folder, None)
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
