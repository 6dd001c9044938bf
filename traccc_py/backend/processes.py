"""What the operating system knows about the server's processes, and how it is to treat their memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

__all__ = [
    "Progress",
    "cpu_seconds",
    "free_memory",
    "keep_freed_memory",
    "limit_memory",
    "living_instances",
    "living_members",
    "make_region_private",
    "shared_region",
    "wait_for_an_end",
]

_ENDED = "ZX"  # states of processes
_REGION_PREFIX = "traccc_py_server_"
_STUB_COMMAND = "triton_python_b"  # as /proc shows it, truncated to 15 characters
_USER_TIME = 11  # index among the fields of /proc/PID/stat after the name; the system time follows
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_MMAP_THRESHOLD = 32 * 1_048_576
_TRIM_THRESHOLD = 1024 * 1_048_576
_STACK = 8 * 1_048_576


class Progress:
    """Tells whether processes still do work: whether they use at least `least` processor time in a `period` [s]."""

    def __init__(self, cpu_seconds: Callable[[], float], period: float, least: float) -> None:
        self._cpu_seconds, self._period, self._least = cpu_seconds, period, least
        self._since, self._used = time.monotonic(), cpu_seconds()

    def has_stalled(self) -> bool:
        """Return whether they used less in the last complete period."""
        if time.monotonic() - self._since < self._period:
            return False
        used = self._cpu_seconds()
        has_stalled = abs(used - self._used) < self._least  # the time of an instance that exited is no longer counted
        self._since, self._used = time.monotonic(), used
        return has_stalled


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, 0 if there is none."""
    with contextlib.suppress(OSError):
        fields_after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields_after_name[_USER_TIME : _USER_TIME + 2])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _living() -> Iterator[tuple[int, str, int, int]]:
    """Yield process id, name, parent and process group of all living processes."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it exited in the meantime
            head, _, rest = (entry / "stat").read_text().rpartition(")")
            state, parent, group = rest.split(None, 3)[:3]
            if state not in _ENDED:
                yield int(entry.name), head.partition("(")[2], int(parent), int(group)


def living_instances(server: int) -> set[int]:
    """Return the process ids of a server's model instances."""
    return {pid for pid, name, parent, _ in _living() if parent == server and name == _STUB_COMMAND}


def living_members(group: int) -> set[int]:
    """Return the living processes of a process group."""
    return {pid for pid, _, _, found in _living() if found == group}


def wait_for_an_end(pids: Iterable[int], seconds: float) -> None:
    """Wait until one of some processes has ended, or for so long [s]."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1e3)


def shared_region(pid: int) -> Path | None:
    """Return the shared memory of a model instance, which its command line names."""
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            if word.startswith(_REGION_PREFIX):
                return Path("/dev/shm") / word
    return None


def make_region_private() -> None:
    """Let no other user read the shared memory of this model instance, which the server has made readable to all."""
    region = shared_region(os.getpid())
    if region is not None:
        region.chmod(0o600)


def allow_many_descriptors() -> None:
    """Let this process and those it starts open as many files and connections as the system lets them.

    At the usual first limit of 1,024 a thousand idle clients keep all others out, and Triton writes a line to its log
    each time one tries.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_memory() -> int:
    """Return how much memory this process could still use, by the machine's and its container's account [bytes]."""
    text = Path("/proc/meminfo").read_text()
    free = _kilobytes(text, "MemAvailable")
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        folder = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free


def use_small_stacks() -> None:
    """Let threads that begin from now on have stacks of 8 MB: `ulimit -s` may say more than the memory allows."""
    threading.stack_size(_STACK)


def limit_memory(more: int) -> None:
    """Let this process have so much memory [bytes] more than now: what asks for more gets a MemoryError.

    Otherwise the system kills the process when there is no memory left, and all that it works on is lost.
    """
    now = _kilobytes(Path("/proc/self/status").read_text(), "VmData")
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + more, most))


def _kilobytes(text: str, name: str) -> int:
    """Return a value of a table of /proc [bytes]."""
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays; return whether that worked.

    Otherwise glibc maps fresh pages for arrays of a few MB, which the kernel has to clear, and unmaps them again.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries have none
    options = {_M_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _M_TRIM_THRESHOLD: _TRIM_THRESHOLD}
    return set_option is not None and all(set_option(name, value) == 1 for name, value in options.items())
