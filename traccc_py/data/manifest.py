"""`manifest.json`: the content of a folder of simulated events, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from traccc_py.data.csv_events import event_number
from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = ["MANIFEST_NAME", "Manifest", "check_folder", "file_digest", "read_manifest", "write_manifest"]

MANIFEST_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a sample was made, and its content."""

    recipe: dict[str, Any]  #: versions, detector, options and seed: equal recipes give equal files
    events: list[dict[str, int]]  #: number and sizes of each event
    files: dict[str, str]  #: SHA-256 of each file, by name
    format: int = field(default=_FORMAT)  #: version of this format


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest of a folder; its presence means that the sample is complete.

    Parameters
    ----------
    folder : Path
        Folder of the sample.
    manifest : Manifest
        What to write.

    Returns
    -------
    Path
        The file.
    """
    path = folder / MANIFEST_NAME
    write_files({path: (json.dumps(asdict(manifest), indent=1) + "\n").encode()})
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder.

    Raises
    ------
    InputDataError
        If there is none, or it has another format.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}); a sample without a manifest is incomplete"
        raise InputDataError(msg) from error
    except ValueError as error:
        msg = f"{path}: is not valid JSON: {error}"
        raise InputDataError(msg) from error
    names = {f.name for f in fields(Manifest)}
    found = set(content) if isinstance(content, dict) else set()
    if found != names or content["format"] != _FORMAT:
        msg = f"{path}: is not a manifest of format {_FORMAT} with the keys {', '.join(sorted(names))}"
        raise InputDataError(msg)
    return Manifest(**content)


def check_folder(folder: Path) -> list[str]:
    """Compare the files of a folder with its manifest.

    Parameters
    ----------
    folder : Path
        Folder of a sample.

    Returns
    -------
    list of str
        Differences: files that are missing or changed, and event files that are not in the manifest.

    Raises
    ------
    InputDataError
        If the manifest can't be read.
    """
    manifest = read_manifest(folder)
    problems = [_problem(folder / name, digest) for name, digest in manifest.files.items()]
    unknown = sorted(other_event_files(folder, list(manifest.files)))
    return [p for p in problems if p] + [f"{name}: is not in the manifest" for name in unknown]


def _problem(path: Path, digest: str) -> str:
    if not path.is_file():
        return f"{path.name}: is missing"
    found = file_digest(path)
    return "" if found == digest else f"{path.name}: SHA-256 is {found}; the manifest says {digest}"


def other_event_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names of event files in a folder that are not among `names`."""
    if not folder.is_dir():
        return []
    return [
        p.name
        for p in folder.iterdir()
        if ".csv" in p.name and event_number(p) is not None and p.name not in set(names)
    ]
