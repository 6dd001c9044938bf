"""What a service leaves behind if it is killed, and who removes it: processes, shared memory, its folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from traccc_py.errors import ServiceError

__all__ = [
    "CLIENT_PREFIX",
    "FOLDER_PREFIX",
    "SHARED_MEMORY",
    "Janitor",
    "SharedMemoryFiles",
    "free_shared_memory",
    "is_in_use",
    "lock_against_cleaning",
    "remove_leftovers",
]

SHARED_MEMORY = Path("/dev/shm")
CLIENT_PREFIX = "traccc_py_"  #: of the names of regions that clients of this package register
FOLDER_PREFIX = "traccc-py-server-"  #: of the names of servers' folders, among temporary files
_PREFIX = "traccc_py_server_"
_LEAST_AGE = 60.0  # [s] of a folder that is removed: between its making and its lock is a moment
_LOCK = ".lock"


def free_shared_memory() -> int:
    """Return how much shared memory this machine or container has left [bytes]."""
    found = os.statvfs(SHARED_MEMORY)
    return found.f_bavail * found.f_frsize


class SharedMemoryFiles:
    """The shared memory of one server: a prefix of its names, and a lock that lasts as long as its owner.

    The lock tells others, in other containers too, whether these files are still in use.

    Raises
    ------
    ServiceError
        If nothing can be written there.
    """

    def __init__(self) -> None:
        self.prefix = f"{_PREFIX}{secrets.token_hex(8)}_"
        self._path = SHARED_MEMORY / f"{self.prefix}{_LOCK}"
        try:
            self._lock = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            msg = (
                f"{SHARED_MEMORY}, through which tensors pass, can't be written ({error.strerror}); mount a tmpfs there"
            )
            raise ServiceError(msg) from error

    def remove_all(self) -> None:
        """Remove all regions; only when no process of the server lives."""
        for path in SHARED_MEMORY.glob(f"{self.prefix}*"):
            if path != self._path:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything."""
        self.remove_all()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def is_in_use(path: Path) -> bool:
    """Return whether a file of shared memory is of a server whose owner lives."""
    owner = path.name.removeprefix(_PREFIX).partition("_")[0]
    try:
        descriptor = os.open(SHARED_MEMORY / f"{_PREFIX}{owner}_{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def remove_leftovers() -> list[str]:
    """Remove shared memory and folders of servers whose owner is gone; return their names."""
    return sorted(_remove_shared_memory() + _remove_folders())


def _remove_shared_memory() -> list[str]:
    removed = []
    for lock in SHARED_MEMORY.glob(f"{_PREFIX}*{_LOCK}"):
        with contextlib.suppress(OSError):  # another user's, or in use
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in SHARED_MEMORY.glob(f"{lock.name.removesuffix(_LOCK)}*"):
                    path.unlink(missing_ok=True)
                    removed.append(path.name)
            finally:
                os.close(descriptor)
    return removed


def _remove_folders() -> list[str]:
    """Remove folders of this user that nobody has locked; they stay if a service and its janitor were killed."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, no folder, or in use
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_old_and_own(descriptor):
                    shutil.rmtree(folder)
                    removed.append(folder.name)
            finally:
                os.close(descriptor)
    return removed


def _is_old_and_own(descriptor: int) -> bool:
    """Return whether a folder is this user's, and so old that whoever made it has had the time to lock it."""
    found = os.fstat(descriptor)
    return found.st_uid == os.getuid() and time.time() - max(found.st_mtime, found.st_ctime) > _LEAST_AGE


def lock_against_cleaning(folder: Path) -> int:
    """Lock a folder, so that neither systemd-tmpfiles nor another service removes it or its old files.

    Returns
    -------
    int
        Descriptor of the lock. A process that inherits it keeps the folder locked, too.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


# Reads lines until this process ends, however it ends. Then, unless the last line is "done", kills the process groups
# in the lines "group N", if they are still of the server, and removes what the lines "remove PATTERN" name.
_JANITOR = """
import glob, os, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
groups, patterns, line = set(), [], ""
for line in sys.stdin:
    word, _, rest = line.rstrip("\\n").partition(" ")
    if word == "group":
        groups = {int(rest)}
    elif word == "remove":
        patterns.append(rest)
if line != "done\\n":
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
            for _ in range(50):
                os.killpg(group, 0)
                time.sleep(0.1)
        except OSError:
            pass
    for pattern in patterns:
        for path in glob.glob(pattern):
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
"""


class Janitor:
    """A small process that cleans up when this one was killed: SIGKILL leaves no time for it.

    Parameters
    ----------
    patterns : str
        Files and folders to remove then, as `glob` writes them.
    """

    def __init__(self, *patterns: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _JANITOR],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        for pattern in patterns:
            self._tell(f"remove {pattern}")

    def watch_group(self, group: int) -> None:
        """Name the process group of the server, instead of the last one."""
        self._tell(f"group {group}")

    def close(self) -> None:
        """Say that everything was cleaned up."""
        self._tell("done")
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it was killed, too
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
