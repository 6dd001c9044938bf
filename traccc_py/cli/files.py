"""Files of commands: which events they read, and checks, before they start, that what they write can be written."""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from traccc_py.errors import ConfigError, InputDataError

__all__ = [
    "KINDS",
    "TRACKML",
    "TRACKML_KINDS",
    "EventFile",
    "check_directory",
    "check_event_files",
    "check_figure",
    "check_file",
    "check_output_directory",
    "find_event_files",
]

#: Ends of file names by what the files hold, in the order in which a directory is searched.
KINDS = {
    kind: tuple(f"-{name}.csv{suffix}" for name in names for suffix in ("", ".gz"))
    for kind, names in {
        "cells": ("cells",),
        "measurements": ("measurements",),
        "spacepoints": ("spacepoints", "spacepoint"),
        "prototracks": ("prototracks",),
    }.items()
}
TRACKML, _TRACKML_HITS = TRACKML_KINDS = ("trackml", "trackml_hits")  #: from their cells, or positions of hits
_OF_TRACKML = tuple(f"-{name}.csv{suffix}" for name in ("hits", "cells") for suffix in ("", ".gz"))
_FIGURES = (".png", ".pdf", ".svg")
_TABLE = ".parquet"
_WILDCARDS = frozenset("*?[")


class EventFile(NamedTuple):
    """The file of one event, or a row of a Parquet file of several."""

    event: int
    path: Path
    kind: str = "cells"
    row: int | None = None  # of a Parquet file


def _silent(_: str) -> None:
    """Tell nobody."""


def find_event_files(
    arguments: Sequence[str],
    skip: int = 0,
    limit: int | None = None,
    kind: str | None = None,
    tell: Callable[[str], None] = _silent,
    *,
    with_tables: bool = False,
) -> list[EventFile]:
    """Return the files that files, directories and globs name.

    Parameters
    ----------
    arguments : sequence of str
        Files are taken in the order given; those of a directory or glob in the order of their names, in which digits
        count as numbers. Of a directory the files of one kind are taken: the first in `KINDS` that it has.
    skip : int, optional
        Number of events to leave out at the start [1].
    limit : int, optional
        Number of events to return at most [1].
    kind : str, optional
        What the files hold; by default their names tell, and files of other names hold cells.
    tell : callable, optional
        Gets a message where a directory has files of several kinds.
    with_tables : bool, optional
        Take Parquet files, too: those that are named, and those of a directory, or folders in it, without CSV files;
        and events of TrackML, whose files are known by their columns.

    Returns
    -------
    list of EventFile
        The event number is that in the file's name (see `event_number`), else its place in the list.

    Raises
    ------
    InputDataError
        If an argument names nothing, or two files are the same event.
    """
    from traccc_py.data.csv_events import event_number

    paths = [path for argument in arguments for path in _expand(argument, kind, tell, with_tables=with_tables)]
    files: list[EventFile] = []
    for place, path in enumerate(dict.fromkeys(paths)):
        of_trackml = _trackml_file(path, kind) if with_tables else None
        number = event_number(path)
        if path.suffix == _TABLE:
            files += _events_of_table(path, kind, with_tables=with_tables)
        elif of_trackml is not None:
            files.append(EventFile(place if number is None else number, *of_trackml))
        else:
            files.append(EventFile(place if number is None else number, path, kind or _kind_of(path) or "cells"))
    seen: dict[int, Path] = {}
    files = list(dict.fromkeys(files))  # hits and cells of TrackML are one event
    for file in files:
        if file.event in seen:
            msg = f"{seen[file.event]} and {file.path} are both event {file.event}; run them into different folders"
            raise InputDataError(msg)
        seen[file.event] = file.path
    selected = files[skip:] if limit is None else files[skip : skip + limit]
    if not selected:
        wanted = "all" if limit is None else f"at most {limit}"
        msg = f"no event is left: {len(files)} found, {skip} skipped, {wanted} wanted"
        raise InputDataError(msg)
    return selected


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Return what sorts files by their names, in which digits count as numbers: event2 comes before event10."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _kind_of(path: Path) -> str | None:
    return next((kind for kind, ends in KINDS.items() if path.name.endswith(ends)), None)


def _trackml_file(path: Path, kind: str | None) -> tuple[Path, str] | None:
    """Return the hits file and the kind of an event of TrackML, if a path is its hits or cells; None else."""
    if kind not in (None, *TRACKML_KINDS) or not path.name.endswith(_OF_TRACKML):
        return None
    from traccc_py.data.trackml_files import is_trackml, sibling

    if not is_trackml(path):
        return None
    hits = sibling(path, "hits")
    if hits is None:
        msg = f"{path}: are cells of TrackML, which belong to the modules of a hits file; there is none beside it"
        raise InputDataError(msg)
    return hits, kind or (_TRACKML_HITS if sibling(path, "cells") is None else TRACKML)


def _trackml_of_directory(path: Path, kind: str | None) -> list[Path]:
    """Return the hits files of a directory if the first of them is TrackML's."""
    files = sorted((file for file in path.iterdir() if file.name.endswith(_OF_TRACKML[:2])), key=_by_number)
    return files if files and _trackml_file(files[0], kind) else []


def _events_of_table(path: Path, kind: str | None, *, with_tables: bool) -> list[EventFile]:
    """Return the events of a Parquet file."""
    from traccc_py.cli.event_reader import known_kind, table_events

    if not with_tables:
        msg = f"{path}: Parquet files are read by 'traccc-py run' only; expected .csv or .csv.gz"
        raise InputDataError(msg)
    found, numbers = table_events(path)
    kind = known_kind(path, found, kind)
    return [EventFile(number, path, kind, row) for row, number in enumerate(numbers)]


def _tables_of_directory(path: Path, kind: str | None) -> list[Path]:
    """Return the Parquet files of a directory and the folders in it that hold one kind of event."""
    from traccc_py.cli.event_reader import TABLE_KINDS, table_events

    paths = sorted([*path.glob(f"*{_TABLE}"), *path.glob(f"*/*{_TABLE}")], key=_by_number)
    kinds = [table_events(file)[0] for file in paths]
    wanted = next((name for name in TABLE_KINDS if name in kinds and kind in (None, name)), None)
    return [file for file, found in zip(paths, kinds, strict=True) if wanted is not None and found == wanted]


def _expand(argument: str, kind: str | None, tell: Callable[[str], None], *, with_tables: bool) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        return _files_of_directory(path, kind, tell, with_tables=with_tables)
    if path.exists():
        return [path]
    problem = "there is no such file or directory"
    if _WILDCARDS & set(argument):
        found = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute ones too)
        if found:
            return sorted(found, key=_by_number)
        problem = "matches no file"
    msg = f"{argument}: {problem}"
    raise InputDataError(msg)


def _files_of_directory(path: Path, kind: str | None, tell: Callable[[str], None], *, with_tables: bool) -> list[Path]:
    of_trackml = _trackml_of_directory(path, kind) if with_tables else []
    if of_trackml:
        return of_trackml
    wanted = KINDS if kind is None else (kind,)
    by_kind: dict[str, list[Path]] = {name: [] for name in wanted}
    for entry in sorted(path.iterdir(), key=_by_number):
        by_kind.get(_kind_of(entry) or "", []).append(entry)
    there = [name for name, files in by_kind.items() if files]
    if not there:
        tables = _tables_of_directory(path, kind) if with_tables else []
        if tables:
            return tables
        ends = ", ".join(KINDS[name][0] for name in wanted if name in KINDS)
        msg = f"{path}: has no file that ends in {ends} (or .csv.gz)" + (", and no Parquet" if with_tables else "")
        raise InputDataError(msg)
    if len(there) > 1:
        tell(f"{path}: taking the {there[0]}; {' and '.join(there[1:])} with --input-kind")
    return by_kind[there[0]]


def check_event_files(files: Sequence[EventFile], *, has_athena_ids: bool = False) -> None:
    """Check that files can be opened and have the columns of what they hold; rows are checked when they are read.

    Parameters
    ----------
    files : sequence of EventFile
        Files of all events.
    has_athena_ids : bool, optional
        Whether modules have Athena's identifiers, which cells alone may have.

    Raises
    ------
    InputDataError
        If one can't be used.
    """
    from traccc_py.cli.event_reader import check_table
    from traccc_py.data.headers import check_file_header
    from traccc_py.data.spacepoint_files import measurements_file_of
    from traccc_py.data.trackml_files import check_trackml_headers

    for path, kind in {file.path: file.kind for file in files if file.row is not None}.items():
        check_table(path, kind)
    for file in files:
        if has_athena_ids and file.kind != "cells":
            msg = f"{file.path}: has {file.kind}; --athena-map is for cells"
            raise InputDataError(msg)
        if file.row is not None:
            continue
        if file.kind in TRACKML_KINDS:
            check_trackml_headers(file.path, with_cells=file.kind == TRACKML)
            continue
        check_file_header(file.path, file.kind)
        if file.kind in ("spacepoints", "prototracks"):
            check_file_header(measurements_file_of(file.path), "measurements")


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
        folders = file.path.resolve().parents[: 1 if file.row is None else 2]
        if output.resolve() in folders:
            msg = (
                f"--output {output}: is the folder of {file.path.name}, whose measurements file would be overwritten; "
                "choose another folder"
            )
            raise InputDataError(msg)


def check_file(path: Path | None, name: str) -> None:
    """Check that a file can be written. Folders that are missing are made later.

    Parameters
    ----------
    path : Path or None
        The file; None: nothing is to be written.
    name : str
        The option that names it, for the error.

    Raises
    ------
    OSError
        If it can't; the message names the path.
    """
    if path is None:
        return
    if path.is_dir():
        msg = f"{name} {path}: is a folder; expected a file"
        raise OSError(msg)
    check_directory(path.parent, name, path)


def check_figure(path: Path, name: str) -> None:
    """Check that a figure can be drawn to a file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The option that names it, for the error.

    Raises
    ------
    ConfigError
        If there is no such format, or matplotlib is not installed.
    OSError
        If the file can't be written.
    """
    if path.suffix.lower() not in _FIGURES:
        msg = f"{name} {path}: unknown format {path.suffix!r}; expected a name that ends in .png, .pdf or .svg"
        raise ConfigError(msg)
    check_file(path, name)
    if find_spec("matplotlib") is None:
        msg = f'{name} needs matplotlib; install it with: pip install "traccc-py[plots]"'
        raise ConfigError(msg)


def check_directory(folder: Path, name: str, shown: Path | None = None) -> None:
    """Check that files can be written to a folder, or that it can be made.

    Parameters
    ----------
    folder : Path
        The folder.
    name : str
        The option that names it, for the error.
    shown : Path, optional
        Path in the error; by default the folder.

    Raises
    ------
    OSError
        If it can't; the message names the path.
    """
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        msg = f"{name} {shown or folder}: can't be written ({error.strerror} in {there})"
        raise OSError(msg) from error
