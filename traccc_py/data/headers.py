"""Early checks of event files: they exist, and their headers have the columns needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from traccc_py.data.csv_events import find_event_file
from traccc_py.data.csv_table import check_header
from traccc_py.data.layouts import reading_rules

__all__ = ["check_event_headers", "check_file_header"]


def check_file_header(path: Path | str, kind: str) -> None:
    """Check that a file can be opened and has the columns of its kind; rows are not read.

    Parameters
    ----------
    path : path
        File, plain or gzipped.
    kind : str
        What it holds: ``cells``, ``hits``, ``measurements``, ``spacepoints``, ``tracks`` ...

    Raises
    ------
    InputDataError
        If it can't be read, or lacks a column.
    """
    check_header(path, reading_rules(kind))


def check_event_headers(directory: Path | str, event: int, kinds: Iterable[str]) -> None:
    """Check the files of an event in a folder; parameters and errors as for `find_event_file`, `check_file_header`."""
    for kind in kinds:
        check_file_header(find_event_file(directory, event, kind), kind)
