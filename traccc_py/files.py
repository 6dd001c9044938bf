"""Atomic writing of files, and hashes of contents and of this package's sources."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from errno import EISDIR
from pathlib import Path

__all__ = ["content_digest", "package_sources", "source_digest", "write_files"]

_PACKAGE = Path(__file__).resolve().parent
_GZIP_LEVEL = 4  # higher levels take twice the time for 3 % less


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files atomically: each is complete or absent, and none is written if any can't be.

    All are first written under temporary names in their folders, then renamed in the given order. Files whose names
    end in ``.gz`` are gzipped.

    Parameters
    ----------
    contents : mapping of Path to bytes
        What to write, before compression. Folders are made as needed.

    Raises
    ------
    OSError
        If a file can't be written; no file has been changed.
    """
    suffix = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = {path: path.with_name(f".{path.name}{suffix}") for path in contents}
    try:
        for path, content in contents.items():
            _write(temporary[path], content, path)
            if path.is_dir():  # the only reason for a rename within a folder to fail
                raise IsADirectoryError(EISDIR, "there is a folder of this name", str(path))
        for path in contents:
            temporary[path].replace(path)
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _write(temporary: Path, content: bytes, path: Path) -> None:
    """Write the content of `path` to `temporary`; errors name `path`."""
    # no time stamp: the same content gives the same bytes
    data = gzip.compress(content, _GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def content_digest(*parts: bytes | str) -> str:
    """Return a hash [16 hexadecimal digits] of contents, which includes their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:16]


def package_sources(names: Iterable[str], excluded: Collection[str] = ()) -> list[Path]:
    """Return source files of this package.

    Parameters
    ----------
    names : iterable of str
        Files and folders, such as ``kernels`` and ``data/csv_events.py``; folders mean all their files.
    excluded : collection of str, optional
        Files that are left out.

    Returns
    -------
    list of Path
        The existing files, sorted.
    """
    left_out = {_PACKAGE / name for name in excluded}
    roots = [_PACKAGE / name for name in names]
    paths = {path for root in roots for path in ([root] if root.suffix else root.rglob("*.py"))}
    return sorted(path for path in paths - left_out if path.is_file())


def source_digest(sources: Iterable[Path], *facts: bytes | str) -> str:
    """Return a hash [16 hexadecimal digits] of sources of this package, their names, and facts such as versions."""
    pairs = ((path.relative_to(_PACKAGE).as_posix(), path.read_bytes()) for path in sources)
    return content_digest(*facts, *(part for pair in pairs for part in pair))
