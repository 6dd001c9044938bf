"""Where compiled kernels are kept, the key that makes a stale one impossible, and files that may be lost at any time.

Numba's own cache looks only at the file of the function it compiles: after an edit of a helper in another file it
returns the old machine code. Here every entry lies in a folder named by a hash over all sources that kernels use and
the versions of the compilers. A process whose sources are edited while it runs no longer knows which text its code
came from; from then on it keeps what it compiles to itself.

A cache only saves time. What can't be read is made anew, what can't be written stays in memory; neither ends a run.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from traccc_py.files import package_sources, source_digest, write_files

__all__ = [
    "cache_directory",
    "cache_root",
    "code_digest",
    "code_directory",
    "is_empty",
    "is_packaged",
    "keep",
    "read_kept",
    "source_hash",
    "take_unkept",
    "unkept",
]

_log = logging.getLogger(__name__)

CACHE_VARIABLE = "TRACCC_PY_CACHE_DIR"
# Folders and files whose code kernels contain; editing others must not cost a compilation.
_COMPILED = (
    *(
        "device",
        "kernels",
        "pipeline/cell_loop.py",
        "pipeline/result_loop.py",
        "data/csv_loops.py",
        "geometry/layer_map.py",
        "geometry/records.py",
    ),
    *("edm/parameters.py", "errors.py", "files.py", "units.py", "workers.py"),
)
# Files among them that launch and allocate, and hold no code that is compiled. A kernel in one would not be kept.
_HOST_ONLY = (
    *("device/__init__.py", "device/base.py", "device/deferred.py", "device/signatures.py", "device/staging.py"),
    *("device/cpu/__init__.py", "device/cpu/executor.py"),
    *("device/cuda/__init__.py", "device/cuda/executor.py", "device/cuda/launch.py"),
)
_COMPILERS = ("numba", "llvmlite", "numpy")  # those for CUDA are named in the entries of `cuda.compile`
_UNUSED_AFTER = 30 * 24 * 3600  # [s]; folders of other versions are removed when not used for that long
_unkept: dict[Path, bytes] = {}  # what could not be written, by file
_LOADED_AT = time.time()  # before any kernel's module is imported: that of `kernel` imports this one


def _version_or_none(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


@cache
def _sources() -> list[Path]:
    """Return the files a kernel's machine code may depend on; those that come later are none of this process."""
    return package_sources(_COMPILED, _HOST_ONLY)


@cache
def source_hash() -> str:
    """Return a hash [16 hexadecimal digits] over the sources that kernels use, Python and the compilers."""
    return code_digest(_sources())


def code_digest(sources: Sequence[Path]) -> str:
    """Return a hash [16 hexadecimal digits] over sources, Python and the compilers."""
    versions = (f"{distribution}={_version_or_none(distribution)}" for distribution in _COMPILERS)
    return source_digest(sources, platform.python_version(), *versions)


def is_packaged(filename: str) -> bool:
    """Return whether a source file is one of those whose edits `source_hash` knows of."""
    return Path(filename).resolve() in _sources()


def _edited_since_loaded(sources: Sequence[Path]) -> bool:
    try:
        return any(path.stat().st_mtime > _LOADED_AT for path in sources)
    except FileNotFoundError:  # it was removed
        return True


@cache
def _private_root() -> Path:
    folder = tempfile.mkdtemp(prefix="traccc_py-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_root() -> Path:
    """Return the folder of all caches: `TRACCC_PY_CACHE_DIR`, else the user's cache, else a temporary folder.

    It need not be there, and if it was chosen or holds code of these sources it need not be writable: `keep` and
    `read_kept` do without.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(base) / "traccc_py"
    return folder if _is_writable(folder) or _holds_code(folder) else _temporary_root()


def _holds_code(folder: Path) -> bool:
    """Return whether a folder has code of exactly these sources."""
    try:
        return any(folder.glob(f"*-{source_hash()}"))
    except OSError:
        return False


def _temporary_root() -> Path:
    """Return a temporary folder that is kept from run to run; if that is another user's, one of this process."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"traccc_py-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == user and _is_writable(folder):  # code of others must not be run
            return folder
    return _private_root()


def is_empty(kind: str) -> bool:
    """Return whether the cache has no code of exactly these sources for a kind of device, such as cpu or cuda."""
    try:
        folders = cache_root().glob(f"{kind}*-{source_hash()}")
        # Files: folders are made before anything is compiled.
        return not any(path.is_file() for folder in folders for path in folder.iterdir())
    except OSError:
        return True


def read_kept(path: Path) -> bytes | None:
    """Return the content of a file of the cache; None if it is not there or can't be read."""
    if path in _unkept:
        return _unkept[path]
    try:
        return path.read_bytes()
    except OSError:
        return None


def keep(contents: Mapping[Path, bytes]) -> None:
    """Write files of the cache, all or none; what can't be written stays in memory, and a first warning says so.

    Parameters
    ----------
    contents : mapping of Path to bytes
        What to write, in this order.
    """
    try:
        for path in contents:
            if path.is_dir():
                path.rmdir()  # if it is empty
        write_files(contents)
    except OSError as error:
        if not _unkept:
            problem = f"{error.filename or next(iter(contents))}: can't be written ({error.strerror})"
            _log.warning("%s; going on without the cache in %s", problem, cache_root())
        _unkept.update(contents)
    else:
        for path in contents:
            _unkept.pop(path, None)


def unkept() -> Mapping[Path, bytes]:
    """Return what could not be written, by file."""
    return _unkept


def take_unkept() -> dict[Path, bytes]:
    """Return what could not be written, and forget it: for a process that works for another one."""
    taken = dict(_unkept)
    _unkept.clear()
    return taken


def cache_directory(kind: str) -> Path:
    """Return (and make, if possible) the cache folder of `kind` for exactly these sources of kernels and compilers."""
    return code_directory(kind, source_hash(), _sources())


def code_directory(kind: str, digest: str, sources: Sequence[Path]) -> Path:
    """Return (and make, if possible) the cache folder of `kind` for what is compiled from `sources`.

    If a source was edited since this process began, the folder is one of its own that ends with the process.
    """
    root = _private_root() if _edited_since_loaded(sources) else cache_root()
    folder = root / f"{kind}-{digest}"
    with contextlib.suppress(OSError):  # `keep` tells of it
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        if is_new:
            _remove_unused(root, kind)
    return folder


def _remove_unused(root: Path, kind: str) -> None:
    """Remove the folders of other sources or compilers that no process has asked for in a long time."""
    for folder in root.glob(f"{kind}-*"):
        with contextlib.suppress(OSError):  # another process was first
            if folder.stat().st_mtime < time.time() - _UNUSED_AFTER:
                shutil.rmtree(folder)
