"""Which event files a command works on."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from traccc_py.data.csv_events import event_number
from traccc_py.errors import InputDataError

__all__ = ["EventFile", "check_output_directory", "find_event_files"]

_SUFFIXES = ("-cells.csv", "-cells.csv.gz")
_WILDCARDS = frozenset("*?[")


class EventFile(NamedTuple):
    """The cells file of one event."""

    event: int
    path: Path


def find_event_files(arguments: Sequence[str], skip: int = 0, limit: int | None = None) -> list[EventFile]:
    """Return the cells files that files, directories and globs name.

    Parameters
    ----------
    arguments : sequence of str
        Files are taken in the order given; those of a directory or glob in the order of their names.
    skip : int, optional
        Number of events to leave out at the start [1].
    limit : int, optional
        Number of events to return at most [1].

    Returns
    -------
    list of EventFile
        The event number is that in the file's name (``event000000007-cells.csv``), else its place in the list.

    Raises
    ------
    InputDataError
        If an argument names nothing, or two files are the same event.
    """
    paths = [path for argument in arguments for path in _expand(argument)]
    paths = list(dict.fromkeys(paths))
    seen: dict[int, Path] = {}
    files = []
    for place, path in enumerate(paths):
        number = event_number(path)
        event = place if number is None else number
        if event in seen:
            msg = f"{seen[event]} and {path} are both event {event}; run them into different folders"
            raise InputDataError(msg)
        seen[event] = path
        files.append(EventFile(event, path))
    selected = files[skip:] if limit is None else files[skip : skip + limit]
    if not selected:
        wanted = "all" if limit is None else f"at most {limit}"
        msg = f"no event is left: {len(files)} found, {skip} skipped, {wanted} wanted"
        raise InputDataError(msg)
    return selected


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.name.endswith(_SUFFIXES))
        problem = "has no file that ends in -cells.csv or -cells.csv.gz"
    elif path.exists():
        return [path]
    elif _WILDCARDS & set(argument):
        found = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute ones too)
        problem = "matches no file"
    else:
        found = []
        problem = "there is no such file or directory"
    if not found:
        msg = f"{argument}: {problem}"
        raise InputDataError(msg)
    return found


def check_output_directory(output: Path, files: Sequence[EventFile]) -> None:
    """Check that results would not overwrite files that belong to the input.

    Raises
    ------
    InputDataError
        If `output` is a file, or the folder of an input file.
    """
    if output.exists() and not output.is_dir():
        msg = f"--output {output}: is a file; expected a folder"
        raise InputDataError(msg)
    for file in files:
        if file.path.resolve().parent == output.resolve():
            msg = (
                f"--output {output}: is the folder of {file.path.name}, whose measurements file would be overwritten; "
                "choose another folder"
            )
            raise InputDataError(msg)
