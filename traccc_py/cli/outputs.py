"""Checks that what a command is asked to write can be written, before it starts."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from traccc_py.errors import ConfigError

__all__ = ["check_directory", "check_figure", "check_file"]

_FIGURES = (".png", ".pdf", ".svg")


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
